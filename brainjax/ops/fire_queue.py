"""The fire queue: who fired, in ascending order, with the potential at firing."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, UInt32

from brainjax.ops import active_set
from brainjax.ops.active_set import ActiveSet

_WORD = 32


def fire_queue(fires: Bool[Array, " neurons"], potential: Float32[Array, " neurons"]) -> ActiveSet:
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
    words = pack(fires)
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

    nobody = active_set.empty(num_neurons, num_neurons)
    blocks = -(-count // size)
    indices, values = jax.lax.fori_loop(0, blocks, visit, (nobody.indices, nobody.values))
    return ActiveSet(indices=indices, values=values, count=count)


def relist(queue: ActiveSet, before: ActiveSet) -> ActiveSet:
    """Return the queue in the list that held another: what is beyond both stays as it was.

    A list that is padded once needs no more than this to be padded for ever, and nobody writes
    what is padding already.
    """
    places, size = jnp.arange(queue.indices.shape[0]), queue.indices.shape[0]
    is_new, was_used = places < queue.count, places < before.count
    return ActiveSet(
        indices=jnp.where(is_new, queue.indices, jnp.where(was_used, size, before.indices)),
        values=jnp.where(is_new, queue.values, jnp.where(was_used, 0, before.values)),
        count=queue.count,
    )


def pack(flags: Bool[Array, " neurons"]) -> UInt32[Array, " words"]:
    """One bit for each flag, 32 in a word; what is left of the last word is 0."""
    flags = jnp.pad(flags, (0, -flags.shape[0] % _WORD)).reshape(-1, _WORD)
    bits = flags.astype(jnp.uint32) << jnp.arange(_WORD, dtype=jnp.uint32)
    return bits.sum(-1, dtype=jnp.uint32)


def unpack(words: UInt32[Array, " words"], num_flags: int) -> Bool[Array, " neurons"]:
    """The flags that `pack` was given."""
    bits = words[:, None] >> jnp.arange(_WORD, dtype=jnp.uint32)
    return (bits & 1).astype(bool).reshape(-1)[:num_flags]


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
