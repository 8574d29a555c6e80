"""One burst as one operation: every rule and size against plain loops, batches, and no copies."""

import functools
import itertools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bursts import KINDS, RULES, in_numpy, network, plain_warps, spread
from helpers import (
    assert_same_bits,
    at,
    each_backend,
    each_backend_slowly,
    each_kernel,
    has_kernels,
    on_cpu,
    on_gpu,
    stacked,
    take_way,
    weight_copies,
)
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays

from brainjax import ops
from brainjax.ops.burst_core import HANDLER

# Both sides of a word, of a tile and of several; the last two are for several threads.
SIZES = (1, 31, 33, 511, 513, 1_023, 1_025, 4_097)
each_rule = pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
each_kind = pytest.mark.parametrize("kind", KINDS)


@functools.partial(jax.jit, static_argnames=("rules", "backend", "keeps_inputs"))
def advance(rules, operands, backend="auto", keeps_inputs=True):
    return ops.burst_core(rules, backend=backend, keeps_inputs=keeps_inputs, **operands)


def draw(seed, n, kind="usual", **options):
    return network(np.random.default_rng(seed), n, kind, **options)


@each_kernel
@each_rule
@each_kind
def test_a_burst_is_as_the_engine_says(kind, rules, backend):
    for n, weights, num_kinds in (
        (1_000, "float32", None),
        (1_200, "float32", 9),
        (33, "uint8", 5),
    ):
        operands = draw(n, n, kind, weights=weights, num_kinds=num_kinds)
        assert_same_bits(advance(rules, operands, backend), in_numpy(rules, operands))


@each_kernel
@each_rule
def test_neurons_of_one_kind(rules, backend):
    """Whatever the parameters are that all have, and whatever number their kind is."""
    for seed in range(40):
        operands = draw(seed, 700, num_kinds=1, num_synapses=3_000)
        # Every third one is at the threshold, and gets nothing if 0 is injected.
        operands["membranes"].potential[::3] = operands["neurons"].threshold
        assert_same_bits(advance(rules, operands, backend), in_numpy(rules, operands))


@each_kernel
def test_a_kind_comes_again_behind_mixed_ones(backend):
    for seed in range(10):
        operands = draw(seed, 1_536, num_kinds=4, num_synapses=3_000)
        operands["neurons"].kind[:512] = operands["neurons"].kind[1_024:] = seed % 4
        assert_same_bits(
            advance(RULES["regular"], operands, backend), in_numpy(RULES["regular"], operands)
        )


@each_backend
@pytest.mark.parametrize(
    ("kind", "name"), [*zip(KINDS, itertools.cycle(RULES)), ("driven", "whole strengths")]
)
def test_every_backend_follows_the_engine(kind, name, backend):
    for num_kinds in (None, 300):
        operands = draw(2, 300, kind, num_kinds=num_kinds)
        assert_same_bits(advance(RULES[name], operands, backend), in_numpy(RULES[name], operands))


@each_kernel
@pytest.mark.parametrize("n", SIZES)
def test_every_size(n, backend):
    for place, (kind, rules) in enumerate(zip(KINDS, itertools.cycle(RULES.values()))):
        weights, num_kinds = ("unit", "float32")[place % 2], (None, 3)[place // 2 % 2]
        operands = draw(place, n, kind, weights=weights, num_kinds=num_kinds)
        assert_same_bits(advance(rules, operands, backend), in_numpy(rules, operands))


@each_kernel
@pytest.mark.parametrize(
    ("num_kinds", "kind"), [(None, "usual"), (65_536, "usual"), (None, "cancelling")]
)
@pytest.mark.parametrize("rules", [RULES["power and fatigue"], RULES["in batches of many"]])
def test_threads_share_a_network(rules, num_kinds, kind, backend):
    operands = draw(1, 70_001, kind, num_kinds=num_kinds)
    expected = on_cpu(functools.partial(advance, rules, backend="reference"), operands)
    assert_same_bits(advance(rules, operands, backend), expected)


@each_backend
@each_rule
def test_inputs_that_are_not_kept_change_nothing_else(rules, backend):
    """Below and above the number of candidates from which on other rules hold."""
    for n, kind, num_kinds in ((1_025, "usual", 9), (33, "arrivals", None)):
        operands = draw(11, n, kind, num_kinds=num_kinds)
        result = advance(rules, operands, backend, keeps_inputs=False)
        expected = in_numpy(rules, operands).replace(inputs=None, candidates=None)
        assert_same_bits(result, expected)
        assert jax.tree.structure(result) == jax.tree.structure(expected)


@each_kernel
@pytest.mark.parametrize("name", ["regular", "in batches of many"])
def test_batch_whose_inputs_are_not_kept(name, backend):
    cases = [draw(seed, 1_100, num_kinds=6) for seed in range(3)]
    call = functools.partial(advance, RULES[name], backend=backend, keeps_inputs=False)
    alone = [case | {"synapses": cases[0]["synapses"]} for case in cases]
    own = {key: 0 for key in cases[0] if key not in ("synapses", "is_driven", "arrivals")}
    operands = cases[0] | stacked([{key: case[key] for key in own} for case in cases])
    together = jax.vmap(call, (dict.fromkeys(cases[0]) | own,))(operands)
    for place, case in enumerate(alone):
        expected = in_numpy(RULES[name], case).replace(inputs=None, candidates=None)
        assert_same_bits(at(together, place), expected)


def decaying():
    """Potentials on both sides of 2^-126, before they leak and behind it."""
    operands = draw(4, 600)
    scale = 2.0 ** np.random.default_rng(5).integers(-150, -120, 600)
    membranes = operands["membranes"]
    tiny = (membranes.potential * scale).astype(np.float32)
    return operands | {"membranes": membranes.replace(potential=tiny)}


@pytest.mark.skipif(not has_kernels(), reason="plain XLA takes them for 0 on a CPU")
def test_kernel_keeps_numbers_too_small_to_be_normal():
    operands, rules = decaying(), RULES["power and fatigue"]
    expected = in_numpy(rules, operands)
    kept = expected.membranes.potential
    assert np.count_nonzero((kept != 0) & (np.abs(kept) < np.finfo(np.float32).tiny)) > 50
    assert_same_bits(advance(rules, operands, "kernel"), expected)


@pytest.mark.gpu
def test_gpu_keeps_numbers_too_small_to_be_normal():
    operands, rules = decaying(), RULES["power and fatigue"]
    call = functools.partial(advance, rules, backend="kernel")
    assert_same_bits(on_gpu(call, operands), in_numpy(rules, operands))


# What leaks from a potential near 2^-126 is below it, and then plain XLA promises no bits.
magnitudes = st.just(0.0) | st.floats(2.0**-60, 9, width=32)
potentials = magnitudes | magnitudes.map(operator.neg)


@each_backend
@given(data=st.data())
def test_any_potentials(backend, data):
    operands, rules = draw(3, 40), RULES["power and fatigue"]
    membranes, neurons = operands["membranes"], operands["neurons"]
    numbers = arrays(np.float32, 40, elements=potentials)
    counts = arrays(np.uint16, 40)
    operands["membranes"] = membranes.replace(
        potential=data.draw(numbers), countdown=data.draw(counts), fire_count=data.draw(counts)
    )
    operands["neurons"] = neurons.replace(
        threshold=data.draw(numbers), threshold_limit=data.draw(numbers), snooze=data.draw(counts)
    )
    assert_same_bits(advance(rules, operands, backend), in_numpy(rules, operands))


@each_backend
def test_sums_that_cancel_reach_their_neuron(backend):
    """+1 and -1 in any order, a weight of 0, and one that rounds to 0: candidates of input 0."""
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        operands = draw(4, 6, "silent")
        fired = np.array(order, np.int32)
        operands["fired"] = ops.ActiveSet(
            np.append(fired, [6] * 3), np.ones(6, np.float32), np.int32(3)
        )
        operands["synapses"] = ops.compressed_rows(
            [0, 2, 4, 6, 6, 6, 6],
            [0, 1, 0, 2, 3, 4],
            6,
            np.array([1, 1, -1, 0, 1e-9, -1], np.float32),
            fraction_bits=6,
        )
        result = advance(RULES["regular"], operands, backend)
        assert result.inputs.tolist() == [0, 1, 0, 0, -1, 0]
        assert result.candidates.tolist() == [True, True, True, True, True, False]


@each_backend
def test_padding_of_the_list(backend):
    """Those of the last burst are overwritten; beyond both nothing is touched."""
    operands = draw(5, 10, "silent")
    indices, values = np.arange(10, 20, dtype=np.int32), np.arange(10, dtype=np.float32)
    operands["fired"] = ops.ActiveSet(indices, values, np.int32(4))
    fired = advance(RULES["regular"], operands, backend).fired
    assert int(fired.count) == 0
    assert fired.indices.tolist() == [10] * 4 + list(range(14, 20))
    assert fired.values.tolist() == [0] * 4 + list(range(4, 10))


@each_backend
@pytest.mark.parametrize("num_kinds", [None, 6])
@pytest.mark.parametrize("name", ["power and fatigue", "in batches of many"])
def test_batch_is_a_loop(name, num_kinds, backend):
    """State, drive and parameters of their own, in turn; synapses of all."""
    rules, cases = RULES[name], [draw(seed, 1_100, num_kinds=num_kinds) for seed in range(4)]
    shared = {"synapses": cases[0]["synapses"], "is_driven": cases[0]["is_driven"]}
    own = {"membranes": 0, "fired": 0, "injected": 0}
    for also in ({}, {"neurons": 0, "power": 0, "fatigued": 0, "bursts": 0}):
        axes = dict.fromkeys(cases[0]) | own | also
        whole = stacked([{key: case[key] for key in own | also} for case in cases])
        operands = {**cases[0], **shared, **whole}
        together = jax.vmap(functools.partial(advance, rules, backend=backend), (axes,))(operands)
        for place, case in enumerate(cases):
            alone = {**cases[0], **{key: case[key] for key in own | also}, **shared}
            assert_same_bits(at(together, place), in_numpy(rules, alone))


@each_backend
@pytest.mark.parametrize("own", ["threshold", "kind"])
def test_batch_of_a_part_of_the_parameters(own, backend):
    """Thresholds of the same kinds, or other kinds with the same thresholds."""
    rules, cases = RULES["power and fatigue"], [draw(seed, 600, num_kinds=5) for seed in range(3)]
    neurons = cases[0]["neurons"]
    alone = [
        cases[0] | {"neurons": neurons.replace(**{own: getattr(case["neurons"], own)})}
        for case in cases
    ]
    whole = np.stack([getattr(case["neurons"], own) for case in cases])
    axes = dict.fromkeys(cases[0]) | {"neurons": jax.tree.map(lambda _: None, neurons)}
    axes["neurons"] = axes["neurons"].replace(**{own: 0})
    operands = cases[0] | {"neurons": neurons.replace(**{own: whole})}
    together = jax.vmap(functools.partial(advance, rules, backend=backend), (axes,))(operands)
    for place, case in enumerate(alone):
        assert_same_bits(at(together, place), in_numpy(rules, case))


@each_backend_slowly
def test_kinds_and_rows_of_each_have_the_same_bits(backend):
    for name, num_kinds in (("power and fatigue", 4), ("residues", 700), ("in batches", 1)):
        operands = draw(6, 700, num_kinds=num_kinds)
        each = operands | {"neurons": operands["neurons"].spread()}
        assert each["neurons"].kind is None
        assert_same_bits(each["neurons"], spread(operands["neurons"]))
        results = [advance(RULES[name], given, backend) for given in (operands, each)]
        assert_same_bits(*results)


@each_kernel
def test_nested_batch_with_shared_state(backend):
    """Drives along the inner axis, thresholds along the outer one, one state for all."""
    rules, operands = RULES["power"], draw(7, 200)
    injected = stacked([draw(seed, 200)["injected"] for seed in range(3)])
    neurons = stacked([draw(seed, 200)["neurons"] for seed in range(2)])
    call = functools.partial(advance, rules, backend=backend)
    inner = jax.vmap(call, (dict.fromkeys(operands) | {"injected": 0},))
    outer = jax.vmap(inner, (dict.fromkeys(operands) | {"neurons": 0},))
    together = outer(operands | {"injected": injected, "neurons": neurons})
    for i in range(2):
        for j in range(3):
            alone = operands | {"injected": at(injected, j), "neurons": at(neurons, i)}
            assert_same_bits(at(at(together, i), j), in_numpy(rules, jax.device_get(alone)))


def scan_of(operands, rules, backend, bursts=5):
    def run(state, shared):
        def body(state, _):
            result = ops.burst_core(
                rules,
                *shared[:3],
                *state,
                shared[3],
                power=1.0,
                fatigued=False,
                keeps_inputs=False,
                backend=backend,
            )
            return (result.membranes, result.fired, result.bursts), result.fired.count

        return jax.lax.scan(body, state, length=bursts)

    names = "neurons", "synapses", "is_driven", "injected"
    carried = "membranes", "fired", "bursts"
    state = jax.tree.map(jnp.asarray, tuple(operands[name] for name in carried))
    return run, state, tuple(operands[name] for name in names)


@each_kernel
@pytest.mark.parametrize("num_kinds", [None, 50])
@pytest.mark.parametrize("brains", [None, 3])
def test_a_scan_copies_nothing(backend, brains, num_kinds):
    """Neither the state, which is updated in place, nor synapses and parameters of a batch.

    A kernel looks kinds up, and nothing is gathered for it.
    """
    n = 5_000
    operands = draw(8, n, num_kinds=num_kinds)
    run, state, shared = scan_of(operands, RULES["regular"], backend)
    shape = (n,)
    if brains is not None:
        run, state, shape = jax.vmap(run, (0, None)), stacked([state] * brains), (brains, n)
    compiled = jax.jit(run, donate_argnums=0).lower(state, shared).compile()
    assert weight_copies(compiled, shape) == 0
    assert weight_copies(compiled, shared[1].indices.shape) == 0
    assert (" gather(" in compiled.as_text()) == (backend != "kernel")
    state_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert compiled.memory_analysis().alias_size_in_bytes >= state_bytes - 8 * (brains or 1)
    kept = jax.jit(run).lower(state, shared).compile()
    assert weight_copies(kept, shape) > 0


def eager(n):
    """Whoever gets anything fires; beside neuron 0, two get something that do not exist."""
    operands = draw(n, n, "no synapses", num_kinds=1)
    everything = np.float32([np.inf])
    neurons = operands["neurons"].replace(
        threshold=-everything,
        threshold_limit=everything,
        excitability=np.ones(1, np.float32),
        fire_limit=np.zeros(1, np.uint16),
        accumulates=np.zeros(1, bool),
        kind=np.zeros(n, np.uint16),
    )
    rested = ops.Membranes(
        *(np.zeros_like(leaf) for leaf in jax.tree.leaves(operands["membranes"]))
    )
    ids = np.array([0, n, n + 1], np.int32)
    injected = ops.ActiveSet(ids, np.ones(3, np.float32), np.int32(3))
    return operands | {"neurons": neurons, "membranes": rested, "injected": injected}


@each_backend
def test_who_does_not_exist_gets_nothing(backend):
    operands = eager(33)
    assert_same_bits(
        advance(RULES["regular"], operands, backend), in_numpy(RULES["regular"], operands)
    )


def with_room(n, count):
    """So many entries that ascend; behind them is room for more, where ids are in no order."""
    rng = np.random.default_rng(count)
    ids = rng.integers(0, n, count + 2 * n).astype(np.int32)
    ids[:count].sort()
    injected = ops.ActiveSet(ids, np.ones(ids.size, np.float32), np.int32(count))
    return eager(n) | {"injected": injected}


@each_backend
@pytest.mark.parametrize("count", [0, 5, 1_300])
def test_what_is_behind_the_entries_is_not_injected(count, backend):
    operands = with_room(1_100, count)
    assert_same_bits(
        advance(RULES["regular"], operands, backend), in_numpy(RULES["regular"], operands)
    )


@each_backend
def test_nothing_is_injected_where_there_is_no_room(backend):
    nothing = ops.ActiveSet(np.zeros(0, np.int32), np.zeros(0, np.float32), np.int32(3))
    operands = draw(0, 33) | {"injected": nothing}
    assert_same_bits(advance(RULES["power"], operands, backend), in_numpy(RULES["power"], operands))


@each_kernel
def test_ids_that_do_not_ascend_stay_among_themselves(backend):
    operands = eager(1_300)
    ids = np.arange(1_290, 900, -3).astype(np.int32)
    injected = ops.ActiveSet(ids, np.ones(ids.size, np.float32), np.int32(ids.size))
    result = advance(RULES["regular"], operands | {"injected": injected}, backend)
    assert set(np.flatnonzero(result.candidates)) <= set(ids)
    assert set(np.asarray(result.fired.indices[: int(result.fired.count)])) <= set(ids)


def test_wrong_operands_are_refused():
    operands = jax.device_put(draw(9, 20))
    short = jax.tree.map(lambda leaf: leaf[:10] if leaf.ndim else leaf, operands["fired"])
    with pytest.raises(ValueError, match="one entry for each of the 20 neurons; got 10"):
        ops.burst_core(RULES["regular"], **operands | {"fired": short})
    half = operands["synapses"].replace(weights=jnp.zeros(3, jnp.bfloat16))
    with pytest.raises(TypeError, match="float32 or uint8; got bfloat16"):
        ops.burst_core(RULES["regular"], **operands | {"synapses": half})


def test_kinds_that_do_not_fit_are_refused():
    operands = jax.device_put(draw(9, 20, num_kinds=3))
    few, each = operands["neurons"], operands["neurons"].spread()
    many = jnp.zeros(65_537, jnp.float32)
    zeros = {name: jnp.zeros(65_537, values.dtype) for name, values in vars(few).items()}
    for neurons, error, message in (
        (few.replace(kind=few.kind[:10]), ValueError, r"kind must be \(20,\), the neurons; got"),
        (few.replace(kind=few.kind.astype(jnp.int32)), TypeError, "must be uint16; got int32"),
        (few.replace(leak=few.leak[:2]), ValueError, "length of leak must be 3, that of thr"),
        (each.replace(leak=each.leak[:2]), ValueError, "leak must be 20, the neurons, without k"),
        (
            few.replace(threshold=many[:0]),
            ValueError,
            "kinds of neurons must be in 1..65536; got 0",
        ),
        (few.replace(**zeros | {"kind": few.kind}), ValueError, "in 1..65536; got 65537"),
    ):
        with pytest.raises(error, match=message):
            ops.burst_core(RULES["regular"], **operands | {"neurons": neurons})


@pytest.mark.skipif(
    "cuda" not in ops.backend.platforms_with(HANDLER), reason="the CUDA kernels are not built"
)
def test_one_call_on_cuda():
    lowered = advance.trace(RULES["power"], draw(10, 50)).lower(lowering_platforms=("cuda",))
    assert lowered.as_text().count("stablehlo.custom_call @brainjax") == 1


# --- The CUDA kernel -----------------------------------------------------------------------------

# Both sides of a word, of a tile, of what a block lists, of what the blocks of an H100 advance
# together with one neuron a thread and with two, and of the size from which a thread looks after
# four; the last ones do not fill their threads, warps and blocks.
GPU_SIZES = (1, 31, 33, 512, 513, 8_193, 16_384, 16_385, 67_584, 67_585, 135_168, 135_169)
GPU_SIZES += (262_144, 262_145, 262_275, 1_000_001)


def assert_gpu_equals_cpu(rules, operands, keeps_inputs=True):
    """The plain loops where they take less time than a compilation."""
    if operands["membranes"].potential.size < 10_000:
        expected = in_numpy(rules, operands)
    else:
        expected = on_cpu(functools.partial(advance, rules, backend="reference"), operands)
    if not keeps_inputs:
        expected = expected.replace(inputs=None, candidates=None)
    call = functools.partial(advance, rules, backend="kernel", keeps_inputs=keeps_inputs)
    got = on_gpu(call, operands)
    assert_same_bits(got, expected)


@pytest.mark.gpu
@each_rule
@pytest.mark.parametrize("n", GPU_SIZES)
def test_gpu_sizes(n, rules):
    """Two kinds of networks for each rule and size, such that all come together with all.

    Of the second one the inputs are not kept.
    """
    first = list(RULES.values()).index(rules) + GPU_SIZES.index(n)
    for place in (first, first + 4):
        kind, weights = KINDS[place % len(KINDS)], ("unit", "float32", "uint8")[place % 3]
        num_kinds = (None, 11)[place // 8 % 2]
        operands = draw(place, n, kind, weights=weights, num_kinds=num_kinds)
        assert_gpu_equals_cpu(rules, operands, keeps_inputs=place == first)


@pytest.mark.gpu
@each_kind
@pytest.mark.parametrize("weights", ["unit", "float32", "uint8"])
def test_gpu_sorts_what_arrives(weights, kind, monkeypatch):
    take_way("sort", monkeypatch)
    # Of the last one, warps have several turns at their slice.
    for n, fan_out, num_kinds in ((1_500, 40, None), (300_001, 8, None), (600_001, 8, 11)):
        operands = draw(n, n, kind, weights=weights, fan_out=fan_out, num_kinds=num_kinds)
        if num_kinds is not None:
            limits = plain_warps(operands)
            assert limits.size > 100
            assert kind == "all fire" or set(limits) == {0, 65_535}
        assert_gpu_equals_cpu(ops.BurstRules(power_neuron=n - 1, fatigue_area=1), operands)


@pytest.mark.gpu
@pytest.mark.parametrize("n", [1_500, 100_003, 200_003, 300_001])
@pytest.mark.parametrize("sorts", [False, True])
def test_gpu_neurons_of_one_kind(n, sorts, monkeypatch):
    """Whatever number the kind of a neuron is, there is one."""
    if sorts:
        take_way("sort", monkeypatch)
    assert_gpu_equals_cpu(RULES["power and fatigue"], draw(n, n, num_kinds=1))


@pytest.mark.gpu
@pytest.mark.parametrize("num_kinds", [None, 11])
def test_gpu_sums_several_slices_in_a_block(num_kinds):
    n = 7_500_001
    operands = draw(n, n, weights="float32", fan_out=3, num_kinds=num_kinds)
    assert_gpu_equals_cpu(RULES["residues"], operands, keeps_inputs=num_kinds is None)


@pytest.mark.gpu
@pytest.mark.parametrize("weights", ["unit", "float32", "uint8"])
@pytest.mark.parametrize(
    ("n", "fan_out", "least"),
    [
        (1_600, 40, 50_000),  # fewer arrive than are sorted
        (300_011, 230, 1),  # beyond 2^26 they are not sorted either
    ],
)
def test_gpu_adds_what_it_does_not_sort(n, fan_out, least, weights, monkeypatch):
    take_way("sort", monkeypatch, least)
    kind = "usual" if least > 1 else "all fire"
    operands = draw(n, n, kind, weights=weights, fan_out=fan_out)
    sent = int(operands["fired"].count) * fan_out
    assert 0 < sent < least or sent > 2**26
    assert_gpu_equals_cpu(ops.BurstRules(power_neuron=n - 1), operands)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "ids", [[], [70_000], [3, 70_000], [-5, -1, 0, 40_000, 40_000, 40_001, 69_999, 70_001, 99_999]]
)
def test_gpu_finds_injections_far_from_each_other(ids):
    ids = np.array(ids, np.int32)
    injected = ops.ActiveSet(ids, np.ones(ids.size, np.float32), np.int32(ids.size))
    assert_gpu_equals_cpu(RULES["regular"], eager(70_001) | {"injected": injected})


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["power and fatigue", "in batches of many"])
@pytest.mark.parametrize(
    ("kind", "sorts"), [*((kind, False) for kind in KINDS), ("usual", True), ("cancelling", True)]
)
def test_gpu_batches(kind, sorts, name, monkeypatch):
    if sorts:
        take_way("sort", monkeypatch)
    num_kinds = (None, 11)[KINDS.index(kind) % 2]
    cases = [draw(seed, 3_000, kind, num_kinds=num_kinds) for seed in range(5)]
    own = {"membranes": 0, "fired": 0, "injected": 0, "power": 0, "fatigued": 0}
    axes = dict.fromkeys(cases[0]) | own
    operands = {**cases[0], **stacked([{key: case[key] for key in own} for case in cases])}
    call = functools.partial(advance, RULES[name], backend="kernel", keeps_inputs=kind != "driven")
    together = on_gpu(jax.vmap(call, (axes,)), operands)
    for place, case in enumerate(cases):
        alone = {**cases[0], **{key: case[key] for key in own}}
        expected = on_cpu(functools.partial(advance, RULES[name], backend="reference"), alone)
        if kind == "driven":
            expected = expected.replace(inputs=None, candidates=None)
        assert_same_bits(at(together, place), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("n", [3, 33])
def test_gpu_takes_more_networks_than_a_grid_has_rows(n):
    operands = draw(n, n)
    rng = np.random.default_rng(n)
    potential = rng.normal(0, 5, (66_000, n)).astype(np.float32)
    counts = rng.integers(0, 3, (2, 66_000, n), dtype=np.uint16)
    operands["membranes"] = ops.Membranes(potential, *counts)
    axes = dict.fromkeys(operands) | {"membranes": 0}
    kernel, reference = (
        jax.vmap(functools.partial(advance, RULES["power"], backend=backend), (axes,))
        for backend in ("kernel", "reference")
    )
    assert_same_bits(on_gpu(kernel, operands), on_cpu(reference, operands))


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["usual", "all fire", "driven"])
@pytest.mark.parametrize(
    ("n", "fan_out"), [(60, 1_030), (3_000, 600), (20_000, 200), (8, 50_000), (70_001, 520)]
)
def test_gpu_visits_rows_of_any_length(n, fan_out, kind):
    assert_gpu_equals_cpu(RULES["regular"], draw(n, n, kind, fan_out=fan_out))


@pytest.mark.gpu
@pytest.mark.parametrize("n", [33, 262_145])
def test_gpu_ignores_who_does_not_exist(n):
    operands = eager(n)
    assert_gpu_equals_cpu(RULES["regular"], operands)
    call = functools.partial(advance, RULES["regular"], backend="kernel")
    together = on_gpu(jax.vmap(call), stacked([operands] * 3))
    for place in range(3):
        assert_same_bits(at(together, place), on_gpu(call, operands))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["regular", "in batches of many"])
@pytest.mark.parametrize(("n", "count"), [(1_100, 5), (1_100, 1_300), (262_145, 70), (262_145, 0)])
def test_gpu_ignores_what_is_behind_the_entries(n, count, name):
    assert_gpu_equals_cpu(RULES[name], with_room(n, count))


@pytest.mark.gpu
def test_gpu_lists_many_where_several_blocks_share_a_count():
    n = (1 << 25) + 40_001
    operands = eager(n)
    call = functools.partial(advance, RULES["regular"], backend="kernel", keeps_inputs=False)
    for step in (1, 7):
        ids = np.arange(0, n, step, dtype=np.int32)
        injected = ops.ActiveSet(ids, np.ones(ids.size, np.float32), np.int32(ids.size))
        fired = on_gpu(call, operands | {"injected": injected}).fired
        assert int(fired.count) == ids.size
        assert np.array_equal(fired.indices[: ids.size], ids)
        assert (fired.values[: ids.size] == 1).all()


@pytest.mark.gpu
@pytest.mark.parametrize("burst_sorts", [False, True])
def test_gpu_calls_wait_for_each_other(burst_sorts, monkeypatch):
    """The first kernel of a sort starts while the call in front of it still runs."""
    n = 20_000
    operands = draw(3, n, fan_out=20)
    targets = np.random.default_rng(0).integers(0, n, (n, 40)).astype(np.int32)

    def sorting(sorts, call, *arguments, **options):
        with monkeypatch.context() as patch:
            take_way("sort" if sorts else "scatter", patch)
            return call(*arguments, backend="kernel", **options)

    def send(synapses, active):
        return sorting(True, ops.propagate_integers, synapses, active, n)

    @jax.jit
    def calls(operands, targets):
        synapses = ops.FixedFanOut(targets, None)
        before = send(synapses, operands["fired"])
        now = sorting(burst_sorts, ops.burst_core, RULES["power"], **operands)
        return now, before, send(synapses, now.fired)

    first = jax.device_get(on_gpu(calls, operands, targets))
    for _ in range(30):
        assert_same_bits(on_gpu(calls, operands, targets), first)


def test_wrong_rules_and_networks_are_errors():
    for name in ("power_neuron", "fatigue_area", "batch_threshold"):
        with pytest.raises(ValueError, match=f"{name} must be None or at least 0; got -1"):
            ops.BurstRules(**{name: -1})
    nobody = draw(0, 1)
    nobody["membranes"] = jax.tree.map(lambda leaf: leaf[:0], nobody["membranes"])
    with pytest.raises(ValueError, match="neurons must be at least 1; got 0"):
        advance(RULES["regular"], nobody)
