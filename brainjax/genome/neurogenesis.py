"""The neurons of a genome's areas."""

import dataclasses
import math
from typing import Literal

import numpy as np

from brainjax import burst
from brainjax.connectomes import NO_LIMIT, UNLIMITED, Neurons, neurons
from brainjax.connectomes.network import MAX_NEURONS
from brainjax.genome.blueprint import AreaGenes, Genome
from brainjax.genome.genes import GenomeError, require, warn
from brainjax.genome.identifiers import is_core, readable

Units = Literal["error", "keep", "percent"]


def check_units(genome: Genome, legacy_units: Units) -> Genome:
    """Return the genome with leak and excitability as fractions, or kept, or refuse it.

    Raises:
        GenomeError: one of them is out of range, and not to be kept.
    """
    if legacy_units == "percent":
        areas = tuple(_from_percent(area) for area in genome.areas)
        genome = dataclasses.replace(genome, areas=areas)
    wrong = [text for area in genome.areas for text in _out_of_range(area)]
    if not wrong:
        return genome
    listed = f"{wrong[0]}, and {len(wrong) - 1} more" if len(wrong) > 1 else wrong[0]
    if legacy_units == "keep":
        warn(f"leak outside 0..1 or excitability above 1 is kept: {listed}")
        return genome
    rule = "leak must be in 0..1 and excitability at most 1"
    advice = 'legacy_units="percent" divides both by 100, "keep" keeps them'
    raise GenomeError(f"{rule}; got {listed}; {advice}")


def offsets(genome: Genome) -> list[int]:
    """Return the first neuron of each area, and last the number of neurons.

    Raises:
        GenomeError: there would be too many.
    """
    starts = [0]
    for area in genome.areas:
        count = math.prod(area.dimensions) * int(area.genes["per_voxel_neuron_cnt"])
        total = starts[-1] + count
        require(total <= MAX_NEURONS, f"{area.path}: neurons", f"at most {MAX_NEURONS}", total)
        starts.append(total)
    return starts


def make_neurons(genome: Genome) -> Neurons:
    """Return the neurons of all areas: x outermost, then y, z, and those of a voxel.

    Thresholds grow along the axes as `burst.graded_threshold` says.
    """
    starts = offsets(genome)
    counts = np.diff(starts)

    def spread(gene, empty=None):
        """A gene of each area for its neurons; 0 is `empty`, if given."""
        values = [float(area.genes[gene]) for area in genome.areas]
        if empty is not None:
            values = [value or empty for value in values]
        return np.repeat(values, counts)

    positions = [_positions(area) for area in genome.areas]
    core = np.repeat([is_core(area.id) for area in genome.areas], counts)
    return neurons(
        np.concatenate([_thresholds(*pair) for pair in zip(genome.areas, positions)]),
        np.repeat(np.arange(len(counts)), counts),
        np.concatenate(positions),
        threshold_limit=spread("firing_threshold_limit", NO_LIMIT),
        leak=spread("leak_coefficient"),
        refractory_period=spread("refractory_period"),
        fire_limit=spread("consecutive_fire_cnt_max", UNLIMITED),
        snooze=spread("snooze"),
        excitability=np.where(core, 1.0, spread("neuron_excitability")),
        accumulates=spread("mp_charge_accumulation").astype(bool),
    )


def _positions(area: AreaGenes):
    _, height, depth = area.dimensions
    voxel = np.arange(math.prod(area.dimensions))
    position = np.stack([voxel // (height * depth), voxel // depth % height, voxel % depth], 1)
    return np.repeat(position.astype(np.uint32), int(area.genes["per_voxel_neuron_cnt"]), axis=0)


def _thresholds(area: AreaGenes, positions):
    increments = [area.genes[f"firing_threshold_increment_{axis}"] for axis in "xyz"]
    with np.errstate(over="ignore"):  # what is not finite is refused with the other columns
        return burst.graded_threshold(area.genes["firing_threshold"], positions, increments)


def _from_percent(area: AreaGenes) -> AreaGenes:
    given = {"leak_coefficient", "neuron_excitability"} - area.missing
    fractions = {name: area.genes[name] / 100 for name in given}
    return dataclasses.replace(area, genes={**area.genes, **fractions})


def _out_of_range(area: AreaGenes):
    leak, excitability = area.genes["leak_coefficient"], area.genes["neuron_excitability"]
    if not 0 <= leak <= 1:
        yield f"leak {leak} in {readable(area.id)}"
    # Neurons of a core area have excitability 1 whatever the genome says.
    if excitability > 1 and not is_core(area.id):
        yield f"excitability {excitability} in {readable(area.id)}"
