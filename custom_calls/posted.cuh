// Numbers that blocks tell each other without meeting: one that is still to come says so, and is
// read until it is there.
#ifndef BRAINJAX_POSTED_CUH_
#define BRAINJAX_POSTED_CUH_

#include <cstdint>

#include "block_reductions.cuh"

namespace brainjax {

constexpr uint32_t kUnposted = 0x7fffffffu;  // a number that is still to come
// Numbers of several blocks in one line of memory would wait for each other, as all blocks read
// them.
constexpr uint32_t kPostWords = 32;

__device__ inline void WritePosted(uint32_t* word, uint32_t number) {
  asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(word), "r"(number) : "memory");
}

__device__ inline uint32_t ReadPosted(const uint32_t* word) {
  uint32_t number;
  asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(number) : "l"(word) : "memory");
  return number;
}

// Reads number i from word(i) where it is still to come, until none is. A whole warp calls it.
template <int kNumber, typename WordOf>
__device__ __forceinline__ void AwaitPosted(uint32_t (&numbers)[kNumber], const WordOf& word) {
  bool waits;
  do {
    waits = false;
#pragma unroll
    for (int i = 0; i < kNumber; ++i) {
      if (numbers[i] == kUnposted) numbers[i] = ReadPosted(word(i));
    }
#pragma unroll
    for (int i = 0; i < kNumber; ++i) waits |= numbers[i] == kUnposted;
  } while (__any_sync(kAllLanes, waits));
}

}  // namespace brainjax

#endif  // BRAINJAX_POSTED_CUH_
