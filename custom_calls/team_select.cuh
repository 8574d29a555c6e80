// The k largest of the keys that a team of blocks holds, each block an ascending range of them in
// its shared memory.
//
//   __shared__ TeamSelectSpace<kThreads> space;       // 52 KB with 1024 threads: dynamic memory
//   const TeamScratch scratch(words, list_capacity);  // global, TeamScratch::Words of it
//   const OwnKeys<kThreads> own(keys, n_of_block);    // 0 <= n_of_block < 65,536
//   const TeamThreshold found = FindTeamThreshold(team, own, count, space, scratch);
//   ForEachWinner(own, found.threshold, found.before, space.block, [&](uint32_t place, int i) {});
//
// All threads of all blocks make these calls, with 1 <= count <= the keys of all blocks. A team
// has rank(), size() <= kMaxTeam and Sync(), a barrier after which each block sees what the others
// wrote. Space and scratch may hold anything. The scratch is free again when every block has come
// back: a team that selects twice without a barrier in between takes two scratches in turn.
//
// How: blocks tell each other the maxima of groups of keys, whose count-th largest is a bound that
// at least `count` keys reach; then the few keys above it. Two barriers. What the lists cannot hold
// (many winners, ties above the bound) is narrowed by histograms first, a barrier each.
#ifndef BRAINJAX_TEAM_SELECT_CUH_
#define BRAINJAX_TEAM_SELECT_CUH_

#include <cstdint>

#include "block_select.cuh"

namespace brainjax {

constexpr int kMaxTeam = 256;
constexpr int kMaxTeamList = 9728;  // maxima or candidates that a block reads

struct TeamThreshold {
  Threshold threshold;
  Counts before;  // keys in the blocks in front of this one
};

// What the blocks of a team tell each other.
struct TeamScratch {
  static constexpr int kBins = 1024;
  struct Post {
    uint32_t first_candidate;
    uint32_t above, members, equal;  // keys above the interval, in it, just below it
  };
  uint32_t* list_sizes;  // one a list: of the first interval, of the narrowed one
  uint32_t* histograms;  // three in turn: one is read, one filled, one cleared
  uint4* posts;          // a Post of each block
  uint32_t* maxima;
  uint2* candidates;     // key and rank
  uint32_t capacity;     // of the two lists

  __host__ __device__ static int64_t Words(int64_t capacity) {
    return 4 + 3 * kBins + 4 * kMaxTeam + 3 * capacity;
  }

  // `words` is 16-byte aligned, `capacity` even and at most kMaxTeamList.
  __device__ TeamScratch(uint32_t* words, int capacity)
      : list_sizes(words),
        histograms(words + 4),
        posts(reinterpret_cast<uint4*>(histograms + 3 * kBins)),
        maxima(histograms + 3 * kBins + 4 * kMaxTeam),
        candidates(reinterpret_cast<uint2*>(maxima + capacity)),
        capacity(capacity) {}
};

namespace team_select {

using Post = TeamScratch::Post;

struct Totals {
  uint32_t above_before, members_before, equal_before;  // of the blocks in front of this one
  uint32_t above, members, equal;                       // of all
};

}  // namespace team_select

template <int kThreads>
struct TeamSelectSpace {
  BlockSelectSpace<kThreads> block;
  uint32_t shifts[kMaxTeam];  // from a candidate's place in scratch to that in the order of ranks
  uint32_t above[32], members[32], equal[32];  // of the warps
  team_select::Totals totals[kMaxTeam / 32];   // of the ranks that a warp reads
  uint32_t first_candidate;
  // The last member: with a smaller scratch the space may end after as many words as that lists.
  alignas(16) uint32_t list[kMaxTeamList];
};

namespace team_select {

// How many maxima each block posts: enough for a bound close to the threshold, and 0 if the
// scratch cannot hold them.
template <int kThreads>
__device__ int MaximaPerBlock(int blocks, uint32_t count, uint32_t capacity) {
  int maxima = kThreads / 32;
  while (maxima < kThreads && 2 * maxima * blocks <= capacity && maxima * blocks < 3 * count) {
    maxima *= 2;
  }
  const uint32_t all = maxima * blocks;
  return all <= capacity && 2 * count <= all ? maxima : 0;
}

template <int kThreads, typename Team>
__device__ void PostMaxima(const Team& team, uint32_t largest, int per_block,
                           const TeamScratch& scratch) {
  const int width = kThreads / per_block;
  for (int lanes = 1; lanes < width; lanes *= 2) {
    largest = max(largest, __shfl_xor_sync(kAllLanes, largest, lanes));
  }
  if (threadIdx.x % width == 0) {
    __stcg(scratch.maxima + team.rank() * per_block + threadIdx.x / width, largest);
  }
}

// A key that at least `count` keys of the team reach: from the maxima of all blocks.
template <int kThreads>
__device__ uint32_t BoundFromMaxima(int maxima, uint32_t count, TeamSelectSpace<kThreads>& space,
                                    const TeamScratch& scratch) {
  block_select::Clear(space.block);
  uint32_t least = ~0u, largest = 0;
  for (int i = threadIdx.x; i < maxima; i += kThreads) {  // a thread sees its own items only
    const uint32_t item = __ldcg(scratch.maxima + i);
    space.list[i] = item;
    // A group without keys has maximum 0; it must not widen the bins.
    least = min(least, item > 0 ? item : ~0u), largest = max(largest, item);
  }
  Interval<kThreads> interval = block_select::Extremes(least, largest, space.block);
  interval.low = min(interval.low, interval.high);
  return block_select::Bound(interval, count, space.block, [&](auto use) {
    for (int i = threadIdx.x; i < maxima; i += kThreads) use(space.list[i]);
  });
}

// Posts the counts of a block: how many keys lie above an interval, in it and just below it. Those
// in it are appended to the candidates if they are `listed`.
template <int kThreads, typename Team>
__device__ void PostMembers(const Team& team, const OwnKeys<kThreads>& own,
                            Interval<kThreads> interval, Counts above_and_equal, bool listed,
                            int list, TeamSelectSpace<kThreads>& space,
                            const TeamScratch& scratch) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  uint32_t mask, in_warp;
  const uint32_t members = own.CountIn(interval, &mask);
  const uint32_t in_front = WarpExclusiveSum(members, &in_warp);
  const uint32_t above = __reduce_add_sync(kAllLanes, above_and_equal.above);
  const uint32_t equal = __reduce_add_sync(kAllLanes, above_and_equal.equal);
  if (lane == 0) {
    space.above[warp] = above, space.members[warp] = in_warp, space.equal[warp] = equal;
  }
  __syncthreads();
  const bool exists = lane < kThreads / 32;
  const uint32_t of_lane = exists ? space.members[lane] : 0;
  if (warp == 0) {
    const Post post{0, __reduce_add_sync(kAllLanes, exists ? space.above[lane] : 0),
                    __reduce_add_sync(kAllLanes, of_lane),
                    __reduce_add_sync(kAllLanes, exists ? space.equal[lane] : 0)};
    if (lane == 0) {
      uint32_t first = 0;
      if (listed && post.members > 0) first = atomicAdd(scratch.list_sizes + list, post.members);
      space.first_candidate = first;
      __stcg(scratch.posts + team.rank(), make_uint4(first, post.above, post.members, post.equal));
    }
  }
  if (!listed) return;
  uint32_t place = __reduce_add_sync(kAllLanes, lane < warp ? of_lane : 0) + in_front;
  __syncthreads();
  place += space.first_candidate;
  own.ForEachIn(interval, mask, [&](int i) {
    if (place < scratch.capacity) {
      __stcg(scratch.candidates + place,
             make_uint2(own.keys[i], static_cast<uint32_t>(team.rank())));
    }
    ++place;
  });
}

// Sums up the posts; `space.shifts` then orders the candidates by rank.
template <int kThreads, typename Team>
__device__ Totals SumPosts(const Team& team, TeamSelectSpace<kThreads>& space,
                           const TeamScratch& scratch) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, rank = threadIdx.x;
  constexpr int kWarps = kMaxTeam / 32;  // that read posts
  if (warp < kWarps) {
    uint4 post = make_uint4(0, 0, 0, 0);
    if (rank < team.size()) post = __ldcg(scratch.posts + rank);
    const bool in_front = rank < team.rank();
    const uint32_t through_here = WarpInclusiveSum(post.z);
    space.shifts[rank] = through_here - post.z - post.x;  // within the warp
    const Totals sums{__reduce_add_sync(kAllLanes, in_front ? post.y : 0),
                      __reduce_add_sync(kAllLanes, in_front ? post.z : 0),
                      __reduce_add_sync(kAllLanes, in_front ? post.w : 0),
                      __reduce_add_sync(kAllLanes, post.y),
                      __reduce_add_sync(kAllLanes, post.z),
                      __reduce_add_sync(kAllLanes, post.w)};
    if (lane == 0) space.totals[warp] = sums;
  }
  __syncthreads();
  Totals of_lane{};
  if (lane < kWarps) of_lane = space.totals[lane];
  return {__reduce_add_sync(kAllLanes, of_lane.above_before),
          __reduce_add_sync(kAllLanes, of_lane.members_before),
          __reduce_add_sync(kAllLanes, of_lane.equal_before),
          __reduce_add_sync(kAllLanes, of_lane.above),
          __reduce_add_sync(kAllLanes, of_lane.members),
          __reduce_add_sync(kAllLanes, of_lane.equal)};
}

// The threshold among the listed candidates.
template <int kThreads>
__device__ TeamThreshold FindAmongCandidates(Totals totals, uint32_t remaining,
                                             TeamSelectSpace<kThreads>& space,
                                             const TeamScratch& scratch) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const uint32_t of_lane = lane < kMaxTeam / 32 ? space.totals[lane].members : 0;
  const uint32_t in_front = WarpInclusiveSum(of_lane) - of_lane;  // of the lane's ranks
  for (uint32_t i = threadIdx.x; i - lane < totals.members; i += kThreads) {
    uint2 candidate = make_uint2(0, 0);
    if (i < totals.members) candidate = __ldcg(scratch.candidates + i);
    const uint32_t shift =
        space.shifts[candidate.y] + __shfl_sync(kAllLanes, in_front, candidate.y / 32);
    if (i < totals.members) space.list[i + shift] = candidate.x;
  }
  __syncthreads();
  const Threshold threshold =
      FindThreshold(OwnKeys<kThreads>(space.list, totals.members), remaining, space.block);
  uint32_t above = 0, equal = 0;
  for (uint32_t i = threadIdx.x; i < totals.members_before; i += kThreads) {
    above += space.list[i] > threshold.key;
    equal += space.list[i] == threshold.key;
  }
  above = __reduce_add_sync(kAllLanes, above);
  equal = __reduce_add_sync(kAllLanes, equal);
  if (lane == 0) space.above[warp] = above, space.equal[warp] = equal;
  __syncthreads();
  const bool exists = lane < kThreads / 32;
  above = __reduce_add_sync(kAllLanes, exists ? space.above[lane] : 0);
  equal = __reduce_add_sync(kAllLanes, exists ? space.equal[lane] : 0);
  return {threshold, {totals.above_before + above, equal}};
}

// Finds the threshold if it is the key just below the interval, the only key in it, or among
// candidates few enough to be listed.
template <int kThreads, typename Team>
__device__ bool FindInInterval(const Team& team, const OwnKeys<kThreads>& own,
                               Interval<kThreads> interval, uint32_t remaining, int list,
                               TeamSelectSpace<kThreads>& space, const TeamScratch& scratch,
                               TeamThreshold* found) {
  const bool one_key = interval.low == interval.high;
  Counts others{0, 0};
  uint32_t mask;
  if (interval.high < ~0u) others.above = own.CountIn({interval.high + 1, ~0u}, &mask);
  if (interval.low > 0) {
    others.equal = own.CountIn({interval.low - 1, ~0u}, &mask);
    others.equal -= own.CountIn({interval.low, ~0u}, &mask);
  }
  PostMembers(team, own, interval, others, !one_key, list, space, scratch);
  team.Sync();
  const Totals totals = SumPosts(team, space, scratch);
  if (totals.members < remaining) {
    *found = {{interval.low - 1, remaining - totals.members},
              {totals.above_before + totals.members_before, totals.equal_before}};
  } else if (one_key) {
    *found = {{interval.low, remaining}, {totals.above_before, totals.members_before}};
  } else if (totals.members <= scratch.capacity) {
    *found = FindAmongCandidates(totals, remaining, space, scratch);
  } else {
    return false;
  }
  return true;
}

// Cuts the interval by histograms over all blocks until it holds `enough` keys or is one key.
template <int kThreads, typename Team, typename Keys>
__device__ Interval<kThreads> Narrow(const Team& team, const Keys& keys,
                                     Interval<kThreads> interval, uint32_t enough,
                                     uint32_t* remaining, BlockSelectSpace<kThreads>& space,
                                     const TeamScratch& scratch) {
  static_assert(kThreads <= TeamScratch::kBins, "a thread looks after one bin");
  __syncthreads();
  space.bins[threadIdx.x] = 0;
  for (int round = 0; interval.low < interval.high; ++round) {
    uint32_t* histogram = scratch.histograms + round % 3 * TeamScratch::kBins;
    uint32_t* next = scratch.histograms + (round + 1) % 3 * TeamScratch::kBins;
    __syncthreads();
    keys.ForEach([&](int64_t, uint32_t key) {
      if (interval.Contains(key)) atomicAdd(&space.bins[interval.BinOf(key)], 1);
    });
    __syncthreads();
    const uint32_t members = space.bins[threadIdx.x];
    if (members > 0) atomicAdd(histogram + threadIdx.x, members);
    if (team.rank() == 0) __stcg(next + threadIdx.x, 0u);
    team.Sync();
    space.bins[threadIdx.x] = __ldcg(histogram + threadIdx.x);
    const auto choice = block_select::ChooseBin(*remaining, space);
    interval = interval.Bin(choice.bin);
    *remaining -= choice.above;
    if (choice.members <= enough) break;
  }
  return interval;
}

// The threshold in an interval that may hold too many keys to be listed.
template <int kThreads, typename Team>
__device__ TeamThreshold FindByNarrowing(const Team& team, const OwnKeys<kThreads>& own,
                                         Interval<kThreads> interval, uint32_t count,
                                         TeamSelectSpace<kThreads>& space,
                                         const TeamScratch& scratch) {
  uint32_t remaining = count;
  interval = Narrow(team, own, interval, scratch.capacity, &remaining, space.block, scratch);
  TeamThreshold found;
  FindInInterval(team, own, interval, remaining, 1, space, scratch, &found);
  return found;
}

// Before the barrier in front of the first list and the first histogram.
template <typename Team>
__device__ void ClearScratch(const Team& team, const TeamScratch& scratch) {
  if (team.rank() > 0) return;
  __stcg(scratch.histograms + threadIdx.x, 0u);
  if (threadIdx.x < 2) __stcg(scratch.list_sizes + threadIdx.x, 0u);
}

}  // namespace team_select

template <int kThreads, typename Team>
__device__ TeamThreshold FindTeamThreshold(const Team& team, const OwnKeys<kThreads>& own,
                                           uint32_t count, TeamSelectSpace<kThreads>& space,
                                           const TeamScratch& scratch) {
  using namespace team_select;
  const int per_block = MaximaPerBlock<kThreads>(team.size(), count, scratch.capacity);
  ClearScratch(team, scratch);
  if (per_block > 0) PostMaxima<kThreads>(team, own.largest, per_block, scratch);
  team.Sync();
  Interval<kThreads> interval{0, ~0u};
  if (per_block > 0) {
    const uint32_t bound = BoundFromMaxima(per_block * team.size(), count, space, scratch);
    interval.low = max(bound + 1, bound);  // the largest key has none above
    TeamThreshold found;
    if (FindInInterval(team, own, interval, count, 0, space, scratch, &found)) return found;
  }
  return FindByNarrowing(team, own, interval, count, space, scratch);
}

}  // namespace brainjax

#endif  // BRAINJAX_TEAM_SELECT_CUH_
