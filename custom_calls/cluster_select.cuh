// The k largest of the keys that a cluster of blocks holds: SelectOfTeam of team_select.cuh, where
// blocks read from each other's shared memory what others tell through global memory.
//
// The caller releases the team when the selection is over, and reclaims it before it uses the space
// again: until then other blocks may read it.
#ifndef BRAINJAX_CLUSTER_SELECT_CUH_
#define BRAINJAX_CLUSTER_SELECT_CUH_

#include <cstdint>

#include "team.cuh"
#include "team_select.cuh"

namespace brainjax {

template <int kThreads>
struct ClusterSelectSpace : TeamSelectSpace<kThreads> {
  uint32_t maxima[kThreads];  // of the groups of this block's keys
};

template <int kSize, int kThreads>
struct SelectSpaceOf<FixedClusterTeam<kSize>, kThreads> {
  using Type = ClusterSelectSpace<kThreads>;
};

namespace cluster_select {

// The candidates of all blocks. The threads are divided among the blocks: `at` numbers those that
// look after the list of block `source`, each kSize places of it.
template <int kSize, int kThreads>
struct Lists {
  static constexpr int kOfBlock = kThreads / kSize;
  static constexpr int kAhead = 2;
  int source, at;
  const uint32_t* list;
  uint32_t first[kAhead];           // keys of this thread, asked for before the lengths are known
  uint32_t length, total, longest;  // of the list; of all lists, and of the longest

  __device__ Lists(const FixedClusterTeam<kSize>& team, const ClusterSelectSpace<kThreads>& space)
      : source(threadIdx.x / kOfBlock),
        at(threadIdx.x % kOfBlock),
        list(team.At(source, space.block.keys)) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < kAhead; ++i) first[i] = list[at + i * kOfBlock];
    const uint32_t listed = *team.At(lane % kSize, &space.block.listed);
    total = __reduce_add_sync(kAllLanes, lane < kSize ? listed : 0);
    longest = __reduce_max_sync(kAllLanes, listed);
    length = __shfl_sync(kAllLanes, listed, source);
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (at + i * kOfBlock >= length) first[i] = 0;
    }
  }

  // Key i of this thread, 0 where there is none.
  __device__ uint32_t Key(int i) const {
    const uint32_t place = at + i * kOfBlock;
    return place < length ? list[place] : 0;
  }

  // This thread's keys above the threshold and those equal to it, if they are of a block in front.
  __device__ Counts InFront(int rank, uint32_t threshold) const {
    Counts counts{0, 0};
    if (source >= rank) return counts;
    const auto add = [&](uint32_t key) {
      counts.above += key > threshold;
      counts.equal += key == threshold && key > 0;
    };
#pragma unroll
    for (const uint32_t key : first) add(key);
#pragma unroll 1
    for (int i = kAhead; at + i * kOfBlock < length; ++i) add(Key(i));
    return counts;
  }
};

template <int kSize, int kThreads>
__device__ Threshold FindAmongLists(const Lists<kSize, kThreads>& lists, Wanted wanted,
                                    ClusterSelectSpace<kThreads>& space) {
  auto& warps = space.block.warps;
  if (lists.longest <= lists.kOfBlock) {
    return BisectInBlock(
        kThreads, [&](uint32_t) { return lists.first[0]; }, wanted, warps);
  }
  if (lists.longest <= lists.kAhead * lists.kOfBlock) {
    const Values<2> values{{lists.first[0], lists.first[1]}};
    return FindByBins(values, wanted, warps, space.block.histogram);
  }
  return FindAmongMany<kSize>(
      kSize * kThreads, [lists](uint32_t place) { return lists.Key(place / kThreads); }, wanted,
      warps, space.block.histogram);
}

}  // namespace cluster_select

template <int kSize, typename Keys>
__device__ TeamThreshold SelectOfTeam(const FixedClusterTeam<kSize>& team, const Keys& block,
                                      uint32_t count, uint32_t exact_up_to,
                                      ClusterSelectSpace<Keys::kThreads>& space,
                                      const PlaceBits& bits, const TeamScratch& scratch) {
  using namespace team_select;
  constexpr int kThreads = Keys::kThreads, kMost = kSize * kThreads;
  static_assert(kSize <= 32 && kThreads % (32 * kSize) == 0, "a warp reads of one block");
  const int per_block = MaximaPerBlock<kThreads>(kSize, count, kMost);
  if (per_block > 0) GroupMaxima<kThreads>(block.largest, per_block, space.maxima);
  __syncthreads();
  team.SyncAfterBarrier();
  Threshold bound{0, 0};
  if (per_block > 0) {
    const auto load = [&team, &space, per_block](uint32_t i) {
      const int shift = __ffs(per_block) - 1;
      return *team.At(i >> shift, space.maxima + (i & (per_block - 1)));
    };
    bound = FindThreshold<kMost>(per_block * kSize, load, LooseBound(count), space.block.warps,
                                 space.block.histogram);
  }
  ListAbove(block, bound.key, space.block);
  team.SyncAfterBarrier();
  const cluster_select::Lists<kSize, kThreads> lists(team, space);
  if (count > lists.total || lists.longest > kThreads) {
    ClearScratch(team, scratch);
    return FindAmongAllKeys(team, block, bound.key, lists.total, count, space, bits, scratch);
  }
  const Threshold found =
      cluster_select::FindAmongLists(lists, {count, count, exact_up_to}, space);
  const Counts mine = lists.InFront(team.rank(), found.key);
  static_assert(kMost < 1 << 16, "counts of candidates have 16 bits");
  const uint32_t packed =
      space.block.warps.Sum(0, __reduce_add_sync(kAllLanes, mine.above << 16 | mine.equal));
  return {found, {packed >> 16, packed & 0xffffu}, false};
}

}  // namespace brainjax

#endif  // BRAINJAX_CLUSTER_SELECT_CUH_
