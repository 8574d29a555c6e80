"""The operations on random operands, and what they must return, computed with NumPy alone."""

import dataclasses
import functools
from collections.abc import Callable

import bursts
import jax
import jax.numpy as jnp
import numpy as np

from brainjax import ops
from brainjax.ops import sparse_rows

LANES = 32
BETA, W_MAX = np.float32(0.3), np.float32(1.5)
FAN_OUT, FRACTION_BITS = 33, 12
BURST_RULES = bursts.RULES["power and fatigue"]
KINDS_OF_BURST = ("usual", "arrivals", "silent", "stray")


# ---- Numbers: (random generator, shape) -> float32 ----

SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0], np.float32)


def mostly_zeros(rng, shape):
    return np.where(rng.random(shape) < 0.01, rng.random(shape, np.float32), np.float32(0))


NUMBERS = {
    "normal": lambda rng, shape: rng.standard_normal(shape, np.float32),
    "all equal": lambda rng, shape: np.full(shape, 0.7, np.float32),
    "mostly zeros": mostly_zeros,
    "special": lambda rng, shape: rng.choice(SPECIAL, shape),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Op:
    """One operation on n neurons, with k that are active or win."""

    operands: Callable  # (random generator, n, k, draw) -> operands in NumPy
    call: Callable  # (operands, k) -> result
    expected: Callable  # the same in NumPy
    numbers: tuple[str, ...] = tuple(NUMBERS)  # that it takes

    @functools.cached_property
    def compiled(self) -> Callable:
        """One program for each shape; k is static."""
        return jax.jit(self.call, static_argnames="k")


# ---- Operands ----


def random_set(rng, n, k):
    """k of n neurons that send graded values, in a list with room for three more."""
    indices = np.full(k + 3, n, np.int32)
    indices[:k] = np.sort(rng.choice(n, k, replace=False))
    values = np.zeros(k + 3, np.float32)
    values[:k] = rng.standard_normal(k)
    return ops.ActiveSet(indices, values, np.int32(k))


def accumulate_operands(rng, n, k, draw):
    weights = draw(rng, (k + 5, n)).astype(rng.choice([np.float32, jnp.bfloat16]))
    return weights, random_set(rng, k + 5, k)


def select_operands(rng, n, k, draw):
    return (draw(rng, n),)


def potentiate_operands(rng, n, k, draw):
    weights, pre = accumulate_operands(rng, n, k, draw)
    return weights, pre, random_set(rng, n, min(n, k))


def propagate_operands(rng, n, k, draw):
    """Rows of one length, or of any; targets repeat. The last operand is there for its shape."""
    weights = draw(rng, (k + 5, FAN_OUT))
    targets = rng.integers(0, n, weights.shape).astype(np.int32)
    if n % 2:
        padding = (0, 0), (0, -FAN_OUT % sparse_rows.PADDING_MULTIPLE)
        targets = np.pad(targets, padding, constant_values=n)
        synapses = ops.FixedFanOut(targets, np.pad(weights, padding), FRACTION_BITS)
    else:
        indptr = np.sort(rng.integers(0, targets.size, k + 6)).astype(np.int32)
        synapses = ops.CompressedRows(indptr, targets.ravel(), weights.ravel(), FRACTION_BITS)
    return synapses, random_set(rng, k + 5, k), np.zeros(n, bool)


def round_operands(rng, n, k, draw):
    """A stimulus and an area that reach an area; nobody fires there yet."""
    weights, active = accumulate_operands(rng, n, k, draw)
    stimulus = draw(rng, (1, n)).astype(weights.dtype)
    block = ops.ActiveSet(np.zeros(1, np.int32), np.ones(1, np.float32), np.int32(1))
    nobody = ops.ActiveSet(np.full(k, n, np.int32), np.zeros(k, np.float32), np.int32(0))
    return (stimulus, weights), (block, active), nobody, draw(rng, n)


def burst_operands(rng, n, k, draw):
    """A network of which about k neurons fired; potentials and thresholds are as drawn."""
    operands = bursts.network(rng, n, KINDS_OF_BURST[k % len(KINDS_OF_BURST)], fan_out=2)
    numbers = draw(rng, n)
    membranes = operands["membranes"].replace(potential=numbers)
    return (operands | {"membranes": membranes},)


# ---- Calls ----


def accumulate(operands, k):
    return ops.accumulate_rows(*operands)


def select(operands, k):
    return ops.select_winners(*operands, k).indices


def potentiate(operands, k):
    return ops.potentiate(*operands, float(BETA), float(W_MAX))


def propagate(operands, k):
    synapses, active, shape = operands
    return ops.propagate_spikes(synapses, active, shape.size)


def round_(operands, k):
    *operands, last_inputs = operands
    always = jnp.ones(2, bool)
    return ops.assembly_core(
        *operands,
        k,
        last_inputs=last_inputs,
        is_open=always,
        is_plastic=always,
        beta=jnp.full(2, BETA),
        w_max=jnp.full(2, W_MAX),
    )


def burst(operands, k):
    return ops.burst_core(BURST_RULES, **operands[0])


# ---- Definitions ----


def accumulate_in_numpy(operands, k):
    weights, active = operands
    lanes = np.zeros((LANES, weights.shape[1]), np.float32)
    for place in range(active.count):
        row = weights[active.indices[place]].astype(np.float32)
        lanes[place % LANES] += active.values[place] * row
    while len(lanes) > 1:
        lanes = lanes[: len(lanes) // 2] + lanes[len(lanes) // 2 :]
    return lanes[0]


def select_in_numpy(operands, k):
    bits = operands[0].view(np.uint32)
    keys = np.where(bits >> 31, ~bits, bits | 0x80000000).astype(np.int64)  # in total order
    return np.sort(np.argsort(-keys, kind="stable")[:k]).astype(np.int32)


def potentiate_in_numpy(operands, k):
    weights, pre, post = operands
    weights = weights.copy()
    block = np.ix_(pre.indices[: pre.count], post.indices[: post.count])
    sent = pre.values[: pre.count, None] * post.values[: post.count]
    new = weights[block].astype(np.float32) * (1 + BETA * sent)
    weights[block] = np.where(new > W_MAX, W_MAX, new).astype(weights.dtype)
    return weights


def propagate_in_numpy(operands, k):
    synapses, active, shape = operands
    sums = np.zeros(shape.size + 1, np.int64)  # the last is what padding names
    for row, value in zip(active.indices[: active.count], active.values):
        if isinstance(synapses, ops.FixedFanOut):
            here = row
        else:
            here = slice(*synapses.indptr[row : row + 2])
        sent = np.rint(value * np.float32(2.0**FRACTION_BITS) * synapses.weights[here])
        sent = np.clip(np.nan_to_num(sent.astype(np.float64)), -(2**31), 2**31 - 1)
        np.add.at(sums, synapses.indices[here], sent.astype(np.int64))
    return sums[:-1].astype(np.int32).astype(np.float32) * np.float32(2.0**-FRACTION_BITS)


def round_in_numpy(operands, k):
    weights, senders, nobody, _ = operands
    inputs = np.float32(0)
    for pair in zip(weights, senders):
        inputs = inputs + accumulate_in_numpy(pair, k)
    indices, winners = select_in_numpy((inputs,), k), nobody
    if (inputs[indices] != 0).any():
        winners = ops.ActiveSet(indices, np.ones(k, np.float32), np.int32(k))
    changed = [potentiate_in_numpy((*pair, winners), k) for pair in zip(weights, senders)]
    return tuple(changed), inputs, winners


def burst_in_numpy(operands, k):
    return bursts.in_numpy(BURST_RULES, operands[0])


OPS = {
    "accumulate": Op(accumulate_operands, accumulate, accumulate_in_numpy),
    "select": Op(select_operands, select, select_in_numpy),
    "potentiate": Op(potentiate_operands, potentiate, potentiate_in_numpy),
    "propagate": Op(propagate_operands, propagate, propagate_in_numpy),
    "burst": Op(burst_operands, burst, burst_in_numpy, ("normal", "mostly zeros")),
    # The sign of a NaN that a sum makes, and with it who wins, depends on the machine.
    "round": Op(round_operands, round_, round_in_numpy, ("normal", "all equal", "mostly zeros")),
}
