"""What comes from outside in one burst."""

from typing import no_type_check

import numpy as np
from flax import struct
from jaxtyping import Array, Bool

from brainjax import ops
from brainjax.validation import Numbers, amounts, require, whole


@no_type_check  # transformations build it from batched and placeholder leaves
@struct.dataclass
class Drive:
    """What comes from outside in one burst. Build it with `Config.drive`."""

    injected: ops.ActiveSet  # ascending ids, which may repeat; values in the unit of thresholds
    fatigued: Bool[Array, ""]  # whether the fatigue area receives the power


def injections(
    num_neurons: int, ids: Numbers, potentials: Numbers, capacity: int | None
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return ids in ascending order, their potentials, and for how many there is room.

    By default there is just enough.

    Raises:
        ValueError: as `Config.drive`.
    """
    ids = whole("ids", ids, num_neurons - 1).ravel()
    potentials = amounts("potentials", potentials, ids.size)
    least = max(ids.size, 1)
    room = least if capacity is None else capacity
    require(room >= least, "capacity", f"at least {least}", room)
    if (ids[1:] < ids[:-1]).any():
        order = np.argsort(ids, kind="stable")
        ids, potentials = ids[order], potentials[order]
    return ids, potentials, room
