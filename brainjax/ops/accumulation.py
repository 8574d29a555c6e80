"""Sum of the rows of a dense weight matrix that belong to active presynaptic neurons."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from brainjax.ops import backend as backends
from brainjax.ops.active_set import ActiveSet, named
from brainjax.ops.rounding import rounded

HANDLER = "BrainjaxAccumulateRows"
KERNEL_DTYPES = (jnp.float32, jnp.bfloat16)

# The number of partial sums belongs to the definition: another one gives other bits.
LANES = 32


def accumulate_rows(
    weights: Float[Array, "pre post"],
    active: ActiveSet,
    *,
    backend: backends.Backend = "auto",
) -> Float[Array, " post"]:
    """Sum the weights from the active presynaptic neurons onto each postsynaptic neuron.

    `received[j] = sum over the active i of value[i] * weights[i, j]`

    The sum has one order. With the listed rows counted 0, 1, 2 ..., lane p of 32 adds rows
    p, p + 32, p + 64 ... one after the other, then lanes meet in halves: p with p + 16, + 8, + 4,
    + 2, + 1. All terms are float32.

    Args:
        weights: synaptic weights, float32 or bfloat16, one row per presynaptic neuron.
        active: the presynaptic neurons and what they send. Entries beyond the last row are ignored.
        backend: "auto", "reference" or "kernel".

    Returns:
        Input to each postsynaptic neuron, float32, in the unit of the weights.

    Raises:
        RuntimeError: `backend` is "kernel" and none can run.

    Cost: reads count * post weights; a batch of active sets does not copy unbatched weights.
    Determinism: bit-identical on every backend, alone and batched.
    """
    return _accumulate(weights, active.indices, active.values, active.count, backend)


def accumulate_rows_reference(
    weights: Float[Array, "pre post"], active: ActiveSet
) -> Float[Array, " post"]:
    """The definition of `accumulate_rows`, in plain JAX."""
    dtype, num_pre = jnp.promote_types(weights.dtype, jnp.float32), weights.shape[0]
    groups = -(-active.indices.shape[0] // LANES)
    if groups == 0 or num_pre == 0:
        return jnp.zeros(weights.shape[1], dtype)
    padding = (0, groups * LANES - active.indices.shape[0])
    used, rows = named(active, num_pre)
    rows = jnp.pad(rows, padding, constant_values=num_pre)
    values = jnp.pad(active.values, padding).astype(dtype)
    used = jnp.pad(used, padding)

    def add_group(group, lanes):
        here = jax.lax.dynamic_slice_in_dim(jnp.arange(groups * LANES), group * LANES, LANES)
        terms = weights.at[rows[here]].get(mode="fill", fill_value=0).astype(dtype)
        sent = rounded(terms * values[here, None], active.count)
        return lanes + jnp.where(used[here, None], sent, 0)

    def add_group_if_any(group, lanes):
        occupied = group * LANES < active.count
        return jax.lax.cond(occupied, add_group, lambda _, lanes: lanes, group, lanes)

    lanes = jnp.zeros((LANES, weights.shape[1]), dtype)
    lanes = jax.lax.fori_loop(0, groups, add_group_if_any, lanes)
    half = LANES // 2
    while half:
        lanes = lanes[:half] + lanes[half : 2 * half]
        half //= 2
    return lanes[0]


def _accumulate_kernel(weights, indices, values, count):
    received = jax.ShapeDtypeStruct(weights.shape[1:], jnp.float32)
    # "expand_dims" and not "broadcast_all": a batch of active sets must not copy the weights.
    call = jax.ffi.ffi_call(backends.target(HANDLER), received, vmap_method="expand_dims")
    return call(weights, indices, values.astype(jnp.float32), count)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _accumulate(weights, indices, values, count, backend):
    def reference(weights, *active):
        return accumulate_rows_reference(weights, ActiveSet(*active))

    return backends.dispatch(
        backend,
        HANDLER,
        weights,
        indices,
        values,
        count,
        reference=reference,
        kernel=_accumulate_kernel,
        unsupported=None if weights.dtype in KERNEL_DTYPES else f"weights are {weights.dtype}",
    )


def _forward(weights, indices, values, count, backend):
    received = _accumulate(weights, indices, values, count, backend)
    # The rows, not the matrix: one matrix per time step would not fit.
    _, places = named(ActiveSet(indices, values, count), weights.shape[0])
    rows = jnp.zeros((indices.shape[0], weights.shape[1]), weights.dtype)
    if weights.shape[0] > 0:
        rows = weights.at[places].get(mode="fill", fill_value=0)
    template = jnp.zeros((weights.shape[0], 0), weights.dtype)
    return received, (rows, indices, values, count, template)


def _backward(backend, residuals, received_bar):
    rows, indices, values, count, template = residuals
    used, places = named(ActiveSet(indices, values, count), template.shape[0])
    gain = jnp.where(used, values, 0).astype(received_bar.dtype)
    sent_bar = jnp.matmul(rows.astype(received_bar.dtype), received_bar, precision="highest")
    values_bar = jnp.where(used, sent_bar, 0)
    weights_bar = jnp.zeros((template.shape[0], rows.shape[1]), rows.dtype)
    rows_bar = (gain[:, None] * received_bar).astype(rows.dtype)
    weights_bar = weights_bar.at[places].add(rows_bar, mode="drop", unique_indices=True)
    return weights_bar, None, values_bar.astype(values.dtype), None


# Outside the choice of backend: one gradient, so backends cannot disagree about it.
_accumulate.defvjp(_forward, _backward)
