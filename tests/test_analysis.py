import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from brainjax import analysis, stimulus

WINNERS = st_numpy.arrays(np.int32, (6, 3), elements=st.integers(0, 8))


def test_summary_of_known_values():
    # Student's t for 3 degrees of freedom is 3.182.
    summary = analysis.summarise([1, 2, 3, 4])
    sd = np.sqrt(5 / 3)
    assert (summary.mean, summary.brains) == (2.5, 4)
    np.testing.assert_allclose(summary.sd, sd)
    np.testing.assert_allclose(summary.high - 2.5, 3.18245 * sd / 2, rtol=1e-5)
    np.testing.assert_allclose(summary.low + summary.high, 5.0)
    assert str(summary) == "2.500 (sd 1.291, 4 brains)"


def test_summary_of_one_brain_has_no_spread():
    assert analysis.summarise([0.5]) == analysis.Summary(0.5, 0.0, 0.5, 0.5, 1)


@pytest.mark.parametrize("values", [[], [np.nan]])
def test_summary_refuses_what_has_no_mean(values):
    with pytest.raises(ValueError, match="values must be at least one finite number"):
        analysis.summarise(values)


@hypothesis.given(WINNERS)
def test_support_counts_the_union_without_padding(winners):
    seen = [set(winners[: t + 1].ravel()) - {8} for t in range(len(winners))]
    np.testing.assert_array_equal(analysis.support(winners, 8), [len(s) for s in seen])


@pytest.mark.parametrize(
    ("support", "expected"),
    [([3, 5, 6, 6, 6], 4), ([3, 3, 3], 2), ([3, 4], None), ([0, 0], 1), ([3], None)],
)
def test_converged_round_is_the_first_without_recruits(support, expected):
    assert analysis.converged_round(np.array(support)) == expected


@hypothesis.given(WINNERS)
def test_fired_ignores_padding(winners):
    fires = analysis.fired(winners, 8)
    assert fires.shape == (6, 8)
    for row, who in zip(fires, winners):
        assert set(np.flatnonzero(row)) == set(who) - {8}


def test_rates_and_assemblies_of_known_winners():
    fires = analysis.fired(np.array([[0, 1], [0, 2], [2, 3], [2, 3]]), 5)
    rates = analysis.firing_rates(fires, np.array([0, 0, 1, 1]), 3)
    np.testing.assert_allclose(rates, [[1, 0.5, 0.5, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 0]])
    members = analysis.class_assemblies(rates)
    np.testing.assert_array_equal(members, [[1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0] * 5])


@hypothesis.given(st_numpy.arrays(np.float64, (3, 7), elements=st.floats(0, 1)))
def test_assemblies_share_out_all_who_fire(rates):
    members = analysis.class_assemblies(rates)
    np.testing.assert_array_equal(members.sum(axis=0), rates.any(axis=0))


def test_rates_refuse_unknown_classes():
    with pytest.raises(ValueError, match=r"labels must be in 0\.\.1; got 0 to 2"):
        analysis.firing_rates(np.ones((2, 3), bool), np.array([0, 2]), 2)


def test_read_out_takes_the_largest_overlap():
    rng = np.random.default_rng(0)
    members, fires = rng.random((4, 40)) < 0.3, rng.random((9, 40)) < 0.2
    lexicon, winners = stimulus.active_sets(members), stimulus.active_sets(fires)
    sizes = np.minimum(fires.sum(axis=1)[:, None], members.sum(axis=1))
    expected = (fires.astype(float) @ members.T / sizes).argmax(axis=1)
    np.testing.assert_array_equal(analysis.read_out(lexicon, winners), expected)


def test_read_out_finds_each_assembly_itself():
    lexicon = stimulus.active_sets(np.eye(5, dtype=bool))
    np.testing.assert_array_equal(analysis.read_out(lexicon, lexicon), np.arange(5))


def test_confusion_matrix_counts_pairs():
    matrix = analysis.confusion_matrix(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]), 3)
    np.testing.assert_array_equal(matrix, [[1, 1, 0], [0, 1, 0], [1, 0, 0]])
