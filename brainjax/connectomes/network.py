"""A network of neurons in areas, as plain NumPy arrays that have been checked."""

import base64
import binascii
import dataclasses
import functools
import math
from collections.abc import Mapping

import numpy as np

from brainjax import validation

# A threshold limit that nothing reaches, and a fire limit that never blocks.
NO_LIMIT = float(np.finfo(np.float32).max)
UNLIMITED = 65535
# Ids from here on belong to memory neurons, which are in no array.
MAX_NEURONS = 50_000_000
MAX_TEXT = 80

# Column: its type, and what it is where nothing says so.
NEURON_COLUMNS: dict[str, tuple[str, float | None]] = {
    "potential": ("float32", 0.0),
    "threshold": ("float32", None),
    "leak": ("float32", 0.0),
    "rest": ("float32", 0.0),
    "kind": ("int32", 0),
    "refractory_period": ("uint16", 0),
    "refractory_countdown": ("uint16", 0),
    "excitability": ("float32", 1.0),
    "area": ("uint32", None),
    "position": ("uint32", None),
    "valid": ("bool", True),
    "threshold_limit": ("float32", NO_LIMIT),
    "fire_count": ("uint16", 0),
    "fire_limit": ("uint16", UNLIMITED),
    "snooze": ("uint16", 0),
    "accumulates": ("bool", True),
}
SYNAPSE_COLUMNS: dict[str, tuple[str, float | None]] = {
    "pre": ("uint32", None),
    "post": ("uint32", None),
    "weight": ("float32", None),
    "psp": ("float32", None),
    "inhibitory": ("bool", False),
    "delay": ("uint8", 1),
    "valid": ("bool", True),
    "edge_flags": ("uint8", 0),
    "eligibility": ("float32", 0.0),
}


class ConnectomeError(ValueError):
    """What is wrong with a network or its file: the field, the rule and the value."""


require = functools.partial(validation.require, error=ConnectomeError, most=MAX_TEXT)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Neurons:
    """One entry per neuron; its id is its index. Build it with `neurons`."""

    potential: np.ndarray  # [n] float32
    threshold: np.ndarray  # [n] float32
    leak: np.ndarray  # [n] float32, applied as potential * (1 - leak)
    rest: np.ndarray  # [n] float32, without effect
    kind: np.ndarray  # [n] int32, without effect
    refractory_period: np.ndarray  # [n] uint16, bursts
    refractory_countdown: np.ndarray  # [n] uint16, bursts left
    excitability: np.ndarray  # [n] float32, probability of firing
    area: np.ndarray  # [n] uint32, `Area.index`
    position: np.ndarray  # [n, 3] uint32, voxel of the area
    valid: np.ndarray  # [n] bool
    threshold_limit: np.ndarray  # [n] float32, NO_LIMIT: none
    fire_count: np.ndarray  # [n] uint16, consecutive bursts fired in
    fire_limit: np.ndarray  # [n] uint16, of them; 0 or UNLIMITED: none
    snooze: np.ndarray  # [n] uint16, bursts added to the refractory period at the limit
    accumulates: np.ndarray  # [n] bool, False: the potential is 0 at the start of every burst

    def __post_init__(self):
        _check_columns(self, "neurons", NEURON_COLUMNS)
        require(len(self) <= MAX_NEURONS, "neurons", f"at most {MAX_NEURONS}", len(self))

    def __len__(self) -> int:
        return len(self.threshold)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Neurons) and _same_columns(self, other)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Synapses:
    """One entry per synapse, in any order. Build it with `synapses`."""

    pre: np.ndarray  # [s] uint32, neuron
    post: np.ndarray  # [s] uint32, neuron
    weight: np.ndarray  # [s] float32, magnitude
    psp: np.ndarray  # [s] float32, postsynaptic potential for weight 1
    inhibitory: np.ndarray  # [s] bool
    delay: np.ndarray  # [s] uint8, bursts, at least 1
    valid: np.ndarray  # [s] bool
    edge_flags: np.ndarray  # [s] uint8, kept as they were read
    eligibility: np.ndarray  # [s] float32, trace

    def __post_init__(self):
        _check_columns(self, "synapses", SYNAPSE_COLUMNS)
        require(not len(self) or int(self.delay.min()) > 0, "synapses.delay", "at least 1", 0)

    def __len__(self) -> int:
        return len(self.pre)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Synapses) and _same_columns(self, other)


@dataclasses.dataclass(frozen=True)
class Area:
    """A block of voxels."""

    index: int
    id: str  # 8 bytes in base64
    mp_driven: bool | None = None  # None: the file does not say
    uniform: bool | None = None
    name: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlasticMapping:
    """How the synapses from one area to another learn in a burst."""

    pre_area: int
    post_area: int
    window: int  # bursts, at least 1
    constant: float
    ltp: float
    ltd: float
    bidirectional: bool = False
    psp: float = 1.0  # of the synapses that a bidirectional mapping makes
    inhibitory: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a network comes from, and what its file says beside the arrays."""

    created: int = 0  # seconds since 1970
    description: str = ""
    source: str = "unknown"
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)
    manifest: str = ""
    memory_areas: tuple[str, ...] = ()
    plastic_pairs: tuple[tuple[str, str], ...] = ()
    regions: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """Neurons, synapses and areas that fit together.

    Raises:
        ConnectomeError: an id, an index or a number is out of range.
    """

    neurons: Neurons
    synapses: Synapses
    areas: tuple[Area, ...]  # ascending index
    burst: int = 0  # bursts so far
    power: float = 1.0  # what the power neuron receives in each burst
    ledger_window: int = 20  # bursts
    plastic: tuple[PlasticMapping, ...] = ()
    genome: str | None = None  # JSON
    origin: Origin = dataclasses.field(default_factory=Origin)

    def __post_init__(self):
        _check_areas(self.areas)
        _check_listed(self.neurons.area, self.areas)
        for name in ("pre", "post"):
            ids = getattr(self.synapses, name)
            worst = int(ids.max()) if ids.size else -1
            rule = f"a neuron in 0..{len(self.neurons) - 1}"
            require(worst < len(self.neurons), f"synapses.{name}", rule, worst)
        require(math.isfinite(self.power), "power", "finite", self.power)
        for name in ("burst", "ledger_window"):
            value = getattr(self, name)
            is_right = isinstance(value, int) and 0 <= value < 2**64
            require(is_right, name, "a whole number in 0..2**64-1", value)
        _check_plastic(self.plastic, {area.index for area in self.areas})


def neurons(threshold, area, position, **columns) -> Neurons:
    """Return neurons; what is not given is that of a neuron without leak and limits.

    Args:
        threshold: [n].
        area: [n], `Area.index`.
        position: [n, 3], voxel.
        columns: other fields of `Neurons`, [n] or one value for all.

    Raises:
        ConnectomeError: a column is unknown, out of range or of another length.
    """
    given = {"threshold": threshold, "area": area, "position": position, **columns}
    return Neurons(**_filled(given, NEURON_COLUMNS, len(threshold)))


def synapses(pre, post, weight, psp, **columns) -> Synapses:
    """Return synapses; what is not given is that of an excitatory one with a delay of one burst.

    Args:
        pre: [s], neuron.
        post: [s], neuron.
        weight: [s], magnitude.
        psp: [s] or one value for all.
        columns: other fields of `Synapses`, [s] or one value for all.

    Raises:
        ConnectomeError: a column is unknown, out of range or of another length.
    """
    given = {"pre": pre, "post": post, "weight": weight, "psp": psp, **columns}
    return Synapses(**_filled(given, SYNAPSE_COLUMNS, len(pre)))


def decode_id(text: str, field: str) -> bytes:
    """Return the 8 bytes of an area id in base64."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    require(len(raw) == 8, field, "8 bytes in base64", repr(text))
    return raw


def _filled(given, columns, count):
    unknown = sorted(set(given) - set(columns))
    require(not unknown, "column", f"one of {', '.join(columns)}", ", ".join(unknown))
    return {
        name: _column(name, given.get(name, default), dtype, count)
        for name, (dtype, default) in columns.items()
    }


def _column(name, values, dtype, count):
    """`values` as a column of its type, if none of them changes by that."""
    values = np.asarray(values)
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        inside = np.asarray((values >= info.min) & (values <= info.max) & (values == values // 1))
        require(bool(inside.all()), name, f"integers in {info.min}..{info.max}", values[~inside])
    shape = (count, 3) if name == "position" else (count,)
    values = values.astype(dtype)
    return np.full(shape, values) if values.ndim == 0 else values


def _check_columns(table, owner, columns):
    count = len(table)
    for name, (dtype, _) in columns.items():
        values, field = getattr(table, name), f"{owner}.{name}"
        shape = (count, 3) if name == "position" else (count,)
        require(values.dtype == dtype, field, dtype, values.dtype)
        require(values.shape == shape, field, f"of shape {shape}", values.shape)
        if dtype == "float32":
            wrong = values[~np.isfinite(values)]
            require(not wrong.size, field, "finite", wrong[:1])


def _same_columns(one, other):
    """Equal bit for bit."""
    return all(
        getattr(one, field.name).tobytes() == getattr(other, field.name).tobytes()
        for field in dataclasses.fields(one)
    )


def _check_areas(areas):
    indices = [area.index for area in areas]
    require(indices == sorted(set(indices)), "areas", "in ascending order of index", indices)
    require(all(0 <= index < 2**32 for index in indices), "areas", "in 0..2**32-1", indices)
    for area in areas:
        decode_id(area.id, f"areas[{area.index}].id")
    require(len({area.id for area in areas}) == len(areas), "areas", "of different ids", areas)


def _check_listed(used, areas):
    indices = np.array([area.index for area in areas], np.uint32)
    wrong = used[~np.isin(used, indices)]
    require(not wrong.size, "neurons.area", "an area of the network", wrong[:1])


def _check_plastic(plastic, indices):
    for mapping in plastic:
        field = f"plastic mapping {mapping.pre_area} to {mapping.post_area}"
        require({mapping.pre_area, mapping.post_area} <= indices, field, "between areas", mapping)
        require(mapping.window >= 1, f"{field}, window", "at least 1", mapping.window)
        for name in ("constant", "ltp", "ltd", "psp"):
            value = getattr(mapping, name)
            require(math.isfinite(value), f"{field}, {name}", "finite", value)
