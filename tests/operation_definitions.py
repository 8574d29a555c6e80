"""What defines each operation: its result from references alone, with the right autodiff."""

import jax
import jax.numpy as jnp
from operation_cases import BURST, BURST_RULE, CAPACITY, PRE, ROUND, RUNNERS_UP
from rounds import POST, K

from brainjax import ops


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


def defined_burst(*operands):
    operands = jax.lax.stop_gradient(dict(zip(BURST, operands, strict=True)))
    return ops.burst_core_reference(BURST_RULE, **operands)
