"""Augmented crops: the returned landmarks are where the pixels are."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from dhm_cli.config.training import AugmentationConfig
from dhm_cli.data.augmentation import augmented_crop, degrade
from dhm_cli.geometry.landmarks import MIRROR

# Only the geometry: where the crop lies.
PLACEMENT = AugmentationConfig(colour=0, grey=0, low_resolution=0, blur=0, noise=0, jpeg=0, occlusion=0)
# Only the pixels.
NOTHING = replace(PLACEMENT, rotation=0, wide_rotation_share=0, scale=0, shift=0, mirror=0)
SIZE = 160
SPOT = 3.0  # standard deviation of a spot, photo pixels
# Landmarks that the tests look for, far apart; none is on the midline, so a wrong order is seen.
SEEN = (0, 5, 16, 11, 19, 41, 46, 54)


def spot_photo() -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """A dark photo with a bright spot at each landmark in SEEN, each of its own colour; landmarks (68, 3)."""
    rng = np.random.default_rng(0)
    landmarks = np.column_stack([rng.uniform(90, 210, (68, 2)), rng.uniform(-50, 50, 68)])
    grid = [(90, 90), (130, 95), (210, 92), (170, 130), (100, 150), (210, 165), (95, 210), (160, 205)]
    landmarks[list(SEEN), :2] = np.array(grid) + rng.uniform(-0.5, 0.5, (8, 2))
    y, x = np.mgrid[:300, :320]
    photo = np.zeros((300, 320, 3))
    for number, k in enumerate(SEEN):
        colour = np.array([(number >> bit & 1) for bit in range(3)]) * 120 + 100
        px, py = landmarks[k, :2]
        photo += np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * SPOT**2))[..., None] * colour
    return np.clip(photo, 0, 255).astype(np.uint8), landmarks


def spot_at(crop: NDArray[np.uint8], near: NDArray[np.float64], reach: int = 12) -> NDArray[np.float64]:
    """Centroid and colour of what is bright around a position: x, y, then the share of each channel."""
    x0, y0 = np.round(near).astype(int)
    ys = slice(max(0, y0 - reach), y0 + reach + 1)
    xs = slice(max(0, x0 - reach), x0 + reach + 1)
    rows, columns = np.mgrid[: len(crop), : len(crop)]
    part = crop[ys, xs].astype(np.float64)
    weight = part.sum(-1)
    assert weight.sum() > 1000, "no spot where the landmark is"
    centre = [(weight * columns[ys, xs]).sum() / weight.sum(), (weight * rows[ys, xs]).sum() / weight.sum()]
    return np.array([*centre, *(part.sum((0, 1)) / weight.sum())])


def expected_colour(number: int) -> NDArray[np.float64]:
    colour = np.array([(number >> bit & 1) for bit in range(3)]) * 120 + 100
    return colour / colour.sum()


@pytest.mark.parametrize("mirror", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(6))
def test_landmarks_follow_the_pixels(mirror: float, seed: int) -> None:
    photo, landmarks = spot_photo()
    config = replace(PLACEMENT, rotation=30, scale=0.08, wide_placement_share=0, mirror=mirror)
    crop, points, *_ = augmented_crop(photo, landmarks, SIZE, config, np.random.default_rng(seed))
    assert crop.shape == (SIZE, SIZE, 3)
    assert crop.dtype == np.uint8
    seen = 0
    for number, k in enumerate(SEEN):
        # In a mirrored photo the spot painted at landmark k is landmark MIRROR[k].
        at = points[MIRROR[k] if mirror else k, :2]
        if not ((at > 12) & (at < SIZE - 13)).all():
            continue
        seen += 1
        found = spot_at(crop, at)
        np.testing.assert_allclose(found[:2], at, atol=0.15)
        np.testing.assert_allclose(found[2:], expected_colour(number), atol=0.02)
    assert seen >= 5


def test_depth_scales_with_the_crop_and_its_order_follows_the_mirror() -> None:
    photo, landmarks = spot_photo()
    plain, turned = (
        augmented_crop(photo, landmarks, SIZE, replace(NOTHING, mirror=m, rotation=r), np.random.default_rng(0))[1]
        for m, r in ((0.0, 0.0), (1.0, 20.0))
    )
    scale = SIZE / (np.ptp(landmarks[:, :2], axis=0).max() * np.sqrt(2))
    np.testing.assert_allclose(plain[:, 2], landmarks[:, 2] * scale)
    np.testing.assert_allclose(turned[MIRROR, 2], landmarks[:, 2] * scale)
    # Distances between landmarks are kept, so the whole is a mirrored, turned copy.
    np.testing.assert_allclose(
        np.linalg.norm(turned[MIRROR][1:, :2] - turned[MIRROR][:1, :2], axis=1),
        np.linalg.norm(plain[1:, :2] - plain[:1, :2], axis=1),
    )


def test_no_augmentation_is_the_crop_of_the_test_protocol() -> None:
    photo, landmarks = spot_photo()
    _, points, *_ = augmented_crop(photo, landmarks, SIZE, NOTHING, np.random.default_rng(0))
    low, high = points[:, :2].min(0), points[:, :2].max(0)
    np.testing.assert_allclose((low + high) / 2, (SIZE - 1) / 2)
    assert (high - low).max() == pytest.approx(SIZE / np.sqrt(2))


@pytest.mark.parametrize("wide", [0.0, 1.0])
def test_ranges_of_the_placement(wide: float) -> None:
    photo, landmarks = spot_photo()
    rng = np.random.default_rng(0)
    config = replace(PLACEMENT, wide_rotation_share=0, wide_placement_share=wide, wide_placement=3.0)
    base = augmented_crop(photo, landmarks, SIZE, NOTHING, rng)[1]
    turns, mirrored, sides, centres = [], [], [], []
    for _ in range(400):
        points = augmented_crop(photo, landmarks, SIZE, config, rng)[1]
        a = (base - base.mean(0))[:, :2]
        plain, swapped = points[:, :2] - points[:, :2].mean(0), points[MIRROR, :2] - points[:, :2].mean(0)
        is_mirror = np.linalg.det(np.linalg.lstsq(a, plain, rcond=None)[0]) < 0 or not np.allclose(
            a @ np.linalg.lstsq(a, plain, rcond=None)[0], plain, atol=1e-6
        )
        linear = np.linalg.lstsq(a, swapped * [-1, 1] if is_mirror else plain, rcond=None)[0]
        mirrored.append(is_mirror)
        turns.append(np.rad2deg(np.arctan2(linear[0, 1], linear[0, 0])))
        sides.append(np.log(np.sqrt(np.linalg.det(linear))))
        whole, *_ = np.linalg.lstsq(
            np.c_[base[:, :2], np.ones(68)], points[MIRROR if is_mirror else slice(None), :2], rcond=None
        )
        centres.append([*[(SIZE - 1) / 2] * 2, 1.0] @ whole / SIZE)
    assert np.std(turns) == pytest.approx(config.rotation, rel=0.15)
    assert abs(np.mean(turns)) < 3
    assert np.std(sides) == pytest.approx(config.scale * (3 if wide else 1), rel=0.15)
    assert np.std(centres) == pytest.approx(config.shift * (3 if wide else 1), rel=0.15)
    assert np.mean(mirrored) == pytest.approx(config.mirror, abs=0.1)


def test_deterministic_given_the_generator_and_inputs_unchanged() -> None:
    photo, landmarks = spot_photo()
    before = photo.copy(), landmarks.copy()
    config = replace(AugmentationConfig(), grey=0.5, low_resolution=0.5, blur=0.5, noise=0.5, jpeg=0.5, occlusion=0.5)
    for seed in range(10):
        first, second = (augmented_crop(photo, landmarks, 64, config, np.random.default_rng(seed)) for _ in range(2))
        np.testing.assert_array_equal(first[0], second[0])
        np.testing.assert_array_equal(first[1], second[1])
    np.testing.assert_array_equal(photo, before[0])
    np.testing.assert_array_equal(landmarks, before[1])
    other = augmented_crop(photo, landmarks, 64, config, np.random.default_rng(99))
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize("kind", ["colour", "grey", "low_resolution", "blur", "noise", "jpeg", "occlusion"])
def test_each_degradation_changes_pixels_but_not_the_array_given(kind: str) -> None:
    crop = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    before = crop.copy()
    for seed in range(20):
        changed = degrade(crop, replace(NOTHING, **{kind: 1.0}), np.random.default_rng(seed))[0]
        assert changed.shape == crop.shape
        assert changed.dtype == np.uint8
        assert not np.array_equal(changed, crop)
        np.testing.assert_array_equal(crop, before)


def test_no_degradation_is_the_same_crop() -> None:
    crop = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    np.testing.assert_array_equal(degrade(crop, NOTHING, np.random.default_rng(0))[0], crop)


@pytest.mark.parametrize(
    "kind",
    [
        "blur",
        "low_resolution",
        "jpeg",
    ],
)
def test_degradations_do_not_move_the_face(kind: str) -> None:
    """A shift of half a pixel would be learned as an error of every landmark."""
    y, x = np.mgrid[:96, :96]
    spot = np.exp(-((x - 47.5) ** 2 + (y - 47.5) ** 2) / (2 * 8.0**2))
    crop = np.repeat(np.round(200 * spot)[..., None], 3, 2).astype(np.uint8)
    rng = np.random.default_rng(0)
    for _ in range(30):
        changed = degrade(crop, replace(NOTHING, **{kind: 1.0}), rng)[0].sum(-1).astype(np.float64)
        changed[changed < 30] = 0  # ringing of JPEG
        centre = (changed * x).sum() / changed.sum(), (changed * y).sum() / changed.sum()
        assert centre == pytest.approx((47.5, 47.5), abs=0.2)


def gradient(angle: int) -> NDArray[np.uint8]:
    """A picture of one hue a quarter, so that a turn shows, and nothing that is black."""
    picture = np.full((120, 120, 3), 60, np.uint8)
    picture[:60, :60], picture[:60, 60:], picture[60:, :60] = (200, 60, 60), (60, 200, 60), (60, 60, 200)
    return np.ascontiguousarray(np.rot90(picture, angle))


def tight() -> NDArray[np.float64]:
    """Landmarks whose crop is a whole picture of 120 pixels."""
    points = np.tile([59.5 - 60 / 2**0.5, 59.5 - 60 / 2**0.5, 0.0], (68, 1))
    points[1::2, :2] += 120 / 2**0.5
    return points


def test_a_turned_crop_has_no_black_corners_and_its_rim_tells_no_angle() -> None:
    """A network read the angle off the corners; turned or not, the picture is a circle on another one."""
    other = np.full((90, 90, 3), 250, np.uint8)
    for config in (replace(NOTHING, any_rotation_share=1.0), replace(NOTHING, surround=1.0)):
        angles = []
        for seed in range(8):
            crop, points, *_ = augmented_crop(
                gradient(0), tight(), 120, replace(config, rotation=20.0), np.random.default_rng(seed), lambda: other
            )
            side = points[1, :2] - points[0, :2]
            angles.append(np.degrees(np.arctan2(side[1], side[0])) - 45)
            y, x = np.mgrid[:120, :120]
            far = np.hypot(x - 59.5, y - 59.5)
            assert (crop[far > 61] == 250).all()
            assert (crop[far < 45] < 250).any(axis=-1).all()
        assert (np.abs((np.array(angles) + 180) % 360 - 180).max() > 90) == bool(config.any_rotation_share)


def test_a_crop_that_lies_within_its_picture_is_turned_whole() -> None:
    small = (tight() - [59.5, 59.5, 0]) / 2 + [59.5, 59.5, 0]
    config = replace(NOTHING, any_rotation_share=1.0)
    crop = augmented_crop(gradient(0), small, 60, config, np.random.default_rng(0), lambda: pytest.fail("not needed"))[
        0
    ]
    assert crop.min() >= 55


def test_misplaced_crops_show_no_face_where_it_is_looked_for() -> None:
    for seed in range(40):
        rng = np.random.default_rng(seed)
        _, points, *_ = augmented_crop(gradient(0), tight(), 120, NOTHING, rng, lambda: gradient(1), misplaced=True)
        low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
        apart = np.abs((low + high) / 2 - 59.5).max() / 120
        scale = (high - low).max() * 2**0.5 / 120
        side = points[1, :2] - points[0, :2]
        turn = abs((np.degrees(np.arctan2(side[1], side[0])) - 45 + 180) % 360 - 180)
        assert apart > 0.2 or not 0.5 < scale < 1.9 or turn > 59


def test_what_lies_behind_a_cover_is_said() -> None:
    photo, landmarks = spot_photo()
    for config in (replace(NOTHING, cover=1.0), replace(NOTHING, occlusion=1.0)):
        some = 0
        for seed in range(6):
            clean = augmented_crop(photo, landmarks, SIZE, NOTHING, np.random.default_rng(seed)).crop
            made = augmented_crop(photo, landmarks, SIZE, config, np.random.default_rng(seed), lambda: gradient(2))
            changed = (made.crop != clean).any(axis=-1)
            x, y = np.round(made.landmarks[list(SEEN), :2]).astype(int).clip(0, SIZE - 1).T
            np.testing.assert_array_equal(changed[y, x] | made.covered[list(SEEN)], made.covered[list(SEEN)])
            some += made.covered.sum()
        assert some > 20
    assert not augmented_crop(photo, landmarks, SIZE, NOTHING, np.random.default_rng(0)).covered.any()
