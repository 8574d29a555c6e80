"""Time of one burst of the burst engine, beside plain arrays and the limit.

Question:  how long does a burst take in which one neuron in a hundred fires, against (a) a burst
           of plain jnp and (b) of NumPy, and against the time that moving its bytes takes?
Measured:  each burst injects other neurons, and exactly those fire: the synapses are too weak for
           more, which is checked, as is the number of candidates. "resident": rounds of all
           bursts in one compiled loop. "host": injections come from the host and the list of who
           fired goes back to it, burst by burst. Implementations take turns; the median of a burst.
           The limit there is a program that reads and writes as long lists and computes nothing.
           Compilation is apart. The plain ones leave out most of the model: limits, excitability,
           fatigue, and that only candidates leak; they give their lists twice the room that is
           needed.
Elsewhere: `feagi_us` are times of FEAGI's own engine at the same size and fan-out, taken on other
           machines at other times; `feagi_on` says which. They are not measured here.
Run:       python benchmarks/burst.py [--neurons 10000 100000] [--fan-outs 10 100] [--smoke]
           [--json FILE]
"""

import dataclasses
import functools
import sys

import _burst_cases as cases
import jax
from _case import row_of

from brainjax import experiment, metrics, ops

_SHARE = 0.01  # of the neurons, injected in each burst
_EXCHANGE = "exchange alone"
# Microseconds a burst with 1 % of the neurons sending: (kind, fan-out) to neurons to time.
_CUDA = "its CUDA kernels alone, of which nothing fires, H100 80GB"
_COPIES = "its CUDA kernels with the copies of its back-end, H100 80GB"
_ENGINE = "its CPU engine, 2 shared cores"
_PUBLISHED = "its CPU engine, published by FEAGI, host of an A100"
_FEAGI = {
    ("gpu", "resident"): {
        100: (_CUDA, {10_000: 40, 100_000: 50, 1_000_000: 93}),
        10: (_CUDA, {10_000: 17, 100_000: 19, 1_000_000: 28}),
    },
    ("gpu", "host"): {100: (_COPIES, {10_000: 98, 100_000: 234, 1_000_000: 1_081})},
    ("cpu", "host"): {
        100: (_PUBLISHED, {10_000: 320, 100_000: 3_260}),
        10: (_ENGINE, {10_000: 400, 100_000: 4_900, 1_000_000: 101_000}),
    },
}


def _makers(settings, kind):
    if kind == "host":
        return {
            "brainjax": cases.through_host,
            "jnp": cases.jnp_through_host,
            "numpy": cases.numpy_bursts,
            _EXCHANGE: cases.exchange_alone,
        }
    return {
        "brainjax": functools.partial(cases.resident, most_rounds=settings.rounds),
        "jnp in lax.scan": functools.partial(cases.jnp_resident, most_rounds=settings.rounds),
        "numpy": cases.numpy_bursts,
    }


def _by_platform(*, gpu, cpu):
    return dataclasses.field(
        default_factory=lambda: gpu if ops.backend.default_platform() == "cuda" else cpu
    )


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is timed. The sizes default to what the device can do in minutes."""

    neurons: tuple[int, ...] = _by_platform(
        gpu=(10_000, 100_000, 1_000_000, 10_000_000), cpu=(10_000, 100_000, 1_000_000)
    )
    fan_outs: tuple[int, ...] = (10, 100)
    bursts: int = _by_platform(gpu=100, cpu=20)  # each with other injections
    rounds: int = _by_platform(gpu=100, cpu=1)  # of these bursts, in one loop, at most
    repetitions: int = 7
    seed: int = 0

    def __post_init__(self):
        experiment.require(2 <= self.bursts <= 100, "bursts", "in 2..100", self.bursts)
        experiment.require(self.rounds >= 1, "rounds", "at least 1", self.rounds)
        least = min(self.neurons, default=0)
        experiment.require(least >= 200, "neurons", "at least 200 each", least)


SMOKE = Settings(neurons=(300,), fan_outs=(10,), bursts=4, rounds=2, repetitions=2)


def run(settings: Settings) -> dict:
    """Time every implementation at every size, in the loop and through the host."""
    bandwidth = metrics.copy_bandwidth()
    rows = [
        _row(settings, n, fan_out, kind, bandwidth)
        for n in settings.neurons
        for fan_out in settings.fan_outs
        for kind in ("resident", "host")
    ]
    return {
        "platform": jax.default_backend(),
        "copy_bandwidth_bytes_per_s": bandwidth,
        "summary": {"measured copy bandwidth, GB/s": bandwidth / 1e9},
        "rows": rows,
    }


def check(result: dict) -> None:
    """Every case has the bits of the reference and a time, or says why it has none."""
    for row in result["rows"]:
        timed = row["equal_bits"] and row["agree"] and row["brainjax_us"] > 0
        experiment.claim(timed or bool(row["skipped"]), f"wrong or not timed: {row}")
        share = row["fired"] and row["fired"] / row["neurons"]
        experiment.claim(not share or abs(share - _SHARE) < 1e-3, f"{share} of the neurons fired")


def _row(settings, n, fan_out, kind, bandwidth):
    facts = {"neurons": n, **dict.fromkeys(("fired", "candidates", "agree", "compile_s"))}
    sizes = n, fan_out, settings.bursts, _SHARE, settings.seed
    makers = _makers(settings, kind)
    if jax.default_backend() != "cpu":
        del makers["numpy"]
    draw = functools.partial(cases.network, *sizes)
    build = functools.partial(cases.case_of, draw, makers, facts, (_EXCHANGE,))
    row = row_of(settings, f"{n:,} x {fan_out}, {kind}", build, bandwidth)
    del row["launch_apart"]
    where, times = _FEAGI.get((jax.default_backend(), kind), {}).get(fan_out, ("", {}))
    feagi = {"feagi_us": times.get(n), "feagi_on": where if n in times else ""}
    return {**row, **facts, **feagi}


if __name__ == "__main__":
    sys.exit(experiment.main(sys.modules[__name__]))
