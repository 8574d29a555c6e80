"""The active set: built, turned dense and back, gated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same_bits, neurons
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays

from brainjax.ops import active_set


def test_empty_is_padding():
    empty = active_set.empty(7, 3)
    np.testing.assert_array_equal(empty.indices, [7, 7, 7])
    np.testing.assert_array_equal(empty.values, [0, 0, 0])
    assert int(empty.count) == 0


@given(st.sets(st.integers(0, 19)))
def test_from_indices_sorts_and_pads(ids):
    active = active_set.from_indices(np.array([*ids], np.int64), 20, capacity=25)
    np.testing.assert_array_equal(neurons(active), sorted(ids))
    assert (active.indices[len(ids) :] == 20).all()
    np.testing.assert_array_equal(active.values, np.arange(25) < len(ids))


def test_from_indices_has_just_enough_capacity():
    assert active_set.from_indices([5, 2], 9).indices.shape == (2,)
    assert active_set.from_indices([], 9).indices.shape == (1,)


@pytest.mark.parametrize(
    ("ids", "capacity", "message"),
    [
        ([0, 9], None, r"indices must be in 0\.\.8; got 0 to 9"),
        ([-1, 3], None, r"indices must be in 0\.\.8; got -1 to 3"),
        ([4, 2, 4], None, r"indices must be distinct; got 4 twice"),
        ([1, 2, 3], 2, r"capacity must be at least 3, one per index; got 2"),
    ],
)
def test_from_indices_errors(ids, capacity, message):
    with pytest.raises(ValueError, match=message):
        active_set.from_indices(ids, 9, capacity)


@pytest.mark.parametrize("ids", [[1.7, 2.2], np.array([True, False])])
def test_ids_are_integers(ids):
    with pytest.raises(TypeError, match="indices must be integers"):
        active_set.from_indices(ids, 5)


def test_ids_that_name_nobody_are_in_no_dense_array():
    active = active_set.ActiveSet(np.array([-1, 1, 5]), np.ones(3, np.float32), np.int32(3))
    np.testing.assert_array_equal(active_set.to_dense(active, 3), [0, 1, 0])


@given(arrays(np.float32, 12, elements=st.sampled_from([0.0, 0.0, 1.0, -2.0, 0.5])))
def test_dense_round_trip(activity):
    active = active_set.from_dense(jnp.asarray(activity))
    np.testing.assert_array_equal(neurons(active), np.flatnonzero(activity))
    assert_same_bits(active_set.to_dense(active, 12), activity)


def test_dense_round_trip_is_differentiable():
    activity = jnp.array([0.0, 2.0, 0.0, 3.0])

    def energy(activity):
        return (active_set.to_dense(active_set.from_dense(activity), 4) ** 2).sum()

    np.testing.assert_array_equal(jax.grad(energy)(activity), [0, 4, 0, 6])


def test_from_dense_never_drops():
    activity = jnp.array([1.0, 0.0, 1.0, 1.0])
    assert active_set.from_dense(activity, 3).indices.shape == (3,)
    with pytest.raises(ValueError, match="capacity must be at least the 3 active; got 2"):
        active_set.from_dense(activity, 2)
    with pytest.raises(ValueError, match=r"capacity must be at least the 4 neurons .* got 3"):
        jax.jit(lambda activity: active_set.from_dense(activity, 3))(activity)


@pytest.mark.parametrize("is_open", [True, False])
def test_gate(is_open):
    gated = active_set.gate(active_set.from_indices([1, 4], 9), jnp.asarray(is_open))
    np.testing.assert_array_equal(neurons(gated), [1, 4] if is_open else [])


def test_a_closed_gate_is_dense_silence():
    """Entries beyond the count are never read."""
    gated = active_set.gate(active_set.from_indices([1, 4], 9), False)
    assert_same_bits(active_set.to_dense(gated, 9), np.zeros(9, np.float32))


def test_listed():
    active = active_set.from_indices([1, 4], 9, capacity=4)
    np.testing.assert_array_equal(active_set.listed(active), [True, True, False, False])
