"""Products and quotients that are rounded alike on every platform."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

_MANTISSA_BITS = 23
_HIDDEN_BIT = 1 << _MANTISSA_BITS
_EXPONENT_BIAS = 127
_MIN_EXPONENT, _MAX_EXPONENT = -126, 127  # of normal numbers


@jax.custom_jvp
def rounded(product: Float[Array, "..."], count: Int32[Array, ""]) -> Float[Array, "..."]:
    """Return `product`, rounded on its own even where it feeds a sum.

    Compilers fuse a product and a sum into one operation that rounds once, and see through a
    select, a maximum or a cast that stands between the two. They cannot see through an exclusive
    or with bits that they do not know: here none, as no count is negative.
    """
    integer = jnp.dtype(f"int{8 * product.dtype.itemsize}")
    bits = jax.lax.bitcast_convert_type(product, integer)
    return jax.lax.bitcast_convert_type(bits ^ (count < 0).astype(integer), product.dtype)


@rounded.defjvp
def _rounded_jvp(primals, tangents):
    return rounded(*primals), tangents[0]


@jax.custom_jvp
def quotient(
    numerator: Float[Array, "..."], denominator: Float[Array, "..."]
) -> Float[Array, "..."]:
    """Return `numerator / denominator`, correctly rounded, and 0 where the denominator is 0.

    XLA divides correctly on the CPU and not on GPUs. Here the mantissas are divided as integers,
    bit by bit. A quotient below 2**-126 is 0.

    Args:
        numerator: float32, at least 0, finite; in magnitude 0 or from 2**-100 to 2**100.
        denominator: the same.

    Cost: 24 shifts and subtractions an element: for sums, not for weights.
    Determinism: bit-identical on every platform.
    """
    numerator, denominator = jnp.broadcast_arrays(numerator, denominator)
    if numerator.dtype != jnp.float32:
        safe = jnp.where(denominator == 0, 1, denominator)
        return jnp.where(denominator == 0, 0, numerator / safe)
    top, top_exponent = _parts(numerator)
    bottom, bottom_exponent = _parts(denominator)
    # From here on 1 <= top / bottom < 2, so that the first bit of the quotient is 1.
    shift = (top < bottom).astype(jnp.int32)
    digits, remainder = _divide(top << shift, bottom)
    up = (2 * remainder > bottom) | ((2 * remainder == bottom) & (digits % 2 == 1))
    power = top_exponent - bottom_exponent - shift - _MANTISSA_BITS
    result = _times_power_of_two((digits + up).astype(jnp.float32), power)
    is_zero = (numerator == 0) | (denominator == 0) | (power + _MANTISSA_BITS < _MIN_EXPONENT)
    return jnp.where(is_zero, 0, result)


@quotient.defjvp
def _quotient_jvp(primals, tangents):
    (_, denominator), (numerator_dot, denominator_dot) = primals, tangents
    result = quotient(*primals)
    safe = jnp.where(denominator == 0, jnp.inf, denominator)
    return result, (numerator_dot - result * denominator_dot) / safe


def _parts(x):
    """Mantissa with its hidden bit, and exponent, of a normal positive number."""
    bits = jax.lax.bitcast_convert_type(x, jnp.int32)
    mantissa = (bits & (_HIDDEN_BIT - 1)) | _HIDDEN_BIT
    return mantissa, (bits >> _MANTISSA_BITS) - _EXPONENT_BIAS


def _divide(top, bottom):
    """The first 24 bits of top / bottom, for bottom <= top < 2 * bottom, and what remains."""

    def next_bit(_, state):
        digits, remainder = state
        fits = remainder >= bottom
        remainder = jnp.where(fits, remainder - bottom, remainder)
        return 2 * digits + fits, 2 * remainder

    start = jnp.zeros_like(top), top
    digits, doubled = jax.lax.fori_loop(0, _MANTISSA_BITS + 1, next_bit, start)
    return digits, doubled // 2


def _times_power_of_two(digits, exponent):
    """In two steps, as the power itself may be no float32 where the product is one."""
    near = jnp.clip(exponent, _MIN_EXPONENT, _MAX_EXPONENT - _MANTISSA_BITS - 1)
    rest = jnp.clip(exponent - near, _MIN_EXPONENT, _MAX_EXPONENT)
    return digits * _power_of_two(near) * _power_of_two(rest)


def _power_of_two(exponent):
    return jax.lax.bitcast_convert_type((exponent + _EXPONENT_BIAS) << _MANTISSA_BITS, jnp.float32)
