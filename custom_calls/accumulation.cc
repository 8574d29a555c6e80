// received[j] = sum of values[i] * weights[rows[i], j], in the order of accumulate_rows_reference.
#include <cstdint>

#include "batch.h"
#include "numbers.h"
#include "parallel.h"

namespace brainjax {
namespace {

constexpr int64_t kLanes = 32;
constexpr int64_t kStrip = 1024;  // columns: 6 partial sums of 4 KB stay in the first-level cache
constexpr int64_t kParallelWeights = 1 << 17;  // fewer are summed faster than a thread wakes

// One term of a lane: a row of the strip and the activity of its neuron.
template <typename W>
struct Term {
  const W* row;
  float value;
};

// sum[c] = ((start + v0 w0[c]) + v1 w1[c]) + ...   with start 0 or the sum so far
template <int kTerms, bool kFirst, typename W>
inline __attribute__((always_inline)) void AddTerms(const Term<W>* terms, int64_t width,
                                                    float* __restrict__ sum) {
  for (int64_t c = 0; c < width; ++c) {
    float s = kFirst ? 0.0f : sum[c];
    for (int t = 0; t < kTerms; ++t) s += terms[t].value * ToFloat(terms[t].row[c]);
    sum[c] = s;
  }
}

// Up to four terms at a time: as many streams from memory, and one pass over the sum.
template <bool kFirst, typename W>
inline __attribute__((always_inline)) void AddUpToFour(const Term<W>* terms, int64_t count,
                                                       int64_t width, float* sum) {
  switch (count) {
    case 1: return AddTerms<1, kFirst>(terms, width, sum);
    case 2: return AddTerms<2, kFirst>(terms, width, sum);
    case 3: return AddTerms<3, kFirst>(terms, width, sum);
    default: return AddTerms<4, kFirst>(terms, width, sum);
  }
}

BRAINJAX_VECTORIZE void AddRows(const Term<float>* terms, int64_t count, bool first, int64_t width,
                                float* sum) {
  return first ? AddUpToFour<true>(terms, count, width, sum)
               : AddUpToFour<false>(terms, count, width, sum);
}

BRAINJAX_VECTORIZE void AddRows(const Term<uint16_t>* terms, int64_t count, bool first,
                                int64_t width, float* sum) {
  return first ? AddUpToFour<true>(terms, count, width, sum)
               : AddUpToFour<false>(terms, count, width, sum);
}

BRAINJAX_VECTORIZE void AddSums(const float* __restrict__ other, int64_t width,
                                float* __restrict__ sum) {
  for (int64_t c = 0; c < width; ++c) sum[c] += other[c];
}

// One weight matrix and one active set.
template <typename W>
struct Problem {
  const W* weights;
  const int32_t* rows;
  const float* values;
  int64_t count;
  int64_t num_pre;
  int64_t num_post;

  // The sum of lane p over the columns [start, start + width).
  void SumLane(int64_t p, int64_t start, int64_t width, float* sum) const {
    bool first = true;
    for (int64_t j = p; j < count || first;) {
      Term<W> terms[4];
      int64_t filled = 0;
      for (; filled < 4 && j < count; j += kLanes) {
        if (rows[j] < 0 || rows[j] >= num_pre) continue;  // adds +0, which changes no bit
        terms[filled++] = {weights + rows[j] * num_post + start, values[j]};
      }
      if (filled > 0) {
        AddRows(terms, filled, first, width, sum);
      } else if (first) {
        std::fill_n(sum, width, 0.0f);
      }
      first = false;
    }
  }

  // The sum of lanes p, p + step, p + 2 step ...: lanes meet in halves, the last halving first in
  // the recursion. `sum` has room for one strip a level.
  void SumLanes(int64_t p, int64_t step, int64_t start, int64_t width, float* sum) const {
    if (step == kLanes) return SumLane(p, start, width, sum);
    SumLanes(p, 2 * step, start, width, sum);
    if (p + step >= count) return;  // those lanes are empty
    SumLanes(p + step, 2 * step, start, width, sum + kStrip);
    AddSums(sum + kStrip, width, sum);
  }

  void SumStrip(int64_t strip, float* received) const {
    alignas(64) float sums[6 * kStrip];
    const int64_t start = strip * kStrip;
    const int64_t width = std::min(kStrip, num_post - start);
    SumLanes(0, 1, start, width, sums);
    std::copy_n(sums, width, received + start);
  }
};

template <typename W>
void AccumulateRows(ffi::ThreadPool& pool, const W* weights, const BatchOffsets& weights_at,
                    const int32_t* rows, const BatchOffsets& rows_at, const float* values,
                    const BatchOffsets& values_at, const int32_t* counts,
                    const BatchOffsets& counts_at, int64_t batch, int64_t capacity,
                    int64_t num_pre, int64_t num_post, float* received) {
  const int64_t strips = (num_post + kStrip - 1) / kStrip;
  auto sum = [&](int64_t item) {
    const int64_t b = item / strips;
    const int64_t count = std::clamp<int64_t>(counts[counts_at(b)], 0, capacity);
    const Problem<W> problem{weights + weights_at(b), rows + rows_at(b), values + values_at(b),
                             count, num_pre, num_post};
    problem.SumStrip(item % strips, received + b * num_post);
  };
  const int64_t items = batch * strips;
  if (items * kStrip * capacity < kParallelWeights) {
    for (int64_t item = 0; item < items; ++item) sum(item);
  } else {
    ParallelFor(pool, items, sum);
  }
}

ffi::Error Handler(ffi::ThreadPool pool, ffi::AnyBuffer weights, ffi::Buffer<ffi::S32> rows,
                   ffi::Buffer<ffi::F32> values, ffi::Buffer<ffi::S32> counts,
                   ffi::ResultBuffer<ffi::F32> received) {
  BatchOffsets weights_at, rows_at, values_at, counts_at;
  const Dimensions result = received->dimensions();
  if (!MapBatch(weights.dimensions(), 2, result, 1, &weights_at) ||
      !MapBatch(rows.dimensions(), 1, result, 1, &rows_at) ||
      !MapBatch(values.dimensions(), 1, result, 1, &values_at) ||
      !MapBatch(counts.dimensions(), 0, result, 1, &counts_at)) {
    return ffi::Error::InvalidArgument("accumulate_rows: batch dimensions do not fit");
  }
  const int64_t capacity = rows.dimensions().back();
  const int64_t num_post = weights.dimensions().back();
  const int64_t num_pre = weights.dimensions()[weights.dimensions().size() - 2];
  if (values.dimensions().back() != capacity) {
    return ffi::Error::InvalidArgument("accumulate_rows: indices and values differ in length");
  }
  if (result.back() != num_post) {
    return ffi::Error::InvalidArgument("accumulate_rows: result must have one entry per column");
  }
  const int64_t batch = BatchSize(result, 1);
  auto run = [&](const auto* typed_weights) {
    AccumulateRows(pool, typed_weights, weights_at, rows.typed_data(), rows_at,
                   values.typed_data(), values_at, counts.typed_data(), counts_at, batch, capacity,
                   num_pre, num_post, received->typed_data());
    return ffi::Error::Success();
  };
  switch (weights.element_type()) {
    case ffi::F32: return run(static_cast<const float*>(weights.untyped_data()));
    case ffi::BF16: return run(static_cast<const uint16_t*>(weights.untyped_data()));
    default: return ffi::Error::InvalidArgument("accumulate_rows: weights must be F32 or BF16");
  }
}

}  // namespace
}  // namespace brainjax

XLA_FFI_DEFINE_HANDLER_SYMBOL(BrainjaxAccumulateRows, brainjax::Handler,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::AnyBuffer>()                  // weights
                                  .Arg<xla::ffi::Buffer<xla::ffi::S32>>()      // indices
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()      // values
                                  .Arg<xla::ffi::Buffer<xla::ffi::S32>>()      // count
                                  .Ret<xla::ffi::Buffer<xla::ffi::F32>>());    // received
