// What the blocks of a team tell each other of their keys that are likely to win.
#ifndef BRAINJAX_AREA_POSTS_CUH_
#define BRAINJAX_AREA_POSTS_CUH_

#include <cstdint>

#include "block_reductions.cuh"
#include "launch.h"
#include "posted.cuh"
#include "team_scratch.cuh"

namespace brainjax {

constexpr uint32_t kZeroKey = 0x80000000u;  // of +0
static_assert(kUnposted == kZeroKey - 1, "the key of -0, which no sum of inputs is");
// A post is one line of memory: keys in ascending order of their neurons, and how many there are.
constexpr uint32_t kPostKeys = kPostWords - 1;

// How many keys have been posted: by all blocks, by those in front of this one, and by the one
// whose number is that of this thread. None if a block had too many.
struct Posted {
  uint32_t all, in_front, of_block;
};

// Where the keys of each block are listed.
struct PostedRanges {
  uint32_t first[kMaxTeam], size[kMaxTeam];
};

// What the blocks post, in scratch memory.
struct AreaPosts {
  uint32_t* words;

  BRAINJAX_HOST_DEVICE static int64_t Words(int team) { return int64_t{kPostWords} * team; }

  __device__ uint32_t* Of(uint32_t rank) const { return words + rank * kPostWords; }

  // Before the team meets for the first time. The first warp writes.
  __device__ void Clear(int rank) const {
    if (threadIdx.x < kPostWords) WritePosted(Of(rank) + threadIdx.x, kUnposted);
  }

  __device__ void WriteKey(int rank, uint32_t place, uint32_t key) const {
    WritePosted(Of(rank) + place, key);
  }
  __device__ void WriteCount(int rank, uint32_t count) const {
    WritePosted(Of(rank) + kPostKeys, count);
  }

  // Waits until all blocks have said how many they post. The whole block calls it.
  template <int kThreads, typename Team>
  __device__ Posted Count(const Team& team, WarpWords<kThreads>& warps) const {
    constexpr int kBits = 13;                   // of a number of keys
    constexpr uint32_t kTooMany = 1u << kBits;  // beyond what all keys can be
    static_assert(kThreads >= kMaxTeam && kMaxTeam * kPostKeys < kTooMany);
    const uint32_t rank = threadIdx.x;
    uint32_t counts[1] = {rank < team.size() ? kUnposted : 0};
    AwaitPosted(counts, [&](int) { return Of(rank) + kPostKeys; });
    const uint32_t count = counts[0] > kPostKeys ? kTooMany : counts[0];
    const uint32_t all = min(__reduce_add_sync(kAllLanes, count), kTooMany);
    const uint32_t in_front = __reduce_add_sync(kAllLanes, rank < team.rank() ? count : 0);
    const uint32_t both = warps.Sum(0, all << kBits | in_front % kTooMany);
    if (both >> kBits >= kTooMany) return {0, 0, 0};
    return {both >> kBits, both % kTooMany, count};
  }

  // Lists the keys that have been counted, those of the first block first. The whole block calls
  // it, and waits.
  template <int kThreads>
  __device__ void List(int team, const Posted& posted, uint32_t* list,
                       WarpWords<kThreads>& warps, PostedRanges& ranges) const {
    constexpr int kWarps = kThreads / 32, kLines = 10;  // asked for at once
    const uint32_t before = warps.ExclusiveSum(1, posted.of_block);
    if (threadIdx.x < kMaxTeam) {
      ranges.first[threadIdx.x] = before;
      ranges.size[threadIdx.x] = posted.of_block;
    }
    __syncthreads();
    const uint32_t lane = threadIdx.x % 32;
    for (int first = threadIdx.x / 32; first < team; first += kLines * kWarps) {
      const auto rank = [&](int i) { return first + i * kWarps; };
      const auto exists = [&](int i) { return rank(i) < team && lane < ranges.size[rank(i)]; };
      uint32_t keys[kLines];
#pragma unroll
      for (int i = 0; i < kLines; ++i) keys[i] = exists(i) ? kUnposted : 0;
      AwaitPosted(keys, [&](int i) { return Of(rank(i)) + lane; });
#pragma unroll
      for (int i = 0; i < kLines; ++i) {
        if (exists(i)) list[ranges.first[rank(i)] + lane] = keys[i];
      }
    }
    __syncthreads();
  }
};

}  // namespace brainjax

#endif  // BRAINJAX_AREA_POSTS_CUH_
