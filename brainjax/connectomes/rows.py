"""Synapses of a network as the rows that propagation reads, and back."""

import numpy as np

from brainjax import ops
from brainjax.connectomes.network import Network, Synapses, require, synapses


def group_by_source(table: Synapses, num_neurons: int) -> tuple[np.ndarray, np.ndarray]:
    """Group the valid synapses by their presynaptic neuron.

    Args:
        table: [s] synapses.
        num_neurons: presynaptic neurons.

    Returns:
        Where the group of each neuron begins, [num_neurons + 1], last the number of valid
        synapses; and their positions in `table`, ascending within a group.

    Cost: one stable sort.
    """
    valid = np.flatnonzero(table.valid)
    order = valid[np.argsort(table.pre[valid], kind="stable")]
    counts = np.bincount(table.pre[valid], minlength=num_neurons)
    return np.concatenate([[0], np.cumsum(counts)]), order


def to_compressed_rows(network: Network) -> ops.CompressedRows:
    """Return the valid synapses as rows, each with the contribution that it sends.

    `c = weight * psp`, negative where inhibitory. Delays, and areas whose neurons divide their
    contribution or send their potential, are not in it: a burst brain keeps the columns apart.

    Raises:
        ValueError: the contributions onto a neuron are too large to be summed exactly.
    """
    table, count = network.synapses, len(network.neurons)
    indptr, order = group_by_source(table, count)
    sign = np.where(table.inhibitory[order], np.float32(-1), np.float32(1))
    contribution = sign * table.weight[order] * table.psp[order]
    return ops.compressed_rows(indptr, table.post[order].astype(np.int64), count, contribution)


def from_compressed_rows(rows: ops.CompressedRows) -> Synapses:
    """Return the synapses of rows: their magnitude as weight, psp 1, delay 1.

    Args:
        rows: concrete, not traced; neuron i of the rows becomes neuron i.
    """
    indptr, post = np.asarray(rows.indptr), np.asarray(rows.indices)
    pre = np.repeat(np.arange(indptr.size - 1), np.diff(indptr))
    weight = np.ones(post.size) if rows.weights is None else np.asarray(rows.weights)
    require(bool(np.isfinite(weight).all()), "rows.weights", "finite", "a weight that is not")
    return synapses(pre, post, np.abs(weight), 1.0, inhibitory=np.signbit(weight))
