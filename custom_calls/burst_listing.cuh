// Who fires, in ascending order: each block lists its tiles behind those of the blocks in front.
//
// A block says how many fire in its tiles, and looks back over what the blocks in front have said:
// 32 at a time, until one already knows how many fire up to its end. It relies on blocks starting
// in the order of their numbers, as they do though nothing promises it: those it waits for are at
// work.
#ifndef BRAINJAX_BURST_LISTING_CUH_
#define BRAINJAX_BURST_LISTING_CUH_

#include <cstdint>

#include "burst_core.h"
#include "burst_staging.cuh"
#include "warp_ranges.cuh"

namespace brainjax {
namespace burst {

constexpr int kMostTiles = 4;  // of a block
constexpr int kListedWords = kMostTiles * kTileWords;
constexpr int kWordsOfLane = kListedWords / kWarp;
static_assert(kWordsOfLane == 2, "see FindPlaces");

// The state of a block: what its low word holds, in the high word. 0: nothing yet.
constexpr uint64_t kOwn = uint64_t{1} << 32, kUpToEnd = uint64_t{2} << 32;

// How many fire in front of a block in which `own` do. One warp calls it.
__device__ inline uint32_t LookBack(volatile uint64_t* states, int64_t block, uint32_t own) {
  if (block > 0 && Lane() == 0) states[block] = kOwn | own;
  uint32_t in_front = 0;
  bool complete = block == 0;
  for (int64_t last = block - 1; !complete; last -= kWarp) {
    uint64_t state = kUpToEnd;  // in front of the first block
    if (last - Lane() >= 0) {
      do {
        state = states[last - Lane()];
      } while (state == 0);
    }
    const uint32_t known = __ballot_sync(kAllLanes, state >= kUpToEnd);
    const int nearest = known != 0 ? __ffs(known) - 1 : kWarp;
    in_front += __reduce_add_sync(kAllLanes, Lane() <= nearest ? static_cast<uint32_t>(state) : 0);
    complete = known != 0;
  }
  if (Lane() == 0) states[block] = kUpToEnd | (in_front + own);
  return in_front;
}

// What a block keeps in shared memory until it lists its tiles.
struct Listing {
  uint32_t words[kListedWords];   // who fires
  uint32_t places[kListedWords];  // in the list, of the first in each word
  float values[kMostTiles][kBlock];
  uint32_t end;  // of the block's part of the list

  // The whole block calls it with what became of the neurons of one of its tiles.
  __device__ void Keep(int tile, const Outcome& outcome) {
    const uint32_t fires = __ballot_sync(kAllLanes, outcome.fires);
    if (Lane() == 0) words[tile * kTileWords + threadIdx.x / kWarp] = fires;
    if (outcome.fires) values[tile][threadIdx.x] = outcome.potential;
  }

  // The whole block calls it when all `tiles` of it are kept, the first of which begins at `first`.
  __device__ void Write(const BurstProblem& problem, int64_t first, int tiles) {
    const int warp = threadIdx.x / kWarp;
    const int64_t last = first + tiles * kBurstTile;
    // Of what the last burst listed, the end may have to become padding.
    const int64_t listed_before = last >= problem.num_neurons ? problem.NumFired() : 0;
    __syncthreads();
    if (warp == 0) FindPlaces(problem, first, tiles);
    __syncthreads();
    for (int tile = 0; tile < tiles; ++tile) {
      const int place = tile * kTileWords + warp;
      const uint32_t fires = words[place], bit = 1u << Lane();
      if ((fires & bit) == 0) continue;
      const uint32_t rank = places[place] + __popc(fires & (bit - 1));
      problem.indices[rank] = static_cast<int32_t>(first + tile * kBurstTile + threadIdx.x);
      problem.values[rank] = values[tile][threadIdx.x];
    }
    if (last >= problem.num_neurons) Pad(problem, listed_before);
    __syncthreads();  // everything may be written again
  }

 private:
  __device__ void FindPlaces(const BurstProblem& problem, int64_t first, int tiles) {
    uint32_t counts[kWordsOfLane];
#pragma unroll
    for (int i = 0; i < kWordsOfLane; ++i) {
      const int place = kWordsOfLane * Lane() + i;
      const bool exists = place < tiles * kTileWords;
      counts[i] = exists ? __popc(words[place]) : 0;
      if (exists && first + place * kBurstWord < problem.num_neurons) {
        problem.fires[first / kBurstWord + place] = words[place];
      }
    }
    const WarpRanges ranges(counts[0] + counts[1]);
    const int64_t block = first / (tiles * kBurstTile);
    const uint32_t in_front = LookBack(problem.block_states, block, ranges.total);
    places[kWordsOfLane * Lane()] = in_front + ranges.begin;
    places[kWordsOfLane * Lane() + 1] = in_front + ranges.begin + counts[0];
    if (Lane() == 0) end = in_front + ranges.total;
  }

  // The last block knows how many fire in all.
  __device__ void Pad(const BurstProblem& problem, int64_t listed_before) {
    for (int64_t i = int64_t{end} + threadIdx.x; i < listed_before; i += kBlock) {
      problem.indices[i] = static_cast<int32_t>(problem.num_neurons);
      problem.values[i] = 0.0f;
    }
    if (threadIdx.x == 0) *problem.count = static_cast<int32_t>(end);
  }
};

}  // namespace burst
}  // namespace brainjax

#endif  // BRAINJAX_BURST_LISTING_CUH_
