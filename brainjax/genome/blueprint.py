"""A genome as it is written: areas with their genes, and the rules from area to area."""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path

from brainjax.genome.genes import (
    DIMENSIONS,
    GENES,
    MAX_TEXT,
    OFTEN_MISSING,
    OTHER_FLAT,
    OTHER_HIERARCHICAL,
    GenomeError,
    checked,
    integer,
    mapping,
    number,
    require,
    warn,
)
from brainjax.genome.identifiers import CORE_IDS, migrate, readable
from brainjax.genome.morphologies import CORE
from brainjax.genome.rules import RENAMED, Rule, mappings_of

MAX_BYTES = 1 << 28  # of a genome, unless told otherwise
MAX_SIDE = 2**31 - 1  # voxels

_FLAT_KEY = re.compile(r"_____10c-(.{6}|.{8}|.{12}|.+?)-(?:cx|nx)-(.+)", re.DOTALL)
# Of a core area that a genome does not have.
_CORE_GENES: dict[str, object] = {
    "block_boundaries": [1, 1, 1],
    "firing_threshold": 0.1,
    "mp_charge_accumulation": False,
    "postsynaptic_current": 500.0,
    "psp_uniform_distribution": True,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AreaGenes:
    """What a genome says about an area."""

    id: str  # 8 bytes in base64
    path: str  # in the genome
    name: str
    dimensions: tuple[int, int, int]  # voxels
    genes: Mapping[str, float | int | bool]  # by their hierarchical names, all of `genes.GENES`
    missing: frozenset[str]  # genes that are not given, and have their default
    mappings: Mapping[str, tuple[Rule, ...]]  # to areas, by id


@dataclasses.dataclass(frozen=True, kw_only=True)
class Genome:
    """Areas in the order of their index, and morphologies: its own, and core ones it leaves out."""

    version: str
    title: str
    timestep: float | None  # ms, of a burst
    areas: tuple[AreaGenes, ...]
    morphologies: Mapping[str, Mapping]
    text: str  # the JSON it was read from


def read(path: str | Path, *, max_bytes: int = MAX_BYTES) -> Genome:
    """Read a genome file; see `parse`.

    Raises:
        GenomeError: it is larger than `max_bytes`, or `parse` refuses it.
    """
    size = Path(path).stat().st_size
    require(size <= max_bytes, "genome", f"at most {max_bytes} bytes", size)
    try:
        return parse(Path(path).read_text("utf-8"))
    except UnicodeDecodeError as error:
        raise GenomeError(f"genome must be UTF-8; got {error.reason}") from None


def parse(text: str) -> Genome:
    """Return a genome: flat (2.0, 2.1, 3.0) or hierarchical.

    Ids of six characters become those of eight bytes, core areas that are missing are added, and
    genes that are unknown, missing or without effect are warned about by name.

    Args:
        text: JSON.

    Raises:
        GenomeError: it is not a genome, a value is out of range, or a mapping leads to no area.
    """
    try:
        tree = json.loads(text, parse_constant=_refuse_constant)
    except GenomeError:
        raise
    except (ValueError, RecursionError) as error:
        raise GenomeError(f"genome must be JSON; got {str(error)[:MAX_TEXT]}") from None
    require(isinstance(tree, dict), "genome", "a JSON object", type(tree).__name__)
    blueprint = mapping(tree.get("blueprint"), "blueprint")
    version = str(tree.get("version", ""))
    require(version in ("2.0", "2.1", "3.0"), "version", "2.0, 2.1 or 3.0", repr(version))
    is_flat = any(_FLAT_KEY.fullmatch(key) for key in blueprint)
    found = _from_flat(blueprint) if is_flat else _from_hierarchical(blueprint)
    _warn_of_genes(found)
    areas = _with_core_areas({area.id: area for area in map(_area, _without_twins(found))})
    _check_targets(areas)
    morphologies = mapping(tree.get("neuron_morphologies", {}), "neuron_morphologies")
    return Genome(
        version=version,
        title=str(tree.get("genome_title", "")),
        timestep=_timestep(mapping(tree.get("physiology", {}), "physiology")),
        areas=areas,
        morphologies=CORE
        | {
            RENAMED.get(str(name), str(name)): mapping(value, f"neuron_morphologies/{name}")
            for name, value in morphologies.items()
        },
        text=text,
    )


@dataclasses.dataclass(frozen=True)
class _Found:
    """Genes of an area by their hierarchical names, and where each stands."""

    id: str
    path: str
    genes: dict
    paths: dict
    unknown: tuple[str, ...]


def _from_flat(blueprint):
    names = {flat: name for name, (flat, _, _) in GENES.items()}
    names |= {"dstmap-d": "cortical_mapping_dst", "__name-t": "cortical_name"}
    by_area: dict[str, dict] = {}
    other = []
    for key, value in blueprint.items():
        if match := _FLAT_KEY.fullmatch(key):
            entries, path = by_area.setdefault(match[1], {}), f"blueprint/{key}"
            require(match[2] not in entries, path, "a gene given once", match[2])
            entries[match[2]] = (path, value)
        else:
            other.append(key[:MAX_TEXT])
    if other:
        warn(f"parts of the blueprint without effect: {', '.join(sorted(other))[:1000]}")
    found = []
    for old, entries in by_area.items():
        path = f"blueprint/_____10c-{old}"
        genes = {names[gene]: value for gene, (_, value) in entries.items() if gene in names}
        paths = {names[gene]: where for gene, (where, _) in entries.items() if gene in names}
        if all(gene in entries for gene in DIMENSIONS):
            genes["block_boundaries"] = [entries[gene][1] for gene in DIMENSIONS]
        unknown = [
            gene
            for gene in sorted(set(entries) - set(names) - set(DIMENSIONS))
            if not OTHER_FLAT.fullmatch(gene)
        ]
        found.append(_Found(migrate(old, path), path, genes, paths, tuple(unknown)))
    return found


def _from_hierarchical(blueprint):
    known = {*GENES, "block_boundaries", "cortical_mapping_dst", "cortical_name"}
    found = []
    for old, genes in blueprint.items():
        path = f"blueprint/{old[:MAX_TEXT]}"
        genes = mapping(genes, path)
        unknown = [
            each for each in sorted(set(genes) - known) if not OTHER_HIERARCHICAL.fullmatch(each)
        ]
        paths = {name: f"{path}/{name}" for name in genes}
        found.append(_Found(migrate(old, path), path, genes, paths, tuple(unknown)))
    return found


def _without_twins(found):
    first = {}
    for each in found:
        other = first.setdefault(each.id, each)
        require(other is each, each.path, f"another area than {other.path}", readable(each.id))
    return found


def _warn_of_genes(found):
    unknown = sorted({gene for each in found for gene in each.unknown})
    if unknown:
        warn(f"genes without effect: {', '.join(unknown)[:1000]}")
    for name in sorted(set(GENES) - OFTEN_MISSING):
        lacking = [readable(each.id) for each in found if each.genes.get(name) is None]
        if lacking:
            default = GENES[name][2]
            warn(f"{name} is missing and taken as {default} in {', '.join(lacking)[:1000]}")


def _area(found) -> AreaGenes:
    field = f"{found.path}/block_boundaries"
    sides = found.genes.get("block_boundaries")
    is_three = isinstance(sides, list) and len(sides) == 3
    require(is_three, field, "three numbers of voxels", repr(sides))
    x, y, z = (integer(side, field, 1, MAX_SIDE) for side in sides)
    genes: dict[str, float | int | bool] = {}
    for name, (_, kind, default) in GENES.items():
        value = found.genes.get(name)
        where = found.paths.get(name, found.path)
        genes[name] = default if value is None else checked(kind, value, where)
    mappings = found.genes.get("cortical_mapping_dst") or {}
    path = found.paths.get("cortical_mapping_dst", found.path)
    return AreaGenes(
        id=found.id,
        path=found.path,
        name=str(found.genes.get("cortical_name") or readable(found.id)),
        dimensions=(x, y, z),
        genes=genes,
        missing=frozenset(name for name in GENES if found.genes.get(name) is None),
        mappings=mappings_of(mapping(mappings, path), path),
    )


def _with_core_areas(areas):
    for core in CORE_IDS:
        if core not in areas:
            areas[core] = _area(_Found(core, f"core area {readable(core)}", _CORE_GENES, {}, ()))
    return tuple(areas[core] for core in CORE_IDS) + tuple(
        areas[each] for each in sorted(set(areas) - set(CORE_IDS), key=readable)
    )


def _check_targets(areas):
    ids = {area.id for area in areas}
    for area in areas:
        for target, rules in area.mappings.items():
            path = rules[0].path.rsplit("/", 1)[0] if rules else area.path
            require(target in ids, path, "a mapping to an area of the genome", readable(target))


def _timestep(physiology):
    names = ("simulation_timestep", "burst_delay")  # the second one in older genomes
    given = [name for name in names if physiology.get(name) is not None]
    if not given:
        return None
    path = f"physiology/{given[0]}"
    seconds = number(physiology[given[0]], path)
    require(seconds > 0, path, "positive", seconds)
    return 1000 * seconds


def _refuse_constant(name):
    raise GenomeError(f"numbers must be finite; got {name}")
