// One burst in one call: sum what arrives, let candidates fire or leak, list who fired.
//
// The sums are those of propagate_spikes, whose last atomic onto a neuron also tells whether
// something arrives where the sum is 0: no second pass counts. Each neuron is then visited once, or
// twice where the number of candidates decides by which rules they advance.
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
template <bool kSingle>
cudaError_t StartDynamics(const propagation::Launcher& launcher, const BurstCall& call) {
  const BurstBatch& batch = call.batch;
  const unsigned networks = static_cast<unsigned>(std::min(batch.size, kMaxGridYZ));
  const int64_t num_tiles = batch.NumTiles();
  const int tiles = batch.first.num_neurons <= kSmall ? 1 : kMostTiles;
  const dim3 blocks(static_cast<unsigned>(CeilDiv(num_tiles, tiles)), networks);
  if (batch.rules.batch_threshold < 0) {
    const auto advance = AdvanceKernel<kSingle, false>;
    return launcher.StartOverlapping(advance, blocks, kBlock, 0, call, tiles);
  }
  const dim3 each_tile(static_cast<unsigned>(num_tiles), networks);
  const auto collect = CollectKernel<kSingle>;
  const cudaError_t error = launcher.StartOverlapping(collect, each_tile, kBlock, 0, call);
  if (error != cudaSuccess) return error;
  const auto advance = AdvanceKernel<kSingle, true>;
  return launcher.StartOverlapping(advance, blocks, kBlock, 0, call, tiles);
}

template <typename W>
ffi::Error StartBurst(const propagation::Launcher& launcher, const BurstCall& call,
                      propagation::Call<W> summing) {
  constexpr char kName[] = "burst_core";
  using Events = CompressedEvents<W>;
  if (call.has_sums && !propagation::DivideScratch<Events>(&summing)) {
    return ffi::Error::InvalidArgument("burst_core: too little scratch");
  }
  BeginKernel<W><<<propagation::PreparingGrid<Events>(launcher, summing), kBlock, 0,
                   launcher.stream>>>(call, summing);
  cudaError_t error = cudaGetLastError();
  if (error == cudaSuccess && call.has_sums) {
    error = propagation::StartSums<Events, true>(launcher, summing);
  }
  if (error != cudaSuccess) return StatusOf(kName, error);
  return StatusOf(kName, call.batch.size == 1 ? StartDynamics<true>(launcher, call)
                                              : StartDynamics<false>(launcher, call));
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
    const propagation::Call<W> summing{spikes, scratch, marks, operands.sort_from, 0};
    return StartBurst<W>(launcher, call, summing);
  });
}

}  // namespace burst
}  // namespace brainjax

XLA_FFI_DEFINE_HANDLER_SYMBOL(BrainjaxBurstCore, brainjax::Unpacked(brainjax::burst::Handler),
                              brainjax::BurstOperands::Bind().Ctx<brainjax::StreamContext>(),
                              {xla::ffi::Traits::kCmdBufferCompatible});
