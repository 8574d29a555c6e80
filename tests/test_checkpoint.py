"""Resumed runs equal uninterrupted ones, and a save that dies leaves the earlier checkpoints."""

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
import time

import jax
import numpy as np
import pytest

from brainjax import assemblies, checkpoint, simulation


def small_brain(dtype="float32"):
    config = assemblies.Config(
        areas=[assemblies.Area("A", 200, 14)],
        stimuli=[assemblies.Stimulus("s", 14)],
        fibers=[assemblies.Fiber("s", "A", 0.1), assemblies.Fiber("A", "A", 0.1)],
        dtype=dtype,
    )
    params = assemblies.Params(beta=0.1)
    return config, params, assemblies.init(config, params, jax.random.key(0))


def run(config, params, state, rounds):
    drive = config.drive("s->A", "A->A")
    return simulation.simulate(assemblies.step, config, params, state, drive, num_steps=rounds)[0]


def assert_same(left, right):
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_resumed_run_equals_uninterrupted_run(tmp_path, dtype):
    config, params, state = small_brain(dtype)
    state = run(config, params, state, 5)
    checkpoint.save(tmp_path, 5, config, state)
    uninterrupted = run(config, params, state, 1_000)

    shapes = jax.eval_shape(lambda key: assemblies.init(config, params, key), jax.random.key(0))
    resumed = run(config, params, checkpoint.restore(tmp_path, config, shapes), 1_000)

    assert_same(resumed, uninterrupted)


def test_resumed_state_does_not_recompile(tmp_path):
    config, params, state = small_brain()
    traces = 0

    @jax.jit
    def step(state, drive):
        nonlocal traces
        traces += 1
        return assemblies.step(config, params, state, drive)

    drive = config.drive("s->A", "A->A")
    state = step(state, drive)
    checkpoint.save(tmp_path, 1, config, state)
    step(checkpoint.restore(tmp_path, config, state), drive)
    assert traces == 1


def test_keeps_the_last_ones(tmp_path):
    config, params, state = small_brain()
    for number in (1, 2, 3):
        state = run(config, params, state, 1)
        checkpoint.save(tmp_path, number, config, state, keep=2)
    assert checkpoint.last(tmp_path) == 3
    assert int(checkpoint.restore(tmp_path, config, state, number=2).round) == 2
    with pytest.raises(FileNotFoundError, match=r"no checkpoint 1 .* it has \[2, 3\]"):
        checkpoint.restore(tmp_path, config, state, number=1)


def test_errors_name_what_is_wrong(tmp_path):
    config, _, state = small_brain()
    assert checkpoint.last(tmp_path / "missing") is None
    with pytest.raises(FileNotFoundError, match="no such folder"):
        checkpoint.restore(tmp_path / "missing", config, state)
    with pytest.raises(ValueError, match="keep must be at least 1; got 0"):
        checkpoint.save(tmp_path, 1, config, state, keep=0)
    checkpoint.save(tmp_path, 3, config, state)
    with pytest.raises(ValueError, match="number must be above the last checkpoint's, 3; got 3"):
        checkpoint.save(tmp_path, 3, config, state)
    other = dataclasses.replace(config, dtype="bfloat16")
    with pytest.raises(ValueError, match=r"dtype \(saved 'float32', given 'bfloat16'\)"):
        checkpoint.restore(tmp_path, other, state)


def test_backend_may_change(tmp_path):
    config, _, state = small_brain()
    checkpoint.save(tmp_path, 1, config, state)
    reference = dataclasses.replace(config, backend="reference")
    assert_same(checkpoint.restore(tmp_path, reference, state), state)


# Saves a good checkpoint, says so, then saves large ones for ever.
SAVE_FOR_EVER = """
    import sys
    import jax.numpy as jnp
    from brainjax import assemblies, checkpoint

    config = assemblies.Config(areas=[assemblies.Area("A", 10, 3)], fibers=[])
    for number in range(1, 1_000):
        state = {"number": jnp.asarray(number), "ballast": jnp.full(1 << 22, number)}
        checkpoint.save(sys.argv[1], number, config, state, keep=2)
        print(number, flush=True)
"""


@pytest.mark.parametrize("delay", [0.0, 0.005, 0.01, 0.03])
def test_killed_while_saving_leaves_the_previous_checkpoint(tmp_path, delay):
    program = [sys.executable, "-c", textwrap.dedent(SAVE_FOR_EVER), str(tmp_path)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True, env=environment) as process:
        saved = [int(process.stdout.readline()) for _ in range(2)]
        while not list(tmp_path.glob("*tmp*")):  # the next save has begun and is not whole
            assert process.poll() is None
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        saved += [int(line) for line in process.stdout.read().split()]
    assert process.returncode == -signal.SIGKILL

    number = checkpoint.last(tmp_path)
    assert number in (saved[-1], saved[-1] + 1)  # the last one may be whole but unannounced
    like = {"number": np.zeros((), np.int32), "ballast": np.zeros(1 << 22, np.int32)}
    config = assemblies.Config(areas=[assemblies.Area("A", 10, 3)], fibers=[])
    state = checkpoint.restore(tmp_path, config, like)
    assert int(state["number"]) == number
    assert (np.asarray(state["ballast"]) == number).all()

    # The rest of the dead save is no obstacle to the next one.
    checkpoint.save(tmp_path, number + 1, config, state)
    assert checkpoint.last(tmp_path) == number + 1
