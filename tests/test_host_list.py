"""Lists in memory of the host: what programs read there, and what they leave."""

import dataclasses
import functools
import gc
import itertools
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same_bits, each_backend

from brainjax import ops
from brainjax.ops import host_list

POISON = -7
# Below, at and above what a block of readers, and all writers, take in one go.
CAPACITIES = [1, 255, 256, 257, 8_192, 8_195]
on_each_device = pytest.mark.parametrize(
    "platform", ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)]
)


def device_of(platform):
    return jax.devices(platform)[0]


@functools.partial(jax.jit, static_argnames="backend")
def doubled(sent, returned, count, backend):
    """Read a list, write it doubled with another count, and return what was read."""
    active, flag, number = ops.read_host_list(sent, backend=backend)
    twice = dataclasses.replace(active, values=2 * active.values, count=count)
    written = ops.write_host_list(returned, twice, number, backend=backend)
    return active, flag, written


def fill(rng, sent):
    sent.indices[:] = rng.integers(-(2**31), 2**31, sent.indices.size)
    sent.values[:] = rng.normal(size=sent.values.size)
    return sent.indices.copy(), sent.values.copy()


def counts_of(capacity):
    return sorted({0, 1, capacity // 2, capacity - 1, capacity})


@on_each_device
@each_backend
@pytest.mark.parametrize("capacity", CAPACITIES)
def test_programs_read_what_the_host_lists_and_write_what_it_takes(platform, backend, capacity):
    """Padding is read as it lies, and of what is written nothing lies behind the last entry."""
    device, rng = device_of(platform), np.random.default_rng(capacity)
    sent, returned = (ops.HostList(capacity, device) for _ in range(2))
    assert sent.place.is_reached
    for count in counts_of(capacity):
        indices, values = fill(rng, sent)
        returned.indices[:], returned.values[:] = POISON, POISON
        flag = bool(count % 2)
        number = sent.announce(count, flag=flag)
        device_count = jax.device_put(np.int32(count), device)
        active, got_flag, read = doubled(sent.place, returned.place, device_count, backend)
        got = returned.take(number, read)
        assert_same_bits(got, (count, indices[:count], 2 * values[:count]))
        assert_same_bits(active, ops.ActiveSet(indices, values, np.int32(count)))
        assert (bool(got_flag), int(read)) == (flag, number)
        assert (returned.indices[count:] == POISON).all()
        assert (returned.values[count:] == POISON).all()


@on_each_device
@each_backend
@pytest.mark.parametrize("count", [-3, 5, 20, 70, 2**31 - 1])
@pytest.mark.parametrize("room", [20, 50, 64])
def test_a_count_may_be_anything(platform, backend, count, room):
    """It comes back as it is. No more entries are written than there are, and have room."""
    device = device_of(platform)
    sent, returned = ops.HostList(50, device), ops.HostList(room, device)
    indices, values = fill(np.random.default_rng(0), sent)
    returned.indices[:], returned.values[:] = POISON, POISON
    number = sent.announce(50)
    device_count = jax.device_put(np.int32(count), device)
    read = doubled(sent.place, returned.place, device_count, backend)[-1]
    got, *entries = returned.take(number, read)
    listed, written = min(max(count, 0), room), min(max(count, 0), room, 50)
    assert got == count
    assert all(entry.size == listed for entry in entries)
    read_again = [entry[:written] for entry in entries]
    assert_same_bits(read_again, [indices[:written], 2 * values[:written]])
    assert (returned.indices[written:] == POISON).all()
    assert (returned.values[written:] == POISON).all()


@on_each_device
def test_a_taken_list_stays(platform):
    """The next one is written over the memory, not over what was returned."""
    device = device_of(platform)
    sent, returned = ops.HostList(3, device), ops.HostList(3, device)
    lists = []
    for value in (1.0, 2.0):
        sent.indices[:], sent.values[:] = [4, 5, 6], value
        number = sent.announce(3)
        count = jax.device_put(np.int32(3), device)
        read = doubled(sent.place, returned.place, count, "auto")[-1]
        lists.append(returned.take(number, read)[2])
    np.testing.assert_array_equal(lists, [[2, 2, 2], [4, 4, 4]])


@on_each_device
def test_programs_are_compiled_once_for_lists_anywhere(platform):
    device = device_of(platform)
    count = jax.device_put(np.int32(1), device)
    before = doubled._cache_size()
    for _ in range(3):
        sent, returned = ops.HostList(31, device), ops.HostList(31, device)
        returned.take(sent.announce(1), doubled(sent.place, returned.place, count, "auto")[-1])
    assert doubled._cache_size() == before + 1


def test_a_view_keeps_the_memory():
    sent = ops.HostList(1, device_of("cpu"))
    numbers = sent.indices.base.base.obj  # what the host's arrays are views of
    memory, indices = weakref.ref(numbers.owner), sent.indices
    del numbers
    del sent
    gc.collect()
    assert memory() is not None
    del indices
    gc.collect()
    assert memory() is None


def test_numbers_begin_again_at_one(monkeypatch):
    monkeypatch.setattr(host_list, "_numbers", itertools.count(2**31 - 2))
    sent = ops.HostList(1, device_of("cpu"))
    assert [sent.announce(0) for _ in range(2)] == [2**31 - 1, 1]


@on_each_device
@pytest.mark.parametrize("polls", [0, 10_000])
def test_what_is_left_of_another_list_is_not_taken(platform, polls):
    device = device_of(platform)
    first, second, returned = (ops.HostList(1, device) for _ in range(3))
    returned._polls = polls
    count = jax.device_put(np.int32(1), device)
    number = first.announce(1)
    written = doubled(first.place, returned.place, count, "auto")[-1]
    returned.take(number, written)
    other = second.announce(1)
    with pytest.raises(RuntimeError, match=f"number of the list must be {other}; got {number}"):
        returned.take(other, written)


def test_memory_that_kernels_do_not_reach_is_left_to_the_reference():
    device = device_of("cpu")
    sent, returned = ops.HostList(2, device), ops.HostList(2, device)
    sent.indices[:], sent.values[:] = [7, 8], [1, 2]
    number = sent.announce(2)
    places = [dataclasses.replace(each.place, is_reached=False) for each in (sent, returned)]
    read = doubled(*places, jnp.int32(2), "auto")[-1]
    assert_same_bits(returned.take(number, read)[1:], (np.array([7, 8], np.int32), 2 * sent.values))
    with pytest.raises(RuntimeError, match="do not reach memory of the host"):
        doubled(*places, jnp.int32(2), "kernel")


@on_each_device
@each_backend
def test_a_list_tells_whether_it_goes_through_python(platform, backend):
    sent = ops.HostList(2, device_of(platform))
    assert sent.has_kernels(backend) == (backend == "kernel")
    sent.place = dataclasses.replace(sent.place, is_reached=False)
    assert not sent.has_kernels(backend)


def test_a_capacity_of_nothing_is_refused():
    with pytest.raises(ValueError, match="capacity must be at least 1; got 0"):
        ops.HostList(0, device_of("cpu"))
