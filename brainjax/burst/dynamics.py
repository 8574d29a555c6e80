"""One burst: collect the candidates, let them fire or leak, learn."""

import functools
from typing import no_type_check

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float32, UInt8, UInt32

from brainjax import ops
from brainjax.burst import ledger as ledgers, plasticity, propagation
from brainjax.burst.anatomy import Config
from brainjax.burst.drive import Drive
from brainjax.burst.ledger import Ledger
from brainjax.burst.synapses import Synapses
from brainjax.ops import Arrivals, Membranes, Neurons
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
    # What each neuron received in the last burst, and who received anything, be it a sum of 0.
    inputs: Float32[Array, " neurons"] | None  # None: not kept, see Config.keeps_inputs
    candidates: Bool[Array, " neurons"] | None
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

    Returns:
        The state before burst 1.

    Raises:
        ValueError: the parameters have another size than the config says.
        TypeError: the kinds of the neurons are not uint16.

    Cost: 16 bytes per neuron, 5 more with `keeps_inputs`, beside the ledger, what is delayed and a
        copy of plastic weights.
    Determinism: the same on every platform.
    """
    n, mappings = config.num_neurons, len(config.mappings)
    got = params.neurons.num_neurons
    require(got == n, "neurons of params", f"num_neurons={n}", got)
    params.neurons.check(n)
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
        inputs=jnp.zeros(n, jnp.float32) if config.keeps_inputs else None,
        candidates=jnp.zeros(n, bool) if config.keeps_inputs else None,
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

    1. The spikes of the last burst are sent on; see `propagation.propagate` for synapses that learn
       or are slow.
    2. Who receives anything, be it from outside, counts down, fires or leaks, and nobody else does;
       see `ops.burst_core`.
    3. Who fired enters the ledger, and plastic synapses change, from the next burst on; see
       `plasticity.learn`.

    The first burst is number 1. It has no gradient: `jax.grad` gives 0.

    Args:
        config: sizes, areas and rules.
        params: neurons, synapses, power and plasticity.
        state: the network.
        drive: what is injected.

    Returns:
        The state after the burst.

    Cost: the synapses of the neurons that fired, 12 bytes per neuron and 21 more per candidate, and
        all plastic synapses. `keeps_inputs` or a batch threshold adds 5 per neuron.
    Determinism: bit-identical on every backend and platform, alone and batched, in any order of
        synapses. Kernels keep potentials below 2^-126 in magnitude, for which plain XLA may take 0.
    Source: feagi-core 0.0.1-beta.18, its CPU burst engine.
    """
    rows, arrivals, pending = propagation.propagate(
        config, params.synapses, state.fired, state.weights, state.exists, state.pending
    )
    now = ops.burst_core(
        config.burst_rules,
        params.neurons,
        rows,
        params.synapses.is_driven,
        state.membranes,
        state.fired,
        state.burst,
        drive.injected,
        power=params.power,
        fatigued=drive.fatigued,
        arrivals=arrivals,
        keeps_inputs=config.keeps_inputs,
        backend=config.backend,
    )

    ledger, weights, exists = _learn(config, params, state, now.fires)
    return State(
        membranes=now.membranes,
        fired=now.fired,
        inputs=now.inputs,
        candidates=now.candidates,
        weights=weights,
        exists=exists,
        pending=pending,
        ledger=ledger,
        burst=now.bursts,
        key=state.key,
    )


def _learn(config, params, state, fires):
    ledger, plastic = state.ledger, params.synapses.plastic
    if ledger is None:
        return ledger, state.weights, state.exists
    flags = ops.fire_queue.unpack(fires, config.num_neurons)
    ledger = ledgers.append(ledger, flags, config.window)
    if plastic is None:
        return ledger, state.weights, state.exists
    gains = params.potentiation, params.depression
    return ledger, *plasticity.learn(config, plastic, state.weights, state.exists, ledger, *gains)
