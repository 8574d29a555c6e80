// The scores of select_winners on the device, read as keys.
#ifndef BRAINJAX_SELECTION_SCORES_CUH_
#define BRAINJAX_SELECTION_SCORES_CUH_

#include <cstdint>
#include <cstring>

#include "batch.h"
#include "launch.h"
#include "numbers.h"

namespace brainjax {

template <typename T>
struct SelectionProblem {
  const T* scores;
  const int32_t* counts;
  int32_t* winners;
  uint32_t* scratch;
  BatchOffsets scores_at, counts_at;
  int64_t batch, n, capacity, scratch_size;

  __device__ const T* Scores(int64_t b) const { return scores + scores_at(b); }
  __device__ int32_t* Winners(int64_t b) const { return winners + b * capacity; }
  __device__ uint32_t* Scratch(int64_t b) const { return scratch + b * scratch_size; }
  __device__ uint32_t Count(int64_t b) const {
    return ClampCount(counts[counts_at(b)], n < capacity ? n : capacity);
  }

  // `threads` threads, this one being number `thread`, mark the places that nobody won.
  __device__ void Pad(int64_t b, uint32_t count, int64_t thread, int64_t threads) const {
    for (int64_t i = count + thread; i < capacity; i += threads) {
      Winners(b)[i] = static_cast<int32_t>(n);
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

// Scores in front of the first 16-byte boundary.
template <typename T>
__device__ __forceinline__ int Misaligned(const T* scores) {
  return static_cast<int>((16 - reinterpret_cast<uintptr_t>(scores) % 16) % 16 / sizeof(T));
}

// Calls use(i, vector) for the aligned 16-byte words of scores [begin, end), where i is the index
// of their first score, and use_one(i, key) for the scores at the edges. The whole block calls it.
template <int kThreads, typename T, typename Use, typename UseOne>
__device__ __forceinline__ void ForEachVector(const T* scores, int64_t begin, int64_t end, Use use,
                                              UseOne use_one) {
  const int64_t head = min(begin + Misaligned(scores + begin), end);
  const int64_t vectors = (end - head) / kPerVector<T>;
  const uint4* aligned = reinterpret_cast<const uint4*>(scores + head);
  for (int64_t first = threadIdx.x; first < vectors; first += kInFlight * kThreads) {
    uint4 loaded[kInFlight];
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      if (first + u * kThreads < vectors) loaded[u] = __ldg(aligned + first + u * kThreads);
    }
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      const int64_t v = first + u * kThreads;
      if (v < vectors) use(head + v * kPerVector<T>, loaded[u]);
    }
  }
  const int64_t tail = head + vectors * kPerVector<T>;
  for (int64_t i = begin + threadIdx.x; i < head; i += kThreads) use_one(i, Key(scores[i]));
  for (int64_t i = tail + threadIdx.x; i < end; i += kThreads) use_one(i, Key(scores[i]));
}

// Copies the keys of scores [begin, end) to `keys`, 16-byte aligned. The whole block calls it.
template <int kThreads, typename T>
__device__ void LoadKeys(const T* scores, int64_t begin, int64_t end, uint32_t* keys) {
  ForEachVector<kThreads>(
      scores, begin, end,
      [&](int64_t i, const uint4& vector) {
        uint32_t* to = keys + (i - begin);
#pragma unroll
        for (int j = 0; j < kPerVector<T>; j += 4) {
          const uint4 four{KeyOf<T>(vector, j), KeyOf<T>(vector, j + 1), KeyOf<T>(vector, j + 2),
                           KeyOf<T>(vector, j + 3)};
          if ((i - begin) % 4 == 0) {
            *reinterpret_cast<uint4*>(to + j) = four;
          } else {
            to[j] = four.x, to[j + 1] = four.y, to[j + 2] = four.z, to[j + 3] = four.w;
          }
        }
      },
      [&](int64_t i, uint32_t key) { keys[i - begin] = key; });
}

}  // namespace brainjax

#endif  // BRAINJAX_SELECTION_SCORES_CUH_
