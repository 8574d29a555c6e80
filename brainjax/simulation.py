"""Any model over any number of steps: recorded, in chunks, in place."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich import progress as rich_progress

from brainjax import ops
from brainjax.metrics import Metrics, Stopwatch

PyTree = Any
Step = Callable[[Any, PyTree, PyTree, PyTree], PyTree]  # (config, params, state, drive) -> state
Record = Callable[[PyTree], PyTree]
Axes = tuple[PyTree, PyTree, PyTree]  # of params, state and drive, as for vmap

# Starting an iteration of a loop takes a GPU as long as a step of a small brain, so that one
# iteration holds several steps: up to this many, and no more than so many lines of program.
_GPU_UNROLL = 16
_MAX_UNROLLED_LINES = 32_000


def simulate(
    step: Step,
    config: Any,
    params: PyTree,
    state: PyTree,
    drive: PyTree,
    *,
    num_steps: int | None = None,
    record: Record | None = None,
    in_axes: Axes | None = None,
    chunk_steps: int = 1_000,
    progress: bool = False,
    metrics: Metrics | None = None,
) -> tuple[PyTree, PyTree]:
    """Advance `state` step by step and keep what `record` returns.

    The state is donated: its buffers are updated in place and cannot be used afterwards; copy
    what you still need. Steps run in chunks of one compiled program. Records leave the device
    after each chunk, so memory there does not grow with the number of steps.

    Args:
        step: `step(config, params, state, drive) -> state` of any model.
        config: fixed at compile time, hashable.
        params: constant during the run.
        state: the start, of one brain or, with `in_axes`, of many.
        drive: what every step takes; a constant if `num_steps` is given, else a pytree whose
            leaves have a leading axis of steps (before a batch axis).
        num_steps: how often to apply a constant drive.
        record: what to keep of one brain's state after each step. Give a named function: a new
            lambda in each call compiles again.
        in_axes: batch axes of (params, state, one step's drive), as for `jax.vmap`, for many
            independent brains. The state's must be 0.
        chunk_steps: steps in one program; changes no result.
        progress: whether to show a progress bar.
        metrics: where to add what was measured. Measuring waits for the end of the run, and asks
            the config for `num_neurons`, `backend` and `bytes_moved(drive)`.

    Returns:
        The final state, and the records as NumPy arrays stacked along a leading axis of steps
        (None without `record`).

    Raises:
        TypeError: metrics are asked for and the config lacks what they need.
        ValueError: num_steps, chunk_steps or in_axes is out of range, or the leaves of `drive`
            differ in their number of steps.

    Determinism: as the step's; chunks make no difference.
    """
    total = _count_steps(drive, num_steps)
    if chunk_steps < 1:
        raise ValueError(f"chunk_steps must be at least 1; got {chunk_steps}")
    if in_axes is not None and in_axes[1] != 0:
        raise ValueError(f"in_axes must have 0 for the state; got {in_axes}")
    if metrics is not None:
        _check_measurable(config)
    run = functools.partial(
        _run_chunks, step, config, params, state, drive, num_steps is None, total, record, in_axes
    )
    with _ProgressBar(total, shown=progress) as advance:
        if metrics is None:
            return run(chunk_steps, advance)
        with Stopwatch() as watch:
            state, records = jax.block_until_ready(run(chunk_steps, advance))
    _add_to(metrics, watch, config, state, drive, total, num_steps is None, in_axes)
    return state, records


def rollout(
    step: Step,
    config: Any,
    params: PyTree,
    state: PyTree,
    drive: PyTree,
    *,
    num_steps: int | None = None,
    record: Record | None = None,
) -> tuple[PyTree, PyTree]:
    """Advance `state` as `simulate` does, as a pure function: jit, batch or differentiate it.

    Args:
        step: `step(config, params, state, drive) -> state` of any model.
        config: fixed at compile time.
        params: constant during the run.
        state: the start; not donated.
        drive: a constant if `num_steps` is given, else leaves with a leading axis of steps.
        num_steps: how often to apply a constant drive.
        record: what to keep of the state after each step.

    Returns:
        The final state, and the records stacked along a leading axis of steps.

    Determinism: as the step's. How many steps an iteration of the loop holds depends on the
        platform and changes no bit.
    """

    def advance(state, drive_now):
        state = step(config, params, state, drive if num_steps is not None else drive_now)
        return state, None if record is None else record(state)

    each = None if num_steps is not None else drive
    return jax.lax.scan(advance, state, each, num_steps, unroll=_unroll(advance, state, each))


def _unroll(advance, state, drives):
    """How many steps one iteration of the compiled loop takes."""
    if ops.backend.default_platform() != "cuda":
        return 1
    first = jax.tree.map(lambda leaf: leaf[0], drives)
    lines = str(jax.make_jaxpr(advance)(state, first)).count("\n") + 1
    return max(1, min(_GPU_UNROLL, _MAX_UNROLLED_LINES // lines))


@functools.partial(
    jax.jit,
    static_argnames=("step", "config", "record", "in_axes", "num_steps"),
    donate_argnames="state",
)
def _run_chunk(step, config, params, state, drive, record, in_axes, num_steps):
    if in_axes is not None:
        axes = jax.tree.unflatten(*in_axes)
        step = functools.partial(_batched_step, step, axes)
        record = None if record is None else jax.vmap(record, in_axes=axes[1])
    return rollout(step, config, params, state, drive, num_steps=num_steps, record=record)


def _batched_step(step, axes, config, params, state, drive):
    return jax.vmap(functools.partial(step, config), axes, out_axes=axes[1])(params, state, drive)


def _run_chunks(
    step, config, params, state, drive, drive_varies, total, record, in_axes, chunk_steps, advance
):
    # Axes are static, so they must be hashable: leaves and structure instead of the tree.
    axes = None if in_axes is None else _hashable(in_axes)
    records = []
    for start in range(0, total, chunk_steps):
        length = min(chunk_steps, total - start)
        now = _slice(drive, start, length) if drive_varies else drive
        state, kept = _run_chunk(
            step, config, params, state, now, record, axes, None if drive_varies else length
        )
        records.append(jax.device_get(jax.tree.map(_plain, kept)))
        advance(length)
    if record is None:
        return state, None
    return state, jax.tree.map(lambda *chunks: np.concatenate(chunks), *records)


def _plain(recorded):
    """Of keys, which NumPy has no type for, their data."""
    is_key = jnp.issubdtype(recorded.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(recorded) if is_key else recorded


def _slice(drive, start, length):
    def part(leaf):
        return leaf if length == leaf.shape[0] else leaf[start : start + length]  # no copy of all

    return jax.tree.map(part, drive)


def _hashable(axes):
    leaves, structure = jax.tree.flatten(axes, is_leaf=lambda axis: axis is None)
    return structure, tuple(leaves)


def _count_steps(drive, num_steps):
    if num_steps is not None:
        if num_steps < 1:
            raise ValueError(f"num_steps must be at least 1; got {num_steps}")
        return num_steps
    lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(drive)}
    if len(lengths) != 1 or lengths == {()} or lengths == {(0,)}:
        raise ValueError(
            "leaves of drive must share a leading axis of at least 1 step, unless num_steps is "
            f"given; got lengths {sorted(lengths)}"
        )
    return lengths.pop()[0]


class _ProgressBar:
    """A bar on the terminal that a chunk advances, or nothing."""

    def __init__(self, total, *, shown):
        self._total = total
        columns = (
            rich_progress.TextColumn("simulating"),
            rich_progress.BarColumn(),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TimeRemainingColumn(),
        )
        self._bar = rich_progress.Progress(*columns) if shown else None

    def __enter__(self):
        if self._bar is None:
            return lambda length: None
        task = self._bar.add_task("", total=self._total)
        self._bar.start()
        return functools.partial(self._bar.advance, task)

    def __exit__(self, *_):
        if self._bar is not None:
            self._bar.stop()


def _check_measurable(config):
    needed = ("num_neurons", "backend", "bytes_moved")
    if missing := [name for name in needed if not hasattr(config, name)]:
        raise TypeError(f"config must have {', '.join(needed)} for metrics; it lacks {missing}")


def _add_to(metrics, watch, config, state, drive, total, drive_varies, in_axes):
    brains = 1 if in_axes is None else jax.tree.leaves(state)[0].shape[0]
    drive_is_batched = in_axes is not None and in_axes[2] is not None
    repeats = (1 if drive_varies else total) * (1 if drive_is_batched else brains)
    metrics.backend = ops.backend.running(config.backend)
    metrics.steps += total
    metrics.run_seconds += watch.run_seconds
    metrics.compile_seconds += watch.compile_seconds
    metrics.neuron_updates += float(total) * brains * config.num_neurons
    metrics.bytes_moved += repeats * config.bytes_moved(drive)
