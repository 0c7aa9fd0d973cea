"""What every detector promises, the choice among them, and a detector of one's own."""

import threading

import numpy as np
import pytest
from example_photos import ASTRONAUT_FACE_CENTRE
from numpy.typing import NDArray

from dhm_cli.errors import InputError
from dhm_cli.inference import face_box
from dhm_cli.inference.detection import DETECTORS, load_detector
from dhm_cli.inference.face_box import MIN_SCORE, Detector, FaceBox, crop_square_from_box
from dhm_cli.inference.yunet import FaceDetector


@pytest.fixture(scope="module", params=DETECTORS)
def detector(request: pytest.FixtureRequest) -> Detector:
    return load_detector(request.param)


def test_one_face(detector: Detector, astronaut: NDArray[np.uint8]) -> None:
    before = astronaut.copy()
    (box,) = detector.detect(astronaut)
    np.testing.assert_array_equal(astronaut, before)
    assert MIN_SCORE <= box.score <= 1.0
    centre, side = crop_square_from_box(box)
    np.testing.assert_allclose(centre, ASTRONAUT_FACE_CENTRE, atol=15)
    # The landmarks' box is about 90 pixels wide and high; networks expect it enlarged by sqrt(2).
    assert 105 < side < 155


def test_the_largest_comes_first(detector: Detector, astronaut: NDArray[np.uint8]) -> None:
    photo = np.zeros((512, 768, 3), np.uint8)
    photo[:256, :256] = astronaut[::2, ::2]
    photo[:, 256:] = astronaut
    large, small = detector.detect(photo)
    assert large.left > 256 > small.left
    assert large.mean_side > 1.5 * small.mean_side


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (700, 3), (90, 900)])
def test_degenerate_images_have_no_face(detector: Detector, shape: tuple[int, int]) -> None:
    for grey in (5, 128, 250):
        assert detector.detect(np.full((*shape, 3), grey, np.uint8)) == []


def test_threads_share_a_detector(detector: Detector, astronaut: NDArray[np.uint8]) -> None:
    photos = [astronaut, astronaut[:400], astronaut[:, :400], astronaut[:300, :450]]
    expected = [detector.detect(photo) for photo in photos]
    wrong: list[int] = []

    def work(k: int) -> None:
        for _ in range(5):
            if detector.detect(photos[k]) != expected[k]:
                wrong.append(k)

    workers = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


@pytest.mark.parametrize("name", DETECTORS)
def test_the_least_score_is_obeyed(name: str, astronaut: NDArray[np.uint8]) -> None:
    assert load_detector(name, 0.999).detect(astronaut) == []


def test_names() -> None:
    assert isinstance(load_detector(), FaceDetector)
    assert isinstance(load_detector("yunet"), FaceDetector)
    with pytest.raises(InputError, match="unknown face detector 'nobody'") as caught:
        load_detector("nobody")
    assert caught.value.hint == f"known are {', '.join(DETECTORS)}"


def test_crop_square() -> None:
    centre_of_crop, side = crop_square_from_box(FaceBox(100.0, 200.0, 80.0, 120.0, 0.9))
    assert side == pytest.approx(face_box.CROP_SIDE * 100)
    np.testing.assert_allclose(centre_of_crop, [140.0, 260.0 + face_box.CROP_SHIFT_DOWN * 100])
