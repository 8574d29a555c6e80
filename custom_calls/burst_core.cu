// One burst in one call: sum what arrives, let candidates fire or leak, list who fired.
//
// The sums are those of propagate_spikes, with who is reached: see propagation_call.cuh. Each
// neuron is then visited once, or twice where the number of candidates decides by which rules they
// advance.
#include "burst_core.h"

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "burst_kernels.cuh"
#include "handler.h"
#include "propagation_launch.cuh"

namespace brainjax {
namespace burst {

// The kernels behind those that sum what arrives.
template <bool kSingle, int kWidth>
cudaError_t StartDynamics(const propagation::Launcher& launcher, const BurstCall& call) {
  const BurstBatch& batch = call.batch;
  const auto start = [&](auto kernel, int64_t neurons_of_block, int threads) {
    const dim3 grid(
        static_cast<unsigned>(CeilDiv(batch.first.num_neurons, neurons_of_block)),
        static_cast<unsigned>(std::min(batch.size, kMaxGridYZ)));
    return launcher.StartOverlapping(kernel, grid, threads, 0, call);
  };
  constexpr int64_t kOfBlock = kBlock * kWidth;
  cudaError_t error = cudaSuccess;
  if (batch.rules.batch_threshold < 0) {
    error = start(AdvanceKernel<kSingle, kWidth, false>, kOfBlock, kBlock);
  } else {
    error = start(CollectKernel<kSingle, kWidth>, kOfBlock, kBlock);
    if (error != cudaSuccess) return error;
    error = start(AdvanceKernel<kSingle, kWidth, true>, kOfBlock, kBlock);
  }
  if (error != cudaSuccess) return error;
  return start(ListKernel<kSingle>, kListers * kBurstWord, kListers);
}

// Networks of a batch begin anywhere in their arrays, so none of their neurons are read together.
cudaError_t StartDynamics(const propagation::Launcher& launcher, const BurstCall& call) {
  if (call.batch.size > 1) return StartDynamics<false, 1>(launcher, call);
  return call.batch.first.num_neurons <= kSmall ? StartDynamics<true, 1>(launcher, call)
                                                : StartDynamics<true, kNeighbours>(launcher, call);
}

template <typename W>
ffi::Error StartBurst(const propagation::Launcher& launcher, const BurstCall& call,
                      propagation::Call<W> summing) {
  constexpr char kName[] = "burst_core";
  using Events = CompressedEvents<W>;
  if (call.has_sums && !propagation::DivideScratch<Events>(&summing)) {
    return ffi::Error::InvalidArgument("burst_core: too little scratch");
  }
  const auto begin = call.batch.size == 1 ? BeginKernel<true, W> : BeginKernel<false, W>;
  begin<<<propagation::PreparingGrid<Events>(launcher, summing), propagation::kThreads, 0,
          launcher.stream>>>(call, summing);
  cudaError_t error = cudaGetLastError();
  if (error == cudaSuccess && call.has_sums) {
    error = propagation::StartSums<Events, true>(launcher, summing);
  }
  if (error != cudaSuccess) return StatusOf(kName, error);
  return StatusOf(kName, StartDynamics(launcher, call));
}

ffi::Error Handler(cudaStream_t stream, BurstOperands operands) {
  BurstCall call;
  BurstBatch& batch = call.batch;
  const ffi::Error invalid = operands.Map(&batch);
  if (invalid.failure() || batch.size == 0 || batch.first.num_neurons == 0) return invalid;
  const Device* device = nullptr;
  const cudaError_t error = FindDevice(&device);
  if (error != cudaSuccess) return StatusOf("burst_core", error);
  const propagation::Launcher launcher{*device, stream};
  call.has_sums = operands.synapses.dimensions().back() > 0;
  const propagation::Scratch scratch(operands.propagation_scratch->typed_data(),
                                     operands.propagation_scratch->dimensions().back());
  return operands.WithSpikes([&](const auto& spikes) {
    using W = std::remove_const_t<std::remove_pointer_t<decltype(spikes.first.weights)>>;
    const propagation::Marks marks{batch.first.cancelled, batch.stride};
    propagation::Tallies tallies{};
    if (operands.sort_from == 0) {
      tallies = {reinterpret_cast<unsigned long long*>(operands.tallies->typed_data()),
                 batch.first.num_neurons};
      batch.first.tallies = tallies.first;
    }
    const bool sends = batch.first.is_driven != nullptr;
    const propagation::Call<W> summing{spikes, scratch, marks, tallies, sends,
                                       operands.sort_from, 0};
    return StartBurst<W>(launcher, call, summing);
  });
}

}  // namespace burst
}  // namespace brainjax

XLA_FFI_DEFINE_HANDLER_SYMBOL(BrainjaxBurstCore, brainjax::Unpacked(brainjax::burst::Handler),
                              brainjax::BurstOperands::Bind().Ctx<brainjax::StreamContext>(),
                              {xla::ffi::Traits::kCmdBufferCompatible});
