// Who fires, in ascending order: each block lists its neurons behind those that fire in front of
// it, which are counted by span when they fire.
#ifndef BRAINJAX_BURST_LISTING_CUH_
#define BRAINJAX_BURST_LISTING_CUH_

#include <cstdint>

#include "block_reductions.cuh"
#include "burst_core.h"
#include "warp_ranges.cuh"

namespace brainjax {
namespace burst {

constexpr int kListers = 512;  // threads of a block, each with a word of flags
static_assert((1 << kMinSpanBits) % (kListers * kBurstWord) == 0, "no block lies in two spans");
constexpr int kAtOnce = 4;     // neurons whose potentials a thread asks for before it lists one

// Writes who fires of the neurons of a warp, which begin at `first`, one bit each. Each lane has
// the bits of those that it looks after.
template <int kWidth>
__device__ __forceinline__ void WriteFires(const BurstProblem& problem, uint32_t first,
                                           uint32_t fires) {
  constexpr int kLanes = kBurstWord / kWidth;  // that share a word
  uint32_t word = fires;
  if constexpr (kWidth == 1) {
    word = __ballot_sync(kAllLanes, fires);
  } else {
    word <<= Lane() % kLanes * kWidth;
#pragma unroll
    for (int distance = 1; distance < kLanes; distance *= 2) {
      word |= __shfl_xor_sync(kAllLanes, word, distance);
    }
  }
  const uint32_t place = first / kBurstWord + Lane() / kLanes;
  if (Lane() % kLanes == 0 && place * kBurstWord < problem.NumNeurons()) {
    problem.fires[place] = word;
  }
}

// Writes them, and counts them with those of their span.
template <int kWidth>
__device__ __forceinline__ void CountFires(const BurstProblem& problem, uint32_t first,
                                           uint32_t fires) {
  static_assert((1 << kMinSpanBits) % (kWidth * kWarp) == 0, "no warp's neurons are in two spans");
  const uint32_t count = __reduce_add_sync(kAllLanes, __popc(fires));
  // One lane does: the compiler would first add up what all lanes that are there bring.
  if (Lane() == 0 && count > 0) {
    asm volatile("red.global.add.u32 [%0], %1;" ::"l"(
                     problem.fire_counts + (first >> problem.span_bits)),
                 "r"(count)
                 : "memory");
  }
  WriteFires<kWidth>(problem, first, fires);
}

// This thread's share of those that fire in front of its block: in the spans in front of that of
// the block, and there.
__device__ inline uint32_t CountInFront(const BurstProblem& problem) {
  const uint32_t first = blockIdx.x * kListers * kBurstWord, span = first >> problem.span_bits;
  uint32_t count = 0;
#pragma unroll 4
  for (uint32_t i = threadIdx.x; i < span; i += kListers) count += __ldcg(problem.fire_counts + i);
  const uint32_t span_begin = (span << problem.span_bits) / kBurstWord;
#pragma unroll 4
  for (uint32_t i = span_begin + threadIdx.x; i < first / kBurstWord; i += kListers) {
    count += __popc(__ldcg(problem.fires + i));
  }
  return count;
}

// Lists those of a word, from a place of the list on, and puts their potentials at 0.
__device__ inline void ListWord(const BurstProblem& problem, uint32_t first, uint32_t fires,
                                uint32_t rank) {
  while (fires != 0) {
    uint32_t ids[kAtOnce];
    float potentials[kAtOnce];
    int count = 0;
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (fires == 0) break;
      ids[i] = first + __ffs(fires) - 1;
      potentials[i] = __ldcg(problem.neurons.potential + ids[i]);
      fires &= fires - 1;
      ++count;
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (i >= count) break;
      problem.indices[rank] = static_cast<int32_t>(ids[i]);
      problem.values[rank++] = potentials[i];
      problem.neurons.potential[ids[i]] = 0.0f;
    }
  }
}

// Ends a burst in which so many fire: a block of kListers threads does. Behind the entries of the
// list there may be some of the last burst.
__device__ inline void Finish(const BurstProblem& problem, int64_t fired, int64_t listed_before,
                              uint32_t number) {
  for (int64_t i = fired + threadIdx.x; i < listed_before; i += kListers) {
    problem.indices[i] = static_cast<int32_t>(problem.num_neurons);
    problem.values[i] = 0.0f;
  }
  if (threadIdx.x > 0) return;
  *problem.count = static_cast<int32_t>(fired);
  *problem.bursts = number;
}

// Lists who fires of the neurons of a block.
__device__ inline void List(const BurstProblem& problem, WarpWords<kListers>& words) {
  const uint32_t word = blockIdx.x * kListers + threadIdx.x, first = word * kBurstWord;
  const uint32_t fires = first < problem.NumNeurons() ? __ldcg(problem.fires + word) : 0;
  const bool is_last = blockIdx.x + 1 == gridDim.x;
  const uint32_t share = CountInFront(problem);
  const int64_t listed_before = is_last ? problem.NumFired() : 0;
  const uint32_t number = is_last ? problem.Number() : 0;
  uint32_t own;
  const uint32_t before = words.ExclusiveSum(1, __popc(fires), &own);
  const uint32_t in_front = words.Sum(0, __reduce_add_sync(kAllLanes, share));
  ListWord(problem, first, fires, in_front + before);
  if (is_last) Finish(problem, int64_t{in_front} + own, listed_before, number);
}

}  // namespace burst
}  // namespace brainjax

#endif  // BRAINJAX_BURST_LISTING_CUH_
