"""Injection and readout by coordinates, against plain loops over the neurons."""

import functools
import math

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same_bits, at, stacked
from hypothesis import strategies as st

from brainjax import burst, connectomes, experiment, ops, simulation

AREAS = ("eye", "arm", "core")
SIZE = 40


def draw_layout(seed):
    """Neurons of two areas in random order, up to several a voxel, some of them unreachable."""
    rng = np.random.default_rng(seed)
    area = np.append(rng.integers(0, 2, SIZE - 1), 2)
    position = np.append(rng.integers(0, (3, 2, 2), (SIZE - 1, 3)), [[0, 0, 0]], axis=0)
    return burst.Layout(AREAS, area, position, rng.random(SIZE) < 0.9)


def plain_layout():
    """Two areas as a genome grows them: x outermost, two neurons in each voxel of the first."""
    eye = [(x, y, z) for x in range(3) for y in range(2) for z in range(2) for _ in range(2)]
    arm = [(x, 0, 0) for x in range(SIZE - len(eye))]
    return burst.Layout(AREAS[:2], [0] * len(eye) + [1] * len(arm), eye + arm)


@functools.cache
def network(layout, **config):
    """Neurons that fire at 1, in a ring of weak synapses."""
    areas = [burst.Area(name, uniform=True) for name in layout.areas]
    config = burst.Config(num_neurons=SIZE, areas=areas, **config)
    cells = burst.populate(config, layout.area, leak=0.5)
    ids = np.arange(SIZE)
    synapses = burst.connect(config, cells, ids, (ids + 1) % SIZE, 0.25, 1.0)
    params = burst.Params(neurons=cells, synapses=synapses)
    return config, params, burst.init(config, params, jax.random.key(0))


def neurons_at(layout, area, voxel):
    """Ids by a loop over all neurons."""
    return [
        i
        for i in range(layout.num_neurons)
        if layout.areas[layout.area[i]] == area
        and tuple(layout.position[i].tolist()) == tuple(voxel)
    ]


def reached_at(layout, area, voxel):
    """Those that an injection reaches."""
    return [i for i in neurons_at(layout, area, voxel) if layout.is_reachable[i]]


def injected(drive):
    """(id, potential) as the drive lists them."""
    count = int(drive.injected.count)
    ids, potentials = drive.injected.indices[:count], drive.injected.values[:count]
    return list(zip(np.asarray(ids).tolist(), np.asarray(potentials).tolist(), strict=True))


PLAIN = plain_layout()
each_layout = pytest.mark.parametrize(
    "layout", [draw_layout(0), draw_layout(1), PLAIN], ids=["drawn", "other", "plain"]
)
seeds = st.integers(0, 2**32 - 1)


# --- Injection ------------------------------------------------------------------------------------


@each_layout
@hypothesis.given(seed=seeds)
def test_all_neurons_of_a_voxel_receive_what_is_injected_there(layout, seed):
    rng = np.random.default_rng(seed)
    config = network(layout)[0]
    wanted, injections = [], []
    for area in rng.choice(AREAS[:2], 3):
        block = layout.block(str(area))
        voxels = block.voxels()[block.is_reachable][rng.integers(0, 8, 5)]
        potentials = rng.standard_normal(5).astype(np.float32)
        injections.append((str(area), voxels, potentials))
        for voxel, potential in zip(voxels.tolist(), potentials.tolist(), strict=True):
            wanted += [(i, potential) for i in reached_at(layout, area, voxel)]
    drive = layout.drive(config, injections, capacity=99)
    # The order given counts where a neuron is named again.
    assert injected(drive) == sorted(wanted, key=lambda entry: entry[0])
    assert drive.injected.indices.shape == (99,)


@each_layout
@pytest.mark.parametrize("keep_zeros", [False, True])
def test_frames_inject_what_lists_inject(layout, keep_zeros):
    rng = np.random.default_rng(5)
    config = network(layout)[0]
    eye, arm = (layout.block(name) for name in AREAS[:2])
    seen = rng.integers(-1, 3, eye.shape[:3]).astype(np.float32)
    own = rng.integers(-1, 3, arm.shape)  # one number for each neuron of a voxel
    inject = functools.partial(layout.drive_frames, config, keep_zeros=keep_zeros, fatigued=True)
    drive = jax.jit(inject)({"arm": own, "eye": seen})

    wanted = []
    for voxel in np.ndindex(*seen.shape):
        wanted += [(i, float(seen[voxel])) for i in reached_at(layout, "eye", voxel)]
    for voxel in np.ndindex(*own.shape[:3]):
        here = list(enumerate(neurons_at(layout, "arm", voxel)))
        wanted += [(i, float(own[(*voxel, k)])) for k, i in here if layout.is_reachable[i]]
    wanted = sorted(entry for entry in wanted if keep_zeros or entry[1])
    assert injected(drive) == wanted
    assert bool(drive.fatigued)
    # The padding is that of `Config.drive`.
    ids, potentials = zip(*wanted)
    size = drive.injected.indices.size
    assert_same_bits(drive, config.drive(ids, potentials, capacity=size, fatigued=True))


def test_frames_are_injected_in_a_batch():
    layout, config = PLAIN, network(PLAIN)[0]
    frames = jnp.asarray(np.random.default_rng(0).integers(0, 2, (4, 3, 2, 2)), jnp.float32)
    drives = jax.vmap(lambda frame: layout.drive_frames(config, {"eye": frame}))(frames)
    for number in range(4):
        assert_same_bits(at(drives, number), layout.drive_frames(config, {"eye": frames[number]}))


@pytest.mark.parametrize("number", [3_000_000_000, -(2**40), 2.0**40, 7])
def test_frames_of_large_numbers_are_injected(number):
    frame = np.zeros((3, 2, 2), type(number))
    frame[0, 0, 1] = number
    drive = PLAIN.drive_frames(network(PLAIN)[0], {"eye": frame})
    assert injected(drive) == [(2, float(number)), (3, float(number))]


@pytest.mark.parametrize("potentials", [1.0, []])
def test_nothing_may_be_seen(potentials):
    config = network(PLAIN)[0]
    for voxels in ([], np.zeros((0, 3))):
        drive = PLAIN.drive(config, [("eye", voxels, potentials)])
        assert_same_bits(drive, config.drive())
    assert PLAIN.find("eye", [])[0].size == 0
    with pytest.raises(ValueError, match=r"potentials of area 'eye' must be \(\) or \(0,\); got"):
        PLAIN.drive(config, [("eye", [], [1.0])])


def test_zeros_of_a_list_are_kept_unless_told_otherwise():
    layout = PLAIN
    config = network(layout)[0]
    entries = [("arm", [[0, 0, 0], [1, 0, 0]], [0, 2])]
    assert injected(layout.drive(config, entries)) == [(24, 0), (25, 2)]
    assert injected(layout.drive(config, entries, keep_zeros=False)) == [(25, 2)]
    assert injected(layout.drive(config, [])) == []


def test_bursts_are_stacked():
    layout = PLAIN
    config = network(layout)[0]
    bursts = [[("eye", [[0, 0, 0]], 3)], [], [("eye", [[0, 0, 1]], 1), ("arm", [[2, 0, 0]], 2)]]
    drives = layout.drives(config, bursts)
    for number, entries in enumerate(bursts):
        assert_same_bits(at(drives, number), layout.drive(config, entries, capacity=3))
    tired = layout.drives(config, bursts, fatigued=[False, True, False])
    assert tired.fatigued.tolist() == [False, True, False]
    assert_same_bits(tired.injected, drives.injected)
    assert layout.drives(config, bursts, fatigued=True).fatigued.all()


def test_unknown_voxels_are_named():
    layout = PLAIN
    config = network(layout)[0]
    entries = [("arm", [[0, 0, 0], [16, 0, 0], [0, -1, 0], [1, 0, 0]], [1, 2, 3, 4])]
    with pytest.raises(ValueError, match=r"area 'arm' must be where.*got \(16, 0, 0\) and 1 more"):
        layout.drive(config, entries)
    with pytest.warns(UserWarning, match=r"area 'arm' has no neurons at \(16, 0, 0\) and 1 more"):
        warned = layout.drive(config, entries, on_unknown="warn")
    assert injected(warned) == [(24, 1), (25, 4)]
    assert_same_bits(layout.drive(config, entries, on_unknown="ignore"), warned)


def test_unreachable_neurons_are_not_found():
    layout = burst.Layout(("a",), [0, 0, 0], [[0, 0, 0]] * 2 + [[1, 0, 0]], [True, False, False])
    assert layout.find("a", [[0, 0, 0]])[0].tolist() == [0]
    assert layout.block("a").shape == (2, 1, 1, 2)
    with pytest.raises(ValueError, match=r"\(1, 0, 0\)"):
        layout.find("a", [[1, 0, 0]])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (("leg", [[0, 0, 0]], 1), "area must be one of 'eye', 'arm'; got 'leg'"),
        (("arm", [[0, 0]], 1), r"voxels of area 'arm' must be \[voxels, 3\]; got \(1, 2\)"),
        (("arm", [0, 0, 0], 1), r"voxels of area 'arm' must be \[voxels, 3\]; got \(3,\)"),
        (("arm", [[0.5, 0, 0]], 1), "voxels of area 'arm' must be whole numbers"),
        (("arm", [[0, 0, 0]], math.nan), r"potentials of area 'arm' must be finite; got \[nan\]"),
        (("arm", [[0, 0, 0]], [1, 2]), r"potentials of area 'arm' must be \(\) or \(1,\)"),
    ],
)
def test_wrong_injections_are_refused(entry, message):
    layout = PLAIN
    with pytest.raises(ValueError, match=message):
        layout.drive(network(layout)[0], [entry])


def test_a_layout_of_another_network_is_refused():
    layout = burst.Layout(AREAS, [0, 1], [[0, 0, 0]] * 2)
    config, _, state = network(PLAIN)
    with pytest.raises(ValueError, match="that of the layout, 2; got 40"):
        layout.drive(config, [("eye", [[0, 0, 0]], 1)])
    with pytest.raises(ValueError, match="that of the layout, 2; got 40"):
        layout.drive_frames(config, {"eye": np.zeros((1, 1, 1))})
    with pytest.raises(ValueError, match="neurons of state must be 2"):
        burst.fired(state, layout)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((AREAS, [0, 3], [[0, 0, 0]] * 2), r"area must be whole numbers in 0\.\.2; got \[3\]"),
        ((AREAS, [0], [[0, 0, -1]]), "position must be whole numbers"),
        ((AREAS, [False], [[0, 0, 0]]), "area must be whole numbers; got bool"),
        ((AREAS, [[0, 1]], [[0, 0, 0]] * 2), r"shape of area must be .*; got \(1, 2\)"),
        ((AREAS, [], np.zeros((0, 3))), r"shape of area must be \[neurons\], 1 .*; got \(0,\)"),
        ((AREAS, [0], [[0, 0]]), r"shape of position must be \(1, 3\)"),
        ((AREAS, [0], [[0, 0, 0]], [True, True]), "shape of is_reachable"),
        ((("a", "a"), [0], [[0, 0, 0]]), "names of areas must be distinct"),
    ],
)
def test_wrong_layouts_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        burst.Layout(*arguments)


def test_wrong_frames_are_refused():
    layout = burst.Layout(AREAS, [0, 0], [[0, 0, 0], [70_000, 70_000, 0]])
    with pytest.raises(ValueError, match=r"places of area 'eye' must be below 2\*\*31"):
        layout.block("eye").spread(np.zeros((1, 1, 1)))
    assert layout.find("eye", [[70_000, 70_000, 0]])[0].tolist() == [1]
    with pytest.raises(ValueError, match="neurons of area 'arm' must be at least one"):
        layout.block("arm")
    with pytest.raises(ValueError, match=r"frame of area 'arm' must be \(16, 1, 1\) or"):
        PLAIN.drive_frames(network(PLAIN)[0], {"arm": jnp.zeros((1, 16, 1))})


# --- Readout --------------------------------------------------------------------------------------


@functools.cache
def run(layout):
    """The states of a run with random injections, burst by burst."""
    config, params, state = network(layout, ledger_window=40)
    rng, states = np.random.default_rng(3), []
    advance = jax.jit(functools.partial(burst.step, config, params))
    for _ in range(12):
        ids = rng.choice(SIZE, 9, replace=False)
        state = advance(state, config.drive(ids, rng.random(9) + 0.5))
        states.append(state)
    return states


def fired_now(state):
    """Id to potential."""
    count = int(state.fired.count)
    ids, potentials = state.fired.indices[:count], state.fired.values[:count]
    return dict(zip(np.asarray(ids).tolist(), np.asarray(potentials).tolist(), strict=True))


@each_layout
def test_who_fired_comes_with_its_coordinates(layout):
    total = 0
    for number, state in enumerate(run(layout), start=1):
        now = fired_now(state)
        for area in (None, "eye", "arm"):
            table = burst.fired(state, layout, area)
            own = [i for i in now if area is None or layout.areas[layout.area[i]] == area]
            assert table.neuron.tolist() == own
            assert table.potential.tolist() == [now[i] for i in own]
            assert table.position.tolist() == [layout.position[i].tolist() for i in own]
            assert table.area.tolist() == [layout.area[i] for i in own]
            assert set(table.burst.tolist()) <= {number}
            total += len(table)
    assert total > 50


@each_layout
def test_an_area_is_read_as_a_block(layout):
    states = run(layout)[:4]
    for name in AREAS[:2]:
        block = layout.block(name)
        read = jax.jit(functools.partial(burst.read, block=block))
        for state in states:
            now, potential = fired_now(state), np.asarray(state.membranes.potential)
            fires, potentials = map(np.asarray, read(state))
            view = np.asarray(block.view(state.membranes.potential))
            assert fires.shape == potentials.shape == view.shape == block.shape
            seen = 0
            for voxel in np.ndindex(*block.shape[:3]):
                own = neurons_at(layout, name, voxel)
                for k in range(block.shape[3]):
                    i = own[k] if k < len(own) else None
                    assert fires[(*voxel, k)] == (i in now)
                    assert potentials[(*voxel, k)] == now.get(i, 0)
                    assert view[(*voxel, k)] == (0 if i is None else potential[i])
                    seen += i is not None
            assert seen == block.ids.size


@pytest.mark.parametrize("size", [39, 41])
def test_values_of_another_network_are_refused(size):
    message = rf"area 'arm' is cut out of must be \(40,\).*; got \({size},\)"
    with pytest.raises(ValueError, match=message):
        PLAIN.block("arm").view(jnp.zeros(size))


def test_states_of_another_network_are_refused():
    """One of fewer neurons, though all ids of the block are in range, and a batch outside vmap."""
    block = burst.Layout(AREAS, [0, 1], [[0, 0, 0]] * 2).block("eye")
    sample, state = burst.Sampler(capacity=2, block=block), run(PLAIN)[-1]
    reads = (lambda s: burst.read(s, block), sample, lambda s: burst.window(s.ledger, block, 1))
    for read in reads:
        with pytest.raises(ValueError, match=r"area 'eye' .* must be \(2,\).*; got \(40,\)"):
            read(state)
        with pytest.raises(ValueError, match=r"area 'eye' .* must be \(2,\).*; got \(2, 40\)"):
            read(stacked([state] * 2))
    with pytest.raises(ValueError, match=r"area 'arm' .* must be \(40,\).*; got \(2, 40\)"):
        burst.read(stacked([state] * 2), PLAIN.block("arm"))


def test_the_arrays_of_a_block_do_not_change():
    block = draw_layout(0).block("eye")
    for each in (block.ids, block.place, block.is_reachable):
        with pytest.raises(ValueError, match="read-only"):
            each[0] = 1


def test_a_loop_closes_on_the_device():
    """What the arm does comes back to the eye: in one scan, and burst by burst on the host."""
    layout = PLAIN
    config, params, start = network(layout)
    arm = layout.block("arm")

    def advance(carry, _):
        state, frame = carry
        state = burst.step(config, params, state, layout.drive_frames(config, {"eye": frame}))
        fires, _ = burst.read(state, arm)
        frame = jnp.roll(frame, 1) + fires.sum()
        return (state, frame), fires

    first = jnp.zeros((3, 2, 2)).at[2].set(3.0)
    (state, frame), _ = jax.jit(lambda c: jax.lax.scan(advance, c, length=9))((start, first))

    plain, seen = start, np.asarray(first)
    step = jax.jit(functools.partial(burst.step, config, params))
    for _ in range(9):
        lit = np.argwhere(seen)
        entries = [("eye", lit, seen[tuple(lit.T)])]
        plain = step(plain, layout.drive(config, entries, capacity=24))
        seen = np.roll(seen, 1) + np.float32(len(burst.fired(plain, layout, "arm")))
    assert_same_bits(frame, seen)
    assert_same_bits(state.membranes, plain.membranes)


@each_layout
def test_a_window_of_the_ledger_is_cut_out_of_an_area(layout):
    states = run(layout)[:5]
    for name in AREAS[:2]:
        block = layout.block(name)
        frames = burst.window(states[-1].ledger, block, 3)
        assert frames.shape == (3, *block.shape)
        for frame, state in zip(frames, states[-3:], strict=True):
            assert_same_bits(frame, np.asarray(burst.read(state, block)[0]))
    with pytest.raises(ValueError, match=r"window must be in 0\.\.5, the recorded bursts; got 6"):
        burst.window(states[-1].ledger, block, 6)
    without = network(layout)[2]
    with pytest.raises(ValueError, match="ledger_window of Config must be at least 1"):
        burst.window(without.ledger, block, 1)


# --- Samples --------------------------------------------------------------------------------------


@each_layout
@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("area", [None, "eye", "arm"])
def test_samples_are_the_tables_of_their_bursts(layout, every, area):
    block = None if area is None else layout.block(area)
    sample = jax.jit(burst.Sampler(capacity=SIZE, block=block, every=every))
    table = burst.spikes(stacked([sample(state) for state in run(layout)]), layout)
    wanted = []
    for number, state in enumerate(run(layout), start=1):
        if number % every == 0:
            own = burst.fired(state, layout, area)
            places = own.position.tolist()
            wanted += zip([number] * len(own), own.neuron.tolist(), places, own.potential.tolist())
    columns = table.burst, table.neuron, table.position, table.potential
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == wanted
    assert len(wanted) > 5


def test_a_simulation_samples_what_fires_and_says_what_does_not_fit():
    layout = PLAIN
    config, params, state = network(layout)
    drives = layout.drives(config, [[("eye", [[x, 0, 0]] * 2, 1)] for x in (0, 1, 2, 0, 1)])
    samples = simulation.simulate(
        burst.step,
        config,
        params,
        jax.tree.map(jnp.copy, state),
        drives,
        record=burst.Sampler(capacity=2),
        chunk_steps=3,
    )[1]
    table = burst.spikes(samples, layout)
    assert table.burst.tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert table.neuron.tolist() == [0, 1, 8, 9, 16, 17, 0, 1, 8, 9]

    fewer = jax.tree.map(np.array, samples)
    fewer = fewer.replace(neurons=fewer.neurons[:, :1], potentials=fewer.potentials[:, :1])
    with pytest.raises(ValueError, match="in burst 1 must be at least 2, who fired; got 1"):
        burst.spikes(fewer, layout)


@each_layout
def test_a_batch_of_networks_is_read_one_by_one(layout):
    states, block = run(layout)[:4], layout.block("arm")
    sample = burst.Sampler(capacity=SIZE, block=block)

    def both(state):
        return burst.read(state, block), sample(state)

    batch = jax.jit(jax.vmap(both))(stacked(states))
    for number, state in enumerate(states):
        assert_same_bits(at(batch, number), jax.jit(both)(state))


def test_equal_samplers_compile_once():
    layout = PLAIN
    one, other = (burst.Sampler(3, layout.block("arm"), 2) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    with pytest.raises(ValueError, match="every must be at least 1; got 0"):
        burst.Sampler(3, every=0)


def test_the_layout_of_a_network_has_its_areas_and_ids():
    table = connectomes.neurons(
        threshold=np.ones(4),
        area=[7, 2, 7, 7],
        position=[[0, 0, 0], [1, 2, 3], [0, 0, 0], [1, 0, 0]],
    )
    nothing = [np.zeros(0)] * 4
    made = connectomes.Network(
        neurons=table,
        synapses=connectomes.synapses(*nothing),
        areas=(connectomes.Area(2, "YzAwMDAwMDE="), connectomes.Area(7, "YzAwMDAwMDI=")),
    )
    layout, (config, _) = connectomes.layout(made), connectomes.to_burst(made)
    assert layout.areas == config.area_names
    assert layout.find("YzAwMDAwMDI=", [[1, 0, 0], [0, 0, 0]])[0].tolist() == [3, 0, 2]
    assert layout.block("YzAwMDAwMDE=").shape == (2, 3, 4, 1)


# --- Experiments that read who fired --------------------------------------------------------------


def test_a_run_of_a_genome_compares_who_fired(monkeypatch):
    """Brains with as many spikes in every area and burst, but one not of the same neurons."""
    module = experiment.load("experiments", "genome_run")

    def fired(moved, settings, config, params, drives, measured):
        measured.run_seconds = 1.0
        flags = np.ones((settings.bursts, settings.brains, config.num_neurons), bool)
        area = np.asarray(params.neurons.spread().area)
        first, *_, last = np.flatnonzero(area == np.bincount(area).argmax())
        flags[:, :, first] = False
        flags[3, 1, first], flags[3, 1, last] = moved, not moved
        return flags

    monkeypatch.setattr(module, "_fired", functools.partial(fired, False))
    module.check(module.run(module.SMOKE))
    monkeypatch.setattr(module, "_fired", functools.partial(fired, True))
    with pytest.raises(AssertionError, match="the same spikes in every brain"):
        module.check(module.run(module.SMOKE))


def test_a_replay_observes_who_is_counted():
    state = run(PLAIN)[-1]
    fired = ops.ActiveSet(jnp.arange(SIZE), jnp.ones(SIZE), jnp.int32(2))
    observed = experiment.load("experiments", "burst_replay")._observed(state.replace(fired=fired))
    assert np.flatnonzero(observed["fired"]).tolist() == [0, 1]
    assert np.flatnonzero(observed["fired_mp"]).tolist() == [0, 1]
