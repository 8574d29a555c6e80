"""Time of each operation alone, beside plain JAX and the limit.

Question:  how long does one call of accumulate_rows, select_winners and potentiate take, against
           `W[rows].sum(0)`, `lax.top_k` and `W.at[rows, columns].multiply`, and against the time
           that moving its bytes takes?
Measured:  calls back to back in one compiled loop, over several inputs in turn so that rows come
           from memory where they do not fit a cache; the median of the loops.
Run:       python benchmarks/operations.py [--dtypes float32 bfloat16] [--smoke] [--json FILE]
"""

import dataclasses
import functools
import sys
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from brainjax import connectivity, experiment, metrics, ops


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is timed: pairs of n, neurons, and k, how many of them are active."""

    accumulate: tuple[tuple[int, int], ...] = ((10_000, 100), (32_768, 181))
    select: tuple[tuple[int, int], ...] = ((10_000, 100), (1_000_000, 1_000))
    potentiate: tuple[tuple[int, int], ...] = ((10_000, 100), (10_000, 1_000))
    dtypes: tuple[str, ...] = ("float32",)  # of weights; jnp takes minutes for bfloat16 on a CPU
    inputs: int = 8  # different ones, in turn
    calls: int = 200  # in one loop
    repetitions: int = 5
    seed: int = 0


SMOKE = Settings(
    accumulate=((300, 17),), select=((300, 17),), potentiate=((300, 17),), calls=5, repetitions=2
)


def run(settings: Settings) -> dict:
    """Time every operation."""
    bandwidth = metrics.copy_bandwidth()
    cases = [*_accumulate(settings), *_select(settings), *_potentiate(settings)]
    return {
        "platform": jax.default_backend(),
        "copy_bandwidth_bytes_per_s": bandwidth,
        "summary": {"measured copy bandwidth, GB/s": bandwidth / 1e9},
        "rows": [{**row, "floor_us": 1e6 * row["bytes"] / bandwidth} for row in cases],
    }


def check(result: dict) -> None:
    """Every row has a time of both; how they compare is for the reader."""
    for row in result["rows"]:
        experiment.claim(row["brainjax_us"] > 0 and row["jnp_us"] > 0, f"not timed: {row}")


def _accumulate(settings) -> Iterator[dict]:
    for n, k in settings.accumulate:
        for dtype in settings.dtypes:
            weights = connectivity.random(jax.random.key(settings.seed), n, n, 0.1, dtype=dtype)
            sets = _active_sets(settings, n, k)

            def ours(weights, active):
                return weights, ops.accumulate_rows(weights, active)

            def theirs(weights, active):
                return weights, weights[active.indices].sum(0)

            timed = _compare(settings, ours, theirs, weights.weights, sets)
            moved = k * n * weights.weights.dtype.itemsize + 4 * n
            yield {"operation": f"accumulate n={n:,} k={k:,} {dtype}", "bytes": moved, **timed}


def _select(settings) -> Iterator[dict]:
    for n, k in settings.select:
        scores = jax.random.normal(jax.random.key(settings.seed), (settings.inputs, n))

        def ours(nothing, scores, k=k):
            return nothing, ops.select_winners(scores, k).indices

        def theirs(nothing, scores, k=k):
            return nothing, jax.lax.top_k(scores, k)[1]

        timed = _compare(settings, ours, theirs, jnp.zeros(()), scores)
        yield {"operation": f"select n={n:,} k={k:,}", "bytes": 4 * n + 4 * k, **timed}


def _potentiate(settings) -> Iterator[dict]:
    for n, k in settings.potentiate:
        for dtype in settings.dtypes:
            weights = connectivity.random(jax.random.key(settings.seed), n, n, 0.1, dtype=dtype)
            sets = _active_sets(settings, n, k)

            def ours(weights, active):
                return ops.potentiate(weights, active, active, 0.05), active.count

            def theirs(weights, active):
                block = active.indices[:, None], active.indices
                factor = jnp.asarray(1.05, weights.dtype)
                return weights.at[block].multiply(factor, unique_indices=True), active.count

            timed = _compare(settings, ours, theirs, weights.weights, sets)
            moved = 2 * k * k * weights.weights.dtype.itemsize
            yield {"operation": f"potentiate n={n:,} k={k:,} {dtype}", "bytes": moved, **timed}


def _active_sets(settings, n, k):
    rng = np.random.default_rng(settings.seed)
    sets = [
        ops.active_set.from_indices(rng.choice(n, k, replace=False), n)
        for _ in range(settings.inputs)
    ]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *sets)


def _compare(settings, ours: Callable, theirs: Callable, weights, inputs) -> dict:
    return {
        "brainjax_us": _microseconds(settings, ours, weights, inputs),
        "jnp_us": _microseconds(settings, theirs, weights, inputs),
    }


def _microseconds(settings, call, weights, inputs):
    """Median time of one call `(weights, input) -> (weights, output)` in a loop."""

    @functools.partial(jax.jit, donate_argnums=0)
    def loop(weights, inputs):
        def body(weights, index):
            chosen = jax.tree.map(lambda leaf: leaf[index % settings.inputs], inputs)
            return call(weights, chosen)

        weights, outputs = jax.lax.scan(body, weights, jnp.arange(settings.calls))
        return weights, jax.tree.map(lambda leaf: leaf[-1], outputs)

    weights = jnp.array(weights)
    weights, _ = jax.block_until_ready(loop(weights, inputs))
    seconds = []
    for _ in range(settings.repetitions):
        start = time.perf_counter()
        weights, _ = jax.block_until_ready(loop(weights, inputs))
        seconds.append(time.perf_counter() - start)
    return 1e6 * float(np.median(seconds)) / settings.calls


if __name__ == "__main__":
    sys.exit(experiment.main(sys.modules[__name__]))
