"""The container of a .connectome: header, checksum and compression around a payload."""

import dataclasses
import functools
import hashlib
import json
import struct
from pathlib import Path

import numpy as np

from brainjax.connectomes.network import ConnectomeError, Network, require
from brainjax.connectomes.payload import decode_payload, encode_payload

MAGIC = b"FEAGI"
VERSIONS = (1, 2, 3)
MAX_BYTES = 1 << 32  # of a file or a payload, unless told otherwise
MANIFEST_TAG = "brain_artifact_manifest"  # where the payload repeats the manifest

_COMPRESSED = 1  # the only flag
_LZ4_MOST = 255  # bytes that one byte of an LZ4 block can stand for
_FNV_OFFSET, _FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3
_FNV_BLOCK = 1 << 16  # bytes hashed together


@dataclasses.dataclass(frozen=True)
class _Header:
    version: int
    raw_size: int | None  # None: not compressed
    manifest: str
    checksum: int
    size: int  # bytes up to the payload


def read(path: str | Path, *, max_bytes: int = MAX_BYTES) -> Network:
    """Read a .connectome of version 1, 2 or 3.

    Args:
        path: of the file.
        max_bytes: most that the file, and what it decompresses to, may take.

    Raises:
        ConnectomeError: the file is damaged, or says what the format does not allow.
        ImportError: it is compressed and the package lz4 is missing.

    Cost: a few times the decompressed size in memory.
    """
    size = Path(path).stat().st_size
    require(size <= max_bytes, "file", f"at most {max_bytes} bytes", size)
    return decode(Path(path).read_bytes(), max_bytes=max_bytes)


def write(
    path: str | Path, network: Network, *, version: int = 3, compress: bool | None = None
) -> None:
    """Write a .connectome; `read` gives back the same network, bit for bit.

    Flags, names and plastic mappings have no place in the format: its genome holds them, and
    `genome.annotate` takes them from there.

    Args:
        path: of the file; an existing one is replaced.
        network: what to write.
        version: 1, 2 or 3.
        compress: as an LZ4 block; by default where the version allows it.

    Raises:
        ConnectomeError: the version cannot hold something that the network has.
        ImportError: it is to be compressed and the package lz4 is missing.
    """
    Path(path).write_bytes(encode(network, version=version, compress=compress))


def decode(data: bytes, *, max_bytes: int = MAX_BYTES) -> Network:
    """Return the network in the bytes of a file, as `read` does."""
    header = _read_header(data)
    stored = data[header.size :]
    checksum = fnv1a(stored)
    require(
        checksum == header.checksum, "checksum", f"{header.checksum:#018x}", f"{checksum:#018x}"
    )
    payload = stored if header.raw_size is None else _decompress(stored, header.raw_size, max_bytes)
    network = decode_payload(payload, header.version)
    _check_manifest(header.manifest, network)
    origin = dataclasses.replace(network.origin, manifest=header.manifest)
    return dataclasses.replace(network, origin=origin)


def encode(network: Network, *, version: int = 3, compress: bool | None = None) -> bytes:
    """Return the bytes of a file, as `write` writes them."""
    require(version in VERSIONS, "version", "1, 2 or 3", version)
    compress = version >= 2 if compress is None else compress
    require(version >= 2 or not compress, "compress", "False for version 1", compress)
    manifest = network.origin.manifest
    if version >= 3:
        _check_manifest(manifest, network)
    payload = encode_payload(network, version)
    stored = _lz4_block().compress(payload, store_size=False) if compress else payload
    header = MAGIC + struct.pack("<I", version)
    if version >= 2:
        header += struct.pack("<BQ", compress, len(payload) if compress else 0)
    if version >= 3:
        raw = manifest.encode()
        header += struct.pack("<I", len(raw)) + raw
    return header + struct.pack("<Q", fnv1a(stored)) + stored


def fnv1a(data: bytes) -> int:
    """Return the 64-bit FNV-1a hash.

    `h = (h ^ byte) * prime`, in whole blocks: only the lowest byte of h meets the data, and each
    of its bits is a running exclusive or of terms that depend on the bits below it. With the
    lowest bytes known, the exclusive or is an addition, and h a polynomial in the prime.
    """
    powers, state = _fnv_powers(), _FNV_OFFSET
    for start in range(0, len(data), _FNV_BLOCK):
        block = np.frombuffer(data, np.uint8, min(_FNV_BLOCK, len(data) - start), start)
        before = _lowest_bytes(state & 0xFF, block)[:-1]
        added = (before ^ block).astype(np.int64) - before.astype(np.int64)
        weights = powers[_FNV_BLOCK - block.size :]
        total = int((added.astype(np.uint64) * weights).sum(dtype=np.uint64))
        state = (state * int(weights[0]) + total) % 2**64
    return state


@functools.cache
def _fnv_powers():
    """Powers of the prime, from that of a whole block down to the first."""
    return np.multiply.accumulate(np.full(_FNV_BLOCK, _FNV_PRIME, np.uint64))[::-1]


def _lowest_bytes(first, block):
    """The lowest byte of the hash before each byte of a block, and after the last."""
    low = np.full(block.size + 1, 0, np.uint8)
    for bit in range(8):
        # Bit of (low ^ block) * prime, as far as the bits below decide it.
        below = (low[:-1] ^ block) & np.uint8((1 << bit) - 1)
        carried = (below * np.uint8(_FNV_PRIME & 0xFF)) ^ block
        steps = np.concatenate([[np.uint8(first)], carried]) >> bit & 1
        low |= np.bitwise_xor.accumulate(steps.astype(np.uint8)) << bit
    return low


def _read_header(data) -> _Header:
    at = 0

    def take(count, field):
        nonlocal at
        rule = f"{count} bytes long"
        require(count <= len(data) - at, field, rule, f"{len(data) - at} bytes up to the end")
        at += count
        return data[at - count : at]

    def number(kind, field):
        (value,) = struct.unpack(f"<{kind}", take(struct.calcsize(f"<{kind}"), field))
        return value

    magic = take(len(MAGIC), "magic")
    require(magic == MAGIC, "magic", MAGIC, magic)
    version = number("I", "version")
    require(version in VERSIONS, "version", "1, 2 or 3", version)
    raw_size, manifest = None, b""
    if version >= 2:
        flags, raw_size = number("B", "flags"), number("Q", "raw size")
        require(flags in (0, _COMPRESSED), "flags", "0 or 1", flags)
        if not flags:
            require(raw_size == 0, "raw size", "0, as nothing is compressed", raw_size)
            raw_size = None
    if version >= 3:
        manifest = take(number("I", "manifest length"), "manifest")
    checksum = number("Q", "checksum")
    return _Header(version, raw_size, _text(manifest), checksum, at)


def _text(manifest):
    try:
        return manifest.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConnectomeError(f"manifest must be UTF-8; got {error.reason}") from None


def _decompress(stored, raw_size, max_bytes):
    most = min(max_bytes, _LZ4_MOST * len(stored))
    require(1 <= raw_size <= most, "raw size", f"in 1..{most}", raw_size)
    block = _lz4_block()
    try:
        payload = block.decompress(stored, uncompressed_size=raw_size)
    except block.LZ4BlockError as error:
        raise ConnectomeError(f"payload must be one LZ4 block; got {error}") from None
    require(len(payload) == raw_size, "payload", f"of the raw size, {raw_size}", len(payload))
    return payload


def _check_manifest(manifest, network):
    """What the header says is said again in the payload, which alone has a checksum."""
    repeated = network.origin.tags.get(MANIFEST_TAG, manifest)
    require(manifest == repeated, "manifest", "what the payload repeats", manifest)
    if not manifest:
        return
    try:
        stated = json.loads(manifest)
    except (ValueError, RecursionError):
        raise ConnectomeError(f"manifest must be JSON; got {manifest[:80]}") from None
    require(isinstance(stated, dict), "manifest", "a JSON object", manifest)
    expected = stated.get("genome_sha256")
    if expected is not None and network.genome is not None:
        digest = hashlib.sha256(network.genome.encode()).hexdigest()
        require(digest == expected, "genome_sha256", digest, expected)


def _lz4_block():
    try:
        import lz4.block  # an extra: files that are not compressed do without
    except ImportError as error:
        raise ImportError(
            "compressed connectomes need the package lz4: pip install 'brainjax[data]'"
        ) from error
    return lz4.block
