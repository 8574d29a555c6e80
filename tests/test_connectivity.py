"""Drawn synapses are independent, of the right probability, and a function of key, i and j."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same_bits, each_backend

from brainjax import connectivity, ops

N, P = 2_000, 0.05


@pytest.fixture(scope="module")
def drawn():
    return np.asarray(connectivity.random(jax.random.key(0), N, N, P).weights)


@pytest.mark.parametrize("axis", [0, 1], ids=["in-degree", "out-degree"])
def test_degrees_are_binomial(drawn, axis):
    degrees = drawn.sum(axis)
    np.testing.assert_allclose(degrees.mean(), N * P, rtol=0.05)
    # The standard deviation of a sample variance is sqrt(2 / N) of it, 3 % here.
    np.testing.assert_allclose(degrees.var(), N * P * (1 - P), rtol=3 * np.sqrt(2 / N))


@pytest.mark.parametrize("shift", [1, 2, 7, 64])
@pytest.mark.parametrize("axis", [0, 1])
def test_neighbours_are_independent(drawn, shift, axis):
    """Two synapses coincide with probability P squared, also those of consecutive neurons."""
    both = (drawn * np.roll(drawn, shift, axis)).mean()
    assert abs(both - P**2) < 4 * np.sqrt(P**2 * (1 - P**2)) / N


def test_mirrored_synapses_are_independent(drawn):
    both = (drawn * drawn.T)[np.triu_indices(N, 1)].mean()
    assert abs(both - P**2) < 4 * np.sqrt(2 * P**2 * (1 - P**2)) / N


@pytest.mark.parametrize(
    "sources",
    [np.arange(100), np.arange(0, N, 20), np.random.default_rng(0).choice(N, 100, replace=False)],
    ids=["consecutive", "strided", "random"],
)
def test_input_from_any_hundred_sources_is_binomial(drawn, sources):
    """Its variance is the signal on which winners are selected."""
    received = drawn[sources].sum(axis=0)
    np.testing.assert_allclose(received.mean(), 100 * P, rtol=0.05)
    np.testing.assert_allclose(received.var(), 100 * P * (1 - P), rtol=4 * np.sqrt(2 / N))


def test_other_keys_draw_independent_synapses(drawn):
    other = np.asarray(connectivity.random(jax.random.key(1), N, N, P).weights)
    assert abs((drawn * other).mean() - P**2) < 4 * np.sqrt(P**2 * (1 - P**2)) / N


def test_weights_are_one_where_a_synapse_exists(drawn):
    assert set(np.unique(drawn)) == {0, 1}
    synapses = connectivity.Dense(jnp.asarray(drawn))
    np.testing.assert_array_equal(connectivity.existing(synapses), drawn == 1)


def test_a_synapse_depends_on_key_and_pair_alone():
    """Not on the sizes, nor on the blocks in which rows are drawn."""
    key = jax.random.key(3)
    small = connectivity.random(key, 40, 60, 0.3).weights
    more_rows_than_a_block = connectivity.random(key, 70_001, 61, 0.3).weights
    assert_same_bits(more_rows_than_a_block[:40, :60], small)
    shorter = connectivity.random(key, 70_000, 61, 0.3).weights
    assert_same_bits(more_rows_than_a_block[:70_000], shorter)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_block_is_the_sum_of_its_neurons(dtype):
    key = jax.random.key(4)
    block = connectivity.random_block(key, 50, 80, 0.3, dtype=dtype).weights
    singles = connectivity.random(key, 50, 80, 0.3, dtype=dtype).weights
    assert block.shape == (1, 80)
    assert block.dtype == singles.dtype == dtype
    np.testing.assert_array_equal(block[0].astype(int), singles.astype(int).sum(axis=0))


@pytest.mark.parametrize("draw", [connectivity.random, connectivity.random_block])
def test_certain_and_impossible_synapses(draw):
    key = jax.random.key(5)
    np.testing.assert_array_equal(draw(key, 3, 4, 0.0).weights, 0)
    full = draw(key, 3, 4, 1.0).weights
    np.testing.assert_array_equal(full.sum(axis=0), 3)


def test_drawing_a_batch_is_a_loop():
    keys = jax.random.split(jax.random.key(6), 3)
    together = jax.vmap(lambda key: connectivity.random(key, 30, 20, 0.2))(keys)
    alone = [connectivity.random(key, 30, 20, 0.2).weights for key in keys]
    assert_same_bits(together.weights, np.stack(alone))


@pytest.mark.parametrize("draw", [connectivity.random, connectivity.random_block])
@pytest.mark.parametrize("probability", [-0.1, 1.5, float("nan")])
def test_probability_out_of_range(draw, probability):
    with pytest.raises(ValueError, match=rf"probability must be in \[0, 1\]; got {probability}"):
        draw(jax.random.key(0), 3, 4, probability)


def test_weights_that_do_not_fit_are_refused():
    with pytest.raises(MemoryError, match=r"10000000 x 10000000 float32 need 400000\.0 GB"):
        connectivity.random(jax.random.key(0), 10**7, 10**7, 0.1)


def graded_synapses(num_pre=70, num_post=40, seed=7):
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0.5, 3, (num_pre, num_post)) * (rng.random((num_pre, num_post)) < 0.4)
    weights[:, 5] = 0
    return connectivity.Dense(jnp.asarray(weights, jnp.float32))


def assert_sums_are_one(weights):
    """Sums of quotients, each rounded once more than the sum that divides."""
    sums = np.asarray(weights, np.float64).sum(axis=0)
    bound = (weights.shape[0] + 2) * np.finfo(np.float32).eps
    np.testing.assert_allclose(sums, 1, rtol=0, atol=bound)


@each_backend
def test_normalised_weights_sum_to_one(backend):
    synapses = graded_synapses()
    normalised = np.asarray(connectivity.normalise(synapses, backend).weights)
    np.testing.assert_array_equal(normalised[:, 5], 0)
    assert_sums_are_one(np.delete(normalised, 5, axis=1))
    assert_same_bits(normalised, connectivity.normalise(synapses, "reference").weights)


@each_backend
def test_normalise_onto_changes_listed_neurons_only(backend):
    synapses = graded_synapses()
    post = ops.active_set.from_indices([2, 5, 11, 20], 40, capacity=6)
    post = post.replace(count=jnp.asarray(3, jnp.int32))
    changed = np.asarray(connectivity.normalise_onto(synapses, post, backend).weights)
    others = np.setdiff1d(np.arange(40), [2, 5, 11])
    assert_same_bits(changed[:, others], np.asarray(synapses.weights)[:, others])
    everywhere = np.asarray(connectivity.normalise(synapses, backend).weights)
    assert_same_bits(changed[:, [2, 5, 11]], everywhere[:, [2, 5, 11]])


@each_backend
def test_accumulate_and_potentiate_are_those_of_the_layout(backend):
    synapses = graded_synapses()
    pre = ops.active_set.from_indices([1, 2, 60], 70)
    post = ops.active_set.from_indices([0, 39], 40)
    weights = np.asarray(synapses.weights)
    received = connectivity.accumulate(synapses, pre, backend)
    np.testing.assert_allclose(received, weights[[1, 2, 60]].sum(axis=0), rtol=1e-6)
    changed = connectivity.potentiate(synapses, pre, post, 1.0, jnp.inf, backend).weights
    expected = weights.copy()
    expected[np.ix_([1, 2, 60], [0, 39])] *= 2
    assert_same_bits(changed, expected)
