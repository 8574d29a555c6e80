// The k largest of the keys that a team of blocks holds, kThreads threads each.
//
//   const TeamThreshold found = SelectOfTeam(team, keys, count, 0, space, bits, scratch);
//   ForEachWinner(bits, found.threshold.ties, found.before, space.block, ...);
//
// Team has rank(), size() <= kMaxTeam and Sync(), a barrier after which each block sees what the
// others wrote. Space, bits and scratch may hold anything. The scratch is free again when every
// block has come back: a team that selects twice without a barrier in between takes two in turn.
//
// How: blocks tell each other the maxima of groups of keys, whose count-th largest is a bound that
// at least `count` keys reach; then the few keys above it. Two barriers. Where there are too many
// winners for that, or too many ties above the bound, histograms find the threshold, a barrier each.
#ifndef BRAINJAX_TEAM_SELECT_CUH_
#define BRAINJAX_TEAM_SELECT_CUH_

#include <cstdint>

#include "block_select.cuh"

namespace brainjax {

constexpr int kMaxTeam = 256;
constexpr int kMaxTeamList = 8192;  // maxima or candidates that a block reads

struct TeamThreshold {
  Threshold threshold;
  Counts before;  // keys in the blocks in front of this one
};

// What the blocks of a team tell each other.
struct TeamScratch {
  static constexpr int kBins = 1024;
  uint32_t* list_size;   // of the candidates
  uint32_t* histograms;  // three in turn: one is read, one filled, one cleared
  uint4* posts;          // of each block
  uint32_t* maxima;
  uint2* candidates;     // key and rank
  uint32_t capacity;     // of the two lists

  __host__ __device__ static int64_t Words(int64_t capacity) {
    return 4 + 3 * kBins + 4 * kMaxTeam + 3 * capacity;
  }

  // `words` is 16-byte aligned, `capacity` even and at most kMaxTeamList.
  __device__ TeamScratch(uint32_t* words, int capacity)
      : list_size(words),
        histograms(words + 4),
        posts(reinterpret_cast<uint4*>(histograms + 3 * kBins)),
        maxima(histograms + 3 * kBins + 4 * kMaxTeam),
        candidates(reinterpret_cast<uint2*>(maxima + capacity)),
        capacity(capacity) {}
};

namespace team_select {

// What a block tells of its keys and a threshold.
struct Post {
  Counts counts;
  uint32_t unlisted;  // 1 if the keys above are more than it could list
  uint32_t lost;      // 1 if they are more than it could keep
};

struct Posts {
  Counts before, all;  // of the blocks in front of this one, of all
  uint32_t unlisted, lost;
};

// Consecutive keys, cut into bins of equal width.
template <int kBins>
struct Bins {
  Interval keys;

  __device__ int Shift() const {
    constexpr int kBits = 31 - __builtin_clz(kBins);
    return max(32 - __clz(keys.high - keys.low) - kBits, 0);
  }
  __device__ bool Contain(uint32_t key) const { return keys.low <= key && key <= keys.high; }
  __device__ uint32_t Of(uint32_t key) const { return (key - keys.low) >> Shift(); }
  __device__ Interval operator[](uint32_t bin) const {
    const uint32_t first = keys.low + (bin << Shift()), last = first + ((1u << Shift()) - 1);
    return {first, last < first || last > keys.high ? keys.high : last};
  }
};

struct Choice {
  uint32_t bin;
  uint32_t above;  // keys in the bins above
};

}  // namespace team_select

template <int kThreads>
struct TeamSelectSpace {
  BlockSelectSpace<kThreads> block;
  uint32_t first_candidate;
  uint32_t bins[kThreads];
  team_select::Choice choice;
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

// Each group is the threads that are `per_block` apart, so that few keys are spread over all.
template <int kThreads, typename Team>
__device__ void PostMaxima(const Team& team, uint32_t largest, int per_block,
                           TeamSelectSpace<kThreads>& space, const TeamScratch& scratch) {
  uint32_t* const maxima = space.bins;
  const int group = threadIdx.x % per_block;
  if (threadIdx.x < per_block) maxima[group] = 0;
  __syncthreads();
  for (int distance = 16; distance >= per_block; distance /= 2) {
    largest = max(largest, __shfl_xor_sync(kAllLanes, largest, distance));
  }
  if (threadIdx.x % 32 < per_block) atomicMax(maxima + group, largest);
  __syncthreads();
  if (threadIdx.x < per_block) __stcg(scratch.maxima + team.rank() * per_block + group,
                                      maxima[group]);
}

// What keys must exceed to be candidates: from the maxima of all blocks.
template <int kThreads>
__device__ Threshold BoundFromMaxima(uint32_t maxima, uint32_t count,
                                     TeamSelectSpace<kThreads>& space,
                                     const TeamScratch& scratch) {
  return FindThreshold<kMaxTeamList>(
      maxima, [list = scratch.maxima](uint32_t i) { return __ldcg(list + i); }, LooseBound(count),
      space.block.warps);
}

// One thread calls it.
template <typename Team>
__device__ void WritePost(const Team& team, Post post, const TeamScratch& scratch) {
  __stcg(scratch.posts + team.rank(),
         make_uint4(post.counts.above, post.counts.equal, post.unlisted, post.lost));
}

// Lists the keys above the bound, appends them to the candidates and posts how many there are.
// Returns that; `equal` and `lost` are posted as they are.
template <typename Team, typename Keys>
__device__ uint32_t PostCandidates(const Team& team, const Keys& block, uint32_t bound,
                                   uint32_t equal, bool lost,
                                   TeamSelectSpace<Keys::kThreads>& space,
                                   const TeamScratch& scratch) {
  constexpr uint32_t kRoom = Keys::kThreads;
  Candidate* const list = space.block.list;
  if (threadIdx.x == 0) space.block.listed = 0;
  __syncthreads();
  const uint32_t above = ListAbove(block, bound, list, kRoom, &space.block.listed);
  const bool fits = above <= kRoom;
  if (threadIdx.x == 0) {
    WritePost(team, {{above, equal}, !fits, lost}, scratch);
    if (fits && above > 0) space.first_candidate = atomicAdd(scratch.list_size, above);
  }
  if (!fits || above == 0) return above;
  __syncthreads();
  const uint32_t slot = space.first_candidate + threadIdx.x;
  if (threadIdx.x < above && slot < scratch.capacity) {
    __stcg(scratch.candidates + slot,
           make_uint2(list[threadIdx.x].key, static_cast<uint32_t>(team.rank())));
  }
  return above;
}

// What all blocks have posted. The whole block calls it after the barrier of the team, and waits.
template <int kThreads, typename Team>
__device__ Posts ReadPosts(const Team& team, TeamSelectSpace<kThreads>& space,
                           const TeamScratch& scratch) {
  uint4 post = make_uint4(0, 0, 0, 0);
  const int rank = threadIdx.x;
  if (rank < team.size()) post = __ldcg(scratch.posts + rank);
  const bool in_front = rank < team.rank();
  const auto sum = [&](uint32_t value) { return __reduce_add_sync(kAllLanes, value); };
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const uint32_t of_warp[6] = {sum(in_front ? post.x : 0), sum(in_front ? post.y : 0),
                               sum(post.x), sum(post.y), sum(post.z), sum(post.w)};
  constexpr int kWarps = kMaxTeam / 32;  // that read posts
  uint32_t* const words = space.bins;
  if (lane == 0 && warp < kWarps) {
#pragma unroll
    for (int i = 0; i < 6; ++i) words[i * kWarps + warp] = of_warp[i];
  }
  __syncthreads();
  const auto total = [&](int i) { return sum(lane < kWarps ? words[i * kWarps + lane] : 0); };
  return {{total(0), total(1)}, {total(2), total(3)}, total(4), total(5)};
}

// The threshold among the candidates of all blocks, and the counts of those in front.
template <int kThreads, typename Team>
__device__ TeamThreshold FindAmongCandidates(const Team& team, uint32_t candidates, uint32_t count,
                                             uint32_t exact_up_to,
                                             TeamSelectSpace<kThreads>& space,
                                             const TeamScratch& scratch) {
  uint2 candidate = make_uint2(0, 0);  // the first of this thread comes while one warp bisects
  if (threadIdx.x < candidates) candidate = __ldcg(scratch.candidates + threadIdx.x);
  const Threshold found = FindThreshold<kMaxTeamList>(
      candidates, [list = scratch.candidates](uint32_t i) { return __ldcg(list + i).x; },
      {count, count, exact_up_to}, space.block.warps);
  uint32_t above = 0, equal = 0;
  for (uint32_t i = threadIdx.x; i < candidates; i += kThreads) {
    if (i >= kThreads) candidate = __ldcg(scratch.candidates + i);
    const bool in_front = candidate.y < static_cast<uint32_t>(team.rank());
    above += in_front && candidate.x > found.key;
    equal += in_front && candidate.x == found.key;
  }
  return {found,
          {space.block.warps.Sum(0, __reduce_add_sync(kAllLanes, above)),
           space.block.warps.Sum(1, __reduce_add_sync(kAllLanes, equal))}};
}

// The bin of the `remaining`-th largest counted key; clears the bins. Waits before it reads them.
template <int kThreads>
__device__ Choice ChooseBin(uint32_t remaining, TeamSelectSpace<kThreads>& space) {
  const uint32_t bin = kThreads - 1 - threadIdx.x;
  __syncthreads();
  const uint32_t members = space.bins[bin];
  space.bins[bin] = 0;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  uint32_t* const sums = space.block.warps.words[0];
  const uint32_t through_here = WarpInclusiveSum(members);
  if (lane == 31) sums[warp] = through_here;
  __syncthreads();
  const uint32_t warps = __reduce_add_sync(kAllLanes, lane < warp ? sums[lane] : 0);
  const uint32_t above = warps + through_here - members;
  if (above < remaining && remaining <= above + members) space.choice = {bin, above};
  __syncthreads();
  return space.choice;
}

// The exact threshold among the keys in the interval, by histograms over all blocks. The keys of a
// thread are those for which keys.ForEach(use) calls use(key).
template <int kThreads, typename Team, typename Keys>
__device__ __noinline__ Threshold FindByHistograms(Team team, Keys keys,
                                                   Interval interval, uint32_t count,
                                                   TeamSelectSpace<kThreads>& space,
                                                   TeamScratch scratch) {
  static_assert(kThreads <= TeamScratch::kBins, "a thread looks after one bin");
  __syncthreads();
  space.bins[threadIdx.x] = 0;
  for (int round = 0; interval.low < interval.high; ++round) {
    const Bins<kThreads> bins{interval};
    uint32_t* histogram = scratch.histograms + round % 3 * TeamScratch::kBins;
    uint32_t* next = scratch.histograms + (round + 1) % 3 * TeamScratch::kBins;
    __syncthreads();
    keys.ForEach([&](uint32_t key) {
      if (bins.Contain(key)) atomicAdd(&space.bins[bins.Of(key)], 1);
    });
    __syncthreads();
    const uint32_t members = space.bins[threadIdx.x];
    if (members > 0) atomicAdd(histogram + threadIdx.x, members);
    if (team.rank() == 0) __stcg(next + threadIdx.x, 0u);
    team.Sync();
    space.bins[threadIdx.x] = __ldcg(histogram + threadIdx.x);
    const Choice choice = ChooseBin(count, space);
    interval = bins[choice.bin];
    count -= choice.above;
  }
  return {interval.low, count};
}

// Before the barrier in front of the first list and the first histogram.
template <typename Team>
__device__ void ClearScratch(const Team& team, const TeamScratch& scratch) {
  if (team.rank() > 0) return;
  __stcg(scratch.histograms + threadIdx.x, 0u);
  if (threadIdx.x == 0) __stcg(scratch.list_size, 0u);
}

// The threshold at or above a bound at which all blocks have posted; they lost nothing. Marks who
// reaches it.
template <typename Team, typename Keys>
__device__ TeamThreshold FindAtBound(const Team& team, const Keys& block, uint32_t bound,
                                     const Posts& posts, uint32_t count, uint32_t exact_up_to,
                                     TeamSelectSpace<Keys::kThreads>& space,
                                     const PlaceBits& bits, const TeamScratch& scratch) {
  if (count <= posts.all.above && posts.unlisted == 0 && posts.all.above <= scratch.capacity) {
    const TeamThreshold found =
        FindAmongCandidates(team, posts.all.above, count, exact_up_to, space, scratch);
    MarkListed<Keys::kThreads>(space.block.list, space.block.listed, found.threshold, bits);
    return found;
  }
  const Threshold threshold =
      posts.all.above < count
          ? Threshold{bound, count - posts.all.above}
          : FindByHistograms(team, block, Interval{bound + 1, ~0u}, count, space, scratch);
  MarkAll(block, threshold, bits);
  const Counts mine = CountMarked(bits, space.block);
  if (threadIdx.x == 0) WritePost(team, {mine, 0, 0}, scratch);
  team.Sync();
  return {threshold, ReadPosts(team, space, scratch).before};
}

}  // namespace team_select

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
  ClearBits<kThreads>(bits);
  if (per_block > 0) PostMaxima(team, block.largest, per_block, space, scratch);
  team.Sync();
  Threshold bound{0, 0};
  if (per_block > 0) bound = BoundFromMaxima(per_block * team.size(), count, space, scratch);
  PostCandidates(team, block, bound.key, 0, false, space, scratch);
  team.Sync();
  const Posts posts = ReadPosts(team, space, scratch);
  return FindAtBound(team, block, bound.key, posts, count, exact_up_to, space, bits, scratch);
}

}  // namespace brainjax

#endif  // BRAINJAX_TEAM_SELECT_CUH_
