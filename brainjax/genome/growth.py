"""From a genome to the network that it describes."""

import dataclasses
from typing import Literal

from jaxtyping import Array

from brainjax.connectomes import Area, Network, Origin, PlasticMapping
from brainjax.genome.blueprint import AreaGenes, Genome, parse
from brainjax.genome.genes import require
from brainjax.genome.identifiers import is_memory, readable
from brainjax.genome.neurogenesis import Units, check_units, make_neurons
from brainjax.genome.synaptogenesis import (
    Weights,
    check_morphologies,
    grow_synapses,
    live_mappings,
)

MAX_SYNAPSES = 1 << 27


def grow(
    genome: Genome,
    *,
    strict: bool = False,
    weights: Weights | None = None,
    on_unknown: Literal["error", "skip"] | None = None,
    unwindowed: Literal["static", "skip"] | None = None,
    legacy_units: Units | None = None,
    key: Array | None = None,
    max_synapses: int = MAX_SYNAPSES,
) -> Network:
    """Grow the network of a genome.

    Areas become neurons, x outermost and z innermost, core areas first and the others in the order
    of their ids; rules become synapses. A voxel of several neurons sends from each and receives in
    the last.

    | option | default | strict |
    |---|---|---|
    | weights | "f32": as written | "u8": cut to 0..255, fractional ones 1, no delay |
    | on_unknown: a morphology that is not dispatched | "error" | "skip", with a warning |
    | unwindowed: a plastic rule of window 0 | "static" synapses | "skip" it and what is after it |
    | legacy_units: leak outside 0..1, excitability above 1 | "error" | "keep" them |

    After a rule are those behind it in its list, and all of the same area to targets of later ids.
    What is kept, skipped or made static is warned about. `legacy_units="percent"` divides leak and
    excitability of all areas by 100.

    Unknown morphologies are errors by default because a network without their synapses is another
    one, and looks the same.

    Args:
        genome: from `read` or `parse`.
        strict: what FEAGI does, accidents included; each option below overrides it.
        weights: type of weights and postsynaptic potentials.
        on_unknown: morphologies that FEAGI names and does not implement.
        unwindowed: plastic rules that cannot learn.
        legacy_units: percent where a fraction belongs.
        key: typed PRNG key, wanted where an attractivity is below 100 percent.
        max_synapses: how many to make at most.

    Returns:
        The network, with flags, plastic mappings and the genome's text.

    Raises:
        GenomeError: a rule, a unit or a size is not what the options allow.

    Cost: O(neurons + synapses) time and memory.
    Determinism: the same genome, options and key give the same arrays everywhere.
    """
    weights = weights or ("u8" if strict else "f32")
    on_unknown = on_unknown or ("skip" if strict else "error")
    unwindowed = unwindowed or ("skip" if strict else "static")
    legacy_units = legacy_units or ("keep" if strict else "error")
    for name, value, allowed in (
        ("weights", weights, ("f32", "u8")),
        ("on_unknown", on_unknown, ("error", "skip")),
        ("unwindowed", unwindowed, ("static", "skip")),
        ("legacy_units", legacy_units, ("error", "keep", "percent")),
    ):
        require(value in allowed, name, f"one of {allowed}", repr(value))
    check_morphologies(genome, is_error=on_unknown == "error")
    genome = check_units(genome, legacy_units)
    neurons, skip = make_neurons(genome), unwindowed == "skip"
    synapses = grow_synapses(
        genome, weights=weights, skip_unwindowed=skip, key=key, most=max_synapses
    )
    indices = {area.id: index for index, area in enumerate(genome.areas)}
    return Network(
        neurons=neurons,
        synapses=synapses,
        areas=tuple(_area(area, index) for index, area in enumerate(genome.areas)),
        plastic=_plastic_mappings(genome, indices, skip),
        genome=genome.text,
        origin=_origin(genome),
    )


def annotate(network: Network, *, unwindowed: Literal["static", "skip"] = "skip") -> Network:
    """Add what the arrays of a connectome file do not hold, and its genome does.

    Args:
        network: as read from a file.
        unwindowed: as for `grow`, when the network was grown; FEAGI skips.

    Returns:
        The same, with names and flags of its areas, and plastic mappings.

    Raises:
        GenomeError: it has no genome, or an area that the genome does not have.
    """
    require(network.genome is not None, "genome", "in the network", "none")
    genome = parse(network.genome or "")
    by_id = {area.id: area for area in genome.areas}
    areas = []
    for area in network.areas:
        require(area.id in by_id, "areas", "those of the genome", readable(area.id))
        areas.append(_area(by_id[area.id], area.index))
    indices = {area.id: area.index for area in areas}
    plastic = _plastic_mappings(genome, indices, unwindowed == "skip")
    return dataclasses.replace(network, areas=tuple(areas), plastic=plastic)


def _area(genes: AreaGenes, index) -> Area:
    return Area(
        index,
        genes.id,
        mp_driven=bool(genes.genes["mp_driven_psp"]),
        uniform=bool(genes.genes["psp_uniform_distribution"]),
        name=genes.name,
    )


def _plastic_mappings(genome: Genome, indices, skip) -> tuple[PlasticMapping, ...]:
    """One for each pair of areas: the last plastic rule of its list that has a window."""
    mappings = {}
    for area in genome.areas:
        for target, rules in live_mappings(area, skip).items():
            for rule in rules:
                if rule.plastic and rule.window >= 1:
                    mappings[indices[area.id], indices[target]] = PlasticMapping(
                        pre_area=indices[area.id],
                        post_area=indices[target],
                        window=rule.window,
                        constant=rule.constant,
                        ltp=rule.ltp,
                        ltd=rule.ltd,
                        bidirectional=rule.morphology == "associative_memory",
                        psp=float(area.genes["postsynaptic_current"]),
                        inhibitory=rule.multiplier < 0,
                    )
    return tuple(mappings[pair] for pair in sorted(mappings))


def _origin(genome: Genome) -> Origin:
    pairs = sorted(
        (area.id, target)
        for area in genome.areas
        for target, rules in area.mappings.items()
        if any(rule.plastic for rule in rules)
    )
    return Origin(
        source=f"genome: {genome.title}",
        memory_areas=tuple(sorted(area.id for area in genome.areas if is_memory(area.id))),
        plastic_pairs=tuple(pairs),
    )
