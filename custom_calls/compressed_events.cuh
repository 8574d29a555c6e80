// The synapses of the active neurons as one sequence that warps divide evenly, whatever the lengths
// of the rows.
#ifndef BRAINJAX_COMPRESSED_EVENTS_CUH_
#define BRAINJAX_COMPRESSED_EVENTS_CUH_

#include <cstdint>

#include "launch.h"
#include "row_visits.cuh"

namespace brainjax {

// The list of active neurons is cut into these parts, whose synapses are counted apart.
constexpr int kChunks = 256;

// Rows of any length, as they have been counted. A unit is one synapse.
template <typename W>
class CompressedEvents {
 public:
  using Weight = W;
  static constexpr int kWidth = 1;
  static constexpr bool kCounted = true;
  struct Shared {
    uint64_t starts[kChunks + 1];  // synapses before each chunk
    uint64_t warps[kChunks / kWarp];
  };

  // All threads of a block make one together.
  __device__ CompressedEvents(const Propagation<W>& problem, const CountedRows& rows,
                              Shared* shared)
      : problem_(problem),
        rows_(rows),
        starts_(shared->starts),
        chunk_(ChunkSize(problem.count)) {
    AddUp(rows.totals, shared);
  }

  // Active neurons in a chunk: whole warps.
  static __device__ int64_t ChunkSize(int64_t count) {
    return CeilDiv(count, kChunks * kWarp) * kWarp;
  }

  __device__ int64_t units() const { return static_cast<int64_t>(starts_[kChunks]); }

  // Calls visit(synapse, targets, contributions), with one target each, for the synapses
  // [first, last): one block does. A target that is no neuron is -1.
  template <typename Visit>
  __device__ void ForBlock(int64_t first, int64_t last, const Visit& visit) const {
    ForWarps(threadIdx.x / kWarp, blockDim.x / kWarp, first, last, visit);
  }

  // The same for the synapses from `first` on, by all blocks of a row of the grid.
  template <typename Ready, typename Visit>
  __device__ void ForGrid(int64_t first, const Ready& ready, const Visit& visit) const {
    ready();
    const int64_t warps = blockDim.x / kWarp;
    ForWarps(blockIdx.x * warps + threadIdx.x / kWarp, gridDim.x * warps, first, units(), visit);
  }

 private:
  static constexpr int64_t kMaxWindow = int64_t{1} << 30;  // positions in it fit into 32 bits

  template <typename Visit>
  __device__ void ForWarps(int64_t warp, int64_t warps, int64_t first, int64_t last,
                           const Visit& visit) const {
    const int64_t share = QuotientUp(last - first, static_cast<uint32_t>(warps) * kWarp) * kWarp;
    ForWarp(first + warp * share, min(first + (warp + 1) * share, last), visit);
  }

  template <typename Visit>
  __device__ void ForWarp(int64_t first, int64_t last, const Visit& visit) const {
    if (first >= last) return;
    int64_t chunk = ChunkOf(first);
    int64_t place = PlaceOf(first, chunk);
    while (first < last && place < problem_.count) {
      const int64_t chunk_end = min((chunk + 1) * chunk_, problem_.count);
      const int64_t mine = place + Lane();
      int64_t begin = last, row_end = last, synapse = 0;
      float gain = 0.0f;
      if (mine < chunk_end) {
        begin = starts_[chunk] + rows_.before[mine];
        row_end = mine + 1 < chunk_end ? starts_[chunk] + rows_.before[mine + 1]
                                       : starts_[chunk + 1];
        synapse = rows_.firsts[mine];
        gain = problem_.Gain(mine);
      }
      const int64_t stop = min(last, first + kMaxWindow);
      const int64_t low = max(begin, first), high = min(row_end, stop);
      const uint32_t length = high > low ? static_cast<uint32_t>(high - low) : 0;
      VisitRanges(problem_, first, length, synapse + low - begin, gain, [] {}, visit);
      const int last_lane = static_cast<int>(min(int64_t{kWarp}, chunk_end - place)) - 1;
      const int64_t end = __shfl_sync(kAllLanes, row_end, last_lane);
      const bool is_empty = end == first;
      first = min(stop, end);
      if (end > stop) continue;  // a window of a very long row
      place += kWarp;
      if (is_empty) {  // of heads alone, as maybe many more
        chunk = ChunkOf(first);
        place = PlaceOf(first, chunk);
      } else if (place >= chunk_end) {
        place = ++chunk * chunk_;
      }
    }
  }

  __device__ void AddUp(const uint64_t* totals, Shared* shared) {
    const int thread = threadIdx.x;
    uint64_t end = 0;
    if (thread < kChunks) {
      end = totals[thread];
#pragma unroll
      for (int distance = 1; distance < kWarp; distance *= 2) {
        const uint64_t before = __shfl_up_sync(kAllLanes, end, distance);
        if (Lane() >= distance) end += before;
      }
      if (Lane() == kWarp - 1) shared->warps[thread / kWarp] = end;
    }
    __syncthreads();
    if (thread < kChunks) {
      for (int warp = 0; warp < thread / kWarp; ++warp) end += shared->warps[warp];
      shared->starts[thread + 1] = end;
      if (thread == 0) shared->starts[0] = 0;
    }
    __syncthreads();
  }

  // The chunk that holds a synapse.
  __device__ int64_t ChunkOf(int64_t synapse) const {
    int chunk = 0;
    for (int step = kChunks / 2; step > 0; step /= 2) {
      if (starts_[chunk + step] <= static_cast<uint64_t>(synapse)) chunk += step;
    }
    return chunk;
  }

  // The place of its neuron in the list: the last one that begins at or before it.
  __device__ int64_t PlaceOf(int64_t synapse, int64_t chunk) const {
    const uint64_t target = static_cast<uint64_t>(synapse) - starts_[chunk];
    int64_t low = chunk * chunk_, high = min(low + chunk_, problem_.count);
    while (high - low > 1) {
      const int64_t step = (high - low + kWarp - 1) / kWarp, probe = low + Lane() * step;
      const bool begun = probe < high && rows_.before[probe] <= target;
      low += (__popc(__ballot_sync(kAllLanes, begun)) - 1) * step;
      high = min(high, low + step);
    }
    return low;
  }

  const Propagation<W>& problem_;
  CountedRows rows_;
  const uint64_t* starts_;
  int64_t chunk_;
};

}  // namespace brainjax

#endif  // BRAINJAX_COMPRESSED_EVENTS_CUH_
