// The scores of select_winners on the device, read as keys.
#ifndef BRAINJAX_SELECTION_SCORES_CUH_
#define BRAINJAX_SELECTION_SCORES_CUH_

#include <cstdint>
#include <cstring>

#include "batch.h"
#include "launch.h"
#include "numbers.h"
#include "selection.h"

namespace brainjax {

// A call of select_winners, on the device.
template <typename T>
struct SelectionProblem : Selection<T> {
  using Selection<T>::counts, Selection<T>::counts_at, Selection<T>::n, Selection<T>::capacity;

  __device__ int32_t Asked(int64_t b) const { return counts[counts_at(b)]; }
  __device__ uint32_t Clamped(int32_t asked) const {
    return ClampCount(asked, n < capacity ? n : capacity);
  }

  // `threads` threads, this one being number `thread`, mark the places that nobody won.
  __device__ void Pad(int64_t b, uint32_t count, int64_t thread, int64_t threads) const {
    for (int64_t i = count + thread; i < capacity; i += threads) {
      this->Winners(b)[i] = static_cast<int32_t>(n);
    }
  }
};

constexpr int kInFlight = 4;  // 16-byte loads that a thread has asked for before it uses one

template <typename T>
constexpr int kPerVector = 16 / sizeof(T);

// The key of score j of a 16-byte word; j is known to the compiler.
template <typename T>
__device__ __forceinline__ uint32_t KeyOf(const uint4& vector, int j) {
  constexpr int kPerWord = 4 / sizeof(T);
  const int of_word = j / kPerWord;
  uint32_t bits = of_word == 0 ? vector.x : of_word == 1 ? vector.y
                : of_word == 2 ? vector.z : vector.w;
  bits >>= j % kPerWord * 8 * sizeof(T) % 32;
  T score;
  memcpy(&score, &bits, sizeof(T));
  return Key(score);
}

// A row as whole 16-byte words; the first and the last may be partly outside.
template <typename T>
struct Row {
  const T* scores;
  int64_t n;
  int shift;  // scores between a 16-byte boundary and the row

  __device__ Row(const T* scores, int64_t n)
      : scores(scores),
        n(n),
        shift(static_cast<int>(reinterpret_cast<uintptr_t>(scores) % 16 / sizeof(T))) {}

  __device__ int64_t Vectors() const { return CeilDiv(n + shift, kPerVector<T>); }
  __device__ int64_t First(int64_t vector) const { return vector * kPerVector<T> - shift; }
  __device__ bool Exists(int64_t i) const { return 0 <= i && i < n; }

  // The word whose first score is i; what is outside the row is not read.
  __device__ uint4 LoadAt(int64_t i) const {
    const bool whole = Exists(i) && Exists(i + kPerVector<T> - 1);
    return whole ? __ldcs(reinterpret_cast<const uint4*>(scores + i)) : LoadEdge(i);
  }

  __device__ __noinline__ uint4 LoadEdge(int64_t first) const {
    uint4 vector = make_uint4(0, 0, 0, 0);
    for (int j = 0; j < kPerVector<T>; ++j) {
      if (!Exists(first + j)) continue;
      memcpy(reinterpret_cast<T*>(&vector) + j, scores + first + j, sizeof(T));
    }
    return vector;
  }
};

}  // namespace brainjax

#endif  // BRAINJAX_SELECTION_SCORES_CUH_
