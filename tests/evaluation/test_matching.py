"""Which predicted face belongs to which face of the data."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dhm_cli.errors import InputError
from dhm_cli.evaluation.matching import Match, match_predictions
from dhm_cli.evaluation.predictions import Predictions, read_predictions
from dhm_cli.geometry.landmarks import bounding_box
from dhm_cli.inference.aligner import Face
from dhm_cli.inference.results import OK, PhotoResult
from dhm_cli.writers.registry import open_writer

FILE = Path("method.csv")
SHAPE = np.stack([np.arange(68.0) % 17, np.arange(68.0) % 11], axis=-1)


def faces_at(centres: list[float]) -> NDArray[np.float64]:
    """Landmarks (N, 68, 2) of equal faces, shifted along both axes."""
    return SHAPE + np.array(centres, dtype=np.float64).reshape(-1, 1, 1)


def match(predicted: list[str], names: list[str]) -> Match:
    """Match faces that all lie at the same place."""
    boxes = np.tile(bounding_box(SHAPE), (len(names), 1))
    return match_predictions(Predictions(tuple(predicted), faces_at([0] * len(predicted)), None), names, boxes, FILE)


def pairs(predicted: list[str], names: list[str]) -> dict[str, str]:
    return {name: predicted[row] for name, row in zip(names, match(predicted, names).rows, strict=True) if row >= 0}


@pytest.mark.parametrize(
    "predicted",
    [
        "AFW/a_1_0.jpg",
        "./AFW/a_1_0.jpg",
        "/home/me/photos/AFW/a_1_0.jpg",
        "C:\\photos\\AFW\\a_1_0.jpg",
        "photos\\AFW/a_1_0",
        "AFW//a_1_0.PNG",
        "../AFW/./a_1_0.pts",
        "AFW/a_1_0.mat",
        "AFW/a_1_0.npy",
        "AFW/a_1_0.jpg.txt",
        "a_1_0.jpg",
        "../a_1_0.TXT",
        "a_1_0",
    ],
)
def test_paths_that_fit(predicted: str) -> None:
    names = ["AFW/other.jpg", "AFW/a_1_0.jpg"]
    found = match(["nothing.jpg", predicted], names)
    assert found.rows.dtype == np.int64
    assert found.rows.tolist() == [-1, 1]
    assert found.unused == ["nothing.jpg"]


@pytest.mark.parametrize(
    "predicted",
    [
        "AFW/A_1_0.jpg",
        "afw/a_1_0.jpg",
        "xAFW/a_1_0.jpg",
        "LFW/a_1_0.jpg",
        "1_0.jpg",
        "AFW/a_1_0.json",
        "AFW/a_1_0.jpg/b.jpg",
        "AFW/a_1_0.txt.jpg.",
        "AFW",
        "/",
    ],
)
def test_paths_that_do_not_fit(predicted: str) -> None:
    with pytest.raises(InputError, match=r"none of its names is one of the data") as caught:
        match([predicted], ["AFW/a_1_0.jpg"])
    assert repr(predicted) in caught.value.message
    assert "'AFW/a_1_0.jpg'" in caught.value.message
    assert str(FILE) in caught.value.message
    assert "paths below the folder" in caught.value.hint


def test_names_of_frames_and_odd_names() -> None:
    names = ["1/vid.avi#000002", "1/vid.avi#000001", "v1.2/im.a", "caf\\xe9.jpg", ".jpg"]
    predicted = ["x/v1.2/im.a.pts", "1/vid.avi#000001", "1/vid.avi#000002", ".jpg", "p/caf\\xe9.jpg"]
    assert match(predicted, names).rows.tolist() == [2, 1, 0, 4, 3]


def test_a_missing_face_takes_no_other() -> None:
    names = ["a.jpg", "AFW/a.jpg", "set/AFW/a.jpg", "b.jpg"]
    # Each path has the longest name that it ends with.
    assert pairs(["p/set/AFW/a.jpg", "b.jpg"], names) == {"set/AFW/a.jpg": "p/set/AFW/a.jpg", "b.jpg": "b.jpg"}
    assert pairs(["p/AFW/a.jpg", "p/a.jpg"], names) == {"AFW/a.jpg": "p/AFW/a.jpg", "a.jpg": "p/a.jpg"}
    assert pairs(["AFW/a.jpg"], names) == {"AFW/a.jpg": "AFW/a.jpg"}
    # The end of a deeper face's path is more than a name that the path ends with.
    assert pairs(["AFW/a.jpg"], ["a.jpg", "set/AFW/a.jpg"]) == {"set/AFW/a.jpg": "AFW/a.jpg"}


def test_an_end_that_several_faces_share_is_none_of_theirs() -> None:
    found = match(["a.jpg", "b.jpg"], ["x/a.jpg", "y/a.jpg", "y/b.jpg"])
    assert found.rows.tolist() == [-1, -1, 1]
    assert found.unused == ["a.jpg"]
    # Not even where one of them has a better one.
    assert match(["a.jpg", "x/a.jpg"], ["x/a.jpg", "y/a.jpg"]).rows.tolist() == [1, -1]


def test_suffixes_tell_photos_of_one_stem_apart() -> None:
    names = ["x/a.jpg", "x/a.png"]
    assert match(["p/x/a.png", "p/x/a.jpg"], names).rows.tolist() == [1, 0]
    assert match(["a.png", "a.jpg.pts"], names).rows.tolist() == [1, 0]
    found = match(["x/a.jpg", "x/a.pts"], names)
    assert found.rows.tolist() == [0, -1]
    assert found.unused == ["x/a.pts"]


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("AFW/a.jpg", "old/AFW/a.jpg"),
        ("AFW/a.pts", "old/AFW/a.jpg"),
        ("AFW/a.jpg", "AFW/a.png"),
        ("p/AFW/a.jpg", "p/AFW/a.png"),
        ("p/AFW/a.jpg", "a.jpg"),
        ("p/AFW/a.png", "a.jpg"),
        ("a.jpg", "a.pts"),
    ],
)
def test_the_better_of_two_paths(better: str, worse: str) -> None:
    for predicted in ([better, worse], [worse, better]):
        found = match(predicted, ["AFW/a.jpg"])
        assert predicted[found.rows[0]] == better
        assert found.unused == [worse]


@pytest.mark.parametrize(
    ("one", "other"),
    [("run1/AFW/a.jpg", "run2\\AFW\\a.jpg"), ("run1/AFW/a.pts", "run2/AFW/a.png"), ("a.png", "a.bmp")],
)
def test_two_paths_that_fit_equally_well(one: str, other: str) -> None:
    with pytest.raises(InputError, match=r"method\.csv: .* fit the face 'AFW/a\.jpg' equally well") as caught:
        match(["b.jpg", one, other], ["AFW/b.jpg", "AFW/a.jpg"])
    assert repr(one) in caught.value.message
    assert repr(other) in caught.value.message
    assert "one folder" in caught.value.hint


def test_the_nearest_of_several_faces() -> None:
    # Spellings of one path are one photo. The true faces lie at 100 and 7; of two equally near the first is taken.
    names = ["x/a.jpg", "x/b.jpg"]
    boxes = bounding_box(faces_at([100, 7]))
    predicted = ("x/a.jpg", "./x/a.jpg", "x\\a.jpg", "x/b.jpg", "x/b.jpg", "x/b.jpg")
    landmarks = faces_at([0, 98, 103, 12, 2, 300])
    found = match_predictions(Predictions(predicted, landmarks, None), names, boxes, FILE)
    assert found.rows.tolist() == [1, 3]
    assert found.unused == []


def test_near_is_by_centres_not_by_corners() -> None:
    true = np.array([[0.0, 0.0, 100.0, 100.0]])  # centre (50, 50)
    corners = np.array([[0, 0, 20, 20], [30, 35, 50, 50]])  # centres (10, 10) and (55, 60)
    landmarks = np.stack([np.linspace((x, y), (x + w, y + h), 68) for x, y, w, h in corners])
    found = match_predictions(Predictions(("a", "a"), landmarks, None), ["a.jpg"], true, FILE)
    assert found.rows.tolist() == [1]


def test_order_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    names = [f"{folder}/im{k}.jpg" for folder in "abc" for k in range(20)]
    centres = rng.uniform(0, 500, len(names))
    # Two faces a photo, the second further off, and a photo that is not in the data.
    predicted = np.array([f"p/{name[:-4]}.pts" for name in names] * 2 + ["p/other.pts"])
    landmarks = faces_at([*centres + 1, *centres + 5, 0])
    for _ in range(3):
        rows, faces = rng.permutation(len(predicted)), rng.permutation(len(names))
        shuffled = Predictions(tuple(predicted[rows].tolist()), landmarks[rows], None)
        shuffled_names = np.array(names)[faces]  # as a store holds them
        found = match_predictions(shuffled, shuffled_names, bounding_box(faces_at(centres[faces])), FILE)
        assert rows[found.rows].tolist() == faces.tolist()
        assert found.unused == ["p/other.pts"]


def test_without_names() -> None:
    names = ["b/1.jpg", "a/10.jpg", "B.jpg", "a/9.jpg"]
    predictions = Predictions(None, faces_at([0, 1, 2, 3]), None)
    boxes = np.zeros((4, 4))
    for data in (names, np.array(names)):
        found = match_predictions(predictions, data, boxes, FILE)
        assert found.rows.tolist() == [3, 1, 0, 2]  # B.jpg, a/10.jpg, a/9.jpg, b/1.jpg
        assert found.rows.dtype == np.int64
        assert found.unused == []
    with pytest.raises(InputError, match=r"method\.csv: 4 faces without names, but the data has 3") as caught:
        match_predictions(predictions, names[:3], boxes[:3], FILE)
    assert "sorted names" in caught.value.hint


def test_data_without_faces() -> None:
    with pytest.raises(InputError, match="none of its names"):
        match(["a.jpg"], [])


def test_from_a_file_of_align(tmp_path: Path) -> None:
    path = tmp_path / "landmarks.csv"
    faces = np.concatenate([faces_at([10, 50]), np.zeros((2, 68, 1))], axis=-1)
    table = open_writer(path)
    table.write(PhotoResult("photos/AFW/caf\udce9.jpg", OK, 2), [Face(f, (1, 2, 3, 4), 1.0, np.eye(3)) for f in faces])
    table.finish()
    # A store holds such bytes as escapes.
    found = match_predictions(read_predictions(path), ["AFW/caf\\xe9.jpg"], bounding_box(faces_at([49])), path)
    assert found.rows.tolist() == [1]
