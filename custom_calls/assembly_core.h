// The operands of assembly_core, checked and without their FFI wrappers.
#ifndef BRAINJAX_ASSEMBLY_CORE_H_
#define BRAINJAX_ASSEMBLY_CORE_H_

#include <cstdint>
#include <string>

#include "batch.h"

namespace brainjax {

constexpr int kMaxFibers = 16;  // MAX_FIBERS of assembly_core.py

// One fiber into the area. Batch element b has its own matrix, sender and numbers.
struct AreaFiber {
  void* weights;
  const int32_t* indices;
  const float* values;
  const int32_t* counts;
  int64_t num_pre, capacity;
};

// One area and the fibers into it, or a batch of them.
struct AreaRound {
  AreaFiber fibers[kMaxFibers];
  int num_fibers;
  int64_t batch, num_post;
  const bool *is_open, *is_plastic;  // one a fiber
  const float *betas, *w_maxes;      // one a fiber
  const bool* is_fixed;

  // Who fired, and who fires now.
  int64_t k;
  const int32_t* old_indices;
  const float* old_values;
  const int32_t* old_counts;
  int32_t* indices;
  float* values;
  int32_t* counts;

  const float* last_inputs;  // hints at the size of these
  float* inputs;
  uint32_t* scratch;
  int64_t scratch_size;  // of one batch element
  int list_capacity;     // of the lists that the CUDA kernel keeps in it
};

// The operands, in the order of assembly_core.py.
struct AreaOperands {
  ffi::Buffer<ffi::S32> old_indices;
  ffi::Buffer<ffi::F32> old_values;
  ffi::Buffer<ffi::S32> old_counts;
  ffi::Buffer<ffi::PRED> is_fixed, is_open, is_plastic;
  ffi::Buffer<ffi::F32> betas, w_maxes, last_inputs;
  ffi::RemainingArgs fibers;  // matrices, then each sender's three parts
  ffi::ResultBuffer<ffi::S32> indices;
  ffi::ResultBuffer<ffi::F32> values;
  ffi::ResultBuffer<ffi::S32> counts;
  ffi::ResultBuffer<ffi::F32> inputs;
  ffi::ResultBuffer<ffi::U32> scratch;
  ffi::RemainingRets changed;  // matrices

  static auto Bind() {
    return ffi::Ffi::Bind()
        .Arg<ffi::Buffer<ffi::S32>>().Arg<ffi::Buffer<ffi::F32>>().Arg<ffi::Buffer<ffi::S32>>()
        .Arg<ffi::Buffer<ffi::PRED>>().Arg<ffi::Buffer<ffi::PRED>>().Arg<ffi::Buffer<ffi::PRED>>()
        .Arg<ffi::Buffer<ffi::F32>>().Arg<ffi::Buffer<ffi::F32>>().Arg<ffi::Buffer<ffi::F32>>()
        .RemainingArgs()
        .Ret<ffi::Buffer<ffi::S32>>().Ret<ffi::Buffer<ffi::F32>>().Ret<ffi::Buffer<ffi::S32>>()
        .Ret<ffi::Buffer<ffi::F32>>().Ret<ffi::Buffer<ffi::U32>>()
        .RemainingRets();
  }

  ffi::Error Map(AreaRound* round) {
    const size_t num_fibers = changed.size();
    if (num_fibers < 1 || num_fibers > kMaxFibers || fibers.size() != 4 * num_fibers) {
      return Invalid("number of fibers out of range");
    }
    *round = Describe();
    if (!Fit(*round)) return Invalid("dimensions of the operands do not fit");
    for (int f = 0; f < round->num_fibers; ++f) {
      const ffi::Error error = MapFiber(f, round);
      if (error.failure()) return error;
    }
    return ffi::Error::Success();
  }

  // That of all fibers.
  ffi::DataType WeightType() const { return fibers.get<ffi::AnyBuffer>(0)->element_type(); }

 private:
  static ffi::Error Invalid(const char* what) {
    return ffi::Error::InvalidArgument(std::string("assembly_core: ") + what);
  }

  template <typename Buffer>
  static bool Holds(const Buffer& buffer, int64_t elements) {
    return static_cast<int64_t>(buffer.element_count()) == elements;
  }

  // All but the fibers.
  AreaRound Describe() {
    AreaRound round = {};
    round.num_fibers = static_cast<int>(changed.size());
    round.batch = counts->element_count();
    round.num_post = inputs->dimensions().back();
    round.is_open = is_open.typed_data();
    round.is_plastic = is_plastic.typed_data();
    round.betas = betas.typed_data();
    round.w_maxes = w_maxes.typed_data();
    round.is_fixed = is_fixed.typed_data();
    round.k = indices->dimensions().back();
    round.old_indices = old_indices.typed_data();
    round.old_values = old_values.typed_data();
    round.old_counts = old_counts.typed_data();
    round.indices = indices->typed_data();
    round.values = values->typed_data();
    round.counts = counts->typed_data();
    round.last_inputs = last_inputs.typed_data();
    round.inputs = inputs->typed_data();
    round.scratch = scratch->typed_data();
    round.scratch_size = scratch->dimensions().back();
    return round;
  }

  bool Fit(const AreaRound& round) {
    const int64_t winners = round.batch * round.k, neurons = round.batch * round.num_post;
    const int64_t switches = round.batch * round.num_fibers;
    return 0 < round.k && round.k <= round.num_post &&
           Holds(old_indices, winners) && Holds(old_values, winners) &&
           Holds(old_counts, round.batch) && Holds(is_fixed, round.batch) &&
           Holds(is_open, switches) && Holds(is_plastic, switches) && Holds(betas, switches) &&
           Holds(w_maxes, switches) && Holds(last_inputs, neurons) && Holds(*indices, winners) &&
           Holds(*values, winners) && Holds(*inputs, neurons);
  }

  ffi::Error MapFiber(int f, AreaRound* round) const {
    const int sender = round->num_fibers + 3 * f;
    const auto weights = fibers.get<ffi::AnyBuffer>(f);
    const auto rows = fibers.get<ffi::Buffer<ffi::S32>>(sender);
    const auto sent = fibers.get<ffi::Buffer<ffi::F32>>(sender + 1);
    const auto count = fibers.get<ffi::Buffer<ffi::S32>>(sender + 2);
    auto result = changed.get<ffi::AnyBuffer>(f);
    if (!weights || !rows || !sent || !count || !result) {
      return Invalid("type of a fiber's operand");
    }
    const Dimensions dims = weights->dimensions();
    if (dims.size() < 2 || dims.back() != round->num_post || rows->dimensions().size() < 1) {
      return Invalid("every fiber must have one weight per neuron of the area");
    }
    const int64_t num_pre = dims[dims.size() - 2], capacity = rows->dimensions().back();
    if (!Holds(*weights, round->batch * num_pre * round->num_post) ||
        !Holds(*rows, round->batch * capacity) || !Holds(*sent, round->batch * capacity) ||
        !Holds(*count, round->batch)) {
      return Invalid("dimensions of a fiber do not fit");
    }
    const ffi::DataType type = weights->element_type();
    if (type != WeightType()) return Invalid("fibers differ in type");
    if (type != ffi::F32 && type != ffi::BF16) return Invalid("weights must be F32 or BF16");
    // XLA copies the old weights into the result first, where it could not alias the two.
    if (weights->untyped_data() != (*result)->untyped_data()) {
      return ffi::Error::Internal("assembly_core: weights must be updated in place");
    }
    round->fibers[f] = {weights->untyped_data(), rows->typed_data(), sent->typed_data(),
                        count->typed_data(),     num_pre,            capacity};
    return ffi::Error::Success();
  }
};

}  // namespace brainjax

#endif  // BRAINJAX_ASSEMBLY_CORE_H_
