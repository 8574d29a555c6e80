// Indices of the `count` largest scores in ascending order; of equal scores the lowest index.
#include <cstdint>

#include "batch.h"
#include "numbers.h"
#include "parallel.h"

namespace brainjax {
namespace {

constexpr int64_t kBlock = 32;    // scores that a scan rejects with one comparison
constexpr int64_t kSample = 512;  // scores from which the threshold is guessed

inline uint32_t KeyOf(float score) { return Key(score); }
inline uint32_t KeyOf(uint32_t key) { return key; }

template <typename T>
inline __attribute__((always_inline)) int64_t CountAtLeastOf(const T* items, int64_t n,
                                                             uint32_t bound) {
  int32_t count = 0;  // narrower than the 64-bit result: twice the lanes
  for (int64_t i = 0; i < n; ++i) count += KeyOf(items[i]) >= bound;
  return count;
}

BRAINJAX_VECTORIZE int64_t CountAtLeast(const float* scores, int64_t n, uint32_t bound) {
  return CountAtLeastOf(scores, n, bound);
}

BRAINJAX_VECTORIZE int64_t CountAtLeast(const uint32_t* keys, int64_t n, uint32_t bound) {
  return CountAtLeastOf(keys, n, bound);
}

struct Threshold {
  uint32_t key;       // items with larger keys win, and the first of those with this one
  int64_t num_above;  // items with larger keys: fewer than win
};

// Bisection on the keys, for 1 <= count <= n. Invariant: low <= the count-th largest key < high.
template <typename T>
Threshold FindThreshold(const T* items, int64_t n, int64_t count) {
  uint64_t low = 0, high = uint64_t{1} << 32;
  int64_t at_low = n, at_high = 0;  // items with keys of at least low, of at least high
  while (high - low > 1 && at_low != count) {
    const uint32_t middle = static_cast<uint32_t>((low + high) / 2);
    const int64_t at_middle = CountAtLeast(items, n, middle);
    if (at_middle >= count) {
      low = middle, at_low = at_middle;
    } else {
      high = middle, at_high = at_middle;
    }
  }
  // With at_low == count all items from low on win, whether or not one has the key low itself.
  return {static_cast<uint32_t>(low), at_high};
}

// Calls use(i) in ascending order for each item whose key is at least `bound`.
template <typename T, typename Use>
void ForEachAtLeast(const T* items, int64_t n, uint32_t bound, const Use& use) {
  for (int64_t start = 0; start < n; start += kBlock) {
    const int64_t width = std::min(kBlock, n - start);
    if (CountAtLeast(items + start, width, bound) == 0) continue;
    for (int64_t i = start; i < start + width; ++i) {
      if (KeyOf(items[i]) >= bound) use(i);
    }
  }
}

// The winners among items in ascending order; index_of(i) is that of item i among all scores.
template <typename T, typename IndexOf>
void WriteWinners(const T* items, int64_t n, int64_t count, const IndexOf& index_of,
                  int32_t* winners) {
  const Threshold threshold = FindThreshold(items, n, count);
  int64_t written = 0;
  int64_t equal_left = count - threshold.num_above;
  ForEachAtLeast(items, n, threshold.key, [&](int64_t i) {
    if (KeyOf(items[i]) == threshold.key && equal_left-- <= 0) return;
    winners[written++] = static_cast<int32_t>(index_of(i));
  });
}

// A key that is likely to be below the count-th largest, but not far: from a sample.
uint32_t GuessBound(const float* scores, int64_t n, int64_t count) {
  uint32_t sample[kSample];
  const int64_t stride = n / kSample;
  for (int64_t i = 0; i < kSample; ++i) sample[i] = Key(scores[i * stride]);
  // Twice the winners that the sample should hold, and eight more: five standard deviations.
  return FindThreshold(sample, kSample, std::min(kSample, 2 * count * kSample / n + 8)).key;
}

// Copies the scores that may win together, finds the winners among them, and returns true; or
// returns false where the guess was wrong or too many scores are equal.
bool SelectFromCandidates(const float* scores, int64_t n, int64_t count, uint32_t* scratch,
                          int64_t scratch_size, int32_t* winners) {
  if (n < 2 * kSample) return false;
  const uint32_t bound = GuessBound(scores, n, count);
  const int64_t num_candidates = CountAtLeast(scores, n, bound);
  if (num_candidates < count || 2 * num_candidates > scratch_size) return false;
  uint32_t* keys = scratch;
  uint32_t* indices = scratch + num_candidates;
  int64_t kept = 0;
  ForEachAtLeast(scores, n, bound, [&](int64_t i) {
    keys[kept] = Key(scores[i]);
    indices[kept++] = static_cast<uint32_t>(i);
  });
  WriteWinners(keys, kept, count, [&](int64_t i) { return indices[i]; }, winners);
  return true;
}

void Select(const float* scores, int64_t n, int64_t count, uint32_t* scratch,
            int64_t scratch_size, int64_t capacity, int32_t* winners) {
  count = std::clamp<int64_t>(count, 0, std::min(n, capacity));
  if (count > 0 && !SelectFromCandidates(scores, n, count, scratch, scratch_size, winners)) {
    WriteWinners(scores, n, count, [](int64_t i) { return i; }, winners);
  }
  std::fill(winners + count, winners + capacity, static_cast<int32_t>(n));
}

ffi::Error Handler(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> scores,
                   ffi::Buffer<ffi::S32> counts, ffi::ResultBuffer<ffi::S32> winners,
                   ffi::ResultBuffer<ffi::U32> scratch) {
  BatchOffsets scores_at, counts_at;
  const Dimensions result = winners->dimensions();
  if (!MapBatch(scores.dimensions(), 1, result, 1, &scores_at) ||
      !MapBatch(counts.dimensions(), 0, result, 1, &counts_at) ||
      BatchSize(scratch->dimensions(), 1) != BatchSize(result, 1)) {
    return ffi::Error::InvalidArgument("select_winners: batch dimensions do not fit");
  }
  const int64_t n = scores.dimensions().back();
  const int64_t capacity = result.back();
  const int64_t scratch_size = scratch->dimensions().back();
  ParallelFor(pool, BatchSize(result, 1), [&](int64_t b) {
    Select(scores.typed_data() + scores_at(b), n, counts.typed_data()[counts_at(b)],
           scratch->typed_data() + b * scratch_size, scratch_size, capacity,
           winners->typed_data() + b * capacity);
  });
  return ffi::Error::Success();
}

}  // namespace
}  // namespace brainjax

XLA_FFI_DEFINE_HANDLER_SYMBOL(BrainjaxSelectWinners, brainjax::Handler,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()    // scores
                                  .Arg<xla::ffi::Buffer<xla::ffi::S32>>()    // count
                                  .Ret<xla::ffi::Buffer<xla::ffi::S32>>()    // winners
                                  .Ret<xla::ffi::Buffer<xla::ffi::U32>>());  // scratch
