// One burst in one call: sum what arrives, let candidates fire or leak, list who fired.
//
// The sums are those of propagate_spikes, whose last atomic onto a neuron also tells whether
// something arrives where the sum is 0: no second pass counts. Each neuron is then visited once.
// The potential of one that fires is kept until it is listed; then it is set to 0.
#include "burst_core.h"

#include <algorithm>
#include <cstdint>

#include "burst_kernels.cuh"
#include "handler.h"
#include "propagation_launch.cuh"

namespace brainjax {
namespace burst {

constexpr int64_t kListBlocksPerMultiprocessor = 4;

// The kernels behind those that sum what arrives.
cudaError_t StartDynamics(const propagation::Launcher& launcher, const BurstCall& call) {
  const BurstBatch& batch = call.batch;
  const int64_t tiles = CeilDiv(batch.first.num_neurons, kBurstTile);
  const unsigned brains = static_cast<unsigned>(std::min(batch.size, kMaxGridYZ));
  const dim3 grid(static_cast<unsigned>(tiles), brains);
  cudaError_t error;
  if (batch.rules.batch_threshold >= 0) {
    error = launcher.StartOverlapping(CollectKernel, grid, kBlock, 0, call);
    if (error != cudaSuccess) return error;
    error = launcher.StartOverlapping(AdvanceKernel<true>, grid, kBlock, 0, call);
  } else {
    error = launcher.StartOverlapping(AdvanceKernel<false>, grid, kBlock, 0, call);
  }
  if (error != cudaSuccess) return error;
  const int64_t most = launcher.device.multiprocessors * kListBlocksPerMultiprocessor;
  const int64_t turns = CeilDiv(CeilDiv(tiles, kListedTiles), most);
  const int64_t tiles_per_block = turns * kListedTiles;
  const dim3 lists(static_cast<unsigned>(CeilDiv(tiles, tiles_per_block)), brains);
  return launcher.StartOverlapping(ListKernel, lists, kBlock, 0, call, tiles_per_block);
}

// What comes before the kernels that sum.
cudaError_t StartSending(const propagation::Launcher& launcher, const BurstCall& call) {
  if (call.batch.first.is_driven == nullptr) return cudaSuccess;
  const dim3 grid = launcher.Grid(CeilDiv(call.batch.first.num_neurons, kBlock), call.batch.size);
  SendKernel<<<grid, kBlock, 0, launcher.stream>>>(call);
  return cudaGetLastError();
}

ffi::Error Handler(cudaStream_t stream, BurstOperands operands) {
  BurstCall call;
  BurstBatch& batch = call.batch;
  const ffi::Error invalid = operands.Map(&batch);
  if (invalid.failure() || batch.size == 0) return invalid;
  const Device* device = nullptr;
  cudaError_t error = FindDevice(&device);
  if (error != cudaSuccess) return StatusOf("burst_core", error);
  const propagation::Launcher launcher{*device, stream};
  call.has_sums = operands.synapses.dimensions().back() > 0;
  if (!call.has_sums) {
    ClearKernel<<<launcher.Grid(1, batch.size), 1, 0, stream>>>(call);
    error = cudaGetLastError();
    if (error == cudaSuccess) error = StartDynamics(launcher, call);
    return StatusOf("burst_core", error);
  }
  const propagation::Scratch scratch(operands.propagation_scratch->typed_data(),
                                     operands.propagation_scratch->dimensions().back());
  return operands.WithSpikes([&](const auto& spikes) {
    using W = std::remove_const_t<std::remove_pointer_t<decltype(spikes.first.weights)>>;
    const cudaError_t error = StartSending(launcher, call);
    if (error != cudaSuccess) return StatusOf("burst_core", error);
    const propagation::Marks marks{batch.first.cancelled, batch.num_words + 2 * kBurstParts,
                                   batch.stride};
    const propagation::Call<W> summing{spikes, scratch, marks, operands.sort_from, 0};
    const ffi::Error failed =
        propagation::Propagate<CompressedEvents<W>, true>("burst_core", launcher, summing);
    return failed.failure() ? failed : StatusOf("burst_core", StartDynamics(launcher, call));
  });
}

}  // namespace burst
}  // namespace brainjax

XLA_FFI_DEFINE_HANDLER_SYMBOL(BrainjaxBurstCore, brainjax::Unpacked(brainjax::burst::Handler),
                              brainjax::BurstOperands::Bind().Ctx<brainjax::StreamContext>(),
                              {xla::ffi::Traits::kCmdBufferCompatible});
