"""Choice of the k neurons with the largest input, and the smooth choice that gradients follow."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Real

from brainjax.ops import backend as backends
from brainjax.ops.active_set import ActiveSet

HANDLER = "BrainjaxSelectWinners"

# Scores of a row that a block of any GPU holds, and all blocks of one with 10 multiprocessors that
# have 99 KiB of shared memory each.
_ALONE_IN_ANY_BLOCK, _HELD_BY_ANY_GRID = 12 * 1024, 128 * 1024

# Kernels exist for potentials and for counts of arriving spikes.
_KERNEL_DTYPES = ("float32", "bfloat16", "uint8", "uint16", "int32")

# Halvings of the bracket around the threshold: enough for the 24 bits of a float32, and for
# a bracket 256 times wider than the spread that matters.
_BISECTIONS = 32


def select_winners(
    scores: Real[Array, " neurons"],
    k: int,
    *,
    firing: Bool[Array, ""] | bool = True,
    runners_up: int = 0,
    temperature: Float[Array, ""] | float = 1.0,
    softened: bool = False,
    backend: backends.Backend = "auto",
) -> ActiveSet:
    """Choose the k neurons with the largest scores; of equal scores the lowest index wins.

    Scores are ordered as by `lax.top_k`, in the total order of IEEE 754: -0.0 below +0.0, a NaN
    beyond the infinity of its sign. Each winner has value 1. The gradient with respect to scores
    and temperature is straight-through: the values are differentiated as if they were those of
    `soft_winners`, for the listed neurons. Runners-up are listed with value 0, so that a gradient
    can make winners of them; rows are read for them too. Integer scores (counts of arriving
    spikes) have no gradient.

    Args:
        scores: input of each neuron; kernels take float32, bfloat16, uint8, uint16 and int32.
        k: number of winners, in 1..neurons.
        firing: False gives the empty set, at no cost in a kernel.
        runners_up: how many of the next best to list, in 0..neurons - k.
        temperature: width of the soft threshold, in the unit of the scores; float scores only.
        softened: the values are those of `soft_winners`, and the gradient is theirs exactly;
            float scores only.
        backend: "auto", "reference" or "kernel".

    Returns:
        The winners and runners-up in ascending order, capacity k + runners_up. Values have the
        type of the scores, float32 where those are integers.

    Raises:
        ValueError: k or runners_up is out of range, or integer scores are to be softened.
        RuntimeError: `backend` is "kernel" and none can run.

    Cost: reads each score once, a few times where many winners or equal scores defeat the guess
        of a bound; the gradient solves for a threshold, 32 reads.
    Determinism: bit-identical on every backend, alone and batched; not so `softened` values,
        which need exp.
    Source: the cap of Papadimitriou et al. (2020), PNAS 117:14464; straight-through estimator of
        Bengio et al. (2013), arXiv:1308.3432.
    """
    num_neurons = scores.shape[0]
    check_winners(k, num_neurons)
    if not 0 <= runners_up <= num_neurons - k:
        raise ValueError(f"runners_up must be in 0..neurons-k={num_neurons - k}; got {runners_up}")
    firing = jnp.asarray(firing)
    count = jnp.where(firing, k + runners_up, 0).astype(jnp.int32)
    indices = _largest(jax.lax.stop_gradient(scores), count, k + runners_up, backend)
    if jnp.issubdtype(scores.dtype, jnp.integer):
        _check_is_hard(scores.dtype, temperature, softened)
        values = _marks(scores, indices, k)
    else:
        choose_values = _soft_values if softened else _hard_values
        values = choose_values(scores, jnp.asarray(temperature, scores.dtype), indices, k)
    return ActiveSet(indices, jnp.where(firing, jnp.asarray(values), 0), count)


def select_winners_reference(scores: Real[Array, " neurons"], k: int) -> ActiveSet:
    """The definition of the choice that `select_winners` makes, in plain JAX."""
    indices = _largest_reference(scores, jnp.asarray(k, jnp.int32), capacity=k)
    return ActiveSet(indices, jnp.ones(k, _value_dtype(scores)), jnp.asarray(k, jnp.int32))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def soft_winners(
    scores: Float[Array, " neurons"], k: int, temperature: Float[Array, ""] | float
) -> Float[Array, " neurons"]:
    """Share one place among neurons near the threshold: a smooth choice of k winners.

    `p = 1 / (1 + exp(-(scores - theta) / temperature))`, with theta such that `sum(p) = k`: the
    maximum of `sum(p * scores) + temperature * sum(entropy(p))` over all p in [0, 1] of sum k.

    Args:
        scores: input of each neuron.
        k: sum of the result, in 1..neurons.
        temperature: width of the threshold, positive, in the unit of the scores.

    Returns:
        Each neuron's share of winning, in [0, 1]. It tends to the winners of `select_winners` as
        the temperature goes to 0 and no two scores tie at the threshold.

    Cost: 32 reads of the scores.
    Determinism: not bit-identical across platforms (exp).
    """
    num_neurons = scores.shape[0]
    if k == num_neurons:
        return jnp.ones_like(scores)
    # At these ends every neuron has a share of at least, or at most, k / neurons. Infinite scores
    # win or lose, wherever the threshold is: the others share what is left.
    is_finite = jnp.isfinite(scores)
    sharing = is_finite.sum()
    left = jnp.clip(k - (scores == jnp.inf).sum(), 0.5, jnp.maximum(sharing - 0.5, 0.5))
    reach = temperature * jnp.log(left / (sharing - left)).astype(scores.dtype)
    low = jnp.where(is_finite, scores, jnp.inf).min() - reach
    high = jnp.where(is_finite, scores, -jnp.inf).max() - reach
    low, high = (jnp.where(sharing > 0, end, 0) for end in (low, high))

    def halve(_, bracket):
        low, high = bracket
        middle = (low + high) / 2
        too_many = jax.nn.sigmoid((scores - middle) / temperature).sum() > k
        return jnp.where(too_many, middle, low), jnp.where(too_many, high, middle)

    low, high = jax.lax.fori_loop(0, _BISECTIONS, halve, (low, high))
    return jax.nn.sigmoid((scores - (low + high) / 2) / temperature)


@soft_winners.defjvp
def _soft_winners_jvp(k, primals, tangents):
    scores, temperature = primals
    scores_dot, temperature_dot = tangents
    shares = soft_winners(scores, k, temperature)
    slope = shares * (1 - shares)
    total = slope.sum()
    # (scores - theta) / temperature, from the shares themselves: theta is not known exactly.
    depth = jnp.where(slope > 0, jnp.log(shares) - jnp.log1p(-shares), 0)
    pull = scores_dot - depth * temperature_dot
    # The threshold moves so that the sum stays k.
    theta_dot = jnp.where(total > 0, (slope * pull).sum() / jnp.where(total > 0, total, 1), 0)
    return shares, slope * (pull - theta_dot) / temperature


def _largest(scores, count, capacity, backend):
    """Indices of the `count` largest scores, ascending, padded with the number of scores."""
    return backends.dispatch(
        backend,
        HANDLER,
        scores,
        count,
        reference=functools.partial(_largest_reference, capacity=capacity),
        kernel=functools.partial(_largest_kernel, capacity=capacity),
        unsupported=None if scores.dtype.name in _KERNEL_DTYPES else f"scores are {scores.dtype}",
    )


def check_winners(k: int, num_neurons: int) -> None:
    """Raise ValueError if k of so many neurons cannot win."""
    if not 1 <= k <= num_neurons:
        raise ValueError(f"k must be in 1..neurons={num_neurons}; got {k}")


def _largest_reference(scores, count, *, capacity):
    _, indices = jax.lax.top_k(scores, capacity)
    chosen = jnp.arange(capacity) < count
    return jnp.sort(jnp.where(chosen, indices, scores.shape[0])).astype(jnp.int32)


def _largest_kernel(scores, count, *, capacity):
    indices = jax.ShapeDtypeStruct((capacity,), jnp.int32)
    # Scratch is a result: a kernel never allocates. Its size serves both platforms.
    scratch = jax.ShapeDtypeStruct((_scratch_words(scores.shape[0], capacity),), jnp.uint32)
    call = jax.ffi.ffi_call(backends.target(HANDLER), (indices, scratch), vmap_method="expand_dims")
    return call(scores, count)[0]


def _scratch_words(num_neurons, capacity):
    """What the kernels need for one row; a multiple of four keeps every row aligned."""
    words = 4096 + num_neurons // 16
    # Where several blocks may have to select, they tell each other maxima and candidates.
    if num_neurons > _ALONE_IN_ANY_BLOCK:
        words = max(words, 4100 + 3 * min(8192, 4 * capacity + num_neurons // 64 + 512))
    # Where they may not hold all scores, tiles of scores are counted, and candidates pooled.
    if num_neurons > _HELD_BY_ANY_GRID:
        words = 68_000 + num_neurons // 1280 + min(num_neurons // 2, 2**22)
    return -(-words // 4) * 4


def _soft_values(scores, temperature, indices, k):
    return soft_winners(scores, k, temperature).at[indices].get(mode="fill", fill_value=0)


def _value_dtype(scores):
    return scores.dtype if jnp.issubdtype(scores.dtype, jnp.floating) else jnp.float32


def _check_is_hard(dtype, temperature, softened):
    if softened:
        raise ValueError(f"softened must be False for integer scores; got True for {dtype}")
    if not (isinstance(temperature, float) and temperature == 1.0):
        raise ValueError(f"temperature must not be given for integer scores; got it for {dtype}")


def _marks(scores, indices, k):
    """1 for the k best of the listed neurons, 0 for the others; any where nobody fires."""
    capacity, dtype = indices.shape[0], _value_dtype(scores)
    if capacity == k:
        return jnp.ones(k, dtype)
    # Candidates are in ascending order, so equal scores keep the lowest index here as well.
    lowest = -jnp.inf if dtype == scores.dtype else jnp.iinfo(scores.dtype).min
    candidates = scores.at[indices].get(mode="fill", fill_value=lowest)
    winners = _largest_reference(candidates, jnp.asarray(k), capacity=k)
    return jnp.zeros(capacity, dtype).at[winners].set(1, mode="drop")


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _hard_values(scores, temperature, indices, k):
    del temperature  # it shapes the gradient only
    return _marks(scores, indices, k)


def _hard_values_forward(scores, temperature, indices, k):
    return _hard_values(scores, temperature, indices, k), (scores, temperature, indices)


def _hard_values_backward(k, residuals, values_bar):
    scores, temperature, indices = residuals
    soft = functools.partial(_soft_values, indices=indices, k=k)
    _, pull_back = jax.vjp(soft, scores, temperature)
    return *pull_back(values_bar), None


_hard_values.defvjp(_hard_values_forward, _hard_values_backward)
