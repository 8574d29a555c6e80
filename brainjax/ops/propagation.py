"""What each postsynaptic neuron receives over sparse synapses, as exact sums of integers."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32

from brainjax.ops import backend as backends, propagation_plan
from brainjax.ops.active_set import ActiveSet, named, parts
from brainjax.ops.sparse_rows import CompressedRows, FixedFanOut, SparseRows

HANDLER = "BrainjaxPropagateSpikes"

_INT32 = jnp.iinfo(jnp.int32)
_BLOCK = 1 << 14  # synapses that the reference visits at a time


def propagate_spikes(
    synapses: SparseRows, active: ActiveSet, num_post: int, *, backend: backends.Backend = "auto"
) -> Float32[Array, " post"]:
    """Sum what the active presynaptic neurons send onto each postsynaptic neuron.

    `received[j] = 2^-S * sum over the synapses from an active i onto j of
    round(2^S * value[i] * weight)`, with S the `fraction_bits` of the synapses

    Each contribution is rounded to an integer, ties to even, so that the sum is exact and has no
    order. Spikes of value 1 over unit and uint8 weights are integers for every S >= 0; graded
    values and float32 weights are kept to 2^-S.

    The gradient is that of the sum without rounding.

    Args:
        synapses: made by `compressed_rows` or `fixed_fan_out`, which choose S such that no sum of
            spikes overflows. With another S, larger values or grown weights, a contribution beyond
            int32 is clipped to it (NaN counts as 0) and a sum beyond it wraps around.
        active: the presynaptic neurons and what they send. Entries that name no neuron are ignored.
        num_post: postsynaptic neurons. Synapses onto others are ignored.
        backend: "auto", "reference" or "kernel".

    Returns:
        Input to each postsynaptic neuron, in the unit of the weights.

    Raises:
        TypeError: the weights are neither float32 nor uint8.
        RuntimeError: `backend` is "kernel" and none can run.

    Cost: the synapses of the listed neurons, and one write of the result; unlisted ones cost
        nothing. A batch of active sets does not copy unbatched synapses. The gradient keeps
        references to the operands, no copies. Scratch is 4 bytes for each postsynaptic neuron where
        these are fewer than 2^21 (from 2^18 on 8, and 2 MB, where rows have one length), and at
        least 12 for each entry of the list where rows have any length; onto 2^21 neurons and more,
        2 bytes (6 with weights) are added per synapse that the list could reach, for 2^26 at most.
    Determinism: bit-identical on every backend, alone and batched, in any order of synapses.
    """
    check(synapses, backend)
    return _propagate(synapses, synapses.weights, *parts(active), num_post, backend)


def propagate_integers(
    synapses: SparseRows, active: ActiveSet, num_post: int, *, backend: backends.Backend = "auto"
) -> Int32[Array, " post"]:
    """Return the integers that `propagate_spikes` scales: `received = 2^-S * integers`.

    For models that count, and to add up several projections before they are scaled. Arguments and
    promises as there; it has no gradient.
    """
    check(synapses, backend)
    return backends.dispatch(
        backend,
        HANDLER,
        *jax.lax.stop_gradient((synapses, active)),
        reference=functools.partial(_integers_reference, num_post=num_post),
        kernel=functools.partial(_kernel, num_post=num_post, dtype=jnp.int32),
    )


def propagate_spikes_reference(
    synapses: SparseRows, active: ActiveSet, num_post: int
) -> Float32[Array, " post"]:
    """The definition of `propagate_spikes`, in plain JAX, without its gradient.

    Cost: as the operation, in blocks of fixed size and a search in the list of active neurons per
        synapse; fewer than 2^31 synapses can be visited.
    """
    return _scaled(_integers_reference(synapses, active, num_post), synapses)


def _integers_reference(synapses, active, num_post):
    gain = active.values.astype(jnp.float32) * 2.0**synapses.fraction_bits

    def add(sums, entries, _, targets, weights, used):
        contributions = _nearest_integer(gain[entries] * weights)
        # A negative index would count from the end.
        targets = jnp.where(used & (targets >= 0), targets, num_post)
        return sums.at[targets].add(contributions, mode="drop")

    return _visit(synapses, active, add, jnp.zeros(num_post, jnp.int32))


def _visit(synapses, active, body, carry):
    """Call `carry = body(carry, entries, places, targets, weights, used)` on blocks of synapses.

    `entries` are positions in the active set, `places` indices of synapses.
    """
    first, lengths = _rows(synapses, active)
    ends = jnp.cumsum(lengths)
    num_entries = lengths.shape[0]
    size = min(_BLOCK, propagation_plan.most_synapses(synapses, active))
    if size == 0 or num_entries == 0:
        return carry

    def visit(block, carry):
        events = block * size + jnp.arange(size)
        entries = jnp.minimum(jnp.searchsorted(ends, events, side="right"), num_entries - 1)
        columns = events - (ends - lengths)[entries]
        places = _places(synapses, active, first, entries, columns)
        targets = synapses.indices[places]
        weights = jnp.ones(size) if synapses.weights is None else synapses.weights[places]
        weights = weights.astype(jnp.float32)
        used = (events >= 0) & (events < ends[-1])  # the last block's may wrap around
        return body(carry, entries, places, targets, weights, used)

    return jax.lax.fori_loop(0, -(-ends[-1] // size), visit, carry)


def _rows(synapses, active):
    """Where the row of each entry of the active set begins, and its length: 0 if unused."""
    used, _ = named(active, _num_pre(synapses))
    if isinstance(synapses, FixedFanOut):
        return None, jnp.where(used, synapses.indices.shape[1], 0)
    rows = jnp.where(used, active.indices, 0)
    num_synapses = synapses.indices.shape[0]
    first = jnp.clip(synapses.indptr[rows], 0, num_synapses)
    last = jnp.clip(synapses.indptr[rows + 1], first, num_synapses)
    return first, jnp.where(used, last - first, 0)


def _places(synapses, active, first, entries, columns):
    # Two indices and not one: a flat index into rows of fixed length may not fit into int32.
    if isinstance(synapses, FixedFanOut):
        return active.indices[entries], columns
    return (first[entries] + columns,)


def _num_pre(synapses):
    if isinstance(synapses, CompressedRows):
        return synapses.indptr.shape[0] - 1
    return synapses.indices.shape[0]


def _nearest_integer(x):
    """Round to int32, ties to even, clipped; NaN becomes 0."""
    x = jnp.round(x)
    inside = jnp.abs(x) < 2.0**31
    beyond = jnp.where(x > 0, _INT32.max, jnp.where(x < 0, _INT32.min, 0))
    return jnp.where(inside, jnp.where(inside, x, 0).astype(jnp.int32), beyond)


def _scaled(integers, synapses):
    return integers.astype(jnp.float32) * 2.0**-synapses.fraction_bits


def _received_kernel(synapses, active, num_post):
    call = synapses, active, num_post
    if propagation_plan.sort_from(*call) > 0 or propagation_plan.runs_together(*call):
        return _kernel(*call, jnp.float32)  # who adds them up writes them scaled
    return _scaled(_kernel(*call, jnp.int32), synapses)


def _kernel(synapses, active, num_post, dtype):
    fixed = isinstance(synapses, FixedFanOut)
    least = propagation_plan.sort_from(synapses, active, num_post)
    together = propagation_plan.runs_together(synapses, active, num_post)
    words = propagation_plan.scratch_words(synapses, active, num_post, least > 0, together)
    if num_post < propagation_plan.SORT_FROM_POST:  # on a CPU, sums of a second thread
        words = max(words, -(-num_post // 4) * 4)
    result = jax.ShapeDtypeStruct((num_post,), dtype)
    scratch = jax.ShapeDtypeStruct((words,), jnp.int32)
    # "expand_dims" and not "broadcast_all": a batch of active sets must not copy the synapses.
    call = jax.ffi.ffi_call(backends.target(HANDLER), (result, scratch), vmap_method="expand_dims")
    received, _ = call(
        jnp.zeros(0, jnp.int32) if fixed else synapses.indptr,
        synapses.indices,
        jnp.zeros(0, bool) if synapses.weights is None else synapses.weights,
        active.indices,
        active.values.astype(jnp.float32),
        active.count,
        fixed_fan_out=fixed,
        fraction_bits=synapses.fraction_bits,
        sort_from=least,
        together=together,
    )
    return received


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _propagate(synapses, weights, indices, values, count, num_post, backend):
    return backends.dispatch(
        backend,
        HANDLER,
        synapses.replace(weights=weights),
        ActiveSet(indices, values, count),
        reference=functools.partial(propagate_spikes_reference, num_post=num_post),
        kernel=functools.partial(_received_kernel, num_post=num_post),
    )


def _forward(synapses, weights, indices, values, count, num_post, backend):
    # References: inside a scan over steps that share their synapses, these are not stored again.
    residuals = synapses, weights, indices, values, count
    return _propagate(*residuals, num_post, backend), residuals


def _backward(num_post, backend, residuals, received_bar):
    synapses, weights, indices, values, count = residuals
    active, received_bar = ActiveSet(indices, values, count), jnp.asarray(received_bar)
    weights_bar = None
    if weights is not None and weights.dtype == jnp.float32:
        weights_bar = jnp.zeros(weights.shape, jnp.float32)

    def pull_back(bars, entries, places, targets, weights, used):
        values_bar, weights_bar = bars
        used = used & (targets >= 0) & (targets < num_post)
        bar = jnp.where(used, received_bar.at[targets].get(mode="fill", fill_value=0), 0)
        terms = jnp.where(used, bar * weights, 0)  # weights elsewhere may be infinite
        values_bar += _sums_by_entry(terms, entries, values_bar.shape[0])
        if weights_bar is not None:
            # A place out of range is dropped.
            places = (jnp.where(used, places[0], synapses.indices.shape[0]), *places[1:])
            bar = bar * values.astype(jnp.float32)[entries]
            weights_bar = weights_bar.at[places].set(bar, mode="drop")
        return values_bar, weights_bar

    bars = jnp.zeros(values.shape, jnp.float32), weights_bar
    values_bar, weights_bar = _visit(synapses.replace(weights=weights), active, pull_back, bars)
    return None, weights_bar, None, values_bar.astype(values.dtype), None


# Outside the choice of backend: one gradient, so backends cannot disagree about it.
_propagate.defvjp(_forward, _backward)


def _sums_by_entry(terms, entries, num_entries):
    """Sum the terms of equal, ascending `entries`, in one order: no atomics on floats."""
    places = jnp.arange(terms.shape[0])

    def join(level, sums):
        # So far sums[i] covers the terms of its entry among the last 2^level up to i.
        reach = 1 << level
        same = (places >= reach) & (jnp.roll(entries, reach) == entries)
        return sums + jnp.where(same, jnp.roll(sums, reach), 0)

    sums = jax.lax.fori_loop(0, (terms.shape[0] - 1).bit_length(), join, terms)
    is_last = jnp.append(entries[1:] != entries[:-1], True)
    targets = jnp.where(is_last, entries, num_entries)
    return jnp.zeros(num_entries, terms.dtype).at[targets].set(sums, mode="drop")


def check(synapses: SparseRows, backend: str) -> None:
    """Raise an error unless the weights have a type that they may have; see `backend.check`."""
    backends.check(backend)
    weights = synapses.weights
    if weights is not None and weights.dtype not in (jnp.float32, jnp.uint8):
        raise TypeError(f"weights must be float32 or uint8; got {weights.dtype}")
