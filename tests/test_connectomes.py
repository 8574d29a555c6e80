import builtins
import dataclasses
import functools
import resource
import struct
import tracemalloc
import warnings
import zipfile

import golden
import golden_bursts
import golden_genomes
import jax
import numpy as np
import pytest
from connectome_files import damages, neuron_digest, over, small_network, synapse_digest
from hypothesis import given, strategies as st

from brainjax import burst, connectomes, experiment, ops
from brainjax.connectomes import ConnectomeError, files, payload
from brainjax.connectomes.bincode import Reader

each_golden = pytest.mark.parametrize("name", golden_genomes.NAMES)
# Every form of a file: its version, and whether it is compressed.
FORMS = [(1, False), (2, False), (2, True), (3, False), (3, True)]
each_form = pytest.mark.parametrize(("version", "compress"), FORMS)


def decode(data):
    """Decode, without the warning about what older versions do not hold."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "a file of version [12] does not hold")
        return connectomes.decode(data)


def encoded(version, compress):
    if compress:
        pytest.importorskip("lz4")
    return connectomes.encode(small_network(version), version=version, compress=compress)


def with_payload(data):
    """The bytes of a file of version 1 around a payload, checksum and all."""
    return b"FEAGI" + struct.pack("<IQ", 1, files.fnv1a(data)) + data


def slow_fnv1a(data):
    state = 0xCBF29CE484222325
    for byte in data:
        state = (state ^ byte) * 0x100000001B3 % 2**64
    return state


@given(st.binary(max_size=300))
def test_checksum_is_fnv1a(data):
    assert files.fnv1a(data) == slow_fnv1a(data)


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 200_000])
def test_checksum_of_several_blocks(size):
    data = np.random.default_rng(size).bytes(size)
    assert files.fnv1a(data) == slow_fnv1a(data)


def test_checksum_of_published_vectors():
    """Source: the FNV reference distribution, test vectors of FNV-1a 64."""
    assert files.fnv1a(b"") == 0xCBF29CE484222325
    assert files.fnv1a(b"a") == 0xAF63DC4C8601EC8C
    assert files.fnv1a(b"foobar") == 0x85944171F73967E8


@each_golden
def test_golden_connectome_is_read(name):
    facts = golden_genomes.facts(name)["connectome"]
    network = connectomes.read(golden_genomes.connectome(name))
    assert len(network.areas) == facts["areas"]
    assert len(network.neurons) == facts["neurons"]
    assert len(network.synapses) == facts["synapses"]
    assert network.burst == facts["burst_count"]
    assert len(network.genome) == facts["genome_json_chars"]
    assert neuron_digest(network) == facts["neuron_digest"]
    assert synapse_digest(network) == facts["synapse_digest"]


@each_golden
@pytest.mark.parametrize("compress", [False, True])
def test_golden_connectome_survives_writing(name, compress, tmp_path):
    network = connectomes.read(golden_genomes.connectome(name))
    connectomes.write(tmp_path / "copy.connectome", network, compress=compress)
    assert connectomes.read(tmp_path / "copy.connectome") == network


@each_golden
def test_golden_payload_survives_but_for_the_order_of_maps(name):
    """Every column is written as it was read; the maps behind them come in any order."""
    data = golden_genomes.connectome(name).read_bytes()
    header = files._read_header(data)
    raw = files._decompress(data[header.size :], header.raw_size, files.MAX_BYTES)
    again = payload.encode_payload(connectomes.decode(data), 3)
    assert len(again) == len(raw)
    assert np.array_equal(np.bincount(bytearray(again)), np.bincount(bytearray(raw)))
    columns = index_of(raw, 3)
    assert again[:columns] == raw[:columns]


@each_form
def test_writing_then_reading_is_the_identity(version, compress):
    network = small_network(version)
    assert decode(connectomes.encode(network, version=version, compress=compress)) == network


@pytest.mark.parametrize("version", [1, 2])
def test_older_versions_say_what_they_do_not_hold(version):
    data = encoded(version, False)
    with pytest.warns(UserWarning, match=r"does not hold threshold_limit, .*snooze, accumulates"):
        network = connectomes.decode(data)
    assert (network.neurons.threshold_limit == connectomes.NO_LIMIT).all()
    assert (network.neurons.fire_limit == connectomes.UNLIMITED).all()
    assert network.neurons.accumulates.all()


@pytest.mark.parametrize("version", [1, 2])
def test_older_versions_refuse_what_they_cannot_hold(version):
    with pytest.raises(
        ConnectomeError, match=r"neurons.fire_limit.*synapses.delay.*weight.*genome"
    ):
        connectomes.encode(small_network(3), version=version)


def test_layout_of_version_1():
    """A file put together by hand, from the table of the format."""

    def vector(form, *values):
        return struct.pack(f"<Q{len(values)}{form}", len(values), *values)

    def text(string):
        return struct.pack("<Q", len(string)) + string.encode()

    ids = ("X19fZGVhdGg=", "X19fcG93ZXI=")
    neurons = [vector("f", 0.5, 0), vector("f", 1, 2), vector("f", 0.25, 0), vector("f", 9, 9)]
    neurons += [vector("i", -1, 4), vector("H", 3, 4), vector("H", 1, 0), vector("f", 1, 0.5)]
    neurons += [vector("I", 1, 0), vector("I", 1, 2, 3, 4, 5, 6), vector("B", 1, 0)]
    synapses = [vector("I", 1), vector("I", 0), vector("B", 7), vector("B", 200), vector("B", 1)]
    data = struct.pack("<IQQ", 1, 2, 5) + b"".join(neurons)
    data += struct.pack("<QQ", 1, 1) + b"".join(synapses) + vector("B", 1)
    data += struct.pack("<QI", 1, 1) + vector("Q", 0)
    data += struct.pack("<Q", 2) + b"".join(struct.pack("<I", i) + text(ids[i]) for i in (1, 0))
    data += struct.pack("<QfQQ", 12, 0.5, 20, 99) + text("about") + text("from")
    data += struct.pack("<Q", 1) + text("key") + text("value")
    network = decode(with_payload(data))
    assert network.neurons.potential.tolist() == [0.5, 0]
    assert network.neurons.threshold.tolist() == [1, 2]
    assert network.neurons.kind.tolist() == [-1, 4]
    assert network.neurons.refractory_period.tolist() == [3, 4]
    assert network.neurons.refractory_countdown.tolist() == [1, 0]
    assert network.neurons.area.tolist() == [1, 0]
    assert network.neurons.position.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert network.neurons.valid.tolist() == [True, False]
    assert (network.synapses.pre[0], network.synapses.post[0]) == (1, 0)
    assert (network.synapses.weight[0], network.synapses.psp[0]) == (7, 200)
    assert network.synapses.inhibitory.tolist() == [True]
    assert [area.id for area in network.areas] == list(ids)
    assert (network.burst, network.power, network.ledger_window) == (12, 0.5, 20)
    assert network.origin.tags == {"key": "value"}
    assert (network.origin.created, network.origin.source) == (99, "from")


@each_form
def test_truncation_at_every_offset_is_one_clear_error(version, compress):
    data = encoded(version, compress)
    for length in range(len(data)):
        with pytest.raises(ConnectomeError, match=r"must be .*; got "):
            decode(data[:length])


@each_form
def test_bits_flipped_at_every_offset_are_one_clear_error(version, compress):
    data = encoded(version, compress)
    header = 40  # flags and lengths, bit by bit
    for offset in range(len(data)):
        for bit in range(8) if offset < header else [offset % 8]:
            damaged = bytearray(data)
            damaged[offset] ^= 1 << bit
            with pytest.raises(ConnectomeError, match="must be "):
                decode(bytes(damaged))


def test_truncated_payload_with_a_right_checksum():
    raw = payload.encode_payload(small_network(1), 1)
    for length in range(len(raw)):
        with pytest.raises(ConnectomeError, match=r"must be .*; got "):
            decode(with_payload(raw[:length]))


@pytest.mark.parametrize("version", [1, 3])
def test_flipped_bits_behind_the_checksum_are_errors_or_other_networks(version):
    """What is accepted must say what the bytes say: written again, it gives them back."""
    raw = payload.encode_payload(small_network(version), version)
    accepted = 0
    for offset in range(0, len(raw), 3):
        damaged = bytearray(raw)
        damaged[offset] ^= 1 << offset % 8
        accepted += survives(bytes(damaged), version)
    assert 0 < accepted < len(raw)


def attempt(decode_it):
    """A network and None, or None and what the error says."""
    try:
        return decode_it(), None
    except ConnectomeError as error:
        return None, str(error)


def survives(data, version):
    """Whether a payload is accepted; what is accepted stays the same when it is written."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "a file of version [12] does not hold")
        network, message = attempt(lambda: payload.decode_payload(data, version))
        if network is None:
            assert "must be" in message
            assert len(message) < 400
            return False
        again = payload.encode_payload(network, version)
        assert payload.decode_payload(again, version) == network
    return True


def peak_of(decode_it):
    tracemalloc.start()
    try:
        with pytest.raises(ConnectomeError) as caught:
            decode_it()
        return tracemalloc.get_traced_memory()[1], str(caught.value)
    finally:
        tracemalloc.stop()


def length_offsets(raw, version):
    """Where the whole numbers of a payload stand, every length and count among them."""
    found = []
    read = Reader.integer

    def recording(self, code, field):
        found.append((self._at, code, field))
        return read(self, code, field)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Reader, "integer", recording)
        payload.decode_payload(raw, version)
    return found


@pytest.mark.parametrize("lie", [2**63, 2**64 - 1, 2**40, 2**32])
def test_lengths_that_lie_allocate_nothing(lie):
    raw = payload.encode_payload(small_network(3), 3)
    lengths = [(at, field) for at, code, field in length_offsets(raw, 3) if code == "Q"]
    free = ("neurons.capacity", "synapses.capacity", "burst", "ledger_window", "created")
    assert len(lengths) > 40
    for offset, field in lengths:
        damaged = raw[:offset] + struct.pack("<Q", lie) + raw[offset + 8 :]
        if field in free:
            assert survives(damaged, 3)
            continue
        peak, message = peak_of(lambda data=damaged: payload.decode_payload(data, 3))
        assert peak < 1_000_000, field
        assert "must be" in message


def test_declared_neurons_are_capped():
    raw = payload.encode_payload(small_network(3), 3)
    damaged = raw[:4] + struct.pack("<QQ", 2**63, 2**63) + raw[20:]
    with pytest.raises(
        ConnectomeError, match=r"neurons.count must be at most .*9223372036854775808"
    ):
        payload.decode_payload(damaged, 3)


def test_decompressed_size_that_lies_allocates_nothing():
    data = bytearray(encoded(3, True))
    data[10:18] = struct.pack("<Q", 2**40)
    peak, message = peak_of(lambda: connectomes.decode(bytes(data)))
    assert peak < 4_000_000
    assert "raw size must be in 1.." in message


def test_sizes_above_the_cap_are_refused(tmp_path):
    data = encoded(3, True)
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(ConnectomeError, match="file must be at most 100 bytes"):
        connectomes.read(tmp_path / "file", max_bytes=100)
    with pytest.raises(ConnectomeError, match=r"raw size must be in 1..1000"):
        connectomes.decode(data, max_bytes=1000)


@pytest.mark.parametrize("version", [0, 4, 2**32 - 1])
def test_version_must_be_known(version):
    data = b"FEAGI" + struct.pack("<I", version) + encoded(3, False)[9:]
    with pytest.raises(ConnectomeError, match=f"version must be 1, 2 or 3; got {version}"):
        connectomes.decode(data)


def test_checksum_must_match():
    data = encoded(1, False)
    damaged = data[:9] + bytes(8) + data[17:]
    with pytest.raises(ConnectomeError, match=r"checksum must be 0x0+; got 0x"):
        connectomes.decode(damaged)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_thresholds_must_be_finite(value):
    network = small_network(3)
    network.neurons.threshold[2] = value
    with pytest.raises(ConnectomeError, match=r"neurons.threshold must be finite; got"):
        connectomes.decode(connectomes.encode(network))


@pytest.mark.parametrize(
    ("column", "position", "value", "message"),
    [
        ("synapses.post", 1, 7, r"synapses.post must be a neuron in 0..6; got 7"),
        ("synapses.pre", 3, 2**32 - 1, r"synapses.pre must be a neuron in 0..6; got 4294967295"),
        ("synapses.delay", 0, 0, r"synapses.delay must be at least 1; got 0"),
        ("neurons.area", 0, 2, r"neurons.area must be an area of the network; got \[2\]"),
        ("synapses.psp", 0, np.nan, r"synapses.psp must be finite; got \[nan\]"),
        ("neurons.leak", 0, np.inf, r"neurons.leak must be finite; got \[inf\]"),
    ],
)
def test_columns_must_fit_together(column, position, value, message):
    network = small_network(3)
    owner, name = column.split(".")
    getattr(getattr(network, owner), name)[position] = value
    with pytest.raises(ConnectomeError, match=message):
        connectomes.decode(connectomes.encode(network))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"power": float("nan")}, "power must be finite"),
        ({"burst": -1}, "burst must be"),
        ({"areas": ()}, "neurons.area must be an area of the network"),
        ({"areas": tuple(reversed(small_network().areas))}, "areas must be in ascending order"),
    ],
)
def test_network_is_checked_when_it_is_made(change, message):
    with pytest.raises(ConnectomeError, match=message):
        dataclasses.replace(small_network(), **change)


def test_columns_are_checked_when_they_are_made():
    place = np.zeros((2, 3), int)
    with pytest.raises(ConnectomeError, match=r"snooze must be integers in 0..65535"):
        connectomes.neurons([1, 1], [0, 0], place, snooze=65_536)
    with pytest.raises(ConnectomeError, match=r"delay must be integers in 0..255"):
        connectomes.synapses([0], [0], [1], 1, delay=1.5)
    with pytest.raises(ConnectomeError, match=r"column must be one of .*; got wieght"):
        connectomes.synapses([0], [0], [1], 1, wieght=1)
    with pytest.raises(ConnectomeError, match=r"neurons.area must be of shape \(2,\)"):
        connectomes.neurons([1, 1], [0], place)


def index_of(raw, version):
    """Where the map of synapses by source begins, its count first."""
    return next(
        at for at, _, field in length_offsets(raw, version) if field.endswith("synapses by source")
    )


def test_index_of_synapses_must_agree_with_the_columns():
    raw = payload.encode_payload(small_network(3), 3)
    at = index_of(raw, 3)
    for offset, value, message in (
        (at + 8, 5, "under their own source"),  # the first key
        (at + 8 + 12, 3, "under their own source"),  # the first position
        (at + 8 + 12, 99, "positions in 0..5"),
        (at + 8 + 12 + 8, 1, "each listed once"),  # the second repeats the first
    ):
        damaged = raw[:offset] + struct.pack("<I", value) + raw[offset + 4 :]
        with pytest.raises(ConnectomeError, match=message):
            payload.decode_payload(damaged, 3)


def test_index_of_synapses_may_be_empty():
    raw = payload.encode_payload(small_network(3), 3)
    at = index_of(raw, 3)
    size = 8 + 4 * 12 + 6 * 8  # four sources, six synapses
    found = payload.decode_payload(raw[:at] + bytes(8) + raw[at + size :], 3)
    assert found.synapses == small_network(3).synapses


def test_index_of_synapses_must_list_the_valid_ones():
    raw = payload.encode_payload(small_network(3), 3)
    at = index_of(raw, 3)
    # Sources 0, 2, 3 and 6 with 2, 1, 2 and 1 synapses; that of 6 is not valid.
    starts = at + 8 + np.cumsum([0, 28, 20, 28, 20])
    three = struct.pack("<Q", 3)
    without_6 = raw[:at] + three + raw[at + 8 : starts[3]] + raw[starts[4] :]
    assert payload.decode_payload(without_6, 3).synapses == small_network(3).synapses
    without_2 = raw[:at] + three + raw[at + 8 : starts[1]] + raw[starts[2] :]
    with pytest.raises(ConnectomeError, match=r"all listed that are valid; got synapse \[4\]"):
        payload.decode_payload(without_2, 3)


def test_capacity_must_hold_the_count():
    raw = payload.encode_payload(small_network(3), 3)
    for field, count in (("neurons.capacity", 7), ("synapses.capacity", 6)):
        at = next(at for at, _, each in length_offsets(raw, 3) if each == field)
        with pytest.raises(ConnectomeError, match=f"{field} must be at least the count, {count}"):
            payload.decode_payload(raw[:at] + bytes([count - 1]) + raw[at + 1 :], 3)


@pytest.mark.parametrize("version", [1, 3])
def test_nothing_may_follow(version):
    raw = payload.encode_payload(small_network(version), version)
    with pytest.raises(ConnectomeError, match="payload must be read to its last byte; got 3 bytes"):
        payload.decode_payload(raw + b"abc", version)


def test_lite_files_and_memory_neurons_are_refused():
    raw = payload.encode_payload(small_network(3), 3)
    fields = {field: at for at, _, field in length_offsets(raw, 3)}
    for field in ("persist mode", "long-term memory neurons", "lite synapses"):
        at = fields[field]
        with pytest.raises(ConnectomeError, match=f"{field} must be .*; got 1"):
            payload.decode_payload(raw[:at] + b"\1" + raw[at + 1 :], 3)


def test_manifest_must_be_that_of_the_payload():
    network = small_network(3)
    other = dataclasses.replace(network.origin, manifest=network.origin.manifest + " ")
    with pytest.raises(ConnectomeError, match="manifest must be what the payload repeats"):
        connectomes.encode(dataclasses.replace(network, origin=other))
    with pytest.raises(ConnectomeError, match="genome_sha256 must be"):
        connectomes.encode(dataclasses.replace(network, genome="{}"))


def test_room_to_grow_is_cut_off():
    """Older writers store columns as long as their capacity; what is beyond is not valid."""
    network = small_network(1)
    longer = dataclasses.replace(
        network, neurons=dataclasses.replace(network.neurons, valid=np.arange(7) < 6)
    )
    used = np.flatnonzero((network.synapses.pre < 6) & (network.synapses.post < 6))
    table = {
        field.name: getattr(network.synapses, field.name)[used]
        for field in dataclasses.fields(network.synapses)
    }
    longer = dataclasses.replace(longer, synapses=connectomes.Synapses(**table))
    raw = payload.encode_payload(longer, 1)
    shorter = decode(with_payload(raw[:4] + struct.pack("<Q", 6) + raw[12:]))
    assert len(shorter.neurons) == 6
    assert np.array_equal(shorter.neurons.threshold, longer.neurons.threshold[:6])
    with pytest.raises(ConnectomeError, match=r"neurons.valid must be false beyond the count"):
        decode(with_payload(raw[:4] + struct.pack("<Q", 5) + raw[12:]))


def test_missing_lz4_is_named(monkeypatch):
    data, imported = encoded(3, True), builtins.__import__

    def without_lz4(name, *rest):
        if name.startswith("lz4"):
            raise ImportError(name)
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_lz4)
    with pytest.raises(ImportError, match=r"need the package lz4: pip install 'brainjax\[data\]'"):
        connectomes.decode(data)
    assert decode(encoded(3, False)) == small_network(3)


# Rows, npz and Parquet.


def test_rows_hold_every_valid_synapse():
    network = small_network(3)
    rows = connectomes.to_compressed_rows(network)
    dense = np.zeros((7, 7))
    table = network.synapses
    for at in np.flatnonzero(table.valid):
        sign = -1 if table.inhibitory[at] else 1
        dense[table.pre[at], table.post[at]] += sign * table.weight[at] * table.psp[at]
    found = np.zeros((7, 7))
    for pre in range(7):
        for at in range(rows.indptr[pre], rows.indptr[pre + 1]):
            found[pre, rows.indices[at]] += rows.weights[at]
    np.testing.assert_array_equal(found, dense)


def test_rows_survive_the_way_back():
    rows = connectomes.to_compressed_rows(small_network(3))
    table = connectomes.from_compressed_rows(rows)
    network = dataclasses.replace(small_network(3), synapses=table)
    again = connectomes.to_compressed_rows(network)
    for name in ("indptr", "indices", "weights"):
        np.testing.assert_array_equal(getattr(again, name), getattr(rows, name))


def test_rows_of_unit_weights():
    rows = ops.compressed_rows([0, 2, 2], [1, 0], 2)
    table = connectomes.from_compressed_rows(rows)
    assert table.pre.tolist() == [0, 0]
    assert table.post.tolist() == [1, 0]
    assert table.weight.tolist() == [1, 1]


def annotated():
    network = small_network(3)
    mapping = connectomes.PlasticMapping(
        pre_area=3, post_area=1, window=2, constant=1.0, ltp=2.0, ltd=0.5, bidirectional=True
    )
    areas = tuple(
        dataclasses.replace(area, uniform=True, mp_driven=False, name="Näme")
        for area in network.areas
    )
    return dataclasses.replace(network, areas=areas, plastic=(mapping,))


def test_npz_is_the_identity(tmp_path):
    network = annotated()
    connectomes.write_npz(tmp_path / "network.npz", network)
    assert connectomes.read_npz(tmp_path / "network.npz") == network


@each_golden
def test_golden_network_survives_npz_and_parquet(name, tmp_path):
    pytest.importorskip("pyarrow")
    network = connectomes.read(golden_genomes.connectome(name))
    connectomes.write_npz(tmp_path / "network.npz", network)
    assert connectomes.read_npz(tmp_path / "network.npz") == network
    connectomes.write_edges(tmp_path / "edges.parquet", network.synapses)
    table = connectomes.read_edges(tmp_path / "edges.parquet", len(network.neurons))
    assert table == network.synapses


def replaced(path, name, data):
    """Replace a member of an npz."""
    with zipfile.ZipFile(path) as archive:
        members = {each: archive.read(each) for each in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for each, old in members.items():
            archive.writestr(each, data if each == name else old)


def test_npz_whose_header_lies_allocates_nothing(tmp_path):
    path = tmp_path / "network.npz"
    connectomes.write_npz(path, annotated())
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }"
    header = header.ljust(117) + b"\n"
    replaced(path, "neurons.threshold.npy", b"\x93NUMPY\1\0" + struct.pack("<H", 118) + header)
    peak, message = peak_of(lambda: connectomes.read_npz(path))
    assert peak < 2_000_000
    assert "neurons.threshold must be of 0 bytes" in message


def test_npz_with_objects_is_refused(tmp_path):
    path = tmp_path / "network.npz"
    connectomes.write_npz(path, annotated())
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    replaced(path, "neurons.threshold.npy", (tmp_path / "objects.npy").read_bytes())
    with pytest.raises(ConnectomeError, match=r"neurons.threshold must be numbers or text"):
        connectomes.read_npz(path)


@pytest.mark.parametrize("facts", ["[]", "{}", "nonsense", '{"areas": 3}', "[" * 100_000])
def test_npz_with_other_facts_is_refused(facts, tmp_path):
    path = tmp_path / "network.npz"
    connectomes.write_npz(path, annotated())
    np.save(tmp_path / "facts.npy", np.array(facts))
    replaced(path, "facts.npy", (tmp_path / "facts.npy").read_bytes())
    with pytest.raises(ConnectomeError, match="facts must be"):
        connectomes.read_npz(path)


def test_every_damaged_byte_of_an_npz_is_an_error_or_without_effect(tmp_path):
    path = tmp_path / "network.npz"
    network = annotated()
    connectomes.write_npz(path, network)
    data = path.read_bytes()
    for offset in range(0, len(data), 7):
        path.write_bytes(
            data[:offset] + bytes([data[offset] ^ 1 << offset % 8]) + data[offset + 1 :]
        )
        try:
            found = connectomes.read_npz(path)
        except ConnectomeError:
            continue
        assert found == network


@pytest.mark.parametrize("length", [0, 3, 100, -1])
def test_parquet_must_be_whole(length, tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "edges.parquet"
    connectomes.write_edges(path, small_network(3).synapses)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ConnectomeError, match="edges must be a whole Parquet file"):
        connectomes.read_edges(path, 7)


def test_parquet_of_others(tmp_path):
    """A table that another program wrote: fewer columns, wider types."""
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "edges.parquet"
    columns = {"pre": [0, 1], "post": [1, 1], "weight": [0.5, 2.0], "psp": [1, 2]}
    parquet.write_table(arrow.table(columns), path)
    table = connectomes.read_edges(path, 2)
    assert table.weight.tolist() == [0.5, 2.0]
    assert table.delay.tolist() == [1, 1]
    for change, message in (
        ({"pre": [0, 2]}, r"edges.pre must be in 0..1; got 2"),
        ({"pre": [0, -1]}, r"pre must be integers in 0..4294967295; got \[-1\]"),
        ({"pre": [0, None]}, "edges.pre must be given in every row"),
        ({"psp": ["a", "b"]}, "edges.psp must be numbers"),
        ({"other": [0, 1]}, "edges must be of pre, post"),
        ({"weight": [float("nan"), 1.0]}, "synapses.weight must be finite"),
    ):
        parquet.write_table(arrow.table(columns | change), path)
        with pytest.raises(ConnectomeError, match=message):
            connectomes.read_edges(path, 2)


# A network as a brain.


network_of = experiment.load("experiments", "burst_replay").network_of
RECORDINGS = ["g06_psp_divided", "g06_psp_fast", "g06_psp_uniform", "g07_mp_driven", "g13_stdp"]


@pytest.mark.parametrize("recording", [*RECORDINGS, "g10_random_1k"])
def test_network_runs_as_feagi_ran_it(recording, tmp_path):
    """Through a file and back, then burst by burst as it was recorded."""
    arrays = golden_bursts.load(recording)
    connectomes.write_npz(tmp_path / "network.npz", network_of(arrays))
    network = connectomes.read_npz(tmp_path / "network.npz")
    config, params = connectomes.to_burst(network, strict_feagi=True)
    state = burst.init(config, params, jax.random.key(0))
    step = jax.jit(burst.step, static_argnums=0)
    offsets, capacity = arrays["inj_off"], int(np.diff(arrays["inj_off"]).max(initial=1))
    for at in range(len(offsets) - 1):
        injected = slice(offsets[at], offsets[at + 1])
        drive = config.drive(
            arrays["inj_id"][injected], arrays["inj_p"][injected], capacity=capacity
        )
        state = step(config, params, state, drive)
        fired = slice(arrays["fired_off"][at], arrays["fired_off"][at + 1])
        count = int(state.fired.count)
        np.testing.assert_array_equal(state.fired.indices[:count], arrays["fired_id"][fired])
        np.testing.assert_array_equal(state.fired.values[:count], arrays["fired_mp"][fired])
        np.testing.assert_array_equal(state.membranes.potential, arrays["mp"][at])
    if network.plastic:
        weights = burst.weights(params.synapses, state.weights, network.synapses.weight)
        np.testing.assert_array_equal(weights, arrays["w"][-1])


@each_golden
def test_golden_connectome_becomes_a_brain(name):
    network = connectomes.read(golden_genomes.connectome(name))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(leak|excitability) of area .* and kept")
        config, params = connectomes.to_burst(network, legacy_units="keep", keeps_inputs=True)
    state = connectomes.resume(network, burst.init(config, params, jax.random.key(0)))
    assert int(state.burst) == network.burst
    np.testing.assert_array_equal(state.membranes.fire_count, network.neurons.fire_count)
    state = burst.step(config, params, state, config.drive())
    assert np.flatnonzero(state.candidates).tolist() == [config.power_neuron]


@pytest.mark.filterwarnings("ignore:(leak|excitability) of area .* and kept")
def test_the_later_of_two_mappings_between_the_same_areas_counts():
    first = connectomes.PlasticMapping(
        pre_area=3, post_area=1, window=5, constant=1.0, ltp=7.0, ltd=4.0
    )
    other = dataclasses.replace(first, pre_area=1, post_area=3, ltp=1.0, ltd=6.0)
    later = dataclasses.replace(first, window=2, ltp=3.0, ltd=0.5, constant=2.0)
    network = dataclasses.replace(small_network(3), plastic=(first, other, later))
    config, params = connectomes.to_burst(network, legacy_units="keep")
    learns = {
        (each.source, each.window): (float(gain), float(loss))
        for each, gain, loss in zip(
            config.mappings, params.potentiation, params.depression, strict=True
        )
    }
    one, three = (area.id for area in network.areas if area.index in (1, 3))
    assert learns == {(three, 2): (6.0, 1.0), (one, 5): (1.0, 6.0)}
    state = burst.init(config, params, jax.random.key(0))
    burst.step(config, params, state, config.drive())


def test_what_is_not_valid_takes_no_part():
    network = small_network(1)
    network.neurons.leak[:] = 0
    network.neurons.excitability[:] = 1
    network.neurons.valid[3] = False
    config, params = connectomes.to_burst(network)
    state = burst.init(config, params, jax.random.key(0))
    state = burst.step(config, params, state, config.drive(range(7), [100.0] * 7))
    assert state.fired.indices[: int(state.fired.count)].tolist() == [0, 1, 2, 4, 5, 6]
    assert params.synapses.fixed.indices.tolist() == [4, 5, 1]


# Fuzzing: files as they stand, and payloads behind a checksum that is right.


@functools.cache
def fuzz_cases():
    """Files to damage: real ones where they are there, and small ones of every form."""
    cases = [encoded(*form) for form in FORMS]
    for name in ("test", "mujoco"):
        path = golden.find(f"genomes/{name}.connectome")
        cases += [] if path is None else [path.read_bytes()]
    return cases


@functools.cache
def fuzz_payloads():
    """Payloads to damage, and where their lengths stand."""
    cases = [
        (payload.encode_payload(small_network(version), version), version) for version in (1, 3)
    ]
    for name in ("gesture", "mujoco"):
        path = golden.find(f"genomes/{name}.connectome")
        if path is not None:
            cases.append((payload.encode_payload(connectomes.read(path), 3), 3))
    return [with_places(*case) for case in cases]


def damage_file(data):
    original = data.draw(st.sampled_from(fuzz_cases()))
    damaged = data.draw(damages(len(original), tuple(range(40))))(original)
    found, message = attempt(lambda: decode(damaged))
    if found is None:
        assert "must be" in message
    else:
        # Behind the checksum, what is accepted is what was there.
        assert found == decode(original)


def damage_payload(data):
    original, version, places = data.draw(st.sampled_from(fuzz_payloads()))
    damaged = original
    for _ in range(data.draw(st.integers(1, 3))):
        damaged = data.draw(damages(max(1, len(damaged)), places))(damaged or b"\0")
        places = ()
    survives(damaged, version)


def with_places(raw, version):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return raw, version, tuple(at for at, _, _ in length_offsets(raw, version))


@pytest.fixture
def bounded_memory():
    """The largest case is a few MB, and an LZ4 block stands for at most 255 times its length."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 300_000  # kB


few_and_thousands = pytest.mark.parametrize(
    "examples", [200, pytest.param(6000, marks=pytest.mark.slow)]
)


@few_and_thousands
@pytest.mark.usefixtures("bounded_memory")
def test_damaged_files_are_errors(examples):
    over(examples, damage_file, deadline=5_000)


@few_and_thousands
@pytest.mark.usefixtures("bounded_memory")
def test_damaged_payloads_are_errors_or_other_networks(examples):
    over(examples, damage_payload, deadline=5_000)
