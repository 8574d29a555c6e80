// The operands of burst_core, checked and without their FFI wrappers.
#ifndef BRAINJAX_BURST_CORE_H_
#define BRAINJAX_BURST_CORE_H_

#include <cmath>
#include <cstdint>

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
  In<ffi::U32> bursts;
  // Parameters.
  In<ffi::S32> area;
  In<ffi::F32> threshold, threshold_limit, leak, excitability;
  In<ffi::U16> refractory_period, fire_limit, snooze;
  In<ffi::PRED> accumulates;
  In<ffi::U16> kind;
  In<ffi::S32> indptr, synapses;
  ffi::AnyBuffer weights;
  In<ffi::PRED> is_driven;
  // What the burst gets.
  In<ffi::S32> injected;
  In<ffi::F32> injections;
  In<ffi::S32> num_injected;
  In<ffi::F32> power;
  In<ffi::PRED> fatigued;
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
  Out<ffi::U32> new_bursts;
  Out<ffi::F32> inputs;
  Out<ffi::PRED> candidates;
  Out<ffi::U32> fires;
  Out<ffi::F32> sent;
  ffi::Result<ffi::AnyBuffer> sums;
  Out<ffi::U32> tallies;
  Out<ffi::U32> words;
  Out<ffi::S32> propagation_scratch;

  static auto Bind() {
    return ffi::Ffi::Bind()
        .Arg<In<ffi::F32>>().Arg<In<ffi::U16>>().Arg<In<ffi::U16>>()
        .Arg<In<ffi::S32>>().Arg<In<ffi::F32>>().Arg<In<ffi::S32>>().Arg<In<ffi::U32>>()
        .Arg<In<ffi::S32>>()
        .Arg<In<ffi::F32>>().Arg<In<ffi::F32>>().Arg<In<ffi::F32>>().Arg<In<ffi::F32>>()
        .Arg<In<ffi::U16>>().Arg<In<ffi::U16>>().Arg<In<ffi::U16>>().Arg<In<ffi::PRED>>()
        .Arg<In<ffi::U16>>()
        .Arg<In<ffi::S32>>().Arg<In<ffi::S32>>().Arg<ffi::AnyBuffer>().Arg<In<ffi::PRED>>()
        .Arg<In<ffi::S32>>().Arg<In<ffi::F32>>().Arg<In<ffi::S32>>()
        .Arg<In<ffi::F32>>().Arg<In<ffi::PRED>>()
        .Arg<In<ffi::S32>>().Arg<In<ffi::PRED>>()
        .Attr<int64_t>("fraction_bits").Attr<int64_t>("sort_from")
        .Attr<int64_t>("power_neuron").Attr<int64_t>("fatigue_area")
        .Attr<int64_t>("batch_threshold")
        .Attr<bool>("keeps_residues").Attr<bool>("unlimited_block")
        .Attr<float>("strength_limit").Attr<bool>("whole_strength")
        .Ret<In<ffi::F32>>().Ret<In<ffi::U16>>().Ret<In<ffi::U16>>()
        .Ret<In<ffi::S32>>().Ret<In<ffi::F32>>().Ret<In<ffi::S32>>().Ret<In<ffi::U32>>()
        .Ret<In<ffi::F32>>().Ret<In<ffi::PRED>>().Ret<In<ffi::U32>>()
        .Ret<In<ffi::F32>>().Ret<ffi::AnyBuffer>().Ret<In<ffi::U32>>().Ret<In<ffi::U32>>()
        .Ret<In<ffi::S32>>();
  }

  ffi::Error Map(BurstBatch* batch) {
    const int64_t n = potential.dimensions().back();
    if (!IsInPlace()) return ffi::Error::Internal("burst_core: state must be updated in place");
    *batch = {};
    batch->first.num_neurons = n;
    batch->first.span_bits = BurstBatch::SpanBits(n);
    batch->rules = {std::ldexp(1.0f, -static_cast<int>(fraction_bits)), strength_limit,
                    whole_strength, power_neuron, fatigue_area, batch_threshold, keeps_residues,
                    unlimited_block};
    batch->size = BatchSize(potential.dimensions(), 1);
    batch->num_words = (n + kBurstWord - 1) / kBurstWord;
    batch->stride = words->dimensions().back();
    if (n >= kMaxNeurons || !HasSizes(*batch, n)) {
      return ffi::Error::InvalidArgument("burst_core: sizes of state or results do not fit");
    }
    if (!MapShared(batch)) {
      return ffi::Error::InvalidArgument("burst_core: dimensions of the operands do not fit");
    }
    Describe(batch);
    return ffi::Error::Success();
  }

  // Calls run(PropagationBatch<W>) with the spikes of those that fired.
  template <typename Run>
  ffi::Error WithSpikes(const Run& run) {
    PropagationOperands operands{indptr, synapses, weights, indices, *sent, count, false,
                                 fraction_bits, sort_from, false, sums, propagation_scratch};
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
           count.typed_data() == new_count->typed_data() &&
           bursts.typed_data() == new_bursts->typed_data();
  }

  template <typename Buffer>
  static bool Holds(const Buffer& buffer, int64_t elements) {
    return static_cast<int64_t>(buffer.element_count()) == elements;
  }

  bool HasSizes(const BurstBatch& batch, int64_t n) {
    const int64_t all = batch.size * n;
    const bool is_sent = is_driven.dimensions().back() > 0;
    return Holds(*sent, is_sent ? all : 0) && Holds(potential, all) && Holds(countdown, all) &&
           Holds(fire_count, all) &&
           Holds(indices, all) && Holds(values, all) && Holds(count, batch.size) &&
           Holds(bursts, batch.size) &&
           HasCollected(all) && Holds(*sums, all) && sums->element_type() == ffi::S32 &&
           Holds(*tallies, sort_from > 0 ? 0 : 2 * all) &&
           Holds(*fires, batch.size * batch.num_words) &&
           batch.stride == batch.ScratchWords() && Holds(*words, batch.size * batch.stride) &&
           Holds(*propagation_scratch,
                 batch.size * propagation_scratch->dimensions().back());
  }

  // Inputs and candidates are there if they are kept, and between the two passes that count them.
  bool HasCollected(int64_t all) {
    const bool are_kept = inputs->dimensions().back() > 0 || batch_threshold >= 0;
    return Holds(*inputs, are_kept ? all : 0) && Holds(*candidates, are_kept ? all : 0);
  }

  template <typename Buffer, typename T>
  bool MapOne(const Buffer& buffer, int core_rank, int64_t length, const T** first,
              BatchOffsets* offsets) {
    *first = buffer.typed_data();
    return MapBatch(buffer.dimensions(), core_rank, potential.dimensions(), 1, offsets) &&
           (core_rank == 0 || buffer.dimensions().back() == length);
  }

  // Maps numbers of all neurons, or null where there are none.
  template <typename Buffer, typename T>
  bool MapOptional(const Buffer& buffer, int64_t n, const T** first, BatchOffsets* offsets) {
    const bool is_absent = buffer.dimensions().back() == 0;
    if (!MapOne(buffer, 1, is_absent ? 0 : n, first, offsets)) return false;
    if (is_absent) *first = nullptr;
    return true;
  }

  bool MapNeurons(BurstBatch* batch, int64_t n) {
    BurstNeurons& neurons = batch->first.neurons;
    const int64_t rows = threshold.dimensions().back();
    if (!MapOptional(kind, n, &neurons.kind, &batch->kind)) return false;
    if (neurons.kind == nullptr ? rows != n : rows < 1 || rows > kMaxKinds) return false;
    neurons.num_kinds = static_cast<uint32_t>(rows);
    return MapOne(area, 1, rows, &neurons.area, &batch->area) &&
           MapOne(threshold, 1, rows, &neurons.threshold, &batch->threshold) &&
           MapOne(threshold_limit, 1, rows, &neurons.threshold_limit, &batch->threshold_limit) &&
           MapOne(leak, 1, rows, &neurons.leak, &batch->leak) &&
           MapOne(excitability, 1, rows, &neurons.excitability, &batch->excitability) &&
           MapOne(refractory_period, 1, rows, &neurons.refractory_period,
                  &batch->refractory_period) &&
           MapOne(fire_limit, 1, rows, &neurons.fire_limit, &batch->fire_limit) &&
           MapOne(snooze, 1, rows, &neurons.snooze, &batch->snooze) &&
           MapOne(accumulates, 1, rows, &neurons.accumulates, &batch->accumulates);
  }

  bool MapShared(BurstBatch* batch) {
    const int64_t n = potential.dimensions().back(), room = injected.dimensions().back();
    BurstProblem& first = batch->first;
    first.injected.count = room;
    return MapNeurons(batch, n) &&
           MapOne(injected, 1, room, &first.injected.indices, &batch->injected) &&
           MapOne(injections, 1, room, &first.injected.values, &batch->injections) &&
           MapOne(num_injected, 0, 1, &first.num_injected, &batch->num_injected) &&
           MapOne(power, 0, 1, &first.power, &batch->power) &&
           MapOne(fatigued, 0, 1, &first.fatigued, &batch->fatigued) &&
           MapOptional(is_driven, n, &first.is_driven, &batch->is_driven) &&
           MapOptional(arriving, n, &first.arriving, &batch->arriving) &&
           MapOptional(reached, n, &first.reached, &batch->reached) &&
           (first.arriving == nullptr) == (first.reached == nullptr);
  }

  void Describe(BurstBatch* batch) {
    BurstProblem& first = batch->first;
    first.neurons.potential = new_potential->typed_data();
    first.neurons.countdown = new_countdown->typed_data();
    first.neurons.fire_count = new_fire_count->typed_data();
    first.sent = sent->typed_data();
    if (inputs->dimensions().back() > 0) {
      first.inputs = inputs->typed_data();
      first.candidates = candidates->typed_data();
    }
    first.fires = fires->typed_data();
    first.sums = static_cast<int32_t*>(sums->untyped_data());
    first.cancelled = words->typed_data();
    first.totals = first.cancelled + batch->num_words;
    first.fire_counts = first.cancelled + batch->CountsAt();
    first.tile_starts = first.cancelled + batch->StartsAt();
    first.indices = new_indices->typed_data();
    first.values = new_values->typed_data();
    first.count = new_count->typed_data();
    first.bursts = new_bursts->typed_data();
  }
};

}  // namespace brainjax

#endif  // BRAINJAX_BURST_CORE_H_
