"""The cases of the single operations: what is called, on what operands, beside what."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from _case import BETA, STILL, Calls, Cases, case_of, equal_once, rotation

from brainjax import ops, timing

_SECTOR_BYTES = 32  # what memory moves at least
_FAN_OUT = 100


def launch(settings) -> Cases:
    def build():
        nobody = ops.active_set.empty(1, 1)
        each = [(jnp.full((1, 8), index, jnp.float32), nobody) for index in range(16)]
        return case_of(
            settings,
            Calls(
                moved=0,
                operands=timing.Operands(each),
                ours=lambda _, __, each: ((), ops.accumulate_rows(*each)),
                reference=lambda _, __, each: ((), ops.accumulate_rows_reference(*each)),
                others={"jnp x + 1": lambda _, __, each: ((), each[0] + 1)},
                torch={"torch x + 1": lambda _, __, each: lambda: each[0] + 1},
            ),
        )

    yield "of a call without work", build


def select(settings) -> Cases:
    shapes = [((n,), k) for n, k in settings.select]
    shapes += [((rows, n), k) for rows, n, k in settings.select_rows]
    kinds = [(*shape, "float32", kind) for shape in shapes for kind in ("dense", "99 % zeros")]
    n, k = settings.select_dtypes_at
    for dtype in settings.select_dtypes:
        kinds.append(((n,), k, dtype, "dense" if dtype == "bfloat16" else "counts"))
    for shape, k, dtype, kind in kinds:
        size = " x ".join(f"{length:,}" for length in shape)
        build = functools.partial(_select_case, settings, shape, k, dtype, kind)
        yield f"{size} k={k:,} {dtype}, {kind}", build


def _select_case(settings, shape, k, dtype, kind):
    size = int(np.prod(shape)) * jnp.dtype(dtype).itemsize
    keys = jax.random.split(jax.random.key(settings.seed), rotation(size, size))

    def each_row(select):
        def call(state, _, scores):
            one = functools.partial(select, k=k)
            return state, (jax.vmap(one) if scores.ndim > 1 else one)(scores)

        return call

    def bind_torch(_, __, scores):
        return lambda: scores.topk(k)

    return case_of(
        settings,
        Calls(
            moved=size + 4 * k * int(np.prod(shape[:-1])),
            operands=timing.Operands([_scores(shape, dtype, kind, key) for key in keys]),
            ours=each_row(lambda row, k: ops.select_winners(row, k).indices),
            reference=each_row(lambda row, k: ops.select_winners_reference(row, k).indices),
            others={"lax.top_k": lambda state, _, scores: (state, jax.lax.top_k(scores, k))},
            torch={"torch.topk": bind_torch},
        ),
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _scores(shape, dtype, kind, key):
    normal_key, sparse_key = jax.random.split(key)
    if kind == "counts":
        return (10 * jax.random.exponential(normal_key, shape)).astype(dtype)
    normal = jax.random.normal(normal_key, shape, dtype)
    if kind == "dense":
        return normal
    return jnp.where(jax.random.bernoulli(sparse_key, 0.01, shape), jnp.abs(normal), 0)


def accumulate(settings) -> Cases:
    for n, k in settings.accumulate:
        for dtype in settings.weights:
            build = functools.partial(_accumulate_case, settings, n, k, dtype)
            yield f"{n:,} k={k:,} {dtype}", build


def _accumulate_case(settings, n, k, dtype):
    moved = k * n * jnp.dtype(dtype).itemsize + 4 * n
    each = _active_sets(settings, n, k, rotation(moved))

    def bind_sum(_, weights, active):
        rows = active.indices.long()
        return lambda: weights[rows].sum(0)

    def bind_embedding(_, weights, active):
        from torch.nn import functional  # pyright: ignore[reportMissingImports]

        rows = active.indices.long()[None]
        return lambda: functional.embedding_bag(rows, weights, mode="sum")

    def plain(state, weights, active):
        return state, weights[active.indices].sum(0)

    return case_of(
        settings,
        Calls(
            moved=moved,
            operands=timing.Operands(each, shared=_weights(settings, n, dtype)),
            ours=lambda state, *operands: (state, ops.accumulate_rows(*operands)),
            reference=lambda state, *operands: (state, ops.accumulate_rows_reference(*operands)),
            others={"jnp sum of rows": plain},
            torch={"torch sum of rows": bind_sum, "torch embedding_bag": bind_embedding},
        ),
    )


def potentiate(settings) -> Cases:
    for n, k in settings.potentiate:
        for dtype in settings.weights:
            build = functools.partial(_potentiate_case, settings, n, k, dtype)
            yield f"{n:,} k={k:,} {dtype}", build


def _potentiate_case(settings, n, k, dtype):
    itemsize = jnp.dtype(dtype).itemsize
    # Read and written: of k rows the sectors in which one or more of k columns lie.
    touched = 1 - (1 - k / n) ** (_SECTOR_BYTES / itemsize)
    moved = 2 * k * n * itemsize * touched

    def plain(weights, beta, active):
        block = active.indices[:, None], active.indices
        factor = (1 + beta).astype(weights.dtype)
        return weights.at[block].multiply(factor, unique_indices=True), ()

    def bind_torch(weights, beta, active):
        rows = active.indices.long()
        block, factor = (rows[:, None], rows), 1 + float(beta)
        return lambda: weights.index_put_(block, weights[block] * factor)

    def reference(weights, beta, active):
        return ops.potentiate_reference(weights, active, active, beta, jnp.float32(jnp.inf)), ()

    each = _active_sets(settings, n, k, rotation(moved / 2))
    calls = Calls(
        moved=moved,
        operands=timing.Operands(each, jnp.float32(STILL), _weights(settings, n, dtype)),
        ours=lambda weights, beta, active: (ops.potentiate(weights, active, active, beta), ()),
        reference=reference,
        others={"jnp .at[].multiply": plain},
        torch={"torch index_put_": bind_torch},
    )
    case = case_of(settings, calls)
    moving = dataclasses.replace(calls.operands, shared=jnp.float32(BETA))
    moving = dataclasses.replace(calls, operands=moving)
    return dataclasses.replace(case, equal_bits=functools.partial(equal_once, moving))


def propagate(settings) -> Cases:
    for n in settings.propagate:
        for weights in settings.synapses:
            build = functools.partial(_propagate_case, settings, n, weights)
            yield f"{n:,} x {_FAN_OUT} {weights}", build


def _propagate_case(settings, n, kind):
    """One in a hundred fires. The limit is that of memory, or as many atomic additions alone."""
    events, dtype = n // 100 * _FAN_OUT, jnp.dtype("uint8" if kind == "unit" else kind)
    moved = events * (4 + (0 if kind == "unit" else dtype.itemsize)) + 4 * n
    synapses = _synapses(n, kind, jax.random.key(settings.seed))
    sets = _active_sets(settings, n, n // 100, rotation(moved, 4 * events))
    each = [(active, synapses.indices[active.indices].ravel()) for active in sets]

    def plain(sums, state, synapses, each):
        rows = each[0].indices
        weights = 1 if kind == "unit" else synapses.weights[rows].astype(sums)
        return state, jnp.zeros(n, sums).at[synapses.indices[rows]].add(weights)

    def bind_torch(_, synapses, each):
        rows, sums = each[0].indices.long(), each[0].values.new_empty(n)
        ones = each[0].values.new_ones(events)

        def call():
            weights = ones if kind == "unit" else synapses.weights[rows].view(-1).to(sums.dtype)
            return sums.zero_().index_add_(0, synapses.indices[rows].view(-1), weights)

        return call

    def atomics(state, _, each):
        return state, jnp.zeros(n, jnp.int32).at[each[1]].add(1, mode="promise_in_bounds")

    integers = {} if kind == "float32" else {"jnp int32 scatter": functools.partial(plain, "int32")}
    return case_of(
        settings,
        Calls(
            moved=moved,
            operands=timing.Operands(each, shared=synapses),
            ours=lambda state, synapses, each: (
                state,
                ops.propagate_spikes(synapses, each[0], n),
            ),
            reference=lambda state, synapses, each: (
                state,
                ops.propagate_spikes_reference(synapses, each[0], n),
            ),
            others={"jnp float32 scatter": functools.partial(plain, "float32"), **integers},
            torch={"torch index_add_": bind_torch},
            limits={"atomics": atomics},
        ),
    )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _synapses(n, kind, key):
    """Drawn on the device, as the constructor would look at each on the host."""
    targets_key, weights_key = jax.random.split(key)
    indices = jax.random.randint(targets_key, (n, _FAN_OUT), 0, n)
    if kind == "unit":
        return ops.FixedFanOut(indices, None)
    if kind == "uint8":
        return ops.FixedFanOut(indices, jax.random.bits(weights_key, indices.shape, kind))
    weights = jax.random.uniform(weights_key, indices.shape)
    return ops.FixedFanOut(indices, weights, fraction_bits=22)  # far fewer than 2**9 onto a neuron


def _active_sets(settings, n, k, how_many):
    rng = np.random.default_rng(settings.seed)
    return [
        ops.active_set.from_indices(rng.choice(n, k, replace=False), n) for _ in range(how_many)
    ]


def _weights(settings, n, dtype):
    """Graded, so that the order of a sum shows in its bits; row by row, as the rest may not fit."""
    draw_row = functools.partial(jax.random.uniform, shape=(n,), dtype=dtype)
    keys = jax.random.split(jax.random.key(settings.seed), n)
    return jax.jit(functools.partial(jax.lax.map, draw_row))(keys)
