"""Sparse synapses: for each presynaptic neuron, the neurons that it reaches and how strongly."""

import math
from typing import no_type_check

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float32, Int32, UInt8

# Rows of fixed length are padded to whole loads of 16 bytes.
PADDING_MULTIPLE = 4
# Within these, neither 2**bits nor its reciprocal leaves the normal numbers of float32.
MAX_FRACTION_BITS = 100

_BLOCK = 1 << 24  # synapses that are looked at together
_INT32_MAX = 2**31 - 1


@no_type_check  # transformations build it from batched and placeholder leaves
@struct.dataclass
class CompressedRows:
    """Rows of any length, one behind the other. Build it with `compressed_rows`.

    The synapses of neuron i are those from `indptr[i]` up to `indptr[i + 1]`. Several synapses of
    one row may reach the same neuron.
    """

    indptr: Int32[Array, " pre+1"]
    indices: Int32[Array, " synapses"]  # postsynaptic neurons
    weights: Float32[Array, " synapses"] | UInt8[Array, " synapses"] | None  # None: 1 each
    fraction_bits: int = struct.field(pytree_node=False, default=0)  # of a summed contribution


@no_type_check  # transformations build it from batched and placeholder leaves
@struct.dataclass
class FixedFanOut:
    """Rows of one length. Build it with `fixed_fan_out`.

    A row with fewer synapses ends in padding: the number of postsynaptic neurons, weight 0.
    """

    indices: Int32[Array, "pre fan_out"]  # postsynaptic neurons
    weights: Float32[Array, "pre fan_out"] | UInt8[Array, "pre fan_out"] | None  # None: 1 each
    fraction_bits: int = struct.field(pytree_node=False, default=0)  # of a summed contribution


SparseRows = CompressedRows | FixedFanOut


def compressed_rows(
    indptr, indices, num_post: int, weights=None, *, fraction_bits: int | None = None
) -> CompressedRows:
    """Return the synapses of rows of any length.

    Args:
        indptr: where each row begins, ascending from 0, and last the number of synapses.
        indices: postsynaptic neuron of each synapse, in [0, num_post); concrete, not traced.
        num_post: postsynaptic neurons.
        weights: float32 or uint8, one per synapse; None where each is 1.
        fraction_bits: binary places to which each contribution is rounded before it is summed; by
            default as `choose_fraction_bits` finds. 0 where all contributions are integers.

    Raises:
        ValueError: a length, an id, a weight or `fraction_bits` is out of range.
        TypeError: the weights have another type, or an index is no integer.
    """
    indptr, indices = np.asarray(indptr), np.asarray(indices)
    if not np.issubdtype(indptr.dtype, np.integer):
        raise TypeError(f"indptr must be integers; got {indptr.dtype}")
    indptr = indptr.astype(np.int64, copy=False)  # differences of unsigned ones are never negative
    if indptr.ndim != 1 or not indptr.size or indptr[0] != 0:
        raise ValueError(f"indptr must be a list that starts with 0; got {_beginning(indptr)}")
    if indices.ndim != 1 or indices.size > _INT32_MAX:
        raise ValueError(f"indices must be a list of at most 2**31 - 1; got shape {indices.shape}")
    if indptr[-1] != indices.size:
        raise ValueError(f"indptr must end with the {indices.size} synapses; got {indptr[-1]}")
    if (falls := np.flatnonzero(np.diff(indptr) < 0)).size:
        raise ValueError(
            f"indptr must not decrease; got {indptr[falls[0]]} before {indptr[falls[0] + 1]}"
        )
    _check_indices(indices, num_post - 1)
    rows = CompressedRows(
        jnp.asarray(indptr, jnp.int32),
        jnp.asarray(indices, jnp.int32),
        _checked_weights(weights, indices.shape),
    )
    return _with_fraction_bits(rows, num_post, fraction_bits)


def fixed_fan_out(
    indices, num_post: int, weights=None, *, fraction_bits: int | None = None
) -> FixedFanOut:
    """Return the synapses of rows of one length, padded to a multiple of four.

    Args:
        indices: postsynaptic neurons, one row per presynaptic neuron, each in [0, num_post) or
            `num_post` where a row has fewer; concrete, not traced.
        num_post: postsynaptic neurons.
        weights: float32 or uint8, of the shape of `indices`; None where each is 1.
        fraction_bits: binary places to which each contribution is rounded before it is summed; by
            default as `choose_fraction_bits` finds. 0 where all contributions are integers.

    Raises:
        ValueError: a shape, an id, a weight or `fraction_bits` is out of range.
        TypeError: the weights have another type.
    """
    indices = np.asarray(indices)
    if indices.ndim != 2:
        raise ValueError(f"indices must be [pre, fan_out]; got shape {indices.shape}")
    _check_indices(indices, num_post)
    weights = _checked_weights(weights, indices.shape)
    missing = ((0, 0), (0, -indices.shape[1] % PADDING_MULTIPLE))
    padded = np.pad(indices.astype(np.int32, copy=False), missing, constant_values=num_post)
    rows = FixedFanOut(jnp.asarray(padded), None if weights is None else jnp.pad(weights, missing))
    return _with_fraction_bits(rows, num_post, fraction_bits)


def choose_fraction_bits(
    synapses: SparseRows,
    num_post: int,
    *,
    largest_weight: float | None = None,
    largest_value: float = 1.0,
) -> int:
    """Return the most binary places with which no sum of contributions can leave int32.

    The largest S for which, at every neuron, `2^S * sum |weight| * largest_value + synapses / 2`
    is below 2^31: then all presynaptic neurons may fire at once, each contribution rounded up.

    Args:
        synapses: concrete, not traced.
        num_post: postsynaptic neurons.
        largest_weight: what plasticity may raise each weight to; by default they stay as they are.
        largest_value: magnitude of the largest value that an active set sends.

    Raises:
        ValueError: a weight or a limit is not finite, or so large or small that no number of bits
            within +-100 will do.
    """
    for name, limit in (("largest_weight", largest_weight), ("largest_value", largest_value)):
        if limit is not None and not (math.isfinite(limit) and limit >= 0):
            raise ValueError(f"{name} must be finite and at least 0; got {limit}")
    count, strength = _arrivals(synapses, num_post)
    strength = strength if largest_weight is None else count * float(largest_weight)
    # The margin covers the rounding of each product and of the sum of magnitudes.
    reach = strength * largest_value * (1 + 2.0**-20)
    if not np.isfinite(reach).all():
        raise ValueError("weights onto a neuron must be finite")
    if not reach.any():
        return 0
    room = (_INT32_MAX - count[reach > 0] / 2) / reach[reach > 0]
    bits = math.floor(math.log2(room.min()))
    if 2.0**bits > room.min():  # log2 rounded up
        bits -= 1
    if bits < -MAX_FRACTION_BITS:
        raise ValueError(f"weights onto a neuron must sum to at most 2**130; got {reach.max()}")
    return min(bits, MAX_FRACTION_BITS)


def _arrivals(synapses, num_post):
    """Synapses onto each neuron, and the sum of their magnitudes."""
    indices = np.asarray(synapses.indices).ravel()
    weights = None if synapses.weights is None else np.asarray(synapses.weights).ravel()
    count, strength = np.zeros(num_post), np.zeros(num_post)
    for start in range(0, indices.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        real = indices[block] < num_post
        targets = indices[block][real]
        here = np.bincount(targets, minlength=num_post)
        count += here
        magnitudes = None if weights is None else np.abs(weights[block][real].astype(np.float64))
        strength += np.bincount(targets, magnitudes, num_post)
    return count, strength


def _check_indices(indices, largest):
    if not np.issubdtype(indices.dtype, np.integer):
        raise TypeError(f"indices must be integers; got {indices.dtype}")
    if indices.size and not (0 <= indices.min() and indices.max() <= largest):
        raise ValueError(f"indices must be in 0..{largest}; got {indices.min()} to {indices.max()}")


def _checked_weights(weights, shape):
    if weights is None:
        return None
    if jnp.asarray(weights).dtype not in (jnp.float32, jnp.uint8):
        raise TypeError(f"weights must be float32 or uint8; got {jnp.asarray(weights).dtype}")
    weights = jnp.asarray(weights)
    if weights.shape != shape:
        raise ValueError(f"weights must have the shape {shape} of indices; got {weights.shape}")
    return weights


def _with_fraction_bits(rows, num_post, fraction_bits):
    if fraction_bits is None:
        fraction_bits = choose_fraction_bits(rows, num_post)
    if not -MAX_FRACTION_BITS <= fraction_bits <= MAX_FRACTION_BITS:
        raise ValueError(f"fraction_bits must be in -100..100; got {fraction_bits}")
    return rows.replace(fraction_bits=int(fraction_bits))


def _beginning(array):
    return array.ravel()[:1].tolist() or "nothing"
