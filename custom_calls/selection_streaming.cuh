// The kernel for rows that stay in global memory: one read of the scores where a guess holds.
//
// A sample gives a key that somewhat more than `count` keys are expected to exceed. One pass
// collects those, each block the ones of its range, and selects among them. Keys equal to the
// guess are only counted: zeros may be nearly all there is. Where they are the threshold, and
// where the guess was wrong, the tiles of the winners are read again; in the second case
// histograms find the threshold first, in up to four more reads.
#ifndef BRAINJAX_SELECTION_STREAMING_CUH_
#define BRAINJAX_SELECTION_STREAMING_CUH_

#include <cstdint>

#include "selection_resident.cuh"
#include "selection_tiles.cuh"

namespace brainjax {

constexpr int kStreamThreads = 1024;
constexpr int64_t kMaxSample = 1 << 17;  // of a row
constexpr int64_t kSampledWinners = 32;  // that are enough in a sample
constexpr int64_t kMaxRoom = 16 * 1024;  // candidates of a block, whole times its threads

// Scratch of a row, behind that of the team. The record of a tile is where its candidates start
// in the pool, later the way from there to their place in the order of tiles; and its counts.
struct StreamScratch {
  uint2* records;
  TileCandidate* pool;

  __host__ __device__ static int64_t Words(int64_t tiles, int64_t candidates) {
    return TeamScratch::Words(kMaxTeamList) + 2 * tiles + 2 * candidates;
  }
  __device__ StreamScratch(uint32_t* words, int64_t tiles)
      : records(reinterpret_cast<uint2*>(words + TeamScratch::Words(kMaxTeamList))),
        pool(reinterpret_cast<TileCandidate*>(records + tiles)) {}
};

using StreamTeamSpace = TeamSelectSpace<kStreamThreads>;

struct StreamSpace {
  StreamTeamSpace team;
  TileCandidate of_warps[32][kWarpCandidates];
  uint32_t tile_above[kStreamThreads], tile_equal[kStreamThreads];
  uint32_t found, equal;
};

template <typename Team>
__device__ TileRange TilesOfBlock(const Team& team, int64_t tiles) {
  return {Quotient(tiles * team.rank(), team.size()),
          Quotient(tiles * (team.rank() + 1), team.size())};
}

// ---- The guess ----

struct Guess {
  bool likely;
  uint32_t key;
};

__device__ inline uint32_t Hash(uint32_t x) {
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  return x ^ (x >> 16);
}

// Takes one score from each `stride` neighbours, at a place that no period meets, and a key that
// as many of them reach as should be enough.
template <typename T, typename Team>
__device__ Guess GuessBound(const Team& team, const Tiles<T>& tiles, TileRange range,
                            uint32_t count, int64_t max_candidates, StreamTeamSpace& space,
                            const TeamScratch& scratch) {
  const int64_t stride = max(count / kSampledWinners, CeilDiv(tiles.row.n, kMaxSample));
  const float expected = static_cast<float>(count) / static_cast<float>(stride);
  // Four standard deviations, and more where the number is too small for them to mean much: one
  // guess in 50,000 is too high. More, or a looser bound, and ten million scores with 3,162 winners
  // have more candidates than the blocks can list for each other.
  const float wanted = expected + 4 * sqrtf(expected) + 4;
  const uint32_t least = static_cast<uint32_t>(wanted);
  const int per_block =
      team_select::MaximaPerBlock<kStreamThreads>(team.size(), least, scratch.capacity);
  const bool likely = per_block > 0 && wanted * stride < 0.5f * max_candidates;
  team_select::ClearScratch(team, scratch);
  team_select::FirstCandidates<kStreamThreads>::Clear(team, scratch);
  if (likely) {
    const int64_t begin = tiles.FirstOf(range), end = tiles.EndOf(range);
    uint32_t largest = 0;
    for (int64_t first = begin + threadIdx.x * stride; first + stride <= end;
         first += kStreamThreads * stride) {
      const uint64_t within = Hash(static_cast<uint32_t>(first ^ (first >> 32)));
      largest = max(largest, Key(tiles.row.scores[first + (within * stride >> 32)]));
    }
    team_select::PostMaxima(team, largest, per_block, space, scratch);
  }
  team.Sync();
  if (!likely) return {false, 0};
  const Wanted close{least, least + least / 16 + 1, 0};
  return {true,
          team_select::BoundFromMaxima(per_block * team.size(), close, space, scratch).key};
}

// ---- One pass over the scores ----

// Counts all tiles of a block; with a pool, collects what exceeds the bound. Returns the counts.
template <bool kCollect, typename T>
__device__ Counts StreamTiles(const Tiles<T>& tiles, TileRange range, uint32_t bound,
                              StreamSpace& space, uint2* records, TileCandidate* pool,
                              uint32_t room) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  __syncthreads();
  if (threadIdx.x == 0) space.found = 0, space.equal = 0;
  __syncthreads();
  TileCandidate* listed = space.of_warps[warp];
  for (int64_t tile = range.begin + warp; tile < range.end; tile += kStreamThreads / 32) {
    Counts counts;
    if (kCollect) {
      counts = tiles.IsWhole(tile) ? CollectTile<true>(tiles, tile, bound, listed)
                                   : CollectTile<false>(tiles, tile, bound, listed);
    } else {
      counts = tiles.IsWhole(tile) ? CountTile<true>(tiles, tile, bound)
                                   : CountTile<false>(tiles, tile, bound);
    }
    uint32_t first = 0;
    if (lane == 0) {
      first = atomicAdd(&space.found, counts.above);
      atomicAdd(&space.equal, counts.equal);
      records[tile] = make_uint2(first, Pack(counts));
    }
    if (!kCollect || counts.above == 0) continue;
    first = __shfl_sync(kAllLanes, first, 0);
    __syncwarp();
    StoreCandidates(tiles, tile, bound, counts.above, listed, first, room, pool);
    __syncwarp();
  }
  __syncthreads();
  return {space.found, space.equal};
}

// ---- The winners ----

// Brings the candidates of this block into the order of their tiles.
template <typename T>
__device__ void OrderCandidates(const Tiles<T>& tiles, TileRange range, uint32_t found,
                                uint2* records, const TileCandidate* pool, uint32_t* keys,
                                uint32_t* indices, StreamTeamSpace& space) {
  uint32_t before = 0;
  int turn = 0;
  for (int64_t first = range.begin; first < range.end; first += kStreamThreads) {
    const int64_t tile = first + threadIdx.x;
    uint2 record = make_uint2(0, 0);
    if (tile < range.end) record = records[tile];
    uint32_t total;
    const uint32_t here =
        before + space.block.warps.ExclusiveSum(turn++, Unpack(record.y).above, &total);
    if (tile < range.end) records[tile].x = here - record.x;
    before += total;
  }
  __syncthreads();
  for (uint32_t i = threadIdx.x; i < found; i += kStreamThreads) {
    const TileCandidate candidate = pool[i];
    const uint32_t place = i + records[tiles.Of(candidate.index)].x;
    keys[place] = candidate.key;
    indices[place] = candidate.index;
  }
  __syncthreads();
}

// Writes the winners of a block whose tiles have been counted at the threshold.
template <typename T>
__device__ void WriteTiles(const Tiles<T>& tiles, TileRange range, Threshold threshold,
                           Counts before, const uint2* records, StreamSpace& space,
                           int32_t* winners) {
  auto& warps = space.team.block.warps;
  for (int64_t first = range.begin; first < range.end; first += kStreamThreads) {
    const int64_t number = min(range.end - first, int64_t{kStreamThreads});
    Counts mine{0, 0}, total;
    if (threadIdx.x < number) mine = Unpack(records[first + threadIdx.x].y);
    space.tile_above[threadIdx.x] = warps.ExclusiveSum(0, mine.above, &total.above);
    space.tile_equal[threadIdx.x] = warps.ExclusiveSum(1, mine.equal, &total.equal);
    __syncthreads();
    for (int64_t t = threadIdx.x / 32; t < number; t += kStreamThreads / 32) {
      const Counts counted = Unpack(records[first + t].y);
      const Counts at{before.above + space.tile_above[t], before.equal + space.tile_equal[t]};
      if (counted.above > 0 || (counted.equal > 0 && at.equal < threshold.ties)) {
        WriteTile(tiles, first + t, threshold, at, winners);
      }
    }
    before = {before.above + total.above, before.equal + total.equal};
    __syncthreads();
  }
}

// Finds the threshold by histograms alone, and counts the tiles at it.
template <typename T, typename Team>
__device__ TeamThreshold FindInMemory(const Team& team, const Tiles<T>& tiles, TileRange range,
                                      uint32_t count, StreamSpace& space,
                                      const TeamScratch& scratch, uint2* records) {
  using namespace team_select;
  const Threshold threshold = FindByHistograms(
      team, KeysInMemory<kStreamThreads, T>{tiles, range}, Interval{0, ~0u}, count, space.team,
      scratch);
  const Counts mine = StreamTiles<false>(tiles, range, threshold.key, space, records,
                                         static_cast<TileCandidate*>(nullptr), 0);
  if (threadIdx.x == 0) WritePost(team, {mine, 0, 0}, scratch);
  team.Sync();
  return {threshold, ReadPosts(team, space.team, scratch).before};
}

// The winners among the candidates of one pass at the guess. Returns whether these are all; else
// `found` tells of ties at the guess, or nothing if that was wrong.
template <typename T, typename Team>
__device__ bool SelectCandidates(const Team& team, const Tiles<T>& tiles, TileRange range,
                                 uint32_t guess, uint32_t count, uint32_t room, StreamSpace& space,
                                 const TeamScratch& shared, const StreamScratch& scratch,
                                 int32_t* winners, TeamThreshold* found) {
  using namespace team_select;
  uint32_t* const keys = reinterpret_cast<uint32_t*>(&space + 1);
  uint32_t* const indices = keys + room;
  TileCandidate* const pool = scratch.pool + int64_t{room} * team.rank();
  const Counts mine = StreamTiles<true>(tiles, range, guess, space, scratch.records, pool, room);
  const uint32_t kept = mine.above > room ? 0 : mine.above;
  OrderCandidates(tiles, range, kept, scratch.records, pool, keys, indices, space.team);
  const auto block = KeysOfList<kStreamThreads>(keys, static_cast<int>(kept));
  PostCandidates(team, block, guess, mine.equal, mine.above > room, space.team, shared);
  team.Sync();
  const FirstCandidates<kStreamThreads> first(shared);
  const Posts posts = ReadPosts(team, space.team, shared);
  if (posts.lost > 0) return false;
  if (posts.all.above < count) {
    const uint32_t ties = count - posts.all.above;
    if (posts.all.equal >= ties) *found = {{guess, ties}, posts.before};
    return false;
  }
  const PlaceBits bits(indices + room, block.Places());
  *found = FindAtBound(team, block, guess, first, posts, count, 0, space.team, bits, shared);
  ForEachWinner(*found, bits, space.team.block,
                [&](uint32_t place, int i) { winners[place] = indices[i]; });
  return true;
}

template <typename T, typename Team>
__device__ void SelectRow(const Team& team, const SelectionProblem<T>& problem, int64_t b,
                          uint32_t count, uint32_t room) {
  StreamSpace& space = *reinterpret_cast<StreamSpace*>(DynamicSharedMemory());
  const Tiles<T> tiles{Row<T>(problem.Scores(b), problem.n)};
  const TileRange range = TilesOfBlock(team, tiles.Number());
  const TeamScratch shared(problem.Scratch(b), kMaxTeamList);
  const StreamScratch scratch(problem.Scratch(b), tiles.Number());
  int32_t* const winners = problem.Winners(b);

  const Guess guess = GuessBound(team, tiles, range, count, int64_t{room} * team.size(),
                                 space.team, shared);
  TeamThreshold found{{0, 0}, {0, 0}};
  if (guess.likely && SelectCandidates(team, tiles, range, guess.key, count, room, space, shared,
                                       scratch, winners, &found)) {
    return;
  }
  if (found.threshold.ties == 0) {
    found = FindInMemory(team, tiles, range, count, space, shared, scratch.records);
  }
  WriteTiles(tiles, range, found.threshold, found.before, scratch.records, space, winners);
}

// `room`: candidates that a block holds.
template <typename T, typename Team>
__global__ void __launch_bounds__(kStreamThreads)
    SelectStreaming(const __grid_constant__ SelectionProblem<T> problem, uint32_t room) {
  const Team team;
  for (int64_t b = 0; b < problem.batch; ++b) {
    const uint32_t count = problem.Clamped(problem.Asked(b));
    if (count > 0) SelectRow(team, problem, b, count, room);
    problem.Pad(b, count, int64_t{team.rank()} * kStreamThreads + threadIdx.x,
                int64_t{team.size()} * kStreamThreads);
    __syncthreads();  // shared memory is free again
  }
}

}  // namespace brainjax

#endif  // BRAINJAX_SELECTION_STREAMING_CUH_
