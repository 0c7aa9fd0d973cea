"""Faces that keep their number: at rest, crossing, hidden, lost; few looks of the detector; states go on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from clips import two_faces
from numpy.typing import NDArray

from dhm_cli.errors import InputError
from dhm_cli.inference.aligner import Aligner
from dhm_cli.inference.face_box import FaceBox
from dhm_cli.inference.tracker import Tracked, Tracker

Image = NDArray[np.uint8]


@pytest.fixture(scope="module")
def aligner() -> Aligner:
    return Aligner("cpu")


def track(tracker: Tracker, frames: Sequence[Image | None]) -> list[dict[int, list[float]]]:
    """Middles of the faces by number, of every frame."""
    return [places(tracker.step(image)) for image in frames]


def places(found: Tracked) -> dict[int, list[float]]:
    middles = found.answer.landmarks[..., :2].mean(axis=1)
    return dict(zip(found.numbers.tolist(), middles.tolist(), strict=True))


def moved(photo: Image, x: float, y: float, degrees: float = 0.0) -> Image:
    """A frame of 320 x 240 pixels with the sample face at a place."""
    matrix = cv2.getRotationMatrix2D((225.0, 128.0), degrees, 0.8)
    matrix[:, 2] += np.array([x, y]) - [225, 128]
    return cv2.warpAffine(photo, matrix, (320, 240), borderMode=cv2.BORDER_REPLICATE)


def test_one_face_one_number_and_few_looks(aligner: Aligner, astronaut: Image) -> None:
    a = np.linspace(0, 4 * np.pi, 70)
    where = np.stack([160 + 40 * np.sin(a), 110 + 15 * np.cos(a)], axis=1)
    frames = [moved(astronaut, x, y, 15 * s) for (x, y), s in zip(where, np.sin(a), strict=True)]
    tracker = Tracker(aligner)
    found = track(tracker, frames)
    assert [list(faces) for faces in found] == [[0]] * 70
    assert tracker.looks == 3  # frames 0, 30 and 60
    middles = np.array([faces[0] for faces in found])
    assert np.abs(middles - where - np.median(middles - where, axis=0)).max() < 6


def test_crossing_faces_keep_their_numbers(aligner: Aligner, astronaut: Image) -> None:
    """One passes in front of the other, which is hidden on the way."""
    steps = np.linspace(0, 1, 56)
    frames = [two_faces(astronaut, [(100 + 280 * u, 100), (380 - 280 * u, 104)]) for u in steps]
    tracker = Tracker(aligner)
    found = track(tracker, frames)
    right, left = sorted(found[0], key=lambda number: -found[0][number][0])
    assert set(found[0]) == set(found[-1]) == {0, 1}
    assert abs(found[-1][left][0] - 380) < 25
    assert abs(found[-1][right][0] - 100) < 25
    assert tracker.tracks == 2
    assert any(len(faces) == 1 for faces in found)
    for faces in found:  # never two numbers on one face
        assert len(faces) < 2 or abs(faces[0][0] - faces[1][0]) > 20


def test_a_face_that_is_hidden_for_ten_frames(aligner: Aligner, astronaut: Image) -> None:
    frames = [moved(astronaut, 120 + k, 110) for k in range(45)]
    for k in range(20, 30):
        frames[k][:] = 90
    found = track(Tracker(aligner), frames)
    assert [list(faces) for faces in found] == [[0]] * 20 + [[]] * 10 + [[0]] * 15


def test_a_face_that_is_away_for_long_gets_a_new_number(aligner: Aligner, astronaut: Image) -> None:
    empty = np.full((240, 320, 3), 90, np.uint8)
    found = track(
        Tracker(aligner), [*[moved(astronaut, 160, 110)] * 2, *[empty] * 34, *[moved(astronaut, 160, 110)] * 8]
    )
    assert list(found[0]) == [0]
    assert list(found[-1]) == [1]


def test_damaged_frames_pass(aligner: Aligner, astronaut: Image) -> None:
    frames = [moved(astronaut, 120 + 2 * k, 110) for k in range(12)]
    found = track(Tracker(aligner), [*frames[:5], None, None, *frames[7:]])
    assert [list(faces) for faces in found] == [[0]] * 5 + [[]] * 2 + [[0]] * 5


def test_new_faces_are_seen_at_the_next_look(aligner: Aligner, astronaut: Image) -> None:
    one = two_faces(astronaut, [(120, 100), (-300, 100)])
    two = two_faces(astronaut, [(120, 100), (360, 100)])
    found = track(Tracker(aligner, look_every=6), [one] * 3 + [two] * 6)
    assert [len(faces) for faces in found] == [1] * 6 + [2] * 3


def test_a_state_goes_on_to_the_bit(aligner: Aligner, astronaut: Image) -> None:
    frames = [two_faces(astronaut, [(100 + 6 * k, 100), (380 - 6 * k, 104)]) for k in range(30)]
    whole, first, second = (Tracker(aligner) for _ in range(3))
    expected = [whole.step(image) for image in frames]
    for image in frames[:22]:
        first.step(image)
    second.restore({name: np.array(value) for name, value in first.state().items()})
    for image, before in zip(frames[22:], expected[22:], strict=True):
        found = second.step(image)
        np.testing.assert_array_equal(found.numbers, before.numbers)
        np.testing.assert_array_equal(found.answer.landmarks, before.answer.landmarks)
    assert second.tracks == whole.tracks


class Square:
    """A detector that sees a face where the image is brightest."""

    def __init__(self) -> None:
        self.calls = 0

    def detect(self, image: Image) -> list[FaceBox]:
        self.calls += 1
        rows, columns = np.nonzero(image[..., 0] > 128)
        return [FaceBox(columns.min() - 40.0, rows.min() - 40.0, 100.0, 100.0, 0.9)] if len(rows) else []


def test_a_network_without_confidence_is_led_by_the_detector(dummy_network: Path) -> None:
    detector = Square()
    tracker = Tracker(Aligner("cpu", model=dummy_network, detector=detector))
    frames: list[Image] = []
    for k in range(12):
        frames.append(np.zeros((300, 400, 3), np.uint8))
        frames[-1][100:120, 100 + 3 * k : 120 + 3 * k] = 255
    frames[6][:] = 0
    found = track(tracker, frames)
    assert [list(faces) for faces in found] == [[0]] * 6 + [[]] + [[0]] * 5
    assert tracker.looks == 12


def test_aligner_track(aligner: Aligner, astronaut: Image) -> None:
    frames = [moved(astronaut, 120 + 2 * k, 110) for k in range(14)]
    raw = list(aligner.track(frames))
    assert [[face.track for face in faces] for faces in raw] == [[0]] * 14
    (face,) = raw[5]
    np.testing.assert_array_equal(face.raw, face.landmarks)
    assert face.box == pytest.approx((*face.landmarks[:, :2].min(axis=0), *np.ptp(face.landmarks[:, :2], axis=0)))
    assert not np.isnan(raw[0][0].score)
    assert np.isnan(face.score)
    (still,) = aligner.align(frames[5])
    assert np.abs(still.landmarks - face.landmarks).mean() < 1.0
    smooth = list(aligner.track((frame[..., ::-1] for frame in frames), "file", bgr=True))
    assert len(smooth) == 14
    np.testing.assert_array_equal(smooth[5][0].raw, face.landmarks)
    assert 0 < np.abs(smooth[5][0].landmarks - face.landmarks).max() < 3


@pytest.mark.parametrize(
    ("options", "said"),
    [({"smooth": "x"}, "--smooth"), ({"rate": 0.0}, "rate"), ({"look_every": 0}, "look_every")],
)
def test_options_that_are_refused(aligner: Aligner, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        list(aligner.track([], **options))


def test_frames_that_are_refused(aligner: Aligner) -> None:
    with pytest.raises(InputError, match="shape"):
        list(aligner.track([np.zeros((4, 4), np.uint8)]))
