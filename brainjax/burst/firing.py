"""The fire queue: who fired, in ascending order, with the potential at firing."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32

from brainjax import ops

_WORD = 32


def fire_queue(
    fires: Bool[Array, " neurons"], potential: Float32[Array, " neurons"]
) -> ops.ActiveSet:
    """Return the neurons that fire, with their potentials.

    Args:
        fires: who fires.
        potential: of everybody, in the unit of the thresholds.

    Returns:
        A set as long as there are neurons: it cannot overflow.

    Cost: one pass over the neurons, a running sum over one word for each 32 of them, and a search
        for each neuron that fires.
    """
    num_neurons = fires.shape[0]
    words = _pack(fires)
    sizes = jax.lax.population_count(words).astype(jnp.int32)
    ends = jnp.cumsum(sizes)
    starts, count = ends - sizes, ends[-1]
    size = min(num_neurons, max(256, min(num_neurons >> 6, 1 << 14)))

    def visit(block, queue):
        # The last block starts early and finds some neurons again: the same ones.
        first = jnp.minimum(block * size, num_neurons - size)
        ranks = first + jnp.arange(size)
        word = jnp.minimum(jnp.searchsorted(ends, ranks, side="right"), words.size - 1)
        found = word * _WORD + _place_of_bit(words[word], ranks - starts[word])
        found = jnp.where(ranks < count, found, num_neurons).astype(jnp.int32)
        values = potential.at[found].get(mode="fill", fill_value=0)
        return tuple(
            jax.lax.dynamic_update_slice(whole, part, (first,))
            for whole, part in zip(queue, (found, values))
        )

    nobody = ops.active_set.empty(num_neurons, num_neurons)
    blocks = -(-count // size)
    indices, values = jax.lax.fori_loop(0, blocks, visit, (nobody.indices, nobody.values))
    return ops.ActiveSet(indices=indices, values=values, count=count)


def _pack(flags):
    """One bit for each flag, 32 in a word."""
    flags = jnp.pad(flags, (0, -flags.shape[0] % _WORD)).reshape(-1, _WORD)
    bits = flags.astype(jnp.uint32) << jnp.arange(_WORD, dtype=jnp.uint32)
    return bits.sum(-1, dtype=jnp.uint32)


def _place_of_bit(words, ranks):
    """Place of the set bit before which `ranks` others are set, by halving the word."""
    places = jnp.zeros_like(ranks)
    for width in (16, 8, 4, 2, 1):
        low = words & jnp.uint32((1 << width) - 1)
        in_low = jax.lax.population_count(low).astype(jnp.int32)
        is_above = ranks >= in_low
        ranks = jnp.where(is_above, ranks - in_low, ranks)
        words = jnp.where(is_above, words >> width, low)
        places = places + width * is_above
    return places
