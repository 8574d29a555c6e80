"""Runs of FEAGI's own engine, recorded."""

import itertools
import json

import numpy as np
from burst_oracle import Network
from golden import path_of

NAMES = (
    "g01_leak_threshold",
    "g02_refractory",
    "g03_cfc_snooze",
    "g04_threshold_limit",
    "g06_psp_divided",
    "g06_psp_fast",
    "g06_psp_uniform",
    "g07_mp_driven",
    "g08_power",
    "g09_inhibitory",
    "g10_random_1k",
    "g13_stdp",
)


def load(name):
    """The arrays of one recording, or a skip that says where it was looked for."""
    with np.load(path_of(f"{name}.npz"), allow_pickle=False) as arrays:
        return dict(arrays)


def network_of(arrays):
    """The network of a recording: its core neurons, then its own."""
    meta = json.loads(str(arrays["meta"]))
    base = meta["base"]

    def with_core(name, value):
        return np.concatenate([np.full(base, value, arrays[name].dtype), arrays[name]])

    return Network(
        area=np.concatenate([np.arange(base), arrays["n_area"]]),
        threshold=with_core("n_threshold", 1),
        threshold_limit=with_core("n_tlimit", np.finfo(np.float32).max),
        leak=with_core("n_leak", 0.1),
        excitability=with_core("n_excit", 1),
        refractory_period=with_core("n_refrac", 5),
        fire_limit=with_core("n_cfl", 65_535),
        snooze=with_core("n_snooze", 0),
        accumulates=with_core("n_mpacc", 1) > 0,
        pre=arrays["s_src"],
        post=arrays["s_dst"],
        weight=arrays["s_w"],
        strength=arrays["s_psp"],
        inhibitory=arrays["s_typ"] > 0,
        delay=np.ones(len(arrays["s_src"]), int),
        flags={int(area): tuple(map(bool, flags)) for area, flags in meta["flags"].items()},
        mappings=[
            (source, target, window, scale * up, scale * down, False, 1.0, False)
            for source, target, window, scale, up, down in meta["stdp"]
        ],
        power_neuron=1,
        power=meta["power"],
        fatigue_area=2,
    )


def injections_of(arrays):
    """For each burst the (id, potential) pairs that are staged before it."""
    offsets = arrays["inj_off"]
    pairs = list(zip(arrays["inj_id"].tolist(), arrays["inj_p"]))
    return [pairs[first:last] for first, last in itertools.pairwise(offsets)]
