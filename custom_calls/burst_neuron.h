// What one neuron does with its input in a burst: the arithmetic that both platforms share.
#ifndef BRAINJAX_BURST_NEURON_H_
#define BRAINJAX_BURST_NEURON_H_

#include <cmath>
#include <cstdint>

#include "numbers.h"

namespace brainjax {

constexpr int64_t kMaxKinds = 65536;   // that a kind can tell apart
constexpr uint32_t kMaxCount = 65535;   // where counts saturate
constexpr uint32_t kUnlimited = 65535;  // fires in a row: as 0, no limit
constexpr float kAlways = 0.999f;       // excitability from which on nothing is drawn

// Parameters and membranes of one network, as in burst_neurons.py.
struct BurstNeurons {
  const uint16_t* kind;  // null: each its own row
  uint32_t num_kinds;    // rows of the parameters, at least 1
  const int32_t* area;
  const float *threshold, *threshold_limit, *leak, *excitability;
  const uint16_t *refractory_period, *fire_limit, *snooze;
  const bool* accumulates;
  float* potential;
  uint16_t *countdown, *fire_count;

  // The row of the parameters that holds those of a neuron: the last one for kinds beyond it.
  BRAINJAX_NUMBER_FUNCTION uint32_t Row(uint32_t id) const {
    if (kind == nullptr) return id;
    const uint32_t row = kind[id];
    return row < num_kinds ? row : num_kinds - 1;
  }
};

// What is the same for all neurons of a burst.
struct BurstRules {
  float unit;            // of the sums that arrive: 2^-S
  float strength_limit;  // that a potential which is sent keeps to
  bool whole_strength;   // it is rounded then, halves up
  int64_t power_neuron, fatigue_area, batch_threshold;  // -1: none
  bool keeps_residues, unlimited_block;
};

// What the spike of a neuron sends that is driven by its potential.
BRAINJAX_NUMBER_FUNCTION float KeptStrength(const BurstRules& rules, float potential) {
  const float low = potential < 0.0f ? 0.0f : potential;  // NaN stays NaN
  const float kept = low > rules.strength_limit ? rules.strength_limit : low;
  if (!rules.whole_strength) return kept;
  const float whole = floorf(kept);
  return whole + (kept - whole >= 0.5f ? 1.0f : 0.0f);
}

// In [0, 1]: random_number of burst_dynamics.py.
BRAINJAX_NUMBER_FUNCTION float RandomNumber(uint32_t id, uint32_t burst) {
  const uint32_t seed = id * 2654435761u + burst * 1597334677u;
  const uint32_t state = seed * 747796405u + 2891336453u;
  const uint32_t word = ((state >> ((state >> 28) + 4)) ^ state) * 277803737u;
  return static_cast<float>((word >> 22) ^ word) * 0x1p-32f;
}

BRAINJAX_NUMBER_FUNCTION bool IsLimited(uint32_t fire_limit) {
  return fire_limit > 0 && fire_limit < kUnlimited;
}

// What matters of a neuron only where it may fire.
struct Limits {
  float threshold_limit, excitability;
  uint32_t refractory_period, snooze;

  BRAINJAX_NUMBER_FUNCTION static Limits Load(const BurstNeurons& neurons, uint32_t row) {
    return {neurons.threshold_limit[row], neurons.excitability[row],
            neurons.refractory_period[row], neurons.snooze[row]};
  }
};

// What a burst makes of a candidate.
struct Outcome {
  float potential;  // that it fires with, if it does; behind that it is 0
  uint32_t countdown, fire_count;
  bool fires;
};

// A candidate, with what is read of every one.
struct Candidate {
  float potential;  // 0 where it does not accumulate
  float threshold, leak;
  uint32_t countdown, fire_count, fire_limit;

  BRAINJAX_NUMBER_FUNCTION static Candidate Load(const BurstNeurons& neurons, uint32_t id,
                                                 uint32_t row) {
    return {neurons.potential[id], neurons.threshold[row],  neurons.leak[row],
            neurons.countdown[id], neurons.fire_count[id], neurons.fire_limit[row]};
  }

  BRAINJAX_NUMBER_FUNCTION bool MayFire(float input) const {
    return countdown == 0 && potential + input >= threshold;
  }

  // What becomes of one that may not fire: as StayOrTry of burst_core.cc reckons.
  BRAINJAX_NUMBER_FUNCTION Outcome Stay(float input) const {
    if (countdown > 0) return Rest();
    return {Leaked(input), 0, IsLimited(fire_limit) ? 0 : fire_count, false};
  }

  // What becomes of one that may.
  BRAINJAX_NUMBER_FUNCTION Outcome Try(const Limits& limits, const BurstRules& rules, uint32_t id,
                                       float input, uint32_t burst, bool in_batch) const {
    const float sum = potential + input;
    const bool in_window = IsBelow(limits.threshold_limit, sum, in_batch);
    const bool is_full = in_window && IsFull(rules);
    if (in_window && !is_full && Draws(limits.excitability, id, burst)) {
      return Fire(limits, sum, in_batch);
    }
    const bool is_blocked = is_full && !in_batch;
    const bool row_ends = IsLimited(fire_limit) || is_blocked;
    const float leaked = in_batch ? 0.0f : Leaked(input);
    return {is_blocked ? sum : leaked, 0, row_ends ? 0 : fire_count, false};
  }

 private:
  BRAINJAX_NUMBER_FUNCTION float Leaked(float input) const {
    return (potential + input) * (1.0f - leak);
  }

  BRAINJAX_NUMBER_FUNCTION Outcome Rest() const {
    const bool is_rested = countdown == 1 && fire_count > 0 && IsLimited(fire_limit) &&
                           fire_count >= fire_limit;
    return {potential, countdown - 1, is_rested ? 0 : fire_count, false};
  }

  BRAINJAX_NUMBER_FUNCTION Outcome Fire(const Limits& limits, float sum, bool in_batch) const {
    const uint32_t fires = fire_count < kMaxCount ? fire_count + 1 : kMaxCount;
    const bool is_tired = IsLimited(fire_limit) && fires >= fire_limit && !in_batch;
    const uint32_t pause = limits.refractory_period + (is_tired ? limits.snooze : 0u);
    return {sum, pause < kMaxCount ? pause : kMaxCount, fires, true};
  }

  // In a batch the potential is already 0 when it is compared with the limit.
  BRAINJAX_NUMBER_FUNCTION static bool IsBelow(float limit, float sum, bool in_batch) {
    return in_batch ? limit >= 0.0f : sum <= limit;
  }

  BRAINJAX_NUMBER_FUNCTION bool IsFull(const BurstRules& rules) const {
    if (rules.unlimited_block) return fire_count >= (fire_limit == 0 ? kUnlimited : fire_limit);
    return IsLimited(fire_limit) && fire_count >= fire_limit;
  }

  BRAINJAX_NUMBER_FUNCTION static bool Draws(float excitability, uint32_t id, uint32_t burst) {
    return excitability >= kAlways ||
           (excitability > 0.0f && RandomNumber(id, burst) < excitability);
  }
};

}  // namespace brainjax

#endif  // BRAINJAX_BURST_NEURON_H_
