"""Lists of neurons in memory of the host, which programs read, and write, where they lie."""

import ctypes
import functools
import itertools
import logging
import platform
import sys
from typing import no_type_check

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import SingleDeviceSharding
from jaxtyping import Array, Bool, Int32, UInt32

from brainjax.ops import backend as backends
from brainjax.ops.active_set import ActiveSet

READ_HANDLER, WRITE_HANDLER = "BrainjaxReadHostList", "BrainjaxWriteHostList"

# Places of numbers in front of the entries, as in host_list.h.
_COUNT, _FLAG, _NUMBER, _POSTS, _HEAD = 0, 1, 2, 16, 32
# Of all lists: what was written for another one is not taken for what is awaited.
_numbers, _LARGEST_NUMBER = itertools.count(), 2**31 - 1
# About a millisecond. A list that takes longer is waited for as JAX waits, which wakes up later.
_POLLS = 4_000
_log = logging.getLogger("brainjax")


@no_type_check  # transformations build it from batched and placeholder leaves
@struct.dataclass
class Place:
    """Where a `HostList` lies, an argument of programs that read or write it: `HostList.place`."""

    address: UInt32[Array, "2"]  # lower and upper half
    capacity: int = struct.field(pytree_node=False)
    is_reached: bool = struct.field(pytree_node=False)  # by kernels of the device


class HostList:
    """Memory of the host for one list of neurons, which programs of a device read, or write.

    To let JAX transfer a list of 10,000 to a GPU, or back, takes longer than a burst of a million
    neurons. A program that takes `place` reads the list where it lies: the host may change it only
    when that program has read it, and keeps it until programs that write it have ended.

    Args:
        capacity: entries of the list at most.
        device: whose programs read or write it.

    Raises:
        ValueError: the capacity is below 1.

    Cost: pinned memory, 8 bytes an entry and 128 more.
    """

    def __init__(self, capacity: int, device):
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1; got {capacity}")
        numbers = np.zeros(_HEAD + 2 * capacity, np.int32)
        # Zeros that were still on their way would be written over the first entries.
        memory = jax.block_until_ready(jax.device_put(numbers, _memory_of_the_host(device)))
        pointer = memory.unsafe_buffer_pointer()
        halves = np.array([pointer % 2**32, pointer // 2**32], np.uint32)
        is_reached = device.platform == "cpu" or _is_reached_by_kernels(pointer, device)
        self.place = Place(jax.device_put(halves, device), capacity, is_reached)
        self._head, self.indices, self.values = _views(pointer, capacity, owner=memory)
        self._polls = _POLLS if is_reached and _can_poll(device) else 0
        self._platform = backends.library_platform(device.platform)

    def has_kernels(self, backend: backends.Backend = "auto") -> bool:
        """Tell whether programs read and write the list by kernels, or through Python.

        Args:
            backend: as `read_host_list`.
        """
        platforms = backends.platforms_with(READ_HANDLER)
        return backend != "reference" and self.place.is_reached and self._platform in platforms

    def announce(self, count: int, *, flag: bool = False) -> int:
        """Say that the first entries of `indices` and `values` are a list to read.

        Args:
            count: entries, at most the capacity.
            flag: whatever the program makes of it.

        Returns:
            The number of the list, which no other list has.
        """
        number = next(_numbers) % _LARGEST_NUMBER + 1
        self._head[: _NUMBER + 1] = count, flag, number
        return number

    def take(self, number: int, written: jax.Array) -> tuple[int, np.ndarray, np.ndarray]:
        """Wait for the list of that number.

        Args:
            number: of the list that the program has read.
            written: what `write_host_list` returned in that program.

        Returns:
            How many neurons it has, and its indices and values, copied. What the program had no
            entries for, or the list no room, is missing in these, or anything.

        Raises:
            RuntimeError: another list was written.
        """
        expected = number.to_bytes(4, sys.byteorder) * (_HEAD - _POSTS)
        posts = self._head[_POSTS:]
        for _ in range(self._polls):
            if posts.tobytes() == expected:
                break
        else:
            jax.block_until_ready(written)
            if posts.tobytes() != expected:
                raise RuntimeError(f"number of the list must be {number}; got {posts[0]}")
        count = int(self._head[_COUNT])
        listed = max(0, count)
        return count, self.indices[:listed].copy(), self.values[:listed].copy()


def read_host_list(
    place: Place, *, backend: backends.Backend = "auto"
) -> tuple[ActiveSet, Bool[Array, ""], Int32[Array, ""]]:
    """Return a list that the host has announced, its flag and its number: under `jit`.

    To JAX this depends on nothing but the place: a program reads once, also in a loop. Entries
    behind the list are as the host has left them.

    Args:
        place: of a `HostList` on the device that runs the program; not batched.
        backend: "auto", "kernel", or "reference", which calls back to Python and needs a CPU
            among JAX's platforms.

    Raises:
        RuntimeError: `backend` is "kernel" and none can run.

    Cost: reads the capacity of the list, 8 bytes an entry, across the bus.
    Determinism: what the memory holds when the program comes to it.
    """
    number = jax.ShapeDtypeStruct((), jnp.int32)
    indices = jax.ShapeDtypeStruct((place.capacity,), jnp.int32)
    values = jax.ShapeDtypeStruct((place.capacity,), jnp.float32)
    results = (indices, values, number, jax.ShapeDtypeStruct((), jnp.bool_), number)
    read = functools.partial(_read, place.capacity)
    *active, flag, number = backends.dispatch(
        backend,
        READ_HANDLER,
        place.address,
        reference=functools.partial(jax.pure_callback, read, results),
        kernel=jax.ffi.ffi_call(backends.target(READ_HANDLER), results),
        unsupported=_unsupported(place),
    )
    return ActiveSet(*active), flag, number


def write_host_list(
    place: Place,
    active: ActiveSet,
    number: Int32[Array, ""],
    *,
    backend: backends.Backend = "auto",
) -> Int32[Array, ""]:
    """Write a list to where the host waits for it, and its number when it is there: under `jit`.

    To JAX this is no effect, as one would cost each call of the program 0.4 ms: what is returned
    must be a result of the program, or nothing is written.

    Args:
        place: of a `HostList` on the device that runs the program; not batched.
        active: what to list. What there is no room for shows in the count.
        number: as `read_host_list` returned it, so that nothing is written before that list is
            read.
        backend: as `read_host_list`.

    Returns:
        The number.

    Raises:
        RuntimeError: `backend` is "kernel" and none can run.

    Cost: writes the entries in use, 8 bytes each, across the bus.
    Determinism: whoever finds the number finds all entries, whatever the order they came in.
    """
    result = jax.ShapeDtypeStruct((), jnp.int32)
    kernel = jax.ffi.ffi_call(backends.target(WRITE_HANDLER), result)

    def reference(address, indices, values, *numbers):
        entries = (part[: place.capacity] for part in (indices, values))
        write = functools.partial(_write, place.capacity)
        return jax.pure_callback(write, result, address, *entries, *numbers)

    return backends.dispatch(
        backend,
        WRITE_HANDLER,
        place.address,
        active.indices,
        active.values,
        active.count,
        number,
        reference=reference,
        kernel=functools.partial(kernel, capacity=np.int64(place.capacity)),
        unsupported=_unsupported(place),
    )


def _unsupported(place):
    if place.is_reached:
        return None
    return f"kernels of the device do not reach memory of the host ({backends.explain()})"


def _memory_of_the_host(device):
    kind = None if device.platform == "cpu" else "pinned_host"
    return SingleDeviceSharding(device, memory_kind=kind)


def _is_reached_by_kernels(pointer, device):
    for library in backends.libraries():
        reaches = getattr(library.handle, "BrainjaxReachesHostMemory", None)
        number = ctypes.c_int(device.local_hardware_id or 0)
        if reaches is not None and reaches(ctypes.c_void_p(pointer), number):
            return True
    _log.warning("Lists of %s go through Python: %s", device, backends.explain())
    return False


def _can_poll(device):
    """Not on a CPU, whose programs need it; nor where loads may overtake each other."""
    return device.platform != "cpu" and platform.machine() in ("x86_64", "AMD64")


def _views(pointer, capacity, owner=None):
    """Head, indices and values of a list; what NumPy makes of an array of JAX's is read-only."""
    numbers = (ctypes.c_int32 * (_HEAD + 2 * capacity)).from_address(pointer)
    numbers.owner = owner  # lives as long as one of the views
    head, indices, values = np.split(np.ctypeslib.as_array(numbers), [_HEAD, _HEAD + capacity])
    return head, indices, values.view(np.float32)


def _views_at(address, capacity):
    lower, upper = (int(half) for half in np.asarray(address))
    return _views(upper * 2**32 + lower, capacity)


def _read(capacity, address):
    head, indices, values = _views_at(address, capacity)
    return indices.copy(), values.copy(), head[_COUNT], head[_FLAG] != 0, head[_NUMBER]


def _write(capacity, address, indices, values, count, number):
    head, *entries = _views_at(address, capacity)
    written = min(max(0, int(count)), indices.size)
    for entry, listed in zip(entries, (indices, values)):
        entry[:written] = np.asarray(listed)[:written]
    head[_COUNT] = count
    head[_POSTS:] = number
    return np.asarray(number)
