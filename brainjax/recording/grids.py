"""Quantities of every neuron in every burst as Zarr arrays."""

from pathlib import Path
from typing import Any

import numpy as np

from brainjax.recording.quantities import QUANTITIES
from brainjax.validation import require

_CHUNK_BYTES = 1 << 24  # of a Zarr chunk before compression, at most so many


class Grid:
    """A Zarr array [bursts, columns] that grows by bursts."""

    def __init__(self, store: Any):
        self._store = store

    @classmethod
    def create(cls, path: Path, dtype: str, columns: int, chunk_bursts: int) -> "Grid":
        """Make an array without bursts."""
        size = np.dtype(dtype).itemsize
        wide = min(columns, max(1, _CHUNK_BYTES // (size * chunk_bursts)))
        grid = {
            "name": "regular",
            "configuration": {"chunk_shape": [chunk_bursts, wide]},
        }
        codecs = [
            {"name": "bytes", "configuration": {"endian": "little"}},
            {"name": "zstd", "configuration": {"level": 1}},
        ]
        metadata = {
            "shape": [0, columns],
            "data_type": dtype,
            "chunk_grid": grid,
            "codecs": codecs if size > 1 else [{"name": "bytes"}, codecs[1]],
            "dimension_names": ["burst", "neuron"],
        }
        return cls(_open(path, metadata=metadata))

    @classmethod
    def open(cls, path: Path, dtype: str, columns: int) -> "Grid":
        """Open an array.

        Raises:
            ValueError: it is damaged, or of another type or size.
        """
        require(path.is_dir(), str(path), "a Zarr array", "no such folder")
        grid = cls(_open(path))
        got = grid._store.dtype.name, grid._store.shape[1:]
        require(got == (dtype, (columns,)), f"type and columns of {path}", (dtype, columns), got)
        return grid

    def trim(self, rows: int) -> None:
        """Forget the bursts from row `rows` on."""
        if rows < self._store.shape[0]:
            bounds = [rows, self._store.shape[1]]
            self._store = self._store.resize(exclusive_max=bounds, shrink_only=True).result()

    def write(self, row: int, values: np.ndarray) -> None:
        """Write bursts from a row on, and wait until they are on disk."""
        stop = row + len(values)
        if stop > self._store.shape[0]:
            bounds = [stop, self._store.shape[1]]
            self._store = self._store.resize(exclusive_max=bounds, expand_only=True).result()
        self._store[row:stop].write(values).result()

    def read(self, row: int, stop: int) -> np.ndarray:
        """Return rows.

        Raises:
            ValueError: the array is shorter, or damaged.
        """
        rows = self._store.shape[0]
        require(stop <= rows, "bursts of the Zarr array", f"at least {stop}", rows)
        return np.asarray(self._store[row:stop].read().result())


def open_grid(folder: Path, name: str, num_neurons: int) -> Grid:
    """Return the Zarr array of a quantity.

    Raises:
        ValueError: it is damaged, or of another type or size.
    """
    quantity = QUANTITIES[name]
    return Grid.open(folder / name, quantity.dtype, quantity.columns(num_neurons))


def _open(path, **fields):
    import tensorstore  # it takes long to import

    specification = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": str(path.absolute())},
        # What is missing on disk is missing, not 0.
        "store_data_equal_to_fill_value": True,
        "fill_missing_data_reads": False,
        **fields,
    }
    return tensorstore.open(specification, create=bool(fields), open=not fields).result()
