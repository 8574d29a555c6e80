"""How synapses are laid out and drawn, and what a layout must be able to do."""

import functools
from typing import no_type_check

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float

from brainjax import ops

# Synapses drawn at a time: large enough to keep the cores busy, small beside the matrix.
_BLOCK = 1 << 22


@no_type_check  # transformations build it from batched and placeholder leaves
@struct.dataclass
class Dense:
    """One weight for each pair of neurons; an absent synapse has weight 0."""

    weights: Float[Array, "pre post"]


Synapses = Dense


def random(
    key: Array,
    num_pre: int,
    num_post: int,
    probability: float,
    *,
    dtype: str = "float32",
) -> Dense:
    """Draw each possible synapse on its own, with weight 1 where it exists.

    Whether neuron i reaches j depends on the key, i and j alone, so that another layout can draw
    the same synapses.

    Args:
        key: typed PRNG key.
        num_pre: presynaptic neurons.
        num_post: postsynaptic neurons.
        probability: of each synapse, in [0, 1].
        dtype: "float32" or "bfloat16".

    Raises:
        ValueError: `probability` is out of range.
        MemoryError: the weights do not fit into the memory of the device.

    Cost: num_pre * num_post random numbers; no memory beside the weights.
    Determinism: the same key gives the same synapses on every platform, alone and batched.
    """
    _check_probability(probability)
    check_fits(num_pre * num_post * jnp.dtype(dtype).itemsize, f"{num_pre} x {num_post} {dtype}")
    if probability == 0:
        return Dense(jnp.zeros((num_pre, num_post), dtype))
    return Dense(_draw_batched(num_pre, num_post, dtype)(key, _threshold(probability)))


def random_block(
    key: Array, num_pre: int, num_post: int, probability: float, *, dtype: str = "float32"
) -> Dense:
    """Draw synapses as `random` does and join the presynaptic neurons, which fire as one.

    Returns:
        One row: the total weight from the block onto each neuron, binomial(num_pre, probability).

    Raises:
        ValueError: `probability` is out of range.

    Cost: num_pre * num_post random numbers; memory of one row.
    Determinism: as `random`.
    """
    _check_probability(probability)
    if probability == 0:
        return Dense(jnp.zeros((1, num_post), dtype))
    return Dense(_draw_totals(key, _threshold(probability), num_pre, num_post, dtype))


def accumulate(
    synapses: Synapses, active: ops.ActiveSet, backend: ops.Backend
) -> Float[Array, " post"]:
    """Sum what the active presynaptic neurons send; see `ops.accumulate_rows`."""
    return ops.accumulate_rows(synapses.weights, active, backend=backend)


def potentiate(
    synapses: Synapses, pre: ops.ActiveSet, post: ops.ActiveSet, beta, w_max, backend: ops.Backend
) -> Synapses:
    """Strengthen the synapses between active neurons; see `ops.potentiate`."""
    return Dense(ops.potentiate(synapses.weights, pre, post, beta, w_max, backend=backend))


def normalise(synapses: Synapses, backend: ops.Backend = "auto") -> Synapses:
    """Divide each weight by the sum of its neuron's incoming weights.

    `weights[i, j] /= sum over i of weights[i, j]`; a neuron without synapses keeps none.

    Cost: reads the weights twice and writes them once.
    Determinism: bit-identical on every backend and platform.
    """
    everyone = ops.active_set.from_dense(jnp.ones(synapses.weights.shape[0], jnp.float32))
    total = ops.accumulate_rows(synapses.weights, everyone, backend=backend)
    scale = ops.rounding.quotient(jnp.ones_like(total), total)
    weights = synapses.weights.astype(scale.dtype) * scale
    return Dense(weights.astype(synapses.weights.dtype))


def normalise_onto(
    synapses: Synapses, post: ops.ActiveSet, backend: ops.Backend = "auto"
) -> Synapses:
    """Divide the weights onto the listed neurons by their sum, as `normalise` does for all.

    Cost: reads and writes num_pre * capacity weights, column by column.
    Determinism: as `normalise`.
    """
    weights = synapses.weights
    columns = weights.at[:, post.indices].get(mode="fill", fill_value=0)
    normalised = normalise(Dense(columns), backend).weights
    targets = jnp.where(ops.active_set.listed(post), post.indices, weights.shape[1])
    return Dense(weights.at[:, targets].set(normalised, mode="drop", unique_indices=True))


def existing(synapses: Synapses) -> Bool[Array, "pre post"]:
    """Tell which pairs of neurons have a synapse."""
    return synapses.weights != 0


def check_fits(num_bytes: int, what: str) -> None:
    """Raise MemoryError if `num_bytes` exceed what the default device has free.

    Args:
        num_bytes: memory wanted.
        what: said in the error.
    """
    free = free_memory()
    if free is not None and num_bytes > free:
        raise MemoryError(
            f"weights of {what} need {num_bytes / 1e9:.1f} GB; "
            f"{jax.local_devices()[0].device_kind} has {free / 1e9:.1f} GB free"
        )


def free_memory() -> int | None:
    """Bytes that the default device has free, if it says so."""
    device = jax.local_devices()[0]
    if stats := device.memory_stats():
        return stats["bytes_limit"] - stats["bytes_in_use"]
    try:
        with open("/proc/meminfo") as lines:
            fields = dict(line.split(":") for line in lines)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return None


def _check_probability(probability):
    if not 0 <= probability <= 1:
        raise ValueError(f"probability must be in [0, 1]; got {probability}")


def _threshold(probability):
    """A synapse exists if its 32 random bits are at most this."""
    return np.uint32(np.ceil(probability * 2.0**32) - 1)


def _row(key, threshold, pre, num_post):
    return jax.random.bits(jax.random.fold_in(key, pre), (num_post,)) <= threshold


@functools.partial(jax.jit, static_argnames=("num_pre", "num_post", "dtype"))
def _draw(keys, threshold, num_pre, num_post, dtype):
    """Weights for each of the keys, drawn block by block.

    What is drawn is kept as one bit a synapse until the end: the XLA compiler for CPUs rewrites a
    whole bfloat16 matrix in order to update a part of it.
    """
    flat = keys.ravel()
    rows = max(1, min(num_pre, _BLOCK // num_post))
    blocks = -(-num_pre // rows)

    def draw_block(index, packed):
        brain, block = index // blocks, index % blocks
        # The last block starts early and draws some rows again: the same ones.
        start = jnp.minimum(block * rows, num_pre - rows)
        pre = start + jnp.arange(rows)
        draw_row = jax.vmap(_row, in_axes=(None, None, 0, None))
        drawn = _pack(draw_row(flat[brain], threshold, pre, num_post))
        return jax.lax.dynamic_update_slice(packed, drawn[None], (brain, start, 0))

    packed = jnp.zeros((flat.size, num_pre, -(-num_post // 32)), jnp.uint32)
    packed = jax.lax.fori_loop(0, flat.size * blocks, draw_block, packed)
    return _unpack(packed, num_post).astype(dtype).reshape(*keys.shape, num_pre, num_post)


def _pack(exists):
    """32 synapses of a row in each word."""
    rows, num_post = exists.shape
    exists = jnp.pad(exists, ((0, 0), (0, -num_post % 32))).reshape(rows, -1, 32)
    return (exists.astype(jnp.uint32) << jnp.arange(32, dtype=jnp.uint32)).sum(-1, jnp.uint32)


def _unpack(packed, num_post):
    bits = (packed[..., None] >> jnp.arange(32, dtype=jnp.uint32)) & 1
    return bits.reshape(*packed.shape[:-1], -1)[..., :num_post]


def _draw_batched(num_pre, num_post, dtype):
    """`_draw` as vmap should see it: a batch of updates would become a scatter, and copy."""
    draw = jax.custom_batching.custom_vmap(
        functools.partial(_draw, num_pre=num_pre, num_post=num_post, dtype=dtype)
    )

    @draw.def_vmap
    def _draw_for_each_key(axis_size, in_batched, keys, threshold):
        return draw(keys, threshold), True

    return draw


@functools.partial(jax.jit, static_argnames=("num_pre", "num_post", "dtype"))
def _draw_totals(key, threshold, num_pre, num_post, dtype):
    def add_row(pre, totals):
        return totals + _row(key, threshold, pre, num_post)

    totals = jax.lax.fori_loop(0, num_pre, add_row, jnp.zeros(num_post, jnp.int32))
    return totals.astype(dtype)[None]
