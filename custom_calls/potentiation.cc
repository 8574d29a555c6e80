// weights[i, j] = min(weights[i, j] * (1 + beta pre[i] post[j]), w_max) for the listed i and j.
#include <cstdint>

#include "batch.h"
#include "numbers.h"
#include "parallel.h"

namespace brainjax {
namespace {

constexpr int64_t kParallelSynapses = 1 << 12;  // fewer are changed faster than a thread wakes
constexpr int64_t kRowsPerTask = 8;

// The listed neurons of one batch element.
struct Active {
  const int32_t* indices;
  const float* values;
  int64_t count;
};

template <typename W>
void StrengthenRow(W* row, float pre_value, const Active& post, int64_t num_post, float beta,
                   float w_max) {
  for (int64_t j = 0; j < post.count; ++j) {
    const int32_t column = post.indices[j];
    if (column < 0 || column >= num_post) continue;
    const float factor = 1.0f + beta * (pre_value * post.values[j]);
    const float strengthened = ToFloat(row[column]) * factor;
    Round(strengthened > w_max ? w_max : strengthened, &row[column]);
  }
}

// Three operands of an active set, as vmap passes them.
struct ActiveBuffers {
  ffi::Buffer<ffi::S32> indices;
  ffi::Buffer<ffi::F32> values;
  ffi::Buffer<ffi::S32> counts;
  BatchOffsets indices_at, values_at, counts_at;

  bool Map(Dimensions result) {
    return MapBatch(indices.dimensions(), 1, result, 2, &indices_at) &&
           MapBatch(values.dimensions(), 1, result, 2, &values_at) &&
           MapBatch(counts.dimensions(), 0, result, 2, &counts_at) &&
           indices.dimensions().back() == values.dimensions().back();
  }

  int64_t capacity() const { return indices.dimensions().back(); }

  Active At(int64_t b) const {
    const int64_t count = counts.typed_data()[counts_at(b)];
    return {indices.typed_data() + indices_at(b), values.typed_data() + values_at(b),
            std::clamp<int64_t>(count, 0, capacity())};
  }
};

template <typename W>
void Potentiate(ffi::ThreadPool& pool, W* weights, int64_t num_pre, int64_t num_post,
                int64_t batch, const ActiveBuffers& pre_sets, const ActiveBuffers& post_sets,
                const float* betas, const BatchOffsets& betas_at, const float* w_maxes,
                const BatchOffsets& w_maxes_at) {
  const int64_t tasks = (pre_sets.capacity() + kRowsPerTask - 1) / kRowsPerTask;
  auto strengthen = [&](int64_t item) {
    const int64_t b = item / tasks;
    const Active pre = pre_sets.At(b), post = post_sets.At(b);
    const float beta = betas[betas_at(b)], w_max = w_maxes[w_maxes_at(b)];
    const int64_t first = item % tasks * kRowsPerTask;
    for (int64_t i = first; i < std::min(first + kRowsPerTask, pre.count); ++i) {
      if (pre.indices[i] < 0 || pre.indices[i] >= num_pre) continue;
      W* row = weights + (b * num_pre + pre.indices[i]) * num_post;
      StrengthenRow(row, pre.values[i], post, num_post, beta, w_max);
    }
  };
  const int64_t items = batch * tasks;
  if (items * kRowsPerTask * post_sets.capacity() < kParallelSynapses) {
    for (int64_t item = 0; item < items; ++item) strengthen(item);
  } else {
    ParallelFor(pool, items, strengthen);
  }
}

ffi::Error Handler(ffi::ThreadPool pool, ffi::AnyBuffer weights,
                   ffi::Buffer<ffi::S32> pre_indices, ffi::Buffer<ffi::F32> pre_values,
                   ffi::Buffer<ffi::S32> pre_counts, ffi::Buffer<ffi::S32> post_indices,
                   ffi::Buffer<ffi::F32> post_values, ffi::Buffer<ffi::S32> post_counts,
                   ffi::Buffer<ffi::F32> betas, ffi::Buffer<ffi::F32> w_maxes,
                   ffi::Result<ffi::AnyBuffer> changed) {
  const Dimensions result = changed->dimensions();
  ActiveBuffers pre{pre_indices, pre_values, pre_counts, {}, {}, {}};
  ActiveBuffers post{post_indices, post_values, post_counts, {}, {}, {}};
  BatchOffsets betas_at, w_maxes_at;
  if (!pre.Map(result) || !post.Map(result) ||
      !MapBatch(betas.dimensions(), 0, result, 2, &betas_at) ||
      !MapBatch(w_maxes.dimensions(), 0, result, 2, &w_maxes_at)) {
    return ffi::Error::InvalidArgument("potentiate: dimensions of the operands do not fit");
  }
  // XLA copies the old weights into the result first, where it could not alias the two.
  if (weights.untyped_data() != changed->untyped_data()) {
    return ffi::Error::Internal("potentiate: weights must be updated in place");
  }
  const int64_t num_post = result.back();
  const int64_t num_pre = result[result.size() - 2];
  auto run = [&](auto* typed_weights) {
    Potentiate(pool, typed_weights, num_pre, num_post, BatchSize(result, 2), pre, post,
               betas.typed_data(), betas_at, w_maxes.typed_data(), w_maxes_at);
    return ffi::Error::Success();
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
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::AnyBuffer>()                // weights
                                  .Arg<xla::ffi::Buffer<xla::ffi::S32>>()    // pre indices
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()    // pre values
                                  .Arg<xla::ffi::Buffer<xla::ffi::S32>>()    // pre count
                                  .Arg<xla::ffi::Buffer<xla::ffi::S32>>()    // post indices
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()    // post values
                                  .Arg<xla::ffi::Buffer<xla::ffi::S32>>()    // post count
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()    // beta
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()    // w_max
                                  .Ret<xla::ffi::AnyBuffer>());              // weights
