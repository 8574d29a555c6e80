"""Networks as npz, and their synapses as a Parquet table of edges."""

import dataclasses
import io
import json
import math
import struct
import zipfile
import zlib
from pathlib import Path
from types import ModuleType

import numpy as np

from brainjax.connectomes.files import MAX_BYTES
from brainjax.connectomes.network import (
    NEURON_COLUMNS,
    SYNAPSE_COLUMNS,
    Area,
    ConnectomeError,
    Network,
    Neurons,
    Origin,
    PlasticMapping,
    Synapses,
    require,
    synapses,
)

FORMAT = 1  # of the npz
# What opening a damaged npz, or one of another kind, may raise.
BROKEN_NPZ = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    RuntimeError,  # encrypted, or compressed in a way that zipfile does not know
    ValueError,
)
_DEFLATE_MOST = 1032  # bytes that one byte of a deflated member can stand for
_TABLES = {"neurons": NEURON_COLUMNS, "synapses": SYNAPSE_COLUMNS}
_FACTS = sorted({field.name for field in dataclasses.fields(Network)} - set(_TABLES))
_RECORDS = {"areas": Area, "plastic": PlasticMapping}


def write_npz(path: str | Path, network: Network) -> None:
    """Write a network as compressed npz, with flags and plastic mappings.

    Its arrays are `neurons.<column>` and `synapses.<column>`, as `Neurons` and `Synapses` name
    them, and `facts`: the rest, as JSON.
    """
    arrays = {
        f"{owner}.{name}": getattr(getattr(network, owner), name)
        for owner, columns in _TABLES.items()
        for name in columns
    }
    facts = {name: getattr(network, name) for name in _FACTS}
    facts |= {name: [dataclasses.asdict(each) for each in facts[name]] for name in _RECORDS}
    facts["origin"] = dataclasses.asdict(network.origin)
    np.savez_compressed(path, facts=np.array(json.dumps(facts)), **arrays)


def read_npz(path: str | Path, *, max_bytes: int = MAX_BYTES) -> Network:
    """Read a network that `write_npz` wrote, bit for bit. No pickle is opened.

    Raises:
        ConnectomeError: the file is damaged, or lies about a size.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _network(_read_arrays(archive, max_bytes))
    except (ConnectomeError, FileNotFoundError):
        raise
    except BROKEN_NPZ as error:
        raise ConnectomeError(f"file must be a whole npz; got {error}") from None


def write_edges(path: str | Path, table: Synapses) -> None:
    """Write synapses as a Parquet table, one row each, with the columns of `Synapses`.

    Raises:
        ImportError: the package pyarrow is missing.
    """
    pyarrow, parquet = arrow()
    columns = {name: getattr(table, name) for name in SYNAPSE_COLUMNS}
    parquet.write_table(pyarrow.table(columns), path)


def read_edges(path: str | Path, num_neurons: int, *, max_bytes: int = MAX_BYTES) -> Synapses:
    """Read synapses from a Parquet table.

    Args:
        path: of a table with the columns pre, post, weight and psp, and any others of `Synapses`.
        num_neurons: ids must be below it.
        max_bytes: most that the columns may take in memory.

    Raises:
        ConnectomeError: the table is damaged, lacks a column or holds what a synapse cannot be.
        ImportError: the package pyarrow is missing.
    """
    pyarrow, parquet = arrow()
    try:
        file = parquet.ParquetFile(path)
        _check_edges(file, max_bytes)
        read = file.read()
    except (pyarrow.ArrowException, OSError, OverflowError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ConnectomeError(f"edges must be a whole Parquet file; got {error}") from None
    columns = {}
    for name in read.column_names:
        require(not read[name].null_count, f"edges.{name}", "given in every row", "a null")
        columns[name] = read[name].to_numpy()
        numeric = columns[name].dtype.kind in "biuf"
        require(numeric, f"edges.{name}", "numbers", columns[name].dtype)
    table = synapses(**columns)
    for name in ("pre", "post"):
        worst = int(getattr(table, name).max()) if len(table) else -1
        require(worst < num_neurons, f"edges.{name}", f"in 0..{num_neurons - 1}", worst)
    return table


def arrow() -> tuple[ModuleType, ModuleType]:
    """Return pyarrow and its Parquet part.

    Raises:
        ImportError: the package pyarrow is missing.
    """
    try:
        import pyarrow  # an extra
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            "Parquet needs the package pyarrow: pip install 'brainjax[data]'"
        ) from error
    return pyarrow, pyarrow.parquet


def _check_edges(file, max_bytes):
    names = set(file.schema_arrow.names)
    require(names <= set(SYNAPSE_COLUMNS), "edges", f"of {', '.join(SYNAPSE_COLUMNS)}", names)
    needed = {name for name, (_, default) in SYNAPSE_COLUMNS.items() if default is None}
    require(needed <= names, "edges", f"with the columns {', '.join(sorted(needed))}", names)
    most = max_bytes // sum(np.dtype(dtype).itemsize for dtype, _ in SYNAPSE_COLUMNS.values())
    rows = file.metadata.num_rows
    require(0 <= rows <= most, "edges", f"at most {most} rows", rows)


def _read_arrays(archive, max_bytes):
    wanted = {f"{owner}.{name}" for owner in _TABLES for name in _TABLES[owner]} | {"facts"}
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    require(set(members) == wanted, "arrays", "those of a network", set(members) ^ wanted)
    require(len(archive.infolist()) == len(wanted), "arrays", "given once", "a name twice")
    total = sum(info.file_size for info in members.values())
    require(total <= max_bytes, "arrays", f"at most {max_bytes} bytes", total)
    return {name: _read_array(archive, info, name) for name, info in members.items()}


def _read_array(archive, info, name):
    """One array, made only after the bytes for it are there."""
    plain = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    require(plain, name, "stored or deflated", f"compression {info.compress_type}")
    most = _DEFLATE_MOST * (info.compress_size + 1)
    require(info.file_size <= most, name, f"at most {most} bytes", info.file_size)
    stream = io.BytesIO(archive.read(info))
    try:
        version = np.lib.format.read_magic(stream)
        header = {(1, 0): np.lib.format.read_array_header_1_0}.get(
            version, np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = header(stream)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise ConnectomeError(f"{name} must be an array; got {error}") from None
    raw = stream.read()
    require(not dtype.hasobject and dtype.kind in "biufU", name, "numbers or text", dtype)
    rule = f"of {len(raw)} bytes"
    require(all(side >= 0 for side in shape) and not fortran, name, "of a C shape", shape)
    require(math.prod(shape) * dtype.itemsize == len(raw), name, rule, f"{shape} {dtype}")
    if dtype.itemsize == 0:
        return np.zeros(shape, dtype)
    return np.frombuffer(raw, dtype).reshape(shape).copy()


def _network(arrays) -> Network:
    facts = _facts(arrays["facts"])
    tables = {
        owner: {name: arrays[f"{owner}.{name}"] for name in columns}
        for owner, columns in _TABLES.items()
    }
    for owner in _TABLES:
        for name, values in tables[owner].items():
            require(values.ndim >= 1, f"{owner}.{name}", "a list", values.shape)
            if values.dtype == bool:
                whole = bool((values.view(np.uint8) <= 1).all())
                require(whole, f"{owner}.{name}", "0 or 1", "another byte")
    neurons, synapses = Neurons(**tables["neurons"]), Synapses(**tables["synapses"])
    try:
        return Network(neurons=neurons, synapses=synapses, **facts)
    except (TypeError, AttributeError) as error:
        raise ConnectomeError(f"facts must be those of a network; got {error}") from None


def _facts(text):
    """What is not an array: every field there, and none but those."""
    require(text.shape == () and text.dtype.kind == "U", "facts", "a text", text.dtype)
    try:
        facts = json.loads(str(text))
        require(sorted(facts) == _FACTS, "facts", f"those of a network, {_FACTS}", sorted(facts))
        for name, kind in _RECORDS.items():
            facts[name] = tuple(_record(kind, each, name) for each in facts[name])
        facts["origin"] = _record(Origin, facts["origin"], "origin")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ConnectomeError(f"facts must be those of a network; got {error}") from None
    return facts


def _record(kind, entry, field):
    """A dataclass from its fields, each of the type of its default or, without one, a number."""
    names = {each.name for each in dataclasses.fields(kind)}
    require(set(entry) == names, field, f"records of {sorted(names)}", sorted(entry))
    return kind(**{name: _tuples(value) for name, value in entry.items()})


def _tuples(value):
    return tuple(_tuples(each) for each in value) if isinstance(value, list) else value
