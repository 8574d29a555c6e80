// The k largest of the keys that a team of blocks holds, kThreads threads each.
//
//   const TeamThreshold found = SelectOfTeam(team, keys, count, 0, space, bits, scratch);
//   ForEachWinner(found, bits, space.block, [&](uint32_t place, int i) { ... });
//
// A team, one of team.cuh, has at most kMaxTeam blocks. Space, bits and scratch may hold anything.
// The scratch is free again when every block has come back: a team that selects twice without a
// barrier in between takes two in turn.
//
// How: blocks tell each other the maxima of groups of keys, whose count-th largest is a bound that
// at least `count` keys reach; then the few keys above it. Two barriers. Where there are too many
// winners for that, or too many ties above the bound, histograms find the threshold,
// a barrier each.
#ifndef BRAINJAX_TEAM_SELECT_CUH_
#define BRAINJAX_TEAM_SELECT_CUH_

#include <cstdint>

#include "team_scratch.cuh"

namespace brainjax {

struct TeamThreshold {
  Threshold threshold;
  Counts before;       // keys in the blocks in front of this one
  bool marked = true;  // who reaches it is marked by a bit, else listed
};

// What a team shares in the memory of each block while it selects.
template <typename Team, int kThreads>
struct SelectSpaceOf {
  using Type = TeamSelectSpace<kThreads>;
};

namespace team_select {

// How many maxima each block posts: enough for a bound close to the threshold, and 0 if the
// scratch cannot hold them.
template <int kThreads>
__device__ int MaximaPerBlock(int blocks, uint32_t count, uint32_t capacity) {
  int maxima = 4;
  while (maxima < kThreads && 2 * maxima * blocks <= capacity && 2 * maxima * blocks < 3 * count) {
    maxima *= 2;
  }
  const uint32_t all = maxima * blocks;
  return all <= capacity && 3 * count <= 2 * all ? maxima : 0;
}

// The largest keys of groups of threads. Each group is the threads that are `per_block` apart, so
// that few keys are spread over all. The block waits before it reads them.
template <int kThreads>
__device__ void GroupMaxima(uint32_t largest, int per_block, uint32_t* maxima) {
  const int group = threadIdx.x % per_block;
  if (threadIdx.x < per_block) maxima[group] = 0;
  __syncthreads();
  for (int distance = 16; distance >= per_block; distance /= 2) {
    largest = max(largest, __shfl_xor_sync(kAllLanes, largest, distance));
  }
  if (threadIdx.x % 32 < per_block) atomicMax(maxima + group, largest);
}

template <int kThreads, typename Team>
__device__ void PostMaxima(const Team& team, uint32_t largest, int per_block,
                           TeamSelectSpace<kThreads>& space, const TeamScratch& scratch) {
  uint32_t* const maxima = space.block.histogram.bins;
  GroupMaxima<kThreads>(largest, per_block, maxima);
  __syncthreads();
  if (threadIdx.x < per_block) {
    __stcg(scratch.maxima + team.rank() * per_block + threadIdx.x, maxima[threadIdx.x]);
  }
}

// What keys must exceed to be candidates: from the maxima of all blocks.
template <int kThreads>
__device__ Threshold BoundFromMaxima(uint32_t maxima, Wanted wanted,
                                     TeamSelectSpace<kThreads>& space,
                                     const TeamScratch& scratch) {
  return FindThreshold<kMaxTeamList>(
      maxima, [list = scratch.maxima](uint32_t i) { return __ldcg(list + i); }, wanted,
      space.block.warps, space.block.histogram);
}

// Lists the keys above the bound, appends them to the candidates and posts how many there are;
// `equal` and `lost` are posted as they are.
template <typename Team, typename Keys>
__device__ void PostCandidates(const Team& team, const Keys& block, uint32_t bound, uint32_t equal,
                               bool lost, TeamSelectSpace<Keys::kThreads>& space,
                               const TeamScratch& scratch) {
  constexpr uint32_t kRoom = Keys::kThreads;
  const uint32_t above = ListAbove(block, bound, space.block);
  const bool fits = above <= kRoom;
  if (threadIdx.x == 0) {
    WritePost(team, {{above, equal}, !fits, lost}, scratch);
    if (fits && above > 0) space.first_candidate = atomicAdd(scratch.list_size, above);
  }
  if (!fits || above == 0) return;
  __syncthreads();
  const uint32_t slot = space.first_candidate + threadIdx.x;
  if (threadIdx.x < above && slot < scratch.capacity) {
    __stcg(scratch.candidates + slot,
           make_uint2(space.block.keys[threadIdx.x], static_cast<uint32_t>(team.rank())));
  }
}

// The first candidates of this thread, asked for before it is known how many there are: those that
// are not there have key 0.
template <int kThreads>
struct FirstCandidates {
  uint2 of_thread[kFewValues<kThreads>];

  // Before the barrier in front of the first list.
  template <typename Team>
  __device__ static void Clear(const Team& team, const TeamScratch& scratch) {
    const uint32_t all = min(scratch.capacity, uint32_t{kFewValues<kThreads> * kThreads});
    for (uint32_t i = team.rank() * kThreads + threadIdx.x; i < all; i += team.size() * kThreads) {
      __stcg(scratch.candidates + i, make_uint2(0, 0));
    }
  }

  __device__ explicit FirstCandidates(const TeamScratch& scratch) {
#pragma unroll
    for (int i = 0; i < kFewValues<kThreads>; ++i) {
      const uint32_t place = threadIdx.x + i * kThreads;
      of_thread[i] = make_uint2(0, 0);
      if (place < scratch.capacity) of_thread[i] = __ldcg(scratch.candidates + place);
    }
  }
};

// The threshold among the candidates of all blocks, and the counts of those in front.
template <int kThreads, typename Team>
__device__ TeamThreshold FindAmongCandidates(const Team& team,
                                             const FirstCandidates<kThreads>& first,
                                             uint32_t candidates, uint32_t count,
                                             uint32_t exact_up_to,
                                             TeamSelectSpace<kThreads>& space,
                                             const TeamScratch& scratch) {
  constexpr int kFew = kFewValues<kThreads>, kMost = kMaxTeamList / kThreads;
  const Wanted wanted{count, count, exact_up_to};
  const auto load = [list = scratch.candidates](uint32_t i) { return __ldcg(list + i).x; };
  Values<kFew> values;
#pragma unroll
  for (int i = 0; i < kFew; ++i) {
    values.of_thread[i] = first.of_thread[i].x;
  }
  auto& warps = space.block.warps;
  Threshold found;
  if (candidates <= kThreads) {
    found = BisectInBlock(
        kThreads, [&](uint32_t) { return values.of_thread[0]; }, wanted, warps);
  } else if (kMost <= kFew || candidates <= kFew * kThreads) {
    found = FindAmongFew(values, wanted, warps, space.block.histogram);
  } else {
    found = FindAmongMany<kMost>(candidates, load, wanted, warps, space.block.histogram);
  }
  uint32_t above = 0, equal = 0;
  const auto count_in_front = [&](uint32_t key, uint32_t rank) {
    const bool in_front = key > 0 && rank < static_cast<uint32_t>(team.rank());
    above += in_front && key > found.key;
    equal += in_front && key == found.key;
  };
#pragma unroll
  for (int i = 0; i < kFew; ++i) count_in_front(values.of_thread[i], first.of_thread[i].y);
#pragma unroll 1
  for (uint32_t i = threadIdx.x + kFew * kThreads; i < candidates; i += kThreads) {
    const uint2 candidate = __ldcg(scratch.candidates + i);
    count_in_front(candidate.x, candidate.y);
  }
  static_assert(kMaxTeamList < 1 << 16, "counts of candidates have 16 bits");
  const uint32_t packed = warps.Sum(0, __reduce_add_sync(kAllLanes, above << 16 | equal));
  return {found, {packed >> 16, packed & 0xffffu}, false};
}

// The threshold at or above a bound that `above` keys of all blocks exceed, found among all keys by
// histograms, or the bound itself. Marks who reaches it. The histograms have been cleared.
template <typename Team, typename Keys>
__device__ TeamThreshold FindAmongAllKeys(const Team& team, const Keys& block, uint32_t bound,
                                          uint32_t above, uint32_t count,
                                          TeamSelectSpace<Keys::kThreads>& space,
                                          const PlaceBits& bits, const TeamScratch& scratch) {
  Threshold threshold{bound, count - above};
  // With count > above, a block may post again below while others still read the first posts: of
  // those they use here only how many are above the bound, which both posts tell alike.
  if (count <= above) {
    team.Sync();  // all have read the posts, which will be others
    threshold = FindByHistograms(team, block, {bound + 1, ~0u}, count, space, scratch);
  }
  MarkAll(block, threshold, bits);
  const Counts mine = CountMarked(bits, space.block);
  if (threadIdx.x == 0) WritePost(team, {mine, 0, 0}, scratch);
  team.Sync();
  return {threshold, ReadPosts(team, space, scratch).before};
}

// The same where all blocks have posted at the bound; they lost nothing.
template <typename Team, typename Keys>
__device__ TeamThreshold FindAtBound(const Team& team, const Keys& block, uint32_t bound,
                                     const FirstCandidates<Keys::kThreads>& first,
                                     const Posts& posts, uint32_t count, uint32_t exact_up_to,
                                     TeamSelectSpace<Keys::kThreads>& space,
                                     const PlaceBits& bits, const TeamScratch& scratch) {
  if (count > posts.all.above || posts.unlisted > 0 || posts.all.above > scratch.capacity) {
    return FindAmongAllKeys(team, block, bound, posts.all.above, count, space, bits, scratch);
  }
  return FindAmongCandidates(team, first, posts.all.above, count, exact_up_to, space, scratch);
}

}  // namespace team_select

// Calls use(place, i) for the winners of this block in ascending order of their places i.
template <int kThreads, typename Use>
__device__ void ForEachWinner(const TeamThreshold& found, const PlaceBits& bits,
                              BlockSelectSpace<kThreads>& space, Use use) {
  if (found.marked) {
    ForEachMarked(bits, found.threshold.ties, found.before, space, use);
  } else {
    ForEachListed(found.threshold, found.before, space, use);
  }
}

// Where no key exceeds `exact_up_to`, the key of the threshold is that of the last winner.
template <typename Team, typename Keys>
__device__ TeamThreshold SelectOfTeam(const Team& team, const Keys& block, uint32_t count,
                                      uint32_t exact_up_to,
                                      TeamSelectSpace<Keys::kThreads>& space,
                                      const PlaceBits& bits, const TeamScratch& scratch) {
  using namespace team_select;
  constexpr int kThreads = Keys::kThreads;
  const int per_block = MaximaPerBlock<kThreads>(team.size(), count, scratch.capacity);
  ClearScratch(team, scratch);
  FirstCandidates<kThreads>::Clear(team, scratch);
  if (per_block > 0) PostMaxima(team, block.largest, per_block, space, scratch);
  team.Sync();
  Threshold bound{0, 0};
  if (per_block > 0) {
    bound = BoundFromMaxima(per_block * team.size(), LooseBound(count), space, scratch);
  }
  PostCandidates(team, block, bound.key, 0, false, space, scratch);
  team.Sync();
  const FirstCandidates<kThreads> first(scratch);
  const Posts posts = ReadPosts(team, space, scratch);
  return FindAtBound(team, block, bound.key, first, posts, count, exact_up_to, space, bits,
                     scratch);
}

}  // namespace brainjax

#endif  // BRAINJAX_TEAM_SELECT_CUH_
