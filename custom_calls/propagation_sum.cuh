// Sorted synapses summed one slice of targets at a time, in shared memory.
#ifndef BRAINJAX_PROPAGATION_SUM_CUH_
#define BRAINJAX_PROPAGATION_SUM_CUH_

#include <cstdint>
#include <type_traits>

#include "propagation_sort.cuh"

namespace brainjax {
namespace propagation {

constexpr int kAdded = 8;  // synapses that a lane asks for before it adds the first
constexpr int kMinTeamBits = 3;  // at least so many lanes, as a power of two, look after a range
static_assert((kWarp >> kMinTeamBits) * kAdded <= kWarp, "no lane has a range behind the last");

// Marks targets of a slice.
struct SliceMarks {
  uint32_t* marks;  // of all targets
  uint32_t first;   // target of the slice

  __device__ void operator()(uint32_t target) const { Mark(marks, first + target); }
};

// Sorted synapses of one tile.
struct SortedRange {
  uint32_t place, length;
  TileForm form;
};

// The length and the form of a range in one word, as lanes show them to each other.
struct ShownRange {
  static constexpr int kFormBits = 16;
  static_assert(MaxTile(true) < 1 << 16 && MaxTile(false) < 1 << 16, "lengths have the others");

  uint32_t word;

  __device__ static ShownRange Of(const SortedRange& range) {
    return {range.length << kFormBits | range.form.Code()};
  }
  __device__ ShownRange By(int lane) const { return {__shfl_sync(kAllLanes, word, lane)}; }
  __device__ bool Has(uint32_t place) const { return word >= (place + 1) << kFormBits; }
  __device__ TileForm Form() const { return TileForm(word & ((1u << kFormBits) - 1)); }
};

// Adds sorted synapses to the sums of a slice. With kMarked, marks where a sum is 0 afterwards.
template <bool kWeighted, bool kMarked>
struct SliceAdder {
  const SortedTiles<kWeighted>& tiles;
  int32_t* sums;
  uint32_t spare;  // a word of this lane behind the sums
  SliceMarks mark;

  // Adds kAdded synapses, each at its place if it exists; all are asked for before the first is
  // added. What does not exist adds 0 to the spare word: a branch would take longer. With kHalves,
  // the high halves are apart.
  template <bool kHalves>
  __device__ __forceinline__ void Add(const uint32_t (&places)[kAdded],
                                      const bool (&exists)[kAdded],
                                      const ShownRange (&ranges)[kAdded]) const {
    uint32_t onto[kAdded], highs[kAdded];
    int32_t added[kAdded], before[kAdded];
#pragma unroll
    for (int u = 0; u < kAdded; ++u) {
      onto[u] = exists[u] ? tiles.synapses[places[u]] : spare;
      highs[u] = kHalves && exists[u] ? tiles.highs[places[u]] : 0;
      added[u] = exists[u];
    }
#pragma unroll
    for (int u = 0; u < kAdded; ++u) {
      if constexpr (kWeighted) {
        added[u] = kHalves ? TileForm::OfHalves(onto[u], highs[u])
                           : ranges[u].Form().Whole(onto[u]);
        onto[u] &= kPlaceMask;
      }
      before[u] = atomicAdd(sums + onto[u], added[u]);
    }
    if constexpr (kWeighted && kMarked) {
#pragma unroll
      for (int u = 0; u < kAdded; ++u) {
        if (exists[u] && IsCancelled(before[u], added[u])) mark(onto[u]);
      }
    }
  }

  // Each lane below `ranges` brings a range. Adds the first 2^team_bits synapses of each: so many
  // lanes look after one.
  template <bool kHalves>
  __device__ __forceinline__ void AddBeginnings(const SortedRange& range, uint32_t ranges,
                                                int team_bits) const {
    const uint32_t teams = kWarp >> team_bits, team = Lane() >> team_bits;
    const uint32_t mine = Lane() & ((1u << team_bits) - 1);
    const ShownRange shown = ShownRange::Of(range);
    for (uint32_t first = team; first - team < ranges; first += teams * kAdded) {
      uint32_t places[kAdded];
      bool exists[kAdded];
      ShownRange theirs[kAdded];
#pragma unroll
      for (int u = 0; u < kAdded; ++u) {
        const int lane = first + u * teams;
        places[u] = __shfl_sync(kAllLanes, range.place, lane) + mine;
        theirs[u] = shown.By(lane);
        exists[u] = theirs[u].Has(mine);
      }
      Add<kHalves>(places, exists, theirs);
    }
  }

  // Adds what the lanes bring behind that, in equal shares.
  template <bool kHalves>
  __device__ __forceinline__ void AddRest(const SortedRange& range, int team_bits) const {
    const uint32_t beginning = min(range.length, 1u << team_bits);
    const WarpRanges ranges(range.length - beginning);
    const uint32_t shift = range.place + beginning - ranges.begin;
    const ShownRange shown = ShownRange::Of(range);
    for (uint32_t x = Lane(); x - Lane() < ranges.total; x += kWarp * kAdded) {
      uint32_t places[kAdded];
      bool exists[kAdded];
      ShownRange theirs[kAdded];
#pragma unroll
      for (int u = 0; u < kAdded; ++u) {
        exists[u] = false;
        if (x - Lane() + u * kWarp >= ranges.total) continue;
        const uint32_t element = x + u * kWarp;
        const int owner = ranges.Owner(element);
        places[u] = __shfl_sync(kAllLanes, shift, owner) + element;
        if constexpr (kWeighted) theirs[u] = shown.By(owner);
        exists[u] = element < ranges.total;
      }
      Add<kHalves>(places, exists, theirs);
    }
  }

  // Adds the synapses of a slice in all tiles: all warps of a block do. Almost all are at the
  // beginnings of their ranges, which need no search for the range of each.
  __device__ __forceinline__ void AddTiles(int slice, uint32_t num_tiles,
                                           uint32_t tile_synapses) const {
    constexpr uint32_t kWarps = kSumThreads / kWarp;
    // As many lanes for a range as it has synapses on average.
    const uint32_t slices = tiles.slices.count;
    int team_bits = kMinTeamBits;
    while (team_bits < 5 && slices << team_bits < tile_synapses) ++team_bits;
    // Whole turns of equal size for all warps.
    const uint32_t turns = Tiling::Up(max(num_tiles, 1u), kWarps * kWarp);
    const uint32_t window = Tiling::Up(num_tiles, kWarps * turns);
    for (uint32_t t = threadIdx.x / kWarp * window; t < num_tiles; t += kWarps * window) {
      const uint32_t tile = t + Lane(), ranges = min(window, num_tiles - t);
      const SortedRange range = static_cast<uint32_t>(Lane()) < ranges
                                    ? RangeOf(slice, tile, tile_synapses)
                                    : SortedRange{0, 0, TileForm(0)};
      // Each form apart: hardly ever are there both.
      AddRanges<false>(range, ranges, team_bits);
      if constexpr (kWeighted) AddRanges<true>(range, ranges, team_bits);
    }
  }

 private:
  template <bool kHalves>
  __device__ __forceinline__ void AddRanges(SortedRange range, uint32_t ranges,
                                            int team_bits) const {
    if (range.form.HasHighs() != kHalves) range.length = 0;
    if (!__any_sync(kAllLanes, range.length > 0)) return;
    AddBeginnings<kHalves>(range, ranges, team_bits);
    AddRest<kHalves>(range, team_bits);
  }

  __device__ __forceinline__ SortedRange RangeOf(int slice, uint32_t tile,
                                                 uint32_t tile_synapses) const {
    const uint16_t* const offsets = tiles.OffsetsOf(tile) + slice;
    const uint32_t begin = offsets[0], length = offsets[1] - begin;
    const TileForm form(kWeighted ? *tiles.FormOf(tile) : 0);
    return {tile * tile_synapses + begin, length, form};
  }
};

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
    const SortedTiles<kWeighted> tiles(call.scratch, b);
    for (int slice = blockIdx.x; slice < tiles.slices.count; slice += gridDim.x) {
      const uint32_t first = slice * tiles.slices.size;
      const uint32_t size = min(tiles.slices.size, problem.num_post - first);
      const SliceMarks mark{call.marks.Of(b), first};
      ClearVectors<kSumThreads, 4>(sums, size);
      __syncthreads();
      SliceAdder<kWeighted, kMarked>{tiles, sums, tiles.slices.size + Lane(), mark}.AddTiles(
          slice, num_tiles, tiling.tile_synapses);
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
