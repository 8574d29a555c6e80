"""How an assembly forms: a stimulus fires into an area until the same neurons win every time.

Question:  how many neurons does an assembly recruit on its way, and when does recruiting end?
Expected:  n = 10,000, k = 100, p = .05: 3.04 k at beta = .05 (sd .22 between brains), 1.95 k at
           beta = .1 (sd .16); n = 100,000, k = 317, p = .01, beta = .05: 3.28-4.11 k, settled in
           round 12-14.
Source:    Papadimitriou et al. (2020), PNAS 117:14464; the figures are those of an independent
           simulation on fixed random graphs.
Run:       python experiments/projection.py [--n 100000 --k 317 --p 0.01] [--smoke] [--json FILE]
           [--out DIR]
"""

import dataclasses
import sys
from pathlib import Path

import jax
import numpy as np

from brainjax import analysis, assemblies, calculus, connectivity, experiment, metrics, plotting
from brainjax.simulation import simulate

# (n, k, p, beta): lowest and highest final support in units of k. Of the small areas mean and
# spread of 8 brains are published, so the mean of 8 others is within 3 * sd * sqrt(2 / 8); of
# the large ones only the range of 4 brains is, and another brain may be 15 % outside.
PUBLISHED = {
    (10_000, 100, 0.05, 0.05): (3.04 - 0.33, 3.04 + 0.33),
    (10_000, 100, 0.05, 0.1): (1.95 - 0.24, 1.95 + 0.24),
    (100_000, 317, 0.01, 0.05): (0.85 * 3.28, 1.15 * 4.11),
    (100_000, 317, 0.01, 0.1): (0.85 * 2.32, 1.15 * 2.74),
    (100_000, 317, 0.01, 0.25): (0.85 * 1.52, 1.15 * 1.62),
}
MIN_ROUNDS = 30  # from which the published figures hold

# Memory for all that is not weights.
HEADROOM = 1.05


@dataclasses.dataclass(frozen=True)
class Settings:
    """One area with one stimulus, many times over."""

    n: int = 10_000  # neurons
    k: int = 100  # winners in each round, and neurons of the stimulus
    p: float = 0.05  # probability of each synapse
    beta: float = 0.05  # plasticity
    rounds: int = 30
    seed: int = 0
    brains: int = 8  # which differ in their synapses

    def __post_init__(self):
        experiment.require(self.brains >= 1, "brains", "at least 1", self.brains)
        experiment.require(self.rounds >= 1, "rounds", "at least 1", self.rounds)
        experiment.require(self.beta >= 0, "beta", "at least 0", self.beta)
        self.config("float32")

    def config(self, dtype: str) -> assemblies.Config:
        """The brain, with weights of that type."""
        return assemblies.Config(
            areas=[assemblies.Area("area", self.n, self.k)],
            stimuli=[assemblies.Stimulus("stimulus", self.k)],
            fibers=[
                assemblies.Fiber("stimulus", "area", self.p),
                assemblies.Fiber("area", "area", self.p),
            ],
            dtype=dtype,
        )


SMOKE = Settings(n=1_000, k=30, rounds=10, brains=2)


def run(settings: Settings) -> dict:
    """Form one assembly in every brain."""
    dtype, reason = _weights_dtype(settings)
    config = settings.config(dtype)
    params = assemblies.Params(beta=config.per_fiber(settings.beta))
    measured = metrics.Metrics()
    _, winners = simulate(
        assemblies.step,
        config,
        params,
        experiment.births(config, params, jax.random.key(settings.seed), settings.brains),
        calculus.project(config, "stimulus", "area", rounds=settings.rounds),
        record=_winners,
        in_axes=(None, 0, None),
        metrics=measured,
        progress=True,
    )
    support = np.stack(
        [analysis.support(of_brain, settings.n) for of_brain in np.moveaxis(winners, 1, 0)]
    )
    final = analysis.summarise(support[:, -1] / settings.k)
    settled = [analysis.converged_round(of_brain) for of_brain in support]
    band = _published(settings)
    return {
        "results": [
            {"support": of_brain.tolist(), "converged_round": when}
            for of_brain, when in zip(support, settled)
        ],
        "final_support_over_k": dataclasses.asdict(final),
        "published_support_over_k": band,
        "weights": {"dtype": dtype, "bytes": _weight_bytes(settings, dtype), "reason": reason},
        "summary": {
            "neurons that ever fired / k": final,
            "published": "none for these settings"
            if band is None
            else "{:.2f} to {:.2f}".format(*band),
            "nobody new from round": settled,
            "weights": f"{dtype}: {reason}",
        },
        "metrics": measured,
        "records": {
            "support": support,
            "fires": analysis.fired(winners[:, 0], settings.n),
            "k": settings.k,
        },
    }


def check(result: dict) -> None:
    """The claim, where figures are published for the settings."""
    if (band := result["published_support_over_k"]) is None:
        return
    low, high = band
    mean = result["final_support_over_k"]["mean"]
    experiment.claim(low <= mean <= high, f"support in {low:.2f}..{high:.2f} k; got {mean:.2f} k")


def draw(result: dict, folder: Path) -> list[Path]:
    """Draw how the support grows, and who fires in the first brain."""
    support, fires, k = (result["records"][name] for name in ("support", "fires", "k"))
    figure = plotting.new_figure(9.0, 3.6, "An assembly forms")
    growth, raster = figure.subplots(1, 2)
    plotting.draw_curves(growth, support / k, label="mean of the brains")
    if band := result["published_support_over_k"]:
        plotting.draw_band(growth, *band, label="published, final")
    growth.set(xlabel="round", ylabel="neurons that ever fired / k", ylim=(0, None))
    growth.legend(frameon=False)
    plotting.draw_raster(raster, _by_first_spike(fires))
    raster.set(ylabel="neuron, in order of its first spike", title="one brain")
    return [plotting.save(figure, folder / "projection.png")]


def _winners(state):
    return state.winners["area"].indices


def _weight_bytes(settings, dtype):
    return settings.brains * settings.config(dtype).weight_bytes


def _weights_dtype(settings):
    """The first type whose weights fit into memory, and why it was chosen."""
    free = connectivity.free_memory()
    needs = {dtype: _weight_bytes(settings, dtype) / 1e9 for dtype in ("float32", "bfloat16")}
    if free is None:
        return "float32", f"{needs['float32']:.1f} GB; the device does not say what it has free"
    for dtype, need in needs.items():
        if HEADROOM * need * 1e9 <= free:
            return dtype, f"{need:.1f} GB of {free / 1e9:.1f} GB free"
    wanted = " or ".join(f"{need:.1f} GB in {dtype}" for dtype, need in needs.items())
    raise MemoryError(
        f"weights of {settings.brains} brains of n = {settings.n} need {wanted}; "
        f"{free / 1e9:.1f} GB are free"
    )


def _published(settings):
    if settings.rounds < MIN_ROUNDS:
        return None
    return PUBLISHED.get((settings.n, settings.k, settings.p, settings.beta))


def _by_first_spike(fires):
    """The neurons that ever fire, in the order in which they first do."""
    order = np.argsort(np.argmax(fires, axis=0), kind="stable")
    return fires[:, order[fires.any(axis=0)[order]]]


def main() -> int:
    """Run from the command line."""
    return experiment.main(sys.modules[__name__])


if __name__ == "__main__":
    sys.exit(main())
