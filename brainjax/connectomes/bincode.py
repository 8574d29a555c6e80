"""Bincode of fixed width, little-endian: read with every length checked, and written."""

import struct

import numpy as np

from brainjax.connectomes.network import ConnectomeError, require

_SCALARS = {name: struct.Struct(f"<{name}") for name in "BIQf"}
_ENTRY = struct.Struct("<IQ")  # key and length of an entry of an index


class Reader:
    """Takes values off the front of a payload; no value is made before its bytes are there."""

    def __init__(self, payload: bytes):
        self._payload = payload
        self._at = 0

    def left(self) -> int:
        """Return how many bytes have not been read."""
        return len(self._payload) - self._at

    def scalar(self, code: str, field: str) -> int | float:
        """Return one number; `code` is that of `struct`."""
        kind = _SCALARS[code]
        self._require_left(kind.size, field)
        (value,) = kind.unpack_from(self._payload, self._at)
        self._at += kind.size
        return value

    def integer(self, code: str, field: str) -> int:
        """Return one integer."""
        return int(self.scalar(code, field))

    def length(self, smallest: int, field: str) -> int:
        """Return a number of items, each of which takes at least `smallest` bytes."""
        count = self.integer("Q", f"length of {field}")
        rule = f"at most {self.left() // smallest}, as {self.left()} bytes are left"
        require(count <= self.left() // smallest, f"length of {field}", rule, count)
        return count

    def vector(self, dtype: str, field: str) -> np.ndarray:
        """Return a vector of numbers or truth values."""
        stored = np.dtype("u1" if dtype == "bool" else dtype).newbyteorder("<")
        count = self.length(stored.itemsize, field)
        values = np.frombuffer(self._payload, stored, count, self._at)
        self._at += values.nbytes
        if dtype == "bool":
            wrong = values[values > 1]
            require(not wrong.size, field, "0 or 1", wrong[:1])
        return values.astype(dtype)

    def string(self, field: str) -> str:
        """Return a text."""
        count = self.length(1, field)
        raw = self._payload[self._at : self._at + count]
        self._at += count
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ConnectomeError(f"{field} must be UTF-8; got {error.reason}") from None

    def index(self, field: str) -> tuple[np.ndarray, np.ndarray]:
        """Return a map from u32 to vectors of u64, as pairs: each item with its key."""
        entries = self.length(_ENTRY.size, field)
        keys, counts = np.empty(entries, np.uint32), np.empty(entries, np.int64)
        start = self._at
        for entry in range(entries):
            self._require_left(_ENTRY.size, field)
            keys[entry], count = _ENTRY.unpack_from(self._payload, self._at)
            self._at += _ENTRY.size
            require(count <= self.left() // 8, f"length of {field}", "within the file", count)
            counts[entry] = count
            self._at += 8 * count
        require(np.unique(keys).size == entries, field, "of different keys", "a key twice")
        raw = np.frombuffer(self._payload, np.uint8, self._at - start, start)
        return np.repeat(keys, counts), raw[~_heads(counts)].view("<u8")

    def finish(self) -> None:
        """Check that nothing is left."""
        require(self.left() == 0, "payload", "read to its last byte", f"{self.left()} bytes left")

    def _require_left(self, count, field):
        rule = f"{count} bytes long"
        require(count <= self.left(), field, rule, f"{self.left()} bytes up to the end")


class Writer:
    """Puts values at the end of a payload."""

    def __init__(self):
        self._parts: list[bytes] = []

    def scalar(self, code: str, value: float | int) -> None:
        """Add one number; `code` is that of `struct`."""
        self._parts.append(_SCALARS[code].pack(value))

    def vector(self, values: np.ndarray) -> None:
        """Add a vector of numbers or truth values."""
        self.scalar("Q", values.size)
        self._parts.append(values.astype(values.dtype.newbyteorder("<")).tobytes())

    def string(self, text: str) -> None:
        """Add a text."""
        raw = text.encode("utf-8")
        self.scalar("Q", len(raw))
        self._parts.append(raw)

    def index(self, keys: np.ndarray) -> None:
        """Add the map from each key to its positions in `keys`, both ascending."""
        order = np.argsort(keys, kind="stable").astype("<u8")
        unique, counts = np.unique(keys, return_counts=True)
        heads = _heads(counts)
        raw = np.empty(heads.size, np.uint8)
        head = np.zeros(unique.size, [("key", "<u4"), ("count", "<u8")])
        head["key"], head["count"] = unique, counts
        raw[heads] = head.view(np.uint8)
        raw[~heads] = order.view(np.uint8)
        self.scalar("Q", unique.size)
        self._parts.append(raw.tobytes())

    def bytes(self) -> bytes:
        """Return all that was added."""
        return b"".join(self._parts)


def _heads(counts):
    """Which bytes of the entries of an index are keys and lengths."""
    sizes = _ENTRY.size + 8 * counts
    starts = np.cumsum(sizes) - sizes
    heads = np.zeros(int(sizes.sum()), bool)
    heads[(starts[:, None] + np.arange(_ENTRY.size)).astype(np.int64)] = True
    return heads
