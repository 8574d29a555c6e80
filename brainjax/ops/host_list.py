"""Lists of neurons in memory of the host, which programs read, and write, where they lie."""

import ctypes
import functools
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
from brainjax.validation import require

READ_HANDLER, WRITE_HANDLER = "BrainjaxReadHostList", "BrainjaxWriteHostList"

# Numbers in front of the entries, as in host_list.h.
_COUNT, _FLAG, _NUMBER, _POSTED, _HEAD = 0, 1, 2, 16, 32
_LARGEST_NUMBER = 2**31 - 1
# About a millisecond. A list that takes longer is waited for as JAX waits, which wakes up later.
_POLLS = 4_000


@no_type_check  # transformations build it from batched and placeholder leaves
@struct.dataclass
class Place:
    """Where a `HostList` lies, as an argument of programs. They keep its memory while they run."""

    address: UInt32[Array, "2"]  # lower and upper half
    memory: Int32[Array, " numbers"]
    capacity: int = struct.field(pytree_node=False)
    is_reached: bool = struct.field(pytree_node=False)  # by kernels of the device


class HostList:
    """Memory of the host for one list of neurons, which programs of a device read, or write.

    To let JAX transfer a list of 10,000 to a GPU, or back, takes longer than a burst of a million
    neurons. A program that takes `place` reads the list where it lies, and so the host may change
    it only when that program has read it.

    Args:
        capacity: entries of the list at most.
        device: whose programs read or write it.

    Raises:
        ValueError: the capacity is below 1.
    """

    def __init__(self, capacity: int, device):
        require(capacity >= 1, "capacity", "at least 1", capacity)
        numbers = np.zeros(_HEAD + 2 * capacity, np.int32)
        # Zeros that were still on their way would be written over the first entries.
        memory = jax.block_until_ready(jax.device_put(numbers, _memory_of_the_host(device)))
        pointer = memory.unsafe_buffer_pointer()
        halves = np.array([pointer % 2**32, pointer // 2**32], np.uint32)
        is_apart = device.platform != "cpu"
        is_reached = not is_apart or _is_reached_by_kernels(pointer)
        self.place = Place(jax.device_put(halves, device), memory, capacity, is_reached)
        self._head, self.indices, self.values = _views(pointer, capacity, owner=memory)
        # A CPU computes meanwhile; other processors may see the entries later than their number.
        is_ordered = platform.machine() in ("x86_64", "AMD64")
        self._polls = _POLLS if is_apart and is_reached and is_ordered else 0

    def announce(self, count: int, *, flag: bool = False) -> int:
        """Say that `indices` and `values` hold a list to read, and return its number."""
        number = int(self._head[_NUMBER]) % _LARGEST_NUMBER + 1
        self._head[: _NUMBER + 1] = count, flag, number
        return number

    def take(self, number: int, result: jax.Array) -> tuple[int, np.ndarray, np.ndarray]:
        """Wait for the list of that number, and return how many neurons it has, and its entries.

        There are no entries beyond the capacity.

        Args:
            number: what the program was given to say when the list is there.
            result: one of the program's, which is there later.
        """
        expected = number.to_bytes(4, sys.byteorder) * (_HEAD - _POSTED)
        posted = self._head[_POSTED:]
        if not any(posted.tobytes() == expected for _ in range(self._polls)):
            jax.block_until_ready(result)
        count = int(self._head[_COUNT])
        listed = max(0, count)
        return count, self.indices[:listed].copy(), self.values[:listed].copy()


def read_host_list(
    place: Place, *, backend: backends.Backend = "auto"
) -> tuple[ActiveSet, Bool[Array, ""], Int32[Array, ""]]:
    """Return a list that the host has announced, its flag and its number: under `jit`.

    Entries behind the list are as the host has left them.

    Args:
        place: of a `HostList` on the device that runs the program.
        backend: "auto", "reference", which calls back to Python, or "kernel".

    Raises:
        RuntimeError: `backend` is "kernel" and none can run.

    Cost: reads the capacity of the list, 8 bytes an entry, across the bus.
    Determinism: what the memory holds when the program comes to it.
    """
    number = jax.ShapeDtypeStruct((), jnp.int32)
    entries = jax.ShapeDtypeStruct((place.capacity,), jnp.int32)
    shapes = (
        entries,
        jax.ShapeDtypeStruct(entries.shape, jnp.float32),
        number,
        jax.ShapeDtypeStruct((), jnp.bool_),
        number,
    )
    indices, values, count, flag, number = backends.dispatch(
        backend,
        READ_HANDLER,
        place.address,
        reference=functools.partial(
            jax.pure_callback, functools.partial(_read, place.capacity), shapes
        ),
        kernel=jax.ffi.ffi_call(backends.target(READ_HANDLER), shapes),
        unsupported=_unsupported(place),
    )
    return ActiveSet(indices, values, count), flag, number


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
        place: of a `HostList` on the device that runs the program.
        active: what to list. What there is no room for shows in the count.
        number: of the list that the host announced.
        backend: as `read_host_list`.

    Returns:
        The number.

    Raises:
        RuntimeError: `backend` is "kernel" and none can run.

    Cost: writes the entries in use, 8 bytes each, across the bus.
    Determinism: whoever finds the number finds all entries, whatever the order they came in.
    """
    shape = jax.ShapeDtypeStruct((), jnp.int32)
    call = jax.ffi.ffi_call(backends.target(WRITE_HANDLER), shape)
    return backends.dispatch(
        backend,
        WRITE_HANDLER,
        place.address,
        active.indices,
        active.values,
        active.count,
        number,
        reference=functools.partial(
            jax.pure_callback, functools.partial(_write, place.capacity), shape
        ),
        kernel=functools.partial(call, capacity=np.int64(place.capacity)),
        unsupported=_unsupported(place),
    )


def _unsupported(place):
    return None if place.is_reached else "kernels of the device do not reach memory of the host"


def _memory_of_the_host(device):
    kind = None if device.platform == "cpu" else "pinned_host"
    return SingleDeviceSharding(device, memory_kind=kind)


def _is_reached_by_kernels(pointer):
    libraries = [library.handle for library in backends.libraries() if library.platform == "cuda"]
    return any(
        handle is not None and handle.BrainjaxReachesHostMemory(ctypes.c_void_p(pointer))
        for handle in libraries
    )


def _views(pointer, capacity, owner=None):
    """Its head, indices and values; what NumPy makes of an array of JAX's is read-only."""
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
    written = min(max(0, int(count)), capacity, indices.size)
    for entry, listed in zip(entries, (indices, values)):
        entry[:written] = np.asarray(listed)[:written]
    head[_COUNT] = count
    head[_POSTED:] = number
    return np.asarray(number)
