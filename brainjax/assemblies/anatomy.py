"""What an assembly brain consists of, and what may be decided about it in each round."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import no_type_check

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool

from brainjax import ops
from brainjax.validation import require


@dataclasses.dataclass(frozen=True)
class Area:
    """A population in which the neurons with the largest input fire, a fixed number of them."""

    name: str
    n: int  # neurons
    k: int  # winners in each round
    runners_up: int = 0  # next best neurons that gradients may make winners of

    def __post_init__(self):
        require(1 <= self.k <= self.n, f"k of area {self.name!r}", f"in 1..n={self.n}", self.k)
        room = self.n - self.k
        require(
            0 <= self.runners_up <= room,
            f"runners_up of area {self.name!r}",
            f"in 0..n-k={room}",
            self.runners_up,
        )

    @property
    def capacity(self) -> int:
        """Length of the area's active set."""
        return self.k + self.runners_up

    @property
    def rows(self) -> int:
        """Rows of the weights from here."""
        return self.n


@dataclasses.dataclass(frozen=True)
class Stimulus:
    """A block of neurons that always fire together."""

    name: str
    n: int  # neurons in the block

    def __post_init__(self):
        require(self.n >= 1, f"n of stimulus {self.name!r}", "at least 1", self.n)

    @property
    def capacity(self) -> int:
        """Length of its active set: the neurons fire as one."""
        return 1

    @property
    def rows(self) -> int:
        """Rows of the weights from here: one, of the block's totals."""
        return 1


@dataclasses.dataclass(frozen=True)
class Input:
    """A sensory population: the drive says in each round which of its neurons fire."""

    name: str
    n: int  # neurons
    capacity: int  # the most that can fire at once

    def __post_init__(self):
        in_range = 1 <= self.capacity <= self.n
        require(in_range, f"capacity of input {self.name!r}", f"in 1..n={self.n}", self.capacity)

    @property
    def rows(self) -> int:
        """Rows of the weights from here."""
        return self.n


@dataclasses.dataclass(frozen=True)
class Fiber:
    """The possible synapses from a source to an area; each exists with the same probability."""

    source: str
    target: str
    probability: float
    normalise: bool = False  # keep the sum of each neuron's weights in this fiber at 1

    def __post_init__(self):
        in_range = 0 <= self.probability <= 1
        require(in_range, f"probability of fiber {self.name!r}", "in [0, 1]", self.probability)

    @property
    def name(self) -> str:
        """The name by which Drive and State know the fiber."""
        return f"{self.source}->{self.target}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What is fixed at compile time. Changing any field recompiles `step`.

    Raises:
        ValueError: a field is out of range, or a name is unknown or used twice.
    """

    areas: Sequence[Area]
    fibers: Sequence[Fiber]
    stimuli: Sequence[Stimulus] = ()
    inputs: Sequence[Input] = ()
    dtype: str = "float32"  # of the weights, or "bfloat16"
    softened: bool = False  # winners share their places smoothly; see `ops.select_winners`
    backend: ops.Backend = "auto"

    def __post_init__(self):
        for field in ("areas", "fibers", "stimuli", "inputs"):
            # A Config must be hashable, whatever sequence was given.
            object.__setattr__(self, field, tuple(getattr(self, field)))
        ops.backend.check(self.backend)
        require(self.dtype in ("float32", "bfloat16"), "dtype", "float32 or bfloat16", self.dtype)
        _check_distinct("sources", [source.name for source in self._sources])
        _check_distinct("fibers", self.fiber_names)
        for fiber in self.fibers:
            _check_known("source", fiber.source, [source.name for source in self._sources])
            _check_known("target", fiber.target, self.area_names)

    @property
    def area_names(self) -> tuple[str, ...]:
        """Names of the areas, in order."""
        return tuple(area.name for area in self.areas)

    @property
    def fiber_names(self) -> tuple[str, ...]:
        """Names of the fibers, in order: "source->target"."""
        return tuple(fiber.name for fiber in self.fibers)

    @property
    def num_neurons(self) -> int:
        """Neurons that a step updates."""
        return sum(area.n for area in self.areas)

    @property
    def weight_bytes(self) -> int:
        """Memory of all weights."""
        itemsize = jnp.dtype(self.dtype).itemsize
        return sum(
            self.source(fiber.source).rows * self.area(fiber.target).n * itemsize
            for fiber in self.fibers
        )

    def area(self, name: str) -> Area:
        """Return the area of that name."""
        _check_known("area", name, self.area_names)
        return self.areas[self.area_names.index(name)]

    def source(self, name: str) -> Area | Stimulus | Input:
        """Return the area, stimulus or input of that name."""
        _check_known("source", name, [source.name for source in self._sources])
        return next(source for source in self._sources if source.name == name)

    @property
    def _sources(self):
        return (*self.areas, *self.stimuli, *self.inputs)

    def per_fiber(self, default: float, special: Mapping[str, float] | None = None) -> Array:
        """Return one number for each fiber, in order, for a field of Params.

        Args:
            default: the number of the fibers that `special` does not name.
            special: fiber name to number.

        Raises:
            ValueError: `special` names an unknown fiber.
        """
        special = special or {}
        for name in special:
            _check_known("fiber", name, self.fiber_names)
        numbers = [special.get(name, default) for name in self.fiber_names]
        return jnp.asarray(numbers, jnp.float32)

    def drive(
        self,
        *fibers: str,
        plastic: bool | Iterable[str] = True,
        fixed: Iterable[str] = (),
        closed: Iterable[str] = (),
        inputs: Mapping[str, ops.ActiveSet] | None = None,
    ) -> "Drive":
        """Return the drive of one round in which the named fibers are open.

        Args:
            fibers: names of the open fibers, as in "s->A".
            plastic: whether open fibers learn, or the names of those that do.
            fixed: areas that keep their winners although they receive input.
            closed: areas whose fibers are all closed.
            inputs: who fires in each `Input`; nobody where it is not named.

        Raises:
            ValueError: a name is unknown, or an input has another capacity than its `Input`.
        """
        inputs = dict(inputs or {})
        for name, active in inputs.items():
            _check_known("input", name, [given.name for given in self.inputs])
            capacity, got = self.source(name).capacity, active.indices.shape[-1]
            require(got == capacity, f"capacity of the set for {name!r}", capacity, got)
        for given in self.inputs:
            inputs.setdefault(given.name, ops.active_set.empty(given.n, given.capacity))
        learning = self.fiber_names if plastic is True else (plastic or ())
        return Drive(
            fibers=_flags("fiber", fibers, self.fiber_names),
            plastic=_flags("fiber", learning, self.fiber_names),
            fixed=_flags("area", fixed, self.area_names),
            closed=_flags("area", closed, self.area_names),
            inputs=inputs,
        )

    def bytes_moved(self, drive: "Drive") -> float:
        """Return the bytes that rounds must move: active rows, inputs and changed synapses.

        Every area is taken to have its full number of winners.

        Args:
            drive: of one round, or of many along leading axes; concrete.
        """
        itemsize = jnp.dtype(self.dtype).itemsize
        is_open = np.asarray(drive.fibers)
        changes = is_open & np.asarray(drive.plastic)
        rounds = np.prod(is_open.shape[:-1], dtype=float)
        moved = rounds * 2 * 4 * self.num_neurons  # each input is written once and read once
        for index, fiber in enumerate(self.fibers):
            rows, target = self.source(fiber.source).capacity, self.area(fiber.target)
            moved += is_open[..., index].sum() * rows * target.n * itemsize
            moved += changes[..., index].sum() * 2 * rows * target.capacity * itemsize
        return float(moved)


@no_type_check  # transformations build it from batched and placeholder leaves
@struct.dataclass
class Drive:
    """What the experimenter decides in each round. Build it with `Config.drive`."""

    fibers: Bool[Array, " fibers"]  # open: the source's spikes arrive
    plastic: Bool[Array, " fibers"]  # open fibers that learn
    fixed: Bool[Array, " areas"]  # keeps its winners
    closed: Bool[Array, " areas"]  # neither sends nor receives
    inputs: dict[str, ops.ActiveSet]  # who fires in each input


def _flags(kind, names, all_names):
    names = tuple(names)
    for name in names:
        _check_known(kind, name, all_names)
    return jnp.asarray([name in names for name in all_names], bool)


def _check_known(kind, name, names):
    require(name in names, kind, f"one of {', '.join(map(repr, names)) or 'none'}", repr(name))


def _check_distinct(kind, names):
    repeated = sorted({name for name in names if names.count(name) > 1})
    require(not repeated, f"names of {kind}", "distinct", f"{repeated} twice")
