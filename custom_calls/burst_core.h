// The operands of burst_core, checked and without their FFI wrappers.
#ifndef BRAINJAX_BURST_CORE_H_
#define BRAINJAX_BURST_CORE_H_

#include <cmath>
#include <cstdint>
#include <string>

#include "batch.h"
#include "burst_batch.h"
#include "propagation.h"

namespace brainjax {

// The operands, in the order of burst_core.py.
struct BurstOperands {
  template <ffi::DataType kType>
  using In = ffi::Buffer<kType>;
  template <ffi::DataType kType>
  using Out = ffi::ResultBuffer<kType>;

  // State, updated in place.
  In<ffi::F32> potential;
  In<ffi::U16> countdown, fire_count;
  In<ffi::S32> indices;
  In<ffi::F32> values;
  In<ffi::S32> count;
  // Parameters.
  In<ffi::S32> area;
  In<ffi::F32> threshold, threshold_limit, leak, excitability;
  In<ffi::U16> refractory_period, fire_limit, snooze;
  In<ffi::PRED> accumulates;
  In<ffi::S32> indptr, synapses;
  ffi::AnyBuffer weights;
  In<ffi::PRED> is_driven;
  // What the burst gets.
  In<ffi::S32> injected;
  In<ffi::F32> injections;
  In<ffi::S32> num_injected;
  In<ffi::F32> power;
  In<ffi::PRED> fatigued;
  In<ffi::U32> burst;
  In<ffi::S32> arriving;
  In<ffi::PRED> reached;
  int64_t fraction_bits, sort_from, power_neuron, fatigue_area, batch_threshold;
  bool keeps_residues, unlimited_block;
  float strength_limit;
  bool whole_strength;
  Out<ffi::F32> new_potential;
  Out<ffi::U16> new_countdown, new_fire_count;
  Out<ffi::S32> new_indices;
  Out<ffi::F32> new_values;
  Out<ffi::S32> new_count;
  Out<ffi::F32> inputs;
  Out<ffi::PRED> candidates;
  Out<ffi::U32> fires;
  Out<ffi::F32> sent;
  Out<ffi::S32> sums;
  Out<ffi::U32> words;
  Out<ffi::S32> propagation_scratch;

  static auto Bind() {
    return ffi::Ffi::Bind()
        .Arg<In<ffi::F32>>().Arg<In<ffi::U16>>().Arg<In<ffi::U16>>()
        .Arg<In<ffi::S32>>().Arg<In<ffi::F32>>().Arg<In<ffi::S32>>()
        .Arg<In<ffi::S32>>()
        .Arg<In<ffi::F32>>().Arg<In<ffi::F32>>().Arg<In<ffi::F32>>().Arg<In<ffi::F32>>()
        .Arg<In<ffi::U16>>().Arg<In<ffi::U16>>().Arg<In<ffi::U16>>().Arg<In<ffi::PRED>>()
        .Arg<In<ffi::S32>>().Arg<In<ffi::S32>>().Arg<ffi::AnyBuffer>().Arg<In<ffi::PRED>>()
        .Arg<In<ffi::S32>>().Arg<In<ffi::F32>>().Arg<In<ffi::S32>>()
        .Arg<In<ffi::F32>>().Arg<In<ffi::PRED>>().Arg<In<ffi::U32>>()
        .Arg<In<ffi::S32>>().Arg<In<ffi::PRED>>()
        .Attr<int64_t>("fraction_bits").Attr<int64_t>("sort_from")
        .Attr<int64_t>("power_neuron").Attr<int64_t>("fatigue_area")
        .Attr<int64_t>("batch_threshold")
        .Attr<bool>("keeps_residues").Attr<bool>("unlimited_block")
        .Attr<float>("strength_limit").Attr<bool>("whole_strength")
        .Ret<In<ffi::F32>>().Ret<In<ffi::U16>>().Ret<In<ffi::U16>>()
        .Ret<In<ffi::S32>>().Ret<In<ffi::F32>>().Ret<In<ffi::S32>>()
        .Ret<In<ffi::F32>>().Ret<In<ffi::PRED>>().Ret<In<ffi::U32>>()
        .Ret<In<ffi::F32>>().Ret<In<ffi::S32>>().Ret<In<ffi::U32>>().Ret<In<ffi::S32>>();
  }

  ffi::Error Map(BurstBatch* batch) {
    const int64_t n = potential.dimensions().back();
    if (!IsInPlace()) return ffi::Error::Internal("burst_core: state must be updated in place");
    batch->rules = {std::ldexp(1.0f, -static_cast<int>(fraction_bits)), strength_limit,
                    whole_strength, power_neuron, fatigue_area, batch_threshold, keeps_residues,
                    unlimited_block};
    batch->size = BatchSize(inputs->dimensions(), 1);
    batch->num_words = (n + kBurstWord - 1) / kBurstWord;
    batch->stride = words->dimensions().back();
    if (n > kMaxNeurons || !HasSizes(*batch, n)) {
      return ffi::Error::InvalidArgument("burst_core: sizes of state or results do not fit");
    }
    if (!MapShared(batch)) {
      return ffi::Error::InvalidArgument("burst_core: dimensions of the operands do not fit");
    }
    Describe(n, batch);
    return ffi::Error::Success();
  }

  // Calls run(PropagationBatch<W>) with the spikes of those that fired.
  template <typename Run>
  ffi::Error WithSpikes(const Run& run) {
    PropagationOperands operands{indptr, synapses, weights, indices, *sent, count, false,
                                 fraction_bits, sort_from, sums, propagation_scratch};
    return operands.With(run);
  }

 private:
  // XLA copies the old state into the result first, where it could not alias the two.
  bool IsInPlace() {
    return potential.typed_data() == new_potential->typed_data() &&
           countdown.typed_data() == new_countdown->typed_data() &&
           fire_count.typed_data() == new_fire_count->typed_data() &&
           indices.typed_data() == new_indices->typed_data() &&
           values.typed_data() == new_values->typed_data() &&
           count.typed_data() == new_count->typed_data();
  }

  template <typename Buffer>
  static bool Holds(const Buffer& buffer, int64_t elements) {
    return static_cast<int64_t>(buffer.element_count()) == elements;
  }

  bool HasSizes(const BurstBatch& batch, int64_t n) {
    const int64_t all = batch.size * n;
    const int64_t tiles = (n + kBurstTile - 1) / kBurstTile;
    const bool is_sent = is_driven.dimensions().back() > 0;
    return Holds(*sent, is_sent ? all : 0) && Holds(potential, all) && Holds(countdown, all) &&
           Holds(fire_count, all) &&
           Holds(indices, all) && Holds(values, all) && Holds(count, batch.size) &&
           Holds(*inputs, all) && Holds(*candidates, all) && Holds(*sums, all) &&
           Holds(*fires, batch.size * batch.num_words) &&
           batch.stride >= batch.num_words + tiles + 2 * kBurstParts;
  }

  template <typename Buffer, typename T>
  bool MapOne(const Buffer& buffer, int core_rank, int64_t length, BatchedOperand<T>* operand) {
    operand->first = buffer.typed_data();
    return MapBatch(buffer.dimensions(), core_rank, inputs->dimensions(), 1, &operand->offsets) &&
           (core_rank == 0 || buffer.dimensions().back() == length);
  }

  bool MapShared(BurstBatch* batch) {
    const int64_t n = inputs->dimensions().back();
    const bool arrives = arriving.dimensions().back() > 0;
    const bool drives = is_driven.dimensions().back() > 0;
    return MapOne(area, 1, n, &batch->area) && MapOne(threshold, 1, n, &batch->threshold) &&
           MapOne(threshold_limit, 1, n, &batch->threshold_limit) &&
           MapOne(leak, 1, n, &batch->leak) && MapOne(excitability, 1, n, &batch->excitability) &&
           MapOne(refractory_period, 1, n, &batch->refractory_period) &&
           MapOne(fire_limit, 1, n, &batch->fire_limit) && MapOne(snooze, 1, n, &batch->snooze) &&
           MapOne(accumulates, 1, n, &batch->accumulates) &&
           MapActiveSets(injected, injections, num_injected, inputs->dimensions(), 1,
                         &batch->injected) &&
           MapOne(power, 0, 1, &batch->power) && MapOne(fatigued, 0, 1, &batch->fatigued) &&
           MapOne(burst, 0, 1, &batch->burst) &&
           MapOne(arriving, 1, arrives ? n : 0, &batch->arriving) &&
           MapOne(reached, 1, arrives ? n : 0, &batch->reached) &&
           MapOne(is_driven, 1, drives ? n : 0, &batch->is_driven);
  }

  void Describe(int64_t n, BurstBatch* batch) {
    BurstProblem& first = batch->first;
    first = {};
    first.neurons.potential = new_potential->typed_data();
    first.neurons.countdown = new_countdown->typed_data();
    first.neurons.fire_count = new_fire_count->typed_data();
    first.is_driven = is_driven.dimensions().back() > 0 ? is_driven.typed_data() : nullptr;
    first.sent = sent->typed_data();
    first.arriving = arriving.dimensions().back() > 0 ? arriving.typed_data() : nullptr;
    first.inputs = inputs->typed_data();
    first.candidates = candidates->typed_data();
    first.fires = fires->typed_data();
    first.sums = sums->typed_data();
    first.cancelled = words->typed_data();
    first.totals = first.cancelled + batch->num_words;
    first.tile_fires = first.totals + 2 * kBurstParts;
    first.indices = new_indices->typed_data();
    first.values = new_values->typed_data();
    first.count = new_count->typed_data();
    first.num_neurons = n;
  }
};

}  // namespace brainjax

#endif  // BRAINJAX_BURST_CORE_H_
