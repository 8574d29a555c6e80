// received[j] = sum of values[i] * weights[rows[i], j]: see accumulation.h for the order.
//
// A block owns a strip of columns of one batch element.
#include "accumulation.h"

#include <algorithm>
#include <cstdint>

#include "handler.h"
#include "launch.h"
#include "row_sums.cuh"

namespace brainjax {
namespace {

constexpr int kThreads = 256;
constexpr int kMinBlocks = 4;  // a multiprocessor
constexpr int kInFlight = 4;   // 64 KB on their way to a multiprocessor; more brought nothing
constexpr int64_t kEnoughBlocks = 256;
constexpr int64_t kEnoughWideBlocks = 384;

// Axes of the grid: strips, then batch elements. A shared matrix: the other way round, so that
// neighbouring blocks read the same columns and the cache serves rows that several sets list.
template <typename L>
__global__ void __launch_bounds__(L::kThreads, kMinBlocks)
    AccumulateKernel(const __grid_constant__ Accumulation call) {
  __shared__ StripWorkspace<L> workspace;
  const int64_t strips = CeilDiv(call.num_post, L::kColumns);
  const int64_t items = call.weights_shared ? strips : call.batch;
  for (int64_t item = blockIdx.y; item < items; item += gridDim.y) {
    const int64_t b = call.weights_shared ? blockIdx.x : item;
    const int64_t start = (call.weights_shared ? item : blockIdx.x) * L::kColumns;
    const int64_t end = start + L::kColumns < call.num_post ? start + L::kColumns : call.num_post;
    float* received = call.received + b * call.num_post;
    SumColumns<L>(
        ListedRows<typename L::W>{
            static_cast<const typename L::W*>(call.weights) + call.weights_at(b), call.num_pre,
            call.num_post, call.rows.indices + call.rows.indices_at(b),
            call.rows.values + call.rows.values_at(b), call.rows.counts + call.rows.counts_at(b),
            call.rows.capacity},
        start, end, workspace, [&](int64_t column, float sum) { received[column] = sum; });
  }
}

template <typename L>
ffi::Error Launch(cudaStream_t stream, const Accumulation& call) {
  const int64_t strips = CeilDiv(call.num_post, L::kColumns);
  const int64_t x = call.weights_shared ? call.batch : strips;
  const int64_t y = std::min(call.weights_shared ? strips : call.batch, kMaxGridYZ);
  if (x > kMaxGridX) return ffi::Error::InvalidArgument("accumulate_rows: too large");
  const dim3 grid(static_cast<unsigned>(x), static_cast<unsigned>(y));
  AccumulateKernel<L><<<grid, L::kThreads, 0, stream>>>(call);
  return StatusOf("accumulate_rows", cudaGetLastError());
}

// The widest strips of which there are enough to occupy all multiprocessors. Few groups of threads
// suit many blocks: what is left to add when the rows have been read is less.
template <typename W, bool kAligned>
ffi::Error ChooseLayout(cudaStream_t stream, const Accumulation& call) {
  using Wide = StripLayout<W, kThreads, 8, kAligned, kInFlight>;
  using Middle = StripLayout<W, kThreads, 16, kAligned, kInFlight>;
  using Narrow = StripLayout<W, kThreads, 32, kAligned, kInFlight>;
  auto blocks = [&](int columns) { return CeilDiv(call.num_post, columns) * call.batch; };
  // Elsewhere the sums of wide strips would not fit into the registers.
  if constexpr (sizeof(W) == 4 && kAligned) {
    if (blocks(Wide::kColumns) >= kEnoughWideBlocks) return Launch<Wide>(stream, call);
  }
  if (blocks(Middle::kColumns) >= kEnoughBlocks) return Launch<Middle>(stream, call);
  return Launch<Narrow>(stream, call);
}

template <typename W>
ffi::Error Accumulate(cudaStream_t stream, const Accumulation& call) {
  const uintptr_t misaligned =
      reinterpret_cast<uintptr_t>(call.weights) | (call.num_post * sizeof(W));
  return misaligned % 16 == 0 ? ChooseLayout<W, true>(stream, call)
                              : ChooseLayout<W, false>(stream, call);
}

ffi::Error Handler(cudaStream_t stream, AccumulationOperands operands) {
  Accumulation call;
  ffi::Error error = operands.Map(&call);
  if (error.failure() || call.batch == 0 || call.num_post == 0) return error;
  return operands.weights.element_type() == ffi::F32 ? Accumulate<float>(stream, call)
                                                     : Accumulate<uint16_t>(stream, call);
}

}  // namespace
}  // namespace brainjax

XLA_FFI_DEFINE_HANDLER_SYMBOL(BrainjaxAccumulateRows, brainjax::Unpacked(brainjax::Handler),
                              brainjax::AccumulationOperands::Bind().Ctx<brainjax::StreamContext>(),
                              {xla::ffi::Traits::kCmdBufferCompatible});
