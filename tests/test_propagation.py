"""Sums over sparse synapses against exact integers, and the formats that hold the synapses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    assert_same_bits,
    at,
    each_backend,
    each_kernel,
    on_gpu,
    random_active,
    stacked,
    take_way,
    weights_of_synapses,
)
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays
from jax.test_util import check_grads

from brainjax import ops
from brainjax.ops import propagation, propagation_plan, sparse_rows
from brainjax.ops.propagation import propagate_integers, propagate_spikes
from brainjax.ops.sparse_rows import choose_fraction_bits, compressed_rows, fixed_fan_out

# (pre, post, fan_out): one synapse, whole vectors, a rest, rows longer than a warp, nothing.
SHAPES = [(1, 1, 1), (40, 17, 4), (30, 9, 7), (12, 300, 129), (5, 3, 0)]
each_shape = pytest.mark.parametrize("shape", SHAPES)
each_layout = pytest.mark.parametrize("layout", ["compressed", "fixed"])
each_kind = pytest.mark.parametrize("kind", ["unit", "uint8", "float32"])
# Both sides of a slice that one block of the CUDA kernel adds up, and of the largest such slice.
each_size = pytest.mark.parametrize("num_post", [1, 1_024, 1_025, 262_144, 262_145, 5_000_003])
# How CUDA kernels sum: in memory, in one launch (a single problem, rows of one length), or slices.
WAYS = ["scatter", "together", "sort"]
each_way = pytest.mark.parametrize("way", WAYS)
values_of_spikes = st.floats(-4, 4, width=32, allow_subnormal=False)
INT32 = np.iinfo(np.int32)


@functools.partial(jax.jit, static_argnames=("num_post", "backend"))
def integers(synapses, active, num_post, backend):
    return propagate_integers(synapses, active, num_post, backend=backend)


@functools.partial(jax.jit, static_argnames=("num_post", "backend"))
def propagate(synapses, active, num_post, backend):
    return propagate_spikes(synapses, active, num_post, backend=backend)


@functools.cache
def drawn_synapses(layout, kind, shape, seed=0, **options):
    """Random synapses, with repeated targets; rows of the compressed layout differ in length."""
    num_pre, num_post, fan_out = shape
    rng = np.random.default_rng(seed)
    if layout == "fixed":
        indices = rng.integers(0, num_post + 1, (num_pre, fan_out))  # num_post: no synapse
        weights = weights_of_synapses(rng, kind, indices.shape)
        return fixed_fan_out(indices, num_post, weights, **options)
    lengths = rng.integers(0, 2 * fan_out + 1, num_pre) * rng.integers(0, 2, num_pre)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    indices = rng.integers(0, num_post, indptr[-1])
    weights = weights_of_synapses(rng, kind, indices.shape)
    return compressed_rows(indptr, indices, num_post, weights, **options)


def rows_of(synapses):
    """(targets, weights) of each presynaptic neuron."""
    indices = np.asarray(synapses.indices)
    weights = np.ones(indices.shape, np.float32)
    if synapses.weights is not None:
        weights = np.asarray(synapses.weights, np.float32)
    if isinstance(synapses, sparse_rows.FixedFanOut):
        return list(zip(indices, weights))
    cuts = np.asarray(synapses.indptr)[1:-1]
    return list(zip(np.split(indices, cuts), np.split(weights, cuts)))


def expected_integers(synapses, active, num_post):
    """The definition in 64-bit integers, which do not overflow here; wrapped to 32 at the end."""
    rows, sums = rows_of(synapses), np.zeros(num_post, np.int64)
    count = min(int(active.count), active.indices.shape[0])
    gains = np.asarray(active.values, np.float32) * np.float32(2.0**synapses.fraction_bits)
    for pre, gain in zip(np.asarray(active.indices)[: max(count, 0)], gains):
        if 0 <= pre < len(rows):
            targets, weights = rows[pre]
            terms = np.clip(np.rint(gain * weights).astype(np.float64), INT32.min, INT32.max)
            known = (targets >= 0) & (targets < num_post) & ~np.isnan(terms)
            np.add.at(sums, targets[known], terms[known].astype(np.int64))
    return sums.astype(np.uint32).view(np.int32)


def matrix_of(synapses, num_post):
    """The same synapses as dense float64 weights."""
    dense = np.zeros((len(rows_of(synapses)), num_post + 1))
    for row, (targets, weights) in zip(dense, rows_of(synapses)):
        np.add.at(row, targets, weights)
    return dense[:, :num_post]


def drawn_set(num_pre, count, capacity, seed=1, **options):
    return random_active(np.random.default_rng(seed), num_pre, count, capacity, **options)


@each_backend
@each_layout
@each_kind
@each_shape
@given(data=st.data())
def test_sums_are_exact(shape, kind, layout, backend, data):
    num_pre, num_post, _ = shape
    synapses = drawn_synapses(layout, kind, shape)
    count = (num_pre + 1) // 2
    active = drawn_set(num_pre, count, num_pre)
    values = data.draw(arrays(np.float32, num_pre, elements=values_of_spikes))
    active = active.replace(values=jnp.asarray(values))
    expected = expected_integers(synapses, active, num_post)
    assert_same_bits(integers(synapses, active, num_post, backend), expected)


@each_backend
@each_layout
@each_kind
def test_what_is_received_are_scaled_integers(kind, layout, backend):
    synapses = drawn_synapses(layout, kind, (30, 9, 7))
    active = drawn_set(30, 20, 30, graded=True)
    expected = scaled(expected_integers(synapses, active, 9), synapses)
    assert_same_bits(propagate(synapses, active, 9, backend), expected)


def both(synapses, active, num_post, backend="kernel"):
    call = synapses, active, num_post
    return propagate_integers(*call, backend=backend), propagate_spikes(*call, backend=backend)


def expected_both(synapses, active, num_post):
    sums = expected_integers(synapses, active, num_post)
    return sums, scaled(sums, synapses)


def scaled(sums, synapses):
    return sums.astype(np.float32) * np.float32(2.0**-synapses.fraction_bits)


@each_kernel
@each_layout
@each_kind
@pytest.mark.parametrize("way", WAYS[1:])
@pytest.mark.parametrize("brains", [None, 3])
def test_what_may_be_many_is_written_as_it_is_received(
    brains, way, kind, layout, backend, monkeypatch
):
    """By the kernel itself; on a CPU too, whose threads share the synapses."""
    take_way(way, monkeypatch, least=10)
    synapses = drawn_synapses(layout, kind, (1_000, 5_001, 41), fraction_bits=14)
    sets = [drawn_set(1_000, count, 1_000, count, graded=count > 500) for count in (0, 800, 499)]
    call = functools.partial(both, num_post=5_001, backend=backend)
    if brains is None:
        received = [jax.jit(call)(synapses, active) for active in sets]
    else:
        together = jax.jit(jax.vmap(call, (None, 0)))(synapses, stacked(sets))
        received = [at(together, place) for place in range(brains)]
    for result, active in zip(received, sets, strict=True):
        assert_same_bits(result, expected_both(synapses, active, 5_001))


@each_backend
@each_layout
@pytest.mark.parametrize("kind", ["unit", "uint8"])
def test_spikes_over_integer_weights_are_counted(layout, kind, backend):
    """Value 1 over weights of 1 and over uint8: integers, with and without fraction bits."""
    shape = (40, 17, 4)
    active = drawn_set(40, 25, 40)
    for options in ({}, {"fraction_bits": 0}):
        synapses = drawn_synapses(layout, kind, shape, **options)
        received = propagate(synapses, active, 17, backend)
        listed = np.asarray(active.indices)[:25]
        assert_same_bits(received, matrix_of(synapses, 17)[listed].sum(0).astype(np.float32))
    assert_same_bits(integers(synapses, active, 17, backend), received.astype(jnp.int32))


@each_backend
@each_layout
@pytest.mark.parametrize("count", [-5, 0, 1, 30, 31, 1_000])
def test_count_may_be_anything(layout, count, backend):
    synapses = drawn_synapses(layout, "float32", (30, 9, 7))
    active = drawn_set(30, 30, 31).replace(count=jnp.asarray(count, jnp.int32))
    expected = expected_integers(synapses, active, 9)
    assert_same_bits(integers(synapses, active, 9, backend), expected)


@each_kernel
@each_layout
@each_kind
def test_threads_share_the_synapses(layout, kind, backend):
    """Of few and many neurons, onto few and onto so many that second sums would take longer."""
    for num_post in (2_000, 600_000):
        synapses = drawn_synapses(layout, kind, (1_000, num_post, 101), fraction_bits=14)
        for count, graded in ((3, True), (250, False), (400, True), (1_000, False)):
            active = drawn_set(1_000, count, 1_000, graded=graded)
            expected = expected_integers(synapses, active, num_post)
            assert_same_bits(integers(synapses, active, num_post, backend), expected)


def rows_of_any_length(num_pre, num_post, longest):
    """Unit synapses: a row that is much longer than others, beside many of a few."""
    rng = np.random.default_rng(8)
    lengths = np.minimum((rng.pareto(1.0, num_pre) * 30).astype(np.int64), longest)
    lengths[num_pre // 2] = longest
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    indices = rng.integers(0, num_post, indptr[-1])
    return compressed_rows(indptr, indices, num_post, fraction_bits=0), lengths


def spikes_arriving(synapses, lengths, active, num_post):
    listed = np.zeros(lengths.size, bool)
    listed[np.asarray(active.indices[: int(active.count)])] = True
    targets = np.asarray(synapses.indices)[: lengths.sum()]
    return np.bincount(targets[np.repeat(listed, lengths)], minlength=num_post).astype(np.int32)


@each_kernel
def test_threads_divide_rows_of_any_length(backend):
    synapses, lengths = rows_of_any_length(3_000, 5_000, 30_000)
    for count in (3_000, 1_000):
        active = drawn_set(3_000, count, 3_000)
        expected = spikes_arriving(synapses, lengths, active, 5_000)
        assert_same_bits(integers(synapses, active, 5_000, backend), expected)


@each_backend
@each_layout
def test_ids_that_name_nobody_are_skipped(layout, backend):
    synapses = drawn_synapses(layout, "float32", (30, 9, 7))
    far = np.array([-1, 9, 10, INT32.max, INT32.min], np.int32)
    targets = np.asarray(synapses.indices).copy()
    targets.reshape(-1)[::3][: 5 * (targets.size // 15)] = np.tile(far, targets.size // 15)
    synapses = synapses.replace(indices=jnp.asarray(targets))
    active = drawn_set(30, 20, 25)
    stray = active.indices.at[jnp.array([0, 3, 7, 9])].set(
        jnp.array([-1, 30, INT32.max, INT32.min], jnp.int32)
    )
    active = active.replace(indices=stray)
    expected = expected_integers(synapses, active, 9)
    assert_same_bits(integers(synapses, active, 9, backend), expected)


@each_backend
def test_a_damaged_indptr_reads_no_foreign_memory(backend):
    synapses = compressed_rows([0, 2, 4, 6], [0, 1, 2, 0, 1, 2], 3, fraction_bits=0)
    damaged = synapses.replace(indptr=jnp.array([-7, 2, INT32.max, 1], jnp.int32))
    active = ops.active_set.from_indices([0, 1, 2], 3)
    # Rows are cut to the synapses that exist: [0, 2), [2, 6) and none.
    assert_same_bits(integers(damaged, active, 3, backend), np.array([2, 2, 2], np.int32))


@each_backend
@each_layout
def test_order_of_synapses_changes_no_bit(layout, backend):
    shape, active = (12, 300, 129), drawn_set(12, 9, 12, graded=True)
    synapses = drawn_synapses(layout, "float32", shape)
    rng = np.random.default_rng(5)
    rows = [
        (t[order], w[order]) for t, w in rows_of(synapses) for order in [rng.permutation(t.size)]
    ]
    targets, weights = (jnp.concatenate(part) for part in zip(*rows))
    shuffled = synapses.replace(
        indices=targets.reshape(synapses.indices.shape),
        weights=weights.reshape(synapses.indices.shape),
    )
    expected = propagate(synapses, active, 300, backend)
    assert_same_bits(propagate(shuffled, active, 300, backend), expected)


@each_backend
def test_contributions_are_rounded_to_even_and_clipped(backend):
    weights = np.array([0.5, 1.5, -2.5, 2.4999, np.nan, np.inf, -np.inf, 3e9, -3e9], np.float32)
    synapses = compressed_rows([0, 9], np.arange(9), 9, weights, fraction_bits=0)
    active = ops.active_set.from_indices([0], 1)
    expected = [0, 2, -2, 2, 0, INT32.max, INT32.min, INT32.max, INT32.min]
    assert_same_bits(integers(synapses, active, 9, backend), np.array(expected, np.int32))


@each_backend
def test_sums_beyond_int32_wrap_around(backend):
    weights = np.full((3, 4), 2.0**30, np.float32)
    synapses = fixed_fan_out(np.zeros((3, 4), int), 1, weights, fraction_bits=0)
    active = ops.active_set.from_indices([0, 1, 2], 3)
    assert_same_bits(integers(synapses, active, 1, backend), np.array([0], np.int32))
    two = active.replace(count=jnp.asarray(2, jnp.int32)).replace(values=jnp.array([1.0, 0.5, 0.0]))
    assert_same_bits(integers(synapses, two, 1, backend), np.array([-(2**31)], np.int32))


@each_layout
@each_way
def test_gradient_is_a_difference(way, layout, monkeypatch):
    """Finite differences of steps that are large beside 2^-fraction_bits."""
    take_way(way, monkeypatch)
    synapses = drawn_synapses(layout, "float32", (30, 9, 7), fraction_bits=22)
    active = drawn_set(30, 12, 15, graded=True)

    def received(values, weights):
        network = synapses.replace(weights=weights)
        return propagate_spikes(network, active.replace(values=values), 9)

    operands = active.values, synapses.weights
    check_grads(received, operands, order=1, modes=["rev"], eps=1e-2, atol=2e-2, rtol=2e-2)


@each_backend
@each_layout
def test_a_list_without_room_reaches_nobody(layout, backend):
    synapses, active = drawn_synapses(layout, "float32", (30, 9, 7)), ops.active_set.empty(30, 0)
    assert not propagate(synapses, active, 9, backend).any()
    bar = jax.grad(lambda w: propagate(synapses.replace(weights=w), active, 9, backend).sum())
    assert not bar(synapses.weights).any()


@each_backend
def test_gradient_of_a_row_knows_nothing_of_others(backend):
    weights = np.array([1, 2, np.inf], np.float32)
    synapses = compressed_rows([0, 2, 3], [0, 1, 1], 2, weights, fraction_bits=8)
    active = ops.ActiveSet(jnp.array([0]), jnp.ones(1), jnp.int32(1))
    bar = jax.grad(lambda v: propagate(synapses, active.replace(values=v), 2, backend).sum())
    np.testing.assert_array_equal(bar(jnp.ones(1)), [3])


def test_gradient_of_a_scan_stores_no_synapses():
    """Steps that share their synapses keep a reference to them, not a copy each."""
    steps, synapses = 64, drawn_synapses("fixed", "float32", (500, 400, 100))

    def loss(values, weights):
        def step(carry, value):
            active = ops.active_set.from_indices([1, 2], 500).replace(values=value)
            network = synapses.replace(weights=weights)
            return carry + propagate_spikes(network, active, 400).sum(), None

        return jax.lax.scan(step, 0.0, values)[0]

    arguments = jnp.ones((steps, 2)), synapses.weights
    compiled = jax.jit(jax.grad(loss, (0, 1))).lower(*arguments).compile()
    synapse_bytes = synapses.weights.nbytes
    assert compiled.memory_analysis().temp_size_in_bytes < 8 * synapse_bytes  # not 64


@each_layout
@each_kind
@pytest.mark.parametrize("largest_value", [1.0, 255.0, 0.01])
def test_chosen_bits_cannot_overflow(layout, kind, largest_value):
    """Everybody sends the largest value, all weights turned positive: the largest sum there is."""
    shape = (40, 17, 4)
    synapses = drawn_synapses(layout, kind, shape)
    if kind == "float32":
        synapses = synapses.replace(weights=jnp.abs(synapses.weights))
    bits = choose_fraction_bits(synapses, 17, largest_value=largest_value)
    active = ops.active_set.from_indices(np.arange(40), 40)
    active = active.replace(values=jnp.full(40, largest_value, jnp.float32))
    real = matrix_of(synapses, 17).sum(0) * np.float64(np.float32(largest_value))

    def error(bits):
        network = synapses.replace(fraction_bits=bits)
        sums = np.asarray(propagate_integers(network, active, 17), np.float64)
        return np.abs(sums * 2.0**-bits - real).max()

    assert error(bits) < real.max() * 1e-6
    assert error(bits + 1) > real.max()  # one bit more and the largest sum wraps around


def test_chosen_bits_leave_room_for_plasticity():
    synapses = drawn_synapses("fixed", "float32", (40, 17, 4))
    bits = choose_fraction_bits(synapses, 17, largest_weight=100.0)
    grown = synapses.replace(weights=jnp.full_like(synapses.weights, 100.0), fraction_bits=bits)
    active = ops.active_set.from_indices(np.arange(40), 40)
    received = propagate_spikes(grown, active, 17)
    np.testing.assert_allclose(received, matrix_of(grown, 17).sum(0), rtol=1e-6)


def test_bits_of_nothing_and_of_extremes():
    def bits_of(weight, **limits):
        synapses = fixed_fan_out([[0]], 1, np.array([[weight]], np.float32), fraction_bits=0)
        return choose_fraction_bits(synapses, 1, **limits)

    assert bits_of(0.0) == 0
    assert bits_of(2.0**-100) == sparse_rows.MAX_FRACTION_BITS
    assert bits_of(1.0, largest_weight=0.0) == 0
    assert bits_of(2.0**60) == -30  # 2^30 and the half of one rounding fit, 2^31 does not
    with pytest.raises(ValueError, match="at most 2"):
        bits_of(3e38, largest_value=1e10)
    with pytest.raises(ValueError, match="must be finite"):
        bits_of(np.nan)
    with pytest.raises(ValueError, match="largest_value must be finite and at least 0; got -1"):
        bits_of(1.0, largest_value=-1.0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1, 2], [0, 0], 3), ValueError, r"indptr must be a list that starts with 0; got \[1\]"),
        (([0, 3], [0, 0], 3), ValueError, "indptr must end with the 2 synapses; got 3"),
        (([0, 2, 1, 2], [0, 0], 3), ValueError, "indptr must not decrease; got 2 before 1"),
        (([0, 2], [0, 3], 3), ValueError, r"indices must be in 0..2; got 0 to 3"),
        (([0, 2], [-1, 1], 3), ValueError, r"indices must be in 0..2; got -1 to 1"),
        (([0, 2], [0.5, 1.0], 3), TypeError, "indices must be integers; got float64"),
        (([0, 2], [[0, 1]], 3), ValueError, "indices must be a list"),
        (([0, 2], [0, 1], 3, np.ones(3, np.float32)), ValueError, "weights must have the shape"),
        (([0, 2], [0, 1], 3, np.ones(2, np.int32)), TypeError, "float32 or uint8; got int32"),
    ],
)
def test_wrong_compressed_rows_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        compressed_rows(*arguments)


def test_an_indptr_is_of_integers_and_never_falls():
    falling = np.array([0, 5, 2, 6], np.uint32)
    with pytest.raises(ValueError, match="indptr must not decrease; got 5 before 2"):
        compressed_rows(falling, np.zeros(6, int), 3)
    with pytest.raises(TypeError, match="indptr must be integers; got float64"):
        compressed_rows([0, 1.5, 3.0], np.zeros(3, int), 3)


def test_wrong_fixed_fan_out_is_refused():
    with pytest.raises(ValueError, match=r"indices must be \[pre, fan_out\]; got shape \(2,\)"):
        fixed_fan_out([0, 1], 3)
    with pytest.raises(ValueError, match=r"indices must be in 0..3; got 0 to 4"):
        fixed_fan_out([[0, 4]], 3)
    with pytest.raises(ValueError, match=r"fraction_bits must be in -100..100; got 101"):
        fixed_fan_out([[0, 1]], 3, fraction_bits=101)
    with pytest.raises(ValueError, match="weights onto a neuron must be finite"):
        fixed_fan_out([[0, 1]], 3, np.array([[1, np.inf]], np.float32))


def test_weights_of_another_type_are_refused():
    synapses = fixed_fan_out([[0, 1]], 3, np.ones((1, 2), np.float32))
    half = synapses.replace(weights=synapses.weights.astype(jnp.bfloat16))
    with pytest.raises(TypeError, match="float32 or uint8; got bfloat16"):
        propagate_spikes(half, ops.active_set.from_indices([0], 1), 3)


def test_rows_are_padded_to_whole_vectors():
    synapses = fixed_fan_out([[0, 1, 2, 0, 1]], 3, np.full((1, 5), 7, np.uint8))
    assert_same_bits(synapses.indices, np.array([[0, 1, 2, 0, 1, 3, 3, 3]], np.int32))
    assert_same_bits(synapses.weights, np.array([[7, 7, 7, 7, 7, 0, 0, 0]], np.uint8))


@each_layout
@each_kind
def test_lowers_for_cuda_without_a_gpu(layout, kind, monkeypatch):
    """The shape of the call, scratch included, on each way through the kernels."""
    synapses = drawn_synapses(layout, kind, (30, 9, 7))
    active = drawn_set(30, 12, 15)
    for way in WAYS:
        take_way(way, monkeypatch)
        call = functools.partial(propagation._received_kernel, num_post=9)
        lowered = jax.jit(call).trace(synapses, active).lower(lowering_platforms=("cuda",))
        assert ("sort_from = 1" in lowered.as_text()) == (way == "sort")
        together = way == "together" and layout == "fixed"
        assert ("together = true" in lowered.as_text()) == together


@pytest.mark.gpu
@each_layout
@each_kind
@each_size
@each_way
def test_gpu_sums_are_exact(layout, kind, num_post, way, monkeypatch):
    """Few, many and all neurons, spikes and graded values."""
    take_way(way, monkeypatch)
    synapses = drawn_synapses(layout, kind, (3_000, num_post, 101), fraction_bits=14)
    call = jax.jit(functools.partial(both, num_post=num_post))
    for count, graded in ((0, False), (7, True), (1_500, False), (3_000, True)):
        active = drawn_set(3_000, count, 3_000, graded=graded)
        expected = expected_both(synapses, active, num_post)
        assert_same_bits(on_gpu(call, synapses, active), expected)


@pytest.mark.gpu
@each_way
def test_gpu_divides_rows_of_any_length(way, monkeypatch):
    """One row of a million synapses beside many of a few; more synapses than one round sorts."""
    take_way(way, monkeypatch, least=propagation_plan.SORT_FROM_SYNAPSES)
    synapses, lengths = rows_of_any_length(100_000, 400_000, 1_000_000)
    call = jax.jit(functools.partial(both, num_post=400_000))
    for count in (100_000, 33_333):
        active = drawn_set(100_000, count, 100_000)
        sums = spikes_arriving(synapses, lengths, active, 400_000)
        assert_same_bits(on_gpu(call, synapses, active), (sums, scaled(sums, synapses)))


@pytest.mark.gpu
@each_kind
def test_gpu_sorts_few_synapses_for_many_slices(kind, monkeypatch):
    """Fewer of a tile for each slice than lanes could look after."""
    num_post = 15_000_003
    take_way("sort", monkeypatch)
    synapses = drawn_synapses("fixed", kind, (3_000, num_post, 101), fraction_bits=14)
    call = jax.jit(functools.partial(both, num_post=num_post))
    for count in (7, 2_500):
        active = drawn_set(3_000, count, 3_000)
        expected = expected_both(synapses, active, num_post)
        assert_same_bits(on_gpu(call, synapses, active), expected)


@pytest.mark.gpu
@each_kind
@pytest.mark.parametrize("fan_out", [104, 101])  # whole vectors, or rows that begin anywhere
@pytest.mark.parametrize("reach", [300, 20_000, 150_001])
def test_gpu_sums_in_rounds(kind, fan_out, reach, monkeypatch):
    """More synapses than one round takes, onto a few neurons, a region or all; and one round."""
    take_way("together", monkeypatch)
    synapses = drawn_synapses("fixed", kind, (14_000, reach, 101), fraction_bits=12)
    synapses = jax.tree.map(lambda padded: padded[:, :fan_out], synapses)
    call = jax.jit(functools.partial(both, num_post=150_001))
    for count, graded in ((14_000, False), (14_000, True), (140, True)):
        active = drawn_set(14_000, count, 14_000, graded=graded)
        assert_same_bits(on_gpu(call, synapses, active), expected_both(synapses, active, 150_001))


@pytest.mark.gpu
@each_way
@pytest.mark.parametrize("fan_out", [104, 101])
@pytest.mark.parametrize("count", [-5, 0, 1, 777, 3_000, 5_000])
def test_gpu_adds_nothing_behind_the_count(count, fan_out, way, monkeypatch):
    """Where the list goes on with neurons, and whatever values; some of its ids name nobody."""
    take_way(way, monkeypatch)
    num_post, strays = 9_001, np.array([-1, 9_001, INT32.max, INT32.min], np.int32)
    synapses = drawn_synapses("fixed", "float32", (4_000, num_post, 101), fraction_bits=14)
    synapses = jax.tree.map(lambda padded: padded[:, :fan_out], synapses)
    targets = synapses.indices.at[::7, 3::9].set(strays[0]).at[5::7, :4].set(strays)
    synapses = synapses.replace(indices=targets)
    active = drawn_set(4_000, 3_000, 3_000, graded=True)
    behind = np.arange(3_000) >= count
    active = active.replace(
        indices=active.indices.at[jnp.array([0, 3, 7, 9])].set(strays),
        values=jnp.where(behind, jnp.asarray(np.resize([np.nan, 1e9, 0.3], 3_000)), active.values),
        count=jnp.asarray(count, jnp.int32),
    )
    got = on_gpu(jax.jit(functools.partial(both, num_post=num_post)), synapses, active)
    assert_same_bits(got, expected_both(synapses, active, num_post))


@pytest.mark.gpu
@each_kind
@pytest.mark.parametrize("target", [0, 2**20 - 2, None])
def test_gpu_sums_the_largest_shares(kind, target, monkeypatch):
    """As many synapses as a block sorts at a time, and more; onto one neuron, or onto all."""
    num_post, shape = 2**20 - 1, (11_000, 100)
    take_way("together", monkeypatch)
    rng = np.random.default_rng(7)
    indices = rng.integers(0, num_post, shape) if target is None else np.full(shape, target)
    weights = weights_of_synapses(rng, kind, shape)
    synapses = fixed_fan_out(indices, num_post, weights, fraction_bits=20)
    active = drawn_set(shape[0], shape[0], shape[0], graded=True)
    got = on_gpu(jax.jit(functools.partial(both, num_post=num_post)), synapses, active)
    assert_same_bits(got, expected_both(synapses, active, num_post))


def rows_by_choice(num_rows, num_choices):
    """Which choice a row takes, and who fires: all rows, and those of each choice alone.

    Neighbours take the same, as tiles may consist of neighbours.
    """
    choice_of = np.arange(num_rows) // 40 % num_choices
    return choice_of, [choice_of >= 0, *(choice_of == i for i in range(num_choices))]


@pytest.mark.gpu
@each_layout
@pytest.mark.parametrize("num_post", [1_025, 300_001])
@pytest.mark.parametrize("way", WAYS[1:])
def test_gpu_sorts_contributions_of_any_width(layout, num_post, way, monkeypatch):
    """16 bits and a shift suffice, or do not, by one or by many, for all synapses or for some."""
    take_way(way, monkeypatch)
    shape, rng = (4_000, 100), np.random.default_rng(num_post)
    few = [-1, 0, 1]
    choices = [
        [0], few, [32_767, -32_767], [32_768, 0], [32_768, 1], [-32_768, 1], [65_535, -65_535],
        np.multiply(few, 2**30), [-(2**31)], [-(2**31), 2**16], [2**30 + 2**7, -(2**7)],
    ]  # fmt: skip
    choice_of, firing = rows_by_choice(shape[0], len(choices))
    weights = np.stack([rng.choice(choices[i], shape[1]) for i in choice_of]).astype(np.float32)
    indices = rng.integers(0, num_post, shape)
    synapses = fixed_fan_out(indices, num_post, weights, fraction_bits=0)
    if layout == "compressed":
        indptr = np.arange(shape[0] + 1) * shape[1]
        flat = indices.ravel(), num_post, weights.ravel()
        synapses = compressed_rows(indptr, *flat, fraction_bits=0)
    call = jax.jit(functools.partial(both, num_post=num_post))
    for fires in firing:
        active = ops.active_set.from_indices(np.flatnonzero(fires), shape[0], shape[0])
        assert_same_bits(on_gpu(call, synapses, active), expected_both(synapses, active, num_post))


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["unit", "uint8"])
@pytest.mark.parametrize(
    ("way", "num_post"), [("together", 1_025), ("together", 300_001), ("sort", 1_025)]
)
def test_gpu_sorts_values_of_any_width(kind, way, num_post, monkeypatch):
    """Whole numbers whose products have 16 bits, more, or too many for int32, and others."""
    take_way(way, monkeypatch)
    shape, rng = (4_000, 100), np.random.default_rng(num_post)
    choices = [
        [0], [-1, 0, 1], [0.5], [0.499, 128], [128, -128], [129], [2**7 + 2**-3], [-(2**14), 2**22],
        [2**15 + 1], [2**22 + 2], [2**23], [-(2**23), 1], [-(2**24)], [2**24], [2**31], [-(2**31)],
        [66_303], [-66_303], [4_260_097], [-4_260_097, 1],  # times 255, floats that end in zeros
        [3e9, -3e9], [np.nan, 64],
    ]  # fmt: skip
    choice_of, firing = rows_by_choice(shape[0], len(choices))
    values = np.stack([rng.choice(choices[i]) for i in choice_of]).astype(np.float32)
    weights = weights_of_synapses(rng, kind, shape)
    synapses = fixed_fan_out(rng.integers(0, num_post, shape), num_post, weights, fraction_bits=0)
    call = jax.jit(functools.partial(both, num_post=num_post))
    for fires in firing:
        active = ops.active_set.from_indices(np.flatnonzero(fires), shape[0], shape[0])
        sent = np.pad(values[fires], (0, shape[0] - fires.sum()))
        active = active.replace(values=jnp.asarray(sent))
        assert_same_bits(on_gpu(call, synapses, active), expected_both(synapses, active, num_post))


def batch_of(layout, size):
    """Networks and active sets of equal shapes."""
    shape = (30, 9, 7)
    networks = [
        drawn_synapses(layout, "float32", shape, seed, fraction_bits=12) for seed in range(size)
    ]
    if layout == "compressed":
        longest = max(network.indices.size for network in networks)
        networks = [
            network.replace(
                indices=jnp.pad(network.indices, (0, longest - network.indices.size)),
                weights=jnp.pad(network.weights, (0, longest - network.weights.size)),
            )
            for network in networks
        ]
    sets = [drawn_set(30, 4 * seed, 30, seed, graded=True) for seed in range(size)]
    return networks, sets


@pytest.mark.gpu
@each_layout
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize(
    ("way", "least"), [("scatter", 1), ("together", 1), ("sort", 1), ("sort", 30)]
)
def test_gpu_batch_is_a_loop(layout, way, least, size, monkeypatch):
    """Of which nothing, everything or the larger sets are sorted."""
    take_way(way, monkeypatch, least)
    networks, sets = batch_of(layout, size)
    call = functools.partial(both, num_post=9)
    nested = jax.jit(jax.vmap(jax.vmap(call, (0, None)), (None, 0)))
    alone = [[expected_both(network, each, 9) for network in networks] for each in sets]
    expected = tuple(np.array([[pair[i] for pair in row] for row in alone]) for i in (0, 1))
    assert_same_bits(on_gpu(nested, stacked(networks), stacked(sets)), expected)
