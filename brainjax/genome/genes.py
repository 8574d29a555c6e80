"""Genes of an area: their names in both forms of a genome, and what a value may be."""

import functools
import math
import re
import warnings

from brainjax import validation

MAX_TEXT = 80

# Hierarchical name: key in a flat genome, what it must be, and what it is where it is missing.
GENES: dict[str, tuple[str, str, float | int | bool]] = {
    "per_voxel_neuron_cnt": ("_n_cnt-i", "count", 1),
    "firing_threshold": ("fire_t-f", "number", 1.0),
    "firing_threshold_increment_x": ("ftincx-f", "number", 0.0),
    "firing_threshold_increment_y": ("ftincy-f", "number", 0.0),
    "firing_threshold_increment_z": ("ftincz-f", "number", 0.0),
    "firing_threshold_limit": ("fthlim-f", "number", 0.0),
    "refractory_period": ("refrac-i", "bursts", 0),
    "leak_coefficient": ("leak_c-f", "number", 0.0),
    "consecutive_fire_cnt_max": ("c_fr_c-i", "bursts", 0),
    "snooze": ("snooze-f", "bursts", 0),
    "neuron_excitability": ("excite-f", "number", 1.0),
    "postsynaptic_current": ("pstcr_-f", "number", 1.0),
    "mp_charge_accumulation": ("mp_acc-b", "flag", True),
    "mp_driven_psp": ("mp_psp-b", "flag", False),
    "psp_uniform_distribution": ("pspuni-b", "flag", False),
    "synapse_attractivity": ("synatt-f", "percent", 100.0),
    "is_mem_type": ("memory-b", "flag", False),
}
DIMENSIONS = ("___bbx-i", "___bby-i", "___bbz-i")
# Read, or kept for other programs: no part in the network.
OTHER_FLAT = re.compile(
    r"(pstcrm|leak_v)-f|de_gen-f|(mem__t|mem_gr|mem_ls|tmpdpt|devcnt)-i|(_group|subgrp)-t|gd_vis-b"
    r"|(rcord|2dcor)[xyz]-i"
)
OTHER_HIERARCHICAL = re.compile(
    r"postsynaptic_current_max|degeneration|leak_variability|longterm_mem_threshold"
    r"|lifespan_growth_rate|init_lifespan|temporal_depth|dev_count|cortical_(group|type|id)"
    r"|(sub_)?group_id|visualization|relative_coordinate|2d_coordinate|coordinates_[23]d"
    r"|cortical_dimensions|location_generation_type"
)
# Left out by the programs that export genomes: not worth a warning.
OFTEN_MISSING = frozenset({"snooze"})


class GenomeError(ValueError):
    """What is wrong with a genome: the path to it, the rule and the value."""


require = functools.partial(validation.require, error=GenomeError, most=MAX_TEXT)


def warn(message: str) -> None:
    """Warn about something in a genome that has no effect, or not the one it says."""
    warnings.warn(message, stacklevel=3)


def number(value, path: str) -> float:
    """Return a number, finite in float32."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    require(is_number and abs(value) <= 3.4028235e38, path, "a finite number", repr(value))
    return float(value)


def integer(value, path: str, lowest: int, highest: int) -> int:
    """Return a whole number between two others; 3.0 is one."""
    rule = f"a whole number in {lowest}..{highest}"
    found = number(value, path)
    require(math.trunc(found) == found and lowest <= found <= highest, path, rule, repr(value))
    return int(found)


def checked(kind: str, value, path: str) -> float | int | bool:
    """Return a gene of the kind that `GENES` says."""
    match kind:
        case "number":
            return number(value, path)
        case "count":
            return integer(value, path, 0, 2**31)
        case "bursts":
            return integer(value, path, 0, 65535)
        case "percent":
            percent = number(value, path)
            require(0 <= percent <= 100, path, "in 0..100", value)
            return percent
        case "flag":
            require(isinstance(value, bool) or value in (0, 1), path, "true or false", repr(value))
            return bool(value)
        case _:
            raise AssertionError(kind)


def mapping(value, path: str) -> dict:
    """Return a JSON object."""
    require(isinstance(value, dict), path, "a JSON object", type(value).__name__)
    return value
