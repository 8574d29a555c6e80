// The kernels of a burst beside those that sum what arrives: begin in front of them, collect and
// advance behind.
//
// A block looks after a tile of neurons, of large networks after several in turn, and a thread
// after one of a tile: what lies side by side is read together, and the bits of who fires are those
// of a ballot. More neurons at a time would mean more instructions, each of which a small network
// runs once, and waits for.
#ifndef BRAINJAX_BURST_KERNELS_CUH_
#define BRAINJAX_BURST_KERNELS_CUH_

#include <cstdint>

#include "burst_core.h"
#include "burst_listing.cuh"
#include "burst_staging.cuh"
#include "launch.h"
#include "propagation_call.cuh"
#include "warp_ranges.cuh"

namespace brainjax {
namespace burst {

using propagation::AdmitNextKernel;
using propagation::AwaitKernelBefore;

constexpr int64_t kPreloaded = 1 << 20;  // neurons whose state the cache holds
constexpr int64_t kSmall = 1 << 18;      // neurons that make a tile for each block
constexpr int kCandidates = 0;  // place in BurstProblem::totals

// What a call is beside its operands.
struct BurstCall {
  BurstBatch batch;
  bool has_sums;  // over synapses
};

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
template <typename W>
__global__ void __launch_bounds__(kBlock)
    BeginKernel(const __grid_constant__ BurstCall call,
                const __grid_constant__ propagation::Call<W> summing) {
  static_assert(kBlock == propagation::kThreads);
  static_assert(sizeof(call) + sizeof(summing) <= 4096, "what a kernel may be given");
  AdmitNextKernel();
  if (call.has_sums) {
    if (summing.sort_from == 0) propagation::ClearSums(summing.batch);
    propagation::CountRows(summing);
  }
  const BurstBatch& batch = call.batch;
  for (int64_t b = blockIdx.y; b < batch.size; b += gridDim.y) {
    const BurstProblem problem = batch.At(b);
    const int64_t thread = int64_t{blockIdx.x} * kBlock + threadIdx.x;
    const int64_t stride = int64_t{gridDim.x} * kBlock;
    for (int64_t i = thread; i < batch.StartsAt(); i += stride) problem.cancelled[i] = 0;
    FindStarts(problem, batch.NumTiles());
    if (problem.is_driven == nullptr) continue;
    for (int64_t i = thread; i < problem.NumFired(); i += stride) {
      problem.sent[i] = problem.Sent(batch.rules, i);
    }
  }
}

// What a neuron receives, and whether it receives anything.
struct Received {
  float input;
  bool is_candidate;
};

// What arrives over synapses.
__device__ inline uint32_t Arriving(const BurstProblem& problem, bool has_sums, uint32_t id,
                                    bool* reached) {
  uint32_t sum = 0, cancelled = 0, more = 0;
  bool reached_otherwise = false;
  if (has_sums) {
    sum = __ldcg(problem.sums + id);
    cancelled = __ldcg(problem.cancelled + id / kBurstWord) >> (id % kBurstWord) & 1;
  }
  if (problem.arriving != nullptr) {
    more = problem.arriving[id];
    reached_otherwise = problem.reached[id];
  }
  *reached = sum != 0 || cancelled != 0 || reached_otherwise;
  return sum + more;
}

// Adds up what the neuron of this thread receives, and writes it.
__device__ inline Received Collect(const BurstProblem& problem, const BurstRules& rules,
                                   bool has_sums, uint32_t id, const Staging& staging,
                                   bool is_staged) {
  if (id >= problem.num_neurons) return {0.0f, false};
  Received received;
  const uint32_t sum = Arriving(problem, has_sums, id, &received.is_candidate);
  const bool is_injected = is_staged && staging.Touches(threadIdx.x);
  float staged = is_injected ? staging.sums[threadIdx.x] : 0.0f;
  received.is_candidate |= is_injected;
  const bool is_tired =
      problem.IsFatigued(rules) && problem.neurons.area[id] == rules.fatigue_area;
  for (const bool gets_power : {id == rules.power_neuron, is_tired}) {
    if (gets_power) staged += *problem.power;
    received.is_candidate |= gets_power;
  }
  received.input = staged + static_cast<float>(static_cast<int32_t>(sum)) * rules.unit;
  problem.inputs[id] = received.input;
  problem.candidates[id] = received.is_candidate;
  return received;
}

// What an earlier kernel of the call collected.
__device__ inline Received Recall(const BurstProblem& problem, uint32_t id) {
  if (id >= problem.num_neurons) return {0.0f, false};
  const auto* candidates = reinterpret_cast<const uint8_t*>(problem.candidates);
  return {__ldcg(problem.inputs + id), __ldcg(candidates + id) != 0};
}

// What changes of a candidate is written.
__device__ inline void Store(const BurstNeurons& neurons, uint32_t id, const Candidate& before,
                             const Outcome& outcome) {
  neurons.potential[id] = outcome.fires ? 0.0f : outcome.potential;
  if (outcome.countdown != before.countdown) {
    neurons.countdown[id] = static_cast<uint16_t>(outcome.countdown);
  }
  if (outcome.fire_count != before.fire_count) {
    neurons.fire_count[id] = static_cast<uint16_t>(outcome.fire_count);
  }
}

// Collects and counts the candidates, whose number decides by which rules they advance.
template <bool kSingle>
__global__ void __launch_bounds__(kBlock) CollectKernel(const __grid_constant__ BurstCall call) {
  __shared__ Staging staging;
  AdmitNextKernel();
  const int64_t first = blockIdx.x * kBurstTile;
  const uint32_t id = static_cast<uint32_t>(first + threadIdx.x);
  ForEachNetwork<kSingle>(call, [&](const BurstProblem& problem) {
    AwaitKernelBefore();
    const bool is_staged = staging.Fill(problem, first);
    const Received received =
        Collect(problem, call.batch.rules, call.has_sums, id, staging, is_staged);
    const uint32_t count = __popc(__ballot_sync(kAllLanes, received.is_candidate));
    if (Lane() == 0 && count > 0) atomicAdd(problem.totals + kCandidates, count);
  });
}

// Lets the neuron of this thread fire or leak, if it is a candidate.
template <bool kCollected>
__device__ __forceinline__ Outcome Advance(const BurstCall& call, const BurstProblem& problem,
                                           int64_t first, Staging& staging) {
  const BurstRules& rules = call.batch.rules;
  const BurstNeurons& neurons = problem.neurons;
  const uint32_t id = static_cast<uint32_t>(first + threadIdx.x);
  const bool exists = id < problem.num_neurons;
  const bool resets = exists && !rules.keeps_residues && !neurons.accumulates[id];
  const bool is_preloaded = problem.num_neurons <= kPreloaded;
  Candidate candidate{};
  if (exists && is_preloaded) candidate = Candidate::Load(neurons, id);
  Received received;
  bool in_batch = false;
  AwaitKernelBefore();
  if constexpr (kCollected) {
    in_batch = __ldcg(problem.totals + kCandidates) >= rules.batch_threshold;
    received = Recall(problem, id);
  } else {
    const bool is_staged = staging.Fill(problem, first);
    received = Collect(problem, rules, call.has_sums, id, staging, is_staged);
  }
  Outcome outcome{};
  if (received.is_candidate) {
    if (!is_preloaded) candidate = Candidate::Load(neurons, id);
    if (resets) candidate.potential = 0.0f;
    Limits limits{};
    if (candidate.NeedsLimits(received.input)) limits = Limits::Load(neurons, id);
    outcome = candidate.Advance(limits, rules, id, received.input, *problem.burst, in_batch);
    Store(neurons, id, candidate, outcome);
  } else if (resets) {
    neurons.potential[id] = 0.0f;
  }
  return outcome;
}

// Advances the neurons of so many tiles a block, one tile after the other, and lists who fires.
template <bool kSingle, bool kCollected>
__global__ void __launch_bounds__(kBlock, kSingle ? 4 : 3)
    AdvanceKernel(const __grid_constant__ BurstCall call, int tiles) {
  __shared__ Staging staging;
  __shared__ Listing listing;
  const int64_t first = int64_t{blockIdx.x} * tiles * kBurstTile;
  ForEachNetwork<kSingle>(call, [&](const BurstProblem& problem) {
#pragma unroll 1
    for (int tile = 0; tile < tiles; ++tile) {
      const int64_t begin = first + tile * kBurstTile;
      Outcome outcome{};
      if (begin < problem.num_neurons) {
        outcome = Advance<kCollected>(call, problem, begin, staging);
      }
      listing.Keep(tile, outcome);
    }
    listing.Write(problem, first, tiles);
  });
}

}  // namespace burst
}  // namespace brainjax

#endif  // BRAINJAX_BURST_KERNELS_CUH_
