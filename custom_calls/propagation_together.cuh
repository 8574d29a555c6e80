// The sums of a problem in one launch, where the shared memory of all multiprocessors holds them.
// The blocks run at the same time: each sorts a share of the synapses by the block that has the
// sum, they meet, and each adds up what it finds for its own sums. What is more than all of them
// can sort at a time comes in rounds.
#ifndef BRAINJAX_PROPAGATION_TOGETHER_CUH_
#define BRAINJAX_PROPAGATION_TOGETHER_CUH_

#include <cstdint>

#include "block_reductions.cuh"
#include "fan_out_events.cuh"
#include "propagation_dealt.cuh"
#include "propagation_tiles.cuh"
#include "team.cuh"

namespace brainjax {
namespace propagation {

// Synapses that a thread sorts.
template <typename Events>
class RankedSynapses {
 public:
  using Weight = typename Events::Weight;
  static constexpr int kWidth = Events::kWidth, kUnits = Events::kUnits;
  static_assert(kUnits * kWidth == kSynapsesOfThread);

  // Asks for them, and finds out who has their sums. The weights are asked for behind the targets,
  // which are needed first. Whether unit u is active, is_active(u), may have to be waited for: it
  // is called when the targets are on their way.
  template <typename IsActive>
  __device__ __forceinline__ RankedSynapses(const Events& events,
                                            const typename Events::Listed& listed,
                                            const DealtSums& sums, const IsActive& is_active) {
    alignas(16) int32_t targets[kUnits][kWidth];
    int64_t begins[kUnits];
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      begins[u] = events.BeginOf(listed, u);
      events.AskTargets(begins[u], targets[u]);
    }
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      bool exists[kWidth], any = false;
#pragma unroll
      for (int v = 0; v < kWidth; ++v) {
        exists[v] = is_active(u) && events.problem().HasSum(targets[u][v]);
        any |= exists[v];
      }
      gains_[u] = any ? listed.gains[u] : 0.0f;
      events.AskWeights(any ? begins[u] : -1, weights_[u]);
#pragma unroll
      for (int v = 0; v < kWidth; ++v) {
        located_[u][v] = exists[v] ? sums.Locate(targets[u][v]) : DealtSums::Nowhere();
      }
    }
  }

  // Counts them for each block, which ranks them.
  __device__ __forceinline__ void Rank(uint32_t* counts) {
    ForEach([&](int u, int v) {
      ranks_[u][v] = atomicAdd(counts + (located_[u][v] >> kPlaceBits), 1);
    });
  }

  // The bits of the magnitudes of what they may add.
  __device__ __forceinline__ uint32_t Magnitudes() const {
    uint32_t magnitudes = 0;
#pragma unroll
    for (int u = 0; u < kUnits; ++u) magnitudes |= MagnitudesOf<Weight>(gains_[u]);
    return magnitudes;
  }

  // Brings them to where they are in the sorted tile. All places are looked up first, as a write
  // may change what is read behind it, and weights may still be to come. What does not exist has a
  // place, too: a branch would take more instructions.
  __device__ __forceinline__ void Place(const uint32_t* begins, TileForm form,
                                        const SortedTile& tile) const {
    uint32_t places[kUnits][kWidth], written[kUnits][kWidth];
    ForEach([&](int u, int v) {
      const uint32_t located = located_[u][v];
      places[u][v] = DealtSums::Exists(located) ? begins[located >> kPlaceBits] + ranks_[u][v]
                                                : tile.spare + threadIdx.x;
    });
    ForEach([&](int u, int v) {
      written[u][v] = form.Written(Contribution(gains_[u], weights_[u][v]));
      const uint32_t low_halves = __byte_perm(located_[u][v], written[u][v], 0x5410);
      tile.synapses[places[u][v]] = low_halves;
    });
    if (!form.HasHighs()) return;
    ForEach([&](int u, int v) {
      tile.highs[places[u][v]] = static_cast<uint16_t>(written[u][v] >> kPlaceBits);
    });
  }

 private:
  template <typename Visit>
  static __device__ __forceinline__ void ForEach(const Visit& visit) {
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
#pragma unroll
      for (int v = 0; v < kWidth; ++v) visit(u, v);
    }
  }

  float gains_[kUnits];  // 0 where nothing is active
  Weight weights_[kUnits][kWidth];
  uint32_t located_[kUnits][kWidth];  // see DealtSums
  uint32_t ranks_[kUnits][kWidth];    // among those of the tile for one block
};

// Of the synapses for each block: from numbers to where they begin, each with a whole sector of
// memory. A warp does; the last lane returns where all end.
__device__ __forceinline__ uint32_t BeginsOf(const uint32_t* counts, uint32_t* begins) {
  constexpr int kMine = kMaxTogether / kWarp;
  const int first = Lane() * kMine;
  alignas(16) uint32_t mine[kMine];
  uint32_t total = 0;
#pragma unroll
  for (int i = 0; i < kMine; i += 4) CopyVector<4>(counts + first + i, mine + i);
#pragma unroll
  for (int i = 0; i < kMine; ++i) {
    const uint32_t count = mine[i];
    mine[i] = total;
    total += (count + kAdders - 1) / kAdders * kAdders;
  }
  const uint32_t end = WarpInclusiveSum(total);
#pragma unroll
  for (int i = 0; i < kMine; ++i) mine[i] += end - total;
#pragma unroll
  for (int i = 0; i < kMine; i += 4) CopyVector<4>(mine + i, begins + first + i);
  return end;
}

// What the threads of a block find out together of the tile that they sort.
struct TileCounts {
  alignas(16) uint32_t synapses[kMaxTogether + kWarp];  // for each block, and for nowhere
  alignas(16) uint32_t begins[kMaxTogether];            // of these in the sorted tile
  uint32_t end, magnitudes;

  __device__ __forceinline__ void Clear() {
    if (threadIdx.x < kMaxTogether + kWarp) synapses[threadIdx.x] = 0;
    if (threadIdx.x == 0) magnitudes = 0;
  }
};

// Sorts what its threads have asked the list for by the block that has the sum, and writes it: a
// block does, which has cleared the counts.
template <typename Events, typename IsActive>
__device__ __forceinline__ void SortListed(const Events& events,
                                           const typename Events::Listed& listed,
                                           const IsActive& is_active, const TogetherPlan& plan,
                                           TileCounts& counts, const SortedTile& tile) {
  RankedSynapses<Events> ranked(events, listed, plan.sums, is_active);
  const uint32_t magnitudes = __reduce_or_sync(kAllLanes, ranked.Magnitudes());
  if (Lane() == 0) atomicOr(&counts.magnitudes, magnitudes);
  ranked.Rank(counts.synapses);
  __syncthreads();
  const TileForm form = TileForm::Of(counts.magnitudes);
  if (threadIdx.x < kWarp) {
    const uint32_t end = BeginsOf(counts.synapses, counts.begins);
    if (threadIdx.x == kWarp - 1) counts.end = end;
  }
  __syncthreads();
  ranked.Place(counts.begins, form, tile);
  if (threadIdx.x < plan.sums.blocks) {
    const uint32_t begin = counts.begins[threadIdx.x], length = counts.synapses[threadIdx.x];
    *plan.RangeOf(blockIdx.x, threadIdx.x) = TileRange::Of(begin, length, form).word;
  }
  const uint32_t end = counts.end, from = blockIdx.x * plan.sorted;
  __syncthreads();
  CopyVectors<kTogetherThreads, 1>(tile.synapses, end, plan.synapses + from);
  if (form.HasHighs()) CopyVectors<kTogetherThreads, 1>(tile.highs, end, plan.highs + from);
}

// Adds up what the blocks have sorted for this one: some threads for each tile, which take pairs of
// synapses.
__device__ __forceinline__ void AddTiles(const TogetherPlan& plan, int32_t* sums) {
  constexpr uint32_t kAsked = 5, kTurn = 2 * kAdders;  // pairs asked for before the first is added
  const uint32_t tile = threadIdx.x / kAdders;
  if (tile >= plan.tiles) return;
  const TileRange range{__ldcg(plan.RangeOf(tile, blockIdx.x))};
  const TileForm form = range.Form();
  const uint32_t length = range.Length(), from = tile * plan.sorted + range.Begin();
  const auto add = [&](uint32_t synapse, uint32_t high) {
    atomicAdd(sums + (synapse & kPlaceMask),
              form.HasHighs() ? TileForm::OfHalves(synapse, high) : form.Whole(synapse));
  };
#pragma unroll 1
  for (uint32_t x = threadIdx.x % kAdders * 2; x < length; x += kAsked * kTurn) {
    uint2 pairs[kAsked];
    uint32_t highs[kAsked];
#pragma unroll
    for (uint32_t u = 0; u < kAsked; ++u) {
      if (x + u * kTurn >= length) continue;
      const uint32_t at = from + x + u * kTurn;
      pairs[u] = __ldcg(reinterpret_cast<const uint2*>(plan.synapses + at));
      highs[u] = form.HasHighs() ? __ldcg(reinterpret_cast<const uint32_t*>(plan.highs + at)) : 0;
    }
#pragma unroll
    for (uint32_t u = 0; u < kAsked; ++u) {
      if (x + u * kTurn >= length) break;
      add(pairs[u].x, highs[u] & kPlaceMask);
      if (x + u * kTurn + 1 < length) add(pairs[u].y, highs[u] >> kPlaceBits);
    }
  }
}

// Writes the sums of this block, scaled by `unit` if that is not 0.
__device__ __forceinline__ void WriteDealt(const DealtSums& dealt, const int32_t* sums,
                                           uint32_t num_post, float unit, int32_t* destination) {
  const auto result = [&](int32_t sum) { return unit == 0.0f ? sum : ScaledBits(sum, unit); };
#pragma unroll 1
  for (uint32_t place = 4 * threadIdx.x; place < dealt.size; place += 4 * kTogetherThreads) {
    const uint32_t target = dealt.Target(blockIdx.x, place);
    const int4 four = *reinterpret_cast<const int4*>(sums + place);
    const int4 results =
        make_int4(result(four.x), result(four.y), result(four.z), result(four.w));
    if (target + 3 < num_post) {
      *reinterpret_cast<int4*>(destination + target) = results;
    } else {
      if (target < num_post) destination[target] = results.x;
      if (target + 1 < num_post) destination[target + 1] = results.y;
      if (target + 2 < num_post) destination[target + 2] = results.z;
    }
  }
}

template <typename Events>
__global__ void __launch_bounds__(kTogetherThreads, 1)
    TogetherKernel(const __grid_constant__ Call<typename Events::Weight> call,
                   const __grid_constant__ TogetherPlan plan,
                   const __grid_constant__ UnitStride stride) {
  extern __shared__ int4 memory[];
  __shared__ TileCounts counts;
  int32_t* const sums = reinterpret_cast<int32_t*>(memory);
  const SortedTile tile(sums + plan.sums.size, plan);
  const auto& problem = call.batch.first;  // its count is still unknown
  const Events events(problem, {}, nullptr);
  const auto active_units = [&] {
    return events.UnitsOf(NumListed(*call.batch.counts, problem.capacity));
  };
  const GridTeam team;
  const uint32_t round = plan.tiles * (plan.tile / Events::kWidth);
  const bool sorts = blockIdx.x < plan.tiles;
  // The warps of all blocks that sort take the units in turn, so that all have as many.
  const uint32_t mine = (threadIdx.x / kWarp * plan.tiles + blockIdx.x) * kWarp + Lane();
  int64_t start = 0;
  do {
    const int64_t unit = start + mine;
    const auto listed = events.ListFor(unit, stride, sorts ? start + round : 0);
    if (start == 0) {
      ClearVectors<kTogetherThreads, 1>(sums, plan.sums.size);
    } else {
      team.Sync();  // all have read what was sorted before
    }
    counts.Clear();
    __syncthreads();
    if (sorts) {
      const int64_t end = active_units();
      const auto is_active = [&](int u) { return unit + u * stride.units < end; };
      SortListed(events, listed, is_active, plan, counts, tile);
    }
    team.Sync();
    AddTiles(plan, sums);
    start += round;
  } while (start < active_units());
  __syncthreads();
  WriteDealt(plan.sums, sums, problem.num_post, call.batch.unit, problem.sums);
}

// Rows of one length, which need not be counted first.
template <typename Events>
cudaError_t StartTogether(const Launcher& launcher, const Call<typename Events::Weight>& call,
                          const TogetherPlan& plan) {
  using Asked = typename Events::template WithInFlight<kSynapsesOfThread / Events::kWidth>;
  const auto row_units = static_cast<uint32_t>(call.batch.first.fan_out / Events::kWidth);
  return StartKernel(launcher.stream, {plan.sums.blocks, kTogetherThreads, plan.SharedBytes()},
                     AllTogether(), TogetherKernel<Asked>, call, plan,
                     UnitStride::Of(kTogetherThreads * plan.tiles, row_units));
}

}  // namespace propagation
}  // namespace brainjax

#endif  // BRAINJAX_PROPAGATION_TOGETHER_CUH_
