// accumulate_rows: received[j] = sum of values[i] * weights[rows[i], j], in the order of
// accumulate_rows_reference:
//
//   s_p = ((0 + t_p) + t_(p+32)) + t_(p+64) + ...   p = 0..31,  t_i = values[i] weights[rows[i], j]
//   s_p = s_p + s_(p+h)  for p < h,  h = 16, 8, 4, 2, 1     received = s_0
#ifndef BRAINJAX_ACCUMULATION_H_
#define BRAINJAX_ACCUMULATION_H_

#include <cstdint>

#include "active_set.h"
#include "batch.h"

namespace brainjax {

constexpr int kLanes = 32;

// A call of accumulate_rows. Weights are float, or bfloat16 as uint16_t.
struct Accumulation {
  const void* weights;
  float* received;
  int64_t batch, num_pre, num_post;
  bool weights_shared;  // all batch elements, more than one, read the same matrix
  ActiveSets rows;
  BatchOffsets weights_at;
};

// The operands, in the order of accumulation.py.
struct AccumulationOperands {
  ffi::AnyBuffer weights;
  ffi::Buffer<ffi::S32> rows;
  ffi::Buffer<ffi::F32> values;
  ffi::Buffer<ffi::S32> counts;
  ffi::ResultBuffer<ffi::F32> received;

  static auto Bind() {
    return ffi::Ffi::Bind()
        .Arg<ffi::AnyBuffer>()
        .Arg<ffi::Buffer<ffi::S32>>().Arg<ffi::Buffer<ffi::F32>>().Arg<ffi::Buffer<ffi::S32>>()
        .Ret<ffi::Buffer<ffi::F32>>();
  }

  ffi::Error Map(Accumulation* call) {
    const Dimensions result = received->dimensions();
    if (rows.dimensions().back() != values.dimensions().back()) {
      return ffi::Error::InvalidArgument("accumulate_rows: indices and values differ in length");
    }
    if (!MapBatch(weights.dimensions(), 2, result, 1, &call->weights_at) ||
        !MapActiveSets(rows, values, counts, result, 1, &call->rows)) {
      return ffi::Error::InvalidArgument("accumulate_rows: dimensions of the operands do not fit");
    }
    call->weights = weights.untyped_data();
    call->received = received->typed_data();
    call->batch = BatchSize(result, 1);
    call->num_post = weights.dimensions().back();
    call->num_pre = weights.dimensions()[weights.dimensions().size() - 2];
    call->weights_shared = call->batch > 1 && BatchSize(weights.dimensions(), 2) == 1;
    if (result.back() != call->num_post) {
      return ffi::Error::InvalidArgument("accumulate_rows: result must have one entry per column");
    }
    if (weights.element_type() != ffi::F32 && weights.element_type() != ffi::BF16) {
      return ffi::Error::InvalidArgument("accumulate_rows: weights must be F32 or BF16");
    }
    return ffi::Error::Success();
  }
};

// On the CPU: one matrix [num_pre, num_post] and one set. W is float or uint16_t.
template <typename W>
void AccumulateRows(ffi::ThreadPool& pool, const W* weights, int64_t num_pre, int64_t num_post,
                    const ActiveSet& rows, float* received);

}  // namespace brainjax

#endif  // BRAINJAX_ACCUMULATION_H_
