// Sums over sparse synapses on the CPU. Two threads take rows in turn and add them to sums of their
// own, which are then added up; of more threads, each two have a share of the targets, and read all
// rows. Where there is no room for second sums, or too few synapses, each thread does.
#ifndef BRAINJAX_PROPAGATION_SUMS_H_
#define BRAINJAX_PROPAGATION_SUMS_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "propagation.h"

namespace brainjax {

constexpr int64_t kParallelSynapses = 1 << 14;  // fewer are summed faster than a thread wakes
constexpr int64_t kNeuronsForSynapse = 16;      // with more, second sums take longer than they save
constexpr int64_t kBlock = 1 << 11;             // synapses that are read before any is added
constexpr int64_t kRowsTogether = 16;           // that a thread takes, at least
constexpr int64_t kTurns = 32;                  // to take all rows, at most
constexpr int64_t kMaxParts = 8;                // threads of a network

// The contributions of synapses, computed apart from the sums so that vector units can do it.
void Contributions(float gain, const float* weights, int64_t count, int32_t* contributions);
void Contributions(float gain, const uint8_t* weights, int64_t count, int32_t* contributions);

// Adds `more` to the sums. Returns whether some are 0 now although both were not.
bool AddUp(const uint32_t* more, int64_t count, uint32_t* sums);

// Turns sums into what they are in the unit of the weights, in place.
void Scale(int64_t count, float unit, int32_t* sums);

inline void Contributions(float gain, const UnitWeight*, int64_t count, int32_t* contributions) {
  std::fill_n(contributions, count, Contribution(gain, UnitWeight{}));
}

// The targets [first, first + size): those that one thread owns, so that no other adds to them.
struct Share {
  uint32_t first, size;

  bool Holds(int32_t target) const { return static_cast<uint32_t>(target) - first < size; }
};

// Active neurons that threads take in turn, some at a time: one that wakes late takes fewer.
class RowQueue {
 public:
  // Takes the next of `count`; returns whether there are any.
  bool Take(int64_t count, Range* places) {
    const int64_t number = std::max(kRowsTogether, (count + kTurns - 1) / kTurns);
    const int64_t first = next_.fetch_add(number, std::memory_order_relaxed);
    *places = {first, std::min(number, count - first)};
    return first < count;
  }

 private:
  std::atomic<int64_t> next_{0};
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

// Synapses of several rows. Rows lie anywhere: a processor reads many of them at a time as long as
// no sum waits for one.
struct Block {
  int32_t targets[kBlock], contributions[kBlock];
  int64_t size = 0;

  // Reads as many of the synapses [first, first + count) as there is room for.
  template <typename W>
  int64_t Read(const Propagation<W>& problem, int64_t first, int64_t count, float gain) {
    const int64_t number = std::min(count, kBlock - size);
    std::copy_n(problem.indices + first, number, targets + size);
    const W* weights = std::is_same_v<W, UnitWeight> ? nullptr : problem.weights + first;
    Contributions(gain, weights, number, contributions + size);
    size += number;
    return number;
  }

  // Calls add(target, contribution) for those onto the share, and empties the block. `is_all`: only
  // strays are not onto it.
  template <typename Adder>
  void Add(Share share, bool is_all, const Adder& add) {
    if (is_all) {
      for (int64_t s = 0; s < size; ++s) {
        if (share.Holds(targets[s])) add(targets[s], contributions[s]);
      }
    } else {
      int32_t found[kBlock];
      const int64_t number = Find(targets, size, share, found);
      for (int64_t i = 0; i < number; ++i) add(targets[found[i]], contributions[found[i]]);
    }
    size = 0;
  }
};

// Takes rows from the queue until none are left, and calls add(target, contribution) for each of
// their synapses onto the share; before, clear(). Returns whether it did: where there is nothing to
// take, sums that `may_stay` are left as they were.
template <typename W, typename Adder, typename Clear>
bool AddRows(const Propagation<W>& problem, RowQueue& queue, Share share, bool may_stay,
             const Adder& add, const Clear& clear) {
  Range places;
  bool has_some = queue.Take(problem.count, &places);
  if (may_stay && !has_some) return false;
  clear();
  const bool is_all = share.size == problem.num_post;
  Block block;
  for (; has_some; has_some = queue.Take(problem.count, &places)) {
    for (int64_t place = places.first; place < places.first + places.length; ++place) {
      const float gain = problem.Gain(place);
      for (Range row = problem.Row(place); row.length > 0;) {
        const int64_t read = block.Read(problem, row.first, row.length, gain);
        row = {row.first + read, row.length - read};
        if (block.size == kBlock) block.Add(share, is_all, add);
      }
    }
  }
  block.Add(share, is_all, add);
  return true;
}

// Whether a batch has at least so many synapses and active neurons; no more are counted.
template <typename W>
bool HasAtLeast(const PropagationBatch<W>& batch, int64_t least) {
  int64_t synapses = 0;
  for (int64_t b = 0; b < batch.size; ++b) {
    const Propagation<W> problem = batch.At(b);
    for (int64_t place = 0; place < problem.count && synapses < least; ++place) {
      synapses += 1 + problem.Row(place).length;
    }
  }
  return synapses >= least;
}

// How threads divide the sums of a batch: each network's in parts. Two that have the same share of
// its targets take rows in turn, and one adds to second sums, if it wakes before all are taken.
template <typename W>
class Division {
 public:
  Division(const PropagationBatch<W>& batch, int64_t threads, bool has_room) : batch_(batch) {
    // Networks first: threads that share one do more in all.
    const int64_t parts = std::clamp<int64_t>(threads / batch.size, 1, kMaxParts);
    const int64_t neurons = batch.size * int64_t{batch.first.num_post};
    const bool copies = parts > 1 && has_room && HasAtLeast(batch, neurons / kNeuronsForSynapse);
    copies_ = copies ? 2 : 1;
    shares_ = parts / copies_;
    queues_ = std::vector<RowQueue>(batch.size * shares_);
    has_more_ = std::vector<char>(batch.size * shares_);
  }

  int64_t Parts() const { return copies_ * shares_; }
  int64_t Shares() const { return shares_; }
  bool HasCopies() const { return copies_ > 1; }
  int64_t CopyOf(int64_t part) const { return part % copies_; }
  int64_t ShareOf(int64_t part) const { return part / copies_; }
  // Whether there is anything in the second sums of the part's share.
  bool HasMore(int64_t b, int64_t part) const { return has_more_[Place(b, part)]; }

  // Adds what a part can take to its copy of the sums, behind clear().
  template <typename Adder, typename Clear>
  void Add(int64_t b, int64_t part, Share targets, const Adder& add, const Clear& clear) {
    const bool is_more = CopyOf(part) > 0;
    const bool has_added =
        AddRows(batch_.At(b), queues_[Place(b, part)], targets, is_more, add, clear);
    if (is_more) has_more_[Place(b, part)] = has_added;
  }

 private:
  int64_t Place(int64_t b, int64_t part) const { return b * shares_ + ShareOf(part); }

  const PropagationBatch<W>& batch_;
  int64_t copies_, shares_;  // of the sums, and of the targets of each copy
  std::vector<RowQueue> queues_;  // of each share
  std::vector<char> has_more_;    // bool has no addresses of its own there
};

}  // namespace brainjax

#endif  // BRAINJAX_PROPAGATION_SUMS_H_
