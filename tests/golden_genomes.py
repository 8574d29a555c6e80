"""Genomes, and the connectomes that FEAGI's server built of them; not part of the checkout."""

import functools
import json
import os
from pathlib import Path

import pytest

NAMES = ("essential", "gesture", "mujoco", "test")
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


@functools.cache
def _index(path):
    return json.loads(path.read_text())["genomes"]


def facts(name):
    """What the index says about a genome."""
    return _index(path_of("index.json"))[name]


def connectome(name):
    return path_of(f"genomes/{name}.connectome")


def genome(name):
    return path_of(f"genomes/{name}.in.json")
