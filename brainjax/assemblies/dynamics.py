"""One round of an assembly brain: accumulate, select, potentiate."""

import dataclasses
from typing import no_type_check

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int32

from brainjax import connectivity, ops
from brainjax.assemblies.anatomy import Config, Drive, Stimulus
from brainjax.ops import potentiation
from brainjax.validation import require


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
    potentiation.check_beta(params.beta, config.dtype)
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
    winners, inputs, synapses = {}, {}, {}
    for area in config.areas:
        winners[area.name], inputs[area.name], learned = _advance(
            config, params, state, drive, is_open, senders, area
        )
        synapses |= learned
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


def _advance(config, params, state, drive, is_open, senders, area):
    """One area and the fibers into it: who fires, what each neuron receives, and the synapses."""
    winners = state.winners[area.name]
    fibers = {i: fiber for i, fiber in enumerate(config.fibers) if fiber.target == area.name}
    if not fibers:
        return winners, jnp.zeros(area.n, jnp.float32), {}
    weights, inputs, winners = ops.assembly_core(
        [state.synapses[fiber.name].weights for fiber in fibers.values()],
        [senders[fiber.source] for fiber in fibers.values()],
        winners,
        area.k,
        is_open=jnp.stack([is_open[fiber.name] for fiber in fibers.values()]),
        is_plastic=jnp.stack([drive.plastic[i] for i in fibers]),
        is_fixed=drive.fixed[config.area_names.index(area.name)],
        beta=jnp.stack([_of_fiber(config, params.beta, i) for i in fibers]),
        w_max=jnp.stack([_largest_weight(config, params, i) for i in fibers]),
        last_inputs=state.inputs[area.name],
        temperature=params.temperature,
        softened=config.softened,
        backend=config.backend,
    )
    synapses = {
        fiber.name: connectivity.Dense(matrix) for fiber, matrix in zip(fibers.values(), weights)
    }
    for i, fiber in fibers.items():
        if fiber.normalise:
            learned = is_open[fiber.name] & drive.plastic[i] & (senders[fiber.source].count > 0)
            synapses[fiber.name] = connectivity.normalise_onto(
                synapses[fiber.name], ops.active_set.gate(winners, learned), config.backend
            )
    return winners, inputs, synapses


def _largest_weight(config, params, index):
    """The limit of a fiber's synapses; a stimulus has none, as its weights are totals of many."""
    is_stimulus = isinstance(config.source(config.fibers[index].source), Stimulus)
    return jnp.float32(jnp.inf) if is_stimulus else _of_fiber(config, params.w_max, index)


def _of_fiber(config, numbers, index):
    return jnp.broadcast_to(jnp.asarray(numbers), (len(config.fibers),))[index]


def _draw(config, fiber, key):
    num_post = config.area(fiber.target).n
    source = config.source(fiber.source)
    draw = connectivity.random_block if isinstance(source, Stimulus) else connectivity.random
    synapses = draw(key, source.n, num_post, fiber.probability, dtype=config.dtype)
    return connectivity.normalise(synapses, config.backend) if fiber.normalise else synapses


def _check_synapses(config, synapses):
    require(
        set(synapses) == set(config.fiber_names), "synapses", f"{config.fiber_names}", [*synapses]
    )
    for fiber in config.fibers:
        shape = (config.source(fiber.source).rows, config.area(fiber.target).n)
        got = synapses[fiber.name].weights.shape
        require(got == shape, f"shape of synapses {fiber.name!r}", shape, got)
