// What one block does for its strip of an area's neurons in a round: sum what arrives, and let the
// fibers learn. Between the two stands the choice of the winners, for which blocks must meet.
//
// Latency is what a round costs, so that all small operands are asked for at once: the senders'
// lists of all fibers, and what is known of each fiber, wait in shared memory for both tasks.
#ifndef BRAINJAX_AREA_STRIP_CUH_
#define BRAINJAX_AREA_STRIP_CUH_

#include <cstdint>

#include "assembly_core.h"
#include "launch.h"
#include "numbers.h"
#include "row_sums.cuh"
#include "strengthen.cuh"

namespace brainjax {

// How an area is divided over the blocks of a team, and where the blocks keep the senders' lists.
struct AreaPlan {
  int64_t width;                  // neurons of a strip
  int team;                       // blocks
  uint32_t terms[kMaxFibers + 1];  // where those of each fiber begin in shared memory
  int singles;                    // fibers with one term: see SumStrip
  int single_fibers[kMaxFibers];
};

// Terms of a fiber come in whole rounds of loads. Where there is one sender at most, one term will
// do, for as many fibers as there are groups of threads.
template <typename L>
AreaPlan PlanArea(const AreaRound& round, int64_t width, int team) {
  AreaPlan plan = {};
  plan.width = width;
  plan.team = team;
  for (int f = 0; f < round.num_fibers; ++f) {
    const int64_t capacity = round.fibers[f].capacity;
    const bool single = capacity == 1 && plan.singles < L::kGroups;
    if (single) plan.single_fibers[plan.singles++] = f;
    const int64_t size = single ? 1 : CeilDiv(capacity, L::kRound) * L::kRound;
    plan.terms[f + 1] = plan.terms[f] + static_cast<uint32_t>(size);
  }
  return plan;
}

// Neurons [begin, end) of brain b.
struct AreaStrip {
  int64_t b, begin, end;

  __device__ int Width() const { return static_cast<int>(end - begin); }
};

// A fiber of one brain, in shared memory.
struct StripFiber {
  bool is_open, learns;
  uint32_t count;  // senders
  float beta, w_max;
};

// The winners of a strip, in shared memory and in any order.
struct StripWinners {
  int32_t* indices;
  float* values;
  int* count;
  int capacity;  // exceeded by a list only that names a neuron twice

  __device__ void Add(int32_t neuron, float value) const {
    const int place = atomicAdd(count, 1);
    if (place >= capacity) return;
    indices[place] = neuron;
    values[place] = value;
  }
};

// What a block needs of shared memory to sum its strip.
template <typename L>
struct AreaWorkspace {
  StripFiber fibers[kMaxFibers];
  float sums[L::kGroups][L::kColumns];
  float singles[L::kGroups][L::kColumns];
};

// Copies what the round says of each fiber, and all senders, into shared memory. The whole block
// calls it, the last threads first, and waits afterwards.
template <typename L>
__device__ void StageFibers(const AreaRound& round, const AreaPlan& plan, int64_t b,
                            StripFiber* fibers, Term* terms) {
  const int num_fibers = round.num_fibers;
  const uint32_t thread = L::kThreads - 1 - threadIdx.x;
  if (thread < num_fibers) {
    const int f = thread;
    const int64_t i = b * num_fibers + f;
    const bool is_open = round.is_open[i], is_plastic = round.is_plastic[i];
    const int32_t count = round.fibers[f].counts[b];
    const float beta = round.betas[i], w_max = round.w_maxes[i];
    fibers[f] = {is_open, is_open && is_plastic, ClampCount(count, round.fibers[f].capacity), beta,
                 w_max};
  }
  int f = 0;
#pragma unroll 2
  for (uint32_t i = thread; i < plan.terms[num_fibers]; i += L::kThreads) {
    while (i >= plan.terms[f + 1]) ++f;
    const AreaFiber& fiber = round.fibers[f];
    const int64_t place = i - plan.terms[f];
    Term term{-1, 0.0f};
    if (place < fiber.capacity) {
      const int32_t count = fiber.counts[b];
      const int32_t row = fiber.indices[b * fiber.capacity + place];
      const float value = fiber.values[b * fiber.capacity + place];
      if (place < count && row >= 0 && row < fiber.num_pre) term = {row, value};
    }
    terms[i] = term;
  }
}

template <typename W>
__device__ W* WeightsOf(const AreaRound& round, int f, int64_t b) {
  const AreaFiber& fiber = round.fibers[f];
  return static_cast<W*>(fiber.weights) + b * fiber.num_pre * round.num_post;
}

// sums[c] = the sum of all open fibers, one after the other, for each neuron c of a strip that has
// some. Thread c % kThreads writes it if there are kColumns at most. The whole block calls it,
// after a barrier, and waits afterwards where other threads read the sums. Once, when the first
// rows, if any, are on their way, all threads call meanwhile().
//
// A fiber with one sender has one term, in lane 0: its row is asked for before the others are
// summed, by a group of threads of its own, and costs no latency.
template <typename L, typename Meanwhile>
__device__ void SumStrip(const AreaRound& round, const AreaPlan& plan, const AreaStrip& strip,
                         const Term* terms, AreaWorkspace<L>& space, float* sums,
                         const Meanwhile& meanwhile) {
  using W = typename L::W;
  const int group = threadIdx.x / L::kGroupThreads;
  const int thread = threadIdx.x % L::kGroupThreads;
  if (strip.Width() == 0) meanwhile();
  for (int64_t start = strip.begin; start < strip.end; start += L::kColumns) {
    const int64_t column = start + L::Column(thread, 0), left = strip.end - column;
    Piece<L> single;
    float single_value = 0.0f;
    if (group < plan.singles) {
      const int f = plan.single_fibers[group];
      const Term term = terms[plan.terms[f]];
      const bool exists = space.fibers[f].is_open && term.row >= 0;
      single.Load(WeightsOf<W>(round, f, strip.b) + term.row * round.num_post + column, exists,
                  left);
      single_value = exists ? term.value : 0.0f;  // which may be infinite
    }
    // Thread c adds the columns c, c + kThreads ... of all fibers, in their order.
    int next_single = 0;
    auto add_singles = [&](int before, int c, float sum) {
      for (int s = next_single; s < plan.singles && plan.single_fibers[s] < before; ++s) {
        sum = __fadd_rn(sum, space.singles[s][c]);
      }
      return sum;
    };
    bool first = true;
    auto meanwhile_once = [&] {
      if (first && start == strip.begin) meanwhile();
    };
    auto meet = [&](int f, ThreadSums<L>& mine) {
      if (!first || start != strip.begin) __syncthreads();  // the sums before have been read
      if (first && group < plan.singles) {
#pragma unroll
        for (int v = 0; v < L::kWidth; ++v) {
          space.singles[group][L::Column(thread, v)] =
              __fadd_rn(0.0f, __fmul_rn(single_value, ToFloat(single.weights[v])));
        }
      }
      mine.Store(thread, space.sums[group]);
      __syncthreads();
      for (int c = threadIdx.x; c < L::kColumns && start + c < strip.end; c += L::kThreads) {
        float* const sum = sums + (start - strip.begin) + c;
        *sum = __fadd_rn(add_singles(f, c, first ? 0.0f : *sum), MeetGroups<L>(space.sums, c));
      }
      while (next_single < plan.singles && plan.single_fibers[next_single] < f) ++next_single;
      first = false;
    };
    for (int f = 0; f < round.num_fibers; ++f) {
      const uint32_t size = plan.terms[f + 1] - plan.terms[f];
      const StripFiber& fiber = space.fibers[f];
      if (size == 1 || !fiber.is_open || fiber.count == 0) continue;
      ThreadSums<L> mine;
      mine.Add(terms + plan.terms[f] + group,
               (fiber.count + L::kRound - 1) / L::kRound * L::kInFlight,
               WeightsOf<W>(round, f, strip.b) + column, round.num_post, left, meanwhile_once);
      mine.MeetInThread();
      meet(f, mine);
    }
    if (first || next_single < plan.singles) {
      meanwhile_once();
      ThreadSums<L> nothing;
      meet(round.num_fibers, nothing);
    }
  }
}

// Synapses onto the few neurons of a strip that may win, read before it is known which do: while
// the blocks of a team meet, nothing else is on the way. Nothing is read if these neurons are many,
// and by layouts for wider strips, whose registers are full.
template <typename L>
struct SynapsesAhead {
  using W = typename L::W;
  static constexpr bool kReads = L::kGroups == 16;
  static constexpr int kNumber = 2;  // of a thread
  static constexpr int kBusy = 32;   // threads that do not read: they write who wins
  W* weights[kNumber];
  W old[kNumber];
  float pre[kNumber];
  int fiber[kNumber];
  uint32_t neuron[kNumber];  // its place among those that may win
  bool all = false;          // have been read

  // The whole block calls it: `columns` of the strip, `number` of them, may win.
  __device__ void Read(const AreaRound& round, const AreaPlan& plan, const AreaStrip& strip,
                       const StripFiber* fibers, const Term* terms, const int32_t* columns,
                       uint32_t number) {
    if constexpr (!kReads) return;
    constexpr uint32_t kReaders = L::kThreads - kBusy;
    const uint32_t synapses = plan.terms[round.num_fibers] * number;
    all = synapses <= kNumber * kReaders;
    if (!all || number == 0) return;
#pragma unroll
    for (int u = 0; u < kNumber; ++u) {
      weights[u] = nullptr;
      const uint32_t i = threadIdx.x - kBusy + u * kReaders;
      if (threadIdx.x < kBusy || i >= synapses) continue;
      const uint32_t t = i / number, place = i - t * number;
      int f = 0;
      while (t >= plan.terms[f + 1]) ++f;
      const Term term = terms[t];
      if (term.row < 0 || !fibers[f].learns) continue;
      fiber[u] = f, neuron[u] = place, pre[u] = term.value;
      weights[u] = WeightsOf<W>(round, f, strip.b) + term.row * round.num_post + strip.begin +
                   columns[place];
      old[u] = __ldcg(weights[u]);
    }
  }

  // Strengthens those onto the winners, a bit each; they have the value 1.
  __device__ void Learn(const StripFiber* fibers, uint32_t winners) const {
    if (winners == 0) return;
#pragma unroll
    for (int u = 0; u < kNumber; ++u) {
      if (weights[u] == nullptr || (winners >> neuron[u] & 1) == 0) continue;
      const StripFiber& learning = fibers[fiber[u]];
      Strengthen(weights[u], old[u], pre[u], 1.0f, learning.beta, learning.w_max);
    }
  }
};

// Every fiber that learns changes its synapses from who sent to the strip's winners. The whole
// block calls it, after a barrier.
template <typename L>
__device__ void Learn(const AreaRound& round, const AreaPlan& plan, int64_t b,
                      const StripFiber* fibers, const Term* terms, StripWinners winners) {
  using W = typename L::W;
  constexpr int kInFlight = 2;
  const uint32_t num_winners = min(*winners.count, winners.capacity);
  if (num_winners == 0) return;
  // Synapse i joins sender i / num_winners and winner i % num_winners; one division a thread.
  const uint32_t first_sender = threadIdx.x / num_winners;
  const uint32_t first_winner = threadIdx.x % num_winners;
  const uint32_t sender_step = L::kThreads / num_winners;
  const uint32_t winner_step = L::kThreads % num_winners;
  for (int f = 0; f < round.num_fibers; ++f) {
    const StripFiber fiber = fibers[f];
    if (!fiber.learns) continue;
    W* const matrix = WeightsOf<W>(round, f, b);
    uint32_t sender = first_sender, winner = first_winner;
    while (sender < fiber.count) {
      W* weights[kInFlight];
      W old[kInFlight];
      float pre[kInFlight], post[kInFlight];
#pragma unroll
      for (int u = 0; u < kInFlight; ++u) {
        const Term term = sender < fiber.count ? terms[plan.terms[f] + sender] : Term{-1, 0.0f};
        weights[u] = nullptr;
        if (term.row >= 0) {
          weights[u] = matrix + term.row * round.num_post + winners.indices[winner];
          old[u] = *weights[u];
          pre[u] = term.value, post[u] = winners.values[winner];
        }
        sender += sender_step, winner += winner_step;
        if (winner >= num_winners) ++sender, winner -= num_winners;
      }
#pragma unroll
      for (int u = 0; u < kInFlight; ++u) {
        if (weights[u] == nullptr) continue;
        Strengthen(weights[u], old[u], pre[u], post[u], fiber.beta, fiber.w_max);
      }
    }
  }
}

}  // namespace brainjax

#endif  // BRAINJAX_AREA_STRIP_CUH_
