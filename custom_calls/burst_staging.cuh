// What is injected into the neurons of a warp: a part of the list, whose ids ascend.
#ifndef BRAINJAX_BURST_STAGING_CUH_
#define BRAINJAX_BURST_STAGING_CUH_

#include <cstdint>

#include "burst_core.h"
#include "warp_ranges.cuh"

namespace brainjax {
namespace burst {

// The first of the ascending ids that is not below `key`: 2^kBits neighbours of a warp find it for
// a key of theirs.
template <int kBits>
__device__ int64_t LowerBound(const int32_t* ids, int64_t count, int64_t key) {
  constexpr int kLanes = 1 << kBits;
  constexpr uint32_t kMine = kAllLanes >> (kWarp - kLanes);
  const int lane = Lane() % kLanes;
  int64_t low = 0, high = count;
  while (__any_sync(kAllLanes, low < high)) {
    const int64_t step = (high - low + kLanes - 1) >> kBits, probe = low + lane * step;
    const bool is_below = probe < high && ids[probe] < key;
    const int below = __popc(__ballot_sync(kAllLanes, is_below) >> (Lane() - lane) & kMine);
    high = min(high, low + below * step);
    if (below > 0) low += (below - 1) * step + 1;
  }
  return low;
}

// Finds where the parts of tiles begin, 2^kBits lanes one at a time: all warps of a row of the grid
// do, the last ones first, as the first ones have more to do.
template <int kBits>
__device__ void FindStartsBy(const BurstProblem& problem, int64_t tiles) {
  const ActiveSet injected = problem.Injected();
  const int64_t warps = int64_t{gridDim.x} * (blockDim.x / kWarp);
  const int64_t warp = blockIdx.x * (blockDim.x / kWarp) + threadIdx.x / kWarp;
  constexpr int kTogether = kWarp >> kBits;
  for (int64_t first = (warps - 1 - warp) * kTogether; first <= tiles;
       first += warps * kTogether) {
    const int64_t tile = first + (Lane() >> kBits);
    const int64_t start =
        LowerBound<kBits>(injected.indices, injected.count, tile * kBurstTile);
    if (Lane() % (1 << kBits) == 0 && tile <= tiles) {
      problem.tile_starts[tile] = static_cast<uint32_t>(start);
    }
  }
}

// The same for all tiles: a whole warp for each, while there are warps.
__device__ inline void FindStarts(const BurstProblem& problem, int64_t tiles) {
  if (tiles < gridDim.x * (blockDim.x / kWarp)) {
    FindStartsBy<5>(problem, tiles);
  } else {
    FindStartsBy<3>(problem, tiles);
  }
}

// A part of the list.
struct Part {
  uint32_t begin, end;

  // That of the tile that holds the neurons of a warp.
  __device__ static Part Of(const BurstProblem& problem, uint32_t first) {
    const uint32_t* const starts = problem.tile_starts + first / kBurstTile;
    return {__ldcg(starts), __ldcg(starts + 1)};
  }
};

// An entry of a part that is not empty: behind the last one, the last one again.
struct Entry {
  int32_t id, before;  // `before`: of the entry in front
  float value;

  __device__ Entry(const ActiveSet& injected, const Part& part, uint32_t i) {
    const uint32_t place = min(i, part.end - 1);
    id = injected.indices[place];
    before = injected.indices[max(place, part.begin + 1) - 1];
    value = injected.values[place];
  }
};

// What is injected into the neurons of a warp, all of one tile.
template <int kNeurons>
struct Staging {
  static_assert(kBurstTile % kNeurons == 0);

  float sums[kNeurons];
  uint32_t touched[kNeurons / kBurstWord];

  // Returns whether the tile gets anything; all lanes of the warp fill it together.
  __device__ bool Fill(const BurstProblem& problem, uint32_t first, Part part) {
    // The compiler is to know that all lanes have the same part.
    part = {__shfl_sync(kAllLanes, part.begin, 0), __shfl_sync(kAllLanes, part.end, 0)};
    if (part.begin >= part.end) return false;
    // Asked for before anything that the lanes do together, which waits for all that was asked for.
    Entry entry(problem.injected, part, part.begin + Lane());
    __syncwarp();  // what another network staged is read
    if (Lane() < kNeurons / kBurstWord) touched[Lane()] = 0;
    __syncwarp();
    const uint32_t neurons = min(problem.NumNeurons() - first, uint32_t{kNeurons});
    for (uint32_t start = part.begin; start < part.end; start += kWarp) {
      const uint32_t i = start + Lane();
      if (start > part.begin) entry = Entry(problem.injected, part, i);
      if (i < part.end) Add(problem.injected, first, neurons, i, part, entry);
    }
    __syncwarp();
    return true;
  }

  // A bit for each of kWidth neurons from `place` on: whether anything is injected.
  template <int kWidth>
  __device__ uint32_t Touched(int place) const {
    return touched[place / kBurstWord] >> (place % kBurstWord) & ((1u << kWidth) - 1);
  }

 private:
  // The lane that finds the first entry of a neuron adds all of them, in the order given. What is
  // listed may name no neuron of the warp, or none at all.
  __device__ void Add(const ActiveSet& injected, uint32_t first, uint32_t neurons, uint32_t i,
                      const Part& part, const Entry& entry) {
    const bool is_first = i == part.begin || entry.before != entry.id;
    float sum = 0.0f + entry.value;
    const uint32_t place = static_cast<uint32_t>(entry.id) - first;  // too large if in front
    if (!is_first || place >= neurons) return;
    while (++i < part.end && injected.indices[i] == entry.id) sum += injected.values[i];
    sums[place] = sum;
    atomicOr(touched + place / kBurstWord, 1u << (place % kBurstWord));
  }
};

}  // namespace burst
}  // namespace brainjax

#endif  // BRAINJAX_BURST_STAGING_CUH_
