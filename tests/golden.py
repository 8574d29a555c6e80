"""Files of FEAGI and of its engine; they come beside the checkout and are not part of it."""

import os
from pathlib import Path

import pytest

VARIABLE = "BRAINJAX_SHARED"
CHECKOUT = Path(__file__).parents[1]


def places():
    given = os.environ.get(VARIABLE)
    return [Path(given)] if given else [CHECKOUT / "shared", CHECKOUT.parent / "shared"]


def find(name):
    """The path of a file, or None."""
    paths = [place / "golden" / "feagi" / name for place in places()]
    return next((path for path in paths if path.exists()), None)


def path_of(name):
    """The path of a file, or a skip that says where it was looked for."""
    path = find(name)
    if path is None:
        looked = ", ".join(map(str, places()))
        pytest.skip(f"no golden/feagi/{name} in {looked}; set {VARIABLE} to the folder of golden/")
    return path
