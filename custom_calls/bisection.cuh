// The count-th largest of values by bisection: a few instructions a step, for any values.
#ifndef BRAINJAX_BISECTION_CUH_
#define BRAINJAX_BISECTION_CUH_

#include <cstdint>

#include "block_reductions.cuh"

namespace brainjax {

// Keys above `key` win, and so many of those equal to it.
struct Threshold {
  uint32_t key;
  uint32_t ties;
};

// What is asked of a bisection of keys, of which 0 stands for none.
struct Wanted {
  uint32_t count;        // of values that win
  uint32_t enough;       // a threshold that so many exceed, and no fewer than `count`, will do
  uint32_t exact_up_to;  // where no value exceeds this, only the key of the last winner will do
};

// The threshold of values of which at least `wanted.count` reach range.low and none exceeds
// range.high. `reaching(key)` says how many reach a key.
template <typename Reaching>
__device__ __forceinline__ Threshold Bisect(Interval range, Wanted wanted, Reaching reaching) {
  const uint32_t enough = range.high > wanted.exact_up_to ? wanted.enough : 0;
  uint32_t above = 0;  // values beyond range.high
  uint32_t middle = range.low + 1;  // first of all, as most values may be equal to the smallest
#pragma unroll 1
  while (range.low < range.high) {
    const uint32_t reach = reaching(middle);
    if (reach >= wanted.count) {
      if (reach <= enough) return {middle - 1, 0};
      range.low = middle;
    } else {
      range.high = middle - 1;
      above = reach;
    }
    middle = range.high - (range.high - range.low) / 2;
  }
  return {range.low, wanted.count - above};
}

// The threshold of `n` <= kThreads values, value i being load(i). The space was not in use since
// the last barrier; the block waits.
template <int kThreads, typename Load>
__device__ __forceinline__ Threshold BisectInBlock(uint32_t n, Load load, Wanted wanted,
                                                   WarpWords<kThreads>& space) {
  const uint32_t value = threadIdx.x < n ? load(threadIdx.x) : 0;
  uint32_t threads;
  Interval range = space.Extremes(value - 1, value, &threads);  // least of all but 0, less 1
  range.low = threads < wanted.count ? 0 : range.low + 1;  // maybe there are not so many values
  const Threshold found = Bisect(range, wanted, [value](uint32_t key) {
    return static_cast<uint32_t>(__syncthreads_count(value >= key));
  });
  __syncthreads();
  return found;
}

}  // namespace brainjax

#endif  // BRAINJAX_BISECTION_CUH_
