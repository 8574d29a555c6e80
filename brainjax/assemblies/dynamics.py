"""One round of an assembly brain: accumulate, select, potentiate."""

import dataclasses
import functools
from typing import no_type_check

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.core import Tracer
from jaxtyping import Array, Float, Int32

from brainjax import connectivity, ops, plasticity
from brainjax.assemblies.anatomy import Config, Drive, Stimulus
from brainjax.validation import require

# A smaller relative increase is lost when a bfloat16 weight is rounded.
_SMALLEST_BFLOAT16_BETA = 2.0**-8


@no_type_check  # transformations build it from batched and placeholder leaves
@struct.dataclass
class Params:
    """What may be swept or fitted, and stays constant during a run.

    A field of one number per fiber may be a single number instead, for all fibers.
    """

    beta: Float[Array, " fibers"] | float  # relative increase of a synapse that is used
    # Largest weight of a synapse. Stimuli are exempt: theirs are totals of many.
    w_max: Float[Array, " fibers"] | float = jnp.inf
    # Width of the threshold that gradients see, in the unit of the weights.
    temperature: Float[Array, ""] | float = 1.0
    # Initial ones, fiber -> weights; None draws them.
    synapses: dict[str, connectivity.Synapses] | None = None


@no_type_check  # transformations build it from batched and placeholder leaves
@struct.dataclass
class State:
    """What `step` evolves."""

    winners: dict[str, ops.ActiveSet]  # area -> who fires
    inputs: dict[str, Float[Array, " n"]]  # area -> what each neuron received in the last round
    synapses: dict[str, connectivity.Synapses]  # fiber -> weights
    key: Array  # typed PRNG key; a round draws nothing, later ones fold in `round`
    round: Int32[Array, ""]  # rounds so far


def init(config: Config, params: Params, key: Array) -> State:
    """Return a brain in which nobody fires, with its synapses drawn from the key.

    Args:
        config: areas and fibers.
        params: `params.synapses` are taken if given, and copied.
        key: typed PRNG key.

    Raises:
        ValueError: a beta is too small for bfloat16 weights, or `params.synapses` do not fit.
        MemoryError: the weights do not fit into the memory of the device.

    Cost: one random number for each possible synapse.
    Determinism: the same key gives the same brain on every platform, alone and batched.
    """
    _check_beta(config, params.beta)
    if params.synapses is None:
        connectivity.check_fits(config.weight_bytes, f"{len(config.fibers)} fibers {config.dtype}")
        synapses = {
            fiber.name: _draw(config, fiber, jax.random.fold_in(key, index))
            for index, fiber in enumerate(config.fibers)
        }
    else:
        _check_synapses(config, params.synapses)
        synapses = jax.tree.map(jnp.array, params.synapses)  # copies: a run may donate the state
    return State(
        winners={a.name: ops.active_set.empty(a.n, a.capacity) for a in config.areas},
        inputs={area.name: jnp.zeros(area.n, jnp.float32) for area in config.areas},
        synapses=synapses,
        key=jnp.copy(key),
        round=jnp.zeros((), jnp.int32),
    )


def step(config: Config, params: Params, state: State, drive: Drive) -> State:
    """Advance the brain by one round: every open fiber carries the spikes of the last one.

    `x_B = sum over open s->B of sum over active i of value[i] * W_sB[i, :]`  (accumulate)
    `Y_B = the k largest of x_B, ties to the lowest index`                    (select)
    `W_sB[i, j] *= 1 + beta_sB   for i active in s, j in Y_B`                 (potentiate)

    All areas read the winners of the last round, so the order of areas does not matter. An area
    without open fibers keeps its winners; one whose best neurons receive nothing falls silent.

    Args:
        config: areas and fibers.
        params: plasticity.
        state: the brain.
        drive: what is open, plastic and fixed in this round.

    Cost: the rows of the neurons that fire; a closed fiber or a silent source costs nothing in a
        kernel.
    Determinism: bit-identical on every backend, alone and batched; `softened` excepted.
    Source: Papadimitriou et al. (2020), PNAS 117:14464; Mitropolsky & Papadimitriou (2023),
        arXiv:2306.15364.
    """
    is_open = _open_fibers(config, drive)
    senders = _senders(config, state, drive)
    sent = {
        fiber.name: ops.active_set.gate(senders[fiber.source], is_open[fiber.name])
        for fiber in config.fibers
    }

    inputs = {area.name: _accumulate(config, state, sent, area) for area in config.areas}

    winners = {
        area.name: _select(config, params, state, drive, is_open, inputs[area.name], area)
        for area in config.areas
    }

    synapses = {
        fiber.name: _learn(config, params, state, drive, sent, winners, fiber)
        for fiber in config.fibers
    }

    return dataclasses.replace(
        state, winners=winners, inputs=inputs, synapses=synapses, round=state.round + 1
    )


def _open_fibers(config, drive):
    """Which fibers carry spikes: open ones between areas that are not closed."""
    closed = dict(zip(config.area_names, drive.closed))
    return {
        fiber.name: drive.fibers[index]
        & ~closed[fiber.target]
        & ~closed.get(fiber.source, jnp.asarray(False))
        for index, fiber in enumerate(config.fibers)
    }


def _senders(config, state, drive):
    """Who fires in each source: winners of the last round, stimuli, and the drive's inputs."""
    block = ops.ActiveSet(
        indices=jnp.zeros(1, jnp.int32),
        values=jnp.ones(1, jnp.float32),
        count=jnp.ones((), jnp.int32),
    )
    return {**state.winners, **{s.name: block for s in config.stimuli}, **drive.inputs}


def _fibers_into(config, area):
    return [fiber.name for fiber in config.fibers if fiber.target == area.name]


def _accumulate(config, state, sent, area):
    """What each neuron of the area receives, fiber by fiber in the order of the Config."""
    received = [
        connectivity.accumulate(state.synapses[name], sent[name], config.backend)
        for name in _fibers_into(config, area)
    ]
    return sum(received, start=jnp.zeros(area.n, jnp.float32))


def _select(config, params, state, drive, is_open, inputs, area):
    """Who fires in the area: the old winners where it is fixed or no target, else the k best."""
    targeted = functools.reduce(
        jnp.logical_or, (is_open[name] for name in _fibers_into(config, area)), jnp.asarray(False)
    )
    chooses = targeted & ~drive.fixed[config.area_names.index(area.name)]
    chosen = ops.select_winners(
        inputs,
        area.k,
        firing=chooses,
        runners_up=area.runners_up,
        temperature=params.temperature,
        softened=config.softened,
        backend=config.backend,
    )
    received = inputs.at[chosen.indices].get(mode="fill", fill_value=0)
    silent = ops.active_set.empty(area.n, area.capacity)
    new = _either(jnp.any(received != 0), chosen, silent)
    return _either(chooses, new, state.winners[area.name])


def _either(condition, one, other):
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)


def _learn(config, params, state, drive, sent, winners, fiber):
    """The fiber after this round: only what carried spikes to winners changes."""
    index = config.fiber_names.index(fiber.name)
    plastic = drive.plastic[index]
    carried = sent[fiber.name].count > 0
    # The total of a stimulus block is not a single synapse: no limit applies to it.
    w_max = _of_fiber(config, params.w_max, index)
    return plasticity.hebbian(
        state.synapses[fiber.name],
        ops.active_set.gate(sent[fiber.name], plastic),
        ops.active_set.gate(winners[fiber.target], plastic & carried),
        beta=_of_fiber(config, params.beta, index),
        w_max=jnp.inf if isinstance(config.source(fiber.source), Stimulus) else w_max,
        normalise=fiber.normalise,
        backend=config.backend,
    )


def _of_fiber(config, numbers, index):
    return jnp.broadcast_to(jnp.asarray(numbers), (len(config.fibers),))[index]


def _draw(config, fiber, key):
    num_post = config.area(fiber.target).n
    source = config.source(fiber.source)
    draw = connectivity.random_block if isinstance(source, Stimulus) else connectivity.random
    synapses = draw(key, source.n, num_post, fiber.probability, dtype=config.dtype)
    return connectivity.normalise(synapses, config.backend) if fiber.normalise else synapses


def _check_beta(config, beta):
    if config.dtype != "bfloat16" or isinstance(beta, Tracer):
        return
    beta = np.asarray(beta)
    lost = (beta != 0) & (np.abs(beta) < _SMALLEST_BFLOAT16_BETA)
    if lost.any():
        raise ValueError(
            f"beta must be 0 or at least {_SMALLEST_BFLOAT16_BETA:.4f} for bfloat16 weights, "
            f"which do not move otherwise; got {beta[lost].min():g}"
        )


def _check_synapses(config, synapses):
    require(
        set(synapses) == set(config.fiber_names), "synapses", f"{config.fiber_names}", [*synapses]
    )
    for fiber in config.fibers:
        shape = (config.source(fiber.source).rows, config.area(fiber.target).n)
        got = synapses[fiber.name].weights.shape
        require(got == shape, f"shape of synapses {fiber.name!r}", shape, got)
