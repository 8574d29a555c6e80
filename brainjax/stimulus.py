"""From images to what a step takes: which neurons of an `assemblies.Input` fire."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Shaped

from brainjax import ops


def thermometer(
    intensities: Shaped[np.ndarray, "samples pixels"],
    thresholds: Sequence[float | int],
    *,
    complement: bool = False,
) -> Bool[np.ndarray, "samples neurons"]:
    """Let each pixel drive a neuron per threshold, which fires if the pixel is that bright.

    `fires[s, l * pixels + i] = intensities[s, i] >= thresholds[l]`

    Args:
        intensities: brightness of each pixel, in any unit.
        thresholds: in the unit of the intensities, ascending.
        complement: append one OFF neuron for each ON neuron, which fires when that is silent. Then
            every image makes equally many neurons fire, whatever its amount of ink.

    Returns:
        Who fires for each sample: thresholds * pixels neurons, twice as many with `complement`.

    Raises:
        ValueError: an intensity is not finite, or the thresholds do not ascend.

    Source: ON and OFF cells of the retina; complement coding of Carpenter, Grossberg & Rosen
        (1991), Neural Networks 4:759.
    """
    intensities = np.asarray(intensities)
    if not np.isfinite(intensities).all():
        raise ValueError("intensities must be finite; got NaN or infinity")
    if not (len(thresholds) and (np.diff(thresholds) > 0).all()):
        raise ValueError(f"thresholds must be ascending numbers; got {tuple(thresholds)}")
    fires = np.concatenate([intensities >= threshold for threshold in thresholds], axis=1)
    return np.concatenate([fires, ~fires], axis=1) if complement else fires


def active_sets(
    fires: Bool[np.ndarray, "samples neurons"], capacity: int | None = None
) -> ops.ActiveSet:
    """Return who fires in each sample as active sets with a leading axis of samples.

    Args:
        fires: whether each neuron fires; concrete, not traced.
        capacity: length of each set; by default that of the largest.

    Raises:
        ValueError: more neurons fire in a sample than `capacity`.

    Cost: sorts samples * neurons numbers on the host.
    """
    fires = np.asarray(fires, bool)
    num_neurons = fires.shape[1]
    count = fires.sum(axis=1, dtype=np.int32)
    most = int(count.max(initial=0))
    capacity = max(most, 1) if capacity is None else capacity
    if most > capacity:
        raise ValueError(f"capacity must be at least the {most} active; got {capacity}")
    ids = np.where(fires, np.arange(num_neurons, dtype=np.int32), np.int32(num_neurons))
    ids = np.sort(ids, axis=1)[:, :capacity]
    ids = np.pad(ids, ((0, 0), (0, capacity - ids.shape[1])), constant_values=num_neurons)
    return ops.ActiveSet(
        indices=jnp.asarray(ids),
        values=jnp.asarray(np.arange(capacity) < count[:, None], jnp.float32),
        count=jnp.asarray(count),
    )
