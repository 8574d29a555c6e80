// sums[j] = sum over the synapses from an active i onto j of round(2^S * values[i] * weight); where
// they are many, also as floats, times 2^-S.
#include <cstdint>

#include "handler.h"
#include "propagation_launch.cuh"
#include "propagation_together.cuh"

namespace brainjax {
namespace propagation {

// Whether every row starts at a multiple of 16 bytes, or of four weights.
template <typename W>
bool HasAlignedRows(const Propagation<W>& problem) {
  return problem.fan_out % 4 == 0 && reinterpret_cast<uintptr_t>(problem.indices) % 16 == 0 &&
         reinterpret_cast<uintptr_t>(problem.weights) % (4 * sizeof(W)) == 0;
}

template <typename Events>
cudaError_t StartApart(const Launcher& launcher, const Call<typename Events::Weight>& call) {
  const bool may_sort = call.sort_from > 0;
  if (Events::kCounted || !may_sort) {
    PrepareKernel<<<PreparingGrid<Events>(launcher, call), kThreads, 0, launcher.stream>>>(
        call, !may_sort, Events::kCounted);
    if (cudaError_t error = cudaGetLastError()) return error;
  }
  return StartSums<Events, false>(launcher, call);
}

// With `together`, there is scratch for a single launch, which sums one problem.
template <typename Events>
ffi::Error Start(const Launcher& launcher, Call<typename Events::Weight> call, bool together) {
  constexpr char kName[] = "propagate_spikes";
  if (!DivideScratch<Events>(&call)) {
    return ffi::Error::InvalidArgument("propagate_spikes: too little scratch");
  }
  if constexpr (!Events::kCounted) {
    if (together && call.batch.size == 1) {
      const TogetherPlan plan = TogetherPlan::Of(launcher.device, call);
      if (plan.Fits(launcher.device)) {
        return StatusOf(kName, StartTogether<Events>(launcher, call, plan));
      }
    }
  }
  return StatusOf(kName, StartApart<Events>(launcher, call));
}

ffi::Error Handler(cudaStream_t stream, PropagationOperands operands) {
  const Device* device = nullptr;
  const cudaError_t error = FindDevice(&device);
  if (error != cudaSuccess) return StatusOf("propagate_spikes", error);
  const Launcher launcher{*device, stream};
  const Scratch scratch(operands.scratch->typed_data(), operands.scratch->dimensions().back());
  return operands.With([&](const auto& batch) {
    using W = std::remove_const_t<std::remove_pointer_t<decltype(batch.first.weights)>>;
    if (batch.size == 0 || batch.first.num_post == 0) return ffi::Error::Success();
    const Call<W> call{batch, scratch, {}, {}, false, operands.sort_from, false, 0};
    const bool together = operands.together;
    if (!operands.fixed_fan_out) return Start<CompressedEvents<W>>(launcher, call, together);
    return HasAlignedRows(batch.first) ? Start<FanOutEvents<W, 4>>(launcher, call, together)
                                       : Start<FanOutEvents<W, 1>>(launcher, call, together);
  });
}

}  // namespace propagation
}  // namespace brainjax

XLA_FFI_DEFINE_HANDLER_SYMBOL(BrainjaxPropagateSpikes,
                              brainjax::Unpacked(brainjax::propagation::Handler),
                              brainjax::PropagationOperands::Bind().Ctx<brainjax::StreamContext>(),
                              {xla::ffi::Traits::kCmdBufferCompatible});
