"""The folder of a recording: what ran, and which chunks of bursts are whole."""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from brainjax.validation import require

FORMAT = 1  # of the folder
FACTS, CHUNKS = "run.json", "chunks"
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
}
_KINDS = {dict: "an object", list: "a list of names", bool: "true or false", int: "a number"}
_DIGITS = 10  # of the number of a burst, which is below 2^32


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Bursts that were written together, the first and the last included."""

    first: int
    last: int
    spikes: int
    candidates: int


def facts(folder: Path) -> dict[str, Any]:
    """Return what a recording says of its run.

    Raises:
        FileNotFoundError: the folder holds no recording.
        ValueError: it is damaged, or of another format.
    """
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
    return content


def chunks(folder: Path) -> list[Chunk]:
    """Return the whole chunks of a recording, in order.

    Raises:
        ValueError: a file is damaged, or bursts are missing between two chunks.
    """
    found = []
    for path in sorted((folder / CHUNKS).glob("[0-9]*.json")):
        content = _read_json(path)
        names = {field.name for field in dataclasses.fields(Chunk)}
        right = isinstance(content, dict) and content.keys() == names
        right = right and all(type(each) is int and each >= 0 for each in content.values())
        require(right, str(path), f"whole numbers {sorted(names)}", content, most=80)
        chunk = Chunk(**content)
        follows = not found or chunk.first == found[-1].last + 1
        rule = f"burst {found[-1].last + 1}" if found else "a burst"
        require(follows, f"first burst of {path}", rule, chunk.first)
        named = path == chunk_path(folder, CHUNKS, chunk.first) and chunk.first <= chunk.last
        require(named, f"bursts of {path}", "those of its name", (chunk.first, chunk.last))
        found.append(chunk)
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
    """Call `write(other path)` and give the file its name when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}")  # readers of the folder skip such names
    write(unfinished)
    os.replace(unfinished, path)


def remove_after(folder: Path, burst: int) -> None:
    """Remove the chunks that begin after a burst, the last one first.

    Raises:
        ValueError: a chunk has bursts on both sides.
    """
    whole = chunks(folder)
    ends = [chunk.last for chunk in whole]
    known = not whole or burst in (whole[0].first - 1, *ends)
    rule = f"at the end of a recorded chunk, such as {ends[-3:]}"
    require(known, "burst of the state", rule, burst)
    for chunk in reversed([chunk for chunk in whole if chunk.first > burst]):
        # The one that says that the others are whole goes first.
        for kind in (CHUNKS, SPIKES, CANDIDATES):
            chunk_path(folder, kind, chunk.first).unlink(missing_ok=True)


def _read_json(path):
    try:
        return json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} must be whole JSON; got {error}") from None
