// The leading dimensions that vmap gives to an operand.
#ifndef BRAINJAX_BATCH_H_
#define BRAINJAX_BATCH_H_

#include <cstdint>
#include <initializer_list>

#include "xla/ffi/api/ffi.h"

#ifdef __CUDACC__
#define BRAINJAX_HOST_DEVICE __host__ __device__
#define BRAINJAX_FAR_FUNCTION __host__ __device__ __noinline__ inline
#else
#define BRAINJAX_HOST_DEVICE
#define BRAINJAX_FAR_FUNCTION inline
#endif

namespace brainjax {

namespace ffi = xla::ffi;

constexpr int kMaxBatchRank = 6;

// Where batch element b of an operand starts. A leading dimension of size 1 is shared by all
// elements (stride 0), so that a batch of active sets reads one weight matrix.
struct BatchOffsets {
  int rank = 0;
  int64_t extents[kMaxBatchRank] = {};
  int64_t strides[kMaxBatchRank] = {};

  BRAINJAX_HOST_DEVICE int64_t operator()(int64_t b) const {
    if (b == 0) return 0;
    return rank > 1 ? OfManyDimensions(b) : b * strides[0];
  }

 private:
  // Apart, as a kernel that seldom needs it should not carry it along.
  BRAINJAX_FAR_FUNCTION int64_t OfManyDimensions(int64_t b) const {
    int64_t offset = 0;
    uint32_t left = static_cast<uint32_t>(b);  // 64-bit division is slow on a GPU
    for (int d = rank - 1; d > 0; --d) {
      const uint32_t extent = static_cast<uint32_t>(extents[d]);
      offset += (left % extent) * strides[d];
      left /= extent;
    }
    return offset + left * strides[0];
  }
};

using Dimensions = ffi::Span<const int64_t>;

// The dimensions in front of the last `core_rank`.
inline int BatchRank(Dimensions dims, int core_rank) {
  return static_cast<int>(dims.size()) - core_rank;
}

inline int64_t BatchSize(Dimensions dims, int core_rank) {
  int64_t size = 1;
  for (int d = 0; d < BatchRank(dims, core_rank); ++d) size *= dims[d];
  return size;
}

// Computes the offsets of an operand in a call whose result has the batch dimensions in front of
// `result_dims`. Returns false where the two do not fit.
inline bool MapBatch(Dimensions dims, int core_rank, Dimensions result_dims, int result_core_rank,
                     BatchOffsets* offsets) {
  const int rank = BatchRank(dims, core_rank);
  if (rank < 0 || rank > kMaxBatchRank || rank != BatchRank(result_dims, result_core_rank)) {
    return false;
  }
  offsets->rank = rank;
  int64_t stride = 1;
  for (int d = rank; d < static_cast<int>(dims.size()); ++d) stride *= dims[d];
  for (int d = rank - 1; d >= 0; --d) {
    if (dims[d] != 1 && dims[d] != result_dims[d]) return false;
    offsets->extents[d] = result_dims[d];
    offsets->strides[d] = dims[d] == 1 ? 0 : stride;
    stride *= dims[d];
  }
  return true;
}

}  // namespace brainjax

#endif  // BRAINJAX_BATCH_H_
