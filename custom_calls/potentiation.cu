// weights[i, j] = min(weights[i, j] * (1 + beta pre[i] post[j]), w_max) for the listed i and j.
//
// A thread owns one listed postsynaptic neuron j and several listed rows i; neighbouring threads
// have ascending j, so that winners close to each other share a sector of memory.
#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "batch.h"
#include "launch.h"
#include "numbers.h"

namespace brainjax {
namespace {

constexpr int kThreads = 128;
constexpr int kInFlight = 4;  // rows that a thread has asked for before it changes the first
// Blocks loop beyond these: sets of large capacity are mostly padding, and idle blocks cost time.
constexpr int64_t kMaxColumnBlocks = 8;
constexpr int64_t kMaxRowBlocks = 256;

// The listed neurons of one batch element.
struct Active {
  const int32_t* indices;
  const float* values;
  int64_t count;
};

// Three operands of an active set, as vmap passes them.
struct ActiveArrays {
  const int32_t* indices;
  const float* values;
  const int32_t* counts;
  BatchOffsets indices_at, values_at, counts_at;
  int64_t capacity;

  __device__ Active At(int64_t b) const {
    return {indices + indices_at(b), values + values_at(b),
            ClampCount(counts[counts_at(b)], capacity)};
  }
};

template <typename W>
struct Problem {
  W* weights;
  ActiveArrays pre, post;
  const float* betas;
  const float* w_maxes;
  BatchOffsets betas_at, w_maxes_at;
  int64_t batch, num_pre, num_post;
};

template <typename W>
__device__ void Strengthen(W* weight, float old, float pre_value, float post_value, float beta,
                           float w_max) {
  const float gain = __fmul_rn(beta, __fmul_rn(pre_value, post_value));
  const float strengthened = __fmul_rn(old, __fadd_rn(1.0f, gain));
  Round(strengthened > w_max ? w_max : strengthened, weight);
}

// Column `column` of the listed rows first, first + step, first + 2 step ...
template <typename W>
__device__ void StrengthenColumn(W* column, float post_value, const Active& pre, int64_t first,
                                 int64_t step, int64_t num_pre, int64_t num_post, float beta,
                                 float w_max) {
  for (int64_t i = first; i < pre.count; i += kInFlight * step) {
    W* weights[kInFlight];
    float old[kInFlight];
    float pre_values[kInFlight];
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      weights[u] = nullptr;
      if (i + u * step >= pre.count) continue;
      const int32_t row = __ldg(pre.indices + i + u * step);
      if (row < 0 || row >= num_pre) continue;
      weights[u] = column + row * num_post;
      pre_values[u] = __ldg(pre.values + i + u * step);
      old[u] = ToFloat(*weights[u]);
    }
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      if (weights[u] == nullptr) continue;
      Strengthen(weights[u], old[u], pre_values[u], post_value, beta, w_max);
    }
  }
}

template <typename W>
__global__ void __launch_bounds__(kThreads)
    PotentiateKernel(const __grid_constant__ Problem<W> problem) {
  for (int64_t b = blockIdx.z; b < problem.batch; b += gridDim.z) {
    const Active pre = problem.pre.At(b), post = problem.post.At(b);
    const float beta = problem.betas[problem.betas_at(b)];
    const float w_max = problem.w_maxes[problem.w_maxes_at(b)];
    W* weights = problem.weights + b * problem.num_pre * problem.num_post;
    const int64_t threads = int64_t{gridDim.x} * kThreads;
    for (int64_t j = int64_t{blockIdx.x} * kThreads + threadIdx.x; j < post.count; j += threads) {
      const int32_t column = __ldg(post.indices + j);
      if (column < 0 || column >= problem.num_post) continue;
      StrengthenColumn(weights + column, __ldg(post.values + j), pre, blockIdx.y, gridDim.y,
                       problem.num_pre, problem.num_post, beta, w_max);
    }
  }
}

template <typename W>
ffi::Error Potentiate(cudaStream_t stream, const Problem<W>& problem) {
  if (problem.batch == 0 || problem.pre.capacity == 0 || problem.post.capacity == 0) {
    return ffi::Error::Success();
  }
  const dim3 grid(
      static_cast<unsigned>(std::min(CeilDiv(problem.post.capacity, kThreads), kMaxColumnBlocks)),
      static_cast<unsigned>(std::min(problem.pre.capacity, kMaxRowBlocks)),
      static_cast<unsigned>(std::min(problem.batch, kMaxGridYZ)));
  PotentiateKernel<W><<<grid, kThreads, 0, stream>>>(problem);
  return StatusOf("potentiate", cudaGetLastError());
}

// Describes an active set to the kernel. Returns false where its dimensions do not fit.
bool MapActive(ffi::Buffer<ffi::S32> indices, ffi::Buffer<ffi::F32> values,
               ffi::Buffer<ffi::S32> counts, Dimensions result, ActiveArrays* arrays) {
  if (!MapBatch(indices.dimensions(), 1, result, 2, &arrays->indices_at) ||
      !MapBatch(values.dimensions(), 1, result, 2, &arrays->values_at) ||
      !MapBatch(counts.dimensions(), 0, result, 2, &arrays->counts_at) ||
      indices.dimensions().back() != values.dimensions().back()) {
    return false;
  }
  arrays->indices = indices.typed_data();
  arrays->values = values.typed_data();
  arrays->counts = counts.typed_data();
  arrays->capacity = indices.dimensions().back();
  return true;
}

ffi::Error Handler(cudaStream_t stream, ffi::AnyBuffer weights, ffi::Buffer<ffi::S32> pre_indices,
                   ffi::Buffer<ffi::F32> pre_values, ffi::Buffer<ffi::S32> pre_counts,
                   ffi::Buffer<ffi::S32> post_indices, ffi::Buffer<ffi::F32> post_values,
                   ffi::Buffer<ffi::S32> post_counts, ffi::Buffer<ffi::F32> betas,
                   ffi::Buffer<ffi::F32> w_maxes, ffi::Result<ffi::AnyBuffer> changed) {
  const Dimensions result = changed->dimensions();
  ActiveArrays pre, post;
  BatchOffsets betas_at, w_maxes_at;
  if (!MapActive(pre_indices, pre_values, pre_counts, result, &pre) ||
      !MapActive(post_indices, post_values, post_counts, result, &post) ||
      !MapBatch(betas.dimensions(), 0, result, 2, &betas_at) ||
      !MapBatch(w_maxes.dimensions(), 0, result, 2, &w_maxes_at)) {
    return ffi::Error::InvalidArgument("potentiate: dimensions of the operands do not fit");
  }
  // XLA copies the old weights into the result first, where it could not alias the two.
  if (weights.untyped_data() != changed->untyped_data()) {
    return ffi::Error::Internal("potentiate: weights must be updated in place");
  }
  auto run = [&](auto* typed_weights) {
    return Potentiate(stream, Problem<std::remove_pointer_t<decltype(typed_weights)>>{
                                  typed_weights, pre, post, betas.typed_data(),
                                  w_maxes.typed_data(), betas_at, w_maxes_at,
                                  BatchSize(result, 2), result[result.size() - 2],
                                  result.back()});
  };
  switch (changed->element_type()) {
    case ffi::F32: return run(static_cast<float*>(changed->untyped_data()));
    case ffi::BF16: return run(static_cast<uint16_t*>(changed->untyped_data()));
    default: return ffi::Error::InvalidArgument("potentiate: weights must be F32 or BF16");
  }
}

}  // namespace
}  // namespace brainjax

XLA_FFI_DEFINE_HANDLER_SYMBOL(BrainjaxPotentiate, brainjax::Handler,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::PlatformStream<cudaStream_t>>()
                                  .Arg<xla::ffi::AnyBuffer>()                // weights
                                  .Arg<xla::ffi::Buffer<xla::ffi::S32>>()    // pre indices
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()    // pre values
                                  .Arg<xla::ffi::Buffer<xla::ffi::S32>>()    // pre count
                                  .Arg<xla::ffi::Buffer<xla::ffi::S32>>()    // post indices
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()    // post values
                                  .Arg<xla::ffi::Buffer<xla::ffi::S32>>()    // post count
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()    // beta
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()    // w_max
                                  .Ret<xla::ffi::AnyBuffer>(),               // weights
                              {xla::ffi::Traits::kCmdBufferCompatible});
