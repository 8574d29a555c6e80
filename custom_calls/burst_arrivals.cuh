// What arrives at a thread's neurons over synapses: from where it was added up.
#ifndef BRAINJAX_BURST_ARRIVALS_CUH_
#define BRAINJAX_BURST_ARRIVALS_CUH_

#include <cstdint>

#include "burst_core.h"
#include "burst_own.cuh"
#include "propagation_sum.cuh"

namespace brainjax {
namespace burst {

// What arrives over synapses, and a bit for each neuron that anything reaches.
template <int kWidth>
struct Arrived {
  uint32_t sums[kWidth];
  uint32_t reached;

  // Adds what comes otherwise, if anything does.
  template <typename Own>
  __device__ __forceinline__ void AddMore(const BurstProblem& problem, const Own& own) {
    if (problem.arriving == nullptr) return;
#pragma unroll
    for (int v = 0; v < kWidth; ++v) {
      if (!own.Exists(v)) continue;
      sums[v] += static_cast<uint32_t>(problem.arriving[own.first + v]);
      reached |= uint32_t{problem.reached[own.first + v]} << v;
    }
  }
};

// The word with the bits of a thread's neurons: maybe reached though the sum is 0.
template <typename Own>
__device__ __forceinline__ uint32_t AskCancelled(const BurstProblem& problem, const Own& own) {
  return own.Exists(0) ? __ldcg(problem.cancelled + own.first / kBurstWord) : 0;
}

// The bits of these neurons in such a word.
template <int kWidth, typename Own>
__device__ __forceinline__ uint32_t BitsOf(uint32_t word, const Own& own) {
  return word >> (own.first % kBurstWord) & ((1u << kWidth) - 1);
}

// What has been asked for of it, where all of it is in memory.
template <int kWidth>
struct AskedArrivals {
  Numbers<kWidth, unsigned long long> tallies{};
  Numbers<kWidth, int32_t> sums{};
  uint32_t cancelled = 0;

  template <typename Own>
  __device__ __forceinline__ AskedArrivals(const BurstProblem& problem, const Own& own,
                                           bool has_sums) {
    if (!has_sums) return;
    if (problem.tallies != nullptr) {
      tallies = own.Ask(problem.tallies);
    } else {
      sums = own.Ask(problem.sums);
      cancelled = AskCancelled(problem, own);
    }
  }

  template <typename Own>
  __device__ __forceinline__ Arrived<kWidth> Unpack(const BurstProblem& problem,
                                                    const Own& own) const {
    Arrived<kWidth> arrived;
    int32_t plain[kWidth];
    unsigned long long tally[kWidth];
    sums.Unpack(plain);
    tallies.Unpack(tally);
    arrived.reached = BitsOf<kWidth>(cancelled, own);
#pragma unroll
    for (int v = 0; v < kWidth; ++v) {  // one of the two is 0
      arrived.sums[v] = static_cast<uint32_t>(plain[v]) | static_cast<uint32_t>(tally[v]);
      arrived.reached |= uint32_t{plain[v] != 0 || tally[v] >> 32 != 0} << v;
    }
    arrived.AddMore(problem, own);
    return arrived;
  }
};

// What has been asked for of what arrives at a thread's neurons: their block has added up what was
// sorted; the rest, if there is any, was added in memory.
template <int kWidth>
struct SlicedArrivals {
  Numbers<kWidth, int32_t> sums, rest{};
  uint32_t factor, cancelled;

  template <typename Own>
  __device__ __forceinline__ SlicedArrivals(const BurstProblem& problem, const Own& own,
                                            const propagation::SummedSlice& slice, bool has_rest)
      : factor(slice.factor), cancelled(AskCancelled(problem, own)) {
    if (has_rest) rest = own.Ask(problem.sums);
    using Word = typename Numbers<kWidth, int32_t>::Word;
    sums.words[0] = *reinterpret_cast<const Word*>(slice.sums + (own.first - slice.first));
  }

  template <typename Own>
  __device__ __forceinline__ Arrived<kWidth> Unpack(const BurstProblem& problem,
                                                    const Own& own) const {
    Arrived<kWidth> arrived;
    int32_t sorted[kWidth], others[kWidth];
    sums.Unpack(sorted);
    rest.Unpack(others);
    arrived.reached = BitsOf<kWidth>(cancelled, own);
#pragma unroll
    for (int v = 0; v < kWidth; ++v) {
      if (!own.Exists(v)) sorted[v] = 0;  // there is none: what was read is anything
      arrived.sums[v] =
          factor * static_cast<uint32_t>(sorted[v]) + static_cast<uint32_t>(others[v]);
      arrived.reached |= uint32_t{sorted[v] != 0 || others[v] != 0} << v;
    }
    arrived.AddMore(problem, own);
    return arrived;
  }
};

}  // namespace burst
}  // namespace brainjax

#endif  // BRAINJAX_BURST_ARRIVALS_CUH_
