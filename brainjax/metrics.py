"""How fast a run was, and how close to what the machine can do."""

import dataclasses
import functools
import importlib.metadata
import resource
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from brainjax import ops

_COMPILATION_EVENTS = (
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
)


@dataclasses.dataclass
class Metrics:
    """What was measured of one or several runs. Pass it to `simulation.simulate`."""

    steps: int = 0
    run_seconds: float = 0.0  # wall time without compilation
    compile_seconds: float = 0.0
    neuron_updates: float = 0.0  # neurons times steps, over all brains
    bytes_moved: float = 0.0  # that the steps had to move at least
    backend: str = ""  # what ran, and why if it was a fallback

    def summary(self) -> dict[str, Any]:
        """Return the figures with their units in the names, for a JSON file.

        Cost: the first call in a process measures the memory bandwidth, for about a second.
        """
        seconds = self.run_seconds or float("nan")
        bandwidth = copy_bandwidth()
        return {
            "steps": self.steps,
            "run_s": self.run_seconds,
            "compile_s": self.compile_seconds,
            "steps_per_s": self.steps / seconds,
            "neurons_per_s": self.neuron_updates / seconds,
            "bytes_per_step": self.bytes_moved / max(self.steps, 1),
            "copy_bandwidth_bytes_per_s": bandwidth,
            "share_of_bandwidth": self.bytes_moved / seconds / bandwidth,
            "peak_memory_bytes": peak_memory(),
            "backend": self.backend,
        }


class Stopwatch:
    """Wall time of a `with` block, compilation apart."""

    def __enter__(self) -> "Stopwatch":
        """Start."""
        self._compiled_before = _compile_clock().seconds
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop. The block must have waited for its results."""
        total = time.perf_counter() - self._start
        self.compile_seconds = _compile_clock().seconds - self._compiled_before
        self.run_seconds = max(total - self.compile_seconds, 0.0)


@functools.cache
def copy_bandwidth() -> float:
    """Return the bytes per second, read plus written, of a large copy on the default device."""
    length = 1 << 26  # 256 MiB of float32, larger than any cache

    # Into memory that is in use already: the first touch of new pages would be timed too.
    copy = jax.jit(lambda source, target: source + 1, donate_argnums=1, keep_unused=True)
    source, target = jnp.ones(length), jnp.zeros(length)
    repeats = 8  # of which the device starts each while the host prepares the next
    seconds = []
    for _ in range(7):
        start = time.perf_counter()
        for _ in range(repeats):
            target = copy(source, target)
        jax.block_until_ready(target)
        seconds.append((time.perf_counter() - start) / repeats)
    return 2 * 4 * length / float(np.median(seconds))


@functools.cache
def read_bandwidth() -> float:
    """Return the bytes per second of reading a large array on the default device."""
    # Much more than any cache; where more memory is, the ends of the pass should not count.
    length = 1 << (30 if jax.default_backend() == "gpu" else 26)
    largest = jax.jit(lambda source: source.max(1))
    source = jnp.ones((length >> 14, 1 << 14))
    jax.block_until_ready(largest(source))
    repeats = 8
    seconds = []
    for _ in range(7):
        start = time.perf_counter()
        jax.block_until_ready([largest(source) for _ in range(repeats)])
        seconds.append((time.perf_counter() - start) / repeats)
    return source.nbytes / float(np.median(seconds))


def peak_memory() -> int:
    """Return the most bytes that the device has held, or on the CPU this process, so far."""
    if stats := jax.local_devices()[0].memory_stats():
        return stats["peak_bytes_in_use"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def environment() -> dict[str, str]:
    """Return the device and the versions that a result depends on."""
    device = jax.local_devices()[0]
    return {
        "device": device.device_kind,
        "platform": device.platform,
        "brainjax": version("brainjax"),
        "jax": jax.__version__,
        "jaxlib": version("jaxlib"),
        "numpy": np.__version__,
        "python": sys.version.split()[0],
        "backend": ops.backend.running(),
        "kernels": ops.backend.explain(),
    }


def version(package: str) -> str:
    """Return the version of an installed package, or "not installed"."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


class _CompileClock:
    """Seconds that JAX has spent on tracing and compiling since the first use."""

    def __init__(self):
        self.seconds = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._add)

    def _add(self, event: str, duration_secs: float, **_: object):
        if event in _COMPILATION_EVENTS:
            self.seconds += duration_secs


@functools.cache
def _compile_clock():
    return _CompileClock()
