"""Genomes, and the connectomes that FEAGI's server built of them."""

import functools
import json

from golden import path_of

NAMES = ("essential", "gesture", "mujoco", "test")


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
