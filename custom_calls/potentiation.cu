// weights[i, j] = min(weights[i, j] * (1 + beta pre[i] post[j]), w_max) for the listed i and j.
//
// A thread owns one listed postsynaptic neuron j and some of the listed rows. Neighbouring threads
// have ascending j, so that winners close to each other share a sector of memory.
#include "potentiation.h"

#include <algorithm>
#include <cstdint>

#include "handler.h"
#include "launch.h"
#include "strengthen.cuh"

namespace brainjax {
namespace {

constexpr int kThreads = 256;
constexpr int kMinBlocks = 8;  // a multiprocessor: all the threads that it can hold
// Threads, rather than one thread's loads, keep the memory busy: more of either brought nothing.
constexpr int kInFlight = 1;
// Blocks loop beyond these: sets of large capacity are mostly padding, and idle blocks cost time.
constexpr int64_t kMaxColumnBlocks = 4;
constexpr int64_t kMaxRowBlocks = 512;

// The lists are read up to their capacity before the counts are known: one latency less.
template <typename W>
__global__ void __launch_bounds__(kThreads, kMinBlocks)
    PotentiateKernel(const __grid_constant__ Potentiation call) {
  for (int64_t b = blockIdx.z; b < call.batch; b += gridDim.z) {
    const ActiveSet pre = call.pre.At(b), post = call.post.At(b);
    const Plasticity<W> synapses{
        static_cast<W*>(call.weights) + b * call.num_pre * call.num_post, call.num_pre,
        call.num_post, call.betas[call.betas_at(b)], call.w_maxes[call.w_maxes_at(b)]};
    const uint32_t first_row = blockIdx.y * blockDim.y + threadIdx.y;
    const uint32_t columns = gridDim.x * blockDim.x;
    for (uint32_t j = blockIdx.x * blockDim.x + threadIdx.x; j < call.post.capacity;
         j += columns) {
      const int32_t column = post.indices[j];
      const float post_value = post.Value(j);
      StrengthenColumn<kInFlight>(synapses, j < post.count ? column : -1, post_value, pre,
                                  first_row, gridDim.y * blockDim.y, call.pre.capacity);
      if (j >= post.count) break;
    }
  }
}

// Few columns: the threads of a block take several rows.
template <typename W>
ffi::Error Potentiate(cudaStream_t stream, const Potentiation& call) {
  const int64_t columns = std::min<int64_t>(CeilDiv(call.post.capacity, 32) * 32, kThreads);
  const int64_t rows = kThreads / columns;
  const dim3 block(static_cast<unsigned>(columns), static_cast<unsigned>(rows));
  const dim3 grid(
      static_cast<unsigned>(std::min(CeilDiv(call.post.capacity, columns), kMaxColumnBlocks)),
      static_cast<unsigned>(std::min(CeilDiv(call.pre.capacity, rows), kMaxRowBlocks)),
      static_cast<unsigned>(std::min(call.batch, kMaxGridYZ)));
  PotentiateKernel<W><<<grid, block, 0, stream>>>(call);
  return StatusOf("potentiate", cudaGetLastError());
}

ffi::Error Handler(cudaStream_t stream, PotentiationOperands operands) {
  Potentiation call;
  ffi::Error error = operands.Map(&call);
  if (error.failure() || call.batch == 0 || call.pre.capacity == 0 || call.post.capacity == 0) {
    return error;
  }
  return operands.changed->element_type() == ffi::F32 ? Potentiate<float>(stream, call)
                                                      : Potentiate<uint16_t>(stream, call);
}

}  // namespace
}  // namespace brainjax

XLA_FFI_DEFINE_HANDLER_SYMBOL(BrainjaxPotentiate, brainjax::Unpacked(brainjax::Handler),
                              brainjax::PotentiationOperands::Bind().Ctx<brainjax::StreamContext>(),
                              {xla::ffi::Traits::kCmdBufferCompatible});
