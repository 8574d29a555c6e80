"""Time of every operation and of whole steps, beside what users would pick instead and the limit.

Question:  how long does one call take, against lax, jnp and PyTorch on the same operands in the
           same run, and against the time that the machine needs to read its bytes?
Measured:  calls back to back in one compiled loop, on different operands in turn, so that these
           come from memory unless `in_cache` says that all of them fit there; implementations
           take turns; the median. PyTorch, where it is installed beside a GPU, replays a CUDA
           graph of the same calls on the same memory. Compilation is not timed. The first row is
           a call without work; `launch_apart` sets what a call takes beyond it against the limit.
Run:       python benchmarks/ops.py [--operations select step] [--smoke] [--json FILE]
"""

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from brainjax import assemblies, experiment, metrics, ops, simulation, timing

# Operands that come again only after this many bytes of others come from memory.
_ROTATED_BYTES = 128 * 2**20
_HELD_BYTES = 4 * 2**30  # the most that the operands of one case may take
_SECTOR_BYTES = 32  # what memory moves at least
_FAN_OUT = 100
_BETA = 0.05
_STILL = 1e-9  # a beta with which all the work is done and no weight grows without end


def _by_platform(*, gpu, cpu):
    return dataclasses.field(
        default_factory=lambda: gpu if ops.backend.default_platform() == "cuda" else cpu
    )


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is timed. The sizes default to what the device can do in minutes."""

    operations: tuple[str, ...] = (
        "launch",
        "select",
        "accumulate",
        "potentiate",
        "propagate",
        "step",
    )
    select: tuple[tuple[int, int], ...] = _by_platform(  # neurons, winners
        gpu=(
            (10_000, 100),
            (100_000, 316),
            (1_000_000, 1_000),
            (10_000_000, 3_162),
            (100_000_000, 10_000),
            (1_000_000_000, 31_623),
        ),
        cpu=((10_000, 100), (100_000, 316), (1_000_000, 1_000)),
    )
    select_rows: tuple[tuple[int, int, int], ...] = _by_platform(  # rows, neurons, winners
        gpu=((1_024, 10_000, 100),), cpu=((32, 10_000, 100),)
    )
    select_dtypes: tuple[str, ...] = ("bfloat16", "uint8", "uint16", "int32")
    select_dtypes_at: tuple[int, int] = _by_platform(  # lax sorts integers on a CPU
        gpu=(1_000_000, 1_000), cpu=(100_000, 316)
    )
    accumulate: tuple[tuple[int, int], ...] = _by_platform(  # neurons, of which so many fire
        gpu=((10_000, 100), (32_768, 181), (65_536, 256)), cpu=((1_000, 32), (10_000, 100))
    )
    potentiate: tuple[tuple[int, int], ...] = ((10_000, 100), (10_000, 1_000))
    weights: tuple[str, ...] = _by_platform(  # jnp takes minutes for bfloat16 on a CPU
        gpu=("float32", "bfloat16"), cpu=("float32",)
    )
    propagate: tuple[int, ...] = _by_platform(  # neurons, of which one in a hundred fires
        gpu=(100_000, 1_000_000, 10_000_000), cpu=(100_000,)
    )
    synapses: tuple[str, ...] = ("unit", "uint8", "float32")  # their weights
    step: tuple[tuple[int, int], ...] = _by_platform(  # neurons, winners
        gpu=((10_000, 100), (32_768, 181)), cpu=((1_000, 32), (10_000, 100))
    )
    step_brains: tuple[tuple[int, int, int], ...] = _by_platform(  # brains, neurons, winners
        gpu=((256, 4_096, 64),), cpu=((8, 1_024, 32),)
    )
    rounds: int = _by_platform(gpu=1_000, cpu=200)  # steps in one loop
    bytes_per_loop: int = _by_platform(gpu=4 * 10**9, cpu=2 * 10**7)  # moved by its calls
    repetitions: int = 7
    seed: int = 0


SMOKE = Settings(
    select=((300, 17),),
    select_rows=((3, 300, 17),),
    select_dtypes=("uint8",),
    select_dtypes_at=(300, 17),
    accumulate=((300, 17),),
    potentiate=((300, 17),),
    weights=("float32",),
    propagate=(300,),
    synapses=("unit", "float32"),
    step=((300, 17),),
    step_brains=((3, 100, 10),),
    rounds=5,
    bytes_per_loop=10**5,
    repetitions=2,
)


def run(settings: Settings) -> dict:
    """Time every case in all implementations."""
    bandwidth = metrics.read_bandwidth()
    rows = [
        _row(settings, f"{operation} {name}", build, bandwidth)
        for operation in settings.operations
        for name, build in _CASES[operation](settings)
    ]
    launch = rows[0]["brainjax_us"] if settings.operations[0] == "launch" else None
    for row in rows[1:] if launch else ():
        if row["brainjax_us"] and not row["case"].startswith("step"):
            row["launch_apart"] = row["limit_us"] / max(row["brainjax_us"] - launch, 1e-3)
    return {
        "platform": jax.default_backend(),
        "torch": metrics.version("torch"),
        "read_bandwidth_bytes_per_s": bandwidth,
        "summary": {"measured read bandwidth, GB/s": bandwidth / 1e9},
        "rows": rows,
    }


def check(result: dict) -> None:
    """Every case has the bits of the reference and a time, or says why it has none."""
    for row in result["rows"]:
        timed = row["equal_bits"] and row["brainjax_us"] > 0
        experiment.claim(timed or bool(row["skipped"]), f"wrong or not timed: {row}")


@dataclasses.dataclass(frozen=True)
class Case:
    """One row of the table. Implementations are built when their turn comes."""

    moved: float  # bytes, by one call
    equal_bits: Callable[[], bool]  # whether ours has the bits of the reference
    contenders: dict[str, Callable[[], timing.Contender]]  # ours is "brainjax"
    in_cache: bool
    limits: tuple[str, ...] = ()  # contenders that are limits, not implementations


def _row(settings, name, build: Callable[[], Case], bandwidth):
    row = {"case": name, **dict.fromkeys(_COLUMNS), "skipped": ""}
    try:
        case = build()
        row["equal_bits"] = case.equal_bits()
        seconds, not_run = timing.in_turns(case.contenders, settings.repetitions)
    except (MemoryError, RuntimeError, ValueError) as error:
        return {**row, "skipped": _memory_reason(f"{type(error).__name__}: {error}")}
    if "brainjax" in not_run:
        return {**row, "skipped": _memory_reason(not_run["brainjax"])}
    us = {who: 1e6 * float(np.median(times)) for who, times in seconds.items()}
    limit = max(1e6 * case.moved / bandwidth, *(us.get(who, 0.0) for who in case.limits), 0.0)
    row |= {"brainjax_us": us["brainjax"], "limit_us": limit, "of_limit": limit / us["brainjax"]}
    if others := {who: us[who] for who in us if who not in ("brainjax", *case.limits)}:
        best = min(others, key=others.__getitem__)
        row |= {"best_other": best, "other_us": us[best], "times_faster": us[best] / us["brainjax"]}
    spread = {who: [1e6 * min(times), 1e6 * max(times)] for who, times in seconds.items()}
    row["in_cache"] = case.in_cache
    return {**row, "us": us, "us_min_max": spread, "not_run": not_run}


_COLUMNS = ("brainjax_us", "best_other", "other_us", "times_faster", "limit_us", "of_limit")
_COLUMNS += ("launch_apart", "in_cache", "equal_bits")


def _memory_reason(error):
    """What a case is skipped for: nothing but the memory."""
    if "memory" in error.lower():  # the one word that every such error has
        return error.partition("\n")[0]
    raise RuntimeError(error)


@dataclasses.dataclass(frozen=True)
class Calls:
    """The implementations of one operation, as `timing.Operands` says what they take."""

    moved: float
    operands: timing.Operands
    ours: Callable
    reference: Callable
    others: dict[str, Callable]
    torch: dict[str, Callable]  # as `timing.in_cuda_graph` takes them
    limits: dict[str, Callable] = dataclasses.field(default_factory=dict)


def _case(settings, calls: Calls) -> Case:
    loop_bytes = max(calls.moved, 1) * len(calls.operands.each)
    iterations = min(max(2, round(settings.bytes_per_loop / loop_bytes)), 64)
    contenders = {
        who: functools.partial(timing.in_loop, call, calls.operands, iterations)
        for who, call in {"brainjax": calls.ours, **calls.others, **calls.limits}.items()
    }
    if timing.has_torch():
        contenders |= {
            who: functools.partial(timing.in_cuda_graph, bind, calls.operands)
            for who, bind in calls.torch.items()
        }
    return Case(
        calls.moved,
        functools.partial(_equal_once, calls),
        contenders,
        in_cache=loop_bytes < _ROTATED_BYTES,
        limits=tuple(calls.limits),
    )


def _rotation(moved, held=1):
    """How many operands take turns: as many as come from memory, no more than fit there."""
    many = 16 * moved < _ROTATED_BYTES <= 64 * moved
    return max(1, min(64 if many else 16, int(_HELD_BYTES // held)))


def _equal_once(calls):
    operands = calls.operands.state, calls.operands.shared, calls.operands.each[0]
    ours, reference = (jax.jit(call)(*operands) for call in (calls.ours, calls.reference))
    return _same_bits(ours, reference)


def _same_bits(ours, reference):
    """Compared on the device: weights may be larger than the host."""
    return jax.tree.all(jax.tree.map(lambda *leaves: bool(_leaves_equal(*leaves)), ours, reference))


@jax.jit
def _leaves_equal(one, other):
    word = f"uint{8 * one.dtype.itemsize}"
    words = [jax.lax.bitcast_convert_type(leaf, word) for leaf in (one, other)]
    return (words[0] == words[1]).all()


Cases = Iterator[tuple[str, Callable[[], Case]]]  # name, and what builds it


def _launch(settings) -> Cases:
    def build():
        nobody = ops.active_set.empty(1, 1)
        each = [(jnp.full((1, 8), index, jnp.float32), nobody) for index in range(16)]
        return _case(
            settings,
            Calls(
                moved=0,
                operands=timing.Operands(each),
                ours=lambda _, __, each: ((), ops.accumulate_rows(*each)),
                reference=lambda _, __, each: ((), ops.accumulate_rows_reference(*each)),
                others={"jnp x + 1": lambda _, __, each: ((), each[0] + 1)},
                torch={"torch x + 1": lambda _, __, each: lambda: each[0] + 1},
            ),
        )

    yield "of a call without work", build


def _select(settings) -> Cases:
    shapes = [((n,), k) for n, k in settings.select]
    shapes += [((rows, n), k) for rows, n, k in settings.select_rows]
    kinds = [(*shape, "float32", kind) for shape in shapes for kind in ("dense", "99 % zeros")]
    n, k = settings.select_dtypes_at
    for dtype in settings.select_dtypes:
        kinds.append(((n,), k, dtype, "dense" if dtype == "bfloat16" else "counts"))
    for shape, k, dtype, kind in kinds:
        size = " x ".join(f"{length:,}" for length in shape)
        build = functools.partial(_select_case, settings, shape, k, dtype, kind)
        yield f"{size} k={k:,} {dtype}, {kind}", build


def _select_case(settings, shape, k, dtype, kind):
    size = int(np.prod(shape)) * jnp.dtype(dtype).itemsize
    keys = jax.random.split(jax.random.key(settings.seed), _rotation(size, size))

    def each_row(select):
        def call(state, _, scores):
            one = functools.partial(select, k=k)
            return state, (jax.vmap(one) if scores.ndim > 1 else one)(scores)

        return call

    def bind_torch(_, __, scores):
        return lambda: scores.topk(k)

    return _case(
        settings,
        Calls(
            moved=size + 4 * k * int(np.prod(shape[:-1])),
            operands=timing.Operands([_scores(shape, dtype, kind, key) for key in keys]),
            ours=each_row(lambda row, k: ops.select_winners(row, k).indices),
            reference=each_row(lambda row, k: ops.select_winners_reference(row, k).indices),
            others={"lax.top_k": lambda state, _, scores: (state, jax.lax.top_k(scores, k))},
            torch={"torch.topk": bind_torch},
        ),
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _scores(shape, dtype, kind, key):
    normal_key, sparse_key = jax.random.split(key)
    if kind == "counts":
        return (10 * jax.random.exponential(normal_key, shape)).astype(dtype)
    normal = jax.random.normal(normal_key, shape, dtype)
    if kind == "dense":
        return normal
    return jnp.where(jax.random.bernoulli(sparse_key, 0.01, shape), jnp.abs(normal), 0)


def _accumulate(settings) -> Cases:
    for n, k in settings.accumulate:
        for dtype in settings.weights:
            build = functools.partial(_accumulate_case, settings, n, k, dtype)
            yield f"{n:,} k={k:,} {dtype}", build


def _accumulate_case(settings, n, k, dtype):
    moved = k * n * jnp.dtype(dtype).itemsize + 4 * n
    each = _active_sets(settings, n, k, _rotation(moved))

    def bind_sum(_, weights, active):
        rows = active.indices.long()
        return lambda: weights[rows].sum(0)

    def bind_embedding(_, weights, active):
        from torch.nn import functional  # pyright: ignore[reportMissingImports]

        rows = active.indices.long()[None]
        return lambda: functional.embedding_bag(rows, weights, mode="sum")

    def plain(state, weights, active):
        return state, weights[active.indices].sum(0)

    return _case(
        settings,
        Calls(
            moved=moved,
            operands=timing.Operands(each, shared=_weights(settings, n, dtype)),
            ours=lambda state, *operands: (state, ops.accumulate_rows(*operands)),
            reference=lambda state, *operands: (state, ops.accumulate_rows_reference(*operands)),
            others={"jnp sum of rows": plain},
            torch={"torch sum of rows": bind_sum, "torch embedding_bag": bind_embedding},
        ),
    )


def _potentiate(settings) -> Cases:
    for n, k in settings.potentiate:
        for dtype in settings.weights:
            build = functools.partial(_potentiate_case, settings, n, k, dtype)
            yield f"{n:,} k={k:,} {dtype}", build


def _potentiate_case(settings, n, k, dtype):
    itemsize = jnp.dtype(dtype).itemsize
    # Read and written: of k rows the sectors in which one or more of k columns lie.
    touched = 1 - (1 - k / n) ** (_SECTOR_BYTES / itemsize)
    moved = 2 * k * n * itemsize * touched

    def plain(weights, beta, active):
        block = active.indices[:, None], active.indices
        factor = (1 + beta).astype(weights.dtype)
        return weights.at[block].multiply(factor, unique_indices=True), ()

    def bind_torch(weights, beta, active):
        rows = active.indices.long()
        block, factor = (rows[:, None], rows), 1 + float(beta)
        return lambda: weights.index_put_(block, weights[block] * factor)

    def reference(weights, beta, active):
        return ops.potentiate_reference(weights, active, active, beta, jnp.float32(jnp.inf)), ()

    each = _active_sets(settings, n, k, _rotation(moved / 2))
    calls = Calls(
        moved=moved,
        operands=timing.Operands(each, jnp.float32(_STILL), _weights(settings, n, dtype)),
        ours=lambda weights, beta, active: (ops.potentiate(weights, active, active, beta), ()),
        reference=reference,
        others={"jnp .at[].multiply": plain},
        torch={"torch index_put_": bind_torch},
    )
    case = _case(settings, calls)
    moving = dataclasses.replace(calls.operands, shared=jnp.float32(_BETA))
    moving = dataclasses.replace(calls, operands=moving)
    return dataclasses.replace(case, equal_bits=functools.partial(_equal_once, moving))


def _propagate(settings) -> Cases:
    for n in settings.propagate:
        for weights in settings.synapses:
            build = functools.partial(_propagate_case, settings, n, weights)
            yield f"{n:,} x {_FAN_OUT} {weights}", build


def _propagate_case(settings, n, kind):
    """One in a hundred fires. The limit is that of memory, or as many atomic additions alone."""
    events, dtype = n // 100 * _FAN_OUT, jnp.dtype("uint8" if kind == "unit" else kind)
    moved = events * (4 + (0 if kind == "unit" else dtype.itemsize)) + 4 * n
    synapses = _synapses(n, kind, jax.random.key(settings.seed))
    sets = _active_sets(settings, n, n // 100, _rotation(moved, 4 * events))
    each = [(active, synapses.indices[active.indices].ravel()) for active in sets]

    def plain(sums, state, synapses, each):
        rows = each[0].indices
        weights = 1 if kind == "unit" else synapses.weights[rows].astype(sums)
        return state, jnp.zeros(n, sums).at[synapses.indices[rows]].add(weights)

    def bind_torch(_, synapses, each):
        rows, sums = each[0].indices.long(), each[0].values.new_empty(n)
        ones = each[0].values.new_ones(events)

        def call():
            weights = ones if kind == "unit" else synapses.weights[rows].view(-1).to(sums.dtype)
            return sums.zero_().index_add_(0, synapses.indices[rows].view(-1), weights)

        return call

    def atomics(state, _, each):
        return state, jnp.zeros(n, jnp.int32).at[each[1]].add(1, mode="promise_in_bounds")

    integers = {} if kind == "float32" else {"jnp int32 scatter": functools.partial(plain, "int32")}
    return _case(
        settings,
        Calls(
            moved=moved,
            operands=timing.Operands(each, shared=synapses),
            ours=lambda state, synapses, each: (
                state,
                ops.propagate_spikes(synapses, each[0], n),
            ),
            reference=lambda state, synapses, each: (
                state,
                ops.propagate_spikes_reference(synapses, each[0], n),
            ),
            others={"jnp float32 scatter": functools.partial(plain, "float32"), **integers},
            torch={"torch index_add_": bind_torch},
            limits={"atomics": atomics},
        ),
    )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _synapses(n, kind, key):
    """Drawn on the device, as the constructor would look at each on the host."""
    targets_key, weights_key = jax.random.split(key)
    indices = jax.random.randint(targets_key, (n, _FAN_OUT), 0, n)
    if kind == "unit":
        return ops.FixedFanOut(indices, None)
    if kind == "uint8":
        return ops.FixedFanOut(indices, jax.random.bits(weights_key, indices.shape, kind))
    weights = jax.random.uniform(weights_key, indices.shape)
    return ops.FixedFanOut(indices, weights, fraction_bits=22)  # far fewer than 2**9 onto a neuron


def _active_sets(settings, n, k, how_many):
    rng = np.random.default_rng(settings.seed)
    return [
        ops.active_set.from_indices(rng.choice(n, k, replace=False), n) for _ in range(how_many)
    ]


def _weights(settings, n, dtype):
    """Graded, so that the order of a sum shows in its bits; row by row, as the rest may not fit."""
    draw_row = functools.partial(jax.random.uniform, shape=(n,), dtype=dtype)
    keys = jax.random.split(jax.random.key(settings.seed), n)
    return jax.jit(functools.partial(jax.lax.map, draw_row))(keys)


def _step(settings) -> Cases:
    for n, k in settings.step:
        for settled in (True, False):
            name = f"{n:,} k={k:,}, {'settled' if settled else 'wandering'}"
            yield name, functools.partial(_step_case, settings, None, n, k, settled)
    for brains, n, k in settings.step_brains:
        build = functools.partial(_step_case, settings, brains, n, k, False)
        yield f"{brains:,} brains x {n:,} k={k:,}, wandering", build


def _step_case(settings, brains, n, k, settled):
    """Rounds of P[s->A, A->A] with Hebbian plasticity.

    Settled: an assembly has formed, whose rows win again and again. Wandering: from the start
    weights stay as they are, so that other rows win in every round and come from memory.
    """
    config = assemblies.Config(
        areas=[assemblies.Area("A", n, k)],
        stimuli=[assemblies.Stimulus("s", k)],
        fibers=[assemblies.Fiber("s", "A", 0.1), assemblies.Fiber("A", "A", 0.1)],
    )

    def birth():
        key, params = jax.random.key(settings.seed), assemblies.Params(beta=_BETA)
        if brains is None:
            return assemblies.init(config, params, key)
        return experiment.births(config, params, key, brains)

    moved = (brains or 1) * config.bytes_moved(config.drive("s->A", "A->A"))
    contenders = {"brainjax": _simulated, "jnp in lax.scan": _scanned}
    return Case(
        moved=moved,
        equal_bits=functools.partial(_equal_rounds, config, birth),
        contenders={
            who: functools.partial(make, config, birth, settings.rounds, settled)
            for who, make in contenders.items()
        },
        in_cache=settled and moved < _ROTATED_BYTES,
    )


def _simulated(config, birth, rounds, settled):
    state = birth()
    if settled:
        state = _simulate(config, state, rounds, _BETA)

    def start():
        nonlocal state
        state = _simulate(config, state, rounds, _STILL)
        return state

    return timing.Contender(start, jax.block_until_ready, rounds)


def _simulate(config, state, rounds, beta):
    params = assemblies.Params(beta=jnp.float32(beta))
    axes = None if state.round.ndim == 0 else (None, 0, None)
    drive = config.drive("s->A", "A->A")
    step = assemblies.step
    return simulation.simulate(
        step, config, params, state, drive, num_steps=rounds, in_axes=axes, chunk_steps=rounds
    )[0]


def _equal_rounds(config, birth):
    """Three rounds with kernels and without."""
    ours = _simulate(config, birth(), 3, _BETA)
    reference = _simulate(dataclasses.replace(config, backend="reference"), birth(), 3, _BETA)
    return all(
        _same_bits(getattr(ours, field), getattr(reference, field))
        for field in ("winners", "inputs", "synapses")
    )


def _scanned(config, birth, rounds, settled):
    synapses, k = birth().synapses, config.areas[0].k
    stimulus = synapses["s->A"].weights[..., 0, :]
    carry = stimulus, synapses["A->A"].weights, jax.lax.top_k(stimulus, k)[1]
    del synapses

    def round_(beta, carry):
        stimulus, recurrent, winners = carry
        new = jax.lax.top_k(stimulus + recurrent[winners].sum(0), k)[1]
        stimulus = stimulus.at[new].multiply(1 + beta, unique_indices=True)
        block = winners[:, None], new
        return stimulus, recurrent.at[block].multiply(1 + beta, unique_indices=True), new

    @functools.partial(jax.jit, donate_argnums=0)
    def scan(carry, beta):
        one = functools.partial(round_, beta)
        one = jax.vmap(one) if carry[0].ndim > 1 else one
        return jax.lax.scan(lambda carry, _: (one(carry), None), carry, length=rounds)[0]

    if settled:
        carry = scan(carry, jnp.float32(_BETA))

    def start():
        nonlocal carry
        carry = scan(carry, jnp.float32(_STILL))
        return carry

    return timing.Contender(start, jax.block_until_ready, rounds)


_CASES = {
    "launch": _launch,
    "select": _select,
    "accumulate": _accumulate,
    "potentiate": _potentiate,
    "propagate": _propagate,
    "step": _step,
}


if __name__ == "__main__":
    sys.exit(experiment.main(sys.modules[__name__]))
