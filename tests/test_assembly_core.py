"""The fused round of an area equals its definition, whoever fires and whatever came before."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import BACKENDS, assert_same_bits, at, each_backend, random_active, stacked

from brainjax import ops
from brainjax.ops.assembly_core import HANDLER, MAX_FIBERS

PRE, POST, K = 90, 61, 9
HINTS = {
    "zeros": np.zeros,
    "too high": lambda n: np.full(n, 1e30),
    "too low": lambda n: np.full(n, -1e30),
    "unknown": lambda n: np.full(n, np.nan),
}


def weights_of(rng, kind, shape):
    """Weights that make scores of a kind: small whole numbers, hardly any, or winners in a row."""
    n = shape[1]
    if kind == "whole numbers":
        return (rng.random(shape) < 0.1).astype(np.float32)
    if kind == "sparse":
        return (np.arange(n) % max(2, n // 3) == 1) * np.ones(shape, np.float32)
    if kind == "clustered":
        return rng.random(shape, np.float32) + 9 * (np.arange(n) // max(1, n // 4) == 1)
    return rng.standard_normal(shape, np.float32)


KINDS = ("whole numbers", "sparse", "clustered", "normal")


def area(seed, kind="normal", *, post=POST, k=K, fibers=3, dtype=jnp.float32, hint="zeros"):
    """Operands of a round: a stimulus, then populations of graded senders, then more stimuli."""
    rng = np.random.default_rng(seed)
    capacities = [1, 40, 7, *[1] * max(0, fibers - 3)][:fibers]
    rows = [1 if capacity == 1 else PRE for capacity in capacities]
    weights = [jnp.asarray(weights_of(rng, kind, (r, post)), dtype) for r in rows]
    senders = [
        random_active(rng, r, max(1, c - 2), c, graded=c > 1)
        for r, c in zip(rows, capacities, strict=True)
    ]
    old = min(k, 5)
    return {
        "weights": tuple(weights),
        "senders": tuple(senders),
        "winners": random_active(rng, post, old, k, graded=True),
        "k": k,
        "is_open": jnp.ones(fibers, bool),
        "is_plastic": jnp.ones(fibers, bool),
        "is_fixed": jnp.asarray(False),
        "beta": jnp.asarray(rng.random(fibers), jnp.float32),
        "w_max": jnp.full(fibers, 7.5, jnp.float32),
        "last_inputs": jnp.asarray(HINTS[hint](post), jnp.float32),
    }


def advance(operands, backend):
    """One compiled program a shape; k is static."""
    operands = dict(operands)
    return _advance(operands.pop("k"), backend, operands)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _advance(k, backend, operands):
    return ops.assembly_core(k=k, backend=backend, **operands)


def definition(operands):
    """The reference, without what only a kernel is told."""
    operands = {name: value for name, value in operands.items() if name != "last_inputs"}
    return _define(operands.pop("k"), operands)


@functools.partial(jax.jit, static_argnums=0)
def _define(k, operands):
    return ops.assembly_core_reference(k=k, **operands)


@each_backend
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_three_operations(backend, kind, dtype):
    operands = area(1, kind, dtype=dtype)
    assert_same_bits(advance(operands, backend), definition(operands))


@each_backend
@pytest.mark.parametrize("hint", HINTS)
def test_hints_change_no_bit(backend, hint):
    operands = area(2, hint=hint)
    assert_same_bits(advance(operands, backend), definition(operands))


@each_backend
@pytest.mark.parametrize("closed", [[0], [1], [0, 1], [0, 1, 2]])
def test_closed_fibers_carry_and_learn_nothing(backend, closed):
    operands = area(3)
    operands["is_open"] = jnp.ones(3, bool).at[np.asarray(closed)].set(False)
    weights, inputs, winners = advance(operands, backend)
    assert_same_bits((weights, inputs, winners), definition(operands))
    for f in closed:
        assert_same_bits(weights[f], operands["weights"][f])
    if len(closed) == 3:
        assert_same_bits(winners, operands["winners"])
        assert not inputs.any()


@each_backend
def test_a_fixed_area_keeps_its_winners_and_its_fibers_learn(backend):
    operands = {**area(4), "is_fixed": jnp.asarray(True)}
    weights, inputs, winners = advance(operands, backend)
    assert_same_bits((weights, inputs, winners), definition(operands))
    assert_same_bits(winners, operands["winners"])
    assert (np.asarray(weights[1]) != np.asarray(operands["weights"][1])).any()


@each_backend
def test_without_input_nobody_fires(backend):
    operands = area(5)
    operands["weights"] = jax.tree.map(jnp.zeros_like, operands["weights"])
    _, inputs, winners = advance(operands, backend)
    assert not inputs.any()
    assert_same_bits(winners, ops.active_set.empty(POST, K))


@each_backend
@pytest.mark.parametrize("count", [-3, 0, 10**6])
def test_counts_of_senders_are_limited_to_their_lists(backend, count):
    operands = area(6)
    senders = list(operands["senders"])
    senders[1] = senders[1].replace(count=jnp.int32(count))
    operands["senders"] = tuple(senders)
    assert_same_bits(advance(operands, backend), definition(operands))


@each_backend
@pytest.mark.parametrize("fibers", [1, 2, MAX_FIBERS, MAX_FIBERS + 1])
def test_any_number_of_fibers(backend, fibers):
    operands = area(7, fibers=fibers)
    assert_same_bits(advance(operands, backend), definition(operands))


@each_backend
def test_runners_up_are_listed(backend):
    operands = {**area(8), "k": K - 4}
    assert_same_bits(advance(operands, backend), definition(operands))
    assert advance(operands, backend)[2].values.sum() == K - 4


@each_backend
@pytest.mark.parametrize("batched", ["everything", "flags", "senders"])
def test_batches_have_the_bits_of_each_alone(backend, batched):
    brains = [area(seed, "whole numbers") for seed in range(4)]
    for brain, is_fixed in zip(brains, (False, True, False, False), strict=True):
        brain["is_fixed"] = jnp.asarray(is_fixed)
    brains[2]["is_open"] = jnp.zeros(3, bool)
    varying = {
        "everything": set(brains[0]) - {"k"},
        "flags": {"is_open", "is_fixed"},
        "senders": {"senders"},
    }[batched]
    brains = [
        {name: brain[name] if name in varying else brains[0][name] for name in brain}
        for brain in brains
    ]
    together = stacked([{name: brain[name] for name in varying} for brain in brains])

    def one(varied):
        return advance({**brains[0], **varied}, backend)

    result = jax.vmap(one)(together)
    for index, brain in enumerate(brains):
        assert_same_bits(at(result, index), advance(brain, backend))
    twice = jax.tree.map(lambda leaf: leaf.reshape(2, 2, *leaf.shape[1:]), together)
    nested = jax.vmap(jax.vmap(one))(twice)
    assert_same_bits(jax.tree.map(lambda leaf: leaf.reshape(4, *leaf.shape[2:]), nested), result)


def test_gradients_are_those_of_the_three_operations():
    operands = area(9)
    ways = jnp.asarray(np.random.default_rng(9).standard_normal(POST), jnp.float32)

    def loss(numbers, backend):
        weights, inputs, winners = advance({**operands, **numbers}, backend)
        return (inputs * ways).sum() + (weights[1] * ways).sum() + winners.values.sum()

    def loss_in_turn(numbers):
        weights, inputs, winners = definition({**operands, **numbers})
        return (inputs * ways).sum() + (weights[1] * ways).sum() + winners.values.sum()

    numbers = {name: operands[name] for name in ("weights", "beta", "w_max")}
    expected = jax.grad(loss_in_turn)(numbers)
    for backend in BACKENDS:
        gradient = jax.grad(loss)(numbers, backend)
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), gradient, expected
        )


def test_one_call_for_a_whole_area_on_cuda():
    operands = dict(area(10))
    k = operands.pop("k")
    lowered = _advance.trace(k, "auto", operands).lower(lowering_platforms=("cuda",))
    if "cuda" in ops.backend.platforms_with(HANDLER):
        assert lowered.as_text().count("stablehlo.custom_call @brainjax") == 1


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
    for hint, dtype in zip(HINTS, 2 * (jnp.float32, jnp.bfloat16)):
        k = max(1, round(post**0.5))
        operands = area(post, kind, post=post, k=k, dtype=dtype, hint=hint)
        for _ in range(2):  # the second time with the hint that the first one leaves
            result = advance(operands, "kernel")
            assert_same_bits(result, definition(operands))
            operands |= dict(zip(("weights", "last_inputs", "winners"), result, strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize(("brains", "post"), BRAINS)
def test_cuda_batches(brains, post):
    k = max(1, round(post**0.5))
    one = [area(seed, KINDS[seed % 4], post=post, k=k, fibers=2) for seed in range(4)]
    for brain in one:
        brain.pop("k")
    together = stacked([one[index % 4] for index in range(brains)])
    result = jax.vmap(functools.partial(_advance, k, "kernel"))(together)
    expected = [definition({**brain, "k": k}) for brain in one]
    for index in range(brains):
        assert_same_bits(at(result, index), expected[index % 4])
