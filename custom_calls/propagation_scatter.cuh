// The kernels that add what spikes send in memory: all of it, or what was not sorted.
#ifndef BRAINJAX_PROPAGATION_SCATTER_CUH_
#define BRAINJAX_PROPAGATION_SCATTER_CUH_

#include <cstdint>

#include "propagation_call.cuh"
#include "propagation_sort.cuh"

namespace brainjax {
namespace propagation {

// What has to be done before synapses are visited.
template <typename W>
__global__ void __launch_bounds__(kThreads)
    PrepareKernel(const __grid_constant__ Call<W> call, bool clear, bool count_rows) {
  AdmitNextKernel();
  if (clear) ClearSums(call);
  if (count_rows) CountRows<false>(call);
}

// Adds to the sums in memory.
struct SumAdder {
  int32_t* sums;

  template <typename W>
  __device__ static SumAdder Of(const Call<W>&, const Propagation<W>& problem, int64_t) {
    return {problem.sums};
  }

  __device__ void operator()(int32_t target, int32_t contribution) const {
    atomicAdd(sums + target, contribution);
  }
};

// Adds to tallies in memory, without asking what they were: that would take longer.
struct TallyAdder {
  unsigned long long* tallies;

  template <typename W>
  __device__ static TallyAdder Of(const Call<W>& call, const Propagation<W>&, int64_t b) {
    return {call.tallies.Of(b)};
  }

  __device__ void operator()(int32_t target, int32_t contribution) const {
    constexpr unsigned long long kTouched = 1ull << 32;
    atomicAdd(tallies + target, kTouched + static_cast<uint32_t>(contribution));
  }
};

// Adds to the sums in memory, and marks those that are 0 afterwards: whether something arrived
// where the sum is 0 at the end says the last to arrive.
struct MarkingAdder {
  int32_t* sums;
  uint32_t* marks;

  template <typename W>
  __device__ static MarkingAdder Of(const Call<W>& call, const Propagation<W>& problem,
                                    int64_t b) {
    return {problem.sums, call.marks.Of(b)};
  }

  __device__ void operator()(int32_t target, int32_t contribution) const {
    const int32_t before = atomicAdd(sums + target, contribution);
    if (IsCancelled(before, contribution)) Mark(marks, target);
  }
};

// Calls an adder for the synapses of a unit.
template <typename Adder>
struct UnitAdder {
  Adder add;

  template <int kWidth>
  __device__ void operator()(int64_t, const int32_t (&targets)[kWidth],
                             const int32_t (&contributions)[kWidth]) const {
#pragma unroll
    for (int v = 0; v < kWidth; ++v) {
      if (targets[v] >= 0) add(targets[v], contributions[v]);
    }
  }
};

template <typename Adder, typename W>
__device__ UnitAdder<Adder> AdderOf(const Call<W>& call, const Propagation<W>& problem,
                                    int64_t b) {
  return {Adder::Of(call, problem, b)};
}

// Not 0 if this thread finds that some rows have tails, which the kernel before this one counted.
// Of a single problem, nothing waits for what is read.
template <bool kSingle, typename W>
__device__ __forceinline__ uint64_t AskForTails(const Call<W>& call) {
  if (threadIdx.x >= kChunks) return 0;
  const auto tail_of = [&](int64_t b) {
    return call.scratch.template Part<const uint64_t>(b, call.scratch.totals)[threadIdx.x];
  };
  if constexpr (kSingle) return tail_of(0);
  uint64_t tails = 0;
  for (int64_t b = blockIdx.y; b < call.batch.size; b += gridDim.y) tails |= tail_of(b);
  return tails;
}

// Rows of any length: their heads, read while the kernel before this one counts the tails.
template <bool kSingle, typename Adder, typename W>
__device__ void ScatterRows(const Call<W>& call) {
  bool is_ready = false;
  uint64_t tails = 0;
  const auto get_ready = [&] {
    if (is_ready) return;
    AwaitAndAdmit();
    tails = AskForTails<kSingle>(call);
    is_ready = true;
  };
  if (call.awaits_values) get_ready();
  ForEachElement<kSingle>(call, [&](int64_t b, const Propagation<W>& problem) {
    VisitHeads(problem, get_ready, AdderOf<Adder>(call, problem, b));
  });
  if (!__syncthreads_or(tails != 0)) return;
  using Events = CompressedEvents<W>;
  ForEachProblem<Events>(call, [&](int64_t b, const Propagation<W>& problem,
                                   const Events& events) {
    events.ForGrid(0, [] {}, AdderOf<Adder>(call, problem, b));
  });
}

// Rows of one length, which is at most that of a head.
template <typename W, typename Adder, bool kSingle>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    ScatterHeadsKernel(const __grid_constant__ Call<W> call) {
  ForEachElement<kSingle>(call, [&](int64_t b, const Propagation<W>& problem) {
    VisitHeads(problem, [] { AwaitAndAdmit(); }, AdderOf<Adder>(call, problem, b));
  });
}

template <typename Events, typename Adder, bool kSingle>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    ScatterKernel(const __grid_constant__ Call<typename Events::Weight> call) {
  using W = typename Events::Weight;
  if constexpr (Events::kCounted) {
    ScatterRows<kSingle, Adder>(call);
  } else {
    ForEachProblem<Events>(call, [&](int64_t b, const Propagation<W>& problem,
                                     const Events& events) {
      events.ForGrid(0, [] { AwaitAndAdmit(); }, AdderOf<Adder>(call, problem, b));
    });
  }
}

// Whether more units of a problem are there than were sorted: few synapses, those beyond the
// scratch, or graded ones without weights. Asked by all threads of a block after the sort.
template <typename W>
__device__ __forceinline__ bool HasRest(const Call<W>& call, int64_t b) {
  return HasFound(call, b, kUnlike | kUnsorted);
}

// Adds in memory what was not sorted. It admits the next kernel before it waits, as it mostly has
// nothing to do: the kernel before it has admitted it when the first one of the call had ended, so
// whoever starts now may read what that one left, and nothing else until it has waited.
template <typename Events, typename Adder>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    RestKernel(const __grid_constant__ Call<typename Events::Weight> call) {
  AdmitNextKernel();
  AwaitKernelBefore();
  const auto has_rest = [&](int64_t b) { return HasRest(call, b); };
  ForEachWanted<Events>(call, has_rest, [&](int64_t b, const auto& problem,
                                            const Events& events) {
    const int64_t sorted = UsableUnits(Tiling::Of(events, call), call, b);
    events.ForGrid(sorted, [] {}, AdderOf<Adder>(call, problem, b));
  });
}

// Scales the sums of those problems to which something was added in memory: of all, if none sorts.
template <typename W>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    ScaleKernel(const __grid_constant__ Call<W> call) {
  AwaitAndAdmit();
  ForEachElement<false>(call, [&](int64_t b, const Propagation<W>& problem) {
    if (call.sort_from > 0 && !HasRest(call, b)) return;
    const int64_t threads = int64_t{gridDim.x} * kThreads;
    for (int64_t j = blockIdx.x * kThreads + threadIdx.x; j < problem.num_post; j += threads) {
      problem.sums[j] = ScaledBits(problem.sums[j], call.batch.unit);
    }
  });
}

}  // namespace propagation
}  // namespace brainjax

#endif  // BRAINJAX_PROPAGATION_SCATTER_CUH_
