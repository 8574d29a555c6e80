// Teams: blocks that run at the same time, share a problem, and wait for each other.
//
// Teams of one launch may work side by side: number() of teams() has the problems number(),
// number() + teams() ... of a batch. In a team, this is block rank() of size(). After Sync(), a
// barrier, each block sees what the others wrote before it. Arrive() and Wait() are its two halves:
// between them a block does what needs no other. A block that has called Release() reads no longer
// what others have in shared memory; when all have, Reclaim() lets each go on.
#ifndef BRAINJAX_TEAM_CUH_
#define BRAINJAX_TEAM_CUH_

#include <cooperative_groups.h>

#include <cstdint>

namespace brainjax {

// All blocks of a cooperative launch.
struct GridTeam {
  __device__ int rank() const { return blockIdx.x; }
  __device__ int size() const { return gridDim.x; }
  __device__ void Sync() const { cooperative_groups::this_grid().sync(); }
  // The first warp of the block is late from Arrive().
  using Arrival = cooperative_groups::grid_group::arrival_token;
  __device__ Arrival Arrive() const { return cooperative_groups::this_grid().barrier_arrive(); }
  __device__ void Wait(Arrival arrival) const {
    cooperative_groups::this_grid().barrier_wait(static_cast<Arrival&&>(arrival));
  }
  __device__ int64_t number() const { return 0; }
  __device__ int64_t teams() const { return 1; }
  __device__ void Release() const {}
  __device__ void Reclaim() const { __syncthreads(); }
};

// The blocks of a cluster: a single one where the architecture has no clusters.
struct ClusterTeam {
  struct Arrival {};
#if __CUDA_ARCH__ >= 900
  __device__ int rank() const { return cooperative_groups::this_cluster().block_rank(); }
  __device__ int size() const { return cooperative_groups::this_cluster().num_blocks(); }
  __device__ void Sync() const { cooperative_groups::this_cluster().sync(); }
  __device__ Arrival Arrive() const {
    cooperative_groups::this_cluster().barrier_arrive();
    return {};
  }
  __device__ void Wait(Arrival) const {
    __syncwarp();
    cooperative_groups::this_cluster().barrier_wait();
  }
#else
  __device__ int rank() const { return 0; }
  __device__ int size() const { return 1; }
  __device__ void Sync() const { __syncthreads(); }
  __device__ Arrival Arrive() const { return {}; }
  __device__ void Wait(Arrival) const { __syncthreads(); }
#endif
  __device__ int64_t number() const { return blockIdx.x / size(); }
  __device__ int64_t teams() const { return gridDim.x / size(); }
};

// The blocks of a cluster whose size the compiler knows. It exists where clusters do.
template <int kSize>
struct FixedClusterTeam {
  __device__ int rank() const { return blockIdx.x % kSize; }
  __device__ int size() const { return kSize; }
  __device__ void Sync() const { ClusterTeam().Sync(); }
  __device__ int64_t number() const { return blockIdx.x / kSize; }
  __device__ int64_t teams() const { return gridDim.x / kSize; }
#if __CUDA_ARCH__ >= 900
  // Sync(), after a barrier of the block: one fence then speaks for all its threads.
  __device__ void SyncAfterBarrier() const {
    if (threadIdx.x == 0) asm volatile("fence.acq_rel.cluster;" ::: "memory");
    __syncwarp();
    __cluster_barrier_arrive_relaxed();
    __cluster_barrier_wait();
  }
  // It has only read, and used what it has read.
  __device__ void Release() const { __cluster_barrier_arrive_relaxed(); }
  __device__ void Reclaim() const {
    __cluster_barrier_wait();
    __syncthreads();  // this block has gone on since its release
  }
  // What block `rank` has where this one has `mine` in shared memory.
  template <typename Value>
  __device__ const Value* At(int rank, const Value* mine) const {
    return cooperative_groups::this_cluster().map_shared_rank(mine, rank);
  }
#else
  __device__ void SyncAfterBarrier() const {}
  __device__ void Release() const {}
  __device__ void Reclaim() const { __syncthreads(); }
  template <typename Value>
  __device__ const Value* At(int, const Value* mine) const { return mine; }
#endif
};

}  // namespace brainjax

#endif  // BRAINJAX_TEAM_CUH_
