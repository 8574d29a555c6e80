// Strengthens the synapses between listed neurons, by any number of threads.
#ifndef BRAINJAX_STRENGTHEN_CUH_
#define BRAINJAX_STRENGTHEN_CUH_

#include <cstdint>

#include "active_set.h"
#include "numbers.h"

namespace brainjax {

// What all synapses of a matrix [num_pre, num_post] share.
template <typename W>
struct Plasticity {
  W* weights;
  int64_t num_pre, num_post;
  float beta, w_max;
};

template <typename W>
__device__ __forceinline__ void Strengthen(W* weight, W old, float pre_value, float post_value,
                                           float beta, float w_max) {
  const float gain = __fmul_rn(beta, __fmul_rn(pre_value, post_value));
  const float strengthened = __fmul_rn(ToFloat(old), __fadd_rn(1.0f, gain));
  Round(strengthened > w_max ? w_max : strengthened, weight);
}

// Column `column` of the listed rows first, first + step, first + 2 step ...; kInFlight of them
// are asked for before the first is changed. A column outside the matrix is left alone. `readable`
// is the length of the list where its count may still be on the way: rows are then asked for
// without waiting for it.
template <int kInFlight, typename W>
__device__ void StrengthenColumn(const Plasticity<W>& synapses, int32_t column, float post_value,
                                 const ActiveSet& pre, uint32_t first, uint32_t step,
                                 uint32_t readable) {
  const bool has_column = column >= 0 && column < synapses.num_post;
  W* column_start = synapses.weights + column;
  const uint32_t num_post = static_cast<uint32_t>(synapses.num_post);
  const uint32_t count = static_cast<uint32_t>(pre.count);
#pragma unroll 1  // more registers would mean fewer threads, hence fewer rows asked for
  for (uint32_t i = first; i < readable; i += kInFlight * step) {
    W* weights[kInFlight];
    W old[kInFlight];
    float pre_values[kInFlight];
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      const uint32_t entry = i + u * step;
      const int32_t row = entry < readable ? pre.indices[entry] : -1;
      pre_values[u] = entry < readable ? pre.Value(entry) : 0.0f;
      const bool exists = has_column && entry < count && row >= 0 && row < synapses.num_pre;
      weights[u] = exists ? column_start + uint64_t{static_cast<uint32_t>(row)} * num_post
                          : nullptr;
    }
    if (i >= count) return;
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      if (weights[u] != nullptr) old[u] = *weights[u];
    }
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      if (weights[u] == nullptr) continue;
      Strengthen(weights[u], old[u], pre_values[u], post_value, synapses.beta, synapses.w_max);
    }
  }
}

// All listed rows in all listed columns, by `threads` threads of which this is number `thread`.
// Neighbouring threads have ascending columns, so that those close to each other share a sector of
// memory; few columns, as a block has in its own strip, are spread over threads by rows.
template <int kInFlight, typename W>
__device__ void StrengthenSynapses(const Plasticity<W>& synapses, const ActiveSet& pre,
                                   const ActiveSet& post, uint32_t thread, uint32_t threads) {
  if (post.count == 0) return;
  const uint32_t columns = static_cast<uint32_t>(post.count < threads ? post.count : threads);
  const uint32_t rows = threads / columns;  // listed rows that are changed side by side
  if (thread >= rows * columns) return;
  for (uint32_t j = thread % columns; j < post.count; j += columns) {
    StrengthenColumn<kInFlight>(synapses, post.indices[j], post.Value(j), pre, thread / columns,
                                rows, static_cast<uint32_t>(pre.count));
  }
}

}  // namespace brainjax

#endif  // BRAINJAX_STRENGTHEN_CUH_
