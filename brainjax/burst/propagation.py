"""What arrives at each neuron: spikes of earlier bursts, as exact sums of integers."""

import functools
from typing import no_type_check

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float32, Int32

from brainjax import ops
from brainjax.burst.anatomy import Config
from brainjax.burst.synapses import Synapses


@no_type_check  # transformations build it from batched and placeholder leaves
@struct.dataclass
class Arrivals:
    """What arrives in one of the bursts to come."""

    sums: Int32[Array, "bursts neurons"]  # contributions, in units of 2^-fraction_bits
    reached: Bool[Array, "bursts neurons"]  # whether anything does, be it a sum of 0


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
) -> tuple[Float32[Array, " neurons"], Bool[Array, " neurons"], Arrivals | None]:
    """Send the spikes of the last burst on, and return what arrives in this one.

    `received[j] = sum over the synapses from i onto j, of the spikes that are due, of
    +-weight * strength / share`

    Args:
        config: delays, limits and backend.
        synapses: made by `connect`.
        fired: who fired in the last burst, with the potential at firing.
        weights: of the plastic synapses.
        exists: which of them are there; None: all.
        pending: what earlier spikes send to this burst and those after it; None: they cannot.

    Returns:
        What each neuron receives, whether it receives anything, and what is pending from now on.

    Cost: the synapses of the neurons that fired, twice; 21 bytes per neuron for each burst of
        delay; 12 bytes per plastic synapse.
    Determinism: bit-identical on every platform; contributions are rounded to 2^-fraction_bits,
        chosen such that no sum overflows, and summed without rounding. Where a potential-driven
        strength is divided, the weight is divided first: another rounding than FEAGI's unless the
        fan-out is a power of two.
    """
    values, ones = _sent(config, synapses, fired), jnp.ones_like(fired.values)
    num_targets = config.max_delay * config.num_neurons
    add_up = functools.partial(ops.propagate_integers, num_post=num_targets, backend=config.backend)
    projections = _projections(synapses, weights, exists)
    sums = sum(add_up(rows, fired.replace(values=values)) for rows, _ in projections)
    counts = sum(add_up(rows, fired.replace(values=ones)) for _, rows in projections)

    shape = config.max_delay, config.num_neurons
    sums, reached = sums.reshape(shape), (counts > 0).reshape(shape)
    if pending is not None:
        sums = sums.at[:-1].add(pending.sums)
        reached = reached.at[:-1].set(reached[:-1] | pending.reached)
        pending = Arrivals(sums=sums[1:], reached=reached[1:])
    # A power of two: this product is exact, and may be fused with the sum that it feeds.
    received = sums[0].astype(jnp.float32) * 2.0**-synapses.fixed.fraction_bits
    return received, reached[0], pending


def _projections(synapses, weights, exists):
    """Rows of contributions, and rows that count 1 for each synapse that is there."""
    fixed, plastic = synapses.fixed, synapses.plastic
    counted = fixed.replace(weights=None, fraction_bits=0)
    if plastic is None:
        return [(fixed, counted)]
    contributions = weights.astype(jnp.float32) * jnp.abs(plastic.factor)
    if plastic.share is not None:
        share = _present_share(plastic, exists, fixed.indptr.shape[0] - 1)
        contributions = ops.rounding.quotient(contributions, share)
    contributions = jnp.where(plastic.factor < 0, -contributions, contributions)
    rows = plastic.rows.replace(weights=contributions)
    there = None if exists is None else exists.astype(jnp.uint8)
    return [(fixed, counted), (rows, rows.replace(weights=there, fraction_bits=0))]


def _present_share(plastic, exists, num_neurons):
    if plastic.grows is None:
        return plastic.share
    fan_out = jnp.zeros(num_neurons, jnp.int32).at[plastic.pre].add(exists)[plastic.pre]
    return jnp.where(plastic.grows, jnp.maximum(fan_out, 1).astype(jnp.float32), plastic.share)


def _sent(config, synapses, fired):
    """What each neuron that fired sends into its synapses."""
    values = jnp.ones_like(fired.values)
    if synapses.is_driven is not None:
        is_driven = synapses.is_driven.at[fired.indices].get(mode="fill", fill_value=False)
        strength = jnp.clip(fired.values, 0, config.strength_limit)
        if config.rules.weights == "u8":
            strength = _half_away(strength)
        values = jnp.where(is_driven, strength, values)
    return values


def _half_away(positive):
    """Round to the nearest integer, halves up, without adding a half that could itself round."""
    whole = jnp.floor(positive)
    return whole + (positive - whole >= 0.5)
