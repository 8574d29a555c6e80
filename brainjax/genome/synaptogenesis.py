"""The synapses between a genome's areas."""

import math
from typing import Literal

import jax
import numpy as np
from jaxtyping import Array

from brainjax.connectomes import Synapses, synapses
from brainjax.genome.blueprint import AreaGenes, Genome
from brainjax.genome.genes import GenomeError, require, warn
from brainjax.genome.identifiers import readable
from brainjax.genome.morphologies import connect, is_dispatched, kind
from brainjax.genome.neurogenesis import offsets
from brainjax.genome.rules import Rule

Weights = Literal["f32", "u8"]


def grow_synapses(
    genome: Genome, *, weights: Weights, skip_unwindowed: bool, key: Array | None, most: int
) -> Synapses:
    """Return the synapses of all rules, area by area; see `growth.grow`.

    Raises:
        GenomeError: they would be too many, or an attractivity wants a key.
    """
    starts, index = offsets(genome), {area.id: at for at, area in enumerate(genome.areas)}
    parts, total = [], 0
    for pre, area in enumerate(genome.areas):
        mappings = live_mappings(area, skip_unwindowed)
        _warn_of_unwindowed(area, mappings)
        for post, rules in sorted((index[to], rules) for to, rules in mappings.items()):
            where = (starts[pre], starts[post])
            pairs = _Pairs(genome, area, genome.areas[post])
            for at, rule in enumerate(rules):
                made = pairs.grow(rule, key, (pre, post, at), most - total)
                total += len(made)
                parts.append((made + where, _strength(rule, area, weights)))
    return _joined(parts)


def check_morphologies(genome: Genome, *, is_error: bool) -> None:
    """Refuse, or warn about, rules whose morphology is not dispatched.

    Raises:
        GenomeError: there are some and `is_error`.
    """
    rules: dict[str, list[str]] = {}
    for area in genome.areas:
        for target, each in area.mappings.items():
            for rule in each:
                if not is_dispatched(rule.morphology, genome.morphologies):
                    pair = f"{readable(area.id)} to {readable(target)}"
                    rules.setdefault(rule.morphology, []).append(pair)
    if not rules:
        return
    listed = "; ".join(f"{name} ({', '.join(pairs)})" for name, pairs in sorted(rules.items()))
    if not is_error:
        warn(f"morphologies that are not dispatched make no synapses: {listed[:1000]}")
        return
    rule = 'dispatched; on_unknown="skip" leaves their synapses out'
    raise GenomeError(f"morphologies must be {rule}; got {listed[:1000]}")


def live_mappings(area: AreaGenes, skip_unwindowed: bool) -> dict[str, tuple[Rule, ...]]:
    """Return an area's rules by target, or those before the first plastic one without a window.

    FEAGI visits targets in the order of their ids. A rule that it cannot register ends all of an
    area's, those to later targets included.
    """
    live = {}
    for target, rules in sorted(area.mappings.items()):
        ends = [at for at, rule in enumerate(rules) if _cannot_learn(rule)]
        if ends and skip_unwindowed:
            return live | {target: rules[: ends[0]]}
        live[target] = rules
    return live


def _cannot_learn(rule):
    return rule.plastic and rule.window == 0


def _warn_of_unwindowed(area, live):
    """Tell what plastic rules without a window do, and what else there is none of after one."""
    for target, rules in sorted(area.mappings.items()):
        for rule in filter(_cannot_learn, rules):
            told = f"{rule.path}: plastic with window 0"
            if len(live[target]) < len(rules):
                later = [readable(to) for to in sorted(area.mappings.keys() - live.keys())]
                where = f", to {', '.join(later)[:1000]}" if later else ""
                warn(f"{told}: no synapses, here and after it{where}")
                return
            warn(f"{told}: its synapses do not learn")


class _Pairs:
    """What the rules from one area to another have made so far."""

    def __init__(self, genome: Genome, pre: AreaGenes, post: AreaGenes):
        self._genome, self._pre, self._post = genome, pre, post
        self._pre_each, self._post_each = (
            int(area.genes["per_voxel_neuron_cnt"]) for area in (pre, post)
        )
        self._size = math.prod(post.dimensions) * self._post_each
        self._made = np.zeros(0, np.int64)

    def grow(self, rule: Rule, key: Array | None, place: tuple, most: int) -> np.ndarray:
        """Return the synapses of a rule: [n, 2], neurons counted from the first of their area.

        What is drawn depends on the key and the place: the areas, and the rule's in its list.
        """
        if not is_dispatched(rule.morphology, self._genome.morphologies):
            return np.zeros((0, 2), np.int64)
        memories = [bool(area.genes["is_mem_type"]) for area in (self._pre, self._post)]
        associates = rule.morphology == "associative_memory" and all(memories)
        if (memories[0] and not associates) or not (self._pre_each and self._post_each):
            return np.zeros((0, 2), np.int64)
        voxels = connect(
            rule.morphology,
            self._genome.morphologies,
            self._pre.dimensions,
            self._post.dimensions,
            between_memories=all(memories),
            most=most // self._pre_each,
        )
        pre = np.add.outer(voxels[:, 0] * self._pre_each, np.arange(self._pre_each)).ravel()
        last = voxels[:, 1] * self._post_each + self._post_each - 1
        codes = pre * self._size + np.repeat(last, self._pre_each)
        if kind(rule.morphology, self._genome.morphologies) == "vectors":
            codes = codes[~np.isin(codes, self._made)]
        percent = rule.attractivity
        percent = self._pre.genes["synapse_attractivity"] if percent is None else percent
        codes = codes[_attracted(len(codes), percent, key, place, rule.path)]
        self._made = np.concatenate([self._made, codes])
        return np.stack([codes // self._size, codes % self._size], 1)


def _attracted(count, percent, key, place, path):
    """Which synapses to keep: each on its own. All or none need no draw."""
    if percent in (0, 100) or not count:
        return np.full(count, percent == 100)
    require(key is not None, "key", f"given, as {path} has an attractivity of {percent}", None)
    assert key is not None
    for number in place:
        key = jax.random.fold_in(key, number)
    bits = np.asarray(jax.random.bits(key, (count,), "uint32"))
    return bits < percent / 100 * 2.0**32


def _strength(rule: Rule, area: AreaGenes, weights: Weights):
    """Weight, psp, inhibitory and delay of the synapses of a rule."""
    multiplier, psp = rule.multiplier, float(area.genes["postsynaptic_current"])
    if weights == "f32":
        return abs(multiplier), psp, multiplier < 0, rule.delay
    multiplier = multiplier if multiplier == math.trunc(multiplier) else 1
    psp = math.trunc(min(max(psp, 0), 255))
    return min(abs(multiplier), 255), psp, multiplier < 0, 1


def _joined(parts) -> Synapses:
    counts = [len(made) for made, _ in parts]
    ends = np.concatenate([made for made, _ in parts]) if parts else np.zeros((0, 2), np.int64)
    columns = [np.repeat(each, counts) for each in zip(*(strength for _, strength in parts))]
    weight, psp, inhibitory, delay = columns or [np.zeros(0)] * 4
    return synapses(
        ends[:, 0], ends[:, 1], weight, psp, inhibitory=inhibitory.astype(bool), delay=delay
    )
