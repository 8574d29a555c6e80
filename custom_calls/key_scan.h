// Passes over scores as keys, in vector code. For one source file: the functions are its own.
#ifndef BRAINJAX_KEY_SCAN_H_
#define BRAINJAX_KEY_SCAN_H_

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "numbers.h"
#include "parallel.h"

namespace brainjax {

constexpr int64_t kBlock = 64;    // keys that a scan rejects together
constexpr int64_t kPanel = 1024;  // scores that are turned into keys at a time

template <typename Score>
inline __attribute__((always_inline)) void ToKeysOf(const Score* scores, int64_t n,
                                                    uint32_t* keys) {
  for (int64_t i = 0; i < n; ++i) keys[i] = Key(scores[i]);
}

BRAINJAX_VECTORIZE static void ToKeys(const float* scores, int64_t n, uint32_t* keys) {
  ToKeysOf(scores, n, keys);
}
BRAINJAX_VECTORIZE static void ToKeys(const BFloat16* scores, int64_t n, uint32_t* keys) {
  ToKeysOf(scores, n, keys);
}
BRAINJAX_VECTORIZE static void ToKeys(const uint8_t* scores, int64_t n, uint32_t* keys) {
  ToKeysOf(scores, n, keys);
}
BRAINJAX_VECTORIZE static void ToKeys(const uint16_t* scores, int64_t n, uint32_t* keys) {
  ToKeysOf(scores, n, keys);
}
BRAINJAX_VECTORIZE static void ToKeys(const int32_t* scores, int64_t n, uint32_t* keys) {
  ToKeysOf(scores, n, keys);
}

// Calls use(first, keys, number) for the panels of scores [begin, end), in order, until it
// returns false.
template <typename Score, typename Use>
void ForEachPanel(const Score* scores, int64_t begin, int64_t end, const Use& use) {
  alignas(64) uint32_t keys[kPanel];
  for (int64_t first = begin; first < end; first += kPanel) {
    const int64_t number = std::min(kPanel, end - first);
    ToKeys(scores + first, number, keys);
    if (!use(first, keys, number)) return;
  }
}

BRAINJAX_VECTORIZE static int64_t CountAtLeast(const uint32_t* keys, int64_t n, uint32_t bound) {
  int32_t count = 0;  // narrower than the result: twice the lanes
  for (int64_t i = 0; i < n; ++i) count += keys[i] >= bound;
  return count;
}

struct Counts {
  int64_t above = 0;  // keys above a bound
  int64_t equal = 0;  // keys equal to it
};

// Counts a panel of keys and appends the places of those above the bound to `places`.
BRAINJAX_VECTORIZE static Counts ScanPanel(const uint32_t* keys, int64_t n, uint32_t bound,
                                           int32_t* places) {
  Counts counts;
  for (int64_t start = 0; start < n; start += kBlock) {
    const int64_t width = std::min(kBlock, n - start);
    uint8_t hits[kBlock] = {};
    int32_t above = 0, equal = 0;
    for (int64_t i = 0; i < width; ++i) {
      hits[i] = keys[start + i] > bound;
      above += keys[start + i] > bound;
      equal += keys[start + i] == bound;
    }
    counts.equal += equal;
    if (above == 0) continue;
    for (int64_t word = 0; word < kBlock; word += 8) {
      uint64_t left;
      std::memcpy(&left, hits + word, sizeof(left));
      for (; left != 0; left &= left - 1) {
        places[counts.above++] = static_cast<int32_t>(start + word + __builtin_ctzll(left) / 8);
      }
    }
  }
  return counts;
}

struct Threshold {
  uint32_t key;
  int64_t ties;  // how many of the keys equal to it win
};

// The count-th largest key by bisection, for 1 <= count <= n; count_at_least(key) counts keys.
// Invariant: low <= the count-th largest key < high.
template <typename CountKeys>
Threshold Bisect(int64_t n, int64_t count, const CountKeys& count_at_least) {
  uint64_t low = 0, high = uint64_t{1} << 32;
  int64_t at_low = n, at_high = 0;  // keys of at least low, of at least high
  while (high - low > 1) {
    const uint32_t middle = static_cast<uint32_t>((low + high) / 2);
    const int64_t at_middle = count_at_least(middle);
    (at_middle >= count ? low : high) = middle;
    (at_middle >= count ? at_low : at_high) = at_middle;
    // Where exactly `count` keys are left, whether one is equal to low does not matter.
    if (at_low == count) return {static_cast<uint32_t>(low), count - at_high};
  }
  return {static_cast<uint32_t>(low), count - at_high};
}

}  // namespace brainjax

#endif  // BRAINJAX_KEY_SCAN_H_
