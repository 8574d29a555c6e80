// Sparse synapses and active sets, as both kernels of propagate_spikes see them.
#ifndef BRAINJAX_PROPAGATION_H_
#define BRAINJAX_PROPAGATION_H_

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "active_set.h"
#include "batch.h"
#include "numbers.h"

namespace brainjax {

// To the nearest integer, ties to even, clipped to int32; NaN becomes 0.
BRAINJAX_NUMBER_FUNCTION int32_t NearestInteger(float x) {
#ifdef __CUDA_ARCH__
  return __float2int_rn(x);
#else
  constexpr float kMin = -2147483648.0f, kMax = 2147483520.0f;  // that an int32 can be
  const float low = x > kMin ? x : kMin;                        // NaN too
  const int32_t nearest = static_cast<int32_t>(std::rint(low < kMax ? low : kMax));
  return x != x ? 0 : x >= 2147483648.0f ? 2147483647 : nearest;
#endif
}

// The type of weights that are 1 and not stored.
struct UnitWeight {};

BRAINJAX_NUMBER_FUNCTION UnitWeight WeightAt(const UnitWeight*, int64_t) { return {}; }

template <typename W>
BRAINJAX_NUMBER_FUNCTION W WeightAt(const W* weights, int64_t synapse) {
  return weights[synapse];
}

// What one spike adds to its target: round(value * 2^S * weight), with gain = value * 2^S.
BRAINJAX_NUMBER_FUNCTION int32_t Contribution(float gain, UnitWeight) {
  return NearestInteger(gain);
}

template <typename W>
BRAINJAX_NUMBER_FUNCTION int32_t Contribution(float gain, W weight) {
  return NearestInteger(gain * static_cast<float>(weight));
}

// The bits of a sum times 2^-S, as a float.
BRAINJAX_NUMBER_FUNCTION int32_t ScaledBits(int32_t sum, float unit) {
  return static_cast<int32_t>(Bits(static_cast<float>(sum) * unit));
}

constexpr int64_t kMaxNeurons = int64_t{1} << 31;

// Consecutive synapses.
struct Range {
  int64_t first;
  int64_t length;
};

// One network, one active set, and the sums that they give.
template <typename W>
struct Propagation {
  const int32_t* indptr;   // null where every row has `fan_out` synapses
  const int32_t* indices;  // postsynaptic neurons
  const W* weights;
  const int32_t* active;  // presynaptic neurons
  const float* values;    // null: every neuron sends 1
  int32_t* sums;  // at the end maybe floats: see PropagationBatch::unit
  int64_t count, capacity;  // of active neurons
  int64_t num_synapses, fan_out;
  uint32_t num_pre, num_post;  // at most 2^31: no id goes beyond
  float scale;  // 2^S

  // The synapses of the active neuron at `place`; none where the list names nobody.
  BRAINJAX_HOST_DEVICE Range Row(int64_t place) const {
    const int32_t row = active[place];
    if (!HasRow(row)) return {0, 0};
    if (indptr == nullptr) return {row * fan_out, fan_out};
    const int64_t first = Clip(indptr[row], 0);
    return {first, Clip(indptr[int64_t{row} + 1], first) - first};
  }

  BRAINJAX_HOST_DEVICE float Gain(int64_t place) const {
    return values == nullptr ? scale : values[place] * scale;
  }

  // Whether ids that were read from memory name neurons. As unsigned, negative ones are too large.
  BRAINJAX_HOST_DEVICE bool HasRow(int32_t pre) const {
    return static_cast<uint32_t>(pre) < num_pre;
  }
  BRAINJAX_HOST_DEVICE bool HasSum(int32_t post) const {
    return static_cast<uint32_t>(post) < num_post;
  }

 private:
  BRAINJAX_HOST_DEVICE int64_t Clip(int64_t synapse, int64_t lowest) const {
    return synapse < lowest ? lowest : synapse < num_synapses ? synapse : num_synapses;
  }
};

// A batch of them. Which operands its elements share says vmap.
template <typename W>
struct PropagationBatch {
  Propagation<W> first;  // element 0
  const int32_t* counts;
  float unit;  // 2^-S, by which sums are multiplied at the end; 0: they stay integers
  BatchOffsets indptr_at, indices_at, weights_at, active_at, values_at, counts_at;
  int64_t size;

  // On the GPU, what its kernels read of this stays where their parameters are.
  BRAINJAX_HOST_DEVICE Propagation<W> First() const {
    Propagation<W> element = first;
    element.count = NumListed(*counts, first.capacity);
    return element;
  }

  BRAINJAX_HOST_DEVICE Propagation<W> At(int64_t b) const {
    if (b == 0) return First();
    Propagation<W> element = first;
    if (first.indptr != nullptr) element.indptr += indptr_at(b);
    element.indices += indices_at(b);
    element.weights += weights_at(b);
    element.active += active_at(b);
    if (first.values != nullptr) element.values += values_at(b);
    element.sums += b * int64_t{first.num_post};
    element.count = NumListed(counts[counts_at(b)], first.capacity);
    return element;
  }
};

// The operands, in the order of propagation.py.
struct PropagationOperands {
  ffi::Buffer<ffi::S32> indptr, indices;
  ffi::AnyBuffer weights;
  ffi::Buffer<ffi::S32> active;
  ffi::Buffer<ffi::F32> values;
  ffi::Buffer<ffi::S32> counts;
  bool fixed_fan_out;
  int64_t fraction_bits;
  // For CUDA, as is the scratch: from how many synapses on they are sorted, 0 for never; whether a
  // single problem is summed in one launch.
  int64_t sort_from;
  bool together;
  ffi::Result<ffi::AnyBuffer> sums;  // F32: scaled, where either may be
  ffi::ResultBuffer<ffi::S32> scratch;

  static auto Bind() {
    return ffi::Ffi::Bind()
        .Arg<ffi::Buffer<ffi::S32>>().Arg<ffi::Buffer<ffi::S32>>().Arg<ffi::AnyBuffer>()
        .Arg<ffi::Buffer<ffi::S32>>().Arg<ffi::Buffer<ffi::F32>>().Arg<ffi::Buffer<ffi::S32>>()
        .Attr<bool>("fixed_fan_out")
        .Attr<int64_t>("fraction_bits")
        .Attr<int64_t>("sort_from")
        .Attr<bool>("together")
        .Ret<ffi::AnyBuffer>().Ret<ffi::Buffer<ffi::S32>>();
  }

  // Calls run(PropagationBatch<W>) for the type of the weights.
  template <typename Run>
  ffi::Error With(const Run& run) {
    switch (weights.element_type()) {
      case ffi::PRED: return Map<UnitWeight>(1, run);
      case ffi::U8: return Map<uint8_t>(fixed_fan_out ? 2 : 1, run);
      case ffi::F32: return Map<float>(fixed_fan_out ? 2 : 1, run);
      default:
        return ffi::Error::InvalidArgument(
            "propagate_spikes: weights must be F32 or U8, or PRED and empty");
    }
  }

 private:
  template <typename W, typename Run>
  ffi::Error Map(int weights_rank, const Run& run) {
    const Dimensions result = sums->dimensions();
    const int indices_rank = fixed_fan_out ? 2 : 1;
    PropagationBatch<W> batch;
    if (!MapBatch(indptr.dimensions(), 1, result, 1, &batch.indptr_at) ||
        !MapBatch(indices.dimensions(), indices_rank, result, 1, &batch.indices_at) ||
        !MapBatch(weights.dimensions(), weights_rank, result, 1, &batch.weights_at) ||
        !MapBatch(active.dimensions(), 1, result, 1, &batch.active_at) ||
        !MapBatch(values.dimensions(), 1, result, 1, &batch.values_at) ||
        !MapBatch(counts.dimensions(), 0, result, 1, &batch.counts_at)) {
      return ffi::Error::InvalidArgument("propagate_spikes: batch dimensions do not fit");
    }
    const bool is_scaled = sums->element_type() == ffi::F32;
    const bool may_be_scaled = sort_from > 0 || together;
    if (is_scaled ? !may_be_scaled : sums->element_type() != ffi::S32) {
      return ffi::Error::InvalidArgument(
          "propagate_spikes: sums must be S32, or F32 where they are many");
    }
    batch.size = BatchSize(result, 1);
    batch.unit = is_scaled ? std::ldexp(1.0f, -static_cast<int>(fraction_bits)) : 0.0f;
    batch.counts = counts.typed_data();
    const int64_t num_values = values.dimensions().back();  // none where each is 1
    if (num_values != 0 && num_values != active.dimensions().back()) {
      return ffi::Error::InvalidArgument("propagate_spikes: indices and values differ in length");
    }
    Propagation<W>& first = batch.first;
    first.fan_out = fixed_fan_out ? indices.dimensions().back() : 0;
    const int64_t num_pre = fixed_fan_out ? indices.dimensions()[indices.dimensions().size() - 2]
                                          : indptr.dimensions().back() - 1;
    if (num_pre < 0 || num_pre > kMaxNeurons || result.back() > kMaxNeurons) {
      return ffi::Error::InvalidArgument("propagate_spikes: 0 to 2^31 neurons on either side");
    }
    first.num_pre = static_cast<uint32_t>(num_pre);
    first.num_post = static_cast<uint32_t>(result.back());
    first.num_synapses = fixed_fan_out ? num_pre * first.fan_out : indices.dimensions().back();
    if constexpr (!std::is_same_v<W, UnitWeight>) {
      int64_t num_weights = weights.dimensions().back();
      if (fixed_fan_out) num_weights *= weights.dimensions()[weights.dimensions().size() - 2];
      if (num_weights != first.num_synapses) {
        return ffi::Error::InvalidArgument("propagate_spikes: weights and synapses differ");
      }
    }
    first.indptr = fixed_fan_out ? nullptr : indptr.typed_data();
    first.indices = indices.typed_data();
    first.weights = static_cast<const W*>(weights.untyped_data());
    first.active = active.typed_data();
    first.values = num_values == 0 ? nullptr : values.typed_data();
    first.sums = static_cast<int32_t*>(sums->untyped_data());
    first.capacity = active.dimensions().back();
    first.count = 0;
    first.scale = std::ldexp(1.0f, static_cast<int>(fraction_bits));
    return run(batch);
  }
};

}  // namespace brainjax

#endif  // BRAINJAX_PROPAGATION_H_
