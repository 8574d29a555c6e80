"""Compiled programs copy no matrix: neither one that is updated, nor one that a batch shares."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import each_backend, stacked, weight_copies

from brainjax import ops


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
