// A thread's neurons as candidates: their parameters and membranes, asked for and then unpacked.
#ifndef BRAINJAX_BURST_CANDIDATES_CUH_
#define BRAINJAX_BURST_CANDIDATES_CUH_

#include <cstdint>

#include "burst_core.h"
#include "burst_own.cuh"

namespace brainjax {
namespace burst {

// The rows of the parameters of a thread's neurons, which are mostly of one kind.
template <int kWidth>
struct OwnRows {
  uint32_t rows[kWidth];
  bool are_same = true;  // those of one thread, for every thread of the warp

  __device__ __forceinline__ OwnRows(const Numbers<kWidth, uint16_t>& kind, uint32_t num_kinds) {
    uint16_t kinds[kWidth];
    kind.Unpack(kinds);
#pragma unroll
    for (int v = 0; v < kWidth; ++v) {
      are_same &= kinds[v] == kinds[0];
      rows[v] = min(uint32_t{kinds[v]}, num_kinds - 1);
    }
    // Those of a whole warp: a branch for each thread would be a condition on each of its loads.
    if constexpr (kWidth > 1) are_same = __all_sync(kAllLanes, are_same);
  }

  template <typename T>
  __device__ __forceinline__ void Read(const T* numbers, T (&values)[kWidth]) const {
    const T first = numbers[rows[0]];
#pragma unroll
    for (int v = 0; v < kWidth; ++v) values[v] = first;
    if (are_same) return;
#pragma unroll
    for (int v = 1; v < kWidth; ++v) values[v] = numbers[rows[v]];
  }
};

constexpr uint32_t kManyRows = kMaxKinds;  // not one

// Parameters of a thread's neurons that are needed of all of them.
template <int kWidth>
struct OwnParameters {
  float threshold[kWidth], leak[kWidth];
  uint16_t fire_limit[kWidth];
  bool accumulates[kWidth];  // not read where residues are kept
  uint32_t row = kManyRows;  // that all of them have

  __device__ __forceinline__ uint32_t RowOf(const BurstNeurons& neurons, uint32_t id) const {
    return row != kManyRows ? row : neurons.Row(id);
  }
};

// What has been asked for of them.
template <int kWidth, bool kByKind>
struct AskedParameters {
  Numbers<kWidth, uint16_t> kind{};

  template <typename Own>
  __device__ __forceinline__ AskedParameters(const BurstNeurons& neurons, bool, const Own& own) {
    if (neurons.num_kinds > 1) kind = own.Ask(neurons.kind);  // else all have the only row
  }

  __device__ __forceinline__ void Unpack(const BurstNeurons& neurons, bool keeps_residues,
                                         OwnParameters<kWidth>* parameters) const {
    const OwnRows<kWidth> rows(kind, neurons.num_kinds);
    rows.Read(neurons.threshold, parameters->threshold);
    rows.Read(neurons.leak, parameters->leak);
    rows.Read(neurons.fire_limit, parameters->fire_limit);
    if (rows.are_same) parameters->row = rows.rows[0];
    if (!keeps_residues) rows.Read(neurons.accumulates, parameters->accumulates);
  }
};

// The same where each neuron has a row of its own.
template <int kWidth>
struct AskedParameters<kWidth, false> {
  Numbers<kWidth, float> threshold, leak;
  Numbers<kWidth, uint16_t> fire_limit;
  Numbers<kWidth, bool> accumulates;

  template <typename Own>
  __device__ __forceinline__ AskedParameters(const BurstNeurons& neurons, bool keeps_residues,
                                             const Own& own)
      : threshold(own.Ask(neurons.threshold)),
        leak(own.Ask(neurons.leak)),
        fire_limit(own.Ask(neurons.fire_limit)) {
    if (!keeps_residues) accumulates = own.Ask(neurons.accumulates);
  }

  __device__ __forceinline__ void Unpack(const BurstNeurons&, bool keeps_residues,
                                         OwnParameters<kWidth>* parameters) const {
    threshold.Unpack(parameters->threshold);
    leak.Unpack(parameters->leak);
    fire_limit.Unpack(parameters->fire_limit);
    if (!keeps_residues) accumulates.Unpack(parameters->accumulates);
  }
};

// A thread's neurons as candidates.
template <int kWidth>
struct OwnCandidates {
  OwnParameters<kWidth> parameters;
  float potential[kWidth];
  uint16_t countdown[kWidth], fire_count[kWidth];
  uint32_t resets = 0;  // a bit for each whose potential has just been set to 0

  __device__ __forceinline__ Candidate At(int v) const {
    Candidate one{};
#pragma unroll
    for (int u = 0; u < kWidth; ++u) {
      if (u != v) continue;
      one = {potential[u], parameters.threshold[u],  parameters.leak[u],
             countdown[u], fire_count[u], parameters.fire_limit[u]};
    }
    return one;
  }

  // Becomes what a burst makes of it.
  __device__ __forceinline__ void Become(int v, const Outcome& outcome) {
#pragma unroll
    for (int u = 0; u < kWidth; ++u) {
      if (u != v) continue;
      potential[u] = outcome.potential;
      countdown[u] = static_cast<uint16_t>(outcome.countdown);
      fire_count[u] = static_cast<uint16_t>(outcome.fire_count);
    }
  }

  // The same on a condition, without a branch. Returns whether that changes a count.
  __device__ __forceinline__ bool BecomeIf(bool becomes, int v, const Outcome& outcome) {
    const Candidate now = At(v);
    const bool changes =
        outcome.countdown != now.countdown || outcome.fire_count != now.fire_count;
    Become(v, {becomes ? outcome.potential : now.potential,
               becomes ? outcome.countdown : now.countdown,
               becomes ? outcome.fire_count : now.fire_count, false});
    return becomes && changes;
  }
};

// What has been asked for of them.
template <int kWidth, bool kByKind>
struct AskedCandidates {
  Numbers<kWidth, float> potential;
  Numbers<kWidth, uint16_t> countdown, fire_count;
  AskedParameters<kWidth, kByKind> parameters;

  template <typename Own>
  __device__ __forceinline__ AskedCandidates(const BurstNeurons& neurons, bool keeps_residues,
                                             const Own& own)
      : potential(own.Ask(neurons.potential)),
        countdown(own.Ask(neurons.countdown)),
        fire_count(own.Ask(neurons.fire_count)),
        parameters(neurons, keeps_residues, own) {}

  // Whether all neurons of a warp have one row of the parameters, none of them rests, and nothing
  // limits how often they fire in a row: so are most warps of most networks.
  __device__ __forceinline__ bool ArePlain(const BurstNeurons& neurons, uint32_t* row) const {
    const uint32_t kind = __shfl_sync(kAllLanes, FirstOf(parameters.kind), 0);
    *row = min(kind, neurons.num_kinds - 1);
    const bool are_plain = AreAll(parameters.kind, kind) && AreAll(countdown, 0);
    return __all_sync(kAllLanes, are_plain) && !IsLimited(neurons.fire_limit[*row]);
  }

  // As they are at the start of a burst, where that is so: the compiler leaves out what cannot be.
  template <typename Own>
  __device__ __forceinline__ OwnCandidates<kWidth> UnpackPlain(const BurstNeurons& neurons,
                                                               bool keeps_residues, const Own& own,
                                                               uint32_t row) const {
    OwnCandidates<kWidth> candidates;
#pragma unroll
    for (int v = 0; v < kWidth; ++v) {
      candidates.parameters.threshold[v] = neurons.threshold[row];
      candidates.parameters.leak[v] = neurons.leak[row];
      candidates.parameters.fire_limit[v] = 0;  // as kUnlimited
      candidates.parameters.accumulates[v] = keeps_residues || neurons.accumulates[row];
      candidates.countdown[v] = 0;
    }
    Start(keeps_residues, own, &candidates);
    return candidates;
  }

  // As they are at the start of a burst.
  template <typename Own>
  __device__ __forceinline__ OwnCandidates<kWidth> Unpack(const BurstNeurons& neurons,
                                                          bool keeps_residues,
                                                          const Own& own) const {
    OwnCandidates<kWidth> candidates;
    parameters.Unpack(neurons, keeps_residues, &candidates.parameters);
    countdown.Unpack(candidates.countdown);
    Start(keeps_residues, own, &candidates);
    return candidates;
  }

 private:
  // Sets potentials, those that do not accumulate to 0, and counts of fires.
  template <typename Own>
  __device__ __forceinline__ void Start(bool keeps_residues, const Own& own,
                                        OwnCandidates<kWidth>* candidates) const {
    potential.Unpack(candidates->potential);
    fire_count.Unpack(candidates->fire_count);
    if (keeps_residues) return;
#pragma unroll
    for (int v = 0; v < kWidth; ++v) {
      if (!own.Exists(v) || candidates->parameters.accumulates[v]) continue;
      candidates->potential[v] = 0.0f;
      candidates->resets |= 1u << v;
    }
  }
};

}  // namespace burst
}  // namespace brainjax

#endif  // BRAINJAX_BURST_CANDIDATES_CUH_
