"""Records to numbers: how assemblies grow and settle, and what can be read out of winners."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy import special

from brainjax import calculus, ops


@dataclasses.dataclass(frozen=True)
class Summary:
    """A figure over many brains."""

    mean: float
    sd: float  # of single brains; 0 for one brain
    low: float  # of the 95 % confidence interval of the mean; the mean itself for one brain
    high: float
    brains: int

    def __str__(self) -> str:
        """Mean and standard deviation."""
        return f"{self.mean:.3f} (sd {self.sd:.3f}, {self.brains} brains)"


def summarise(values) -> Summary:
    """Return mean, standard deviation and interval of one number per brain.

    `low, high = mean -+ t * sd / sqrt(brains)`, t the 97.5 % quantile of Student's distribution.

    Args:
        values: at least one finite number.

    Raises:
        ValueError: there is none, or one is not finite.
    """
    values = np.asarray(values, np.float64).ravel()
    if not (values.size and np.isfinite(values).all()):
        raise ValueError(f"values must be at least one finite number; got {values}")
    mean = values.mean()
    sd = values.std(ddof=1) if values.size > 1 else 0.0
    # The quantile of one brain is not defined, and not needed.
    t = special.stdtrit(max(values.size - 1, 1), 0.975)
    margin = t * sd / np.sqrt(values.size)
    numbers = map(float, (mean, sd, mean - margin, mean + margin))
    return Summary(*numbers, brains=values.size)


def support(winners: Int[np.ndarray, "rounds k"], num_neurons: int) -> Int[np.ndarray, " rounds"]:
    """Count the neurons that have fired so far, round by round.

    Args:
        winners: indices of one brain's active sets, padded with `num_neurons`.
        num_neurons: of the area.
    """
    rounds = len(winners)
    # The round in which each neuron fires first; the last entry takes the padding.
    first = np.full(num_neurons + 1, rounds)
    np.minimum.at(first, np.asarray(winners), np.arange(rounds)[:, None])
    return np.cumsum(np.bincount(first[:-1], minlength=rounds + 1)[:rounds])


def converged_round(support: Int[np.ndarray, " rounds"]) -> int | None:
    """Return the first round, counted from 1, from which nobody new is recruited.

    Returns:
        The round, or None if somebody was recruited in the last one.
    """
    recruiting = np.flatnonzero(np.diff(support, prepend=0) > 0)
    first_quiet = 1 if recruiting.size == 0 else int(recruiting[-1]) + 2
    return first_quiet if first_quiet <= len(support) else None


def fired(
    winners: Int[np.ndarray, "samples k"], num_neurons: int
) -> Bool[np.ndarray, "samples neurons"]:
    """Tell for each sample and neuron whether it fired.

    Args:
        winners: indices of active sets, padded with `num_neurons`.
        num_neurons: of the area.
    """
    # The last column takes the padding.
    fires = np.zeros((len(winners), num_neurons + 1), bool)
    np.put_along_axis(fires, winners, True, axis=1)
    return fires[:, :-1]


def firing_rates(
    fires: Bool[np.ndarray, "samples neurons"],
    labels: Int[np.ndarray, " samples"],
    num_classes: int,
) -> Float[np.ndarray, "classes neurons"]:
    """Return how often each neuron fires for the samples of each class, 0 without samples.

    Args:
        fires: as from `fired`.
        labels: class of each sample, in [0, num_classes).
        num_classes: how many there are.

    Raises:
        ValueError: a label is out of range.
    """
    if labels.size and not (0 <= labels.min() and labels.max() < num_classes):
        raise ValueError(
            f"labels must be in 0..{num_classes - 1}; got {labels.min()} to {labels.max()}"
        )
    of_class = labels == np.arange(num_classes)[:, None]
    samples = of_class.sum(axis=1, keepdims=True)
    return of_class.astype(float) @ fires / np.maximum(samples, 1)


def class_assemblies(
    rates: Float[np.ndarray, "classes neurons"],
) -> Bool[np.ndarray, "classes neurons"]:
    """Return for each class the neurons that fire more often for it than for any other.

    `neuron j belongs to argmax over c of rates[c, j]`, to the lowest class among equals, and to
    none if it never fires. So the assemblies are disjoint, and their union is all who ever fire.

    Args:
        rates: as from `firing_rates`.

    Source: assemblies as unions of caps: Dabagia, Papadimitriou & Vempala (2022), COLT,
        arXiv:2110.03171; assignment of neurons to classes: Diehl & Cook (2015), Front. Comput.
        Neurosci. 9:99.
    """
    belongs = rates.argmax(axis=0) == np.arange(len(rates))[:, None]
    return belongs & (rates > 0)


@jax.jit
def read_out(lexicon: ops.ActiveSet, winners: ops.ActiveSet) -> Int[Array, " samples"]:
    """Name for each sample the assembly with the largest overlap, the first among equals.

    `argmax over c of overlap(winners, lexicon[c])`; see `calculus.overlap`.

    Args:
        lexicon: one assembly per class, along a leading axis.
        winners: who fired for each sample, along a leading axis.

    Cost: one search in a sorted list for each sample, class and winner.
    """
    overlaps = jax.vmap(jax.vmap(calculus.overlap, (None, 0)), (0, None))(winners, lexicon)
    return jnp.argmax(overlaps, axis=1)


def confusion_matrix(
    labels: Int[np.ndarray, " samples"], guesses: Int[np.ndarray, " samples"], num_classes: int
) -> Int[np.ndarray, "classes classes"]:
    """Count the samples of each class (row) that are taken for each class (column)."""
    matrix = np.zeros((num_classes, num_classes), int)
    np.add.at(matrix, (np.asarray(labels), np.asarray(guesses)), 1)
    return matrix
