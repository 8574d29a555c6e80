// The k largest of the keys of one block.
//
//   __shared__ BlockSelectSpace<kThreads> space;
//   const PlaceBits bits(memory, keys.Places());  // PlaceBits::Words(places) of shared memory
//   const uint32_t ties = SelectOfBlock(keys, count, space, bits);
//   ForEachWinner(bits, ties, Counts{0, 0}, space, [&](uint32_t place, int i) { ... });
//
// All threads make these calls, with 1 <= count <= the number of keys, after a barrier behind what
// wrote the keys. The space may hold anything, and is free again after a barrier.
//
// How: the count-th largest of the threads' own maxima is a bound that at least `count` keys reach,
// and hardly more; the few above it are listed, and the threshold is found among them. Winners are
// marked by a bit, which puts them in order. Where there are more winners than the list can hold,
// or ties at the bound, all keys are looked at.
#ifndef BRAINJAX_BLOCK_SELECT_CUH_
#define BRAINJAX_BLOCK_SELECT_CUH_

#include <cstdint>

#include "bisection.cuh"
#include "block_keys.cuh"

namespace brainjax {

// Keys above the threshold and keys equal to it.
struct Counts {
  uint32_t above;
  uint32_t equal;
};

// A bit for each place: above the threshold, or equal to it.
struct PlaceBits {
  uint32_t *above, *equal;
  int words;

  __host__ __device__ static int64_t Words(int64_t places) { return places / 32 * 2; }
  __device__ PlaceBits(uint32_t* memory, int places)
      : above(memory), equal(memory + places / 32), words(places / 32) {}
};

// A key above the bound, and where it is.
struct Candidate {
  uint32_t key, place;
};

template <int kThreads>
struct BlockSelectSpace {
  WarpWords<kThreads> warps;
  uint32_t listed;
  Candidate list[kThreads];
};

// What is asked of a bound. A loose one takes fewer steps to find, and a few more keys exceed it.
__device__ __forceinline__ Wanted LooseBound(uint32_t count) {
  return {count, count + count / 4 + 2, 0};
}

// Appends the keys above the bound to a list, in any order, as far as there is room. Returns how
// many there are. The whole block calls it after `*size` was set to 0 and a barrier, and waits.
template <typename Keys>
__device__ uint32_t ListAbove(const Keys& block, uint32_t bound, Candidate* list, uint32_t room,
                              uint32_t* size) {
  const int lane = threadIdx.x % 32;
  for (int first = 0; first < block.per_lane * Keys::kLength; first += 32) {
    uint32_t left = block.MaskAbove(bound, first), of_warp = 0, slot = 0;
    const uint32_t before = WarpExclusiveSum(__popc(left), &of_warp);
    if (of_warp == 0) continue;
    if (lane == 0) slot = atomicAdd(size, of_warp);
    slot = __shfl_sync(kAllLanes, slot, 0) + before;
#pragma unroll 1
    for (; left != 0 && slot < room; left &= left - 1, ++slot) {
      const uint32_t place = block.Place(lane, first + __ffs(left) - 1);
      list[slot] = {block.keys[place], place};
    }
  }
  __syncthreads();
  return *size;
}

// Clears the bits. The block waits before they are used.
template <int kThreads>
__device__ void ClearBits(const PlaceBits& bits) {
  for (int i = threadIdx.x; i < 2 * bits.words; i += kThreads) bits.above[i] = 0;
}

// Marks the listed keys, which are all that reach the threshold; the bits are clear.
template <int kThreads>
__device__ void MarkListed(const Candidate* list, uint32_t listed, Threshold threshold,
                           const PlaceBits& bits) {
  for (uint32_t i = threadIdx.x; i < listed; i += kThreads) {
    const Candidate candidate = list[i];
    if (candidate.key < threshold.key) continue;
    uint32_t* const words = candidate.key > threshold.key ? bits.above : bits.equal;
    atomicOr(words + candidate.place / 32, 1u << candidate.place % 32);
  }
  __syncthreads();
}

// Marks all keys that reach the threshold.
template <typename Keys>
__device__ __noinline__ void MarkAll(Keys block, Threshold threshold, PlaceBits bits) {
  const int lane = threadIdx.x % 32;
  for (int word = threadIdx.x / 32; word < bits.words; word += Keys::kThreads / 32) {
    const uint32_t key = block.keys[32 * word + lane];
    const bool exists = block.Exists(32 * word + lane);
    const uint32_t above = __ballot_sync(kAllLanes, exists && key > threshold.key);
    const uint32_t equal = __ballot_sync(kAllLanes, exists && key == threshold.key);
    if (lane == 0) bits.above[word] = above, bits.equal[word] = equal;
  }
  __syncthreads();
}

// How many are marked. The whole block calls it after a barrier, and waits.
template <int kThreads>
__device__ Counts CountMarked(const PlaceBits& bits, BlockSelectSpace<kThreads>& space) {
  uint32_t above = 0, equal = 0;
  for (int word = threadIdx.x; word < bits.words; word += kThreads) {
    above += __popc(bits.above[word]), equal += __popc(bits.equal[word]);
  }
  const uint32_t of_warp = __reduce_add_sync(kAllLanes, above << 16 | equal);
  const uint32_t packed = space.warps.Sum(0, of_warp);
  return {packed >> 16, packed & 0xffffu};
}

// The threshold among all keys of the block, at or above the bound.
template <typename Keys>
__device__ __noinline__ Threshold FindAmongAll(Keys block, Threshold bound, uint32_t count,
                                               BlockSelectSpace<Keys::kThreads>& space) {
  int turn = 0;
  const auto reaching = [&](uint32_t key) {
    uint32_t reach = 0;
#pragma unroll 4
    for (int place = threadIdx.x; place < block.Places(); place += Keys::kThreads) {
      reach += block.keys[place] >= key;
    }
    return space.warps.Sum(turn++, __reduce_add_sync(kAllLanes, reach));
  };
  const uint32_t low = bound.ties > 0 ? bound.key : bound.key + 1;
  const Threshold found = Bisect({low, ~0u}, {count, count, 0}, reaching);
  __syncthreads();
  return found;
}

// Marks the winners. Returns how many of those marked as equal win.
template <typename Keys>
__device__ uint32_t SelectOfBlock(const Keys& block, uint32_t count,
                                  BlockSelectSpace<Keys::kThreads>& space, const PlaceBits& bits) {
  constexpr int kThreads = Keys::kThreads;
  if (threadIdx.x == 0) space.listed = 0;
  ClearBits<kThreads>(bits);
  __syncthreads();
  const Threshold bound = BisectInBlock(
      kThreads, [&block](uint32_t) { return block.largest; }, LooseBound(count), space.warps);
  const uint32_t listed = ListAbove(block, bound.key, space.list, kThreads, &space.listed);
  if (count <= listed && listed <= kThreads) {
    const Threshold found = BisectInBlock(
        listed, [&space](uint32_t i) { return space.list[i].key; }, {count, count, 0},
        space.warps);
    MarkListed<kThreads>(space.list, listed, found, bits);
    return found.ties;
  }
  const Threshold found = listed < count ? Threshold{bound.key, count - listed}
                                         : FindAmongAll(block, bound, count, space);
  MarkAll(block, found, bits);
  return found.ties;
}

// Calls use(place, i) for the marked winners in ascending order of their places i; `ties` of those
// equal to the threshold win, and `before` counts the keys of other blocks in front of these.
template <int kThreads, typename Use>
__device__ void ForEachWinner(const PlaceBits& bits, uint32_t ties, Counts before,
                              BlockSelectSpace<kThreads>& space, Use use) {
  const int per_thread = (bits.words + kThreads - 1) / kThreads;
  const int begin = min(static_cast<int>(threadIdx.x) * per_thread, bits.words);
  const int end = min(begin + per_thread, bits.words);
  Counts mine{0, 0}, of_warp{0, 0};
#pragma unroll 1
  for (int word = begin; word < end; ++word) {
    mine.above += __popc(bits.above[word]), mine.equal += __popc(bits.equal[word]);
  }
  before.above += WarpExclusiveSum(mine.above, &of_warp.above);
  if (ties > 0) before.equal += WarpExclusiveSum(mine.equal, &of_warp.equal);
  const uint32_t packed = space.warps.SumInFront(1, of_warp.above << 16 | of_warp.equal);
  before.above += packed >> 16, before.equal += packed & 0xffffu;
#pragma unroll 1
  for (int word = begin; word < end; ++word) {
    const uint32_t above = bits.above[word];
#pragma unroll 1
    for (uint32_t left = above | bits.equal[word]; left != 0; left &= left - 1) {
      const int bit = __ffs(left) - 1;
      const bool is_above = above >> bit & 1;
      if (is_above || before.equal < ties) {
        use(before.above + min(before.equal, ties), 32 * word + bit);
      }
      (is_above ? before.above : before.equal) += 1;
    }
  }
}

}  // namespace brainjax

#endif  // BRAINJAX_BLOCK_SELECT_CUH_
