"""Two assemblies that fire together come to evoke each other.

Question:  how much of its partner does an assembly recall after c co-firings?
Expected:  n = 1,000, k = 100, p = .05, beta = .1, 30 rounds per assembly: after 1, 5, 10, 20, 30,
           50 co-firings .13, .44, .74, .96, .99, .99 of the partner (sd .03, .05, .02, .02, .02,
           .02 between brains); by chance k / n = .1.
Source:    Papadimitriou et al. (2020), PNAS 117:14464; the figures are those of an independent
           simulation on fixed random graphs, 10 brains.
Run:       python experiments/association.py [--cofirings 1 10 50] [--smoke] [--json FILE]
           [--out DIR]
"""

import dataclasses
import functools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from brainjax import analysis, assemblies, calculus, experiment, metrics, ops, plotting
from brainjax.simulation import simulate

# Co-firings: mean and standard deviation over 10 brains of the recalled share.
PUBLISHED = {
    1: (0.13, 0.03),
    5: (0.44, 0.05),
    10: (0.74, 0.02),
    20: (0.96, 0.02),
    30: (0.99, 0.02),
    50: (0.99, 0.02),
}
PUBLISHED_BRAINS = 10
PUBLISHED_FOR = {"n": 1_000, "k": 100, "p": 0.05, "beta": 0.1, "w_max": 20.0, "rounds": 30}
RECALL_ROUNDS = 20
FIBERS = (("sA", "A"), ("sB", "B"), ("A", "A"), ("B", "B"), ("A", "B"), ("B", "A"))


@dataclasses.dataclass(frozen=True)
class Settings:
    """Two areas, each with its stimulus, linked both ways."""

    n: int = 1_000  # neurons of each area
    k: int = 100  # winners, and neurons of each stimulus
    p: float = 0.05  # probability of each synapse
    beta: float = 0.1  # plasticity
    w_max: float = 20.0  # largest weight of a synapse
    rounds: int = 30  # in which each assembly forms, after one with its stimulus alone
    cofirings: tuple[int, ...] = (1, 5, 10, 20, 30, 50)  # after which recall is tried
    seed: int = 0
    brains: int = 10

    def __post_init__(self):
        require = experiment.require
        require(self.brains >= 1, "brains", "at least 1", self.brains)
        require(self.rounds >= 1, "rounds", "at least 1", self.rounds)
        require(self.beta >= 0, "beta", "at least 0", self.beta)
        rises = len(self.cofirings) > 0 and bool((np.diff((0, *self.cofirings)) > 0).all())
        require(rises, "cofirings", "ascending numbers from 1 up", self.cofirings)
        self.config()

    def config(self) -> assemblies.Config:
        """The brain."""
        return assemblies.Config(
            areas=[assemblies.Area(name, self.n, self.k) for name in "AB"],
            stimuli=[assemblies.Stimulus(name, self.k) for name in ("sA", "sB")],
            fibers=[assemblies.Fiber(source, target, self.p) for source, target in FIBERS],
        )


SMOKE = Settings(n=300, k=30, rounds=5, cofirings=(2, 4), brains=2)


def run(settings: Settings) -> dict:
    """Form both assemblies, let them fire together, and try recall from time to time."""
    config = settings.config()
    params = assemblies.Params(
        beta=config.per_fiber(settings.beta), w_max=jnp.float32(settings.w_max)
    )
    measured = metrics.Metrics()
    advance = functools.partial(
        simulate, assemblies.step, config, params, in_axes=(None, 0, None), metrics=measured
    )
    birth_key, noise_key = jax.random.split(jax.random.key(settings.seed))
    brains = experiment.births(config, params, birth_key, settings.brains)
    forming = [
        calculus.project(config, source, area, rounds=1 + settings.rounds)
        for source, area in (("sA", "A"), ("sB", "B"))
    ]
    brains, _ = advance(brains, calculus.sequence(*forming))
    partner = jax.tree.map(jnp.copy, brains.winners["B"])
    together = config.drive("sA->A", "sB->B", "A->B", "B->A")

    recalled = [_recall(settings, config, advance, brains, partner, noise_key)]
    for already, wanted in zip((0, *settings.cofirings), settings.cofirings):
        brains, _ = advance(brains, together, num_steps=wanted - already)
        recalled.append(_recall(settings, config, advance, brains, partner, noise_key))
    return _report(settings, np.stack(recalled, axis=1), measured)


def _recall(settings, config, advance, brains, partner, key):
    """The share of its partner that A evokes, from random winners in B, without learning."""
    someone = jax.vmap(functools.partial(_anyone, settings.n, settings.k))(
        jax.random.split(key, settings.brains)
    )
    brains = calculus.activate(jax.tree.map(jnp.copy, brains), "B", someone)
    brains, _ = advance(
        brains, config.drive("sA->A", "A->B", plastic=False), num_steps=RECALL_ROUNDS
    )
    return np.asarray(jax.vmap(calculus.overlap)(brains.winners["B"], partner))


def _anyone(num_neurons, size, key):
    chosen = jax.random.choice(key, num_neurons, (size,), replace=False)
    return ops.ActiveSet(
        indices=jnp.sort(chosen).astype(jnp.int32),
        values=jnp.ones(size, jnp.float32),
        count=jnp.asarray(size, jnp.int32),
    )


def _report(settings, recalled, measured):
    """Recall per brain (brains x tries, the first before any co-firing), and over brains."""
    tries = (0, *settings.cofirings)
    over_brains = {c: analysis.summarise(of_c) for c, of_c in zip(tries, recalled.T)}
    published = _published(settings)
    return {
        "results": [
            {
                "overlap_before": float(of_brain[0]),
                "overlap_after": float(of_brain[-1]),
                "overlap_after_cofirings": dict(zip(tries, map(float, of_brain))),
            }
            for of_brain in recalled
        ],
        "over_brains": {c: dataclasses.asdict(summary) for c, summary in over_brains.items()},
        "published": published,
        "summary": {
            f"recalled after {c} co-firings": f"{over_brains[c]}"
            + (f"; published {published[c][0]}" if c in published else "")
            for c in tries
        },
        "metrics": measured,
        "records": {"recalled": recalled, "tries": tries, "chance": settings.k / settings.n},
    }


def _published(settings):
    """Mean and allowed deviation per number of co-firings: 3 errors of both means."""
    mine = dataclasses.asdict(settings)
    if any(mine[name] != value for name, value in PUBLISHED_FOR.items()):
        return {}
    error = (1 / PUBLISHED_BRAINS + 1 / settings.brains) ** 0.5
    return {c: (mean, 3 * sd * error) for c, (mean, sd) in PUBLISHED.items()}


def check(result: dict) -> None:
    """The claim, where figures are published for the settings."""
    for c, (expected, allowed) in result["published"].items():
        if c in result["over_brains"]:
            mean = result["over_brains"][c]["mean"]
            text = f"recall after {c} co-firings is {expected} +- {allowed:.3f}; got {mean:.3f}"
            experiment.claim(abs(mean - expected) <= allowed, text)


def draw(result: dict, folder: Path) -> list[Path]:
    """Draw recall against co-firings."""
    records = result["records"]
    figure = plotting.new_figure(6.0, 4.0, "Two assemblies become associated")
    axes = figure.subplots()
    plotting.draw_curves(axes, records["recalled"], np.array(records["tries"]), label="mean")
    for number, (c, (mean, _)) in enumerate(result["published"].items()):
        axes.plot(c, mean, "D", color=plotting.COLOURS[1], label="" if number else "published")
    axes.axhline(records["chance"], color="#666666", linestyle="--", linewidth=1, label="chance")
    axes.set(xlabel="co-firings", ylabel="share of the partner recalled", ylim=(0, 1.03))
    axes.legend(frameon=False, loc="lower right")
    return [plotting.save(figure, folder / "association.png")]


def main() -> int:
    """Run from the command line."""
    return experiment.main(sys.modules[__name__])


if __name__ == "__main__":
    sys.exit(main())
