"""Time of every operation and of whole steps, beside what users would pick instead and the limit.

Question:  how long does one call take, against lax, jnp and PyTorch on the same operands in the
           same run, and against the time that the machine needs to read its bytes?
Measured:  calls back to back in one compiled loop, on different operands in turn, so that these
           come from memory unless `in_cache` says that all of them fit there; implementations
           take turns; the median. PyTorch, where it is installed beside a GPU, replays a CUDA
           graph of the same calls on the same memory. Compilation is not timed. The first row is
           a call without work; `launch_apart` sets what a call takes beyond it against the limit.
Run:       python benchmarks/ops.py [--operations select step] [--smoke] [--json FILE]
"""

import dataclasses
import sys

import _operation_cases
import _step_cases
import jax
from _case import row_of

from brainjax import experiment, metrics, ops


def _by_platform(*, gpu, cpu):
    return dataclasses.field(
        default_factory=lambda: gpu if ops.backend.default_platform() == "cuda" else cpu
    )


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is timed. The sizes default to what the device can do in minutes."""

    operations: tuple[str, ...] = (
        "launch",
        "select",
        "accumulate",
        "potentiate",
        "propagate",
        "step",
    )
    select: tuple[tuple[int, int], ...] = _by_platform(  # neurons, winners
        gpu=(
            (10_000, 100),
            (100_000, 316),
            (1_000_000, 1_000),
            (10_000_000, 3_162),
            (100_000_000, 10_000),
            (1_000_000_000, 31_623),
        ),
        cpu=((10_000, 100), (100_000, 316), (1_000_000, 1_000)),
    )
    select_rows: tuple[tuple[int, int, int], ...] = _by_platform(  # rows, neurons, winners
        gpu=((1_024, 10_000, 100),), cpu=((32, 10_000, 100),)
    )
    select_dtypes: tuple[str, ...] = ("bfloat16", "uint8", "uint16", "int32")
    select_dtypes_at: tuple[int, int] = _by_platform(  # lax sorts integers on a CPU
        gpu=(1_000_000, 1_000), cpu=(100_000, 316)
    )
    accumulate: tuple[tuple[int, int], ...] = _by_platform(  # neurons, of which so many fire
        gpu=((10_000, 100), (32_768, 181), (65_536, 256)), cpu=((1_000, 32), (10_000, 100))
    )
    potentiate: tuple[tuple[int, int], ...] = ((10_000, 100), (10_000, 1_000))
    weights: tuple[str, ...] = _by_platform(  # jnp takes minutes for bfloat16 on a CPU
        gpu=("float32", "bfloat16"), cpu=("float32",)
    )
    propagate: tuple[int, ...] = _by_platform(  # neurons, of which one in a hundred fires
        gpu=(100_000, 1_000_000, 10_000_000), cpu=(100_000,)
    )
    synapses: tuple[str, ...] = ("unit", "uint8", "float32")  # their weights
    step: tuple[tuple[int, int], ...] = _by_platform(  # neurons, winners
        gpu=((10_000, 100), (32_768, 181)), cpu=((1_000, 32), (10_000, 100))
    )
    step_brains: tuple[tuple[int, int, int], ...] = _by_platform(  # brains, neurons, winners
        gpu=((256, 4_096, 64),), cpu=((8, 1_024, 32),)
    )
    rounds: int = _by_platform(gpu=10_000, cpu=200)  # steps in one loop
    bytes_per_loop: int = _by_platform(gpu=8 * 10**10, cpu=2 * 10**7)  # moved by its calls
    repetitions: int = 7
    seed: int = 0


SMOKE = Settings(
    select=((300, 17),),
    select_rows=((3, 300, 17),),
    select_dtypes=("uint8",),
    select_dtypes_at=(300, 17),
    accumulate=((300, 17),),
    potentiate=((300, 17),),
    weights=("float32",),
    propagate=(300,),
    synapses=("unit", "float32"),
    step=((300, 17),),
    step_brains=((3, 100, 10),),
    rounds=5,
    bytes_per_loop=10**5,
    repetitions=2,
)


def run(settings: Settings) -> dict:
    """Time every case in all implementations."""
    bandwidth = metrics.read_bandwidth()
    rows = [
        row_of(settings, f"{operation} {name}", build, bandwidth)
        for operation in settings.operations
        for name, build in _CASES[operation](settings)
    ]
    launch = rows[0]["brainjax_us"] if settings.operations[0] == "launch" else None
    for row in rows[1:] if launch else ():
        if row["brainjax_us"] and not row["case"].startswith("step"):
            row["launch_apart"] = row["limit_us"] / max(row["brainjax_us"] - launch, 1e-3)
    return {
        "platform": jax.default_backend(),
        "torch": metrics.version("torch"),
        "read_bandwidth_bytes_per_s": bandwidth,
        "summary": {"measured read bandwidth, GB/s": bandwidth / 1e9},
        "rows": rows,
    }


def check(result: dict) -> None:
    """Every case has the bits of the reference and a time, or says why it has none."""
    for row in result["rows"]:
        timed = row["equal_bits"] and row["brainjax_us"] > 0
        experiment.claim(timed or bool(row["skipped"]), f"wrong or not timed: {row}")


_CASES = {
    "launch": _operation_cases.launch,
    "select": _operation_cases.select,
    "accumulate": _operation_cases.accumulate,
    "potentiate": _operation_cases.potentiate,
    "propagate": _operation_cases.propagate,
    "step": _step_cases.step,
}


if __name__ == "__main__":
    sys.exit(experiment.main(sys.modules[__name__]))
