// sums[j] = sum over the synapses from an active i onto j of round(2^S * values[i] * weight), maybe
// as floats, times 2^-S.
#include "propagation_sums.h"

#include <algorithm>
#include <cstdint>

#include "handler.h"
#include "parallel.h"

namespace brainjax {

BRAINJAX_VECTORIZE void Contributions(float gain, const float* weights, int64_t count,
                                      int32_t* contributions) {
  for (int64_t s = 0; s < count; ++s) contributions[s] = Contribution(gain, weights[s]);
}

BRAINJAX_VECTORIZE void Contributions(float gain, const uint8_t* weights, int64_t count,
                                      int32_t* contributions) {
  for (int64_t s = 0; s < count; ++s) contributions[s] = Contribution(gain, weights[s]);
}

BRAINJAX_VECTORIZE bool AddUp(const uint32_t* more, int64_t count, uint32_t* sums) {
  uint32_t cancels = 0;
  for (int64_t i = 0; i < count; ++i) {
    sums[i] += more[i];
    cancels |= sums[i] == 0 && more[i] != 0;
  }
  return cancels != 0;
}

BRAINJAX_VECTORIZE void Scale(int64_t count, float unit, int32_t* sums) {
  for (int64_t i = 0; i < count; ++i) sums[i] = ScaledBits(sums[i], unit);
}

namespace {

// The sums of a batch. `scratch` is room for second ones if `stride`, its words for each batch
// element, are enough.
template <typename W>
class Sums {
 public:
  Sums(ffi::ThreadPool& pool, const PropagationBatch<W>& batch, int32_t* scratch, int64_t stride)
      : pool_(pool),
        batch_(batch),
        scratch_(scratch),
        stride_(stride),
        parallel_(pool.num_threads() > 1 && HasAtLeast(batch, kParallelSynapses)),
        division_(batch, parallel_ ? pool.num_threads() : 1, stride >= batch.first.num_post) {}

  void Run() {
    ForItems([&](int64_t b, int64_t part) { Add(b, part); });
    if (division_.HasCopies() || batch_.unit != 0.0f) {
      ForItems([&](int64_t b, int64_t part) { Finish(b, part); });
    }
  }

 private:
  template <typename Body>
  void ForItems(const Body& body) {
    const int64_t parts = division_.Parts();
    const auto item = [&](int64_t i) { body(i / parts, i % parts); };
    ParallelFor(pool_, batch_.size * parts, item, parallel_);
  }

  // Part `part` of `parts` of the targets.
  Share ShareOf(int64_t part, int64_t parts) const {
    const int64_t n = batch_.first.num_post;
    const auto bound = [&](int64_t p) { return static_cast<uint32_t>(n * p / parts); };
    return {bound(part), bound(part + 1) - bound(part)};
  }

  uint32_t* Copy(const Propagation<W>& problem, int64_t b, int64_t copy) const {
    return reinterpret_cast<uint32_t*>(copy == 0 ? problem.sums : scratch_ + b * stride_);
  }

  void Add(int64_t b, int64_t part) {
    const Share targets = ShareOf(division_.ShareOf(part), division_.Shares());
    uint32_t* const sums = Copy(batch_.At(b), b, division_.CopyOf(part));
    division_.Add(b, part, targets, PlainAdder{sums},
                  [&] { std::fill_n(sums + targets.first, targets.size, 0u); });
  }

  void Finish(int64_t b, int64_t part) {
    const Share targets = ShareOf(part, division_.Parts());
    const Propagation<W> problem = batch_.At(b);
    if (division_.HasMore(b, part)) {
      AddUp(Copy(problem, b, 1) + targets.first, targets.size,
            Copy(problem, b, 0) + targets.first);
    }
    if (batch_.unit != 0.0f) Scale(targets.size, batch_.unit, problem.sums + targets.first);
  }

  ffi::ThreadPool& pool_;
  const PropagationBatch<W>& batch_;
  int32_t* scratch_;
  int64_t stride_;
  bool parallel_;
  Division<W> division_;
};

ffi::Error Handler(ffi::ThreadPool pool, PropagationOperands operands) {
  return operands.With([&](const auto& batch) {
    if (batch.size > 0) {
      Sums(pool, batch, operands.scratch->typed_data(), operands.scratch->dimensions().back())
          .Run();
    }
    return ffi::Error::Success();
  });
}

}  // namespace
}  // namespace brainjax

XLA_FFI_DEFINE_HANDLER_SYMBOL(BrainjaxPropagateSpikes, brainjax::Unpacked(brainjax::Handler),
                              brainjax::PropagationOperands::Bind().Ctx<xla::ffi::ThreadPool>());
