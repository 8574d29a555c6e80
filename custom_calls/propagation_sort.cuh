// Synapses onto more targets than the cache holds: sorted by slice of targets, tile by tile.
#ifndef BRAINJAX_PROPAGATION_SORT_CUH_
#define BRAINJAX_PROPAGATION_SORT_CUH_

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "propagation_call.cuh"

namespace brainjax {
namespace propagation {

// What a block that sorts finds: contributions without weights that differ, and that some units are
// not sorted.
constexpr uint32_t kUnlike = 1, kUnsorted = 2;

// How the synapses of one batch element are cut into tiles. What is sorted has fewer than 2^31.
struct Tiling {
  uint32_t units;  // that are sorted at all
  uint32_t tile_units;
  uint32_t tiles;
  uint32_t tile_synapses;

  template <typename Events>
  __device__ static Tiling Of(const Events& events, const Call<typename Events::Weight>& call) {
    constexpr uint32_t kWidth = Events::kWidth;
    const uint32_t most = static_cast<uint32_t>(call.scratch.tile) / kWidth;
    if (events.units() * kWidth < call.sort_from) return {0, 1, 0, 0};
    const uint32_t units =
        static_cast<uint32_t>(min(events.units(), call.scratch.max_sorted / kWidth));
    // Every block has as many tiles as the others.
    const uint32_t turns = Up(units, call.sort_blocks * most);
    const uint32_t share = Up(units, call.sort_blocks * turns * kWarp) * kWarp;
    const uint32_t tile_units = max(share, static_cast<uint32_t>(kMinTile) / kWidth);
    return {units, tile_units, Up(units, tile_units), tile_units * kWidth};
  }

  // Whether there are units that are not sorted.
  template <typename Events>
  __device__ bool HasRest(const Events& events) const {
    return units < events.units();
  }

  static __device__ uint32_t Up(uint32_t a, uint32_t b) { return (a + b - 1) / b; }
};

// Where the sorted tiles of one batch element are in memory.
struct SortedTiles {
  uint16_t* offsets;  // of slice s in tile t: at t * (slices + 1) + s
  uint16_t* targets;  // within their slices
  int32_t* contributions;
  Slices slices;

  __device__ SortedTiles(const Scratch& scratch, int64_t b)
      : offsets(scratch.Part<uint16_t>(b, scratch.tile_offsets)),
        targets(scratch.Part<uint16_t>(b, scratch.targets)),
        contributions(scratch.Part<int32_t>(b, scratch.contributions)),
        slices(scratch.slices) {}

  __device__ uint16_t* OffsetsOf(uint32_t tile) const {
    return offsets + tile * (int64_t{slices.count} + 1);
  }
};

// A tile in shared memory, as it was read and as it is sorted.
template <bool kWeighted>
struct TileBuffers {
  static constexpr int64_t kSynapseBytes = kWeighted ? 10 : 6;

  int32_t* targets;  // and their slices
  int32_t* contributions;
  uint16_t* sorted;   // with weights where each synapse was read, else its target
  uint32_t* cursors;  // of each slice: the next free place in the tile

  __device__ TileBuffers(void* memory, int64_t size)
      : targets(static_cast<int32_t*>(memory)),
        contributions(targets + size),
        sorted(reinterpret_cast<uint16_t*>(contributions + (kWeighted ? size : 0))),
        cursors(reinterpret_cast<uint32_t*>(sorted + size)) {}

  static int64_t Bytes(int64_t size, int64_t slices) {
    return size * kSynapseBytes + slices * sizeof(uint32_t);
  }
};

// Moves a vector to or from memory.
template <int kWidth>
__device__ void CopyVector(const int32_t* source, int32_t* destination) {
  if constexpr (kWidth == 4) {
    *reinterpret_cast<int4*>(destination) = *reinterpret_cast<const int4*>(source);
  } else {
    *destination = *source;
  }
}

// Writes the sorted tile in whole vectors; what is behind the last synapse may be anything.
template <bool kWeighted>
__device__ void WriteTile(const TileBuffers<kWeighted>& buffers, uint32_t count,
                          uint16_t* targets, int32_t* contributions) {
  constexpr uint32_t kVector = kWeighted ? 4 : 8;
  for (uint32_t place = threadIdx.x * kVector; place < count; place += kThreads * kVector) {
    using Word = std::conditional_t<kWeighted, uint2, uint4>;
    const Word sorted = *reinterpret_cast<const Word*>(buffers.sorted + place);
    Word target = sorted;
    if constexpr (kWeighted) {
      uint16_t from[kVector], located[kVector];
      alignas(16) int32_t contribution[kVector];
      memcpy(from, &sorted, sizeof(sorted));
#pragma unroll
      for (uint32_t v = 0; v < kVector; ++v) {
        const uint32_t here = place + v < count ? from[v] : from[0];
        located[v] = static_cast<uint16_t>(buffers.targets[here]);
        contribution[v] = buffers.contributions[here];
      }
      memcpy(&target, located, sizeof(target));
      CopyVector<kVector>(contribution, contributions + place);
    }
    *reinterpret_cast<Word*>(targets + place) = target;
  }
}

// Replaces the number of synapses in each slice by that in the slices before it.
__device__ inline uint32_t AddUpSlices(uint32_t* cursors, int slices, uint16_t* offsets) {
  const int mine = (slices + kThreads - 1) / kThreads;
  const int first = min(static_cast<int>(threadIdx.x) * mine, slices);
  const int last = min(first + mine, slices);
  uint32_t count = 0, total;
  for (int s = first; s < last; ++s) count += cursors[s];
  uint32_t place = ExclusiveScan<kThreads>(count, &total);
  for (int s = first; s < last; ++s) {
    const uint32_t here = cursors[s];
    cursors[s] = place;
    offsets[s] = static_cast<uint16_t>(place);
    place += here;
  }
  if (threadIdx.x == 0) offsets[slices] = static_cast<uint16_t>(total);
  return total;
}

// Reads the units [first, last) and counts the synapses in each slice. Returns whether a
// contribution is not `common`; that is asked where there are no weights.
template <typename Events, bool kWeighted>
__device__ bool ReadTile(const Events& events, int64_t first, int64_t last, int32_t common,
                         const Slices& slices, const TileBuffers<kWeighted>& buffers) {
  constexpr int kWidth = Events::kWidth;
  bool unlike = false;
  events.ForBlock(first, last,
                  [&](int64_t unit, const int32_t(&targets)[kWidth],
                      const int32_t(&contributions)[kWidth]) {
                    alignas(16) int32_t located[kWidth];
#pragma unroll
                    for (int v = 0; v < kWidth; ++v) {
                      located[v] = -1;
                      if (targets[v] < 0) continue;
                      located[v] = static_cast<int32_t>(slices.Locate(targets[v]));
                      atomicAdd(buffers.cursors + (located[v] >> kPlaceBits), 1u);
                      if constexpr (!kWeighted) unlike |= contributions[v] != common;
                    }
                    const int place = static_cast<int>(unit - first) * kWidth;
                    CopyVector<kWidth>(located, buffers.targets + place);
                    if constexpr (kWeighted) {
                      CopyVector<kWidth>(contributions, buffers.contributions + place);
                    }
                  });
  return unlike;
}

// Brings `units` units that were read to their places in the sorted tile.
template <int kWidth, bool kWeighted>
__device__ void PlaceUnits(uint32_t units, const TileBuffers<kWeighted>& buffers) {
#pragma unroll(4 / kWidth)
  for (uint32_t unit = threadIdx.x; unit < units; unit += kThreads) {
    alignas(16) int32_t targets[kWidth];
    CopyVector<kWidth>(buffers.targets + unit * kWidth, targets);
#pragma unroll
    for (int v = 0; v < kWidth; ++v) {
      if (targets[v] < 0) continue;
      const uint32_t place = atomicAdd(buffers.cursors + (targets[v] >> kPlaceBits), 1u);
      buffers.sorted[place] = static_cast<uint16_t>(kWeighted ? unit * kWidth + v : targets[v]);
    }
  }
}

// Sorts tile `tile` by slice of targets. Returns what ReadTile does.
template <typename Events, bool kWeighted>
__device__ bool SortTile(const Events& events, const Tiling& tiling, uint32_t tile,
                         int32_t common, const TileBuffers<kWeighted>& buffers,
                         const SortedTiles& tiles) {
  const uint32_t first = tile * tiling.tile_units;
  const uint32_t units = min(tiling.tile_units, tiling.units - first);
  for (int i = threadIdx.x; i < tiles.slices.count; i += kThreads) buffers.cursors[i] = 0;
  __syncthreads();
  const bool unlike =
      ReadTile(events, first, int64_t{first} + units, common, tiles.slices, buffers);
  __syncthreads();
  const uint32_t count = AddUpSlices(buffers.cursors, tiles.slices.count, tiles.OffsetsOf(tile));
  __syncthreads();
  PlaceUnits<Events::kWidth>(units, buffers);
  __syncthreads();
  const int64_t start = int64_t{tile} * tiling.tile_synapses;
  WriteTile(buffers, count, tiles.targets + start, tiles.contributions + start);
  __syncthreads();  // the buffers are free again
  return unlike;
}

template <typename Events>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    SortKernel(const __grid_constant__ Call<typename Events::Weight> call) {
  using W = typename Events::Weight;
  constexpr bool kWeighted = !std::is_same_v<W, UnitWeight>;
  extern __shared__ int4 memory[];
  AwaitAndAdmit();
  ForEachProblem<Events>(call, [&](int64_t b, const Propagation<W>& problem,
                                   const Events& events) {
    const Tiling tiling = Tiling::Of(events, call);
    const SortedTiles tiles(call.scratch, b);
    const TileBuffers<kWeighted> buffers(memory, call.scratch.tile);
    // A batch of one: all sums are those of this problem.
    if (call.adds_rest_first && tiling.HasRest(events)) ClearSums(call);
    int32_t common = 0;
    if constexpr (!kWeighted) {
      if (tiling.units > 0) common = Contribution(problem.Gain(0), W{});
    }
    bool unlike = false;
    for (uint32_t tile = blockIdx.x; tile < tiling.tiles; tile += gridDim.x) {
      unlike |= SortTile(events, tiling, tile, common, buffers, tiles);
    }
    const bool is_unlike = !kWeighted && __syncthreads_or(unlike);
    if (threadIdx.x == 0) {
      call.scratch.template Part<uint32_t>(b, call.scratch.findings)[blockIdx.x] =
          (is_unlike ? kUnlike : 0) | (tiling.HasRest(events) ? kUnsorted : 0);
    }
  });
}

// Whether a block that sorted found any of these. Asked by all threads of a block after the sort.
template <typename W>
__device__ __forceinline__ bool HasFound(const Call<W>& call, int64_t b, uint32_t findings) {
  const auto* const found = call.scratch.template Part<const uint32_t>(b, call.scratch.findings);
  return __syncthreads_or(threadIdx.x < call.sort_blocks && (found[threadIdx.x] & findings) != 0);
}

// How many units the tiles hold that can be used: all or, where contributions without weights
// differ, none. Asked by all threads of a block after the sort.
template <typename W>
__device__ uint32_t UsableUnits(const Tiling& tiling, const Call<W>& call, int64_t b) {
  const bool are_unlike = std::is_same_v<W, UnitWeight> && HasFound(call, b, kUnlike);
  return are_unlike ? 0 : tiling.units;
}

}  // namespace propagation
}  // namespace brainjax

#endif  // BRAINJAX_PROPAGATION_SORT_CUH_
