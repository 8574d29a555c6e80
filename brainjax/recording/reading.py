"""Read a recording back."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from brainjax import burst
from brainjax.recording import folder as folders, tables
from brainjax.recording.folder import Chunk
from brainjax.recording.grids import open_grid
from brainjax.recording.quantities import QUANTITIES
from brainjax.validation import require


@dataclasses.dataclass(frozen=True)
class Recording:
    """A recording as it was when it was opened. Its methods read from disk.

    Ranges of bursts hold their first and their last burst; by default they hold all.
    """

    folder: Path
    facts: dict[str, Any]  # what ran; see `brainjax.recording`
    chunks: tuple[Chunk, ...]

    @property
    def areas(self) -> tuple[str, ...]:
        """Names of the areas, in the order in which spikes count them."""
        return tuple(self.facts["areas"])

    @property
    def first(self) -> int:
        """The first burst."""
        return self.facts["first_burst"]

    @property
    def last(self) -> int:
        """The last burst; before the first one if there is none yet."""
        return self.chunks[-1].last if self.chunks else self.first - 1

    @property
    def num_spikes(self) -> int:
        """Spikes of all bursts."""
        return sum(chunk.spikes for chunk in self.chunks)

    def neurons(self) -> dict[str, np.ndarray]:
        """Return where each neuron is.

        Returns:
            "area", [neurons] int64, place in `areas`, and "position", [neurons, 3] int64, voxel of
            the area: those of the layout.

        Raises:
            FileNotFoundError: the table is gone.
            ImportError: the package pyarrow is missing.
            ValueError: the table is damaged.

        Cost: reads the table.
        Determinism: what was recorded.
        """
        path = self.folder / folders.NEURONS
        return tables.read_neurons(path, self.areas, self.facts["neurons"])

    def spikes(self, first: int | None = None, last: int | None = None) -> burst.Spikes:
        """Return the spikes of bursts, by burst and then neuron.

        Args:
            first: burst; None: the first one recorded.
            last: burst, included; None: the last one recorded.

        Returns:
            The table that `burst.fired` makes of each burst, all in one.

        Raises:
            FileNotFoundError: the table of a chunk is gone.
            ImportError: the package pyarrow is missing.
            ValueError: a burst is not recorded, or a file is damaged.

        Cost: reads whole chunks, and copies what is returned.
        Determinism: what was recorded, bit for bit.
        """
        first, last = self._range(first, last)
        empty, nowhere = np.zeros(0, np.int64), np.zeros((0, 3), np.int64)
        parts = [burst.Spikes(empty, empty, np.zeros(0, np.float32), empty, nowhere)]
        for chunk in self._chunks_of(first, last):
            path = folders.chunk_path(self.folder, folders.SPIKES, chunk.first)
            part = tables.read_spikes(path, self.areas)
            self._check(path, chunk, vars(part), chunk.spikes)
            parts.append(part[(part.burst >= first) & (part.burst <= last)])
        return burst.Spikes(*(np.concatenate(c) for c in zip(*(vars(p).values() for p in parts))))

    def candidates(
        self, first: int | None = None, last: int | None = None
    ) -> dict[str, np.ndarray]:
        """Return who received anything, and how much, by burst and then neuron.

        Args:
            first: burst; None: the first one recorded.
            last: burst, included; None: the last one recorded.

        Returns:
            The columns "burst" and "neuron", int64, and "input", float32 in the unit of the
            thresholds: a row for each candidate of each burst.

        Raises:
            FileNotFoundError: the table of a chunk is gone.
            ImportError: the package pyarrow is missing.
            ValueError: candidates or a burst are not recorded, or a file is damaged.

        Cost: reads whole chunks, and copies what is returned.
        Determinism: what was recorded, bit for bit.
        """
        require(self.facts["candidates"], "candidates", "recorded", "none")
        first, last = self._range(first, last)
        empty, none = np.zeros(0, np.int64), np.zeros(0, np.float32)
        parts: list[dict[str, Any]] = [{"burst": empty, "neuron": empty, "input": none}]
        for chunk in self._chunks_of(first, last):
            path = folders.chunk_path(self.folder, folders.CANDIDATES, chunk.first)
            part = tables.read_candidates(path)
            self._check(path, chunk, part, chunk.candidates)
            kept = (part["burst"] >= first) & (part["burst"] <= last)
            parts.append({name: column[kept] for name, column in part.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def quantity(self, name: str, first: int | None = None, last: int | None = None) -> np.ndarray:
        """Return a quantity of every neuron after each of the bursts.

        Args:
            name: of the quantity, as `create` was told.
            first: burst; None: the first one recorded.
            last: burst, included; None: the last one recorded.

        Returns:
            [bursts, neurons] with the type of the state's array; potentials and inputs in the unit
            of the thresholds.

        Raises:
            ValueError: the quantity or a burst is not recorded, or the array is damaged.

        Cost: reads the Zarr chunks that the bursts are in.
        Determinism: what was recorded, bit for bit.
        """
        recorded = self.facts["quantities"]
        require(name in recorded, "quantity", f"recorded: one of {recorded}", repr(name))
        first, last = self._range(first, last)
        grid = open_grid(self.folder, name, self.facts["neurons"])
        rows = grid.read(first - self.first, last + 1 - self.first)
        return QUANTITIES[name].unpacked(rows, self.facts["neurons"])

    def _range(self, first, last):
        first = self.first if first is None else first
        last = self.last if last is None else last
        inside = self.first <= first and last <= self.last and first <= last + 1
        rule = f"within the recorded {self.first}..{self.last}"
        require(inside, "bursts", rule, f"{first}..{last}")
        return first, last

    def _chunks_of(self, first, last):
        return [chunk for chunk in self.chunks if chunk.first <= last and chunk.last >= first]

    def _check(self, path, chunk, columns, rows):
        got, numbers = columns["burst"], columns["neuron"]
        require(got.size == rows, f"rows of {path}", rows, got.size)
        if rows:
            inside = chunk.first <= got[0] and got[-1] <= chunk.last
            steps, later = np.diff(numbers), np.diff(got)
            ascends = bool(((later > 0) | ((later == 0) & (steps > 0))).all())
            ascends &= numbers.min() >= 0 and numbers.max() < self.facts["neurons"]
            rule = f"those of bursts {chunk.first}..{chunk.last}, ascending"
            require(bool(inside and ascends), f"rows of {path}", rule, "others")


def read(folder: str | Path) -> Recording:
    """Open a recording, also one that a killed process left, or that is being written.

    Args:
        folder: of the recording.

    Returns:
        The recording, with the chunks that are whole now; later ones need another call.

    Raises:
        FileNotFoundError: the folder holds no recording.
        ValueError: `run.json` or what says that a chunk is whole is damaged, or bursts are missing.

    Cost: reads a file of some hundred bytes for each chunk.
    Determinism: as the files.
    """
    folder = Path(folder)
    facts, chunks = folders.contents(folder)
    return Recording(folder, facts, tuple(chunks))
