// The kernels that sum what spikes send, and how they are started.
//
// Sums that fit into the cache are added to in memory, one atomic per synapse. Where they do not,
// such an atomic costs a round trip to memory; there blocks first sort tiles of synapses by slice
// of targets, then add up one slice at a time in shared memory. Sums are integers: any order does.
//
// The kernels of one call overlap: each is set up, and may read what was there before the call,
// while the one before it still runs; then it waits, and only then admits the next. A sort of rows
// of one length is the first of its call: it overlaps with what came before, and reads nothing
// until it has waited.
#ifndef BRAINJAX_PROPAGATION_LAUNCH_CUH_
#define BRAINJAX_PROPAGATION_LAUNCH_CUH_

#include <cstdint>
#include <optional>
#include <type_traits>

#include "propagation_call.cuh"
#include "propagation_sort.cuh"
#include "propagation_sum.cuh"

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

// Calls body(b, problem, events, sorted) for each problem of which more units are there than were
// sorted: few synapses, those beyond the scratch, or graded ones without weights.
template <typename Events, typename Body>
__device__ __forceinline__ void ForEachRest(const Call<typename Events::Weight>& call,
                                            const Body& body) {
  const auto may_have_rest = [&](int64_t b) { return HasFound(call, b, kUnlike | kUnsorted); };
  ForEachWanted<Events>(call, may_have_rest, [&](int64_t b, const auto& problem,
                                                 const Events& events) {
    const int64_t sorted = UsableUnits(Tiling::Of(events, call), call, b);
    if (sorted < events.units()) body(b, problem, events, sorted);
  });
}

// Adds in memory what was not sorted.
template <typename Events, typename Adder>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    RestKernel(const __grid_constant__ Call<typename Events::Weight> call) {
  AdmitNextKernel();  // which waits for this one, and so for all that this one waits for
  AwaitKernelBefore();
  ForEachRest<Events>(call, [&](int64_t b, const auto& problem, const Events& events,
                                int64_t sorted) {
    events.ForGrid(sorted, [] {}, AdderOf<Adder>(call, problem, b));
  });
}

// Scales the sums of those problems to which something was added in memory.
template <typename Events>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    ScaleKernel(const __grid_constant__ Call<typename Events::Weight> call) {
  AwaitAndAdmit();
  ForEachRest<Events>(call, [&](int64_t, const auto& problem, const Events&, int64_t) {
    const int64_t threads = int64_t{gridDim.x} * kThreads;
    for (int64_t j = blockIdx.x * kThreads + threadIdx.x; j < problem.num_post; j += threads) {
      problem.sums[j] = ScaledBits(problem.sums[j], call.batch.unit);
    }
  });
}

// Starts the kernels of a call.
struct Launcher {
  const Device& device;
  cudaStream_t stream;

  // Blocks for each batch element, at most `most`, so that all together fill the machine once.
  dim3 Grid(int64_t most, int64_t batch) const {
    const int64_t blocks = int64_t{device.multiprocessors} * kBlocksPerMultiprocessor;
    const int64_t columns = std::clamp<int64_t>(std::min(most, blocks / batch), 1, kMaxSortBlocks);
    return dim3(static_cast<unsigned>(columns),
                static_cast<unsigned>(std::min(batch, kMaxGridYZ)));
  }

  dim3 SortGrid(int64_t batch) const { return Grid(kMaxSortBlocks, batch); }

  // Starts a kernel that may overlap with the one before it on the stream.
  template <typename... Parameters, typename... Arguments>
  cudaError_t StartOverlapping(void (*kernel)(Parameters...), dim3 grid, int threads,
                               int64_t shared_bytes, const Arguments&... arguments) const {
    cudaLaunchAttribute overlap = {};
    overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
    const bool can_overlap = device.architecture >= 9;
    return StartKernel(stream, {grid, threads, shared_bytes},
                       can_overlap ? std::optional(overlap) : std::nullopt, kernel, arguments...);
  }
};

// Synapses that a list of distinct neurons can reach.
template <typename Events>
int64_t MaxSynapses(const Call<typename Events::Weight>& call) {
  const auto& first = call.batch.first;
  return Events::kCounted ? first.num_synapses : first.capacity * first.fan_out;
}

// Shared memory that a block may ask for where `blocks` share a multiprocessor.
inline int64_t ShareOf(const Device& device, int64_t blocks) {
  return (device.shared_memory + kReservedBytes) / blocks - kReservedBytes - kStaticBytes;
}

// Blocks that add up slices at the same time.
inline int SumBlocks(const Device& device) {
  return device.multiprocessors * kSumBlocksPerMultiprocessor;
}

// Slices whose sums leave `taken` bytes of shared memory to who adds them up.
inline Slices SlicesOf(const Device& device, int64_t num_post, int64_t most, int64_t taken) {
  const int64_t bytes = ShareOf(device, kSumBlocksPerMultiprocessor) - taken;
  const int64_t room = bytes / static_cast<int64_t>(sizeof(int32_t)) - kWarp;
  return Slices::Of(num_post, most, SumBlocks(device), std::min(room, int64_t{1} << kPlaceBits));
}

// Shared memory for the sums of a slice and the spare words behind them.
inline int64_t SliceBytes(const Slices& slices) {
  return (int64_t{slices.size} + kWarp) * static_cast<int64_t>(sizeof(int32_t));
}

// The most synapses that a block sorts at a time: whole warps of whole units.
template <bool kWeighted>
int64_t TileOf(const Device& device, int64_t slices) {
  constexpr int64_t kWhole = 4 * kWarp;
  const int64_t room = ShareOf(device, 1) - TileBuffers<kWeighted>::Bytes(0, slices);
  return std::clamp(room / TileBuffers<kWeighted>::kSynapseBytes / kWhole * kWhole, kMinTile,
                    MaxTile(kWeighted));
}

// Fits a call that sorts to the device. Who adds up slices takes `taken` bytes of shared memory
// besides.
template <typename Events>
void FitToDevice(const Launcher& launcher, int64_t taken, Call<typename Events::Weight>* call) {
  constexpr bool kWeighted = !std::is_same_v<typename Events::Weight, UnitWeight>;
  const Slices slices = SlicesOf(launcher.device, call->batch.first.num_post,
                                 call->scratch.max_slices, taken);
  call->sort_blocks = launcher.SortGrid(call->batch.size).x;
  call->scratch.FitSort(slices, TileOf<kWeighted>(launcher.device, slices.count),
                        call->sort_blocks);
}

template <typename Events>
cudaError_t StartSort(const Launcher& launcher, const Call<typename Events::Weight>& call) {
  constexpr bool kWeighted = !std::is_same_v<typename Events::Weight, UnitWeight>;
  return launcher.StartOverlapping(
      SortKernel<Events>, launcher.SortGrid(call.batch.size), kThreads,
      TileBuffers<kWeighted>::Bytes(call.scratch.tile, call.scratch.slices.count), call);
}

// Adds in memory what is not sorted.
template <typename Events, typename Adder>
cudaError_t StartRest(const Launcher& launcher, const Call<typename Events::Weight>& call) {
  return launcher.StartOverlapping(RestKernel<Events, Adder>,
                                   launcher.SortGrid(call.batch.size), kThreads, 0, call);
}

// Starts the kernels that sort, add up and write sums, and scale them.
template <typename Events, bool kTold>
cudaError_t StartSorted(const Launcher& launcher, Call<typename Events::Weight> call) {
  FitToDevice<Events>(launcher, 0, &call);
  cudaError_t error = StartSort<Events>(launcher, call);
  if (error != cudaSuccess) return error;
  const Slices& slices = call.scratch.slices;
  const dim3 grid(static_cast<unsigned>(slices.count),
                  launcher.SortGrid(call.batch.size).y);
  error = launcher.StartOverlapping(SumKernel<Events, kTold>, grid, kSumThreads,
                                    SliceBytes(slices), call);
  if (error != cudaSuccess) return error;
  error = StartRest<Events, std::conditional_t<kTold, MarkingAdder, SumAdder>>(launcher, call);
  if (kTold || call.batch.unit == 0.0f || error != cudaSuccess) return error;
  return launcher.StartOverlapping(ScaleKernel<Events>, launcher.SortGrid(call.batch.size),
                                   kThreads, 0, call);
}

// Cuts the scratch of a call into its parts. Returns whether there is enough.
template <typename Events>
bool DivideScratch(Call<typename Events::Weight>* call) {
  using W = typename Events::Weight;
  const Propagation<W>& first = call->batch.first;
  const bool may_sort = call->sort_from > 0;
  call->scratch.Divide(Events::kCounted ? first.capacity : 0, may_sort,
                       !std::is_same_v<W, UnitWeight>, MaxSynapses<Events>(*call), first.num_post);
  return call->scratch.end <= call->scratch.stride &&
         (!may_sort || call->scratch.max_slices <= kMaxSlices);
}

// Blocks that clear the sums and count rows.
template <typename Events>
dim3 PreparingGrid(const Launcher& launcher, const Call<typename Events::Weight>& call) {
  if (Events::kCounted) return launcher.Grid(kChunks, call.batch.size);
  const int64_t sums = call.batch.size * int64_t{call.batch.first.num_post};
  return launcher.Grid(CeilDiv(sums, 4 * kThreads), 1);
}

// The kernel that adds in memory.
template <typename Events, typename Adder, bool kSingle>
auto ScatterOf(const Call<typename Events::Weight>& call) {
  if constexpr (Events::kCounted) {
    return ScatterKernel<Events, Adder, kSingle>;
  } else {
    return call.batch.first.fan_out <= kHead
               ? ScatterHeadsKernel<typename Events::Weight, Adder, kSingle>
               : ScatterKernel<Events, Adder, false>;
  }
}

// Starts the kernels that sum what arrives, behind one that prepares. With kTold, they tell who was
// reached too.
template <typename Events, bool kTold>
cudaError_t StartSums(const Launcher& launcher, const Call<typename Events::Weight>& call) {
  if (call.sort_from > 0) return StartSorted<Events, kTold>(launcher, call);
  using Adder = std::conditional_t<kTold, TallyAdder, SumAdder>;
  const auto scatter = call.batch.size == 1 ? ScatterOf<Events, Adder, true>(call)
                                            : ScatterOf<Events, Adder, false>(call);
  const int64_t blocks = CeilDiv(MaxSynapses<Events>(call), kThreads);
  return launcher.StartOverlapping(scatter, launcher.Grid(blocks, call.batch.size), kThreads, 0,
                                   call);
}

}  // namespace propagation
}  // namespace brainjax

#endif  // BRAINJAX_PROPAGATION_LAUNCH_CUH_
