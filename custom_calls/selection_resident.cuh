// Kernels for rows whose keys fit in shared memory: of one block, or of a team of blocks.
#ifndef BRAINJAX_SELECTION_RESIDENT_CUH_
#define BRAINJAX_SELECTION_RESIDENT_CUH_

#include <cstdint>
#include <initializer_list>

#include "block_select.cuh"
#include "cluster_select.cuh"
#include "selection_scores.cuh"
#include "team.cuh"
#include "team_select.cuh"

namespace brainjax {

constexpr int kTeamThreads = 512;

__device__ __forceinline__ uint32_t* DynamicSharedMemory() {
  extern __shared__ uint4 dynamic_shared_memory[];
  return reinterpret_cast<uint32_t*>(dynamic_shared_memory);
}

// Shared memory of a block that holds so many scores, wherever their row starts.
template <typename Keys>
int64_t BytesOfScores(int64_t scores) {
  const int64_t places = Keys::Places(CeilDiv(scores, Keys::kLength) + 1);
  return (places + PlaceBits::Words(places)) * sizeof(uint32_t);
}

// Writes the keys of one vector to its place, and 0 where it is not whole.
template <typename T, typename Keys>
__device__ __forceinline__ void StoreKeys(const uint4& vector, bool whole, int place,
                                          Keys* block) {
#pragma unroll
  for (int j = 0; j < Keys::kLength; j += 4) {
    uint32_t four[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      four[i] = whole ? KeyOf<T>(vector, j + i) : 0;
      block->largest = max(block->largest, four[i]);
    }
    *reinterpret_cast<uint4*>(block->keys + place + j) =
        make_uint4(four[0], four[1], four[2], four[3]);
  }
}

// Writes the keys that exist of a block's first and last vector, which may be partly outside the
// row. Returns the largest in the threads whose vectors they are, which do this, and else 0.
template <typename T, typename Keys>
__device__ __noinline__ uint32_t StoreEdges(const T* scores, Keys block) {
  uint32_t largest = 0;
  for (const int vector : {0, (block.end - 1) / Keys::kLength}) {
    if (threadIdx.x != vector % Keys::kThreads) continue;
    for (int i = vector * Keys::kLength; i < (vector + 1) * Keys::kLength; ++i) {
      if (!block.Exists(i)) continue;
      block.keys[i] = Key(scores[i]);
      largest = max(largest, block.keys[i]);
    }
  }
  return largest;
}

// Copies the keys of vectors [begin, end) of a row, a block's share, into shared memory; a thread
// has asked for kAtOnce vectors before it uses one. The block waits before it uses those of other
// threads.
template <typename Keys, int kAtOnce = 8, typename T>
__device__ Keys LoadKeys(const Row<T>& row, int64_t begin, int64_t end, uint32_t* memory) {
  constexpr int kLength = Keys::kLength;
  const int64_t first = row.First(begin);
  Keys block(memory, first, static_cast<int>(max(-first, int64_t{0})),
             static_cast<int>(min(row.First(end), row.n) - first), static_cast<int>(end - begin));
  const T* const scores = row.scores + first;  // of place 0
  const int front = block.begin > 0 ? kLength : 0, back = block.end / kLength * kLength;
  const uint32_t whole = max(back - front, 0);  // places of whole vectors, from `front` on
  for (int start = 0; start < block.per_thread; start += kAtOnce) {
    const int here = block.Place(start);
    uint4 vectors[kAtOnce];
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      if (start + u >= block.per_thread) break;
      const int place = here + u * Keys::kOfAllThreads;
      vectors[u] = make_uint4(0, 0, 0, 0);
      if (static_cast<uint32_t>(place - front) < whole) {
        vectors[u] = __ldcs(reinterpret_cast<const uint4*>(scores + place));
      }
    }
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      if (start + u >= block.per_thread) break;
      const int place = here + u * Keys::kOfAllThreads;
      StoreKeys<T>(vectors[u], static_cast<uint32_t>(place - front) < whole, place, &block);
    }
  }
  if (front > 0 || back < block.end) {
    block.largest = max(block.largest, StoreEdges(scores, block));
  }
  return block;
}

// Row `first` + blockIdx.x. At least kBlocks blocks find room on a multiprocessor.
template <typename T, typename Keys, int kBlocks>
__global__ void __launch_bounds__(Keys::kThreads, kBlocks)
    SelectInBlock(const __grid_constant__ SelectionProblem<T> problem, int64_t first) {
  constexpr int kAtOnce = Keys::kThreads > 512 ? 8 : 5;  // 10,000 floats; more would be spilled
  __shared__ BlockSelectSpace<Keys::kThreads> space;
  uint32_t* const memory = DynamicSharedMemory();
  const int64_t b = first + blockIdx.x;
  const int32_t asked = problem.Asked(b);  // in time: it is needed as soon as the keys are there
  const Row<T> row(problem.Scores(b), problem.n);
  const Keys block = LoadKeys<Keys, kAtOnce>(row, 0, row.Vectors(), memory);
  const uint32_t count = problem.Clamped(asked);
  if (count > 0) {
    const PlaceBits bits(memory + block.Places(), block.Places());
    int32_t* const winners = problem.Winners(b);
    SelectOfBlock(block, count, space, bits, [&](uint32_t place, int i) {
      winners[place] = static_cast<int32_t>(block.first) + i;
    });
  }
  problem.Pad(b, count, threadIdx.x, Keys::kThreads);
}

// How much the lists hold that a team has for a row of `n` scores.
__host__ __device__ inline int64_t ListCapacityOfRow(int64_t n, int64_t capacity) {
  const int64_t wanted = 4 * capacity + n / 64 + 512;
  return (wanted < kMaxTeamList ? wanted : kMaxTeamList) / 2 * 2;
}

template <typename T, typename Keys, typename Team>
__global__ void __launch_bounds__(Keys::kThreads)
    SelectInTeam(const __grid_constant__ SelectionProblem<T> problem) {
  __shared__ typename SelectSpaceOf<Team, Keys::kThreads>::Type space;
  uint32_t* const memory = DynamicSharedMemory();
  const Team team;
  for (int64_t b = team.number(); b < problem.batch; b += team.teams()) {
    const int32_t asked = problem.Asked(b);  // in time: it is needed as soon as the keys are there
    const Row<T> row(problem.Scores(b), problem.n);
    const int64_t share = QuotientUp(row.Vectors(), team.size()), begin = team.rank() * share;
    const Keys block = LoadKeys<Keys>(row, min(begin, row.Vectors()),
                                      min(begin + share, row.Vectors()), memory);
    const uint32_t count = problem.Clamped(asked);
    if (count > 0) {
      const TeamScratch scratch(problem.Scratch(b),
                                static_cast<int>(ListCapacityOfRow(problem.n, problem.capacity)));
      const PlaceBits bits(memory + block.Places(), block.Places());
      const TeamThreshold found = SelectOfTeam(team, block, count, 0, space, bits, scratch);
      team.Release();
      int32_t* const winners = problem.Winners(b);
      ForEachWinner(found, bits, space.block, [&](uint32_t place, int i) {
        winners[place] = static_cast<int32_t>(block.first + i);
      });
    } else {
      team.Release();
    }
    problem.Pad(b, count, int64_t{team.rank()} * Keys::kThreads + threadIdx.x,
                int64_t{team.size()} * Keys::kThreads);
    team.Reclaim();  // shared memory is free again
  }
}

}  // namespace brainjax

#endif  // BRAINJAX_SELECTION_RESIDENT_CUH_
