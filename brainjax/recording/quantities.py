"""What of a state can be recorded, and who observes it after every burst."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from brainjax import burst
from brainjax.validation import require


@dataclasses.dataclass(frozen=True)
class Quantity:
    """A number of each neuron after each burst."""

    of: Callable[[burst.State], Array]
    dtype: str
    is_bit: bool = False  # eight neurons in a byte, the first one in its highest bit

    def columns(self, num_neurons: int) -> int:
        """Numbers of a burst on disk."""
        return -(-num_neurons // 8) if self.is_bit else num_neurons

    def unpacked(self, rows: np.ndarray, num_neurons: int) -> np.ndarray:
        """Return rows as they were on the device, [bursts, neurons]."""
        if not self.is_bit:
            return rows
        return np.unpackbits(rows, axis=1, count=num_neurons).astype(bool)


def _received(state: burst.State) -> tuple[Array, Array]:
    """Inputs and candidates of a state that keeps them."""
    if state.inputs is None or state.candidates is None:
        raise ValueError(
            "inputs are kept only with Config(keeps_inputs=True); got a state without them"
        )
    return state.inputs, state.candidates


QUANTITIES = {
    "potential": Quantity(lambda state: state.membranes.potential, "float32"),
    "countdown": Quantity(lambda state: state.membranes.countdown, "uint16"),
    "fire_count": Quantity(lambda state: state.membranes.fire_count, "uint16"),
    "input": Quantity(lambda state: _received(state)[0], "float32"),
    "fires": Quantity(lambda state: jnp.packbits(burst.fires(state)), "uint8", is_bit=True),
    "is_candidate": Quantity(lambda state: jnp.packbits(_received(state)[1]), "uint8", is_bit=True),
}


def check_names(names: Sequence[str], field: str = "quantities") -> None:
    """Refuse what is no quantity.

    Raises:
        ValueError: a name is unknown or given twice.
    """
    unknown = [name for name in names if name not in QUANTITIES]
    require(not unknown, field, f"among {', '.join(QUANTITIES)}", unknown)
    require(len(set(names)) == len(names), field, "given once", names)


@dataclasses.dataclass(frozen=True)
class Observer:
    """A `record` for `simulate`: the spikes, the candidates and the quantities of a burst.

    Equal observers compile once.
    """

    quantities: tuple[str, ...]
    spikes: int  # entries for those who fire
    candidates: int | None  # entries for candidates; None: not recorded

    def __call__(self, state: burst.State) -> dict[str, Any]:
        """Return what is recorded; more entries than there is room for are only counted.

        Raises:
            ValueError: it takes inputs, and the state keeps none.
        """
        observed: dict[str, Any] = {name: QUANTITIES[name].of(state) for name in self.quantities}
        observed["spikes"] = burst.Sampler(self.spikes)(state)
        if self.candidates is not None:
            inputs, candidates = _received(state)
            (ids,) = jnp.nonzero(candidates, size=self.candidates, fill_value=0)
            observed["candidates"] = {
                "neuron": ids.astype(jnp.int32),
                "input": inputs[ids],
                "count": jnp.count_nonzero(candidates).astype(jnp.int32),
            }
        return observed

    def grown(self, spikes: int, candidates: int, num_neurons: int) -> "Observer":
        """Return an observer with room for so many in a burst; the same one if this one has it."""

        def room(capacity, most):
            # In powers of two, so that few programs are compiled.
            return capacity if most <= capacity else min(num_neurons, 1 << (most - 1).bit_length())

        listed = self.candidates if self.candidates is None else room(self.candidates, candidates)
        return dataclasses.replace(self, spikes=room(self.spikes, spikes), candidates=listed)


def most_seen(observed: dict[str, Any]) -> tuple[int, int]:
    """Return how many spikes and candidates a burst had at most, those without room included."""
    candidates = int(observed["candidates"]["count"].max()) if "candidates" in observed else 0
    return int(observed["spikes"].count.max()), candidates
