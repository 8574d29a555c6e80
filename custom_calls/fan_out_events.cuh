// The synapses of the active neurons as one sequence, where all rows have one length.
#ifndef BRAINJAX_FAN_OUT_EVENTS_CUH_
#define BRAINJAX_FAN_OUT_EVENTS_CUH_

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

// From a unit to another, `units` behind it: so many rows of so many units, and columns.
struct UnitStride {
  uint32_t units, rows, columns;

  BRAINJAX_HOST_DEVICE static UnitStride Of(uint32_t units, uint32_t row_units) {
    if (row_units == 0) return {units, 0, 0};
    return {units, units / row_units, units % row_units};
  }
};

// Rows of one length. A unit is kWidth neighbouring synapses of a row.
template <typename W, int kVectorWidth, int kInFlight = kUnitsInFlight<W, kVectorWidth>>
class FanOutEvents {
 public:
  using Weight = W;
  template <int kOther>
  using WithInFlight = FanOutEvents<W, kVectorWidth, kOther>;
  static constexpr int kWidth = kVectorWidth, kUnits = kInFlight;
  static constexpr bool kCounted = false;  // needs no counted rows
  struct Shared {};

  // Units of which a thread has asked the list: the rows that they are of, -1 where there is none.
  struct Listed {
    int32_t rows[kInFlight];
    uint32_t columns[kInFlight];
    float gains[kInFlight];
  };

  __device__ FanOutEvents(const Propagation<W>& problem, const CountedRows&, Shared*)
      : problem_(problem), row_units_(static_cast<uint32_t>(problem.fan_out / kWidth)) {}

  __device__ const Propagation<W>& problem() const { return problem_; }
  __device__ int64_t units() const { return UnitsOf(problem_.count); }
  __device__ int64_t UnitsOf(int64_t count) const { return count * row_units_; }

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
              UnitsOf(problem_.capacity), units(), ready, visit);
  }

  // Asks the list for the units unit, unit + stride ... below `last`: for kUnits, also those behind
  // the last one that is active, so that no thread waits for the count.
  __device__ __forceinline__ Listed ListFor(int64_t unit, UnitStride stride, int64_t last) const {
    Position position(unit, row_units_);
    return List(unit, stride, min(last, UnitsOf(problem_.capacity)), &position);
  }

  // Where the synapses of unit u begin, -1 where it has none.
  __device__ __forceinline__ int64_t BeginOf(const Listed& listed, int u) const {
    const int64_t begin = listed.rows[u] * problem_.fan_out + int64_t{listed.columns[u]} * kWidth;
    return problem_.HasRow(listed.rows[u]) ? begin : -1;
  }

  // Asks for the synapses of a unit; where it has none, targets are -1.
  __device__ __forceinline__ void AskTargets(int64_t begin, int32_t (&targets)[kWidth]) const {
    for (int v = 0; v < kWidth; ++v) targets[v] = -1;
    if (begin >= 0) LoadVector(problem_.indices + begin, targets);
  }
  __device__ __forceinline__ void AskWeights(int64_t begin, W (&weights)[kWidth]) const {
    if (begin >= 0) LoadVector(problem_.weights + begin, weights);
  }

 private:
  // The place of a unit's neuron in the list, and its column in the row.
  struct Position {
    uint32_t place = 0, column = 0;

    __device__ Position(int64_t unit, uint32_t row_units) {
      if (row_units == 0) return;
      place = static_cast<uint32_t>(Quotient(unit, row_units));
      column = static_cast<uint32_t>(unit - int64_t{place} * row_units);
    }

    __device__ __forceinline__ void Advance(UnitStride stride, uint32_t row_units) {
      place += stride.rows;
      column += stride.columns;
      if (column < row_units) return;
      column -= row_units;
      ++place;
    }
  };

  // The same below `readable`, for a position that it advances: for all of them before any synapse
  // is asked for, as a branch that waits would stand between.
  __device__ __forceinline__ Listed List(int64_t unit, UnitStride stride, int64_t readable,
                                         Position* position) const {
    Listed listed;
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      const bool is_listed = unit + u * stride.units < readable;
      listed.rows[u] = is_listed ? __ldg(problem_.active + position->place) : -1;
      listed.gains[u] = is_listed ? problem_.Gain(position->place) : 0.0f;
      listed.columns[u] = position->column;
      position->Advance(stride, row_units_);
    }
    return listed;
  }

  // The units unit, unit + stride ... below `last`; those below `readable` may be read.
  template <typename Ready, typename Visit>
  __device__ void ForThread(int64_t unit, uint32_t stride, int64_t readable, int64_t last,
                            const Ready& ready, const Visit& visit) const {
    const UnitStride steps = UnitStride::Of(stride, row_units_);
    Position position(unit, row_units_);
    bool waiting = true;
    do {
      const Listed listed = List(unit, steps, readable, &position);
      alignas(16) int32_t targets[kInFlight][kWidth];
      W weights[kInFlight][kWidth];
#pragma unroll
      for (int u = 0; u < kInFlight; ++u) {
        const int64_t begin = BeginOf(listed, u);
        AskTargets(begin, targets[u]);
        AskWeights(begin, weights[u]);
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
          contributions[v] = Contribution(listed.gains[u], weights[u][v]);
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
