"""Every operation has the gradient of its definition, on every backend."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import at, each_backend, stacked
from operations import CASES, OPS, batch_of, each_op


def float_leaves(tree):
    """The leaves that can be differentiated, and how to put others in their place."""
    leaves, structure = jax.tree.flatten(tree)
    is_float = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]

    def rebuild(floats):
        floats = iter(floats)
        return structure.unflatten(
            [next(floats) if moves else leaf for moves, leaf in zip(is_float, leaves)]
        )

    return [leaf for moves, leaf in zip(is_float, leaves) if moves], rebuild


def pull_back(function, operands, bars):
    """What `bars` on the float results are worth on the float operands."""
    floats, rebuild = float_leaves(operands)
    _, gradient = jax.vjp(lambda floats: float_leaves(function(*rebuild(floats)))[0], floats)
    return gradient(bars)[0]


@functools.cache
def gradient(op, backend):
    """Gradient of the operation on one backend, or of its definition where that is None."""
    function = op.differentiable if backend is None else functools.partial(op.call, backend=backend)
    return jax.jit(functools.partial(pull_back, function))


def random_bars(op, operands, seed):
    rng = np.random.default_rng(seed)
    results = float_leaves(jax.eval_shape(op.definition, *operands))[0]
    return [jnp.asarray(rng.standard_normal(leaf.shape), leaf.dtype) for leaf in results]


def assert_close_gradients(op, actual, expected):
    for got, wanted in zip(actual, expected, strict=True):
        assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
        assert np.isfinite(np.asarray(wanted, np.float64)).all()
        # The same terms in another order, rounded once more to the type of the operand.
        error = op.terms * np.finfo(np.float32).eps + float(jnp.finfo(got.dtype).eps)
        got, wanted = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
        np.testing.assert_allclose(got, wanted, rtol=0, atol=error * np.abs(wanted).max(initial=0))


# An infinite score has no threshold, and equal scores no slope that both sides round alike.
# A round has the gradients of its operations, which bfloat16 is tried on; integers and bursts have
# none.
WITHOUT_GRADIENT = (
    "select, special",
    "select, few",
    "core, bfloat16",
    *(f"propagate integers, {case}" for case in ("unit", "empty", "full")),
    *(f"burst, {case}" for case in OPS["burst"].cases if case != "usual"),
)
DIFFERENTIABLE = {name: row for name, row in CASES.items() if not name.startswith(WITHOUT_GRADIENT)}


@each_backend
@pytest.mark.parametrize(("op", "draw"), DIFFERENTIABLE.values(), ids=DIFFERENTIABLE)
def test_gradient_is_that_of_the_definition(op, draw, backend):
    operands = draw(np.random.default_rng(8))
    bars = random_bars(op, operands, seed=9)
    actual = gradient(op, backend)(operands, bars)
    assert_close_gradients(op, actual, gradient(op, None)(operands, bars))


@each_backend
@each_op
def test_gradient_of_a_batch_is_a_loop(op, backend):
    batch = batch_of(op, 4, seed=10)
    bars = stacked([random_bars(op, at(batch, index), seed=index) for index in range(4)])
    batched = jax.vmap(functools.partial(op.call, backend=backend))
    together = jax.jit(functools.partial(pull_back, batched))(batch, bars)
    for index in range(4):
        alone = gradient(op, backend)(at(batch, index), at(bars, index))
        assert_close_gradients(op, at(together, index), alone)
