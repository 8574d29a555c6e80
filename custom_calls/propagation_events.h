// The synapses of the active neurons as one sequence that warps divide evenly, whatever the lengths
// of the rows. A unit of it is one synapse or one vector of them.
#ifndef BRAINJAX_PROPAGATION_EVENTS_H_
#define BRAINJAX_PROPAGATION_EVENTS_H_

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "launch.h"
#include "propagation.h"

namespace brainjax {

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kWarp = 32;
constexpr int kInFlight = 4;  // loads that a lane has asked for before it uses the first
// The list of active neurons is cut into these parts, whose synapses are counted apart.
constexpr int kChunks = 256;

__device__ __forceinline__ int Lane() { return threadIdx.x % kWarp; }

// Divides numbers that may need 64 bits but seldom do: with 32 it takes a fraction of the time.
__device__ __forceinline__ int64_t Quotient(int64_t a, uint32_t b) {
  return a >> 32 == 0 ? static_cast<uint32_t>(a) / b : a / b;
}

__device__ __forceinline__ int64_t QuotientUp(int64_t a, uint32_t b) {
  return Quotient(a + b - 1, b);
}

// 32 ranges, one per lane, laid end to end: lanes share long ones and fill up short ones.
struct WarpRanges {
  uint32_t begin;  // of this lane's range
  uint32_t total;

  __device__ explicit WarpRanges(uint32_t length) {
    uint32_t end = length;
#pragma unroll
    for (int distance = 1; distance < kWarp; distance *= 2) {
      const uint32_t before = __shfl_up_sync(kAllLanes, end, distance);
      if (Lane() >= distance) end += before;
    }
    begin = end - length;
    total = __shfl_sync(kAllLanes, end, kWarp - 1);
  }

  // The lane whose range holds element x: the last that begins at or before it. All lanes ask.
  __device__ int Owner(uint32_t x) const {
    int owner = 0;
#pragma unroll
    for (int step = kWarp / 2; step > 0; step /= 2) {
      if (__shfl_sync(kAllLanes, begin, owner + step) <= x) owner += step;
    }
    return owner;
  }
};

// Reads kWidth neighbours; four words at once are one load.
template <int kWidth, typename T>
__device__ __forceinline__ void LoadVector(const T* source, T (&vector)[kWidth]) {
  if constexpr (std::is_same_v<T, UnitWeight>) {
    return;
  } else if constexpr (kWidth == 4 && sizeof(T) == 4) {
    const uint4 bits = __ldg(reinterpret_cast<const uint4*>(source));
    memcpy(vector, &bits, sizeof(bits));
  } else if constexpr (kWidth == 4) {
    static_assert(sizeof(T) == 1);
    const uint32_t bits = __ldg(reinterpret_cast<const uint32_t*>(source));
    memcpy(vector, &bits, sizeof(bits));
  } else {
    static_assert(kWidth == 1);
    vector[0] = __ldg(source);
  }
}

// Rows of one length. A unit is kWidth neighbouring synapses of a row.
template <typename W, int kVectorWidth>
class FanOutEvents {
 public:
  using Weight = W;
  static constexpr int kWidth = kVectorWidth;
  static constexpr bool kCounted = false;  // needs no `before` and `totals`
  struct Shared {};
  // Vectors take four times the registers, and with weights eight times.
  static constexpr int kInFlight = kWidth > 1 && !std::is_same_v<W, UnitWeight> ? 2 : 4;

  __device__ FanOutEvents(const Propagation<W>& problem, const uint64_t*, const uint64_t*, Shared*)
      : problem_(problem), row_units_(static_cast<uint32_t>(problem.fan_out / kWidth)) {}

  __device__ int64_t units() const { return problem_.count * int64_t{row_units_}; }

  // Calls visit(unit, targets, contributions) for the units [first, last): one block does. A target
  // that is no neuron is -1.
  template <typename Visit>
  __device__ void ForBlock(int64_t first, int64_t last, const Visit& visit) const {
    ForThread(first + threadIdx.x, blockDim.x, last, last, [] {}, visit);
  }

  // The same for the units from `first` on, by all blocks of a row of the grid. Reads the first
  // synapses, calls ready(), and only then visits.
  template <typename Ready, typename Visit>
  __device__ void ForGrid(int64_t first, const Ready& ready, const Visit& visit) const {
    // Up to the capacity, so that no thread waits for the count before it reads.
    ForThread(first + int64_t{blockIdx.x} * blockDim.x + threadIdx.x, gridDim.x * blockDim.x,
              problem_.capacity * int64_t{row_units_}, units(), ready, visit);
  }

 private:
  // The units unit, unit + stride ... below `last`; those below `readable` may be read.
  template <typename Ready, typename Visit>
  __device__ void ForThread(int64_t unit, uint32_t stride, int64_t readable, int64_t last,
                            const Ready& ready, const Visit& visit) const {
    bool waiting = true;
    uint32_t place = 0, column = 0, next_place = 0, next_column = 0;
    if (row_units_ > 0) {
      place = static_cast<uint32_t>(Quotient(unit, row_units_));
      column = static_cast<uint32_t>(unit - int64_t{place} * row_units_);
      next_place = stride / row_units_;
      next_column = stride % row_units_;
    }
    do {
      alignas(16) int32_t targets[kInFlight][kWidth];
      W weights[kInFlight][kWidth];
      float gains[kInFlight];
#pragma unroll
      for (int u = 0; u < kInFlight; ++u) {
        for (int v = 0; v < kWidth; ++v) targets[u][v] = -1;
        const int32_t row = unit + u * stride < readable ? __ldg(problem_.active + place) : -1;
        if (problem_.HasRow(row)) {
          const int64_t synapse = row * problem_.fan_out + int64_t{column} * kWidth;
          gains[u] = problem_.Gain(place);
          LoadVector(problem_.indices + synapse, targets[u]);
          LoadVector(problem_.weights + synapse, weights[u]);
        }
        place += next_place;
        column += next_column;
        if (column >= row_units_) {
          column -= row_units_;
          ++place;
        }
      }
      if (waiting) ready();
      waiting = false;
#pragma unroll
      for (int u = 0; u < kInFlight; ++u) {
        if (unit + u * stride >= last) break;
        alignas(16) int32_t contributions[kWidth];
#pragma unroll
        for (int v = 0; v < kWidth; ++v) {
          if (!problem_.HasSum(targets[u][v])) targets[u][v] = -1;
          contributions[v] = Contribution(gains[u], weights[u][v]);
        }
        visit(unit + u * stride, targets[u], contributions);
      }
      unit += int64_t{stride} * kInFlight;
    } while (unit < last);
  }

  const Propagation<W>& problem_;
  uint32_t row_units_;
};

// Rows of any length. A unit is one synapse. `before` tells for each active neuron how many
// synapses stand before its own in its chunk of the list, `totals` how many each chunk has.
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
  __device__ CompressedEvents(const Propagation<W>& problem, const uint64_t* before,
                              const uint64_t* totals, Shared* shared)
      : problem_(problem),
        before_(before),
        starts_(shared->starts),
        chunk_(ChunkSize(problem.count)) {
    AddUp(totals, shared);
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
      Range row{0, 0};
      int64_t begin = last;
      float gain = 0.0f;
      if (mine < chunk_end) {
        row = problem_.Row(mine);
        begin = static_cast<int64_t>(starts_[chunk] + before_[mine]);
        gain = problem_.Gain(mine);
      }
      const int64_t stop = min(last, first + kMaxWindow);
      const int64_t low = max(begin, first), high = min(begin + row.length, stop);
      VisitRanges(first, high > low ? static_cast<uint32_t>(high - low) : 0,
                  row.first + low - begin, gain, visit);
      const int last_lane = static_cast<int>(min(int64_t{kWarp}, chunk_end - place)) - 1;
      const int64_t end = __shfl_sync(kAllLanes, begin + row.length, last_lane);
      first = min(stop, end);
      if (end > stop) continue;  // a window of a very long row
      place += kWarp;
      if (place >= chunk_end) place = ++chunk * chunk_;
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
      const bool begun = probe < high && before_[probe] <= target;
      low += (__popc(__ballot_sync(kAllLanes, begun)) - 1) * step;
      high = min(high, low + step);
    }
    return low;
  }

  // Each lane brings `length` synapses of one row, from `synapse` in memory on; the warp visits all
  // of them, as `first` and those after it in the sequence.
  template <typename Visit>
  __device__ void VisitRanges(int64_t first, uint32_t length, int64_t synapse, float gain,
                              const Visit& visit) const {
    const WarpRanges ranges(length);
    synapse -= ranges.begin;
    for (uint32_t x = Lane(); x - Lane() < ranges.total; x += kWarp * kInFlight) {
      int32_t targets[kInFlight][1];
      W weights[kInFlight];
      float gains[kInFlight];
#pragma unroll
      for (int u = 0; u < kInFlight; ++u) {
        const int owner = ranges.Owner(x + u * kWarp);
        const int64_t here = __shfl_sync(kAllLanes, synapse, owner) + (x + u * kWarp);
        gains[u] = __shfl_sync(kAllLanes, gain, owner);
        if (x + u * kWarp < ranges.total) {
          targets[u][0] = __ldg(problem_.indices + here);
          weights[u] = WeightAt(problem_.weights, here);
        }
      }
#pragma unroll
      for (int u = 0; u < kInFlight; ++u) {
        if (x + u * kWarp >= ranges.total) break;
        if (!problem_.HasSum(targets[u][0])) targets[u][0] = -1;
        const int32_t contributions[1] = {Contribution(gains[u], weights[u])};
        visit(first + x + u * kWarp, targets[u], contributions);
      }
    }
  }

  const Propagation<W>& problem_;
  const uint64_t* before_;
  const uint64_t* starts_;
  int64_t chunk_;
};

}  // namespace brainjax

#endif  // BRAINJAX_PROPAGATION_EVENTS_H_
