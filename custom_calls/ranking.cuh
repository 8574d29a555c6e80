// The count-th largest of few keys by ranking them: each is compared with all others.
#ifndef BRAINJAX_RANKING_CUH_
#define BRAINJAX_RANKING_CUH_

#include <algorithm>
#include <cstdint>

#include "bisection.cuh"

namespace brainjax {

// Of up to so many keys the threshold is found sooner by ranking than by bisection. The time of
// ranking grows with the square of their number.
template <int kThreads>
constexpr uint32_t kMostRanked = std::min(kThreads, 256);

// Adds to each rank how many of the keys are larger. A warp compares 32 of them with a part of all.
template <int kThreads>
__device__ __forceinline__ void AddRanks(const uint32_t* keys, uint32_t n, uint32_t* ranks) {
  constexpr int kWarpBits = 31 - __builtin_clz(kThreads / 32);
  // As many parts as there are warps for each 32 keys, in powers of 2.
  const int part_bits = kWarpBits - (32 - __clz((n - 1) / 32));
  const uint32_t warp = threadIdx.x / 32, parts = 1u << part_bits, part = warp & (parts - 1);
  const uint32_t i = (warp >> part_bits) * 32 + threadIdx.x % 32;
  if (i >= n) return;
  const uint32_t fours = n / 4, length = (fours + parts - 1) >> part_bits;
  const uint32_t own = keys[i];
  uint32_t rank = 0;
#pragma unroll 4
  for (uint32_t f = part * length; f < min((part + 1) * length, fours); ++f) {
    const uint4 four = reinterpret_cast<const uint4*>(keys)[f];
    rank += (four.x > own) + (four.y > own) + (four.z > own) + (four.w > own);
  }
  if (part == 0) {
    for (uint32_t j = 4 * fours; j < n; ++j) rank += keys[j] > own;
  }
  if (rank > 0) atomicAdd(ranks + i, rank);
}

// The threshold of keys [0, n) in shared memory, of which `count` <= n <= kMostRanked win. Their
// ranks are 0; keys start at a 16-byte boundary. The block calls it after a barrier, and waits.
template <int kThreads>
__device__ Threshold FindByRanks(const uint32_t* keys, uint32_t n, uint32_t count,
                                 WarpWords<kThreads>& warps, uint32_t* ranks) {
  AddRanks<kThreads>(keys, n, ranks);
  __syncthreads();
  const uint32_t i = threadIdx.x;
  // Of the winners those at the threshold have the largest rank: as many keys are above it.
  const uint32_t rank = i < n ? ranks[i] : count;
  const uint32_t last = ~warps.Least(rank < count ? ~(rank << 16 | i) : ~0u);
  return {keys[last & 0xffffu], count - (last >> 16)};
}

}  // namespace brainjax

#endif  // BRAINJAX_RANKING_CUH_
