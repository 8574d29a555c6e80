"""How values from outside are refused."""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

Numbers = Any  # a number, or whatever NumPy makes an array of


def require(
    is_right: bool,
    field: str,
    rule: object,
    value: object,
    *,
    error: type[ValueError] = ValueError,
    most: int | None = None,
) -> None:
    """Raise `error` naming the field, the rule and the value unless `is_right`.

    Of a value from a file, which may be anything, `most` characters are shown.
    """
    if not is_right:
        raise error(f"{field} must be {rule}; got {str(value)[:most]}")


def whole(name: str, values: Numbers, largest: int) -> np.ndarray:
    """Return whole numbers as int64; an array that is, without a copy.

    Raises:
        ValueError: a value is no whole number in 0..largest; a flag is none.
    """
    values = np.asarray(values)
    kind = values.dtype.kind
    require(kind in "iuf", name, "whole numbers", values.dtype)
    if kind != "f" and values.size and values.min() >= 0 and values.max() <= largest:
        return values.astype(np.int64, copy=False)  # without an array of flags
    exact = values.astype(np.float64) if kind == "f" else values
    is_right = (exact >= 0) & (exact <= largest) & (exact == np.trunc(exact))
    if not is_right.all():
        require(False, name, f"whole numbers in 0..{largest}", values[~is_right][:1])
    return exact.astype(np.int64, copy=False)


def amounts(name: str, values: Numbers, size: int) -> np.ndarray:
    """Return potentials as float32 [size]; a single one is for all.

    Raises:
        ValueError: there are not as many, or one is not finite.
    """
    values = of_each(name, values, size, np.float32)
    is_finite = np.isfinite(values)
    if not is_finite.all():
        require(False, name, "finite", values[~is_finite][:1])
    return values


def of_each(name: str, values: Numbers, size: int, dtype: DTypeLike) -> np.ndarray:
    """Return values as [size]; a single one is for all.

    Raises:
        ValueError: there are not as many.
    """
    values = np.asarray(values, dtype)
    require(values.shape in ((), (size,)), f"shape of {name}", f"() or ({size},)", values.shape)
    return values if values.ndim else np.full(size, values)
