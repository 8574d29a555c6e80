"""The cases of whole steps: rounds of a projection in `simulate`, beside plain jnp in a scan."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from _case import BETA, ROTATED_BYTES, STILL, Case, Cases, same_bits

from brainjax import assemblies, experiment, simulation, timing

# After so many rounds the same neurons win; weights that grew for thousands would overflow.
_SETTLING_ROUNDS = 100


def step(settings) -> Cases:
    for n, k in settings.step:
        for settled in (True, False):
            name = f"{n:,} k={k:,}, {'settled' if settled else 'wandering'}"
            yield name, functools.partial(_step_case, settings, None, n, k, settled)
    for brains, n, k in settings.step_brains:
        build = functools.partial(_step_case, settings, brains, n, k, False)
        yield f"{brains:,} brains x {n:,} k={k:,}, wandering", build


def _step_case(settings, brains, n, k, settled):
    """Rounds of P[s->A, A->A] with Hebbian plasticity.

    Settled: an assembly has formed, whose rows win again and again. Wandering: from the start
    weights stay as they are, so that other rows win in every round and come from memory.
    """
    config = assemblies.Config(
        areas=[assemblies.Area("A", n, k)],
        stimuli=[assemblies.Stimulus("s", k)],
        fibers=[assemblies.Fiber("s", "A", 0.1), assemblies.Fiber("A", "A", 0.1)],
    )

    def birth():
        key, params = jax.random.key(settings.seed), assemblies.Params(beta=BETA)
        if brains is None:
            return assemblies.init(config, params, key)
        return experiment.births(config, params, key, brains)

    moved = (brains or 1) * config.bytes_moved(config.drive("s->A", "A->A"))
    contenders = {"brainjax": _simulated, "jnp in lax.scan": _scanned}
    return Case(
        moved=moved,
        equal_bits=functools.partial(_equal_rounds, config, birth),
        contenders={
            who: functools.partial(make, config, birth, settings.rounds, settled)
            for who, make in contenders.items()
        },
        in_cache=settled and moved < ROTATED_BYTES,
    )


def _simulated(config, birth, rounds, settled):
    state = birth()
    if settled:
        state = _simulate(config, state, _SETTLING_ROUNDS, BETA)

    def start():
        nonlocal state
        state = _simulate(config, state, rounds, STILL)
        return state

    return timing.Contender(start, jax.block_until_ready, rounds)


def _simulate(config, state, rounds, beta):
    params = assemblies.Params(beta=jnp.float32(beta))
    axes = None if state.round.ndim == 0 else (None, 0, None)
    drive = config.drive("s->A", "A->A")
    step = assemblies.step
    return simulation.simulate(
        step, config, params, state, drive, num_steps=rounds, in_axes=axes, chunk_steps=rounds
    )[0]


def _equal_rounds(config, birth):
    """Three rounds with kernels and without."""
    ours = _simulate(config, birth(), 3, BETA)
    reference = _simulate(dataclasses.replace(config, backend="reference"), birth(), 3, BETA)
    return all(
        same_bits(getattr(ours, field), getattr(reference, field))
        for field in ("winners", "inputs", "synapses")
    )


def _scanned(config, birth, rounds, settled):
    synapses, k = birth().synapses, config.areas[0].k
    stimulus = synapses["s->A"].weights[..., 0, :]
    carry = stimulus, synapses["A->A"].weights, jax.lax.top_k(stimulus, k)[1]
    del synapses

    def round_(beta, carry):
        stimulus, recurrent, winners = carry
        new = jax.lax.top_k(stimulus + recurrent[winners].sum(0), k)[1]
        stimulus = stimulus.at[new].multiply(1 + beta, unique_indices=True)
        block = winners[:, None], new
        return stimulus, recurrent.at[block].multiply(1 + beta, unique_indices=True), new

    @functools.partial(jax.jit, static_argnums=2, donate_argnums=0)
    def scan(carry, beta, length):
        one = functools.partial(round_, beta)
        one = jax.vmap(one) if carry[0].ndim > 1 else one
        return jax.lax.scan(lambda carry, _: (one(carry), None), carry, length=length)[0]

    if settled:
        carry = scan(carry, jnp.float32(BETA), _SETTLING_ROUNDS)

    def start():
        nonlocal carry
        carry = scan(carry, jnp.float32(STILL), rounds)
        return carry

    return timing.Contender(start, jax.block_until_ready, rounds)
