// A round of an area by a team of blocks, a cluster or the whole grid: each block sums its strip,
// the team chooses who fires, and each block changes the synapses onto its own winners.
#ifndef BRAINJAX_AREA_ROUND_CUH_
#define BRAINJAX_AREA_ROUND_CUH_

#include <cstdint>

#include "area_choice.cuh"
#include "area_strip.cuh"
#include "team.cuh"

namespace brainjax {

// How much the lists hold that fit behind the posts into the scratch of a brain.
inline int ListCapacityBesidePosts(const AreaRound& round, int team) {
  return static_cast<int>(TeamScratch::Capacity(round.scratch_size - AreaPosts::Words(team)));
}

// Shared memory whose size depends on the area; what a selection from all keys needs takes the
// place of the list of posted ones.
template <typename L>
struct AreaMemory {
  using Keys = BlockKeys<L::kThreads, 1>;
  const AreaPlan& plan;
  int num_fibers;
  int64_t k;

  BRAINJAX_HOST_DEVICE static int64_t Padded(int64_t words) { return CeilDiv(words, 4) * 4; }
  BRAINJAX_HOST_DEVICE int64_t KeyWords() const { return Keys::Places(plan.width); }
  BRAINJAX_HOST_DEVICE int64_t TermWords() const { return Padded(2 * plan.terms[num_fibers]); }
  BRAINJAX_HOST_DEVICE int64_t WinnerWords() const {
    return Padded(plan.width < k ? plan.width : k);
  }
  BRAINJAX_HOST_DEVICE int64_t PostedBytes() const { return int64_t{4} * plan.team * kPostKeys; }
  BRAINJAX_HOST_DEVICE int64_t Bytes() const {
    const int64_t select =
        sizeof(TeamSelectSpace<L::kThreads>) + 4 * PlaceBits::Words(KeyWords());
    const int64_t list = PostedBytes() > select ? PostedBytes() : select;
    return 4 * (KeyWords() + TermWords() + 2 * WinnerWords()) + list;
  }
};

// One of the winners of the last round for each thread, if there are so many. With more winners
// than threads the others go unseen, and the guess is a little higher.
__device__ inline int32_t LastWinnerOfThread(const AreaRound& round, int64_t b) {
  return threadIdx.x < round.k ? round.old_indices[b * round.k + threadIdx.x] : -1;
}

// Small blocks are for many brains at a time, several on a multiprocessor.
template <typename L, typename Team>
__global__ void __launch_bounds__(L::kThreads, L::kThreads <= 256 ? 3 : 1)
    AdvanceArea(const __grid_constant__ AreaRound round, const __grid_constant__ AreaPlan plan) {
  constexpr int kThreads = L::kThreads;
  extern __shared__ uint4 dynamic[];
  __shared__ AreaWorkspace<L> strip_space;
  __shared__ ChoiceSpace<kThreads> space;
  __shared__ int num_winners;
  const AreaMemory<L> memory{plan, round.num_fibers, round.k};
  uint32_t* const keys = reinterpret_cast<uint32_t*>(dynamic);
  float* const sums = reinterpret_cast<float*>(keys);
  Term* const terms = reinterpret_cast<Term*>(keys + memory.KeyWords());
  int32_t* const indices = reinterpret_cast<int32_t*>(terms) + memory.TermWords();
  const StripWinners winners{indices, reinterpret_cast<float*>(indices + memory.WinnerWords()),
                             &num_winners, static_cast<int>(memory.WinnerWords())};
  uint32_t* const list = reinterpret_cast<uint32_t*>(indices + 2 * memory.WinnerWords());

  const Team team;
  for (int64_t b = team.number(); b < round.batch; b += team.teams()) {
    const int64_t begin = min(team.rank() * plan.width, round.num_post);
    const AreaStrip strip{b, begin, min(begin + plan.width, round.num_post)};
    // The last winner that this thread looks at is asked for before all else, and its input before
    // the sums.
    const int32_t count = round.old_counts[b];
    const int32_t neuron = LastWinnerOfThread(round, b);
    const bool is_fixed = round.is_fixed[b];
    if (threadIdx.x == 0) num_winners = 0;
    // Posts cleared as early as this are waited for while rows are on their way.
    AreaScratch(round, b, team.size()).posts.Clear(team.rank());
    const typename Team::Arrival arrival = team.Arrive();
    StageFibers<L>(round, plan, b, strip_space.fibers, terms);
    const bool known = static_cast<int>(threadIdx.x) < count && neuron >= 0 &&
                       neuron < round.num_post;
    const float last_input = known ? round.last_inputs[b * round.num_post + neuron] : 0.0f;
    __syncthreads();

    SumStrip<L>(round, plan, strip, terms, strip_space, sums, [&] {
      space.warps.PostLeast(known ? Key(last_input) : ~0u);
      team.Wait(arrival);  // all others have arrived by now
    });
    if (strip.Width() > L::kColumns) __syncthreads();  // else each thread reads what it wrote
    bool chooses = false;
    for (int f = 0; f < round.num_fibers; ++f) chooses |= strip_space.fibers[f].is_open;
    chooses &= !is_fixed;
    const uint32_t guess = GuessBound(space.warps.PostedLeast());
    float* const inputs = round.inputs + b * round.num_post + begin;
    for (int c = threadIdx.x; c < strip.Width(); c += kThreads) {
      const float sum = sums[c];
      inputs[c] = sum;
      keys[c] = Key(sum);
    }

    Chosen chosen{Chosen::kListed, 0};
    SynapsesAhead<L> ahead;
    if (chooses) {
      chosen = ChooseWinners(team, round, strip, keys, guess, list, space, winners,
                             [&](const int32_t* columns, uint32_t number) {
                               ahead.Read(round, plan, strip, strip_space.fibers, terms, columns,
                                          number);
                             });
      if (team.rank() == 0) WriteCount(round, b, chosen.who != Chosen::kNobody);
    } else {
      KeepWinners(round, strip, team.rank() == 0, winners);
    }
    if (chosen.who == Chosen::kPosted && ahead.all) {
      ahead.Learn(strip_space.fibers, chosen.posted);
    } else {
      __syncthreads();
      Learn<L>(round, plan, b, strip_space.fibers, terms, winners);
    }
    __syncthreads();  // shared memory is free again
  }
}

}  // namespace brainjax

#endif  // BRAINJAX_AREA_ROUND_CUH_
