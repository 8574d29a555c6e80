// The count-th largest of values by bisection: a few instructions a step, for any values.
#ifndef BRAINJAX_BISECTION_CUH_
#define BRAINJAX_BISECTION_CUH_

#include <cstdint>

namespace brainjax {

constexpr uint32_t kAllLanes = 0xffffffffu;

// Keys above `key` win, and so many of those equal to it.
struct Threshold {
  uint32_t key;
  uint32_t ties;
};

// Consecutive keys, both ends included.
struct Interval {
  uint32_t low, high;
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

// Words in which the warps of a block tell each other what they have found. Two sets in turn: a
// warp writes into one while another may still read the other.
template <int kThreads>
struct WarpWords {
  static constexpr int kWarps = kThreads / 32;
  uint32_t words[2][kWarps];
  uint32_t least[kWarps], largest[kWarps];

  // The sum over the block of what all lanes of a warp know of it. The block waits. Calls take
  // turns 0 and 1, or have a barrier between them.
  __device__ uint32_t Sum(int turn, uint32_t of_warp) {
    uint32_t* const sums = words[turn % 2];
    const int lane = threadIdx.x % 32;
    if (lane == 0) sums[threadIdx.x / 32] = of_warp;
    __syncthreads();
    return __reduce_add_sync(kAllLanes, lane < kWarps ? sums[lane] : 0);
  }

  // The smallest and the largest of what the threads have; `threads`: whose largest is not 0. The
  // block waits.
  __device__ Interval Extremes(uint32_t mine_least, uint32_t mine_largest, uint32_t* threads) {
    const bool has_some = mine_largest > 0;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    mine_least = __reduce_min_sync(kAllLanes, mine_least);
    mine_largest = __reduce_max_sync(kAllLanes, mine_largest);
    if (lane == 0) least[warp] = mine_least, largest[warp] = mine_largest;
    *threads = __syncthreads_count(has_some);
    return {__reduce_min_sync(kAllLanes, least[lane % kWarps]),
            __reduce_max_sync(kAllLanes, largest[lane % kWarps])};
  }
};

// The threshold of `n` <= kThreads values, value i being load(i). The space was not in use since the
// last barrier; the block waits.
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
