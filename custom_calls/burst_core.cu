// One burst in one call: sum what arrives, let candidates fire or leak, list who fired.
//
// The sums are those of propagate_spikes, with who is reached: see propagation_call.cuh. Each
// neuron is then visited once, or twice where the number of candidates decides by which rules they
// advance. A small network does with one launch: see burst_together.cuh.
#include "burst_core.h"

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "burst_kernels.cuh"
#include "burst_together.cuh"
#include "handler.h"
#include "propagation_launch.cuh"

namespace brainjax {
namespace burst {

// Starts a kernel of which each block looks after some neurons.
template <typename Kernel>
cudaError_t StartOnNeurons(const propagation::Launcher& launcher, const BurstCall& call,
                           Kernel kernel, int64_t neurons_of_block, int threads) {
  const dim3 grid(
      static_cast<unsigned>(CeilDiv(call.batch.first.num_neurons, neurons_of_block)),
      static_cast<unsigned>(std::min(call.batch.size, kMaxGridYZ)));
  return launcher.StartOverlapping(kernel, grid, threads, 0, call);
}

template <bool kSingle>
cudaError_t StartList(const propagation::Launcher& launcher, const BurstCall& call) {
  return StartOnNeurons(launcher, call, ListKernel<kSingle>, kListers * kBurstWord, kListers);
}

// The kernels behind those that sum what arrives.
template <bool kSingle, int kWidth>
cudaError_t StartDynamics(const propagation::Launcher& launcher, const BurstCall& call) {
  const auto start = [&](auto kernel) {
    return StartOnNeurons(launcher, call, kernel, kBlock * kWidth, kBlock);
  };
  cudaError_t error = cudaSuccess;
  if (call.batch.rules.batch_threshold < 0) {
    error = start(AdvanceKernel<kSingle, kWidth, false>);
  } else {
    error = start(CollectKernel<kSingle, kWidth>);
    if (error != cudaSuccess) return error;
    error = start(AdvanceKernel<kSingle, kWidth, true>);
  }
  if (error != cudaSuccess) return error;
  return StartList<kSingle>(launcher, call);
}

// Networks of a batch begin anywhere in their arrays, so none of their neurons are read together.
cudaError_t StartDynamics(const propagation::Launcher& launcher, const BurstCall& call) {
  if (call.batch.size > 1) return StartDynamics<false, 1>(launcher, call);
  return call.batch.first.num_neurons <= kOneEach ? StartDynamics<true, 1>(launcher, call)
                                                : StartDynamics<true, kNeighbours>(launcher, call);
}

// Whether neurons can advance as soon as their slice is added up: what is not sorted must be known
// before, and by which rules they advance. Networks of a batch begin anywhere in their arrays.
template <typename W>
bool AdvancesSlices(const BurstCall& call, const propagation::Call<W>& summing) {
  const bool may_differ = std::is_same_v<W, UnitWeight> && summing.awaits_values;
  return summing.sort_from > 0 && call.batch.size == 1 && !may_differ &&
         call.batch.rules.batch_threshold < 0;
}

// The kernels behind the first where that is so.
template <typename W>
cudaError_t StartSlices(const propagation::Launcher& launcher, const BurstCall& call,
                        propagation::Call<W> summing) {
  using Events = CompressedEvents<W>;
  constexpr int64_t kStagingBytes = sizeof(SliceStagings);
  summing.adds_rest_first = true;
  propagation::FitToDevice<Events>(launcher, kStagingBytes, &summing);
  cudaError_t error = propagation::StartSort<Events>(launcher, summing);
  if (error != cudaSuccess) return error;
  error = propagation::StartRest<Events, propagation::MarkingAdder>(launcher, summing);
  if (error != cudaSuccess) return error;
  const propagation::Slices& slices = summing.scratch.slices;
  // Blocks stay for all their slices, and so read once what there is to sum.
  const int blocks = std::min(slices.count, propagation::SumBlocks(launcher.device));
  error = launcher.StartOverlapping(AdvanceSlicesKernel<W>, blocks, propagation::kSumThreads,
                                    kStagingBytes + propagation::SliceBytes(slices), call, summing);
  if (error != cudaSuccess) return error;
  return StartList<true>(launcher, call);
}

template <typename W>
cudaError_t StartBurst(const propagation::Launcher& launcher, const BurstCall& call,
                       const propagation::Call<W>& summing) {
  using Events = CompressedEvents<W>;
  if (RunsTogether(launcher.device, call, summing)) return StartTogether(launcher, call, summing);
  const auto begin = call.batch.size == 1 ? BeginKernel<true, W> : BeginKernel<false, W>;
  begin<<<propagation::PreparingGrid<Events>(launcher, summing), propagation::kThreads, 0,
          launcher.stream>>>(call, summing);
  cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) return error;
  if (call.has_sums) {
    if (AdvancesSlices(call, summing)) return StartSlices(launcher, call, summing);
    error = propagation::StartSums<Events, true>(launcher, summing);
    if (error != cudaSuccess) return error;
  }
  return StartDynamics(launcher, call);
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
    propagation::Call<W> summing{spikes, scratch, marks, tallies, sends, operands.sort_from,
                                 false, 0};
    if (call.has_sums && !propagation::DivideScratch<CompressedEvents<W>>(&summing)) {
      return ffi::Error::InvalidArgument("burst_core: too little scratch");
    }
    return StatusOf("burst_core", StartBurst(launcher, call, summing));
  });
}

}  // namespace burst
}  // namespace brainjax

XLA_FFI_DEFINE_HANDLER_SYMBOL(BrainjaxBurstCore, brainjax::Unpacked(brainjax::burst::Handler),
                              brainjax::BurstOperands::Bind().Ctx<brainjax::StreamContext>(),
                              {xla::ffi::Traits::kCmdBufferCompatible});
