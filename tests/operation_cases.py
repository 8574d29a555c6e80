"""Random operands of every operation, of the kinds that are worth trying."""

import jax
import jax.numpy as jnp
import numpy as np
from bursts import RULES as BURST_RULES, network
from helpers import random_active, weights_of_synapses
from rounds import POST, area

from brainjax import ops

PRE, CAPACITY = 150, 70  # more rows than lanes; no multiple of any vector width
RUNNERS_UP, FAN_OUT = 4, 7


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


BURST_RULE = BURST_RULES["power and fatigue"]
BURST = tuple(network(np.random.default_rng(0), 1))  # the names of its operands


def burst_case(kind, **options):
    def draw(rng):
        operands = network(rng, POST, kind, num_synapses=PRE, **options)
        return tuple(jax.tree.map(jnp.asarray, each) for each in operands.values())

    return draw


TINY = np.finfo(np.float32).tiny
SPECIAL = np.array([np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, TINY])
FAR = np.iinfo(np.int32).max
