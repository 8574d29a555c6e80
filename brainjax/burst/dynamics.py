"""One burst: collect the candidates, let them fire or leak, learn."""

import functools
from typing import no_type_check

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float32, UInt8, UInt32

from brainjax import ops
from brainjax.burst import ledger as ledgers, membrane, plasticity, propagation
from brainjax.burst.anatomy import Config, Drive
from brainjax.burst.candidates import collect
from brainjax.burst.firing import fire_queue
from brainjax.burst.ledger import Ledger
from brainjax.burst.membrane import Membranes
from brainjax.burst.neurons import Neurons
from brainjax.burst.propagation import Arrivals
from brainjax.burst.synapses import Synapses
from brainjax.validation import require


@no_type_check  # transformations build it from batched and placeholder leaves
@struct.dataclass
class Params:
    """What may be swept or fitted, and stays constant during a run.

    A field of one number per mapping may be a single number instead, for all mappings.
    """

    neurons: Neurons
    synapses: Synapses
    # What the power neuron receives in each burst, in the unit of the thresholds.
    power: Float32[Array, ""] | float = 1.0
    # What a synapse gains when both its neurons fire in the whole window, in the unit of weights.
    potentiation: Float32[Array, " mappings"] | float = 0.0
    depression: Float32[Array, " mappings"] | float = 0.0  # what it loses when only some fire


@no_type_check  # transformations build it from batched and placeholder leaves
@struct.dataclass
class State:
    """What `step` evolves."""

    membranes: Membranes
    fired: ops.ActiveSet  # who fired in the last burst; values: potential at firing
    inputs: Float32[Array, " neurons"]  # what each neuron received in the last burst
    candidates: Bool[Array, " neurons"]  # who received anything then, be it a sum of 0
    weights: Float32[Array, " plastic"] | UInt8[Array, " plastic"] | None  # None: none are plastic
    exists: Bool[Array, " plastic"] | None  # plastic synapses that are there; None: all
    pending: Arrivals | None  # what spikes send to the bursts after the next; None: nothing
    ledger: Ledger | None  # None: no window is asked for
    burst: UInt32[Array, ""]  # bursts so far, modulo 2^32
    key: Array  # typed PRNG key; a burst draws from `burst` and the ids alone


def init(config: Config, params: Params, key: Array) -> State:
    """Return a network at rest in which nobody has fired, with the initial weights.

    Args:
        config: sizes, areas and rules.
        params: neurons and synapses; copied where a run changes them.
        key: typed PRNG key; nothing is drawn from it.

    Raises:
        ValueError: the parameters have another size than the config says.

    Determinism: the same on every platform.
    """
    n, mappings = config.num_neurons, len(config.mappings)
    got = params.neurons.threshold.shape[-1]
    require(got == n, "neurons of params", f"num_neurons={n}", got)
    for name in ("potentiation", "depression"):
        shape = jnp.shape(getattr(params, name))
        require(shape in ((), (mappings,)), f"shape of {name}", f"() or ({mappings},)", shape)
    plastic = params.synapses.plastic
    counts = functools.partial(jnp.zeros, n, jnp.uint16)
    return State(
        membranes=Membranes(
            potential=jnp.zeros(n, jnp.float32), countdown=counts(), fire_count=counts()
        ),
        fired=ops.active_set.empty(n, n),
        inputs=jnp.zeros(n, jnp.float32),
        candidates=jnp.zeros(n, bool),
        # Copies: a run may donate the state.
        weights=None if plastic is None else jnp.array(plastic.rows.weights),
        exists=None if plastic is None else jax.tree.map(jnp.array, plastic.exists),
        pending=propagation.none(config.max_delay - 1, n),
        ledger=ledgers.empty(n, config.window),
        burst=jnp.zeros((), jnp.uint32),
        key=jnp.copy(key),
    )


def step(config: Config, params: Params, state: State, drive: Drive) -> State:
    """Advance the network by one burst.

    1. Candidates are the neurons that receive anything: injections, power, fatigue, and the spikes
       of the last burst; see `candidates.collect` and `propagation.propagate`.
    2. They count down, fire or leak, and nobody else does; see `membrane.advance`.
    3. Who fired enters the ledger, and plastic synapses change, from the next burst on; see
       `plasticity.learn`.

    The first burst is number 1.

    Args:
        config: sizes, areas and rules.
        params: neurons, synapses, power and plasticity.
        state: the network.
        drive: what is injected.

    Cost: the synapses of the neurons that fired, about 100 bytes per neuron, and all plastic
        synapses.
    Determinism: bit-identical on every backend and platform, alone and batched, in any order of
        synapses, as far as no potential is below 2^-126 in magnitude.
    Source: feagi-core 0.0.1-beta.18, its CPU burst engine.
    """
    synapses, burst = params.synapses, state.burst + 1
    received, reached, pending = propagation.propagate(
        config, synapses, state.fired, state.weights, state.exists, state.pending
    )
    inputs, candidates = collect(config, params.neurons, params.power, drive, received, reached)

    membranes, fires, potential = membrane.advance(
        config.rules,
        params.neurons,
        _reset(config, params.neurons, state.membranes),
        inputs,
        candidates,
        burst,
    )

    ledger, weights, exists = _learn(config, params, state, fires)
    return State(
        membranes=membranes,
        fired=fire_queue(fires, potential),
        inputs=inputs,
        candidates=candidates,
        weights=weights,
        exists=exists,
        pending=pending,
        ledger=ledger,
        burst=burst,
        key=state.key,
    )


def _reset(config, neurons, membranes):
    """Potentials that do not accumulate are 0 at the start of a burst."""
    from_size = config.rules.large_reset
    if from_size is not None and config.num_neurons >= from_size:
        # There only those of neurons that fired are reset, and these are at 0 since they fired.
        return membranes
    kept = jnp.where(neurons.accumulates, membranes.potential, 0)
    return membranes.replace(potential=kept)


def _learn(config, params, state, fires):
    ledger, plastic = state.ledger, params.synapses.plastic
    if ledger is None:
        return ledger, state.weights, state.exists
    ledger = ledgers.append(ledger, fires, config.window)
    if plastic is None:
        return ledger, state.weights, state.exists
    gains = params.potentiation, params.depression
    return ledger, *plasticity.learn(config, plastic, state.weights, state.exists, ledger, *gains)
