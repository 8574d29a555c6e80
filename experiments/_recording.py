"""Recorded runs of a burst engine: read from a file or drawn, and made into a network."""

import base64
import json

import numpy as np

from brainjax import connectomes, experiment

# Core neurons stand in front of those of a recording: death, power, fatigue.
CORE = {
    "threshold": 1,
    "threshold_limit": connectomes.NO_LIMIT,
    "leak": 0.1,
    "excitability": 1,
    "refractory_period": 5,
    "fire_limit": connectomes.UNLIMITED,
    "snooze": 0,
    "accumulates": 1,
}
NEURONS = (
    "n_threshold",
    "n_tlimit",
    "n_leak",
    "n_excit",
    "n_refrac",
    "n_cfl",
    "n_snooze",
    "n_mpacc",
)
SYNAPSES = ("s_src", "s_dst", "s_w", "s_psp", "s_typ")
LISTS = {"fcl": ("fcl_id", "fcl_p"), "fired": ("fired_id", "fired_mp")}  # ids and values
STATES = {"mp": "potential", "rc": "countdown", "cfc": "fire_count"}
NEEDED = ("meta", "n_area", *NEURONS, *SYNAPSES, "inj_off", "inj_id", "inj_p", *STATES)


def load(path):
    """The arrays of a file, each checked before it is used."""
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    if "val" in arrays:  # random numbers by id and burst, of which there is nothing to check
        return arrays
    missing = sorted({*NEEDED, *(n for of in LISTS.values() for n in of)} - arrays.keys())
    experiment.require(not missing, str(path), "a recording of the burst engine", f"no {missing}")
    synapses, neurons = len(arrays["s_src"]), len(arrays["n_area"])
    bursts, size = arrays["mp"].shape
    all_neurons = neurons + json.loads(str(arrays["meta"]))["base"]
    experiment.require(size == all_neurons, "mp", f"of {all_neurons} neurons", size)
    for names, length in ((NEURONS, neurons), (SYNAPSES, synapses)):
        for name in names:
            experiment.require(
                arrays[name].shape == (length,), name, f"{length} long", arrays[name].shape
            )
    for off, ids in (("inj_off", "inj_id"), ("fcl_off", "fcl_id"), ("fired_off", "fired_id")):
        offsets, listed = arrays[off], arrays[ids]
        rising = len(offsets) == bursts + 1 and offsets[0] == 0 and (np.diff(offsets) >= 0).all()
        whole = rising and offsets[-1] == len(listed)
        experiment.require(bool(whole), off, f"rising from 0 to {len(listed)}", offsets[-1:])
        below = not len(listed) or int(listed.max()) < size
        experiment.require(below, ids, f"below {size}", listed.max(initial=0))
    return arrays


def draw_network(settings):
    """A random network and what is injected. Weights are small whole numbers: sums are exact."""
    rng = np.random.default_rng(settings.seed)
    n, size = settings.neurons, settings.neurons * settings.fan_out
    base = len(("death", "power", "fatigue"))
    injected = max(1, n // 20)
    return {
        "meta": np.array(json.dumps({"base": base, "power": 1.0, "flags": {}, "stdp": []})),
        "n_area": rng.integers(base, base + 4, n),
        "n_threshold": rng.integers(1, 40, n).astype(np.float32),
        "n_tlimit": np.full(n, connectomes.NO_LIMIT, np.float32),
        "n_leak": rng.choice([0, 0.25, 0.5], n).astype(np.float32),
        "n_excit": rng.choice([0.5, 1], n).astype(np.float32),
        "n_refrac": rng.integers(0, 3, n).astype(np.uint16),
        "n_cfl": rng.choice([0, 2, 3], n).astype(np.uint16),
        "n_snooze": rng.integers(0, 3, n).astype(np.uint16),
        "n_mpacc": rng.integers(0, 2, n).astype(np.uint8),
        "s_src": rng.integers(base, base + n, size).astype(np.uint32),
        "s_dst": rng.integers(base, base + n, size).astype(np.uint32),
        "s_w": rng.integers(1, 4, size).astype(np.uint8),
        "s_psp": rng.integers(1, 4, size).astype(np.uint8),
        "s_typ": (rng.random(size) < 0.2).astype(np.uint8),
        "inj_off": injected * np.arange(settings.bursts + 1),
        "inj_id": rng.integers(base, base + n, injected * settings.bursts).astype(np.uint32),
        "inj_p": rng.integers(1, 40, injected * settings.bursts).astype(np.float32),
    }


def network_of(arrays):
    """The network of a recording, with its core neurons in front."""
    meta = json.loads(str(arrays["meta"]))
    core = np.arange(meta["base"])
    place = np.concatenate([core, arrays["n_area"]])
    flags = {int(area): map(bool, pair) for area, pair in meta["flags"].items()}
    columns = {
        name: np.concatenate([np.full(core.size, value), arrays[key]])
        for (name, value), key in zip(CORE.items(), NEURONS, strict=True)
    }
    columns["accumulates"] = columns["accumulates"] > 0
    *edges, kind = (arrays[name] for name in SYNAPSES)
    return connectomes.Network(
        neurons=connectomes.neurons(area=place, position=np.zeros((place.size, 3), int), **columns),
        synapses=connectomes.synapses(*edges, inhibitory=kind > 0),
        areas=tuple(
            _area(index, meta["power"], *flags.get(index, (None, None)))
            for index in sorted({*place.tolist(), *flags})
        ),
        plastic=tuple(
            connectomes.PlasticMapping(
                pre_area=pre,
                post_area=post,
                window=window,
                constant=float(scale),
                ltp=float(up),
                ltd=float(down),
            )
            for pre, post, window, scale, up, down in meta["stdp"]
        ),
        power=meta["power"] or 0.0,
    )


def _area(index, power, driven, uniform):
    """The engine knows areas of the core by their ids. Without power there is no area of it."""
    core = {0: "___death", 2: "___fatig"} | ({} if power is None else {1: "___power"})
    name = core.get(index, f"c{index:07d}")
    encoded = base64.b64encode(name.encode()).decode()
    return connectomes.Area(index, encoded, mp_driven=driven, uniform=uniform)


def drives_of(config, arrays):
    """What is injected into each burst."""
    starts = arrays["inj_off"][1:-1]
    ids, potentials = (np.split(arrays[name], starts) for name in ("inj_id", "inj_p"))
    return config.drives(ids, potentials)
