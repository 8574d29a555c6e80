"""Run the burst engine and write what it does, chunk by chunk."""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from brainjax import burst, checkpoint, metrics
from brainjax.connectomes.tables import arrow
from brainjax.recording import folder as folders, tables
from brainjax.recording.grids import Grid
from brainjax.recording.quantities import QUANTITIES, Observer, check_names
from brainjax.simulation import simulate
from brainjax.validation import require

# Room for spikes and candidates at first; it grows where that is not enough.
_LEAST_ROOM, _SHARE_OF_NEURONS = 256, 64


def create(
    folder: str | Path,
    config: burst.Config,
    params: burst.Params,
    state: burst.State,
    layout: burst.Layout,
    *,
    quantities: Sequence[str] = (),
    candidates: bool = False,
    chunk_bursts: int = 100,
    note: str = "",
) -> None:
    """Make a recording without bursts, for `record` to go on with.

    Args:
        folder: of the recording; must not exist.
        config: of the network.
        params: of the network; its power and the number of its synapses are noted.
        state: the start, of one network; its key and the number of its bursts are noted.
        layout: of its neurons.
        quantities: of every neuron after every burst: "potential", "countdown", "fire_count",
            "input", "fires", "is_candidate". The last two take a bit.
        candidates: whether to write who received anything, and how much, as a table.
        chunk_bursts: bursts of a chunk; changes no number that is recorded.
        note: about the run, kept as it is.

    Raises:
        FileExistsError: the folder is there.
        ImportError: the package pyarrow is missing.
        ValueError: an argument is out of range, or does not belong to the config.
    """
    arrow()
    folder, quantities = Path(folder), tuple(quantities)
    require(chunk_bursts >= 1, "chunk_bursts", "at least 1", chunk_bursts)
    check_names(quantities)
    _check_network(config, state, layout)
    if folder.exists():
        raise FileExistsError(f"folder of the recording must not exist; got {folder}")
    folder.mkdir(parents=True)
    for name in quantities:
        quantity = QUANTITIES[name]
        columns = quantity.columns(config.num_neurons)
        Grid.create(folder / name, quantity.dtype, columns, chunk_bursts)
    facts = {
        "format": folders.FORMAT,
        "config": checkpoint.describe(config),
        "areas": list(layout.areas),
        "quantities": list(quantities),
        "candidates": candidates,
        "chunk_bursts": chunk_bursts,
        "first_burst": int(state.burst) + 1,
        "neurons": config.num_neurons,
        "synapses": _count_synapses(params.synapses),
        "power": np.asarray(params.power).tolist(),
        "key": np.asarray(jax.random.key_data(state.key)).tolist(),
        "note": note,
        "environment": metrics.environment(),
    }
    folders.write_json(folder / folders.FACTS, facts)


def record(
    folder: str | Path,
    config: burst.Config,
    params: burst.Params,
    state: burst.State,
    drive: burst.Drive,
    layout: burst.Layout,
    *,
    num_bursts: int | None = None,
    rewind: bool = False,
) -> burst.State:
    """Advance a network as `simulate` does, and write every spike to disk.

    Bursts run in chunks of one compiled program, and each is on disk before the next one begins. A
    chunk in which more neurons fire than the program has room for runs once more, with more room.

    Args:
        folder: of the recording, by `create`; what is there already is continued.
        config: of the network, the one that the folder was made for.
        params: of the network.
        state: of one network, where the recording ends; not donated.
        drive: of each burst along a leading axis, or with `num_bursts` of all.
        layout: of its neurons.
        num_bursts: how often to apply a constant drive.
        rewind: whether to remove what was recorded after the burst of `state`, as when a run goes
            on from a checkpoint.

    Returns:
        The state after the last burst, with the bits of an unrecorded run.

    Raises:
        FileNotFoundError: the folder holds no recording.
        ImportError: the package pyarrow is missing.
        ValueError: an argument is out of range, or does not belong to the recording.

    Cost: a copy of the state, and on device and host the memory of a chunk: for each burst the
        quantities and 8 bytes for each entry of the lists: at least 256 or one for 64 neurons, at
        most twice as many as a burst has needed.
    Determinism: the files hold the same numbers on every platform, as far as the step does.
    """
    arrow()
    folder = Path(folder)
    facts = folders.facts(folder)
    _check_network(config, state, layout)
    checkpoint.check_same(facts["config"], config)
    require(list(layout.areas) == facts["areas"], "areas of layout", facts["areas"], layout.areas)
    length = _count_bursts(drive, num_bursts, state)
    if rewind:
        folders.remove_after(folder, int(state.burst))
    _check_end(folder, facts, int(state.burst))

    quantities = tuple(facts["quantities"])
    grids = {name: open_grid(folder, name, config.num_neurons) for name in quantities}
    room = min(config.num_neurons, max(_LEAST_ROOM, config.num_neurons // _SHARE_OF_NEURONS))
    observer = Observer(quantities, room, room if facts["candidates"] else None)
    for start in range(0, length, facts["chunk_bursts"]):
        size = min(facts["chunk_bursts"], length - start)
        now = drive if num_bursts is not None else _cut(drive, start, size)
        repeats = None if num_bursts is None else size
        state, observed, observer = _advance(config, params, state, now, repeats, observer)
        _write(folder, facts, grids, layout, observed)
    return state


def open_grid(folder: Path, name: str, num_neurons: int) -> Grid:
    """Return the Zarr array of a quantity.

    Raises:
        ValueError: it is damaged, or of another type or size.
    """
    quantity = QUANTITIES[name]
    return Grid.open(folder / name, quantity.dtype, quantity.columns(num_neurons))


def _advance(config, params, state, drive, num_bursts, observer):
    """Run a chunk, again with more room until every spike has its place."""
    while True:
        after, observed = simulate(
            burst.step,
            config,
            params,
            jax.tree.map(jnp.copy, state),  # it is donated, and may be needed once more
            drive,
            num_steps=num_bursts,
            record=observer,
        )
        larger = observer.grown(observed, config.num_neurons)
        if larger == observer:
            return after, observed, observer
        observer = larger


def _write(folder, facts, grids, layout, observed):
    """Write a chunk, and at last that it is whole."""
    samples = observed["spikes"]
    first, last = int(samples.burst[0]), int(samples.burst[-1])
    spikes = burst.spikes(samples, layout)
    if len(spikes) != samples.count.sum():
        raise RuntimeError(f"bug: {len(spikes)} spikes of {samples.count.sum()} were recorded")
    path = folders.chunk_path(folder, folders.SPIKES, first)
    tables.write_spikes(path, spikes, layout.areas)
    candidates = 0
    if facts["candidates"]:
        columns = _listed(observed["candidates"], samples.burst)
        candidates = columns["burst"].size
        path = folders.chunk_path(folder, folders.CANDIDATES, first)
        tables.write_candidates(path, columns)
    for name, grid in grids.items():
        grid.write(first - facts["first_burst"], observed[name])
    folders.write_chunk(folder, folders.Chunk(first, last, len(spikes), candidates))


def _listed(candidates, bursts):
    """A row for each candidate."""
    counts, neurons = candidates["count"], candidates["neuron"]
    is_used = np.arange(neurons.shape[1]) < counts[:, None]
    return {
        "burst": np.repeat(bursts, counts),
        "neuron": neurons[is_used],
        "input": candidates["input"][is_used],
    }


def _cut(drive, start, size):
    return jax.tree.map(lambda leaf: leaf[start : start + size], drive)


def _check_network(config, state, layout):
    n = config.num_neurons
    shape = state.candidates.shape
    require(shape == (n,), "shape of candidates of state", f"({n},), one network", shape)
    require(layout.num_neurons == n, "neurons of layout", n, layout.num_neurons)
    same = layout.areas == config.area_names
    require(same, "areas of layout", config.area_names, layout.areas)


def _check_end(folder, facts, present):
    whole = folders.chunks(folder)
    end = whole[-1].last if whole else facts["first_burst"] - 1
    rule = f"where the recording ends, {end}; see rewind"
    require(present == end, "burst of the state", rule, present)


def _count_bursts(drive, num_bursts, state):
    shape = np.shape(drive.fatigued)
    axes = 0 if num_bursts is not None else 1
    require(len(shape) == axes, "leading axes of drive", axes, shape)
    length = shape[0] if num_bursts is None else num_bursts
    require(length >= 1, "bursts", "at least 1", length)
    last = int(state.burst) + length
    require(last < 2**32, "number of the last burst", "below 2**32", last)
    return length


def _count_synapses(synapses):
    plastic = synapses.plastic
    made = 0 if plastic is None else int((np.asarray(plastic.origin) >= 0).sum())
    return int(synapses.fixed.indices.size) + made
