"""Products that are rounded before a sum, and quotients rounded once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from brainjax.ops.rounding import quotient, rounded


def numbers(seed, size=20_000):
    rng = np.random.default_rng(seed)
    mantissas = rng.uniform(1, 2, size)
    return np.float32(mantissas * 2.0 ** rng.integers(-40, 40, size))


def test_product_is_rounded_before_the_sum():
    a, b, c = (numbers(seed) for seed in range(3))
    with_sum = jax.jit(lambda a, b, c, count: c + rounded(a * b, count))
    np.testing.assert_array_equal(with_sum(a, b, c, jnp.int32(1)), a * b + c)


def test_quotient_is_correctly_rounded():
    a, b = numbers(0), numbers(1)
    np.testing.assert_array_equal(jax.jit(quotient)(a, b), a / b)  # NumPy divides as IEEE says


def test_quotient_of_whole_numbers():
    whole = np.arange(1, 400, dtype=np.float32)
    table = jax.jit(quotient)(whole[:, None], whole[None, :])
    np.testing.assert_array_equal(table, whole[:, None] / whole[None, :])
    assert (np.diag(table) == 1).all()


def test_quotient_of_the_smallest_and_largest():
    """Beyond what float32 can be a quotient is infinite, below the normal numbers 0."""
    rng = np.random.default_rng(4)
    a, b = (np.float32(2.0 ** rng.uniform(-100, 100, 20_000)) for _ in range(2))
    with np.errstate(over="ignore", under="ignore"):
        expected = a / b
    expected[expected < np.finfo(np.float32).tiny] = 0
    np.testing.assert_array_equal(jax.jit(quotient)(a, b), expected)


def test_quotient_with_zero_is_zero():
    a = jnp.array([0.0, 3.0, 0.0])
    b = jnp.array([2.0, 0.0, 0.0])
    np.testing.assert_array_equal(quotient(a, b), np.zeros(3, np.float32))


@pytest.mark.gpu
def test_quotient_on_a_gpu_is_that_of_numpy():
    a, b = (jax.device_put(numbers(seed), jax.devices("gpu")[0]) for seed in (2, 3))
    np.testing.assert_array_equal(jax.jit(quotient)(a, b), np.asarray(a) / np.asarray(b))


def test_quotient_has_the_derivative_of_a_quotient():
    a, b = jnp.float32(3), jnp.float32(7)
    da, db = jax.grad(quotient, (0, 1))(a, b)
    np.testing.assert_allclose([da, db], [1 / 7, -3 / 49], rtol=1e-6)
