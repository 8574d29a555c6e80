"""Run the burst engine and write what it does, chunk by chunk."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from brainjax import burst
from brainjax.connectomes.tables import arrow
from brainjax.recording import folder as folders, tables
from brainjax.recording.grids import open_grid
from brainjax.recording.network import check_network, check_recorded
from brainjax.recording.quantities import Observer, most_seen
from brainjax.simulation import simulate
from brainjax.validation import require

# Room for spikes and candidates at first; it grows where that is not enough.
_LEAST_ROOM, _SHARE_OF_NEURONS = 256, 64


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
    Nothing on disk changes before the first chunk has run.

    A recording holds no state. To continue in another process, save the state that is returned
    with `brainjax.checkpoint`. With `rewind`, it must be the state of a recorded chunk's end.

    Args:
        folder: of the recording, by `create`; what is there already is continued.
        config: of the network, the one that the folder was made for; the backend may differ.
        params: of the network. Its power and its neurons' areas must be those of the recording.
            The rest may change between calls, as thresholds and synapses do, and is not recorded.
        state: of one network, where the recording ends; not donated.
        drive: of each burst along a leading axis, or with `num_bursts` of all.
        layout: of its neurons, the one that the folder was made for.
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
        most twice as many as a burst has needed. Each call reads the layout and a small file for
        every chunk that is recorded, so that few long calls are cheaper than many short ones. Room
        is as the recorded chunks needed it, so that a chunk runs twice only if it needs more.
    Determinism: the files hold the same numbers on every platform, as far as the step does.
    """
    arrow()
    folder = Path(folder)
    facts, chunks = folders.contents(folder)
    check_network(config, params, state, layout)
    check_recorded(folder, facts, config, params, layout)
    begin = int(state.burst)
    length = _count_bursts(drive, num_bursts, begin)
    _check_end(facts, chunks, begin, rewind)
    grids = {name: open_grid(folder, name, config.num_neurons) for name in facts["quantities"]}

    observer = _observer(facts, chunks)
    for start in range(0, length, facts["chunk_bursts"]):
        size = min(facts["chunk_bursts"], length - start)
        now = drive if num_bursts is not None else _cut(drive, start, size)
        repeats = None if num_bursts is None else size
        state, observed, observer = _advance(config, params, state, now, repeats, observer)
        if start == 0:
            _remove_after(folder, facts, grids, begin)
        _write(folder, facts, grids, layout, observed)
    return state


def _observer(facts, chunks):
    """One with room for what was seen so far."""
    neurons = facts["neurons"]
    room = min(neurons, max(_LEAST_ROOM, neurons // _SHARE_OF_NEURONS))
    observer = Observer(tuple(facts["quantities"]), room, room if facts["candidates"] else None)
    spikes = max((chunk.most_spikes for chunk in chunks), default=0)
    candidates = max((chunk.most_candidates for chunk in chunks), default=0)
    return observer.grown(spikes, candidates, neurons)


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
        larger = observer.grown(*most_seen(observed), config.num_neurons)
        if larger == observer:
            return after, observed, observer
        observer = larger


def _remove_after(folder, facts, grids, burst):
    """Remove what is rewound, or what a killed process left of a chunk."""
    folders.remove_after(folder, burst)
    for grid in grids.values():
        grid.trim(burst + 1 - facts["first_burst"])


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
    chunk = folders.Chunk(first, last, len(spikes), candidates, *most_seen(observed))
    folders.write_chunk(folder, chunk)


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


def _check_end(facts, chunks, present, rewind):
    ends = [facts["first_burst"] - 1, *(chunk.last for chunk in chunks)]
    if rewind:
        rule = f"at the end of a recorded chunk, such as {ends[-3:]}"
        require(present in ends, "burst of the state", rule, present)
    else:
        rule = f"where the recording ends, {ends[-1]}; see rewind"
        require(present == ends[-1], "burst of the state", rule, present)


def _count_bursts(drive, num_bursts, begin):
    shape = np.shape(drive.fatigued)
    axes = 0 if num_bursts is not None else 1
    require(len(shape) == axes, "leading axes of drive", axes, shape)
    length = num_bursts
    if length is None:
        length = shape[0]
        leaves = jax.tree_util.tree_leaves_with_path(drive)
        lengths = {jax.tree_util.keystr(path): np.shape(leaf)[:1] for path, leaf in leaves}
        same = set(lengths.values()) == {(length,)}
        require(same, "bursts of the leaves of drive", "as many for each", lengths)
    require(length >= 1, "bursts", "at least 1", length)
    last = begin + length
    require(last < 2**32, "number of the last burst", "below 2**32", last)
    return length
