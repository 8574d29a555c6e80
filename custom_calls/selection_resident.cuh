// Kernels for rows whose keys fit in shared memory: of one block, or of a team of blocks.
#ifndef BRAINJAX_SELECTION_RESIDENT_CUH_
#define BRAINJAX_SELECTION_RESIDENT_CUH_

#include <cooperative_groups.h>

#include <cstdint>

#include "block_select.cuh"
#include "selection_scores.cuh"
#include "team_select.cuh"

namespace brainjax {

constexpr int kTeamThreads = 1024;
using TeamSpace = TeamSelectSpace<kTeamThreads>;

// The blocks of a cluster.
template <int kSize>
struct ClusterTeam {

  __device__ int rank() const { return blockIdx.x % kSize; }
  __device__ int size() const { return kSize; }
  __device__ void Sync() const {
#if __CUDA_ARCH__ >= 900  // older processors are given a GridTeam
    __syncwarp();
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;"
                 ::: "memory");
#endif
  }
  __device__ static int64_t Number() { return blockIdx.x / kSize; }
  __device__ static int64_t Teams() { return gridDim.x / kSize; }
};

// All blocks of a cooperative launch.
struct GridTeam {
  __device__ int rank() const { return blockIdx.x; }
  __device__ int size() const { return gridDim.x; }
  __device__ void Sync() const { cooperative_groups::this_grid().sync(); }
  __device__ static int64_t Number() { return 0; }
  __device__ static int64_t Teams() { return 1; }
};

__device__ __forceinline__ unsigned char* DynamicSharedMemory() {
  extern __shared__ __align__(16) unsigned char dynamic_shared_memory[];
  return dynamic_shared_memory;
}

// Small blocks share a multiprocessor, so that some load while others select.
template <typename T, int kThreads>
__global__ void __launch_bounds__(kThreads, kThreads <= 256 ? 5 : 1)
    SelectInBlock(const __grid_constant__ SelectionProblem<T> problem) {
  __shared__ BlockSelectSpace<kThreads> space;
  uint32_t* keys = reinterpret_cast<uint32_t*>(DynamicSharedMemory());
  for (int64_t b = blockIdx.x; b < problem.batch; b += gridDim.x) {
    const uint32_t count = problem.Count(b);
    if (count > 0) {
      LoadKeys<kThreads>(problem.Scores(b), 0, problem.n, keys);
      __syncthreads();
      const OwnKeys<kThreads> own(keys, static_cast<int>(problem.n));
      const Threshold threshold = FindThreshold(own, count, space);
      int32_t* winners = problem.Winners(b);
      ForEachWinner(own, threshold, Counts{0, 0}, space,
                    [&](uint32_t place, int i) { winners[place] = i; });
    }
    problem.Pad(b, count, threadIdx.x, kThreads);
    __syncthreads();  // shared memory is free again
  }
}

// Keys of one block of a team; its range starts where 16-byte words do.
__host__ __device__ inline int64_t KeysOfBlock(int64_t n, int blocks) {
  return CeilDiv(CeilDiv(n, blocks), 16) * 16;
}

// Words of scratch of a row, and the lists that fit in them.
__host__ __device__ inline int64_t TeamListCapacity(int64_t n, int64_t capacity) {
  const int64_t wanted = 4 * capacity + n / 64 + 512;
  return (wanted < kMaxTeamList ? wanted : kMaxTeamList) / 2 * 2;
}

template <typename T, typename Team>
__global__ void __launch_bounds__(kTeamThreads)
    SelectInTeam(const __grid_constant__ SelectionProblem<T> problem) {
  TeamSpace& space = *reinterpret_cast<TeamSpace*>(DynamicSharedMemory());
  uint32_t* keys = reinterpret_cast<uint32_t*>(&space + 1);
  const Team team;
  const int64_t size = KeysOfBlock(problem.n, team.size());
  const int64_t begin = min(team.rank() * size, problem.n), end = min(begin + size, problem.n);
  for (int64_t b = Team::Number(); b < problem.batch; b += Team::Teams()) {
    const uint32_t count = problem.Count(b);
    if (count > 0) {
      const TeamScratch scratch(problem.Scratch(b),
                                static_cast<int>(TeamListCapacity(problem.n, problem.capacity)));
      LoadKeys<kTeamThreads>(problem.Scores(b), begin, end, keys);
      __syncthreads();
      const OwnKeys<kTeamThreads> own(keys, static_cast<int>(end - begin));
      const TeamThreshold found = FindTeamThreshold(team, own, count, space, scratch);
      int32_t* winners = problem.Winners(b);
      ForEachWinner(own, found.threshold, found.before, space.block,
                    [&](uint32_t place, int i) {
                      winners[place] = static_cast<int32_t>(begin + i);
                    });
    }
    problem.Pad(b, count, int64_t{team.rank()} * kTeamThreads + threadIdx.x,
                int64_t{team.size()} * kTeamThreads);
    __syncthreads();  // shared memory is free again
  }
}

}  // namespace brainjax

#endif  // BRAINJAX_SELECTION_RESIDENT_CUH_
