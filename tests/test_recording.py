"""Recorded runs, against the states of the same run kept in memory."""

import dataclasses
import functools
import json
import os
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same_bits

from brainjax import burst, checkpoint, recording
from brainjax.recording import creation, grids, recorder

SIZE, BURSTS = 1_000, 23
QUANTITIES = {
    "potential": lambda state: state.membranes.potential,
    "countdown": lambda state: state.membranes.countdown,
    "fire_count": lambda state: state.membranes.fire_count,
    "input": lambda state: state.inputs,
    "fires": burst.fires,
    "is_candidate": lambda state: state.candidates,
}


@functools.cache
def brain():
    """A network in which from few to many neurons fire, and what is injected."""
    rng = np.random.default_rng(0)
    area = np.sort(rng.integers(0, 3, SIZE))
    layout = burst.Layout(("a", "b", "c"), area, rng.integers(0, 9, (SIZE, 3)))
    areas = [burst.Area(name, uniform=True) for name in layout.areas]
    config = burst.Config(num_neurons=SIZE, areas=areas, power_neuron=7, keeps_inputs=True)
    cells = burst.populate(config, area, leak=0.25, refractory_period=1, fire_limit=3)
    pre, post = rng.integers(0, SIZE, (2, 3_000))
    synapses = burst.connect(config, cells, pre, post, 0.25, 1.0, rng.random(3_000) < 0.3)
    params = burst.Params(neurons=cells, synapses=synapses, power=0.5)
    state = burst.init(config, params, jax.random.key(11))
    counts = [3, 500, *rng.integers(0, 60, BURSTS - 2)]
    ids = [rng.choice(SIZE, count, replace=False) for count in counts]
    drives = config.drives(ids, [rng.random(each.size) + 0.6 for each in ids])
    return config, params, state, drives, layout


@functools.cache
def states():
    """The states of the run, burst by burst."""
    config, params, state, drives, _ = brain()
    step, kept = jax.jit(functools.partial(burst.step, config, params)), []
    for number in range(BURSTS):
        state = step(state, jax.tree.map(lambda leaf: leaf[number], drives))  # noqa: B023
        kept.append(state)
    return kept


def part(drives, start, stop):
    return jax.tree.map(lambda leaf: leaf[start:stop], drives)


def create(folder, **options):
    config, params, state, _, layout = brain()
    recording.create(folder, config, params, state, layout, **{"chunk_bursts": 10, **options})
    return folder


def run(folder, start=0, stop=BURSTS, state=None, **options):
    config, params, first, drives, layout = brain()
    state = first if state is None else state
    drives = part(drives, start, stop)
    return recording.record(folder, config, params, state, drives, layout, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A recording of everything, in one call, and its last state."""
    folder = tmp_path_factory.mktemp("recordings") / "whole"
    create(folder, quantities=tuple(QUANTITIES), candidates=True, note="all of it")
    return folder, run(folder)


def assert_same_recording(folder, other):
    one, two = recording.read(folder), recording.read(other)
    assert (one.first, one.last, one.num_spikes) == (two.first, two.last, two.num_spikes)
    assert_same_bits(vars(one.spikes()), vars(two.spikes()))
    for name in one.facts["quantities"]:
        assert_same_bits(one.quantity(name), two.quantity(name))


# --- What is written is what happened -------------------------------------------------------------


def test_every_spike_is_there_with_its_coordinates(whole):
    layout, table = brain()[4], recording.read(whole[0]).spikes()
    wanted = [burst.fired(state, layout) for state in states()]
    for column in vars(table):
        assert_same_bits(
            getattr(table, column), np.concatenate([getattr(each, column) for each in wanted])
        )
    # More fired at once than there was room for at first, so that a chunk ran again.
    counts = [int(state.fired.count) for state in states()]
    assert max(counts) > recorder._LEAST_ROOM > min(counts)
    assert recording.read(whole[0]).num_spikes == sum(counts) == len(table)


@pytest.mark.parametrize("name", QUANTITIES)
def test_every_quantity_has_its_bits(whole, name):
    rows = recording.read(whole[0]).quantity(name)
    assert_same_bits(rows, np.stack([np.asarray(QUANTITIES[name](state)) for state in states()]))


def test_every_candidate_is_there_with_its_input(whole):
    columns = recording.read(whole[0]).candidates()
    wanted = {"burst": [], "neuron": [], "input": []}
    for number, state in enumerate(states(), start=1):
        inputs = np.asarray(state.inputs).tolist()
        for neuron in np.flatnonzero(state.candidates).tolist():
            for name, value in zip(wanted, (number, neuron, inputs[neuron]), strict=True):
                wanted[name].append(value)
    assert {name: column.tolist() for name, column in columns.items()} == wanted


def test_the_state_is_that_of_an_unrecorded_run(whole):
    assert_same_bits(whole[1], states()[-1])


def test_ranges_cross_chunks(whole):
    read = recording.read(whole[0])
    table, columns = read.spikes(9, 11), read.candidates(9, 11)
    everything = read.spikes()
    rows = (everything.burst >= 9) & (everything.burst <= 11)
    assert_same_bits(vars(table), vars(everything[rows]))
    assert set(columns["burst"].tolist()) == {9, 10, 11}
    assert_same_bits(read.quantity("potential", 9, 11), read.quantity("potential")[8:11])
    assert len(read.spikes(4, 3)) == 0
    with pytest.raises(ValueError, match=r"within the recorded 1\.\.23; got 0\.\.3"):
        read.spikes(0, 3)


def test_the_facts_say_what_ran(whole):
    facts = recording.read(whole[0]).facts
    config, _, state, _, _ = brain()
    assert facts["config"] == json.loads(json.dumps(checkpoint.describe(config)))
    assert facts["key"] == jax.random.key_data(state.key).tolist()
    assert (facts["power"], facts["note"]) == (0.5, "all of it")
    assert (facts["neurons"], facts["synapses"]) == (SIZE, 3_000)
    assert facts["environment"].keys() >= {"brainjax", "jax", "device"}


def test_tables_open_without_this_library(whole):
    from pyarrow import parquet

    table = parquet.read_table(whole[0] / "spikes")
    assert table.num_rows == recording.read(whole[0]).num_spikes
    assert set(table["area"].to_pylist()) == {"a", "b", "c"}


def test_the_layout_is_part_of_the_recording(whole):
    from pyarrow import parquet

    layout = brain()[4]
    columns = recording.read(whole[0]).neurons()
    assert_same_bits(columns, {"area": layout.area, "position": layout.position})
    table = parquet.read_table(whole[0] / "neurons.parquet").to_pydict()
    assert table["neuron"] == list(range(SIZE))
    assert table["area"] == [layout.areas[place] for place in layout.area]
    assert np.array_equal(np.stack([table[axis] for axis in "xyz"], axis=-1), layout.position)


def test_a_constant_drive_is_repeated(tmp_path):
    config, params, state, _, layout = brain()
    create(tmp_path / "run", chunk_bursts=4)
    drive = config.drive([1, 2], [3.0, 4.0])
    end = recording.record(tmp_path / "run", config, params, state, drive, layout, num_bursts=5)
    step = jax.jit(functools.partial(burst.step, config, params))
    for _ in range(5):
        state = step(state, drive)
    assert_same_bits(end, state)
    assert [chunk.last for chunk in recording.read(tmp_path / "run").chunks] == [4, 5]


# --- Going on, and what a crash leaves ------------------------------------------------------------


@pytest.fixture
def halved(tmp_path, whole):
    """A recording of the first 10 bursts, and its last state."""
    create(tmp_path / "run", quantities=tuple(QUANTITIES), candidates=True)
    return tmp_path / "run", run(tmp_path / "run", stop=10)


def test_a_recording_goes_on(halved, whole):
    folder, state = halved
    run(folder, 10, BURSTS, state=state)
    assert_same_recording(folder, whole[0])


def crash_after(monkeypatch, owner, name, calls):
    """Let a function raise from a call on."""
    original, left = getattr(owner, name), [calls]

    def wrapped(*arguments):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(owner, name, wrapped)


@pytest.mark.parametrize(
    ("owner", "name", "calls"),
    [
        (recorder.tables, "write_spikes", 1),
        (recorder.tables, "write_candidates", 1),
        (grids.Grid, "write", 8),
        (recorder.folders, "write_chunk", 1),
        (recorder.folders.os, "replace", 4),  # between the two tables of the second chunk
    ],
)
def test_a_crash_leaves_whole_chunks_that_can_be_continued(
    tmp_path, whole, monkeypatch, owner, name, calls
):
    folder = create(tmp_path / "run", quantities=tuple(QUANTITIES), candidates=True)
    with monkeypatch.context() as patch:
        crash_after(patch, owner, name, calls)
        with pytest.raises(KeyboardInterrupt):
            run(folder)
    left, complete = recording.read(folder), recording.read(whole[0])
    assert (left.last, left.num_spikes) == (10, len(complete.spikes(1, 10)))
    assert_same_bits(vars(left.spikes()), vars(complete.spikes(1, 10)))
    assert_same_bits(left.quantity("fires"), complete.quantity("fires", 1, 10))
    run(folder, 10, BURSTS, state=states()[9])
    assert_same_recording(folder, whole[0])


def test_a_run_rewinds_to_a_checkpoint_only_if_told(tmp_path, whole):
    folder = tmp_path / "run"
    shutil.copytree(whole[0], folder)
    with pytest.raises(ValueError, match="where the recording ends, 23; see rewind; got 10"):
        run(folder, 10, BURSTS, state=states()[9])
    with pytest.raises(ValueError, match=r"end of a recorded chunk.*\[10, 20, 23\]; got 5"):
        run(folder, 5, BURSTS, state=states()[4], rewind=True)
    assert_same_recording(folder, whole[0])
    run(folder, 10, 12, state=states()[9], rewind=True)
    assert recording.read(folder).last == 12
    run(folder, 0, BURSTS, rewind=True)
    assert_same_recording(folder, whole[0])


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def interrupted(*_, **__):
    raise KeyboardInterrupt


def test_a_rewind_that_cannot_run_removes_nothing(tmp_path, whole, monkeypatch):
    config, params, _, drives, layout = brain()
    folder, state = tmp_path / "run", states()[9]
    shutil.copytree(whole[0], folder)
    before = contents(folder)
    ragged = dataclasses.replace(drives, injected=part(drives.injected, 0, 5))
    with pytest.raises(ValueError, match="bursts of the leaves of drive"):
        recording.record(folder, config, params, state, ragged, layout, rewind=True)
    with monkeypatch.context() as patch:
        patch.setattr(recorder, "simulate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(folder, 10, BURSTS, state=state, rewind=True)
    assert contents(folder) == before
    (folder / "potential" / "zarr.json").unlink()
    before = contents(folder)
    with pytest.raises(ValueError, match="potential"):
        run(folder, 10, BURSTS, state=state, rewind=True)
    assert contents(folder) == before


def seen_by_others(folder):
    """Bursts of the tables and of a Zarr array, read without this library."""
    import tensorstore
    from pyarrow import parquet

    kvstore = {"driver": "file", "path": str(folder / "fires")}
    array = tensorstore.open({"driver": "zarr3", "kvstore": kvstore}).result()
    tables = [parquet.read_table(folder / kind) for kind in ("spikes", "candidates")]
    return [(table.num_rows, max(table["burst"].to_pylist())) for table in tables], array.shape[0]


def test_other_readers_see_no_burst_beyond_the_end(tmp_path, whole, monkeypatch):
    folder = create(tmp_path / "run", quantities=tuple(QUANTITIES), candidates=True)
    with monkeypatch.context() as patch:
        crash_after(patch, recorder.folders, "write_chunk", 1)
        with pytest.raises(KeyboardInterrupt):
            run(folder)
    tables, rows = seen_by_others(folder)
    assert ([last for _, last in tables], rows) == ([20, 20], 20)
    run(folder, 10, 12, state=states()[9])
    complete = recording.read(whole[0])
    spikes, candidates = complete.spikes(1, 12), complete.candidates(1, 12)
    rows = [(len(spikes), 12), (len(candidates["burst"]), 12)]
    assert seen_by_others(folder) == (rows, 12)
    run(folder, 12, BURSTS, state=states()[11])
    run(folder, 10, 12, state=states()[9], rewind=True)
    assert seen_by_others(folder) == (rows, 12)


def test_an_orphan_beyond_the_chunks_that_are_written_goes_too(tmp_path, whole):
    folder = create(tmp_path / "run", candidates=True)
    state = run(folder, 0, 10)
    for kind in ("spikes", "candidates"):
        shutil.copy(whole[0] / kind / "0000000021.parquet", folder / kind)
        (folder / kind / ".0000000031.parquet").touch()  # as a killed process leaves it
        (folder / kind / "0000000099.txt").touch()  # somebody else's
    run(folder, 10, 11, state=state)
    for kind in ("spikes", "candidates"):
        names = {path.name for path in (folder / kind).iterdir()}
        assert names == {"0000000001.parquet", "0000000011.parquet", "0000000099.txt"}


def test_a_call_has_the_room_that_earlier_ones_needed(tmp_path, monkeypatch):
    folder, runs, simulate = create(tmp_path / "run"), [], recorder.simulate

    def counted(*arguments, **options):
        runs.append(options["record"].spikes)
        return simulate(*arguments, **options)

    monkeypatch.setattr(recorder, "simulate", counted)
    state = run(folder, 0, 10)
    assert len(runs) == 2  # 500 neurons are made to fire, and there is room for 256
    run(folder, 10, 20, state=state)
    assert runs[1:] == [runs[1]] * 2


def test_files_are_on_disk_before_they_have_their_names(tmp_path, monkeypatch):
    synced, named = set(), []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor):
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def noted_replace(source, target):
        assert os.stat(source).st_ino in synced, target
        named.append(target.name)
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    run(create(tmp_path / "run", candidates=True), stop=10)
    tables = ["0000000001.parquet"] * 2
    assert named == ["run.json", "neurons.parquet", *tables, "0000000001.json"]


def test_a_gap_is_refused(halved):
    with pytest.raises(ValueError, match="where the recording ends, 10; see rewind; got 11"):
        run(halved[0], 11, BURSTS, state=states()[10])


# --- What is refused ------------------------------------------------------------------------------


def test_nothing_is_overwritten(tmp_path, whole):
    before = {path: path.read_bytes() for path in whole[0].rglob("*") if path.is_file()}
    with pytest.raises(FileExistsError, match="must not exist"):
        create(whole[0])
    assert before == {path: path.read_bytes() for path in whole[0].rglob("*") if path.is_file()}
    with pytest.raises(FileNotFoundError, match="no recording in"):
        run(tmp_path)
    with pytest.raises(FileNotFoundError, match="no recording in"):
        recording.read(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantities": ("voltage",)}, "quantities must be among potential.*got .'voltage'"),
        ({"quantities": ("input", "input")}, "quantities must be given once"),
        ({"chunk_bursts": 0}, "chunk_bursts must be at least 1; got 0"),
    ],
)
def test_wrong_options_leave_no_folder(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        create(tmp_path / "run", **options)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options",
    [{"quantities": ("fires", "input")}, {"quantities": ("is_candidate",)}, {"candidates": True}],
)
def test_what_the_state_does_not_keep_is_not_recorded(tmp_path, options):
    config, params, state, drives, layout = brain()
    bare = dataclasses.replace(config, keeps_inputs=False)
    start = burst.init(bare, params, jax.random.key(11))
    with pytest.raises(ValueError, match=r"inputs are kept only with Config\(keeps_inputs=True\)"):
        recording.create(tmp_path / "run", bare, params, start, layout, **options)
    with pytest.raises(ValueError, match="inputs of state must be as keeps_inputs of config says"):
        recording.create(tmp_path / "run", bare, params, state, layout)
    assert not any(tmp_path.iterdir())
    recording.create(tmp_path / "run", bare, params, start, layout, quantities=("fires",))
    recording.record(tmp_path / "run", bare, params, start, part(drives, 0, 5), layout)
    assert_same_bits(recording.read(tmp_path / "run").quantity("fires"), fires_of(5))


def fires_of(bursts):
    return np.stack([np.asarray(burst.fires(state)) for state in states()[:bursts]])


def test_a_crash_of_create_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(creation.Grid, "create", interrupted)
    with pytest.raises(KeyboardInterrupt):
        create(tmp_path / "run", quantities=("fires",))
    assert not any(tmp_path.iterdir())


def test_numbers_of_numpy_are_numbers(tmp_path):
    create(tmp_path / "run", chunk_bursts=np.int64(4), candidates=np.bool_(True))
    facts = recording.read(tmp_path / "run").facts
    assert (facts["chunk_bursts"], facts["candidates"]) == (4, True)


def test_a_ragged_drive_is_refused(tmp_path):
    config, params, state, drives, layout = brain()
    folder = create(tmp_path / "run")
    ragged = dataclasses.replace(drives, fatigued=drives.fatigued[:10])
    with pytest.raises(ValueError, match=r"drive must be .*indices': \(23,\).*fatigued': \(10,\)"):
        recording.record(folder, config, params, state, ragged, layout)
    assert recording.read(folder).last == 0


def test_another_layout_is_refused(tmp_path, halved):
    config, params, first, drives, layout = brain()
    folder, state = halved
    moved = burst.Layout(
        layout.areas, layout.area, layout.position + (np.arange(SIZE) == 5)[:, None]
    )
    with pytest.raises(ValueError, match=r"position of layout must be the recorded one.*neuron 5,"):
        recording.record(folder, config, params, state, drives, moved)
    area = layout.area.copy()
    area[7] = 2
    other = burst.Layout(layout.areas, area, layout.position)
    with pytest.raises(ValueError, match=r"area of layout must be that of params.*neuron 7,"):
        recording.record(folder, config, params, state, drives, other)
    with pytest.raises(ValueError, match=r"area of layout must be that of params.*neuron 7,"):
        recording.create(tmp_path / "new", config, params, first, other)
    assert not (tmp_path / "new").exists()
    moved = dataclasses.replace(params.neurons.spread(), area=jnp.asarray(area, jnp.int32))
    both = dataclasses.replace(params, neurons=moved)
    with pytest.raises(ValueError, match=r"area of layout must be the recorded one.*neuron 7,"):
        recording.record(folder, config, both, state, drives, other)


def test_another_power_is_refused_and_the_same_one_is_not(halved):
    config, params, _, drives, layout = brain()
    folder, state = halved
    with pytest.raises(ValueError, match=r"power of params must be 0\.5, as recorded; got 0\.25"):
        recording.record(
            folder, config, dataclasses.replace(params, power=0.25), state, drives, layout
        )
    same = dataclasses.replace(params, power=jnp.float32(0.5))
    recording.record(folder, config, same, state, part(drives, 10, 12), layout)
    assert recording.read(folder).last == 12


def test_another_network_is_refused(halved):
    config, params, _, drives, layout = brain()
    folder, state = halved
    other = dataclasses.replace(config, power_neuron=8)
    with pytest.raises(ValueError, match=r"power_neuron \(saved 7, given 8\)"):
        recording.record(folder, other, params, state, drives, layout)
    renamed = burst.Layout(("a", "b", "d"), layout.area, layout.position)
    with pytest.raises(ValueError, match="areas of layout must be"):
        recording.record(folder, config, params, state, drives, renamed)
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), state)
    with pytest.raises(ValueError, match="one network"):
        recording.record(folder, config, params, many, drives, layout)
    one = part(drives, 0, 1)
    with pytest.raises(ValueError, match="leading axes of drive must be 0"):
        recording.record(folder, config, params, state, one, layout, num_bursts=3)
    with pytest.raises(ValueError, match="leading axes of drive must be 1"):
        recording.record(folder, config, params, state, config.drive(), layout)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install 'brainjax\[data\]'"):
        create(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_is_not_recorded_is_named(tmp_path):
    read = recording.read(create(tmp_path / "run", quantities=("fires",)))
    with pytest.raises(ValueError, match="candidates must be recorded"):
        read.candidates()
    with pytest.raises(
        ValueError, match=r"quantity must be recorded: one of \['fires'\]; got 'input'"
    ):
        read.quantity("input")
    assert (len(read.spikes()), read.quantity("fires").shape, read.last) == (0, (0, SIZE), 0)


def damaged(path, change):
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    "name", ["run.json", "chunks/0000000011.json", "spikes/0000000011.parquet"]
)
@pytest.mark.parametrize(
    "change", [lambda raw: raw[: len(raw) // 2], lambda raw: b"", lambda raw: b"[1]"]
)
def test_damaged_files_are_refused(tmp_path, whole, name, change):
    folder = tmp_path / "run"
    shutil.copytree(whole[0], folder)
    damaged(folder / name, change)
    with pytest.raises(ValueError, match=name):
        recording.read(folder).spikes()


def test_missing_and_foreign_files_are_refused(tmp_path, whole):
    folder = tmp_path / "run"
    shutil.copytree(whole[0], folder)
    second, third = (folder / "spikes" / f"00000000{first}.parquet" for first in (11, 21))
    shutil.copy(third, second)
    with pytest.raises(ValueError, match=r"rows of .*0000000011\.parquet must be"):
        recording.read(folder).spikes()
    second.unlink()
    with pytest.raises(FileNotFoundError, match="0000000011"):
        recording.read(folder).spikes()
    block = next(path for path in (folder / "potential" / "c").rglob("*") if path.is_file())
    block.unlink()
    with pytest.raises(ValueError, match="potential"):
        recording.read(folder).quantity("potential")
    (folder / "chunks" / "0000000011.json").unlink()
    with pytest.raises(ValueError, match="must be burst 11; got 21"):
        recording.read(folder)


def rewritten(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chunk_bursts": 0}, r"chunk_bursts in .*run\.json must be at least 1; got 0"),
        ({"first_burst": -1}, r"first_burst in .*run\.json must be at least 0; got -1"),
        ({"first_burst": 5}, "must be burst 5; got 1"),
        ({"neurons": 0}, r"neurons in .*run\.json must be at least 1; got 0"),
        ({"power": "0.5"}, r"power in .*run\.json must be a number"),
        ({"quantities": ["voltage"]}, r"quantities in .*run\.json must be among potential"),
    ],
)
def test_facts_out_of_range_are_refused(tmp_path, whole, changes, message):
    folder = tmp_path / "run"
    shutil.copytree(whole[0], folder)
    rewritten(folder / "run.json", **changes)
    with pytest.raises(ValueError, match=message):
        recording.read(folder)
    with pytest.raises(ValueError, match=message):
        run(folder, 0, BURSTS, rewind=True)


def test_a_recording_without_its_first_chunk_is_refused(tmp_path, whole):
    folder = tmp_path / "run"
    shutil.copytree(whole[0], folder)
    (folder / "chunks" / "0000000001.json").unlink()
    with pytest.raises(ValueError, match="must be burst 1; got 11"):
        recording.read(folder)
    with pytest.raises(ValueError, match="must be burst 1; got 11"):
        run(folder, 0, BURSTS, rewind=True)


def test_a_table_of_other_neurons_is_refused(tmp_path, whole):
    from pyarrow import parquet

    folder = tmp_path / "run"
    shutil.copytree(whole[0], folder)
    table = parquet.read_table(folder / "neurons.parquet")
    parquet.write_table(table[1:], folder / "neurons.parquet")
    with pytest.raises(ValueError, match=r"neuron in .*neurons\.parquet must be 0\.\.999"):
        recording.read(folder).neurons()
