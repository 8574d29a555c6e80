// What tells which targets of a call of propagate_spikes were reached.
#ifndef BRAINJAX_PROPAGATION_REACHED_CUH_
#define BRAINJAX_PROPAGATION_REACHED_CUH_

#include <cstdint>

#include "warp_ranges.cuh"

namespace brainjax {
namespace propagation {

// What tells who was reached, where that is asked. Synapses that are added up in memory add their
// contributions to the low words of tallies, and 1 to the high words, whose carries do no harm:
// whether a tally was touched is all they tell. Behind a sort there are the sums themselves, in
// memory or where a block has added them up, and one bit for each target, clear at first, where a
// sum of 0 may be of several contributions.
struct Tallies {
  unsigned long long* first;
  int64_t stride;  // tallies of one batch element

  __device__ unsigned long long* Of(int64_t b) const { return first + b * stride; }
};

struct Marks {
  uint32_t* bits;
  int64_t stride;  // words of one batch element

  __device__ uint32_t* Of(int64_t b) const { return bits + b * stride; }
};

__device__ __forceinline__ bool IsCancelled(int32_t sum, int32_t added) {
  return static_cast<uint32_t>(sum) + static_cast<uint32_t>(added) == 0;
}

__device__ __forceinline__ void Mark(uint32_t* bits, uint32_t target) {
  atomicOr(bits + target / kWarp, 1u << (target % kWarp));
}

}  // namespace propagation
}  // namespace brainjax

#endif  // BRAINJAX_PROPAGATION_REACHED_CUH_
