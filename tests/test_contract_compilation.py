"""When an operation is compiled, into what, and how it says that it cannot be."""

import jax
import jax.numpy as jnp
import pytest
from helpers import each_backend
from operations import each_op, on, usual_operands

from brainjax import ops
from brainjax.ops import backend as backends


@each_backend
@each_op
def test_changed_numbers_do_not_trace_again(op, backend):
    traces = 0

    @jax.jit
    def call(*operands):
        nonlocal traces
        traces += 1
        return op.call(*operands, backend=backend)

    for seed in range(3):
        call.trace(*usual_operands(op, seed))
    assert traces == 1


@each_op
def test_lowers_for_cuda_without_a_gpu(op):
    """The kernel where the CUDA library is installed, plain XLA where it is not."""
    traced = on(op, "auto").trace(*usual_operands(op, seed=12))
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    called = backends.target(op.handler) in text
    assert called == ("cuda" in backends.platforms_with(op.handler))


@each_op
def test_a_missing_kernel_is_an_error(op, monkeypatch):
    monkeypatch.setattr(backends, "platforms_with", lambda handler: ())
    with pytest.raises(RuntimeError, match=f"no compiled {op.handler}: .*cpu"):
        op.call(*usual_operands(op, seed=13), backend="kernel")


def test_an_unknown_backend_is_an_error():
    with pytest.raises(ValueError, match=r"backend must be one of .*'kernel'.*; got 'fast'"):
        backends.check("fast")


def test_no_kernel_for_these_operands_is_an_error():
    nobody = ops.active_set.empty(3, 2)
    with pytest.raises(RuntimeError, match=r"BrainjaxAccumulateRows.*float16"):
        ops.accumulate_rows(jnp.ones((3, 4), jnp.float16), nobody, backend="kernel")
