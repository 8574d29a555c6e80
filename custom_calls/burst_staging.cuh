// What is injected into a tile of neurons: a part of the list, whose ids ascend.
#ifndef BRAINJAX_BURST_STAGING_CUH_
#define BRAINJAX_BURST_STAGING_CUH_

#include <cstdint>

#include "burst_core.h"
#include "warp_ranges.cuh"

namespace brainjax {
namespace burst {

constexpr int kBlock = kBurstTile;  // threads: one for each neuron of a tile
constexpr int kTileWords = kBurstTile / kBurstWord;

// The first of the ascending ids that is not below `key`: one warp finds it.
__device__ inline int64_t LowerBound(const int32_t* ids, int64_t count, int64_t key) {
  int64_t low = 0, high = count;
  while (low < high) {
    const int64_t step = (high - low + kWarp - 1) / kWarp, probe = low + Lane() * step;
    const bool is_below = probe < high && ids[probe] < key;
    const int below = __popc(__ballot_sync(kAllLanes, is_below));
    high = min(high, low + below * step);
    if (below > 0) low += (below - 1) * step + 1;
  }
  return low;
}

// Finds where the parts of all tiles begin: all warps of a row of the grid do.
__device__ inline void FindStarts(const BurstProblem& problem, int64_t tiles) {
  const ActiveSet injected = problem.Injected();
  const int64_t warps = int64_t{gridDim.x} * kBlock / kWarp;
  int64_t tile = (int64_t{blockIdx.x} * kBlock + threadIdx.x) / kWarp;
  for (; tile <= tiles; tile += warps) {
    const int64_t start = LowerBound(injected.indices, injected.count, tile * kBurstTile);
    if (Lane() == 0) problem.tile_starts[tile] = static_cast<uint32_t>(start);
  }
}

// What is injected into the neurons of a tile.
struct Staging {
  float sums[kBurstTile];
  uint32_t touched[kTileWords];

  // Returns whether the tile gets anything; all threads of the block fill it together.
  __device__ bool Fill(const BurstProblem& problem, int64_t first) {
    const uint32_t* const starts = problem.tile_starts + first / kBurstTile;
    const uint32_t begin = __ldcg(starts), end = __ldcg(starts + 1);
    if (begin >= end) return false;
    __syncthreads();  // the one before is read
    if (threadIdx.x < kTileWords) touched[threadIdx.x] = 0;
    __syncthreads();
    const ActiveSet& injected = problem.injected;
    for (int64_t i = begin + threadIdx.x; i < end; i += kBlock) Add(injected, first, i, begin, end);
    __syncthreads();
    return true;
  }

  __device__ bool Touches(int place) const {
    return touched[place / kBurstWord] >> (place % kBurstWord) & 1;
  }

 private:
  // The thread that finds the first entry of a neuron adds all of them, in the order given.
  __device__ void Add(const ActiveSet& injected, int64_t first, int64_t i, int64_t begin,
                      int64_t end) {
    const int32_t id = injected.indices[i];
    const int64_t place = id - first;
    if (i > begin && injected.indices[i - 1] == id) return;
    if (place < 0 || place >= kBurstTile) return;
    float sum = 0.0f;
    for (; i < end && injected.indices[i] == id; ++i) sum += injected.values[i];
    sums[place] = sum;
    atomicOr(touched + place / kBurstWord, 1u << (place % kBurstWord));
  }
};

}  // namespace burst
}  // namespace brainjax

#endif  // BRAINJAX_BURST_STAGING_CUH_
