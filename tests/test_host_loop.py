"""Bursts with the host in the loop, against the same bursts by `step`."""

import concurrent.futures
import dataclasses
import gc
import subprocess
import sys
import weakref
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same_bits, each_backend, has_kernels

from brainjax import burst, metrics, ops
from brainjax.burst import host_loop
from brainjax.ops import host_list

SIZE, CAPACITY, BURSTS = 500, 60, 12


def network(**changes):
    """Neurons of two areas, one of which gets tired. They fire by chance."""
    rng = np.random.default_rng(3)
    areas = [burst.Area("eye", uniform=True), burst.Area("arm", uniform=True)]
    config = burst.Config(num_neurons=SIZE, areas=areas, fatigue_area="arm", **changes)
    area = np.arange(SIZE) >= 450
    neurons = burst.populate(config, area.astype(int), leak=0.25, excitability=0.8)
    pre, post = rng.integers(0, SIZE, (2, 2_000))
    synapses = burst.connect(config, neurons, pre, post, 0.25, 1.0)
    params = burst.Params(neurons=neurons, synapses=synapses, power=2.0)
    return config, params, burst.init(config, params, jax.random.key(0))


def drives(rng, config):
    """Injections in any order, some neurons twice, from none at all to as many as there is room."""
    for size in [CAPACITY, 0, *rng.integers(1, CAPACITY, BURSTS - 2).tolist()]:
        ids = rng.integers(0, SIZE, size)
        yield ids, rng.uniform(-0.5, 2, size).astype(np.float32), bool(rng.integers(2))


def listed(state):
    count = int(state.fired.count)
    return np.asarray(state.fired.indices)[:count], np.asarray(state.fired.values)[:count]


def check_bursts(loop, config, params, state):
    advance = jax.jit(burst.step, static_argnums=0)
    num_fired = 0
    for ids, potentials, fatigued in drives(np.random.default_rng(1), config):
        got = loop(ids, potentials, fatigued=fatigued)
        state = advance(config, params, state, config.drive(ids, potentials, fatigued=fatigued))
        assert_same_bits(got, listed(state))
        num_fired += got[0].size
    assert num_fired > 5 * BURSTS
    assert_same_bits(loop.state, state)


@pytest.mark.parametrize("room", [SIZE, 3, 2 * SIZE])
def test_bursts_are_those_of_step(room):
    """With room for all who fire, for few of them, or for more than there are neurons."""
    config, params, state = network()
    loop = burst.HostLoop(config, params, state, capacity=CAPACITY, sampler=burst.Sampler(room))
    check_bursts(loop, config, params, state)


@pytest.mark.gpu
@pytest.mark.parametrize("room", [SIZE, 3])
def test_bursts_are_those_of_step_on_the_gpu(room):
    config, params, state = network()
    loop = burst.HostLoop(config, params, state, capacity=CAPACITY, sampler=burst.Sampler(room))
    (device,) = loop.state.burst.devices()
    assert device.platform == "gpu"
    with jax.default_device(jax.devices("cpu")[0]):
        check_bursts(loop, config, params, jax.device_put(state, jax.devices("cpu")[0]))


@pytest.mark.parametrize("platform", ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
def test_loops_of_two_threads_share_nothing(platform):
    """Each has its own lists; whichever runs in between, a loop finds what it was sent."""
    config, params, state = network()
    state = jax.device_put(state, jax.devices(platform)[0])

    def bursts_of(seed):
        sampler = burst.Sampler(SIZE)
        loop = burst.HostLoop(config, params, state, capacity=CAPACITY, sampler=sampler)
        given = [each for _ in range(20) for each in drives(np.random.default_rng(seed), config)]
        return [loop(ids, potentials, fatigued=fatigued) for ids, potentials, fatigued in given]

    alone = [bursts_of(seed) for seed in (5, 6)]
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        assert_same_bits(list(threads.map(bursts_of, (5, 6))), alone)


@pytest.mark.parametrize("platform", ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
def test_an_interrupted_wait_disturbs_no_burst(platform, monkeypatch):
    """Its burst runs all the same, on what was injected into it."""
    config, params, state = network()
    state = jax.device_put(state, jax.devices(platform)[0])
    sampler = burst.Sampler(SIZE)
    interrupted, expected = (
        burst.HostLoop(config, params, state, capacity=CAPACITY, sampler=sampler) for _ in range(2)
    )
    for number, (ids, potentials, _) in enumerate(drives(np.random.default_rng(7), config)):
        found = expected(ids, potentials)
        if number % 3 == 1:
            with monkeypatch.context() as patch:
                patch.setattr(ops.HostList, "take", interrupt)
                with pytest.raises(KeyboardInterrupt):
                    interrupted(ids, potentials)
        else:
            assert_same_bits(interrupted(ids, potentials), found)
    assert_same_bits(interrupted.state, expected.state)


def interrupted_at(number, call):
    """Whether `call` was long enough to be interrupted before its instruction of that number.

    Those of brainjax and JAX count: checks of types, which users have not, take thousands.
    """

    def trace(frame, event, _):
        nonlocal number
        if frame.f_globals.get("__name__", "").partition(".")[0] not in ("brainjax", "jax"):
            return None
        frame.f_trace_opcodes = True
        number -= event == "opcode"
        if number < 0:
            raise KeyboardInterrupt
        return trace

    tracer = sys.gettrace()
    gc.disable()  # what it calls of JAX's would be interrupted, and nobody would know
    sys._getframe().f_trace_opcodes = True  # without one, Python 3.12 looks at no instruction
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(tracer)
        gc.enable()
    return False


donating = pytest.mark.skipif(not has_kernels(), reason="lists go through Python, amid a burst")


@donating
@pytest.mark.parametrize(
    "platform", ["cpu", pytest.param("gpu", marks=[pytest.mark.gpu, pytest.mark.unsanitized])]
)
@pytest.mark.parametrize("asks", [True, False])
def test_an_interrupt_between_any_instructions_is_before_the_burst_or_after_it(platform, asks):
    """The state tells which, and the next burst goes on whether or not one asks."""
    config, params, state = network()
    state = jax.device_put(state, jax.devices(platform)[0])
    interrupted, expected = (
        burst.HostLoop(config, params, state, capacity=2, sampler=burst.Sampler(SIZE))
        for _ in range(2)
    )
    for loop in (interrupted, expected):
        loop()  # compiles
    after = []
    while interrupted_at(len(after), lambda: interrupted([len(after) % SIZE, 7], 2.0)):
        given = [len(after) % SIZE, 7], 2.0
        between = interrupted.state if asks else None
        found = interrupted([3], 2.0)
        after.append(int(interrupted.state.burst) > int(expected.state.burst) + 1)
        if after[-1]:
            expected(*given)
        if asks:
            assert_same_bits(between, expected.state)
        assert_same_bits(found, expected([3], 2.0))
        assert_same_bits(interrupted.state, expected.state)
    assert len(after) > 100
    assert len(set(after)) == 2
    assert after == sorted(after)


def test_an_interrupt_in_python_amid_a_burst_is_before_it(monkeypatch):
    """Where lists go through Python."""
    config, params, state = network(backend="reference")
    monkeypatch.setattr(host_loop, "_compiled", host_loop._compiled.__wrapped__)
    write, writes = host_list._write, []

    def write_or_be_interrupted(*operands):
        writes.append(operands)
        return interrupt() if len(writes) == 2 else write(*operands)

    monkeypatch.setattr(host_list, "_write", write_or_be_interrupted)
    loop = burst.HostLoop(config, params, state, capacity=1, sampler=burst.Sampler(SIZE))
    loop([3], 2.0)
    before = loop.state
    with pytest.raises(Exception, match="KeyboardInterrupt"):
        loop([3], 2.0)
    assert_same_bits(loop.state, before)
    loop([3], 2.0)
    assert_same_bits(loop.state, burst.step(config, params, before, config.drive([3], 2.0)))


@each_backend
def test_what_is_left_behind_the_injections_is_not_injected(backend):
    config, params, state = network(backend=backend)
    loop = burst.HostLoop(config, params, state, capacity=4, sampler=burst.Sampler(SIZE))
    for left in ([3, 5, 7, 9], [-1, SIZE, SIZE + 1, 2**31 - 1]):
        loop._injected.indices[:], loop._injected.values[:] = left, 100.0
        state = burst.step(config, params, state, config.drive([5], 2.0))
        loop([5], 2.0)
        assert_same_bits(loop.state, state)


class Running:
    """A result that notes whether it is waited for."""

    waited = 0

    def block_until_ready(self):
        self.waited += 1


def test_a_burst_that_nobody_waited_for_is_waited_for():
    """Before its lists are used again, and before they are gone."""
    config, params, state = network()
    loop = burst.HostLoop(config, params, state, capacity=1, sampler=burst.Sampler(SIZE))
    for number, use in enumerate([loop, loop.__del__], 1):
        running = loop._running = Running()
        use()
        assert running.waited == 1, number
    loop._running = None


def test_a_burst_is_waited_for_when_the_interpreter_ends():
    program = """
import os, sys
sys.path.append(sys.argv[1])
import test_host_loop as tests
from brainjax import burst

class Running:
    def block_until_ready(self, write=os.write):
        write(1, b"waited")

loop = burst.HostLoop(*tests.network(), capacity=1, sampler=burst.Sampler(1))
loop._running = Running()
"""
    command = [sys.executable, "-c", program, str(Path(__file__).parent)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert (run.stdout, run.returncode) == ("waited", 0), run.stderr
    assert "Exception ignored" not in run.stderr


def wait_in_vain(loop):
    loop._running = Running()
    loop._running.block_until_ready = interrupt


def lose_the_state(loop):
    advance = loop._advance
    loop._advance = lambda *operands: (advance(*operands), interrupt())
    with pytest.raises(KeyboardInterrupt):
        loop()
    loop._advance = advance
    for use in (loop, lambda: loop.state):
        with pytest.raises(RuntimeError, match="state must be that after a burst; got none"):
            use()


def fail(loop):
    loop._running = Running()
    loop._running.block_until_ready = lambda: 1 / 0


@pytest.mark.parametrize(
    "what_happens",
    [wait_in_vain, pytest.param(lose_the_state, marks=donating), fail, lambda _: None],
)
def test_lists_are_kept_if_a_burst_may_still_use_them(what_happens, monkeypatch):
    """Nobody can tell when it ends."""
    monkeypatch.setattr(burst.HostLoop, "_lists", set())
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    config, params, state = network()
    loop = burst.HostLoop(config, params, state, capacity=1, sampler=burst.Sampler(SIZE))
    lists = weakref.ref(loop._injected), weakref.ref(loop._fired)
    what_happens(loop)
    del loop
    gc.collect()
    is_kept = what_happens in (wait_in_vain, lose_the_state)
    assert [each() is not None for each in lists] == [is_kept, is_kept]


def interrupt(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("room", [SIZE, 3])
def test_nothing_is_compiled_after_the_first_burst(room):
    """With room for few, nothing after the first burst in which more fire."""
    config, params, state = network()
    sampler = burst.Sampler(capacity=room)
    first = burst.HostLoop(config, params, state, capacity=CAPACITY, sampler=sampler)
    neurons, _ = first(np.arange(CAPACITY), 2.0)
    assert neurons.size > 3
    loop = burst.HostLoop(config, params, state, capacity=CAPACITY, sampler=sampler)
    sizes = set()
    with metrics.Stopwatch() as watch:
        for ids, potentials, fatigued in drives(np.random.default_rng(2), config):
            sizes.add(loop(ids, potentials, fatigued=fatigued)[0].size)
    assert watch.compile_seconds == 0
    assert len(sizes) > BURSTS // 2


def test_samples_of_an_area_in_every_other_burst():
    config, params, state = network()
    area = (np.arange(SIZE) >= 450).astype(int)
    arm = burst.Layout(("eye", "arm"), area, np.zeros((SIZE, 3), int)).block("arm")
    sampler = burst.Sampler(capacity=2, block=arm, every=2)
    sampled = burst.HostLoop(config, params, state, capacity=CAPACITY, sampler=sampler)
    whole = burst.HostLoop(config, params, state, capacity=CAPACITY, sampler=burst.Sampler(SIZE))
    sizes = []
    for number, (ids, potentials, _) in enumerate(drives(np.random.default_rng(4), config), 1):
        neurons, fired_at = sampled(ids, potentials, fatigued=True)
        all_neurons, all_at = whole(ids, potentials, fatigued=True)
        is_own = (all_neurons >= 450) & (number % 2 == 0)
        assert_same_bits((neurons, fired_at), (all_neurons[is_own], all_at[is_own]))
        sizes.append(neurons.size)
    assert max(sizes) > 2


def test_the_state_given_and_the_state_returned_stay():
    config, params, state = network()
    loop = burst.HostLoop(config, params, state, capacity=1, sampler=burst.Sampler(SIZE))
    loop([3], 2.0)
    after = loop.state
    loop([3], 2.0)
    assert int(state.burst) == 0
    assert int(after.burst) == 1
    assert int(loop.state.burst) == 2
    assert jax.dtypes.issubdtype(after.key.dtype, jax.dtypes.prng_key)


def test_the_loop_shares_no_array_with_the_state_given_or_returned():
    """Whoever gets them may donate them, which deletes their arrays."""
    config, params, state = network()
    loop = burst.HostLoop(config, params, state, capacity=1, sampler=burst.Sampler(SIZE))
    expected = jax.tree.map(jnp.copy, burst.step(config, params, state, config.drive()))
    for given in (state, loop.state):
        jax.tree.map(lambda leaf: leaf.delete(), given)
    loop()
    assert_same_bits(loop.state, expected)


def test_what_is_injected_is_checked():
    config, params, state = network()
    loop = burst.HostLoop(config, params, state, capacity=2, sampler=burst.Sampler(SIZE))
    for ids, potentials, message in [
        ([0, SIZE], 1.0, r"ids must be whole numbers in 0..499; got \[500\]"),
        ([0], np.nan, r"potentials must be finite; got \[nan\]"),
        ([0, 1, 2], 1.0, "capacity must be at least 3; got 2"),
    ]:
        with pytest.raises(ValueError, match=message):
            loop(ids, potentials)
    assert int(loop.state.burst) == 0


def test_a_batch_and_a_capacity_of_nothing_are_refused():
    config, params, state = network()
    batch = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), dataclasses.replace(state, key=None))
    sampler = burst.Sampler(SIZE)
    with pytest.raises(ValueError, match=r"state must be of one network; got shape \(2,\)"):
        burst.HostLoop(config, params, batch, capacity=1, sampler=sampler)
    with pytest.raises(ValueError, match="capacity must be at least 1; got 0"):
        burst.HostLoop(config, params, state, capacity=0, sampler=sampler)
