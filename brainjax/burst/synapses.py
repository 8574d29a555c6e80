"""Synapses, laid out by presynaptic neuron: those that stay as they are, and those that learn."""

import dataclasses
import math
import warnings
from typing import Any, no_type_check

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float32, Int32

from brainjax import ops
from brainjax.burst.anatomy import MAX_BYTE, Config
from brainjax.ops import Neurons
from brainjax.validation import Numbers, of_each, require


@no_type_check  # transformations build it from batched and placeholder leaves
@struct.dataclass
class Plastic:
    """Synapses whose contributions may change.

    Those of the mappings, those that may yet be made included; and all synapses of neurons that
    share out what they send among a number that grows.
    """

    # Targets count by delay, as those of `Synapses.fixed`; weights are the initial ones.
    rows: ops.CompressedRows
    pre: Int32[Array, " plastic"]  # presynaptic neurons
    post: Int32[Array, " plastic"]  # postsynaptic neurons
    factor: Float32[Array, " plastic"]  # signed strength; the sign alone where potential-driven
    share: Float32[Array, " plastic"] | None  # what the contribution is divided by; None: 1
    grows: Bool[Array, " plastic"] | None  # by the present fan-out instead; None: nowhere
    mapping: Int32[Array, " plastic"]  # place in `Config.mappings`; -1: does not learn
    exists: Bool[Array, " plastic"] | None  # at first; None: all
    origin: Int32[Array, " plastic"]  # place in the order given to `connect`; -1 if to be made


@no_type_check  # transformations build it from batched and placeholder leaves
@struct.dataclass
class Synapses:
    """Which neurons are connected, and how strongly. Build it with `connect`.

    A target is `(delay - 1) * neurons + postsynaptic neuron`.
    """

    fixed: ops.CompressedRows  # weights are contributions, for each unit of what is sent
    plastic: Plastic | None
    is_driven: Bool[Array, " neurons"] | None  # sends its potential, not 1; None: nobody


@dataclasses.dataclass
class _Edges:
    """Columns of a table of synapses."""

    pre: np.ndarray
    post: np.ndarray
    weight: np.ndarray
    strength: np.ndarray
    inhibitory: np.ndarray
    delay: np.ndarray
    origin: np.ndarray
    mapping: np.ndarray  # -1: none

    def __getitem__(self, rows):
        return _Edges(*(column[rows] for column in vars(self).values()))


def connect(
    config: Config,
    neurons: Neurons,
    pre: Numbers,
    post: Numbers,
    weight: Numbers,
    strength: Numbers,
    inhibitory: Numbers = False,
    delay: Numbers = 1,
) -> Synapses:
    """Return the synapses in the layout that `step` reads; their order makes no difference.

    A synapse contributes `weight * strength`, negative if inhibitory. Where the presynaptic area is
    potential-driven, the potential at firing takes the place of the strength; where it is not
    uniform, the contribution is divided by the number of synapses of the presynaptic neuron. Where
    32 bits do not hold both that and the most that a neuron may receive at a time, a warning says.

    Args:
        config: areas, mappings and limits.
        neurons: parameters, for the area of each.
        pre: presynaptic neuron, [synapses].
        post: postsynaptic neuron, [synapses].
        weight: at least 0; one number or [synapses]. Whole numbers up to 255 for weights "u8".
        strength: postsynaptic strength, as `weight`.
        inhibitory: whether the synapse subtracts; one flag or [synapses].
        delay: bursts until arrival, in 1..max_delay; one number or [synapses].

    Raises:
        ValueError: an id or a value is out of range, a length differs, or for weights "u8" the
            contributions onto a neuron may reach 2^31.
        TypeError: the kinds of the neurons are not uint16.

    Cost: sorts the synapses, on the host. A bidirectional mapping takes the memory of a synapse for
        each pair of neurons of its areas.
    """
    neurons.check(config.num_neurons)
    area = np.asarray(neurons.of_each(neurons.area))
    columns = pre, post, weight, strength, inhibitory, delay
    edges = _with_absent(config, area, _checked(config, area, *columns))
    targets = (edges.delay - 1) * config.num_neurons + edges.post
    # Synapses that agree in both are told apart, that no order shows: by everything else.
    order = np.lexsort(
        (edges.strength, edges.inhibitory, edges.weight, edges.origin < 0, targets, edges.pre)
    )
    edges, targets = edges[order], targets[order]

    is_driven = _of_areas(config, area, lambda each: bool(each.mp_driven))
    is_divided = _of_areas(config, area, config.is_divided)
    # Only there does the fan-out change.
    is_maker = _of_areas(config, area, lambda each: _makes(config, each.name))
    grows = (is_divided & is_maker)[edges.pre] & (edges.origin < 0).any()
    degree = np.bincount(edges.pre[edges.origin >= 0], minlength=config.num_neurons)
    share = np.where(is_divided, np.maximum(degree, 1), 1).astype(np.float32)[edges.pre]
    factor = np.where(is_driven[edges.pre], np.float32(1), edges.strength)
    factor = np.where(edges.inhibitory, -factor, factor)
    bits = _fraction_bits(config, edges, factor, share, grows, is_driven)

    varies = (edges.mapping >= 0) | grows
    fixed = ~varies
    contributions = edges.weight[fixed] * factor[fixed] / share[fixed]
    plastic = edges[varies], targets[varies], factor[varies], share[varies], grows[varies]
    return Synapses(
        fixed=_rows(config, edges.pre[fixed], targets[fixed], contributions, bits),
        plastic=_plastic(config, *plastic, bits) if varies.any() else None,
        is_driven=jnp.asarray(is_driven) if is_driven.any() else None,
    )


def weights(synapses: Synapses, present: Any, given: Numbers) -> np.ndarray:
    """Return present weights in the order in which the synapses were given, [..., synapses].

    Args:
        synapses: made by `connect`.
        present: `State.weights`, of one network or of many along leading axes; concrete.
        given: the weights that `connect` got, [synapses].
    """
    if synapses.plastic is None:
        return np.array(given)
    origin, present = np.asarray(synapses.plastic.origin), np.asarray(present)
    ordered = np.broadcast_to(given, (*present.shape[:-1], np.size(given))).copy()
    ordered[..., origin[origin >= 0]] = present[..., origin >= 0]
    return ordered


def _plastic(config, edges, targets, factor, share, grows, bits):
    was_given = edges.origin >= 0
    dtype = np.uint8 if config.rules.weights == "u8" else np.float32
    return Plastic(
        rows=_rows(config, edges.pre, targets, edges.weight.astype(dtype), bits),
        pre=jnp.asarray(edges.pre, jnp.int32),
        post=jnp.asarray(edges.post, jnp.int32),
        factor=jnp.asarray(factor),
        share=jnp.asarray(share) if grows.any() or (share != 1).any() else None,
        grows=jnp.asarray(grows) if grows.any() else None,
        mapping=jnp.asarray(edges.mapping, jnp.int32),
        exists=None if was_given.all() else jnp.asarray(was_given),
        origin=jnp.asarray(edges.origin, jnp.int32),
    )


def _rows(config, pre, targets, numbers, bits):
    indptr = np.searchsorted(pre, np.arange(config.num_neurons + 1))
    num_targets = config.max_delay * config.num_neurons
    return ops.compressed_rows(indptr, targets, num_targets, numbers, fraction_bits=bits)


def _fraction_bits(config, edges, factor, share, grows, is_driven):
    """Binary places with which the contributions onto a neuron cannot leave int32."""
    largest = np.where(edges.mapping >= 0, np.float32(config.weight_limit), edges.weight)
    sent = np.where(is_driven[edges.pre], np.float32(config.strength_limit), np.float32(1))
    reach = (largest * np.abs(factor) / share * sent).astype(np.float32)
    bounds = ops.CompressedRows(
        jnp.zeros(0, jnp.int32), jnp.asarray(edges.post), jnp.asarray(reach)
    )
    bits = ops.choose_fraction_bits(bounds, config.num_neurons)
    if bits < 0 and config.rules.weights == "u8":
        total = np.bincount(edges.post, reach.astype(np.float64))
        rule = 'below 2**31 for weights "u8"'
        require(False, f"contributions onto neuron {total.argmax()}", rule, total.max())
    if config.rules.weights == "u8":
        halves = np.frexp(share)[0] == 0.5  # a power of two, which divides without rounding
        needed = round(math.log2(share[halves].max(initial=1)))
        uneven = is_driven[edges.pre] & (grows | ~halves)
        if (largest := reach[uneven].max(initial=0)) > 0:
            bits = min(bits, max(_healing_bits(largest), needed))
        if bits < needed:
            warnings.warn(
                f"what is shared out among {2**needed} synapses may be rounded, to 2**-{bits}: "
                "sums have 32 bits, and some neuron may receive much at a time",
                stacklevel=4,
            )
    return bits


def _healing_bits(largest):
    """Binary places that undo what `w / share * potential` is off `w * potential / share` by.

    Each of the two roundings is off by at most 2^-24 of the contribution. With these places that is
    less than half a step, so that a contribution that is a whole number of steps is met exactly.
    """
    return math.floor(21 - math.log2(largest))


def _checked(config, area, pre, post, weight, strength, inhibitory, delay):
    pre, post = (np.asarray(ids).ravel() for ids in (pre, post))
    size = pre.size
    for name, ids in (("pre", pre), ("post", post)):
        require(ids.size == size, f"length of {name}", f"that of pre, {size}", ids.size)
        _require_all(name, ids, ids == np.trunc(ids), "whole numbers")
        inside = (ids >= 0) & (ids < config.num_neurons)
        _require_all(name, ids, inside, f"in 0..{config.num_neurons - 1}")
    weight = _column("weight", weight, size, np.float32)
    strength = _column("strength", strength, size, np.float32)
    for name, values in (("weight", weight), ("strength", strength)):
        _require_all(name, values, np.isfinite(values) & (values >= 0), "finite and at least 0")
        if config.rules.weights == "u8":
            right = (values <= MAX_BYTE) & (values == np.trunc(values))
            _require_all(name, values, right, 'a whole number in 0..255 for weights "u8"')
    delay = _column("delay", delay, size, np.int64)
    _require_all("delay", delay, (delay >= 1) & (delay <= config.max_delay), "in 1..max_delay")
    pre, post = pre.astype(np.int64), post.astype(np.int64)
    mapping = _mapping_of(config)[area[pre], area[post]]
    small = (mapping < 0) | (weight <= config.weight_limit)
    _require_all("weight", weight, small, "at most max_weight where plastic")
    inhibitory = _column("inhibitory", inhibitory, size, bool)
    return _Edges(pre, post, weight, strength, inhibitory, delay, np.arange(size), mapping)


def _column(name, values, size, dtype):
    values = np.asarray(values)
    values = of_each(name, values, size, values.dtype)
    if dtype == np.int64:
        _require_all(name, values, values == np.trunc(values), "whole numbers")
    return values.astype(dtype)


def _require_all(name, values, right, rule):
    if not right.all():
        worst = (~right).argmax()
        require(False, name, rule, f"{values[worst]} at synapse {worst}")


def _mapping_of(config):
    """Place of the mapping from each area to each other; -1 where there is none."""
    table = np.full((len(config.areas), len(config.areas)), -1)
    for place, mapping in enumerate(config.mappings):
        table[config.area_index(mapping.source), config.area_index(mapping.target)] = place
    return table


def _makes(config, name):
    return any(each.bidirectional and each.source == name for each in config.mappings)


def _of_areas(config, area, holds):
    return np.array([holds(each) for each in config.areas], bool)[area]


def _with_absent(config, area, edges):
    """The synapses, and those that bidirectional mappings may make."""
    parts = [edges]
    for place, mapping in enumerate(config.mappings):
        if not mapping.bidirectional:
            continue
        sources, sinks = (
            np.flatnonzero(area == config.area_index(name))
            for name in (mapping.source, mapping.target)
        )
        size = sources.size * sinks.size
        require(size < 2**31, f"pairs of mapping {mapping.name!r}", "fewer than 2**31", size)
        there = np.zeros((sources.size, sinks.size), bool)
        own = edges[edges.mapping == place]
        there[np.searchsorted(sources, own.pre), np.searchsorted(sinks, own.post)] = True
        first, second = np.nonzero(~there)
        ones = np.ones(first.size, np.int64)
        parts.append(
            _Edges(
                pre=sources[first],
                post=sinks[second],
                weight=np.zeros(first.size, np.float32),
                strength=np.full(first.size, mapping.strength, np.float32),
                inhibitory=np.full(first.size, mapping.inhibitory),
                delay=ones,
                origin=-ones,
                mapping=place * ones,
            )
        )
    columns = zip(*(vars(part).values() for part in parts))
    return _Edges(*(np.concatenate(column) for column in columns))
