// The round of an area on the CPU: the operations that it consists of, one after the other.
#include "assembly_core.h"

#include <algorithm>
#include <cstdint>

#include "accumulation.h"
#include "batch.h"
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

ffi::Error Handler(ffi::ThreadPool pool, ffi::Buffer<ffi::S32> old_indices,
                   ffi::Buffer<ffi::F32> old_values, ffi::Buffer<ffi::S32> old_counts,
                   ffi::Buffer<ffi::PRED> is_fixed, ffi::Buffer<ffi::PRED> is_open,
                   ffi::Buffer<ffi::PRED> is_plastic, ffi::Buffer<ffi::F32> betas,
                   ffi::Buffer<ffi::F32> w_maxes, ffi::Buffer<ffi::F32> last_inputs,
                   ffi::RemainingArgs fibers, ffi::ResultBuffer<ffi::S32> indices,
                   ffi::ResultBuffer<ffi::F32> values, ffi::ResultBuffer<ffi::S32> counts,
                   ffi::ResultBuffer<ffi::F32> inputs, ffi::ResultBuffer<ffi::U32> scratch,
                   ffi::RemainingRets changed) {
  AreaRound round;
  ffi::DataType dtype = ffi::DataType::INVALID;
  ffi::Error invalid =
      MapAreaRound(old_indices, old_values, old_counts, is_fixed, is_open, is_plastic, betas,
                   w_maxes, last_inputs, fibers, indices, values, counts, inputs, scratch, changed,
                   &round, &dtype);
  if (invalid.failure()) return invalid;
  if (round.scratch_size < round.num_post) {
    return ffi::Error::InvalidArgument("assembly_core: too little scratch memory");
  }
  ParallelFor(pool, round.batch, [&](int64_t b) {
    if (dtype == ffi::F32) {
      Brain<float>{pool, round, b}.Advance();
    } else {
      Brain<uint16_t>{pool, round, b}.Advance();
    }
  });
  return ffi::Error::Success();
}

}  // namespace
}  // namespace brainjax

XLA_FFI_DEFINE_HANDLER_SYMBOL(BrainjaxAssemblyCore, brainjax::Handler,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::S32>>()    // old indices
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()    // old values
                                  .Arg<xla::ffi::Buffer<xla::ffi::S32>>()    // old count
                                  .Arg<xla::ffi::Buffer<xla::ffi::PRED>>()   // is fixed
                                  .Arg<xla::ffi::Buffer<xla::ffi::PRED>>()   // is open
                                  .Arg<xla::ffi::Buffer<xla::ffi::PRED>>()   // is plastic
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()    // beta
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()    // w_max
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()    // last inputs
                                  .RemainingArgs()  // matrices, then each sender's three parts
                                  .Ret<xla::ffi::Buffer<xla::ffi::S32>>()    // indices
                                  .Ret<xla::ffi::Buffer<xla::ffi::F32>>()    // values
                                  .Ret<xla::ffi::Buffer<xla::ffi::S32>>()    // count
                                  .Ret<xla::ffi::Buffer<xla::ffi::F32>>()    // inputs
                                  .Ret<xla::ffi::Buffer<xla::ffi::U32>>()    // scratch
                                  .RemainingRets());                         // matrices
