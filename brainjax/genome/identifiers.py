"""Ids of areas: 8 bytes in base64, and what the 6 characters of older genomes become."""

import base64

from brainjax.genome.genes import require

# In order of their index.
CORE_IDS = tuple(
    base64.b64encode(name).decode()
    for name in (
        b"___death",
        b"___power",
        b"___fatig",
        b"___pain_",
        b"___pleas",
        b"___fear_",
        b"___hope_",
    )
)
# Segments of the visual field: in letters, in digits, and as the unit of the new id.
_SEGMENTS = (
    ("_C", "400", 0x49),
    ("BL", "000", 0x09),
    ("BM", "100", 0x19),
    ("BR", "200", 0x29),
    ("ML", "300", 0x39),
    ("MR", "500", 0x59),
    ("TL", "600", 0x69),
    ("TM", "700", 0x79),
    ("TR", "800", 0x89),
)
_KNOWN = {
    "___pwr": b"___power",
    "_power": b"___power",
    "_death": b"___death",
    "_fatig": b"___fatig",
    "o__mot": b"omot\x05\0\0\0",
    "omot00": b"omot\x05\0\0\0",
    "ogaz00": b"ogaz\x02\0\0\0",
    "o_spos": b"opos\x0b\0\0\0",
    "i__pro": b"ipro\x01\0\0\0",
    "i__acc": b"i__acc__",
    **{f"iv00{letters}": bytes([*b"isvi", unit, 0, 0, 0]) for letters, _, unit in _SEGMENTS},
    **{f"iic{digits}": bytes([*b"isvi", unit, 0, 0, 0]) for _, digits, unit in _SEGMENTS},
}
_KINDS = b"_iocm"


def migrate(old: str, path: str = "id") -> str:
    """Return an area id as 8 bytes in base64.

    Args:
        old: of 6 characters, of 8, or already in base64.
        path: said in the error.

    Raises:
        GenomeError: it is none of these.
    """
    raw = _raw(old)
    is_right = raw is not None and len(raw) == 8 and raw[0] in _KINDS
    require(is_right, path, "an area id, of 6 characters or 8 bytes in base64", repr(old))
    return base64.b64encode(raw or b"").decode()


def is_core(area_id: str) -> bool:
    """Tell whether an area is one of those that every brain has."""
    return base64.b64decode(area_id)[:1] == b"_"


def is_input(area_id: str) -> bool:
    """Tell whether an area receives what sensors send."""
    return base64.b64decode(area_id)[:1] == b"i"


def is_memory(area_id: str) -> bool:
    """Tell whether an area is a memory by its id."""
    return base64.b64decode(area_id)[:1] == b"m"


def readable(area_id: str) -> str:
    """Return the characters of an id, with those that cannot be printed as escapes."""
    return base64.b64decode(area_id).decode("latin-1").encode("unicode_escape").decode()


def _raw(old):
    if len(old) == 12:
        try:
            return base64.b64decode(old, validate=True)
        except ValueError:
            return None
    if old in _KNOWN:
        return _KNOWN[old]
    if len(old) == 8:
        return old.encode()
    if len(old) != 6:
        return None
    first = old[0].lower()
    if first in "cm":
        return f"{first}{old[1:]}__".encode()
    return f"c{old}_".encode() if first in "io" else None
