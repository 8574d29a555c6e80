"""Time of one round of projection, beside what users would write instead and the limit.

Question:  how long does a round of `P[s->A, A->A]` take, against (a) the same round in plain jnp
           under jit and (b) in NumPy, and against the time that moving its bytes takes?
Expected:  at n = 10,000 the kernels are at least 2 times as fast as jnp and 5 times as fast as
           NumPy once the assembly has settled, on two CPU cores.
Measured:  the three in turn, several times, in one process; the median of a round. "settled":
           the winners have converged, so their rows are in the cache. "wandering": beta is 0, the
           winners change in every round and their rows come from memory.
Run:       python benchmarks/assemblies.py [--sizes 1000 10000] [--smoke] [--json FILE]
"""

import dataclasses
import functools
import sys
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from brainjax import assemblies, experiment, metrics, simulation

REGIMES = {"settled": 0.05, "wandering": 0.0}  # beta
CLAIMED = (10_000, "settled", "brainjax")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is timed."""

    sizes: tuple[int, ...] = (1_000, 10_000, 30_000)  # neurons; sqrt(n) of them win
    probability: float = 0.05
    warm_up_rounds: int = 30
    rounds: int = 200  # in one timing
    repetitions: int = 7
    seed: int = 0


SMOKE = Settings(sizes=(300,), rounds=5, repetitions=2)


def run(settings: Settings) -> dict:
    """Time every implementation at every size, in both regimes."""
    bandwidth = metrics.copy_bandwidth()
    rows = [
        row
        for n in settings.sizes
        for regime, beta in REGIMES.items()
        for row in _compare(settings, n, regime, beta, bandwidth)
    ]
    return {
        "platform": jax.default_backend(),
        "copy_bandwidth_bytes_per_s": bandwidth,
        "summary": {"measured copy bandwidth, GB/s": bandwidth / 1e9},
        "rows": rows,
    }


def check(result: dict) -> None:
    """The claim, as code; sizes that were not timed, and GPUs, claim no speed."""
    for row in result["rows"]:
        experiment.claim(row["winners_equal"], f"implementations disagree: {row}")
        is_claimed = (row["n"], row["regime"], row["implementation"]) == CLAIMED
        if is_claimed and result["platform"] == "cpu":
            for other, times in {"jnp": 2, "numpy": 5}.items():
                faster = row["times_faster_than"][other]
                experiment.claim(faster >= times, f"{faster:.2f} times as fast as {other}: {row}")


def _compare(settings, n, regime, beta, bandwidth) -> Iterator[dict]:
    """Time the implementations on the same brain, in turn."""
    k = round(n**0.5)
    config = assemblies.Config(
        areas=[assemblies.Area("A", n, k)],
        stimuli=[assemblies.Stimulus("s", k)],
        fibers=[
            assemblies.Fiber("s", "A", settings.probability),
            assemblies.Fiber("A", "A", settings.probability),
        ],
    )
    state = assemblies.init(config, assemblies.Params(beta=beta), jax.random.key(settings.seed))
    runners = {name: make(config, state, beta) for name, make in IMPLEMENTATIONS.items()}
    del state  # four copies are enough
    # The first sums are exact in any order, so all must choose the same winners.
    first = {name: np.sort(advance(1)) for name, advance in runners.items()}
    for advance in runners.values():
        advance(settings.warm_up_rounds)
        advance(settings.rounds)  # compiles the length that is timed
    seconds = {name: [] for name in runners}
    for _ in range(settings.repetitions):
        for name, advance in runners.items():
            start = time.perf_counter()
            advance(settings.rounds)
            seconds[name].append((time.perf_counter() - start) / settings.rounds)
    medians = {name: float(np.median(times)) for name, times in seconds.items()}
    floor = config.bytes_moved(config.drive("s->A", "A->A", plastic=beta > 0)) / bandwidth
    for name, median in medians.items():
        yield {
            "n": n,
            "k": k,
            "regime": regime,
            "implementation": name,
            "round_us": 1e6 * median,
            "round_us_min_max": [1e6 * min(seconds[name]), 1e6 * max(seconds[name])],
            "steps_per_s": round(1 / median),
            "over_floor": median / floor,
            "times_faster_than": {other: medians[other] / median for other in medians},
            "winners_equal": bool((first[name] == first["numpy"]).all()),
        }


# Each copies the brain and returns a function that advances the copy and returns the winners.
Advance = Callable[[int], np.ndarray]


def _brainjax(config, state, beta) -> Advance:
    params = assemblies.Params(beta=jnp.float32(beta))
    run = functools.partial(simulation.simulate, assemblies.step, config, params)
    state, _ = run(jax.tree.map(jnp.array, state), config.drive("s->A"), num_steps=1)

    def advance(rounds):
        nonlocal state
        state, _ = run(state, config.drive("s->A", "A->A"), num_steps=rounds)
        return np.asarray(state.winners["A"].indices)

    return advance


def _reference(config, state, beta) -> Advance:
    return _brainjax(dataclasses.replace(config, backend="reference"), state, beta)


def _jnp(config, state, beta) -> Advance:
    k, factor = config.areas[0].k, _factor(beta)

    @functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
    def run_rounds(rounds, carry, factor):
        def round_(carry, _):
            stimulus, recurrent, winners = carry
            inputs = stimulus + recurrent[winners].sum(0)
            new = jax.lax.top_k(inputs, k)[1]
            stimulus = stimulus.at[new].multiply(factor)
            recurrent = recurrent.at[winners[:, None], new].multiply(factor)
            return (stimulus, recurrent, new), None

        return jax.lax.scan(round_, carry, length=rounds)[0]

    stimulus = state.synapses["s->A"].weights[0]
    first = jax.lax.top_k(stimulus, k)[1]
    recurrent = jnp.array(state.synapses["A->A"].weights)
    carry = stimulus.at[first].multiply(factor), recurrent, first

    def advance(rounds):
        nonlocal carry
        carry = run_rounds(rounds, carry, factor)
        return np.asarray(carry[2])

    return advance


def _numpy(config, state, beta) -> Advance:
    k, factor = config.areas[0].k, _factor(beta)
    stimulus = np.array(state.synapses["s->A"].weights[0])
    recurrent = np.array(state.synapses["A->A"].weights)
    winners = _largest(stimulus, k)
    stimulus[winners] *= factor

    def advance(rounds):
        nonlocal winners
        for _ in range(rounds):
            inputs = stimulus + recurrent[winners].sum(axis=0)
            new = _largest(inputs, k)
            stimulus[new] *= factor
            recurrent[np.ix_(winners, new)] *= factor
            winners = new
        return winners

    return advance


def _factor(beta):
    return np.float32(1) + np.float32(beta)


def _largest(inputs, k):
    """The k largest in ascending order; of equal inputs the lowest index, as in the model."""
    threshold = np.partition(inputs, -k)[-k]
    above = np.flatnonzero(inputs > threshold)
    equal = np.flatnonzero(inputs == threshold)[: k - above.size]
    return np.sort(np.concatenate([above, equal]))


IMPLEMENTATIONS = {
    "brainjax": _brainjax,
    "brainjax, reference": _reference,
    "jnp": _jnp,
    "numpy": _numpy,
}


if __name__ == "__main__":
    sys.exit(experiment.main(sys.modules[__name__]))
