"""What arrives at each neuron: spikes of earlier bursts, as exact sums of integers."""

import functools
from typing import no_type_check

import jax.numpy as jnp
from jaxtyping import Array, Bool

from brainjax import ops
from brainjax.burst.anatomy import Config
from brainjax.burst.synapses import Synapses
from brainjax.ops import Arrivals
from brainjax.ops.burst_core import sent


def none(num_bursts: int, num_neurons: int) -> Arrivals | None:
    """Return that nothing arrives in so many bursts; None if it is not even one."""
    if not num_bursts:
        return None
    shape = num_bursts, num_neurons
    return Arrivals(sums=jnp.zeros(shape, jnp.int32), reached=jnp.zeros(shape, bool))


@no_type_check  # the weights have one of two types, or are None
def propagate(
    config: Config,
    synapses: Synapses,
    fired: ops.ActiveSet,
    weights: Array | None,
    exists: Bool[Array, " plastic"] | None,
    pending: Arrivals | None,
) -> tuple[ops.CompressedRows, Arrivals | None, Arrivals | None]:
    """Send the spikes of the last burst over the synapses that learn, or all where some are slow.

    `sums[j] = sum over the synapses from i onto j, of the spikes that are due, of
    round(2^S * +-weight * strength / share)`

    Args:
        config: delays, limits and backend.
        synapses: made by `connect`.
        fired: who fired in the last burst, with the potential at firing.
        weights: of the plastic synapses.
        exists: which of them are there; None: all.
        pending: what earlier spikes send to this burst and those after it; None: they cannot.

    Returns:
        The synapses that are left for `ops.burst_core`, what arrives over the others in this burst
        (None: there are no others), and what is pending from now on.

    Cost: the synapses of the neurons that fired, twice; 21 bytes per neuron for each burst of
        delay; 12 bytes per plastic synapse. Nothing for synapses that neither learn nor are slow.
    Determinism: bit-identical on every platform; contributions are rounded to 2^-fraction_bits,
        chosen such that no sum overflows, and summed without rounding. Where a potential-driven
        strength is divided, the weight is divided first: another rounding than FEAGI's unless the
        fan-out is a power of two or, for weights "u8", the quotient a multiple of
        2^-fraction_bits, such as a whole number. Beside other fan-outs of 2^8 and more that are
        powers of two, and take more places, large quotients may be off even then.
    """
    fixed, waits = synapses.fixed, pending is not None
    projections = [(fixed, _counted(fixed))] if waits else []
    if synapses.plastic is not None:
        projections.append(_plastic_rows(synapses, weights, exists))
    if not projections:
        return fixed, None, None
    num_targets = config.max_delay * config.num_neurons
    add_up = functools.partial(ops.propagate_integers, num_post=num_targets, backend=config.backend)
    rules = config.burst_rules
    values, ones = sent(rules, synapses.is_driven, fired), sent(rules, None, fired)
    sums = sum(add_up(rows, values) for rows, _ in projections)
    counts = sum(add_up(rows, ones) for _, rows in projections)
    if not waits:
        return fixed, Arrivals(sums=sums, reached=counts > 0), None

    shape = config.max_delay, config.num_neurons
    sums, reached = sums.reshape(shape), (counts > 0).reshape(shape)
    sums = sums.at[:-1].add(pending.sums)
    reached = reached.at[:-1].set(reached[:-1] | pending.reached)
    due, pending = (
        Arrivals(sums=sums[which], reached=reached[which]) for which in (0, slice(1, None))
    )
    return _no_rows(fixed), due, pending


def _plastic_rows(synapses, weights, exists):
    """Rows of contributions, and rows that count 1 for each synapse that is there."""
    plastic = synapses.plastic
    contributions = weights.astype(jnp.float32) * jnp.abs(plastic.factor)
    if plastic.share is not None:
        share = _present_share(plastic, exists, synapses.fixed.indptr.shape[0] - 1)
        contributions = ops.rounding.quotient(contributions, share)
    contributions = jnp.where(plastic.factor < 0, -contributions, contributions)
    rows = plastic.rows.replace(weights=contributions)
    there = None if exists is None else exists.astype(jnp.uint8)
    return rows, _counted(rows).replace(weights=there)


def _counted(rows):
    return rows.replace(weights=None, fraction_bits=0)


def _no_rows(rows):
    nothing = jnp.zeros(0, jnp.int32)
    return rows.replace(indptr=jnp.zeros(1, jnp.int32), indices=nothing, weights=None)


def _present_share(plastic, exists, num_neurons):
    if plastic.grows is None:
        return plastic.share
    fan_out = jnp.zeros(num_neurons, jnp.int32).at[plastic.pre].add(exists)[plastic.pre]
    return jnp.where(plastic.grows, jnp.maximum(fan_out, 1).astype(jnp.float32), plastic.share)
