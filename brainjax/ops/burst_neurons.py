"""The neurons of a burst engine: what each is, what a burst changes of it, and by which rules."""

import dataclasses
from typing import no_type_check

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float32, Int32, Shaped, UInt16

UNLIMITED = 65_535  # fires in a row: as 0, no limit
MAX_COUNT = 65_535  # where counts saturate
MAX_KINDS = 65_536  # that a kind can tell apart


@no_type_check  # transformations build it from batched and placeholder leaves
@struct.dataclass
class Neurons:
    """Parameters of neurons: a row of the arrays for each neuron, or for each kind of them.

    The id of a neuron is its place in `kind`, or without kinds in all arrays. Few kinds take 2
    bytes per neuron instead of 27. `spread` gives each neuron a row of its own, to change a few.

    Potentials have no physical unit: they are in the unit of the thresholds.
    """

    area: Int32[Array, " rows"]  # place in the list of areas
    threshold: Float32[Array, " rows"]  # potential from which on the neuron fires
    threshold_limit: Float32[Array, " rows"]  # potential up to which it fires
    leak: Float32[Array, " rows"]  # share of the potential that is lost in a burst
    excitability: Float32[Array, " rows"]  # probability of firing; from 0.999 on, 1
    refractory_period: UInt16[Array, " rows"]  # bursts as a candidate
    fire_limit: UInt16[Array, " rows"]  # fires in a row; 0 or 65,535: no limit
    snooze: UInt16[Array, " rows"]  # bursts as a candidate, after the last of `fire_limit` fires
    accumulates: Bool[Array, " rows"]  # else the potential is 0 at the start of each burst
    # Row with the parameters of each; one beyond the last counts as the last. None: each its own.
    kind: UInt16[Array, " neurons"] | None = None

    @property
    def num_neurons(self) -> int:
        """Neurons of the network."""
        return (self.threshold if self.kind is None else self.kind).shape[-1]

    def of_each(self, values: Shaped[Array, "*batch rows"]) -> Shaped[Array, "*batch neurons"]:
        """Return numbers of rows, such as `area`, for each neuron.

        Args:
            values: one for each row, along the last axis.

        Cost: a copy for each neuron; none where each has its own row.
        """
        return values if self.kind is None else jnp.take(values, self.kind, axis=-1, mode="clip")

    def spread(self) -> "Neurons":
        """Return the same neurons with a row for each, whose bursts have the same bits.

        Cost: 27 bytes per neuron; nothing where each has its own row.
        """
        rows = {name: values for name, values in vars(self).items() if name != "kind"}
        return Neurons(**{name: self.of_each(values) for name, values in rows.items()})

    def check(self, num_neurons: int) -> None:
        """Refuse arrays that do not fit together, or not so many neurons.

        Raises:
            ValueError: the kinds are not one for each neuron, or a field has another length than
                the others; without kinds, than there are neurons.
            TypeError: the kinds are not uint16.
        """
        rows, rule = num_neurons, f"{num_neurons}, the neurons, without kinds"
        if self.kind is not None:
            if self.kind.dtype != jnp.uint16:
                raise TypeError(f"kind of neurons must be uint16; got {self.kind.dtype}")
            if self.kind.shape[-1:] != (num_neurons,):
                got = self.kind.shape
                raise ValueError(f"shape of kind must be ({num_neurons},), the neurons; got {got}")
            rows = self.threshold.shape[-1]
            if not 1 <= rows <= MAX_KINDS:
                raise ValueError(f"kinds of neurons must be in 1..{MAX_KINDS}; got {rows}")
            rule = f"{rows}, that of threshold"
        for name, values in vars(self).items():
            if name != "kind" and values.shape[-1:] != (rows,):
                raise ValueError(f"length of {name} must be {rule}; got shape {values.shape}")


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
