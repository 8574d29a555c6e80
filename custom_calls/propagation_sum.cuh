// Sorted synapses summed one slice of targets at a time, in shared memory.
#ifndef BRAINJAX_PROPAGATION_SUM_CUH_
#define BRAINJAX_PROPAGATION_SUM_CUH_

#include <cstdint>
#include <type_traits>

#include "propagation_sort.cuh"

namespace brainjax {
namespace propagation {

constexpr int kAdded = 8;  // synapses that a lane asks for before it adds the first

// Marks targets of a slice.
struct SliceMarks {
  uint32_t* marks;  // of all targets
  uint32_t first;   // target of the slice

  __device__ void operator()(uint32_t target) const { Mark(marks, first + target); }
};

// Adds sorted synapses to the sums of a slice. With kMarked, marks where a sum is 0 afterwards.
template <bool kWeighted, bool kMarked>
struct SliceAdder {
  const uint16_t* targets;
  const int32_t* contributions;
  int32_t* sums;
  uint32_t spare;  // a word of this lane behind the sums
  SliceMarks mark;

  // Adds kAdded synapses, each at its place if it exists; all are asked for before the first is
  // added. What does not exist adds 0 to the spare word: a branch would take longer.
  __device__ __forceinline__ void Add(const uint32_t (&places)[kAdded],
                                      const bool (&exists)[kAdded]) const {
    uint32_t onto[kAdded];
    int32_t added[kAdded], before[kAdded];
#pragma unroll
    for (int u = 0; u < kAdded; ++u) {
      onto[u] = exists[u] ? targets[places[u]] : spare;
      added[u] = !exists[u] ? 0 : kWeighted ? contributions[places[u]] : 1;
    }
#pragma unroll
    for (int u = 0; u < kAdded; ++u) before[u] = atomicAdd(sums + onto[u], added[u]);
    if constexpr (kWeighted && kMarked) {
#pragma unroll
      for (int u = 0; u < kAdded; ++u) {
        if (exists[u] && IsCancelled(before[u], added[u])) mark(onto[u]);
      }
    }
  }

  // Each lane below `ranges` brings `length` synapses from `place` on, the others bring none. Adds
  // the first 2^team_bits of each: so many lanes look after one range.
  __device__ __forceinline__ void AddBeginnings(uint32_t place, uint32_t length, uint32_t ranges,
                                                int team_bits) const {
    const uint32_t teams = kWarp >> team_bits, team = Lane() >> team_bits;
    const uint32_t mine = Lane() & ((1u << team_bits) - 1);
    for (uint32_t first = team; first - team < ranges; first += teams * kAdded) {
      uint32_t places[kAdded];
      bool exists[kAdded];
#pragma unroll
      for (int u = 0; u < kAdded; ++u) {
        const int range = first + u * teams;  // of this warp: a turn is a part of it
        places[u] = __shfl_sync(kAllLanes, place, range) + mine;
        exists[u] = __shfl_sync(kAllLanes, length, range) > mine;
      }
      Add(places, exists);
    }
  }

  // Adds all synapses that the lanes bring, in equal shares.
  __device__ __forceinline__ void AddEvenly(uint32_t place, uint32_t length) const {
    const WarpRanges ranges(length);
    const uint32_t shift = place - ranges.begin;
    for (uint32_t x = Lane(); x - Lane() < ranges.total; x += kWarp * kAdded) {
      uint32_t places[kAdded];
      bool exists[kAdded];
#pragma unroll
      for (int u = 0; u < kAdded; ++u) {
        exists[u] = false;
        if (x - Lane() + u * kWarp >= ranges.total) continue;
        const uint32_t element = x + u * kWarp;
        places[u] = __shfl_sync(kAllLanes, shift, ranges.Owner(element)) + element;
        exists[u] = element < ranges.total;
      }
      Add(places, exists);
    }
  }

  // Adds the synapses of a slice in all tiles: all warps of a block do. Almost all are at the
  // beginnings of their ranges, which need no search for the range of each.
  __device__ __forceinline__ void AddTiles(const SortedTiles& tiles, int slice, uint32_t num_tiles,
                                           uint32_t tile_synapses) const {
    constexpr uint32_t kWarps = kSumThreads / kWarp;
    // As many lanes for a range as it has synapses on average.
    const uint32_t slices = tiles.slices.count;
    int team_bits = 2;
    while (team_bits < 5 && slices << team_bits < tile_synapses) ++team_bits;
    // Whole turns of equal size for all warps.
    const uint32_t turns = Tiling::Up(max(num_tiles, 1u), kWarps * kWarp);
    const uint32_t window = Tiling::Up(num_tiles, kWarps * turns);
    for (uint32_t t = threadIdx.x / kWarp * window; t < num_tiles; t += kWarps * window) {
      const uint32_t tile = t + Lane(), ranges = min(window, num_tiles - t);
      uint32_t begin = 0, length = 0;
      if (static_cast<uint32_t>(Lane()) < ranges) {
        const uint16_t* offsets = tiles.OffsetsOf(tile) + slice;
        begin = offsets[0];
        length = offsets[1] - begin;
      }
      const uint32_t place = tile * tile_synapses + begin, beginning = min(length, 1u << team_bits);
      AddBeginnings(place, length, ranges, team_bits);
      AddEvenly(place + beginning, length - beginning);
    }
  }
};

// Sets the sums to 0: all threads of a block do. Shared memory has room for whole vectors.
__device__ inline void ClearSlice(int32_t* sums, uint32_t size) {
#pragma unroll 4
  for (uint32_t i = threadIdx.x; i < (size + 3) / 4; i += kSumThreads) {
    reinterpret_cast<int4*>(sums)[i] = make_int4(0, 0, 0, 0);
  }
}

// A slice that a block has added up in shared memory; its sums are to be multiplied by a factor.
struct SummedSlice {
  const int32_t* sums;
  uint32_t first, size;  // targets
  uint32_t factor;
  SliceMarks mark;
};

// Writes the sums of a slice, scaled by `unit` if that is not 0. With kMarked, marks where one that
// is not 0 becomes it.
template <bool kMarked>
__device__ void WriteSlice(const SummedSlice& slice, float unit, int32_t* destination) {
  const int32_t* const sums = slice.sums;
  const uint32_t size = slice.size;
  const auto result = [&](int32_t sum, uint32_t target) {
    const int32_t product = static_cast<int32_t>(slice.factor * static_cast<uint32_t>(sum));
    if (kMarked && product == 0 && sum != 0) slice.mark(target);
    return unit == 0.0f ? product : ScaledBits(product, unit);
  };
  // In a batch, a problem's sums may begin anywhere.
  const bool is_aligned = reinterpret_cast<uintptr_t>(destination) % sizeof(int4) == 0;
  const uint32_t vectors = is_aligned ? size / 4 : 0;
#pragma unroll 4
  for (uint32_t i = threadIdx.x; i < vectors; i += kSumThreads) {
    const int4 sum = reinterpret_cast<const int4*>(sums)[i];
    reinterpret_cast<int4*>(destination)[i] =
        make_int4(result(sum.x, 4 * i), result(sum.y, 4 * i + 1), result(sum.z, 4 * i + 2),
                  result(sum.w, 4 * i + 3));
  }
#pragma unroll 1
  for (uint32_t i = 4 * vectors + threadIdx.x; i < size; i += kSumThreads) {
    destination[i] = result(sums[i], i);
  }
}

// Adds up the slices of all problems, one after another, and calls use(problem, slice, has_rest)
// for each: all threads of a block do. `has_rest`: some synapses are added in memory.
template <typename Events, bool kMarked, typename Use>
__device__ __forceinline__ void SumSlices(const Call<typename Events::Weight>& call,
                                          int32_t* sums, const Use& use) {
  using W = typename Events::Weight;
  constexpr bool kWeighted = !std::is_same_v<W, UnitWeight>;
  ForEachProblem<Events>(call, [&](int64_t b, const Propagation<W>& problem,
                                   const Events& events) {
    const Tiling tiling = Tiling::Of(events, call);
    const uint32_t sorted = UsableUnits(tiling, call, b), num_tiles = sorted > 0 ? tiling.tiles : 0;
    const bool has_rest = sorted < events.units();
    uint32_t factor = 1;
    if constexpr (!kWeighted) {
      if (num_tiles > 0) factor = static_cast<uint32_t>(Contribution(problem.Gain(0), W{}));
    }
    const SortedTiles tiles(call.scratch, b);
    for (int slice = blockIdx.x; slice < tiles.slices.count; slice += gridDim.x) {
      const uint32_t first = slice * tiles.slices.size;
      const uint32_t size = min(tiles.slices.size, problem.num_post - first);
      const SliceMarks mark{call.marks.Of(b), first};
      ClearSlice(sums, size);
      __syncthreads();
      SliceAdder<kWeighted, kMarked>{
          tiles.targets, tiles.contributions, sums, tiles.slices.size + Lane(), mark}
          .AddTiles(tiles, slice, num_tiles, tiling.tile_synapses);
      __syncthreads();
      use(problem, SummedSlice{sums, first, size, factor, mark}, has_rest);
      __syncthreads();  // shared memory is free again
    }
  });
}

template <typename Events, bool kMarked>
__global__ void __launch_bounds__(kSumThreads, kSumBlocksPerMultiprocessor)
    SumKernel(const __grid_constant__ Call<typename Events::Weight> call) {
  using W = typename Events::Weight;
  extern __shared__ int4 memory[];
  AwaitAndAdmit();
  SumSlices<Events, kMarked>(
      call, reinterpret_cast<int32_t*>(memory),
      [&](const Propagation<W>& problem, const SummedSlice& slice, bool has_rest) {
        WriteSlice<kMarked && std::is_same_v<W, UnitWeight>>(
            slice, has_rest ? 0.0f : call.batch.unit, problem.sums + slice.first);
      });
}

}  // namespace propagation
}  // namespace brainjax

#endif  // BRAINJAX_PROPAGATION_SUM_CUH_
