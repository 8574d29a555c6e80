"""An area as a block of voxels: an array [x, y, z, k], k counting the neurons of a voxel."""

import dataclasses
import functools
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Num, Shaped

from brainjax.validation import Numbers, require

# Numbers of any type: those of the axes differ from area to area.
Frame = Num[Array | np.ndarray, "_ _ _"] | Num[Array | np.ndarray, "_ _ _ _"]
AXES = 3
_MAX_PLACES = 2**31  # of a block as an array


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """The neurons of an area at their voxels. Made by `Layout.block`."""

    name: str
    num_neurons: int  # of the network
    shape: tuple[int, int, int, int]  # extents along x, y and z; most neurons of a voxel
    ids: np.ndarray  # [own] int64, its neurons, ascending
    place: np.ndarray  # [own] int64, of each in the flattened array
    is_reachable: np.ndarray  # [own] bool, whether it is found by its voxel

    @functools.cached_property
    def is_run(self) -> bool:
        """Whether its ids follow each other without a gap."""
        return bool(self.ids[-1] - self.ids[0] + 1 == self.ids.size)

    @functools.cached_property
    def _is_plain(self):
        """Whether the array is a run of ids, and nothing has to be moved."""
        return (
            self.is_run
            and self.ids.size == math.prod(self.shape)
            and bool((self.place == np.arange(self.ids.size)).all())
        )

    def voxels(self) -> np.ndarray:
        """Return x, y, z of each of its neurons, [own, 3]."""
        return np.stack(np.unravel_index(self.place, self.shape)[:AXES], axis=-1)

    def view(self, values: Shaped[Array, " neurons"]) -> Shaped[Array, "x y z k"]:
        """Return the values of its neurons at their places, and 0 where there is no neuron.

        Args:
            values: one number for each neuron of the network, such as
                `state.membranes.potential`; may be traced.

        Raises:
            ValueError: there are not as many values as neurons, such as those of a batch outside
                `vmap`, or the block has 2^31 places or more.

        Cost: none where the ids of the area follow its places, as in a network grown from a
            genome; else a gather and a scatter.
        """
        self.check(jnp.shape(values))
        self._check_dense()
        if self._is_plain:
            return values[int(self.ids[0]) : int(self.ids[-1]) + 1].reshape(self.shape)
        whole = jnp.zeros(math.prod(self.shape), values.dtype)
        own = values[jnp.asarray(self.ids, jnp.int32)]
        return whole.at[jnp.asarray(self.place, jnp.int32)].set(own).reshape(self.shape)

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse values other than one for each neuron of its network.

        Args:
            shape: of the values.

        Raises:
            ValueError: it is not [neurons].
        """
        field = f"shape of values that area {self.name!r} is cut out of"
        size = self.num_neurons
        require(shape == (size,), field, f"({size},), the neurons of its network", shape)

    def spread(self, frame: Frame) -> Num[Array, " own"]:
        """Return what a frame holds for each of its neurons, in the order of `ids`.

        Args:
            frame: [x, y, z], the same for all neurons of a voxel, or [x, y, z, k]; may be traced.

        Raises:
            ValueError: the frame has another shape, or the block 2^31 places or more.
        """
        self._check_dense()
        shape = jnp.shape(frame)
        right = shape in (self.shape[:AXES], self.shape)
        rule = f"{self.shape[:AXES]} or {self.shape}"
        require(right, f"shape of the frame of area {self.name!r}", rule, shape)
        each = self.place if len(shape) > AXES else self.place // self.shape[AXES]
        return jnp.ravel(frame)[jnp.asarray(each, jnp.int32)]

    def _check_dense(self):
        places = math.prod(self.shape)
        require(places < _MAX_PLACES, f"places of area {self.name!r}", "below 2**31", self.shape)

    def find(self, voxels: Numbers) -> tuple[np.ndarray, np.ndarray]:
        """Return the neurons of voxels.

        Args:
            voxels: x, y, z of each, [voxels, 3].

        Returns:
            The ids, voxel by voxel and ascending in each, and for each id the place of its voxel
            in `voxels`. Of a voxel without reachable neurons there is none.

        Raises:
            ValueError: the coordinates are no whole numbers, or have another shape.
        """
        voxels = np.asarray(voxels)
        field = f"voxels of area {self.name!r}"
        right = voxels.shape == (0,) or voxels.shape[1:] == (AXES,)
        require(right, field, "[voxels, 3]", voxels.shape)
        voxels = voxels.reshape(-1, AXES)
        odd = voxels[(voxels != np.trunc(voxels)).any(-1)]
        require(not odd.size, field, "whole numbers", odd[:1])
        extents = self.shape[:AXES]
        inside = ((voxels >= 0) & (voxels < extents)).all(-1)
        kept = np.where(inside[:, None], voxels, 0).astype(np.int64)
        wanted = np.ravel_multi_index((kept[:, 0], kept[:, 1], kept[:, 2]), extents)
        first, last = (np.searchsorted(self._listed, wanted, side) for side in ("left", "right"))
        counts = np.where(inside, last - first, 0)
        rows = np.repeat(np.arange(counts.size), counts)
        within = np.arange(rows.size) - np.repeat(np.cumsum(counts) - counts, counts)
        return self.ids[self._order[first[rows] + within]], rows

    @functools.cached_property
    def _order(self):
        """The reachable neurons by voxel, then id."""
        reachable = np.flatnonzero(self.is_reachable)
        return reachable[np.argsort(self.place[reachable])]

    @functools.cached_property
    def _listed(self):
        """The voxel of each in that order."""
        return self.place[self._order] // self.shape[AXES]


def block_of(
    name: str, num_neurons: int, ids: np.ndarray, position: np.ndarray, is_reachable: np.ndarray
) -> Block:
    """Return the block of neurons.

    Args:
        name: of the area.
        num_neurons: of the network.
        ids: ascending, at least one, [own].
        position: x, y, z of each, [own, 3].
        is_reachable: whether each is found by its voxel, [own].

    Raises:
        ValueError: a voxel is too far out to be numbered.
    """
    x, y, z = (int(most) + 1 for most in position.max(0))
    field, shape = f"voxels of area {name!r}", (x, y, z)
    require(math.prod(shape) * ids.size < 2**63, field, "fewer than 2**63", shape)
    voxel = np.ravel_multi_index((position[:, 0], position[:, 1], position[:, 2]), shape)
    order = np.argsort(voxel, kind="stable")
    starts = np.flatnonzero(np.diff(voxel[order], prepend=-1))
    sizes = np.diff(starts, append=ids.size)
    rank = np.empty_like(ids)
    rank[order] = np.arange(ids.size) - np.repeat(starts, sizes)
    most = int(sizes.max())
    columns = ids, voxel * most + rank, is_reachable
    for each in columns:
        each.setflags(write=False)
    return Block(name, num_neurons, (x, y, z, most), *columns)
