// weights[i, j] = min(weights[i, j] * (1 + beta pre[i] post[j]), w_max) for the listed i and j.
#include "potentiation.h"

#include <algorithm>
#include <cstdint>

#include "handler.h"
#include "numbers.h"
#include "parallel.h"

namespace brainjax {
namespace {

constexpr int64_t kParallelSynapses = 1 << 12;  // fewer are changed faster than a thread wakes
constexpr int64_t kRowsPerTask = 8;

template <typename W>
void StrengthenRow(W* row, float pre_value, const ActiveSet& post, int64_t num_post, float beta,
                   float w_max) {
  for (int64_t j = 0; j < post.count; ++j) {
    const int32_t column = post.indices[j];
    if (column < 0 || column >= num_post) continue;
    const float factor = 1.0f + beta * (pre_value * post.Value(j));
    const float strengthened = ToFloat(row[column]) * factor;
    Round(strengthened > w_max ? w_max : strengthened, &row[column]);
  }
}

// The listed rows [first, first + kRowsPerTask) of element b of the batch.
template <typename W>
void StrengthenRows(const Potentiation& call, int64_t b, int64_t first) {
  const ActiveSet pre = call.pre.At(b), post = call.post.At(b);
  const float beta = call.betas[call.betas_at(b)], w_max = call.w_maxes[call.w_maxes_at(b)];
  W* weights = static_cast<W*>(call.weights) + b * call.num_pre * call.num_post;
  for (int64_t i = first; i < std::min(first + kRowsPerTask, pre.count); ++i) {
    const int64_t row = pre.indices[i];
    if (row < 0 || row >= call.num_pre) continue;
    StrengthenRow(weights + row * call.num_post, pre.Value(i), post, call.num_post, beta, w_max);
  }
}

template <typename W>
void PotentiateBatch(ffi::ThreadPool& pool, const Potentiation& call) {
  const int64_t tasks = (call.pre.capacity + kRowsPerTask - 1) / kRowsPerTask;
  const int64_t items = call.batch * tasks;
  auto strengthen = [&](int64_t item) {
    StrengthenRows<W>(call, item / tasks, item % tasks * kRowsPerTask);
  };
  ParallelFor(pool, items, strengthen,
              items * kRowsPerTask * call.post.capacity >= kParallelSynapses);
}

ffi::Error Handler(ffi::ThreadPool pool, PotentiationOperands operands) {
  Potentiation call;
  ffi::Error error = operands.Map(&call);
  if (error.failure()) return error;
  operands.changed->element_type() == ffi::F32 ? PotentiateBatch<float>(pool, call)
                                               : PotentiateBatch<uint16_t>(pool, call);
  return error;
}

}  // namespace

template <typename W>
void Potentiate(ffi::ThreadPool& pool, W* weights, int64_t num_pre, int64_t num_post,
                const ActiveSet& pre, const ActiveSet& post, float beta, float w_max) {
  const int32_t pre_count = static_cast<int32_t>(pre.count);
  const int32_t post_count = static_cast<int32_t>(post.count);
  PotentiateBatch<W>(pool, {weights, &beta, &w_max, 1, num_pre, num_post,
                            {pre.indices, pre.values, &pre_count, pre.count, {}, {}, {}},
                            {post.indices, post.values, &post_count, post.count, {}, {}, {}},
                            {}, {}});
}

template void Potentiate(ffi::ThreadPool&, float*, int64_t, int64_t, const ActiveSet&,
                         const ActiveSet&, float, float);
template void Potentiate(ffi::ThreadPool&, uint16_t*, int64_t, int64_t, const ActiveSet&,
                         const ActiveSet&, float, float);

}  // namespace brainjax

XLA_FFI_DEFINE_HANDLER_SYMBOL(BrainjaxPotentiate, brainjax::Unpacked(brainjax::Handler),
                              brainjax::PotentiationOperands::Bind().Ctx<xla::ffi::ThreadPool>());
