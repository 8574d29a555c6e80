"""Operands of a round of one area, for the contract and for the tests of the round itself."""

import jax.numpy as jnp
import numpy as np
from helpers import random_active

PRE, POST, K = 90, 61, 9
KINDS = ("normal", "whole numbers", "sparse", "clustered")
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


def area(seed, kind="normal", *, post=POST, k=K, fibers=3, dtype=jnp.float32, hint="zeros"):
    """Operands by name: a stimulus, then populations of graded senders, then more stimuli."""
    rng = np.random.default_rng(seed)
    capacities = [1, 40, 7, *[1] * max(0, fibers - 3)][:fibers]
    rows = [1 if capacity == 1 else PRE for capacity in capacities]
    weights = [jnp.asarray(weights_of(rng, kind, (r, post)), dtype) for r in rows]
    senders = [
        random_active(rng, r, max(1, c - 2), c, graded=c > 1)
        for r, c in zip(rows, capacities, strict=True)
    ]
    return {
        "weights": tuple(weights),
        "senders": tuple(senders),
        "winners": random_active(rng, post, min(k, 5), k, graded=True),
        "is_open": jnp.ones(fibers, bool),
        "is_plastic": jnp.ones(fibers, bool),
        "is_fixed": jnp.asarray(False),
        "beta": jnp.asarray(rng.random(fibers), jnp.float32),
        "w_max": jnp.full(fibers, 7.5, jnp.float32),
        "last_inputs": jnp.asarray(HINTS[hint](post), jnp.float32),
    }
