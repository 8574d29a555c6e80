// sums[j] = sum over the synapses from an active i onto j of round(2^S * values[i] * weight).
#include "propagation_sums.h"

#include <algorithm>
#include <cstdint>

#include "handler.h"
#include "parallel.h"

namespace brainjax {

BRAINJAX_VECTORIZE void Contributions(float gain, const float* weights, int64_t count,
                                      int32_t* contributions) {
  for (int64_t s = 0; s < count; ++s) contributions[s] = Contribution(gain, weights[s]);
}

BRAINJAX_VECTORIZE void Contributions(float gain, const uint8_t* weights, int64_t count,
                                      int32_t* contributions) {
  for (int64_t s = 0; s < count; ++s) contributions[s] = Contribution(gain, weights[s]);
}

namespace {

template <typename W>
ffi::Error Propagate(ffi::ThreadPool& pool, const PropagationBatch<W>& batch) {
  if (batch.size == 0) return ffi::Error::Success();
  const int64_t num_post = batch.first.num_post;
  const int64_t threads = IsWorthThreads(batch) ? pool.num_threads() : 1;
  // Batch elements first: threads that share one read its synapses several times.
  const int64_t parts = std::clamp<int64_t>(threads / batch.size, 1, kMaxParts);
  auto sum = [&](int64_t item) {
    const uint32_t first = static_cast<uint32_t>(num_post * (item % parts) / parts);
    const uint32_t last = static_cast<uint32_t>(num_post * (item % parts + 1) / parts);
    const Propagation<W> problem = batch.At(item / parts);
    Sum(problem, {first, last - first}, PlainAdder{reinterpret_cast<uint32_t*>(problem.sums)});
  };
  if (threads == 1) {
    for (int64_t b = 0; b < batch.size; ++b) sum(b);
  } else {
    ParallelFor(pool, batch.size * parts, sum);
  }
  return ffi::Error::Success();
}

ffi::Error Handler(ffi::ThreadPool pool, PropagationOperands operands) {
  return operands.With([&](const auto& batch) { return Propagate(pool, batch); });
}

}  // namespace
}  // namespace brainjax

XLA_FFI_DEFINE_HANDLER_SYMBOL(BrainjaxPropagateSpikes, brainjax::Unpacked(brainjax::Handler),
                              brainjax::PropagationOperands::Bind().Ctx<xla::ffi::ThreadPool>());
