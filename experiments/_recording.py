"""Recorded runs of a burst engine: read from a file or drawn, and made into a network."""

import base64
import json
import math
import warnings
import zipfile
from pathlib import Path

import numpy as np

from brainjax import connectomes, experiment
from brainjax.connectomes.tables import BROKEN_NPZ

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
# Arrays of a recording, each with its type.
NEURONS = {
    "n_threshold": "float32",
    "n_tlimit": "float32",
    "n_leak": "float32",
    "n_excit": "float32",
    "n_refrac": "uint16",
    "n_cfl": "uint16",
    "n_snooze": "uint16",
    "n_mpacc": "uint8",
}
SYNAPSES = {
    "s_src": "uint32",
    "s_dst": "uint32",
    "s_w": "uint8",
    "s_psp": "uint8",
    "s_typ": "uint8",
}
LISTS = {"fcl": ("fcl_id", "fcl_p"), "fired": ("fired_id", "fired_mp")}  # ids and values
STATES = {"mp": "potential", "rc": "countdown", "cfc": "fire_count"}
_LISTED = {"inj": ("inj_id", "inj_p"), **LISTS}
_BASE = len(("death", "power", "fatigue"))
_FACTS = {"base", "power", "flags", "stdp"}  # of its meta
_OPTIONAL = {"windows", "note", "T"}
_UNUSED = {"meta", "n_rest"}  # read apart; no potential rests elsewhere than at 0


def load(path):
    """The arrays of a file, each checked before it is used, and of the type of the format."""
    arrays = _read(path)
    if "val" in arrays:  # random numbers by id and burst
        _require_names(path, arrays, {"ids", "bursts"})
        ids, bursts = arrays["ids"].size, arrays["bursts"].size
        table = {
            "ids": ("uint32", (ids,)),
            "bursts": ("uint64", (bursts,)),
            "val": ("float32", (ids, bursts)),
        }
    else:
        table = _table(path, arrays)
    arrays |= {name: _typed(name, arrays[name], *form) for name, form in table.items()}
    if "val" not in arrays:
        unread = arrays.keys() - table.keys() - _UNUSED
        unread |= _facts(arrays["meta"]).keys() - _FACTS - _OPTIONAL
        if unread:
            warnings.warn(f"{path}: nothing reads {', '.join(sorted(unread))}", stacklevel=2)
        for name, (ids, _) in _LISTED.items():
            _check_list(
                f"{name}_off", arrays[f"{name}_off"], ids, arrays[ids], arrays["mp"].shape[1]
            )
    return arrays


def _read(path):
    experiment.require(Path(path).exists(), "vector", "a file", path)
    experiment.require(zipfile.is_zipfile(path), str(path), "an npz", "another file, or none")
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except BROKEN_NPZ as error:
        raise ValueError(f"{path} must be a whole npz without objects; got {error}") from None


def _require_names(path, arrays, names):
    missing = sorted(names - arrays.keys())
    experiment.require(not missing, str(path), "a recording of the burst engine", f"no {missing}")


def _table(path, arrays):
    """Type and shape of each array of a recording."""
    lists = {name for of in _LISTED.values() for name in of} | {f"{each}_off" for each in _LISTED}
    _require_names(path, arrays, {"meta", "n_area", *NEURONS, *SYNAPSES, *lists, *STATES})
    neurons, synapses = arrays["n_area"].size, arrays["s_src"].size
    bursts = arrays["inj_off"].size - 1
    experiment.require(bursts >= 1, "bursts", "at least 1", bursts)
    table = {"n_area": ("uint32", (neurons,))}
    table |= {name: (dtype, (neurons,)) for name, dtype in NEURONS.items()}
    table |= {name: (dtype, (synapses,)) for name, dtype in SYNAPSES.items()}
    for name, (ids, values) in _LISTED.items():
        size = arrays[ids].size
        table[f"{name}_off"] = ("int64", (bursts + 1,))
        table |= {ids: ("uint32", (size,)), values: ("float32", (size,))}
    states = (bursts, _BASE + neurons)
    table |= {"mp": ("float32", states), "rc": ("uint16", states), "cfc": ("uint16", states)}
    return table | ({"w": ("uint8", (bursts, synapses))} if "w" in arrays else {})


def _typed(name, values, dtype, shape):
    """An array of its type, if none of its values changes by that."""
    experiment.require(values.shape == shape, f"shape of {name}", shape, values.shape)
    experiment.require(values.dtype.kind in "biuf", name, "numbers", values.dtype)
    with np.errstate(invalid="ignore", over="ignore"):
        typed = values.astype(dtype)
    wrong = typed != values
    if typed.dtype.kind == "f":
        wrong &= ~np.isnan(values)
    experiment.require(not wrong.any(), name, f"of {dtype}", values[wrong][:1])
    return typed


def _check_list(off, offsets, name, ids, size):
    # Compared, not subtracted: differences may be beyond int64.
    rising = (offsets[:-1] <= offsets[1:]).all() and (offsets[0], offsets[-1]) == (0, len(ids))
    experiment.require(bool(rising), off, f"rising from 0 to {len(ids)}", offsets[-1:])
    largest = int(ids.max(initial=0))
    experiment.require(largest < size, name, f"below {size}", largest)


def _facts(meta):
    """What a recording says about its network, checked."""
    try:
        facts = json.loads(str(meta))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"meta must be JSON; got {str(error)[:80]}") from None
    experiment.require(isinstance(facts, dict), "meta", "a JSON object", type(facts).__name__)
    missing = sorted(_FACTS - facts.keys())
    experiment.require(not missing, "meta", f"of {sorted(_FACTS)}", f"no {missing}")
    base = facts["base"]
    experiment.require(isinstance(base, int) and base == _BASE, "base of meta", _BASE, repr(base))
    power, flags, stdp = (facts[name] for name in ("power", "flags", "stdp"))
    experiment.require(power is None or _is_number(power), "power of meta", "a number", power)
    rule = "two flags for each area, by its number below 2^32"
    experiment.require(isinstance(flags, dict), "flags of meta", rule, flags)
    for area, pair in flags.items():
        is_pair = isinstance(pair, list) and len(pair) == 2 and all(each in (0, 1) for each in pair)
        experiment.require(_is_area(area) and is_pair, "flags of meta", rule, {area: pair})
    rule = "mappings: two areas below 2^32, a window, and three numbers"
    experiment.require(isinstance(stdp, list), "stdp of meta", rule, stdp)
    for mapping in stdp:
        is_six = isinstance(mapping, list) and len(mapping) == 6 and all(map(_is_number, mapping))
        is_right = is_six and all(map(_is_area, map(str, mapping[:2])))
        is_right = is_right and isinstance(mapping[2], int)
        experiment.require(is_right, "stdp of meta", rule, mapping)
    rule = "how many frames the ledger keeps of each area, by its number below 2^32"
    windows = facts.get("windows", {})
    experiment.require(isinstance(windows, dict), "windows of meta", rule, windows)
    for area, frames in windows.items():
        is_right = _is_area(area) and isinstance(frames, int) and frames >= 0
        experiment.require(is_right, "windows of meta", rule, {area: frames})
    return facts


def _is_number(value):
    return isinstance(value, int | float) and abs(value) < 2**63 and math.isfinite(value)


def _is_area(text):
    return text.isascii() and text.isdecimal() and len(text) < 11 and int(text) < 2**32


def draw_network(settings):
    """A random network and what is injected. Weights are small whole numbers: sums are exact."""
    rng = np.random.default_rng(settings.seed)
    n, size = settings.neurons, settings.neurons * settings.fan_out
    base = _BASE
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
    meta = _facts(arrays["meta"])
    core = np.arange(meta["base"])
    place = np.concatenate([core, arrays["n_area"]])
    flags = {int(area): map(bool, pair) for area, pair in meta["flags"].items()}
    plastic = {area for pre, post, *_ in meta["stdp"] for area in (pre, post)}
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
            # The engine also knows areas in which nobody is.
            for index in sorted({*place.tolist(), *flags, *plastic})
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
            if _remembers(meta, window, pre, post)
        ),
        power=meta["power"] or 0.0,
    )


def _remembers(meta, window, *areas):
    """Whether the ledger keeps a mapping's window of both areas; without that nothing is learnt."""
    windows = meta.get("windows")
    return windows is None or all(windows.get(str(area), 0) >= window for area in areas)


def _area(index, power, driven, uniform):
    """The engine knows areas of the core by their ids. Without power there is no area of it."""
    core = {0: b"___death", 2: b"___fatig"}
    if power is not None:
        core[1] = b"___power"
    name = core.get(index) or b"c" + index.to_bytes(7, "big")
    encoded = base64.b64encode(name).decode()
    return connectomes.Area(index, encoded, mp_driven=driven, uniform=uniform)


def drives_of(config, arrays):
    """What is injected into each burst."""
    starts = arrays["inj_off"][1:-1]
    ids, potentials = (np.split(arrays[name], starts) for name in ("inj_id", "inj_p"))
    return config.drives(ids, potentials)
