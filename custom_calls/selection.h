// The choice of the k largest on the CPU, for the operation itself and for those that contain it.
#ifndef BRAINJAX_SELECTION_H_
#define BRAINJAX_SELECTION_H_

#include <cstdint>

#include "numbers.h"
#include "xla/ffi/api/ffi.h"

namespace brainjax {

// Words of scratch with which a row of n scores is read once; fewer, even none, are legal.
constexpr int64_t SelectionScratchWords(int64_t n) { return 4096 + n / 16; }

// Writes the indices of the `count` largest of n scores in ascending order, of equal scores the
// lowest ones, and n behind them up to `capacity`. Score: float, BFloat16, uint8_t, uint16_t or
// int32_t, in the order of Key. The work is spread over the pool; without one it is done here.
template <typename Score>
void SelectWinners(xla::ffi::ThreadPool* pool, const Score* scores, int64_t n, int64_t count,
                   int64_t capacity, uint32_t* scratch, int64_t scratch_words, int32_t* winners);

}  // namespace brainjax

#endif  // BRAINJAX_SELECTION_H_
