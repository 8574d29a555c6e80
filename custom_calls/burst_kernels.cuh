// The kernels of a burst behind those that sum what arrives: collect, advance, list.
//
// A block looks after a tile of neurons, a lane of a warp after every 32nd: what lies side by side
// is read together, the bits of who fires are those of a ballot, and where no lane of a warp has a
// candidate nothing is read of its neurons.
#ifndef BRAINJAX_BURST_KERNELS_CUH_
#define BRAINJAX_BURST_KERNELS_CUH_

#include <cstdint>

#include "burst_core.h"
#include "burst_staging.cuh"
#include "launch.h"
#include "propagation_call.cuh"
#include "warp_ranges.cuh"

namespace brainjax {
namespace burst {

using propagation::AdmitNextKernel;
using propagation::AwaitKernelBefore;
using propagation::ExclusiveScan;

constexpr int kBlocksPerMultiprocessor = 4;
constexpr int kRows = kBurstTile / kBlock;  // neurons of a thread
constexpr int kListedTiles = kBlock / kTileWords;  // of which a block lists the neurons at a time
// Places of BurstProblem::totals.
constexpr int kCandidates = 0, kListedBefore = 1;

// What a call is beside its operands.
struct BurstCall {
  BurstBatch batch;
  bool has_sums;  // over synapses
};
static_assert(sizeof(BurstCall) <= 4096, "what a kernel may be given");

// Clears what candidates are counted in, where no sums are prepared. The first kernel of a call
// must not overlap with what came before the call.
__global__ void ClearKernel(const __grid_constant__ BurstCall call) {
  AdmitNextKernel();
  for (int64_t b = blockIdx.y; b < call.batch.size; b += gridDim.y) {
    call.batch.first.totals[b * call.batch.stride + kCandidates] = 0;
  }
}

// Writes what each neuron that fired sends, where some are driven.
__global__ void __launch_bounds__(kBlock) SendKernel(const __grid_constant__ BurstCall call) {
  for (int64_t b = blockIdx.y; b < call.batch.size; b += gridDim.y) {
    const BurstProblem problem = call.batch.At(b);
    const int64_t fired = problem.NumFired(), stride = int64_t{gridDim.x} * kBlock;
    for (int64_t i = int64_t{blockIdx.x} * kBlock + threadIdx.x; i < fired; i += stride) {
      problem.sent[i] = problem.Sent(call.batch.rules, i);
    }
  }
}

// What a thread has of its neurons in a tile: threadIdx.x, threadIdx.x + kBlock and so on. All
// loads of a kind come before the first store, behind which the compiler would keep them.
struct Rows {
  float inputs[kRows];
  bool candidates[kRows];
};

__device__ __forceinline__ int64_t NeuronOf(int64_t first, int row) {
  return first + row * kBlock + threadIdx.x;
}

// What arrives over synapses, and at whom.
__device__ inline void Receive(const BurstProblem& problem, bool has_sums, int64_t first,
                               uint32_t (&sums)[kRows], bool (&reached)[kRows]) {
  uint32_t cancelled[kRows], more[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int64_t id = NeuronOf(first, r);
    const bool exists = id < problem.num_neurons, arrives = problem.arriving != nullptr && exists;
    sums[r] = has_sums && exists ? __ldcg(problem.sums + id) : 0;
    cancelled[r] = has_sums && exists ? __ldcg(problem.cancelled + id / kBurstWord) : 0;
    more[r] = arrives ? problem.arriving[id] : 0;
    reached[r] = arrives && problem.reached[id];
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    reached[r] |= sums[r] != 0 || (cancelled[r] >> (threadIdx.x % kBurstWord) & 1) != 0;
    sums[r] += more[r];
  }
}

// Adds up what each neuron receives, and writes it.
__device__ inline void Collect(const BurstProblem& problem, const BurstRules& rules, bool has_sums,
                               int64_t first, const Staging& staging, bool is_staged, Rows* rows) {
  uint32_t sums[kRows];
  Receive(problem, has_sums, first, sums, rows->candidates);
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int64_t id = NeuronOf(first, r);
    if (id >= problem.num_neurons) continue;
    const int place = static_cast<int>(id - first);
    const bool is_injected = is_staged && staging.Touches(place);
    float staged = is_injected ? staging.sums[place] : 0.0f;
    rows->candidates[r] |= is_injected;
    for (const bool gets_power : {id == rules.power_neuron, problem.IsTired(rules, id)}) {
      if (gets_power) staged += problem.power;
      rows->candidates[r] |= gets_power;
    }
    rows->inputs[r] = staged + static_cast<float>(static_cast<int32_t>(sums[r])) * rules.unit;
    problem.inputs[id] = rows->inputs[r];
    problem.candidates[id] = rows->candidates[r];
  }
}

// What an earlier kernel of the call collected.
__device__ inline void Recall(const BurstProblem& problem, int64_t first, Rows* rows) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int64_t id = NeuronOf(first, r);
    const bool exists = id < problem.num_neurons;
    rows->inputs[r] = exists ? __ldcg(problem.inputs + id) : 0.0f;
    rows->candidates[r] =
        exists && __ldcg(reinterpret_cast<const uint8_t*>(problem.candidates) + id) != 0;
  }
}

// Whose potential is 0 at the start of a burst.
__device__ inline void FindResets(const BurstProblem& problem, const BurstRules& rules,
                                  int64_t first, bool (&resets)[kRows]) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int64_t id = NeuronOf(first, r);
    resets[r] = !rules.keeps_residues && id < problem.num_neurons &&
                !problem.neurons.accumulates[id];
  }
}

// Lets the candidates of a tile fire or leak, and counts who fires.
__device__ inline void Advance(const BurstProblem& problem, const BurstRules& rules, int64_t first,
                               bool in_batch, const bool (&resets)[kRows], const Rows& rows) {
  __shared__ uint32_t num_fires;
  if (threadIdx.x == 0) num_fires = 0;
  const BurstNeurons& neurons = problem.neurons;
  Candidate candidates[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    candidates[r] = {};
    if (rows.candidates[r]) {
      candidates[r] = Candidate::Load(neurons, static_cast<uint32_t>(NeuronOf(first, r)));
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (!resets[r]) continue;
    candidates[r].potential = 0.0f;
    neurons.potential[NeuronOf(first, r)] = 0.0f;
  }
  __syncthreads();  // `num_fires` is 0
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const uint32_t id = static_cast<uint32_t>(NeuronOf(first, r));
    const bool fires = rows.candidates[r] && candidates[r].Advance(neurons, rules, id,
                                                                   rows.inputs[r], problem.burst,
                                                                   in_batch);
    const uint32_t word = __ballot_sync(kAllLanes, fires);
    if (Lane() > 0 || NeuronOf(first, r) >= problem.num_neurons) continue;
    problem.fires[id / kBurstWord] = word;
    if (word != 0) atomicAdd(&num_fires, __popc(word));
  }
  __syncthreads();
  if (threadIdx.x == 0) problem.tile_fires[first / kBurstTile] = num_fires;
}

// Collects and counts the candidates, whose number decides by which rules they advance.
__global__ void __launch_bounds__(kBlock) CollectKernel(const __grid_constant__ BurstCall call) {
  __shared__ Staging staging;
  AdmitNextKernel();
  const int64_t first = blockIdx.x * kBurstTile;
  for (int64_t b = blockIdx.y; b < call.batch.size; b += gridDim.y) {
    const BurstProblem problem = call.batch.At(b);
    const bool is_staged = staging.Fill(problem.injected, first);
    AwaitKernelBefore();
    Rows rows;
    Collect(problem, call.batch.rules, call.has_sums, first, staging, is_staged, &rows);
    uint32_t count = 0;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      count += __popc(__ballot_sync(kAllLanes, rows.candidates[r]));
    }
    if (Lane() == 0 && count > 0) atomicAdd(problem.totals + kCandidates, count);
  }
}

template <bool kCollected>
__global__ void __launch_bounds__(kBlock, kBlocksPerMultiprocessor)
    AdvanceKernel(const __grid_constant__ BurstCall call) {
  __shared__ Staging staging;
  AdmitNextKernel();
  const BurstRules& rules = call.batch.rules;
  const int64_t first = blockIdx.x * kBurstTile;
  for (int64_t b = blockIdx.y; b < call.batch.size; b += gridDim.y) {
    const BurstProblem problem = call.batch.At(b);
    bool in_batch = false, resets[kRows];
    Rows rows;
    FindResets(problem, rules, first, resets);
    if constexpr (kCollected) {
      AwaitKernelBefore();
      in_batch = __ldcg(problem.totals + kCandidates) >= rules.batch_threshold;
      Recall(problem, first, &rows);
    } else {
      const bool is_staged = staging.Fill(problem.injected, first);
      AwaitKernelBefore();
      Collect(problem, rules, call.has_sums, first, staging, is_staged, &rows);
    }
    // The next kernel overwrites the count while its blocks ask for it.
    if (first == 0 && threadIdx.x == 0) {
      problem.totals[kListedBefore] = static_cast<uint32_t>(problem.NumFired());
    }
    Advance(problem, rules, first, in_batch, resets, rows);
  }
}

// Lists who fires in ascending order and puts them at 0. A block lists consecutive tiles.
__global__ void __launch_bounds__(kBlock)
    ListKernel(const __grid_constant__ BurstCall call, int64_t tiles_per_block) {
  AwaitKernelBefore();
  const int64_t n = call.batch.first.num_neurons, tiles = CeilDiv(n, kBurstTile);
  const int64_t first = min(blockIdx.x * tiles_per_block, tiles);
  const int64_t last = min(first + tiles_per_block, tiles);
  for (int64_t b = blockIdx.y; b < call.batch.size; b += gridDim.y) {
    const BurstProblem problem = call.batch.At(b);
    uint32_t before = 0, all = 0;
    for (int64_t tile = threadIdx.x; tile < tiles; tile += kBlock) {
      const uint32_t fires = __ldcg(problem.tile_fires + tile);
      before += tile < first ? fires : 0;
      all += fires;
    }
    uint32_t place, total;
    ExclusiveScan<kBlock>(before, &place);
    ExclusiveScan<kBlock>(all, &total);
    for (int64_t tile = first; tile < last; tile += kListedTiles) {
      const int64_t word = tile * kTileWords + threadIdx.x;
      uint32_t bits = word < call.batch.num_words ? __ldcg(problem.fires + word) : 0, listed;
      const uint32_t fires = __popc(bits);
      int64_t rank = int64_t{place} + ExclusiveScan<kBlock>(fires, &listed);
      for (; bits != 0; bits &= bits - 1, ++rank) {
        const int64_t id = word * kBurstWord + __ffs(bits) - 1;
        problem.indices[rank] = static_cast<int32_t>(id);
        problem.values[rank] = __ldcg(problem.neurons.potential + id);
        problem.neurons.potential[id] = 0.0f;
      }
      place += listed;
    }
    // Behind them, what the last burst listed becomes padding.
    const int64_t listed_before = __ldcg(problem.totals + kListedBefore);
    const int64_t thread = int64_t{blockIdx.x} * kBlock + threadIdx.x;
    for (int64_t i = total + thread; i < listed_before; i += int64_t{gridDim.x} * kBlock) {
      problem.indices[i] = static_cast<int32_t>(n);
      problem.values[i] = 0.0f;
    }
    if (thread == 0) *problem.count = static_cast<int32_t>(total);
  }
}

}  // namespace burst
}  // namespace brainjax

#endif  // BRAINJAX_BURST_KERNELS_CUH_
