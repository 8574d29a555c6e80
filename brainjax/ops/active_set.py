"""The active set: the few neurons of a population that fire, the common currency of all steps."""

import dataclasses
from typing import no_type_check

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.core import Tracer
from jaxtyping import Array, Float, Int32


@no_type_check  # transformations build it from batched and placeholder leaves
@struct.dataclass
class ActiveSet:
    """Neurons in ascending order, with what each of them sends.

    Only the first `count` entries are read. The rest is padding: index `num_neurons`, value 0.
    An empty set has count 0 and costs nothing in a kernel.
    """

    indices: Int32[Array, " capacity"]  # neuron ids, ascending, distinct
    values: Float[Array, " capacity"]  # 1 for a spike; any real number is legal
    count: Int32[Array, ""]  # entries in use


def empty(num_neurons: int, capacity: int) -> ActiveSet:
    """Return the set in which nobody fires."""
    return ActiveSet(
        indices=jnp.full(capacity, num_neurons, jnp.int32),
        values=jnp.zeros(capacity, jnp.float32),
        count=jnp.zeros((), jnp.int32),
    )


def from_indices(indices, num_neurons: int, capacity: int | None = None) -> ActiveSet:
    """Return the set of the given neurons, all of them sending 1.

    Args:
        indices: distinct neuron ids in [0, num_neurons), in any order; concrete, not traced.
        num_neurons: size of the population.
        capacity: length of the set; by default just enough.

    Raises:
        ValueError: an id is out of range or given twice, or the capacity is too small.
        TypeError: the ids are no integers.
    """
    ids = np.asarray(indices).ravel()
    if ids.size and ids.dtype.kind not in "iu":
        raise TypeError(f"indices must be integers; got {ids.dtype}")
    ids = np.sort(ids.astype(np.int64))
    capacity = max(ids.size, 1) if capacity is None else capacity
    if ids.size and not (0 <= ids[0] and ids[-1] < num_neurons):
        raise ValueError(f"indices must be in 0..{num_neurons - 1}; got {ids[0]} to {ids[-1]}")
    if (np.diff(ids) == 0).any():
        raise ValueError(f"indices must be distinct; got {ids[1:][np.diff(ids) == 0][0]} twice")
    if ids.size > capacity:
        raise ValueError(f"capacity must be at least {ids.size}, one per index; got {capacity}")
    padding = capacity - ids.size
    return ActiveSet(
        indices=jnp.asarray(np.pad(ids, (0, padding), constant_values=num_neurons), jnp.int32),
        values=jnp.asarray(np.pad(np.ones(ids.size), (0, padding)), jnp.float32),
        count=jnp.asarray(ids.size, jnp.int32),
    )


def from_dense(activity: Float[Array, " neurons"], capacity: int | None = None) -> ActiveSet:
    """Return the set of the neurons whose activity is not zero; differentiable in their values.

    Args:
        activity: what each neuron sends.
        capacity: length of the set. The default, the number of neurons, cannot overflow.

    Raises:
        ValueError: more neurons are active than `capacity`. Under a trace this cannot be seen:
            there a smaller capacity is refused.
    """
    num_neurons = activity.shape[0]
    capacity = num_neurons if capacity is None else capacity
    if capacity < num_neurons:
        if isinstance(activity, Tracer):
            raise ValueError(
                f"capacity must be at least the {num_neurons} neurons when activity is traced; "
                f"got {capacity}"
            )
        if (active := int(jnp.count_nonzero(activity))) > capacity:
            raise ValueError(f"capacity must be at least the {active} active; got {capacity}")
    indices = jnp.nonzero(activity, size=capacity, fill_value=num_neurons)[0].astype(jnp.int32)
    return ActiveSet(
        indices=indices,
        values=activity.at[indices].get(mode="fill", fill_value=0),
        count=jnp.count_nonzero(activity).astype(jnp.int32),
    )


def to_dense(active: ActiveSet, num_neurons: int) -> Float[Array, " neurons"]:
    """Return what every neuron sends: the set's values, and 0 elsewhere."""
    dense = jnp.zeros(num_neurons, active.values.dtype)
    _, targets = named(active, num_neurons)
    return dense.at[targets].set(active.values, mode="drop", unique_indices=True)


def gate(active: ActiveSet, is_open) -> ActiveSet:
    """Return the set if `is_open`, else one of count 0, for which kernels do no work."""
    return dataclasses.replace(active, count=jnp.where(is_open, active.count, 0))


def listed(active: ActiveSet) -> Array:
    """Tell for each entry whether it is in use."""
    return jnp.arange(active.indices.shape[0]) < active.count


def named(active: ActiveSet, num_neurons: int) -> tuple[Array, Array]:
    """Tell for each entry whether it is in use and names a neuron, and which, else `num_neurons`.

    Scatters and gathers drop the latter, where a negative index would count from the end.
    """
    names = listed(active) & (active.indices >= 0) & (active.indices < num_neurons)
    return names, jnp.where(names, active.indices, num_neurons)


def parts(active: ActiveSet) -> tuple:
    """Return indices, values and count, as kernels take them."""
    return active.indices, active.values, active.count
