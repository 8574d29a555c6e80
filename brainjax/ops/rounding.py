"""Products that are rounded before they are added, whatever the compiler would like."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32


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
