import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from brainjax import ops, stimulus

PIXELS = st_numpy.arrays(np.float64, (3, 4), elements=st.floats(0, 16))


def test_thermometer_of_a_known_image():
    fires = stimulus.thermometer(np.array([[0, 5, 9]]), (5, 8))
    np.testing.assert_array_equal(fires, [[0, 1, 1, 0, 0, 1]])


@hypothesis.given(PIXELS)
def test_thermometer_counts_the_thresholds_reached(pixels):
    thresholds = (2, 6, 10)
    fires = stimulus.thermometer(pixels, thresholds).reshape(3, 3, 4)
    np.testing.assert_array_equal(
        fires.sum(axis=1), np.searchsorted(thresholds, pixels, side="right")
    )


@hypothesis.given(PIXELS)
def test_complement_makes_all_images_equally_active(pixels):
    fires = stimulus.thermometer(pixels, (2, 6, 10), complement=True)
    on, off = np.split(fires, 2, axis=1)
    np.testing.assert_array_equal(on, ~off)
    assert (fires.sum(axis=1) == 3 * 4).all()


def test_thermometer_refuses_what_it_cannot_order():
    with pytest.raises(ValueError, match="thresholds must be ascending numbers; got \\(3, 3\\)"):
        stimulus.thermometer(np.ones((1, 2)), (3, 3))
    with pytest.raises(ValueError, match="thresholds must be"):
        stimulus.thermometer(np.ones((1, 2)), ())
    with pytest.raises(ValueError, match="intensities must be finite"):
        stimulus.thermometer(np.array([[np.nan]]), (1,))


@hypothesis.given(st_numpy.arrays(bool, (3, 5)))
def test_active_sets_are_those_of_single_samples(fires):
    sets = stimulus.active_sets(fires, capacity=5)
    for sample, row in enumerate(fires):
        alone = ops.active_set.from_indices(np.flatnonzero(row), 5, capacity=5)
        np.testing.assert_array_equal(sets.indices[sample], alone.indices)
        np.testing.assert_array_equal(sets.values[sample], alone.values)
        assert sets.count[sample] == alone.count


def test_capacity_is_that_of_the_largest_set_or_refused():
    fires = np.array([[True, True, False], [False, False, False]])
    assert stimulus.active_sets(fires).indices.shape == (2, 2)
    assert stimulus.active_sets(fires, 7).indices.shape == (2, 7)
    with pytest.raises(ValueError, match="capacity must be at least the 2 active; got 1"):
        stimulus.active_sets(fires, 1)
