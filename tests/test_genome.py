import base64
import copy
import dataclasses
import itertools
import json
import warnings

import golden_genomes
import jax
import numpy as np
import pytest
from connectome_files import neuron_digest, over, synapse_digest, synapse_lines
from hypothesis import given, strategies as st

from brainjax import connectomes, genome
from brainjax.genome import GenomeError, genes, identifiers

golden = pytest.mark.parametrize("name", golden_genomes.NAMES)
A, B = "cAAAAA", "cBBBBB"
GENES = {name: default for name, (_, _, default) in genes.GENES.items()}
PROJECTOR = {"projector": {"type": "functions", "parameters": {}}}
FEAGI = {"strict": True, "weights": "f32"}  # the server of version 2.6.10


def area(*sides, to=(), **changed):
    """An area in a hierarchical genome; `to` maps ids to lists of rules."""
    mappings = {target: list(rules) for target, rules in dict(to).items()}
    return {**GENES, "block_boundaries": list(sides), "cortical_mapping_dst": mappings, **changed}


def rule(morphology, multiplier=1, **changed):
    return {
        "morphology_id": morphology,
        "morphology_scalar": [1, 1, 1],
        "postSynapticCurrent_multiplier": multiplier,
        "plasticity_flag": False,
        "plasticity_constant": 1,
        "ltp_multiplier": 1,
        "ltd_multiplier": 1,
        "plasticity_window": 0,
        "synaptic_delay_bursts": 1,
        **changed,
    }


def tree(areas, morphologies=None):
    return {
        "version": "3.0",
        "genome_title": "small",
        "physiology": {"simulation_timestep": 0.025},
        "neuron_morphologies": PROJECTOR | (morphologies or {}),
        "blueprint": areas,
    }


def parse(areas, morphologies=None):
    return genome.parse(json.dumps(tree(areas, morphologies)))


def grow(areas, morphologies=None, **options):
    return genome.grow(parse(areas, morphologies), **options)


def index_of(network, old):
    wanted = genome.migrate(old)
    return next(each.index for each in network.areas if each.id == wanted)


def places(network, pre, post):
    """Source and target voxel of each synapse from one area to another, sorted."""
    table, neurons = network.synapses, network.neurons
    of_pair = (neurons.area[table.pre] == index_of(network, pre)) & (
        neurons.area[table.post] == index_of(network, post)
    )
    ends = neurons.position[table.pre[of_pair]], neurons.position[table.post[of_pair]]
    return sorted((tuple(p.tolist()), tuple(q.tolist())) for p, q in zip(*ends))


def voxels(sides):
    return itertools.product(*map(range, sides))


# Golden genomes.


def read_quietly(text):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "genes without effect: snooze-i")
        return genome.parse(text)


def grow_quietly(parsed, **options):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "leak outside 0..1 or excitability above 1 is kept")
        warnings.filterwarnings("ignore", ".*: plastic with window 0: no synapses")
        return genome.grow(parsed, **options)


@golden
def test_golden_genome_grows_to_the_network_that_feagi_built(name):
    facts = golden_genomes.facts(name)["connectome"]
    parsed = read_quietly(golden_genomes.genome(name).read_text())
    network = grow_quietly(parsed, **FEAGI)
    assert len(network.areas) == facts["areas"]
    assert neuron_digest(network) == facts["neuron_digest"]
    assert synapse_digest(network) == facts["synapse_digest"]


@golden
def test_embedded_genome_grows_to_its_own_connectome(name):
    built = connectomes.read(golden_genomes.connectome(name))
    network = grow_quietly(read_quietly(built.genome), **FEAGI)
    assert len(network.synapses) == golden_genomes.facts(name)["connectome"]["synapses"]
    assert sorted(synapse_lines(network)) == sorted(synapse_lines(built))
    assert network.origin.memory_areas == built.origin.memory_areas
    assert network.origin.plastic_pairs == built.origin.plastic_pairs
    # Neurons come in the same order within an area; snooze is in no exported genome.
    for each in built.areas:
        there = built.neurons.area == each.index
        here = network.neurons.area == next(a.index for a in network.areas if a.id == each.id)
        for column in ("position", "threshold", "threshold_limit", "leak", "fire_limit"):
            one, other = getattr(built.neurons, column), getattr(network.neurons, column)
            np.testing.assert_array_equal(one[there], other[here])


@golden
def test_flat_and_hierarchical_genes_agree(name):
    """But for what the server's own copy changes: power's share of essential, and snooze."""
    embedded = connectomes.read(golden_genomes.connectome(name)).genome
    flat = read_quietly(golden_genomes.genome(name).read_text())
    hierarchical = read_quietly(embedded)
    assert [a.id for a in flat.areas] == [a.id for a in hierarchical.areas]
    for one, other in zip(flat.areas, hierarchical.areas):
        differing = {
            gene
            for gene in one.genes
            if np.float32(one.genes[gene]) != np.float32(other.genes[gene])
        }
        assert differing <= {"psp_uniform_distribution", "snooze"}
        assert one.dimensions == other.dimensions
        assert list(one.mappings) == list(other.mappings) or set(one.mappings) == set(
            other.mappings
        )


@golden
def test_golden_network_is_annotated(name):
    built = connectomes.read(golden_genomes.connectome(name))
    blueprint = json.loads(built.genome)["blueprint"]
    annotated = genome.annotate(built)
    assert annotated.neurons == built.neurons
    for each in annotated.areas:
        assert each.uniform == blueprint[each.id]["psp_uniform_distribution"]
        assert each.mp_driven == blueprint[each.id]["mp_driven_psp"]
        assert each.name == blueprint[each.id]["cortical_name"]


@golden
def test_golden_genome_by_default(name):
    """In percent, and with the synapses of plastic rules without a window."""
    parsed = read_quietly(golden_genomes.genome(name).read_text())
    with pytest.raises(GenomeError, match=r'must be in 0..1 .*legacy_units="percent"'):
        genome.grow(parsed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*: plastic with window 0: its synapses do not learn")
        network = genome.grow(parsed, legacy_units="percent")
    more = 1 if name == "gesture" else 0  # one voxel to a row of ten
    built = golden_genomes.facts(name)["connectome"]["synapses"]
    assert (len(network.synapses) > built) == bool(more)
    assert network.neurons.leak.max() <= 1
    assert network.neurons.excitability.max() <= 1


@golden
def test_grown_network_survives_a_file(name, tmp_path):
    parsed = read_quietly(golden_genomes.genome(name).read_text())
    network = grow_quietly(parsed, **FEAGI)
    connectomes.write(tmp_path / "grown.connectome", network)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "genes without effect: snooze-i")
        assert genome.annotate(connectomes.read(tmp_path / "grown.connectome")) == network


# Morphologies, against what the text says about one voxel at a time.


def scaled(p, s, d):
    if s > d:
        return [int(np.float32(p) / (np.float32(s) / np.float32(d)))]
    if s < d:
        ratio = np.float32(d) / np.float32(s)
        return [v for v in range(d) if int(np.float32(v) / ratio) == p]
    return [p]


def projector_targets(p, pre, post):
    return set(itertools.product(*(scaled(*axis) for axis in zip(p, pre, post))))


def vector_targets(p, post, vectors):
    moved = {tuple(a + b for a, b in zip(p, vector)) for vector in vectors}
    return {q for q in moved if all(0 <= v < d for v, d in zip(q, post))}


def pattern_targets(p, post, patterns):
    found = set()
    for source, target in patterns:
        if any(isinstance(s, int) and s != x for s, x in zip(source, p)):
            continue
        for q in voxels(post):
            fits = {"*": lambda v, x: True, "?": lambda v, x: v == x, "!": lambda v, x: v != x}
            if all(fits[t](v, x) if t in fits else v == t for t, v, x in zip(target, q, p)):
                found.add(q)
    return found


def expected(pre, post, targets_of):
    return sorted((p, q) for p in voxels(pre) for q in targets_of(p))


def grown_pairs(pre, post, name, morphology=None):
    morphologies = {} if morphology is None else {name: morphology}
    areas = {A: area(*pre, to={B: [rule(name)]}), B: area(*post)}
    return places(grow(areas, morphologies), A, B)


sides = st.tuples(*[st.integers(1, 7)] * 3)
elements = st.one_of(st.integers(-1, 7), st.sampled_from(["*", "?", "!"]))
triples = st.lists(elements, min_size=3, max_size=3)


@given(pre=sides, post=sides)
def test_projector(pre, post):
    found = grown_pairs(pre, post, "projector")
    assert found == expected(pre, post, lambda p: projector_targets(p, pre, post))


@pytest.mark.parametrize(("pre", "post"), [(16, 14), (14, 16), (24, 21), (999, 1000), (41, 41)])
def test_projector_divides_in_float32(pre, post):
    """Exact quotients, and those in float64, lead elsewhere between 16 and 14, and 24 and 21."""
    found = grown_pairs((1, pre, 1), (1, post, 1), "projector")
    assert found == expected(
        (1, pre, 1), (1, post, 1), lambda p: projector_targets(p, (1, pre, 1), (1, post, 1))
    )


@given(pre=sides, post=sides, vectors=st.lists(st.tuples(*[st.integers(-4, 4)] * 3), max_size=4))
def test_vectors(pre, post, vectors):
    morphology = {"type": "vectors", "parameters": {"vectors": list(map(list, vectors))}}
    found = grown_pairs(pre, post, "shift", morphology)
    assert found == expected(pre, post, lambda p: vector_targets(p, post, vectors))


@given(pre=sides, post=sides, patterns=st.lists(st.tuples(triples, triples), max_size=3))
def test_patterns(pre, post, patterns):
    morphology = {"type": "patterns", "parameters": {"patterns": list(map(list, patterns))}}
    found = grown_pairs(pre, post, "match", morphology)
    assert found == expected(pre, post, lambda p: pattern_targets(p, post, patterns))


@given(pre=sides, post=sides)
def test_block_to_block_as_a_function_keeps_inside(pre, post):
    found = grown_pairs(pre, post, "block_to_block", {"type": "functions", "parameters": {}})

    def clamped(p):
        return {tuple(min(x, d - 1) for x, d in zip(p, post))}

    assert found == expected(pre, post, clamped)


CORE_VECTORS = {
    "block_to_block": (0, 0, 0),
    "lateral_+x": (1, 0, 0),
    "lateral_-x": (-1, 0, 0),
    "lateral_+y": (0, 1, 0),
    "lateral_-y": (0, -1, 0),
    "lateral_+z": (0, 0, 1),
    "lateral_-z": (0, 0, -1),
}


def test_core_morphologies_need_no_definition():
    pre, post = (3, 2, 2), (2, 3, 4)
    for name, vector in CORE_VECTORS.items():
        found = grown_pairs(pre, post, name)
        assert found == expected(pre, post, lambda p, v=vector: vector_targets(p, post, [v])), name
    zero = (0, 0, 0)
    assert grown_pairs(pre, post, "all_to_0-0-0") == expected(pre, post, lambda p: {zero})
    to_all = expected(pre, post, lambda p: set(voxels(post)) if p == zero else set())
    assert grown_pairs(pre, post, "0-0-0_to_all") == to_all


def test_a_genome_may_define_a_core_morphology_otherwise():
    backwards = {"type": "vectors", "parameters": {"vectors": [[-1, 0, 0]]}}
    found = grown_pairs((3, 1, 1), (3, 1, 1), "lateral_+x", backwards)
    assert found == grown_pairs((3, 1, 1), (3, 1, 1), "lateral_-x")


def test_numbers_in_patterns_may_be_texts():
    morphology = {
        "type": "patterns",
        "parameters": {"patterns": [[["1", "*", 0.0], ["2", "?", 0]]]},
    }
    assert grown_pairs((3, 2, 1), (3, 2, 1), "match", morphology) == [
        ((1, 0, 0), (2, 0, 0)),
        ((1, 1, 0), (2, 1, 0)),
    ]


@pytest.mark.parametrize(("memories", "count"), [((True, True), 8), ((False, True), 0)])
def test_associative_memory_projects_between_memories_alone(memories, count):
    pre, post = memories
    areas = {
        A: area(2, 1, 1, to={B: [rule("associative_memory")]}, is_mem_type=pre),
        B: area(4, 2, 1, is_mem_type=post),
    }
    assert len(grow(areas).synapses) == count


def test_sources_that_are_memories_make_no_synapses():
    areas = {A: area(2, 2, 2, to={B: [rule("projector")]}, is_mem_type=True), B: area(2, 2, 2)}
    assert len(grow(areas).synapses) == 0


@pytest.mark.parametrize("name", ["episodic_memory", "memory_replay", "memory"])
def test_semantic_morphologies_make_no_synapses(name):
    assert grown_pairs((2, 2, 2), (2, 2, 2), name) == []


def test_vectors_never_repeat_a_pair():
    same = {"same": {"type": "vectors", "parameters": {"vectors": [[0, 0, 0], [1, 0, 0]]}}}
    pairs = [((0, 0, 0), (0, 0, 0)), ((0, 0, 0), (1, 0, 0)), ((1, 0, 0), (1, 0, 0))]
    both = {A: area(2, 1, 1, to={B: [rule("projector"), rule("same")]}), B: area(2, 1, 1)}
    assert places(grow(both, same), A, B) == pairs
    # A projector does repeat pairs.
    both[A]["cortical_mapping_dst"][B].reverse()
    assert places(grow(both, same), A, B) == sorted([*pairs, pairs[0], pairs[2]])


def test_voxels_of_several_neurons_send_from_each_and_receive_in_the_last():
    areas = {
        A: area(2, 1, 1, to={B: [rule("projector")]}, per_voxel_neuron_cnt=3),
        B: area(2, 1, 1, per_voxel_neuron_cnt=2),
    }
    network = grow(areas)
    first = len(identifiers.CORE_IDS)
    assert len(network.neurons) == first + 6 + 4
    pairs = sorted(zip((network.synapses.pre - first).tolist(), network.synapses.post - first - 6))
    assert pairs == [(0, 1), (1, 1), (2, 1), (3, 3), (4, 3), (5, 3)]


def test_areas_without_neurons_have_no_synapses():
    areas = {
        A: area(2, 1, 1, to={B: [rule("projector")]}),
        B: area(2, 1, 1, to={A: [rule("projector")]}, per_voxel_neuron_cnt=0),
    }
    assert len(grow(areas).synapses) == 0


# Strengths, delays and plasticity.


@pytest.mark.parametrize(
    ("weights", "multiplier", "psp", "expected"),
    [
        ("f32", -2.5, 498.75, (2.5, 498.75, True)),
        ("f32", 300, -3.0, (300, -3, False)),
        ("u8", -2.5, 498.75, (1, 255, False)),
        ("u8", -300, 3.9, (255, 3, True)),
        ("u8", 2.0, -3.0, (2, 0, False)),
    ],
)
def test_strengths(weights, multiplier, psp, expected):
    to = {B: [rule("projector", multiplier, synaptic_delay_bursts=7)]}
    areas = {A: area(1, 1, 1, to=to, postsynaptic_current=psp), B: area(1, 1, 1)}
    table = grow(areas, weights=weights).synapses
    assert (table.weight[0], table.psp[0], table.inhibitory[0]) == expected
    assert table.delay[0] == (7 if weights == "f32" else 1)


def plastic(window=3, **changed):
    return rule("projector", plasticity_flag=True, plasticity_window=window, **changed)


def test_the_last_plastic_rule_of_a_pair_counts():
    rules = [plastic(2), plastic(5, plasticity_constant=2, ltp_multiplier=3), plastic(0)]
    areas = {A: area(1, 1, 1, to={B: rules}, postsynaptic_current=4.0), B: area(1, 1, 1)}
    with pytest.warns(UserWarning, match="window 0: its synapses do not learn"):
        network = grow(areas)
    assert len(network.synapses) == 3
    (mapping,) = network.plastic
    assert (mapping.pre_area, mapping.post_area) == (index_of(network, A), index_of(network, B))
    assert (mapping.window, mapping.constant, mapping.ltp, mapping.ltd) == (5, 2, 3, 1)
    assert (mapping.bidirectional, mapping.psp, mapping.inhibitory) == (False, 4, False)


def test_associative_memory_learns_both_ways():
    associate = plastic(4, morphology_id="associative_memory", postSynapticCurrent_multiplier=-1)
    areas = {A: area(2, 1, 1, to={B: [associate]}), B: area(2, 1, 1)}
    network = grow(areas)
    assert len(network.synapses) == 0
    assert network.plastic[0].bidirectional
    assert network.plastic[0].inhibitory


def test_a_plastic_rule_without_window_ends_its_list_when_strict():
    rules = [rule("projector", 1), plastic(0), rule("projector", 3), plastic(7)]
    areas = {A: area(1, 1, 1, to={B: rules}), B: area(1, 1, 1, to={A: [rule("projector", 4)]})}
    with pytest.warns(
        UserWarning, match="cortical_mapping_dst/cBBBBB/1: plastic with window 0: no"
    ):
        network = grow(areas, strict=True)
    assert sorted(network.synapses.weight.tolist()) == [1, 4]
    assert network.plastic == ()
    assert genome.annotate(network) == network
    with pytest.warns(UserWarning, match="its synapses do not learn"):
        static = grow(areas, strict=True, unwindowed="static")
    assert len(static.synapses) == 5
    assert [mapping.window for mapping in static.plastic] == [7]
    assert genome.annotate(static, unwindowed="static") == static


def test_a_plastic_rule_without_window_ends_later_targets_when_strict():
    """In the order of their ids in base64, which is not that of their letters."""
    before, first, last = "cMBBBB", "cNBBBB", "cABBBB"
    assert genome.migrate(before) < genome.migrate(first) < genome.migrate(last)
    areas = {name: area(1, 1, 1) for name in (before, first, last)}
    once = [rule("projector")]
    areas[B] = area(1, 1, 1, to={last: once, first: [*once, plastic(0)], before: once})
    areas[first] = area(1, 1, 1, to={last: once})
    with pytest.warns(UserWarning, match=f"no synapses, here and after it, to {last}"):
        network = grow(areas, strict=True)
    reached = [len(places(network, B, to)) for to in (before, first, last)]
    assert (reached, len(places(network, first, last))) == ([1, 1, 0], 1)


# Attractivity.


def attracted(percent, key, **changed):
    areas = {
        A: area(40, 10, 10, to={B: [rule("projector", **changed)]}, synapse_attractivity=percent),
        B: area(40, 10, 10),
    }
    return grow(areas, key=key)


def test_attractivity_keeps_its_percentage():
    for percent in (10.0, 50.0, 99.0):
        kept = len(attracted(percent, jax.random.key(1)).synapses)
        deviation = np.sqrt(4000 * percent / 100 * (1 - percent / 100))
        assert abs(kept - 4000 * percent / 100) < 5 * deviation
    assert len(attracted(0.0, None).synapses) == 0
    assert len(attracted(100.0, None).synapses) == 4000


def test_attractivity_depends_on_the_key_alone():
    once, again = (attracted(50.0, jax.random.key(1)).synapses for _ in range(2))
    other = attracted(50.0, jax.random.key(2)).synapses
    assert once == again
    assert len(other) != len(once) or (other.pre != once.pre).any()


def test_attractivity_of_a_rule_goes_before_that_of_the_area():
    assert len(attracted(0.0, None, synapse_attractivity=100).synapses) == 4000


def test_attractivity_wants_a_key():
    with pytest.raises(GenomeError, match=r"key must be given, as .*/0 has an attractivity of 50"):
        attracted(50.0, None)


# Neurons.


def test_neurons_come_x_outermost_with_a_gradient_in_their_thresholds():
    changed = {
        f"firing_threshold_increment_{axis}": step for axis, step in zip("xyz", (0.1, 2, 30))
    }
    network = grow({A: area(2, 3, 4, firing_threshold=0.7, per_voxel_neuron_cnt=2, **changed)})
    here = network.neurons.area == index_of(network, A)
    position = [place for place in voxels((2, 3, 4)) for _ in range(2)]
    assert network.neurons.position[here].tolist() == list(map(list, position))
    f = np.float32
    threshold = [((f(0.7) + f(x) * f(0.1)) + f(y) * f(2)) + f(z) * f(30) for x, y, z in position]
    np.testing.assert_array_equal(network.neurons.threshold[here], np.array(threshold, f))


def test_limits_of_zero_are_none():
    network = grow({A: area(1, 1, 1), B: area(1, 1, 1, firing_threshold_limit=9, snooze=3)})
    one, other = (network.neurons.area == index_of(network, each) for each in (A, B))
    assert network.neurons.threshold_limit[one] == connectomes.NO_LIMIT
    assert network.neurons.fire_limit[one] == connectomes.UNLIMITED
    assert network.neurons.threshold_limit[other] == 9
    assert network.neurons.snooze[other] == 3


def test_core_areas_come_first_and_are_added():
    network = grow({"m__abc": area(1, 1, 1), "_power": area(1, 1, 2, neuron_excitability=0.5)})
    names = [base64.b64decode(each.id) for each in network.areas]
    core = [
        b"___death",
        b"___power",
        b"___fatig",
        b"___pain_",
        b"___pleas",
        b"___fear_",
        b"___hope_",
    ]
    assert names == [*core, b"m__abc__"]
    power = network.neurons.area == 1
    assert power.sum() == 2
    assert (network.neurons.excitability[power] == 1).all()
    death = network.neurons.area == 0
    assert network.neurons.threshold[death] == np.float32(0.1)
    assert not network.neurons.accumulates[death]
    assert network.areas[0].uniform
    assert network.areas[0].mp_driven is False
    assert network.origin.memory_areas == (genome.migrate("m__abc"),)


def test_order_of_keys_makes_no_difference():
    to = {B: [rule("projector")], A: [rule("projector", 2)]}
    areas = {A: area(2, 2, 1, to=to), B: area(2, 1, 1, to={A: [rule("projector", 3)]})}
    turned = {
        key: {
            **value,
            "cortical_mapping_dst": dict(reversed(value["cortical_mapping_dst"].items())),
        }
        for key, value in reversed(areas.items())
    }
    one, other = grow(areas), grow(turned)
    assert (one.neurons, one.synapses, one.areas) == (other.neurons, other.synapses, other.areas)


@pytest.mark.parametrize("gene", ["leak_coefficient", "neuron_excitability"])
def test_units_are_fractions_unless_one_says_otherwise(gene):
    column = {"leak_coefficient": "leak", "neuron_excitability": "excitability"}[gene]
    areas = {A: area(1, 1, 1, **{gene: 10.0})}
    with pytest.raises(GenomeError, match=r"got (leak|excitability) 10.0 in cAAAAA__"):
        grow(areas)
    for options in ({"legacy_units": "keep"}, {"strict": True}):
        with pytest.warns(UserWarning, match=r"is kept: (leak|excitability) 10.0 in cAAAAA__"):
            kept = grow(areas, **options)
        assert getattr(kept.neurons, column)[-1] == 10
    # What is not given is not in percent either.
    lacking = area(1, 1, 1)
    del lacking["neuron_excitability"]
    with pytest.warns(UserWarning, match=r"neuron_excitability is missing and taken as 1.0"):
        assert grow({A: lacking}, legacy_units="percent").neurons.excitability[-1] == 1
    percent = grow(areas, legacy_units="percent")
    assert getattr(percent.neurons, column)[-1] == np.float32(0.1)
    with pytest.raises(GenomeError, match=r"got (leak|excitability) 10.0"):
        grow({A: area(1, 1, 1, **{gene: 1000.0})}, legacy_units="percent")


# Ids and forms.


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("___pwr", b"___power"),
        ("_power", b"___power"),
        ("_death", b"___death"),
        ("o__mot", b"omot\x05\0\0\0"),
        ("omot00", b"omot\x05\0\0\0"),
        ("ogaz00", b"ogaz\x02\0\0\0"),
        ("o_spos", b"opos\x0b\0\0\0"),
        ("iv00_C", b"isvi\x49\0\0\0"),
        ("iic400", b"isvi\x49\0\0\0"),
        ("iv00BL", b"isvi\x09\0\0\0"),
        ("iic000", b"isvi\x09\0\0\0"),
        ("iv00MR", b"isvi\x59\0\0\0"),
        ("iic500", b"isvi\x59\0\0\0"),
        ("iv00TR", b"isvi\x89\0\0\0"),
        ("iic800", b"isvi\x89\0\0\0"),
        ("C76ges", b"c76ges__"),
        ("cRSMot", b"cRSMot__"),
        ("MLIcom", b"mLIcom__"),
        ("i__pro", b"ipro\x01\0\0\0"),
        ("i__acc", b"i__acc__"),
        ("o__loc", b"co__loc_"),
        ("i___id", b"ci___id_"),
        ("X19fcG93ZXI=", b"___power"),
        ("omot\x05\0\0\0", b"omot\x05\0\0\0"),
    ],
)
def test_ids_migrate(old, new):
    assert base64.b64decode(genome.migrate(old)) == new


@pytest.mark.parametrize("old", ["", "abc", "xabcde", "_other", "c" * 13, "ÿÿÿÿÿÿ", "!!!!!!!!!!!!"])
def test_other_ids_are_refused(old):
    with pytest.raises(GenomeError, match="id must be an area id, of 6 characters or 8 bytes"):
        genome.migrate(old)


def flat(areas):
    """The same areas in a flat genome, their rules as lists."""
    names = {name: key for name, (key, _, _) in genes.GENES.items()}
    blueprint = {}
    for old, values in areas.items():
        for name, value in values.items():
            if name in names:
                blueprint[f"_____10c-{old}-nx-{names[name]}"] = value
        for key, side in zip(genes.DIMENSIONS, values["block_boundaries"]):
            blueprint[f"_____10c-{old}-cx-{key}"] = side
        mappings = {
            to: [list(each.values()) for each in rules]
            for to, rules in values["cortical_mapping_dst"].items()
        }
        blueprint[f"_____10c-{old}-cx-dstmap-d"] = mappings
    return blueprint


def test_flat_and_hierarchical_are_one_network():
    delayed = rule("projector", -2, synaptic_delay_bursts=3)
    areas = {
        A: area(2, 3, 4, to={B: [delayed, plastic(2)]}, snooze=2, firing_threshold=7),
        B: area(4, 3, 2, mp_driven_psp=True),
    }
    one, other = grow(areas), grow(flat(areas))
    assert (one.neurons, one.synapses) == (other.neurons, other.synapses)
    assert one.plastic == other.plastic
    assert [a.mp_driven for a in one.areas] == [a.mp_driven for a in other.areas]
    # An exported genome has ids of eight bytes in flat keys as well.
    exported = {key.replace(A, genome.migrate(A)): value for key, value in flat(areas).items()}
    assert grow(exported).synapses == one.synapses


def test_rules_of_seven_items_have_no_window_and_a_delay_of_one():
    blueprint = flat({A: area(1, 1, 1, to={A: [rule("projector")]})})
    key = f"_____10c-{A}-cx-dstmap-d"
    blueprint[key][A] = [["projector", [1, 1, 1], -3, True, 1, 1, 1]]
    found = parse(blueprint).areas[-1].mappings[genome.migrate(A)][0]
    assert (found.window, found.delay, found.multiplier, found.plastic) == (0, 1, -3, True)


def test_timestep_has_two_names():
    old = tree({}) | {"physiology": {"burst_delay": 0.04}}
    assert genome.parse(json.dumps(tree({}))).timestep == 25
    assert genome.parse(json.dumps(old)).timestep == 40
    old["physiology"]["simulation_timestep"] = None
    assert genome.parse(json.dumps(old)).timestep == 40


@pytest.mark.parametrize("name", ["simulation_timestep", "burst_delay"])
@pytest.mark.parametrize(("value", "rule"), [(0, "positive"), ("1", "a finite number")])
def test_a_wrong_timestep_is_named_as_it_is_given(name, value, rule):
    wrong = tree({}) | {"physiology": {name: value}}
    with pytest.raises(GenomeError, match=f"^physiology/{name} must be {rule}; got {value!r}"):
        genome.parse(json.dumps(wrong))


# What is warned about, and what is refused.


def test_unknown_genes_are_warned_about_by_name():
    with pytest.warns(UserWarning, match="genes without effect: other_gene"):
        parse({A: area(1, 1, 1, other_gene=1)})
    blueprint = flat({A: area(1, 1, 1)}) | {f"_____10c-{A}-nx-snooze-i": 3}
    with pytest.warns(UserWarning, match="genes without effect: snooze-i"):
        assert parse(blueprint).areas[-1].genes["snooze"] == 0


def test_parts_of_a_flat_blueprint_that_are_no_genes_are_warned_about():
    blueprint = flat({A: area(1, 1, 1)}) | {"_____10c-other": 3}
    with pytest.warns(UserWarning, match="parts of the blueprint without effect: _____10c-other"):
        parse(blueprint)
    with pytest.raises(GenomeError, match=r"blueprint/_____10c-abc must be an area id"):
        parse(flat({"abc": area(1, 1, 1)}))
    with pytest.raises(GenomeError, match=r"cAAAAA-cx-fire_t-f must be a gene given once"):
        parse(flat({A: area(1, 1, 1)}) | {f"_____10c-{A}-cx-fire_t-f": 3})


def test_missing_genes_are_warned_about_by_name():
    lacking = area(1, 1, 1)
    del lacking["firing_threshold"]
    with pytest.warns(UserWarning, match=r"firing_threshold is missing .* 1.0 in cAAAAA__"):
        parse({A: lacking})


def test_parts_of_a_rule_without_effect_are_warned_about():
    with pytest.warns(UserWarning, match="parts of a rule without effect: strange"):
        parse({A: area(1, 1, 1, to={A: [rule("projector", strange=1)]})})
    with pytest.warns(UserWarning, match="morphology_scalar has no effect"):
        parse({A: area(1, 1, 1, to={A: [rule("projector", morphology_scalar=[2, 1, 1])]})})


@pytest.mark.parametrize(
    ("form", "path"),
    [
        (lambda areas: areas, "blueprint/cAAAAA/cortical_mapping_dst/cBBBBB"),
        (flat, "blueprint/_____10c-cAAAAA-cx-dstmap-d/cBBBBB"),
    ],
)
def test_missing_area_is_an_error_with_the_path_to_it(form, path):
    areas = form({A: area(1, 1, 1, to={B: [rule("projector")]})})
    with pytest.raises(GenomeError, match=f"{path} must be a mapping to an area of the genome"):
        parse(areas)


@pytest.mark.parametrize(
    ("name", "morphology"),
    [
        ("randomizer", {"type": "functions", "parameters": {}}),
        ("tile", {"type": "composite", "parameters": {"mapper_morphology": "projector"}}),
        ("nowhere", None),
    ],
)
def test_undispatched_morphologies_are_named_with_their_areas(name, morphology):
    areas = {A: area(2, 1, 1, to={B: [rule(name), rule("projector")]}), B: area(2, 1, 1)}
    morphologies = {} if morphology is None else {name: morphology}
    with pytest.raises(GenomeError, match=rf'on_unknown="skip".*{name} \(cAAAAA__ to cBBBBB__\)'):
        grow(areas, morphologies)
    for options in ({"on_unknown": "skip"}, {"strict": True}):
        with pytest.warns(UserWarning, match=rf"make no synapses: {name} \(cAAAAA__ to cBBBBB__\)"):
            assert len(grow(areas, morphologies, **options).synapses) == 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"block_boundaries": [0, 1, 1]}, "block_boundaries must be a whole number in 1.."),
        ({"block_boundaries": [1, 1]}, "block_boundaries must be three numbers of voxels"),
        ({"block_boundaries": [1, 1, 2**63]}, "block_boundaries must be a whole number in 1.."),
        ({"firing_threshold": "1"}, "firing_threshold must be a finite number; got '1'"),
        ({"firing_threshold": 1e39}, "firing_threshold must be a finite number; got 1e"),
        ({"firing_threshold": float("nan")}, "numbers must be finite; got NaN"),
        ({"refractory_period": 65_536}, "refractory_period must be a whole number in 0..65535"),
        ({"refractory_period": 1.5}, "refractory_period must be a whole number"),
        ({"mp_driven_psp": "yes"}, "mp_driven_psp must be true or false; got 'yes'"),
        ({"synapse_attractivity": 101}, "synapse_attractivity must be in 0..100; got 101"),
        ({"cortical_mapping_dst": []}, "cortical_mapping_dst must be a JSON object|^$"),
        ({"cortical_mapping_dst": {A: [3]}}, "cortical_mapping_dst/cAAAAA/0 must be a JSON object"),
        ({"cortical_mapping_dst": {A: [[]]}}, "cortical_mapping_dst/cAAAAA/0 must be 1 to 9 items"),
        ({"cortical_mapping_dst": {"?": []}}, r"cortical_mapping_dst/\? must be an area id"),
    ],
)
def test_bad_genes_are_named(changed, message):
    if changed == {"cortical_mapping_dst": []}:
        changed = {"cortical_mapping_dst": [1]}
    with pytest.raises(GenomeError, match=message):
        parse({A: area(1, 1, 1) | changed})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "genome must be JSON"),
        ("[]", "genome must be a JSON object"),
        ("[" * 100_000, "genome must be JSON"),
        ("9" * 5000, "genome must be JSON"),
        ("{}", "blueprint must be a JSON object"),
        ('{"blueprint": {}}', "version must be 2.0, 2.1 or 3.0; got ''"),
        ('{"blueprint": {}, "version": "4.0"}', "version must be 2.0, 2.1 or 3.0; got '4.0'"),
        (
            '{"blueprint": {"cAAAAA": 3}, "version": "3.0"}',
            "blueprint/cAAAAA must be a JSON object",
        ),
    ],
)
def test_what_is_no_genome_is_refused(text, message):
    with pytest.raises(GenomeError, match=message):
        genome.parse(text)


def test_twins_are_refused():
    areas = {"Cabcde": area(1, 1, 1), "cabcde": area(1, 1, 1)}
    with pytest.raises(GenomeError, match=r"blueprint/cabcde must be another area than .*Cabcde"):
        parse(areas)


@pytest.mark.parametrize(
    ("morphology", "message"),
    [
        ({"type": "vectors", "parameters": {}}, "bad/vectors must be a list"),
        ({"type": "vectors", "parameters": {"vectors": [[1, 2]]}}, "of three elements, x, y and z"),
        (
            {"type": "vectors", "parameters": {"vectors": [["*", 0, 0]]}},
            "bad/vectors must be a fin",
        ),
        (
            {"type": "patterns", "parameters": {"patterns": [[1]]}},
            "pairs of source and destination",
        ),
        (
            {"type": "patterns", "parameters": {"patterns": [[["*", "*", "+"], [0, 0, 0]]]}},
            r'must be of integers, "\*", "\?" and "!"; got',
        ),
    ],
)
def test_malformed_morphologies_are_named(morphology, message):
    with pytest.raises(GenomeError, match=message):
        grown_pairs((2, 2, 2), (2, 2, 2), "bad", morphology)


def test_sizes_are_checked_before_anything_is_made():
    with pytest.raises(GenomeError, match="blueprint/cAAAAA: neurons must be at most 50000000"):
        grow({A: area(2**31 - 1, 2**31 - 1, 2**31 - 1)})
    everything = {"all": {"type": "patterns", "parameters": {"patterns": [[["*"] * 3, ["*"] * 3]]}}}
    areas = {A: area(100, 100, 100, to={A: [rule("all")]})}
    with pytest.raises(
        GenomeError, match=r"neuron_morphologies/all must be at most .*1000000000000"
    ):
        grow(areas, everything)
    many = {"many": {"type": "vectors", "parameters": {"vectors": [[0, 0, 0]] * 200}}}
    areas = {A: area(100, 100, 100, to={A: [rule("many")]})}
    with pytest.raises(GenomeError, match=r"neuron_morphologies/many must be at most .*00000000"):
        grow(areas, many)
    areas = {A: area(10, 1, 1, to={A: [rule("all"), rule("projector")]})}
    with pytest.raises(
        GenomeError, match="neuron_morphologies/projector must be at most 5; got 10"
    ):
        grow(areas, everything, max_synapses=105)


@pytest.mark.parametrize("option", ["weights", "on_unknown", "unwindowed", "legacy_units"])
def test_options_are_checked(option):
    with pytest.raises((GenomeError, TypeError), match=option):
        grow({}, **{option: "other"})


def test_annotation_needs_a_genome_of_the_same_areas():
    network = grow({A: area(1, 1, 1)})
    without = dataclasses.replace(network, genome=None)
    with pytest.raises(GenomeError, match="genome must be in the network"):
        genome.annotate(without)
    other = dataclasses.replace(network, genome=json.dumps(tree({})))
    with pytest.raises(GenomeError, match="areas must be those of the genome; got cAAAAA__"):
        genome.annotate(other)


# Fuzzing: a small genome with a part of it exchanged.

JUNK = [None, True, -1, 0, 2**63, 1e308, "", "x", "cAAAAA", [], [[]], {}, {"": {}}, [1, 2, 3]]


def fuzzed_genomes():
    rules = [rule("projector"), rule("shift", -2), rule("match", synaptic_delay_bursts=2)]
    areas = {A: area(2, 2, 1, to={B: rules, A: [plastic()]}), B: area(1, 2, 2)}
    morphologies = {
        "shift": {"type": "vectors", "parameters": {"vectors": [[0, 1, 0]]}},
        "match": {"type": "patterns", "parameters": {"patterns": [[["*", 0, "?"], [0, "!", "*"]]]}},
    }
    return [tree(areas, morphologies), tree(flat(areas), morphologies)]


def paths_of(part, path=()):
    """Where everything in a JSON tree stands."""
    yield path
    lists = enumerate(part) if isinstance(part, list) else ()
    for key, child in part.items() if isinstance(part, dict) else lists:
        yield from paths_of(child, (*path, key))


def exchanged(whole, path, new):
    whole = copy.deepcopy(whole)
    part = whole
    for key in path[:-1]:
        part = part[key]
    if path:
        part[path[-1]] = new
        return whole
    return new


FUZZED = [(whole, list(paths_of(whole))) for whole in fuzzed_genomes()]


def damage_genome(data):
    whole, paths = FUZZED[data.draw(st.integers(0, len(FUZZED) - 1))]
    path = paths[data.draw(st.integers(0, len(paths) - 1))]
    new = data.draw(st.sampled_from(JUNK) | st.integers() | st.floats() | st.text(max_size=8))
    text = json.dumps(exchanged(whole, path, new))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            network = genome.grow(genome.parse(text), max_synapses=10_000, on_unknown="skip")
        except (GenomeError, connectomes.ConnectomeError):
            return
    assert network.genome == text
    assert connectomes.decode(connectomes.encode(network, compress=False)).synapses == (
        network.synapses
    )


@pytest.mark.parametrize("examples", [300, pytest.param(5000, marks=pytest.mark.slow)])
def test_damaged_genomes_are_errors_or_other_networks(examples):
    over(examples, damage_genome, deadline=20_000)
