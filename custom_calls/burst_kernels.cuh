// The kernels of a burst beside those that sum what arrives: begin in front of them; collect,
// advance and list behind. Of a large network one kernel sums what was sorted and advances.
#ifndef BRAINJAX_BURST_KERNELS_CUH_
#define BRAINJAX_BURST_KERNELS_CUH_

#include <cstdint>

#include "burst_advance.cuh"
#include "burst_listing.cuh"
#include "propagation_sum.cuh"

namespace brainjax {
namespace burst {

using propagation::AdmitNextKernel;
using propagation::SummedSlice;

constexpr int kBlock = 256;            // threads
constexpr int kWarps = kBlock / kWarp;
constexpr int64_t kOneEach = 1 << 18;  // neurons up to which a thread looks after one
constexpr int kNeighbours = 4;         // that it looks after beyond
// Of a block that sums a slice of the neurons and advances them.
constexpr int kSliceWarps = propagation::kSumThreads / kWarp;
constexpr uint32_t kOfWarp = kNeighbours * kWarp;  // neurons that a warp advances at a time
static_assert(propagation::kSliceUnit % kOfWarp == 0);

using SliceStagings = Staging<kOfWarp>[kSliceWarps];

// Calls use(problem) for the networks of a row of the grid. A single one is read where the kernel's
// parameters are, which takes no registers.
template <bool kSingle, typename Use>
__device__ __forceinline__ void ForEachNetwork(const BurstCall& call, const Use& use) {
  if constexpr (kSingle) {
    use(call.batch.first);
  } else {
    for (int64_t b = blockIdx.y; b < call.batch.size; b += gridDim.y) use(call.batch.At(b));
  }
}

// What comes before spikes are summed. It must not overlap with what came before the call.
template <bool kSingle, typename W>
__global__ void __launch_bounds__(propagation::kThreads, 2)
    BeginKernel(const __grid_constant__ BurstCall call,
                const __grid_constant__ propagation::Call<W> summing) {
  static_assert(sizeof(call) + sizeof(summing) <= 4096, "what a kernel may be given");
  AdmitNextKernel();
  if (call.has_sums) {
    if (summing.sort_from == 0) propagation::ClearSums(summing);
    propagation::CountRows<kSingle>(summing);
  }
  const BurstBatch& batch = call.batch;
  ForEachNetwork<kSingle>(call, [&](const BurstProblem& problem) {
    const int64_t thread = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    const int64_t stride = int64_t{gridDim.x} * blockDim.x;
    // The scratch begins with these, and has counts behind them.
    for (int64_t i = thread; i < batch.StartsAt(); i += stride) problem.cancelled[i] = 0;
    FindStarts(problem, static_cast<int32_t>(batch.NumTiles()));
    Send(problem, batch.rules);
  });
}

// The first neuron of this warp, which may be a little beyond 2^31.
template <int kWidth>
__device__ __forceinline__ uint32_t FirstOfWarp() {
  return (blockIdx.x * kWarps + WarpOfBlock()) * kWarp * kWidth;
}

// Collects and counts the candidates, whose number decides by which rules they advance.
template <bool kSingle, int kWidth>
__global__ void __launch_bounds__(kBlock) CollectKernel(const __grid_constant__ BurstCall call) {
  __shared__ Staging<kWidth * kWarp> stagings[kWarps];
  const uint32_t first = FirstOfWarp<kWidth>();
  Staging<kWidth * kWarp>& staging = stagings[threadIdx.x / kWarp];
  AwaitAndAdmit();
  if (first >= call.batch.first.NumNeurons()) return;
  ForEachNetwork<kSingle>(call, [&](const BurstProblem& problem) {
    ForOwn<kWidth>(problem, first, [&](const auto& own) {
      const AskedPart part(problem, first);
      const AskedArrivals<kWidth> asked(problem, own, call.has_sums);
      const bool is_staged = staging.Fill(problem, first, part);
      const Received<kWidth> received =
          Collect(call, problem, own, asked.Unpack(problem, own), staging, is_staged);
      const uint32_t count = __reduce_add_sync(kAllLanes, __popc(received.candidates));
      if (Lane() == 0 && count > 0) atomicAdd(problem.totals + kCandidates, count);
    });
  });
}

template <bool kSingle, int kWidth, bool kCollected>
__global__ void __launch_bounds__(kBlock, kSingle ? 4 : 2)
    AdvanceKernel(const __grid_constant__ BurstCall call) {
  __shared__ Staging<kWidth * kWarp> stagings[kWarps];
  Staging<kWidth * kWarp>& staging = stagings[threadIdx.x / kWarp];
  const uint32_t first = FirstOfWarp<kWidth>();
  if (first >= call.batch.first.NumNeurons()) {
    AwaitAndAdmit();
    return;
  }
  ForEachNetwork<kSingle>(call, [&](const BurstProblem& problem) {
    ForOwn<kWidth>(problem, first, [&](const auto& own) {
      const uint32_t fires =
          problem.neurons.kind != nullptr
              ? AdvanceWarp<kWidth, kCollected, true>(call, problem, first, own, staging)
              : AdvanceWarp<kWidth, kCollected, false>(call, problem, first, own, staging);
      CountFires<kWidth>(problem, first, fires);
    });
  });
}

// Advances the neurons of a slice: the warps of a block take turns.
template <bool kByKind>
__device__ __forceinline__ void AdvanceSlice(const BurstCall& call, const SummedSlice& slice,
                                             bool has_rest, SliceStagings& stagings) {
  const BurstProblem& problem = call.batch.first;
  const uint32_t warp = WarpOfBlock();
  const auto part_at = [&](uint32_t place) {
    return place < slice.size ? AskedPart(problem, slice.first + place) : AskedPart();
  };
  constexpr uint32_t kTurn = kSliceWarps * kOfWarp;
  AskedPart next_part = part_at(warp * kOfWarp);
  for (uint32_t place = warp * kOfWarp; place < slice.size; place += kTurn) {
    const uint32_t first = slice.first + place;
    const AskedPart part = next_part;
    next_part = part_at(place + kTurn);  // asked for a turn ahead
    ForOwn<kNeighbours>(problem, first, [&](const auto& own) {
      const uint32_t fires = AdvanceSeveral<SlicedArrivals<kNeighbours>, kNeighbours, kByKind>(
          call, problem, first, own, stagings[warp], part, slice, has_rest);
      CountFires<kNeighbours>(problem, first, fires);
    });
  }
}

// Adds up what was sorted, and advances who gets it. What was not sorted is added before.
template <typename W>
__global__ void __launch_bounds__(propagation::kSumThreads,
                                  propagation::kSumBlocksPerMultiprocessor)
    AdvanceSlicesKernel(const __grid_constant__ BurstCall call,
                        const __grid_constant__ propagation::Call<W> summing) {
  static_assert(sizeof(call) + sizeof(summing) <= 4096, "what a kernel may be given");
  extern __shared__ int4 memory[];
  SliceStagings& stagings = *reinterpret_cast<SliceStagings*>(memory);
  int32_t* const sums = reinterpret_cast<int32_t*>(&stagings + 1);
  AwaitAndAdmit();
  propagation::SumSlices<CompressedEvents<W>, true>(
      summing, sums,
      [&](const Propagation<W>&, const SummedSlice& slice, bool has_rest) {
        if (call.batch.first.neurons.kind != nullptr) {
          AdvanceSlice<true>(call, slice, has_rest, stagings);
        } else {
          AdvanceSlice<false>(call, slice, has_rest, stagings);
        }
      });
}

// Lists who fires.
template <bool kSingle>
__global__ void __launch_bounds__(kListers) ListKernel(const __grid_constant__ BurstCall call) {
  __shared__ WarpWords<kListers> words;
  AwaitKernelBefore();
  ForEachNetwork<kSingle>(call, [&](const BurstProblem& problem) {
    List(problem, words);
    __syncthreads();
  });
}

}  // namespace burst
}  // namespace brainjax

#endif  // BRAINJAX_BURST_KERNELS_CUH_
