"""What a burst engine consists of, by which rules it runs, and what is injected into a burst."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Literal

import jax
import numpy as np

from brainjax import ops
from brainjax.burst.drive import Drive, injections
from brainjax.validation import Numbers, of_each, require

Auto = Literal["auto"]
MAX_BYTE = 255
MAX_WINDOW = 2**14  # bursts of a mapping: 2 KiB per neuron, and the time to compile them
# Bytes of an entry of the drive, and of what a candidate reads and writes: state, and its kind.
_INJECTION, _CANDIDATE = 8, 18

_STRICT = {
    "batch_threshold": 10_000,
    "large_reset": 1_000_000,
    "fast_path": True,
    "weights": "u8",
    "unlimited_block": True,
    "legacy_units": "keep",
}
_REGULAR = {
    "batch_threshold": None,
    "large_reset": None,
    "fast_path": False,
    "weights": "f32",
    "unlimited_block": False,
    "legacy_units": "error",
}
_CHOICES = {
    "fast_path": ("auto", True, False),
    "weights": ("auto", "u8", "f32"),
    "unlimited_block": ("auto", True, False),
    "legacy_units": ("auto", "error", "keep", "percent"),
}


@dataclasses.dataclass(frozen=True)
class Area:
    """A cortical area: how the synapses of its neurons send. None where no flag was ever set."""

    name: str
    uniform: bool | None = None  # each synapse sends in full; else its share of the fan-out
    mp_driven: bool | None = None  # the strength is the potential at firing

    @property
    def has_flags(self) -> bool:
        """Whether a flag was set, to whatever value."""
        return self.uniform is not None or self.mp_driven is not None


@dataclasses.dataclass(frozen=True)
class Mapping:
    """The synapses from an area to another, which learn when both fire in a whole window."""

    source: str
    target: str
    window: int  # bursts, the present one included
    bidirectional: bool = False  # absent synapses between neurons that fire together are made
    strength: float = 1.0  # of synapses that are made
    inhibitory: bool = False  # type of synapses that are made

    def __post_init__(self):
        inside = 1 <= self.window <= MAX_WINDOW
        require(inside, f"window of mapping {self.name!r}", f"in 1..{MAX_WINDOW}", self.window)
        finite = math.isfinite(self.strength) and self.strength >= 0
        field = f"strength of mapping {self.name!r}"
        require(finite, field, "finite and at least 0", self.strength)

    @property
    def name(self) -> str:
        """The name in messages."""
        return f"{self.source}->{self.target}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rules:
    """The parts of the semantics, each decided. The table in `brainjax.burst` explains them."""

    batch_threshold: int | None
    large_reset: int | None
    fast_path: bool
    weights: str
    unlimited_block: bool
    legacy_units: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What is fixed at compile time. Changing any field recompiles `step`.

    A part of the semantics that is "auto" is as `strict_feagi` says; see `brainjax.burst`.

    Raises:
        ValueError: a field is out of range, a name is unknown or used twice, or parts exclude each
            other.
    """

    num_neurons: int
    areas: Sequence[Area]
    mappings: Sequence[Mapping] = ()  # of two for the same areas, the later one counts
    power_neuron: int | None = None  # receives `Params.power` in every burst
    fatigue_area: str | None = None  # receives it in bursts in which the drive is fatigued
    ledger_window: int = 0  # bursts to remember beside those that the mappings need
    max_delay: int = 1  # bursts from a spike to its last arrival
    max_weight: float = 1_000.0  # that plasticity keeps to; 255 for weights "u8"
    max_strength: float = 1_000.0  # of a potential-driven synapse; 255 for weights "u8"
    strict_feagi: bool = False
    batch_threshold: int | Auto | None = "auto"  # candidates
    large_reset: int | Auto | None = "auto"  # neurons
    fast_path: bool | Auto = "auto"
    weights: str = "auto"  # "u8" or "f32"
    unlimited_block: bool | Auto = "auto"
    legacy_units: str = "auto"  # "error", "keep" or "percent"
    keeps_inputs: bool = False  # the state tells what each neuron received; 5 bytes per neuron
    backend: ops.Backend = "auto"

    def __post_init__(self):
        for field in ("areas", "mappings"):
            # A Config must be hashable, whatever sequence was given.
            object.__setattr__(self, field, tuple(getattr(self, field)))
        ops.backend.check(self.backend)
        in_range = 1 <= self.num_neurons < 2**31
        require(in_range, "num_neurons", "in 1..2**31-1", self.num_neurons)
        names = self.area_names
        repeated = sorted({name for name in names if names.count(name) > 1})
        require(bool(names), "areas", "at least one", "none")
        require(not repeated, "names of areas", "distinct", f"{repeated} twice")
        latest = {mapping.name: mapping for mapping in self.mappings}
        object.__setattr__(self, "mappings", tuple(latest.values()))
        for mapping in self.mappings:
            self.area_index(mapping.source)
            self.area_index(mapping.target)
        if self.fatigue_area is not None:
            self.area_index(self.fatigue_area)
        self._check_numbers()

    def _check_numbers(self):
        power, last = self.power_neuron, self.num_neurons - 1
        require(power is None or 0 <= power <= last, "power_neuron", f"in 0..{last}", power)
        require(self.ledger_window >= 0, "ledger_window", "at least 0", self.ledger_window)
        require(1 <= self.max_delay <= MAX_BYTE, "max_delay", "in 1..255", self.max_delay)
        single = self.max_delay == 1 or not self.strict_feagi
        require(single, "max_delay", "1 with strict_feagi", self.max_delay)
        slots = int(self.max_delay) * int(self.num_neurons)
        require(slots < 2**31, "max_delay * num_neurons", "below 2**31", slots)
        for name in ("max_weight", "max_strength"):
            limit = getattr(self, name)
            require(math.isfinite(limit) and limit > 0, name, "finite and above 0", limit)
        for name in ("batch_threshold", "large_reset"):
            count = getattr(self, name)
            allowed = count in (None, "auto") or (isinstance(count, int) and count >= 0)
            require(allowed, name, 'at least 0, None or "auto"', count)
        for name, choices in _CHOICES.items():
            choice = getattr(self, name)
            require(choice in choices, name, f"one of {choices}", repr(choice))

    @property
    def rules(self) -> Rules:
        """The parts of the semantics, with what "auto" stands for."""
        parts = _STRICT if self.strict_feagi else _REGULAR
        given = {name: getattr(self, name) for name in parts}
        return Rules(**{name: parts[name] if v == "auto" else v for name, v in given.items()})

    @property
    def burst_rules(self) -> ops.BurstRules:
        """What `ops.burst_core` has to know of all this."""
        rules, tired = self.rules, self.fatigue_area
        return ops.BurstRules(
            power_neuron=self.power_neuron,
            fatigue_area=None if tired is None else self.area_index(tired),
            batch_threshold=rules.batch_threshold,
            keeps_residues=rules.large_reset is not None and self.num_neurons >= rules.large_reset,
            unlimited_block=rules.unlimited_block,
            strength_limit=self.strength_limit,
            whole_strength=rules.weights == "u8",
        )

    @property
    def area_names(self) -> tuple[str, ...]:
        """Names of the areas, in order."""
        return tuple(area.name for area in self.areas)

    @property
    def weight_limit(self) -> float:
        """What plasticity keeps weights to."""
        return float(MAX_BYTE) if self.rules.weights == "u8" else self.max_weight

    @property
    def strength_limit(self) -> float:
        """What the strength of a potential-driven synapse keeps to."""
        return float(MAX_BYTE) if self.rules.weights == "u8" else self.max_strength

    @property
    def window(self) -> int:
        """Bursts that the fire ledger remembers."""
        return max([self.ledger_window, *(mapping.window for mapping in self.mappings)])

    def area_index(self, name: str) -> int:
        """Return the place of an area in `areas`.

        Raises:
            ValueError: there is none of that name.
        """
        if name not in self._places:
            known = ", ".join(map(repr, self.area_names))
            require(False, "area", f"one of {known}", repr(name))
        return self._places[name]

    @functools.cached_property
    def _places(self):
        """Place of each area in `areas`: a genome may have thousands of mappings to look up."""
        return {name: place for place, name in enumerate(self.area_names)}

    def is_divided(self, area: Area) -> bool:
        """Tell whether the neurons of an area share out what they send among their synapses."""
        fast = self.rules.fast_path and not any(each.has_flags for each in self.areas)
        return not fast and not area.uniform

    def drive(
        self,
        ids: Numbers = (),
        potentials: Numbers = (),
        *,
        capacity: int | None = None,
        fatigued: bool = False,
    ) -> Drive:
        """Return the drive of one burst.

        Args:
            ids: neurons that receive an injection, in any order; one that is given several times
                receives the sum, added in the order given.
            potentials: what each entry injects, or one number for all, in the unit of the
                thresholds; finite.
            capacity: length of the set, so that bursts can be stacked; by default just enough.
            fatigued: whether the fatigue area receives the power.

        Raises:
            ValueError: an id is not the number of a neuron, a potential not finite, there are not
                as many of them, or the capacity is too small.

        Cost: a sort of the ids on the host, and one transfer of 8 bytes per entry.
        """
        return _on_device(*self._listed(ids, potentials, capacity), np.bool_(fatigued))

    def _listed(self, ids, potentials, capacity):
        """An active set of what is injected, as arrays of the host."""
        ids, potentials, room = injections(self.num_neurons, ids, potentials, capacity)
        indices, values = np.full(room, self.num_neurons, np.int32), np.zeros(room, np.float32)
        indices[: ids.size], values[: ids.size] = ids, potentials
        return indices, values, np.int32(ids.size)

    def drives(
        self, ids: Sequence[Numbers], potentials: Sequence[Numbers], *, fatigued: Numbers = False
    ) -> Drive:
        """Return the drives of bursts, along a leading axis; see `drive`.

        Args:
            ids: of each burst; at least one burst.
            potentials: of each burst.
            fatigued: whether the fatigue area receives the power; one flag, or [bursts].

        Raises:
            ValueError: as `drive`, or the bursts are none, or not as many for all of these.

        Cost: a sort for each burst on the host, all lists as long as the longest, and one transfer.
        """
        require(len(ids) >= 1, "bursts", "at least 1", len(ids))
        same = len(potentials) == len(ids)
        require(same, "bursts of potentials", f"as many as of ids, {len(ids)}", len(potentials))
        most = max(1, *(np.size(each) for each in ids))
        tired = of_each("fatigued", fatigued, len(ids), bool)
        lists = [self._listed(*each, most) for each in zip(ids, potentials)]
        indices, values, counts = map(np.stack, zip(*lists))
        return _on_device(indices, values, counts, tired)

    def bytes_moved(self, drive: Drive) -> float:
        """Return the bytes that bursts must move at least: the injections and who receives them.

        Args:
            drive: of one burst, or of many along leading axes; concrete.
        """
        return float(np.asarray(drive.injected.count).sum() * (_INJECTION + _CANDIDATE))


def _on_device(indices, values, count, tired):
    """A drive in one transfer, as a burst that comes from the host waits for it."""
    indices, values, count, tired = jax.device_put((indices, values, count, tired))
    return Drive(injected=ops.ActiveSet(indices, values, count), fatigued=tired)
