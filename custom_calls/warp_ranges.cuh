// Ranges of any length that the lanes of a warp share evenly.
#ifndef BRAINJAX_WARP_RANGES_CUH_
#define BRAINJAX_WARP_RANGES_CUH_

#include <cstdint>

#include "block_reductions.cuh"

namespace brainjax {

constexpr int kWarp = 32;
constexpr int kInFlight = 4;  // loads that a lane has asked for before it uses the first

__device__ __forceinline__ int Lane() { return threadIdx.x % kWarp; }

// 32 ranges, one per lane, laid end to end: lanes share long ones and fill up short ones.
struct WarpRanges {
  uint32_t begin;  // of this lane's range
  uint32_t total;

  __device__ explicit WarpRanges(uint32_t length) {
    const uint32_t end = WarpInclusiveSum(length);
    begin = end - length;
    total = __shfl_sync(kAllLanes, end, kWarp - 1);
  }

  // The lane whose range holds element x: the last that begins at or before it. All lanes ask.
  __device__ int Owner(uint32_t x) const {
    int owner = 0;
#pragma unroll
    for (int step = kWarp / 2; step > 0; step /= 2) {
      if (__shfl_sync(kAllLanes, begin, owner + step) <= x) owner += step;
    }
    return owner;
  }
};

}  // namespace brainjax

#endif  // BRAINJAX_WARP_RANGES_CUH_
