"""Operations of the calculus open the right fibers in the right rounds."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same_bits, neurons
from hypothesis import given, strategies as st

from brainjax import assemblies, calculus, ops

CONFIG = assemblies.Config(
    areas=tuple(assemblies.Area(name, n=40, k=6) for name in "ABC"),
    stimuli=(assemblies.Stimulus("s", 6), assemblies.Stimulus("t", 6)),
    fibers=(
        assemblies.Fiber("s", "A", 0.3),
        assemblies.Fiber("t", "B", 0.3),
        *(assemblies.Fiber(*pair, 0.3) for pair in itertools.product("ABC", "ABC")),
    ),
)


def rounds_of(program):
    """The open fibers of each round, as a set of names."""
    names = np.array(CONFIG.fiber_names)
    return [set(names[is_open]) for is_open in np.asarray(program.fibers)]


def test_project():
    program = calculus.project(CONFIG, "s", "A", rounds=3)
    assert rounds_of(program) == [{"s->A"}, {"s->A", "A->A"}, {"s->A", "A->A"}]
    assert np.asarray(program.plastic).all()
    assert not np.asarray(program.fixed).any()


def test_project_once_has_no_recurrence():
    assert rounds_of(calculus.project(CONFIG, "s", "A", rounds=1)) == [{"s->A"}]


def test_reciprocal_project():
    program = calculus.reciprocal_project(CONFIG, "A", "B", rounds=2)
    both = {"A->B", "B->A", "B->B"}
    assert rounds_of(program) == [{"A->B"}, both, both]
    np.testing.assert_array_equal(program.fixed, [[True, False, False]] * 3)


def test_associate():
    program = calculus.associate(CONFIG, ("s", "t"), ("A", "B"), "C", rounds=2, cofirings=3)
    first, second = {"s->A", "A->A", "A->C"}, {"t->B", "B->B", "B->C"}
    assert rounds_of(program) == [
        {"s->A"},
        {"s->A", "A->A"},
        {"t->B"},
        {"t->B", "B->B"},
        first,
        first | {"C->C"},
        second,
        second | {"C->C"},
        first | second,
        first | second | {"C->C"},
        first | second | {"C->C"},
    ]


def test_merge():
    program = calculus.merge(CONFIG, ("s", "t"), ("A", "B"), "C", rounds=2)
    forth = {"s->A", "t->B", "A->A", "B->B", "A->C", "B->C"}
    everything = forth | {"C->C", "C->A", "C->B"}
    assert rounds_of(program) == [{"s->A"}, {"t->B"}, forth, everything, everything]


def test_complete_with_and_without_learning():
    for plastic in (True, False):
        program = calculus.complete(CONFIG, "A", rounds=2, plastic=plastic)
        assert rounds_of(program) == [{"A->A"}] * 2
        assert (np.asarray(program.plastic) == plastic).all()


def test_repeat_and_sequence():
    drive = CONFIG.drive("s->A", fixed=["B"])
    program = calculus.sequence(calculus.repeat(drive, 2), calculus.repeat(drive, 0))
    assert rounds_of(program) == [{"s->A"}] * 2
    np.testing.assert_array_equal(program.fixed, [[False, True, False]] * 2)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: calculus.repeat(CONFIG.drive(), -1), "rounds must be at least 0; got -1"),
        (lambda: calculus.project(CONFIG, "s", "A", rounds=0), "rounds must be at least 1; got 0"),
        (lambda: calculus.project(CONFIG, "s", "B", rounds=1), "fiber must be .*; got 's->B'"),
        (lambda: calculus.complete(CONFIG, "D", rounds=1), "fiber must be .*; got 'D->D'"),
        (
            lambda: calculus.associate(CONFIG, ("s", "t"), ("A", "B"), "C", cofirings=0),
            "cofirings must be at least 1; got 0",
        ),
        (
            lambda: calculus.part(jax.random.key(0), ops.active_set.empty(9, 3), 1.5, 9),
            r"fraction must be in \[0, 1\]; got 1.5",
        ),
    ],
)
def test_errors_name_field_rule_and_value(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def fresh_state():
    return assemblies.init(CONFIG, assemblies.Params(beta=0.1), jax.random.key(0))


def test_activate_replaces_the_winners_of_one_area():
    state = fresh_state()
    imposed = ops.active_set.from_indices([1, 2, 3], 40, capacity=6)
    active = calculus.activate(state, "B", imposed)
    assert_same_bits(active.winners["B"], imposed)
    assert_same_bits(active.replace(winners=state.winners), state)
    assert_same_bits(active.winners["A"], state.winners["A"])


def test_activate_errors():
    with pytest.raises(ValueError, match=r"area must be one of \['A', 'B', 'C'\]; got 'D'"):
        calculus.activate(fresh_state(), "D", ops.active_set.empty(40, 6))
    with pytest.raises(ValueError, match=r"must have shape \(6,\) as in area 'A'; got \(5,\)"):
        calculus.activate(fresh_state(), "A", ops.active_set.empty(40, 5))


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.5, 1.0])
def test_part_is_a_random_subset(fraction):
    assembly = ops.active_set.from_indices(np.arange(3, 43, 4), 50)
    parts = [calculus.part(jax.random.key(seed), assembly, fraction, 50) for seed in range(20)]
    for kept in parts:
        assert len(neurons(kept)) == round(10 * fraction)
        assert set(neurons(kept)) <= set(neurons(assembly))
        assert (np.diff(neurons(kept)) > 0).all()
        assert (np.asarray(kept.indices)[len(neurons(kept)) :] == 50).all()
    if 0 < fraction < 1:
        assert len({tuple(neurons(kept)) for kept in parts}) > 10


def test_part_of_an_incomplete_set_is_a_part_of_its_members():
    assembly = ops.active_set.from_indices([4, 8], 50, capacity=10)
    for seed in range(10):
        kept = calculus.part(jax.random.key(seed), assembly, 0.5, 50)
        assert set(neurons(kept)) <= {4, 8}


@given(st.sets(st.integers(0, 14), max_size=8), st.sets(st.integers(0, 14), max_size=8))
def test_overlap_is_that_of_sets(first, second):
    a, b = (
        ops.active_set.from_indices(np.array([*ids], np.int64), 15, capacity=8)
        for ids in (first, second)
    )
    smaller = min(len(first), len(second))
    expected = len(first & second) / smaller if smaller else 0
    np.testing.assert_allclose(calculus.overlap(a, b), expected, rtol=1e-6)


def test_overlap_ignores_unlisted_neurons():
    a = ops.active_set.from_indices([1, 2, 3, 4], 9)
    half = a.replace(count=jnp.asarray(2, jnp.int32))
    other = ops.active_set.from_indices([3, 4], 9)
    assert float(calculus.overlap(half, other)) == 0
    assert float(calculus.overlap(ops.active_set.gate(a, False), a)) == 0


def test_overlap_is_differentiable():
    a = ops.active_set.from_indices([1, 2, 3, 4], 9)
    b = ops.active_set.from_indices([2, 3, 8], 9)

    def of_values(values):
        return calculus.overlap(a, b.replace(values=values))

    # shared / |b|: shared = v0 + v1, |b| = v0 + v1 + v2, at v = 1.
    np.testing.assert_allclose(jax.grad(of_values)(b.values), [1 / 9, 1 / 9, -2 / 9], rtol=1e-6)
