"""Rules by which one area of a genome connects to another."""

import dataclasses

from brainjax.genome.genes import MAX_TEXT, checked, integer, mapping, number, require, warn
from brainjax.genome.identifiers import migrate, readable

RENAMED = {"memory": "episodic_memory"}
# In the order of a rule that is a list.
_RULE_ITEMS = (
    "morphology_id",
    "morphology_scalar",
    "postSynapticCurrent_multiplier",
    "plasticity_flag",
    "plasticity_constant",
    "ltp_multiplier",
    "ltd_multiplier",
    "plasticity_window",
    "synaptic_delay_bursts",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """One way in which an area connects to another."""

    path: str  # in the genome
    morphology: str
    multiplier: float  # weight; negative: inhibitory
    plastic: bool
    constant: float
    ltp: float
    ltd: float
    window: int  # bursts
    delay: int  # bursts
    attractivity: float | None  # percent; None: that of the area


def mappings_of(mappings: dict, path: str) -> dict[str, tuple[Rule, ...]]:
    """Return the rules of an area, by the id of the area that they lead to."""
    found = {}
    for old, rules in mappings.items():
        where = f"{path}/{old[:MAX_TEXT]}"
        target = migrate(old, where)
        require(target not in found, where, "given once", readable(target))
        require(isinstance(rules, list), where, "a list of rules", type(rules).__name__)
        found[target] = tuple(_rule(rule, f"{where}/{at}") for at, rule in enumerate(rules))
    return found


def _rule(rule, path) -> Rule:
    if isinstance(rule, list):
        rule_is_short = 1 <= len(rule) <= len(_RULE_ITEMS)
        require(rule_is_short, path, f"1 to {len(_RULE_ITEMS)} items", len(rule))
        rule = dict(zip(_RULE_ITEMS, rule))
    rule = {name: value for name, value in mapping(rule, path).items() if value is not None}
    unknown = sorted(set(rule) - {*_RULE_ITEMS, "synapse_attractivity"})
    if unknown:
        warn(f"{path}: parts of a rule without effect: {', '.join(unknown)[:1000]}")
    name = rule.get("morphology_id")
    require(isinstance(name, str) and bool(name), path, "a rule that names a morphology", rule)
    scalar = rule.get("morphology_scalar", 1)
    if scalar not in (1, [1, 1, 1]):
        warn(f"{path}: morphology_scalar has no effect; got {str(scalar)[:MAX_TEXT]}")
    attractivity = rule.get("synapse_attractivity")
    return Rule(
        path=path,
        morphology=RENAMED.get(str(name), str(name)),
        multiplier=number(rule.get(_RULE_ITEMS[2], 1), f"{path}/{_RULE_ITEMS[2]}"),
        plastic=bool(
            checked("flag", rule.get("plasticity_flag", False), f"{path}/plasticity_flag")
        ),
        constant=number(rule.get(_RULE_ITEMS[4], 1), f"{path}/{_RULE_ITEMS[4]}"),
        ltp=number(rule.get(_RULE_ITEMS[5], 1), f"{path}/{_RULE_ITEMS[5]}"),
        ltd=number(rule.get(_RULE_ITEMS[6], 1), f"{path}/{_RULE_ITEMS[6]}"),
        window=integer(rule.get(_RULE_ITEMS[7], 0), f"{path}/{_RULE_ITEMS[7]}", 0, 2**31),
        delay=integer(rule.get(_RULE_ITEMS[8], 1), f"{path}/{_RULE_ITEMS[8]}", 1, 255),
        attractivity=None if attractivity is None else checked("percent", attractivity, path),
    )
