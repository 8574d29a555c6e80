"""Save and restore a State with its Config, so that a resumed run equals an uninterrupted one."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

# Raised when the layout on disk changes, so that an old reader says so instead of misreading.
FORMAT = 1


def save(directory: str | Path, number: int, config: Any, state: Any, *, keep: int = 2) -> None:
    """Write a checkpoint; it appears whole or not at all.

    A process killed while it saves leaves the earlier checkpoints as they were.

    Args:
        directory: of the run; made if missing.
        number: of the checkpoint, larger than the earlier ones; usually the steps so far.
        config: of the model; a frozen dataclass.
        state: pytree of arrays, typed PRNG keys included.
        keep: how many checkpoints to keep, at least 1; older ones are removed after the save.

    Raises:
        ValueError: `number` is not larger than that of the last checkpoint, or keep is below 1.
    """
    if keep < 1:
        raise ValueError(f"keep must be at least 1; got {keep}")
    with _manager(directory, keep) as manager:
        last = manager.latest_step()
        if last is not None and number <= last:
            raise ValueError(f"number must be above the last checkpoint's, {last}; got {number}")
        description = {"format": FORMAT, "config": describe(config)}
        manager.save(
            number,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), description=ocp.args.JsonSave(description)
            ),
        )


def restore(directory: str | Path, config: Any, like: Any, *, number: int | None = None) -> Any:
    """Read a checkpoint.

    Args:
        directory: that `save` wrote to.
        config: of the model; must be the one that was saved.
        like: a State, or its shapes from `jax.eval_shape(init, ...)`: gives structure, dtypes and,
            if it has them, shardings.
        number: of the checkpoint; by default the last.

    Returns:
        The state, bit for bit.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: it was saved with another Config, or in another format.
    """
    if not Path(directory).is_dir():
        raise FileNotFoundError(f"no checkpoints in {directory}: no such folder")
    with _manager(directory, keep=None) as manager:
        numbers = manager.all_steps()
        number = manager.latest_step() if number is None else number
        if number not in numbers:
            raise FileNotFoundError(f"no checkpoint {number} in {directory}; it has {numbers}")
        description = manager.restore(
            number, args=ocp.args.Composite(description=ocp.args.JsonRestore())
        )["description"]
        _check_description(description, config)
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        restored = manager.restore(
            number, args=ocp.args.Composite(state=ocp.args.StandardRestore(shapes))
        )
    return restored["state"]


def last(directory: str | Path) -> int | None:
    """Return the number of the last whole checkpoint in `directory`, or None."""
    if not Path(directory).is_dir():
        return None
    with _manager(directory, keep=None) as manager:
        return manager.latest_step()


@contextlib.contextmanager
def _manager(directory, keep) -> Iterator[ocp.CheckpointManager]:
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        create=keep is not None,
        # In the calling thread: the state may be donated as soon as `save` returns.
        enable_async_checkpointing=False,
    )
    manager = ocp.CheckpointManager(Path(directory).absolute(), options=options)
    try:
        yield manager
    finally:
        manager.close()


def describe(config: Any) -> dict[str, Any]:
    """Return type and fields of a Config, for a JSON file."""
    kind = type(config)
    fields = {f.name: _jsonable(getattr(config, f.name)) for f in dataclasses.fields(config)}
    return {"type": f"{kind.__module__}.{kind.__qualname__}", **fields}


def _jsonable(value):
    if dataclasses.is_dataclass(value):
        return describe(value)
    if isinstance(value, (tuple, list)):
        return [_jsonable(item) for item in value]
    return value


def _check_description(description, config):
    if description["format"] != FORMAT:
        raise ValueError(f"checkpoint format must be {FORMAT}; got {description['format']}")
    check_same(description["config"], config)


def check_same(saved: Mapping[str, Any], config: Any) -> None:
    """Refuse a Config that differs from the one that was saved.

    Args:
        saved: what `describe` said of it, read from a JSON file.
        config: to compare.

    Raises:
        ValueError: they differ, and not in the backend alone.
    """
    given = describe(config)
    # The backend changes no bits, so a brain may move to a machine that has another one.
    differing = [
        f"{name} (saved {saved.get(name)!r}, given {given.get(name)!r})"
        for name in sorted({*saved, *given} - {"backend"})
        if saved.get(name) != given.get(name)
    ]
    if differing:
        raise ValueError(f"config must be the saved one; it differs in {'; '.join(differing)}")
