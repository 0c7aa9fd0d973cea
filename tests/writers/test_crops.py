"""Aligned crops: cut out in Python, and saved by `dhm align`."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from example_photos import ASTRONAUT, encode, read_table, write_album
from numpy.typing import NDArray

from dhm_cli import crop, read_image
from dhm_cli.alignment.photos import align_files
from dhm_cli.errors import InputError
from dhm_cli.geometry.crop_styles import CROP_STYLES
from dhm_cli.inference.aligner import Aligner, Face
from dhm_cli.inference.columns import CROP_COLUMNS, DEFAULT_COLUMNS
from dhm_cli.writers.jpeg_folder import JpegFolder


@pytest.fixture(scope="module")
def face(astronaut: NDArray[np.uint8]) -> Face:
    return Aligner("cpu").align(astronaut)[0]


@pytest.mark.parametrize("style", CROP_STYLES)
@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_a_photo_on_its_side_gives_the_same_crop(astronaut: NDArray[np.uint8], style: str, quarters: int) -> None:
    aligner = Aligner("cpu")
    upright = crop(astronaut, aligner.align(astronaut)[0], 128, style)
    photo = np.ascontiguousarray(np.rot90(astronaut, quarters))
    turned = crop(photo, aligner.align(photo)[0], 128, style)
    assert turned.image.shape == (128, 128, 3)
    assert np.abs(turned.landmarks[:, :2] - upright.landmarks[:, :2]).mean() < 2
    blurred = [cv2.GaussianBlur(cut.image, (0, 0), 4).astype(float) for cut in (upright, turned)]
    assert np.abs(blurred[0] - blurred[1]).mean() < 12


def test_matrix_and_landmarks_belong_to_the_crop(astronaut: NDArray[np.uint8], face: Face) -> None:
    cut = crop(astronaut, face)
    assert cut.image.shape == (256, 256, 3)
    expected = face.landmarks[:, :2] @ cut.matrix[:, :2].T + cut.matrix[:, 2]
    np.testing.assert_allclose(cut.landmarks[:, :2], expected)
    grown = np.sqrt(np.linalg.det(cut.matrix[:, :2]))
    np.testing.assert_allclose(cut.landmarks[:, 2], grown * face.landmarks[:, 2])
    assert crop(astronaut, face, style="arcface").image.shape == (112, 112, 3)


def test_beyond_the_edge_a_crop_is_black(astronaut: NDArray[np.uint8], face: Face) -> None:
    left = 190  # through the face
    cut_off = replace(face, landmarks=face.landmarks - [left, 0, 0])
    whole, half = crop(astronaut, face, 200), crop(np.ascontiguousarray(astronaut[:, left:]), cut_off, 200)
    corners = np.array([[left, 100.0]]) @ whole.matrix[:, :2].T + whole.matrix[:, 2]
    edge = int(corners[0, 0])
    assert 20 < edge < 180
    assert not half.image[:, : edge - 20].any()
    difference = np.abs(half.image[:, edge + 20 :].astype(int) - whole.image[:, edge + 20 :])
    assert difference.mean() < 1


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"style": "oval"}, "--crop-style oval"),
        ({"size": 15}, "--crop-size: expected a whole number from 16 to 4096, found 15"),
        ({"size": 112.0}, "found 112.0"),
        ({"size": True}, "found True"),
    ],
)
def test_useless_options(astronaut: NDArray[np.uint8], face: Face, how: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        crop(astronaut, face, **how)  # type: ignore[arg-type]


def test_crops_mirror_the_folders_and_are_in_the_table(tmp_path: Path, dummy_network: Path) -> None:
    out, folder = tmp_path / "out.csv", tmp_path / "crops"
    album = write_album(tmp_path / "album")
    options = {"device": "cpu", "model": dummy_network, "crop_size": 112}
    align_files([album], out, crop_dir=folder, crop_style="ffhq", **options)
    names = ["a_0.jpg", "trip, 1/Zoë und Söhne_0.jpg", "trip, 1/a_0.jpg", "trip, 1/a_1.jpg"]
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.jpg")) == sorted(names)
    rows = read_table(out)
    assert [row["crop"] for row in rows if row["face"]] == [str(folder / name) for name in names]
    for row in (row for row in rows if row["face"]):
        matrix = np.array([[float(row[f"crop_matrix_{i}{j}"]) for j in range(3)] for i in range(2)])
        landmarks = np.array([[float(row[f"{axis}_{k}"]) for axis in "xyz"] for k in range(68)])
        in_crop = np.array([[float(row[f"crop_{axis}_{k}"]) for axis in "xy"] for k in range(68)])
        np.testing.assert_allclose(landmarks[:, :2] @ matrix[:, :2].T + matrix[:, 2], in_crop, atol=2e-3)
        assert read_image(row["crop"]).shape == (112, 112, 3)
    assert all(row["crop"] == row["crop_x_0"] == "" for row in rows if not row["face"])


def test_columns_of_crops(tmp_path: Path, dummy_network: Path) -> None:
    options = {"device": "cpu", "model": dummy_network}
    with pytest.raises(InputError, match="--columns crop_matrix: no crops are asked for"):
        align_files([ASTRONAUT], tmp_path / "a.csv", columns=("box", "crop_matrix"), **options)
    align_files([ASTRONAUT], tmp_path / "a.csv", columns=("box",), crop_dir=tmp_path / "crops", **options)
    assert not [name for name in read_table(tmp_path / "a.csv")[0] if "crop" in name], "as the user says"
    assert not set(CROP_COLUMNS) & set(DEFAULT_COLUMNS)


def test_a_file_of_somebody_is_left_alone(tmp_path: Path, dummy_network: Path) -> None:
    """The other faces have their crops, and the landmarks of all are in the table."""
    album, folder, out = write_album(tmp_path / "album"), tmp_path / "crops", tmp_path / "out.csv"
    mine = folder / "trip, 1" / "a_0.jpg"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(encode(np.zeros((9, 9, 3), np.uint8), ".jpg"))
    before = mine.read_bytes()
    options = {"device": "cpu", "model": dummy_network, "crop_dir": folder}
    report = align_files([album], out, **options)
    problems = [result.crop_problem for result in report.results if result.crop_problem]
    assert len(problems) == 1
    assert "a_0.jpg exists and is not made by --crops of dhm; --force replaces it" in problems[0]
    assert mine.read_bytes() == before
    rows = [row for row in read_table(out) if row["face"]]
    assert [bool(row["crop"]) for row in rows] == [True, True, False, True]
    assert all(row["x_0"] for row in rows)
    assert not [result.crop_problem for result in align_files([album], out, force=True, **options).results][-1]
    assert mine.read_bytes() != before


def test_crops_never_touch_the_photos(tmp_path: Path, dummy_network: Path) -> None:
    album = write_album(tmp_path / "album")
    with pytest.raises(InputError, match="lies in the folder for crops"):
        align_files([album], tmp_path / "out.csv", crop_dir=album, device="cpu", model=dummy_network)


def test_every_face_has_a_file_of_its_own(tmp_path: Path) -> None:
    names = ("a.png", "a.jpg", "a.JPG", "a.JPG.png", "a.jpeg", "a_0.png", "a_0_1.png", "a.png.jpg", "A.webp")
    photos = [tmp_path / name for name in names]
    folder = JpegFolder(tmp_path / "crops", "crop", "--crops", photos)
    paths = [folder.path(photo, face) for photo in photos for face in range(12)]
    assert len(set(paths)) == len(paths)
    assert folder.path(tmp_path / "a_0.png", 3).name == "a_0_3.jpg"


def test_a_run_with_other_crops_does_not_go_on(tmp_path: Path, dummy_network: Path) -> None:
    album, out = write_album(tmp_path / "album"), tmp_path / "out.csv"
    options = {"device": "cpu", "model": dummy_network, "crop_dir": tmp_path / "crops"}

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        align_files([album], out, progress=stop, threads=1, **options)
    for other in ({"crop_style": "ffhq"}, {"crop_size": 128}):
        with pytest.raises(InputError, match="--crop-style face --crop-size 256, not with --crop-style") as error:
            align_files([album], out, resume=True, **other, **options)
        assert "delete its .partial files" in error.value.hint
    assert align_files([album], out, resume=True, **options).kept
