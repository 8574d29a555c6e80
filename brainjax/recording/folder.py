"""The folder of a recording: what ran, and which chunks of bursts are whole."""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from brainjax.recording.quantities import check_names
from brainjax.validation import require

FORMAT = 1  # of the folder
FACTS, NEURONS, CHUNKS = "run.json", "neurons.parquet", "chunks"
SPIKES, CANDIDATES = "spikes", "candidates"
# What reading and going on depend on, and their types.
_FACTS = {
    "config": dict,
    "areas": list,
    "quantities": list,
    "candidates": bool,
    "chunk_bursts": int,
    "first_burst": int,
    "neurons": int,
    "power": float,
}
_KINDS = {
    dict: "an object",
    list: "a list of names",
    bool: "true or false",
    int: "a whole number",
    float: "a number with a point",
}
_LEAST = {"chunk_bursts": 1, "first_burst": 0, "neurons": 1}
_DIGITS = 10  # of the number of a burst, which is below 2^32


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Bursts that were written together, the first and the last included."""

    first: int
    last: int
    spikes: int
    candidates: int
    most_spikes: int  # of a burst
    most_candidates: int


def contents(folder: Path) -> tuple[dict[str, Any], list[Chunk]]:
    """Return what a recording says of its run, and its whole chunks, in order.

    Raises:
        FileNotFoundError: the folder holds no recording.
        ValueError: a file is damaged or of another format, or bursts are missing.
    """
    facts = _facts(folder)
    return facts, _chunks(folder, facts["first_burst"])


def _facts(folder):
    path = folder / FACTS
    if not path.is_file():
        raise FileNotFoundError(f"no recording in {folder}: it has no {FACTS}")
    content = _read_json(path)
    is_facts = isinstance(content, dict) and content.keys() >= {"format", *_FACTS}
    require(is_facts, str(path), f"facts with {sorted(_FACTS)}", content, most=80)
    require(content["format"] == FORMAT, "format of the recording", FORMAT, content["format"])
    for name, kind in _FACTS.items():
        right = type(content[name]) is kind
        if kind is list:
            right = right and all(isinstance(each, str) for each in content[name])
        require(right, f"{name} in {path}", _KINDS[kind], content[name], most=80)
    for name, least in _LEAST.items():
        require(content[name] >= least, f"{name} in {path}", f"at least {least}", content[name])
    check_names(content["quantities"], f"quantities in {path}")
    return content


def _chunks(folder, next_burst):
    found = []
    for path in sorted((folder / CHUNKS).glob("[0-9]*.json")):
        content = _read_json(path)
        names = {field.name for field in dataclasses.fields(Chunk)}
        right = isinstance(content, dict) and content.keys() == names
        right = right and all(type(each) is int and each >= 0 for each in content.values())
        require(right, str(path), f"whole numbers {sorted(names)}", content, most=80)
        chunk = Chunk(**content)
        follows = chunk.first == next_burst
        require(follows, f"first burst of {path}", f"burst {next_burst}", chunk.first)
        named = path == chunk_path(folder, CHUNKS, chunk.first) and chunk.first <= chunk.last
        require(named, f"bursts of {path}", "those of its name", (chunk.first, chunk.last))
        found.append(chunk)
        next_burst = chunk.last + 1
    return found


def chunk_path(folder: Path, kind: str, first: int) -> Path:
    """Return the file of a chunk that begins with burst `first`."""
    suffix = "json" if kind == CHUNKS else "parquet"
    return folder / kind / f"{first:0{_DIGITS}}.{suffix}"


def write_json(path: Path, content: Any) -> None:
    """Write a file that appears whole or not at all."""
    with_rename(path, lambda whole: whole.write_text(json.dumps(content, indent=2) + "\n"))


def write_chunk(folder: Path, chunk: Chunk) -> None:
    """Say that a chunk is whole."""
    write_json(chunk_path(folder, CHUNKS, chunk.first), dataclasses.asdict(chunk))


def with_rename(path: Path, write: Callable[[Path], Any]) -> None:
    """Call `write(other path)` and give the file its name when it is whole and on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}")  # readers of the folder skip such names
    write(unfinished)
    _sync(unfinished)
    os.replace(unfinished, path)
    _sync(path.parent)


def remove_after(folder: Path, burst: int) -> None:
    """Remove the chunks that begin after a burst, and what a crash left of such chunks."""
    for kind in (CHUNKS, SPIKES, CANDIDATES):  # first what says that the others are whole
        for path in sorted((folder / kind).glob("*"), reverse=True):  # no gap at any time
            name = path.name.removeprefix(".")
            number = name[:_DIGITS]
            is_ours = number.isdecimal() and name == chunk_path(folder, kind, int(number)).name
            if is_ours and int(number) > burst:
                path.unlink()
        if (folder / kind).exists():
            _sync(folder / kind)


def _sync(path):
    """Wait until a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_json(path):
    try:
        return json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} must be whole JSON; got {error}") from None
