// Large networks whose spikes are sorted: a block adds up what arrives at a slice of neurons and
// advances them at once, so that sums need not go through memory.
#ifndef BRAINJAX_BURST_SLICES_CUH_
#define BRAINJAX_BURST_SLICES_CUH_

#include <cstdint>

#include "burst_kernels.cuh"
#include "propagation_sum.cuh"

namespace brainjax {
namespace burst {

using propagation::SummedSlice;

constexpr uint32_t kOfWarp = kNeighbours * kWarp;  // neurons that a warp advances at a time
constexpr int kSliceWarps = propagation::kSumThreads / kWarp;
static_assert(propagation::kSliceUnit % kOfWarp == 0);

using SliceStagings = Staging<kOfWarp>[kSliceWarps];

// What has been asked for of what arrives at a thread's neurons: their block has added up what was
// sorted; the rest, if there is any, was added in memory.
struct SlicedArrivals {
  Numbers<kNeighbours, int32_t> sums, rest;
  uint32_t factor, cancelled;

  template <typename Own>
  __device__ __forceinline__ SlicedArrivals(const BurstProblem& problem, const Own& own,
                                            const SummedSlice& slice, bool has_rest)
      : factor(slice.factor), cancelled(AskCancelled(problem, own)) {
    rest = {};
    if (has_rest) rest = own.Ask(problem.sums);
    using Word = Numbers<kNeighbours, int32_t>::Word;
    sums.words[0] = *reinterpret_cast<const Word*>(slice.sums + (own.first - slice.first));
  }

  template <typename Own>
  __device__ __forceinline__ Arrived<kNeighbours> Unpack(const BurstProblem& problem,
                                                         const Own& own) const {
    Arrived<kNeighbours> arrived;
    int32_t sorted[kNeighbours], others[kNeighbours];
    sums.Unpack(sorted);
    rest.Unpack(others);
    arrived.reached = BitsOf<kNeighbours>(cancelled, own);
#pragma unroll
    for (int v = 0; v < kNeighbours; ++v) {
      if (!own.Exists(v)) sorted[v] = 0;  // there is none: what was read is anything
      arrived.sums[v] =
          factor * static_cast<uint32_t>(sorted[v]) + static_cast<uint32_t>(others[v]);
      arrived.reached |= uint32_t{sorted[v] != 0 || others[v] != 0} << v;
    }
    arrived.AddMore(problem, own);
    return arrived;
  }
};

// Advances the neurons of a slice: the warps of a block take turns.
template <bool kByKind>
__device__ __forceinline__ void AdvanceSlice(const BurstCall& call, const SummedSlice& slice,
                                             bool has_rest, SliceStagings& stagings) {
  const BurstProblem& problem = call.batch.first;
  // The compiler is to know that it is the same for all lanes.
  const uint32_t warp = __shfl_sync(kAllLanes, threadIdx.x / kWarp, 0);
  const auto part_at = [&](uint32_t place) {
    return place < slice.size ? Part::Of(problem, slice.first + place) : Part{0, 0};
  };
  constexpr uint32_t kTurn = kSliceWarps * kOfWarp;
  Part next_part = part_at(warp * kOfWarp);
  for (uint32_t place = warp * kOfWarp; place < slice.size; place += kTurn) {
    const uint32_t first = slice.first + place;
    const Part part = next_part;
    next_part = part_at(place + kTurn);  // asked for a turn ahead
    ForOwn<kNeighbours>(problem, first, [&](const auto& own) {
      const uint32_t fires = AdvanceOfLarge<SlicedArrivals, kNeighbours, kByKind>(
          call, problem, first, own, stagings[warp], part, slice, has_rest);
      WriteFires<kNeighbours>(problem, first, fires);
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
  int32_t* const sums = reinterpret_cast<int32_t*>(memory) + sizeof(SliceStagings) / sizeof(int32_t);
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

}  // namespace burst
}  // namespace brainjax

#endif  // BRAINJAX_BURST_SLICES_CUH_
