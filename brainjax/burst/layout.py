"""Where neurons are: areas and voxels, to inject by coordinate and to view an area as a block."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from brainjax import ops
from brainjax.burst.anatomy import Config
from brainjax.burst.block import AXES, Block, Frame, block_of
from brainjax.burst.drive import Drive
from brainjax.validation import Numbers, amounts, of_each, require, whole

OnUnknown = Literal["error", "warn", "ignore"]
Injection = tuple[str, Numbers, Numbers]  # area; x, y, z of each entry; its potential, or one


class Layout:
    """Area and voxel of each neuron, checked once. It stays on the host and does not change.

    A voxel may hold several neurons: what is injected there goes to each of them.

    Args:
        areas: names, as `Config.area_names` has them.
        area: place of each neuron's area in `areas`, [neurons].
        position: x, y, z of each neuron, its voxel in the area, [neurons, 3].
        is_reachable: whether a neuron is found by its voxel; one flag or [neurons].

    Raises:
        ValueError: an array has another shape, or a number is out of range.

    Source: feagi-core 0.0.1-beta.18, which looks injections up by area and voxel. It drops those
        for voxels without neurons in silence; here they are refused.
    """

    def __init__(
        self, areas: Sequence[str], area: Numbers, position: Numbers, is_reachable: Numbers = True
    ):
        self.areas = tuple(areas)
        self.area = whole("area", area, len(self.areas) - 1).copy()
        self.position = whole("position", position, 2**32 - 1).copy()
        size = self.area.size
        distinct = len(set(self.areas)) == len(self.areas)
        require(distinct, "names of areas", "distinct", self.areas)
        shape = self.area.shape
        require(shape == (size,) and size > 0, "shape of area", "[neurons], 1 or more", shape)
        shape = self.position.shape
        require(shape == (size, AXES), "shape of position", (size, AXES), shape)
        self.is_reachable = of_each("is_reachable", is_reachable, size, bool).copy()
        for each in (self.area, self.position, self.is_reachable):
            each.setflags(write=False)
        self._blocks: dict[str, Block] = {}
        self._order = np.argsort(self.area, kind="stable")  # by area, then id
        self._ends = np.searchsorted(self.area[self._order], np.arange(len(self.areas) + 1))

    @property
    def num_neurons(self) -> int:
        """Neurons of the network."""
        return self.area.size

    def block(self, area: str) -> Block:
        """Return an area as a block, the same object every time.

        Args:
            area: name.

        Raises:
            ValueError: there is no area of that name, or it has no neurons.

        Cost: a sort of its neurons on the host, the first time.
        """
        if area not in self._blocks:
            self._blocks[area] = self._make_block(area)
        return self._blocks[area]

    def _make_block(self, area):
        known = ", ".join(map(repr, self.areas))
        require(area in self.areas, "area", f"one of {known}", repr(area))
        index = self.areas.index(area)
        ids = self._order[self._ends[index] : self._ends[index + 1]]
        require(ids.size > 0, f"neurons of area {area!r}", "at least one", "none")
        return block_of(area, self.num_neurons, ids, self.position[ids], self.is_reachable[ids])

    def find(
        self, area: str, voxels: Numbers, *, on_unknown: OnUnknown = "error"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the neurons of voxels.

        Args:
            area: name.
            voxels: x, y, z of each, [voxels, 3].
            on_unknown: what to do about a voxel without a reachable neuron: "error", or leave it
                out, with a warning ("warn") or without ("ignore").

        Returns:
            The ids, voxel by voxel and ascending in each, and for each id the place of its voxel
            in `voxels`.

        Raises:
            ValueError: a voxel has no neuron, or is none.
        """
        choices = ("error", "warn", "ignore")
        require(on_unknown in choices, "on_unknown", f"one of {choices}", repr(on_unknown))
        voxels = np.asarray(voxels)
        ids, rows = self.block(area).find(voxels)
        if (is_unknown := np.bincount(rows, minlength=len(voxels)) == 0).any():
            _unknown(area, voxels[is_unknown], on_unknown)
        return ids, rows

    def drive(
        self,
        config: Config,
        injections: Sequence[Injection],
        *,
        on_unknown: OnUnknown = "error",
        keep_zeros: bool = True,
        capacity: int | None = None,
        fatigued: bool = False,
    ) -> Drive:
        """Return the drive of one burst from what is injected into voxels. A 0 is injected too.

        All neurons of a voxel receive the potential. What is given several times adds up, in the
        order given.

        Args:
            config: of the network.
            injections: (area, voxels [n, 3], potentials [n] or one number) of each area; the
                potentials in the unit of the thresholds, finite.
            on_unknown: about voxels without neurons; see `find`.
            keep_zeros: whether a potential of 0 is injected, unlike in `drive_frames` by default:
                it changes no sum, and makes its neuron a candidate, which leaks and counts down.
                FEAGI leaves it out when it comes in a list, and keeps it when it comes in arrays.
            capacity: length of the set, so that bursts can be stacked; see `Config.drive`.
            fatigued: whether the fatigue area receives the power.

        Raises:
            ValueError: the config is of another network, an area is unknown, a voxel has no
                neuron, a potential is not finite, or the capacity is too small.

        Cost: a search for the voxels and a sort of the ids on the host; see `Config.drive`.
        """
        ids, potentials = self._entries(config, injections, on_unknown, keep_zeros)
        return config.drive(ids, potentials, capacity=capacity, fatigued=fatigued)

    def drives(
        self,
        config: Config,
        bursts: Sequence[Sequence[Injection]],
        *,
        on_unknown: OnUnknown = "error",
        keep_zeros: bool = True,
        fatigued: Numbers = False,
    ) -> Drive:
        """Return the drives of bursts, along a leading axis; see `drive`.

        Args:
            config: of the network.
            bursts: the injections of each; at least one burst.
            on_unknown: as in `drive`.
            keep_zeros: as in `drive`.
            fatigued: whether the fatigue area receives the power; one flag, or [bursts].

        Raises:
            ValueError: as `drive`, or there are no bursts, or not as many flags.

        Cost: `drive` for each burst, all as long as the longest, and one copy of them.
        """
        require(len(bursts) >= 1, "bursts", "at least 1", len(bursts))
        entries = [self._entries(config, each, on_unknown, keep_zeros) for each in bursts]
        ids, potentials = zip(*entries)
        return config.drives(ids, potentials, fatigued=fatigued)

    def drive_frames(
        self,
        config: Config,
        frames: Mapping[str, Frame],
        *,
        keep_zeros: bool = False,
        fatigued: bool | Array = False,
    ) -> Drive:
        """Return the drive of one burst from one array for each area. A 0 is not injected.

        It may be traced, by `jit`, `scan` and `vmap`.

        Args:
            config: of the network.
            frames: area to potentials [x, y, z] or [x, y, z, k], in the unit of the thresholds.
                Not checked to be finite: a NaN shows in the potential of its neuron.
            keep_zeros: whether a potential of 0 is injected, as in `drive` by default, so that all
                neurons of the areas are candidates.
            fatigued: whether the fatigue area receives the power.

        Raises:
            ValueError: the config is of another network, an area is unknown, or a frame has
                another shape than its block.

        Cost: one pass over the neurons of these areas. The set has room for all of them.
        """
        self._check(config)
        require(len(frames) >= 1, "frames", "of at least one area", "none")
        blocks = {name: self.block(name) for name in frames}
        ids, is_reachable = (
            np.concatenate([getattr(block, name) for block in blocks.values()])
            for name in ("ids", "is_reachable")
        )
        spread = [blocks[name].spread(_float32(frame)) for name, frame in frames.items()]
        order = np.argsort(ids)
        potentials = jnp.concatenate(spread)[jnp.asarray(order, jnp.int32)]
        is_kept = jnp.asarray(is_reachable[order])
        is_kept = is_kept if keep_zeros else is_kept & (potentials != 0)
        ids = jnp.asarray(ids[order], jnp.int32)
        (kept,) = jnp.nonzero(is_kept, size=ids.size, fill_value=ids.size)
        injected = ops.ActiveSet(
            indices=ids.at[kept].get(mode="fill", fill_value=self.num_neurons),
            values=potentials.at[kept].get(mode="fill", fill_value=0),
            count=jnp.count_nonzero(is_kept).astype(jnp.int32),
        )
        return Drive(injected=injected, fatigued=jnp.asarray(fatigued, bool))

    def _entries(self, config, injections, on_unknown, keep_zeros):
        """Ids and potentials, in the order given."""
        self._check(config)
        ids, potentials = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
        for area, voxels, given in injections:
            found, rows = self.find(area, voxels, on_unknown=on_unknown)
            injected = amounts(f"potentials of area {area!r}", given, len(voxels))[rows]
            kept = slice(None) if keep_zeros else injected != 0
            ids.append(found[kept])
            potentials.append(injected[kept])
        return np.concatenate(ids), np.concatenate(potentials)

    def _check(self, config):
        """Refuse the config of another network."""
        size, rule = config.num_neurons, f"that of the layout, {self.num_neurons}"
        require(size == self.num_neurons, "num_neurons of config", rule, size)


def _float32(frame):
    """What is on the host is converted there: JAX would make int32 of int64 first."""
    return (
        frame.astype(jnp.float32) if isinstance(frame, jax.Array) else np.asarray(frame, np.float32)
    )


def _unknown(area, voxels, on_unknown):
    where = f"{tuple(voxels[0].tolist())} and {len(voxels) - 1} more"
    rule = "where neurons are"
    require(on_unknown != "error", f"voxels of area {area!r}", rule, where)
    if on_unknown == "warn":
        warnings.warn(f"area {area!r} has no neurons at {where}: left out", stacklevel=4)
