// Synapses onto more targets than the cache holds: sorted by slice of targets, tile by tile.
#ifndef BRAINJAX_PROPAGATION_SORT_CUH_
#define BRAINJAX_PROPAGATION_SORT_CUH_

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "propagation_tiles.cuh"

namespace brainjax {
namespace propagation {

// What a block that sorts finds: contributions without weights that differ, and that some units are
// not sorted.
constexpr uint32_t kUnlike = 1, kUnsorted = 2;

// Writes neighbours as one word.
template <typename Word, typename T, int kCount>
__device__ __forceinline__ void WriteWord(const T (&values)[kCount], T* destination) {
  static_assert(sizeof(Word) == sizeof(values));
  Word word;
  memcpy(&word, values, sizeof(word));
  *reinterpret_cast<Word*>(destination) = word;
}

// Writes sorted tile `tile`, several synapses at a time; what is behind its `count` synapses may be
// anything.
__device__ inline void WriteTile(const TileBuffers<false>& buffers, uint32_t, uint32_t count,
                                 const SortedTiles<false>& tiles, int64_t start) {
  CopyVectors<kThreads, 4>(buffers.sorted, count, tiles.synapses + start);
}

__device__ inline void WriteTile(const TileBuffers<true>& buffers, uint32_t tile, uint32_t count,
                                 const SortedTiles<true>& tiles, int64_t start) {
  const TileForm form = TileForm::Of(*buffers.magnitudes);
  if (threadIdx.x == 0) *tiles.FormOf(tile) = static_cast<uint16_t>(form.Code());
  constexpr uint32_t kVector = 2;
#pragma unroll 2
  for (uint32_t place = threadIdx.x * kVector; place < count; place += kThreads * kVector) {
    uint16_t from[kVector], highs[kVector];
    uint32_t synapses[kVector];
    const uint32_t pair = *reinterpret_cast<const uint32_t*>(buffers.sorted + place);
    memcpy(from, &pair, sizeof(pair));
#pragma unroll
    for (uint32_t v = 0; v < kVector; ++v) {
      const uint32_t here = place + v < count ? from[v] : from[0];
      const uint32_t written = form.Written(buffers.contributions[here]);
      synapses[v] = written << kPlaceBits | (buffers.targets[here] & kPlaceMask);
      highs[v] = static_cast<uint16_t>(written >> kPlaceBits);
    }
    WriteWord<uint2>(synapses, tiles.synapses + start + place);
    if (form.HasHighs()) WriteWord<uint32_t>(highs, tiles.highs + start + place);
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
// contribution is not `common`; that is asked where there are no weights. Where there are, adds
// the bits of all magnitudes to those of the tile.
template <typename Events, bool kWeighted>
__device__ bool ReadTile(const Events& events, int64_t first, int64_t last, int32_t common,
                         const Slices& slices, const TileBuffers<kWeighted>& buffers) {
  constexpr int kWidth = Events::kWidth;
  bool unlike = false;
  uint32_t magnitudes = 0;
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
                      if constexpr (kWeighted) {
                        magnitudes |= Magnitude(contributions[v]);
                      } else {
                        unlike |= contributions[v] != common;
                      }
                    }
                    const int place = static_cast<int>(unit - first) * kWidth;
                    CopyVector<kWidth>(located, buffers.targets + place);
                    if constexpr (kWeighted) {
                      CopyVector<kWidth>(contributions, buffers.contributions + place);
                    }
                  });
  if constexpr (kWeighted) {
    magnitudes = __reduce_or_sync(kAllLanes, magnitudes);
    if (Lane() == 0) atomicOr(buffers.magnitudes, magnitudes);
  }
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
                         const SortedTiles<kWeighted>& tiles) {
  const uint32_t first = tile * tiling.tile_units;
  const uint32_t units = min(tiling.tile_units, tiling.units - first);
  for (int i = threadIdx.x; i < tiles.slices.count; i += kThreads) buffers.cursors[i] = 0;
  if (threadIdx.x == 0) *buffers.magnitudes = 0;
  __syncthreads();
  const bool unlike =
      ReadTile(events, first, int64_t{first} + units, common, tiles.slices, buffers);
  __syncthreads();
  const uint32_t count = AddUpSlices(buffers.cursors, tiles.slices.count, tiles.OffsetsOf(tile));
  __syncthreads();
  PlaceUnits<Events::kWidth>(units, buffers);
  __syncthreads();
  WriteTile(buffers, tile, count, tiles, int64_t{tile} * tiling.tile_synapses);
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
    const SortedTiles<kWeighted> tiles(call.scratch, b);
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
