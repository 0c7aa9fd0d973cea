"""The network that comes with the package, on the sample photos: where the face is, how it is turned, in any file."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from example_photos import ASTRONAUT, encode
from numpy.typing import NDArray

from dhm_cli.geometry.landmarks import EYES, MIRROR, MOUTH, face_size
from dhm_cli.inference.aligner import Aligner, Face
from dhm_cli.io.images import read_image

# Read by eye off an enlarged view of astronaut.png with a grid, before any network was asked; 0-based pixels, good to
# about 1.5. An eye's centre is that of its corners and lids, the mouth's that of the outer and inner lip lines.
EYE_ON_THE_LEFT = (202.5, 101.2)
EYE_ON_THE_RIGHT = (246.5, 103.3)
NOSE_TIP = (223.0, 127.0)
MOUTH_CENTRE = (223.5, 144.5)

NOSE_TIP_POINT = 30
LEFT_EYE, RIGHT_EYE = slice(EYES.start, EYES.start + 6), slice(EYES.start + 6, EYES.stop)


@pytest.fixture(scope="module")
def aligner() -> Aligner:
    return Aligner(device="cpu")


def only_face(aligner: Aligner, path: Path) -> Face:
    faces = aligner.align(read_image(path))
    assert len(faces) == 1
    return faces[0]


def distances(found: NDArray[np.float64], expected: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of each landmark in the image, pixels."""
    return np.asarray(np.linalg.norm(found[:, :2] - expected[:, :2], axis=1))


def test_the_features_are_where_one_sees_them(aligner: Aligner) -> None:
    points = only_face(aligner, ASTRONAUT).landmarks
    found = {
        "eye on the left": (points[LEFT_EYE, :2].mean(axis=0), EYE_ON_THE_LEFT),
        "eye on the right": (points[RIGHT_EYE, :2].mean(axis=0), EYE_ON_THE_RIGHT),
        "nose tip": (points[NOSE_TIP_POINT, :2], NOSE_TIP),
        "mouth": (points[MOUTH, :2].mean(axis=0), MOUTH_CENTRE),
    }
    for name, (place, expected) in found.items():
        assert np.linalg.norm(place - expected) < 0.04 * face_size(points), f"{name}: {place}, expected {expected}"


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("astronaut.png", -12, 12),
        # A positive yaw turns the nose to the left of the image.
        ("astronaut_turned_left_45.jpg", 20, 70),
        ("astronaut_turned_right_45.jpg", -70, -20),
    ],
)
def test_yaw(aligner: Aligner, name: str, least: float, most: float) -> None:
    face = only_face(aligner, ASTRONAUT.with_name(name))
    assert least < face.pose.yaw < most
    eyes = face.landmarks[EYES, 0].mean()
    if name != "astronaut.png":
        assert np.sign(eyes - face.landmarks[NOSE_TIP_POINT, 0]) == np.sign(face.pose.yaw)


@pytest.mark.parametrize("name", ["astronaut.png", "astronaut_turned_left_45.jpg", "astronaut_turned_right_45.jpg"])
def test_a_mirrored_photo_has_mirrored_landmarks(aligner: Aligner, name: str) -> None:
    photo = read_image(ASTRONAUT.with_name(name))
    points = aligner.align(photo)[0].landmarks
    mirrored = aligner.align(np.ascontiguousarray(photo[:, ::-1]))[0].landmarks[MIRROR]
    mirrored[:, 0] = photo.shape[1] - 1 - mirrored[:, 0]
    assert distances(mirrored, points).mean() < 0.03 * face_size(points)


def rotated_png(image: NDArray[np.uint8]) -> bytes:
    """A PNG that holds the photo lying on its side, and the EXIF orientation (6) that sets it upright."""
    data = encode(image.transpose(1, 0, 2)[::-1], ".png")
    exif = b"MM\x00*\x00\x00\x00\x08" + struct.pack(">HHHIHHI", 1, 0x0112, 3, 1, 6, 0, 0)
    chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
    after_header = 8 + 25
    return data[:after_header] + chunk + data[after_header:]


def files(image: NDArray[np.uint8]) -> dict[str, tuple[bytes, float]]:
    """The same photo as it comes in the wild: by name, the file and by how many pixels its landmarks may differ."""
    alpha = np.full((*image.shape[:2], 1), 7, np.uint8)
    return {
        "rgba.png": (encode(np.dstack([image, alpha]), ".png"), 1.0),
        "16 bit.png": (encode(image.astype(np.uint16) * 257, ".png"), 1.0),
        "Größe 日本, zwei  Wörter.PNG": (encode(image, ".png"), 1.0),
        "on its side.png": (rotated_png(image), 1.0),
        "grey.png": (encode(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), ".png"), 4.0),
    }


def test_the_kind_of_file_does_not_matter(aligner: Aligner, tmp_path: Path, astronaut: NDArray[np.uint8]) -> None:
    plain = only_face(aligner, ASTRONAUT).landmarks
    for name, (data, tolerance) in files(astronaut).items():
        (tmp_path / name).write_bytes(data)
        found = only_face(aligner, tmp_path / name).landmarks
        assert distances(found, plain).max() < tolerance, name


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_photo_may_lie_on_its_side_or_upside_down(quarters: int) -> None:
    """They came back ok, with a score of up to 0.90 and not one face right."""
    photo, aligner = read_image(ASTRONAUT), Aligner("cpu")
    (upright,), found = aligner.align(photo), aligner.align(np.ascontiguousarray(np.rot90(photo, quarters)))
    side = len(photo) - 1
    assert photo.shape[0] == photo.shape[1]
    (face,) = (face for face in found if not face.doubtful)
    points = face.landmarks[:, :2]
    for _ in range(quarters):  # a quarter counterclockwise takes (x, y) to (y, side - x)
        points = np.column_stack([side - points[:, 1], points[:, 0]])
    off = np.linalg.norm(points - upright.landmarks[:, :2], axis=1).mean() / face_size(upright.landmarks)
    assert off < 0.03
    assert abs((face.pose.roll + 90 * quarters + 180) % 360 - 180) < 20  # the head lies as the photo does


def test_it_knows_a_face_from_none() -> None:
    photo, aligner = read_image(ASTRONAUT), Aligner("cpu", refine=1)
    (face,) = aligner.align(photo)
    assert face.confidence > 0.95
    assert face.sigma is not None
    assert face.visible is not None
    assert 0.005 < face.sigma.mean() / face_size(face.landmarks) < 0.06
    assert face.visible.mean() > 0.8
    flag = aligner.align(photo, [(0.0, 300.0, 120.0, 150.0), (300.0, 20.0, 60.0, 80.0)])  # cloth, and a piece of wall
    assert all(other.doubtful for other in flag)


def test_what_is_far_from_a_face_is_told_apart_by_sigma() -> None:
    """A photo that is blurred away leaves the landmarks less sure."""
    photo, aligner = read_image(ASTRONAUT), Aligner("cpu")
    (face,) = aligner.align(photo)
    box = (face.landmarks[:, 0].min(), face.landmarks[:, 1].min(), *np.ptp(face.landmarks[:, :2], axis=0))
    blurred = cv2.GaussianBlur(photo, (0, 0), 12)
    sharp, soft = (aligner.align(image, [box])[0].sigma for image in (photo, blurred))
    assert sharp is not None
    assert soft is not None
    assert soft.mean() > 1.5 * sharp.mean()
