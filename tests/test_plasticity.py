"""Learning rules against their equations in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
from helpers import assert_same_bits, each_backend, each_backend_slowly, random_active

from brainjax import connectivity, ops, plasticity


def random_synapses(seed=0):
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0.5, 2, (30, 25)) * (rng.random((30, 25)) < 0.5)
    return connectivity.Dense(jnp.asarray(weights, jnp.float32))


def active_pair(seed=1):
    rng = np.random.default_rng(seed)
    return random_active(rng, 30, 8, 10), random_active(rng, 25, 6, 6)


def strengthened(weights, pre, post, beta, w_max):
    weights = np.array(weights)
    block = np.ix_(pre.indices[: int(pre.count)], post.indices[: int(post.count)])
    weights[block] = np.minimum(weights[block] * (1 + np.float32(beta)), np.float32(w_max))
    return weights


@each_backend
def test_hebbian_strengthens_active_pairs(backend):
    synapses, (pre, post) = random_synapses(), active_pair()
    learned = plasticity.hebbian(synapses, pre, post, beta=0.5, w_max=2.0, backend=backend)
    assert_same_bits(learned.weights, strengthened(synapses.weights, pre, post, 0.5, 2.0))


@each_backend
def test_hebbian_without_beta_changes_no_bit(backend):
    synapses, (pre, post) = random_synapses(), active_pair()
    learned = plasticity.hebbian(synapses, pre, post, beta=0.0, w_max=jnp.inf, backend=backend)
    assert_same_bits(learned.weights, np.asarray(synapses.weights))


@each_backend_slowly
def test_normalised_hebbian_keeps_the_sum_of_each_winner(backend):
    synapses, (pre, post) = connectivity.normalise(random_synapses()), active_pair()
    learned = plasticity.hebbian(
        synapses, pre, post, beta=0.5, w_max=jnp.inf, normalise=True, backend=backend
    )
    expected = strengthened(synapses.weights, pre, post, 0.5, np.inf).astype(np.float64)
    winners = np.asarray(post.indices)
    expected[:, winners] /= expected[:, winners].sum(axis=0)
    np.testing.assert_allclose(learned.weights, expected, rtol=40 * np.finfo(np.float32).eps)


@each_backend
def test_nobody_learns_in_silence(backend):
    synapses, (pre, post) = random_synapses(), active_pair()
    for quiet in ((ops.active_set.gate(pre, False), post), (pre, ops.active_set.gate(post, False))):
        learned = plasticity.hebbian(
            synapses, *quiet, beta=0.5, w_max=jnp.inf, normalise=False, backend=backend
        )
        assert_same_bits(learned.weights, np.asarray(synapses.weights))


@each_backend_slowly
def test_learning_in_a_batch_is_a_loop(backend):
    synapses, (pre, post) = random_synapses(), active_pair()

    def learn(beta):
        return plasticity.hebbian(
            synapses, pre, post, beta=beta, w_max=jnp.inf, normalise=True, backend=backend
        ).weights

    betas = jnp.array([0.0, 0.1, 0.5])
    assert_same_bits(jax.vmap(learn)(betas), np.stack([learn(beta) for beta in betas]))
