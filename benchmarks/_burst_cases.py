"""The cases of the burst engine: bursts in a scan and through the host, beside plain arrays."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from _case import ROTATED_BYTES, Case, same_bits

from brainjax import burst, metrics, ops, simulation, timing

# Bytes that a burst must move: of an injection, of a synapse that carries a spike, and of a
# candidate, whose kind is read and whose state is read and written.
_INJECTION, _SYNAPSE, _CANDIDATE = 8, 8, 18
# Injected neurons fire, and nobody else ever gets near: weights are whole numbers from 1 to 255, as
# FEAGI's are, in units so small that sums are below 2^-6.
_POTENTIAL, _THRESHOLD, _LEAK, _FRACTION_BITS = 2.0, 1.0, 0.25, 20
_LOOP_BYTES = 2 * 10**9  # of the drives of one loop, at most
_KEY = jax.random.key(0)  # from which a state is made; nothing is drawn


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """Random synapses of one fan-out, and one neuron in `period` to inject in each burst."""

    config: burst.Config
    params: burst.Params
    injected: np.ndarray  # [bursts, injected] ascending ids; each comes up at most once
    fan_out: int

    @functools.cached_property
    def drives(self) -> burst.Drive:
        """One for each burst."""
        return self.config.drives(list(self.injected), [_potentials(ids) for ids in self.injected])

    def loop(self, most_rounds: int) -> burst.Drive:
        """Those of one loop, in which all bursts come again and again."""
        one = sum(leaf.nbytes for leaf in jax.tree.leaves(self.drives))
        rounds = max(1, min(most_rounds, _LOOP_BYTES // one))
        return jax.tree.map(lambda leaf: jnp.concatenate([leaf] * rounds), self.drives)

    def targets(self):
        """Postsynaptic neurons, [neurons, fan_out]."""
        return self.params.synapses.fixed.indices.reshape(-1, self.fan_out)

    def candidates(self) -> int:
        """Neurons that receive anything in the second burst, counted without the engine."""
        reached = self.targets()[jnp.asarray(self.injected[0])]
        return np.union1d(np.asarray(reached), self.injected[1]).size


@functools.lru_cache(maxsize=1)
def network(num_neurons: int, fan_out: int, bursts: int, share: float, seed: int) -> Network:
    """Drawn on the device, as `burst.connect` would sort every synapse on the host."""
    config = burst.Config(num_neurons=num_neurons, areas=[burst.Area("area", uniform=True)])
    neurons = burst.populate(config, 0, threshold=_THRESHOLD, leak=_LEAK)
    count = max(1, round(share * num_neurons))
    bursts = min(bursts, num_neurons // count)
    ids = np.random.default_rng(seed).permutation(num_neurons)[: bursts * count]
    synapses = burst.Synapses(
        fixed=_rows(num_neurons, fan_out, jax.random.key(seed)), plastic=None, is_driven=None
    )
    params = burst.Params(neurons=neurons, synapses=synapses)
    return Network(config, params, np.sort(ids.reshape(bursts, count), axis=1), fan_out)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _rows(num_neurons, fan_out, key):
    size, (targets_key, weights_key) = num_neurons * fan_out, jax.random.split(key)
    whole = jax.random.randint(weights_key, (size,), 1, 256, jnp.uint8)
    return ops.CompressedRows(
        indptr=jnp.arange(num_neurons + 1, dtype=jnp.int32) * fan_out,
        indices=jax.random.randint(targets_key, (size,), 0, num_neurons, jnp.int32),
        weights=whole.astype(jnp.float32) * 2.0**-_FRACTION_BITS,
        fraction_bits=_FRACTION_BITS,
    )


def case_of(
    draw: Callable[[], Network], contenders: dict, facts: dict, limits: tuple[str, ...] = ()
) -> Case:
    """A case in which all implementations run the bursts of a network.

    Args:
        draw: returns the network.
        contenders: by name, what starts bursts and tells what they left: see `resident`.
        facts: where to note what was counted, and what each of them compiled and fired.
        limits: names of those that are limits, not implementations, if they are contenders.
    """
    net = draw()
    events = net.injected.shape[1] * net.fan_out
    candidates = net.candidates()
    moved = _INJECTION * net.injected.shape[1] + _SYNAPSE * events + _CANDIDATE * candidates
    facts |= {"fired": net.injected.shape[1], "candidates": candidates, "agree": True}
    facts |= {"compile_s": {}}

    def build(name, make):
        start, last_fired, bursts = make(net)
        with metrics.Stopwatch() as watch:
            jax.block_until_ready(start())
        facts["compile_s"][name] = watch.compile_seconds
        facts["agree"] &= np.array_equal(np.sort(last_fired()), net.injected[-1])
        return timing.Contender(start, jax.block_until_ready, bursts)

    return Case(
        moved=moved,
        equal_bits=functools.partial(_equal_bursts, net, candidates),
        contenders={
            name: functools.partial(build, name, make) for name, make in contenders.items()
        },
        in_cache=len(net.injected) * moved < ROTATED_BYTES,
        limits=limits,
    )


def _equal_bursts(net, candidates):
    """Two bursts with kernels and without; who fires and how many receive anything is known."""
    few = jax.tree.map(lambda leaf: leaf[:2], net.drives)

    def run(**changes):
        config = dataclasses.replace(net.config, keeps_inputs=True, **changes)
        state = burst.init(config, net.params, _KEY)
        return simulation.simulate(burst.step, config, net.params, state, few)[0]

    ours, reference = run(), run(backend="reference")
    fired = np.asarray(ours.fired.indices)[: int(ours.fired.count)]
    counted = int(ours.candidates.sum()) == candidates
    left = [(each.membranes, each.fired, each.inputs) for each in (ours, reference)]
    return same_bits(*left) and counted and np.array_equal(fired, net.injected[1])


# --- Each returns what starts bursts, what tells who fired in the last, and how many there are ----


def resident(net: Network, most_rounds: int):
    """Ours: rounds of all bursts in one compiled loop."""
    state, drives = burst.init(net.config, net.params, _KEY), net.loop(most_rounds)
    steps = len(drives.fatigued)

    def start():
        nonlocal state
        state, _ = simulation.simulate(
            burst.step, net.config, net.params, state, drives, chunk_steps=steps
        )
        return state

    def last_fired():
        return np.asarray(state.fired.indices)[: int(state.fired.count)]

    return start, last_fired, steps


def through_host(net: Network):
    """Ours: injections come from the host and the list of who fired goes back, burst by burst."""
    state, fired = burst.init(net.config, net.params, _KEY), None
    potentials = _potentials(net.injected[0])
    size = potentials.size
    sampler = burst.Sampler(capacity=2 * size)
    loop = burst.HostLoop(net.config, net.params, state, capacity=size, sampler=sampler)

    def start():
        nonlocal fired
        for ids in net.injected:
            fired, _ = loop(ids, potentials)
        return ()

    return start, lambda: fired, len(net.injected)


def exchange_alone(net: Network):
    """The lists of `through_host`, read and written by a program that computes nothing."""
    size = net.injected.shape[1]
    (device,) = net.params.synapses.fixed.indptr.devices()
    sent, returned = ops.HostList(size, device), ops.HostList(size, device)

    @jax.jit
    def exchange(sent, returned):
        active, _, number = ops.read_host_list(sent)
        return ops.write_host_list(returned, active, number)

    fired, potentials = None, _potentials(net.injected[0])

    def start():
        nonlocal fired
        for ids in net.injected:
            sent.indices[:], sent.values[:] = ids, potentials
            number = sent.announce(size)
            _, fired, _ = returned.take(number, exchange(sent.place, returned.place))
        return ()

    return start, lambda: fired, len(net.injected)


def _plain_burst(tables, injected, carry):
    """What one writes without this library: float sums in no order, leak, threshold, refractory.

    Everybody leaks; there are no candidates, limits, excitabilities or fatigue.
    """
    (targets, weights), (potential, countdown, fired) = tables, carry
    n = potential.shape[0]
    received = jnp.zeros(n).at[targets[fired]].add(weights[fired], mode="drop")
    received = received.at[injected].add(_POTENTIAL)
    potential = potential * (1 - _LEAK) + received
    fires = (potential >= _THRESHOLD) & (countdown == 0)
    countdown = jnp.where(countdown > 0, countdown - 1, 0)
    (fired,) = jnp.nonzero(fires, size=fired.shape[0], fill_value=n)
    return jnp.where(fires, 0, potential), countdown, fired


def _plain_start(net):
    n = net.config.num_neurons
    nobody = jnp.full(2 * net.injected.shape[1], n)  # room for twice as many as fire
    weights = net.params.synapses.fixed.weights.reshape(-1, net.fan_out)
    # The row of nobody: its entries fall out of range.
    pad = ((0, 1), (0, 0))
    targets = jnp.pad(net.targets(), pad, constant_values=n), jnp.pad(weights, pad)
    return targets, (jnp.zeros(n), jnp.zeros(n, jnp.uint16), nobody)


def jnp_resident(net: Network, most_rounds: int):
    """Plain jnp: the same loop."""
    tables, carry = _plain_start(net)
    injected = net.loop(most_rounds).injected.indices  # of each burst as many

    @functools.partial(jax.jit, donate_argnums=0)
    def scan(carry, tables, injected):
        def body(carry, now):
            return _plain_burst(tables, now, carry), None

        return jax.lax.scan(body, carry, injected)[0]

    def start():
        nonlocal carry
        carry = scan(carry, tables, injected)
        return carry

    return start, lambda: _listed(carry[2], net.config.num_neurons), len(injected)


def jnp_through_host(net: Network):
    """Plain jnp, burst by burst."""
    tables, carry = _plain_start(net)
    fired, advance = None, jax.jit(_plain_burst, donate_argnums=2)

    def start():
        nonlocal carry, fired
        for ids in net.injected:
            carry = advance(tables, jnp.asarray(ids, jnp.int32), carry)
            fired = _listed(carry[2], net.config.num_neurons)
        return carry

    return start, lambda: fired, len(net.injected)


def numpy_bursts(net: Network):
    """NumPy, on the memory that JAX holds."""
    n = net.config.num_neurons
    targets = np.asarray(net.targets())
    weights = np.asarray(net.params.synapses.fixed.weights).reshape(targets.shape)
    potential, countdown, fired = np.zeros(n, np.float32), np.zeros(n, np.uint16), net.injected[0]

    def start():
        nonlocal potential, countdown, fired
        for ids in net.injected:
            received = np.bincount(targets[fired].ravel(), weights[fired].ravel(), minlength=n)
            received[ids] += _POTENTIAL
            potential = (potential * np.float32(1 - _LEAK) + received).astype(np.float32)
            fires = (potential >= _THRESHOLD) & (countdown == 0)
            countdown -= countdown > 0
            potential[fires] = 0
            (fired,) = np.nonzero(fires)
        return ()

    return start, lambda: fired, len(net.injected)


def _listed(ids, num_neurons):
    ids = np.asarray(ids)
    return ids[ids < num_neurons]


def _potentials(ids):
    return np.full(ids.size, _POTENTIAL, np.float32)
