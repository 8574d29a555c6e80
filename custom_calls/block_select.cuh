// The k largest of the keys that one block holds in shared memory.
//
//   __shared__ BlockSelectSpace<kThreads> space;                 // kThreads: 256, 512 or 1024
//   const OwnKeys<kThreads> own(keys, n);                        // the part of this thread
//   const Threshold threshold = FindThreshold(own, count, space);
//   ForEachWinner(own, threshold, Counts{0, 0}, space, [&](uint32_t place, int i) { ... });
//
// All kThreads threads make these calls, with 0 < n < 65,536, 1 <= count <= n and `keys` 16-byte
// aligned in shared memory. Before OwnKeys the block has waited (__syncthreads) for the keys and
// for the last use of the space, which may hold anything. ForEachWinner may follow FindThreshold
// at once; a block waits before it writes keys or uses the space for something else.
//
// How: the count-th largest of the threads' own maxima is a bound that at least `count` keys
// reach, and hardly more. The few above it are listed, and each of them counts how many are
// larger. What the list cannot hold (many winners, heavy ties) is narrowed by histograms first,
// whose bins divide the interval that is left, so that a few rounds end it for any keys.
//
// A block waits for its slowest warp eight times, so what a warp does in between is kept short:
// loops are not unrolled, and few threads look at their keys again.
#ifndef BRAINJAX_BLOCK_SELECT_CUH_
#define BRAINJAX_BLOCK_SELECT_CUH_

#include <cstdint>

#include "block_keys.cuh"

namespace brainjax {

template <int kThreads>
struct BlockSelectSpace {
  static constexpr int kMaxLists = 8;  // a round cuts the interval to a 256th or less
  struct Choice {
    uint32_t bin;
    uint32_t above;    // keys in the bins above
    uint32_t members;  // keys in the bin
  };
  alignas(16) uint32_t lists[2][kThreads];
  uint32_t bins[kThreads];
  uint32_t warp_sums[32];
  uint32_t warp_least[32], warp_largest[32];
  uint32_t list_sizes[kMaxLists];
  uint32_t least_of_bin, least_winner, ties;
  Choice choice;
};

namespace block_select {

template <int kThreads>
using Space = BlockSelectSpace<kThreads>;

constexpr int kRanked = 128;  // keys of which each is compared with all

template <int kThreads>
__device__ void Clear(Space<kThreads>& space) {
  space.bins[threadIdx.x] = 0;
  if (threadIdx.x < Space<kThreads>::kMaxLists) space.list_sizes[threadIdx.x] = 0;
  if (threadIdx.x == 0) space.least_of_bin = ~0u, space.least_winner = ~0u, space.ties = 0;
}

// The smallest `least` and the largest `largest` of the block.
template <int kThreads>
__device__ Interval<kThreads> Extremes(uint32_t least, uint32_t largest, Space<kThreads>& space) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const uint32_t warp_least = __reduce_min_sync(kAllLanes, least);
  const uint32_t warp_largest = __reduce_max_sync(kAllLanes, largest);
  if (lane == 0) space.warp_least[warp] = warp_least, space.warp_largest[warp] = warp_largest;
  __syncthreads();
  const int of = lane % (kThreads / 32);
  return {__reduce_min_sync(kAllLanes, space.warp_least[of]),
          __reduce_max_sync(kAllLanes, space.warp_largest[of])};
}

// The bin of the `remaining`-th largest counted key; clears the bins. Waits before it reads them.
template <int kThreads>
__device__ typename Space<kThreads>::Choice ChooseBin(uint32_t remaining, Space<kThreads>& space) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const uint32_t bin = kThreads - 1 - threadIdx.x;
  __syncthreads();
  const uint32_t members = space.bins[bin];
  space.bins[bin] = 0;
  const uint32_t sum = __reduce_add_sync(kAllLanes, members);
  if (lane == 0) space.warp_sums[warp] = sum;
  __syncthreads();
  const uint32_t before = __reduce_add_sync(kAllLanes, lane < warp ? space.warp_sums[lane] : 0);
  if (before < remaining && remaining <= before + sum) {  // one warp of the block
    const uint32_t above = before + WarpInclusiveSum(members) - members;
    if (above < remaining && remaining <= above + members) space.choice = {bin, above, members};
  }
  __syncthreads();
  return space.choice;
}

// A key that at least `count` of the block's items reach, and hardly more: the count-th largest
// or, of items that share its bin, the smallest. `for_each(use)` gives a thread's items; those
// below the interval share the first bin.
template <int kThreads, typename ForEach>
__device__ uint32_t Bound(Interval<kThreads> interval, uint32_t count, Space<kThreads>& space,
                          ForEach for_each) {
  const auto bin_of = [&](uint32_t item) { return interval.BinOf(max(item, interval.low)); };
  for_each([&](uint32_t item) { atomicAdd(&space.bins[bin_of(item)], 1); });
  const uint32_t chosen = ChooseBin(count, space).bin;
  for_each([&](uint32_t item) {
    if (bin_of(item) == chosen) atomicMin(&space.least_of_bin, item);
  });
  __syncthreads();
  return space.least_of_bin;
}

// Appends the keys in the interval to a list, in any order, as far as there is room. Returns how
// many there are; waits before that.
template <int kThreads>
__device__ uint32_t List(const OwnKeys<kThreads>& own, Interval<kThreads> interval, uint32_t* list,
                         uint32_t* size) {
  uint32_t mask, total;
  const uint32_t mine = own.CountIn(interval, &mask);
  uint32_t place = WarpExclusiveSum(mine, &total);
  if (total > 0) {
    uint32_t first = 0;
    if (threadIdx.x % 32 == 0) first = atomicAdd(size, total);
    place += __shfl_sync(kAllLanes, first, 0);
    own.ForEachIn(interval, mask, [&](int i) {
      if (place < kThreads) list[place] = own.keys[i];
      ++place;
    });
  }
  __syncthreads();
  return *size;
}

// The `remaining`-th largest of at most kRanked keys: each counts the larger ones.
template <int kThreads>
__device__ Threshold Rank(const uint32_t* keys, int n, uint32_t remaining,
                          Space<kThreads>& space) {
  constexpr int kLanes = kThreads / kRanked;  // that share one key
  const int candidate = threadIdx.x / kLanes;
  const bool exists = candidate < n;
  const uint32_t key = exists ? keys[candidate] : 0;
  uint32_t larger = 0;
  if (threadIdx.x / 32 * 32 / kLanes < n) {
#pragma unroll 4
    for (int i = threadIdx.x % kLanes; i < n; i += kLanes) larger += keys[i] > key;
#pragma unroll
    for (int lanes = kLanes / 2; lanes > 0; lanes /= 2) {
      larger += __shfl_xor_sync(kAllLanes, larger, lanes);
    }
    const uint32_t least = __reduce_min_sync(kAllLanes, exists && larger < remaining ? key : ~0u);
    if (threadIdx.x % 32 == 0) atomicMin(&space.least_winner, least);
  }
  __syncthreads();
  const uint32_t threshold = space.least_winner;
  if (exists && key == threshold) atomicMax(&space.ties, remaining - larger);  // equal in all
  __syncthreads();
  return {threshold, space.ties};
}

}  // namespace block_select

template <int kThreads>
__device__ Threshold FindThreshold(const OwnKeys<kThreads>& own, uint32_t count,
                                   BlockSelectSpace<kThreads>& space) {
  using namespace block_select;
  Clear(space);
  const bool few = 2 * count <= own.NumGroups() && own.n > kRanked;
  uint32_t least = own.exist() ? own.largest : ~0u;
  if (!few) own.ForEach([&](int, uint32_t key) { least = min(least, key); });
  Interval<kThreads> interval = Extremes(least, own.largest, space);
  OwnKeys<kThreads> left = own;  // the keys in the interval, and maybe others
  int lists = 0;
  if (few) {
    const uint32_t bound = Bound(interval, count, space, [&](auto use) {
      if (own.exist()) use(own.largest);
    });
    if (bound == ~0u) return {bound, count};
    interval = {bound + 1, ~0u};
    const uint32_t above = List(own, interval, space.lists[0], space.list_sizes);
    if (above < count) return {bound, count - above};
    if (above <= kThreads) left = OwnKeys<kThreads>::List(space.lists[0], above);
    lists = 1;
  }
  uint32_t remaining = count;
  while (interval.low < interval.high && left.n > kRanked) {
    left.ForEach([&](int, uint32_t key) {
      if (interval.Contains(key)) atomicAdd(&space.bins[interval.BinOf(key)], 1);
    });
    const auto choice = ChooseBin(remaining, space);
    interval = interval.Bin(choice.bin);
    remaining -= choice.above;
    if (choice.members > kThreads || interval.low == interval.high) continue;
    uint32_t* list = space.lists[lists % 2];
    const uint32_t size = List(left, interval, list, space.list_sizes + lists);
    left = OwnKeys<kThreads>::List(list, size);
    ++lists;
  }
  if (interval.low == interval.high) return {interval.low, remaining};
  return Rank(left.keys, left.n, remaining, space);
}

// Calls use(place, i) for the winners among the block's keys, in ascending order within each
// thread; `before` counts the keys of other blocks in front of these.
template <int kThreads, typename Use>
__device__ void ForEachWinner(const OwnKeys<kThreads>& own, Threshold threshold, Counts before,
                              BlockSelectSpace<kThreads>& space, Use use) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const Interval<kThreads> reaching{threshold.key, ~0u};
  uint32_t mask, above = 0, warp_above, warp_equal;
  uint32_t equal = own.CountIn(reaching, &mask);
  own.ForEachIn(reaching, mask, [&](int i) { above += own.keys[i] > threshold.key; });
  equal -= above;
  above = WarpExclusiveSum(above, &warp_above);
  equal = WarpExclusiveSum(equal, &warp_equal);
  if (lane == 0) space.warp_sums[warp] = warp_above << 16 | warp_equal;
  __syncthreads();
  const uint32_t warps = __reduce_add_sync(kAllLanes, lane < warp ? space.warp_sums[lane] : 0);
  above += before.above + (warps >> 16), equal += before.equal + (warps & 0xffffu);
  own.ForEachIn(reaching, mask, [&](int i) {
    const bool is_above = own.keys[i] > threshold.key;
    if (is_above || equal < threshold.ties) use(above + min(equal, threshold.ties), i);
    (is_above ? above : equal) += 1;
  });
}

}  // namespace brainjax

#endif  // BRAINJAX_BLOCK_SELECT_CUH_
