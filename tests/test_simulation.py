"""Runs: chunks, records, donation, batches and measurements, of any model."""

import dataclasses
import functools
import resource

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same_bits, at, each_backend, each_backend_slowly, stacked

from brainjax import assemblies, calculus, metrics, simulation


@dataclasses.dataclass(frozen=True)
class Leaky:
    """A model of its own: leaky integrators that know nothing of assemblies."""

    num_neurons: int
    decay: float = 0.75


@flax.struct.dataclass
class LeakyState:
    voltage: jax.Array
    steps: jax.Array


def leaky_step(config, params, state, drive):
    voltage = config.decay * state.voltage + params["gain"] * drive
    return LeakyState(voltage=voltage, steps=state.steps + 1)


def leaky_start(num_neurons=3):
    return LeakyState(voltage=jnp.zeros(num_neurons), steps=jnp.zeros((), jnp.int32))


LEAKY, GAIN = Leaky(num_neurons=3), {"gain": jnp.float32(0.5)}


def voltage(state):
    return state.voltage


def leaky_drive(steps, seed=0):
    """Multiples of 1/4, which decay and sum up without rounding for a few steps."""
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.integers(-8, 9, (steps, 3)) / 4, jnp.float32)


def run_leaky(drive, **options):
    return simulation.simulate(leaky_step, LEAKY, GAIN, leaky_start(), drive, **options)


def test_a_model_of_its_own_follows_its_equation():
    drive = leaky_drive(6)
    state, record = run_leaky(drive, record=voltage)
    expected, rows = np.zeros(3), []
    for row in np.asarray(drive, np.float64):
        expected = 0.75 * expected + 0.5 * row
        rows.append(expected)
    np.testing.assert_array_equal(record, np.stack(rows))
    np.testing.assert_array_equal(state.voltage, rows[-1])
    assert int(state.steps) == 6


def small_brain(backend="auto"):
    config = assemblies.Config(
        areas=(assemblies.Area("A", n=50, k=5), assemblies.Area("B", n=40, k=4)),
        stimuli=(assemblies.Stimulus("s", 10),),
        fibers=tuple(
            assemblies.Fiber(*name.split("->"), 0.3) for name in ("s->A", "A->A", "A->B", "B->A")
        ),
        backend=backend,
    )
    return config, assemblies.Params(beta=config.per_fiber(0.1))


def brain_program(config, seed=0, rounds=11):
    rng = np.random.default_rng(seed)
    names = np.array(config.fiber_names)
    opened = [names[rng.random(names.size) < 0.7] for _ in range(rounds)]
    return stacked([config.drive("s->A", *map(str, some)) for some in opened])


def who_fires(state):
    return state.winners, state.inputs


def fresh_brain(seed=0, backend="auto"):
    config, params = small_brain(backend)
    return assemblies.init(config, params, jax.random.key(seed))


def run_brain(drive, backend="auto", **options):
    config, params = small_brain(backend)
    start = fresh_brain(backend=backend)
    return simulation.simulate(
        assemblies.step, config, params, start, drive, record=who_fires, **options
    )


@each_backend_slowly
def test_chunks_make_no_difference(backend):
    program = brain_program(small_brain(backend)[0])
    whole = run_brain(program, backend)
    assert_same_bits(run_brain(program, backend, chunk_steps=4), whole)


@each_backend
def test_simulate_is_rollout_is_a_loop(backend):
    config, params = small_brain(backend)
    program = brain_program(config)
    simulated, record = run_brain(program, backend)
    rolled, stacked_record = jax.jit(
        functools.partial(simulation.rollout, assemblies.step, config, record=who_fires)
    )(params, fresh_brain(), program)
    step = jax.jit(functools.partial(assemblies.step, config))
    looped, kept = fresh_brain(), []
    for index in range(11):
        looped = step(params, looped, at(program, index))
        kept.append(who_fires(looped))
    assert_same_bits(rolled, looped)
    assert_same_bits(simulated, looped)
    assert_same_bits(stacked_record, stacked(kept))
    assert_same_bits(record, stacked(kept))


def rolled_brain(backend):
    """A run as a new program, which no other test has compiled."""
    config, params = small_brain(backend)
    program = brain_program(config)
    return functools.partial(
        simulation.rollout, assemblies.step, config, params, fresh_brain(), program
    )


@each_backend_slowly
@pytest.mark.parametrize("steps", [2, 8])
def test_steps_in_one_iteration_of_the_loop_change_no_bit(backend, steps, monkeypatch):
    one_by_one = jax.jit(rolled_brain(backend))()
    monkeypatch.setattr(simulation, "_unroll", lambda *_: steps)
    assert_same_bits(jax.jit(rolled_brain(backend))(), one_by_one)


def test_loops_on_a_gpu_hold_steps_until_the_program_is_long(monkeypatch):
    monkeypatch.setattr(simulation.ops.backend, "default_platform", lambda: "cuda")

    def steps_in_one_iteration():
        (loop,) = jax.make_jaxpr(rolled_brain("auto"))().eqns[-1:]
        return loop.params["unroll"]

    steps = steps_in_one_iteration()
    assert 1 < steps <= 16
    monkeypatch.setattr(simulation, "_MAX_UNROLLED_LINES", 1)
    assert steps_in_one_iteration() == 1


def test_chunks_of_one_step_make_no_difference():
    whole = run_leaky(leaky_drive(7), record=voltage)
    assert_same_bits(run_leaky(leaky_drive(7), record=voltage, chunk_steps=1), whole)


def test_constant_drive_is_a_repeated_one():
    drive = small_brain()[0].drive("s->A", "A->A", "A->B")
    constant = run_brain(drive, num_steps=7, chunk_steps=3)
    assert_same_bits(constant, run_brain(calculus.repeat(drive, 7)))
    config, params = small_brain()
    rolled = simulation.rollout(
        assemblies.step, config, params, fresh_brain(), drive, num_steps=7, record=who_fires
    )
    assert_same_bits(rolled, constant)


def test_without_record_there_is_none():
    state, record = run_leaky(leaky_drive(5), chunk_steps=2)
    assert record is None
    assert_same_bits(state, run_leaky(leaky_drive(5), record=voltage)[0])


def test_of_recorded_keys_there_are_the_data():
    def step(config, params, state, drive):
        return jax.random.fold_in(state, drive)

    def whole(state):
        return state

    key, drives = jax.random.key(0), jnp.arange(5)
    _, keys = simulation.simulate(step, LEAKY, None, key, drives, record=whole, chunk_steps=2)
    assert isinstance(keys, np.ndarray)
    expected = jax.random.key(0)
    for drive, recorded in zip(drives, keys, strict=True):
        expected = jax.random.fold_in(expected, drive)
        np.testing.assert_array_equal(recorded, jax.random.key_data(expected))


def test_records_are_numpy_arrays_with_steps_in_front():
    _, record = run_leaky(leaky_drive(5), record=lambda s: (s.voltage, s.steps), chunk_steps=2)
    assert all(isinstance(leaf, np.ndarray) for leaf in record)
    assert record[0].shape == (5, 3)
    np.testing.assert_array_equal(record[1], [1, 2, 3, 4, 5])


@pytest.mark.parametrize(
    ("params_axis", "drive_axis"), [(None, None), (0, None), (None, 0), (0, 0)]
)
def test_many_brains_are_each_alone(params_axis, drive_axis):
    config, params = small_brain()
    keys = jax.random.split(jax.random.key(1), 3)
    starts = stacked([assemblies.init(config, params, key) for key in keys])
    swept = stacked([params.replace(beta=config.per_fiber(b)) for b in (0.0, 0.1, 0.5)])
    programs = [brain_program(config, seed) for seed in range(3)]
    # Steps come before brains.
    batched = jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1), *programs)
    together = simulation.simulate(
        assemblies.step,
        config,
        params if params_axis is None else swept,
        starts,
        programs[0] if drive_axis is None else batched,
        record=who_fires,
        in_axes=(params_axis, 0, drive_axis),
        chunk_steps=4,
    )
    for brain in range(3):
        state, record = simulation.simulate(
            assemblies.step,
            config,
            params if params_axis is None else at(swept, brain),
            assemblies.init(config, params, keys[brain]),
            programs[0] if drive_axis is None else programs[brain],
            record=who_fires,
        )
        assert_same_bits(at(together[0], brain), state)
        assert_same_bits(jax.tree.map(lambda leaf, i=brain: leaf[:, i], together[1]), record)


def test_axes_may_differ_within_params():
    """A sweep over one field of Params shares the others."""
    config, params = small_brain()
    starts = stacked([fresh_brain(seed) for seed in range(2)])
    swept = params.replace(beta=jnp.stack([config.per_fiber(0.1), config.per_fiber(0.5)]))
    axes = assemblies.Params(beta=0, w_max=None, temperature=None, synapses=None)
    program = brain_program(config)
    together, _ = simulation.simulate(
        assemblies.step, config, swept, starts, program, in_axes=(axes, 0, None)
    )
    for brain, beta in enumerate([0.1, 0.5]):
        alone, _ = simulation.simulate(
            assemblies.step,
            config,
            params.replace(beta=config.per_fiber(beta)),
            fresh_brain(brain),
            program,
        )
        assert_same_bits(at(together, brain), alone)


def test_the_state_is_donated_and_nothing_else():
    config, params = small_brain()
    start, program = fresh_brain(), brain_program(config)
    pointer = start.synapses["A->A"].weights.unsafe_buffer_pointer()
    state, _ = simulation.simulate(assemblies.step, config, params, start, program, chunk_steps=3)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(start.synapses))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(program))
    assert not params.beta.is_deleted()
    assert state.synapses["A->A"].weights.unsafe_buffer_pointer() == pointer


def test_rollout_does_not_donate():
    config, params = small_brain()
    start = fresh_brain()
    simulation.rollout(assemblies.step, config, params, start, brain_program(config))
    assert_same_bits(start, fresh_brain())


def test_repeated_calls_trace_once():
    """For all whole chunks together, and once more for the rest."""
    traces = 0

    def step(config, params, state, drive):
        nonlocal traces
        traces += 1
        return leaky_step(config, params, state, drive)

    state = leaky_start()
    for seed in range(3):
        gain = {"gain": jnp.float32(seed)}
        drive = leaky_drive(10, seed)
        state, _ = simulation.simulate(step, LEAKY, gain, state, drive, chunk_steps=4)
    assert traces == 2
    simulation.simulate(step, Leaky(num_neurons=3), gain, state, drive, chunk_steps=4)
    assert traces == 2


def settled_memory(steps, chunk_steps=1_000):
    """Growth of the process in bytes over a run, after a first one has warmed everything up."""
    config, params = small_brain()
    drive = config.drive(*config.fiber_names)
    run = functools.partial(
        simulation.simulate, assemblies.step, config, params, chunk_steps=chunk_steps
    )
    state, _ = run(fresh_brain(), drive, num_steps=20 * chunk_steps)
    before = resident_bytes()
    state, _ = run(state, drive, num_steps=steps)
    jax.block_until_ready(state)
    assert int(state.round) == steps + 20 * chunk_steps
    return resident_bytes() - before


def resident_bytes():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def test_a_long_run_does_not_grow():
    assert settled_memory(100_000) < 8e6


@pytest.mark.slow
def test_a_million_steps_do_not_grow():
    assert settled_memory(1_000_000) < 8e6


def test_metrics_count_what_ran():
    config, _ = small_brain()
    measured = metrics.Metrics()
    run_brain(brain_program(config), metrics=measured)
    assert measured.steps == 11
    assert measured.neuron_updates == 11 * 90
    assert 0 < measured.run_seconds < 60
    assert measured.bytes_moved == pytest.approx(config.bytes_moved(brain_program(config)))
    run_brain(config.drive("s->A"), num_steps=5, metrics=measured)
    assert measured.steps == 16


def test_metrics_count_compilation_apart():
    config, params = small_brain()
    measured, again = metrics.Metrics(), metrics.Metrics()
    fresh_step = functools.partial(assemblies.step)  # another function to jit: compiled anew
    for book in (measured, again):
        simulation.simulate(
            fresh_step, config, params, fresh_brain(), brain_program(config), metrics=book
        )
    assert measured.compile_seconds > 0.01
    assert again.compile_seconds < measured.compile_seconds / 2
    assert measured.run_seconds < 5


def test_metrics_of_many_brains():
    config, params = small_brain()
    starts = stacked([fresh_brain(seed) for seed in range(3)])
    measured = metrics.Metrics()
    drive = config.drive("s->A")
    simulation.simulate(
        assemblies.step,
        config,
        params,
        starts,
        drive,
        num_steps=4,
        in_axes=(None, 0, None),
        metrics=measured,
    )
    assert measured.steps == 4
    assert measured.neuron_updates == 3 * 4 * 90
    assert measured.bytes_moved == pytest.approx(3 * 4 * config.bytes_moved(drive))


def test_bytes_of_one_round_by_hand():
    config, _ = small_brain()
    moved = config.bytes_moved(config.drive("s->A", "A->A", plastic=["A->A"]))
    # One row of totals, five rows of A; five by five changed, read and written; inputs twice.
    assert moved == 4 * (50 + 5 * 50 + 2 * 5 * 5 + 2 * 90)


def test_summary_has_units_in_its_names():
    measured = metrics.Metrics()
    run_brain(brain_program(small_brain()[0]), metrics=measured)
    summary = measured.summary()
    assert summary["steps"] == 11
    assert summary["neurons_per_s"] == pytest.approx(90 * summary["steps_per_s"])
    assert 1e8 < summary["copy_bandwidth_bytes_per_s"] < 1e14
    assert 0 < summary["share_of_bandwidth"] < 1
    assert summary["peak_memory_bytes"] > 1e6
    assert summary["backend"]


def test_environment_names_device_and_versions():
    environment = metrics.environment()
    assert environment["jax"] == jax.__version__
    assert environment["platform"] == jax.default_backend()
    assert all(environment.values())


def test_progress_bar_is_shown_on_request(capsys):
    quiet = run_leaky(leaky_drive(6), chunk_steps=2)
    assert capsys.readouterr().out == ""
    shown = run_leaky(leaky_drive(6), chunk_steps=2, progress=True)
    assert "6/6" in capsys.readouterr().out
    assert_same_bits(shown, quiet)


@pytest.mark.parametrize(
    ("drive", "options", "message"),
    [
        (jnp.ones(3), {"num_steps": 0}, "num_steps must be at least 1; got 0"),
        (jnp.ones((4, 3)), {"chunk_steps": 0}, "chunk_steps must be at least 1; got 0"),
        (jnp.ones((0, 3)), {}, r"leaves of drive must share .*; got lengths \[\(0,\)\]"),
        (jnp.float32(1), {}, r"leaves of drive must share .*; got lengths \[\(\)\]"),
        (
            {"a": jnp.ones(4), "b": jnp.ones(5)},
            {},
            r"leaves of drive must share .*; got lengths \[\(4,\), \(5,\)\]",
        ),
        (jnp.ones((4, 3)), {"in_axes": (None, 1, None)}, "in_axes must have 0 for the state"),
    ],
)
def test_errors_name_field_rule_and_value(drive, options, message):
    start = leaky_start()
    with pytest.raises(ValueError, match=message):
        simulation.simulate(leaky_step, LEAKY, GAIN, start, drive, **options)
    assert not start.voltage.is_deleted()
