"""The burst model: FEAGI's recordings bit for bit, and the same engine in plain loops."""

import contextlib
import dataclasses
import functools
import operator

import golden_bursts
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from burst_oracle import Network, PlainEngine
from helpers import (
    BACKENDS,
    assert_same_bits,
    at,
    each_backend,
    each_backend_slowly,
    neurons,
    stacked,
    weight_copies,
)
from hypothesis import strategies as st

from brainjax import burst, checkpoint, metrics, ops, simulation
from brainjax.burst import ledger
from brainjax.ops import burst_dynamics

KEY = jax.random.key(0)
FIELDS = (
    "threshold",
    "threshold_limit",
    "leak",
    "excitability",
    "refractory_period",
    "fire_limit",
    "snooze",
    "accumulates",
)
# The recordings that together hold every feature; what the others add to "auto" is slow.
BROADEST = ("g03_cfc_snooze", "g10_random_1k", "g13_stdp")


def unless_broad(name, *others, fast=False):
    marks = () if fast or name in BROADEST else pytest.mark.slow
    return pytest.param(name, *others, marks=marks)


each_recording = pytest.mark.parametrize(
    "name", [unless_broad(name) for name in golden_bursts.NAMES]
)
each_recording_and_backend = pytest.mark.parametrize(
    ("name", "backend"),
    [
        unless_broad(name, backend, fast=backend == "auto")
        for name in golden_bursts.NAMES
        for backend in BACKENDS
    ],
)
both_semantics = pytest.mark.parametrize("strict", [True, False], ids=["strict", "default"])


# --- From the plain description of a network to the model -----------------------------------------


def config_of(network, *, strict, **changes):
    areas = [
        burst.Area(str(area), *reversed(network.flags.get(area, (None, None))))
        for area in range(int(max([*network.area, *network.flags, 0])) + 1)
    ]
    mappings = [
        burst.Mapping(str(source), str(target), window, bidirectional, strength, inhibitory)
        for source, target, window, _, _, bidirectional, strength, inhibitory in network.mappings
    ]
    tired = None if network.fatigue_area is None else str(network.fatigue_area)
    fields = {"power_neuron": network.power_neuron, "fatigue_area": tired, "keeps_inputs": True}
    return burst.Config(
        num_neurons=len(network.area),
        areas=areas,
        mappings=mappings,
        strict_feagi=strict,
        **fields | changes,
    )


def synapses_of(network, config, population, order=slice(None)):
    columns = ("pre", "post", "weight", "strength", "inhibitory", "delay")
    given = (np.asarray(getattr(network, name))[order] for name in columns)
    return burst.connect(config, population, *given)


def params_of(network, config, order=slice(None)):
    fields = {name: getattr(network, name) for name in FIELDS}
    population = burst.populate(config, network.area, **fields)
    gains = [jnp.asarray([float(m[place]) for m in network.mappings]) for place in (3, 4)]
    return burst.Params(
        neurons=population,
        synapses=synapses_of(network, config, population, order),
        power=jnp.float32(network.power),
        potentiation=gains[0],
        depression=gains[1],
    )


def drives_of(config, injections, capacity=None, fatigued=()):
    capacity = capacity or max(1, *(len(pairs) for pairs in injections))
    return stacked(
        [
            config.drive(
                [neuron for neuron, _ in pairs],
                np.array([amount for _, amount in pairs], np.float32),
                capacity=capacity,
                fatigued=number in fatigued,
            )
            for number, pairs in enumerate(injections)
        ]
    )


def observed(state):
    """What a run records of each burst."""
    return {
        "candidates": state.candidates,
        "inputs": state.inputs,
        "fired": state.fired,
        "potential": state.membranes.potential,
        "countdown": state.membranes.countdown,
        "fire_count": state.membranes.fire_count,
        "weights": state.weights,
        "exists": state.exists,
    }


@functools.cache
def jitted_step(config):
    return jax.jit(functools.partial(burst.step, config))


def run(config, params, drives, start=None):
    """The records of a run, one compiled step after the other, and the last state."""
    state, records = burst.init(config, params, KEY) if start is None else start, []
    for number in range(drives.fatigued.shape[0]):
        state = jitted_step(config)(params, state, at(drives, number))
        records.append(observed(state))
    return stacked(records), state


def scan(config, params, drives, **options):
    state = burst.init(config, params, KEY)
    state, records = simulation.simulate(
        burst.step, config, params, state, drives, record=observed, **options
    )
    return records, state


# --- Recordings ----------------------------------------------------------------------------------


def assert_equals_recording(records, arrays, params):
    for number in range(len(arrays["inj_off"]) - 1):
        listed = slice(*arrays["fcl_off"][number : number + 2])
        ids = np.flatnonzero(records["candidates"][number])
        np.testing.assert_array_equal(ids, arrays["fcl_id"][listed])
        inputs = np.asarray(records["inputs"][number])
        assert_same_bits(inputs[ids], arrays["fcl_p"][listed])
        assert not np.delete(inputs, ids).any()
        listed = slice(*arrays["fired_off"][number : number + 2])
        fired = at(records["fired"], number)
        np.testing.assert_array_equal(neurons(fired), arrays["fired_id"][listed])
        values = np.asarray(fired.values)
        assert_same_bits(values[: int(fired.count)], arrays["fired_mp"][listed])
        assert not values[int(fired.count) :].any()
    assert_same_bits(records["potential"], arrays["mp"])
    assert_same_bits(records["countdown"], arrays["rc"])
    assert_same_bits(records["fire_count"], arrays["cfc"])
    if "w" in arrays:
        weights = burst.weights(params.synapses, records["weights"], arrays["s_w"])
        assert_same_bits(weights, arrays["w"])


def recording(name, **changes):
    arrays = golden_bursts.load(name)
    network = golden_bursts.network_of(arrays)
    config = config_of(network, **{"strict": True, **changes})
    drives = drives_of(config, golden_bursts.injections_of(arrays))
    return arrays, network, config, params_of(network, config), drives


@each_recording_and_backend
def test_recording_in_one_scan(name, backend):
    arrays, _, config, params, drives = recording(name, backend=backend)
    records, _ = scan(config, params, drives)
    assert_equals_recording(records, arrays, params)


@each_recording
def test_recording_burst_by_burst_without_batch_path(name):
    arrays, _, config, params, drives = recording(name, batch_threshold=None)
    records, _ = run(config, params, drives)
    assert_equals_recording(records, arrays, params)


@each_recording
def test_recording_beside_another_brain(name):
    """Two brains of a batch replay the recording; one between them gets injections of its own."""
    arrays, _, config, params, drives = recording(name)
    injected = drives.injected
    other = drives.replace(
        injected=injected.replace(
            indices=jnp.full_like(injected.indices, config.power_neuron),
            values=jnp.full_like(injected.values, -0.75),
            count=jnp.full_like(injected.count, injected.indices.shape[-1]),
        )
    )
    drives = jax.tree.map(lambda *leaves: jnp.stack(leaves, 1), drives, other, drives)
    states = stacked([burst.init(config, params, KEY)] * 3)
    _, records = simulation.simulate(
        burst.step, config, params, states, drives, record=observed, in_axes=(None, 0, 0)
    )
    for brain in (0, 2):
        own = jax.tree.map(lambda leaf, brain=brain: leaf[:, brain], records)
        assert_equals_recording(own, arrays, params)
    assert records["potential"][:, 0].tobytes() != records["potential"][:, 1].tobytes()


@pytest.mark.parametrize("name", golden_bursts.NAMES)
def test_recording_by_the_plain_engine(name):
    """What the other tests compare with reproduces FEAGI itself."""
    arrays = golden_bursts.load(name)
    engine = PlainEngine(golden_bursts.network_of(arrays), strict=True)
    for number, injections in enumerate(golden_bursts.injections_of(arrays)):
        fcl, fired = engine.burst(injections)
        for found, what, amount in ((fcl, "fcl", "fcl_p"), (fired, "fired", "fired_mp")):
            listed = slice(*arrays[f"{what}_off"][number : number + 2])
            assert sorted(found) == arrays[f"{what}_id"][listed].tolist()
            values = np.array([found[neuron] for neuron in sorted(found)], np.float32)
            assert_same_bits(values, arrays[amount][listed])
        assert_same_bits(np.array(engine.mp), arrays["mp"][number])
        np.testing.assert_array_equal(engine.rc, arrays["rc"][number])
        np.testing.assert_array_equal(engine.cfc, arrays["cfc"][number])
        if "w" in arrays:
            weights = [synapse["weight"] for synapse in engine.synapses]
            np.testing.assert_array_equal(weights, arrays["w"][number])


def test_recorded_random_numbers():
    arrays = golden_bursts.load("g00_rng")
    bursts = jnp.asarray(arrays["bursts"].astype(np.uint32))
    drawn = burst.random_number(jnp.asarray(arrays["ids"])[:, None], bursts[None])
    assert_same_bits(drawn, arrays["val"])


# --- Against the plain engine --------------------------------------------------------------------


def assert_equals_engine(config, network, injections, *, strict, fatigued=(), **parts):
    """Run both; return the records and the engine at the end."""
    params = params_of(network, config)
    drives = drives_of(config, injections, capacity=24, fatigued=fatigued)
    records, state = run(config, params, drives)
    engine = PlainEngine(network, strict=strict, **parts)
    for number, pairs in enumerate(injections):
        fcl, fired = engine.burst(pairs, number in fatigued)
        where = f"burst {number + 1}"
        ids = np.flatnonzero(records["candidates"][number])
        assert ids.tolist() == sorted(fcl), where
        inputs = np.array([fcl[neuron] for neuron in ids.tolist()], np.float32)
        np.testing.assert_array_equal(records["inputs"][number][ids], inputs, where)
        assert neurons(at(records["fired"], number)).tolist() == sorted(fired), where
        emitted = np.asarray(records["fired"].values[number])[: len(fired)]
        np.testing.assert_array_equal(emitted, [fired[i] for i in sorted(fired)], where)
        np.testing.assert_array_equal(records["potential"][number], engine.mp, where)
        np.testing.assert_array_equal(records["countdown"][number], engine.rc, where)
        np.testing.assert_array_equal(records["fire_count"][number], engine.cfc, where)
    given = [synapse["weight"] for synapse in engine.synapses[: len(network.weight)]]
    np.testing.assert_array_equal(
        burst.weights(params.synapses, state.weights, np.float32(network.weight)), given
    )
    return records, engine


# Neurons 0 to 23 in areas 0 to 2; 24 never fires and is here for its synapses: no others can make
# as much arrive at one neuron, so that networks share a program.
SIZE, SYNAPSES, PLASTIC, BURSTS = 25, 90, 24, 10
FLAGS = {0: (False, True), 1: (False, True), 2: (True, True)}  # mp_driven, uniform
MAPPINGS = [(0, 1, 2, 40.0, 25.0, False, 1.0, False)]


def random_network(rng, *, strict, whole_leaks=False, **changes):
    """Every kind of neuron; sums of contributions are exact."""
    n, last = SIZE, SIZE - 1
    area = np.repeat([0, 1, 2, 3], [8, 8, 8, 1])
    pre = np.concatenate([rng.integers(0, 8, PLASTIC), rng.integers(0, last, SYNAPSES - PLASTIC)])
    post = rng.integers(0, last, SYNAPSES)
    post[:PLASTIC] = rng.integers(8, 16, PLASTIC)
    # The others leave the mapping alone.
    post[PLASTIC:] = np.where(area[pre[PLASTIC:]] == 0, post[PLASTIC:] % 8, post[PLASTIC:])
    largest = (255, 255) if strict else (300, 1000)
    anchors = 40
    weight = np.append(rng.integers(0, 200, SYNAPSES), np.full(anchors, largest[0]))
    strength = np.append(rng.integers(0, 5, SYNAPSES), np.full(anchors, largest[1]))
    # The strength of a potential-driven neuron must be whole for its sums to be exact.
    leaks = [0, 1] if whole_leaks else [0, 0.1, 0.5, 1]
    leak = np.where(area == 2, rng.integers(0, 2, n), rng.choice(leaks, n))
    fields = {
        "area": area,
        "threshold": np.append(rng.integers(-50, 300, last), 1e30),
        "threshold_limit": rng.choice([np.inf, 400, 900, -10], n),
        "leak": leak.astype(np.float32),
        "excitability": rng.choice(
            [1, 0.999, 0.6, 0.2, 0, -1], n, p=[0.4, 0.1, 0.2, 0.1, 0.1, 0.1]
        ),
        "refractory_period": rng.integers(0, 3, n),
        "fire_limit": rng.choice([0, 1, 2, 3, 65_535], n),
        "snooze": rng.choice([0, 1, 3, 65_535], n),
        "accumulates": rng.random(n) < 0.7,
        "pre": np.append(pre, np.full(anchors, last)),
        "post": np.append(post, np.full(anchors, last)),
        "weight": weight,
        "strength": strength,
        "inhibitory": rng.random(SYNAPSES + anchors) < 0.3,
        "delay": np.ones(SYNAPSES + anchors, int),
        "flags": FLAGS,
        "mappings": MAPPINGS,
        "power_neuron": 3,
        "power": 120.0,
        "fatigue_area": 1,
    }
    return Network(**{**fields, **changes})


def random_injections(rng, bursts=BURSTS):
    """Whole numbers, ids repeated, zero among them."""
    return [
        [(int(rng.integers(0, SIZE - 1)), float(rng.integers(-150, 700))) for _ in range(size)]
        + [(int(rng.integers(0, SIZE - 1)), 0.0)]
        for size in rng.integers(0, 20, bursts)
    ]


each_seed = hypothesis.given(seed=st.integers(0, 2**32 - 1))


@both_semantics
@each_seed
def test_random_networks(strict, seed):
    rng = np.random.default_rng(seed)
    network = random_network(rng, strict=strict)
    config = config_of(network, strict=strict)
    injections = random_injections(rng)
    assert_equals_engine(config, network, injections, strict=strict, fatigued=(2, 5, 6))


@pytest.mark.parametrize("threshold", [1, 8, 14])
@each_seed
def test_random_networks_on_the_batch_path(threshold, seed):
    """Bursts on both sides of the threshold, in one run."""
    rng = np.random.default_rng(seed)
    network = random_network(rng, strict=True)
    config = config_of(network, strict=True, batch_threshold=threshold)
    injections = random_injections(rng)
    parts = {"strict": True, "batch_threshold": threshold}
    assert_equals_engine(config, network, injections, fatigued=(1,), **parts)


@each_seed
def test_random_networks_with_shared_strength(seed):
    """Areas divide what they send, or nobody has flags, in networks with powers of two."""
    rng = np.random.default_rng(seed)
    degrees = rng.permutation([0, 1, 2, 2, 4, 4, 8, 8] * 3)
    network = random_network(rng, strict=True, mappings=[])
    pre = np.repeat(np.arange(24), degrees)
    columns = {
        "pre": pre,
        "post": rng.integers(0, 24, pre.size),
        "weight": rng.integers(0, 256, pre.size),
        "strength": rng.integers(0, 5, pre.size),
        "inhibitory": rng.random(pre.size) < 0.3,
        "delay": np.ones(pre.size, int),
    }
    for flags in ({}, {0: (False, True), 1: (False, False)}):
        divided = dataclasses.replace(network, flags=flags, **columns)
        for strict in (True, False):
            config = config_of(divided, strict=strict)
            assert_equals_engine(config, divided, random_injections(rng, 5), strict=strict)


@each_seed
def test_random_delays(seed):
    rng = np.random.default_rng(seed)
    network = random_network(rng, strict=False)
    network.delay = np.where(np.arange(network.delay.size) < SYNAPSES, rng.integers(1, 5, 130), 1)
    config = config_of(network, strict=False, max_delay=4)
    assert_equals_engine(config, network, random_injections(rng), strict=False)


@pytest.mark.parametrize("size", [10_000, 9_999])
def test_batch_path_begins_with_ten_thousand_candidates(size):
    """Refractory candidates count; whoever reaches the threshold loses the charge."""
    rng = np.random.default_rng(size)
    n = 10_001
    network = Network(
        area=np.zeros(n, int),
        threshold=rng.integers(1, 5, n),
        threshold_limit=rng.choice([np.inf, 3, 0, -1], n),
        leak=rng.choice([0, 0.25], n),
        excitability=rng.choice([1, 0.5, 0], n),
        refractory_period=rng.integers(0, 3, n),
        fire_limit=rng.choice([0, 1, 2], n),
        snooze=rng.integers(0, 3, n),
        accumulates=np.ones(n, bool),
        **{name: [] for name in ("pre", "post", "weight", "strength", "inhibitory", "delay")},
    )
    config = config_of(network, strict=True)
    params = params_of(network, config)
    engine = PlainEngine(network, strict=True)
    injections = [[(i, 3.0) for i in range(size)]] * 4
    records, _ = run(config, params, drives_of(config, injections))
    sequential = PlainEngine(network, strict=True, batch_threshold=None)
    differs = False
    for number, pairs in enumerate(injections):
        engine.burst(pairs)
        sequential.burst(pairs)
        np.testing.assert_array_equal(records["potential"][number], engine.mp)
        np.testing.assert_array_equal(records["countdown"][number], engine.rc)
        np.testing.assert_array_equal(records["fire_count"][number], engine.cfc)
        differs |= engine.mp != sequential.mp
    assert differs == (size == 10_000)


# --- Plasticity ----------------------------------------------------------------------------------


def pair_network(*, mapping, weight=100.0, pairs=((0, 2), (0, 3), (1, 2)), flags=None, **changes):
    """Neurons 0 and 1 in area 0, 2 and 3 in area 1; all fire when injected, and only then."""
    n, size = 4, len(pairs)
    fields = {
        "area": [0, 0, 1, 1],
        "threshold": [1e6] * n,
        "threshold_limit": [np.inf] * n,
        "leak": [1.0] * n,
        "excitability": [1.0] * n,
        "refractory_period": [0] * n,
        "fire_limit": [0] * n,
        "snooze": [0] * n,
        "accumulates": [False] * n,
        "pre": [pre for pre, _ in pairs],
        "post": [post for _, post in pairs],
        "weight": [weight] * size,
        "strength": [1.0] * size,
        "inhibitory": [False] * size,
        "delay": [1] * size,
        "flags": {0: (False, True)} if flags is None else flags,
        "mappings": [mapping],
    }
    return Network(**{**fields, **changes})


def firing(*groups):
    """Injections that make the named neurons fire, burst by burst."""
    return [[(neuron, 4e6) for neuron in group] for group in groups]


TOGETHER = firing([0, 2], [0, 2], [0, 1, 2], [1], [], [], [0, 1, 2, 3], [0, 1, 2, 3], [0, 3])


@pytest.mark.parametrize(
    ("window", "strict"),
    [(1, True), (2, False), (3, True), (31, False), (32, True), (33, False), (70, True)],
)
def test_window_of_the_fire_ledger(window, strict):
    network = pair_network(mapping=(0, 1, window, 5.0, 3.0, False, 1.0, False))
    injections = (firing([0, 2]) * window + TOGETHER + firing([1, 3]) * window)[:90]
    config = config_of(network, strict=strict)
    _, engine = assert_equals_engine(config, network, injections, strict=strict)
    assert any(synapse["weight"] != 100 for synapse in engine.synapses)


@pytest.mark.parametrize(("up", "down"), [(200.0, 200.0), (300.0, 300.0), (0.0, 7.0), (9.0, 0.0)])
@both_semantics
def test_weights_saturate(up, down, strict):
    network = pair_network(mapping=(0, 1, 1, up, down, False, 1.0, False))
    config = config_of(network, strict=strict, max_weight=250.0)
    assert_equals_engine(config, network, TOGETHER, strict=strict, max_weight=250.0)


@both_semantics
@pytest.mark.parametrize(
    ("flags", "pairs"),
    [
        ((False, True), ((0, 2), (0, 1), (0, 0), (1, 0))),
        ((False, False), ((0, 2), (1, 0), (1, 1))),
        ((True, False), ((0, 2), (1, 0), (1, 1))),
    ],
)
def test_bidirectional_mapping_makes_synapses(flags, pairs, strict):
    """Those that are made share in what a divided neuron sends, at the cost of its others."""
    mapping = (0, 1, 2, 8.0, 2.0, True, 16.0, True)
    network = pair_network(mapping=mapping, pairs=pairs, flags={0: flags})
    injections = TOGETHER + firing([0, 1, 3]) * 4 + firing([2], [0, 1])
    config = config_of(network, strict=strict)
    records, engine = assert_equals_engine(config, network, injections, strict=strict)
    assert len(engine.synapses) == len(pairs) + 3  # 0 -> 3, 1 -> 2 and 1 -> 3
    assert int(records["exists"][-1].sum() - records["exists"][0].sum()) == 3


def test_mapping_without_gains_makes_no_synapses():
    network = pair_network(mapping=(0, 1, 1, 0.0, 0.0, True, 1.0, False))
    config = config_of(network, strict=True)
    _, engine = assert_equals_engine(config, network, TOGETHER, strict=True)
    assert len(engine.synapses) == 3


def test_later_mapping_of_the_same_areas_replaces_the_earlier():
    early, late = burst.Mapping("a", "b", 2), burst.Mapping("a", "b", 5)
    config = small_config(mappings=[early, late])
    assert config.mappings == (late,)
    assert config.window == 5


def test_ledger_that_begins_late_holds_bursts_without_firing():
    """A network that goes on at burst 1,000 need not wait for its window."""
    network = pair_network(mapping=(0, 1, 3, 5.0, 3.0, False, 1.0, False))
    config = config_of(network, strict=True)
    params = params_of(network, config)
    drives = drives_of(config, firing([0, 2]))
    for num_bursts, expected in ((0, 100), (1, 100), (2, 97), (1_000, 97)):
        start = burst.init(config, params, KEY).replace(
            burst=jnp.uint32(num_bursts), ledger=ledger.empty(4, config.window, num_bursts)
        )
        _, state = run(config, params, drives, start)
        assert burst.weights(params.synapses, state.weights, [100] * 3).tolist()[0] == expected


def test_ledger_frames():
    network = pair_network(mapping=(0, 1, 2, 5.0, 3.0, False, 1.0, False))
    config = config_of(network, strict=True, ledger_window=40)
    groups = [[number % 4, (number // 4) % 4] for number in range(50)]
    params = params_of(network, config)
    _, state = run(config, params, drives_of(config, firing(*groups)))
    expected = np.zeros((40, 4), bool)
    for row, group in zip(expected, groups[-40:]):
        row[group] = True
    np.testing.assert_array_equal(burst.frames(state.ledger, 40), expected)
    np.testing.assert_array_equal(burst.frames(state.ledger, 3), expected[-3:])
    with pytest.raises(ValueError, match=r"window must be in 0..40, the recorded bursts; got 41"):
        burst.frames(state.ledger, 41)


# --- Strict and default semantics ----------------------------------------------------------------


def single(**fields):
    """One neuron, by default a patient one."""
    return Network(
        **{
            "area": [0],
            "threshold": [1.0],
            "threshold_limit": [np.inf],
            "leak": [0.0],
            "excitability": [1.0],
            "refractory_period": [0],
            "fire_limit": [0],
            "snooze": [0],
            "accumulates": [True],
            **{name: [] for name in ("pre", "post", "weight", "strength", "inhibitory", "delay")},
            **fields,
        }
    )


@each_seed
def test_semantics_agree_where_the_table_has_no_row(seed):
    """Flags given, no plasticity up to a limit, whole potentials, few candidates, few fires."""
    rng = np.random.default_rng(seed)
    mappings = [(0, 1, 2, 3.0, 2.0, False, 1.0, False)]
    network = random_network(rng, strict=True, whole_leaks=True, mappings=mappings)
    driven = np.isin(network.pre, np.flatnonzero(network.area == 2))
    injections = random_injections(rng)
    ends = []
    for strict in (True, False):
        config = config_of(network, strict=strict, max_weight=255.0, max_strength=255.0)
        params = params_of(network, config)
        records, _ = run(config, params, drives_of(config, injections, capacity=24))
        records["weights"] = records["weights"].astype(jnp.float32)
        ends.append(records)
    assert driven.any()
    assert_same_bits(*ends)


def runs_of_both(network, injections, *, changes=None, start=None):
    """Records under strict and under default semantics."""
    records = []
    for strict in (True, False):
        config = config_of(network, strict=strict, **(changes or {}))
        params = params_of(network, config)
        state = burst.init(config, params, KEY)
        state = state if start is None else start(state)
        records.append(run(config, params, drives_of(config, injections), state)[0])
    return records


def test_unlimited_neuron_is_blocked_once_only_if_strict():
    def exhausted(state):
        counts = jnp.full_like(state.membranes.fire_count, 65_533)
        return state.replace(membranes=state.membranes.replace(fire_count=counts))

    for limit in (0, 65_535):
        strict, default = runs_of_both(
            single(fire_limit=[limit]), [[(0, 2.0)]] * 5, start=exhausted
        )
        np.testing.assert_array_equal(strict["fired"].count, [1, 1, 0, 1, 1])
        np.testing.assert_array_equal(strict["fire_count"][:, 0], [65534, 65535, 0, 1, 2])
        np.testing.assert_array_equal(default["fired"].count, 1)
        np.testing.assert_array_equal(default["fire_count"][2:, 0], 65_535)


def test_refractory_period_and_snooze_saturate_in_both():
    network = single(refractory_period=[65_000], snooze=[65_000], fire_limit=[1])
    for records in runs_of_both(network, [[(0, 2.0)]] * 2):
        np.testing.assert_array_equal(records["countdown"][:, 0], [65_535, 65_534])


def test_fast_path_only_if_strict():
    """0 sends to 1 and 2, the weight in full or in halves."""
    three = {name: getattr(single(), name) * 3 for name in ("area", *FIELDS)}
    columns = dict(zip(("pre", "post", "weight"), ([0, 0], [1, 2], [10, 20])))
    columns |= {"strength": [1, 1], "inhibitory": [False, False], "delay": [1, 1]}
    network = Network(**{**three, **columns, "threshold": [1.0, 99.0, 99.0]})
    strict, default = runs_of_both(network, firing([0], []))
    np.testing.assert_array_equal(strict["inputs"][1], [0, 10, 20])
    np.testing.assert_array_equal(default["inputs"][1], [0, 5, 10])
    # As soon as one area has a flag, those without divide.
    network.flags = {1: (False, True)}
    for records in runs_of_both(network, firing([0], [])):
        np.testing.assert_array_equal(records["inputs"][1], [0, 5, 10])


@both_semantics
@pytest.mark.parametrize("fan_out", [3, 5, 7])
@pytest.mark.parametrize("plastic", [False, True])
def test_a_share_is_rounded_once(fan_out, plastic, strict):
    """The only contribution onto a neuron is the quotient in float32, whatever the fan-out."""
    n = fan_out + 1
    many = {name: getattr(single(), name) * n for name in FIELDS}
    columns = {"pre": [0] * fan_out, "post": list(range(1, n)), "weight": [1] * fan_out}
    columns |= {"strength": [1] * fan_out, "inhibitory": [False] * fan_out, "delay": [1] * fan_out}
    network = Network(**many, **columns, area=[0] + [1] * fan_out, flags={0: (False, False)})
    network.mappings = [(0, 1, 9, 1.0, 1.0, False, 1.0, False)] * plastic
    # Nothing but these contributions bounds the sums.
    limits = {"weights": "f32", "max_weight": 1.0}
    config = config_of(network, strict=strict, **limits)
    records, _ = run(config, params_of(network, config), drives_of(config, firing([0], [])))
    expected = np.float32(1) / np.float32(fan_out)
    assert_same_bits(np.asarray(records["inputs"][1][1:]), np.full(fan_out, expected))


@pytest.mark.parametrize(("fan_out", "potential"), [(3, 51), (7, 49), (11, 253), (255, 51)])
@pytest.mark.parametrize("weight", [5, 255])
@pytest.mark.parametrize("plastic", [False, True])
def test_a_whole_share_of_a_potential_is_whole(fan_out, potential, weight, plastic):
    """With weights "u8": the potential times the weight is a multiple of the fan-out."""
    n = fan_out + 1
    many = {name: getattr(single(), name) * n for name in FIELDS}
    columns = {"pre": [0] * fan_out, "post": list(range(1, n)), "weight": [weight] * fan_out}
    columns |= {"strength": [1] * fan_out, "inhibitory": [False] * fan_out, "delay": [1] * fan_out}
    network = Network(**many, **columns, area=[0] + [1] * fan_out, flags={0: (True, False)})
    network.mappings = [(0, 1, 9, 1.0, 1.0, False, 1.0, False)] * plastic
    config = config_of(network, strict=True)
    injections = [[(0, float(potential))], []]
    records, _ = run(config, params_of(network, config), drives_of(config, injections))
    share, rest = divmod(weight * potential, fan_out)
    assert rest == 0
    np.testing.assert_array_equal(records["inputs"][1][1:], np.full(fan_out, share))


def test_whole_shares_of_potentials_leave_the_halves_of_others():
    """Beside potentials in thirds, 1 / 256 of a weight arrives too."""
    n = 2 + 256
    many = {name: getattr(single(), name) * n for name in FIELDS}
    columns = {"pre": [0] * 3 + [1] * 256, "post": [2, 3, 4, *range(2, n)]}
    columns |= {"weight": [255] * 3 + [1] * 256, "strength": [1] * 259}
    columns |= {"inhibitory": [False] * 259, "delay": [1] * 259}
    flags = {0: (True, False), 1: (False, False)}
    network = Network(**many, **columns, area=[0, 1] + [2] * 256, flags=flags)
    config = config_of(network, strict=True)
    drives = drives_of(config, [[(0, 3.0), (1, 5.0)], []])
    records, _ = run(config, params_of(network, config), drives)
    expected = np.full(256, 1 / 256)
    expected[:3] += 255
    np.testing.assert_array_equal(records["inputs"][1][2:], expected)


@pytest.mark.parametrize(
    ("potential", "rounded", "kept"),
    [(2.5, 3, 2.5), (254.5, 255, 254.5), (0.49999997, 0, 0.49999997), (400.0, 255, 400.0),
     (5000.0, 255, 1000.0), (-3.0, 0, 0.0)],
)  # fmt: skip
def test_potential_driven_strength(potential, rounded, kept):
    two = {name: getattr(single(), name) * 2 for name in ("area", *FIELDS)}
    columns = {"pre": [0], "post": [1], "weight": [1], "strength": [7]}
    columns |= {"inhibitory": [False], "delay": [1], "flags": {0: (True, True)}}
    network = Network(**{**two, **columns, "threshold": [-10.0, 1e9]})
    strict, default = runs_of_both(network, [[(0, potential)], []])
    np.testing.assert_array_equal(strict["inputs"][1], [0, rounded])
    # Contributions are rounded, here such that sums of 1,000 times the weight fit.
    np.testing.assert_allclose(default["inputs"][1], [0, kept], rtol=0, atol=2.0**-21)
    assert strict["candidates"][1].tolist() == [False, True]


def test_reset_of_large_networks_only_if_strict():
    network = single(accumulates=[False], threshold=[10.0])
    changes = {"large_reset": 1}
    large, _ = runs_of_both(network, [[(0, 4.0)]] * 3, changes=changes)
    np.testing.assert_array_equal(large["potential"][:, 0], [4, 8, 0])
    for records in runs_of_both(network, [[(0, 4.0)]] * 3):
        np.testing.assert_array_equal(records["potential"][:, 0], [4, 4, 4])
    engine = PlainEngine(network, strict=True, **changes)
    for expected in large["potential"][:, 0]:
        engine.burst([(0, 4.0)])
        assert engine.mp[0] == expected
    assert config_of(network, strict=True).rules.large_reset == 1_000_000
    assert config_of(network, strict=False).rules.large_reset is None


@pytest.mark.parametrize(
    ("field", "value"), [("leak", 10.0), ("leak", -0.5), ("excitability", 100)]
)
def test_legacy_units(field, value):
    network = single(**{field: [value]})
    with pytest.warns(UserWarning, match=f"{field} of area '0' is not at most 1"):
        params_of(network, config_of(network, strict=True))
    with pytest.raises(ValueError, match=f"{field} of area '0' must be at most 1 .*at neuron 0"):
        params_of(network, config_of(network, strict=False))
    kept = config_of(network, strict=False, legacy_units="keep")
    with pytest.warns(UserWarning, match="and kept"):
        params = params_of(network, kept)
    np.testing.assert_array_equal(getattr(params.neurons, field), np.float32(value))
    if value > 0:
        percent = params_of(network, config_of(network, strict=False, legacy_units="percent"))
        expected = np.float32(value) / np.float32(100)
        np.testing.assert_array_equal(getattr(percent.neurons, field), expected)


def test_a_leak_above_one_turns_the_potential_around():
    network = single(leak=[10.0], threshold=[100.0])
    with pytest.warns(UserWarning, match="leak"):
        records, _ = runs_of_both(network, [[(0, 1.0)]] * 3, changes={"legacy_units": "keep"})
    np.testing.assert_array_equal(records["potential"][:, 0], [-9, 72, -657])


def test_weights_and_delays_of_later_versions():
    """Weights and strengths of 300 and 498.8, delays of up to 5 bursts."""
    two = {name: getattr(single(), name) * 2 for name in ("area", *FIELDS)}
    columns = {"pre": [0] * 3, "post": [1] * 3, "weight": [300, 0.5, 1], "delay": [1, 5, 5]}
    columns |= {"strength": [498.8] * 3, "inhibitory": [False, False, True]}
    network = Network(**{**two, **columns, "threshold": [1.0, 1e9], "flags": {0: (False, True)}})
    network.leak = [0.0, 1.0]
    config = config_of(network, strict=False, max_delay=5)
    records, _ = run(config, params_of(network, config), drives_of(config, firing([0], *[[]] * 6)))
    strength = np.float32(498.8)
    received = [0, np.float32(300) * strength, 0, 0, 0, -strength / 2, 0]
    np.testing.assert_allclose(records["inputs"][:, 1], np.float32(received), atol=2.0**-12)
    arrives = [False, True, False, False, False, True, False]
    np.testing.assert_array_equal(records["candidates"][:, 1], arrives)


# --- Single rules --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refractory_period", "fire_limit", "snooze", "pattern"),
    [(1, 3, 2, "1_1_1___1_1_1___"), (0, 2, 0, "11_11_"), (2, 0, 9, "1__1__1")],
)
def test_fire_patterns(refractory_period, fire_limit, snooze, pattern):
    network = single(
        refractory_period=[refractory_period], fire_limit=[fire_limit], snooze=[snooze]
    )
    for records in runs_of_both(network, [[(0, 2.0)]] * len(pattern)):
        fired = "".join("1" if count else "_" for count in records["fired"].count)
        assert fired == pattern


def test_sum_of_zero_is_a_candidate():
    network = single(threshold=[10.0], leak=[0.5])
    injections = [[(0, 8.0)], [(0, 3.0), (0, -3.0)], [], [(0, 0.0)]]
    for records in runs_of_both(network, injections):
        assert records["candidates"][:, 0].tolist() == [True, True, False, True]
        np.testing.assert_array_equal(records["potential"][:, 0], [4, 2, 2, 1])


def test_injections_of_one_neuron_add_up_in_the_order_given():
    """(1 + 2^-24) + 2^-24 is 1 in float32; in the other order it is not."""
    network, small = single(threshold=[100.0]), 2.0**-24
    for order, total in ([1, small, small], 1), ([small, small, 1], 1 + 2 * small):
        for records in runs_of_both(network, [[(0, amount) for amount in order]]):
            np.testing.assert_array_equal(records["inputs"][0], np.float32(total))


def test_injections_that_name_no_neuron_are_ignored():
    network = single(threshold=[100.0])
    config = config_of(network, strict=True)
    drive = config.drive([0, 0], [1.0, 2.0], capacity=4)
    for ids in ([0, 0, 1, 1], [-1, 0, 0, 5], [-7, 0, 0, 2**31 - 1]):
        odd = drive.injected.replace(
            indices=jnp.asarray(ids, jnp.int32),
            values=jnp.where(jnp.asarray(ids) == 0, 1.5, 100.0),
            count=jnp.int32(4),
        )
        zero = jnp.zeros(1)
        inputs, found = burst_dynamics.collect(
            config.burst_rules,
            params_of(network, config).neurons,
            odd,
            1.0,
            drive.fatigued,
            zero,
            zero > 0,
        )
        assert inputs.tolist() == [3.0]
        assert found.tolist() == [True]


def test_power_and_fatigue():
    network = pair_network(mapping=MAPPINGS[0], mappings=[], pairs=(), power_neuron=1, power=2.5)
    network.fatigue_area = 1
    config = config_of(network, strict=True)
    drives = drives_of(config, [[(1, 1.0)], [], []], fatigued=(1,))
    records, _ = run(config, params_of(network, config), drives)
    np.testing.assert_array_equal(
        records["inputs"], [[0, 3.5, 0, 0], [0, 2.5, 2.5, 2.5], [0, 2.5, 0, 0]]
    )
    np.testing.assert_array_equal(records["candidates"].sum(1), [1, 3, 1])


# Of this draw the 32 bits are above 2^32 - 128, so that they round to 2^32.
ONE_ID, ONE_BURST = 3, 2_349_646


def test_random_number_may_be_one():
    drawn = burst.random_number(jnp.uint32([ONE_ID]), jnp.uint32(ONE_BURST))
    assert_same_bits(drawn, np.ones(1, np.float32))
    many = ONE_ID + 1
    columns = ("pre", "post", "weight", "strength", "inhibitory", "delay")
    fields = {name: getattr(single(), name) * many for name in ("area", *FIELDS)}
    for excitability, fires in ((0.998, 0), (0.999, 1), (1.0, 1)):
        fields["excitability"] = [excitability] * many
        network = Network(**fields, **{name: [] for name in columns})

        def just_before(state):
            return state.replace(burst=jnp.uint32(ONE_BURST - 1))

        for records in runs_of_both(network, [[(ONE_ID, 2.0)]], start=just_before):
            assert records["fired"].count.tolist() == [fires]


def test_draw_must_be_below_the_excitability():
    drawn = np.asarray(burst.random_number(jnp.uint32([0]), jnp.uint32(1)))[0]
    for excitability, fires in ((drawn, 0), (np.nextafter(drawn, np.float32(1)), 1)):
        for records in runs_of_both(single(excitability=[excitability]), [[(0, 2.0)]]):
            assert records["fired"].count.tolist() == [fires]


def test_excitability_is_a_probability():
    """1,000 neurons, 20 bursts: within five standard errors."""
    n = 1_000
    config = burst.Config(num_neurons=n, areas=[burst.Area("a")])
    population = burst.populate(config, np.zeros(n, int), excitability=0.3)
    params = burst.Params(population, burst.connect(config, population, [], [], [], []))
    drive = config.drive(np.arange(n), np.full(n, 2.0))
    _, counts = simulation.simulate(
        burst.step,
        config,
        params,
        burst.init(config, params, KEY),
        drive,
        num_steps=20,
        record=fired_count,
    )
    # Who misses accumulates, and fires as soon as a draw succeeds: every draw is independent.
    assert abs(counts.mean() / n - 0.3) < 5 * np.sqrt(0.3 * 0.7 / (20 * n))


def fired_count(state):
    return state.fired.count


@pytest.mark.parametrize("size", [1, 31, 32, 33, 255, 256, 257, 1_000])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_fire_queue_lists_who_fires(size, share):
    rng = np.random.default_rng(size)
    potentials = rng.standard_normal(size).astype(np.float32)
    thresholds = np.where(rng.random(size) < share, -100, 100)
    config = burst.Config(num_neurons=size, areas=[burst.Area("a")])
    population = burst.populate(config, np.zeros(size, int), threshold=thresholds)
    fired = membrane_round(config, population, potentials)
    expected = np.flatnonzero(thresholds < 0)
    assert neurons(fired).tolist() == expected.tolist()
    assert_same_bits(np.asarray(fired.values)[: expected.size], potentials[expected])
    assert (np.asarray(fired.indices)[expected.size :] == size).all()


def membrane_round(config, population, potentials):
    params = burst.Params(population, burst.connect(config, population, [], [], [], []))
    drive = config.drive(np.arange(config.num_neurons), potentials)
    return jitted_step(config)(params, burst.init(config, params, KEY), drive).fired


# --- Promises of every model ---------------------------------------------------------------------


def rich_case(*, strict=False, backend="auto", seed=0, bursts=BURSTS):
    rng = np.random.default_rng(seed)
    network = random_network(rng, strict=strict)
    config = config_of(
        network, strict=strict, backend=backend, **({} if strict else {"max_delay": 3})
    )
    drives = drives_of(config, random_injections(rng, bursts), capacity=24, fatigued=(3,))
    return network, config, params_of(network, config), drives


@both_semantics
def test_backends_have_equal_bits(strict):
    ends = []
    for backend in ("reference", "auto"):
        _, config, params, drives = rich_case(strict=strict, backend=backend)
        ends.append(scan(config, params, drives))
    assert_same_bits(*ends)


@both_semantics
def test_a_scan_is_a_loop_in_any_chunks(strict):
    _, config, params, drives = rich_case(strict=strict)
    looped = run(config, params, drives)
    for chunk in (3, 100):
        assert_same_bits(
            jax.device_get(scan(config, params, drives, chunk_steps=chunk)), jax.device_get(looped)
        )
    assert int(looped[0]["fired"].count.sum()) > BURSTS  # the network did something


@both_semantics
def test_order_of_synapses_does_not_matter(strict):
    network, config, params, drives = rich_case(strict=strict)
    records, state = run(config, params, drives)
    order = np.random.default_rng(1).permutation(len(network.pre))
    turned = params_of(network, config, order)
    again, turned_state = run(config, turned, drives)
    assert_same_bits(again, records)
    weight = np.float32(network.weight)
    np.testing.assert_array_equal(
        burst.weights(turned.synapses, turned_state.weights, weight[order]),
        burst.weights(params.synapses, state.weights, weight)[order],
    )
    assert not np.array_equal(burst.weights(params.synapses, state.weights, weight), weight)


@both_semantics
def test_restored_run_equals_an_uninterrupted_one(tmp_path, strict):
    _, config, params, drives = rich_case(strict=strict)
    records, end = run(config, params, drives)
    halves = [
        jax.tree.map(lambda leaf, part=part: leaf[part], drives)
        for part in (slice(4), slice(4, None))
    ]
    _, middle = run(config, params, halves[0])
    checkpoint.save(tmp_path, 4, config, middle)
    like = jax.eval_shape(functools.partial(burst.init, config), params, KEY)
    restored = checkpoint.restore(tmp_path, config, like)
    later, again = run(config, params, halves[1], restored)
    assert_same_bits(again, end)
    assert_same_bits(later, jax.tree.map(lambda leaf: leaf[4:], records))


@both_semantics
def test_many_brains_in_one_batch_are_each_alone(strict):
    """Networks, thresholds and injections of their own."""
    cases = [rich_case(strict=strict, seed=seed) for seed in range(4)]
    config = cases[0][1]
    params, drives = (stacked([case[part] for case in cases]) for part in (2, 3))
    states = jax.vmap(functools.partial(burst.init, config), (0, None))(params, KEY)
    drives = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), drives)
    states, _ = simulation.simulate(
        burst.step, config, params, states, drives, in_axes=(0, 0, 0), chunk_steps=4
    )
    for brain, (_, _, own, drive) in enumerate(cases):
        assert_same_bits(at(states, brain), run(config, own, drive)[1])


@each_backend_slowly
def test_a_sweep_over_the_thresholds_of_kinds(backend):
    """One threshold for each kind and brain, and nothing else of the parameters twice."""
    config = small_config(num_neurons=600, backend=backend, keeps_inputs=True)
    rng = np.random.default_rng(4)
    population = burst.populate(config, np.arange(600) // 300, leak=0.5)
    assert population.kind is not None
    pre, post = rng.integers(0, 600, (2, 6_000))
    synapses = burst.connect(config, population, pre, post, 0.25, 1.0)
    thresholds = jnp.array([[1.0, 2.0], [0.5, 3.0], [4.0, 0.25]])
    drives = stacked([config.drive(rng.integers(0, 600, 50), 2.0) for _ in range(5)])

    def params_with(threshold):
        return burst.Params(population.replace(threshold=threshold), synapses)

    def after(threshold):
        return run(config, params_with(threshold), drives)[1]

    together = jax.vmap(after)(thresholds)
    counts = set()
    for brain, threshold in enumerate(thresholds):
        alone = after(threshold)
        assert_same_bits(at(together, brain), alone)
        each = params_with(threshold)
        each = each.replace(neurons=each.neurons.spread())
        assert_same_bits(run(config, each, drives)[1], alone)
        counts.add(int(alone.fired.count))
    assert len(counts) == 3


@both_semantics
def test_a_state_without_inputs_is_the_same_otherwise(tmp_path, strict):
    """In one scan, and from a checkpoint in the middle on."""
    _, config, params, drives = rich_case(strict=strict)
    _, end = run(config, params, drives)
    bare = dataclasses.replace(config, keeps_inputs=False)
    _, state = scan_bare(bare, params, drives, slice(0, 4), burst.init(bare, params, KEY))
    checkpoint.save(tmp_path, 4, bare, state)
    like = jax.eval_shape(functools.partial(burst.init, bare), params, KEY)
    restored = checkpoint.restore(tmp_path, bare, like)
    assert_same_bits(restored, state)
    fires, state = scan_bare(bare, params, drives, slice(4, None), restored)
    assert state.inputs is None
    assert state.candidates is None
    assert_same_bits(state, end.replace(inputs=None, candidates=None))
    assert fires[-1].sum() == int(end.fired.count) > 0
    with pytest.raises(ValueError, match=r"keeps_inputs \(saved False, given True\)"):
        checkpoint.restore(tmp_path, config, like)


def scan_bare(config, params, drives, part, state):
    """Who fires in a part of a run, and the last state."""
    drives = jax.tree.map(lambda leaf: leaf[part], drives)
    state, fires = simulation.simulate(
        burst.step, config, params, state, drives, record=burst.fires
    )
    return fires, state


@pytest.mark.slow
@each_backend
def test_64_brains_of_ten_thousand_neurons(backend):
    n, fan_out, brains = 10_000, 10, 64
    rng = np.random.default_rng(0)
    config = burst.Config(
        num_neurons=n, areas=[burst.Area("a", uniform=True)], strict_feagi=True, backend=backend
    )
    population = burst.populate(
        config, np.zeros(n, int), threshold=40.0, leak=0.1, excitability=0.9, refractory_period=1
    )
    pre, post = np.repeat(np.arange(n), fan_out), rng.integers(0, n, n * fan_out)
    inhibitory = rng.random(n * fan_out) < 0.3
    params = burst.Params(
        population, burst.connect(config, population, pre, post, 9, 3, inhibitory)
    )
    bursts = [
        [config.drive(rng.integers(0, n, 100), np.full(100, 50.0)) for _ in range(brains)]
        for _ in range(8)
    ]
    drives = stacked([stacked(brain) for brain in bursts])
    states = stacked([burst.init(config, params, KEY)] * brains)
    states, _ = simulation.simulate(
        burst.step, config, params, states, drives, in_axes=(None, 0, 0)
    )
    for brain in (0, 31, 63):
        own = jax.tree.map(lambda leaf, brain=brain: leaf[:, brain], drives)
        alone = run(config, params, own)[1]
        assert_same_bits(at(states, brain), alone)
        assert int(alone.fired.count) > 100


def test_runs_are_measured():
    _, config, params, drives = rich_case()
    measured = metrics.Metrics()
    scan(config, params, drives, metrics=measured)
    assert measured.neuron_updates == BURSTS * SIZE
    assert measured.bytes_moved == 26 * int(drives.injected.count.sum()) > 0


def test_changed_numbers_do_not_trace_again():
    _, config, params, drives = rich_case()
    traces = 0

    @jax.jit
    def step(params, state, drive):
        nonlocal traces
        traces += 1
        return burst.step(config, params, state, drive)

    state = burst.init(config, params, KEY)
    for number in range(4):
        changed = params.replace(power=jnp.float32(number), depression=params.depression + number)
        state = step(changed, state, at(drives, number))
    assert traces == 1


def test_steps_have_a_shape_before_they_run():
    _, config, params, drives = rich_case()
    state = jax.eval_shape(functools.partial(burst.init, config), params, KEY)
    after = jax.eval_shape(functools.partial(burst.step, config), params, state, at(drives, 0))
    for leaf, expected in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True):
        assert (leaf.shape, leaf.dtype) == (expected.shape, expected.dtype)
        assert not leaf.weak_type


def test_donated_state_is_updated_in_place():
    _, config, params, drives = rich_case()
    state = burst.init(config, params, KEY)
    pointer = state.weights.unsafe_buffer_pointer()
    step = jax.jit(functools.partial(burst.step, config), donate_argnums=1)
    compiled = step.lower(params, state, at(drives, 0)).compile()
    assert weight_copies(compiled, state.weights.shape) == 0
    after = step(params, state, at(drives, 0))
    assert all(leaf.is_deleted() for leaf in (state.weights, *jax.tree.leaves(state.membranes)))
    assert after.weights.unsafe_buffer_pointer() == pointer
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(params))


def test_no_two_leaves_share_a_buffer():
    _, config, params, _ = rich_case()
    state = burst.init(config, params, KEY).replace(key=None)
    own, others = (
        [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(tree) if leaf.size]
        for tree in (state, params)
    )
    assert len(set(own)) == len(own)
    assert not set(own) & set(others)


def test_a_new_network_is_at_rest():
    _, config, params, _ = rich_case()
    state = burst.init(config, params, KEY)
    assert int(state.burst) == int(state.fired.count) == int(state.ledger.length) == 0
    assert not state.inputs.any()
    assert not state.candidates.any()
    assert not any(leaf.any() for leaf in jax.tree.leaves((state.membranes, state.pending)))
    np.testing.assert_array_equal(state.weights, params.synapses.plastic.rows.weights)


def test_graded_threshold():
    """In float32, from left to right."""
    coordinates = [[0, 0, 0], [1, 0, 0], [3, 7, 11]]
    base, increments = np.float32(0.1), np.float32([0.2, 0.3, 0.7])
    last = base + np.float32(3) * increments[0]
    last = last + np.float32(7) * increments[1]
    last = last + np.float32(11) * increments[2]
    expected = np.float32([base, base + increments[0], last])
    assert_same_bits(burst.graded_threshold(base, coordinates, increments), expected)
    with pytest.raises(ValueError, match=r"coordinates must be \[neurons, 3\]; got \(2, 2\)"):
        burst.graded_threshold(1.0, [[0, 0], [1, 1]], [1, 1, 1])


# --- Errors --------------------------------------------------------------------------------------


def small_config(**changes):
    areas = [burst.Area("a"), burst.Area("b")]
    return burst.Config(**{"num_neurons": 4, "areas": areas, **changes})


CONFIG_ERRORS = [
    ({"num_neurons": 0}, r"num_neurons must be in 1..2\*\*31-1; got 0"),
    ({"areas": []}, "areas must be at least one; got none"),
    ({"areas": [burst.Area("a")] * 2}, r"names of areas must be distinct; got \['a'\] twice"),
    ({"mappings": [burst.Mapping("a", "x", 1)]}, "area must be one of 'a', 'b'; got 'x'"),
    ({"fatigue_area": "x"}, "area must be one of 'a', 'b'; got 'x'"),
    ({"power_neuron": 4}, "power_neuron must be in 0..3; got 4"),
    ({"ledger_window": -1}, "ledger_window must be at least 0; got -1"),
    ({"max_delay": 0}, "max_delay must be in 1..255; got 0"),
    ({"max_delay": 2, "strict_feagi": True}, "max_delay must be 1 with strict_feagi; got 2"),
    ({"max_weight": np.inf}, "max_weight must be finite and above 0; got inf"),
    ({"max_strength": 0.0}, "max_strength must be finite and above 0; got 0.0"),
    ({"batch_threshold": -1}, 'batch_threshold must be at least 0, None or "auto"; got -1'),
    (
        {"num_neurons": 10_000_000, "max_delay": 255, "strict_feagi": False},
        r"max_delay \* num_neurons must be below 2\*\*31; got 2550000000",
    ),
    ({"weights": "i8"}, r"weights must be one of \('auto', 'u8', 'f32'\); got 'i8'"),
]


@pytest.mark.parametrize(("changes", "message"), CONFIG_ERRORS)
def test_config_errors(changes, message):
    with pytest.raises(ValueError, match=message):
        small_config(**changes)


def test_mapping_errors():
    for window in (0, 16_385, 10**9):
        rule = rf"window of mapping 'a->b' must be in 1..16384; got {window}$"
        with pytest.raises(ValueError, match=rule):
            burst.Mapping("a", "b", window)
    assert burst.Mapping("a", "b", 16_384).window == 16_384
    with pytest.raises(ValueError, match="strength of mapping 'a->b' must be finite"):
        burst.Mapping("a", "b", 1, strength=np.nan)


def plain_rows(size, **fields):
    """What `populate` is given, for each neuron."""
    defaults = {"threshold": 1.0, "threshold_limit": np.inf, "leak": 0.0, "excitability": 1.0}
    counts = dict.fromkeys(("refractory_period", "fire_limit", "snooze"), 0)
    dtypes = dict.fromkeys(counts, np.uint16) | {"area": np.int32, "accumulates": bool}
    given = defaults | counts | {"accumulates": True} | fields
    return burst.Neurons(
        **{
            name: np.broadcast_to(values, size).astype(dtypes.get(name, np.float32))
            for name, values in given.items()
        }
    )


of_neurons = functools.partial(st.lists, min_size=9, max_size=9)


@hypothesis.given(
    area=of_neurons(st.integers(0, 1)),
    threshold=of_neurons(st.sampled_from([0.0, -0.0, 1.0, np.float32(0.1)])),
    leak=of_neurons(st.sampled_from([0.0, -0.0, 0.5])) | st.just(0.25),
    snooze=of_neurons(st.sampled_from([0, 65_535])) | st.just(3),
    accumulates=of_neurons(st.booleans()),
)
def test_neurons_of_a_kind_are_equal_to_the_bit(**fields):
    config = small_config(num_neurons=9)
    population = burst.populate(config, **fields)
    expected = plain_rows(9, **fields)
    assert_same_bits(population.spread(), expected)
    columns = [np.asarray(column) for column in vars(expected).values() if column is not None]
    rows = {tuple(column[neuron].tobytes() for column in columns) for neuron in range(9)}
    assert (population.kind is None) == (len(rows) == 9)
    assert population.threshold.shape == (len(rows),)
    assert population.num_neurons == 9


@pytest.mark.parametrize("kinds", [1, 65_535, 65_536, 65_537, 70_000])
def test_as_many_kinds_as_have_a_number(kinds):
    """More than there is a number for, or one for each neuron, and each has its own row."""
    size = 70_000
    config = small_config(num_neurons=size)
    threshold, limit = np.arange(size) % kinds % 300, np.arange(size) % kinds // 300
    population = burst.populate(config, 1, threshold=threshold, fire_limit=limit)
    expected = plain_rows(size, area=1, threshold=threshold, fire_limit=limit)
    assert_same_bits(population.spread(), expected)
    assert (population.kind is None) == (kinds > 65_536)
    alone = burst.populate(small_config(num_neurons=1), 0)
    assert alone.kind is None


NEURON_ERRORS = [
    ({"area": [0, 1, 2, 0]}, "area must be in 0..1; got 2 at neuron 2"),
    ({"area": [0, 1]}, r"shape of area must be \(4,\); got \(2,\)"),
    ({"threshold": [1, np.nan, 1, 1]}, "threshold must be finite; got nan at neuron 1"),
    ({"threshold_limit": np.nan}, "threshold_limit must be finite; got nan at neuron 0"),
    ({"snooze": 65_536}, "snooze must be in 0..65535; got 65536 at neuron 0"),
    ({"refractory_period": -1}, "refractory_period must be in 0..65535; got -1 at neuron 0"),
    ({"fire_limit": [0, 0.5, 0, 0]}, "fire_limit must be whole numbers"),
]


@pytest.mark.parametrize(("changes", "message"), NEURON_ERRORS)
def test_neuron_errors(changes, message):
    with pytest.raises(ValueError, match=message):
        burst.populate(small_config(), **{"area": [0, 0, 1, 1], **changes})


U8 = {"weights": "u8"}
SYNAPSE_ERRORS = [
    ({"post": [4, 0]}, {}, "post must be in 0..3; got 4 at synapse 0"),
    ({"pre": [0, -1]}, {}, "pre must be in 0..3; got -1 at synapse 1"),
    ({"post": [0]}, {}, "length of post must be that of pre, 2; got 1"),
    ({"weight": [1, -1]}, {}, "weight must be finite and at least 0; got -1.0 at synapse 1"),
    ({"weight": np.inf}, {}, "weight must be finite and at least 0; got inf at synapse 0"),
    ({"strength": [1, 1, 1]}, {}, r"shape of strength must be \(\) or \(2,\); got \(3,\)"),
    ({"weight": 256}, U8, r'weight must be a whole number in 0..255 for weights "u8"; got 256.0'),
    ({"strength": 0.5}, U8, "strength must be a whole number in 0..255"),
    ({"delay": 2}, {}, "delay must be in 1..max_delay; got 2 at synapse 0"),
    (
        {"weight": 1001.0},
        {"mappings": [burst.Mapping("a", "b", 1)]},
        "weight must be at most max_weight where plastic; got 1001.0 at synapse 0",
    ),
]


@pytest.mark.parametrize(("changes", "fields", "message"), SYNAPSE_ERRORS)
def test_synapse_errors(changes, fields, message):
    config = small_config(**fields)
    population = burst.populate(config, [0, 0, 1, 1])
    given = {"pre": [0, 1], "post": [2, 3], "weight": 1, "strength": 1, **changes}
    with pytest.raises(ValueError, match=message):
        burst.connect(config, population, **given)


def test_inputs_that_could_overflow_are_refused_if_they_must_be_whole():
    size = 2**31 // 255**2 + 2
    ones = np.ones(size, int)
    for weights in ("u8", "f32"):
        config = small_config(weights=weights)
        population = burst.populate(config, [0, 0, 1, 1])
        # Divided by the fan-out they would fit.
        uniform = dataclasses.replace(
            config, areas=[burst.Area("a", uniform=True), config.areas[1]]
        )
        burst.connect(config, population, 0 * ones, ones, 255, 255)
        if weights == "u8":
            with pytest.raises(
                ValueError, match=r"contributions onto neuron 1 must be below 2\*\*31"
            ):
                burst.connect(uniform, population, 0 * ones, ones, 255, 255)
        else:
            synapses = burst.connect(uniform, population, 0 * ones, ones, 255, 255)
            assert synapses.fixed.fraction_bits < 0


def test_shares_too_small_to_be_whole_are_warned_about():
    """Neuron 2 shares out among 64 what may be 1, while neuron 1 may receive up to 2^26."""
    config = small_config(weights="u8")
    config = dataclasses.replace(config, areas=[burst.Area("a", uniform=True), config.areas[1]])
    population = burst.populate(config, [0, 0, 1, 1])
    pre, post = np.repeat([0, 2], [1_000, 64]), np.repeat([1, 3], [1_000, 64])
    for of_one, is_rounded in ((255, True), (15, False)):
        weight = np.where(pre == 0, of_one, 1)
        told = pytest.warns(UserWarning, match="among 64 synapses may be rounded, to ")
        with told if is_rounded else contextlib.nullcontext():
            synapses = burst.connect(config, population, pre, post, weight, weight)
        assert (2.0**synapses.fixed.fraction_bits < 64) == is_rounded


DRIVE_ERRORS = [
    (([4], [1.0]), {}, r"ids must be whole numbers in 0..3; got \[4\]"),
    (([0, -1], [1.0, 1.0]), {}, r"ids must be whole numbers in 0..3; got \[-1\]"),
    (([1.7, 2.2], [1.0, 1.0]), {}, r"ids must be whole numbers in 0..3; got \[1.7\]"),
    (([np.nan], [1.0]), {}, r"ids must be whole numbers in 0..3; got \[nan\]"),
    (([False, True, True], [1.0] * 3), {}, "ids must be whole numbers; got bool"),
    (([0, 1], [1.0]), {}, r"potentials must be \(\) or \(2,\); got \(1,\)"),
    (([0], [np.nan]), {}, "potentials must be finite; got"),
    (([0, 1], [1.0, 1.0]), {"capacity": 1}, "capacity must be at least 2; got 1"),
]


@pytest.mark.parametrize(("given", "options", "message"), DRIVE_ERRORS)
def test_drive_errors(given, options, message):
    with pytest.raises(ValueError, match=message):
        small_config().drive(*given, **options)


def test_a_drive_with_room_for_more_is_padded():
    drive = small_config().drive([2, 0], [1.0, 3.0], capacity=4)
    padded = np.array([0, 2, 4, 4], np.int32), np.array([3, 1, 0, 0], np.float32)
    assert_same_bits(drive.injected, ops.ActiveSet(*padded, np.int32(2)))


def test_ids_of_any_type_and_one_potential_for_all():
    config = small_config()
    wanted = config.drive(np.array([3, 1]), np.full(2, 2.0, np.float32))
    for ids in ([3, 1], [3.0, 1.0], np.array([3, 1], np.uint8), jnp.array([3, 1])):
        assert_same_bits(config.drive(ids, 2.0), wanted)
    assert_same_bits(config.drive(3, 2), config.drive([3], [2]))
    assert_same_bits(config.drive([], 2.0), config.drive())
    # The largest id is no float32, and the next one is.
    large = dataclasses.replace(config, num_neurons=2**24 + 4)
    with pytest.raises(ValueError, match=r"whole numbers in 0\.\.16777219; got"):
        large.drive(np.float32([2**24 + 4]), 1.0)


def test_drives_are_stacked_drives():
    config = small_config()
    ids, potentials = [[], [3, 1, 3], [2]], [[], [1.0, 2.0, 4.0], [0.5]]
    stacked = config.drives(ids, potentials)
    for place, given in enumerate(zip(ids, potentials, strict=True)):
        one = jax.tree.map(operator.itemgetter(place), stacked)
        assert_same_bits(one, config.drive(*given, capacity=3))
    for fatigued, each in ((True, [True] * 3), ([False, True, False], [False, True, False])):
        tired = config.drives(ids, potentials, fatigued=fatigued)
        assert tired.fatigued.tolist() == each
        assert_same_bits(tired.injected, stacked.injected)
    with pytest.raises(ValueError, match=r"fatigued must be \(\) or \(3,\); got \(2,\)"):
        config.drives(ids, potentials, fatigued=[True, False])
    with pytest.raises(ValueError, match="bursts must be at least 1; got 0"):
        config.drives([], [])
    with pytest.raises(
        ValueError, match="bursts of potentials must be as many as of ids, 3; got 2"
    ):
        config.drives(ids, potentials[1:])


def test_init_errors():
    config = small_config(mappings=[burst.Mapping("a", "b", 1)])
    population = burst.populate(config, [0, 0, 1, 1])
    params = burst.Params(population, burst.connect(config, population, [0], [2], 1, 1))
    with pytest.raises(ValueError, match="neurons of params must be num_neurons=5; got 4"):
        burst.init(dataclasses.replace(config, num_neurons=5), params, KEY)
    with pytest.raises(ValueError, match=r"shape of depression must be \(\) or \(1,\); got \(2,\)"):
        burst.init(config, params.replace(depression=jnp.zeros(2)), KEY)


def test_neurons_that_do_not_fit_are_refused_before_a_run():
    config = small_config()
    population = burst.populate(config, [0, 0, 1, 1])
    synapses = burst.connect(config, population, [0], [2], 1, 1)
    each = population.replace(threshold=jnp.ones(4))
    for call in (
        lambda: burst.connect(config, each, [0], [2], 1, 1),
        lambda: burst.init(config, burst.Params(each, synapses), KEY),
    ):
        with pytest.raises(ValueError, match="length of area must be 4, that of threshold; got"):
            call()
    spread = population.spread().replace(threshold=jnp.ones(4))
    assert burst.init(config, burst.Params(spread, synapses), KEY).inputs is None


def test_random_number_is_uniform():
    ids = jnp.arange(100_000, dtype=jnp.uint32)
    drawn = np.asarray(burst_dynamics.random_number(ids, jnp.uint32(7)))
    counts = np.histogram(drawn, 10, (0, 1))[0]
    assert np.abs(counts - 10_000).max() < 5 * np.sqrt(10_000 * 0.9)
