// How warps visit the synapses of active neurons: ranges of any length, and the heads of rows.
#ifndef BRAINJAX_ROW_VISITS_CUH_
#define BRAINJAX_ROW_VISITS_CUH_

#include <cstdint>

#include "propagation.h"
#include "warp_ranges.cuh"

namespace brainjax {

// Synapses of a row that are visited without being counted first. What a row has beyond is its
// tail.
constexpr int64_t kHead = 1 << 10;
constexpr int kMostHalvings = 3;  // of a head, down to what a warp visits at once

__device__ __forceinline__ Range Tail(Range row, int64_t head) {
  const int64_t skipped = min(row.length, head);
  return {row.first + skipped, row.length - skipped};
}

// What has been counted of the rows of active neurons, without what is not to be visited of them.
// The list of these neurons is cut into chunks.
struct CountedRows {
  const uint64_t* before;  // of each neuron: synapses in front of its own, in its chunk
  const uint32_t* firsts;  // of each neuron: where the first one counted is in memory
  const uint64_t* totals;  // of each chunk: its synapses
};

// Each lane brings `length` synapses of one row, from `synapse` in memory on; the warp visits all
// of them, as `first` and those after it in the sequence. Whenever it has read some, it calls
// ready() before it visits them.
template <typename W, typename Ready, typename Visit>
__device__ void VisitRanges(const Propagation<W>& problem, int64_t first, uint32_t length,
                            int64_t synapse, float gain, const Ready& ready, const Visit& visit) {
  const WarpRanges ranges(length);
  synapse -= ranges.begin;
  for (uint32_t x = Lane(); x - Lane() < ranges.total; x += kWarp * kInFlight) {
    int32_t targets[kInFlight][1];
    W weights[kInFlight];
    float gains[kInFlight];
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      // Behind the last synapse the last one again: what is read under a condition is waited for.
      const uint32_t element = min(x + u * kWarp, ranges.total - 1);
      const int owner = ranges.Owner(element);
      const int64_t here = __shfl_sync(kAllLanes, synapse, owner) + element;
      gains[u] = __shfl_sync(kAllLanes, gain, owner);
      targets[u][0] = __ldg(problem.indices + here);
      weights[u] = WeightAt(problem.weights, here);
    }
    ready();
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      if (x + u * kWarp >= ranges.total) break;
      if (!problem.HasSum(targets[u][0])) targets[u][0] = -1;
      const int32_t contributions[1] = {Contribution(gains[u], weights[u])};
      visit(first + x + u * kWarp, targets[u], contributions);
    }
  }
}

// One of 2^halvings parts of the head of a row.
__device__ __forceinline__ Range PartOfHead(Range row, uint32_t part, int halvings) {
  const uint32_t length = static_cast<uint32_t>(min(row.length, kHead));
  const uint32_t step = (length + (1u << halvings) - 1) >> halvings;
  const uint32_t begin = min(part * step, length);
  return {row.first + begin, min(step, length - begin)};
}

// A warp visits a range, as many synapses at a time as its lanes ask for at once. Whenever it has
// read some, it calls ready() before it visits them.
template <typename W, typename Ready, typename Visit>
__device__ __forceinline__ void VisitRange(const Propagation<W>& problem, Range range, float gain,
                                           const Ready& ready, const Visit& visit) {
  const int64_t end = range.first + range.length;
  for (int64_t first = range.first; first < end; first += kWarp * kInFlight) {
    const int64_t mine = first + Lane();
    const int left = static_cast<int>(min(end - first, int64_t{kWarp * kInFlight}));
    int32_t targets[kInFlight][1];
    W weights[kInFlight];
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      targets[u][0] = -1;
      if (Lane() + u * kWarp >= left) continue;
      targets[u][0] = __ldg(problem.indices + mine + u * kWarp);
      weights[u] = WeightAt(problem.weights, mine + u * kWarp);
    }
    ready();
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      if (u * kWarp >= left) break;
      if (!problem.HasSum(targets[u][0])) continue;
      const int32_t contributions[1] = {Contribution(gain, weights[u])};
      visit(mine + u * kWarp, targets[u], contributions);
    }
  }
}

// Visits ranges of which the first `ranges` lanes bring one each. Long ones are visited one by one:
// sharing them out among the lanes would take longer than the lanes that stay without a synapse.
template <typename W, typename Ready, typename Visit>
__device__ __forceinline__ void VisitTogether(const Propagation<W>& problem, Range range,
                                              float gain, int ranges, const Ready& ready,
                                              const Visit& visit) {
  constexpr uint32_t kLong = 2 * kWarp;
  const uint32_t length = static_cast<uint32_t>(range.length);
  if (__reduce_add_sync(kAllLanes, length) < kLong * ranges) {
    return VisitRanges(problem, 0, length, range.first, gain, ready, visit);
  }
  for (int lane = 0; lane < ranges; ++lane) {
    const Range one{__shfl_sync(kAllLanes, range.first, lane),
                    __shfl_sync(kAllLanes, length, lane)};
    VisitRange(problem, one, __shfl_sync(kAllLanes, gain, lane), ready, visit);
  }
}

// Visits the heads of all rows: the warps of a row of the grid do. Each takes some rows, which
// row_of(place) returns, that follow each other or, where there are more warps than rows, a part of
// one. All threads call ready(), and do so before they visit anything.
template <typename W, typename RowOf, typename Ready, typename Visit>
__device__ void VisitHeads(const Propagation<W>& problem, const RowOf& row_of, const Ready& ready,
                           const Visit& visit) {
  const uint32_t warps = gridDim.x * (blockDim.x / kWarp);
  const uint32_t warp = blockIdx.x * (blockDim.x / kWarp) + threadIdx.x / kWarp;
  int halvings = 0;
  while (halvings < kMostHalvings && problem.count << (halvings + 1) <= warps) ++halvings;
  const int64_t parts = problem.count << halvings;
  if (parts <= warps) {
    if (warp < parts) {
      const uint32_t place = warp >> halvings;
      const Range range = PartOfHead(row_of(place), warp - (place << halvings), halvings);
      VisitRange(problem, range, problem.Gain(place), ready, visit);
    }
    return ready();
  }
  const int64_t together = min(QuotientUp(problem.count, warps), int64_t{kWarp});
  for (int64_t first = warp * together; first < problem.count; first += warps * together) {
    const int64_t place = first + Lane();
    Range range{0, 0};
    float gain = 0.0f;
    if (Lane() < together && place < problem.count) {
      range = PartOfHead(row_of(place), 0, 0);
      gain = problem.Gain(place);
    }
    VisitTogether(problem, range, gain, static_cast<int>(together), ready, visit);
  }
  ready();
}

template <typename W, typename Ready, typename Visit>
__device__ void VisitHeads(const Propagation<W>& problem, const Ready& ready, const Visit& visit) {
  VisitHeads(problem, [&](int64_t place) { return problem.Row(place); }, ready, visit);
}

}  // namespace brainjax

#endif  // BRAINJAX_ROW_VISITS_CUH_
