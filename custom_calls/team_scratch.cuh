// What the blocks of a team tell each other while they select, and the histograms they fill.
#ifndef BRAINJAX_TEAM_SCRATCH_CUH_
#define BRAINJAX_TEAM_SCRATCH_CUH_

#include <cstdint>

#include "block_select.cuh"
#include "threshold.cuh"

namespace brainjax {

constexpr int kMaxTeam = 256;
constexpr int kMaxTeamList = 8192;  // maxima or candidates that a block reads

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

  // The largest capacity whose scratch has so many words, as far as one is legal; below 2: none.
  static int64_t Capacity(int64_t words) {
    const int64_t fits = (words - Words(0)) / 3;
    return (fits < kMaxTeamList ? fits : kMaxTeamList) / 2 * 2;
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

}  // namespace team_select

template <int kThreads>
struct TeamSelectSpace {
  BlockSelectSpace<kThreads> block;
  uint32_t first_candidate;
  uint32_t of_posts[6 * kMaxTeam / 32];  // what the warps that read posts have summed
};

namespace team_select {

// One thread calls it.
template <typename Team>
__device__ void WritePost(const Team& team, Post post, const TeamScratch& scratch) {
  __stcg(scratch.posts + team.rank(),
         make_uint4(post.counts.above, post.counts.equal, post.unlisted, post.lost));
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
  uint32_t* const words = space.of_posts;
  if (lane == 0 && warp < kWarps) {
#pragma unroll
    for (int i = 0; i < 6; ++i) words[i * kWarps + warp] = of_warp[i];
  }
  __syncthreads();
  const auto total = [&](int i) { return sum(lane < kWarps ? words[i * kWarps + lane] : 0); };
  return {{total(0), total(1)}, {total(2), total(3)}, total(4), total(5)};
}

// Before the barrier in front of the first list and the first histogram.
template <typename Team>
__device__ void ClearScratch(const Team& team, const TeamScratch& scratch) {
  if (team.rank() > 0) return;
  __stcg(scratch.histograms + threadIdx.x, 0u);
  if (threadIdx.x == 0) __stcg(scratch.list_size, 0u);
}

// ---- Histograms over all blocks ----

// The exact threshold among the keys in the interval, by histograms over all blocks. The keys of a
// thread are those for which keys.ForEach(use) calls use(key).
template <int kThreads, typename Team, typename Keys>
__device__ __noinline__ Threshold FindByHistograms(Team team, Keys keys, Interval interval,
                                                   uint32_t count,
                                                   TeamSelectSpace<kThreads>& space,
                                                   TeamScratch scratch) {
  static_assert(kThreads <= TeamScratch::kBins, "a thread looks after one bin");
  __syncthreads();
  space.block.histogram.bins[threadIdx.x] = 0;
  for (int round = 0; interval.low < interval.high; ++round) {
    const Bins<kThreads> bins{interval};
    uint32_t* histogram = scratch.histograms + round % 3 * TeamScratch::kBins;
    uint32_t* next = scratch.histograms + (round + 1) % 3 * TeamScratch::kBins;
    __syncthreads();
    keys.ForEach([&](uint32_t key) {
      if (bins.Contain(key)) atomicAdd(&space.block.histogram.bins[bins.Of(key)], 1);
    });
    __syncthreads();
    const uint32_t members = space.block.histogram.bins[threadIdx.x];
    if (members > 0) atomicAdd(histogram + threadIdx.x, members);
    if (team.rank() == 0) __stcg(next + threadIdx.x, 0u);
    team.Sync();
    space.block.histogram.bins[threadIdx.x] = __ldcg(histogram + threadIdx.x);
    const Choice choice = ChooseBin(count, space.block.warps, space.block.histogram);
    interval = bins[choice.bin];
    count -= choice.above;
  }
  return {interval.low, count};
}

}  // namespace team_select
}  // namespace brainjax

#endif  // BRAINJAX_TEAM_SCRATCH_CUH_
