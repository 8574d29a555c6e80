"""The fire candidate list: who receives anything in a burst, and how much."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32

from brainjax import ops
from brainjax.burst.anatomy import Config, Drive
from brainjax.burst.neurons import Neurons


def collect(
    config: Config,
    neurons: Neurons,
    power: Float[Array, ""] | float,
    drive: Drive,
    received: Float32[Array, " neurons"],
    reached: Bool[Array, " neurons"],
) -> tuple[Float32[Array, " neurons"], Bool[Array, " neurons"]]:
    """Add up what each neuron receives, and tell who receives anything.

    `input = ((injections, in the order given) + power + fatigue) + received`

    Args:
        config: the power neuron and the fatigue area.
        neurons: for the area of each.
        power: in the unit of the thresholds.
        drive: what is injected.
        received: over synapses, in the unit of the thresholds.
        reached: who receives anything over synapses.

    Returns:
        The inputs, 0 where there are none, and the candidates: who has any, be it a sum of 0.

    Cost: 21 bytes per neuron, and the injections as often as the most frequent id occurs.
    Determinism: bit-identical on every platform if the drive's ids ascend.
    """
    injected, num_neurons = drive.injected, config.num_neurons
    used = ops.active_set.listed(injected) & (injected.indices >= 0)
    ids = jnp.where(used, jnp.minimum(injected.indices, num_neurons), num_neurons)
    inputs = _staged(ids, injected.values.astype(jnp.float32), num_neurons)
    candidates = reached.at[ids].set(True, mode="drop")

    amount = jnp.asarray(power, jnp.float32)
    if config.power_neuron is not None:
        inputs = inputs.at[config.power_neuron].add(amount)
        candidates = candidates.at[config.power_neuron].set(True)
    if config.fatigue_area is not None:
        tired = (neurons.area == config.area_index(config.fatigue_area)) & drive.fatigued
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
    return jax.lax.fori_loop(0, rank.max() + 1, add, sums)
