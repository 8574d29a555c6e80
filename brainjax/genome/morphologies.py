"""Morphologies: which voxels of an area reach which voxels of another."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from brainjax.genome.genes import GenomeError, integer, mapping, require

# Functions that make synapses, and those that only mean something to a memory.
PROJECTING = ("projector", "block_to_block", "associative_memory")
SEMANTIC = ("episodic_memory", "memory_replay")
_WILDCARDS = ("*", "?", "!")


def _vector(*steps: int) -> dict:
    return {"type": "vectors", "parameters": {"vectors": [list(steps)]}}


def _pattern(sources: str | int, targets: str | int) -> dict:
    patterns = [[[sources] * 3, [targets] * 3]]
    return {"type": "patterns", "parameters": {"patterns": patterns}}


# What FEAGI adds to a genome that does not define them.
CORE = {
    "block_to_block": _vector(0, 0, 0),
    "lateral_+x": _vector(1, 0, 0),
    "lateral_-x": _vector(-1, 0, 0),
    "lateral_+y": _vector(0, 1, 0),
    "lateral_-y": _vector(0, -1, 0),
    "lateral_+z": _vector(0, 0, 1),
    "lateral_-z": _vector(0, 0, -1),
    "all_to_0-0-0": _pattern("*", 0),
    "0-0-0_to_all": _pattern(0, "*"),
}

Sides = tuple[int, int, int]  # voxels of an area along x, y, z
Pattern = tuple[tuple[int | str, ...], tuple[int | str, ...]]


def is_dispatched(name: str, morphologies: Mapping[str, Mapping]) -> bool:
    """Tell whether a morphology is one that a network can be grown by."""
    of = kind(name, morphologies)
    return of in ("vectors", "patterns") or (of == "functions" and name in (*PROJECTING, *SEMANTIC))


def connect(
    name: str,
    morphologies: Mapping[str, Mapping],
    pre: Sides,
    post: Sides,
    *,
    between_memories: bool,
    most: int,
) -> np.ndarray:
    """Return the pairs of voxels that a morphology connects.

    Args:
        name: of a morphology that is dispatched.
        morphologies: of the genome, by name.
        pre: sides of the area that sends.
        post: sides of the area that receives.
        between_memories: both areas are memories.
        most: pairs that may be made.

    Returns:
        [pairs, 2], int64: number of the voxel that sends and of the one that receives, counted with
        z innermost; ascending, each pair once.

    Raises:
        GenomeError: the morphology is malformed, or makes too many pairs.

    Cost: time and memory of the pairs, repeated ones included.
    """
    path = f"neuron_morphologies/{name}"
    of = kind(name, morphologies)
    if of == "vectors":
        parts = [_shifts(vector) for vector in _vectors(morphologies[name], path)]
    elif of == "patterns":
        parts = [_pattern_axes(pattern) for pattern in _patterns(morphologies[name], path)]
    elif name == "projector" or (name == "associative_memory" and between_memories):
        parts = [[_scaled] * 3]
    elif name == "block_to_block":
        parts = [[_clamped] * 3]
    else:
        parts = []
    _check_count(sum(_bound(axes, pre, post) for axes in parts), most, path)
    return _union([_product(axes, pre, post) for axes in parts], post)


def kind(name: str, morphologies: Mapping[str, Mapping]) -> str | None:
    """Return the type of a morphology, or None where the genome has no such morphology."""
    if name in morphologies:
        path = f"neuron_morphologies/{name}"
        of = mapping(morphologies[name], path).get("type")
        require(isinstance(of, str), f"{path}/type", "a text", repr(of))
        return of
    return "functions" if name in (*PROJECTING, *SEMANTIC) else None


def _bound(axes, pre, post):
    """At least as many pairs as there will be."""
    return math.prod(int(axis(a, b, count_only=True)) for axis, a, b in zip(axes, pre, post))


def _product(axes, pre, post):
    """Every combination of the pairs along x, y and z."""
    # The last axis is the fastest: a voxel's number is (x * Y + y) * Z + z.
    pairs = [axis(a, b) for axis, a, b in zip(axes, pre, post)]
    joined = pairs[0]
    for (sources, targets), a, b in zip(pairs[1:], pre[1:], post[1:]):
        joined = (
            (joined[0][:, None] * a + sources).ravel(),
            (joined[1][:, None] * b + targets).ravel(),
        )
    return joined


def _union(products, post):
    size = post[0] * post[1] * post[2]
    codes = [sources * size + targets for sources, targets in products]
    codes = np.unique(np.concatenate(codes)) if codes else np.zeros(0, np.int64)
    return np.stack([codes // size, codes % size], 1)


def _check_count(count, most, path):
    require(count <= most, f"synapses of {path}", f"at most {most}", count)


# An axis: pairs of coordinates along it, or an upper bound on their number.


def _scaled(pre, post, *, count_only=False):
    """Shrink or stretch one side to the other: quotients in float32, cut to whole numbers."""
    if count_only:
        return max(pre, post)
    longer = np.arange(max(pre, post))
    ratio = np.float32(max(pre, post)) / np.float32(min(pre, post))
    shorter = (longer.astype(np.float32) / ratio).astype(np.int64)
    # Rounding may lead one voxel beyond the end: such a voxel has no partner.
    inside = shorter < min(pre, post)
    longer, shorter = longer[inside], shorter[inside]
    return (longer, shorter) if pre >= post else (shorter, longer)


def _clamped(pre, post, *, count_only=False):
    """Each coordinate to itself, or to the last there is."""
    if count_only:
        return pre
    sources = np.arange(pre)
    return sources, np.minimum(sources, post - 1)


def _shifts(vector):
    """Each coordinate to the one at a distance, if that is inside."""

    def shifted(step):
        def axis(pre, post, *, count_only=False):
            if count_only:
                return pre
            sources = np.arange(pre)
            targets = sources + step
            inside = (targets >= 0) & (targets < post)
            return sources[inside], targets[inside]

        return axis

    return [shifted(step) for step in vector]


def _pattern_axes(pattern: Pattern):
    def matched(source, target):
        def axis(pre, post, *, count_only=False):
            if count_only:
                sources = 1 if isinstance(source, int) else pre
                return sources * (post if target in ("*", "!") else 1)
            sources = np.arange(pre)
            if isinstance(source, int):
                sources = sources[sources == source]
            return _targets(sources, target, post)

        return axis

    return [matched(source, target) for source, target in zip(*pattern)]


def _targets(sources, target, post):
    if target == "?":
        inside = sources < post
        return sources[inside], sources[inside]
    targets = np.arange(post)
    if isinstance(target, int):
        targets = targets[targets == target]
    first, second = np.repeat(sources, targets.size), np.tile(targets, sources.size)
    if target == "!":
        other = first != second
        first, second = first[other], second[other]
    return first, second


def _vectors(morphology, path):
    vectors = _list(morphology, "vectors", path)
    return [
        [integer(step, f"{path}/vectors", -(2**31), 2**31 - 1) for step in _triple(vector, path)]
        for vector in vectors
    ]


def _patterns(morphology, path) -> list[Pattern]:
    found = []
    for pattern in _list(morphology, "patterns", path):
        is_pair = isinstance(pattern, list) and len(pattern) == 2
        require(is_pair, f"{path}/patterns", "pairs of source and destination", pattern)
        source, target = (tuple(_element(e, path) for e in _triple(p, path)) for p in pattern)
        found.append((source, target))
    return found


def _list(morphology, name, path) -> list:
    parameters = mapping(morphology.get("parameters"), f"{path}/parameters")
    found = parameters.get(name)
    require(isinstance(found, list), f"{path}/{name}", "a list", type(found).__name__)
    return list(found or ())


def _triple(value, path) -> Sequence:
    is_triple = isinstance(value, list) and len(value) == 3
    require(is_triple, path, "of three elements, x, y and z", value)
    return value


def _element(value, path):
    if value in _WILDCARDS:
        return value
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            raise GenomeError(
                f'{path} must be of integers, "*", "?" and "!"; got {value[:20]!r}'
            ) from None
    return integer(value, path, -(2**31), 2**31 - 1)
