// The neurons that a thread looks after: neighbours, whose numbers it reads and writes together.
//
// What is read stays in the words that it came in until all is asked for: whoever takes a number
// out of its word waits for it.
#ifndef BRAINJAX_BURST_OWN_CUH_
#define BRAINJAX_BURST_OWN_CUH_

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "block_reductions.cuh"
#include "burst_core.h"

namespace brainjax {
namespace burst {

// What so many bytes are moved as: 1, 2, 4, 8, or 16 at a time.
template <int kBytes>
using WordOf = std::conditional_t<
    kBytes >= 16, uint4,
    std::conditional_t<kBytes == 8, uint2,
                       std::conditional_t<kBytes == 4, uint32_t,
                                          std::conditional_t<kBytes == 2, uint16_t, uint8_t>>>>;

// Numbers of neighbours, in words.
template <int kWidth, typename T>
struct Numbers {
  static constexpr int kBytes = kWidth * sizeof(T);
  using Word = WordOf<kBytes>;

  Word words[kBytes / sizeof(Word)];

  __device__ __forceinline__ void Unpack(T (&values)[kWidth]) const {
    memcpy(values, words, sizeof(values));
  }
};

// The first of them.
template <int kWidth>
__device__ __forceinline__ uint32_t FirstOf(const Numbers<kWidth, uint16_t>& numbers) {
  uint16_t values[kWidth];
  numbers.Unpack(values);
  return values[0];
}

// Whether all of them are `one`: they are compared in pairs.
template <int kWidth>
__device__ __forceinline__ bool AreAll(const Numbers<kWidth, uint16_t>& numbers, uint32_t one) {
  uint32_t pairs[kWidth / 2];
  memcpy(pairs, numbers.words, sizeof(pairs));
  bool are_all = true;
#pragma unroll
  for (const uint32_t pair : pairs) are_all &= pair == one * 0x10001u;
  return are_all;
}

// Neighbours of a network, all of which exist if kAll says so. Where a thread looks after several,
// arrays begin at a multiple of 16 bytes.
template <int kWidth, bool kAll>
struct Own {
  static constexpr uint32_t kMost = kWidth;
  static constexpr bool kAllExist = kAll;

  uint32_t first;
  int existing;

  __device__ Own(uint32_t first, uint32_t num_neurons)
      : first(first),
        existing(first < num_neurons ? static_cast<int>(min(num_neurons - first, kMost)) : 0) {}

  __device__ __forceinline__ bool Exists(int v) const { return kAll || v < existing; }

  // Asks for their numbers, 0 for those that do not exist. Past the first-level cache, as kernels
  // before this one may have written them.
  template <typename T>
  __device__ __forceinline__ Numbers<kWidth, T> Ask(const T* numbers) const {
    using Word = typename Numbers<kWidth, T>::Word;
    Numbers<kWidth, T> asked;
    if constexpr (kAll) {
      const Word* const source = reinterpret_cast<const Word*>(numbers + first);
      for (Word& word : asked.words) word = __ldcg(source + (&word - asked.words));
    } else {
      using One = WordOf<sizeof(T)>;
      One values[kWidth] = {};
#pragma unroll
      for (int v = 0; v < kWidth; ++v) {
        if (Exists(v)) values[v] = __ldcg(reinterpret_cast<const One*>(numbers + first + v));
      }
      memcpy(asked.words, values, sizeof(values));
    }
    return asked;
  }

  template <typename T>
  __device__ __forceinline__ void Write(const T (&values)[kWidth], T* numbers) const {
    using Word = typename Numbers<kWidth, T>::Word;
    static_assert(sizeof(Word) == sizeof(values));
    if constexpr (kAll) {
      Word word;
      memcpy(&word, values, sizeof(word));
      *reinterpret_cast<Word*>(numbers + first) = word;
    } else {
#pragma unroll
      for (int v = 0; v < kWidth; ++v) {
        if (Exists(v)) numbers[first + v] = values[v];
      }
    }
  }
};

}  // namespace burst
}  // namespace brainjax

#endif  // BRAINJAX_BURST_OWN_CUH_
