"""What must not go wrong in any operation: memory of others, leaks, threads, a full device."""

import concurrent.futures
import dataclasses
import functools
import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same_bits
from oracles import (
    BETA,
    NUMBERS,
    OPS,
    W_MAX,
    accumulate_in_numpy,
    potentiate_in_numpy,
    random_set,
)

from brainjax import assemblies, ops, simulation

# A GPU brings its host along, so that every test of the CPU is one of the suite on both.
each_platform = pytest.mark.parametrize(
    "platform", ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)]
)
each_op = pytest.mark.parametrize("op", OPS.values(), ids=OPS)
GARBAGE = np.uint32(0xA5A5A5A5)  # a small negative number in every type of float


def assert_as_expected(op, operands, k, device):
    """In bits, but for those of a NaN."""
    with np.errstate(invalid="ignore"):
        expected = op.expected(operands, k)
    leave_garbage(device, *(leaf.nbytes for leaf in jax.tree.leaves(expected)))
    got = jax.device_get(op.compiled(jax.device_put(operands, device), k))
    assert_same_bits(*(jax.tree.map(with_one_nan, tree) for tree in (got, expected)))


def with_one_nan(array):
    if not jnp.issubdtype(array.dtype, jnp.floating):
        return array
    return np.where(np.isnan(array), np.array(np.nan, array.dtype), array)


def leave_garbage(device, *sizes):
    """Fill memory and free it, so that the next results and scratch start as garbage."""
    words = {max(1, size // 4) for size in (*sizes, 1 << 12, 1 << 14, 1 << 20)}
    filled = [jax.device_put(np.full(n, GARBAGE), device) for n in words for _ in range(3)]
    jax.block_until_ready(filled)
    for array in filled:
        array.delete()


# ---- Sizes and values ----

# Both sides of the sizes at which tiles, vectors and classes of kernels begin and end.
SIZES = (1, 2, 3, 8, 9, 31, 33, 128, 129, 1023, 1025, 4095, 4097, 16_384, 16_385, 65_537)
LARGER = (131_071, 131_073, 262_143, 262_145, 1_048_575, 1_048_577)


def numbers_of_winners(n):
    """1, some and all; of matrices no more than two million weights."""
    return sorted({1, min(n, 33), min(n, max(33, 2_000_000 // n))})


@each_platform
@pytest.mark.parametrize("n", [*SIZES, *(pytest.param(n, marks=pytest.mark.slow) for n in LARGER)])
@each_op
def test_no_result_depends_on_what_memory_held(op, n, platform):
    rng = np.random.default_rng(n)
    for k in numbers_of_winners(n):
        for numbers in op.numbers:
            operands = op.operands(rng, n, k, NUMBERS[numbers])
            assert_as_expected(op, operands, k, jax.devices(platform)[0])


# ---- Leaks ----

CALLS = 10_000
MOST_GROWTH = 16 * 2**20  # bytes: allocators keep some, and 10,000 calls would leave more
WARM_UP = 3  # rounds through all programs, after which caches and pools are full


def resident_bytes():
    """What the process holds in the memory of the host."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return 4096 * pages


def used_bytes(device):
    stats = device.memory_stats()
    return stats["bytes_in_use"] if stats else 0


def programs_of_random_sizes(rng, device):
    """Calls of every operation, and steps of brains: their sizes differ, their results stay."""
    programs = []
    for op in OPS.values():
        for n in rng.integers(1, 20_000, 8):
            k = int(rng.integers(1, min(n, 60) + 1))
            operands = jax.device_put(op.operands(rng, int(n), k, NUMBERS["normal"]), device)
            programs.append(functools.partial(op.compiled, operands, k))
    for n in rng.integers(50, 800, 4):
        programs.append(endless_simulation(int(n), device))
    return programs


def endless_simulation(n, device):
    config = assemblies.Config(
        areas=[assemblies.Area("A", n, 20)],
        stimuli=[assemblies.Stimulus("s", 20)],
        fibers=[assemblies.Fiber("s", "A", 0.2), assemblies.Fiber("A", "A", 0.2)],
    )
    params = assemblies.Params(beta=0.1, w_max=9.0)
    with jax.default_device(device):
        drive = config.drive("s->A", "A->A")
        state = assemblies.init(config, params, jax.random.key(n))

    def advance():
        nonlocal state
        with jax.default_device(device):
            state, _ = simulation.simulate(
                assemblies.step, config, params, state, drive, num_steps=3
            )
        return state.winners["A"].indices

    return advance


@each_platform
@pytest.mark.unsanitized
def test_calls_of_random_sizes_leave_nothing_behind(platform):
    rng, device = np.random.default_rng(1), jax.devices(platform)[0]
    programs = programs_of_random_sizes(rng, device)
    for _ in range(WARM_UP):
        jax.block_until_ready([program() for program in programs])
    arrays, used, resident = len(jax.live_arrays()), used_bytes(device), resident_bytes()
    for index in rng.integers(len(programs), size=CALLS):
        jax.block_until_ready(programs[index]())
    assert len(jax.live_arrays()) == arrays
    assert used_bytes(device) == used
    assert resident_bytes() - resident < MOST_GROWTH


# ---- Threads ----


@functools.cache
def busy_calls(device):
    """Programs of every operation, large enough to be at work together, and what they return."""
    rng = np.random.default_rng(2)
    programs = []
    for op in OPS.values():
        for n, numbers in itertools.product((300, 20_000, 70_000), ("normal", "mostly zeros")):
            operands = jax.device_put(op.operands(rng, n, 60, NUMBERS[numbers]), device)
            programs.append(functools.partial(op.compiled, operands, 60))
    return programs, [jax.device_get(program()) for program in programs]


@each_platform
def test_threads_do_not_disturb_each_other(platform):
    programs, alone = busy_calls(jax.devices(platform)[0])

    def work(seed):
        order = np.random.default_rng(seed).integers(len(programs), size=200)
        return order, [programs[index]() for index in order]

    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        for order, results in threads.map(work, range(2)):
            for index, result in zip(order, results):
                assert_same_bits(jax.device_get(result), alone[index])


# ---- A full device ----


def many_sums():
    active = ops.ActiveSet(
        np.zeros((1 << 16, 1), np.int32), np.ones((1 << 16, 1), np.float32), np.int32(1)
    )
    weights, counts = np.ones((1, 1 << 18), np.float32), np.ones(1 << 16, np.int32)

    def call(weights, active, count):
        return ops.accumulate_rows(weights, dataclasses.replace(active, count=count))

    each_set = jax.vmap(call, (None, ops.ActiveSet(0, 0, None), None))
    return jax.vmap(each_set, (None, None, 0)), (weights, active, counts)


def many_choices():
    def call(scores, firing):
        return ops.select_winners(scores, scores.size, firing=firing).indices

    scores, firing = np.ones((1 << 4, 1 << 18), np.float32), np.ones(1 << 26, bool)
    return jax.vmap(jax.vmap(call, (0, None)), (None, 0)), (scores, firing)


# Small operands, whose batch of results has 2**50 bytes: more than can be addressed.
OVERFLOWING = {"accumulate": many_sums, "select": many_choices}


@each_platform
@pytest.mark.parametrize("name", OVERFLOWING)
def test_after_a_failed_allocation_the_next_call_is_right(name, platform):
    op, device = OPS[name], jax.devices(platform)[0]
    call, operands = OVERFLOWING[name]()
    operands = jax.device_put(operands, device)
    for _ in range(2):
        # Which of the two depends on when the host learns of it.
        with pytest.raises((RuntimeError, ValueError), match="Out of memory"):
            jax.block_until_ready(jax.jit(call)(*operands))
        small = op.operands(np.random.default_rng(4), 1_000, 20, NUMBERS["normal"])
        assert_as_expected(op, small, 20, device)


# ---- Arrays that 32 bits cannot index ----

ROWS, COLUMNS = 65_600, 33_000  # more than 2**31 weights
FAR_ROWS = np.array([0, 65_074, 65_075, 65_076, ROWS - 1], np.int32)  # 2**31 is in row 65,075
SCORES = 600_000_007  # more than 2**31 bytes
FAR_SCORES = np.array([0, 5, 2**29 - 1, 2**29, 2**29 + 1, SCORES - 2, SCORES - 1], np.int32)


def number_at(row, column):
    """Some number in [0, 1) for each pair of unsigned words, in NumPy and in JAX."""
    bits = row * np.uint32(2654435761) ^ column * np.uint32(2246822519)
    bits = (bits ^ bits >> 15) * np.uint32(3266489917)
    return (bits >> 8).astype(np.float32) * np.float32(2.0**-24)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def far_array(rows, columns, dtype):
    row, column = (jax.lax.broadcasted_iota(jnp.uint32, (rows, columns), axis) for axis in (0, 1))
    return number_at(row, column).astype(dtype)


def far_rows(dtype):
    """The listed rows of the array, and the set that lists them among these."""
    column = np.arange(COLUMNS, dtype=np.uint32)
    rows = number_at(FAR_ROWS.astype(np.uint32)[:, None], column).astype(dtype)
    return rows, random_set(np.random.default_rng(5), len(FAR_ROWS), len(FAR_ROWS))


def in_far_array(active):
    padding = np.full(len(active.indices) - len(FAR_ROWS), ROWS, np.int32)
    return dataclasses.replace(active, indices=np.append(FAR_ROWS, padding))


each_dtype = pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])


@pytest.mark.gpu
@pytest.mark.large
@each_dtype
def test_rows_beyond_32_bits_are_summed(dtype):
    rows, active = far_rows(dtype)
    received = ops.accumulate_rows(far_array(ROWS, COLUMNS, dtype), in_far_array(active))
    assert_same_bits(received, accumulate_in_numpy((rows, active), len(FAR_ROWS)))


@pytest.mark.gpu
@pytest.mark.large
@each_dtype
def test_rows_beyond_32_bits_are_strengthened_and_no_others(dtype):
    rows, pre = far_rows(dtype)
    post = random_set(np.random.default_rng(6), COLUMNS, 500)
    weights = far_array(ROWS, COLUMNS, dtype)
    change = jax.jit(ops.potentiate, donate_argnums=0)
    weights = change(weights, in_far_array(pre), post, float(BETA), float(W_MAX))
    expected = potentiate_in_numpy((rows, pre, post), len(FAR_ROWS))
    assert_same_bits(weights[FAR_ROWS], expected)
    count = jax.jit(lambda weights: (weights != far_array(ROWS, COLUMNS, dtype)).sum(0).sum())
    assert count(weights) == (expected != rows).sum()


@pytest.mark.gpu
@pytest.mark.large
@pytest.mark.parametrize("others_equal", [False, True])
def test_scores_beyond_32_bits_are_chosen(others_equal):
    """The far ones are the largest; of the others, where these are equal, the first win."""
    scores = jnp.zeros(SCORES) if others_equal else far_array(1, SCORES, jnp.float32)[0]
    scores = scores.at[FAR_SCORES].set(np.arange(2, 2 + len(FAR_SCORES), dtype=np.float32))
    first = np.setdiff1d(np.arange(100), FAR_SCORES)[: 33 if others_equal else 0]
    expected = np.sort(np.append(FAR_SCORES, first)).astype(np.int32)
    assert_same_bits(ops.select_winners(scores, len(expected)).indices, expected)
