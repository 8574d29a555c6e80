"""Whether the burst engine repeats a recorded run, bit for bit.

Question:  does every quantity of every burst have the bits of the recording?
Expected:  no mismatch. A recording of FEAGI's own engine is given with `--vector`; without one, a
           random network is recorded in plain XLA and replayed with kernels.
Source:    feagi-core 0.0.1-beta.18, whose CPU engine made the recordings.
Run:       python experiments/burst_replay.py [--vector FILE.npz] [--brains 4] [--smoke]
           [--json FILE] [--out DIR]
"""

import dataclasses
import functools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from _recording import LISTS, STATES, draw_network, drives_of, load, network_of

from brainjax import burst, connectomes, experiment, metrics, ops, plotting
from brainjax.ops import Backend
from brainjax.simulation import simulate


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is replayed, and how often side by side."""

    vector: Path | None = None  # a recording; without one, a network is drawn and recorded
    brains: int = 1  # replays in one batch
    backend: Backend = "auto"
    neurons: int = 1_000  # of the network that is drawn
    fan_out: int = 20
    bursts: int = 60
    seed: int = 0

    def __post_init__(self):
        for name in ("brains", "neurons", "fan_out", "bursts"):
            experiment.require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))


SMOKE = Settings(brains=2, neurons=60, fan_out=5, bursts=12)


def run(settings: Settings) -> dict:
    """Replay the recording in every brain, and count what differs."""
    arrays = _record(settings) if settings.vector is None else load(settings.vector)
    if "val" in arrays:
        return _random_numbers(arrays)
    measured = metrics.Metrics()
    records = _replay(arrays, settings.backend, settings.brains, measured)
    results = [_mismatches(arrays, _of_brain(records, b)) for b in range(settings.brains)]
    return {
        "results": results,
        "summary": _summary(results),
        "metrics": measured,
        "records": {"fired": _of_brain(records, 0)["fired"]},
    }


def _summary(results):
    return {
        "bursts": results[0]["bursts"],
        "mismatches of each brain": [of_brain["mismatches"] for of_brain in results],
        "first": results[0]["first_mismatch"] or "none",
    }


def _random_numbers(arrays):
    """A recording of the engine's random numbers alone, [ids, bursts]."""
    bursts = jnp.asarray(arrays["bursts"].astype(np.uint32))[:, None]
    drawn = np.asarray(burst.random_number(jnp.asarray(arrays["ids"])[None], bursts))
    results = [_counted({"val": (arrays["val"].T, drawn)})]
    return {"results": results, "summary": _summary(results), "records": {"fired": drawn > 0}}


def check(result: dict) -> None:
    """Every brain repeats the recording."""
    for of_brain in result["results"]:
        claim = f"no mismatch; first: {of_brain['first_mismatch']}"
        experiment.claim(of_brain["mismatches"] == 0, claim)


def draw(result: dict, folder: Path) -> list[Path]:
    """Draw who fires in the first brain."""
    figure = plotting.new_figure(7.0, 3.6, "The replayed run")
    axes = figure.subplots()
    plotting.draw_raster(axes, result["records"]["fired"])
    axes.set(xlabel="burst", ylabel="neuron")
    return [plotting.save(figure, folder / "burst_replay.png")]


# ---- The replay ----


def _record(settings):
    """A drawn network, recorded in plain XLA."""
    arrays = draw_network(settings)
    records = _of_brain(_replay(arrays, "reference", 1, None), 0)
    for what, (ids, values) in LISTS.items():
        there, amounts = records[what], records[values]
        arrays[f"{what}_off"] = np.concatenate([[0], np.cumsum(there.sum(1))])
        arrays[ids], arrays[values] = np.nonzero(there)[1].astype(np.uint32), amounts[there]
    return arrays | {name: records[name] for name in STATES}


def _replay(arrays, backend, brains, measured):
    """The records of all bursts, [bursts, brains, ...], by the names of the recording."""
    network = network_of(arrays)
    config, params = connectomes.to_burst(
        network, strict_feagi=True, keeps_inputs=True, backend=backend
    )
    keys = jax.random.split(jax.random.key(0), brains)
    states = jax.vmap(functools.partial(burst.init, config, params))(keys)
    _, records = simulate(
        burst.step,
        config,
        params,
        states,
        drives_of(config, arrays),
        record=_observed,
        in_axes=(None, 0, None),
        metrics=measured,
    )
    if "w" in arrays:
        weights = burst.weights(params.synapses, records.get("w"), arrays["s_w"])
        records["w"] = np.broadcast_to(weights, (*records["fcl"].shape[:2], weights.shape[-1]))
    return records


def _observed(state):
    return {
        "fcl": state.candidates,
        "fcl_p": state.inputs,
        "fired": burst.fires(state),
        "fired_mp": ops.active_set.to_dense(state.fired, state.membranes.potential.size),
        **{name: getattr(state.membranes, field) for name, field in STATES.items()},
        **({} if state.weights is None else {"w": state.weights}),
    }


def _of_brain(records, brain):
    return {name: values[:, brain] for name, values in records.items()}


# ---- The comparison ----


def _mismatches(arrays, records):
    """What differs in one brain, by quantity; a value is compared where both have one."""
    size, pairs = arrays["mp"].shape[1], {}
    for what, (ids, values) in LISTS.items():
        there, amounts = _dense(arrays[f"{what}_off"], arrays[ids], arrays[values], size)
        both = there & records[what]
        pairs[ids] = there, records[what]
        pairs[values] = np.where(both, amounts, 0), np.where(both, records[values], 0)
    for name in (*STATES, *(["w"] if "w" in arrays else [])):
        pairs[name] = arrays[name], records[name]
    return _counted(pairs)


def _counted(pairs):
    """Mismatches of quantities, each given as what is expected and what was found, by burst."""
    differs = {name: _bits(expected) != _bits(got) for name, (expected, got) in pairs.items()}
    counts = {name: int(each.sum()) for name, each in differs.items()}
    return {
        "bursts": len(next(iter(differs.values()))),
        "mismatches": sum(counts.values()),
        "mismatches_by_quantity": counts,
        "first_mismatch": _first(differs, pairs),
    }


def _dense(offsets, ids, values, size):
    bursts = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    there, amounts = np.zeros((2, len(offsets) - 1, size), np.float32)
    there[bursts, ids], amounts[bursts, ids] = 1, values
    return there > 0, amounts


def _bits(values):
    return np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}")


def _first(differs, pairs):
    places = {name: np.argwhere(each)[:1].tolist() for name, each in differs.items()}
    found = [(*place[0], name) for name, place in places.items() if place]
    if not found:
        return None
    number, element, name = min(found)
    expected, got = (each[number, element].item() for each in pairs[name])
    return {
        "burst": number + 1,
        "quantity": name,
        "element": element,
        "expected": expected,
        "got": got,
    }


def main() -> int:
    """Run from the command line."""
    return experiment.main(sys.modules[__name__])


if __name__ == "__main__":
    sys.exit(main())
