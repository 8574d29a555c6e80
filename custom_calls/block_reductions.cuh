// Sums and extremes over the threads of a warp or a block.
#ifndef BRAINJAX_BLOCK_REDUCTIONS_CUH_
#define BRAINJAX_BLOCK_REDUCTIONS_CUH_

#include <cstdint>

namespace brainjax {

constexpr uint32_t kAllLanes = 0xffffffffu;

// Consecutive keys, both ends included.
struct Interval {
  uint32_t low, high;
};

// The sum over this lane and those in front of it.
__device__ __forceinline__ uint32_t WarpInclusiveSum(uint32_t value) {
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const uint32_t left = __shfl_up_sync(kAllLanes, value, distance);
    if (threadIdx.x % 32 >= distance) value += left;
  }
  return value;
}

__device__ __forceinline__ uint32_t LanesInFront() { return (1u << threadIdx.x % 32) - 1; }

// The sum over the lanes in front of this one; `total` is that over the warp. Small values are
// summed in a third of the time.
__device__ __forceinline__ uint32_t WarpExclusiveSum(uint32_t value, uint32_t* total) {
  if (__any_sync(kAllLanes, value > 3)) {
    const uint32_t through_here = WarpInclusiveSum(value);
    *total = __shfl_sync(kAllLanes, through_here, 31);
    return through_here - value;
  }
  const uint32_t ones = __ballot_sync(kAllLanes, value & 1);
  const uint32_t twos = __ballot_sync(kAllLanes, value & 2);
  *total = __popc(ones) + 2 * __popc(twos);
  return __popc(ones & LanesInFront()) + 2 * __popc(twos & LanesInFront());
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

  // The same over the warps in front of this one, of what lane kLane of each knows of it; `total`,
  // where that is asked for, is the sum over all.
  template <int kLane = 0>
  __device__ uint32_t SumInFront(int turn, uint32_t of_warp, uint32_t* total = nullptr) {
    uint32_t* const sums = words[turn % 2];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    if (lane == kLane) sums[warp] = of_warp;
    __syncthreads();
    if (total == nullptr) return __reduce_add_sync(kAllLanes, lane < warp ? sums[lane] : 0);
    const uint32_t sum = lane < kWarps ? sums[lane] : 0;
    *total = __reduce_add_sync(kAllLanes, sum);
    return __reduce_add_sync(kAllLanes, lane < warp ? sum : 0);
  }

  // The same over the threads in front of this one, of what each has.
  __device__ uint32_t ExclusiveSum(int turn, uint32_t value, uint32_t* total = nullptr) {
    const uint32_t through_here = WarpInclusiveSum(value);
    return SumInFront<31>(turn, through_here, total) + through_here - value;
  }

  // The same where most threads have little.
  __device__ uint32_t ExclusiveSumOfFew(int turn, uint32_t value, uint32_t* total) {
    uint32_t of_warp;
    const uint32_t before = WarpExclusiveSum(value, &of_warp);
    return SumInFront(turn, of_warp, total) + before;
  }

  // The smallest of what the threads have. The block waits. Calls of this and of Extremes have a
  // barrier between them.
  __device__ uint32_t Least(uint32_t mine) {
    PostLeast(mine);
    __syncthreads();
    return PostedLeast();
  }

  // The same in two parts, for a barrier that serves something else as well.
  __device__ void PostLeast(uint32_t mine) {
    mine = __reduce_min_sync(kAllLanes, mine);
    if (threadIdx.x % 32 == 0) least[threadIdx.x / 32] = mine;
  }
  __device__ uint32_t PostedLeast() const {
    return __reduce_min_sync(kAllLanes, least[threadIdx.x % kWarps]);
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

}  // namespace brainjax

#endif  // BRAINJAX_BLOCK_REDUCTIONS_CUH_
