// A burst of a small network in one launch. Its blocks run at the same time, a thread looks after
// one or two neurons, and the blocks meet twice, when sums are cleared and when spikes are summed;
// where rows are long, twice more. How many neurons fire they tell each other. While they wait,
// they ask for what they need next.
#ifndef BRAINJAX_BURST_TOGETHER_CUH_
#define BRAINJAX_BURST_TOGETHER_CUH_

#include <algorithm>
#include <cstdint>

#include "burst_advance.cuh"
#include "burst_listing.cuh"
#include "posted.cuh"
#include "propagation_launch.cuh"
#include "team.cuh"

namespace brainjax {
namespace burst {

constexpr int kTogetherThreads = propagation::kThreads;  // of a block
constexpr int kMostNeighbours = 2;                       // that a thread looks after
constexpr int kTails = 1;  // place in BurstProblem::totals: whether rows have tails
static_assert(kTogetherThreads == kListers, "they list who fires");

// The last block that has neurons. Those behind it only add up.
template <int kWidth>
__device__ __forceinline__ uint32_t LastBlock(const BurstProblem& problem) {
  return (problem.NumNeurons() - 1) / (kTogetherThreads * kWidth);
}

// Where a block in front of that one tells how many of its neurons fire: in the sums, which nobody
// needs where there are tallies.
__device__ __forceinline__ uint32_t* CountOf(const BurstProblem& problem, uint32_t block) {
  static_assert(kPostWords <= kTogetherThreads, "a line for each block has room in the sums");
  return reinterpret_cast<uint32_t*>(problem.sums) + block * kPostWords;
}

// What comes before spikes are summed.
template <int kWidth, typename W>
__device__ __forceinline__ void Prepare(const BurstCall& call,
                                        const propagation::Call<W>& summing) {
  const BurstProblem& problem = call.batch.first;
  if (call.has_sums) propagation::ClearSums(summing);
  if (threadIdx.x == 0) {
    if (blockIdx.x == 0) problem.totals[kTails] = 0;
    if (blockIdx.x < LastBlock<kWidth>(problem)) {
      WritePosted(CountOf(problem, blockIdx.x), kUnposted);
    }
  }
  FindStarts(problem, static_cast<int32_t>(call.batch.NumTiles()));
  Send(problem, call.batch.rules);
}

// Adds up what the tails of rows carry. Few networks have any, so that they are counted only now.
template <typename W>
__device__ __noinline__ void AddTails(const GridTeam& team, const propagation::Call<W>& summing) {
  using Events = CompressedEvents<W>;
  propagation::CountRows<true>(summing);
  team.Sync();
  propagation::ForEachProblem<Events>(
      summing, [&](int64_t b, const Propagation<W>& spikes, const Events& events) {
        events.ForGrid(0, [] {}, propagation::AdderOf<propagation::TallyAdder>(summing, spikes, b));
      });
  team.Sync();
}

// Adds up what spikes carry over the heads of rows, and notes whether some have tails. All threads
// call ready() before they add anything.
template <typename W, typename Ready>
__device__ __forceinline__ void AddHeads(const BurstProblem& problem,
                                         const propagation::Call<W>& summing, const Ready& ready) {
  const Propagation<W> spikes = summing.batch.First();
  bool has_tails = false;
  const auto row_of = [&](int64_t place) {
    const Range row = spikes.Row(place);
    has_tails |= row.length > kHead;
    return row;
  };
  VisitHeads(spikes, row_of, ready,
             propagation::AdderOf<propagation::TallyAdder>(summing, spikes, 0));
  if (has_tails) problem.totals[kTails] = 1;
}

// Adds up what spikes carry as soon as all blocks have cleared their sums.
template <typename W>
__device__ __forceinline__ void AddSpikes(const BurstCall& call,
                                          const propagation::Call<W>& summing,
                                          const GridTeam& team, GridTeam::Arrival cleared) {
  bool has_waited = false;
  const auto ready = [&] {
    if (!has_waited) team.Wait(cleared);
    has_waited = true;
  };
  if (summing.awaits_values) ready();
  if (call.has_sums) AddHeads(call.batch.first, summing, ready);
  ready();
}

// Lists who fires: each thread has bits of its neurons, and their potentials at firing.
template <int kWidth>
__device__ __forceinline__ void ListTogether(const BurstProblem& problem, uint32_t first,
                                             uint32_t fires, const float (&potential)[kWidth],
                                             WarpWords<kTogetherThreads>& words) {
  const uint32_t last = LastBlock<kWidth>(problem);
  if (blockIdx.x > last) return;
  WriteFires<kWidth>(problem, first, fires);
  uint32_t of_block;
  const uint32_t of_threads = words.ExclusiveSumOfFew(0, __popc(fires), &of_block);
  if (threadIdx.x == 0 && blockIdx.x < last) WritePosted(CountOf(problem, blockIdx.x), of_block);
  const int64_t listed_before = blockIdx.x == last ? problem.NumFired() : 0;
  const uint32_t number = blockIdx.x == last ? problem.Number() : 0;
  uint32_t counts[1] = {threadIdx.x < blockIdx.x ? kUnposted : 0};
  AwaitPosted(counts, [&](int) { return CountOf(problem, threadIdx.x); });
  const uint32_t in_front = words.Sum(1, __reduce_add_sync(kAllLanes, counts[0]));
  uint32_t rank = in_front + of_threads;
#pragma unroll
  for (int v = 0; v < kWidth; ++v) {
    if ((fires >> v & 1) == 0) continue;
    const uint32_t id = first + Lane() * kWidth + v;
    problem.indices[rank] = static_cast<int32_t>(id);
    problem.values[rank++] = potential[v];
    problem.neurons.potential[id] = 0.0f;
  }
  if (blockIdx.x == last) Finish(problem, int64_t{in_front} + of_block, listed_before, number);
}

// The burst of a warp that looks after the neurons from `first` on.
template <typename W, int kWidth, bool kByKind, typename Own>
__device__ __forceinline__ void BurstOfWarp(const BurstCall& call,
                                            const propagation::Call<W>& summing, uint32_t first,
                                            const Own& own, Staging<kWidth * kWarp>& staging,
                                            WarpWords<kTogetherThreads>& words) {
  const GridTeam team;
  const BurstProblem& problem = call.batch.first;
  const bool keeps_residues = call.batch.rules.keeps_residues;
  const AskedCandidates<kWidth, kByKind> asked(problem.neurons, keeps_residues, own);
  Prepare<kWidth>(call, summing);

  AddSpikes(call, summing, team, team.Arrive());
  const GridTeam::Arrival added = team.Arrive();
  const AskedPart part = first < problem.NumNeurons() ? AskedPart(problem, first) : AskedPart();
  OwnCandidates<kWidth> state = asked.Unpack(problem.neurons, keeps_residues, own);
  const auto row_of = [&](uint32_t id) { return state.parameters.RowOf(problem.neurons, id); };
  const bool has_one_row = kWidth == 1 || state.parameters.row != kManyRows;
  const Trial of_all(problem, has_one_row && own.Exists(0) ? row_of(own.first) : 0, false);
  const bool is_staged = staging.Fill(problem, first, part);
  team.Wait(added);

  const bool has_tails = call.has_sums && __ldcg(problem.totals + kTails) != 0;
  AskedArrivals<kWidth> arrivals(problem, own, call.has_sums);
  if (has_tails) {
    AddTails(team, summing);
    arrivals = AskedArrivals<kWidth>(problem, own, true);
  }
  const Received<kWidth> received =
      Collect(call, problem, own, arrivals.Unpack(problem, own), staging, is_staged);
  const uint32_t fires = AdvanceOwn(call, problem, own, state, received, [&](uint32_t id) {
    return has_one_row ? of_all : Trial(problem, row_of(id), false);
  });
  ListTogether<kWidth>(problem, first, fires, state.potential, words);
}

template <typename W, int kWidth, bool kByKind>
__global__ void __launch_bounds__(kTogetherThreads, 1)
    TogetherKernel(const __grid_constant__ BurstCall call,
                   const __grid_constant__ propagation::Call<W> summing) {
  static_assert(sizeof(call) + sizeof(summing) <= 4096, "what a kernel may be given");
  __shared__ Staging<kWidth * kWarp> stagings[kTogetherThreads / kWarp];
  __shared__ WarpWords<kTogetherThreads> words;
  constexpr uint32_t kOfBlock = kTogetherThreads * kWidth;
  const uint32_t warp = WarpOfBlock(), first = blockIdx.x * kOfBlock + warp * kWarp * kWidth;
  const uint32_t mine = first + Lane() * kWidth, n = call.batch.first.NumNeurons();
  const auto burst = [&](const auto& own) {
    BurstOfWarp<W, kWidth, kByKind>(call, summing, first, own, stagings[warp], words);
  };
  // All warps of a block take the same way, as they wait for each other.
  if (kWidth > 1 && blockIdx.x < n / kOfBlock) {
    burst(Own<kWidth, true>(mine, n));
  } else {
    burst(Own<kWidth, false>(mine, n));
  }
}

// Blocks that run at the same time: one for each multiprocessor, as the fewer meet, the sooner they
// go on. A thread reads the number of each in front of its own.
inline int64_t MostTogether(const Device& device) {
  return std::min(device.multiprocessors, kTogetherThreads);
}

// Whether a burst is that of a small network, by rules that are known before it begins.
template <typename W>
bool RunsTogether(const Device& device, const BurstCall& call,
                  const propagation::Call<W>& summing) {
  const int64_t most = MostTogether(device) * kTogetherThreads * kMostNeighbours;
  return call.batch.size == 1 && summing.sort_from == 0 && call.batch.rules.batch_threshold < 0 &&
         call.batch.first.num_neurons <= most;
}

template <int kWidth, typename W>
cudaError_t StartWithNeighbours(const propagation::Launcher& launcher, const BurstCall& call,
                                const propagation::Call<W>& summing) {
  constexpr int64_t kNeuronsForBlock = 64;  // few neurons have few synapses to add up
  const int64_t n = call.batch.first.num_neurons;
  const int64_t adders = std::min(MostTogether(launcher.device) / 2, CeilDiv(n, kNeuronsForBlock));
  const auto blocks =
      static_cast<unsigned>(std::max(CeilDiv(n, kTogetherThreads * kWidth), adders));
  const auto kernel = call.batch.first.neurons.kind != nullptr ? TogetherKernel<W, kWidth, true>
                                                               : TogetherKernel<W, kWidth, false>;
  return StartKernel(launcher.stream, {blocks, kTogetherThreads, 0}, AllTogether(), kernel, call,
                     summing);
}

template <typename W>
cudaError_t StartTogether(const propagation::Launcher& launcher, const BurstCall& call,
                          const propagation::Call<W>& summing) {
  const int64_t threads = MostTogether(launcher.device) * kTogetherThreads;
  const int64_t n = call.batch.first.num_neurons;
  return n <= threads ? StartWithNeighbours<1>(launcher, call, summing)
                      : StartWithNeighbours<kMostNeighbours>(launcher, call, summing);
}

}  // namespace burst
}  // namespace brainjax

#endif  // BRAINJAX_BURST_TOGETHER_CUH_
