"""The face detector YuNet: whole photos, small faces, degenerate images."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from example_photos import ASTRONAUT_FACE_CENTRE
from numpy.typing import NDArray

from dhm_cli.errors import DhmError
from dhm_cli.inference import yunet
from dhm_cli.inference.face_box import MIN_SCORE, FaceBox
from dhm_cli.inference.yunet import HINT_SCORE, FaceDetector, YuNet


def centre(box: FaceBox) -> NDArray[np.float64]:
    return np.array([box.left + box.width / 2, box.top + box.height / 2])


def overlap(a: FaceBox, b: FaceBox) -> float:
    width = min(a.left + a.width, b.left + b.width) - max(a.left, b.left)
    height = min(a.top + a.height, b.top + b.height) - max(a.top, b.top)
    both = max(width, 0) * max(height, 0)
    return both / (a.width * a.height + b.width * b.height - both)


def test_one_face(astronaut: NDArray[np.uint8]) -> None:
    before = astronaut.copy()
    boxes = FaceDetector().detect(astronaut)
    assert len(boxes) == 1
    np.testing.assert_allclose(centre(boxes[0]), ASTRONAUT_FACE_CENTRE, atol=10)
    assert 80 < boxes[0].mean_side < 120
    assert 0.8 < boxes[0].score <= 1.0
    np.testing.assert_array_equal(astronaut, before)


@pytest.mark.parametrize("size", [(100, 100), (300, 700), (2000, 1500)])
def test_boxes_are_in_photo_pixels(astronaut: NDArray[np.uint8], size: tuple[int, int]) -> None:
    reference = FaceDetector().detect(astronaut)[0]
    width, height = size
    scale = min(size) / 512
    photo = np.full((height, width, 3), 90, np.uint8)
    portrait = cv2.resize(astronaut, (min(size), min(size)), interpolation=cv2.INTER_AREA)
    photo[-min(size) :, -min(size) :] = portrait
    shift = np.array([width - min(size), height - min(size)])
    boxes = FaceDetector().detect(photo)
    assert len(boxes) == 1
    expected = FaceBox(
        reference.left * scale + shift[0],
        reference.top * scale + shift[1],
        reference.width * scale,
        reference.height * scale,
        0.0,
    )
    assert overlap(boxes[0], expected) > 0.75


def group_photo(portrait: NDArray[np.uint8], side: int, columns: int, rows: int) -> NDArray[np.uint8]:
    small = cv2.resize(portrait, (side, side), interpolation=cv2.INTER_AREA)
    return np.tile(small, (rows, columns, 1))


def test_a_group_keeps_its_small_faces(astronaut: NDArray[np.uint8]) -> None:
    # Faces of 3 % of the photo's width: at 256 pixels they are 8 pixels wide.
    photo = group_photo(astronaut[:256, 96:352], 100, 13, 8)
    assert len(FaceDetector(sizes=(256,)).detect(photo)) < 104
    assert len(FaceDetector().detect(photo)) == 104


def test_a_large_face_does_not_hide_smaller_ones(astronaut: NDArray[np.uint8]) -> None:
    photo = np.full((1200, 1800, 3), 120, np.uint8)
    photo[:1200, :1200] = cv2.resize(astronaut[:256, 96:352], (1200, 1200))
    photo[:, 1200:] = group_photo(astronaut[:256, 96:352], 200, 3, 6)
    boxes = FaceDetector().detect(photo)
    assert len(boxes) == 19
    assert boxes[0].mean_side > 400
    assert all(50 < box.mean_side < 120 for box in boxes[1:])


# Multiples of 32 and not, wide and tall, with many boxes to a face and with many faces.
@pytest.mark.parametrize("size", [(256, 256), (255, 161), (150, 300), (640, 333)])
@pytest.mark.parametrize("faces", [1, 24])
def test_opencv_gives_the_same_boxes(astronaut: NDArray[np.uint8], size: tuple[int, int], faces: int) -> None:
    photo = astronaut if faces == 1 else group_photo(astronaut[:256, 96:352], 160, 6, 4)
    image = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
    model = np.frombuffer(yunet._read_model(), np.uint8)
    oracle = cv2.FaceDetectorYN.create("onnx", model, np.empty(0, np.uint8), size, HINT_SCORE)
    expected = oracle.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
    assert expected is not None
    found = YuNet(HINT_SCORE)(image)
    assert found.shape == (len(expected), 5)
    np.testing.assert_allclose(found[:, :4], expected[:, :4], atol=2e-3)
    np.testing.assert_allclose(found[:, 4], expected[:, 14], atol=1e-5)


def scripted(
    monkeypatch: pytest.MonkeyPatch, seen: dict[int, list[FaceBox]], min_score: float = MIN_SCORE
) -> list[FaceBox]:
    """What the detector makes of a photo of 2560 pixels in which copies of each size show these boxes."""
    monkeypatch.setattr(FaceDetector, "_detect_at", lambda self, image, size: seen[size])
    return FaceDetector(min_score).detect(np.zeros((2560, 2560, 3), np.uint8))


def test_a_large_face_stays_as_first_found(monkeypatch: pytest.MonkeyPatch) -> None:
    large, small = FaceBox(100, 100, 900, 1100, 0.95), FaceBox(2000, 300, 100, 120, 0.7)
    fragment, again = FaceBox(300, 400, 500, 500, 0.9), FaceBox(2004, 304, 96, 110, 0.9)
    assert scripted(monkeypatch, {256: [large, small], 640: [fragment, again]}) == [large, again]


def test_a_small_face_must_be_seen_again(monkeypatch: pytest.MonkeyPatch) -> None:
    large, small = FaceBox(100, 100, 900, 1100, 0.95), FaceBox(2000, 300, 100, 120, 0.7)
    assert scripted(monkeypatch, {256: [large, small], 640: []}) == [large]


def test_a_weak_small_candidate_calls_for_a_larger_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    large, weak = FaceBox(100, 100, 900, 1100, 0.95), FaceBox(2000, 300, 100, 120, 0.35)
    sure = FaceBox(1500, 304, 96, 110, 0.9)
    assert scripted(monkeypatch, {256: [large, weak], 640: [large, sure]}) == [large, sure]
    assert scripted(monkeypatch, {256: [large]}) == [large]


def test_the_better_box_of_a_face_wins_whatever_copy_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The coarser one, seen first, used to win over a better one."""
    coarse, fine = FaceBox(2000, 300, 250, 300, 0.65), FaceBox(2004, 304, 240, 280, 0.9)
    beside = FaceBox(100, 100, 100, 120, 0.4)  # calls for the larger copy
    assert scripted(monkeypatch, {256: [coarse, beside], 640: [fine]}) == [fine]
    worse = FaceBox(2004, 304, 240, 280, 0.61)
    assert scripted(monkeypatch, {256: [coarse, beside], 640: [worse]}) == [coarse]


def test_a_higher_score_only_leaves_out_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    """It used to find others: a box that no longer counted made room for a better one of the same face."""
    coarse, fine = FaceBox(2000, 300, 250, 300, 0.65), FaceBox(2004, 304, 240, 280, 0.9)
    seen = {256: [coarse, FaceBox(100, 100, 100, 120, 0.4), FaceBox(900, 900, 400, 400, 0.25)], 640: [fine]}
    lowest = scripted(monkeypatch, seen, 0.2)
    assert [box.score for box in lowest] == [0.25, 0.9]
    for score in (0.3, 0.6, 0.7, 0.95):
        assert scripted(monkeypatch, seen, score) == [box for box in lowest if box.score >= score]


def test_a_higher_score_only_leaves_out_faces_of_a_photo(astronaut: NDArray[np.uint8]) -> None:
    photo = group_photo(astronaut[:256, 96:352], 100, 6, 4)
    photo = cv2.GaussianBlur(photo, (0, 0), 2.5) + np.uint8(20)
    photo[:200, :200] = cv2.resize(astronaut[:256, 96:352], (200, 200))
    default = FaceDetector().detect(photo)
    assert len({round(box.score, 2) for box in default}) > 3
    for score in (0.7, 0.8, 0.85, 0.9):
        assert FaceDetector(score).detect(photo) == [box for box in default if box.score >= score]


def test_weak_candidates_are_seen(astronaut: NDArray[np.uint8]) -> None:
    # A blurred face scores between the hint and the least score.
    blurred = cv2.GaussianBlur(astronaut, (0, 0), 12)
    scores = [box.score for box in FaceDetector()._detect_at(blurred, 256)]
    assert any(yunet.HINT_SCORE <= score < MIN_SCORE for score in scores), scores


def test_larger_copies_only_where_needed(astronaut: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    original = FaceDetector._detect_at

    def spy(self: FaceDetector, image: NDArray[np.uint8], size: int) -> list[FaceBox]:
        sizes.append(size)
        return original(self, image, size)

    monkeypatch.setattr(FaceDetector, "_detect_at", spy)
    FaceDetector().detect(astronaut)
    assert sizes == [256]
    sizes.clear()
    assert FaceDetector().detect(np.zeros((800, 400, 3), np.uint8)) == []
    assert sizes == [256, 640, 800]


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (2000, 3), (7, 5), (90, 900), (3000, 4000)])
def test_degenerate_images_have_no_face(shape: tuple[int, int]) -> None:
    detector = FaceDetector(sizes=(256,))
    for grey in (5, 128, 250):
        assert detector.detect(np.full((*shape, 3), grey, np.uint8)) == []


@pytest.mark.parametrize("kept", [0, 1000])
def test_damaged_model(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = yunet._read_model()[:kept]
    monkeypatch.setattr(yunet, "_read_model", lambda: model)
    with pytest.raises(DhmError, match="is damaged") as caught:
        FaceDetector()
    assert caught.value.hint == "install dhm-cli again"


def test_missing_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yunet, "packaged", lambda name: tmp_path / name)
    with pytest.raises(DhmError, match="face_detection_yunet") as caught:
        FaceDetector()
    assert caught.value.hint == "install dhm-cli again"
