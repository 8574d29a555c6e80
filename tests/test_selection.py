"""Winners against a stable sort; soft winners against their definition and finite differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import BACKENDS, assert_same_bits, each_backend, neurons
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays

from brainjax import ops
from brainjax.ops import selection

# (neurons, k): one of one, one, all, all but one, more neurons than a block of the kernel.
SIZES = [(1, 1), (7, 1), (7, 7), (33, 32), (100, 10), (1_000, 31)]
each_size = pytest.mark.parametrize("size", SIZES)
any_float = st.floats(width=32, allow_subnormal=False)
tied = st.sampled_from([0.0, -0.0, 1.0, 2.0, -1.0])


@functools.partial(jax.jit, static_argnames=("k", "runners_up", "backend"))
def select(scores, k, backend, runners_up=0):
    return ops.select_winners(scores, k, runners_up=runners_up, backend=backend)


def keys_of(scores):
    """Integers in the order of the scores."""
    if scores.dtype.kind in "iu":
        return scores.astype(np.int64)
    # A bfloat16 is a float32 to every bit.
    bits = scores.astype(np.float32).view(np.int32).astype(np.int64)
    # The total order of IEEE 754: -0.0 below 0.0, a NaN beyond the infinity of its sign.
    return np.where(bits < 0, -(bits & 0x7FFFFFFF) - 1, bits)


def best(scores, count, capacity=None):
    """The `count` largest in ascending order, of equal ones the lowest, padded to the capacity."""
    winners = np.sort(np.argsort(-keys_of(scores), kind="stable")[:count])
    padding = (count if capacity is None else capacity) - count
    return np.pad(winners, (0, padding), constant_values=len(scores)).astype(np.int32)


def check_choice(scores, size, backend):
    winners = select(jnp.asarray(scores), size[1], backend)
    assert_same_bits(winners.indices, best(scores, size[1]))
    dtype = scores.dtype if scores.dtype.kind not in "iu" else np.float32
    assert_same_bits(winners.values, np.ones(size[1], dtype))


@each_backend
@each_size
@given(data=st.data())
def test_matches_a_stable_sort(size, backend, data):
    elements = data.draw(st.sampled_from([any_float, tied]))
    scores = data.draw(arrays(np.float32, size[0], elements=elements, fill=elements))
    check_choice(scores, size, backend)


@each_backend
@each_size
@pytest.mark.parametrize(
    "draw",
    [
        lambda rng, n: rng.standard_normal(n),
        lambda rng, n: rng.binomial(100, 0.05, n),
        lambda rng, n: rng.choice([np.nan, -np.nan, -np.inf, np.inf, 0.0, -0.0], n),
        lambda rng, n: np.full(n, -3.0),
        lambda rng, n: 1e-30 * rng.standard_normal(n) ** 9,
    ],
    ids=["normal", "integers", "special", "equal", "wide"],
)
def test_matches_a_stable_sort_of_usual_scores(size, backend, draw):
    scores = draw(np.random.default_rng(0), size[0]).astype(np.float32)
    check_choice(scores, size, backend)


def special(rng, n):
    return rng.choice([np.nan, -np.nan, -np.inf, np.inf, 0.0, -0.0, 1.0], n)


def sparse(rng, n):
    return np.where(rng.random(n) < 0.99, 0, rng.standard_normal(n))


def sparser_than_winners(rng, n):
    return np.where(rng.random(n) < 0.3 / np.sqrt(n), rng.random(n), 0)


def in_one_place(rng, n):
    """The winners are neighbours: one chunk or block has all of them."""
    return rng.standard_normal(n) + 9 * (np.arange(n) // max(n // 50, 1) == 20)


# What a sample, a bound or a histogram may take for something else.
DRAWS = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "sparse": sparse,
    "sparser": sparser_than_winners,
    "equal": lambda rng, n: np.full(n, -3.0),
    "integers": lambda rng, n: rng.binomial(100, 0.05, n),
    "ascending": lambda rng, n: np.arange(n),
    "descending": lambda rng, n: -np.arange(n),
    "periodic": lambda rng, n: np.where(np.arange(n) % (n // 512 or 1) == 0, 2.0, rng.random(n)),
    "in one place": in_one_place,
    "special": special,
}
each_draw = pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
DTYPES = [jnp.float32, jnp.bfloat16, jnp.uint8, jnp.uint16, jnp.int32]
each_dtype = pytest.mark.parametrize("dtype", DTYPES)


def as_scores(values, dtype):
    if jnp.issubdtype(dtype, jnp.floating):
        return values.astype(np.float32).astype(dtype)
    range_ = np.iinfo(dtype)
    return np.clip(np.nan_to_num(20 * values), range_.min, range_.max).astype(dtype)


# Both sides of where a row is sampled, cut into chunks, sampled by cache lines, and of the most
# chunks; of a block and a panel of keys.
CPU_SIZES = [63, 65, 1_023, 1_025, 2_047, 32_767, 32_768, 65_535, 65_536, 1_048_575, 1_100_003]


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name == "kernel"])
@pytest.mark.parametrize("num_neurons", CPU_SIZES)
@each_draw
def test_every_size_matches_a_stable_sort(num_neurons, draw, backend):
    scores = as_scores(draw(np.random.default_rng(num_neurons), num_neurons), np.float32)
    check_choice(scores, (num_neurons, int(np.sqrt(num_neurons))), backend)


@each_backend
@each_dtype
@each_draw
@pytest.mark.parametrize("size", [(40, 1), (40, 40), (3_001, 50), (40_001, 200), (40_001, 20_000)])
def test_every_dtype_matches_a_stable_sort(size, draw, dtype, backend):
    scores = as_scores(draw(np.random.default_rng(size[0]), size[0]), dtype)
    check_choice(scores, size, backend)


@each_backend
@each_dtype
@pytest.mark.parametrize("num_neurons", [50, 2_000, 40_001])
def test_rows_of_a_batch_have_their_own_counts(num_neurons, dtype, backend):
    rng, capacity = np.random.default_rng(3), 20
    draws = [DRAWS[name] for name in ("normal", "sparse", "equal", "integers", "special")]
    scores = np.stack([as_scores(draw(rng, num_neurons), dtype) for draw in draws])
    counts = np.array([20, 0, 7, -3, 99], np.int32)  # what a device computed may be anything
    choose = jax.vmap(lambda row, count: selection._largest(row, count, capacity, backend))
    expected = [
        best(row, min(max(count, 0), capacity), capacity) for row, count in zip(scores, counts)
    ]
    assert_same_bits(jax.jit(choose)(scores, counts), np.stack(expected))


@each_backend
def test_integer_winners_have_value_one(backend):
    scores = jnp.array([5, 1, 4, 4, 3, 4], jnp.uint8)
    chosen = select(scores, 2, backend, runners_up=3)
    np.testing.assert_array_equal(neurons(chosen), [0, 2, 3, 4, 5])
    assert_same_bits(chosen.values, np.array([1, 1, 0, 0, 0], np.float32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"softened": True}, "softened must be False for integer scores; got True for int32"),
        ({"temperature": 2.0}, "temperature must not be given for integer scores"),
    ],
)
def test_integer_scores_are_not_softened(options, message):
    with pytest.raises(ValueError, match=message):
        ops.select_winners(jnp.arange(5), 2, **options)


# Both sides of a small and a large block, of a cluster, of what a grid holds, and of what is
# streamed; the limits of an H100. Odd sizes put rows of a batch off the 16-byte boundaries.
GPU_SIZES = [
    *(4_096, 4_097, 16_384, 16_385, 49_152, 49_153, 100_003, 400_001, 1_048_577),
    *(5_900_003, 5_950_001, 20_000_003),
]


def poison(num_words):
    """Leave garbage in memory that the next call is likely to get."""
    arrays = [jnp.full(num_words, 0xA5A5A5A5, jnp.uint32) for _ in range(4)]
    for array in jax.block_until_ready(arrays):
        array.delete()


@pytest.mark.gpu
@pytest.mark.parametrize("num_neurons", GPU_SIZES)
@each_draw
def test_every_size_on_the_gpu(num_neurons, draw):
    scores = as_scores(draw(np.random.default_rng(num_neurons), num_neurons), np.float32)
    for k in (1, int(np.sqrt(num_neurons)), num_neurons // 3):
        for num_words in (k, selection._scratch_words(num_neurons, k)):
            poison(num_words)
        check_choice(scores, (num_neurons, k), "kernel")


@pytest.mark.gpu
@pytest.mark.parametrize("num_neurons", [10_001, 60_001, 500_003, 6_000_001])
@each_dtype
def test_batches_of_every_dtype_on_the_gpu(num_neurons, dtype):
    rng, k = np.random.default_rng(num_neurons), int(np.sqrt(num_neurons))
    draws = [DRAWS[name] for name in ("normal", "sparse", "integers")]
    scores = np.stack([as_scores(draw(rng, num_neurons), dtype) for draw in draws])
    poison(selection._scratch_words(num_neurons, k))
    choose = jax.vmap(lambda row: select(row, k, "kernel").indices)
    assert_same_bits(choose(scores), np.stack([best(row, k) for row in scores]))


@pytest.mark.gpu
@pytest.mark.parametrize("k", [500, 1_000, 2_000])
@each_draw
def test_many_winners_of_a_row_on_the_gpu(k, draw):
    """More maxima than the threads of one block of a cluster look at."""
    scores = as_scores(draw(np.random.default_rng(k), 100_003), np.float32)
    poison(selection._scratch_words(100_003, k))
    check_choice(scores, (100_003, k), "kernel")


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("num_rows", "num_neurons"),
    [(70, 20_001), (200, 60_001), (2, 370_001), (3, 500_003), (3, 6_000_001)],
)
def test_rows_with_counts_of_their_own_on_the_gpu(num_rows, num_neurons):
    """As many blocks, clusters and turns of the grid as there are; some rows have no winners."""
    rng, capacity = np.random.default_rng(num_neurons), 300
    scores = rng.standard_normal((num_rows, num_neurons)).astype(np.float32)
    counts = rng.integers(0, capacity + 1, num_rows).astype(np.int32)
    counts[1] = 0
    poison(selection._scratch_words(num_neurons, capacity))
    choose = jax.vmap(lambda row, count: selection._largest(row, count, capacity, "kernel"))
    expected = [best(row, count, capacity) for row, count in zip(scores, counts)]
    assert_same_bits(jax.jit(choose)(scores, counts), np.stack(expected))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.uint8])
@pytest.mark.parametrize("kind", ["normal", "sparse", "integers", "periodic"])
@pytest.mark.parametrize(
    ("num_rows", "num_neurons"),
    [(40, 900), (40, 10_000), (140, 10_000), (140, 12_287), (40, 15_999), (70, 40_000)],
)
def test_every_count_of_a_block_on_the_gpu(num_rows, num_neurons, kind, dtype):
    """Few candidates are ranked, more are bisected; too many are not listed."""
    rng, capacity = np.random.default_rng(num_neurons), min(num_neurons, 1_500)
    counts = np.geomspace(1, capacity, num_rows).astype(np.int32)
    scores = np.stack([as_scores(DRAWS[kind](rng, num_neurons), dtype) for _ in counts])
    poison(num_rows * capacity)
    choose = jax.vmap(lambda row, count: selection._largest(row, count, capacity, "kernel"))
    expected = [best(row, count, capacity) for row, count in zip(scores, counts)]
    assert_same_bits(jax.jit(choose)(scores, counts), np.stack(expected))


@pytest.mark.gpu
@pytest.mark.parametrize("sizes", [(15_999, 14_001), (14_001, 15_999)])
def test_rows_of_two_sizes_in_one_loop_on_the_gpu(sizes):
    """What one kernel asks for of shared memory is nothing to another call of it.

    The loop negates its rows, as XLA would copy them without a kernel otherwise, in a second stream
    that initcheck does not follow.
    """
    rng = np.random.default_rng(0)
    rows = [rng.standard_normal((40, n)).astype(np.float32) for n in sizes]

    def both(pair):
        return [select(-row, 100, "kernel").indices for row in pair]

    chosen = jax.jit(functools.partial(jax.lax.map, both))(rows)
    assert_same_bits(chosen, [np.stack([best(-row, 100) for row in each]) for each in rows])


@each_backend
def test_ties_go_to_the_lowest_index(backend):
    scores = jnp.array([1.0, 3.0, 2.0, 2.0, 2.0, 0.0])
    np.testing.assert_array_equal(neurons(select(scores, 3, backend)), [1, 2, 3])


@each_backend
def test_runners_up_are_listed_without_value(backend):
    scores = jnp.array([5.0, 1.0, 4.0, 4.0, 3.0, 4.0])
    chosen = select(scores, 2, backend, runners_up=3)
    np.testing.assert_array_equal(neurons(chosen), [0, 2, 3, 4, 5])
    np.testing.assert_array_equal(chosen.values, [1, 1, 0, 0, 0])


@each_backend
def test_silence_is_an_empty_set(backend):
    chosen = ops.select_winners(jnp.ones(9), 3, firing=False, runners_up=2, backend=backend)
    assert_same_bits(chosen, ops.active_set.empty(9, 5))


@each_backend
def test_hard_values_count_winners_not_soft_shares(backend):
    chosen = ops.select_winners(jnp.array([0.1, 0.0, 0.2]), 1, temperature=9.0, backend=backend)
    assert_same_bits(chosen.values, np.ones(1, np.float32))


@each_backend
def test_softened_values_are_the_soft_winners(backend):
    scores = jnp.asarray(np.random.default_rng(1).standard_normal(20), jnp.float32)
    chosen = ops.select_winners(
        scores, 4, runners_up=16, temperature=0.7, softened=True, backend=backend
    )
    expected = ops.soft_winners(scores, 4, jnp.float32(0.7))
    np.testing.assert_allclose(chosen.values, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, r"k must be in 1..neurons=5; got 0"),
        ({"k": 6}, r"k must be in 1..neurons=5; got 6"),
        ({"k": 3, "runners_up": -1}, r"runners_up must be in 0..neurons-k=2; got -1"),
        ({"k": 3, "runners_up": 3}, r"runners_up must be in 0..neurons-k=2; got 3"),
    ],
)
def test_errors_name_field_rule_and_value(options, message):
    with pytest.raises(ValueError, match=message):
        ops.select_winners(jnp.ones(5), **options)


SOFT_SIZES = [(3, 1), (20, 4), (20, 19), (300, 17)]
each_soft_size = pytest.mark.parametrize("size", SOFT_SIZES)
temperatures = pytest.mark.parametrize("temperature", [0.05, 1.0, 20.0])


def normal_scores(num_neurons, dtype=np.float32, seed=2):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(num_neurons), dtype)


@each_soft_size
@temperatures
def test_shares_sum_to_k(size, temperature):
    num_neurons, k = size
    shares = ops.soft_winners(normal_scores(num_neurons), k, jnp.float32(temperature))
    assert ((shares >= 0) & (shares <= 1)).all()
    # The threshold is known to an ulp of the largest score; its error moves every share.
    slope = float((shares * (1 - shares)).sum()) / temperature
    error = np.finfo(np.float32).eps * (8 * slope + num_neurons)
    np.testing.assert_allclose(shares.sum(), k, rtol=0, atol=error)


@each_soft_size
def test_shares_tend_to_the_winners(size):
    num_neurons, k = size
    scores = normal_scores(num_neurons)
    sharpest = ops.soft_winners(scores, k, jnp.float32(1e-4))
    hard = ops.active_set.to_dense(ops.select_winners(scores, k), num_neurons)
    np.testing.assert_allclose(sharpest, hard, rtol=0, atol=1e-3)


def test_shares_are_the_entropic_optimum():
    """At the maximum, score - temperature * log(p / (1 - p)) is one number, the threshold."""
    with jax.enable_x64(True):
        scores = normal_scores(30, np.float64)
        shares = ops.soft_winners(scores, 6, 0.8)
        thresholds = scores - 0.8 * jnp.log(shares / (1 - shares))
        np.testing.assert_allclose(thresholds, thresholds[0], rtol=0, atol=1e-9)
        # 32 halvings of a bracket no wider than the scores.
        width = float(scores.max() - scores.min()) * 2.0**-32
        np.testing.assert_allclose(shares.sum(), 6, rtol=0, atol=30 / 4 / 0.8 * width)


def test_everyone_wins_where_k_is_all():
    assert_same_bits(ops.soft_winners(jnp.arange(4.0), 4, 1.0), np.ones(4, np.float32))


def exact_shares(scores, k, temperature):
    """Soft winners in NumPy, their threshold bisected to the last bit."""
    low, high = scores.min() - 60 * temperature, scores.max() + 60 * temperature
    for _ in range(200):
        middle = (low + high) / 2
        too_many = (1 / (1 + np.exp(-(scores - middle) / temperature))).sum() > k
        low, high = (middle, high) if too_many else (low, middle)
    return 1 / (1 + np.exp(-(scores - (low + high) / 2) / temperature))


@each_soft_size
@pytest.mark.parametrize("temperature", [0.3, 1.0, 5.0])
def test_derivatives_match_finite_differences(size, temperature):
    num_neurons, k = size
    with jax.enable_x64(True):
        scores = normal_scores(num_neurons, np.float64)
        direction = normal_scores(num_neurons, np.float64, seed=3)
        along_scores, along_temperature = (
            jax.jvp(
                lambda s, t: ops.soft_winners(s, k, t),
                (scores, jnp.float64(temperature)),
                tangents,
            )[1]
            for tangents in (
                (direction, jnp.float64(0)),
                (jnp.zeros_like(scores), jnp.float64(1)),
            )
        )
    scores, direction = np.asarray(scores), np.asarray(direction)
    h = 1e-5

    def difference(move):
        ends = (exact_shares(*move(sign * h)) for sign in (1, -1))
        return np.subtract(*ends) / (2 * h)

    # Central differences err by h^2 / 6 of a third derivative, below 10 / temperature^3 here;
    # the shares of the library by its 32 halvings.
    error = 1e-7 / temperature**2
    np.testing.assert_allclose(
        along_scores,
        difference(lambda step: (scores + step * direction, k, temperature)),
        rtol=0,
        atol=error,
    )
    np.testing.assert_allclose(
        along_temperature,
        difference(lambda step: (scores, k, temperature + step)),
        rtol=0,
        atol=error,
    )


@each_backend
def test_gradient_reaches_scores_and_temperature(backend):
    scores, weights = normal_scores(20), normal_scores(20, seed=4)

    def gain(scores, temperature):
        chosen = ops.select_winners(
            scores, 4, runners_up=16, temperature=temperature, backend=backend
        )
        return (ops.active_set.to_dense(chosen, 20) * weights).sum()

    def soft_gain(scores, temperature):
        return (ops.soft_winners(scores, 4, temperature) * weights).sum()

    at = scores, jnp.float32(0.6)
    actual, expected = jax.grad(gain, (0, 1))(*at), jax.grad(soft_gain, (0, 1))(*at)
    for got, wanted in zip(actual, expected):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
        assert jnp.abs(wanted).max() > 1e-2


def test_infinite_scores_win_or_lose_and_the_others_share():
    finite = jnp.array([1.0, 2.0, 3.0])
    scores = jnp.concatenate([jnp.array([-jnp.inf, jnp.inf]), finite, jnp.array([-jnp.inf])])
    expected = [0, 1, *ops.soft_winners(finite, 2, 0.5), 0]
    np.testing.assert_allclose(ops.soft_winners(scores, 3, 0.5), expected, rtol=1e-6)

    def total(scores, k):
        return (ops.soft_winners(scores, k, 0.5) * jnp.arange(scores.size)).sum()

    slopes = jax.grad(total)(scores, 3)
    np.testing.assert_allclose(slopes, [0, 0, *jax.grad(total)(finite, 2), 0], rtol=1e-4)


@pytest.mark.parametrize("scores", [[-np.inf] * 3, [np.inf] * 3, [-np.inf, 5, np.inf]])
@pytest.mark.parametrize("k", [1, 2])
def test_shares_of_infinite_scores_are_numbers(scores, k):
    scores = jnp.array(scores)
    shares = ops.soft_winners(scores, k, 1.0)
    assert ((shares >= 0) & (shares <= 1)).all()
    slopes = jax.grad(lambda s: (ops.soft_winners(s, k, 1.0) * jnp.arange(3.0)).sum())(scores)
    assert jnp.isfinite(slopes).all()


@each_backend
def test_gradient_of_silence_is_zero(backend):
    def total(scores):
        return ops.select_winners(scores, 4, firing=False, backend=backend).values.sum()

    assert_same_bits(jax.grad(total)(normal_scores(20)), np.zeros(20, np.float32))
