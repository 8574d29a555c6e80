"""What the brain of a genome does while a bar crosses its input areas.

Question:  how many neurons and synapses does a genome grow, who of them fires, and how long does a
           burst take?
Expected:  the same genome and the same input make the same neurons fire in the same bursts in every
           brain of a batch (one brain has none to compare with); in the genome that comes with
           this file, every area fires.
Source:    the genome formats of FEAGI, and its burst engine.
Run:       python experiments/genome_run.py [[--genome] FILE.json] [--bursts 200] [--brains 4]
           [--smoke] [--json FILE] [--out DIR]

Like FEAGI, and with a warning, it skips morphologies that are not dispatched and plastic rules of
window 0, and keeps a leak or an excitability that looks like percent.
"""

import dataclasses
import functools
import sys
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from brainjax import burst, connectomes, experiment, genome, metrics, plotting
from brainjax.genome import identifiers
from brainjax.ops import Backend
from brainjax.simulation import simulate

OWN = Path(__file__).parent / "bar.genome.json"
FIRST = "genome"
MOST_DRAWN = 2_000  # neurons of the picture


@dataclasses.dataclass(frozen=True)
class Settings:
    """A genome, and what its input areas see."""

    genome: Path = OWN
    bursts: int = 200
    brains: int = 1  # in one batch
    dwell: int = 2  # bursts that the bar stays at one x
    potential: float = 10.0  # that the bar injects into each neuron, in the unit of thresholds
    strict: bool = False  # FEAGI's semantics, accidents included
    on_unknown: Literal["error", "skip"] = "skip"  # morphologies that are not dispatched
    unwindowed: Literal["static", "skip"] = "skip"  # plastic rules that cannot learn
    legacy_units: Literal["error", "keep", "percent"] = "keep"  # leak and excitability in percent
    seed: int = 0  # of the synapses that are drawn, where an attractivity is below 100 percent
    backend: Backend = "auto"

    def __post_init__(self):
        for name in ("bursts", "brains", "dwell"):
            experiment.require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))


SMOKE = Settings(bursts=40, brains=2)


def run(settings: Settings) -> dict:
    """Grow the network and let the bar pass."""
    network = genome.grow(
        genome.read(settings.genome),
        strict=settings.strict,
        on_unknown=settings.on_unknown,
        unwindowed=settings.unwindowed,
        legacy_units=settings.legacy_units,
        key=jax.random.key(settings.seed),
    )
    config, params = connectomes.to_burst(
        network,
        strict_feagi=settings.strict,
        legacy_units="keep",  # `grow` has seen to them
        backend=settings.backend,
    )
    measured = metrics.Metrics()
    fired = _fired(settings, config, params, _bar(settings, config, network), measured)
    per_area = _per_area(network, fired)
    milliseconds = 1e3 * measured.run_seconds / settings.bursts
    return {
        "results": [
            {
                "neurons": len(network.neurons),
                "synapses": int(network.synapses.valid.sum()),
                "ms_per_burst": milliseconds,
                "spikes_per_burst": {name: spikes[brain] for name, spikes in per_area.items()},
            }
            for brain in range(settings.brains)
        ],
        "summary": {
            "neurons": len(network.neurons),
            "synapses": int(network.synapses.valid.sum()),
            "brains compared with the first": settings.brains - 1,
            "ms per burst": f"{milliseconds:.3f}, of {settings.brains} brains together",
            **{f"spikes per burst: {name}": f"{s[0]:.2f}" for name, s in per_area.items()},
        },
        "differing": (fired != fired[:, :1]).sum((0, 2)).tolist(),  # bits, from the first brain's
        "every_area": settings.genome == OWN,
        "metrics": measured,
        "records": {"fired": fired[:, 0], "network": network},
    }


def check(result: dict) -> None:
    """Brains of a batch do the same; in our own genome nobody is silent."""
    differing = result["differing"]
    experiment.claim(not any(differing), f"the same spikes in every brain; differing: {differing}")
    spikes_per_burst = result["results"][0]["spikes_per_burst"]
    silent = [name for name, spikes in spikes_per_burst.items() if not spikes]
    if result["every_area"]:
        experiment.claim(not silent, f"spikes in every area; none in {silent}")


def draw(result: dict, folder: Path) -> list[Path]:
    """Draw who fires in the first brain, area by area."""
    fired, network = (result["records"][name] for name in ("fired", "network"))
    order = np.argsort(network.neurons.area, kind="stable")
    order = order[:: -(-order.size // MOST_DRAWN)]
    areas = network.neurons.area[order]
    starts = np.flatnonzero(np.diff(areas, prepend=-1))
    figure = plotting.new_figure(8.0, 5.0, "A brain, burst by burst")
    axes = figure.subplots()
    plotting.draw_raster(axes, fired[:, order])
    axes.set(xlabel="burst", ylabel="neuron, by area")
    names = {a.index: _name(a) for a in network.areas if not identifiers.is_core(a.id)}
    axes.set_yticks(starts, [names.get(areas[start], "") for start in starts], fontsize=6)
    return [plotting.save(figure, folder / "genome_run.png")]


def _bar(settings, config, network):
    """What is injected in each burst: a bar that moves along x, once more from the start."""
    inputs = [area.index for area in network.areas if identifiers.is_input(area.id)]
    ids = np.flatnonzero(np.isin(network.neurons.area, inputs) & network.neurons.valid)
    x = network.neurons.position[ids, 0]
    width = int(x.max(initial=0)) + 1
    lit = [ids[x == number // settings.dwell % width] for number in range(settings.bursts)]
    return config.drives(lit, [settings.potential] * len(lit))


def _fired(settings, config, params, drives, measured):
    """Who fires, [bursts, brains, neurons]."""
    keys = jax.random.split(jax.random.key(0), settings.brains)
    states = jax.vmap(functools.partial(burst.init, config, params))(keys)
    _, fired = simulate(
        burst.step,
        config,
        params,
        states,
        drives,
        record=burst.fires,
        in_axes=(None, 0, None),
        metrics=measured,
    )
    return fired


def _per_area(network, fired):
    """Spikes in each burst, on average, of every area that has neurons: a number for each brain."""
    spikes = {}
    for area in network.areas:
        own = network.neurons.area == area.index
        if own.any() and not identifiers.is_core(area.id):
            spikes[_name(area)] = fired[:, :, own].sum(-1).mean(0).tolist()
    return spikes


def _name(area):
    return area.name or identifiers.readable(area.id)


def main() -> int:
    """Run from the command line."""
    return experiment.main(sys.modules[__name__])


if __name__ == "__main__":
    sys.exit(main())
