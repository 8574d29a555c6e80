// received[j] = sum of values[i] * weights[rows[i], j]: see accumulation.h for the order.
#include "accumulation.h"

#include <algorithm>
#include <cstdint>

#include "handler.h"
#include "numbers.h"
#include "parallel.h"

namespace brainjax {
namespace {

constexpr int64_t kStrip = 1024;  // columns: 6 partial sums of 4 KB stay in the first-level cache
constexpr int kGroup = 4;  // rows that are added at a time
constexpr int64_t kParallelWeights = 1 << 17;  // fewer are summed faster than a thread wakes

// One term of a lane: a row of the strip and the activity of its neuron.
template <typename W>
struct Term {
  const W* row;
  float value;
};

// Up to four terms of one lane: as many streams from memory, and one pass over the sum.
template <typename W>
struct Group {
  Term<W> terms[kGroup];
  int64_t size = 0;
};

// sum[c] = ((start + v0 w0[c]) + v1 w1[c]) + ...   with start 0 or the sum so far
template <int kTerms, bool kFirst, typename W>
inline __attribute__((always_inline)) void AddColumns(const Term<W>* terms, int64_t begin,
                                                      int64_t end, float* __restrict__ sum) {
  for (int64_t c = begin; c < end; ++c) {
    float s = kFirst ? 0.0f : sum[c];
    for (int t = 0; t < kTerms; ++t) s += terms[t].value * ToFloat(terms[t].row[c]);
    sum[c] = s;
  }
}

// Adds the terms, and asks for those of `next` meanwhile: a piece of a row is too short for the
// processor to foresee where the next one starts. Into the second-level cache: the first has no
// room for them and for the sums.
template <int kTerms, bool kFirst, typename W>
inline __attribute__((always_inline)) void AddTerms(const Group<W>& group, const Group<W>& next,
                                                    int64_t width, float* __restrict__ sum) {
  constexpr int64_t kLine = 64 / sizeof(W);
  Term<W> terms[kTerms];
  std::copy_n(group.terms, kTerms, terms);
  const W* ahead[kGroup];
  for (int t = 0; t < kGroup; ++t) ahead[t] = t < next.size ? next.terms[t].row : terms[0].row;
  int64_t c = 0;
  for (; c + kLine <= width; c += kLine) {
    for (int t = 0; t < kGroup; ++t) __builtin_prefetch(ahead[t] + c, 0, 2);
    AddColumns<kTerms, kFirst>(terms, c, c + kLine, sum);
  }
  AddColumns<kTerms, kFirst>(terms, c, width, sum);
}

template <bool kFirst, typename W>
inline __attribute__((always_inline)) void AddGroup(const Group<W>& group, const Group<W>& next,
                                                    int64_t width, float* sum) {
  switch (group.size) {
    case 1: return AddTerms<1, kFirst>(group, next, width, sum);
    case 2: return AddTerms<2, kFirst>(group, next, width, sum);
    case 3: return AddTerms<3, kFirst>(group, next, width, sum);
    default: return AddTerms<4, kFirst>(group, next, width, sum);
  }
}

BRAINJAX_VECTORIZE void AddRows(const Group<float>& group, const Group<float>& next, bool first,
                                int64_t width, float* sum) {
  return first ? AddGroup<true>(group, next, width, sum)
               : AddGroup<false>(group, next, width, sum);
}

BRAINJAX_VECTORIZE void AddRows(const Group<uint16_t>& group, const Group<uint16_t>& next,
                                bool first, int64_t width, float* sum) {
  return first ? AddGroup<true>(group, next, width, sum)
               : AddGroup<false>(group, next, width, sum);
}

BRAINJAX_VECTORIZE void AddSums(const float* __restrict__ other, int64_t width,
                                float* __restrict__ sum) {
  for (int64_t c = 0; c < width; ++c) sum[c] += other[c];
}

// One weight matrix and one active set.
template <typename W>
struct Problem {
  const W* weights;
  ActiveSet rows;
  int64_t num_pre;
  int64_t num_post;

  // The terms j, j + kLanes ... of one lane in the columns from `start` on, up to kGroup of them;
  // those outside the matrix would add +0, which changes no bit. Moves j behind them.
  Group<W> Take(int64_t* j, int64_t start) const {
    Group<W> group;
    for (; group.size < kGroup && *j < rows.count; *j += kLanes) {
      const int64_t row = rows.indices[*j];
      if (row < 0 || row >= num_pre) continue;
      group.terms[group.size++] = {weights + row * num_post + start, rows.Value(*j)};
    }
    return group;
  }

  // What is added after the lanes up to p: the first terms of the lane that follows in the order
  // of SumLanes, or of the next strip.
  Group<W> TakeAfterLane(int64_t p, int64_t start) const {
    int64_t next = p;
    do {
      // Adds 1 to the lane's number with its bits reversed.
      int64_t bit = kLanes / 2;
      for (; next & bit; bit /= 2) next ^= bit;
      next ^= bit;
    } while (next >= rows.count && next != 0);
    if (next == 0) start += kStrip;
    return start < num_post ? Take(&next, start) : Group<W>{};
  }

  // The sum of lane p over the columns [start, start + width).
  void SumLane(int64_t p, int64_t start, int64_t width, float* sum) const {
    int64_t j = p;
    Group<W> group = Take(&j, start);
    if (group.size == 0) std::fill_n(sum, width, 0.0f);
    for (bool first = true; group.size > 0; first = false) {
      const bool more = j < rows.count;
      const Group<W> next = more ? Take(&j, start) : TakeAfterLane(p, start);
      AddRows(group, next, first, width, sum);
      group = more ? next : Group<W>{};
    }
  }

  // The sum of lanes p, p + step, p + 2 step ...: lanes meet in halves, the last halving first in
  // the recursion. `sum` has room for one strip a level.
  void SumLanes(int64_t p, int64_t step, int64_t start, int64_t width, float* sum) const {
    if (step == kLanes) return SumLane(p, start, width, sum);
    SumLanes(p, 2 * step, start, width, sum);
    if (p + step >= rows.count) return;  // those lanes are empty
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

// Element b of the batch: the columns of one strip of it.
template <typename W>
void SumItem(const Accumulation& call, int64_t b, int64_t strip) {
  const Problem<W> problem{static_cast<const W*>(call.weights) + call.weights_at(b),
                           call.rows.At(b), call.num_pre, call.num_post};
  problem.SumStrip(strip, call.received + b * call.num_post);
}

template <typename W>
void Accumulate(ffi::ThreadPool& pool, const Accumulation& call) {
  const int64_t strips = (call.num_post + kStrip - 1) / kStrip;
  const int64_t items = call.batch * strips;
  auto sum = [&](int64_t item) { SumItem<W>(call, item / strips, item % strips); };
  ParallelFor(pool, items, sum, items * kStrip * call.rows.capacity >= kParallelWeights);
}

ffi::Error Handler(ffi::ThreadPool pool, AccumulationOperands operands) {
  Accumulation call;
  ffi::Error error = operands.Map(&call);
  if (error.failure()) return error;
  operands.weights.element_type() == ffi::F32 ? Accumulate<float>(pool, call)
                                              : Accumulate<uint16_t>(pool, call);
  return error;
}

}  // namespace

template <typename W>
void AccumulateRows(ffi::ThreadPool& pool, const W* weights, int64_t num_pre, int64_t num_post,
                    const ActiveSet& rows, float* received) {
  const int32_t count = static_cast<int32_t>(rows.count);
  const ActiveSets sets{rows.indices, rows.values, &count, rows.count, {}, {}, {}};
  Accumulate<W>(pool, {weights, received, 1, num_pre, num_post, false, sets, {}});
}

template void AccumulateRows(ffi::ThreadPool&, const float*, int64_t, int64_t, const ActiveSet&,
                             float*);
template void AccumulateRows(ffi::ThreadPool&, const uint16_t*, int64_t, int64_t,
                             const ActiveSet&, float*);

}  // namespace brainjax

XLA_FFI_DEFINE_HANDLER_SYMBOL(BrainjaxAccumulateRows, brainjax::Unpacked(brainjax::Handler),
                              brainjax::AccumulationOperands::Bind().Ctx<xla::ffi::ThreadPool>());
