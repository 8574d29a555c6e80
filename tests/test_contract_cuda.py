"""The CUDA kernels have the bits of the references on the CPU, at any size and every time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same_bits, on_cpu, on_gpu, random_active, stacked
from operations import batch_of, each_case, each_op, on, usual_operands

from brainjax import ops


@pytest.mark.gpu
@each_case
def test_cuda_kernel_equals_the_reference_on_the_cpu(op, draw):
    operands = draw(np.random.default_rng(14))
    actual = on_gpu(on(op, "kernel"), *operands)
    assert_same_bits(actual, on_cpu(on(op, "reference"), *operands))


@pytest.mark.gpu
@each_op
def test_cuda_batch_equals_the_reference_on_the_cpu(op):
    batch = batch_of(op, 8, seed=15)
    actual = on_gpu(jax.jit(jax.vmap(on(op, "kernel"))), *batch)
    assert_same_bits(actual, on_cpu(jax.jit(jax.vmap(on(op, "reference"))), *batch))


def large_selection(batch, n, k, choose_scores):
    def draw(rng):
        return (jnp.asarray(choose_scores(rng, (*batch, n)), jnp.float32),)

    def call(scores, *, backend):
        def choose(row):
            return ops.select_winners(row, k, backend=backend)

        return (jax.vmap(choose) if batch else choose)(scores)

    return call, draw


def large_accumulation(batch, num_pre, num_post, count):
    def draw(rng):
        weights = jnp.asarray(rng.standard_normal((num_pre, num_post)), jnp.float32)
        sets = [random_active(rng, num_pre, count, count + 3, graded=True) for _ in range(7)]
        if not batch:
            return weights, sets[0]
        return weights, jax.tree.map(lambda leaf: leaf[jnp.arange(batch) % 7], stacked(sets))

    def call(weights, active, *, backend):
        sum_rows = functools.partial(ops.accumulate_rows, backend=backend)
        return (jax.vmap(sum_rows, (None, 0)) if batch else sum_rows)(weights, active)

    return call, draw


def normal(rng, shape):
    return rng.standard_normal(shape)


def counts(rng, shape):
    return rng.binomial(1000, 0.01, shape)


LARGE = {
    "select 1e6": large_selection((), 1_000_000, 1_000, normal),
    "select 1e6 ties": large_selection((), 1_000_000, 1_000, counts),
    "select 1e7": large_selection((), 10_000_000, 3_162, normal),
    "select 1e7 ties": large_selection((), 10_000_000, 3_162, counts),
    "select half": large_selection((), 1_000_003, 500_000, normal),
    "select 70000 rows": large_selection((70_000,), 65, 7, counts),
    "accumulate 4097 post": large_accumulation(0, 20_000, 4_097, 1_000),
    "accumulate 1001 post": large_accumulation(0, 3_001, 1_001, 3_000),
    "accumulate 3 post": large_accumulation(0, 50_000, 3, 40_000),
    "accumulate 70000 sets": large_accumulation(70_000, 100, 5, 20),
}


@pytest.mark.gpu
@pytest.mark.parametrize(("call", "draw"), LARGE.values(), ids=LARGE)
def test_large_cuda_kernel_equals_the_reference_on_the_cpu(call, draw):
    operands = draw(np.random.default_rng(16))
    actual = on_gpu(jax.jit(functools.partial(call, backend="kernel")), *operands)
    reference = jax.jit(functools.partial(call, backend="reference"))
    assert_same_bits(actual, on_cpu(reference, *operands))


@pytest.mark.gpu
@each_op
def test_cuda_kernels_repeat_themselves(op):
    operands = usual_operands(op, seed=17)
    first = on_gpu(on(op, "kernel"), *operands)
    for _ in range(20):
        assert_same_bits(on_gpu(on(op, "kernel"), *operands), first)
