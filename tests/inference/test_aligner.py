"""Photos in, landmarks out: geometry of the crops, given boxes, tables, overlays, interruption."""

import csv
import math
import os
import re
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from dummy_network import INPUT_SIZE, make_mean_shape
from example_networks import make_model
from numpy.typing import NDArray
from onnxruntime import InferenceSession
from onnxruntime.capi.onnxruntime_pybind11_state import Fail
from photos import ASTRONAUT, ASTRONAUT_FACE_CENTRE, STORED, encode, exif_segment

import dhm_cli
from dhm_cli.errors import InputError
from dhm_cli.inference import yunet
from dhm_cli.inference.aligner import Aligner, Face
from dhm_cli.inference.landmark_csv import COLUMNS
from dhm_cli.inference.onnx_session import onnx_session
from dhm_cli.inference.photos import align_files
from dhm_cli.inference.results import BAD_BOX, NO_FACE, OK, UNREADABLE
from dhm_cli.io.images import read_image
from dhm_cli.models.checkpoint import save_checkpoint
from dhm_cli.morphable.face_model import toy_face_model
from dhm_cli.runtime.atomic import partial_path

BLACK = np.zeros((400, 500, 3), np.uint8)


@pytest.fixture(scope="module")
def aligner(dummy_network: Path) -> Aligner:
    return Aligner("cpu", weights=dummy_network)


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """A folder of five photos: two portraits, a double portrait, one without a face, one damaged."""
    folder = tmp_path / "album"
    (folder / "trip, 1").mkdir(parents=True)
    data = ASTRONAUT.read_bytes()
    (folder / "a.png").write_bytes(data)
    (folder / "trip, 1" / "Zoë und Söhne.PNG").write_bytes(data)
    portrait = cv2.imread(str(ASTRONAUT))
    cv2.imwrite(str(folder / "trip, 1" / "a.png"), np.hstack([portrait, portrait]))
    cv2.imwrite(str(folder / "b.jpg"), np.full((200, 300, 3), 128, np.uint8))
    (folder / "c.png").write_bytes(data[:-3000])
    return folder


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file))


def expected_in_black(centre: NDArray[np.float64], side: float) -> NDArray[np.float64]:
    """What the dummy network's answer to a black crop is in the photo, by the resize rule."""
    scale = side / INPUT_SIZE
    return make_mean_shape() * 30 * scale + [*centre, 0.0]


def test_a_given_box_is_squared_and_enlarged(aligner: Aligner) -> None:
    boxes = [(100.0, 50.0, 80.0, 120.0), (300.5, 200.25, 60.0, 30.0)]
    faces = aligner.align(BLACK, boxes)
    assert [face.box for face in faces] == boxes
    assert all(math.isnan(face.score) for face in faces)
    for face, centre, longer in zip(faces, ([140.0, 110.0], [330.5, 215.25]), (120.0, 60.0), strict=True):
        expected = expected_in_black(np.array(centre), longer * math.sqrt(2))
        assert face.landmarks.dtype == np.float64
        np.testing.assert_allclose(face.landmarks, expected, atol=1e-3)
        np.testing.assert_allclose(face.pose, 0.0, atol=1e-3)


def test_refining_crops_around_the_landmarks(dummy_network: Path) -> None:
    aligner = Aligner("cpu", weights=dummy_network, refine=1)
    first = expected_in_black(np.array([140.0, 110.0]), 120 * math.sqrt(2))
    low, high = first[:, :2].min(axis=0), first[:, :2].max(axis=0)
    expected = expected_in_black((low + high) / 2, (high - low).max() * math.sqrt(2))
    face = aligner.align(BLACK, [(100.0, 50.0, 80.0, 120.0)])[0]
    np.testing.assert_allclose(face.landmarks, expected, atol=1e-3)


def test_a_network_with_a_face_model(tmp_path: Path) -> None:
    model = make_model("dhm").eval()
    save_checkpoint(tmp_path / "dhm.safetensors", model, "dhm", {})
    toy_face_model().save(tmp_path / "face_model.h5")
    options = {"device": "cpu", "weights": tmp_path / "dhm.safetensors", "face_model": tmp_path / "face_model.h5"}
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
    once = Aligner("cpu", weights=dummy_network, refine=1).align(astronaut)[0]
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


def variants(astronaut: NDArray[np.uint8]) -> dict[str, bytes]:
    """The same photo as it comes in the wild, by file name."""
    grey = np.repeat(cv2.cvtColor(astronaut, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    turned = {f"exif {k}.JPG": encode(store(astronaut), ".jpg") for k, store in STORED.items()}
    return {
        **{name: data[:2] + exif_segment(int(name[5])) + data[2:] for name, data in turned.items()},
        "grey.png": encode(grey[..., 0], ".png"),
        "rgba.png": encode(np.dstack([astronaut, grey[..., :1]]), ".png"),
        "16 bit.png": encode(astronaut.astype(np.uint16) * 257, ".png"),
        "日本 ß, 1.WebP": encode(astronaut, ".webp"),
    }


def test_the_same_photo_in_many_files(
    tmp_path: Path, aligner: Aligner, dummy_network: Path, astronaut: NDArray[np.uint8]
) -> None:
    folder = tmp_path / "variants"
    folder.mkdir()
    for name, data in variants(astronaut).items():
        (folder / name).write_bytes(data)
    align_files([folder], tmp_path / "out.csv", device="cpu", weights=dummy_network)
    rows = read_table(tmp_path / "out.csv")
    assert len(rows) == 12
    expected = aligner.align(astronaut)[0]
    for row in rows:
        assert row["status"] == OK
        landmarks = np.array([[float(row[f"{axis}_{k}"]) for axis in "xy"] for k in range(68)])
        assert np.abs(landmarks - expected.landmarks[:, :2]).max() < 4.0, row["path"]


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
        Aligner(**{"device": "cpu", "weights": dummy_network, **options})


def test_public_names() -> None:
    assert dhm_cli.Aligner is Aligner
    assert dhm_cli.Face.__name__ == "Face"
    with pytest.raises(AttributeError):
        _ = dhm_cli.Alinger


def test_table(album: Path, aligner: Aligner, dummy_network: Path, tmp_path: Path) -> None:
    out = tmp_path / "landmarks.csv"
    seen: list[tuple[int, int]] = []
    report = align_files(
        [album], out, device="cpu", weights=dummy_network, progress=lambda done, total: seen.append((done, total))
    )
    rows = read_table(out)
    names = ["a.png", "b.jpg", "c.png", "trip, 1/Zoë und Söhne.PNG", "trip, 1/a.png", "trip, 1/a.png"]
    assert [row["path"] for row in rows] == [str(album / name) for name in names]
    assert [row["status"] for row in rows] == [OK, NO_FACE, UNREADABLE, OK, OK, OK]
    assert [row["face"] for row in rows] == ["0", "", "", "0", "0", "1"]
    assert all(value == "" for row in rows[1:3] for value in list(row.values())[3:])
    face = aligner.align(read_image(album / "trip, 1" / "a.png"))[1]
    for k in (0, 33, 67):
        np.testing.assert_allclose([float(rows[5][f"{axis}_{k}"]) for axis in "xyz"], face.landmarks[k], atol=6e-4)
    np.testing.assert_allclose([float(rows[5][name]) for name in COLUMNS[4:8]], face.box, atol=6e-4)
    assert float(rows[5]["score"]) == pytest.approx(face.score, abs=6e-4)
    assert seen == [(k, 5) for k in range(6)]
    assert (report.faces, report.kept, len(report.results)) == (4, 0, 5)
    assert [Path(result.path).name for result in report.with_status(NO_FACE)] == ["b.jpg"]
    assert [(Path(r.path).name, r.reason) for r in report.with_status(UNREADABLE)] == [("c.png", "truncated PNG")]


def test_want_of_memory_is_a_matter_of_one_photo(
    album: Path, dummy_network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Session:
        """Has no memory for the larger copies of the photo without a face and of the double portrait."""

        def __init__(self, session: InferenceSession) -> None:
            self._run = session.run

        def run(self, outputs: list[str], inputs: dict[str, NDArray[np.float32]]) -> object:
            if max(inputs[next(iter(inputs))].shape) > 256:
                raise Fail("std::bad_alloc")
            return self._run(outputs, inputs)

    monkeypatch.setattr(yunet, "onnx_session", lambda model, name: Session(onnx_session(model, name)))
    report = align_files([album], tmp_path / "out.csv", device="cpu", weights=dummy_network)
    assert [result.status for result in report.results] == [OK, UNREADABLE, UNREADABLE, OK, UNREADABLE]
    reasons = [result.reason for result in report.results]
    assert reasons == ["", "not enough memory", "truncated PNG", "", "not enough memory"]


def test_threads_do_not_change_the_table(album: Path, dummy_network: Path, tmp_path: Path) -> None:
    outs = [tmp_path / "1.csv", tmp_path / "4.csv"]
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(3)
        for out, threads in zip(outs, (1, 4), strict=True):
            align_files([album], out, device="cpu", weights=dummy_network, threads=threads)
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(before)
    assert outs[0].read_bytes() == outs[1].read_bytes()


@pytest.mark.parametrize("after", [1, 3, 5])
def test_interruption_and_resume(album: Path, dummy_network: Path, tmp_path: Path, after: int) -> None:
    whole, out = tmp_path / "whole.csv", tmp_path / "landmarks.csv"
    expected = align_files([album], whole, device="cpu", weights=dummy_network)

    def stop(done: int, total: int) -> None:
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        align_files([album], out, device="cpu", weights=dummy_network, progress=stop)
    assert partial_path(out).is_file()
    assert not out.exists()
    report = align_files([album], out, device="cpu", weights=dummy_network, resume=True)
    assert report.kept == after - 1  # the last photo may have been torn, so it is done again
    assert out.read_bytes() == whole.read_bytes()
    assert not partial_path(out).exists()
    assert [(r.status, r.faces) for r in report.results] == [(r.status, r.faces) for r in expected.results]
    assert report.faces == 4


def test_only_a_few_photos_are_in_the_making(
    tmp_path: Path, dummy_network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for k in range(60):
        cv2.imwrite(str(folder / f"{k:02}.png"), np.zeros((8, 8, 3), np.uint8))
    read: list[Path] = []
    monkeypatch.setattr("dhm_cli.inference.photos.read_image", lambda path: (read.append(path), read_image(path))[1])
    lead: list[int] = []

    def dawdle(done: int, total: int) -> None:
        if done in (1, 2, 30):
            time.sleep(0.3)  # the workers get as far ahead as they may
        lead.append(len(read) - done)

    align_files([folder], tmp_path / "out.csv", device="cpu", weights=dummy_network, threads=2, progress=dawdle)
    assert len(read) == 60
    assert 4 <= max(lead) <= 8


def test_given_boxes(album: Path, dummy_network: Path, tmp_path: Path) -> None:
    boxes, out = tmp_path / "boxes.csv", tmp_path / "landmarks.csv"
    rows = [f"{album}/b.jpg,110,55,90,80", "b.jpg,50,20,60,60", f"{album}/c.png,1,1,9,9", "gone.jpg,1,1,9,9"]
    boxes.write_text("\n".join(["path,left,top,width,height", *rows]))
    report = align_files([album], out, boxes_csv=boxes, device="cpu", weights=dummy_network)
    table = read_table(out)
    found = [(Path(row["path"]).name, row["status"], row["face"], row["score"], row["left"]) for row in table]
    assert found[:3] == [
        ("a.png", NO_FACE, "", "", ""),
        ("b.jpg", OK, "0", "", "110.000"),
        ("c.png", UNREADABLE, "", "", ""),
    ]
    assert report.unused_boxes == ("b.jpg", "gone.jpg")
    # The crop is all grey, so the dummy network answers 128 / 16 = 8 crop pixels further right than in a black one.
    side = 90 * math.sqrt(2)
    expected = expected_in_black(np.array([155.0 + 8 * side / INPUT_SIZE, 95.0]), side)
    for k in range(68):
        np.testing.assert_allclose([float(table[1][f"{axis}_{k}"]) for axis in "xyz"], expected[k], atol=2e-3)


def test_a_box_outside_its_photo_takes_nothing_down_with_it(album: Path, dummy_network: Path, tmp_path: Path) -> None:
    boxes = tmp_path / "boxes.csv"
    lines = [f"{album}/b.jpg,{box}" for box in ("300,20,100,90", "100,20,90,90", "0,0,1e9,1")]
    boxes.write_text("\n".join(["path,left,top,width,height", *lines]))
    out = tmp_path / "out.csv"
    report = align_files([album / "b.jpg"], out, boxes_csv=boxes, device="cpu", weights=dummy_network)
    (result,) = report.with_status(BAD_BOX)
    assert result.faces == 1
    assert re.search(r"box left 300.* outside its 300 x 200", result.reason)
    with out.open(newline="") as file:
        table = list(csv.DictReader(file))
    assert re.search(r"box of 1e\+09 x 1 is more than 10 times its 300 x 200", result.reason)
    found = [(row["status"], row["face"], row["left"]) for row in table]
    assert found == [(OK, "0", "100.000"), (BAD_BOX, "", ""), (BAD_BOX, "", "")]


def test_overlays_mirror_the_folders(album: Path, dummy_network: Path, tmp_path: Path) -> None:
    drawn = tmp_path / "drawn"
    align_files([album], tmp_path / "out.csv", overlay_dir=drawn, device="cpu", weights=dummy_network)
    names = ["a.png.jpg", "b.jpg", "trip, 1/Zoë und Söhne.PNG.jpg", "trip, 1/a.png.jpg"]
    assert sorted(str(path.relative_to(drawn)) for path in drawn.rglob("*.jpg")) == sorted(names)
    photo, overlay = read_image(album / "a.png").astype(int), read_image(drawn / "a.png.jpg").astype(int)
    difference = np.abs(photo - overlay).max(axis=2)
    assert (difference[60:190, 160:300] > 60).sum() > 300
    assert difference[250:].mean() < 6
    np.testing.assert_allclose(read_image(drawn / "b.jpg"), 128, atol=2)


def test_overlays_never_touch_the_photos(album: Path, dummy_network: Path, tmp_path: Path) -> None:
    link = tmp_path / "link to the album"
    link.symlink_to(album, target_is_directory=True)
    for folder in (album, album.parent, link):
        with pytest.raises(InputError, match="lies in the folder for overlays"):
            align_files([album], tmp_path / "out.csv", overlay_dir=folder, device="cpu", weights=dummy_network)
    for name in ("soft link.jpg", "hard link.jpg"):
        drawn = tmp_path / name[:4]
        drawn.mkdir()
        if name.startswith("soft"):
            (drawn / "b.jpg").symlink_to(album / "b.jpg")
        else:
            os.link(album / "b.jpg", drawn / "b.jpg")
        with pytest.raises(InputError, match="would overwrite a photo"):
            align_files([album], tmp_path / "out.csv", overlay_dir=drawn, device="cpu", weights=dummy_network)
    assert not (tmp_path / "out.csv.partial").exists()


def test_overlays_of_photos_on_several_drives(
    album: Path, dummy_network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(paths: list[str]) -> str:
        raise ValueError("Paths don't have the same drive")

    monkeypatch.setattr("os.path.commonpath", refuse)
    with pytest.raises(InputError, match="several drives"):
        align_files([album], tmp_path / "out.csv", overlay_dir=tmp_path / "d", device="cpu", weights=dummy_network)


def test_an_overlay_that_cannot_be_made_costs_no_landmarks(dummy_network: Path, tmp_path: Path) -> None:
    folder, drawn = tmp_path / "odd", tmp_path / "drawn"
    folder.mkdir()
    long = "n" * 250 + ".png"  # with .jpg too long for a file name
    for name in ("a.png", long):
        (folder / name).write_bytes(ASTRONAUT.read_bytes())
    (folder / "wide.png").write_bytes(encode(np.zeros((16, 66_000, 3), np.uint8), ".png"))
    boxes = tmp_path / "boxes.csv"
    rows = ["a.png,180,70,90,106", f"{long},180,70,90,106", "wide.png,65000,2,12,12"]
    boxes.write_text("\n".join(["path,left,top,width,height", *rows]))
    out = tmp_path / "out.csv"
    report = align_files([folder], out, boxes_csv=boxes, overlay_dir=drawn, device="cpu", weights=dummy_network)
    assert [row["status"] for row in read_table(out)] == [OK] * 3
    assert [path.name for path in drawn.iterdir()] == ["a.png.jpg"]
    assert [result.overlay_problem for result in report.results] == [
        "",
        f"{long}.jpg is too long for a file name",
        "a JPEG cannot hold 66000 x 16 pixels",
    ]


def test_a_folder_for_overlays_that_cannot_be_written_stops_the_run(
    album: Path, dummy_network: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    options = {"device": "cpu", "weights": dummy_network}
    with pytest.raises(InputError, match="cannot be written") as caught:
        align_files([album], tmp_path / "out.csv", overlay_dir=tmp_path / "file", **options)
    assert "--overlay" in caught.value.hint


@pytest.mark.parametrize("error", [cv2.error("(-215) ssize.area()\n > 0"), MemoryError()])
def test_one_odd_photo_does_not_end_the_run(
    album: Path, dummy_network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    align = Aligner.align

    def fail_on_grey(self: Aligner, image: NDArray[np.uint8], boxes: object = None) -> list[Face]:
        if image.shape[0] == 200:
            raise error
        return align(self, image)

    monkeypatch.setattr(Aligner, "align", fail_on_grey)
    report = align_files([album], tmp_path / "out.csv", device="cpu", weights=dummy_network)
    statuses = [result.status for result in report.results]
    assert statuses == [OK, UNREADABLE, UNREADABLE, OK, OK]
    assert report.results[1].reason in ("(-215) ssize.area() > 0", "not enough memory")
    assert [row["status"] for row in read_table(tmp_path / "out.csv")] == [OK, UNREADABLE, UNREADABLE, OK, OK, OK]


def test_a_drawing_that_fails_costs_no_landmarks(
    album: Path, dummy_network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(image: NDArray[np.uint8], faces: object) -> NDArray[np.uint8]:
        raise MemoryError

    monkeypatch.setattr("dhm_cli.inference.overlays.draw_landmarks", fail)
    options = {"device": "cpu", "weights": dummy_network}
    report = align_files([album], tmp_path / "out.csv", overlay_dir=tmp_path / "drawn", **options)
    assert report.faces == 4
    assert report.results[0].overlay_problem == "not enough memory"


def test_a_face_in_a_panorama(dummy_network: Path, tmp_path: Path) -> None:
    # Beyond 32766 pixels OpenCV does not warp.
    (tmp_path / "wide.png").write_bytes(encode(np.zeros((512, 33_000, 3), np.uint8), ".png"))
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("path,left,top,width,height\nwide.png,32600,100,80,120\n")
    out, options = tmp_path / "out.csv", {"device": "cpu", "weights": dummy_network}
    report = align_files([tmp_path / "wide.png"], out, boxes_csv=boxes, **options)
    assert [result.status for result in report.results] == [OK]
    expected = expected_in_black(np.array([32_640.0, 160.0]), 120 * math.sqrt(2))
    row = read_table(out)[0]
    landmarks = np.array([[float(row[f"{axis}_{k}"]) for axis in "xyz"] for k in range(68)])
    np.testing.assert_allclose(landmarks, expected, atol=2e-3)


def test_memory_is_kept_by_runs_only(
    album: Path, dummy_network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bool] = []
    monkeypatch.setattr("dhm_cli.inference.photos._keep_freed_memory", lambda: calls.append(True))
    Aligner("cpu", weights=dummy_network)
    assert not calls
    align_files([album / "a.png"], tmp_path / "out.csv", device="cpu", weights=dummy_network)
    assert len(calls) == 1


def test_a_file_name_that_is_not_text(tmp_path: Path, dummy_network: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/odd\xff.png")
    try:
        Path(path).write_bytes(ASTRONAUT.read_bytes())
    except OSError:
        pytest.skip("this file system keeps no such names")
    out = tmp_path / "out.csv"
    report = align_files([path], out, overlay_dir=tmp_path / "drawn", device="cpu", weights=dummy_network)
    assert report.faces == 1
    assert read_table(out)[0]["path"] == path


def test_the_boxes_file_is_not_overwritten(album: Path, dummy_network: Path, tmp_path: Path) -> None:
    table = tmp_path / "landmarks.csv"
    table.write_text(f"path,left,top,width,height\n{album}/b.jpg,100,20,90,90\n")
    with pytest.raises(InputError, match="is the boxes file too"):
        align_files([album], table, boxes_csv=table, device="cpu", weights=dummy_network)
    assert table.read_text().startswith("path,left")
