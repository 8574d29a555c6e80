"""An assembly recovers from a part of itself.

Question:  if only some neurons of an assembly fire, how much of it fires after a few rounds of
           recurrence alone?
Expected:  n = 1,000, k = 100, p = .05, beta = .1: at least .98 of it from one half, nearly what
           the whole keeps (.995); n = 100,000, k = 317, p = .05, beta = .05: .86-.92 after one
           round and .99 from the fifth on.
Source:    Papadimitriou et al. (2020), PNAS 117:14464; the figures are those of an independent
           simulation on fixed random graphs.
Run:       python experiments/completion.py [--fraction 0.3] [--smoke] [--json FILE] [--out DIR]
"""

import dataclasses
import functools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from brainjax import analysis, assemblies, calculus, experiment, metrics, plotting
from brainjax.simulation import simulate

# Settings: lowest mean recovery after the first round and after the last, from one half.
PUBLISHED = (
    ({"n": 1_000, "k": 100, "p": 0.05, "beta": 0.1}, 0.0, 0.98),
    ({"n": 100_000, "k": 317, "p": 0.05, "beta": 0.05}, 0.86, 0.98),
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """One area with one stimulus, and how much of the assembly is left."""

    n: int = 1_000  # neurons
    k: int = 100  # winners, and neurons of the stimulus
    p: float = 0.05  # probability of each synapse
    beta: float = 0.1  # plasticity
    w_max: float = 20.0  # largest weight of a synapse
    rounds: int = 25  # in which the assembly forms
    fraction: float = 0.5  # of the assembly that fires at first
    recovery_rounds: int = 20
    seed: int = 0
    brains: int = 20

    def __post_init__(self):
        require = experiment.require
        require(self.brains >= 1, "brains", "at least 1", self.brains)
        require(self.rounds >= 1, "rounds", "at least 1", self.rounds)
        require(self.recovery_rounds >= 1, "recovery_rounds", "at least 1", self.recovery_rounds)
        require(self.beta >= 0, "beta", "at least 0", self.beta)
        require(0 < self.fraction <= 1, "fraction", "in (0, 1]", self.fraction)
        self.config()

    def config(self) -> assemblies.Config:
        """The brain."""
        return assemblies.Config(
            areas=[assemblies.Area("area", self.n, self.k)],
            stimuli=[assemblies.Stimulus("stimulus", self.k)],
            fibers=[
                assemblies.Fiber("stimulus", "area", self.p),
                assemblies.Fiber("area", "area", self.p),
            ],
        )


SMOKE = Settings(n=300, k=30, rounds=10, recovery_rounds=5, brains=2)


def run(settings: Settings) -> dict:
    """Form an assembly in every brain, silence a part of it, and let it recover."""
    config = settings.config()
    params = assemblies.Params(
        beta=config.per_fiber(settings.beta), w_max=jnp.float32(settings.w_max)
    )
    measured = metrics.Metrics()
    advance = functools.partial(
        simulate, assemblies.step, config, params, in_axes=(None, 0, None), metrics=measured
    )
    birth_key, part_key = jax.random.split(jax.random.key(settings.seed))
    brains = experiment.births(config, params, birth_key, settings.brains)
    brains, _ = advance(
        brains, calculus.project(config, "stimulus", "area", rounds=settings.rounds)
    )
    whole = jax.tree.map(jnp.copy, brains.winners["area"])
    part = jax.vmap(
        lambda key, assembly: calculus.part(key, assembly, settings.fraction, settings.n)
    )(jax.random.split(part_key, settings.brains), whole)
    brains = calculus.activate(brains, "area", part)
    recall = calculus.complete(config, "area", rounds=settings.recovery_rounds, plastic=False)
    _, winners = advance(brains, recall, record=_winners)
    recovered = np.asarray(jax.vmap(_overlap_with, (1, 0))(winners, whole))
    return _report(settings, recovered, measured)


def _winners(state):
    return state.winners["area"]


_overlap_with = jax.vmap(calculus.overlap, (0, None))


def _report(settings, recovered, measured):
    """Recovery of each brain (brains x rounds), and over brains."""
    first, last = (analysis.summarise(recovered[:, t]) for t in (0, -1))
    return {
        "results": [
            {"recovered": float(of_brain[-1]), "recovered_by_round": of_brain.tolist()}
            for of_brain in recovered
        ],
        "over_brains": {"first": dataclasses.asdict(first), "last": dataclasses.asdict(last)},
        "published": _published(settings),
        "summary": {
            "fired at first": settings.fraction,
            "recovered after the first round": first,
            "recovered after the last round": last,
        },
        "metrics": measured,
        "records": {"recovered": recovered, "fraction": settings.fraction},
    }


def _published(settings):
    """Lowest means after the first and the last round, if published for the settings."""
    mine = dataclasses.asdict(settings)
    if settings.fraction != 0.5 or settings.rounds < 25 or settings.recovery_rounds < 5:
        return None
    for fields, first, last in PUBLISHED:
        if all(mine[name] == value for name, value in fields.items()):
            return {"first": first, "last": last}
    return None


def check(result: dict) -> None:
    """The claim, where figures are published for the settings."""
    for when, lowest in (result["published"] or {}).items():
        mean = result["over_brains"][when]["mean"]
        text = f"recovery after the {when} round is at least {lowest}; got {mean:.3f}"
        experiment.claim(mean >= lowest, text)


def draw(result: dict, folder: Path) -> list[Path]:
    """Draw recovery round by round."""
    recovered, fraction = result["records"]["recovered"], result["records"]["fraction"]
    with_start = np.pad(recovered, ((0, 0), (1, 0)), constant_values=fraction)
    figure = plotting.new_figure(6.0, 4.0, "An assembly recovers from a part of itself")
    axes = figure.subplots()
    rounds = np.arange(with_start.shape[1])
    plotting.draw_curves(axes, with_start, rounds, label="mean of the brains")
    axes.set(xlabel="round of recurrence alone", ylabel="share of the assembly", ylim=(0, 1.03))
    axes.legend(frameon=False, loc="lower right")
    return [plotting.save(figure, folder / "completion.png")]


def main() -> int:
    """Run from the command line."""
    return experiment.main(sys.modules[__name__])


if __name__ == "__main__":
    sys.exit(main())
