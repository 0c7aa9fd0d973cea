"""Aligned crops at any pose."""

import numpy as np
import pytest
from numpy.typing import NDArray

from dhm_cli.geometry.crop import crop_matrix, transform_landmarks
from dhm_cli.geometry.crop_styles import (
    ARCFACE_TEMPLATE,
    CROP_STYLES,
    face_square,
    ffhq_square,
    five_points,
    seen_from_front,
)
from dhm_cli.geometry.pose import yaw_pitch_roll_to_matrix
from dhm_cli.inference.engines import load_engine

FLIP = np.diag([1.0, -1.0, 1.0])


@pytest.fixture(scope="module")
def head() -> NDArray[np.float64]:
    """A frontal head of 200 pixels at the origin."""
    shape = load_engine("cpu").mean_shape
    return 200 * (shape - shape.mean(axis=0))


def posed(head: NDArray[np.float64], *angles: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The head at a pose in degrees, somewhere in a photo, and its rotation."""
    rotation = yaw_pitch_roll_to_matrix(np.radians(angles))
    return head @ (FLIP @ rotation @ FLIP).T + [300, 400, 0], rotation


def crop_of(style: str, landmarks: NDArray[np.float64], rotation: NDArray[np.float64], size: int = 112) -> NDArray:
    centre, side, roll = CROP_STYLES[style](landmarks, rotation)
    return transform_landmarks(landmarks, crop_matrix(centre, side, size, roll))


POSES = [(0, 0, 0), (90, 0, 0), (-70, 20, 10), (30, -25, -100), (0, 0, 180), (-90, 30, 0)]


@pytest.mark.parametrize("angles", POSES)
def test_a_head_turned_to_the_front(head: NDArray[np.float64], angles: tuple[int, int, int]) -> None:
    np.testing.assert_allclose(seen_from_front(*posed(head, *angles)), head, atol=1e-9)


def similarity(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """The points of `source` after the best similarity onto `target`, as Umeyama 1991, by complex least squares."""
    a, b = (points @ [1, 1j] for points in (source, target))
    a0, b0 = a - a.mean(), b - b.mean()
    moved = (np.vdot(a0, b0) / np.vdot(a0, a0)) * a0 + b.mean()
    return np.stack([moved.real, moved.imag], axis=1)


@pytest.mark.parametrize("roll", [0, 35, -120, 180])
def test_arcface_of_frontal_faces_is_the_five_point_similarity(head: NDArray[np.float64], roll: float) -> None:
    landmarks, rotation = posed(head, 0, 0, roll)
    found = five_points(crop_of("arcface", landmarks, rotation))[:, :2]
    expected = similarity(five_points(landmarks)[:, :2], ARCFACE_TEMPLATE)
    np.testing.assert_allclose(found, expected, atol=0.5)  # the template leans by 0.3 degrees
    assert np.abs(found - ARCFACE_TEMPLATE).max() < 0.04 * 112
    twice = five_points(crop_of("arcface", landmarks, rotation, 224))[:, :2]
    np.testing.assert_allclose(twice, 2 * found + 0.5, atol=1e-9)


def test_ffhq_of_frontal_faces_is_the_recipe(head: NDArray[np.float64]) -> None:
    landmarks, rotation = posed(head, 0, 0, 25)
    xy = landmarks[:, :2]
    eyes, mouth = (xy[36:42].mean(axis=0) + xy[42:48].mean(axis=0)) / 2, (xy[48] + xy[54]) / 2
    eye_to_eye, eye_to_mouth = xy[42:48].mean(axis=0) - xy[36:42].mean(axis=0), mouth - eyes
    half = eye_to_eye - eye_to_mouth[::-1] * [-1, 1]
    half *= max(2.0 * np.hypot(*eye_to_eye), 1.8 * np.hypot(*eye_to_mouth)) / np.hypot(*half)
    centre, side, roll = ffhq_square(landmarks, rotation)
    np.testing.assert_allclose(centre, eyes + 0.1 * eye_to_mouth, atol=1e-9)
    assert side == pytest.approx(2 * np.hypot(*half))
    assert roll == pytest.approx(-np.arctan2(half[1], half[0]), abs=0.01)


@pytest.mark.parametrize("style", ["ffhq", "arcface"])
@pytest.mark.parametrize("angles", POSES)
def test_a_head_keeps_its_size_and_place_however_it_is_turned(
    head: NDArray[np.float64], style: str, angles: tuple[int, int, int]
) -> None:
    frontal, turned = crop_of(style, *posed(head, 0, 0, 0)), crop_of(style, *posed(head, *angles))
    spread = [np.linalg.norm(points - points.mean(axis=0)) for points in (frontal, turned)]
    assert spread[1] == pytest.approx(spread[0])
    middle = [five_points(points)[:, :2].mean(axis=0) for points in (frontal, turned)]
    np.testing.assert_allclose(middle[1], middle[0], atol=6)
    assert (turned[:, :2] > -20).all()
    assert (turned[:, :2] < 132).all()


@pytest.mark.parametrize("style", CROP_STYLES)
@pytest.mark.parametrize("angles", POSES)
def test_heads_stand_upright(head: NDArray[np.float64], style: str, angles: tuple[int, int, int]) -> None:
    landmarks = crop_of(style, *posed(head, *angles))
    axes = np.linalg.lstsq(head, landmarks - landmarks.mean(axis=0), rcond=None)[0]
    assert abs(axes[1, 0]) < 1e-6 < axes[1, 1]  # the head's down axis points down in the crop


def test_the_face_style_holds_all_landmarks(head: NDArray[np.float64]) -> None:
    for angles in POSES:
        landmarks = crop_of("face", *posed(head, *angles))
        low, high = landmarks[:, :2].min(axis=0), landmarks[:, :2].max(axis=0)
        np.testing.assert_allclose((low + high) / 2, 55.5, atol=1e-6)
        assert (high - low).max() == pytest.approx(112 / np.sqrt(2))


@pytest.mark.parametrize("style", CROP_STYLES)
def test_landmarks_that_are_no_face_have_a_square_too(style: str) -> None:
    for landmarks in (np.zeros((68, 3)), np.random.default_rng(0).normal(size=(68, 3)) * 1e-9):
        centre, side, roll = CROP_STYLES[style](landmarks, np.eye(3))
        assert np.isfinite([*centre, side, roll]).all()
        assert side >= 1
    assert face_square(np.zeros((68, 3)), np.eye(3))[2] == 0
