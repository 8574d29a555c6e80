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

// The operands in the order of assembly_core.py, behind those of the platform.
inline ffi::Error MapAreaRound(ffi::Buffer<ffi::S32> old_indices, ffi::Buffer<ffi::F32> old_values,
                               ffi::Buffer<ffi::S32> old_counts, ffi::Buffer<ffi::PRED> is_fixed,
                               ffi::Buffer<ffi::PRED> is_open, ffi::Buffer<ffi::PRED> is_plastic,
                               ffi::Buffer<ffi::F32> betas, ffi::Buffer<ffi::F32> w_maxes,
                               ffi::Buffer<ffi::F32> last_inputs, ffi::RemainingArgs fibers, ffi::ResultBuffer<ffi::S32> indices,
                               ffi::ResultBuffer<ffi::F32> values,
                               ffi::ResultBuffer<ffi::S32> counts,
                               ffi::ResultBuffer<ffi::F32> inputs,
                               ffi::ResultBuffer<ffi::U32> scratch, ffi::RemainingRets changed,
                               AreaRound* round, ffi::DataType* dtype) {
  const auto invalid = [](const char* what) {
    return ffi::Error::InvalidArgument(std::string("assembly_core: ") + what);
  };
  const int num_fibers = static_cast<int>(changed.size());
  if (num_fibers < 1 || num_fibers > kMaxFibers ||
      fibers.size() != 4 * static_cast<size_t>(num_fibers)) {
    return invalid("number of fibers out of range");
  }
  const int64_t batch = counts->element_count();
  const int64_t k = indices->dimensions().back(), num_post = inputs->dimensions().back();
  const auto holds = [&](size_t elements, int64_t each) {
    return static_cast<int64_t>(elements) == batch * each;
  };
  if (!holds(old_indices.element_count(), k) || !holds(old_values.element_count(), k) ||
      !holds(old_counts.element_count(), 1) || !holds(is_fixed.element_count(), 1) ||
      !holds(is_open.element_count(), num_fibers) ||
      !holds(is_plastic.element_count(), num_fibers) ||
      !holds(betas.element_count(), num_fibers) || !holds(w_maxes.element_count(), num_fibers) ||
      !holds(indices->element_count(), k) || !holds(values->element_count(), k) ||
      !holds(last_inputs.element_count(), num_post) ||
      !holds(inputs->element_count(), num_post)) {
    return invalid("dimensions of the operands do not fit");
  }
  *round = {};
  for (int f = 0; f < num_fibers; ++f) {
    const auto weights = fibers.get<ffi::AnyBuffer>(f);
    const auto rows = fibers.get<ffi::Buffer<ffi::S32>>(num_fibers + 3 * f);
    const auto sent = fibers.get<ffi::Buffer<ffi::F32>>(num_fibers + 3 * f + 1);
    const auto count = fibers.get<ffi::Buffer<ffi::S32>>(num_fibers + 3 * f + 2);
    auto result = changed.get<ffi::AnyBuffer>(f);
    if (!weights || !rows || !sent || !count || !result) return invalid("type of a fiber's operand");
    const Dimensions dims = weights->dimensions();
    if (dims.size() < 2 || dims.back() != num_post || rows->dimensions().size() < 1) {
      return invalid("every fiber must have one weight per neuron of the area");
    }
    const int64_t num_pre = dims[dims.size() - 2], capacity = rows->dimensions().back();
    if (!holds(weights->element_count(), num_pre * num_post) ||
        !holds(rows->element_count(), capacity) || !holds(sent->element_count(), capacity) ||
        !holds(count->element_count(), 1)) {
      return invalid("dimensions of a fiber do not fit");
    }
    if (f > 0 && weights->element_type() != *dtype) return invalid("fibers differ in type");
    *dtype = weights->element_type();
    // XLA copies the old weights into the result first, where it could not alias the two.
    if (weights->untyped_data() != (*result)->untyped_data()) {
      return ffi::Error::Internal("assembly_core: weights must be updated in place");
    }
    round->fibers[f] = {weights->untyped_data(), rows->typed_data(), sent->typed_data(),
                        count->typed_data(),     num_pre,            capacity};
  }
  if (*dtype != ffi::F32 && *dtype != ffi::BF16) return invalid("weights must be F32 or BF16");
  round->num_fibers = num_fibers;
  round->batch = batch;
  round->num_post = num_post;
  round->is_open = is_open.typed_data();
  round->is_plastic = is_plastic.typed_data();
  round->betas = betas.typed_data();
  round->w_maxes = w_maxes.typed_data();
  round->is_fixed = is_fixed.typed_data();
  round->k = k;
  round->old_indices = old_indices.typed_data();
  round->old_values = old_values.typed_data();
  round->old_counts = old_counts.typed_data();
  round->indices = indices->typed_data();
  round->values = values->typed_data();
  round->counts = counts->typed_data();
  round->last_inputs = last_inputs.typed_data();
  round->inputs = inputs->typed_data();
  round->scratch = scratch->typed_data();
  round->scratch_size = scratch->dimensions().back();
  return ffi::Error::Success();
}

}  // namespace brainjax

#endif  // BRAINJAX_ASSEMBLY_CORE_H_
