// The neurons that a thread looks after: neighbours, whose numbers it reads and writes together.
#ifndef BRAINJAX_BURST_OWN_CUH_
#define BRAINJAX_BURST_OWN_CUH_

#include <cstdint>
#include <cstring>
#include <type_traits>

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

// Neighbours of a network, all of which exist if kAll says so. Where a thread looks after several,
// arrays begin at a multiple of 16 bytes.
template <int kWidth, bool kAll>
struct Own {
  uint32_t first;
  int existing;

  __device__ Own(int64_t first, int64_t num_neurons)
      : first(static_cast<uint32_t>(first)),
        existing(static_cast<int>(max(min(num_neurons - first, int64_t{kWidth}), int64_t{0}))) {}

  __device__ __forceinline__ bool Exists(int v) const { return kAll || v < existing; }

  // What kernels before this one may have written is read past the first-level cache.
  template <typename T>
  __device__ __forceinline__ void Read(const T* numbers, T (&values)[kWidth]) const {
    using Word = WordOf<sizeof(values)>;
    if constexpr (kAll) {
      const Word* const source = reinterpret_cast<const Word*>(numbers + first);
      Word words[sizeof(values) / sizeof(Word)];
      for (Word& word : words) word = __ldcg(source + (&word - words));
      memcpy(values, words, sizeof(values));
    } else {
#pragma unroll
      for (int v = 0; v < kWidth; ++v) values[v] = Exists(v) ? __ldcg(numbers + first + v) : T{};
    }
  }

  template <typename T>
  __device__ __forceinline__ void Write(const T (&values)[kWidth], T* numbers) const {
    using Word = WordOf<sizeof(values)>;
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

// What is read of every candidate.
template <int kWidth>
struct OwnCandidates {
  float potential[kWidth], threshold[kWidth], leak[kWidth];
  uint16_t countdown[kWidth], fire_count[kWidth], fire_limit[kWidth];

  template <typename Own>
  __device__ __forceinline__ void Load(const BurstNeurons& neurons, const Own& own) {
    own.Read(neurons.potential, potential);
    own.Read(neurons.threshold, threshold);
    own.Read(neurons.leak, leak);
    own.Read(neurons.countdown, countdown);
    own.Read(neurons.fire_count, fire_count);
    own.Read(neurons.fire_limit, fire_limit);
  }

  __device__ __forceinline__ Candidate At(int v) const {
    Candidate one{};
#pragma unroll
    for (int u = 0; u < kWidth; ++u) {
      if (u != v) continue;
      one = {potential[u], threshold[u], leak[u], countdown[u], fire_count[u], fire_limit[u]};
    }
    return one;
  }

  // Becomes what a burst makes of it. Returns whether that changes a count.
  __device__ __forceinline__ bool Become(int v, const Outcome& outcome) {
    bool changes = false;
#pragma unroll
    for (int u = 0; u < kWidth; ++u) {
      if (u != v) continue;
      changes = outcome.countdown != countdown[u] || outcome.fire_count != fire_count[u];
      potential[u] = outcome.potential;
      countdown[u] = static_cast<uint16_t>(outcome.countdown);
      fire_count[u] = static_cast<uint16_t>(outcome.fire_count);
    }
    return changes;
  }
};

}  // namespace burst
}  // namespace brainjax

#endif  // BRAINJAX_BURST_OWN_CUH_
