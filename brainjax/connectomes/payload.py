"""What is inside a .connectome: a network as bincode."""

import dataclasses
import warnings

import numpy as np

from brainjax.connectomes.bincode import Reader, Writer
from brainjax.connectomes.network import (
    MAX_NEURONS,
    NEURON_COLUMNS,
    SYNAPSE_COLUMNS,
    Area,
    ConnectomeError,
    Network,
    Neurons,
    Origin,
    Synapses,
    neurons,
    require,
    synapses,
)

SCHEMA = 1  # of the payload, in all versions of the container
FULL = 0  # persist mode: every neuron and synapse is in the arrays
# In order. Files before version 3 have neither these nor float weights.
_NEWER_NEURONS = ("threshold_limit", "fire_count", "fire_limit", "snooze", "accumulates")
_NEURONS = tuple(name for name in NEURON_COLUMNS if name not in _NEWER_NEURONS)
_OLDER_SYNAPSES = ("pre", "post", "weight", "psp", "inhibitory", "valid")
_NEWER_SYNAPSES = ("delay", "edge_flags", "eligibility")
_UNREAD = ("long-term memory neurons", "their replay frames", "lite synapses")


def decode_payload(payload: bytes, version: int) -> Network:
    """Return the network in a payload.

    Args:
        payload: not compressed.
        version: of the container.

    Raises:
        ConnectomeError: a length, an id or a number is not what the format allows.
    """
    reader = Reader(payload)
    schema = reader.integer("I", "schema")
    require(schema == SCHEMA, "schema", SCHEMA, schema)
    some_neurons = _read_neurons(reader, version)
    some_synapses = _read_synapses(reader, version, len(some_neurons))
    areas = _read_areas(reader)
    burst = reader.integer("Q", "burst")
    power = reader.scalar("f", "power")
    window = reader.integer("Q", "ledger_window")
    origin = _read_metadata(reader)
    genome, tail = _read_tail(reader) if version >= 3 else (None, {})
    reader.finish()
    if version < 3:
        warnings.warn(
            f"a file of version {version} does not hold {', '.join(_NEWER_NEURONS)}: "
            "taken as none, 0, none, 0 and true",
            stacklevel=4,
        )
    return Network(
        neurons=some_neurons,
        synapses=some_synapses,
        areas=areas,
        burst=burst,
        power=power,
        ledger_window=window,
        genome=genome,
        origin=dataclasses.replace(origin, **tail),
    )


def encode_payload(network: Network, version: int) -> bytes:
    """Return a network as the payload of a file.

    Raises:
        ConnectomeError: the version cannot hold something that the network has.
    """
    if version < 3:
        _check_older(network, version)
    writer = Writer()
    writer.scalar("I", SCHEMA)
    _write_neurons(writer, network.neurons, version)
    _write_synapses(writer, network.synapses, version)
    writer.scalar("Q", len(network.areas))
    for area in network.areas:
        writer.scalar("I", area.index)
        writer.string(area.id)
    writer.scalar("Q", network.burst)
    writer.scalar("f", network.power)
    writer.scalar("Q", network.ledger_window)
    _write_metadata(writer, network.origin)
    if version >= 3:
        _write_tail(writer, network)
    return writer.bytes()


def _read_table(reader, owner, names, columns, count):
    """Columns of one length, which may be above `count` where a file keeps room to grow."""
    table = {}
    for name in names:
        values = reader.vector(columns[name], f"{owner}.{name}")
        table[name] = (
            values.reshape(-1, 3) if name == "position" and not len(values) % 3 else values
        )
    length = len(next(iter(table.values())))
    for name, values in table.items():
        require(len(values) == length, f"{owner}.{name}", f"{length} long", len(values))
    require(count <= length, f"{owner}.count", f"at most {length}, as its columns are", count)
    require(not table["valid"][count:].any(), f"{owner}.valid", "false beyond the count", "true")
    return table


def _read_counts(reader, owner, largest):
    count, capacity = (reader.integer("Q", f"{owner}.{name}") for name in ("count", "capacity"))
    require(count <= largest, f"{owner}.count", f"at most {largest}", count)
    require(count <= capacity, f"{owner}.capacity", f"at least the count, {count}", capacity)
    return count


def _read_neurons(reader, version) -> Neurons:
    count = _read_counts(reader, "neurons", MAX_NEURONS)
    names = _NEURONS + (_NEWER_NEURONS if version >= 3 else ())
    types = {name: dtype for name, (dtype, _) in NEURON_COLUMNS.items()}
    table = _read_table(reader, "neurons", names, types, count)
    return neurons(**{name: values[:count] for name, values in table.items()})


def _read_synapses(reader, version, num_neurons) -> Synapses:
    count = _read_counts(reader, "synapses", reader.left())
    types = {name: dtype for name, (dtype, _) in SYNAPSE_COLUMNS.items()}
    if version >= 3:
        names = (*_OLDER_SYNAPSES[:-1], "delay", "valid")
    else:
        names, types = _OLDER_SYNAPSES, types | {"weight": "uint8", "psp": "uint8"}
    table = _read_table(reader, "synapses", names, types, count)
    keys, items = reader.index("synapses by source")
    if version >= 3:
        for name in ("edge_flags", "eligibility"):
            table[name] = reader.vector(types[name], f"synapses.{name}")
            length, wanted = len(table[name]), len(table["pre"])
            require(length == wanted, f"synapses.{name}", f"{wanted} long", length)
    found = synapses(**{name: values[:count] for name, values in table.items()})
    _check_index(found, keys, items)
    return found


def _check_index(found, keys, items):
    """The index repeats what the arrays say; an empty one says nothing."""
    if not items.size:
        return
    field, largest = "synapses by source", len(found) - 1
    require(int(items.max()) <= largest, field, f"positions in 0..{largest}", items.max())
    items = items.astype(np.int64)
    wrong = items[found.pre[items] != keys]
    require(not wrong.size, field, "under their own source", f"synapse {wrong[:1]}")
    times = np.bincount(items, minlength=len(found))
    require(int(times.max()) <= 1, field, "each listed once", f"synapse {times.argmax()}")
    missing = np.flatnonzero(found.valid & (times == 0))
    require(not missing.size, field, "all listed that are valid", f"synapse {missing[:1]}")


def _read_areas(reader) -> tuple[Area, ...]:
    areas = {}
    for _ in range(reader.length(12, "areas")):
        index = reader.integer("I", "areas.index")
        require(index not in areas, "areas.index", "given once", index)
        areas[index] = Area(index, reader.string("areas.id"))
    return tuple(areas[index] for index in sorted(areas))


def _read_metadata(reader) -> Origin:
    created = reader.integer("Q", "created")
    description, source = reader.string("description"), reader.string("source")
    tags = {}
    for _ in range(reader.length(16, "tags")):
        key = reader.string("tags.key")
        require(key not in tags, "tags.key", "given once", repr(key))
        tags[key] = reader.string("tags.value")
    return Origin(created=created, description=description, source=source, tags=tags)


def _read_tail(reader):
    mode = reader.integer("I", "persist mode")
    require(mode == FULL, "persist mode", "0, full: lite files hold too little to run", mode)
    has_genome = reader.integer("B", "genome present")
    require(has_genome <= 1, "genome present", "0 or 1", has_genome)
    genome = reader.string("genome") if has_genome else None
    tail = {"memory_areas": _read_strings(reader, "memory areas")}
    pairs = range(reader.length(16, "plastic pairs"))
    tail["plastic_pairs"] = tuple(
        (reader.string("plastic pairs"), reader.string("plastic pairs")) for _ in pairs
    )
    tail["regions"] = _read_strings(reader, "regions")
    for field in _UNREAD:
        count = reader.integer("Q", field)
        require(count == 0, field, "none: brainjax has no memory neurons", count)
    return genome, tail


def _read_strings(reader, field):
    return tuple(reader.string(field) for _ in range(reader.length(8, field)))


def _write_neurons(writer, table: Neurons, version):
    writer.scalar("Q", len(table))
    writer.scalar("Q", len(table))
    for name in _NEURONS + (_NEWER_NEURONS if version >= 3 else ()):
        writer.vector(getattr(table, name))


def _write_synapses(writer, table: Synapses, version):
    writer.scalar("Q", len(table))
    writer.scalar("Q", len(table))
    for name in _OLDER_SYNAPSES[:-1]:
        values = getattr(table, name)
        small = version < 3 and name in ("weight", "psp")
        writer.vector(values.astype(np.uint8) if small else values)
    if version >= 3:
        writer.vector(table.delay)
    writer.vector(table.valid)
    writer.index(table.pre)
    if version >= 3:
        writer.vector(table.edge_flags)
        writer.vector(table.eligibility)


def _write_metadata(writer, origin: Origin):
    writer.scalar("Q", origin.created)
    writer.string(origin.description)
    writer.string(origin.source)
    writer.scalar("Q", len(origin.tags))
    for key, value in origin.tags.items():
        writer.string(key)
        writer.string(value)


def _write_tail(writer, network: Network):
    writer.scalar("I", FULL)
    writer.scalar("B", network.genome is not None)
    if network.genome is not None:
        writer.string(network.genome)
    origin = network.origin
    pairs = [text for pair in origin.plastic_pairs for text in pair]
    for count, texts in (
        (len(origin.memory_areas), origin.memory_areas),
        (len(origin.plastic_pairs), pairs),
        (len(origin.regions), origin.regions),
    ):
        writer.scalar("Q", count)
        for text in texts:
            writer.string(text)
    for _ in _UNREAD:
        writer.scalar("Q", 0)


def _check_older(network: Network, version):
    """Nothing may be lost: what an older version cannot hold must be what it is read as."""
    lost = [
        f"{owner}.{name}"
        for owner, names, columns in (
            ("neurons", _NEWER_NEURONS, NEURON_COLUMNS),
            ("synapses", _NEWER_SYNAPSES, SYNAPSE_COLUMNS),
        )
        for name in names
        if (
            getattr(getattr(network, owner), name)
            != np.dtype(columns[name][0]).type(columns[name][1])
        ).any()
    ]
    for name in ("weight", "psp"):
        values = getattr(network.synapses, name)
        if not ((values >= 0) & (values <= 255) & (values == np.trunc(values))).all():
            lost.append(f"synapses.{name} as integers in 0..255")
    origin = network.origin
    if network.genome is not None:
        lost.append("genome")
    lost += [
        name
        for name in ("manifest", "memory_areas", "plastic_pairs", "regions")
        if getattr(origin, name)
    ]
    if lost:
        raise ConnectomeError(f"version must be 3 to hold {', '.join(lost)}; got {version}")
