// The round of an area on the CPU: the operations that it consists of, one after the other.
#include "assembly_core.h"

#include <algorithm>
#include <cstdint>

#include "accumulation.h"
#include "handler.h"
#include "parallel.h"
#include "potentiation.h"
#include "selection.h"

namespace brainjax {
namespace {

// One brain of the batch.
template <typename W>
struct Brain {
  ffi::ThreadPool& pool;
  const AreaRound& round;
  int64_t b;

  bool IsOpen(int f) const { return round.is_open[b * round.num_fibers + f]; }

  W* Weights(int f) const {
    const AreaFiber& fiber = round.fibers[f];
    return static_cast<W*>(fiber.weights) + b * fiber.num_pre * round.num_post;
  }

  ActiveSet Senders(int f) const {
    const AreaFiber& fiber = round.fibers[f];
    return {fiber.indices + b * fiber.capacity, fiber.values + b * fiber.capacity,
            std::clamp<int64_t>(fiber.counts[b], 0, fiber.capacity)};
  }

  // Fiber by fiber; no sum is -0, so that the first one needs no zeros to be added to.
  void SumFibers(float* inputs, float* one_fiber) const {
    bool first = true;
    for (int f = 0; f < round.num_fibers; ++f) {
      if (!IsOpen(f)) continue;
      AccumulateRows(pool, Weights(f), round.fibers[f].num_pre, round.num_post, Senders(f),
                     first ? inputs : one_fiber);
      for (int64_t i = 0; !first && i < round.num_post; ++i) inputs[i] += one_fiber[i];
      first = false;
    }
    if (first) std::fill_n(inputs, round.num_post, 0.0f);
  }

  bool Chooses() const {
    bool receives = false;
    for (int f = 0; f < round.num_fibers; ++f) receives |= IsOpen(f);
    return receives && !round.is_fixed[b];
  }

  void KeepWinners() const {
    std::copy_n(round.old_indices + b * round.k, round.k, round.indices + b * round.k);
    std::copy_n(round.old_values + b * round.k, round.k, round.values + b * round.k);
    round.counts[b] = round.old_counts[b];
  }

  // The k best neurons fire, if any of them receives anything.
  void ChooseWinners(const float* inputs, uint32_t* scratch, int64_t scratch_words) const {
    int32_t* const winners = round.indices + b * round.k;
    SelectWinners(&pool, inputs, round.num_post, round.k, round.k, scratch, scratch_words,
                  winners);
    const bool fires = std::any_of(winners, winners + round.k,
                                   [&](int32_t winner) { return inputs[winner] != 0; });
    if (!fires) std::fill_n(winners, round.k, static_cast<int32_t>(round.num_post));
    std::fill_n(round.values + b * round.k, round.k, fires ? 1.0f : 0.0f);
    round.counts[b] = fires ? static_cast<int32_t>(round.k) : 0;
  }

  void Learn() const {
    const ActiveSet winners{round.indices + b * round.k, round.values + b * round.k,
                            std::clamp<int64_t>(round.counts[b], 0, round.k)};
    for (int f = 0; f < round.num_fibers; ++f) {
      const int64_t i = b * round.num_fibers + f;
      if (!IsOpen(f) || !round.is_plastic[i]) continue;
      Potentiate(pool, Weights(f), round.fibers[f].num_pre, round.num_post, Senders(f), winners,
                 round.betas[i], round.w_maxes[i]);
    }
  }

  void Advance() const {
    float* const inputs = round.inputs + b * round.num_post;
    uint32_t* const scratch = round.scratch + b * round.scratch_size;
    SumFibers(inputs, reinterpret_cast<float*>(scratch));
    if (Chooses()) {
      ChooseWinners(inputs, scratch, round.scratch_size);
    } else {
      KeepWinners();
    }
    Learn();
  }
};

ffi::Error Handler(ffi::ThreadPool pool, AreaOperands operands) {
  AreaRound round;
  ffi::Error error = operands.Map(&round);
  if (error.failure()) return error;
  if (round.scratch_size < round.num_post) {
    return ffi::Error::InvalidArgument("assembly_core: too little scratch memory");
  }
  const bool is_float = operands.WeightType() == ffi::F32;
  ParallelFor(pool, round.batch, [&](int64_t b) {
    is_float ? Brain<float>{pool, round, b}.Advance() : Brain<uint16_t>{pool, round, b}.Advance();
  });
  return error;
}

}  // namespace
}  // namespace brainjax

XLA_FFI_DEFINE_HANDLER_SYMBOL(BrainjaxAssemblyCore, brainjax::Unpacked(brainjax::Handler),
                              brainjax::AreaOperands::Bind().Ctx<xla::ffi::ThreadPool>());
