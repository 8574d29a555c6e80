"""What tests of connectomes and genomes share: a small network, digests, damages."""

import base64
import hashlib
import json

import numpy as np
from hypothesis import HealthCheck, given, settings, strategies as st

from brainjax import connectomes
from brainjax.connectomes import Area, Network, Origin

GENOME = json.dumps({"version": "3.0", "blueprint": {}, "neuron_morphologies": {}})
MANIFEST = json.dumps(
    {
        "container_format_version": 3,
        "genome_sha256": hashlib.sha256(GENOME.encode()).hexdigest(),
        "producer_version": "0.0.49",
    }
)
# Lengths and numbers that files lie with.
LIES = (0, 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**63 - 1, 2**64 - 1)


def area_id(name):
    return base64.b64encode(name).decode()


def small_network(version=3):
    """Seven neurons in three areas; what only version 3 holds is not at its default there."""
    newer = version >= 3
    rng = np.random.default_rng(0)
    count, post = 7, np.array([3, 4, 5, 6, 1, 3], np.uint32)
    neurons = connectomes.neurons(
        np.array([1, 2, 0.5, 7, 1, 1, 1]),
        np.array([0, 1, 3, 3, 3, 3, 3]),
        rng.integers(0, 9, (count, 3)),
        potential=rng.random(count),
        leak=np.array([0, 0.1, 0.5, 1, 10, 0, 0]),
        refractory_period=np.arange(count),
        excitability=np.array([1, 1, 0.5, 0, 100, 1, 1]),
        **(
            {"snooze": 3, "fire_limit": 9, "accumulates": np.arange(count) % 2 == 0}
            if newer
            else {}
        ),
    )
    weight = np.array([1, 255, 3, 0, 2, 5]) + (0.5 if newer else 0)
    synapses = connectomes.synapses(
        np.array([3, 0, 0, 6, 2, 3]),
        post,
        weight,
        np.array([1, 2, 3, 4, 5, 255]) * (1.25 if newer else 1),
        inhibitory=np.array([0, 1, 0, 0, 1, 0], bool),
        valid=np.array([1, 1, 1, 0, 1, 1], bool),
        **({"delay": np.arange(1, 7)} if newer else {}),
    )
    return Network(
        neurons=neurons,
        synapses=synapses,
        areas=tuple(
            Area(index, area_id(name))
            for index, name in ((0, b"___death"), (1, b"___power"), (3, b"mAbcde__"))
        ),
        burst=46,
        power=1.5,
        ledger_window=20,
        genome=GENOME if newer else None,
        origin=_origin() if newer else Origin(description="small"),
    )


def _origin():
    memory, power = area_id(b"mAbcde__"), area_id(b"___power")
    return Origin(
        created=1_795_224_086,
        description="größer",
        source="test",
        tags={connectomes.files.MANIFEST_TAG: MANIFEST, "b": "2", "a": "1"},
        manifest=MANIFEST,
        memory_areas=(memory,),
        plastic_pairs=((memory, power),),
        regions=("one", "two"),
    )


def neuron_digest(network):
    """SHA-256 over the sorted descriptions of all neurons, whatever their ids."""
    neurons, ids = network.neurons, {area.index: area.id for area in network.areas}
    columns = (
        neurons.threshold,
        neurons.threshold_limit,
        neurons.leak,
        neurons.excitability,
        neurons.refractory_period,
        neurons.fire_limit,
        neurons.snooze,
        neurons.accumulates,
    )
    return _digest(
        f"{_place(network, ids, neuron)},{t:.9g},{limit:.9g},{leak:.9g},{e:.9g},{r},{f},{s},{a:d}"
        for neuron, (t, limit, leak, e, r, f, s, a) in enumerate(zip(*columns))
    )


def synapse_digest(network):
    """SHA-256 over the sorted descriptions of all synapses, whatever the ids of their neurons."""
    return _digest(synapse_lines(network))


def synapse_lines(network):
    """A description of each synapse by the places of its neurons."""
    table, ids = network.synapses, {area.index: area.id for area in network.areas}
    columns = (table.pre, table.post, table.weight, table.psp, table.inhibitory, table.delay)
    return [
        f"{_place(network, ids, pre)},{_place(network, ids, post)},{w:.9g},{psp:.9g},{i:d},{d}"
        for pre, post, w, psp, i, d in zip(*columns)
    ]


def _place(network, ids, neuron):
    x, y, z = network.neurons.position[neuron]
    return f"{ids[int(network.neurons.area[neuron])]},{x},{y},{z}"


def _digest(lines):
    return hashlib.sha256("".join(f"{line}\n" for line in sorted(lines)).encode()).hexdigest()


def over(examples, damage, deadline):
    """Draw so many examples; one that hangs, or allocates for long, is over its deadline, in ms."""
    patient = settings(
        max_examples=examples, deadline=deadline, suppress_health_check=list(HealthCheck)
    )
    patient(given(st.data())(damage))()


@st.composite
def damages(draw, size, places=()):
    """A function that damages bytes: flips, overwrites, cuts out, doubles or cuts off.

    `places` are offsets of lengths and counts, which are hit half of the time.
    """
    anywhere = st.integers(0, size - 1)
    offset = draw(st.one_of(st.sampled_from(places), anywhere) if places else anywhere)
    match draw(st.sampled_from(["flip", "lie", "bytes", "cut", "double", "end"])):
        case "flip":
            bit = 1 << draw(st.integers(0, 7))
            return lambda data: data[:offset] + bytes([data[offset] ^ bit]) + data[offset + 1 :]
        case "lie":
            lie = draw(st.sampled_from(LIES)).to_bytes(8, "little")[: draw(st.sampled_from([4, 8]))]
            return lambda data: data[:offset] + lie + data[offset + len(lie) :]
        case "bytes":
            new = draw(st.binary(min_size=1, max_size=16))
            return lambda data: data[:offset] + new + data[offset + len(new) :]
        case "cut":
            length = draw(st.integers(1, 1000))
            return lambda data: data[:offset] + data[offset + length :]
        case "double":
            length = draw(st.integers(1, 1000))
            return lambda data: data[: offset + length] + data[offset:]
        case "end":
            return lambda data: data[:offset]
