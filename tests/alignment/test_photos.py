"""Many photos to one output: tables, given boxes, odd photos, interruption."""

import csv
import errno
import math
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from dummy_network import INPUT_SIZE, answer_in_black
from example_photos import ASTRONAUT, STORED, encode, exif_segment, read_table, write_album
from numpy.typing import NDArray
from onnxruntime import InferenceSession
from onnxruntime.capi.onnxruntime_pybind11_state import Fail
from places import ROOT

from dhm_cli.alignment import photos
from dhm_cli.alignment.photos import align_files
from dhm_cli.errors import InputError
from dhm_cli.inference import yunet
from dhm_cli.inference.aligner import Aligner, Face
from dhm_cli.inference.engines import Answer, OnnxEngine
from dhm_cli.inference.onnx_session import onnx_session
from dhm_cli.inference.results import BAD_BOX, NO_FACE, OK, UNREADABLE, partial_path
from dhm_cli.io.images import read_image
from dhm_cli.runtime.processes import Processes

BLACK = np.zeros((400, 500, 3), np.uint8)


@pytest.fixture
def album(tmp_path: Path) -> Path:
    return write_album(tmp_path / "album")


@pytest.fixture(scope="module")
def aligner(dummy_network: Path) -> Aligner:
    return Aligner("cpu", model=dummy_network)


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
    align_files([folder], tmp_path / "out.csv", device="cpu", model=dummy_network)
    rows = read_table(tmp_path / "out.csv")
    assert len(rows) == 12
    expected = aligner.align(astronaut)[0]
    for row in rows:
        assert row["status"] == OK
        landmarks = np.array([[float(row[f"{axis}_{k}"]) for axis in "xy"] for k in range(68)])
        assert np.abs(landmarks - expected.landmarks[:, :2]).max() < 4.0, row["path"]


def test_table(album: Path, aligner: Aligner, dummy_network: Path, tmp_path: Path) -> None:
    out = tmp_path / "landmarks.csv"
    seen: list[tuple[int, int]] = []
    report = align_files(
        [album], out, device="cpu", model=dummy_network, progress=lambda done, total: seen.append((done, total))
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
    box = [float(rows[5][name]) for name in ("left", "top", "width", "height")]
    np.testing.assert_allclose(box, face.box, atol=6e-4)
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
    report = align_files([album], tmp_path / "out.csv", device="cpu", model=dummy_network)
    assert [result.status for result in report.results] == [OK, UNREADABLE, UNREADABLE, OK, UNREADABLE]
    reasons = [result.reason for result in report.results]
    assert reasons == ["", "not enough memory", "truncated PNG", "", "not enough memory"]


def test_threads_do_not_change_the_table(album: Path, dummy_network: Path, tmp_path: Path) -> None:
    outs = [tmp_path / "1.csv", tmp_path / "4.csv"]
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(3)
        for out, threads in zip(outs, (1, 4), strict=True):
            align_files([album], out, device="cpu", model=dummy_network, threads=threads)
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(before)
    assert outs[0].read_bytes() == outs[1].read_bytes()


def test_processes_do_not_change_the_table(
    album: Path, dummy_network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outs = [tmp_path / "threads.csv", tmp_path / "processes.csv"]
    reports = []
    for out, few in zip(outs, (1000, 1), strict=True):
        monkeypatch.setattr(photos, "_FEW", few)
        reports.append(align_files([album], out, device="cpu", model=dummy_network, threads=2))
    assert outs[0].read_bytes() == outs[1].read_bytes()
    assert reports[0].results == reports[1].results


def test_no_more_processes_start_than_photos_are_left(
    album: Path, dummy_network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    monkeypatch.setattr(photos, "_FEW", 3)

    class Counted(Processes[Any, Any]):
        def __init__(self, work: Any, count: int) -> None:
            counts.append(count)
            super().__init__(work, count)

    monkeypatch.setattr(photos, "Processes", Counted)
    report = align_files([album], tmp_path / "out.csv", device="cpu", model=dummy_network, threads=64)
    assert counts == [len(report.results) - 3]


@pytest.mark.parametrize("after", [1, 3, 5])
def test_interruption_and_resume(album: Path, dummy_network: Path, tmp_path: Path, after: int) -> None:
    whole, out = tmp_path / "whole.csv", tmp_path / "landmarks.csv"
    expected = align_files([album], whole, device="cpu", model=dummy_network)

    def stop(done: int, total: int) -> None:
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        align_files([album], out, device="cpu", model=dummy_network, progress=stop)
    assert partial_path(out).is_file()
    assert not out.exists()
    report = align_files([album], out, device="cpu", model=dummy_network, resume=True)
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
    monkeypatch.setattr("dhm_cli.alignment.photos.read_photo", lambda path, _: (read.append(path), read_image(path))[1])
    lead: list[int] = []

    def dawdle(done: int, total: int) -> None:
        before = -1
        while done in (1, 2, 30) and len(read) > before:  # the workers get as far ahead as they may
            before = len(read)
            time.sleep(0.05)
        lead.append(len(read) - done)

    align_files([folder], tmp_path / "out.csv", device="cpu", model=dummy_network, threads=2, progress=dawdle)
    assert len(read) == 60
    assert 4 <= max(lead) <= 8


def test_given_boxes(album: Path, dummy_network: Path, tmp_path: Path) -> None:
    boxes, out = tmp_path / "boxes.csv", tmp_path / "landmarks.csv"
    rows = [f"{album}/b.jpg,110,55,90,80", "b.jpg,50,20,60,60", f"{album}/c.png,1,1,9,9", "gone.jpg,1,1,9,9"]
    boxes.write_text("\n".join(["path,left,top,width,height", *rows]))
    report = align_files([album], out, boxes_csv=boxes, device="cpu", model=dummy_network)
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
    expected = answer_in_black(np.array([155.0 + 8 * side / INPUT_SIZE, 95.0]), side)
    for k in range(68):
        np.testing.assert_allclose([float(table[1][f"{axis}_{k}"]) for axis in "xyz"], expected[k], atol=2e-3)


def test_a_box_outside_its_photo_takes_nothing_down_with_it(album: Path, dummy_network: Path, tmp_path: Path) -> None:
    boxes = tmp_path / "boxes.csv"
    lines = [f"{album}/b.jpg,{box}" for box in ("300,20,100,90", "100,20,90,90", "0,0,1e9,1")]
    boxes.write_text("\n".join(["path,left,top,width,height", *lines]))
    out = tmp_path / "out.csv"
    report = align_files([album / "b.jpg"], out, boxes_csv=boxes, device="cpu", model=dummy_network)
    (result,) = report.with_status(BAD_BOX)
    assert result.faces == 1
    assert re.search(r"box left 300.* outside its 300 x 200", result.reason)
    with out.open(newline="") as file:
        table = list(csv.DictReader(file))
    assert re.search(r"box of 1e\+09 x 1 is more than 10 times its 300 x 200", result.reason)
    found = [(row["status"], row["face"], row["left"]) for row in table]
    assert found == [(OK, "0", "100.000"), (BAD_BOX, "", ""), (BAD_BOX, "", "")]


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
    report = align_files([album], tmp_path / "out.csv", device="cpu", model=dummy_network)
    statuses = [result.status for result in report.results]
    assert statuses == [OK, UNREADABLE, UNREADABLE, OK, OK]
    assert report.results[1].reason in ("(-215) ssize.area() > 0", "not enough memory")
    assert [row["status"] for row in read_table(tmp_path / "out.csv")] == [OK, UNREADABLE, UNREADABLE, OK, OK, OK]


def test_a_face_in_a_panorama(dummy_network: Path, tmp_path: Path) -> None:
    # Beyond 32766 pixels OpenCV does not warp.
    (tmp_path / "wide.png").write_bytes(encode(np.zeros((512, 33_000, 3), np.uint8), ".png"))
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("path,left,top,width,height\nwide.png,32600,100,80,120\n")
    out, options = tmp_path / "out.csv", {"device": "cpu", "model": dummy_network}
    report = align_files([tmp_path / "wide.png"], out, boxes_csv=boxes, **options)
    assert [result.status for result in report.results] == [OK]
    expected = answer_in_black(np.array([32_640.0, 160.0]), 120 * math.sqrt(2))
    row = read_table(out)[0]
    landmarks = np.array([[float(row[f"{axis}_{k}"]) for axis in "xyz"] for k in range(68)])
    np.testing.assert_allclose(landmarks, expected, atol=2e-3)


def test_memory_is_kept_by_runs_only(
    album: Path, dummy_network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bool] = []
    monkeypatch.setattr("dhm_cli.alignment.photos.keep_freed_memory", lambda: calls.append(True))
    Aligner("cpu", model=dummy_network)
    assert not calls
    align_files([album / "a.png"], tmp_path / "out.csv", device="cpu", model=dummy_network)
    assert len(calls) == 1


def test_a_file_name_that_is_not_text(tmp_path: Path, dummy_network: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/odd\xff.png")
    try:
        Path(path).write_bytes(ASTRONAUT.read_bytes())
    except OSError:
        pytest.skip("this file system keeps no such names")
    out = tmp_path / "out.csv"
    report = align_files([path], out, overlay_dir=tmp_path / "drawn", device="cpu", model=dummy_network)
    assert report.faces == 1
    assert read_table(out)[0]["path"] == path


def test_the_boxes_file_is_not_overwritten(album: Path, dummy_network: Path, tmp_path: Path) -> None:
    table = tmp_path / "landmarks.csv"
    table.write_text(f"path,left,top,width,height\n{album}/b.jpg,100,20,90,90\n")
    with pytest.raises(InputError, match="is read by this command too"):
        align_files([album], table, boxes_csv=table, device="cpu", model=dummy_network)
    assert table.read_text().startswith("path,left")


# --- nothing is destroyed


def test_the_photo_itself_is_no_place_for_the_table(album: Path, dummy_network: Path, tmp_path: Path) -> None:
    photo = album / "a.png"
    before = photo.read_bytes()
    (tmp_path / "link.csv").symlink_to(photo)
    with pytest.raises(InputError, match="is read by this command too"):
        align_files([photo], tmp_path / "link.csv", device="cpu", model=dummy_network, force=True)
    assert photo.read_bytes() == before


def test_a_file_that_dhm_did_not_write_is_kept(album: Path, dummy_network: Path, tmp_path: Path) -> None:
    out = tmp_path / "marks.csv"
    out.write_text("name,mark\nAda,1\n")
    with pytest.raises(InputError, match="exists and is not an output of dhm align"):
        align_files([album], out, device="cpu", model=dummy_network)
    assert out.read_text().startswith("name,mark")
    align_files([album], out, device="cpu", model=dummy_network, force=True)
    align_files([album], out, device="cpu", model=dummy_network)  # its own table is replaced
    assert len(read_table(out)) == 6
    assert sorted(os.listdir(tmp_path)) == ["album", "marks.csv"]


def test_a_foreign_partial_file_is_kept(album: Path, dummy_network: Path, tmp_path: Path) -> None:
    (tmp_path / "out.csv.partial").write_text("of somebody else")
    with pytest.raises(InputError, match=r"out\.csv\.partial: in the way"):
        align_files([album], tmp_path / "out.csv", device="cpu", model=dummy_network)
    assert (tmp_path / "out.csv.partial").read_text() == "of somebody else"


def test_a_link_is_followed(album: Path, dummy_network: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "out.csv").symlink_to(tmp_path / "real" / "table.csv")
    align_files([album], tmp_path / "out.csv", device="cpu", model=dummy_network)
    assert (tmp_path / "out.csv").is_symlink()
    assert len(read_table(tmp_path / "real" / "table.csv")) == 6


def test_a_pipe_gets_the_rows_and_stays_a_pipe(album: Path, dummy_network: Path, tmp_path: Path) -> None:
    align_files([album], tmp_path / "out.csv", device="cpu", model=dummy_network)
    os.mkfifo(tmp_path / "pipe")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    align_files([album], tmp_path / "pipe", device="cpu", model=dummy_network)
    reader.join(timeout=30)
    assert read == [(tmp_path / "out.csv").read_bytes()]
    assert (tmp_path / "pipe").is_fifo()
    with pytest.raises(InputError, match="what went into a stream is gone"):
        align_files([album], tmp_path / "pipe", device="cpu", model=dummy_network, resume=True)


def test_two_runs_on_one_table(album: Path, dummy_network: Path, tmp_path: Path) -> None:
    """The second used to write into the first one's table."""
    out = tmp_path / "out.csv"
    code = (
        "import sys; from pathlib import Path; from dhm_cli.writers.registry import open_writer\n"
        "table = open_writer(Path(sys.argv[1])); print('open', flush=True); sys.stdin.read()"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        for resume in (False, True):
            with pytest.raises(InputError, match="another dhm align is writing this table"):
                align_files([album], out, device="cpu", model=dummy_network, resume=resume)
        other.kill()
    assert len(align_files([album], out, device="cpu", model=dummy_network, resume=True).results) == 5
    assert sorted(os.listdir(tmp_path)) == ["album", "out.csv"]


def test_a_full_disk_names_the_file_and_the_next_step(
    album: Path, dummy_network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("dhm_cli.writers.row_files.move_into_place", full)
    with pytest.raises(InputError, match=r"out\.csv: cannot be written: No space left") as caught:
        align_files([album], tmp_path / "out.csv", device="cpu", model=dummy_network)
    assert "--resume" in caught.value.hint


def test_the_table_is_on_the_disk_before_it_has_its_name(
    album: Path, dummy_network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (order.append("fsync"), fsync(file))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append(Path(b).name), replace(a, b))[1])
    align_files([album], tmp_path / "out.csv", device="cpu", model=dummy_network)
    assert order[-2:] == ["fsync", "out.csv"]


# --- nothing hangs or dies


def test_pipes_and_bombs_among_the_photos_cost_a_row(album: Path, dummy_network: Path, tmp_path: Path) -> None:
    os.mkfifo(album / "pipe.jpg")
    (album / "wide.png").write_bytes(encode(np.zeros((300, 400, 3), np.uint8), ".png"))
    options = {"device": "cpu", "model": dummy_network, "most_pixels": 100_000}
    small = encode(np.zeros((30, 40, 3), np.uint8), ".png")
    for name in ("a.png", "b.jpg"):
        (album / name).write_bytes(small)
    report = align_files([album / n for n in ("a.png", "pipe.jpg", "wide.png", "b.jpg")], tmp_path / "o.csv", **options)
    assert [result.status for result in report.results] == [NO_FACE, UNREADABLE, UNREADABLE, NO_FACE]
    assert report.results[1].problems == ("not a regular file but a pipe",)
    assert "400 x 300 pixels, more than 0.1 megapixels" in report.results[2].reason


def test_a_network_that_answers_no_numbers_costs_a_row(
    album: Path, dummy_network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It used to end the run with a traceback."""
    original = OnnxEngine.answer

    def broken(self: OnnxEngine, crops: NDArray[np.uint8]) -> Answer:
        found = original(self, crops)
        return Answer(found.landmarks * np.nan) if len(crops) == 1 else found

    monkeypatch.setattr(OnnxEngine, "answer", broken)
    report = align_files([album], tmp_path / "out.csv", device="cpu", model=dummy_network)
    assert len(report.results) == 5
    wrong = [result for result in report.results if "no number" in result.reason]
    assert [result.status for result in wrong] == [UNREADABLE] * 2
    assert report.faces == 2  # of the photo with two


def test_folders_and_kinds_that_were_passed_over_are_told(
    album: Path, dummy_network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dhm_cli.io.photo_search.reads_heic", lambda: False)
    (album / "phone.heic").touch()
    (album / "clip.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    scan = os.scandir

    def refuse(folder: Path) -> object:
        if Path(folder).name == "trip, 1":
            raise PermissionError(13, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    report = align_files([album, album / "clip.mp4"], tmp_path / "out.csv", device="cpu", model=dummy_network)
    assert report.unsearched == (f"{album / 'trip, 1'}: cannot be searched: Permission denied",)
    assert dict(report.not_read) == {".heic": 1}
    assert "a video is aligned alone" in report.results[-1].reason
