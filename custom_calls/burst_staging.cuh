// What is injected into the neurons of a warp: a part of the list, whose ids ascend.
#ifndef BRAINJAX_BURST_STAGING_CUH_
#define BRAINJAX_BURST_STAGING_CUH_

#include <cstdint>

#include "burst_core.h"
#include "burst_own.cuh"
#include "warp_ranges.cuh"

namespace brainjax {
namespace burst {

// The tile that an entry belongs to: -1 in front of all neurons, `tiles` behind.
__device__ __forceinline__ int32_t TileOf(int32_t id, int32_t tiles) {
  return id < 0 ? -1 : min(id / kBurstTile, tiles);
}

// Each lane has some tiles, from `first` on and before `end`, and writes that their parts begin at
// `place`; lanes share what is long.
__device__ __forceinline__ void WriteStarts(int32_t first, int32_t end, uint32_t place,
                                            uint32_t* starts) {
  const bool is_long = end - first > kWarp;
  for (int32_t tile = first; !is_long && tile < end; ++tile) starts[tile] = place;
  for (uint32_t lanes = __ballot_sync(kAllLanes, is_long); lanes != 0; lanes &= lanes - 1) {
    const int lane = __ffs(lanes) - 1;
    const int32_t last = __shfl_sync(kAllLanes, end, lane);
    const uint32_t start = __shfl_sync(kAllLanes, place, lane);
    for (int32_t tile = __shfl_sync(kAllLanes, first, lane) + Lane(); tile < last; tile += kWarp) {
      starts[tile] = start;
    }
  }
}

// Finds where the parts of tiles begin, and where the last one ends: at the first entry of the tile
// or of one behind it. All threads of a row of the grid do, the last ones first, as the first ones
// have more to do.
__device__ inline void FindStarts(const BurstProblem& problem, int32_t tiles) {
  const ActiveSet injected = problem.Injected();
  const int64_t threads = int64_t{gridDim.x} * blockDim.x;
  const int64_t thread = int64_t{gridDim.x - 1 - blockIdx.x} * blockDim.x + threadIdx.x;
  for (int64_t i = thread; i - Lane() <= injected.count; i += threads) {
    // In front of the first entry there is one of no tile, behind the last one that of the end.
    int32_t before = -1, own = tiles;
    if (i > 0 && i <= injected.count) before = TileOf(injected.indices[i - 1], tiles);
    if (i < injected.count) own = TileOf(injected.indices[i], tiles);
    if (i > injected.count) before = own;
    WriteStarts(before + 1, own + 1, static_cast<uint32_t>(i), problem.tile_starts);
  }
}

// A part of the list.
struct Part {
  uint32_t begin, end;

  // Whether it is not empty.
  __device__ bool IsThere() const { return begin < end; }
};

// What has been asked for of the part of the tile that holds the neurons of a warp: the lower lanes
// have its begin, the others its end. So the compiler waits for it where it is taken, not before.
struct AskedPart {
  uint32_t bound = 0;

  AskedPart() = default;
  __device__ AskedPart(const BurstProblem& problem, uint32_t first)
      : bound(__ldcg(problem.tile_starts + first / kBurstTile + (Lane() >= kWarp / 2))) {}

  __device__ Part Take() const {
    return {__shfl_sync(kAllLanes, bound, 0), __shfl_sync(kAllLanes, bound, kWarp - 1)};
  }
};

// An entry of a part that is not empty: behind the last one, the last one again.
struct Entry {
  int32_t id;
  float value;

  __device__ Entry(const ActiveSet& injected, const Part& part, uint32_t i) {
    const uint32_t place = min(i, part.end - 1);
    id = injected.indices[place];
    value = injected.values[place];
  }
};

// What is injected into the neurons of a warp, all of one tile.
template <int kNeurons>
struct Staging {
  static_assert(kBurstTile % kNeurons == 0);

  alignas(16) float sums[kNeurons];
  uint32_t touched[kNeurons / kBurstWord];

  // Returns whether the tile gets anything; all lanes of the warp fill it together.
  __device__ bool Fill(const BurstProblem& problem, uint32_t first, AskedPart asked) {
    const Part part = asked.Take();
    if (!part.IsThere()) return false;
    // Asked for before anything that the lanes do together, which waits for all that was asked for.
    Entry entry(problem.injected, part, part.begin + Lane());
    __syncwarp();  // what another network staged is read
    if (Lane() < kNeurons / kBurstWord) touched[Lane()] = 0;
    __syncwarp();
    const uint32_t neurons = min(problem.NumNeurons() - first, uint32_t{kNeurons});
    int32_t in_front = entry.id;  // of the entries of a turn
    for (uint32_t start = part.begin; start < part.end; start += kWarp) {
      const uint32_t i = start + Lane();
      if (start > part.begin) entry = Entry(problem.injected, part, i);
      int32_t before = __shfl_up_sync(kAllLanes, entry.id, 1);
      const int32_t behind = __shfl_down_sync(kAllLanes, entry.id, 1);
      if (Lane() == 0) before = in_front;
      in_front = __shfl_sync(kAllLanes, entry.id, kWarp - 1);
      const bool is_first = i == part.begin || before != entry.id;
      const bool may_repeat = Lane() == kWarp - 1 || behind == entry.id;
      if (i < part.end && is_first) {
        Add(problem.injected, first, neurons, i, may_repeat ? part.end : i, entry);
      }
    }
    __syncwarp();
    return true;
  }

  // A bit for each of kWidth neurons from `place` on: whether anything is injected.
  template <int kWidth>
  __device__ uint32_t Touched(int place) const {
    return touched[place / kBurstWord] >> (place % kBurstWord) & ((1u << kWidth) - 1);
  }

  // What is staged for kWidth neurons from `place` on, 0 for those that are not touched: all are
  // read together.
  template <int kWidth>
  __device__ __forceinline__ void Read(int place, uint32_t touched, float (&staged)[kWidth]) const {
    Numbers<kWidth, float> together;
    using Word = typename Numbers<kWidth, float>::Word;
    together.words[0] = *reinterpret_cast<const Word*>(sums + place);
    together.Unpack(staged);
#pragma unroll
    for (int v = 0; v < kWidth; ++v) staged[v] = touched >> v & 1 ? staged[v] : 0.0f;
  }

 private:
  // The lane that finds the first entry of a neuron adds all of them, in the order given: those
  // behind it, up to `end`, of its id. What is listed may name no neuron of the warp, or none.
  __device__ void Add(const ActiveSet& injected, uint32_t first, uint32_t neurons, uint32_t i,
                      uint32_t end, const Entry& entry) {
    float sum = 0.0f + entry.value;
    const uint32_t place = static_cast<uint32_t>(entry.id) - first;  // too large if in front
    if (place >= neurons) return;
    while (++i < end && injected.indices[i] == entry.id) sum += injected.values[i];
    sums[place] = sum;
    atomicOr(touched + place / kBurstWord, 1u << (place % kBurstWord));
  }
};

}  // namespace burst
}  // namespace brainjax

#endif  // BRAINJAX_BURST_STAGING_CUH_
