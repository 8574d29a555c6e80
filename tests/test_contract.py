"""What every operation promises, on every backend: the table of ops times promises."""

import dataclasses
import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    assert_same_bits,
    at,
    each_backend,
    on_cpu,
    on_gpu,
    random_active,
    stacked,
    weight_copies,
    weights_of_synapses,
)
from rounds import POST, K, area

from brainjax import ops
from brainjax.ops import accumulation, backend as backends, potentiation, propagation, selection
from brainjax.ops.assembly_core import HANDLER as ASSEMBLY_CORE

PRE, CAPACITY = 150, 70  # more rows than lanes; no multiple of any vector width
RUNNERS_UP, FAN_OUT = 4, 7


def accumulate(weights, active, *, backend):
    return ops.accumulate_rows(weights, active, backend=backend)


def select(scores, firing, temperature, *, backend):
    return ops.select_winners(
        scores,
        K,
        firing=firing,
        runners_up=RUNNERS_UP,
        temperature=temperature,
        backend=backend,
    )


def potentiate(weights, pre, post, beta, w_max, *, backend):
    return ops.potentiate(weights, pre, post, beta, w_max, backend=backend)


def core(*operands, backend):
    return ops.assembly_core(k=K, backend=backend, **dict(zip(ROUND, operands, strict=True)))


def propagate(synapses, active, *, backend):
    return ops.propagate_spikes(synapses, active, POST, backend=backend)


def count_arrivals(synapses, active, *, backend):
    return ops.propagate_integers(synapses, active, POST, backend=backend)


def hard_choice(scores, firing, temperature):
    """What `select` returns, from the reference alone."""
    del temperature  # of no effect without a gradient
    winners = ops.select_winners_reference(scores, K).indices
    listed = ops.select_winners_reference(scores, K + RUNNERS_UP).indices
    return ops.ActiveSet(
        jnp.where(firing, listed, scores.shape[0]),
        jnp.where(firing & jnp.isin(listed, winners), 1.0, 0.0),
        jnp.where(firing, K + RUNNERS_UP, 0),
    )


def straight_through_choice(scores, firing, temperature):
    """The hard choice with the gradient of the soft one."""
    hard = hard_choice(scores, firing, temperature)
    soft = ops.soft_winners(scores, K, temperature)
    soft = jnp.where(firing, soft.at[hard.indices].get(mode="fill", fill_value=0), 0)
    return hard.replace(values=hard.values + soft - jax.lax.stop_gradient(soft))


def three_operations(*operands):
    """What `core` returns, from the reference alone, which takes no hint."""
    operands = dict(zip(ROUND, operands, strict=True))
    del operands["last_inputs"]
    return ops.assembly_core_reference(k=K, **operands)


def rounded_sum(synapses, active):
    return ops.propagate_spikes_reference(synapses, active, POST)


def straight_through_sum(synapses, active):
    """The rounded sum with the gradient of the one without rounding."""
    exact = rounded_sum(*jax.lax.stop_gradient((synapses, active)))
    used = jnp.arange(CAPACITY) < active.count
    sent = jnp.zeros(PRE).at[active.indices].add(jnp.where(used, active.values, 0), mode="drop")
    if isinstance(synapses, ops.FixedFanOut):
        pre = jnp.broadcast_to(jnp.arange(PRE)[:, None], synapses.indices.shape)
    else:
        places = jnp.arange(synapses.indices.size)
        pre = jnp.searchsorted(synapses.indptr, places, side="right") - 1
    weights = 1.0 if synapses.weights is None else synapses.weights.astype(jnp.float32)
    soft = jnp.zeros(POST).at[synapses.indices].add(weights * sent[pre], mode="drop")
    return exact + soft - jax.lax.stop_gradient(soft)


def rounded_integers(synapses, active):
    """Those of the rounded sum, which float32 holds exactly here; without a gradient."""
    synapses, active = jax.lax.stop_gradient((synapses, active))
    return (rounded_sum(synapses, active) * 2.0**synapses.fraction_bits).astype(jnp.int32)


def accumulation_case(*, dtype=np.float32, count=65, **options):
    def draw(rng):
        weights = jnp.asarray(rng.standard_normal((PRE, POST)), dtype)
        return weights, random_active(rng, PRE, count, CAPACITY, **options)

    return draw


def selection_case(choose_scores, *, firing=True):
    def draw(rng):
        scores = jnp.asarray(choose_scores(rng), jnp.float32)
        return scores, jnp.asarray(firing), jnp.float32(0.5)

    return draw


def potentiation_case(*, dtype=np.float32, counts=(65, 20), w_max=np.inf, **options):
    def draw(rng):
        weights = jnp.asarray(rng.uniform(0.5, 2, (PRE, POST)) * (rng.random((PRE, POST)) < 0.5))
        pre = random_active(rng, PRE, counts[0], CAPACITY, **options)
        post = random_active(rng, POST, counts[1], 25, **options)
        return weights.astype(dtype), pre, post, jnp.float32(0.3), jnp.float32(w_max)

    return draw


ROUND = tuple(area(0))  # the names of its operands


def core_case(kind="normal", *, count=None, is_open=(True, True), is_fixed=False, **options):
    def draw(rng):
        operands = area(rng, kind, fibers=2, **options)
        operands |= {"is_open": jnp.asarray(is_open), "is_fixed": jnp.asarray(is_fixed)}
        if count is not None:
            stimulus, population = operands["senders"]
            operands["senders"] = stimulus, population.replace(count=jnp.int32(count))
        return tuple(operands.values())

    return draw


def propagation_case(
    layout, kind, *, fan_out=FAN_OUT, count=65, graded=True, unused=0.0, **options
):
    def draw(rng):
        active = random_active(rng, PRE, count, CAPACITY, graded=graded, **options)
        values = jnp.where(jnp.arange(CAPACITY) < count, active.values, unused)
        active = active.replace(values=values)
        if layout == "fixed":
            targets = rng.integers(0, POST + 1, (PRE, fan_out))  # POST: no synapse
            weights = weights_of_synapses(rng, kind, targets.shape)
            return ops.fixed_fan_out(targets, POST, weights, fraction_bits=8), active
        size = PRE * fan_out  # of all rows together
        indptr = np.array([0, *np.sort(rng.integers(0, size + 1, PRE - 1)), size])
        weights = weights_of_synapses(rng, kind, size)
        targets = rng.integers(0, POST, size)
        return ops.compressed_rows(indptr, targets, POST, weights, fraction_bits=8), active

    return draw


TINY = np.finfo(np.float32).tiny
SPECIAL = np.array([np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, TINY])
FAR = np.iinfo(np.int32).max


@dataclasses.dataclass(frozen=True, eq=False)
class Op:
    """One operation, its definition, and operands that are worth trying."""

    call: Callable  # (*operands, backend) -> result
    definition: Callable  # (*operands) -> result, from references
    differentiable: Callable  # the same with the right autodiff
    handler: str
    cases: dict[str, Callable]  # name -> random generator -> operands
    shared_axes: tuple[tuple, ...]  # in_axes of batches that share some operands
    terms: int  # of the longest sum in a gradient


OPS = {
    "accumulate": Op(
        call=accumulate,
        definition=ops.accumulate_rows_reference,
        differentiable=ops.accumulate_rows_reference,
        handler=accumulation.HANDLER,
        cases={
            "spikes": accumulation_case(),
            "graded": accumulation_case(graded=True),
            "full": accumulation_case(graded=True, count=CAPACITY),
            "one": accumulation_case(count=1),
            "empty": accumulation_case(count=0),
            "far padding": accumulation_case(padding=FAR),
            "padding that names a neuron": accumulation_case(padding=3),
            "bfloat16": accumulation_case(dtype=jnp.bfloat16, graded=True),
        },
        shared_axes=((None, 0), (0, None)),
        terms=max(PRE, POST),
    ),
    "select": Op(
        call=select,
        definition=hard_choice,
        differentiable=straight_through_choice,
        handler=selection.HANDLER,
        cases={
            "normal": selection_case(lambda rng: rng.standard_normal(PRE)),
            "heavy ties": selection_case(lambda rng: rng.integers(0, 3, PRE)),
            "all equal": selection_case(lambda rng: np.full(PRE, rng.standard_normal())),
            "integers": selection_case(lambda rng: rng.binomial(100, 0.05, PRE)),
            "special": selection_case(lambda rng: rng.choice(SPECIAL, PRE)),
            "few": selection_case(lambda rng: rng.standard_normal(K + RUNNERS_UP)),
            "not firing": selection_case(lambda rng: rng.standard_normal(PRE), firing=False),
        },
        shared_axes=((0, None, None), (None, 0, None), (None, None, 0)),
        terms=PRE,
    ),
    "potentiate": Op(
        call=potentiate,
        definition=ops.potentiate_reference,
        differentiable=ops.potentiate_reference,
        handler=potentiation.HANDLER,
        cases={
            "spikes": potentiation_case(),
            "graded": potentiation_case(graded=True),
            "limited": potentiation_case(w_max=1.5),
            "full": potentiation_case(counts=(CAPACITY, 25)),
            "no pre": potentiation_case(counts=(0, 20)),
            "no post": potentiation_case(counts=(65, 0)),
            "far padding": potentiation_case(padding=FAR),
            "padding that names a neuron": potentiation_case(padding=3, counts=(9, 9)),
            "bfloat16": potentiation_case(dtype=jnp.bfloat16, graded=True, w_max=1.5),
        },
        shared_axes=((None, 0, 0, None, None), (0, None, 0, 0, None), (0, 0, 0, None, 0)),
        terms=CAPACITY * 25,
    ),
    "core": Op(
        call=core,
        definition=three_operations,
        differentiable=three_operations,
        handler=ASSEMBLY_CORE,
        cases={
            "normal": core_case(),
            "fixed": core_case(is_fixed=True),
            "whole numbers": core_case("whole numbers"),
            "closed": core_case(is_open=(False, False)),
            "unknown hint": core_case(hint="unknown"),
            "sparse": core_case("sparse"),
            "first fiber closed": core_case(is_open=(False, True)),
            "second fiber closed": core_case(is_open=(True, False)),
            "clustered": core_case("clustered"),
            "hint too high": core_case(hint="too high"),
            "hint too low": core_case(hint="too low"),
            "no sender": core_case(count=0),
            "negative count": core_case(count=-3),
            "count beyond the list": core_case(count=10**6),
            "bfloat16": core_case(dtype=jnp.bfloat16),
            "bfloat16, whole numbers": core_case("whole numbers", dtype=jnp.bfloat16),
        },
        # Each brain has its own flags, or its own senders, and all share the rest.
        shared_axes=(
            tuple(0 if name in ("is_open", "is_fixed") else None for name in ROUND),
            tuple(0 if name == "senders" else None for name in ROUND),
        ),
        terms=CAPACITY * 25,
    ),
    "propagate": Op(
        call=propagate,
        definition=rounded_sum,
        differentiable=straight_through_sum,
        handler=propagation.HANDLER,
        cases={
            "float32": propagation_case("compressed", "float32"),
            "spikes": propagation_case("compressed", "float32", graded=False),
            "full": propagation_case("compressed", "float32", count=CAPACITY),
            "empty": propagation_case("compressed", "float32", count=0),
            "far padding": propagation_case("compressed", "float32", padding=FAR),
            "padding that names a neuron": propagation_case(
                "compressed", "float32", padding=3, unused=9.0
            ),
            "unit": propagation_case("compressed", "unit"),
            "no synapses": propagation_case("compressed", "float32", fan_out=0),
            "several blocks": propagation_case("compressed", "float32", fan_out=400),
            "fixed, float32": propagation_case("fixed", "float32"),
            "fixed, empty": propagation_case("fixed", "float32", count=0),
            "fixed, padding that names a neuron": propagation_case(
                "fixed", "float32", padding=3, unused=9.0
            ),
            "fixed, uint8": propagation_case("fixed", "uint8"),
        },
        shared_axes=((None, 0), (0, None)),
        terms=PRE * FAN_OUT,
    ),
    # The same kernel on the operands that it takes in the other ways: no indptr, no weights.
    "propagate integers": Op(
        call=count_arrivals,
        definition=rounded_integers,
        differentiable=rounded_integers,
        handler=propagation.HANDLER,
        cases={
            "unit": propagation_case("fixed", "unit"),
            "empty": propagation_case("fixed", "unit", count=0),
            "full": propagation_case("fixed", "unit", count=CAPACITY),
            "float32": propagation_case("compressed", "float32"),
        },
        shared_axes=((None, 0), (0, None)),
        terms=PRE * FAN_OUT,
    ),
}
each_op = pytest.mark.parametrize("op", OPS.values(), ids=OPS)
CASES = {
    f"{name}, {case}": (op, draw) for name, op in OPS.items() for case, draw in op.cases.items()
}
each_case = pytest.mark.parametrize(("op", "draw"), CASES.values(), ids=CASES)


@functools.cache
def on(op, backend):
    """The operation on one backend, compiled once for all cases of equal shapes."""
    return jax.jit(functools.partial(op.call, backend=backend))


@functools.cache
def defined(op):
    return jax.jit(op.definition)


def usual_operands(op, seed):
    draw = next(iter(op.cases.values()))
    return draw(np.random.default_rng(seed))


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


@each_backend
@each_case
def test_backends_have_equal_bits(op, draw, backend):
    operands = draw(np.random.default_rng(1))
    assert_same_bits(on(op, backend)(*operands), defined(op)(*operands))


@each_backend
@each_op
def test_jit_changes_no_bit(op, backend):
    operands = usual_operands(op, seed=2)
    eager = op.call(*operands, backend=backend)
    assert_same_bits(on(op, backend)(*operands), eager)
    shapes = jax.eval_shape(functools.partial(op.call, backend=backend), *operands)
    for shape, leaf in zip(jax.tree.leaves(shapes), jax.tree.leaves(eager), strict=True):
        assert (shape.shape, shape.dtype) == (leaf.shape, leaf.dtype)


def batch_of(op, size, seed):
    """Stacked operands of all cases that have the shapes of the usual one."""
    rng = np.random.default_rng(seed)
    avals = [jax.typeof(leaf) for leaf in jax.tree.leaves(usual_operands(op, seed))]
    drawn = (draw(rng) for draw in itertools.cycle(op.cases.values()))
    fitting = (
        operands
        for operands in drawn
        if [jax.typeof(leaf) for leaf in jax.tree.leaves(operands)] == avals
    )
    return stacked(list(itertools.islice(fitting, size)))


@each_backend
@each_op
def test_batch_is_a_loop(op, backend):
    call, batch = on(op, backend), batch_of(op, 6, seed=3)
    together = jax.jit(jax.vmap(call))(*batch)
    assert_same_bits(together, stacked([call(*at(batch, index)) for index in range(6)]))


@each_backend
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


@each_backend
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


@each_backend
@each_op
def test_batch_along_another_axis(op, backend):
    call, batch = on(op, backend), batch_of(op, 3, seed=6)
    last = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, -1), batch[0])
    axes = (-1, *(0 for _ in batch[1:]))
    assert_same_bits(jax.jit(jax.vmap(call, axes))(last, *batch[1:]), jax.vmap(call)(*batch))


@each_backend
@each_op
def test_scan_is_a_loop(op, backend):
    call, batch = on(op, backend), batch_of(op, 4, seed=7)
    _, scanned = jax.jit(lambda xs: jax.lax.scan(lambda _, x: (None, call(*x)), None, xs))(batch)
    assert_same_bits(scanned, stacked([call(*at(batch, index)) for index in range(4)]))


# An infinite score has no threshold, and equal scores no slope that both sides round alike.
# A round has the gradients of its operations, which bfloat16 is tried on; integers have none.
WITHOUT_GRADIENT = (
    "select, special",
    "select, few",
    "core, bfloat16",
    *(f"propagate integers, {case}" for case in ("unit", "empty", "full")),
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


def in_three_operations(weights, active, backend):
    received = ops.accumulate_rows(weights, active, backend=backend)
    winners = ops.select_winners(received, 20, backend=backend)
    weights = ops.potentiate(weights, active, winners, 0.1, 20.0, backend=backend)
    return weights, winners, received


def in_one_operation(weights, active, backend):
    (weights,), received, winners = ops.assembly_core(
        [weights],
        [active],
        active,
        20,
        is_open=jnp.ones(1, bool),
        is_plastic=jnp.ones(1, bool),
        beta=jnp.full(1, 0.1),
        w_max=jnp.full(1, 20.0),
        last_inputs=jnp.zeros(512),
        backend=backend,
    )
    return weights, winners, received


@each_backend
@pytest.mark.parametrize("advance", [in_three_operations, in_one_operation])
def test_scan_updates_donated_weights_in_place(advance, backend):
    """A round of accumulate, select, potentiate moves no matrix."""
    weights = jnp.ones((1024, 512))
    start = ops.active_set.from_indices(np.arange(20), 1024)

    def round_(carry, _):
        weights, winners, received = advance(*carry, backend)
        return (weights, winners), received.sum()

    run = jax.jit(
        lambda weights, active: jax.lax.scan(round_, (weights, active), length=50),
        donate_argnums=0,
    )
    compiled = run.lower(weights, start).compile()
    assert weight_copies(compiled, weights.shape) == 0
    assert weight_copies(jax.jit(run).lower(weights, start).compile(), weights.shape) > 0
    assert compiled.memory_analysis().temp_size_in_bytes < weights.nbytes // 4
    assert compiled.memory_analysis().alias_size_in_bytes >= weights.nbytes


def shared_weights():
    return jnp.ones((4096, 256)), ops.accumulate_rows, 3


def shared_synapses():
    synapses = ops.fixed_fan_out(np.zeros((4096, 256), int), 100)
    return synapses, functools.partial(ops.propagate_spikes, num_post=100), 7


@each_backend
@pytest.mark.parametrize("shared", [shared_weights, shared_synapses])
def test_batch_does_not_copy_what_it_shares(shared, backend):
    """64 active sets on one matrix or network: no 64 of them, and not one copy of it."""
    weights, call, times_gathered = shared()
    batch = stacked([ops.active_set.from_indices([i, i + 64], 4096, 32) for i in range(64)])
    call = functools.partial(call, backend=backend)
    compiled = jax.jit(jax.vmap(call, (None, 0))).lower(weights, batch).compile()
    # A reference gathers 32 rows for each of the 64 sets; the kernel needs nothing.
    rows = 64 * 32 * 256 * 4
    assert compiled.memory_analysis().temp_size_in_bytes < times_gathered * rows + 2**20
    assert weight_copies(compiled, (4096, 256)) == 0


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
