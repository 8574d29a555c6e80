// The k largest of the keys of one block.
//
//   __shared__ BlockSelectSpace<kThreads> space;
//   const PlaceBits bits(memory, keys.Places());  // PlaceBits::Words(places) of shared memory
//   SelectOfBlock(keys, count, space, bits, [&](uint32_t place, int i) { ... });
//
// All threads make this call, with 1 <= count <= the number of keys. The space may hold anything,
// and is free again after a barrier.
//
// How: the count-th largest of the threads' own maxima is a bound that at least `count` keys reach,
// and hardly more; the few above it are listed in order, and the threshold is found among them.
// Where there are more winners than the list can hold, or ties at the bound, all keys are looked
// at, and those that reach the threshold are marked by a bit.
#ifndef BRAINJAX_BLOCK_SELECT_CUH_
#define BRAINJAX_BLOCK_SELECT_CUH_

#include <cstdint>

#include "block_keys.cuh"
#include "ranking.cuh"
#include "threshold.cuh"

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

template <int kThreads>
struct BlockSelectSpace {
  WarpWords<kThreads> warps;
  Histogram<kThreads> histogram;
  uint32_t listed;  // keys above the bound, those included for which the list has no room
  alignas(16) uint32_t keys[kThreads];
  uint16_t places[kThreads];  // a block has no room for 2^16 keys
};

// What is asked of a bound. A loose one takes fewer steps to find, and a few more keys exceed it.
__device__ __forceinline__ Wanted LooseBound(uint32_t count) {
  return {count, count + count / 4 + 2, 0};
}

// Lists the keys above the bound in ascending order of their places, as far as there is room.
// Returns how many there are. The whole block calls it, after a barrier behind what wrote the keys,
// and waits.
template <typename Keys>
__device__ uint32_t ListAbove(const Keys& block, uint32_t bound,
                              BlockSelectSpace<Keys::kThreads>& space) {
  constexpr uint32_t kRoom = Keys::kThreads;
  const int number = block.Neighbours(), begin = threadIdx.x * number;
  uint32_t mask = 0, above = 0;
#pragma unroll 1
  for (int first = 0; first < number; first += 32) {
    mask = block.MaskAbove(bound, first);
    above += __popc(mask);
  }
  uint32_t listed;
  uint32_t slot = space.warps.ExclusiveSumOfFew(0, above, &listed);
#pragma unroll 1
  for (int first = 0; first < number && slot < kRoom; first += 32) {
    if (number > 32) mask = block.MaskAbove(bound, first);
#pragma unroll 1
    for (; mask != 0 && slot < kRoom; mask &= mask - 1, ++slot) {
      const int place = begin + first + __ffs(mask) - 1;
      space.keys[slot] = block.keys[place];
      space.places[slot] = static_cast<uint16_t>(place);
    }
  }
  if (threadIdx.x == 0) space.listed = listed;
  __syncthreads();
  return listed;
}

// Calls use(place, i) for the winners among the listed keys, in ascending order of their places i.
// `before` counts the keys of other blocks in front of these.
template <int kThreads, typename Use>
__device__ void ForEachListed(Threshold threshold, Counts before,
                              BlockSelectSpace<kThreads>& space, Use use) {
  const bool exists = threadIdx.x < space.listed;
  const uint32_t key = exists ? space.keys[threadIdx.x] : 0;
  const bool is_above = exists && key > threshold.key, is_equal = exists && key == threshold.key;
  const uint32_t above = __ballot_sync(kAllLanes, is_above);
  const uint32_t equal = __ballot_sync(kAllLanes, is_equal);
  const uint32_t in_front = space.warps.SumInFront(1, __popc(above) << 16 | __popc(equal));
  before.above += (in_front >> 16) + __popc(above & LanesInFront());
  before.equal += (in_front & 0xffffu) + __popc(equal & LanesInFront());
  if (is_above || (is_equal && before.equal < threshold.ties)) {
    use(before.above + min(before.equal, threshold.ties), space.places[threadIdx.x]);
  }
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

// Calls use(place, i) for the marked winners in ascending order of their places i; `ties` of those
// equal to the threshold win, and `before` counts the keys of other blocks in front of these.
template <int kThreads, typename Use>
__device__ void ForEachMarked(const PlaceBits& bits, uint32_t ties, Counts before,
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

// Calls use(place, i) for the `count` largest keys, in ascending order of their places i.
template <typename Keys, typename Use>
__device__ void SelectOfBlock(const Keys& block, uint32_t count,
                              BlockSelectSpace<Keys::kThreads>& space, const PlaceBits& bits,
                              Use use) {
  constexpr int kThreads = Keys::kThreads;
  const Threshold bound = FindByBins(Values<1>{{block.largest}}, LooseBound(count), space.warps,
                                     space.histogram);
  const uint32_t listed = ListAbove(block, bound.key, space);
  if (count <= listed && listed <= kThreads) {
    const Threshold found =
        listed <= kMostRanked<kThreads>
            ? FindByRanks<kThreads>(space.keys, listed, count, space.warps, space.histogram.bins)
            : BisectInBlock(
                  listed, [&space](uint32_t i) { return space.keys[i]; }, {count, count, 0},
                  space.warps);
    return ForEachListed(found, Counts{0, 0}, space, use);
  }
  const Threshold found = listed < count ? Threshold{bound.key, count - listed}
                                         : FindAmongAll(block, bound, count, space);
  MarkAll(block, found, bits);
  ForEachMarked(bits, found.ties, Counts{0, 0}, space, use);
}

}  // namespace brainjax

#endif  // BRAINJAX_BLOCK_SELECT_CUH_
