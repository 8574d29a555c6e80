// Who fires in an area whose inputs lie in the shared memory of a team of blocks, each a strip.
//
// Each block posts its keys that are likely to win: those that the guess lets pass, a little below
// the smallest input of a winner of the last round. Every block finds the same threshold among what
// all have posted. Where the guess was wrong, or one block has too many of the winners, the team
// selects from all keys.
#ifndef BRAINJAX_AREA_CHOICE_CUH_
#define BRAINJAX_AREA_CHOICE_CUH_

#include <cstdint>

#include "area_posts.cuh"
#include "area_strip.cuh"
#include "assembly_core.h"
#include "team_select.cuh"

namespace brainjax {

// Share of a guessed input by which it is lowered: 1 to 2 in 2^kGuessBits.
constexpr int kGuessBits = 5;

// What the blocks of a team tell each other about one brain, in scratch memory.
struct AreaScratch {
  AreaPosts posts;
  TeamScratch select;

  __device__ AreaScratch(const AreaRound& round, int64_t b, int team)
      : posts{round.scratch + b * round.scratch_size},
        select(round.scratch + b * round.scratch_size + AreaPosts::Words(team),
               round.list_capacity) {}
};

// What a block keeps in shared memory while it chooses. Keys that were posted are candidates.
template <int kThreads>
struct ChoiceSpace {
  uint32_t own_keys[kPostKeys];  // what this block has posted
  int32_t own_columns[kPostKeys];
  uint32_t own_winners;  // of what this block has posted, a bit each
  PostedRanges ranges;
  WarpWords<kThreads> warps;
  Histogram<kThreads> histogram;
};

// Posts the keys of this block that reach the guess. Returns how many there are. The whole block
// calls it, without a barrier behind what wrote the keys: thread c % kThreads reads keys[c].
template <int kThreads>
__device__ uint32_t PostCandidates(const uint32_t* keys, int width, uint32_t guess, int rank,
                                   const AreaPosts& posts, ChoiceSpace<kThreads>& space) {
  uint32_t posted = 0;
  for (int first = 0, turn = 0; first < width; first += kThreads, ++turn) {
    const int c = first + threadIdx.x;
    const uint32_t key = c < width ? keys[c] : 0;
    const bool reaches = c < width && key >= guess;
    const uint32_t lanes = __ballot_sync(kAllLanes, reaches);
    uint32_t reaching;
    const uint32_t before = space.warps.SumInFront(turn, __popc(lanes), &reaching);
    const uint32_t place = posted + before + __popc(lanes & LanesInFront());
    if (reaches && place < kPostKeys) {
      posts.WriteKey(rank, place, key);
      space.own_keys[place] = key;
      space.own_columns[place] = c;
    }
    posted += reaching;
  }
  if (threadIdx.x == 0) posts.WriteCount(rank, posted);
  __syncthreads();
  return posted;
}

// Writes a winner to the result, and to the strip's list.
__device__ inline void AddWinner(const AreaRound& round, const AreaStrip& strip, uint32_t place,
                                 int column, StripWinners winners) {
  const int32_t neuron = static_cast<int32_t>(strip.begin + column);
  round.indices[strip.b * round.k + place] = neuron;
  round.values[strip.b * round.k + place] = 1.0f;
  winners.Add(neuron, 1.0f);
}

// The area keeps its winners: the strip's are listed, and one block copies all of them.
__device__ inline void KeepWinners(const AreaRound& round, const AreaStrip& strip, bool copies,
                                   StripWinners winners) {
  const int64_t start = strip.b * round.k;
  const int64_t count = ClampCount(round.old_counts[strip.b], round.k);
  for (int64_t i = threadIdx.x; i < round.k; i += blockDim.x) {
    const int32_t neuron = round.old_indices[start + i];
    const float value = round.old_values[start + i];
    const bool own = strip.begin <= neuron && neuron < strip.end;
    if (i < count && own) winners.Add(neuron, value);
    if (copies) {
      round.indices[start + i] = neuron;
      round.values[start + i] = value;
    }
  }
  if (copies && threadIdx.x == 0) round.counts[strip.b] = round.old_counts[strip.b];
}

// Without input all sums are 0, and nobody fires.
__device__ inline bool Fires(Threshold threshold, uint32_t k) {
  return threshold.key != kZeroKey || threshold.ties < k;
}

// Writes how many fire; where that is nobody, their list as well. One block calls it.
__device__ inline void WriteCount(const AreaRound& round, int64_t b, bool fires) {
  if (threadIdx.x == 0) round.counts[b] = fires ? static_cast<int32_t>(round.k) : 0;
  for (int64_t i = threadIdx.x; !fires && i < round.k; i += blockDim.x) {
    round.indices[b * round.k + i] = static_cast<int32_t>(round.num_post);
    round.values[b * round.k + i] = 0.0f;
  }
}

// Of the keys that this block has posted, the winners, a bit each; `list` has those of all, this
// block's behind `in_front` others. One warp calls it.
template <int kThreads>
__device__ uint32_t AddPostedWinners(const AreaRound& round, const AreaStrip& strip,
                                     const uint32_t* list, uint32_t in_front, uint32_t posted,
                                     Threshold threshold, const ChoiceSpace<kThreads>& space,
                                     StripWinners winners) {
  const uint32_t lane = threadIdx.x % 32;
  uint32_t above_before = 0, equal_before = 0;  // candidates of the blocks in front of this one
#pragma unroll 2
  for (uint32_t i = lane; i < in_front; i += 32) {
    above_before += list[i] > threshold.key;
    equal_before += list[i] == threshold.key;
  }
  above_before = __reduce_add_sync(kAllLanes, above_before);
  equal_before = __reduce_add_sync(kAllLanes, equal_before);
  const bool exists = lane < posted;
  const uint32_t key = exists ? space.own_keys[lane] : 0;
  const bool above = exists && key > threshold.key, equal = exists && key == threshold.key;
  const uint32_t ties = equal_before + __popc(__ballot_sync(kAllLanes, equal) & LanesInFront());
  const uint32_t higher = above_before + __popc(__ballot_sync(kAllLanes, above) & LanesInFront());
  const bool wins = above || (equal && ties < threshold.ties);
  if (wins) {
    AddWinner(round, strip, higher + min(ties, threshold.ties), space.own_columns[lane], winners);
  }
  return __ballot_sync(kAllLanes, wins);
}

// Selects from all keys of the team. Returns whether anybody fires.
template <int kThreads, typename Team>
__device__ __noinline__ bool ChooseFromAll(const AreaRound& round, const AreaStrip& strip,
                                           uint32_t* keys, void* memory, StripWinners winners) {
  const Team team;
  const AreaScratch scratch(round, strip.b, team.size());
  auto& space = *static_cast<TeamSelectSpace<kThreads>*>(memory);
  const auto block = KeysOfList<kThreads>(keys, strip.Width());
  const PlaceBits bits(reinterpret_cast<uint32_t*>(&space + 1), block.Places());
  const uint32_t k = static_cast<uint32_t>(round.k);
  const TeamThreshold found = SelectOfTeam(team, block, k, kZeroKey, space, bits, scratch.select);
  if (!Fires(found.threshold, k)) return false;
  ForEachWinner(found, bits, space.block, [&](uint32_t place, int c) {
    AddWinner(round, strip, place, c, winners);
  });
  return true;
}

// The guess for this round from the least input of the last winners.
__device__ inline uint32_t GuessBound(uint32_t least) {
  constexpr uint32_t kMargin = 1u << (23 - kGuessBits);
  return least == ~0u || least < kMargin ? least : least - kMargin;
}

// Who fires in a strip: nobody; who is listed; or those of the keys that its block has posted whose
// bit is set, who are listed as well, but maybe not yet.
struct Chosen {
  enum { kNobody, kListed, kPosted } who;
  uint32_t posted;
};

// Who fires in the strip. The posts were cleared before the team met. `list` has room for all posts
// and for a TeamSelectSpace; meanwhile(columns, number) is called while posts are on their way,
// with who may win if winners are chosen among them. The whole block calls it, and waits
// afterwards, unless it has to know no more than what is returned.
template <int kThreads, typename Team, typename Meanwhile>
__device__ Chosen ChooseWinners(const Team& team, const AreaRound& round, const AreaStrip& strip,
                                uint32_t* keys, uint32_t guess, uint32_t* list,
                                ChoiceSpace<kThreads>& space, StripWinners winners,
                                const Meanwhile& meanwhile) {
  const AreaPosts posts = AreaScratch(round, strip.b, team.size()).posts;
  const uint32_t k = static_cast<uint32_t>(round.k);
  const uint32_t own = PostCandidates(keys, strip.Width(), guess, team.rank(), posts, space);
  if (own <= kPostKeys) meanwhile(space.own_columns, own);
  const Posted posted = posts.Count(team, space.warps);
  // The guess was too high, or a block had too much to post.
  if (posted.all < k) {
    const bool fires = ChooseFromAll<kThreads, Team>(round, strip, keys, list, winners);
    return {fires ? Chosen::kListed : Chosen::kNobody, 0};
  }
  // An assembly that has settled is all that reaches the guess.
  if (posted.all == k && guess > kZeroKey) {
    if (threadIdx.x < own) {
      AddWinner(round, strip, posted.in_front + threadIdx.x, space.own_columns[threadIdx.x],
                winners);
    }
    return {Chosen::kPosted, static_cast<uint32_t>((uint64_t{1} << own) - 1)};
  }
  constexpr int kMostPosted = kMaxTeam * kPostKeys;
  posts.List(team.size(), posted, list, space.warps, space.ranges);
  const Threshold threshold = FindThreshold<kMostPosted>(
      posted.all, [list](uint32_t i) { return list[i]; }, {k, k, kZeroKey}, space.warps,
      space.histogram);
  if (!Fires(threshold, k)) return {Chosen::kNobody, 0};
  if (threadIdx.x < 32) {
    const uint32_t all =
        AddPostedWinners(round, strip, list, posted.in_front, own, threshold, space, winners);
    if (threadIdx.x == 0) space.own_winners = all;
  }
  __syncthreads();
  return {Chosen::kPosted, space.own_winners};
}

}  // namespace brainjax

#endif  // BRAINJAX_AREA_CHOICE_CUH_
