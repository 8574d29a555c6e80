"""A batch or a scan of an operation is a loop over it, in bits."""

import jax
import jax.numpy as jnp
from helpers import assert_same_bits, at, each_backend_slowly, stacked
from operations import batch_of, each_op, on


@each_backend_slowly
@each_op
def test_batch_is_a_loop(op, backend):
    call, batch = on(op, backend), batch_of(op, 6, seed=3)
    together = jax.jit(jax.vmap(call))(*batch)
    assert_same_bits(together, stacked([call(*at(batch, index)) for index in range(6)]))


@each_backend_slowly
@each_op
def test_batch_with_shared_operands_is_a_loop(op, backend):
    call, batch = on(op, backend), batch_of(op, 4, seed=4)
    for axes in op.shared_axes:
        mixed = [leaf if axis == 0 else at(leaf, 0) for leaf, axis in zip(batch, axes)]
        together = jax.jit(jax.vmap(call, axes))(*mixed)
        alone = [
            call(*(at(leaf, i) if axis == 0 else leaf for leaf, axis in zip(mixed, axes)))
            for i in range(4)
        ]
        assert_same_bits(together, stacked(alone))


@each_backend_slowly
@each_op
def test_nested_batch_is_a_loop(op, backend):
    """The outer batch shares the first operand with all; the inner one has its own of the rest."""
    call, batch = on(op, backend), batch_of(op, 6, seed=5)
    first = at(batch[0], slice(0, 3))
    rest = jax.tree.map(lambda leaf: leaf.reshape(2, 3, *leaf.shape[1:]), batch[1:])
    inner = jax.vmap(call)
    nested = jax.jit(jax.vmap(inner, (None, *(0 for _ in rest))))(first, *rest)
    alone = [[call(at(first, j), *at(rest, (i, j))) for j in range(3)] for i in range(2)]
    assert_same_bits(nested, stacked([stacked(row) for row in alone]))


@each_backend_slowly
@each_op
def test_batch_along_another_axis(op, backend):
    call, batch = on(op, backend), batch_of(op, 3, seed=6)
    last = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, -1), batch[0])
    axes = (-1, *(0 for _ in batch[1:]))
    assert_same_bits(jax.jit(jax.vmap(call, axes))(last, *batch[1:]), jax.vmap(call)(*batch))


@each_backend_slowly
@each_op
def test_scan_is_a_loop(op, backend):
    call, batch = on(op, backend), batch_of(op, 4, seed=7)
    _, scanned = jax.jit(lambda xs: jax.lax.scan(lambda _, x: (None, call(*x)), None, xs))(batch)
    assert_same_bits(scanned, stacked([call(*at(batch, index)) for index in range(4)]))
