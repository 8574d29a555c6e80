"""The whole round of one area: accumulate, select and potentiate as one operation."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from brainjax.ops import active_set, backend as backends
from brainjax.ops.accumulation import KERNEL_DTYPES, accumulate_rows
from brainjax.ops.active_set import ActiveSet
from brainjax.ops.potentiation import check_beta, potentiate
from brainjax.ops.selection import check_winners, select_winners

HANDLER = "BrainjaxAssemblyCore"

# What a kernel takes: fibers in its parameters; senders listed, and neurons, in its shared memory.
MAX_FIBERS, MAX_SENDERS, MAX_NEURONS = 16, 4096, 1 << 18
# Of that, for lists and sums of a block: as much as any GPU has that has 99 KiB.
_MAX_BLOCK_BYTES = 54 * 1024

Round = tuple[tuple[Array, ...], Array, ActiveSet]  # weights, inputs, winners


def assembly_core(
    weights: Sequence[Float[Array, "_ post"]],
    senders: Sequence[ActiveSet],
    winners: ActiveSet,
    k: int,
    *,
    is_open: Bool[Array, " fibers"],
    is_plastic: Bool[Array, " fibers"],
    is_fixed: Bool[Array, ""] | bool = False,
    beta: Float[Array, " fibers"],
    w_max: Float[Array, " fibers"],
    last_inputs: Float[Array, " post"],
    temperature: Float[Array, ""] | float = 1.0,
    softened: bool = False,
    backend: backends.Backend = "auto",
) -> Round:
    """Sum what an area receives through its fibers, choose who fires, and let the fibers learn.

    `x      = sum over open f of accumulate_rows(weights_f, senders_f)`
    `winners = select_winners(x, k)`
    `weights_f = potentiate(weights_f, senders_f, winners, beta_f, w_max_f)   for open, plastic f`

    An area that is fixed, or has no open fiber, keeps its winners. One whose best neurons receive
    nothing falls silent. Fibers are summed in the order given, each by itself. Where one kernel
    does it all nothing returns to the host and the sums need not leave the chip; `softened`
    winners, runners-up and very large areas take the three operations in turn.

    Args:
        weights: of each fiber into the area, float32 or bfloat16; updated in place where the
            caller's buffers may be reused (a donated argument, the carry of a scan).
        senders: who fires at the other end of each fiber, and how strongly.
        winners: who fired in the area; the capacity beyond k lists runners-up.
        k: number of winners, in 1..post.
        is_open: fibers that carry spikes.
        is_plastic: fibers that learn, if they are open.
        is_fixed: the area keeps its winners.
        beta: relative increase of a synapse that is used.
        w_max: largest weight of a changed synapse.
        last_inputs: what the neurons received when `winners` were chosen. A hint at the size of
            the new inputs that saves a kernel time, and changes no result.
        temperature: see `select_winners`; of the gradient alone unless `softened`.
        softened: see `select_winners`.
        backend: "auto", "reference" or "kernel".

    Returns:
        The changed weights, the input to each neuron (float32, in the unit of the weights), and
        who fires now.

    Raises:
        ValueError: no fiber is given, or their number differs from that of the senders.
        ValueError: k is out of range, see `select_winners`, the winners have no room for k, fibers
            end in areas of different sizes, or there is not one flag and number for each.
        ValueError: `beta` is too small for bfloat16 weights to move; see `potentiate`.
        RuntimeError: `backend` is "kernel" and none can run.

    Cost: reads the rows of the neurons that fire and changes count(pre) * count(post) weights of
        each plastic fiber; a closed fiber costs nothing in a kernel.
    Determinism: bit-identical on every backend, alone and batched; `softened` excepted.
    Source: Papadimitriou et al. (2020), PNAS 117:14464.
    """
    backends.check(backend)
    if not weights or len(weights) != len(senders):
        raise ValueError(
            "weights must be one matrix for each of the senders, at least one; "
            f"got {len(weights)} for {len(senders)}"
        )
    _check_shapes(weights, winners, k, (is_open, is_plastic, beta, w_max))
    for matrix in weights:
        check_beta(beta, matrix.dtype)
    operands = (
        tuple(weights),
        tuple(senders),
        winners,
        is_open,
        is_plastic,
        jnp.asarray(is_fixed),
        beta,
        w_max,
        last_inputs,
    )
    temperature = jnp.asarray(temperature, jnp.float32)
    if softened or not _fits_one_kernel(weights, senders, winners, k):
        return _in_turn(operands, temperature, k=k, softened=softened, backend=backend)
    return _fused(operands, temperature, k, backend)


def assembly_core_reference(
    weights: Sequence[Float[Array, "_ post"]],
    senders: Sequence[ActiveSet],
    winners: ActiveSet,
    k: int,
    *,
    is_open: Bool[Array, " fibers"],
    is_plastic: Bool[Array, " fibers"],
    is_fixed: Bool[Array, ""],
    beta: Float[Array, " fibers"],
    w_max: Float[Array, " fibers"],
) -> Round:
    """The definition of `assembly_core`, in plain JAX: the three operations in turn."""
    operands = weights, senders, winners, is_open, is_plastic, is_fixed, beta, w_max, None
    return _in_turn(operands, jnp.float32(1), k=k, softened=False, backend="reference")


def _check_shapes(weights, winners, k, of_fibers):
    num_post = weights[0].shape[1]
    check_winners(k, num_post)
    if winners.indices.shape[0] < k:
        raise ValueError(f"winners must have room for k={k}; got {winners.indices.shape[0]}")
    for f, matrix in enumerate(weights):
        if matrix.shape[1] != num_post:
            raise ValueError(f"weights[{f}] must be [pre, {num_post}]; got {matrix.shape}")
    names = "is_open", "is_plastic", "beta", "w_max"
    for name, values in zip(names, of_fibers, strict=True):
        if values.shape != (len(weights),):
            raise ValueError(f"{name} must be of {len(weights)} fibers; got shape {values.shape}")


def _in_turn(operands, temperature, *, k, softened, backend):
    weights, senders, winners, is_open, is_plastic, is_fixed, beta, w_max, _ = operands
    sent = [active_set.gate(s, is_open[f]) for f, s in enumerate(senders)]
    received = [accumulate_rows(w, s, backend=backend) for w, s in zip(weights, sent)]
    inputs = sum(received, start=jnp.zeros(weights[0].shape[1], jnp.float32))

    chooses = jnp.any(is_open) & ~is_fixed
    chosen = select_winners(
        inputs,
        k,
        firing=chooses,
        runners_up=winners.indices.shape[0] - k,
        temperature=temperature,
        softened=softened,
        backend=backend,
    )
    winners = _either(chooses, _silent_without_input(chosen, inputs), winners)

    learning = [active_set.gate(s, is_plastic[f]) for f, s in enumerate(sent)]
    changed = tuple(
        potentiate(w, s, winners, beta[f], w_max[f], backend=backend)
        for f, (w, s) in enumerate(zip(weights, learning))
    )
    return changed, inputs, winners


def _silent_without_input(chosen, inputs):
    """The chosen neurons, or nobody if none of them receives anything."""
    received = inputs.at[chosen.indices].get(mode="fill", fill_value=0)
    silent = active_set.empty(inputs.shape[0], chosen.indices.shape[0])
    return _either(jnp.any(received != 0), chosen, silent)


def _either(condition, one, other):
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)


def _fits_one_kernel(weights, senders, winners, k):
    """Whether a kernel takes these operands: no runners-up, one type of weights, few enough."""
    dtypes = {matrix.dtype for matrix in weights}
    num_post = weights[0].shape[1]
    listed = [sender.indices.shape[0] for sender in senders]
    return (
        winners.indices.shape[0] == k
        and len(dtypes) == 1
        and dtypes <= {jnp.dtype(dtype) for dtype in KERNEL_DTYPES}
        and len(weights) <= MAX_FIBERS
        and sum(listed) <= MAX_SENDERS
        and num_post <= MAX_NEURONS
        and _block_bytes(listed, k, num_post) <= _MAX_BLOCK_BYTES
    )


def _block_bytes(listed, k, num_post):
    """Shared memory for senders, winners, sums and posts, by a lone block, a cluster or a grid.

    The largest that `ChooseTeam` of assembly_core.cu may come to on a GPU with 40 to 188
    multiprocessors.
    """
    senders = sum(-(-size // 128) * 128 for size in listed)  # of each fiber, whole turns
    fewest = 1 if num_post <= 4096 else 8 if num_post <= 1 << 15 else 40
    sizes = []
    for blocks in (fewest, 1 if fewest == 1 else 188):  # how many there are, the GPU decides
        width = -(-num_post // blocks)
        sizes.append(8 * (senders + min(k, width)) + 4 * width + 124 * blocks)
    return max(sizes)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _fused(operands, temperature, k, backend):
    def reference(*operands):
        return _in_turn(operands, temperature, k=k, softened=False, backend="reference")

    return backends.dispatch(backend, HANDLER, *operands, reference=reference, kernel=_kernel)


def _forward(operands, temperature, k, backend):
    in_turn = functools.partial(_in_turn, k=k, softened=False, backend=backend)
    return jax.vjp(in_turn, operands, temperature)


def _backward(k, backend, pull_back, round_bar):
    return pull_back(round_bar)


# The gradient is that of the three operations, which have their own.
_fused.defvjp(_forward, _backward)


@backends.batched_in_full
def _kernel(weights, senders, winners, is_open, is_plastic, is_fixed, beta, w_max, last_inputs):
    num_fibers, num_post = len(weights), weights[0].shape[-1]
    small = (*_parts(winners), is_fixed, is_open, is_plastic)
    small = (*small, beta.astype(jnp.float32), w_max.astype(jnp.float32))
    small = (*small, last_inputs)
    batch = winners.count.shape
    results = (
        *(jax.ShapeDtypeStruct(part.shape, part.dtype) for part in _parts(winners)),
        jax.ShapeDtypeStruct((*batch, num_post), jnp.float32),
        jax.ShapeDtypeStruct((*batch, _scratch_words(num_post)), jnp.uint32),
        *(jax.ShapeDtypeStruct(matrix.shape, matrix.dtype) for matrix in weights),
    )
    call = jax.ffi.ffi_call(
        backends.target(HANDLER),
        results,
        input_output_aliases={
            len(small) + f: len(results) - num_fibers + f for f in range(num_fibers)
        },
    )
    parts = [part for sender in senders for part in _parts(sender)]
    indices, values, count, inputs, _, *changed = call(*small, *weights, *parts)
    return tuple(changed), inputs, ActiveSet(indices, values, count)


def _parts(active):
    return active.indices, active.values.astype(jnp.float32), active.count


def _scratch_words(num_post):
    """Scratch is a result: a kernel never allocates. Its size serves both platforms."""
    cpu = max(num_post, 4096 + num_post // 16)
    posts, select = 256 * 32, 4 + 3 * 1024 + 4 * 256
    lists = 3 * min(8192, max(512, num_post // 8))
    return -(-max(cpu, posts + select + lists) // 32) * 32  # 16-byte words in each of a batch
