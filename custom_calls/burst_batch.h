// One network in one burst, and a batch of them, as both platforms see them.
#ifndef BRAINJAX_BURST_BATCH_H_
#define BRAINJAX_BURST_BATCH_H_

#include <cstdint>

#include "active_set.h"
#include "batch.h"
#include "burst_neuron.h"

namespace brainjax {

// Scratch of a network: see the constants in burst_core.py.
constexpr int kBurstWord = 32, kBurstTile = 512, kBurstParts = 16;
constexpr int kMinSpanBits = 14, kMaxSpans = 2048;

// One network in one burst.
struct BurstProblem {
  BurstNeurons neurons;
  ActiveSet injected;           // ids ascend; its count is the room for them
  const int32_t* num_injected;  // may be anything
  const float* power;
  const bool* fatigued;
  const bool* is_driven;    // null: every spike sends 1
  const int32_t* arriving;  // null: nothing
  const bool* reached;
  float* inputs;            // null, as candidates: neither kept nor needed
  bool* candidates;
  uint32_t* fires;
  float* sent;         // by each that fired, if some are driven; scratch, as are all below
  int32_t* sums;       // over synapses, as far as they are written to memory; else free
  const unsigned long long* tallies;  // on the GPU, maybe instead: see propagation_call.cuh
  uint32_t* cancelled;  // one bit for each neuron: maybe reached although the sum is 0
  uint32_t* totals;       // 2 * kBurstParts words, behind these
  uint32_t* fire_counts;  // of spans of 2^span_bits neurons each, on the GPU
  uint32_t* tile_starts;  // where each tile's part of what is injected begins, and where all end
  // Who fired, and then who fires.
  int32_t* indices;
  float* values;
  int32_t* count;
  uint32_t* bursts;  // so far, and with this one when who fires has been listed
  int64_t num_neurons;
  int span_bits;

  // As the GPU's kernels reckon with places: there are fewer than 2^31.
  BRAINJAX_HOST_DEVICE uint32_t NumNeurons() const { return static_cast<uint32_t>(num_neurons); }

  // Entries of the list of who fired, whose number may be anything.
  BRAINJAX_HOST_DEVICE int64_t NumFired() const { return NumListed(*count, num_neurons); }

  BRAINJAX_HOST_DEVICE ActiveSet Injected() const {
    return {injected.indices, injected.values, NumListed(*num_injected, injected.count)};
  }

  // What an entry of that list sends, where some are driven.
  BRAINJAX_HOST_DEVICE float Sent(const BurstRules& rules, int64_t place) const {
    const uint32_t id = static_cast<uint32_t>(indices[place]);
    return id < num_neurons && is_driven[id] ? KeptStrength(rules, values[place]) : 1.0f;
  }

  // The number of this burst, until who fires is listed.
  BRAINJAX_HOST_DEVICE uint32_t Number() const { return *bursts + 1; }

  // Whether the fatigue area receives the power.
  BRAINJAX_HOST_DEVICE bool IsFatigued(const BurstRules& rules) const {
    return rules.fatigue_area >= 0 && *fatigued;
  }
};

// Not inlined: a burst has many operands, and few are of a batch.
BRAINJAX_FAR_FUNCTION int64_t OffsetOf(const BatchOffsets& offsets, int64_t b) {
  return offsets(b);
}

// A batch of networks. Each has its own state; which of the rest they share says vmap.
struct BurstBatch {
  BurstProblem first;  // element 0
  BurstRules rules;
  BatchOffsets area, threshold, threshold_limit, leak, excitability;
  BatchOffsets refractory_period, fire_limit, snooze, accumulates, kind;
  BatchOffsets injected, injections, num_injected, power, fatigued;
  BatchOffsets is_driven, arriving, reached;
  int64_t size, num_words;  // of the fires
  int64_t stride;           // words of scratch

  BRAINJAX_HOST_DEVICE int64_t NumTiles() const {
    return (first.num_neurons + kBurstTile - 1) / kBurstTile;
  }

  // As many neurons in a span as keep the spans few.
  static int SpanBits(int64_t num_neurons) {
    int bits = kMinSpanBits;
    while (num_neurons > int64_t{kMaxSpans} << bits) ++bits;
    return bits;
  }

  // Words of scratch in front of the counts of spans, in front of the starts of tiles, and in all.
  BRAINJAX_HOST_DEVICE int64_t CountsAt() const { return num_words + 2 * kBurstParts; }
  BRAINJAX_HOST_DEVICE int64_t StartsAt() const {
    return CountsAt() + ((first.num_neurons - 1) >> first.span_bits) + 1;
  }
  int64_t ScratchWords() const { return StartsAt() + NumTiles() + 1; }

  BRAINJAX_HOST_DEVICE BurstProblem At(int64_t b) const {
    const auto add = [b](auto*& operand, const BatchOffsets& offsets) {
      if (operand != nullptr) operand += OffsetOf(offsets, b);
    };
    BurstProblem element = first;
    if (b == 0) return element;
    const int64_t n = first.num_neurons;
    BurstNeurons& neurons = element.neurons;
    add(neurons.area, area);
    add(neurons.threshold, threshold);
    add(neurons.threshold_limit, threshold_limit);
    add(neurons.leak, leak);
    add(neurons.excitability, excitability);
    add(neurons.refractory_period, refractory_period);
    add(neurons.fire_limit, fire_limit);
    add(neurons.snooze, snooze);
    add(neurons.accumulates, accumulates);
    add(neurons.kind, kind);
    neurons.potential += b * n;
    neurons.countdown += b * n;
    neurons.fire_count += b * n;
    add(element.injected.indices, injected);
    add(element.injected.values, injections);
    add(element.num_injected, num_injected);
    add(element.power, power);
    add(element.fatigued, fatigued);
    add(element.is_driven, is_driven);
    add(element.arriving, arriving);
    add(element.reached, reached);
    if (element.is_driven != nullptr) element.sent += b * n;
    if (element.inputs != nullptr) {
      element.inputs += b * n;
      element.candidates += b * n;
    }
    element.fires += b * num_words;
    element.sums += b * n;
    if (element.tallies != nullptr) element.tallies += b * n;
    element.cancelled += b * stride;
    element.totals += b * stride;
    element.fire_counts += b * stride;
    element.tile_starts += b * stride;
    element.indices += b * n;
    element.values += b * n;
    element.count += b;
    element.bursts += b;
    return element;
  }
};

}  // namespace brainjax

#endif  // BRAINJAX_BURST_BATCH_H_
