"""The table of operations: how each is called, what defines it, and operands to try."""

import dataclasses
import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import stacked
from operation_cases import (
    BURST,
    BURST_RULE,
    CAPACITY,
    FAN_OUT,
    FAR,
    PRE,
    ROUND,
    RUNNERS_UP,
    SPECIAL,
    accumulation_case,
    burst_case,
    core_case,
    potentiation_case,
    propagation_case,
    selection_case,
)
from operation_definitions import (
    defined_burst,
    hard_choice,
    rounded_integers,
    rounded_sum,
    straight_through_choice,
    straight_through_sum,
    three_operations,
)
from rounds import POST, K

from brainjax import ops
from brainjax.ops import accumulation, potentiation, propagation, selection
from brainjax.ops.assembly_core import HANDLER as ASSEMBLY_CORE
from brainjax.ops.burst_core import HANDLER as BURST_CORE


def accumulate(weights, active, *, backend):
    return ops.accumulate_rows(weights, active, backend=backend)


def select(scores, firing, temperature, *, backend):
    return ops.select_winners(
        scores,
        K,
        firing=firing,
        runners_up=RUNNERS_UP,
        temperature=temperature,
        backend=backend,
    )


def potentiate(weights, pre, post, beta, w_max, *, backend):
    return ops.potentiate(weights, pre, post, beta, w_max, backend=backend)


def core(*operands, backend):
    return ops.assembly_core(k=K, backend=backend, **dict(zip(ROUND, operands, strict=True)))


def propagate(synapses, active, *, backend):
    return ops.propagate_spikes(synapses, active, POST, backend=backend)


def count_arrivals(synapses, active, *, backend):
    return ops.propagate_integers(synapses, active, POST, backend=backend)


def advance_burst(*operands, backend):
    operands = dict(zip(BURST, operands, strict=True))
    return ops.burst_core(BURST_RULE, backend=backend, **operands)


@dataclasses.dataclass(frozen=True, eq=False)
class Op:
    """One operation, its definition, and operands that are worth trying."""

    call: Callable  # (*operands, backend) -> result
    definition: Callable  # (*operands) -> result, from references
    differentiable: Callable  # the same with the right autodiff
    handler: str
    cases: dict[str, Callable]  # name -> random generator -> operands
    shared_axes: tuple[tuple, ...]  # in_axes of batches that share some operands
    terms: int  # of the longest sum in a gradient


OPS = {
    "accumulate": Op(
        call=accumulate,
        definition=ops.accumulate_rows_reference,
        differentiable=ops.accumulate_rows_reference,
        handler=accumulation.HANDLER,
        cases={
            "spikes": accumulation_case(),
            "graded": accumulation_case(graded=True),
            "full": accumulation_case(graded=True, count=CAPACITY),
            "one": accumulation_case(count=1),
            "empty": accumulation_case(count=0),
            "far padding": accumulation_case(padding=FAR),
            "padding that names a neuron": accumulation_case(padding=3),
            "bfloat16": accumulation_case(dtype=jnp.bfloat16, graded=True),
        },
        shared_axes=((None, 0), (0, None)),
        terms=max(PRE, POST),
    ),
    "select": Op(
        call=select,
        definition=hard_choice,
        differentiable=straight_through_choice,
        handler=selection.HANDLER,
        cases={
            "normal": selection_case(lambda rng: rng.standard_normal(PRE)),
            "heavy ties": selection_case(lambda rng: rng.integers(0, 3, PRE)),
            "all equal": selection_case(lambda rng: np.full(PRE, rng.standard_normal())),
            "integers": selection_case(lambda rng: rng.binomial(100, 0.05, PRE)),
            "special": selection_case(lambda rng: rng.choice(SPECIAL, PRE)),
            "few": selection_case(lambda rng: rng.standard_normal(K + RUNNERS_UP)),
            "not firing": selection_case(lambda rng: rng.standard_normal(PRE), firing=False),
        },
        shared_axes=((0, None, None), (None, 0, None), (None, None, 0)),
        terms=PRE,
    ),
    "potentiate": Op(
        call=potentiate,
        definition=ops.potentiate_reference,
        differentiable=ops.potentiate_reference,
        handler=potentiation.HANDLER,
        cases={
            "spikes": potentiation_case(),
            "graded": potentiation_case(graded=True),
            "limited": potentiation_case(w_max=1.5),
            "full": potentiation_case(counts=(CAPACITY, 25)),
            "no pre": potentiation_case(counts=(0, 20)),
            "no post": potentiation_case(counts=(65, 0)),
            "far padding": potentiation_case(padding=FAR),
            "padding that names a neuron": potentiation_case(padding=3, counts=(9, 9)),
            "bfloat16": potentiation_case(dtype=jnp.bfloat16, graded=True, w_max=1.5),
        },
        shared_axes=((None, 0, 0, None, None), (0, None, 0, 0, None), (0, 0, 0, None, 0)),
        terms=CAPACITY * 25,
    ),
    "core": Op(
        call=core,
        definition=three_operations,
        differentiable=three_operations,
        handler=ASSEMBLY_CORE,
        cases={
            "normal": core_case(),
            "fixed": core_case(is_fixed=True),
            "whole numbers": core_case("whole numbers"),
            "closed": core_case(is_open=(False, False)),
            "unknown hint": core_case(hint="unknown"),
            "sparse": core_case("sparse"),
            "first fiber closed": core_case(is_open=(False, True)),
            "second fiber closed": core_case(is_open=(True, False)),
            "clustered": core_case("clustered"),
            "hint too high": core_case(hint="too high"),
            "hint too low": core_case(hint="too low"),
            "no sender": core_case(count=0),
            "negative count": core_case(count=-3),
            "count beyond the list": core_case(count=10**6),
            "bfloat16": core_case(dtype=jnp.bfloat16),
            "bfloat16, whole numbers": core_case("whole numbers", dtype=jnp.bfloat16),
        },
        # Each brain has its own flags, or its own senders, and all share the rest.
        shared_axes=(
            tuple(0 if name in ("is_open", "is_fixed") else None for name in ROUND),
            tuple(0 if name == "senders" else None for name in ROUND),
        ),
        terms=CAPACITY * 25,
    ),
    "propagate": Op(
        call=propagate,
        definition=rounded_sum,
        differentiable=straight_through_sum,
        handler=propagation.HANDLER,
        cases={
            "float32": propagation_case("compressed", "float32"),
            "spikes": propagation_case("compressed", "float32", graded=False),
            "full": propagation_case("compressed", "float32", count=CAPACITY),
            "empty": propagation_case("compressed", "float32", count=0),
            "far padding": propagation_case("compressed", "float32", padding=FAR),
            "padding that names a neuron": propagation_case(
                "compressed", "float32", padding=3, unused=9.0
            ),
            "unit": propagation_case("compressed", "unit"),
            "no synapses": propagation_case("compressed", "float32", fan_out=0),
            "several blocks": propagation_case("compressed", "float32", fan_out=400),
            "fixed, float32": propagation_case("fixed", "float32"),
            "fixed, empty": propagation_case("fixed", "float32", count=0),
            "fixed, padding that names a neuron": propagation_case(
                "fixed", "float32", padding=3, unused=9.0
            ),
            "fixed, uint8": propagation_case("fixed", "uint8"),
        },
        shared_axes=((None, 0), (0, None)),
        terms=PRE * FAN_OUT,
    ),
    "burst": Op(
        call=advance_burst,
        definition=defined_burst,
        differentiable=defined_burst,
        handler=BURST_CORE,
        cases={
            "usual": burst_case("usual"),
            "silent": burst_case("silent"),
            "all fire": burst_case("all fire"),
            "cancelling": burst_case("cancelling"),
            "stray": burst_case("stray"),
            "driven": burst_case("driven"),
            "arrivals": burst_case("arrivals"),
            "no synapses": burst_case("no synapses"),
            "unit": burst_case("usual", weights="unit"),
            "uint8": burst_case("usual", weights="uint8"),
            "kinds": burst_case("usual", num_kinds=5),
        },
        # Each brain has its own state, or its own injections.
        shared_axes=(
            tuple(0 if name in ("membranes", "fired", "bursts") else None for name in BURST),
            tuple(0 if name == "injected" else None for name in BURST),
        ),
        terms=1,
    ),
    # The same kernel on the operands that it takes in the other ways: no indptr, no weights.
    "propagate integers": Op(
        call=count_arrivals,
        definition=rounded_integers,
        differentiable=rounded_integers,
        handler=propagation.HANDLER,
        cases={
            "unit": propagation_case("fixed", "unit"),
            "empty": propagation_case("fixed", "unit", count=0),
            "full": propagation_case("fixed", "unit", count=CAPACITY),
            "float32": propagation_case("compressed", "float32"),
        },
        shared_axes=((None, 0), (0, None)),
        terms=PRE * FAN_OUT,
    ),
}
each_op = pytest.mark.parametrize("op", OPS.values(), ids=OPS)
CASES = {
    f"{name}, {case}": (op, draw) for name, op in OPS.items() for case, draw in op.cases.items()
}
each_case = pytest.mark.parametrize(("op", "draw"), CASES.values(), ids=CASES)


@functools.cache
def on(op, backend):
    """The operation on one backend, compiled once for all cases of equal shapes."""
    return jax.jit(functools.partial(op.call, backend=backend))


@functools.cache
def defined(op):
    return jax.jit(op.definition)


def usual_operands(op, seed):
    draw = next(iter(op.cases.values()))
    return draw(np.random.default_rng(seed))


def batch_of(op, size, seed):
    """Stacked operands of all cases that have the shapes of the usual one."""
    rng = np.random.default_rng(seed)
    avals = [jax.typeof(leaf) for leaf in jax.tree.leaves(usual_operands(op, seed))]
    drawn = (draw(rng) for draw in itertools.cycle(op.cases.values()))
    fitting = (
        operands
        for operands in drawn
        if [jax.typeof(leaf) for leaf in jax.tree.leaves(operands)] == avals
    )
    return stacked(list(itertools.islice(fitting, size)))
