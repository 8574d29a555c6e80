"""Bursts one at a time, with the host in the loop."""

import dataclasses
import functools
import itertools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from brainjax import ops
from brainjax.burst import dynamics
from brainjax.burst.anatomy import Config
from brainjax.burst.drive import Drive, injections
from brainjax.burst.dynamics import Params, State
from brainjax.burst.readout import Sampler
from brainjax.validation import Numbers, require


class HostLoop:
    """Advance a network burst by burst: injections come from the host, who fired goes back.

    The bursts of `step`, sampled by a `Sampler`. A burst reads the injections where the host lists
    them, and writes who fired where the host finds it; nothing is compiled after the first one,
    however many neurons are injected. One thread at a time may call it:

        loop = burst.HostLoop(config, params, state, capacity=100, sampler=burst.Sampler(1_000))
        while True:
            neurons, potentials = loop(*sense())
            act(neurons, potentials)

    An interrupt, as by Ctrl-C, leaves the loop before the burst or after it, and the next call goes
    on from there. `state.burst` tells which: after it, what was injected is in, and who fired is in
    `state.fired`, as no later call returns it; before it, nothing is in. Where lists go through
    Python, JAX may raise an error of its own instead.

    Args:
        config: sizes, areas and rules.
        params: neurons, synapses, power and plasticity.
        state: of one network; copied.
        capacity: injections of a burst at most.
        sampler: whom to return. Where more fire than it has room for, all of them are fetched, by
            a further transfer of 8 bytes for each neuron of the network; the first time, that
            is compiled.

    Raises:
        ValueError: the capacity is below 1, or the state is of many networks or on many devices,
            or the sampler of another network.

    Cost: of a burst, that of `step`, the call of a compiled function, and of two lists 8 bytes for
        each injection that there is room for and for each neuron that fired. On a GPU the host
        looks for the second without a pause, for a millisecond. Construction copies the state, as
        does a burst whose lists go through Python.
    Determinism: as `step`.
    """

    # Of all loops, until no burst uses them: an interrupt of `__del__` would free them before.
    _lists: ClassVar[set[ops.HostList]] = set()

    def __init__(
        self, config: Config, params: Params, state: State, *, capacity: int, sampler: Sampler
    ):
        self._results = []  # of a burst, until they are stored
        self._running: Any = None  # what a burst returns last, while it runs
        require(state.burst.ndim == 0, "state", "of one network", f"shape {state.burst.shape}")
        self._config = config
        # Of all who fired: what there is room for is not copied before it is sent.
        self._sampler = dataclasses.replace(sampler, capacity=config.num_neurons)
        devices = state.burst.devices()
        require(len(devices) == 1, "state", "on one device", f"{len(devices)} devices")
        (device,) = devices
        # A number of Python's would be sent there in each burst.
        self._params = jax.device_put(params, device)
        state = jax.tree.map(jnp.copy, state)
        # No burst changes the key, which JAX would wrap anew each time, as it would the state.
        self._key = state.key
        state = jax.device_put(dataclasses.replace(state, key=None), device)
        self._leaves, self._tree = jax.tree.flatten(state)
        # Free again when who fired has come back: it has been read then.
        self._injected = ops.HostList(capacity, device)
        most = jax.eval_shape(self._sampler, self._advanced).neurons.size
        self._fired = ops.HostList(min(sampler.capacity, most), device)
        self._lists.update((self._injected, self._fired))
        # Python runs amid other bursts: an interrupt there needs the old state.
        donates = self._injected.has_kernels(config.backend)
        self._advance = _compiled(config, self._sampler, self._tree, donates)

    @property
    def state(self) -> State:
        """The network after the last burst, copied.

        Raises:
            RuntimeError: as a call.
        """
        return jax.tree.map(jnp.copy, dataclasses.replace(self._advanced, key=self._key))

    @property
    def _advanced(self):
        self._store()
        return self._tree.unflatten(self._leaves)

    def __call__(
        self, ids: Numbers = (), potentials: Numbers = (), *, fatigued: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Advance by one burst; see `Config.drive` for what is injected.

        Returns:
            Ids of the sampled neurons that fired, ascending, and their potentials at firing.

        Raises:
            ValueError: an id is not the number of a neuron, a potential not finite, there are not
                as many of them, or more than `capacity`.
            RuntimeError: the last burst failed, or an interrupt lost the state, as it can where
                JAX works on in Python behind a burst: behind one that it has just compiled.
        """
        self._wait_for_the_last()
        number = self._announce(ids, potentials, fatigued)
        places = self._injected.place, self._fired.place
        # Handlers of signals run between instructions of Python's: here none is, from the call
        # that deletes the leaves until its results are kept.
        calls = itertools.starmap(self._advance, [(self._params, self._leaves, *places)])
        self._results.extend(calls)
        self._store()
        count, neurons, fired_at = self._fired.take(number, self._running)
        self._running = None
        if count > neurons.size:
            sample = _sample_anew(self._sampler, self._advanced)
            neurons, fired_at = np.asarray(sample.neurons), np.asarray(sample.potentials)
        return neurons[:count], fired_at[:count]

    def __del__(self):
        try:  # without modules, which may be gone when the interpreter ends
            self._store()  # fails where nobody can tell whether a burst still uses the lists
            try:
                self._wait_for_the_last()
            except Exception:  # a burst that failed said so when it was called
                self._running = None  # and has ended
            self._lists.difference_update((self._injected, self._fired))
        except Exception:
            pass

    def _store(self):
        """Make the results of a burst the state, unless that is done: interrupts may prevent it."""
        if self._results:
            ((self._leaves, self._running),) = self._results
            self._results.clear()
        elif self._leaves[0].is_deleted():
            raise RuntimeError("state must be that after a burst; got none: the last one failed")

    def _wait_for_the_last(self):
        """A burst that nobody waited for, because of an interrupt, may still use both lists."""
        self._store()
        if self._running is not None:
            self._running.block_until_ready()  # JAX's function is gone when the interpreter ends

    def _announce(self, ids, potentials, fatigued):
        n = self._config.num_neurons
        ids, potentials, _ = injections(n, ids, potentials, self._injected.place.capacity)
        self._injected.indices[: ids.size], self._injected.values[: ids.size] = ids, potentials
        return self._injected.announce(ids.size, flag=fatigued)


@functools.lru_cache(maxsize=16)  # programs, and blocks of samplers, that are kept
def _compiled(config, sampler, tree, donates):
    """A burst that reads injections where the host lists them, and writes who fired there."""

    @functools.partial(jax.jit, donate_argnums=1 if donates else ())
    def advance(params, leaves, injected, fired):
        active, fatigued, number = ops.read_host_list(injected, backend=config.backend)
        drive = Drive(injected=active, fatigued=fatigued)
        state = dynamics.step(config, params, tree.unflatten(leaves), drive)
        sample = sampler(state)
        who = ops.ActiveSet(sample.neurons, sample.potentials, sample.count)
        written = ops.write_host_list(fired, who, number, backend=config.backend)
        return jax.tree.leaves(state), written

    return advance


@functools.partial(jax.jit, static_argnums=0)
def _sample_anew(sampler, state):
    """Of a burst that was."""
    return sampler(state)
