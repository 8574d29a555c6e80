// One burst on the CPU. Threads share out the synapses or the neurons that they arrive at, to sum
// them; then the neurons, to let them fire or leak, tile by tile; at last they list who fired.
#include <algorithm>
#include <cstdint>

#include "burst_tiles.h"
#include "handler.h"
#include "parallel.h"
#include "propagation_sums.h"
#include "subnormals.h"

namespace brainjax {

BRAINJAX_VECTORIZE void Receive(const int32_t* sums, int64_t count, float unit, float* inputs,
                                bool* candidates) {
  for (int64_t i = 0; i < count; ++i) {
    inputs[i] = static_cast<float>(sums[i]) * unit;
    candidates[i] = sums[i] != 0;
  }
}

BRAINJAX_VECTORIZE void ReceiveMore(const int32_t* sums, const int32_t* arriving,
                                    const bool* reached, int64_t count, float unit, float* inputs,
                                    bool* candidates) {
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t sum = static_cast<uint32_t>(sums[i]) + static_cast<uint32_t>(arriving[i]);
    inputs[i] = static_cast<float>(static_cast<int32_t>(sum)) * unit;
    candidates[i] = (sums[i] != 0) | reached[i];
  }
}

// In masks, all bits of which are set or none: compilers make vectors of no conditions that are
// combined.
BRAINJAX_VECTORIZE void StayOrTry(const Parameters& parameters, const float* inputs,
                                  const bool* candidates, int64_t count,
                                  const Membranes& membranes, bool* tries) {
  const auto [threshold, leak, fire_limit] = parameters;
  float* __restrict__ const potential = membranes.potential;
  uint16_t* __restrict__ const countdown = membranes.countdown;
  uint16_t* __restrict__ const fire_count = membranes.fire_count;
  const auto* const receives = reinterpret_cast<const uint8_t*>(candidates);
  auto* __restrict__ const may_fire = reinterpret_cast<uint8_t*>(tries);
  uint16_t awake[kBurstTile];
  for (int64_t i = 0; i < count; ++i) {
    awake[i] = static_cast<uint16_t>(-receives[i]) & (countdown[i] == 0 ? 0xffff : 0);
  }
  for (int64_t i = 0; i < count; ++i) {
    const float sum = potential[i] + inputs[i], leaked = sum * (1.0f - leak[i]);
    const int32_t is_awake = static_cast<int16_t>(awake[i]);
    const int32_t reaches = sum >= threshold[i] ? -1 : 0;
    const uint32_t stays = is_awake & ~reaches;
    may_fire[i] = static_cast<uint8_t>(is_awake & reaches & 1);
    potential[i] = FromBits((Bits(leaked) & stays) | (Bits(potential[i]) & ~stays));
  }
  for (int64_t i = 0; i < count; ++i) {
    const uint16_t rests = static_cast<uint16_t>(-receives[i]) & ~awake[i];
    const uint16_t stays = awake[i] & ~static_cast<uint16_t>(-may_fire[i]);
    const uint16_t is_limited =
        (fire_limit[i] > 0 ? 0xffff : 0) & (fire_limit[i] < kUnlimited ? 0xffff : 0);
    const uint16_t is_rested = rests & (countdown[i] == 1 ? 0xffff : 0) &
                               (fire_count[i] >= fire_limit[i] ? 0xffff : 0);
    fire_count[i] &= ~(is_limited & (stays | is_rested));
    countdown[i] += rests;  // 2^16 - 1
  }
}

namespace {

constexpr int64_t kParallelNeurons = 1 << 14;  // fewer are advanced faster than a thread wakes
static_assert(kMaxParts <= kBurstParts);

// A burst of the batch, in phases that wait for each other. An item is a part of a network.
template <typename W>
class Burst {
 public:
  // `scratch` is room for second sums if it has two words for each neuron.
  Burst(ffi::ThreadPool& pool, const BurstBatch& batch, const PropagationBatch<W>& spikes,
        int32_t* scratch, int64_t words)
      : pool_(pool),
        batch_(batch),
        scratch_(scratch),
        parallel_(pool.num_threads() > 1 && (NumNeurons(batch) >= kParallelNeurons ||
                                             HasAtLeast(spikes, kParallelSynapses))),
        division_(spikes, parallel_ ? pool.num_threads() : 1, words >= 2 * NumNeurons(batch)),
        parts_(division_.Parts()) {}

  void Run() {
    const bool counts = batch_.rules.batch_threshold >= 0;
    if (batch_.first.is_driven != nullptr) {
      ForItems([&](int64_t b, int64_t part) { Send(b, part); });
    }
    ForItems([&](int64_t b, int64_t part) { AddArrivals(b, part); });
    ForItems([&](int64_t b, int64_t part) { Receive(b, part, !counts); });
    if (counts) ForItems([&](int64_t b, int64_t part) { AdvanceInTurn(b, part); });
    ForItems([&](int64_t b, int64_t part) { List(b, part); });
    for (int64_t b = 0; b < batch_.size; ++b) {
      const BurstProblem problem = batch_.At(b);
      *problem.count = static_cast<int32_t>(Total(Fires(problem), parts_));
      *problem.bursts = problem.Number();
    }
  }

 private:
  static int64_t NumNeurons(const BurstBatch& batch) {
    return batch.size * batch.first.num_neurons;
  }

  template <typename Body>
  void ForItems(const Body& body) {
    auto item = [&](int64_t i) {
      const KeepSubnormals keep;
      body(i / parts_, i % parts_);
    };
    ParallelFor(pool_, batch_.size * parts_, item, parallel_);
  }

  // Whole tiles, so that no two parts share a word or a cache line of flags.
  Span SpanOf(int64_t part, int64_t parts) const {
    const int64_t n = batch_.first.num_neurons, tiles = (n + kBurstTile - 1) / kBurstTile;
    return {tiles * part / parts * kBurstTile,
            std::min(n, tiles * (part + 1) / parts * kBurstTile)};
  }
  Span SpanOf(int64_t part) const { return SpanOf(part, parts_); }

  // Where a copy of the sums is, and of the marks of neurons whose sum is 0.
  MarkingAdder AdderOf(const BurstProblem& problem, int64_t b, int64_t copy) const {
    const int64_t n = problem.num_neurons;
    int32_t* const more = scratch_ + 2 * b * n;
    if (copy == 0) return {reinterpret_cast<uint32_t*>(problem.sums), problem.cancelled};
    return {reinterpret_cast<uint32_t*>(more), reinterpret_cast<uint32_t*>(more + n)};
  }

  template <typename Body>
  static void ForTiles(Span span, const Body& body) {
    for (int64_t first = span.first; first < span.last; first += kBurstTile) {
      body(Span{first, std::min(first + kBurstTile, span.last)});
    }
  }

  // Candidates, and neurons that fire, in each part.
  static uint32_t* Candidates(const BurstProblem& problem) { return problem.totals; }
  static uint32_t* Fires(const BurstProblem& problem) { return problem.totals + kBurstParts; }

  static int64_t Total(const uint32_t* counts, int64_t parts) {
    int64_t total = 0;
    for (int64_t part = 0; part < parts; ++part) total += counts[part];
    return total;
  }

  void Send(int64_t b, int64_t part) {
    const BurstProblem problem = batch_.At(b);
    const int64_t fired = problem.NumFired(), last = fired * (part + 1) / parts_;
    for (int64_t i = fired * part / parts_; i < last; ++i) {
      problem.sent[i] = problem.Sent(batch_.rules, i);
    }
  }

  // Adds a part of what arrives to one of the copies of the sums.
  void AddArrivals(int64_t b, int64_t part) {
    const BurstProblem problem = batch_.At(b);
    const Span span = SpanOf(division_.ShareOf(part), division_.Shares());
    const Share targets{static_cast<uint32_t>(span.first),
                        static_cast<uint32_t>(span.last - span.first)};
    const MarkingAdder add = AdderOf(problem, b, division_.CopyOf(part));
    division_.Add(b, part, targets, add, [&] {
      std::fill(add.sums + span.first, add.sums + span.last, 0u);
      std::fill(add.cancelled + span.first / kBurstWord,
                add.cancelled + (span.last + kBurstWord - 1) / kBurstWord, 0u);
    });
  }

  // Adds up the copies of a tile. A mark says that a copy was 0, or that the sum is.
  void MergeCopies(const BurstProblem& problem, int64_t b, Span tile) const {
    const MarkingAdder all = AdderOf(problem, b, 0), more = AdderOf(problem, b, 1);
    const bool cancels =
        AddUp(more.sums + tile.first, tile.last - tile.first, all.sums + tile.first);
    for (int64_t first = tile.first; first < tile.last; first += kBurstWord) {
      uint32_t marks = more.cancelled[first / kBurstWord];
      for (int64_t j = first; cancels && j < std::min(first + kBurstWord, tile.last); ++j) {
        marks |= uint32_t{all.sums[j] == 0 && more.sums[j] != 0} << (j - first);
      }
      all.cancelled[first / kBurstWord] |= marks;
    }
  }

  void Receive(int64_t b, int64_t part, bool advances) {
    const BurstProblem problem = batch_.At(b);
    const Network network(problem, batch_.rules);
    const Span span = SpanOf(part);
    uint32_t candidates = 0, fires = 0;
    ReceivedTile room;
    ParametersTile parameters;
    ForTiles(span, [&](Span tile) {
      if (division_.HasMore(b, part)) MergeCopies(problem, b, tile);
      const Received received = room.Of(problem, tile);
      network.Collect(tile, received);
      if (advances) {
        fires += network.Advance(tile, received, false, parameters);
      } else {
        ForFlags(received.candidates, tile.last - tile.first, [&](int64_t) { ++candidates; });
      }
    });
    Candidates(problem)[part] = candidates;
    Fires(problem)[part] = fires;
  }

  void AdvanceInTurn(int64_t b, int64_t part) {
    const BurstProblem problem = batch_.At(b);
    const Network network(problem, batch_.rules);
    const bool in_batch = Total(Candidates(problem), parts_) >= batch_.rules.batch_threshold;
    uint32_t fires = 0;
    ParametersTile parameters;
    ForTiles(SpanOf(part), [&](Span tile) {
      const Received received{problem.inputs + tile.first, problem.candidates + tile.first};
      fires += network.Advance(tile, received, in_batch, parameters);
    });
    Fires(problem)[part] = fires;
  }

  // The last part pads what the last burst listed beyond.
  void List(int64_t b, int64_t part) {
    const BurstProblem problem = batch_.At(b);
    ListFires(problem, SpanOf(part), Total(Fires(problem), part));
    if (part + 1 < parts_) return;
    for (int64_t i = Total(Fires(problem), parts_); i < problem.NumFired(); ++i) {
      problem.indices[i] = static_cast<int32_t>(problem.num_neurons);
      problem.values[i] = 0.0f;
    }
  }

  ffi::ThreadPool& pool_;
  const BurstBatch& batch_;
  int32_t* scratch_;
  bool parallel_;
  Division<W> division_;
  int64_t parts_;
};

ffi::Error Handler(ffi::ThreadPool pool, BurstOperands operands) {
  BurstBatch batch;
  const ffi::Error error = operands.Map(&batch);
  if (error.failure() || batch.size == 0) return error;
  return operands.WithSpikes([&](const auto& spikes) {
    // On a GPU, tallies of what is added in memory.
    Burst(pool, batch, spikes, reinterpret_cast<int32_t*>(operands.tallies->typed_data()),
          static_cast<int64_t>(operands.tallies->element_count()))
        .Run();
    return ffi::Error::Success();
  });
}

}  // namespace
}  // namespace brainjax

XLA_FFI_DEFINE_HANDLER_SYMBOL(BrainjaxBurstCore, brainjax::Unpacked(brainjax::Handler),
                              brainjax::BurstOperands::Bind().Ctx<xla::ffi::ThreadPool>());
