"""The burst of an event-driven network as one operation: receive, integrate, fire and list."""

import dataclasses
import functools
from typing import no_type_check

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Float32, UInt32

from brainjax.ops import active_set, backend as backends, burst_dynamics, fire_queue
from brainjax.ops.active_set import ActiveSet
from brainjax.ops.burst_neurons import Arrivals, BurstRules, Membranes, Neurons
from brainjax.ops.propagation import check, propagate_integers
from brainjax.ops.propagation_plan import scratch_words, sort_from
from brainjax.ops.sparse_rows import CompressedRows

HANDLER = "BrainjaxBurstCore"

# Scratch beside that of the propagation, in words: see the constants in burst_batch.h.
_WORD, _TILE, _PARTS = 32, 512, 16
_MIN_SPAN, _MAX_SPANS = 1 << 14, 2048


@no_type_check  # transformations build it from batched and placeholder leaves
@struct.dataclass
class Burst:
    """What a burst leaves behind."""

    membranes: Membranes
    fired: ActiveSet  # who fired, with the potential at firing
    inputs: Float32[Array, " neurons"] | None  # what each neuron received; None: not kept
    candidates: Bool[Array, " neurons"] | None  # who received anything, be it a sum of 0; as inputs
    fires: UInt32[Array, " words"]  # who fired, one bit each; see `fire_queue.unpack`
    bursts: UInt32[Array, ""]  # so far, this one included, modulo 2^32


def burst_core(
    rules: BurstRules,
    neurons: Neurons,
    synapses: CompressedRows,
    is_driven: Bool[Array, " neurons"] | None,
    membranes: Membranes,
    fired: ActiveSet,
    bursts: UInt32[Array, ""],
    injected: ActiveSet,
    *,
    power: Float[Array, ""] | float,
    fatigued: Bool[Array, ""] | bool,
    arrivals: Arrivals | None = None,
    keeps_inputs: bool = True,
    backend: backends.Backend = "auto",
) -> Burst:
    """Send the spikes of the last burst, add up what arrives, and let whom it reaches fire or leak.

    `x_j = ((injections + power + fatigue) + 2^-S * (sums over the synapses from those that fired
    onto j + arrivals_j))`, as `propagate_integers` and `burst_dynamics.collect` say; a neuron that
    receives anything, be it a sum of 0, is a candidate, and `burst_dynamics.advance` says what it
    does with its input. Who fires is listed in ascending order.

    Args:
        rules: what is the same for all neurons and bursts.
        neurons: parameters, of each or by kind.
        synapses: from neurons onto neurons, for each unit of what is sent; no row at all where
            everything that arrives is in `arrivals`.
        is_driven: whose spike sends the potential at firing, kept to [0, rules.strength_limit],
            and with `rules.whole_strength` rounded, halves up; a spike of others sends 1. None:
            nobody's.
        membranes: before the burst; updated in place where the caller's buffers may be reused (a
            donated argument, the carry of a scan).
        fired: who fired in the last burst, with the potential at firing; as long as there are
            neurons, so that it cannot overflow. Updated in place too.
        bursts: so far, modulo 2^32; a burst draws from its own number, the first being 1. Updated
            in place too.
        injected: ids in ascending order, which may repeat, and what each entry injects, in the
            unit of the thresholds. Entries that name no neuron are ignored.
        power: what the power neuron receives, and the fatigue area if `fatigued`.
        fatigued: whether the fatigue area receives the power.
        arrivals: what else arrives over synapses, in units of 2^-synapses.fraction_bits.
        keeps_inputs: whether to return inputs and candidates.
        backend: "auto", "reference" or "kernel".

    Returns:
        Membranes, inputs and candidates if they are kept, the bursts so far, and who fires. That
        list is padded up to the length of the last one; what is beyond both stays as it was given.

    Raises:
        ValueError: there are no neurons, `fired` has not one entry for each, or the arrays of
            `neurons` do not fit.
        TypeError: the weights are neither float32 nor uint8, or the kinds not uint16.
        RuntimeError: `backend` is "kernel" and none can run.

    Cost: the synapses of the neurons that fired; 12 bytes per neuron, 5 more if inputs are kept or
        counted by `rules.batch_threshold`, and 21 more per candidate. Kinds add 2 for each neuron
        whose row is read. A batch of states copies neither unbatched synapses nor parameters.
    Determinism: bit-identical on every backend, alone and batched, in any order of synapses, if
        the injected ids ascend. Kernels keep numbers below 2^-126 in magnitude, for which plain
        XLA may take 0. It has no gradient.
    Source: feagi-core 0.0.1-beta.18, its CPU burst engine.
    """
    check(synapses, backend)
    num_neurons = membranes.potential.shape[0]
    if num_neurons == 0:
        raise ValueError("neurons must be at least 1; got 0")
    neurons.check(num_neurons)
    if fired.indices.shape != (num_neurons,):
        raise ValueError(
            f"fired must have one entry for each of the {num_neurons} neurons; "
            f"got {fired.indices.shape[0]}"
        )
    state = membranes, fired, bursts
    shared = {
        "neurons": neurons,
        "synapses": synapses,
        "is_driven": is_driven,
        "injected": dataclasses.replace(injected, values=injected.values.astype(jnp.float32)),
        "power": jnp.asarray(power, jnp.float32),
        # What nobody reads need not be cut out of the drives of many bursts.
        "fatigued": jnp.asarray(rules.fatigue_area is not None and fatigued, bool),
        "arrivals": arrivals,
    }
    return backends.dispatch(
        backend,
        HANDLER,
        *jax.lax.stop_gradient((state, shared)),
        reference=functools.partial(_reference, rules, keeps_inputs),
        kernel=_kernel_of(rules, keeps_inputs, synapses, fired),
    )


def burst_core_reference(
    rules: BurstRules,
    neurons: Neurons,
    synapses: CompressedRows,
    is_driven: Bool[Array, " neurons"] | None,
    membranes: Membranes,
    fired: ActiveSet,
    bursts: UInt32[Array, ""],
    injected: ActiveSet,
    *,
    power: Float[Array, ""] | float,
    fatigued: Bool[Array, ""] | bool,
    arrivals: Arrivals | None = None,
    keeps_inputs: bool = True,
) -> Burst:
    """The definition of `burst_core`, in plain JAX.

    Cost: the synapses of the neurons that fired, twice, and about 150 bytes per neuron.
    """
    neurons = neurons.spread()
    sums, reached = _arriving(rules, synapses, is_driven, fired, arrivals)
    # A power of two: this product is exact, and may be fused with the sum that it feeds.
    received = sums.astype(jnp.float32) * 2.0**-synapses.fraction_bits
    inputs, candidates = burst_dynamics.collect(
        rules, neurons, injected, power, fatigued, received, reached
    )
    bursts = bursts + 1
    rested = burst_dynamics.reset(rules, neurons, membranes)
    membranes, fires, potential = burst_dynamics.advance(
        rules, neurons, rested, inputs, candidates, bursts
    )
    return Burst(
        membranes=membranes,
        fired=fire_queue.relist(fire_queue.fire_queue(fires, potential), fired),
        inputs=inputs if keeps_inputs else None,
        candidates=candidates if keeps_inputs else None,
        fires=fire_queue.pack(fires),
        bursts=bursts,
    )


def sent(
    rules: BurstRules, is_driven: Bool[Array, " neurons"] | None, fired: ActiveSet
) -> ActiveSet:
    """Return what each neuron that fired sends into its synapses."""
    if is_driven is None:
        return dataclasses.replace(fired, values=jnp.ones_like(fired.values))
    strength = jnp.clip(fired.values, 0, rules.strength_limit)
    if rules.whole_strength:
        strength = _half_away(strength)
    driven = is_driven.at[fired.indices].get(mode="fill", fill_value=False)
    return dataclasses.replace(fired, values=jnp.where(driven, strength, 1))


def _reference(rules, keeps_inputs, state, shared):
    membranes, fired, bursts = state
    return burst_core_reference(
        rules, membranes=membranes, fired=fired, bursts=bursts, keeps_inputs=keeps_inputs, **shared
    )


def _arriving(rules, synapses, is_driven, fired, arrivals):
    """Sums over synapses and arrivals, and who is reached."""
    add_up = functools.partial(
        propagate_integers, num_post=fired.indices.shape[0], backend="reference"
    )
    sums = add_up(synapses, sent(rules, is_driven, fired))
    counted = synapses.replace(weights=None, fraction_bits=0)
    reached = add_up(counted, sent(rules, None, fired)) > 0
    if arrivals is None:
        return sums, reached
    return sums + arrivals.sums, reached | arrivals.reached


def _half_away(positive):
    """Round to the nearest integer, halves up, without adding a half that could itself round."""
    whole = jnp.floor(positive)
    return whole + (positive - whole >= 0.5)


def _kernel_of(rules, keeps_inputs, synapses, fired):
    """The kernel with what it is told at compile time."""
    num_neurons = fired.indices.shape[0]
    threshold = -1 if rules.batch_threshold is None else rules.batch_threshold
    least = sort_from(synapses, fired, num_neurons)
    attributes = {
        "fraction_bits": synapses.fraction_bits,
        "sort_from": least,
        "power_neuron": -1 if rules.power_neuron is None else rules.power_neuron,
        "fatigue_area": -1 if rules.fatigue_area is None else rules.fatigue_area,
        # A network of fewer neurons never has so many candidates.
        "batch_threshold": threshold if threshold <= num_neurons else -1,
        "keeps_residues": rules.keeps_residues,
        "unlimited_block": rules.unlimited_block,
        "strength_limit": np.float32(rules.strength_limit),
        "whole_strength": rules.whole_strength,
    }
    words = scratch_words(synapses, fired, num_neurons, least > 0)
    return backends.batched_in_place(
        functools.partial(_kernel, keeps_inputs=keeps_inputs, words=words, **attributes)
    )


def _kernel(state, shared, *, keeps_inputs, words, **attributes):
    membranes, fired, bursts = state
    *batch, num_neurons = membranes.potential.shape
    updated = *jax.tree.leaves(membranes), *active_set.parts(fired), bursts
    num_words, num_tiles = -(-num_neurons // _WORD), -(-num_neurons // _TILE)
    # Two passes over the neurons need them in between.
    num_kept = num_neurons if keeps_inputs or attributes["batch_threshold"] >= 0 else 0
    own = num_words + 2 * _PARTS + _num_spans(num_neurons) + num_tiles + 1
    results = (
        *((leaf.shape[len(batch) :], leaf.dtype) for leaf in updated),
        ((num_kept,), jnp.float32),
        ((num_kept,), jnp.bool_),
        ((num_words,), jnp.uint32),
        # Scratch: what each that fired sends, the sums over synapses, on a GPU with who is reached,
        # and more.
        ((0 if shared["is_driven"] is None else num_neurons,), jnp.float32),
        ((num_neurons,), jnp.int32),
        ((0 if attributes["sort_from"] else 2 * num_neurons,), jnp.uint32),
        ((own,), jnp.uint32),
        ((words,), jnp.int32),
    )
    call = jax.ffi.ffi_call(
        backends.target(HANDLER),
        [jax.ShapeDtypeStruct((*batch, *shape), dtype) for shape, dtype in results],
        input_output_aliases={place: place for place in range(len(updated))},
    )
    changed = call(*updated, *_operands(**shared, rank=len(batch)), **attributes)
    inputs, candidates, fires = changed[7:10]
    return Burst(
        membranes=Membranes(*changed[:3]),
        fired=ActiveSet(*changed[3:6]),
        inputs=inputs if keeps_inputs else None,
        candidates=candidates if keeps_inputs else None,
        fires=fires,
        bursts=changed[6],
    )


def _num_spans(num_neurons):
    """Spans of neurons whose fires are counted together."""
    span = _MIN_SPAN
    while num_neurons > _MAX_SPANS * span:
        span *= 2
    return -(-num_neurons // span)


def _operands(*, neurons, synapses, is_driven, injected, power, fatigued, arrivals, rank):
    """What the kernel only reads, in the order of burst_core.h; what is absent has no elements."""

    def absent(dtype):
        return jnp.zeros((1,) * rank + (0,), dtype)

    return (
        *jax.tree.leaves(neurons),
        *((absent(jnp.uint16),) if neurons.kind is None else ()),
        synapses.indptr,
        synapses.indices,
        absent(bool) if synapses.weights is None else synapses.weights,
        absent(bool) if is_driven is None else is_driven,
        *active_set.parts(injected),
        power,
        fatigued,
        absent(jnp.int32) if arrivals is None else arrivals.sums,
        absent(bool) if arrivals is None else arrivals.reached,
    )
