// Indices of the `count` largest scores in ascending order; of equal scores the lowest index.
//
// A sample gives a bound that somewhat more than `count` scores are expected to exceed. One pass
// over chunks of the row lists those, in order, and counts the scores equal to the bound: zeros
// may be nearly all there is. Where the guess was wrong, bisection finds the threshold.
#include "selection.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

#include "handler.h"
#include "key_scan.h"
#include "parallel.h"

namespace brainjax {
namespace {

constexpr int64_t kChunk = 16 * 1024;  // scores that are worth a task of their own
constexpr int64_t kMaxChunks = 64;
constexpr int64_t kMinSampled = 1024;    // shorter rows are not worth a sample
constexpr int64_t kLongRow = 64 * 1024;  // from here a sample costs cache misses
constexpr int64_t kSamples = 512, kSamplesOfLongRow = 4096;
constexpr int64_t kRun = 16;  // neighbouring samples of a long row: a cache line

template <typename Score>
class Row {
 public:
  Row(ffi::ThreadPool* pool, const Score* scores, int64_t n, uint32_t* scratch,
      int64_t scratch_words)
      : pool_(pool),
        scores_(scores),
        n_(n),
        num_chunks_(std::clamp<int64_t>(n / kChunk, 1, kMaxChunks)),
        chunk_((n + num_chunks_ - 1) / num_chunks_),
        keys_(scratch),
        indices_(scratch + scratch_words / 2),
        room_(scratch_words / 2 / num_chunks_) {}

  // For 1 <= count <= n.
  void Select(int64_t count, int32_t* winners) {
    uint32_t bound;
    if (GuessBound(count, &bound)) {
      const Counts all = Collect(bound);
      if (all.above >= count && !overflow_) return WriteCandidates(count, winners);
      if (all.above < count && all.above + all.equal >= count) {
        return WriteChunks({bound, count - all.above}, winners);
      }
    }
    const Threshold threshold =
        Bisect(n_, count, [&](uint32_t key) { return CountAll(key); });
    Count(threshold.key);
    WriteChunks({threshold.key, count - Sum(num_chunks_).above}, winners);
  }

 private:
  template <typename Body>
  void ForEachChunk(const Body& body) {
    const auto run = [&](int64_t c) {
      body(c, std::min(c * chunk_, n_), std::min((c + 1) * chunk_, n_));
    };
    if (pool_ != nullptr && num_chunks_ > 1) return ParallelFor(*pool_, num_chunks_, run);
    for (int64_t c = 0; c < num_chunks_; ++c) run(c);
  }

  // Keys of the first chunks.
  Counts Sum(int64_t chunks) const {
    Counts sum;
    for (int64_t c = 0; c < chunks; ++c) {
      sum.above += counts_[c].above, sum.equal += counts_[c].equal;
    }
    return sum;
  }

  // A key that somewhat more than `count` keys exceed or equal, in all likelihood.
  bool GuessBound(int64_t count, uint32_t* bound) const {
    if (n_ < kMinSampled) return false;
    const int64_t samples = n_ < kLongRow ? kSamples : kSamplesOfLongRow;
    const int64_t run = n_ < kLongRow ? 1 : kRun;
    const double expected = static_cast<double>(count) * samples / n_;
    // Four standard deviations, and more where the number is too small for them to mean much.
    const int64_t wanted = static_cast<int64_t>(expected + 4 * std::sqrt(expected) + 8);
    if (wanted * n_ / samples > room_ * num_chunks_) return false;
    alignas(64) uint32_t keys[kSamplesOfLongRow];
    const int64_t stride = n_ / (samples / run);
    for (int64_t s = 0; s < samples; s += run) {
      // A place within the stride that no period meets.
      const uint64_t hash = static_cast<uint32_t>(s / run) * 0x9e3779b1u;
      ToKeys(scores_ + s / run * stride + (hash * (stride - run + 1) >> 32), run, keys + s);
    }
    *bound = Bisect(samples, wanted, [&](uint32_t key) {
               return CountAtLeast(keys, samples, key);
             }).key;
    return true;
  }

  // Lists the keys above the bound, chunk by chunk, as far as there is room.
  Counts Collect(uint32_t bound) {
    ForEachChunk([&](int64_t c, int64_t begin, int64_t end) {
      Counts counts;
      ForEachPanel(scores_, begin, end, [&](int64_t first, const uint32_t* keys, int64_t number) {
        int32_t places[kPanel];
        const Counts here = ScanPanel(keys, number, bound, places);
        const int64_t kept = std::clamp<int64_t>(room_ - counts.above, 0, here.above);
        for (int64_t i = 0; i < kept; ++i) {
          const int64_t at = c * room_ + counts.above + i;
          keys_[at] = keys[places[i]];
          indices_[at] = static_cast<uint32_t>(first + places[i]);
        }
        counts.above += here.above, counts.equal += here.equal;
        return true;
      });
      counts_[c] = counts;
    });
    overflow_ = false;
    for (int64_t c = 0; c < num_chunks_; ++c) overflow_ |= counts_[c].above > room_;
    return Sum(num_chunks_);
  }

  void WriteCandidates(int64_t count, int32_t* winners) const {
    const Threshold threshold =
        Bisect(Sum(num_chunks_).above, count, [&](uint32_t key) {
          int64_t at_least = 0;
          for (int64_t c = 0; c < num_chunks_; ++c) {
            at_least += CountAtLeast(keys_ + c * room_, counts_[c].above, key);
          }
          return at_least;
        });
    int64_t written = 0, ties = threshold.ties;
    for (int64_t c = 0; c < num_chunks_; ++c) {
      for (int64_t i = c * room_; i < c * room_ + counts_[c].above; ++i) {
        if (keys_[i] < threshold.key || (keys_[i] == threshold.key && ties-- <= 0)) continue;
        winners[written++] = static_cast<int32_t>(indices_[i]);
      }
    }
  }

  int64_t CountAll(uint32_t bound) {
    ForEachChunk([&](int64_t c, int64_t begin, int64_t end) {
      counts_[c] = {};
      ForEachPanel(scores_, begin, end, [&](int64_t, const uint32_t* keys, int64_t number) {
        counts_[c].above += CountAtLeast(keys, number, bound);
        return true;
      });
    });
    return Sum(num_chunks_).above;
  }

  void Count(uint32_t bound) {
    ForEachChunk([&](int64_t c, int64_t begin, int64_t end) {
      counts_[c] = {};
      ForEachPanel(scores_, begin, end, [&](int64_t, const uint32_t* keys, int64_t number) {
        int32_t places[kPanel];
        const Counts here = ScanPanel(keys, number, bound, places);
        counts_[c].above += here.above, counts_[c].equal += here.equal;
        return true;
      });
    });
  }

  // Writes the winners of all chunks, which have been counted at the threshold.
  void WriteChunks(Threshold threshold, int32_t* winners) {
    ForEachChunk([&](int64_t c, int64_t begin, int64_t end) {
      const Counts before = Sum(c);
      int64_t ties = std::clamp<int64_t>(threshold.ties - before.equal, 0, counts_[c].equal);
      int32_t* to = winners + before.above + std::min(before.equal, threshold.ties);
      const int32_t* const last = to + counts_[c].above + ties;
      if (to == last) return;
      ForEachPanel(scores_, begin, end, [&](int64_t first, const uint32_t* keys, int64_t number) {
        int64_t i = 0;
        for (; ties > 0 && i < number; ++i) {
          if (keys[i] < threshold.key) continue;
          *to++ = static_cast<int32_t>(first + i);
          ties -= keys[i] == threshold.key;
        }
        int32_t places[kPanel];
        const int64_t above = ScanPanel(keys + i, number - i, threshold.key, places).above;
        for (int64_t a = 0; a < above; ++a) *to++ = static_cast<int32_t>(first + i + places[a]);
        return to < last;
      });
    });
  }

  ffi::ThreadPool* pool_;
  const Score* scores_;
  int64_t n_, num_chunks_, chunk_;
  uint32_t *keys_, *indices_;  // of candidates, `room_` of each chunk
  int64_t room_;
  std::array<Counts, kMaxChunks> counts_;
  bool overflow_ = false;  // a chunk had more candidates than room
};

}  // namespace

template <typename Score>
void SelectWinners(ffi::ThreadPool* pool, const Score* scores, int64_t n, int64_t count,
                   int64_t capacity, uint32_t* scratch, int64_t scratch_words, int32_t* winners) {
  count = std::clamp<int64_t>(count, 0, std::min(n, capacity));
  if (count > 0) Row<Score>(pool, scores, n, scratch, scratch_words).Select(count, winners);
  std::fill(winners + count, winners + capacity, static_cast<int32_t>(n));
}

template void SelectWinners(ffi::ThreadPool*, const float*, int64_t, int64_t, int64_t, uint32_t*,
                            int64_t, int32_t*);
template void SelectWinners(ffi::ThreadPool*, const BFloat16*, int64_t, int64_t, int64_t,
                            uint32_t*, int64_t, int32_t*);
template void SelectWinners(ffi::ThreadPool*, const uint8_t*, int64_t, int64_t, int64_t, uint32_t*,
                            int64_t, int32_t*);
template void SelectWinners(ffi::ThreadPool*, const uint16_t*, int64_t, int64_t, int64_t,
                            uint32_t*, int64_t, int32_t*);
template void SelectWinners(ffi::ThreadPool*, const int32_t*, int64_t, int64_t, int64_t, uint32_t*,
                            int64_t, int32_t*);

namespace {

template <typename Score>
void SelectBatch(ffi::ThreadPool& pool, const Selection<Score>& call) {
  const auto select = [&](ffi::ThreadPool* helpers, int64_t b) {
    SelectWinners(helpers, call.Scores(b), call.n, call.counts[call.counts_at(b)], call.capacity,
                  call.Scratch(b), call.scratch_size, call.Winners(b));
  };
  if (call.batch < pool.num_threads()) {
    for (int64_t b = 0; b < call.batch; ++b) select(&pool, b);
  } else {
    ParallelFor(pool, call.batch, [&](int64_t b) { select(nullptr, b); });
  }
}

ffi::Error Handler(ffi::ThreadPool pool, SelectionOperands operands) {
  return operands.With([&](const auto& call) {
    SelectBatch(pool, call);
    return ffi::Error::Success();
  });
}

}  // namespace
}  // namespace brainjax

XLA_FFI_DEFINE_HANDLER_SYMBOL(BrainjaxSelectWinners, brainjax::Unpacked(brainjax::Handler),
                              brainjax::SelectionOperands::Bind().Ctx<xla::ffi::ThreadPool>());
