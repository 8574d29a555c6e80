"""The change of synapses against an explicit loop."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same_bits, each_backend, neurons, random_active
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays

from brainjax import ops

# (pre, post, count of pre, count of post): nobody on one side, one synapse, all, some.
SIZES = [(4, 6, 0, 3), (4, 6, 3, 0), (1, 1, 1, 1), (9, 17, 9, 17), (40, 70, 12, 33)]
each_size = pytest.mark.parametrize("size", SIZES)
weight = st.one_of(st.just(0.0), st.floats(0.125, 30, width=32))
gain = st.floats(-1, 1, width=32, allow_subnormal=False).filter(lambda x: x == 0 or abs(x) > 1e-3)


@functools.partial(jax.jit, static_argnames="backend")
def potentiate(weights, pre, post, beta, w_max, backend):
    return ops.potentiate(weights, pre, post, beta, w_max, backend=backend)


@functools.cache
def drawn_sets(size):
    num_pre, num_post, pre_count, post_count = size
    rng = np.random.default_rng(0)
    return (
        random_active(rng, num_pre, pre_count, num_pre),
        random_active(rng, num_post, post_count, num_post),
    )


def in_a_loop(weights, pre, post, beta, w_max):
    """The definition, one synapse at a time, each operation rounded to float32."""
    changed = weights.copy()
    one = np.float32(1)
    for a, i in enumerate(neurons(pre)):
        for b, j in enumerate(neurons(post)):
            values = np.float32(pre.values[a]) * np.float32(post.values[b])
            new = weights[i, j].astype(np.float32) * (one + np.float32(beta) * values)
            changed[i, j] = min(new, np.float32(w_max))
    return changed


@each_backend
@each_size
@given(data=st.data())
def test_matches_a_loop(size, backend, data):
    num_pre, num_post, pre_count, _ = size
    weights = data.draw(arrays(np.float32, (num_pre, num_post), elements=weight, fill=weight))
    pre, post = drawn_sets(size)
    pre = pre.replace(
        values=pre.values.at[:pre_count].set(
            data.draw(arrays(np.float32, pre_count, elements=gain))
        )
    )
    beta, w_max = data.draw(gain), data.draw(st.sampled_from([2.0, 20.0, np.inf]))
    changed = potentiate(jnp.asarray(weights), pre, post, beta, w_max, backend)
    assert_same_bits(changed, in_a_loop(weights, pre, post, beta, w_max))


@each_backend
@each_size
def test_bfloat16_is_rounded_once(size, backend):
    num_pre, num_post, *_ = size
    weights = jnp.asarray(np.random.default_rng(1).uniform(0, 4, (num_pre, num_post)), jnp.bfloat16)
    pre, post = drawn_sets(size)
    changed = potentiate(weights, pre, post, 0.3, 3.0, backend)
    assert_same_bits(changed, in_a_loop(np.asarray(weights), pre, post, 0.3, 3.0))


def normal_bfloat16s():
    """All that a change by less than a factor of 4 keeps normal and finite."""
    positive = np.arange(0x0180, 0x7E80, dtype=np.uint16)
    return np.concatenate([positive, positive | 0x8000]).view(jnp.bfloat16)


@each_backend
@pytest.mark.parametrize("beta", [np.float32(2**-8 + 2**-23), 0.05, -(2.0**-8)])
def test_every_bfloat16_weight_moves(backend, beta):
    """The smallest beta above the limit, a usual one, and the smallest that weakens."""
    old = normal_bfloat16s()
    pre = ops.active_set.from_indices([0], 1)
    post = ops.active_set.from_indices(np.arange(old.size), old.size)
    new = np.asarray(potentiate(jnp.asarray(old[None]), pre, post, beta, np.inf, backend)[0])
    larger, smaller = np.abs(new.astype(np.float32)), np.abs(old.astype(np.float32))
    assert (larger > smaller).all() if beta > 0 else (larger < smaller).all()


def test_powers_of_two_stay_at_the_limit():
    """2**-8 is the largest beta at which a bfloat16 weight rounds back: why it is refused."""
    one = ops.active_set.from_indices([0], 1)
    weights = jnp.ones((1, 1), jnp.bfloat16)
    traced = potentiate(weights, one, one, 2.0**-8, np.inf, "auto")
    assert_same_bits(traced, np.asarray(weights))


@pytest.mark.parametrize("beta", [2.0**-8, 1e-3, -1e-3, 2.0**-8 + 2.0**-30])
def test_a_beta_that_bfloat16_weights_lose_is_refused(beta):
    one = ops.active_set.from_indices([0], 1)
    with pytest.raises(ValueError, match="beta must be 0, above 2\\*\\*-8"):
        ops.potentiate(jnp.ones((1, 1), jnp.bfloat16), one, one, beta)
    ops.potentiate(jnp.ones((1, 1)), one, one, beta)
    ops.potentiate(jnp.ones((1, 1), jnp.bfloat16), one, one, 0.0)


@each_backend
def test_absent_synapses_stay_absent(backend):
    everyone = ops.active_set.from_indices(np.arange(5), 5)
    weights = jnp.eye(5)
    for _ in range(3):
        weights = potentiate(weights, everyone, everyone, 1.0, np.inf, backend)
    assert_same_bits(weights, 8 * np.eye(5, dtype=np.float32))


@each_backend
def test_ids_that_name_nobody_change_nothing(backend):
    """Nor do unlisted entries, whatever their value, in the gradient either."""
    pre = ops.ActiveSet(jnp.array([-1, 1, 7]), jnp.array([jnp.inf, 1.0, 3.0]), jnp.int32(2))
    post = ops.ActiveSet(jnp.array([-2, 0, 2]), jnp.array([jnp.nan, 1.0, jnp.inf]), jnp.int32(2))
    weights, expected = jnp.ones((4, 5)), np.ones((4, 5))
    expected[1, 0] = 1.5
    changed = potentiate(weights, pre, post, jnp.float32(0.5), jnp.float32(9), backend)
    np.testing.assert_array_equal(changed, expected)

    def total(weights, values, beta):
        learnt = pre.replace(values=values)
        return ops.potentiate(weights, learnt, post, beta, backend=backend).sum()

    bars = jax.grad(total, (0, 1, 2))(weights, pre.values, jnp.float32(0.5))
    for bar, wanted in zip(bars, (expected, [0, 0.5, 0], 1), strict=True):
        np.testing.assert_array_equal(bar, wanted)


@each_backend
def test_no_beta_no_change(backend):
    """Bit for bit, also of a weight that no increase could reach, as long as it is in the limit."""
    weights = jnp.asarray(np.random.default_rng(2).standard_normal((30, 30)), jnp.float32)
    pre, post = (random_active(np.random.default_rng(3), 30, 12, 15) for _ in range(2))
    assert_same_bits(potentiate(weights, pre, post, 0.0, np.inf, backend), np.asarray(weights))


@each_backend
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_without_neurons_nothing_changes(shape, backend):
    pre, post = (ops.active_set.empty(n, 2) for n in shape)

    def total(weights, beta):
        return ops.potentiate(weights, pre, post, beta, backend=backend).sum()

    weights_bar, beta_bar = jax.grad(total, (0, 1))(jnp.ones(shape), 0.5)
    assert (weights_bar.shape, float(beta_bar)) == (shape, 0)


@each_backend
def test_limit_applies_to_changed_synapses_only(backend):
    weights = jnp.full((3, 3), 30.0)
    one = ops.active_set.from_indices([1], 3)
    changed = potentiate(weights, one, one, 0.1, 20.0, backend)
    expected = np.full((3, 3), 30, np.float32)
    expected[1, 1] = 20
    assert_same_bits(changed, expected)


@each_backend
def test_nan_weights_are_not_hidden_by_the_limit(backend):
    one = ops.active_set.from_indices([0], 1)
    changed = potentiate(jnp.full((1, 1), jnp.nan), one, one, 0.1, 20.0, backend)
    assert np.isnan(changed).all()


@each_backend
def test_argument_is_left_alone(backend):
    """In place only for the caller who gives the buffer away."""
    weights = jnp.ones((8, 8))
    everyone = ops.active_set.from_indices(np.arange(8), 8)
    ops.potentiate(weights, everyone, everyone, 1.0, backend=backend)
    assert_same_bits(weights, np.ones((8, 8), np.float32))


@each_backend
def test_derivatives_by_hand(backend):
    """One synapse below its limit and one above it."""
    weights = jnp.array([[2.0, 18.0]])
    pre, post = ops.active_set.from_indices([0], 1), ops.active_set.from_indices([0, 1], 2)

    def total(weights, beta, w_max):
        return ops.potentiate(weights, pre, post, beta, w_max, backend=backend).sum()

    weights_bar, beta_bar, w_max_bar = jax.grad(total, (0, 1, 2))(weights, 0.5, 20.0)
    np.testing.assert_allclose(weights_bar, [[1.5, 0.0]])
    np.testing.assert_allclose([beta_bar, w_max_bar], [2.0, 1.0])


# Sizes on both sides of what a block of 256 threads takes: a warp of winners, a block, and more
# blocks than run side by side; rows as many as blocks, and one more.
GPU_SIZES = [
    (70, 33, 1, 1), (70, 300, 31, 32), (70, 300, 33, 129), (600, 700, 512, 256),
    (600, 701, 513, 257), (1100, 5003, 1025, 1024), (40, 9001, 40, 9000), (2051, 1100, 2050, 1099),
]  # fmt: skip


@pytest.mark.gpu
@pytest.mark.parametrize("size", GPU_SIZES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gpu_at_the_edges_of_blocks(size, dtype):
    num_pre, num_post, pre_count, post_count = size
    rng = np.random.default_rng(sum(size))
    weights = jnp.asarray(rng.standard_normal((num_pre, num_post), np.float32), dtype)
    pre = random_active(rng, num_pre, pre_count, min(pre_count + 3, num_pre), graded=True)
    post = random_active(rng, num_post, post_count, min(post_count + 5, num_post))
    old = np.asarray(weights)
    changed = potentiate(weights, pre, post, 0.3, 1.5, "kernel")
    rows, columns = neurons(pre), neurons(post)
    values = np.asarray(pre.values)[: rows.size, None] * np.ones(columns.size, np.float32)
    new = old[np.ix_(rows, columns)].astype(np.float32) * (1 + np.float32(0.3) * values)
    expected = old.copy()
    expected[np.ix_(rows, columns)] = np.minimum(new, np.float32(1.5)).astype(old.dtype)
    assert_same_bits(changed, expected)


@pytest.mark.gpu
@pytest.mark.parametrize("count", [0, 1, 100])
def test_gpu_reads_few_of_a_long_list(count):
    """Lists as long as the population, of which `count` entries are in use."""
    n = 20_000
    rng = np.random.default_rng(count)
    pre, post = (random_active(rng, n, count, n, padding=0) for _ in range(2))
    changed = potentiate(jnp.ones((n, n), jnp.bfloat16), pre, post, 1.0, np.inf, "kernel")
    assert int((changed == 2).sum()) == count**2
    assert (changed[pre.indices[:count]][:, post.indices[:count]] == 2).all()


@pytest.mark.gpu
@pytest.mark.large
def test_gpu_weights_beyond_32_bits():
    """More than 2**31 weights, 8.6 GB: the last rows and columns are reached, no other."""
    n = 46_400
    ends = ops.active_set.from_indices([0, 1, n - 2, n - 1], n)
    weights = jnp.ones((n, n), jnp.float32)
    change = jax.jit(
        lambda w: ops.potentiate(w, ends, ends, 1.0, backend="kernel"), donate_argnums=0
    )
    changed = change(weights)
    block = changed[ends.indices][:, ends.indices]
    assert_same_bits(block, np.full((4, 4), 2, np.float32))
    assert int(jnp.sum(changed != 1, axis=1).sum()) == 16
