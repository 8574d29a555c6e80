// Who fires in an area whose inputs lie in the shared memory of a team of blocks, each a strip.
//
// Each block posts its keys that are likely to win: those that the guess lets pass, a little below
// the smallest input of a winner of the last round. After one barrier every block finds the same
// threshold among what all posted. Where the guess was wrong, or one block has too many of the
// winners, the team selects from all keys.
#ifndef BRAINJAX_AREA_CHOICE_CUH_
#define BRAINJAX_AREA_CHOICE_CUH_

#include <cstdint>

#include "area_strip.cuh"
#include "assembly_core.h"
#include "team_select.cuh"

namespace brainjax {

constexpr uint32_t kZeroKey = 0x80000000u;  // of +0: no sum of inputs is -0

// A post is one line of memory: up to 31 keys in ascending order of their neurons, and how many.
constexpr int kPostWords = 32;
constexpr uint32_t kPostKeys = kPostWords - 1;
// Share of a guessed input by which it is lowered: 1 to 2 in 2^kGuessBits.
constexpr int kGuessBits = 5;

// What the blocks of a team tell each other about one brain, in scratch memory.
struct AreaScratch {
  uint32_t* posts;
  TeamScratch select;

  __device__ AreaScratch(const AreaRound& round, int64_t b, int team)
      : posts(round.scratch + b * round.scratch_size),
        select(posts + team * kPostWords, round.list_capacity) {}
};

// What a block keeps in shared memory while it chooses. Keys that were posted are candidates.
template <int kThreads>
struct ChoiceSpace {
  uint32_t own_keys[kPostKeys];  // what this block has posted
  int32_t own_columns[kPostKeys];
  uint32_t own_winners;  // of what this block has posted, a bit each
  WarpWords<kThreads> warps;
  Histogram<kThreads> histogram;
};

// Posts the keys of this block that reach the guess. Returns how many there are. The whole block
// calls it, without a barrier behind what wrote the keys: thread c % kThreads reads keys[c].
template <int kThreads>
__device__ uint32_t PostCandidates(const uint32_t* keys, int width, uint32_t guess,
                                   uint32_t* post, ChoiceSpace<kThreads>& space) {
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
      __stcg(post + place, key);
      space.own_keys[place] = key;
      space.own_columns[place] = c;
    }
    posted += reaching;
  }
  // Blocks read whole lines, before they know how many keys there are.
  const uint32_t word = threadIdx.x;
  if (word < kPostWords && (word >= posted || word == kPostKeys)) {
    __stcg(post + word, word == kPostKeys ? posted : 0);
  }
  __syncthreads();
  return posted;
}

// Lists the keys of all posts, in any order, each with its block. Returns how many there are, or 0
// if some post was too short. The whole block calls it, and waits.
template <int kThreads>
__device__ uint32_t ReadPosts(const uint32_t* posts, int team, uint32_t* keys, uint32_t* blocks,
                              ChoiceSpace<kThreads>& space) {
  constexpr int kWarps = kThreads / 32, kLines = 10;  // asked for at once
  constexpr uint32_t kTooShort = 1 << 16;             // beyond what all keys can be
  static_assert(kMaxTeam * kPostKeys < kTooShort);
  const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  uint32_t listed = 0;
  for (int first = 0, turn = 0; first < team; first += kLines * kWarps, ++turn) {
    uint32_t words[kLines], of_warp = 0, total;
#pragma unroll
    for (int i = 0; i < kLines; ++i) {
      const int r = first + warp + i * kWarps;
      words[i] = r < team ? __ldcg(posts + r * kPostWords + lane) : 0;
    }
#pragma unroll
    for (int i = 0; i < kLines; ++i) {
      const uint32_t count = __shfl_sync(kAllLanes, words[i], kPostKeys);
      of_warp += count > kPostKeys ? kTooShort : count;
    }
    uint32_t place = listed + space.warps.SumInFront(turn, of_warp, &total);
    listed += total;
    if (listed >= kTooShort) return 0;
#pragma unroll
    for (int i = 0; i < kLines; ++i) {
      const uint32_t count = __shfl_sync(kAllLanes, words[i], kPostKeys);
      if (lane < count) {
        keys[place + lane] = words[i];
        blocks[place + lane] = first + warp + i * kWarps;
      }
      place += count;
    }
  }
  __syncthreads();
  return listed;
}

// Writes a winner to the result, and to the strip's list.
__device__ inline void AddWinner(const AreaRound& round, int64_t b, uint32_t place, int32_t neuron,
                                 StripWinners winners) {
  round.indices[b * round.k + place] = neuron;
  round.values[b * round.k + place] = 1.0f;
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

// Of the keys that this block has posted, the winners; `n` are listed of all. One warp calls it.
template <int kThreads>
__device__ void AddPostedWinners(const AreaRound& round, const AreaStrip& strip, uint32_t rank,
                                 const uint32_t* keys, const uint32_t* blocks, uint32_t n,
                                 uint32_t posted, Threshold threshold,
                                 ChoiceSpace<kThreads>& space, StripWinners winners) {
  const uint32_t lane = threadIdx.x % 32;
  uint32_t above_before = 0, equal_before = 0;  // candidates of the blocks in front of this one
#pragma unroll 2
  for (uint32_t i = lane; i < n; i += 32) {
    const bool before = blocks[i] < rank;
    above_before += before && keys[i] > threshold.key;
    equal_before += before && keys[i] == threshold.key;
  }
  above_before = __reduce_add_sync(kAllLanes, above_before);
  equal_before = __reduce_add_sync(kAllLanes, equal_before);
  const bool exists = lane < posted;
  const uint32_t key = exists ? space.own_keys[lane] : 0;
  const bool above = exists && key > threshold.key, equal = exists && key == threshold.key;
  const uint32_t ties = equal_before + __popc(__ballot_sync(kAllLanes, equal) & LanesInFront());
  const uint32_t higher = above_before + __popc(__ballot_sync(kAllLanes, above) & LanesInFront());
  const bool wins = above || (equal && ties < threshold.ties);
  const uint32_t all = __ballot_sync(kAllLanes, wins);
  if (lane == 0) space.own_winners = all;
  if (!wins) return;
  AddWinner(round, strip.b, higher + min(ties, threshold.ties),
            static_cast<int32_t>(strip.begin + space.own_columns[lane]), winners);
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
    AddWinner(round, strip.b, place, static_cast<int32_t>(strip.begin + c), winners);
  });
  return true;
}

// The guess for this round from the least input of the last winners.
__device__ inline uint32_t GuessBound(uint32_t least) {
  constexpr uint32_t kMargin = 1u << (23 - kGuessBits);
  return least == ~0u || least < kMargin ? least : least - kMargin;
}

// Nobody, who is listed, or those of own_winners, who are listed as well.
enum class WhoFires { kNobody, kListed, kPosted };

// Who fires in the strip. `lists` has room for all posts twice, and for a TeamSelectSpace;
// meanwhile(columns, number) is called while the team meets, with who may win if winners are chosen
// among the posts. The whole block calls it, and waits afterwards.
template <int kThreads, typename Team, typename Meanwhile>
__device__ WhoFires ChooseWinners(const Team& team, const AreaRound& round, const AreaStrip& strip,
                                  uint32_t* keys, uint32_t guess, uint32_t* lists,
                                  ChoiceSpace<kThreads>& space, StripWinners winners,
                                  const Meanwhile& meanwhile) {
  const AreaScratch scratch(round, strip.b, team.size());
  const uint32_t k = static_cast<uint32_t>(round.k);
  const uint32_t posted = PostCandidates(keys, strip.Width(), guess,
                                         scratch.posts + team.rank() * kPostWords, space);
  team.Sync([&] {
    if (posted <= kPostKeys) meanwhile(space.own_columns, posted);
  });
  uint32_t* const blocks = lists + team.size() * kPostWords;
  const uint32_t n = ReadPosts(scratch.posts, team.size(), lists, blocks, space);
  // The guess was too high, or a block had too much to post.
  if (n < k) {
    return ChooseFromAll<kThreads, Team>(round, strip, keys, lists, winners) ? WhoFires::kListed
                                                                             : WhoFires::kNobody;
  }
  constexpr int kMostPosted = kMaxTeam * kPostKeys;
  // An assembly that has settled is all that reaches the guess.
  Threshold threshold{guess - 1, 0};
  if (n > k || guess <= kZeroKey) {
    threshold = FindThreshold<kMostPosted>(
        n, [lists](uint32_t i) { return lists[i]; }, {k, k, kZeroKey}, space.warps,
        space.histogram);
  }
  if (!Fires(threshold, k)) return WhoFires::kNobody;
  if (threadIdx.x < 32) {
    AddPostedWinners(round, strip, team.rank(), lists, blocks, n, posted, threshold, space,
                     winners);
  }
  return WhoFires::kPosted;
}

}  // namespace brainjax

#endif  // BRAINJAX_AREA_CHOICE_CUH_
