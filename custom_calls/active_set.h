// The active sets of a call: which neurons are listed, and what each of them sends.
#ifndef BRAINJAX_ACTIVE_SET_H_
#define BRAINJAX_ACTIVE_SET_H_

#include <cstdint>

#include "batch.h"

namespace brainjax {

// The listed neurons of one set. An index may be anything: whoever reads it checks it.
struct ActiveSet {
  const int32_t* indices;
  const float* values;  // null: all 1
  int64_t count;

  BRAINJAX_HOST_DEVICE float Value(int64_t i) const { return values ? values[i] : 1.0f; }
};

// Entries in use. A count may be anything: it was computed on the device.
BRAINJAX_HOST_DEVICE inline int64_t NumListed(int64_t count, int64_t capacity) {
  return count < 0 ? 0 : count < capacity ? count : capacity;
}

// The sets of a batch, as vmap passes them.
struct ActiveSets {
  const int32_t* indices;
  const float* values;
  const int32_t* counts;
  int64_t capacity;
  BatchOffsets indices_at, values_at, counts_at;

  BRAINJAX_HOST_DEVICE ActiveSet At(int64_t b) const {
    return {indices + indices_at(b), values ? values + values_at(b) : nullptr,
            NumListed(counts[counts_at(b)], capacity)};
  }
};

// Describes the sets of a call. Returns false where their dimensions do not fit the result's.
inline bool MapActiveSets(ffi::Buffer<ffi::S32> indices, ffi::Buffer<ffi::F32> values,
                          ffi::Buffer<ffi::S32> counts, Dimensions result, int result_core_rank,
                          ActiveSets* sets) {
  if (!MapBatch(indices.dimensions(), 1, result, result_core_rank, &sets->indices_at) ||
      !MapBatch(values.dimensions(), 1, result, result_core_rank, &sets->values_at) ||
      !MapBatch(counts.dimensions(), 0, result, result_core_rank, &sets->counts_at) ||
      indices.dimensions().back() != values.dimensions().back()) {
    return false;
  }
  sets->indices = indices.typed_data();
  sets->values = values.typed_data();
  sets->counts = counts.typed_data();
  sets->capacity = indices.dimensions().back();
  return true;
}

}  // namespace brainjax

#endif  // BRAINJAX_ACTIVE_SET_H_
