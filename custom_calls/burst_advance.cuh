// What warps do with their neurons in a burst: collect what these receive, let them fire or leak.
//
// A thread looks after one neuron, of large networks after several neighbours: more would mean more
// instructions, each of which a small network runs once, and waits for. Warps do not wait for each
// other while they advance.
#ifndef BRAINJAX_BURST_ADVANCE_CUH_
#define BRAINJAX_BURST_ADVANCE_CUH_

#include <cstdint>

#include "burst_arrivals.cuh"
#include "burst_candidates.cuh"
#include "burst_core.h"
#include "burst_own.cuh"
#include "burst_staging.cuh"
#include "propagation_call.cuh"
#include "warp_ranges.cuh"

namespace brainjax {
namespace burst {

using propagation::AwaitAndAdmit;
using propagation::AwaitKernelBefore;

constexpr int kCandidates = 0;  // place in BurstProblem::totals

// What a call is beside its operands.
struct BurstCall {
  BurstBatch batch;
  bool has_sums;  // over synapses
};

// The number of this warp in its block. The compiler is to know that it is the same for all lanes.
__device__ __forceinline__ uint32_t WarpOfBlock() {
  return __shfl_sync(kAllLanes, threadIdx.x / kWarp, 0);
}

// Writes what neurons that fired send, where some are driven: all threads of a row of the grid do.
__device__ __forceinline__ void Send(const BurstProblem& problem, const BurstRules& rules) {
  if (problem.is_driven == nullptr) return;
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  const int64_t thread = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  for (int64_t i = thread; i < problem.NumFired(); i += stride) {
    problem.sent[i] = problem.Sent(rules, i);
  }
}

// What neurons receive, and a bit for each that receives anything.
template <int kWidth>
struct Received {
  float inputs[kWidth];
  uint32_t candidates;
};

// Adds the power to what is staged for a neuron, for each reason that there is. Returns whether
// there is one.
__device__ inline bool AddPower(const BurstProblem& problem, const BurstRules& rules,
                                bool is_fatigued, uint32_t id, float* staged) {
  const BurstNeurons& neurons = problem.neurons;
  const bool is_tired = is_fatigued && neurons.area[neurons.Row(id)] == rules.fatigue_area;
  for (const bool gets_power : {id == rules.power_neuron, is_tired}) {
    if (gets_power) *staged += *problem.power;
  }
  return id == rules.power_neuron || is_tired;
}

// Puts what comes from outside for a thread's neurons into `staged`. Returns a bit for each that
// gets any.
template <int kWidth, typename Own>
__device__ __forceinline__ uint32_t FromOutside(const BurstCall& call,
                                                const BurstProblem& problem, const Own& own,
                                                const Staging<kWidth * kWarp>& staging,
                                                bool is_staged, float (&staged)[kWidth]) {
  const BurstRules& rules = call.batch.rules;
  uint32_t touched = is_staged ? staging.template Touched<kWidth>(Lane() * kWidth) : 0;
  const bool is_fatigued = problem.IsFatigued(rules);
  const uint32_t power_place = static_cast<uint32_t>(rules.power_neuron) - own.first;
  const bool may_get_power = is_fatigued || power_place < kWidth;
  if (touched != 0) staging.Read(Lane() * kWidth, touched, staged);
  if (!may_get_power) return touched;
#pragma unroll
  for (int v = 0; v < kWidth; ++v) {
    if (!own.Exists(v)) continue;
    touched |= uint32_t{AddPower(problem, rules, is_fatigued, own.first + v, &staged[v])} << v;
  }
  return touched;
}

// Adds up what a thread's neurons receive, and writes it where it is kept.
template <int kWidth, typename Own>
__device__ __forceinline__ Received<kWidth> Collect(const BurstCall& call,
                                                    const BurstProblem& problem, const Own& own,
                                                    const Arrived<kWidth>& arrived,
                                                    const Staging<kWidth * kWarp>& staging,
                                                    bool is_staged) {
  Received<kWidth> received{};
  received.candidates =
      arrived.reached | FromOutside(call, problem, own, staging, is_staged, received.inputs);
#pragma unroll
  for (int v = 0; v < kWidth; ++v) {
    const float sum = static_cast<float>(static_cast<int32_t>(arrived.sums[v]));
    received.inputs[v] += sum * call.batch.rules.unit;
  }
  if (problem.inputs == nullptr) return received;
  bool flags[kWidth];
#pragma unroll
  for (int v = 0; v < kWidth; ++v) flags[v] = received.candidates >> v & 1;
  own.Write(received.inputs, problem.inputs);
  own.Write(flags, problem.candidates);
  return received;
}

// What an earlier kernel of the call collected.
template <int kWidth, typename Own>
__device__ Received<kWidth> Recall(const BurstProblem& problem, const Own& own) {
  Received<kWidth> received{};
  bool flags[kWidth];
  own.Ask(problem.inputs).Unpack(received.inputs);
  own.Ask(problem.candidates).Unpack(flags);
#pragma unroll
  for (int v = 0; v < kWidth; ++v) received.candidates |= uint32_t{flags[v]} << v;
  return received;
}

// Calls use(own) with the neurons of a thread, those of whose warp begin at `first`.
template <int kWidth, typename Use>
__device__ __forceinline__ void ForOwn(const BurstProblem& problem, uint32_t first,
                                       const Use& use) {
  const uint32_t mine = first + Lane() * kWidth, neurons = problem.NumNeurons();
  if (kWidth > 1 && first + kWarp * kWidth <= neurons) {
    use(Own<kWidth, true>(mine, neurons));
  } else {
    use(Own<kWidth, false>(mine, neurons));
  }
}

// What decides whether neurons fire that may.
struct Trial {
  Limits limits;
  uint32_t number;  // of the burst
  bool in_batch;

  // Of the neurons that have these parameters.
  __device__ __forceinline__ Trial(const BurstProblem& problem, uint32_t row, bool in_batch)
      : limits(Limits::Load(problem.neurons, row)), number(problem.Number()), in_batch(in_batch) {}
};

// Lets those of a thread's neurons that are candidates fire or leak. Those that fire keep their
// potential until they are listed. trial_of(id) is asked for those that may. Returns a bit for each
// that fires.
template <int kWidth, typename Own, typename TrialOf>
__device__ __forceinline__ uint32_t AdvanceOwn(const BurstCall& call, const BurstProblem& problem,
                                               const Own& own, OwnCandidates<kWidth>& state,
                                               const Received<kWidth>& received,
                                               const TrialOf& trial_of) {
  if ((received.candidates | state.resets) == 0) return 0;
  uint32_t may_fire = 0, fires = 0;
  bool counts_change = false;
#pragma unroll
  for (int v = 0; v < kWidth; ++v) {
    const Candidate candidate = state.At(v);
    const bool is_candidate = received.candidates >> v & 1;
    const bool tries = is_candidate && candidate.MayFire(received.inputs[v]);
    may_fire |= uint32_t{tries} << v;
    // Reckoned for all, as hardly a warp has none: branches would take longer.
    counts_change |= state.BecomeIf(is_candidate && !tries, v, candidate.Stay(received.inputs[v]));
  }
  counts_change |= may_fire != 0;  // written even if unchanged: to compare takes longer
  for (; may_fire != 0; may_fire &= may_fire - 1) {
    const int v = __ffs(may_fire) - 1;
    float input = 0.0f;
#pragma unroll
    for (int u = 0; u < kWidth; ++u) input = u == v ? received.inputs[u] : input;
    const uint32_t id = own.first + v;
    const Trial trial = trial_of(id);
    const Outcome outcome = state.At(v).Try(trial.limits, call.batch.rules, id, input,
                                            trial.number, trial.in_batch);
    state.Become(v, outcome);
    fires |= uint32_t{outcome.fires} << v;
  }
  own.Write(state.potential, problem.neurons.potential);
  if (counts_change) {
    own.Write(state.countdown, problem.neurons.countdown);
    own.Write(state.fire_count, problem.neurons.fire_count);
  }
  return fires;
}

// The same where hardly any may fire: what decides about those is read when they are known.
template <int kWidth, typename Own>
__device__ __forceinline__ uint32_t AdvanceAndRead(const BurstCall& call,
                                                   const BurstProblem& problem, const Own& own,
                                                   OwnCandidates<kWidth>& state,
                                                   const Received<kWidth>& received,
                                                   bool in_batch) {
  return AdvanceOwn(call, problem, own, state, received, [&](uint32_t id) {
    return Trial(problem, state.parameters.RowOf(problem.neurons, id), in_batch);
  });
}

// Advances candidates by the rules that their number decides, which an earlier kernel found.
template <int kWidth, bool kByKind, typename Own>
__device__ __forceinline__ uint32_t AdvanceCollected(const BurstCall& call,
                                                     const BurstProblem& problem,
                                                     const Own& own) {
  const BurstRules& rules = call.batch.rules;
  const AskedCandidates<kWidth, kByKind> asked(problem.neurons, rules.keeps_residues, own);
  AwaitAndAdmit();
  const bool in_batch = __ldcg(problem.totals + kCandidates) >= rules.batch_threshold;
  const Received<kWidth> received = Recall<kWidth>(problem, own);
  OwnCandidates<kWidth> state = asked.Unpack(problem.neurons, rules.keeps_residues, own);
  return AdvanceAndRead(call, problem, own, state, received, in_batch);
}

// Collects and advances the only neuron of a thread. What it is, and what is injected, is known
// before spikes are summed: kernels that sum let this one start when the first kernel of the call,
// which finds the parts of the tiles, has ended; without them that one has to be awaited.
template <bool kByKind, typename Own>
__device__ __forceinline__ uint32_t AdvanceOne(const BurstCall& call, const BurstProblem& problem,
                                               uint32_t first, const Own& own,
                                               Staging<kWarp>& staging) {
  const BurstRules& rules = call.batch.rules;
  const AskedCandidates<1, kByKind> asked(problem.neurons, rules.keeps_residues, own);
  if (!call.has_sums) AwaitKernelBefore();
  const bool is_staged = staging.Fill(problem, first, AskedPart(problem, first));
  OwnCandidates<1> state = asked.Unpack(problem.neurons, rules.keeps_residues, own);
  const uint32_t row = own.Exists(0) ? state.parameters.RowOf(problem.neurons, own.first) : 0;
  const Trial trial(problem, row, false);
  AwaitAndAdmit();
  const AskedArrivals<1> arrivals(problem, own, call.has_sums);
  const Received<1> received =
      Collect(call, problem, own, arrivals.Unpack(problem, own), staging, is_staged);
  return AdvanceOwn(call, problem, own, state, received, [&](uint32_t) { return trial; });
}

// Collects and advances several, of a large network: few of its warps start before spikes are
// summed, but all ask for everything at once.
template <typename Arrivals, int kWidth, bool kByKind, typename Own, typename... Sources>
__device__ __forceinline__ uint32_t AdvanceSeveral(const BurstCall& call,
                                                   const BurstProblem& problem, uint32_t first,
                                                   const Own& own,
                                                   Staging<kWidth * kWarp>& staging,
                                                   AskedPart part,
                                                   const Sources&... sources) {
  const BurstRules& rules = call.batch.rules;
  const AskedCandidates<kWidth, kByKind> asked(problem.neurons, rules.keeps_residues, own);
  const Arrivals arrivals(problem, own, sources...);
  const bool is_staged = staging.Fill(problem, first, part);
  const auto collect = [&] {
    return Collect(call, problem, own, arrivals.Unpack(problem, own), staging, is_staged);
  };
  if constexpr (kByKind && Own::kAllExist) {
    uint32_t row;
    if (asked.ArePlain(problem.neurons, &row)) {
      OwnCandidates<kWidth> state =
          asked.UnpackPlain(problem.neurons, rules.keeps_residues, own, row);
      return AdvanceOwn(call, problem, own, state, collect(),
                        [&](uint32_t) { return Trial(problem, row, false); });
    }
  }
  OwnCandidates<kWidth> state = asked.Unpack(problem.neurons, rules.keeps_residues, own);
  return AdvanceAndRead(call, problem, own, state, collect(), false);
}

// Advances the neurons of a warp. Returns bits of who fires, each lane its own.
template <int kWidth, bool kCollected, bool kByKind, typename Own>
__device__ __forceinline__ uint32_t AdvanceWarp(const BurstCall& call,
                                                const BurstProblem& problem, uint32_t first,
                                                const Own& own,
                                                Staging<kWidth * kWarp>& staging) {
  if constexpr (kCollected) {
    return AdvanceCollected<kWidth, kByKind>(call, problem, own);
  } else if constexpr (kWidth == 1) {
    return AdvanceOne<kByKind>(call, problem, first, own, staging);
  } else {
    AwaitAndAdmit();
    return AdvanceSeveral<AskedArrivals<kWidth>, kWidth, kByKind>(
        call, problem, first, own, staging, AskedPart(problem, first), call.has_sums);
  }
}

}  // namespace burst
}  // namespace brainjax

#endif  // BRAINJAX_BURST_ADVANCE_CUH_
