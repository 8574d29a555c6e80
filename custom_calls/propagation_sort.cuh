// Synapses onto more targets than the cache holds: sorted by slice of targets, tile by tile, then
// summed one slice at a time in shared memory.
#ifndef BRAINJAX_PROPAGATION_SORT_CUH_
#define BRAINJAX_PROPAGATION_SORT_CUH_

#include <cstdint>
#include <type_traits>

#include "propagation_call.cuh"

namespace brainjax {
namespace propagation {

// How the synapses of one batch element are cut into tiles. What is sorted has fewer than 2^31.
struct Tiling {
  uint32_t units;  // that are sorted at all
  uint32_t tile_units;
  uint32_t tiles;
  uint32_t tile_synapses;

  template <typename Events>
  __device__ static Tiling Of(const Events& events, const Call<typename Events::Weight>& call) {
    constexpr bool kWeighted = !std::is_same_v<typename Events::Weight, UnitWeight>;
    constexpr uint32_t kWidth = Events::kWidth, kMost = MaxTile(kWeighted) / kWidth;
    if (events.units() * kWidth < call.sort_from) return {0, 1, 0, 0};
    const uint32_t units =
        static_cast<uint32_t>(min(events.units(), call.scratch.max_sorted / kWidth));
    // Every block has as many tiles as the others.
    const uint32_t turns = Up(units, call.sort_blocks * kMost);
    const uint32_t share = Up(units, call.sort_blocks * turns * kWarp) * kWarp;
    const uint32_t tile_units = max(share, static_cast<uint32_t>(kMinTile) / kWidth);
    return {units, tile_units, Up(units, tile_units), tile_units * kWidth};
  }

  static __device__ uint32_t Up(uint32_t a, uint32_t b) { return (a + b - 1) / b; }
};

// Where the sorted tiles of one batch element are in memory.
struct SortedTiles {
  uint16_t* offsets;  // of slice s in tile t: at t * (slices + 1) + s
  uint16_t* targets;  // within their slices
  int32_t* contributions;
  int slices, slice_bits;

  __device__ SortedTiles(const Scratch& scratch, int64_t b)
      : offsets(scratch.Part<uint16_t>(b, scratch.tile_offsets)),
        targets(scratch.Part<uint16_t>(b, scratch.targets)),
        contributions(scratch.Part<int32_t>(b, scratch.contributions)),
        slices(scratch.slices),
        slice_bits(scratch.slice_bits) {}
};

// A tile in shared memory, as it was read and as it is sorted.
template <bool kWeighted>
struct TileBuffers {
  static constexpr int64_t kSize = MaxTile(kWeighted), kWeights = kWeighted ? kSize : 4;

  int32_t read_targets[kSize];
  int32_t read_contributions[kWeights];
  int32_t contributions[kWeights];
  uint16_t targets[kSize];
  uint32_t cursors[1];  // of each slice: the next free place in the tile

  static int64_t Bytes(int64_t slices) { return sizeof(TileBuffers) + slices * sizeof(uint32_t); }
};

// Copies whole vectors; what is behind the last element is not read.
template <typename T>
__device__ void CopyOut(const T* source, uint32_t count, T* destination) {
  const uint32_t vectors = (count * sizeof(T) + 15) / 16;
  for (uint32_t i = threadIdx.x; i < vectors; i += kThreads) {
    reinterpret_cast<int4*>(destination)[i] = reinterpret_cast<const int4*>(source)[i];
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

// Moves a vector to or from shared memory.
template <int kWidth>
__device__ void CopyVector(const int32_t* source, int32_t* destination) {
  if constexpr (kWidth == 4) {
    *reinterpret_cast<int4*>(destination) = *reinterpret_cast<const int4*>(source);
  } else {
    *destination = *source;
  }
}

// Sorts `units` units from `first` on by slice of targets into tile `tile`. Returns whether a
// contribution is not `common`; that is asked where there are no weights.
template <typename Events, bool kWeighted>
__device__ bool SortTile(const Events& events, int64_t first, uint32_t units, uint32_t tile,
                         uint32_t tile_synapses, int32_t common, TileBuffers<kWeighted>* buffers,
                         const SortedTiles& tiles) {
  constexpr int kWidth = Events::kWidth;
  bool unlike = false;
  for (int i = threadIdx.x; i < tiles.slices; i += kThreads) buffers->cursors[i] = 0;
  __syncthreads();
  events.ForBlock(first, first + units,
                  [&](int64_t unit, const int32_t(&targets)[kWidth],
                      const int32_t(&contributions)[kWidth]) {
                    const int place = static_cast<int>(unit - first) * kWidth;
                    CopyVector<kWidth>(targets, buffers->read_targets + place);
                    if constexpr (kWeighted) {
                      CopyVector<kWidth>(contributions, buffers->read_contributions + place);
                    }
#pragma unroll
                    for (int v = 0; v < kWidth; ++v) {
                      if (targets[v] < 0) continue;
                      atomicAdd(buffers->cursors + (targets[v] >> tiles.slice_bits), 1u);
                      if constexpr (!kWeighted) unlike |= contributions[v] != common;
                    }
                  });
  __syncthreads();
  const uint32_t count = AddUpSlices(buffers->cursors, tiles.slices,
                                     tiles.offsets + tile * (int64_t{tiles.slices} + 1));
  __syncthreads();
  const int32_t mask = (1 << tiles.slice_bits) - 1;
#pragma unroll(4 / kWidth)
  for (uint32_t unit = threadIdx.x; unit < units; unit += kThreads) {
    alignas(16) int32_t targets[kWidth], contributions[kWidth];
    CopyVector<kWidth>(buffers->read_targets + unit * kWidth, targets);
    if constexpr (kWeighted) {
      CopyVector<kWidth>(buffers->read_contributions + unit * kWidth, contributions);
    }
#pragma unroll
    for (int v = 0; v < kWidth; ++v) {
      if (targets[v] < 0) continue;
      const uint32_t place =
          atomicAdd(buffers->cursors + (targets[v] >> tiles.slice_bits), 1u);
      buffers->targets[place] = static_cast<uint16_t>(targets[v] & mask);
      if constexpr (kWeighted) buffers->contributions[place] = contributions[v];
    }
  }
  __syncthreads();
  const int64_t start = int64_t{tile} * tile_synapses;
  CopyOut(buffers->targets, count, tiles.targets + start);
  if constexpr (kWeighted) CopyOut(buffers->contributions, count, tiles.contributions + start);
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
    auto* buffers = reinterpret_cast<TileBuffers<kWeighted>*>(memory);
    int32_t common = 0;
    if constexpr (!kWeighted) {
      if (tiling.units > 0) common = Contribution(problem.Gain(0), W{});
    }
    bool unlike = false;
    for (uint32_t tile = blockIdx.x; tile < tiling.tiles; tile += gridDim.x) {
      const uint32_t first = tile * tiling.tile_units;
      unlike |= SortTile(events, first, min(tiling.tile_units, tiling.units - first), tile,
                         tiling.tile_synapses, common, buffers, tiles);
    }
    if constexpr (!kWeighted) {
      unlike = __syncthreads_or(unlike);
      if (threadIdx.x == 0) {
        call.scratch.template Part<int32_t>(b, call.scratch.unlike)[blockIdx.x] = unlike;
      }
    }
  });
}

// How many units the tiles hold that can be used: all or, where contributions without weights
// differ, none. Asked by all threads of a block after the sort.
template <typename W>
__device__ uint32_t UsableUnits(const Tiling& tiling, const Call<W>& call, int64_t b) {
  if constexpr (std::is_same_v<W, UnitWeight>) {
    const int32_t* flags = call.scratch.template Part<const int32_t>(b, call.scratch.unlike);
    if (__syncthreads_or(threadIdx.x < call.sort_blocks && flags[threadIdx.x])) return 0;
  }
  return tiling.units;
}

// Adds the synapses of one slice in tiles [first, last), at most 32, to its sums: one warp does.
// `cancelled(target)` is called where a sum is 0 afterwards.
template <bool kWeighted, bool kMarked, typename Cancelled>
__device__ void AddTiles(int slice, uint32_t first, uint32_t last, uint32_t tile_synapses,
                         const SortedTiles& tiles, int32_t* sums, const Cancelled& cancelled) {
  const uint32_t tile = first + Lane();
  uint32_t begin = 0, end = 0;
  if (tile < last) {
    const uint16_t* offsets = tiles.offsets + tile * (int64_t{tiles.slices} + 1) + slice;
    begin = offsets[0];
    end = offsets[1];
  }
  const WarpRanges ranges(end - begin);
  const uint32_t shift = tile * tile_synapses + begin - ranges.begin;
  for (uint32_t x = Lane(); x - Lane() < ranges.total; x += kWarp * kInFlight) {
    uint16_t targets[kInFlight];
    int32_t contributions[kInFlight];
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      const uint32_t element = x + u * kWarp;
      const uint32_t place = __shfl_sync(kAllLanes, shift, ranges.Owner(element)) + element;
      contributions[u] = 0;
      targets[u] = 0;
      if (element < ranges.total) {
        targets[u] = tiles.targets[place];
        contributions[u] = kWeighted ? tiles.contributions[place] : 1;
      }
    }
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      if (x + u * kWarp >= ranges.total) break;
      if constexpr (kWeighted && kMarked) {
        const int32_t before = atomicAdd(sums + targets[u], contributions[u]);
        if (IsCancelled(before, contributions[u])) cancelled(targets[u]);
      } else {
        atomicAdd(sums + targets[u], contributions[u]);
      }
    }
  }
}

// Adds up one slice in shared memory and writes it, times `factor`.
template <bool kMarked, typename W>
__device__ void SumSlice(const Propagation<W>& problem, int slice, uint32_t num_tiles,
                         uint32_t tile_synapses, const SortedTiles& tiles, uint32_t factor,
                         uint32_t* marks, int32_t* sums) {
  constexpr bool kWeighted = !std::is_same_v<W, UnitWeight>;
  constexpr uint32_t kWarps = kSumThreads / kWarp;
  const uint32_t first = static_cast<uint32_t>(slice) << tiles.slice_bits;
  const uint32_t size = min(1u << tiles.slice_bits, problem.num_post - first);
  for (uint32_t i = threadIdx.x; i < size; i += kSumThreads) sums[i] = 0;
  __syncthreads();
  // Whole turns of equal size for all warps.
  const uint32_t turns = Tiling::Up(max(num_tiles, 1u), kWarps * kWarp);
  const uint32_t window = Tiling::Up(num_tiles, kWarps * turns);
  for (uint32_t t = threadIdx.x / kWarp * window; t < num_tiles; t += kWarps * window) {
    AddTiles<kWeighted, kMarked>(slice, t, min(t + window, num_tiles), tile_synapses, tiles, sums,
                                 [&](uint32_t target) { Mark(marks, first + target); });
  }
  __syncthreads();
  for (uint32_t i = threadIdx.x; i < size; i += kSumThreads) {
    const int32_t sum = static_cast<int32_t>(factor * static_cast<uint32_t>(sums[i]));
    problem.sums[first + i] = sum;
    if (!kWeighted && kMarked && sum == 0 && sums[i] != 0) Mark(marks, first + i);
  }
  __syncthreads();  // shared memory is free again
}

template <typename Events, bool kMarked>
__global__ void __launch_bounds__(kSumThreads, 2)
    SumKernel(const __grid_constant__ Call<typename Events::Weight> call) {
  using W = typename Events::Weight;
  extern __shared__ int4 memory[];
  AwaitAndAdmit();
  ForEachProblem<Events>(call, [&](int64_t b, const Propagation<W>& problem,
                                   const Events& events) {
    const Tiling tiling = Tiling::Of(events, call);
    const uint32_t num_tiles = UsableUnits(tiling, call, b) > 0 ? tiling.tiles : 0;
    uint32_t factor = 1;
    if constexpr (std::is_same_v<W, UnitWeight>) {
      if (num_tiles > 0) factor = static_cast<uint32_t>(Contribution(problem.Gain(0), W{}));
    }
    const SortedTiles tiles(call.scratch, b);
    for (int slice = blockIdx.x; slice < tiles.slices; slice += gridDim.x) {
      SumSlice<kMarked>(problem, slice, num_tiles, tiling.tile_synapses, tiles, factor,
                        call.marks.Of(b), reinterpret_cast<int32_t*>(memory));
    }
  });
}

}  // namespace propagation
}  // namespace brainjax

#endif  // BRAINJAX_PROPAGATION_SORT_CUH_
