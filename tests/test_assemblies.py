"""The assemblies model: its invariants, and the same brain in plain NumPy."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    BACKENDS,
    assert_same_bits,
    at,
    each_backend,
    each_backend_slowly,
    neurons,
    random_active,
    stacked,
)

from brainjax import assemblies, calculus, connectivity, ops, simulation

AREAS = (
    assemblies.Area("A", n=60, k=7),
    assemblies.Area("B", n=50, k=6),
    assemblies.Area("C", n=40, k=5),
)
FIBERS = ("s->A", "t->B", "A->A", "A->B", "B->A", "B->C", "v->C")


def fibers_of(*names, normalise=False):
    return tuple(assemblies.Fiber(*name.split("->"), 0.3, normalise) for name in names)


def anatomy(backend="auto", **changes):
    """Three areas with every kind of source."""
    return assemblies.Config(
        **{
            "areas": AREAS,
            "fibers": fibers_of(*FIBERS),
            "stimuli": (assemblies.Stimulus("s", 20), assemblies.Stimulus("t", 15)),
            "inputs": (assemblies.Input("v", n=30, capacity=8),),
            "backend": backend,
            **changes,
        }
    )


def even_params(config, beta, w_max=np.inf):
    """The same numbers for all fibers; of one shape, so that a step compiles once for the file."""
    return assemblies.Params(beta=config.per_fiber(beta), w_max=config.per_fiber(w_max))


def exact_params(config):
    """Doubled or half as much again: sums of such weights are exact in any order."""
    return assemblies.Params(
        beta=config.per_fiber(1.0, {"A->B": 0.5, "v->C": 0.5}),
        w_max=config.per_fiber(20.0, {"s->A": 1.5, "t->B": 1.5}),
    )


def random_drive(config, rng):
    """Any fibers, areas and inputs, most of them as usual."""

    def names(of, probability):
        return [name for name in of if rng.random() < probability]

    return config.drive(
        *names(config.fiber_names, 0.7),
        plastic=names(config.fiber_names, 0.8),
        fixed=names(config.area_names, 0.15),
        closed=names(config.area_names, 0.1),
        inputs={"v": random_active(rng, 30, rng.integers(0, 9), 8)},
    )


def random_program(config, rounds, seed=0):
    rng = np.random.default_rng(seed)
    first = config.drive("s->A", "t->B", inputs={"v": random_active(rng, 30, 8, 8)})
    return stacked([first, *(random_drive(config, rng) for _ in range(rounds - 1))])


def start(config, params, seed=0):
    return assemblies.init(config, params, jax.random.key(seed))


@functools.cache
def jitted_step(config):
    return jax.jit(functools.partial(assemblies.step, config))


def run(config, params, state, program):
    """All states of a run, one compiled step after the other."""
    states = []
    for index in range(program.fibers.shape[0]):
        states.append(
            jitted_step(config)(params, states[-1] if states else state, at(program, index))
        )
    return states


class PlainBrain:
    """The round in NumPy: dense, one area after the other, float32."""

    def __init__(self, config, params, state):
        self.config = config
        per_fiber = zip(config.fiber_names, np.asarray(params.beta), np.asarray(params.w_max))
        self.beta, self.w_max = {}, {}
        for name, self.beta[name], self.w_max[name] in per_fiber:
            if name[0] in "st":
                self.w_max[name] = np.inf
        self.weights = {name: np.array(s.weights) for name, s in state.synapses.items()}
        self.winners = {name: neurons(active) for name, active in state.winners.items()}

    def round(self, drive):
        config = self.config
        closed = {a for a, is_closed in zip(config.area_names, drive.closed) if is_closed}
        fixed = {a for a, is_fixed in zip(config.area_names, drive.fixed) if is_fixed}
        sources = {"s": np.array([0]), "t": np.array([0]), **self.winners}
        sources["v"] = neurons(drive.inputs["v"])
        carrying = [
            fiber
            for fiber, is_open in zip(config.fibers, drive.fibers)
            if is_open and not {fiber.source, fiber.target} & closed
        ]
        self.inputs = {area.name: np.zeros(area.n, np.float32) for area in config.areas}
        for fiber in carrying:
            rows = self.weights[fiber.name][sources[fiber.source]]
            self.inputs[fiber.target] += rows.sum(axis=0)
        targets = {fiber.target for fiber in carrying} - fixed
        self.winners = {
            area.name: self.choose(area) if area.name in targets else self.winners[area.name]
            for area in config.areas
        }
        plastic = dict(zip(config.fiber_names, drive.plastic))
        for fiber in carrying:
            if plastic[fiber.name]:
                self.learn(fiber.name, sources[fiber.source], self.winners[fiber.target])

    def choose(self, area):
        received = self.inputs[area.name]
        if not received.any():
            return np.array([], int)
        return np.sort(np.argsort(-received, kind="stable")[: area.k])

    def learn(self, name, pre, post):
        block = np.ix_(pre, post)
        grown = self.weights[name][block] * (1 + self.beta[name])
        self.weights[name][block] = np.minimum(grown, self.w_max[name])


@each_backend
@pytest.mark.parametrize("seed", [0, 1])
def test_rounds_equal_those_of_a_plain_numpy_brain(backend, seed):
    config = anatomy(backend)
    params, program = exact_params(config), random_program(config, 14, seed)
    state = start(config, params, seed)
    plain = PlainBrain(config, params, state)
    recruited = set()
    for index in range(14):
        drive = at(program, index)
        state = jitted_step(config)(params, state, drive)
        plain.round(drive)
        for name in config.area_names:
            np.testing.assert_array_equal(neurons(state.winners[name]), plain.winners[name])
            np.testing.assert_array_equal(state.inputs[name], plain.inputs[name])
        for name in config.fiber_names:
            np.testing.assert_array_equal(state.synapses[name].weights, plain.weights[name])
        recruited |= {(name, i) for name in "ABC" for i in plain.winners[name]}
    assert len(recruited) > 3 * (7 + 6 + 5) / 2  # the brain did something
    assert int(state.round) == 14


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_backends_have_equal_bits(dtype):
    ends = []
    for backend in BACKENDS:
        config = anatomy(backend, dtype=dtype)
        params = even_params(config, 0.07, 1.9)
        ends.append(run(config, params, start(config, params), random_program(config, 14))[-1])
    for end in ends[1:]:
        assert_same_bits(end, ends[0])


@each_backend
def test_winners_are_distinct_ascending_and_k(backend):
    config = anatomy(backend)
    params = even_params(config, 0.1)
    program = calculus.repeat(config.drive(*FIBERS), 10)
    states = run(config, params, start(config, params), program)
    for area in config.areas:
        chosen = stacked([state.winners[area.name] for state in states])
        # C receives nothing in the first round.
        listening = slice(1, None) if area.name == "C" else slice(None)
        np.testing.assert_array_equal(chosen.count[listening], area.k)
        indices = np.asarray(chosen.indices[listening])
        assert (np.diff(indices, axis=1) > 0).all()
        assert indices.min() >= 0
        assert indices.max() < area.n
        np.testing.assert_array_equal(chosen.values[listening], 1)


@each_backend
def test_ties_go_to_the_lowest_ids(backend):
    config = anatomy(backend)
    params = even_params(config, 0.0)
    state = start(config, params)
    level = {
        name: connectivity.Dense(jnp.ones_like(s.weights)) for name, s in state.synapses.items()
    }
    state = jitted_step(config)(params, state.replace(synapses=level), config.drive("s->A"))
    np.testing.assert_array_equal(neurons(state.winners["A"]), np.arange(7))


@each_backend
def test_order_of_areas_and_fibers_does_not_matter(backend):
    """Sums of these weights are exact, so that only the order of the updates could show."""
    config = anatomy(backend)
    turned = anatomy(backend, areas=AREAS[::-1], fibers=config.fibers[::-1])
    state = start(config, exact_params(config))
    forth, back = state, state
    for index in range(6):
        drive = random_drive(config, np.random.default_rng(index))
        mirrored = drive.replace(
            fibers=drive.fibers[::-1],
            plastic=drive.plastic[::-1],
            fixed=drive.fixed[::-1],
            closed=drive.closed[::-1],
        )
        forth = jitted_step(config)(exact_params(config), forth, drive)
        back = jitted_step(turned)(exact_params(turned), back, mirrored)
    assert_same_bits(forth, back)


def settled(config, params, rounds=5, seed=0):
    """A brain in which everybody has winners."""
    program = calculus.repeat(config.drive(*FIBERS), rounds)
    return run(config, params, start(config, params, seed), program)[-1]


@each_backend
def test_fixed_area_keeps_its_winners_and_learns(backend):
    config = anatomy(backend)
    params = even_params(config, 0.5)
    state = settled(config, params)
    fixed = calculus.activate(state, "A", ops.active_set.from_indices(np.arange(7), 60))
    after = jitted_step(config)(params, fixed, config.drive("B->A", fixed=["A"]))
    assert_same_bits(after.winners["A"], fixed.winners["A"])
    expected = np.array(fixed.synapses["B->A"].weights)
    expected[np.ix_(neurons(fixed.winners["B"]), np.arange(7))] *= np.float32(1.5)
    assert_same_bits(after.synapses["B->A"].weights, expected)
    assert not np.array_equal(expected, fixed.synapses["B->A"].weights)


@each_backend
def test_an_area_that_is_no_target_keeps_its_winners(backend):
    config = anatomy(backend)
    params = even_params(config, 0.5)
    state = settled(config, params)
    after = jitted_step(config)(params, state, config.drive("A->B"))
    for name in ("A", "C"):
        assert_same_bits(after.winners[name], state.winners[name])
        np.testing.assert_array_equal(after.inputs[name], 0)


@each_backend
@pytest.mark.parametrize("how", ["plastic=False", "beta=0"])
def test_without_plasticity_no_weight_changes(backend, how):
    config = anatomy(backend)
    params = even_params(config, 0.5)
    state = settled(config, params)
    if how == "beta=0":
        params = even_params(config, 0.0)
        drive = config.drive(*FIBERS)
    else:
        drive = config.drive(*FIBERS, plastic=False)
    after = jitted_step(config)(params, state, drive)
    assert_same_bits(after.synapses, state.synapses)
    assert not np.array_equal(after.inputs["A"], state.inputs["A"])


@each_backend
def test_only_named_fibers_learn(backend):
    config = anatomy(backend)
    params = even_params(config, 0.5)
    state = settled(config, params)
    after = jitted_step(config)(params, state, config.drive(*FIBERS, plastic=["A->B"]))
    changed = {
        name
        for name in FIBERS
        if not np.array_equal(after.synapses[name].weights, state.synapses[name].weights)
    }
    assert changed == {"A->B"}


@each_backend
def test_closed_area_neither_sends_nor_receives(backend):
    config = anatomy(backend)
    params = even_params(config, 0.5)
    state = settled(config, params)
    without_a = [name for name in FIBERS if "A" not in name]
    closed = jitted_step(config)(params, state, config.drive(*FIBERS, closed=["A"]))
    assert_same_bits(closed, jitted_step(config)(params, state, config.drive(*without_a)))


@each_backend
def test_source_without_winners_contributes_nothing(backend):
    config = anatomy(backend)
    params = even_params(config, 0.5)
    state = start(config, params)
    with_silent = jitted_step(config)(params, state, config.drive("s->A", "A->A", "B->A"))
    assert_same_bits(with_silent, jitted_step(config)(params, state, config.drive("s->A")))


@each_backend
def test_nothing_received_is_nobody_firing(backend):
    config = anatomy(backend)
    params = even_params(config, 0.5)
    state = settled(config, params)
    silent = calculus.activate(state, "B", ops.active_set.empty(50, 6))
    after = jitted_step(config)(params, silent, config.drive("B->A"))
    assert_same_bits(after.winners["A"], ops.active_set.empty(60, 7))
    assert_same_bits(after.synapses, state.synapses)


@each_backend
def test_absent_synapses_stay_absent(backend):
    config = anatomy(backend)
    params = even_params(config, 0.5, 20.0)
    before, after = start(config, params), settled(config, params, rounds=12)
    for name in FIBERS:
        existed = connectivity.existing(before.synapses[name])
        np.testing.assert_array_equal(connectivity.existing(after.synapses[name]), existed)


@each_backend
def test_limit_is_of_single_synapses_never_of_a_stimulus(backend):
    config = anatomy(backend)
    params = even_params(config, 0.5, 3.0)
    state = settled(config, params, rounds=12)
    assert (
        max(float(s.weights.max()) for name, s in state.synapses.items() if name[0] in "ABC") == 3
    )
    assert float(state.synapses["s->A"].weights.max()) > 100


@each_backend_slowly
def test_normalised_fibers_stay_normalised(backend):
    config = anatomy(backend, fibers=fibers_of("s->A", "A->A", "B->A", "t->B", normalise=True))
    params = even_params(config, 0.3)
    program = calculus.repeat(config.drive("s->A", "A->A", "B->A", "t->B"), 8)
    state = run(config, params, start(config, params), program)[-1]
    for name in ("A->A", "B->A"):
        weights = np.asarray(state.synapses[name].weights, np.float64)
        bound = (weights.shape[0] + 2) * np.finfo(np.float32).eps
        np.testing.assert_allclose(weights.sum(axis=0), 1, rtol=0, atol=bound)


@each_backend
def test_changed_numbers_do_not_trace_again(backend):
    config, traces = anatomy(backend), 0

    @jax.jit
    def step(params, state, drive):
        nonlocal traces
        traces += 1
        return assemblies.step(config, params, state, drive)

    rng = np.random.default_rng(0)
    state = start(config, assemblies.Params(beta=0.1))
    for beta in (0.1, 0.2, 0.0):
        for w_max in (20.0, 3.0):
            state = step(
                assemblies.Params(beta=beta, w_max=w_max), state, random_drive(config, rng)
            )
    assert traces == 1


@each_backend_slowly
def test_many_brains_in_one_batch_are_each_alone(backend):
    config = anatomy(backend)
    betas = [0.0, 0.05, 0.1, 0.5, 1.0]
    params = stacked([even_params(config, beta, 20.0) for beta in betas])
    programs = stacked([random_program(config, 4, seed) for seed in range(5)])
    keys = jax.random.split(jax.random.key(3), 5)
    starts = jax.vmap(functools.partial(assemblies.init, config))(params, keys)
    step = jax.jit(jax.vmap(functools.partial(assemblies.step, config)))
    together = starts
    for index in range(4):
        together = step(params, together, jax.tree.map(lambda leaf, i=index: leaf[:, i], programs))
    for brain in range(5):
        states = run(config, at(params, brain), at(starts, brain), at(programs, brain))
        assert_same_bits(at(together, brain), states[-1])
        assert_same_bits(at(starts, brain), assemblies.init(config, at(params, brain), keys[brain]))


def check_batch_of_large_brains(backend, brains):
    config = assemblies.Config(
        areas=(assemblies.Area("A", n=1_000, k=31),),
        stimuli=(assemblies.Stimulus("s", 31),),
        fibers=(assemblies.Fiber("s", "A", 0.05), assemblies.Fiber("A", "A", 0.05)),
        backend=backend,
    )
    params = even_params(config, 0.1)
    program = calculus.project(config, "s", "A", rounds=5)
    keys = jax.random.split(jax.random.key(0), brains)
    init = functools.partial(assemblies.init, config, params)
    together, _ = simulation.simulate(
        assemblies.step, config, params, jax.vmap(init)(keys), program, in_axes=(None, 0, None)
    )
    for index in range(0, brains, max(1, brains // 16)):
        alone = run(config, params, init(keys[index]), program)[-1]
        assert_same_bits(at(together, index), alone)


@each_backend_slowly
def test_eight_brains_of_a_thousand_neurons(backend):
    check_batch_of_large_brains(backend, brains=8)


@pytest.mark.slow
@each_backend
def test_256_brains_of_a_thousand_neurons(backend):
    check_batch_of_large_brains(backend, brains=256)


def test_the_same_key_draws_the_same_brain():
    config = anatomy()
    params = even_params(config, 0.1)
    assert_same_bits(start(config, params, 5), start(config, params, 5))
    other = start(config, params, 6)
    for name in FIBERS:
        drawn = start(config, params, 5).synapses[name].weights
        assert not np.array_equal(drawn, other.synapses[name].weights)


def test_fibers_of_one_brain_are_independent():
    config = anatomy(areas=tuple(assemblies.Area(name, n=300, k=9) for name in "ABC"))
    state = start(config, even_params(config, 0.1))
    square = {n: np.asarray(s.weights) for n, s in state.synapses.items() if n[0] in "ABC"}
    names, p = sorted(square), 0.3
    for i, first in enumerate(names):
        for second in names[:i]:
            both = (square[first] * square[second]).mean()
            # 28 pairs: five standard errors.
            assert abs(both - p**2) < 5 * np.sqrt(p**2 * (1 - p**2)) / 300, (first, second)


def test_stimulus_totals_are_binomial():
    config = assemblies.Config(
        areas=(assemblies.Area("A", n=20_000, k=5),),
        fibers=(assemblies.Fiber("s", "A", 0.05),),
        stimuli=(assemblies.Stimulus("s", 100),),
    )
    totals = start(config, even_params(config, 0.1)).synapses["s->A"].weights
    np.testing.assert_allclose(totals.mean(), 5, rtol=0.05)
    np.testing.assert_allclose(totals.var(), 4.75, rtol=0.05)


def test_a_new_brain_is_silent():
    config = anatomy()
    state = start(config, even_params(config, 0.1))
    for area in config.areas:
        assert_same_bits(state.winners[area.name], ops.active_set.empty(area.n, area.k))
        np.testing.assert_array_equal(state.inputs[area.name], np.zeros(area.n))
    assert int(state.round) == 0


def test_no_two_leaves_share_a_buffer():
    """A donated state may not hold a buffer twice."""
    config = anatomy()
    params = even_params(config, 0.1)
    given = params.replace(synapses=start(config, params).synapses)
    for state in (start(config, params), start(config, given)):
        own, others = (
            [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(tree)]
            for tree in (state.replace(key=None), given.synapses)
        )
        assert len(set(own)) == len(own)
        assert not set(own) & set(others)


@each_backend
def test_donated_state_is_updated_in_place(backend):
    config = anatomy(backend)
    params = even_params(config, 0.1)
    state, drive = start(config, params), config.drive(*FIBERS)
    step = jax.jit(functools.partial(assemblies.step, config), donate_argnums=1)
    pointers = {n: s.weights.unsafe_buffer_pointer() for n, s in state.synapses.items()}
    after = step(params, state, drive)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.synapses))
    for name, synapses in after.synapses.items():
        assert synapses.weights.unsafe_buffer_pointer() == pointers[name]


def test_given_synapses_are_copied():
    config = anatomy()
    params = even_params(config, 0.1)
    given = params.replace(synapses=start(config, params, 9).synapses)
    state = start(config, given)
    assert_same_bits(state.synapses, given.synapses)
    jax.jit(lambda synapses: synapses, donate_argnums=0)(state.synapses)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(given.synapses))


def test_steps_have_a_shape_before_they_run():
    config = anatomy()
    params = even_params(config, 0.1)
    state = jax.eval_shape(functools.partial(start, config), params)
    after = jax.eval_shape(
        functools.partial(assemblies.step, config), params, state, config.drive("s->A")
    )
    for leaf, expected in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True):
        assert (leaf.shape, leaf.dtype) == (expected.shape, expected.dtype)


def test_numbers_per_fiber():
    config = anatomy()
    numbers = config.per_fiber(0.1, {"A->B": 0.7})
    expected = [0.7 if name == "A->B" else 0.1 for name in FIBERS]
    np.testing.assert_array_equal(numbers, np.array(expected, np.float32))
    with pytest.raises(ValueError, match=r"fiber must be one of .*; got 'A->Z'"):
        config.per_fiber(0.1, {"A->Z": 0.7})


CONFIG_ERRORS = [
    ({"areas": (*AREAS, AREAS[0])}, r"names of sources must be distinct; got \['A'\] twice"),
    (
        {"stimuli": (assemblies.Stimulus("A", 3),)},
        r"names of sources must be distinct; got \['A'\] twice",
    ),
    (
        {"fibers": fibers_of("s->A", "s->A")},
        r"names of fibers must be distinct; got \['s->A'\] twice",
    ),
    ({"fibers": fibers_of("x->A")}, "source must be one of .*; got 'x'"),
    ({"fibers": fibers_of("A->s")}, "target must be one of .*; got 's'"),
    ({"dtype": "float16"}, "dtype must be float32 or bfloat16; got float16"),
]


@pytest.mark.parametrize(("changes", "message"), CONFIG_ERRORS)
def test_config_errors(changes, message):
    with pytest.raises(ValueError, match=message):
        anatomy(**changes)


PART_ERRORS = [
    (lambda: assemblies.Area("A", n=9, k=0), r"k of area 'A' must be in 1..n=9; got 0"),
    (lambda: assemblies.Area("A", n=9, k=10), r"k of area 'A' must be in 1..n=9; got 10"),
    (
        lambda: assemblies.Area("A", n=9, k=5, runners_up=5),
        r"runners_up of area 'A' must be in 0..n-k=4; got 5",
    ),
    (lambda: assemblies.Stimulus("s", 0), r"n of stimulus 's' must be at least 1; got 0"),
    (lambda: assemblies.Input("v", 5, 6), r"capacity of input 'v' must be in 1..n=5; got 6"),
    (
        lambda: assemblies.Fiber("s", "A", 1.2),
        r"probability of fiber 's->A' must be in \[0, 1\]; got 1.2",
    ),
]


@pytest.mark.parametrize(("build", "message"), PART_ERRORS)
def test_part_errors(build, message):
    with pytest.raises(ValueError, match=message):
        build()


DRIVE_ERRORS = [
    (lambda c: c.drive("s->B"), "fiber must be one of .*; got 's->B'"),
    (lambda c: c.drive("s->A", plastic=["x"]), "fiber must be one of .*; got 'x'"),
    (lambda c: c.drive(fixed=["D"]), "area must be one of .*; got 'D'"),
    (lambda c: c.drive(closed=["s"]), "area must be one of .*; got 's'"),
    (lambda c: c.drive(inputs={"w": ops.active_set.empty(3, 2)}), "input must be .*; got 'w'"),
    (
        lambda c: c.drive(inputs={"v": ops.active_set.empty(30, 7)}),
        "capacity of the set for 'v' must be 8; got 7",
    ),
]


@pytest.mark.parametrize(("build", "message"), DRIVE_ERRORS)
def test_drive_errors(build, message):
    with pytest.raises(ValueError, match=message):
        build(anatomy())


def test_synapses_that_do_not_fit_are_an_error():
    config, params = anatomy(), assemblies.Params(beta=0.1)
    synapses = start(config, params).synapses
    missing = {name: s for name, s in synapses.items() if name != "s->A"}
    with pytest.raises(ValueError, match="synapses must be"):
        start(config, params.replace(synapses=missing))
    wrong = {**synapses, "A->B": synapses["B->A"]}
    with pytest.raises(ValueError, match=r"shape of synapses 'A->B' must be \(60, 50\); got"):
        start(config, params.replace(synapses=wrong))


def test_a_beta_that_bfloat16_loses_is_an_error():
    config = anatomy(dtype="bfloat16")
    with pytest.raises(ValueError, match=r"beta must be 0, above 2\*\*-8.*; got 0\.001"):
        start(config, assemblies.Params(beta=0.001))


def test_config_is_hashable_and_equal_by_value():
    assert hash(anatomy()) == hash(anatomy())
    assert anatomy() == anatomy()
    assert dataclasses.replace(anatomy(), softened=True) != anatomy()


# Normalisation sums rows in a kernel of XLA that ends compute-sanitizer.
NORMALISE = [False, pytest.param(True, marks=pytest.mark.unsanitized)]


@pytest.mark.gpu
@pytest.mark.parametrize("normalise", NORMALISE)
def test_a_gpu_and_its_host_have_equal_bits(normalise):
    config = assemblies.Config(
        areas=[assemblies.Area("A", 500, 22)],
        stimuli=[assemblies.Stimulus("s", 22)],
        fibers=[
            assemblies.Fiber("s", "A", 0.1),
            assemblies.Fiber("A", "A", 0.1, normalise=normalise),
        ],
    )
    params = assemblies.Params(beta=0.1, w_max=20.0)

    def run_on(device):
        with jax.default_device(device):
            state = assemblies.init(config, params, jax.random.key(7))
            drive = config.drive("s->A", "A->A")
            state, _ = simulation.simulate(
                assemblies.step, config, params, state, drive, num_steps=30
            )
            return jax.device_get((state.winners, state.inputs, state.synapses))

    assert_same_bits(run_on(jax.devices("gpu")[0]), run_on(jax.devices("cpu")[0]))
