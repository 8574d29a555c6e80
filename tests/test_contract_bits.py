"""Every operation has the bits of its definition, on every backend."""

import functools

import jax
import numpy as np
from helpers import assert_same_bits, each_backend, each_backend_slowly
from operations import defined, each_case, each_op, on, usual_operands


@each_backend
@each_case
def test_backends_have_equal_bits(op, draw, backend):
    operands = draw(np.random.default_rng(1))
    assert_same_bits(on(op, backend)(*operands), defined(op)(*operands))


@each_backend_slowly
@each_op
def test_jit_changes_no_bit(op, backend):
    operands = usual_operands(op, seed=2)
    eager = op.call(*operands, backend=backend)
    assert_same_bits(on(op, backend)(*operands), eager)
    shapes = jax.eval_shape(functools.partial(op.call, backend=backend), *operands)
    for shape, leaf in zip(jax.tree.leaves(shapes), jax.tree.leaves(eager), strict=True):
        assert (shape.shape, shape.dtype) == (leaf.shape, leaf.dtype)
