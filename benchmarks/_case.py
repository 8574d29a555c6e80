"""One case of a benchmark: implementations that take turns, their limit, and the row they make."""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import jax
import numpy as np

from brainjax import timing

# Operands that come again only after this many bytes of others come from memory.
ROTATED_BYTES = 128 * 2**20
_HELD_BYTES = 4 * 2**30  # the most that the operands of one case may take
# In one loop, which a GPU takes up to 2 ms to start.
_MOST_CALLS = 8_192
BETA = 0.05
STILL = 1e-9  # a beta with which all the work is done and no weight grows without end


@dataclasses.dataclass(frozen=True)
class Case:
    """One row of the table. Implementations are built when their turn comes."""

    moved: float  # bytes, by one call
    equal_bits: Callable[[], bool]  # whether ours has the bits of the reference
    contenders: dict[str, Callable[[], timing.Contender]]  # ours is "brainjax"
    in_cache: bool
    limits: tuple[str, ...] = ()  # contenders that are limits, not implementations


Cases = Iterator[tuple[str, Callable[[], Case]]]  # name, and what builds it


def row_of(settings, name, build: Callable[[], Case], bandwidth) -> dict:
    """Time one case, or say why it was skipped."""
    row = {"case": name, **dict.fromkeys(_COLUMNS), "skipped": ""}
    try:
        case = build()
        row["equal_bits"] = case.equal_bits()
        seconds, not_run = timing.in_turns(case.contenders, settings.repetitions)
    except (MemoryError, RuntimeError, ValueError) as error:
        return {**row, "skipped": _memory_reason(f"{type(error).__name__}: {error}")}
    if "brainjax" in not_run:
        return {**row, "skipped": _memory_reason(not_run["brainjax"])}
    us = {who: 1e6 * float(np.median(times)) for who, times in seconds.items()}
    limit = max(1e6 * case.moved / bandwidth, *(us.get(who, 0.0) for who in case.limits), 0.0)
    row |= {"brainjax_us": us["brainjax"], "limit_us": limit, "of_limit": limit / us["brainjax"]}
    if others := {who: us[who] for who in us if who not in ("brainjax", *case.limits)}:
        best = min(others, key=others.__getitem__)
        row |= {"best_other": best, "other_us": us[best], "times_faster": us[best] / us["brainjax"]}
    spread = {who: [1e6 * min(times), 1e6 * max(times)] for who, times in seconds.items()}
    row["in_cache"] = case.in_cache
    return {**row, "us": us, "us_min_max": spread, "not_run": not_run}


_COLUMNS = ("brainjax_us", "best_other", "other_us", "times_faster", "limit_us", "of_limit")
_COLUMNS += ("launch_apart", "in_cache", "equal_bits")


def _memory_reason(error):
    """What a case is skipped for: nothing but the memory."""
    if "memory" in error.lower():  # the one word that every such error has
        return error.partition("\n")[0]
    raise RuntimeError(error)


@dataclasses.dataclass(frozen=True)
class Calls:
    """The implementations of one operation, as `timing.Operands` says what they take."""

    moved: float
    operands: timing.Operands
    ours: Callable
    reference: Callable
    others: dict[str, Callable]
    torch: dict[str, Callable]  # as `timing.in_cuda_graph` takes them
    limits: dict[str, Callable] = dataclasses.field(default_factory=dict)


def case_of(settings, calls: Calls) -> Case:
    """Calls of JAX stand in one compiled loop, those of PyTorch in a CUDA graph."""
    loop_bytes = max(calls.moved, 1) * len(calls.operands.each)
    most = max(1, _MOST_CALLS // len(calls.operands.each))
    iterations = min(max(2, round(settings.bytes_per_loop / loop_bytes)), most)
    contenders = {
        who: functools.partial(timing.in_loop, call, calls.operands, iterations)
        for who, call in {"brainjax": calls.ours, **calls.others, **calls.limits}.items()
    }
    if timing.has_torch():
        contenders |= {
            who: functools.partial(timing.in_cuda_graph, bind, calls.operands)
            for who, bind in calls.torch.items()
        }
    return Case(
        calls.moved,
        functools.partial(equal_once, calls),
        contenders,
        in_cache=loop_bytes < ROTATED_BYTES,
        limits=tuple(calls.limits),
    )


def rotation(moved, held=1) -> int:
    """How many operands take turns: as many as come from memory, no more than fit there."""
    many = 16 * moved < ROTATED_BYTES <= 64 * moved
    return max(1, min(64 if many else 16, int(_HELD_BYTES // held)))


def equal_once(calls: Calls) -> bool:
    """Whether one call of ours has the bits of the reference."""
    operands = calls.operands.state, calls.operands.shared, calls.operands.each[0]
    ours, reference = (jax.jit(call)(*operands) for call in (calls.ours, calls.reference))
    return same_bits(ours, reference)


def same_bits(ours, reference) -> bool:
    """Compared on the device: weights may be larger than the host."""
    return jax.tree.all(jax.tree.map(lambda *leaves: bool(_leaves_equal(*leaves)), ours, reference))


@jax.jit
def _leaves_equal(one, other):
    word = f"uint{8 * one.dtype.itemsize}"
    words = [jax.lax.bitcast_convert_type(leaf, word) for leaf in (one, other)]
    return (words[0] == words[1]).all()
