"""Time of one call on a device: several implementations in turn, in one process."""

import dataclasses
import functools
import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any

# One turn lasts at least this long, so that starting it is small beside it.
_TURN_SECONDS = 0.03
# A loop up to this long is started once before it is timed: what others have displaced would be a
# part of its time.
_SHORT_LOOP_SECONDS = 0.25


@dataclasses.dataclass(frozen=True)
class Contender:
    """One implementation, compiled or about to be."""

    start: Callable[[], Any]  # starts `calls` calls and returns what to wait for
    wait: Callable[[Any], Any]
    calls: int


@dataclasses.dataclass(frozen=True)
class Operands:
    """What the calls of one loop take: `call(state, shared, each) -> (state, output)`."""

    each: Sequence[PyTree]  # of the calls in turn, so that they come from memory
    shared: PyTree = ()  # of all calls
    state: PyTree = ()  # handed from call to call


def in_turns(
    contenders: Mapping[str, Callable[[], Contender]], repetitions: int
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Time the implementations in turn, so that all meet the same state of the machine.

    Args:
        contenders: what builds each; what cannot be built or run is left out.
        repetitions: turns of each.

    Returns:
        For each implementation the seconds of one call in each of its turns, compilation apart;
        and for those left out the reason.
    """
    ready, reasons = {}, {}
    for name, build in contenders.items():
        try:
            contender = build()
            contender.wait(contender.start())  # compiles
            once = _seconds(contender, starts=1) * contender.calls
            starts = max(1, round(_TURN_SECONDS / once))
            ready[name] = contender, starts, once < _SHORT_LOOP_SECONDS
        except (MemoryError, RuntimeError, TypeError, ValueError) as error:
            reasons[name] = f"{type(error).__name__}: {error}".partition("\n")[0]
    seconds = {name: [] for name in ready}
    for _ in range(repetitions):
        for name, (contender, starts, is_short) in ready.items():
            if is_short:
                contender.wait(contender.start())
            seconds[name].append(_seconds(contender, starts))
    return seconds, reasons


def in_loop(call: Callable, operands: Operands, iterations: int) -> Contender:
    """One compiled loop with one call for each of the operands in its body.

    Args:
        call: `call(state, shared, each) -> (state, output)`, in JAX.
        operands: what it takes; the state is copied, as the loop donates it.
        iterations: of the loop.
    """

    @functools.partial(jax.jit, donate_argnums=0)
    def loop(carry, shared_before, each):
        def body(index, carry):
            # The compiler must not see that operands stay the same, or it moves calls out of the
            # loop; nor that one call does not need the last, or it joins several in one kernel.
            state, outputs, latest = carry[0], [], index
            shared, index = jax.lax.optimization_barrier((shared_before, index))
            for operand in each:
                operand, latest = jax.lax.optimization_barrier((operand, latest))
                state, latest = call(state, shared, operand)
                outputs.append(latest)
            return state, outputs, index

        return jax.lax.fori_loop(0, iterations, body, carry)

    output = jax.eval_shape(call, operands.state, operands.shared, operands.each[0])[1]
    outputs = [
        jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), output) for _ in operands.each
    ]
    carry = jax.tree.map(jnp.copy, operands.state), outputs, jnp.int32(0)

    def start():
        nonlocal carry
        carry = loop(carry, operands.shared, operands.each)
        return carry

    return Contender(start, jax.block_until_ready, iterations * len(operands.each))


def in_cuda_graph(bind: Callable, operands: Operands) -> Contender:
    """The calls of PyTorch in a CUDA graph, on the memory that JAX holds.

    Args:
        bind: `bind(state, shared, each)` prepares what a user would have prepared, and returns
            the call, which takes nothing.
        operands: what it takes; the state is copied.
    """
    import torch  # pyright: ignore[reportMissingImports]  # not a dependency

    state = jax.tree.map(jnp.copy, operands.state)
    arrays = jax.block_until_ready((state, operands.shared, operands.each))
    state, shared, each = jax.tree.map(torch.from_dlpack, arrays)
    calls = [bind(state, shared, operand) for operand in each]
    calls[0]()  # what the first call sets up cannot be captured
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = [call() for call in calls]

    def start():
        graph.replay()
        return outputs

    return Contender(start, lambda _: torch.cuda.synchronize(), len(calls))


def has_torch() -> bool:
    """Tell whether PyTorch is installed and sees the GPU that JAX uses."""
    if importlib.util.find_spec("torch") is None or jax.default_backend() != "gpu":
        return False
    import torch  # pyright: ignore[reportMissingImports]

    return torch.cuda.is_available()


def _seconds(contender, starts):
    """Time of one call; the device runs each loop while the host starts the next."""
    begin = time.perf_counter()
    started = [contender.start() for _ in range(starts)]
    contender.wait(started[-1])
    return (time.perf_counter() - begin) / (starts * contender.calls)
