// Who fires, in ascending order: each block lists its neurons behind those of the blocks in front.
//
// Where there are few blocks, each counts for itself who fires in front of it. Where there are
// many, a block says how many of its neurons fire, and looks back over what the blocks in front
// have said: as many at a time as it has threads, until one already knows how many fire up to its
// end. It relies on blocks starting in the order of their numbers, as they do though nothing
// promises it: those it waits for are at work.
#ifndef BRAINJAX_BURST_LISTING_CUH_
#define BRAINJAX_BURST_LISTING_CUH_

#include <cstdint>

#include "block_reductions.cuh"
#include "burst_core.h"
#include "warp_ranges.cuh"

namespace brainjax {
namespace burst {

constexpr int kListers = 512;  // threads of a block, each with a word of flags
constexpr int kAtOnce = 4;     // neurons whose potentials a thread asks for before it lists one
constexpr int kFewBlocks = 16;  // in front of which a thread has at most as many words to count

// The state of a block: what its low word holds, in the high word. 0: nothing yet.
constexpr uint64_t kOwn = uint64_t{1} << 32, kUpToEnd = uint64_t{2} << 32;

// This thread's share of those that fire in front of its block.
__device__ inline uint32_t CountInFront(const BurstProblem& problem) {
  uint32_t count = 0;
#pragma unroll 4
  for (uint32_t i = threadIdx.x; i < blockIdx.x * kListers; i += kListers) {
    count += __popc(__ldcg(problem.fires + i));
  }
  return count;
}

// How many fire in front of this block, in which `own` do. All threads call it together.
__device__ inline uint32_t LookBack(volatile uint64_t* states, uint32_t own,
                                    WarpWords<kListers>& words) {
  const int64_t block = blockIdx.x;
  if (threadIdx.x == 0) states[block] = kOwn | own;
  uint32_t in_front = 0, nearest = kListers;
  for (int64_t last = block - 1; nearest == kListers; last -= kListers) {
    const int64_t other = last - threadIdx.x;
    uint64_t state = kUpToEnd;  // in front of the first block
    if (other >= 0) {
      do {
        state = states[other];
      } while (state == 0);
    }
    nearest = words.Least(state >= kUpToEnd ? threadIdx.x : kListers);
    const uint32_t count = threadIdx.x <= nearest ? static_cast<uint32_t>(state) : 0;
    in_front += words.Sum(0, __reduce_add_sync(kAllLanes, count));
  }
  if (threadIdx.x == 0) states[block] = kUpToEnd | (in_front + own);
  return in_front;
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

// Behind the entries of the list there may be some of the last burst.
__device__ inline void Pad(const BurstProblem& problem, int64_t end, int64_t listed_before) {
  for (int64_t i = end + threadIdx.x; i < listed_before; i += kListers) {
    problem.indices[i] = static_cast<int32_t>(problem.num_neurons);
    problem.values[i] = 0.0f;
  }
  if (threadIdx.x == 0) *problem.count = static_cast<int32_t>(end);
}

// Lists who fires of the neurons of a block.
__device__ inline void List(const BurstProblem& problem, WarpWords<kListers>& words) {
  const uint32_t word = blockIdx.x * kListers + threadIdx.x, first = word * kBurstWord;
  const uint32_t fires = first < problem.NumNeurons() ? __ldcg(problem.fires + word) : 0;
  const bool are_few = gridDim.x <= kFewBlocks, is_last = blockIdx.x + 1 == gridDim.x;
  const uint32_t share = are_few ? CountInFront(problem) : 0;
  const int64_t listed_before = is_last ? problem.NumFired() : 0;
  uint32_t own;
  const uint32_t before = words.ExclusiveSum(1, __popc(fires), &own);
  const uint32_t in_front = are_few ? words.Sum(0, __reduce_add_sync(kAllLanes, share))
                                    : LookBack(problem.block_states, own, words);
  ListWord(problem, first, fires, in_front + before);
  if (is_last) Pad(problem, int64_t{in_front} + own, listed_before);
}

}  // namespace burst
}  // namespace brainjax

#endif  // BRAINJAX_BURST_LISTING_CUH_
