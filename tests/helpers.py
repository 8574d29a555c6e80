"""What several test modules share: backends, random active sets, and comparison in bits."""

import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from brainjax import ops
from brainjax.ops import (
    accumulation,
    backend as backends,
    potentiation,
    propagation,
    propagation_plan,
    selection,
)
from brainjax.ops.assembly_core import HANDLER as ASSEMBLY_CORE
from brainjax.ops.burst_core import HANDLER as BURST_CORE
from brainjax.ops.host_list import READ_HANDLER, WRITE_HANDLER

HANDLERS = (
    accumulation.HANDLER,
    selection.HANDLER,
    potentiation.HANDLER,
    propagation.HANDLER,
    ASSEMBLY_CORE,
    BURST_CORE,
    READ_HANDLER,
    WRITE_HANDLER,
)


def has_kernels() -> bool:
    platform = backends.default_platform()
    return all(platform in backends.platforms_with(name) for name in HANDLERS)


# "auto", which configurations have by default, is the latter.
BACKENDS = ("reference", "kernel" if has_kernels() else "auto")
each_backend = pytest.mark.parametrize("backend", BACKENDS)
# What is fastest here: the reference takes long to compile, or is what it is compared with.
each_kernel = pytest.mark.parametrize("backend", BACKENDS[-1:])
# Where plain JAX takes long to compile, or only has the bits that it has elsewhere: the last one,
# and all of them among the slow tests.
each_backend_slowly = pytest.mark.parametrize(
    "backend",
    [*(pytest.param(each, marks=pytest.mark.slow) for each in BACKENDS[:-1]), BACKENDS[-1]],
)


def random_active(
    rng: np.random.Generator,
    num_neurons: int,
    count: int,
    capacity: int,
    *,
    graded: bool = False,
    padding: int | None = None,
) -> ops.ActiveSet:
    """A random set; graded values may be negative, `padding` replaces the usual index."""
    indices = np.full(capacity, num_neurons if padding is None else padding, np.int32)
    indices[:count] = np.sort(rng.choice(num_neurons, count, replace=False))
    values = np.zeros(capacity, np.float32)
    values[:count] = rng.standard_normal(count) if graded else 1
    return ops.ActiveSet(jnp.asarray(indices), jnp.asarray(values), jnp.asarray(count, jnp.int32))


def weights_of_synapses(rng: np.random.Generator, kind: str, shape) -> np.ndarray | None:
    """Weights of one of the types that sparse synapses have; None where each is 1."""
    if kind == "unit":
        return None
    if kind == "uint8":
        return rng.integers(0, 256, shape).astype(np.uint8)
    return rng.standard_normal(shape).astype(np.float32)


def take_way(way: str, monkeypatch, least: int = 1) -> None:
    """Let CUDA kernels "scatter" synapses, sum them "together", or "sort" `least` and more."""
    monkeypatch.setattr(propagation_plan, "SORT_FROM_POST", 0 if way == "sort" else 2**31)
    monkeypatch.setattr(propagation_plan, "SORT_FROM_SYNAPSES", least)
    monkeypatch.setattr(propagation_plan, "TOGETHER_FROM_POST", 0 if way == "together" else 2**31)
    monkeypatch.setattr(propagation_plan, "TOGETHER_FROM_SYNAPSES", 1)


def neurons(active: ops.ActiveSet) -> np.ndarray:
    """The listed neurons of one set."""
    return np.asarray(active.indices)[: int(active.count)]


def assert_same_bits(actual, expected) -> None:
    """Equal structure, shapes, dtypes and bits; typed keys are compared by their data."""
    actual, structure = jax.tree_util.tree_flatten_with_path(actual)
    expected, expected_structure = jax.tree_util.tree_flatten_with_path(expected)
    assert structure == expected_structure
    for (path, got), (_, wanted) in zip(actual, expected, strict=True):
        where, got, wanted = jax.tree_util.keystr(path), _plain(got), _plain(wanted)
        assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape), where
        if got.tobytes() != wanted.tobytes():
            np.testing.assert_array_equal(got, wanted, where)
            raise AssertionError(f"{where}: equal numbers, other bits")


def _plain(leaf):
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)


def poison_free_memory() -> None:
    """Let free memory of the GPU hold NaN: what a kernel leaves unwritten shows.

    Not where every array gets memory of its own, as under the tools that check memory: these keep
    what was freed, and tell themselves who reads what nobody wrote.
    """
    if os.environ.get("XLA_PYTHON_CLIENT_ALLOCATOR") == "platform":
        return
    gpu = jax.devices("gpu")[0]
    jax.block_until_ready([jnp.full(1 << 24, jnp.nan, device=gpu) for _ in range(4)])


def on_gpu(call, *operands):
    """Result on the GPU, whose free memory holds NaN: nothing may read it."""
    poison_free_memory()
    return call(*jax.device_put(operands, jax.devices("gpu")[0]))


def on_cpu(call, *operands):
    return call(*jax.device_put(operands, jax.devices("cpu")[0]))


def stacked(trees):
    """One tree whose leaves have a leading axis, from a list of trees."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def at(tree, index):
    """Element `index` of the leading axis of every leaf."""
    return jax.tree.map(lambda leaf: leaf[index], tree)


def weight_copies(compiled, shape) -> int:
    """How many operations of a compiled program copy an array of that shape."""
    dims = ",".join(map(str, shape))
    copies = re.compile(rf"= [^=]*\[{dims}\][^=]* copy(-start)?\(")
    return len(copies.findall(compiled.as_text()))
