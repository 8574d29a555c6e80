"""The round of an area beyond the contract: what fibers, winners and limits do, and every size."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import BACKENDS, assert_same_bits, at, each_backend, on_cpu, stacked
from rounds import HINTS, KINDS, POST, K, area

from brainjax import ops
from brainjax.ops.assembly_core import HANDLER, MAX_FIBERS, _check_shapes

# Of shapes that take long to compile: the reference is the definition itself.
each_other_backend = pytest.mark.parametrize("backend", BACKENDS[1:])


@functools.partial(jax.jit, static_argnames=("k", "backend"))
def advance(operands, backend, k=K):
    return ops.assembly_core(k=k, backend=backend, **operands)


@functools.partial(jax.jit, static_argnames="k")
def definition(operands, k=K):
    """The reference, without what only a kernel is told."""
    operands = {name: value for name, value in operands.items() if name != "last_inputs"}
    return ops.assembly_core_reference(k=k, **operands)


@each_backend
@pytest.mark.parametrize("closed", [[0], [1], [0, 1]])
def test_closed_fibers_learn_nothing(backend, closed):
    operands = area(3, fibers=2)
    operands["is_open"] = jnp.ones(2, bool).at[np.asarray(closed)].set(False)
    weights, inputs, winners = advance(operands, backend)
    for f in range(2):
        changed = (np.asarray(weights[f]) != np.asarray(operands["weights"][f])).any()
        assert changed == (f not in closed)
    if len(closed) == 2:
        assert_same_bits(winners, operands["winners"])
        assert not inputs.any()


def sends_infinity_through_a_closed_fiber():
    operands = area(14, fibers=2)
    stimulus, population = operands["senders"]
    stimulus = stimulus.replace(values=np.full_like(stimulus.values, np.inf))
    return operands | {"senders": (stimulus, population), "is_open": jnp.array([False, True])}


@each_backend
def test_closed_fibers_carry_nothing(backend):
    operands = sends_infinity_through_a_closed_fiber()
    assert_same_bits(advance(operands, backend), definition(operands))

    def total(weights):
        changed, inputs, _ = advance(operands | {"weights": weights}, backend)
        return inputs.sum() + sum(matrix.sum() for matrix in changed)

    assert all(jnp.isfinite(bar).all() for bar in jax.grad(total)(operands["weights"]))


@pytest.mark.gpu
def test_cuda_closed_fibers_carry_nothing():
    operands = sends_infinity_through_a_closed_fiber()
    assert_same_bits(advance(operands, "kernel"), on_cpu(definition, operands))


@each_backend
def test_a_fixed_area_keeps_its_winners_and_its_fibers_learn(backend):
    operands = {**area(4, fibers=2), "is_fixed": jnp.asarray(True)}
    weights, _, winners = advance(operands, backend)
    assert_same_bits(winners, operands["winners"])
    assert (np.asarray(weights[1]) != np.asarray(operands["weights"][1])).any()


@each_backend
def test_without_input_nobody_fires(backend):
    operands = area(5, fibers=2)
    operands["weights"] = jax.tree.map(jnp.zeros_like, operands["weights"])
    _, inputs, winners = advance(operands, backend)
    assert not inputs.any()
    assert_same_bits(winners, ops.active_set.empty(POST, K))


@each_other_backend
@pytest.mark.parametrize("fibers", [1, 3, MAX_FIBERS, MAX_FIBERS + 1])
def test_any_number_of_fibers(backend, fibers):
    operands = area(7, fibers=fibers)
    assert_same_bits(advance(operands, backend), definition(operands))


@each_other_backend
def test_runners_up_are_listed(backend):
    operands = area(8, fibers=2)
    result = advance(operands, backend, k=K - 4)
    assert_same_bits(result, definition(operands, k=K - 4))
    assert result[2].values.sum() == K - 4


def calls_on_cuda(operands, k):
    lowered = advance.trace(operands, "auto", k).lower(lowering_platforms=("cuda",))
    return lowered.as_text().count("stablehlo.custom_call @brainjax")


@pytest.mark.skipif("cuda" not in ops.backend.platforms_with(HANDLER), reason="no CUDA kernels")
@pytest.mark.parametrize(
    ("post", "k", "calls"),
    [(POST, K, 1), (2**18, 512, 1), (2**18, 2**18, 5), (4_096, 4_096, 1), (2**18 + 8, 9, 5)],
)
def test_one_call_for_an_area_that_blocks_of_any_gpu_can_hold(post, k, calls):
    assert calls_on_cuda(jax.eval_shape(lambda: area(10, post=post, k=k, fibers=2)), k) == calls


@each_backend
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beta": jnp.full(2, 0.003)}, "beta must be 0, above 2"),
        (
            dict.fromkeys(("is_open", "is_plastic"), jnp.ones(1, bool))
            | dict.fromkeys(("beta", "w_max"), jnp.ones(1)),
            r"is_open must be of 2 fibers; got shape \(1,\)",
        ),
        ({"winners": ops.active_set.empty(POST, K - 1)}, f"winners must have room for k={K}"),
    ],
)
def test_operands_that_do_not_fit_are_refused(changes, message, backend):
    operands = area(13, fibers=2, dtype=jnp.bfloat16) | changes
    with pytest.raises(ValueError, match=message):
        ops.assembly_core(k=K, backend=backend, **operands)


def test_fibers_end_in_one_area():
    """Not by the operation itself: of a sequence, its type hints look at one matrix at random."""
    operands, flags = area(13, fibers=2), (jnp.ones(2),) * 4
    weights = operands["weights"][0], operands["weights"][1][:, :-1]
    with pytest.raises(ValueError, match=rf"weights\[1\] must be \[pre, {POST}\]; got"):
        _check_shapes(weights, operands["winners"], K, flags)


@each_backend
@pytest.mark.parametrize("k", [0, POST + 1])
def test_a_number_of_winners_that_cannot_be_is_refused(backend, k):
    with pytest.raises(ValueError, match=rf"k must be in 1\.\.neurons={POST}; got {k}"):
        advance(area(12, k=k), backend, k)


def test_weights_and_senders_must_match():
    operands = area(11)
    operands["senders"] = operands["senders"][:2]
    with pytest.raises(ValueError, match=r"one matrix for each of the senders.*got 3 for 2"):
        advance(operands, "auto")


# Both sides of the sizes at which a cluster, a grid and the layouts of a block begin and end.
SIZES = (5, 127, 128, 129, 1_023, 1_025, 2_047, 2_048, 2_049, 10_000, 16_895, 16_897, 33_791)
BRAINS = ((2, 300), (9, 4_096), (70, 1_000), (3, 32_769), (150, 129))


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("post", SIZES)
def test_cuda_sizes(post, kind):
    k = max(1, round(post**0.5))
    expected = functools.partial(definition, k=k)
    for hint, dtype in zip(HINTS, 2 * (jnp.float32, jnp.bfloat16)):
        operands = area(post, kind, post=post, k=k, dtype=dtype, hint=hint)
        for _ in range(2):  # the second time with the hint that the first one leaves
            result = advance(operands, "kernel", k)
            assert_same_bits(result, on_cpu(expected, operands))
            operands |= dict(zip(("weights", "last_inputs", "winners"), result, strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize(("brains", "post"), BRAINS)
def test_cuda_batches(brains, post):
    k = max(1, round(post**0.5))
    one = [area(seed, KINDS[seed % 4], post=post, k=k, fibers=2) for seed in range(4)]
    together = stacked([one[index % 4] for index in range(brains)])
    result = jax.vmap(lambda brain: advance(brain, "kernel", k))(together)
    expected = [on_cpu(functools.partial(definition, k=k), brain) for brain in one]
    for index in range(brains):
        assert_same_bits(at(result, index), expected[index % 4])
