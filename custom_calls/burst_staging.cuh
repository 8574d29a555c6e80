// What is injected into a tile of neurons: a part of the list, whose ids ascend.
#ifndef BRAINJAX_BURST_STAGING_CUH_
#define BRAINJAX_BURST_STAGING_CUH_

#include <cstdint>

#include "burst_core.h"
#include "warp_ranges.cuh"

namespace brainjax {
namespace burst {

constexpr int kBlock = 256;  // threads
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

// What is injected into the neurons of a tile.
struct Staging {
  float sums[kBurstTile];
  uint32_t touched[kTileWords];
  int64_t ends[2];  // of the tile's part of the list

  // Returns whether the tile gets anything; all threads of the block fill it together.
  __device__ bool Fill(const ActiveSet& injected, int64_t first) {
    const int warp = threadIdx.x / kWarp;
    __syncthreads();  // the one before is read
    if (warp < 2) {
      const int64_t end = LowerBound(injected.indices, injected.count, first + warp * kBurstTile);
      if (Lane() == 0) ends[warp] = end;
    }
    __syncthreads();
    if (ends[0] >= ends[1]) return false;
    for (int i = threadIdx.x; i < kTileWords; i += kBlock) touched[i] = 0;
    __syncthreads();
    for (int64_t i = ends[0] + threadIdx.x; i < ends[1]; i += kBlock) Add(injected, first, i);
    __syncthreads();
    return true;
  }

  __device__ bool Touches(int place) const {
    return touched[place / kBurstWord] >> (place % kBurstWord) & 1;
  }

 private:
  // The thread that finds the first entry of a neuron adds all of them, in the order given.
  __device__ void Add(const ActiveSet& injected, int64_t first, int64_t i) {
    const int32_t id = injected.indices[i];
    const int64_t place = id - first;
    if (i > ends[0] && injected.indices[i - 1] == id) return;
    if (place < 0 || place >= kBurstTile) return;
    float sum = 0.0f;
    for (; i < ends[1] && injected.indices[i] == id; ++i) sum += injected.values[i];
    sums[place] = sum;
    atomicOr(touched + place / kBurstWord, 1u << (place % kBurstWord));
  }
};

}  // namespace burst
}  // namespace brainjax

#endif  // BRAINJAX_BURST_STAGING_CUH_
