"""Who fired: as arrays on the device, as tables on the host, of everybody or of an area."""

import dataclasses
from typing import no_type_check

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float32, Int32, UInt32

from brainjax import ops
from brainjax.burst.block import Block
from brainjax.burst.dynamics import State
from brainjax.burst.layout import Layout
from brainjax.burst.ledger import Ledger, frames
from brainjax.validation import require


@dataclasses.dataclass(frozen=True, eq=False)
class Spikes:
    """A table of spikes, by burst and then neuron."""

    burst: np.ndarray  # [spikes] int64, the first burst being 1
    neuron: np.ndarray  # [spikes] int64, id
    potential: np.ndarray  # [spikes] float32, at firing, in the unit of the thresholds
    area: np.ndarray  # [spikes] int64, place in `Layout.areas`
    position: np.ndarray  # [spikes, 3] int64, voxel of the area

    def __len__(self) -> int:
        return self.burst.size

    def __getitem__(self, rows) -> "Spikes":
        return Spikes(*(column[rows] for column in vars(self).values()))


@no_type_check  # transformations build it from batched and placeholder leaves
@struct.dataclass
class Sample:
    """Who fired in one burst, as far as there is room. Made by `Sampler`.

    Only the first `count` entries are read, and there are none beyond the capacity: a larger
    `count` says that some are missing.
    """

    burst: UInt32[Array, ""]
    is_taken: Bool[Array, ""]  # False: a burst that the sampler leaves out; then count is 0
    neurons: Int32[Array, " capacity"]
    potentials: Float32[Array, " capacity"]  # at firing
    count: Int32[Array, ""]  # who fired, missing ones included


@dataclasses.dataclass(frozen=True)
class Sampler:
    """A `record` for `simulate`: who fired in every n-th burst, by which `burst % every` is 0.

    Two samplers of the same block are equal, and compile once.

    Args:
        capacity: entries of a sample; what does not fit shows in its count, and `spikes` refuses
            it.
        block: whose neurons to sample; None: everybody.
        every: n. FEAGI's samplers have a rate of their own too, for motors and for pictures.

    Raises:
        ValueError: a number is below 1.

    Cost: of everybody, a copy of `capacity` entries; of an area, a pass over the neurons. A burst
        that is left out stores a sample too, an empty one of the same size.
    Determinism: the same on every platform.
    """

    capacity: int
    block: Block | None = None
    every: int = 1

    def __post_init__(self):
        for name in ("capacity", "every"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))

    def __call__(self, state: State) -> Sample:
        """Return the sample of the last burst.

        Raises:
            ValueError: the block is of another network, or the state of a batch.
        """
        if self.block is not None:
            self.block.check(state.membranes.potential.shape)
        fired = state.fired if self.block is None else _among(self.block, state.fired)
        is_taken = state.burst % jnp.uint32(self.every) == 0
        return Sample(
            burst=state.burst,
            is_taken=is_taken,
            neurons=fired.indices[: self.capacity],
            potentials=fired.values[: self.capacity],
            count=jnp.where(is_taken, fired.count, 0),
        )


def fires(state: State) -> Bool[Array, " neurons"]:
    """Tell for each neuron whether it fired in the last burst; may be traced.

    Args:
        state: of one network.
    """
    nobody = jnp.zeros(state.membranes.potential.shape, bool)
    listed = ops.active_set.listed(state.fired)
    ids = jnp.where(listed, state.fired.indices, nobody.size)
    return nobody.at[ids].set(True, mode="drop", unique_indices=True)


def read(state: State, block: Block) -> tuple[Bool[Array, "x y z k"], Float32[Array, "x y z k"]]:
    """Return who fired in an area in the last burst, and the potentials at firing: under `jit`.

    Args:
        state: of one network.
        block: of the area, by `Layout.block`.

    Returns:
        Whether the neuron at each place fired, and its potential at firing; 0 if it did not.

    Raises:
        ValueError: the block is of another network, or has 2^31 places or more, or the state is
            of a batch, outside `vmap`.

    Cost: a pass over the neurons of the network; see `Block.view` for the area.
    """
    block.check(state.membranes.potential.shape)
    potentials = ops.active_set.to_dense(state.fired, block.num_neurons)
    return block.view(fires(state)), block.view(potentials)


def window(ledger: Ledger | None, block: Block, bursts: int) -> Bool[np.ndarray, "bursts x y z k"]:
    """Return who fired in an area in each of the last bursts, the present one last.

    Args:
        ledger: `State.ledger` of one network, concrete.
        block: of the area.
        bursts: to return.

    Returns:
        Whether the neuron at each place fired; the array is NumPy's.

    Raises:
        ValueError: there is no ledger, the block is of another network, the ledger of a batch, or
            fewer bursts are recorded.

    Cost: a gather of the area's words on the device, and a byte per place and burst.
    """
    if ledger is None:
        raise ValueError("ledger_window of Config must be at least 1 for a ledger; got 0")
    block.check((*ledger.words.shape[:-2], ledger.words.shape[-1]))
    own = Ledger(words=ledger.words[:, jnp.asarray(block.ids)], length=ledger.length)
    recorded = frames(own, bursts)
    whole = np.zeros((bursts, np.prod(block.shape)), bool)
    whole[:, block.place] = recorded
    return whole.reshape(bursts, *block.shape)


def fired(state: State, layout: Layout, area: str | None = None) -> Spikes:
    """Return who fired in the last burst, with area and voxel.

    Args:
        state: of one network, concrete.
        layout: of its neurons.
        area: only of this one.

    Returns:
        The spikes by ascending id, potentials in the unit of the thresholds.

    Raises:
        ValueError: the state is of many networks, the layout of another one, or the area unknown.

    Cost: a copy of the list of who fired, as long as the network has neurons, to the host.
    """
    sizes = state.membranes.potential.shape
    require(sizes == (layout.num_neurons,), "neurons of state", f"{layout.num_neurons}", sizes)
    count = int(state.fired.count)
    ids = np.asarray(state.fired.indices)[:count].astype(np.int64)
    potentials = np.asarray(state.fired.values)[:count]
    table = _located(layout, np.full(count, int(state.burst)), ids, potentials)
    if area is None:
        return table
    return table[table.area == layout.areas.index(layout.block(area).name)]


def spikes(samples: Sample, layout: Layout) -> Spikes:
    """Return what samplers recorded, as one table.

    Args:
        samples: of one network, along a leading axis of bursts, concrete.
        layout: of its neurons.

    Returns:
        The spikes by burst, then ascending id; potentials in the unit of the thresholds.

    Raises:
        ValueError: the samples are of many networks, or more fired in a burst than a sample has
            room for.

    Cost: a copy of all samples to the host.
    """
    counts, neurons = np.asarray(samples.count), np.asarray(samples.neurons)
    require(counts.ndim == 1, "shape of count", "[bursts]", counts.shape)
    capacity = neurons.shape[1]
    if (counts > capacity).any():
        worst = counts.argmax()
        where = f"capacity of the sampler in burst {samples.burst[worst]}"
        require(False, where, f"at least {counts[worst]}, who fired", capacity)
    is_used = np.arange(capacity) < counts[:, None]
    burst = np.repeat(np.asarray(samples.burst).astype(np.int64), counts)
    potentials = np.asarray(samples.potentials)[is_used]
    return _located(layout, burst, neurons[is_used].astype(np.int64), potentials)


def _located(layout, burst, ids, potentials):
    return Spikes(burst, ids, potentials, layout.area[ids], layout.position[ids])


def _among(block, active):
    """The entries that are neurons of a block."""
    num_entries = active.indices.shape[0]
    if block.is_run:
        first, last = int(block.ids[0]), int(block.ids[-1])
        is_own = (active.indices >= first) & (active.indices <= last)
    else:
        own = jnp.zeros(int(block.ids[-1]) + 1, bool).at[jnp.asarray(block.ids)].set(True)
        is_own = own.at[active.indices].get(mode="fill", fill_value=False)
    is_own &= ops.active_set.listed(active)
    (kept,) = jnp.nonzero(is_own, size=num_entries, fill_value=num_entries)
    return ops.ActiveSet(
        indices=active.indices.at[kept].get(mode="fill", fill_value=0),
        values=active.values.at[kept].get(mode="fill", fill_value=0),
        count=jnp.count_nonzero(is_own).astype(jnp.int32),
    )
