"""Sums of rows against float64, and against their own order written out in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same_bits, each_backend, poison_free_memory, random_active
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays

from brainjax import ops
from brainjax.ops.accumulation import LANES

# (pre, post, count, capacity): nobody, one row, one lane group exactly, one more, several.
SIZES = [(5, 3, 0, 2), (1, 1, 1, 1), (40, 7, 32, 32), (70, 33, 33, 50), (200, 9, 130, 131)]
each_size = pytest.mark.parametrize("size", SIZES)
# XLA flushes subnormal numbers to zero on every backend, so they are not drawn.
finite = st.floats(-8, 8, width=32, allow_subnormal=False)


@functools.partial(jax.jit, static_argnames="backend")
def accumulate(weights, active, backend):
    return ops.accumulate_rows(weights, active, backend=backend)


@functools.cache
def drawn_set(size, seed):
    num_pre, _, count, capacity = size
    return random_active(np.random.default_rng(seed), num_pre, count, capacity)


def terms_of(weights, active):
    """The products that are summed, one row per listed neuron, in float64."""
    count = int(active.count)
    rows, values = np.asarray(active.indices)[:count], np.asarray(active.values)[:count]
    return weights[rows].astype(np.float64) * values[:, None].astype(np.float64)


def in_lane_order(weights, active):
    """The documented order of the sum: 32 lanes, which then meet in halves."""
    terms = terms_of(weights.astype(np.float32), active).astype(np.float32)
    lanes = np.zeros((LANES, weights.shape[1]), np.float32)
    for row, term in enumerate(terms):
        lanes[row % LANES] += term
    for half in (16, 8, 4, 2, 1):
        lanes = lanes[:half] + lanes[half : 2 * half]
    return lanes[0]


@each_backend
@each_size
@given(data=st.data())
def test_matches_float64(size, backend, data):
    num_pre, num_post, count, _ = size
    weights = data.draw(arrays(np.float32, (num_pre, num_post), elements=finite, fill=finite))
    values = data.draw(arrays(np.float32, count, elements=finite))
    active = drawn_set(size, 0)
    active = active.replace(values=active.values.at[:count].set(values))

    received = np.asarray(accumulate(jnp.asarray(weights), active, backend), np.float64)

    terms = terms_of(weights, active)
    # Each product and each of the n sums errs by eps / 2 of a partial sum, or underflows.
    limits = np.finfo(np.float32)
    bound = (count + 1) * (limits.eps * np.abs(terms).sum(axis=0) + limits.tiny)
    assert (np.abs(received - terms.sum(axis=0)) <= bound).all()


@each_backend
@each_size
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_sum_has_the_documented_order(size, backend, dtype):
    num_pre, num_post, count, capacity = size
    rng = np.random.default_rng(1)
    weights = jnp.asarray(rng.standard_normal((num_pre, num_post)), dtype)
    active = random_active(rng, num_pre, count, capacity, graded=True)
    received = accumulate(weights, active, backend)
    assert_same_bits(received, in_lane_order(np.asarray(weights, np.float32), active))


# Columns on both sides of a strip of the CPU kernel; lanes of one, four and five rows, and more.
STRIPS = [(1023, 31), (1024, 128), (1025, 129), (2049, 161), (3000, 1)]


@pytest.mark.parametrize(("num_post", "count"), STRIPS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_order_is_kept_across_strips(num_post, count, dtype):
    rng = np.random.default_rng(count)
    weights = jnp.asarray(rng.standard_normal((200, num_post)), dtype)
    active = random_active(rng, 200, count, 200, graded=True)
    received = accumulate(weights, active, "auto")
    assert_same_bits(received, in_lane_order(np.asarray(weights, np.float32), active))


@each_backend
def test_only_listed_rows_are_read(backend):
    weights = jnp.full((50, 6), jnp.nan).at[jnp.array([2, 7])].set(1.0)
    active = ops.active_set.from_indices([2, 7, 9, 11], 50)
    active = active.replace(count=jnp.asarray(2, jnp.int32))
    assert_same_bits(accumulate(weights, active, backend), np.full(6, 2, np.float32))


@each_backend
def test_entries_beyond_the_last_row_are_ignored(backend):
    active = ops.ActiveSet(
        jnp.array([1, 5, 1_000], jnp.int32), jnp.ones(3), jnp.asarray(3, jnp.int32)
    )
    received = accumulate(jnp.arange(10.0).reshape(5, 2), active, backend)
    assert_same_bits(received, np.array([2, 3], np.float32))


@each_backend
def test_ids_that_name_no_row_are_ignored(backend):
    """Whatever they would send, and in the gradient as well."""
    weights = jnp.arange(1.0, 13).reshape(4, 3)
    values = jnp.array([jnp.inf, 2.0, jnp.nan])
    active = ops.ActiveSet(jnp.array([-1, 0, 9]), values, jnp.int32(3))
    np.testing.assert_array_equal(accumulate(weights, active, backend), 2 * weights[0])

    def total(weights, values):
        return ops.accumulate_rows(weights, active.replace(values=values), backend=backend).sum()

    weights_bar, values_bar = jax.grad(total, (0, 1))(weights, values)
    np.testing.assert_array_equal(weights_bar, 2.0 * (np.arange(4) == 0)[:, None] * np.ones(3))
    np.testing.assert_array_equal(values_bar, [0, weights[0].sum(), 0])


@pytest.mark.parametrize("backend", ["reference", "auto"])
@pytest.mark.parametrize(("num_pre", "capacity"), [(4, 0), (0, 3), (0, 0)])
def test_without_rows_or_room_nothing_arrives(num_pre, capacity, backend):
    active, weights = ops.active_set.empty(num_pre, capacity), jnp.ones((num_pre, 3))
    np.testing.assert_array_equal(accumulate(weights, active, backend), np.zeros(3))
    weights_bar = jax.grad(lambda w: accumulate(w, active, backend).sum())(weights)
    np.testing.assert_array_equal(weights_bar, np.zeros((num_pre, 3)))


@each_backend
def test_a_closed_gate_sends_nothing(backend):
    weights = jnp.full((20, 4), jnp.nan)
    gated = ops.active_set.gate(ops.active_set.from_indices([3, 4], 20), False)
    assert_same_bits(accumulate(weights, gated, backend), np.zeros(4, np.float32))


@each_backend
def test_gradient_is_silent_for_padding(backend):
    """Unlisted rows and the values of padding get no gradient, whatever the padding holds."""
    weights = jnp.full((20, 4), 2.0)
    active = ops.active_set.from_indices([3, 4, 5], 20, 6)
    active = active.replace(count=jnp.asarray(2, jnp.int32))

    def total(weights, values):
        return ops.accumulate_rows(weights, active.replace(values=values), backend=backend).sum()

    weights_bar, values_bar = jax.grad(total, (0, 1))(weights, active.values)
    expected = np.zeros((20, 4), np.float32)
    expected[[3, 4]] = 1
    assert_same_bits(weights_bar, expected)
    assert_same_bits(values_bar, np.array([8, 8, 0, 0, 0, 0], np.float32))


def test_float64_weights_are_summed_in_float64():
    with jax.enable_x64(True):
        weights = jnp.asarray([[1.0], [2.0**-40]], jnp.float64)
        active = ops.active_set.from_indices([0, 1], 2)
        for backend in ("reference", "auto"):
            assert float(accumulate(weights, active, backend)[0]) == 1 + 2.0**-40


# On both sides of a strip of 32, 64 and 128 columns, of the sizes at which strips become wider, and
# of 16 bytes, which decide how a row is read.
GPU_COLUMNS = [
    1, 3, 4, 8, 31, 32, 33, 63, 64, 65, 127, 128, 129, 1001, 16_320, 16_321, 16_324, 16_328,
    32_640, 32_641, 32_644, 32_648, 49_024, 49_025, 49_028, 49_032,
]  # fmt: skip
# On both sides of the rows that a block asks for at once, and of those that it holds.
GPU_COUNTS = [0, 1, 31, 32, 33, 64, 65, 127, 128, 129, 1023, 1024, 1025, 2049]


@pytest.mark.gpu
@pytest.mark.parametrize("num_post", GPU_COLUMNS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gpu_columns_at_the_edges_of_strips(num_post, dtype):
    check_on_gpu(num_post, [70], dtype)


@pytest.mark.gpu
@pytest.mark.parametrize("num_post", [100, 101, 16_384, 16_385])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gpu_rows_at_the_edges_of_chunks(num_post, dtype):
    check_on_gpu(num_post, GPU_COUNTS, dtype)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gpu_rows_at_the_edges_of_rounds_of_wide_strips(dtype):
    check_on_gpu(49_152, [0, 1, 31, 32, 33, 127, 128, 129], dtype)


def check_on_gpu(num_post, counts, dtype):
    rng = np.random.default_rng(num_post)
    num_pre = max(counts) + 20
    weights = jnp.asarray(rng.standard_normal((num_pre, num_post), np.float32), dtype)
    values = np.asarray(weights, np.float32)
    for count in counts:
        active = random_active(rng, num_pre, count, num_pre, graded=True)
        poison_free_memory()
        received = accumulate(weights, active, "kernel")
        assert_same_bits(received, in_lane_order(values, active))


@pytest.mark.gpu
@pytest.mark.large
def test_gpu_weights_beyond_32_bits():
    """More than 2**31 weights, 8.6 GB, each 1 in its own column's and row's code."""
    n = 46_400

    @jax.jit
    def make():
        row, column = (jax.lax.broadcasted_iota(jnp.int32, (n, n), axis) for axis in (0, 1))
        return (row % 64 * 1024 + column % 1024).astype(jnp.float32)

    rows = np.array([0, 1, 23_000, n - 2, n - 1])
    received = accumulate(make(), ops.active_set.from_indices(rows, n), "kernel")
    expected = (rows[:, None] % 64 * 1024 + np.arange(n) % 1024).sum(axis=0)  # exact in float32
    assert_same_bits(received, expected.astype(np.float32))


@pytest.mark.gpu
def test_gpu_batch_on_shared_weights():
    """More brains than a grid has rows, all on one matrix."""
    batch, n = 70_000, 40
    rng = np.random.default_rng(0)
    weights = jnp.asarray(rng.standard_normal((n, n), np.float32))
    counts = jnp.arange(batch, dtype=jnp.int32) % 5
    indices = jnp.tile(jnp.array([3, 7, 11, 39], jnp.int32), (batch, 1))
    active = ops.ActiveSet(indices, jnp.ones((batch, 4)), counts)
    received = jax.vmap(lambda a: accumulate(weights, a, "kernel"))(active)
    few = [
        in_lane_order(np.asarray(weights), ops.ActiveSet(indices[0], jnp.ones(4), c))
        for c in range(5)
    ]
    assert_same_bits(received, np.stack(few)[np.arange(batch) % 5])
