// One network in one burst, and a batch of them, as both platforms see them.
#ifndef BRAINJAX_BURST_BATCH_H_
#define BRAINJAX_BURST_BATCH_H_

#include <cstdint>

#include "active_set.h"
#include "batch.h"
#include "burst_neuron.h"

namespace brainjax {

// Scratch of a network: see the constants in burst_core.py.
constexpr int64_t kBurstWord = 32, kBurstTile = 1024, kBurstParts = 16;

// One network in one burst.
struct BurstProblem {
  BurstNeurons neurons;
  ActiveSet injected;  // ids ascend
  float power;
  bool fatigued;
  uint32_t burst;
  const bool* is_driven;    // null: every spike sends 1
  const int32_t* arriving;  // null: nothing
  const bool* reached;
  float* inputs;
  bool* candidates;
  uint32_t* fires;
  float* sent;         // by each that fired, if some are driven; scratch, as are all below
  int32_t* sums;       // over synapses
  uint32_t* cancelled;  // one bit for each neuron: maybe reached although the sum is 0
  uint32_t* totals;     // 2 * kBurstParts words, behind these
  uint32_t* tile_fires;  // neurons that fire in each tile
  // Who fired, and then who fires.
  int32_t* indices;
  float* values;
  int32_t* count;
  int64_t num_neurons;

  // Entries of the list of who fired, which may be anything.
  BRAINJAX_HOST_DEVICE int64_t NumFired() const {
    return *count < 0 ? 0 : *count < num_neurons ? *count : num_neurons;
  }

  // What an entry of that list sends, where some are driven.
  BRAINJAX_HOST_DEVICE float Sent(const BurstRules& rules, int64_t place) const {
    const uint32_t id = static_cast<uint32_t>(indices[place]);
    return id < num_neurons && is_driven[id] ? KeptStrength(rules, values[place]) : 1.0f;
  }

  // Whether a neuron belongs to the fatigue area of a fatigued network.
  BRAINJAX_HOST_DEVICE bool IsTired(const BurstRules& rules, int64_t id) const {
    return fatigued && rules.fatigue_area >= 0 && neurons.area[id] == rules.fatigue_area;
  }
};

// Not inlined: a burst has many operands, and few are of a batch.
BRAINJAX_FAR_FUNCTION int64_t OffsetOf(const BatchOffsets& offsets, int64_t b) {
  return offsets(b);
}

// An operand of which the elements of a batch may share one.
template <typename T>
struct BatchedOperand {
  const T* first;
  BatchOffsets offsets;

  template <typename Offset>
  BRAINJAX_HOST_DEVICE const T* At(const Offset& offset) const {
    return first + offset(offsets);
  }
};

// A batch of networks. Each has its own state; which of the rest they share says vmap.
struct BurstBatch {
  BurstProblem first;  // element 0; its parameters are below
  BurstRules rules;
  BatchedOperand<int32_t> area, arriving;
  BatchedOperand<float> threshold, threshold_limit, leak, excitability, power;
  BatchedOperand<uint16_t> refractory_period, fire_limit, snooze;
  BatchedOperand<bool> accumulates, fatigued, reached, is_driven;
  BatchedOperand<uint32_t> burst;
  ActiveSets injected;
  int64_t size, num_words, stride;  // words of the fires, and of all scratch

  BRAINJAX_HOST_DEVICE BurstProblem At(int64_t b) const {
    if (b == 0) return Element(0, [](const BatchOffsets&) { return int64_t{0}; });
    return Element(b, [b](const BatchOffsets& offsets) { return OffsetOf(offsets, b); });
  }

 private:
  template <typename Offset>
  BRAINJAX_HOST_DEVICE BurstProblem Element(int64_t b, const Offset& offset) const {
    BurstProblem element = first;
    const int64_t n = first.num_neurons;
    const BurstNeurons& states = first.neurons;
    element.neurons = {area.At(offset),
                       threshold.At(offset),
                       threshold_limit.At(offset),
                       leak.At(offset),
                       excitability.At(offset),
                       refractory_period.At(offset),
                       fire_limit.At(offset),
                       snooze.At(offset),
                       accumulates.At(offset),
                       states.potential + b * n,
                       states.countdown + b * n,
                       states.fire_count + b * n};
    element.injected = injected.Set(offset(injected.indices_at), offset(injected.values_at),
                                    offset(injected.counts_at));
    element.power = *power.At(offset);
    element.fatigued = *fatigued.At(offset);
    element.burst = *burst.At(offset);
    if (first.is_driven != nullptr) {
      element.is_driven = is_driven.At(offset);
      element.sent += b * n;
    }
    if (first.arriving != nullptr) {
      element.arriving = arriving.At(offset);
      element.reached = reached.At(offset);
    }
    element.inputs += b * n;
    element.candidates += b * n;
    element.fires += b * num_words;
    element.sums += b * n;
    element.cancelled += b * stride;
    element.totals += b * stride;
    element.tile_fires += b * stride;
    element.indices += b * n;
    element.values += b * n;
    element.count += b;
    return element;
  }
};

}  // namespace brainjax

#endif  // BRAINJAX_BURST_BATCH_H_
