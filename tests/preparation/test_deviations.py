"""How human points deviate from a fit: the covariance, what is foretold of points nobody saw, noise and outliers."""

import numpy as np
import pytest
from numpy.typing import NDArray

from dhm_cli.geometry.landmarks import EYES, MOUTH
from dhm_cli.preparation.deviations import Deviations

Array = NDArray[np.float64]


def organs(count: int, seed: int) -> Array:
    """Offsets (N, 68, 2): eyes move together, 2 % of the face, and so does the mouth, 1 %; the rest stays."""
    rng = np.random.default_rng(seed)
    offsets = np.zeros((count, 68, 2))
    offsets[:, EYES] = rng.normal(0, 0.02, (count, 1, 2))
    offsets[:, MOUTH] = rng.normal(0, 0.01, (count, 1, 2))
    return offsets


@pytest.fixture(scope="module")
def measured() -> Deviations:
    """From 5,000 faces with a noise of 0.4 % in every point."""
    noise = np.random.default_rng(1).normal(0, 0.004, (5000, 68, 2))
    return Deviations.measure(organs(5000, 0) + noise)


def test_noise_is_what_the_others_do_not_foretell(measured: Deviations) -> None:
    np.testing.assert_allclose(measured.noise, 0.0045, atol=0.001)


def test_points_that_nobody_saw_follow_their_neighbours(measured: Deviations) -> None:
    offsets, trust = organs(50, 2), np.ones((50, 68))
    trust[:, 40] = trust[:, 60] = 0
    asked = offsets.copy()
    asked[:, [40, 60]] = np.nan
    found = measured.expected(asked, trust)
    np.testing.assert_allclose(found, offsets, atol=0.004)
    assert np.abs(offsets[:, 40]).max() > 0.03
    # Of a face that nobody labelled nothing is known.
    assert not measured.expected(np.full((1, 68, 2), np.nan), np.zeros((1, 68))).any()


def test_people_who_err_in_every_point_for_itself_are_not_followed() -> None:
    deviations = Deviations.measure(np.random.default_rng(3).normal(0, 0.02, (5000, 68, 2)))
    found = deviations.expected(np.random.default_rng(4).normal(0, 0.02, (20, 68, 2)), np.ones((20, 68)))
    assert np.sqrt(np.square(found).mean()) < 0.008
    few = Deviations.measure(np.random.default_rng(5).normal(0, 0.02, (20, 68, 2)))  # nor where faces are few
    assert np.sqrt(np.square(few.expected(np.full((1, 68, 2), 0.02), np.ones((1, 68)))).mean()) < 0.012


def test_an_outlier_pulls_no_neighbour(measured: Deviations) -> None:
    offsets = organs(30, 6)
    spoiled = offsets.copy()
    spoiled[:, 45] += [0.1, -0.1]
    found = measured.expected(spoiled, np.ones((30, 68)))
    assert np.abs(found - offsets).max() < 0.01


def test_mirror_images_deviate_alike(measured: Deviations) -> None:
    """One eye alone, seen on the right, says of the mouth what the other would on the left."""
    trust = np.zeros((2, 68))
    trust[0, 36:42] = trust[1, 42:48] = 1
    offsets = np.zeros((2, 68, 2))
    offsets[0], offsets[1] = [0.02, 0.01], [-0.02, 0.01]
    one, other = measured.expected(offsets, trust)
    np.testing.assert_allclose(one[36:42] * [-1, 1], other[42:48], atol=0.002)


def test_silence_is_no_deviation() -> None:
    silent = Deviations.measure(np.full((10, 68, 2), np.nan))
    assert not silent.expected(np.full((3, 68, 2), 0.05), np.ones((3, 68))).any()


def test_careless_people_are_followed_less(measured: Deviations) -> None:
    noise = np.random.default_rng(7).normal(0, 0.03, (5000, 68, 2))
    careless = measured.with_noise(Deviations.measure(organs(5000, 8) + noise))
    assert careless.noise.min() > 0.02
    alone, trust = np.zeros((1, 68, 2)), np.zeros((1, 68))
    alone[0, 50], trust[0, 50] = 0.01, 1
    far, near = (x.expected(alone, trust)[0, 50, 0] for x in (careless, measured))
    assert far < 0.2 * near
    np.testing.assert_array_equal(careless.covariance, measured.covariance)
    np.testing.assert_array_equal(careless.with_noise(measured).noise, careless.noise)
