"""The neurons of a burst engine: what each is, what a burst changes of it, and by which rules."""

import dataclasses
from typing import no_type_check

from flax import struct
from jaxtyping import Array, Bool, Float32, Int32, UInt16

UNLIMITED = 65_535  # fires in a row: as 0, no limit
MAX_COUNT = 65_535  # where counts saturate


@no_type_check  # transformations build it from batched and placeholder leaves
@struct.dataclass
class Neurons:
    """Parameters of each neuron; the id is the place in the arrays.

    Potentials have no physical unit: they are in the unit of the thresholds.
    """

    area: Int32[Array, " neurons"]  # place in the list of areas
    threshold: Float32[Array, " neurons"]  # potential from which on the neuron fires
    threshold_limit: Float32[Array, " neurons"]  # potential up to which it fires
    leak: Float32[Array, " neurons"]  # share of the potential that is lost in a burst
    excitability: Float32[Array, " neurons"]  # probability of firing; from 0.999 on, 1
    refractory_period: UInt16[Array, " neurons"]  # bursts as a candidate
    fire_limit: UInt16[Array, " neurons"]  # fires in a row; 0 or 65,535: no limit
    snooze: UInt16[Array, " neurons"]  # bursts as a candidate, after the last of `fire_limit` fires
    accumulates: Bool[Array, " neurons"]  # else the potential is 0 at the start of each burst


@no_type_check  # transformations build it from batched and placeholder leaves
@struct.dataclass
class Membranes:
    """What the dynamics of a neuron changes."""

    potential: Float32[Array, " neurons"]  # in the unit of the thresholds
    countdown: UInt16[Array, " neurons"]  # bursts as a candidate that remain refractory
    fire_count: UInt16[Array, " neurons"]  # fires in a row


@no_type_check  # transformations build it from batched and placeholder leaves
@struct.dataclass
class Arrivals:
    """What arrives in a burst; of several bursts, along a leading axis."""

    sums: Int32[Array, "*bursts neurons"]  # contributions, in units of 2^-fraction_bits
    reached: Bool[Array, "*bursts neurons"]  # whether anything does, be it a sum of 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class BurstRules:
    """What is the same for all neurons and bursts, and fixed at compile time.

    Raises:
        ValueError: a number is negative.
    """

    power_neuron: int | None = None  # receives the power in every burst
    fatigue_area: int | None = None  # receives it in bursts that are fatigued
    batch_threshold: int | None = None  # candidates from which on other rules hold
    keeps_residues: bool = False  # potentials that do not accumulate are not reset either
    unlimited_block: bool = False  # a neuron without fire limit is blocked once in 65,535 fires
    strength_limit: float = 1_000.0  # that a potential which is sent keeps to
    whole_strength: bool = False  # such a potential is rounded, halves up

    def __post_init__(self):
        for name in ("power_neuron", "fatigue_area", "batch_threshold"):
            number = getattr(self, name)
            if number is not None and number < 0:
                raise ValueError(f"{name} must be None or at least 0; got {number}")
