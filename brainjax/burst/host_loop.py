"""Bursts one at a time, with the host in the loop."""

import ctypes
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding

from brainjax import ops
from brainjax.burst import dynamics
from brainjax.burst.anatomy import Config
from brainjax.burst.drive import Drive, injections, list_injections
from brainjax.burst.dynamics import Params, State
from brainjax.burst.readout import Sampler
from brainjax.validation import Numbers, require

# XLA hands a kernel a part of an array where it is if that takes multiples of 128 bytes, and copies
# it elsewhere. So many numbers these are.
_UNIT = 32


class HostLoop:
    """Advance a network burst by burst: injections come from the host, who fired goes back.

    The bursts of `step`, sampled by a `Sampler`. One array goes each way, and nothing is compiled
    after the first burst, however many neurons are injected:

        loop = burst.HostLoop(config, params, state, capacity=100, sampler=burst.Sampler(1_000))
        while True:
            neurons, potentials = loop(*sense())
            act(neurons, potentials)

    Args:
        config: sizes, areas and rules.
        params: neurons, synapses, power and plasticity.
        state: of one network; copied.
        capacity: injections of a burst at most.
        sampler: whom to return. Where more fire than it has room for, all of them are fetched, by
            a further transfer of 8 bytes for each neuron of the network; the first time, that
            is compiled.

    Raises:
        ValueError: the capacity is below 1, or the state is of many networks or on many devices.

    Cost: of a burst, that of `step`, and two transfers, of 8 bytes for each entry that the
        capacities allow, rounded up to 128 bytes, and 128 more. Construction copies the state.
    Determinism: as `step`.
    """

    def __init__(
        self, config: Config, params: Params, state: State, *, capacity: int, sampler: Sampler
    ):
        require(capacity >= 1, "capacity", "at least 1", capacity)
        require(state.burst.ndim == 0, "state", "of one network", f"shape {state.burst.shape}")
        self._config, self._capacity, self._sampler = config, capacity, sampler
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
        self._advance = _compiled(config, sampler, device, self._tree)
        # Free again when who fired has come back: it has been read then.
        room = -(-capacity // _UNIT) * _UNIT
        self._sent, packet = shared_numbers(_UNIT + 2 * room, device)
        self._head, (self._indices, values) = packet[:2], _halves(packet[_UNIT:])
        self._values = values.view(np.float32)

    @property
    def state(self) -> State:
        """The network after the last burst, copied."""
        return jax.tree.map(jnp.copy, dataclasses.replace(self._advanced, key=self._key))

    @property
    def _advanced(self):
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
        """
        self._pack(ids, potentials, fatigued)
        self._leaves, report = self._advance(self._params, self._leaves, self._sent)
        count, neurons, fired_at = _unpack_report(report)
        if count > neurons.size:
            whole = dataclasses.replace(self._sampler, capacity=self._config.num_neurons)
            _, neurons, fired_at = _unpack_report(_report_anew(whole, self._advanced))
        return neurons[:count], fired_at[:count]

    def _pack(self, ids, potentials, fatigued):
        n = self._config.num_neurons
        ids, potentials, _ = injections(n, ids, potentials, self._capacity)
        self._head[:] = ids.size, fatigued
        list_injections(ids, potentials, n, self._indices, self._values)


@functools.lru_cache(maxsize=16)  # programs, and blocks of samplers, that are kept
def _compiled(config, sampler, device, tree):
    """A burst that takes a packet and returns a report, which the host reads in place."""

    def advance(params, leaves, packet):
        packet = jax.device_put(packet, SingleDeviceSharding(device))
        state = dynamics.step(config, params, tree.unflatten(leaves), _unpack_drive(packet))
        return jax.tree.leaves(state), _report(sampler, state)

    return jax.jit(advance, donate_argnums=1, out_shardings=(None, host_memory(device)))


def host_memory(device) -> SingleDeviceSharding | None:
    """Return where a device writes what the host reads in place, None if that is its own memory.

    A copy that the host asks for itself takes longer than a burst.
    """
    is_apart = device.platform == "gpu"
    return SingleDeviceSharding(device, memory_kind="pinned_host") if is_apart else None


def shared_numbers(size: int, device) -> tuple[jax.Array | np.ndarray, np.ndarray]:
    """Return what programs of a device take, and the same memory as int32 that the host writes.

    A GPU fetches them from there: to hand JAX another array for each burst takes longer than a
    burst. Nothing may be written before the last program has read them.
    """
    numbers, memory = np.zeros(size, np.int32), host_memory(device)
    if memory is None:
        return numbers, numbers
    # Zeros that were still on their way would be written over the first numbers.
    sent = jax.block_until_ready(jax.device_put(numbers, memory))
    # What NumPy makes of it is read-only.
    numbers = (ctypes.c_int32 * size).from_address(sent.unsafe_buffer_pointer())
    return sent, np.ctypeslib.as_array(numbers)


def _unpack_drive(packet: jax.Array) -> Drive:
    """How many injections there are, whether the burst is fatigued; then ids; then potentials."""
    size, fatigued = packet[0], packet[1] != 0
    indices, values = _halves(packet[_UNIT:])
    values = jax.lax.bitcast_convert_type(values, jnp.float32)
    return Drive(injected=ops.ActiveSet(indices, values, size), fatigued=fatigued)


def _report(sampler: Sampler, state: State) -> jax.Array:
    sample = sampler(state)
    potentials = jax.lax.bitcast_convert_type(sample.potentials, jnp.int32)
    return jnp.concatenate([sample.count[None], sample.neurons, potentials])


_report_anew = jax.jit(_report, static_argnums=0)  # of a burst that was


def _unpack_report(report: jax.Array) -> tuple[int, np.ndarray, np.ndarray]:
    numbers = np.asarray(report)
    neurons, potentials = _halves(numbers[1:])
    return int(numbers[0]), neurons, potentials.view(np.float32)


def _halves(numbers):
    """Not np.split, which takes longer than the rest of a report."""
    half = numbers.size // 2
    return numbers[:half], numbers[half:]
