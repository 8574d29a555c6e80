// potentiate: weights[i, j] = min(weights[i, j] * (1 + beta pre[i] post[j]), w_max) for the listed
// i and j, in place.
#ifndef BRAINJAX_POTENTIATION_H_
#define BRAINJAX_POTENTIATION_H_

#include <cstdint>

#include "active_set.h"
#include "batch.h"

namespace brainjax {

// A call of potentiate. Weights are float, or bfloat16 as uint16_t.
struct Potentiation {
  void* weights;
  const float* betas;
  const float* w_maxes;
  int64_t batch, num_pre, num_post;
  ActiveSets pre, post;
  BatchOffsets betas_at, w_maxes_at;
};

// The operands, in the order of potentiation.py.
struct PotentiationOperands {
  ffi::AnyBuffer weights;
  ffi::Buffer<ffi::S32> pre_indices;
  ffi::Buffer<ffi::F32> pre_values;
  ffi::Buffer<ffi::S32> pre_counts;
  ffi::Buffer<ffi::S32> post_indices;
  ffi::Buffer<ffi::F32> post_values;
  ffi::Buffer<ffi::S32> post_counts;
  ffi::Buffer<ffi::F32> betas, w_maxes;
  ffi::Result<ffi::AnyBuffer> changed;

  static auto Bind() {
    return ffi::Ffi::Bind()
        .Arg<ffi::AnyBuffer>()
        .Arg<ffi::Buffer<ffi::S32>>().Arg<ffi::Buffer<ffi::F32>>().Arg<ffi::Buffer<ffi::S32>>()
        .Arg<ffi::Buffer<ffi::S32>>().Arg<ffi::Buffer<ffi::F32>>().Arg<ffi::Buffer<ffi::S32>>()
        .Arg<ffi::Buffer<ffi::F32>>().Arg<ffi::Buffer<ffi::F32>>()
        .Ret<ffi::AnyBuffer>();
  }

  ffi::Error Map(Potentiation* call) {
    const Dimensions result = changed->dimensions();
    if (result.size() < 2 ||
        !MapActiveSets(pre_indices, pre_values, pre_counts, result, 2, &call->pre) ||
        !MapActiveSets(post_indices, post_values, post_counts, result, 2, &call->post) ||
        !MapBatch(betas.dimensions(), 0, result, 2, &call->betas_at) ||
        !MapBatch(w_maxes.dimensions(), 0, result, 2, &call->w_maxes_at)) {
      return ffi::Error::InvalidArgument("potentiate: dimensions of the operands do not fit");
    }
    // XLA copies the old weights into the result first, where it could not alias the two.
    if (weights.untyped_data() != changed->untyped_data()) {
      return ffi::Error::Internal("potentiate: weights must be updated in place");
    }
    if (changed->element_type() != ffi::F32 && changed->element_type() != ffi::BF16) {
      return ffi::Error::InvalidArgument("potentiate: weights must be F32 or BF16");
    }
    call->weights = changed->untyped_data();
    call->betas = betas.typed_data();
    call->w_maxes = w_maxes.typed_data();
    call->batch = BatchSize(result, 2);
    call->num_pre = result[result.size() - 2];
    call->num_post = result.back();
    return ffi::Error::Success();
  }
};

// On the CPU: one matrix [num_pre, num_post] and one pair of sets. W is float or uint16_t.
template <typename W>
void Potentiate(ffi::ThreadPool& pool, W* weights, int64_t num_pre, int64_t num_post,
                const ActiveSet& pre, const ActiveSet& post, float beta, float w_max);

}  // namespace brainjax

#endif  // BRAINJAX_POTENTIATION_H_
