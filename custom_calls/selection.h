// select_winners: indices of the `count` largest scores in ascending order, of equal scores the
// lowest index.
#ifndef BRAINJAX_SELECTION_H_
#define BRAINJAX_SELECTION_H_

#include <cstdint>

#include "batch.h"
#include "numbers.h"

namespace brainjax {

// A call of select_winners.
template <typename Score>
struct Selection {
  const Score* scores;
  const int32_t* counts;
  int32_t* winners;
  uint32_t* scratch;
  BatchOffsets scores_at, counts_at;
  int64_t batch, n, capacity, scratch_size;

  BRAINJAX_HOST_DEVICE const Score* Scores(int64_t b) const { return scores + scores_at(b); }
  BRAINJAX_HOST_DEVICE int32_t* Winners(int64_t b) const { return winners + b * capacity; }
  BRAINJAX_HOST_DEVICE uint32_t* Scratch(int64_t b) const { return scratch + b * scratch_size; }
};

// The operands, in the order of selection.py.
struct SelectionOperands {
  ffi::AnyBuffer scores;
  ffi::Buffer<ffi::S32> counts;
  ffi::ResultBuffer<ffi::S32> winners;
  ffi::ResultBuffer<ffi::U32> scratch;

  static auto Bind() {
    return ffi::Ffi::Bind()
        .Arg<ffi::AnyBuffer>().Arg<ffi::Buffer<ffi::S32>>()
        .Ret<ffi::Buffer<ffi::S32>>().Ret<ffi::Buffer<ffi::U32>>();
  }

  // Calls run(Selection<Score>) for the type of the scores.
  template <typename Run>
  ffi::Error With(const Run& run) {
    switch (scores.element_type()) {
      case ffi::F32: return Map<float>(run);
      case ffi::BF16: return Map<BFloat16>(run);
      case ffi::S32: return Map<int32_t>(run);
      case ffi::U16: return Map<uint16_t>(run);
      case ffi::U8: return Map<uint8_t>(run);
      default:
        return ffi::Error::InvalidArgument("select_winners: no kernel for this type of scores");
    }
  }

 private:
  template <typename Score, typename Run>
  ffi::Error Map(const Run& run) {
    Selection<Score> call;
    const Dimensions result = winners->dimensions();
    call.batch = BatchSize(result, 1);
    if (!MapBatch(scores.dimensions(), 1, result, 1, &call.scores_at) ||
        !MapBatch(counts.dimensions(), 0, result, 1, &call.counts_at) ||
        BatchSize(scratch->dimensions(), 1) != call.batch) {
      return ffi::Error::InvalidArgument("select_winners: batch dimensions do not fit");
    }
    call.scores = static_cast<const Score*>(scores.untyped_data());
    call.counts = counts.typed_data();
    call.winners = winners->typed_data();
    call.scratch = scratch->typed_data();
    call.n = scores.dimensions().back();
    call.capacity = result.back();
    call.scratch_size = scratch->dimensions().back();
    return run(call);
  }
};

// On the CPU: writes the indices of the `count` largest of n scores in ascending order, of equal
// scores the lowest ones, and n behind them up to `capacity`. Score: float, BFloat16, uint8_t,
// uint16_t or int32_t, in the order of Key. The work is spread over the pool; without one it is
// done here. A row is read once if there are 4096 + n / 16 words of scratch; fewer, even none, are
// legal.
template <typename Score>
void SelectWinners(ffi::ThreadPool* pool, const Score* scores, int64_t n, int64_t count,
                   int64_t capacity, uint32_t* scratch, int64_t scratch_words, int32_t* winners);

}  // namespace brainjax

#endif  // BRAINJAX_SELECTION_H_
