// The synapses of the active neurons as one sequence, where all rows have one length.
#ifndef BRAINJAX_FAN_OUT_EVENTS_CUH_
#define BRAINJAX_FAN_OUT_EVENTS_CUH_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "launch.h"
#include "row_visits.cuh"

namespace brainjax {

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

// Units that a thread asks for at a time. Vectors take four times the registers, and with weights
// eight times.
template <typename W, int kWidth>
constexpr int kUnitsInFlight = kWidth > 1 && !std::is_same_v<W, UnitWeight> ? 2 : 4;

// Rows of one length. A unit is kWidth neighbouring synapses of a row.
template <typename W, int kVectorWidth, int kInFlight = kUnitsInFlight<W, kVectorWidth>>
class FanOutEvents {
 public:
  using Weight = W;
  // For threads that have few synapses: fewer instructions.
  using Brief = FanOutEvents<W, kVectorWidth, std::min(kInFlight, 8 / kVectorWidth)>;
  static constexpr int kWidth = kVectorWidth;
  static constexpr bool kCounted = false;  // needs no counted rows
  struct Shared {};

  __device__ FanOutEvents(const Propagation<W>& problem, const CountedRows&, Shared*)
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
      int32_t rows[kInFlight];
      uint32_t columns[kInFlight];
      // All of these first, as nothing is asked for behind a branch that waits.
#pragma unroll
      for (int u = 0; u < kInFlight; ++u) {
        const bool is_listed = unit + u * stride < readable;
        rows[u] = is_listed ? __ldg(problem_.active + place) : -1;
        gains[u] = is_listed ? problem_.Gain(place) : 0.0f;
        columns[u] = column;
        place += next_place;
        column += next_column;
        if (column >= row_units_) {
          column -= row_units_;
          ++place;
        }
      }
#pragma unroll
      for (int u = 0; u < kInFlight; ++u) {
        for (int v = 0; v < kWidth; ++v) targets[u][v] = -1;
        if (!problem_.HasRow(rows[u])) continue;
        const int64_t synapse = rows[u] * problem_.fan_out + int64_t{columns[u]} * kWidth;
        LoadVector(problem_.indices + synapse, targets[u]);
        LoadVector(problem_.weights + synapse, weights[u]);
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

}  // namespace brainjax

#endif  // BRAINJAX_FAN_OUT_EVENTS_CUH_
