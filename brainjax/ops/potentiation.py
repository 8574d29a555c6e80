"""Change of the synapses between active presynaptic and active postsynaptic neurons."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from brainjax.ops import backend as backends
from brainjax.ops.accumulation import KERNEL_DTYPES
from brainjax.ops.active_set import ActiveSet, named, parts
from brainjax.ops.rounding import rounded

HANDLER = "BrainjaxPotentiate"

# Half the distance from 1 to the next bfloat16.
_BFLOAT16_HALF_STEP = 2.0**-8


def potentiate(
    weights: Float[Array, "pre post"],
    pre: ActiveSet,
    post: ActiveSet,
    beta: Float[Array, ""] | float,
    w_max: Float[Array, ""] | float = jnp.inf,
    *,
    backend: backends.Backend = "auto",
) -> Float[Array, "pre post"]:
    """Strengthen the synapses from active to active neurons by a factor.

    `weights[i, j] = min(weights[i, j] * (1 + beta * pre[i] * post[j]), w_max)`

    for the listed i and j only; absent synapses, of weight 0, stay absent. The product is made in
    float32 and rounded once to the weights' type.

    A bfloat16 has 8 significant bits, and a product at most half a step from the old weight rounds
    back to it. A factor above 1 + 2**-8 moves every weight, so does one of at most 1 - 2**-8.
    Between them weights may stay, which is why such a `beta` is refused.

    Args:
        weights: synaptic weights, float32 or bfloat16; updated in place where the caller's
            buffer may be reused (a donated argument, the carry of a scan).
        pre: the presynaptic neurons and their activity.
        post: the postsynaptic neurons and their activity.
        beta: relative increase when both activities are 1. For bfloat16 weights 0, above 2**-8,
            or at most -2**-8.
        w_max: largest weight of a changed synapse.
        backend: "auto", "reference" or "kernel".

    Returns:
        The changed weights.

    Raises:
        RuntimeError: `backend` is "kernel" and none can run.
        ValueError: `beta` is too small for bfloat16 weights to move. A traced one is not checked.

    Cost: reads and writes count(pre) * count(post) weights. vmap over active sets with unbatched
        weights copies these, once per batch element, because each element changes its own.
    Determinism: bit-identical on every backend, alone and batched.
    Source: Hebbian plasticity of Papadimitriou et al. (2020), PNAS 117:14464.
    """
    check_beta(beta, weights.dtype)
    if weights.size == 0:
        return weights
    beta, w_max = (jnp.asarray(x, _term_dtype(weights)) for x in (beta, w_max))
    return _potentiate(weights, parts(pre), parts(post), beta, w_max, backend)


def potentiate_reference(
    weights: Float[Array, "pre post"],
    pre: ActiveSet,
    post: ActiveSet,
    beta: Float[Array, ""],
    w_max: Float[Array, ""],
) -> Float[Array, "pre post"]:
    """The definition of `potentiate`, in plain JAX."""
    block = _block(weights, pre, post)
    old = weights.at[block].get(mode="fill", fill_value=0).astype(_term_dtype(weights))
    sent, received = _values(pre, weights.shape[0]), _values(post, weights.shape[1])
    new = _strengthen(old, sent, received, beta, w_max, pre.count)
    return weights.at[block].set(new.astype(weights.dtype), mode="drop", unique_indices=True)


def check_beta(beta: Array | float, dtype: jnp.dtype | str) -> None:
    """Raise ValueError if weights of that type may not move by `beta`; a traced one may be any."""
    if jnp.dtype(dtype) != jnp.bfloat16 or isinstance(beta, Tracer):
        return
    wanted = np.asarray(beta, np.float32)
    change = (np.float32(1) + wanted) - np.float32(1)  # as the factor is rounded
    stays = (-_BFLOAT16_HALF_STEP < change) & (change <= _BFLOAT16_HALF_STEP)
    if (stays & (wanted != 0)).any():
        raise ValueError(
            "beta must be 0, above 2**-8 or at most -2**-8 for bfloat16 weights, which may not "
            f"move otherwise; got {beta}"
        )


def _block(weights, pre, post):
    """Where the weights between listed neurons are; elsewhere out of range in both directions."""
    is_pre, rows = named(pre, weights.shape[0])
    is_post, columns = named(post, weights.shape[1])
    changes = is_pre[:, None] & is_post[None, :]
    rows = jnp.where(changes, rows[:, None], weights.shape[0])
    return rows, jnp.where(changes, columns[None, :], weights.shape[1])


def _values(active, num_neurons):
    """What the entries send that name a neuron, else 0."""
    names, _ = named(active, num_neurons)
    return jnp.where(names, active.values, 0)


def _strengthen(old, sent, received, beta, w_max, count):
    """The block of changed weights."""
    gain = rounded(beta * (sent[:, None] * received[None, :]), count)
    new = old * (1 + gain)
    return jnp.where(new > w_max, w_max, new)


def _term_dtype(weights):
    return jnp.promote_types(weights.dtype, jnp.float32)


@backends.batched_in_full
def _potentiate_kernel(weights, pre, post, beta, w_max):
    call = jax.ffi.ffi_call(
        backends.target(HANDLER),
        jax.ShapeDtypeStruct(weights.shape, weights.dtype),
        input_output_aliases={0: 0},
    )
    (pre_indices, pre_values, pre_count), (post_indices, post_values, post_count) = pre, post
    pre_values, post_values = pre_values.astype(jnp.float32), post_values.astype(jnp.float32)
    return call(
        weights, pre_indices, pre_values, pre_count,
        post_indices, post_values, post_count, beta, w_max,
    )  # fmt: skip


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _potentiate(weights, pre, post, beta, w_max, backend):
    def reference(weights, pre, post, beta, w_max):
        return potentiate_reference(weights, ActiveSet(*pre), ActiveSet(*post), beta, w_max)

    return backends.dispatch(
        backend,
        HANDLER,
        weights,
        pre,
        post,
        beta,
        w_max,
        reference=reference,
        kernel=_potentiate_kernel,
        unsupported=None if weights.dtype in KERNEL_DTYPES else f"weights are {weights.dtype}",
    )


def _forward(weights, pre, post, beta, w_max, backend):
    # Read before the update: a later read of the old weights would copy the matrix.
    block = _block(weights, ActiveSet(*pre), ActiveSet(*post))
    old = weights.at[block].get(mode="fill", fill_value=0)
    new = _potentiate(weights, pre, post, beta, w_max, backend)
    return new, (old, pre, post, beta, w_max)


def _backward(backend, residuals, weights_bar):
    old, pre, post, beta, w_max = residuals
    pre, post = ActiveSet(*pre), ActiveSet(*post)

    def change(old, pre_values, post_values, beta, w_max):
        sent = _values(dataclasses.replace(pre, values=pre_values), weights_bar.shape[0])
        received = _values(dataclasses.replace(post, values=post_values), weights_bar.shape[1])
        return _strengthen(old, sent, received, beta, w_max, pre.count)

    block = _block(weights_bar, pre, post)
    new_bar = weights_bar.at[block].get(mode="fill", fill_value=0).astype(beta.dtype)
    _, pull_back = jax.vjp(change, old.astype(beta.dtype), pre.values, post.values, beta, w_max)
    old_bar, pre_bar, post_bar, beta_bar, w_max_bar = pull_back(new_bar)
    weights_bar = weights_bar.at[block].set(
        old_bar.astype(weights_bar.dtype), mode="drop", unique_indices=True
    )
    return weights_bar, (None, pre_bar, None), (None, post_bar, None), beta_bar, w_max_bar


# Outside the choice of backend: one gradient, so backends cannot disagree about it.
_potentiate.defvjp(_forward, _backward)
