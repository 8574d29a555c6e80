// The sums of a problem in one launch, where the shared memory of all multiprocessors holds them.
// The blocks run at the same time: each sorts a share of the synapses by the block that has the
// sum, they meet, and each adds up what it finds for its own sums. What is more than all of them
// can sort at a time comes in rounds.
#ifndef BRAINJAX_PROPAGATION_TOGETHER_CUH_
#define BRAINJAX_PROPAGATION_TOGETHER_CUH_

#include <cstdint>

#include "block_reductions.cuh"
#include "propagation_dealt.cuh"
#include "team.cuh"

namespace brainjax {
namespace propagation {

// Reads units, and counts their synapses for each block, which ranks them: all threads do. Returns
// the bits of the magnitudes of what those of this thread contribute.
template <typename Events>
__device__ __forceinline__ uint32_t ReadRanked(const Events& events, int64_t first, int64_t last,
                                               const DealtSums& sums, uint32_t* counts,
                                               const TogetherTile& tile) {
  constexpr int kWidth = Events::kWidth;
  uint32_t magnitudes = 0;
  events.ForBlock(first, last,
                  [&](int64_t unit, const int32_t(&targets)[kWidth],
                      const int32_t(&contributions)[kWidth]) {
                    alignas(16) int32_t located[kWidth];
                    alignas(8) uint16_t ranks[kWidth];
#pragma unroll
                    for (int v = 0; v < kWidth; ++v) {
                      // What does not exist adds 0 to some number: behind a branch, the next
                      // addition would wait for this one.
                      const bool exists = targets[v] >= 0;
                      const uint32_t here = sums.Locate(exists ? targets[v] : 0);
                      const uint32_t block = exists ? here >> kPlaceBits : Lane();
                      ranks[v] = static_cast<uint16_t>(atomicAdd(counts + block, exists));
                      located[v] = exists ? static_cast<int32_t>(here) : -1;
                      magnitudes |= exists ? Magnitude(contributions[v]) : 0;
                    }
                    const int place = static_cast<int>(unit - first) * kWidth;
                    CopyVector<kWidth>(located, tile.located + place);
                    CopyVector<kWidth>(contributions, tile.contributions + place);
                    CopyVector<kWidth>(ranks, tile.ranks + place);
                  });
  return magnitudes;
}

// Replaces the numbers of synapses for the blocks by where these begin, and tells the others: a
// warp does. The last lane returns where all end.
__device__ __forceinline__ uint32_t WriteRanges(uint32_t* counts, uint32_t* ranges) {
  constexpr int kMine = kMaxTogether / kWarp;
  const int first = Lane() * kMine;
  alignas(16) uint32_t begins[kMine], mine[kMine];
  uint32_t total = 0;
#pragma unroll
  for (int i = 0; i < kMine; i += 4) CopyVector<4>(counts + first + i, mine + i);
#pragma unroll
  for (int i = 0; i < kMine; ++i) {
    begins[i] = total;
    total += (mine[i] + kAdders - 1) / kAdders * kAdders;
  }
  const uint32_t end = WarpInclusiveSum(total);
#pragma unroll
  for (int i = 0; i < kMine; ++i) {
    begins[i] += end - total;
    mine[i] = (begins[i] + mine[i]) << 16 | begins[i];
  }
#pragma unroll
  for (int i = 0; i < kMine; i += 4) {
    CopyVector<4>(begins + i, counts + first + i);
    CopyVector<4>(mine + i, ranges + first + i);
  }
  return end;
}

// Brings `units` units that were read to where the ranges, as they begin, say: all threads do.
template <int kWidth>
__device__ __forceinline__ void PlaceRanked(uint32_t units, const uint32_t* begins, TileForm form,
                                            const TogetherTile& tile) {
#pragma unroll(4 / kWidth)
  for (uint32_t unit = threadIdx.x; unit < units; unit += kTogetherThreads) {
    alignas(16) int32_t located[kWidth], contributions[kWidth];
    alignas(8) uint16_t ranks[kWidth];
    CopyVector<kWidth>(tile.located + unit * kWidth, located);
    CopyVector<kWidth>(tile.contributions + unit * kWidth, contributions);
    CopyVector<kWidth>(tile.ranks + unit * kWidth, ranks);
    uint32_t places[kWidth];
#pragma unroll
    for (int v = 0; v < kWidth; ++v) {
      places[v] = begins[max(located[v], 0) >> kPlaceBits] + ranks[v];
    }
#pragma unroll
    for (int v = 0; v < kWidth; ++v) {
      if (located[v] < 0) continue;
      const uint32_t place = places[v], written = form.Written(contributions[v]);
      tile.sorted[place] = written << kPlaceBits | (located[v] & kPlaceMask);
      if (form.HasHighs()) tile.sorted_highs[place] = static_cast<uint16_t>(written >> kPlaceBits);
    }
  }
}

// Copies so many bytes to memory, and up to 15 behind them.
__device__ __forceinline__ void WriteVectors(const void* source, uint32_t bytes, void* target) {
#pragma unroll 1
  for (uint32_t i = threadIdx.x; i * sizeof(uint4) < bytes; i += kTogetherThreads) {
    static_cast<uint4*>(target)[i] = static_cast<const uint4*>(source)[i];
  }
}

// Sorts the units [first, last) by the block that has their sums, and writes them: a block does.
template <typename Events>
__device__ __forceinline__ void SortShare(const Events& events, int64_t first, int64_t last,
                                          const TogetherPlan& plan, const TogetherTile& tile) {
  __shared__ alignas(16) uint32_t counts[kMaxTogether];
  __shared__ uint32_t all_magnitudes, end;
  if (threadIdx.x < kMaxTogether) counts[threadIdx.x] = 0;
  if (threadIdx.x == 0) all_magnitudes = 0;
  __syncthreads();
  const uint32_t magnitudes =
      __reduce_or_sync(kAllLanes, ReadRanked(events, first, last, plan.sums, counts, tile));
  if (Lane() == 0) atomicOr(&all_magnitudes, magnitudes);
  __syncthreads();
  const TileForm form = TileForm::Of(all_magnitudes);
  TileTable& table = plan.tables[blockIdx.x];
  if (threadIdx.x < kWarp) {
    const uint32_t ends = WriteRanges(counts, table.ranges);
    if (threadIdx.x == kWarp - 1) {
      end = ends;
      table.form = form.Code();
    }
  }
  __syncthreads();
  PlaceRanked<Events::kWidth>(static_cast<uint32_t>(last - first), counts, form, tile);
  __syncthreads();
  const uint32_t from = blockIdx.x * plan.sorted;
  WriteVectors(tile.sorted, end * sizeof(uint32_t), plan.synapses + from);
  if (form.HasHighs()) WriteVectors(tile.sorted_highs, end * sizeof(uint16_t), plan.highs + from);
}

// Adds up what the blocks have sorted for this one: some threads for each tile.
__device__ __forceinline__ void AddTiles(const TogetherPlan& plan, int32_t* sums) {
  constexpr uint32_t kAsked = 10;  // synapses that a thread asks for before it adds the first
  const uint32_t tile = threadIdx.x / kAdders;
  if (tile >= plan.tiles) return;
  const uint32_t range = __ldcg(plan.tables[tile].ranges + blockIdx.x);
  const TileForm form(__ldcg(&plan.tables[tile].form));
  const uint32_t* const synapses = plan.synapses + tile * plan.sorted;
  const uint16_t* const highs = plan.highs + tile * plan.sorted;
  const uint32_t end = range >> 16;
#pragma unroll 1
  for (uint32_t x = (range & 0xffff) + threadIdx.x % kAdders; x < end; x += kAsked * kAdders) {
    uint32_t asked[kAsked], asked_highs[kAsked];
#pragma unroll
    for (uint32_t u = 0; u < kAsked; ++u) {
      const bool exists = x + u * kAdders < end;
      asked[u] = exists ? __ldcg(synapses + x + u * kAdders) : 0;
      asked_highs[u] = exists && form.HasHighs() ? __ldcg(highs + x + u * kAdders) : 0;
    }
#pragma unroll
    for (uint32_t u = 0; u < kAsked; ++u) {
      if (x + u * kAdders >= end) break;
      atomicAdd(sums + (asked[u] & kPlaceMask), form.HasHighs()
                                                    ? TileForm::OfHalves(asked[u], asked_highs[u])
                                                    : form.Whole(asked[u]));
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
                   const __grid_constant__ TogetherPlan plan) {
  extern __shared__ int4 memory[];
  int32_t* const sums = reinterpret_cast<int32_t*>(memory);
  const TogetherTile tile(sums + plan.sums.size, plan);
  const auto problem = call.batch.First();
  const Events events(problem, {}, nullptr);
  const GridTeam team;
#pragma unroll 1
  for (uint32_t i = threadIdx.x; i < plan.sums.size / 4; i += kTogetherThreads) {
    memory[i] = make_int4(0, 0, 0, 0);
  }
  const int64_t units = events.units(), most = plan.tile / Events::kWidth;
  const int64_t share = min(QuotientUp(units, plan.tiles), most);
  for (int64_t start = 0; start < units; start += share * plan.tiles) {
    if (start > 0) team.Sync();  // all have read what was sorted before
    if (blockIdx.x < plan.tiles) {
      const int64_t first = min(start + share * blockIdx.x, units);
      SortShare(events, first, min(first + share, units), plan, tile);
    }
    team.Sync();
    AddTiles(plan, sums);
  }
  __syncthreads();
  WriteDealt(plan.sums, sums, problem.num_post, call.batch.unit, problem.sums);
}

// Rows of one length, which need not be counted first.
template <typename Events>
cudaError_t StartTogether(const Launcher& launcher, const Call<typename Events::Weight>& call,
                          const TogetherPlan& plan) {
  return StartKernel(launcher.stream, {plan.sums.blocks, kTogetherThreads, plan.SharedBytes()},
                     AllTogether(), TogetherKernel<typename Events::Brief>, call, plan);
}

}  // namespace propagation
}  // namespace brainjax

#endif  // BRAINJAX_PROPAGATION_TOGETHER_CUH_
