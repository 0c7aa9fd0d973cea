"""A video to outputs: rows, damage, interruption, drawn copies, cameras."""

import csv
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

av = pytest.importorskip("av", reason="PyAV, the extra [video], is not installed")

from clips import two_faces, write_clip  # noqa: E402
from example_photos import read_table  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from places import SAMPLE_DATA  # noqa: E402

from dhm_cli.alignment import videos  # noqa: E402
from dhm_cli.alignment.dense import DenseOptions  # noqa: E402
from dhm_cli.alignment.videos import align_video  # noqa: E402
from dhm_cli.errors import InputError  # noqa: E402
from dhm_cli.inference.columns import DEFAULT_COLUMNS  # noqa: E402
from dhm_cli.io.clip import Clip, Frame  # noqa: E402
from dhm_cli.io.images import read_image  # noqa: E402
from dhm_cli.io.pts import read_pts  # noqa: E402
from dhm_cli.writers import frame_pictures  # noqa: E402

SAMPLE = SAMPLE_DATA / "faces.mp4"
COLUMNS = ("track", *DEFAULT_COLUMNS, "sigma")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory, astronaut: NDArray[np.uint8]) -> Path:
    """40 frames of two faces."""
    frames = [two_faces(astronaut, [(100 + k, 100), (350 - k, 104)]) for k in range(40)]
    return write_clip(tmp_path_factory.mktemp("clip") / "Zoë, 1.mp4", frames, preset="ultrafast")


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints at every tenth frame."""
    monkeypatch.setattr(videos, "STRIDE", 10)


def test_the_sample_video(tmp_path: Path) -> None:
    report = align_video(SAMPLE, [tmp_path / "a.csv", tmp_path / "a.jsonl"], device="cpu", overlay=tmp_path / "a.mp4")
    assert (report.frames, report.tracks, report.faces, report.without, report.damaged) == (120, 2, 240, 0, 0)
    rows = read_table(tmp_path / "a.csv")
    assert list(rows[0])[:7] == ["path", "frame", "time", "face", "status", "track", "score"]
    assert [int(row["frame"]) for row in rows] == [k for k in range(120) for _ in range(2)]
    assert [int(row["track"]) for row in rows] == [0, 1] * 120
    np.testing.assert_allclose([float(row["time"]) for row in rows[::2]], np.arange(120) / 30, atol=1e-4)
    drawn = list(Clip(tmp_path / "a.mp4").read())
    plain = list(Clip(SAMPLE).read())
    assert len(drawn) == 120
    changed = np.abs(drawn[60].image.astype(int) - plain[60].image).max(axis=2) > 40
    left, top, width, height = (round(float(rows[120][name])) for name in ("left", "top", "width", "height"))
    assert changed[top : top + height, left : left + width].mean() > max(0.01, 5 * changed.mean())
    assert changed.mean() < 0.02
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", "a.jsonl", "a.mp4"}


def test_crops_tiles_and_points_of_a_video(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_pictures, "TILE_EVERY", 0.5)
    outs = [tmp_path / "a.csv", f"{tmp_path}/points/", tmp_path / "a.html"]
    align_video(clip, outs, device="cpu", crop_dir=tmp_path / "crops", crop_size=64, crop_style="arcface")
    rows = read_table(tmp_path / "a.csv")
    names = [f"Zoë, 1_{int(row['frame']):06}_{row['track']}" for row in rows]
    assert len(set(names)) == 80
    assert [Path(row["crop"]).name for row in rows] == [f"{name}.jpg" for name in names]
    assert {path.name for path in (tmp_path / "crops").iterdir()} == {f"{name}.jpg" for name in names}
    assert {path.stem for path in (tmp_path / "points").glob("*.pts")} == set(names)
    frames = list(Clip(clip).read())
    for row in (rows[0], rows[33]):  # the crop shows what lies in its frame where its matrix says
        matrix = np.array([[float(row[f"crop_matrix_{i}{j}"]) for j in range(3)] for i in range(2)])
        image = frames[int(row["frame"])].image
        assert image is not None
        expected = cv2.warpAffine(image, matrix, (64, 64), flags=cv2.INTER_AREA)
        found = read_image(row["crop"])
        assert found.shape == (64, 64, 3)
        assert np.abs(found.astype(int) - expected).mean() < 12
        points = read_pts(tmp_path / "points" / f"{Path(row['crop']).stem}.pts", merl_signs=False)[0]
        np.testing.assert_allclose(points[:, 0], [float(row[f"x_{k}"]) for k in range(68)], atol=2e-3)
    lines = (tmp_path / "a.html").read_text().splitlines()
    shown = [json.loads(line) for line in lines if line.startswith('{"path"')]
    assert len(shown) == 80
    tiles = [(row["frame"], row["track"]) for row in shown if row.get("webp")]
    assert tiles == [(0, 0), (0, 1), (15, 0), (15, 1), (30, 0), (30, 1)]
    assert "box" not in shown[2]


def test_meshes_of_a_video(tmp_path: Path, clip: Path) -> None:
    meshes = tmp_path / "meshes"
    meshes.mkdir()
    (meshes / "Zoë, 1_000003_1.ply").write_text("of somebody")
    dense = DenseOptions(meshes, "ply", texture=True)
    report = align_video(clip, tmp_path / "a.csv", device="cpu", dense=dense, columns=("track", "parameters"))
    rows = read_table(tmp_path / "a.csv")
    assert {path.name for path in meshes.iterdir()} == {
        f"Zoë, 1_{int(row['frame']):06}_{row['track']}.ply" for row in rows
    }
    assert (report.incomplete, "1.ply exists and is not made by --mesh" in report.problem) == (1, True)
    assert (meshes / "Zoë, 1_000003_0.ply").read_bytes().startswith(b"ply\n")


def test_smoothing_is_a_choice(tmp_path: Path, clip: Path) -> None:
    for smooth in ("none", "file", "live"):
        align_video(clip, tmp_path / f"{smooth}.csv", smooth=smooth, device="cpu")
    x = {k: [float(r["x_30"]) for r in read_table(tmp_path / f"{k}.csv")][::2] for k in ("none", "file", "live")}
    bends = {name: np.abs(np.diff(values, 2)).mean() for name, values in x.items()}
    assert bends["file"] < bends["none"]
    assert len(set(bends.values())) == 3


class Stopped(Exception):
    """Stands for a process that is killed."""


@pytest.mark.parametrize("frames", [5, 24, 39])
def test_an_interrupted_run_goes_on(tmp_path: Path, clip: Path, often: None, frames: int) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    crops: dict[str, Any] = {"device": "cpu", "crop_dir": tmp_path / "crops", "crop_size": 32}
    align_video(clip, [whole / "a.csv", whole / "a.npz", whole / "a.html"], overlay=whole / "a.mp4", **crops)
    cut = {path.name: path.read_bytes() for path in (tmp_path / "crops").iterdir()}
    shutil.rmtree(tmp_path / "crops")
    options: dict[str, Any] = {**crops, "overlay": out / "a.mp4"}
    outs = [out / "a.csv", out / "a.npz", out / "a.html"]

    def stop(done: int, total: int) -> None:
        assert total == 40
        if done >= frames:
            raise Stopped

    with pytest.raises(Stopped):
        align_video(clip, outs, progress=stop, **options)
    assert not (out / "a.csv").exists()
    with pytest.raises(InputError, match="interrupted"):
        align_video(clip, outs, **options)
    report = align_video(clip, outs, resume=True, **options)
    assert report.kept == (frames - 1) // 10 * 10
    assert report.frames == 40
    assert (out / "a.csv").read_bytes() == (whole / "a.csv").read_bytes()
    assert (out / "a.mp4").read_bytes() == (whole / "a.mp4").read_bytes()
    assert (out / "a.html").read_bytes() == (whole / "a.html").read_bytes()
    assert {path.name: path.read_bytes() for path in (tmp_path / "crops").iterdir()} == cut
    with np.load(out / "a.npz") as ours, np.load(whole / "a.npz") as theirs:
        assert all(np.array_equal(ours[name], theirs[name], equal_nan=ours[name].dtype.kind == "f") for name in theirs)
    assert {path.name for path in out.iterdir()} == {"a.csv", "a.npz", "a.html", "a.mp4"}


def test_a_run_of_other_options_does_not_go_on(tmp_path: Path, clip: Path, often: None) -> None:
    def stop(done: int, total: int) -> None:
        if done == 25:
            raise Stopped

    with pytest.raises(Stopped):
        align_video(clip, tmp_path / "a.csv", device="cpu", progress=stop, columns=COLUMNS)
    with pytest.raises(InputError, match="other options"):
        align_video(clip, tmp_path / "a.csv", device="cpu", smooth="live", columns=COLUMNS, resume=True)
    with pytest.raises(InputError, match="other options"):
        align_video(clip, tmp_path / "a.csv", device="cpu", crop_dir=tmp_path / "c", columns=COLUMNS, resume=True)
    (tmp_path / "a.csv.partial-state").write_bytes(b"damaged")
    report = align_video(clip, tmp_path / "a.csv", device="cpu", columns=COLUMNS, resume=True)  # from the first frame
    assert (report.kept, report.frames) == (0, 40)


def test_killed(tmp_path: Path) -> None:
    """The process is killed amid its work, with checkpoints at every tenth frame, and goes on."""
    code = (
        "import sys; from pathlib import Path; from dhm_cli.alignment import videos; videos.STRIDE = 10; "
        "videos.align_video(sys.argv[1], sys.argv[2], device='cpu', resume=True)"
    )
    out, partial = tmp_path / "a.csv", tmp_path / "a.csv.partial"
    process = subprocess.Popen([sys.executable, "-c", code, str(SAMPLE), str(out)])
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        if partial.exists() and partial.read_bytes().count(b"\n") > 50:
            break
        time.sleep(0.005)
    process.kill()
    process.wait()
    align_video(SAMPLE, tmp_path / "whole.csv", device="cpu")
    subprocess.run([sys.executable, "-c", code, str(SAMPLE), str(out)], check=True, timeout=120)
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_damaged_frame_has_a_row(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Clip.read

    def with_damage(self: Clip, start: int = 0) -> Iterator[Frame]:
        for frame in read(self, start):
            yield Frame(frame.index, frame.time, None, damaged=True) if frame.index in (0, 12) else frame

    monkeypatch.setattr(Clip, "read", with_damage)
    report = align_video(clip, tmp_path / "a.csv", device="cpu", overlay=tmp_path / "a.mp4", smooth="none")
    assert (report.damaged, report.frames, report.tracks) == (2, 40, 2)
    rows = read_table(tmp_path / "a.csv")
    assert [row["frame"] for row in rows if row["status"] == "unreadable"] == ["0", "12"]
    assert len(rows) == 2 * 38 + 2
    assert len(list(Clip(tmp_path / "a.mp4").read())) == 39  # nothing to show in place of the first


def test_a_camera_ends_by_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Camera:
        def __init__(self, number: int) -> None:
            self.name, self.frames, self.rate = f"camera {number}", 0, 30.0

        def read(self, start: int = 0) -> Iterator[Frame]:
            yield from (frame for frame in Clip(SAMPLE).read() if frame.index < 20)
            raise KeyboardInterrupt

        def close(self) -> None:
            pass

    monkeypatch.setattr(videos, "Camera", Camera)
    report = align_video(2, tmp_path / "a.csv", device="cpu")
    assert (report.name, report.frames, report.tracks) == ("camera 2", 20, 2)
    assert read_table(tmp_path / "a.csv")[0]["path"] == "camera 2"
    with pytest.raises(InputError, match="camera saw"):
        align_video(2, tmp_path / "b.csv", device="cpu", resume=True)


def test_outputs_that_are_refused(tmp_path: Path, clip: Path) -> None:
    (tmp_path / "mine.mp4").write_bytes(b"not drawn by dhm")
    for options, said in (
        ({"overlay": tmp_path / "folder"}, "ends in .mp4"),
        ({"overlay": tmp_path / "mine.mp4"}, "exists"),
        ({"overlay": clip}, "read by this command"),
        ({"smooth": "x"}, "--smooth"),
        ({"max_faces": 0}, "--max-faces"),
    ):
        with pytest.raises(InputError) as error:
            align_video(clip, tmp_path / "a.csv", device="cpu", **options)
        assert said in error.value.message + error.value.hint
    assert {path.name for path in tmp_path.iterdir()} == {"mine.mp4"}


def test_filters(tmp_path: Path, clip: Path) -> None:
    align_video(clip, tmp_path / "a.csv", device="cpu", largest=True, columns=["track"])
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["path", "frame", "time", "face", "status", "track"]
    assert len(rows) == 41
