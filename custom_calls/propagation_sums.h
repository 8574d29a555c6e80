// Sums over sparse synapses on the CPU: threads share out the targets, and each reads all synapses.
#ifndef BRAINJAX_PROPAGATION_SUMS_H_
#define BRAINJAX_PROPAGATION_SUMS_H_

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "propagation.h"

namespace brainjax {

constexpr int64_t kParallelSynapses = 1 << 14;  // fewer are summed faster than a thread wakes
constexpr int64_t kBlock = 1 << 10;             // synapses that are looked at together
constexpr int64_t kRowsAhead = 8, kPrefetched = 128, kLine = 16;  // the last two in synapses
constexpr int64_t kMaxParts = 8;  // of the targets: each reads all synapses
constexpr int kSecondLevel = 1;  // cache that rows are brought to: the first is for the sums

// The contributions of a row, computed apart from the sums so that vector units can do it.
void Contributions(float gain, const float* weights, int64_t count, int32_t* contributions);
void Contributions(float gain, const uint8_t* weights, int64_t count, int32_t* contributions);

// The targets [first, first + size): those that one thread owns, so that no other adds to them.
struct Share {
  uint32_t first, size;

  bool Holds(int32_t target) const { return static_cast<uint32_t>(target) - first < size; }
};

// Lists the synapses whose targets are in the share. Without a branch: at random targets, a
// processor would guess every other one wrong.
inline int64_t Find(const int32_t* targets, int64_t count, Share share, int32_t* found) {
  int64_t size = 0;
  for (int64_t s = 0; s < count; ++s) {
    found[size] = static_cast<int32_t>(s);
    size += share.Holds(targets[s]);
  }
  return size;
}

// Adds to the sums, and nothing else.
struct PlainAdder {
  uint32_t* sums;  // overflow is defined for these

  void operator()(int32_t target, int32_t contribution) const {
    sums[target] += static_cast<uint32_t>(contribution);
  }
};

// Adds `contribution(s)` to the target of each of at most kBlock synapses s, if the share has it.
template <typename Adder, typename Value>
void AddBlock(const int32_t* targets, int64_t count, Share share, const Adder& add,
              const Value& contribution) {
  int32_t found[kBlock];
  const int64_t size = Find(targets, count, share, found);
  for (int64_t i = 0; i < size; ++i) add(targets[found[i]], contribution(found[i]));
}

// Asks for the beginning of a row: rows lie anywhere, which no processor foresees.
template <typename W>
void Prefetch(const Propagation<W>& problem, int64_t place) {
  if (place >= problem.count) return;
  const Range row = problem.Row(place);
  for (int64_t s = row.first; s < row.first + std::min(row.length, kPrefetched); s += kLine) {
    __builtin_prefetch(problem.indices + s, 0, kSecondLevel);
    if constexpr (!std::is_same_v<W, UnitWeight>) {
      __builtin_prefetch(problem.weights + s, 0, kSecondLevel);
    }
  }
}

// The sums of a share: calls add(target, contribution) for every synapse onto it.
template <typename W, typename Adder>
void Sum(const Propagation<W>& problem, Share share, const Adder& add) {
  std::fill_n(problem.sums + share.first, share.size, 0);
  for (int64_t place = 0; place < problem.count; ++place) {
    Prefetch(problem, place + kRowsAhead);
    const Range row = problem.Row(place);
    const float gain = problem.Gain(place);
    for (int64_t s = row.first; s < row.first + row.length; s += kBlock) {
      const int32_t* targets = problem.indices + s;
      const int64_t count = std::min(kBlock, row.first + row.length - s);
      if constexpr (std::is_same_v<W, UnitWeight>) {
        const int32_t one = Contribution(gain, UnitWeight{});
        AddBlock(targets, count, share, add, [&](int32_t) { return one; });
      } else {
        int32_t contributions[kBlock];
        Contributions(gain, problem.weights + s, count, contributions);
        AddBlock(targets, count, share, add,
                 [&](int32_t i) { return contributions[i]; });
      }
    }
  }
}

// Whether there are synapses enough.
template <typename W>
bool IsWorthThreads(const PropagationBatch<W>& batch) {
  int64_t synapses = 0;
  for (int64_t b = 0; b < batch.size; ++b) {
    const Propagation<W> problem = batch.At(b);
    for (int64_t place = 0; place < problem.count; ++place) {
      synapses += 1 + problem.Row(place).length;
      if (synapses >= kParallelSynapses) return true;
    }
  }
  return false;
}

}  // namespace brainjax

#endif  // BRAINJAX_PROPAGATION_SUMS_H_
