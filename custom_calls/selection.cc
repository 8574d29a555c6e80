// Indices of the `count` largest scores in ascending order; of equal scores the lowest index.
#include <cstdint>

#include "batch.h"
#include "numbers.h"
#include "parallel.h"

namespace brainjax {
namespace {

constexpr int64_t kBlock = 32;  // scores that the last pass rejects with one comparison

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

struct KeyRange {
  uint32_t smallest;
  uint32_t largest;
};

BRAINJAX_VECTORIZE KeyRange FindKeyRange(const float* scores, int64_t n) {
  uint32_t smallest = UINT32_MAX, largest = 0;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t key = Key(scores[i]);
    smallest = std::min(smallest, key);
    largest = std::max(largest, key);
  }
  return {smallest, largest};
}

// Keys in [low, high), copied together.
int64_t Compact(const float* scores, int64_t n, uint32_t low, uint32_t high, uint32_t* keys) {
  int64_t kept = 0;
  for (int64_t start = 0; start < n; start += kBlock) {
    const int64_t width = std::min(kBlock, n - start);
    if (CountAtLeast(scores + start, width, low) == 0) continue;
    for (int64_t i = start; i < start + width; ++i) {
      const uint32_t key = Key(scores[i]);
      if (key >= low && key < high) keys[kept++] = key;
    }
  }
  return kept;
}

struct Threshold {
  uint32_t key;       // the count-th largest key
  int64_t num_above;  // keys above it: fewer than count
};

// Bisection on the keys. Invariant: count(key >= low) >= count > count(key >= high). Once few
// keys remain between the two they are copied together, and the rest is not read again.
Threshold FindThreshold(const float* scores, int64_t n, int64_t count, uint32_t* keys,
                        int64_t capacity) {
  const KeyRange range = FindKeyRange(scores, n);
  uint64_t low = range.smallest, high = uint64_t{range.largest} + 1;
  int64_t at_low = n, at_high = 0;   // keys >= low, keys >= high
  int64_t num_keys = -1, above = 0;  // copied keys, and how many lie above all of them
  const int64_t few = std::min(capacity, n / kBlock);  // so few that most blocks have none
  while (high - low > 1 && at_low != count) {
    if (num_keys < 0 && at_low - at_high <= few) {
      num_keys = Compact(scores, n, static_cast<uint32_t>(low), static_cast<uint32_t>(high), keys);
      above = at_high;
    }
    const uint32_t middle = static_cast<uint32_t>((low + high) / 2);
    const int64_t at_middle = num_keys < 0 ? CountAtLeast(scores, n, middle)
                                           : above + CountAtLeast(keys, num_keys, middle);
    if (at_middle >= count) {
      low = middle, at_low = at_middle;
    } else {
      high = middle, at_high = at_middle;
    }
  }
  // With at_low == count every key >= low wins, whether or not low itself occurs.
  return {static_cast<uint32_t>(low), at_high};
}

// All keys above the threshold, and the first ones equal to it, in ascending order of index.
void Write(const float* scores, int64_t n, int64_t count, Threshold threshold, int32_t* winners) {
  int64_t written = 0;
  int64_t equal_left = count - threshold.num_above;
  for (int64_t start = 0; start < n && written < count; start += kBlock) {
    const int64_t width = std::min(kBlock, n - start);
    if (CountAtLeast(scores + start, width, threshold.key) == 0) continue;
    for (int64_t i = start; i < start + width && written < count; ++i) {
      const uint32_t key = Key(scores[i]);
      if (key < threshold.key) continue;
      if (key == threshold.key && equal_left-- <= 0) continue;
      winners[written++] = static_cast<int32_t>(i);
    }
  }
}

void Select(const float* scores, int64_t n, int64_t count, uint32_t* scratch,
            int64_t scratch_size, int64_t capacity, int32_t* winners) {
  count = std::clamp<int64_t>(count, 0, std::min(n, capacity));
  if (count > 0) {
    Write(scores, n, count, FindThreshold(scores, n, count, scratch, scratch_size), winners);
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
