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

// Rows of the parameters of a thread's neurons, which are mostly of one kind.
template <int kWidth>
struct OwnRows {
  uint32_t rows[kWidth];
  bool are_same;

  template <typename Own>
  __device__ __forceinline__ OwnRows(const BurstNeurons& neurons, const Own& own) {
    uint16_t kinds[kWidth];
    own.Read(neurons.kind, kinds);
    are_same = true;
#pragma unroll
    for (int v = 0; v < kWidth; ++v) {
      are_same &= kinds[v] == kinds[0];
      rows[v] = min(uint32_t{kinds[v]}, neurons.num_kinds - 1);
    }
  }

  template <typename T>
  __device__ __forceinline__ void Read(const T* numbers, T (&values)[kWidth]) const {
    const T first = numbers[rows[0]];
#pragma unroll
    for (int v = 0; v < kWidth; ++v) values[v] = first;
    if (are_same) return;
#pragma unroll
    for (int v = 1; v < kWidth; ++v) values[v] = numbers[rows[v]];
  }
};

// What is read of every neuron, candidate or not.
template <int kWidth>
struct OwnCandidates {
  float potential[kWidth], threshold[kWidth], leak[kWidth];
  uint16_t countdown[kWidth], fire_count[kWidth], fire_limit[kWidth];
  uint32_t resets;  // a bit for each whose potential is 0 at the start of a burst

  template <typename Own>
  __device__ __forceinline__ void Load(const BurstNeurons& neurons, bool keeps_residues,
                                       const Own& own) {
    own.Read(neurons.potential, potential);
    own.Read(neurons.countdown, countdown);
    own.Read(neurons.fire_count, fire_count);
    if (neurons.kind == nullptr) {
      LoadParameters(neurons, keeps_residues, own, own);
    } else {
      LoadParameters(neurons, keeps_residues, own, OwnRows<kWidth>(neurons, own));
    }
  }

  __device__ __forceinline__ void Reset() {
#pragma unroll
    for (int v = 0; v < kWidth; ++v) {
      if (resets >> v & 1) potential[v] = 0.0f;
    }
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

 private:
  template <typename Own, typename Rows>
  __device__ __forceinline__ void LoadParameters(const BurstNeurons& neurons,
                                                 bool keeps_residues, const Own& own,
                                                 const Rows& rows) {
    rows.Read(neurons.threshold, threshold);
    rows.Read(neurons.leak, leak);
    rows.Read(neurons.fire_limit, fire_limit);
    resets = 0;
    if (keeps_residues) return;
    uint8_t accumulates[kWidth];
    rows.Read(reinterpret_cast<const uint8_t*>(neurons.accumulates), accumulates);
#pragma unroll
    for (int v = 0; v < kWidth; ++v) {
      resets |= uint32_t{own.Exists(v) && accumulates[v] == 0} << v;
    }
  }
};

}  // namespace burst
}  // namespace brainjax

#endif  // BRAINJAX_BURST_OWN_CUH_
