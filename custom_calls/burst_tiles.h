// What the CPU does with a tile of neurons in a burst.
#ifndef BRAINJAX_BURST_TILES_H_
#define BRAINJAX_BURST_TILES_H_

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "burst_core.h"

namespace brainjax {

constexpr int64_t kFlags = 8;  // that are looked at together

// Adds to the sums, and marks whose sum is 0 although something arrives. Whether that is so at the
// end says the last arrival; a mark beside another sum means nothing.
struct MarkingAdder {
  uint32_t* sums;
  uint32_t* cancelled;

  void operator()(int32_t target, int32_t contribution) const {
    sums[target] += static_cast<uint32_t>(contribution);
    if (sums[target] == 0) cancelled[target / kBurstWord] |= 1u << (target % kBurstWord);
  }
};

// The inputs and candidates of neurons that receive these sums, and maybe more.
void Receive(const int32_t* sums, int64_t count, float unit, float* inputs, bool* candidates);
void ReceiveMore(const int32_t* sums, const int32_t* arriving, const bool* reached, int64_t count,
                 float unit, float* inputs, bool* candidates);

// Parameters of consecutive neurons that are needed of every candidate.
struct Parameters {
  const float *threshold, *leak;
  const uint16_t* fire_limit;
};

// Their membranes.
struct Membranes {
  float* potential;
  uint16_t *countdown, *fire_count;
};

// Lets candidates rest or leak, as Candidate::Stay does, but for those that may fire: finds these.
// At most a tile of neurons.
void StayOrTry(const Parameters& parameters, const float* inputs, const bool* candidates,
               int64_t count, const Membranes& membranes, bool* tries);

// Consecutive neurons, from the beginning of a tile on.
struct Span {
  int64_t first, last;

  bool Holds(int64_t id) const { return first <= id && id < last; }
};

// Whether neurons share a row of the parameters, as those of an area mostly do.
inline bool ShareRow(const BurstNeurons& neurons, Span span) {
  if (neurons.num_kinds == 1) return true;
  if (neurons.kind == nullptr) return false;
  uint32_t differs = 0;
  for (int64_t j = span.first; j < span.last; ++j) {
    differs |= neurons.kind[j] ^ neurons.kind[span.first];
  }
  return differs == 0;
}

// Parameters of the neurons of a tile, one after another.
class ParametersTile {
 public:
  Parameters Of(const BurstNeurons& neurons, Span tile) {
    if (neurons.kind == nullptr) {
      return {neurons.threshold + tile.first, neurons.leak + tile.first,
              neurons.fire_limit + tile.first};
    }
    if (!ShareRow(neurons, tile)) {
      row_ = kNone;
      for (int64_t j = tile.first; j < tile.last; ++j) {
        Put(neurons, neurons.Row(static_cast<uint32_t>(j)), j - tile.first);
      }
    } else if (const uint32_t row = neurons.Row(static_cast<uint32_t>(tile.first)); row != row_) {
      row_ = row;
      for (int64_t place = 0; place < kBurstTile; ++place) Put(neurons, row, place);
    }
    return {threshold_, leak_, fire_limit_};
  }

 private:
  static constexpr uint32_t kNone = kMaxKinds;

  void Put(const BurstNeurons& neurons, uint32_t row, int64_t place) {
    threshold_[place] = neurons.threshold[row];
    leak_[place] = neurons.leak[row];
    fire_limit_[place] = neurons.fire_limit[row];
  }

  float threshold_[kBurstTile], leak_[kBurstTile];
  uint16_t fire_limit_[kBurstTile];
  uint32_t row_ = kNone;  // that of all, as mostly in the next tile too
};

// Whether potentials may have to be set to 0 at the start of a burst.
inline bool MayReset(const BurstNeurons& neurons, const BurstRules& rules) {
  if (rules.keeps_residues) return false;
  return neurons.kind == nullptr ||
         std::memchr(neurons.accumulates, 0, neurons.num_kinds) != nullptr;
}

// Calls visit(place) for every flag that is set, in ascending order.
template <typename Visit>
void ForFlags(const bool* flags, int64_t count, const Visit& visit) {
  int64_t first = 0;
  for (; first + kFlags <= count; first += kFlags) {
    uint64_t bytes;
    std::memcpy(&bytes, flags + first, sizeof(bytes));
    for (int64_t place = first; bytes != 0; ++place, bytes >>= kFlags) {
      if (bytes & 1) visit(place);
    }
  }
  for (; first < count; ++first) {
    if (flags[first]) visit(first);
  }
}

// What comes from outside for a tile, summed in the order given.
struct Staging {
  float sums[kBurstTile];
  bool touched[kBurstTile];

  // Returns false where nothing comes; then nothing is written.
  bool Fill(const BurstProblem& problem, const BurstRules& rules, Span tile) {
    const ActiveSet injected = problem.Injected();
    const int32_t* const end = injected.indices + injected.count;
    const int32_t* id = std::lower_bound(injected.indices, end, static_cast<int32_t>(tile.first));
    const bool tires = problem.IsFatigued(rules);
    if ((id == end || *id >= tile.last) && !tile.Holds(rules.power_neuron) && !tires) return false;
    std::fill_n(sums, kBurstTile, 0.0f);
    std::fill_n(touched, kBurstTile, false);
    for (; id < end && *id < tile.last; ++id) {
      if (tile.Holds(*id)) Add(*id - tile.first, injected.values[id - injected.indices]);
    }
    if (tile.Holds(rules.power_neuron)) Add(rules.power_neuron - tile.first, *problem.power);
    if (tires) AddFatigue(problem, rules, tile);
    return true;
  }

 private:
  void AddFatigue(const BurstProblem& problem, const BurstRules& rules, Span tile) {
    const BurstNeurons& neurons = problem.neurons;
    const auto is_tired = [&](int64_t j) {
      return neurons.area[neurons.Row(static_cast<uint32_t>(j))] == rules.fatigue_area;
    };
    if (ShareRow(neurons, tile) && !is_tired(tile.first)) return;
    for (int64_t j = tile.first; j < tile.last; ++j) {
      if (is_tired(j)) Add(j - tile.first, *problem.power);
    }
  }

  void Add(int64_t place, float amount) {
    sums[place] += amount;
    touched[place] = true;
  }
};

// What the neurons of a tile receive, and who receives anything.
struct Received {
  float* inputs;
  bool* candidates;
};

// Room for a tile of that, where the burst does not keep it.
struct ReceivedTile {
  float inputs[kBurstTile];
  bool candidates[kBurstTile];

  Received Of(const BurstProblem& problem, Span tile) {
    if (problem.inputs == nullptr) return {inputs, candidates};
    return {problem.inputs + tile.first, problem.candidates + tile.first};
  }
};

// One network of the batch.
struct Network {
  const BurstProblem& problem;
  const BurstRules& rules;
  bool may_reset;

  Network(const BurstProblem& problem, const BurstRules& rules)
      : problem(problem), rules(rules), may_reset(MayReset(problem.neurons, rules)) {}

  // Adds up what the neurons of a tile receive.
  void Collect(Span tile, const Received& received) const {
    const int64_t count = tile.last - tile.first;
    const int32_t* sums = problem.sums + tile.first;
    const auto [inputs, candidates] = received;
    if (problem.arriving == nullptr) {
      Receive(sums, count, rules.unit, inputs, candidates);
    } else {
      ReceiveMore(sums, problem.arriving + tile.first, problem.reached + tile.first, count,
                  rules.unit, inputs, candidates);
    }
    for (int64_t j = 0; j < count; j += kBurstWord) {
      uint32_t marks = problem.cancelled[(tile.first + j) / kBurstWord];
      for (int64_t place = j; marks != 0; ++place, marks >>= 1) candidates[place] |= marks & 1;
    }
    Staging staging;
    if (!staging.Fill(problem, rules, tile)) return;
    for (int64_t j = 0; j < count; ++j) {
      inputs[j] = staging.sums[j] + inputs[j];
      candidates[j] |= staging.touched[j];
    }
  }

  // Lets the candidates of a tile fire or leak; returns how many fire.
  uint32_t Advance(Span tile, const Received& received, bool in_batch, ParametersTile& room) const {
    const BurstNeurons& neurons = problem.neurons;
    if (may_reset) Reset(tile);
    std::fill(problem.fires + tile.first / kBurstWord,
              problem.fires + (tile.last + kBurstWord - 1) / kBurstWord, 0u);
    if (std::memchr(received.candidates, 1, tile.last - tile.first) == nullptr) return 0;
    bool tries[kBurstTile];
    StayOrTry(room.Of(neurons, tile), received.inputs, received.candidates, tile.last - tile.first,
              {neurons.potential + tile.first, neurons.countdown + tile.first,
               neurons.fire_count + tile.first},
              tries);
    uint32_t fires = 0;
    ForFlags(tries, tile.last - tile.first, [&](int64_t place) {
      fires += Try(static_cast<uint32_t>(tile.first + place), received.inputs[place], in_batch);
    });
    return fires;
  }

 private:
  // Returns whether a neuron that may fire does.
  bool Try(uint32_t j, float input, bool in_batch) const {
    const BurstNeurons& neurons = problem.neurons;
    const uint32_t row = neurons.Row(j);
    const Outcome outcome = Candidate::Load(neurons, j, row)
                                .Try(Limits::Load(neurons, row), rules, j, input, problem.Number(),
                                     in_batch);
    neurons.potential[j] = outcome.potential;
    neurons.countdown[j] = static_cast<uint16_t>(outcome.countdown);
    neurons.fire_count[j] = static_cast<uint16_t>(outcome.fire_count);
    problem.fires[j / kBurstWord] |= uint32_t{outcome.fires} << (j % kBurstWord);
    return outcome.fires;
  }

  // Potentials that do not accumulate are 0 at the start of a burst.
  void Reset(Span tile) const {
    const BurstNeurons& neurons = problem.neurons;
    if (neurons.kind == nullptr) return ResetEach(tile);
    const auto is_kept = [&](int64_t j) {
      return neurons.accumulates[neurons.Row(static_cast<uint32_t>(j))];
    };
    if (ShareRow(neurons, tile) && is_kept(tile.first)) return;
    for (int64_t j = tile.first; j < tile.last; ++j) {
      neurons.potential[j] = is_kept(j) ? neurons.potential[j] : 0.0f;
    }
  }

  // Where each neuron has its own flag.
  void ResetEach(Span tile) const {
    constexpr uint64_t kAll = 0x0101010101010101u;
    const bool* accumulates = problem.neurons.accumulates;
    float* potential = problem.neurons.potential;
    int64_t j = tile.first;
    for (; j + kFlags <= tile.last; j += kFlags) {
      uint64_t bytes;
      std::memcpy(&bytes, accumulates + j, sizeof(bytes));
      for (int64_t i = j; bytes != kAll && i < j + kFlags; ++i) {
        potential[i] = accumulates[i] ? potential[i] : 0.0f;
      }
    }
    for (; j < tile.last; ++j) potential[j] = accumulates[j] ? potential[j] : 0.0f;
  }
};

// Lists who fires in a span, from a place of the list on, and puts them at 0.
inline void ListFires(const BurstProblem& problem, Span span, int64_t place) {
  for (int64_t word = span.first; word < span.last; word += kBurstWord) {
    for (uint32_t bits = problem.fires[word / kBurstWord]; bits != 0; bits &= bits - 1) {
      const int64_t id = word + __builtin_ctz(bits);
      problem.indices[place] = static_cast<int32_t>(id);
      problem.values[place++] = problem.neurons.potential[id];
      problem.neurons.potential[id] = 0.0f;
    }
  }
}

}  // namespace brainjax

#endif  // BRAINJAX_BURST_TILES_H_
