"""A photo in, landmarks out: geometry of the crops, detected and given boxes, what is refused."""

import json
import math
import pickle
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from dummy_network import answer_in_black
from example_networks import make_model
from example_photos import ASTRONAUT, ASTRONAUT_FACE_CENTRE, encode, read_table
from numpy.typing import NDArray

import dhm_cli
from dhm_cli.alignment.photos import align_files
from dhm_cli.errors import InputError
from dhm_cli.geometry.pose import euler_to_matrix, yaw_pitch_roll_to_matrix
from dhm_cli.inference.aligner import Aligner, Face
from dhm_cli.inference.face_box import FaceBox, crop_square_from_box
from dhm_cli.models.checkpoint import save_checkpoint
from dhm_cli.morphable.toy import toy_face_model

BLACK = np.zeros((400, 500, 3), np.uint8)


@pytest.fixture(scope="module")
def aligner(dummy_network: Path) -> Aligner:
    return Aligner("cpu", model=dummy_network)


def test_a_given_box_is_squared_and_enlarged(aligner: Aligner) -> None:
    boxes = [(100.0, 50.0, 80.0, 120.0), (300.5, 200.25, 60.0, 30.0)]
    faces = aligner.align(BLACK, boxes)
    assert [face.box for face in faces] == boxes
    assert all(math.isnan(face.score) for face in faces)
    for face, centre, longer in zip(faces, ([140.0, 110.0], [330.5, 215.25]), (120.0, 60.0), strict=True):
        expected = answer_in_black(np.array(centre), longer * math.sqrt(2))
        assert face.landmarks.dtype == np.float64
        np.testing.assert_allclose(face.landmarks, expected, atol=1e-3)
        np.testing.assert_allclose(face.pose, 0.0, atol=1e-3)
        np.testing.assert_allclose(face.pose_300w_lp, 0.0, atol=1e-3)
        np.testing.assert_allclose(face.rotation, np.eye(3), atol=1e-4)


def test_refining_crops_around_the_landmarks(dummy_network: Path) -> None:
    aligner = Aligner("cpu", model=dummy_network, refine=1)
    aligner.scout = aligner.engine  # so that it is known what is said of the roll
    expected = answer_in_black(np.array([140.0, 110.0]), 120 * math.sqrt(2))
    for _ in range(2):  # one that was asked for, and one because the crop before was far larger than the face in it
        low, high = expected[:, :2].min(axis=0), expected[:, :2].max(axis=0)
        expected = answer_in_black((low + high) / 2, (high - low).max() * math.sqrt(2))
    face = aligner.align(BLACK, [(100.0, 50.0, 80.0, 120.0)])[0]
    np.testing.assert_allclose(face.landmarks, expected, atol=1e-3)


def test_a_network_with_a_face_model(tmp_path: Path) -> None:
    model = make_model("dhm").eval()
    save_checkpoint(tmp_path / "dhm.safetensors", model, "dhm", {})
    toy_face_model().save(tmp_path / "face_model.h5")
    options = {"device": "cpu", "model": tmp_path / "dhm.safetensors", "face_model": tmp_path / "face_model.h5"}
    (face,) = Aligner(**options).align(BLACK, [(100.0, 50.0, 80.0, 120.0)])
    size, side = model.config.input_size, 120 * math.sqrt(2)
    with torch.no_grad():
        (expected,) = model(torch.full((1, 3, size, size), -1.0)).landmarks[:, -1].double().numpy()
    expected = (expected - [(size - 1) / 2, (size - 1) / 2, 0]) * side / size + [140.0, 110.0, 0.0]
    np.testing.assert_allclose(face.landmarks, expected, atol=1e-3)

    (tmp_path / "photo.png").write_bytes(encode(BLACK, ".png"))
    (tmp_path / "boxes.csv").write_text("path,left,top,width,height\nphoto.png,100,50,80,120")
    out = tmp_path / "out.csv"
    align_files([tmp_path / "photo.png"], out, boxes_csv=tmp_path / "boxes.csv", **options)
    (row,) = read_table(out)
    np.testing.assert_allclose([float(row[f"z_{k}"]) for k in range(68)], expected[:, 2], atol=2e-3)


def test_detected_face(aligner: Aligner, dummy_network: Path, astronaut: NDArray[np.uint8]) -> None:
    before = astronaut.copy()
    faces = aligner.align(astronaut)
    assert len(faces) == 1
    face = faces[0]
    once = Aligner("cpu", model=dummy_network, refine=1).align(astronaut)[0]
    np.testing.assert_array_equal(face.landmarks, once.landmarks)
    assert 0.8 < face.score <= 1.0
    left, top, width, height = face.box
    np.testing.assert_allclose([left + width / 2, top + height / 2], ASTRONAUT_FACE_CENTRE, atol=10)
    assert (np.abs(face.landmarks[:, :2].mean(axis=0) - ASTRONAUT_FACE_CENTRE) < 30).all()
    np.testing.assert_array_equal(astronaut, before)


def test_the_largest_face_comes_first(aligner: Aligner, astronaut: NDArray[np.uint8]) -> None:
    photo = np.zeros((512, 768, 3), np.uint8)
    photo[:256, :256] = cv2.resize(astronaut, (256, 256), interpolation=cv2.INTER_AREA)
    photo[:, 256:] = astronaut
    faces = aligner.align(photo)
    assert len(faces) == 2
    assert faces[0].box[0] > 256 > faces[1].box[0]
    assert faces[0].box[2] > 1.5 * faces[1].box[2]


def test_no_face(aligner: Aligner, astronaut: NDArray[np.uint8]) -> None:
    assert aligner.align(BLACK) == []
    assert aligner.align(np.zeros((1, 1, 3), np.uint8)) == []
    assert aligner.align(astronaut, boxes=[]) == []


def test_a_view_of_an_image_will_do(aligner: Aligner, astronaut: NDArray[np.uint8]) -> None:
    view = np.ascontiguousarray(astronaut[::-1, :, ::-1])[::-1, :, ::-1]
    np.testing.assert_array_equal(aligner.align(view)[0].landmarks, aligner.align(astronaut)[0].landmarks)


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (np.zeros((9, 9, 3), np.float32), "float32"),
        (np.zeros((9, 9), np.uint8), r"\(9, 9\)"),
        (np.zeros((9, 9, 4), np.uint8), r"\(9, 9, 4\)"),
        (np.zeros((0, 9, 3), np.uint8), r"\(0, 9, 3\)"),
        ([[1, 2, 3]], "list"),
    ],
)
def test_wrong_images(aligner: Aligner, image: NDArray[np.uint8], found: str) -> None:
    with pytest.raises(InputError, match=found):
        aligner.align(image)


@pytest.mark.parametrize(
    "box", [(10, 10, 0, 5), (10, 10, 5), (500, 10, 9, 9), (-20, 0, 20, 9), (0, math.nan, 9, 9), (0, 0, 9, 1e9)]
)
def test_wrong_boxes(aligner: Aligner, box: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="box"):
        aligner.align(BLACK, [(0, 0, 50, 50), box])


@pytest.mark.parametrize("options", [{"min_score": 0.0}, {"min_score": 1.5}, {"refine": -1}, {"device": "tpu"}])
def test_wrong_options(dummy_network: Path, options: dict[str, float]) -> None:
    with pytest.raises(InputError, match=str(next(iter(options.values())))):
        Aligner(**{"device": "cpu", "model": dummy_network, **options})


class Corners:
    """A detector of one's own: a face in each upper corner of any photo."""

    def detect(self, image: NDArray[np.uint8]) -> list[FaceBox]:
        width = image.shape[1]
        return [FaceBox(width - 120.0, 0.0, 120.0, 120.0, 0.75), FaceBox(0.0, 0.0, 100.0, 100.0, 0.5)]


def test_a_detector_of_ones_own(dummy_network: Path) -> None:
    aligner = Aligner("cpu", model=dummy_network, refine=0, detector=Corners())
    faces = aligner.align(BLACK)
    assert [face.box for face in faces] == [(380.0, 0.0, 120.0, 120.0), (0.0, 0.0, 100.0, 100.0)]
    assert [face.score for face in faces] == [0.75, 0.5]
    for face, box in zip(faces, Corners().detect(BLACK), strict=True):
        np.testing.assert_allclose(face.landmarks, answer_in_black(*crop_square_from_box(box)), atol=1e-3)


def test_public_names() -> None:
    assert dhm_cli.Aligner is Aligner
    assert dhm_cli.Face.__name__ == "Face"
    with pytest.raises(AttributeError):
        _ = dhm_cli.Alinger


def test_an_aligner_travels_to_another_process_by_its_settings(
    dummy_network: Path, astronaut: NDArray[np.uint8]
) -> None:
    aligner = Aligner("cpu", model=dummy_network, refine=2, min_score=0.7)
    again = pickle.loads(pickle.dumps(aligner))
    assert again.refine == 2
    np.testing.assert_array_equal(again.align(astronaut)[0].landmarks, aligner.align(astronaut)[0].landmarks)


@pytest.mark.parametrize(
    "boxes", ["abcd", [None], ["1,2,3,4"], [1, 2, 3, 4], [[1, 2, 3]], [[1, 2, 3, "x"]], 7, [[1, 2, 3, float("nan")]]]
)
def test_boxes_that_are_none_are_refused_in_words(
    dummy_network: Path, astronaut: NDArray[np.uint8], boxes: object
) -> None:
    """They used to end in TypeErrors."""
    with pytest.raises(InputError, match=r"expected a (list of boxes|box)"):
        Aligner("cpu", model=dummy_network).align(astronaut, boxes)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"refine": 1.5}, {"refine": "1"}, {"threads": 0}, {"min_score": "high"}])
def test_options_of_the_wrong_kind_are_refused_in_words(dummy_network: Path, options: dict[str, object]) -> None:
    with pytest.raises(InputError, match=f"--{next(iter(options)).replace('_', '-')}: expected"):
        Aligner("cpu", model=dummy_network, **options)  # type: ignore[arg-type]


def test_the_old_name_of_the_network_is_refused(dummy_network: Path) -> None:
    with pytest.raises(InputError, match="weights") as caught:
        Aligner("cpu", weights=dummy_network)
    assert "model=" in caught.value.hint


def test_a_face_has_its_pose_as_a_matrix_and_in_both_orders() -> None:
    """An upright head in profile: upright to people, 73 and -68 degrees of pitch and roll in the files of 300W-LP."""
    rotation = euler_to_matrix(np.radians([73.0, -77.0, -68.0]))
    face = Face(np.zeros((68, 3)), (0.0, 0.0, 1.0, 1.0), 1.0, rotation)
    np.testing.assert_allclose(face.pose_300w_lp, [73, -77, -68], atol=1e-9)
    assert face.pose_300w_lp.pitch == pytest.approx(73)
    assert face.pose == pytest.approx((-86, 12, 5), abs=1.0)
    assert (face.pose.yaw, face.pose.pitch, face.pose.roll) == face.pose
    np.testing.assert_allclose(yaw_pitch_roll_to_matrix(np.radians(face.pose)), face.rotation, atol=1e-12)


def test_angles_that_there_are_not_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--angles: expected yaw-pitch-roll or 300w-lp, found 'people'"):
        align_files([tmp_path], tmp_path / "out.csv", angles="people")


# --- many photos, paths, other orders of channels


def assert_same(found: list[Face], expected: list[Face]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert (a.box, a.score) == (b.box, b.score)
        np.testing.assert_allclose(a.landmarks, b.landmarks, atol=1e-3)
        np.testing.assert_allclose(a.confidence, b.confidence, atol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_many_photos_give_what_each_gives(astronaut: NDArray[np.uint8], batch_size: int) -> None:
    aligner = Aligner("cpu")  # its network doubts, so one photo is looked at in turns
    two = np.ascontiguousarray(np.hstack([astronaut, astronaut[:, ::-1]]))
    photos = [astronaut, BLACK, two, np.ascontiguousarray(np.rot90(astronaut)), astronaut]
    found = list(aligner.align_many(iter(photos), batch_size))
    assert [len(faces) for faces in found] == [1, 0, 2, 1, 1]
    for faces, photo in zip(found, photos, strict=True):
        assert_same(faces, aligner.align(photo))


def test_only_one_batch_is_taken_at_a_time(aligner: Aligner) -> None:
    taken: list[int] = []

    def photos() -> Iterator[NDArray[np.uint8]]:
        for k in range(6):
            taken.append(k)
            yield BLACK

    found = aligner.align_many(photos(), batch_size=2)
    assert taken == []
    next(found)
    assert taken == [0, 1]
    assert len(list(found)) == 5


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_a_bad_photo_among_many_costs_itself_only(aligner: Aligner, batch_size: int) -> None:
    photos = [ASTRONAUT, "gone.png", BLACK.astype(float), ASTRONAUT]
    told: list[tuple[object, str]] = []
    found = aligner.align_many(photos, batch_size, on_error=lambda photo, error: told.append((photo, error.message)))
    assert [len(faces) for faces in found] == [1, 0, 0, 1]
    assert told[0] == ("gone.png", "gone.png: cannot be read: No such file or directory")
    assert told[1][0] is photos[2]
    assert "expected an image of type uint8" in told[1][1]
    ended = aligner.align_many(photos, batch_size)
    assert len(next(ended)) == 1
    with pytest.raises(InputError, match=r"gone\.png"):
        next(ended)


@pytest.mark.parametrize("size", [0, -1, 1.5, "9"])
def test_batch_sizes_that_are_none(aligner: Aligner, size: object) -> None:
    with pytest.raises(InputError, match="batch_size"):
        next(aligner.align_many([BLACK], size))


def test_paths_and_bgr(astronaut: NDArray[np.uint8]) -> None:
    aligner = Aligner("cpu")
    expected = aligner.align(astronaut)
    bgr = cv2.imread(str(ASTRONAUT))
    for faces in (
        aligner.align(ASTRONAUT),
        aligner.align(str(ASTRONAUT)),
        aligner.align(ASTRONAUT, bgr=True),  # of a file it is known
        aligner.align(bgr, bgr=True),
        *aligner.align_many([ASTRONAUT]),
        *aligner.align_many([bgr], bgr=True),
    ):
        assert_same(faces, expected)
    seen = [aligner.align(image, [(180, 70, 90, 106)])[0].landmarks for image in (astronaut, bgr)]
    assert np.abs(seen[0] - seen[1]).max() > 0.1  # the network does see colours
    with pytest.raises(InputError, match=r"gone\.jpg: cannot be read"):
        aligner.align("gone.jpg")
    with pytest.raises(InputError, match="expected an image"):
        next(aligner.align_many(["gone.jpg", None][1:]))


def test_a_face_as_plain_numbers(aligner: Aligner, astronaut: NDArray[np.uint8]) -> None:
    (face,) = aligner.align(astronaut)
    found = json.loads(json.dumps(face.to_dict()))
    assert list(found) == [
        *["score", "confidence", "left", "top", "width", "height", "yaw", "pitch", "roll", "landmarks"]
    ]
    assert found["confidence"] is None  # this network tells none
    assert (found["left"], found["score"], found["yaw"]) == (face.box[0], face.score, face.pose.yaw)
    np.testing.assert_array_equal(found["landmarks"], face.landmarks)
    assert face.to_dict(["sigma", "visible"]) == {"sigma": None, "visible": None}
    with pytest.raises(InputError, match="noses: not known"):
        face.to_dict(["noses"])
