"""The dynamics of a burst: who receives anything, counts down, fires or leaks."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, UInt32

from brainjax.ops import active_set, rounding
from brainjax.ops.active_set import ActiveSet
from brainjax.ops.burst_neurons import MAX_COUNT, UNLIMITED, BurstRules, Membranes, Neurons

ALWAYS = 0.999  # excitability from which on nothing is drawn


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


def collect(
    rules: BurstRules,
    neurons: Neurons,
    injected: ActiveSet,
    power: Float[Array, ""] | float,
    fatigued: Bool[Array, ""] | bool,
    received: Float32[Array, " neurons"],
    reached: Bool[Array, " neurons"],
) -> tuple[Float32[Array, " neurons"], Bool[Array, " neurons"]]:
    """Add up what each neuron receives, and tell who receives anything.

    `input = ((injections, in the order given) + power + fatigue) + received`

    Args:
        rules: the power neuron and the fatigue area.
        neurons: for the area of each, with a row for each.
        injected: ids in ascending order, which may repeat, and what each entry injects.
        power: in the unit of the thresholds.
        fatigued: whether the fatigue area receives the power.
        received: over synapses, in the unit of the thresholds.
        reached: who receives anything over synapses.

    Returns:
        The inputs, 0 where there are none, and the candidates: who has any, be it a sum of 0.

    Cost: 21 bytes per neuron, and the injections as often as the most frequent id occurs.
    Determinism: bit-identical on every platform if the ids ascend.
    """
    num_neurons = received.shape[0]
    used = active_set.listed(injected) & (injected.indices >= 0)
    ids = jnp.where(used, jnp.minimum(injected.indices, num_neurons), num_neurons)
    inputs = _staged(ids, injected.values.astype(jnp.float32), num_neurons)
    candidates = reached.at[ids].set(True, mode="drop")

    amount = jnp.asarray(power, jnp.float32)
    if rules.power_neuron is not None:
        inputs = inputs.at[rules.power_neuron].add(amount)
        candidates = candidates.at[rules.power_neuron].set(True)
    if rules.fatigue_area is not None:
        tired = (neurons.area == rules.fatigue_area) & fatigued
        inputs = jnp.where(tired, inputs + amount, inputs)
        candidates |= tired
    return inputs + received, candidates


def _staged(ids, potentials, num_neurons):
    """Sum the injections of each neuron one after the other: no order is left to the platform."""
    places = jnp.arange(ids.shape[0])
    is_first = jnp.append(True, ids[1:] != ids[:-1])
    rank = places - jax.lax.cummax(jnp.where(is_first, places, 0))
    rank = jnp.where(ids < num_neurons, rank, 0)

    def add(turn, sums):
        now = jnp.where(rank == turn, ids, num_neurons)
        return sums.at[now].add(potentials, mode="drop")

    sums = jnp.zeros(num_neurons, jnp.float32)
    return jax.lax.fori_loop(0, rank.max(initial=-1) + 1, add, sums)


def reset(rules: BurstRules, neurons: Neurons, membranes: Membranes) -> Membranes:
    """Return the membranes with potentials that do not accumulate at 0, as a burst starts."""
    if rules.keeps_residues:
        # There only those of neurons that fired are reset, and these are at 0 since they fired.
        return membranes
    kept = jnp.where(neurons.accumulates, membranes.potential, 0)
    return dataclasses.replace(membranes, potential=kept)


def advance(
    rules: BurstRules,
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
    neuron fires or not, only a negative `threshold_limit` has an effect, a full count blocks once
    where there is a `fire_limit` and is not cleared where there is none, and no snooze follows.

    Args:
        rules: parts of the semantics.
        neurons: parameters, with a row for each.
        membranes: before the burst, potentials that do not accumulate set to 0.
        inputs: sum that each candidate receives, in the unit of the thresholds.
        candidates: who receives anything, be it a sum of 0.
        burst: number of the burst, the first being 1, modulo 2^32.

    Returns:
        The membranes, who fires, and V.

    Cost: reads 36 and writes 13 bytes per neuron.
    Determinism: bit-identical on every platform, but for numbers below 2^-126 in magnitude, for
        which plain XLA may take 0.
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
    leaked = rounding.rounded(potential * (1 - neurons.leak), num_candidates)
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
