"""Neurons, and chunks of spikes and of candidates, as Parquet files."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from brainjax import burst
from brainjax.connectomes.tables import arrow
from brainjax.recording.folder import with_rename
from brainjax.validation import require

_NEURONS = {
    "neuron": "uint32",
    "area": "string",
    "x": "uint32",
    "y": "uint32",
    "z": "uint32",
}
_SPIKES = {
    "burst": "uint32",
    "neuron": "uint32",
    "area": "string",
    "x": "uint32",
    "y": "uint32",
    "z": "uint32",
    "potential": "float",
}
_CANDIDATES = {"burst": "uint32", "neuron": "uint32", "input": "float"}


def write_neurons(path: Path, layout: burst.Layout) -> None:
    """Write where each neuron is; areas are named."""
    ids = np.arange(layout.num_neurons, dtype=np.uint32)
    _write(path, {"neuron": ids, **_places(layout.area, layout.position, layout.areas)})


def write_spikes(path: Path, table: burst.Spikes, areas: tuple[str, ...]) -> None:
    """Write a table of spikes; areas are named."""
    columns = {
        "burst": table.burst.astype(np.uint32),
        "neuron": table.neuron.astype(np.uint32),
        **_places(table.area, table.position, areas),
        "potential": table.potential,
    }
    _write(path, columns)


def write_candidates(path: Path, columns: dict[str, np.ndarray]) -> None:
    """Write a table of burst, neuron and input."""
    dtypes = {"burst": np.uint32, "neuron": np.uint32, "input": np.float32}
    _write(path, {name: columns[name].astype(dtype) for name, dtype in dtypes.items()})


def read_neurons(path: Path, areas: tuple[str, ...], num_neurons: int) -> dict[str, np.ndarray]:
    """Read area [neurons] and position [neurons, 3].

    Raises:
        ValueError: the file is damaged, names another area, or is of other neurons.
    """
    table = _read(path, _NEURONS)
    ids = _column(table, "neuron")
    right = np.array_equal(ids, np.arange(num_neurons))
    require(right, f"neuron in {path}", f"0..{num_neurons - 1}, ascending", f"{ids.size} others")
    return {"area": _area(table, path, areas), "position": _position(table)}


def read_spikes(path: Path, areas: tuple[str, ...]) -> burst.Spikes:
    """Read a table of spikes.

    Raises:
        ValueError: the file is damaged, or names another area.
    """
    table = _read(path, _SPIKES)
    return burst.Spikes(
        burst=_column(table, "burst"),
        neuron=_column(table, "neuron"),
        potential=table["potential"].to_numpy(),
        area=_area(table, path, areas),
        position=_position(table),
    )


def read_candidates(path: Path) -> dict[str, np.ndarray]:
    """Read a table of burst, neuron and input.

    Raises:
        ValueError: the file is damaged.
    """
    table = _read(path, _CANDIDATES)
    numbers = {name: _column(table, name) for name in ("burst", "neuron")}
    return {**numbers, "input": table["input"].to_numpy()}


def _places(area, position, areas):
    pyarrow, _ = arrow()
    names = pyarrow.DictionaryArray.from_arrays(pyarrow.array(area.astype(np.int32)), list(areas))
    return {"area": names, **dict(zip("xyz", position.astype(np.uint32).T))}


def _area(table, path, areas):
    pyarrow, _ = arrow()
    compute = importlib.import_module("pyarrow.compute")
    place = compute.index_in(table["area"], value_set=pyarrow.array(list(areas)))
    require(not place.null_count, f"area in {path}", f"one of {areas}", "another name", most=200)
    return place.to_numpy().astype(np.int64)


def _position(table):
    return np.stack([_column(table, name) for name in "xyz"], axis=-1)


def _column(table, name):
    return table[name].to_numpy().astype(np.int64)


def _write(path, columns):
    pyarrow, parquet = arrow()
    with_rename(path, lambda whole: parquet.write_table(pyarrow.table(columns), whole))


def _read(path: Path, kinds: dict[str, str]) -> Any:
    pyarrow, parquet = arrow()
    try:
        table = parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path} must be a whole Parquet file; got {error}") from None
    return _checked(pyarrow, path, table, kinds)


def _checked(pyarrow: ModuleType, path: Path, table: Any, kinds: dict[str, str]) -> Any:
    got = {field.name: _kind(pyarrow, field.type) for field in table.schema}
    require(got == kinds, f"columns of {path}", kinds, got)
    for name in kinds:
        require(not table[name].null_count, f"{name} in {path}", "given in every row", "a null")
    return table


def _kind(pyarrow, kind):
    return str(kind.value_type if pyarrow.types.is_dictionary(kind) else kind)
