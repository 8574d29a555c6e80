"""What a candidate does with its input: count down, add, compare, fire or leak."""

from typing import no_type_check

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float32, UInt16, UInt32

from brainjax import ops
from brainjax.burst.anatomy import Rules
from brainjax.burst.neurons import MAX_COUNT, UNLIMITED, Neurons

ALWAYS = 0.999  # excitability from which on nothing is drawn


@no_type_check  # transformations build it from batched and placeholder leaves
@struct.dataclass
class Membranes:
    """What the dynamics of a neuron changes."""

    potential: Float32[Array, " neurons"]  # in the unit of the thresholds
    countdown: UInt16[Array, " neurons"]  # bursts as a candidate that remain refractory
    fire_count: UInt16[Array, " neurons"]  # fires in a row


def random_number(ids: UInt32[Array, "..."], burst: UInt32[Array, "..."]) -> Float32[Array, "..."]:
    """Return the random number of a neuron in a burst, in [0, 1].

    A counter-based generator (PCG) of the id and the number of the burst. The integer is rounded
    to float32, so that 1 occurs.

    Args:
        ids: of neurons.
        burst: number of the burst, modulo 2^32; broadcast against the ids.

    Determinism: bit-identical on every platform.
    """
    seed = ids * jnp.uint32(2654435761) + burst * jnp.uint32(1597334677)
    state = seed * jnp.uint32(747796405) + jnp.uint32(2891336453)
    word = ((state >> ((state >> 28) + 4)) ^ state) * jnp.uint32(277803737)
    return ((word >> 22) ^ word).astype(jnp.float32) * 2.0**-32


def advance(
    rules: Rules,
    neurons: Neurons,
    membranes: Membranes,
    inputs: Float32[Array, " neurons"],
    candidates: Bool[Array, " neurons"],
    burst: UInt32[Array, ""],
) -> tuple[Membranes, Bool[Array, " neurons"], Float32[Array, " neurons"]]:
    """Apply the dynamics to the candidates and to nobody else.

    A refractory candidate counts down and loses its input. Any other has `V = potential + input`.
    It fires if `threshold <= V <= threshold_limit`, fewer than `fire_limit` fires precede and the
    draw succeeds, and is then at 0; a full count blocks it once and keeps V; else
    `potential = V * (1 - leak)`, and the fires in a row end.

    From `rules.batch_threshold` candidates on, V at or above the threshold is lost whether the
    neuron fires or not, only a negative `threshold_limit` has an effect, a full count is neither
    cleared nor followed by a snooze.

    Args:
        rules: parts of the semantics.
        neurons: parameters.
        membranes: before the burst, potentials that do not accumulate set to 0.
        inputs: sum that each candidate receives, in the unit of the thresholds.
        candidates: who receives anything, be it a sum of 0.
        burst: number of the burst, the first being 1, modulo 2^32.

    Returns:
        The membranes, who fires, and V.

    Cost: reads 36 and writes 13 bytes per neuron.
    Determinism: bit-identical on every platform, but for numbers below 2^-126 in magnitude, which
        some flush to 0.
    """
    num_candidates = jnp.count_nonzero(candidates).astype(jnp.int32)
    in_batch = jnp.asarray(False)
    # A network of fewer neurons never has so many candidates.
    if rules.batch_threshold is not None and rules.batch_threshold <= inputs.size:
        in_batch = num_candidates >= rules.batch_threshold
    count = membranes.fire_count.astype(jnp.int32)
    is_open = candidates & (membranes.countdown == 0)

    potential = membranes.potential + inputs
    reaches, in_window = _compare(neurons, potential, in_batch)
    is_full = _is_full(rules, neurons.fire_limit, count)
    fires = is_open & in_window & ~is_full & _draw(neurons.excitability, burst)
    blocked = is_open & in_window & is_full & ~in_batch

    # A product of its own: the next burst adds to it, maybe in the same program.
    leaked = ops.rounding.rounded(potential * (1 - neurons.leak), num_candidates)
    leaked = jnp.where(in_batch & reaches, 0, leaked)
    after = jnp.where(fires, 0, jnp.where(blocked, potential, leaked))
    fire_count, countdown = _counts(neurons, membranes, candidates, fires, blocked, in_batch)
    membranes = Membranes(
        potential=jnp.where(is_open, after, membranes.potential),
        countdown=countdown.astype(jnp.uint16),
        fire_count=fire_count.astype(jnp.uint16),
    )
    return membranes, fires, potential


def _compare(neurons, potential, in_batch):
    """Whether the potential reaches the threshold, and whether the limit lets it fire."""
    limit = neurons.threshold_limit
    reaches = potential >= neurons.threshold
    # In a batch the potential is already 0 when it is compared with the limit.
    below = jnp.where(in_batch, limit >= 0, potential <= limit)
    return reaches, reaches & below


def _is_full(rules, fire_limit, count):
    limit = fire_limit.astype(jnp.int32)
    if rules.unlimited_block:
        return count >= jnp.where(limit == 0, UNLIMITED, limit)
    return _is_limited(limit) & (count >= limit)


def _is_limited(limit):
    return (limit > 0) & (limit < UNLIMITED)


def _draw(excitability, burst):
    ids = jax.lax.iota(jnp.uint32, excitability.shape[0])
    drawn = random_number(ids, burst) < excitability
    return (excitability >= ALWAYS) | ((excitability > 0) & drawn)


def _counts(neurons, membranes, candidates, fires, blocked, in_batch):
    """Fires in a row and countdown, of everybody, as int32."""
    count, countdown = (
        numbers.astype(jnp.int32) for numbers in (membranes.fire_count, membranes.countdown)
    )
    limit, period, snooze = (
        numbers.astype(jnp.int32)
        for numbers in (neurons.fire_limit, neurons.refractory_period, neurons.snooze)
    )
    limited = _is_limited(limit)
    is_refractory = candidates & (countdown > 0)
    is_open = candidates & (countdown == 0)

    rested = is_refractory & (countdown == 1) & limited & (count >= limit)
    ended = is_open & ~fires & (limited | blocked)
    more = jnp.minimum(count + 1, MAX_COUNT)
    fire_count = jnp.where(fires, more, jnp.where(rested | ended, 0, count))

    tired = limited & (more >= limit) & ~in_batch
    pause = jnp.minimum(period + jnp.where(tired, snooze, 0), MAX_COUNT)
    return fire_count, jnp.where(fires, pause, countdown - is_refractory)
