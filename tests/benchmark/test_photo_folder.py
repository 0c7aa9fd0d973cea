"""`dhm align` on a folder of photos."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from dhm_cli.benchmark import photo_folder
from dhm_cli.benchmark.photo_folder import FOLDER_SIDE, LARGE, measure_folder, write_folder
from dhm_cli.benchmark.pipeline import PHOTO, open_scene
from dhm_cli.inference.yunet import FaceDetector
from dhm_cli.io.images import read_image
from dhm_cli.runtime.progress import silent


def test_the_folder_shows_faces(tmp_path: Path) -> None:
    scene = open_scene(PHOTO)
    write_folder(scene, tmp_path, 5)
    photos = [read_image(path) for path in sorted(tmp_path.iterdir())]
    assert [photo.shape for photo in photos] == [(FOLDER_SIDE, FOLDER_SIDE, 3)] * 5
    detector = FaceDetector()
    sides = [detector.detect(photo)[0].mean_side for photo in photos]
    assert all(0.3 * FOLDER_SIDE < side < 0.65 * FOLDER_SIDE for side in sides)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 5


def test_a_mixed_folder_has_large_photos_with_a_face_as_a_phone_writes_them(tmp_path: Path) -> None:
    write_folder(open_scene(PHOTO), tmp_path, 3, 2)
    files = sorted(tmp_path.iterdir())
    width, height = LARGE
    assert [read_image(file).shape[:2] for file in files] == [(height, width), (FOLDER_SIDE,) * 2, (height, width)]
    assert all(1e6 < files[k].stat().st_size < 6e6 for k in (0, 2))
    assert FaceDetector().detect(read_image(files[0]))[0].mean_side > width / 5


def test_photos_a_second_after_start_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photo_folder, "write_folder", lambda *_: None)
    monkeypatch.setattr(photo_folder, "_seconds_of_command", lambda _: 0.5)
    monkeypatch.setattr(photo_folder, "_peak_of_command", lambda _: 10**8)
    for seconds, rate in ((10.5, 10.0), (0.9, None)):  # of 101 photos
        clock = SimpleNamespace(perf_counter=iter([0.0, 2.0, 2.0, 2.0 + seconds]).__next__)
        monkeypatch.setattr(photo_folder, "time", clock)
        found = measure_folder("fast", "250 x 250", open_scene(PHOTO), [], 101, 1, silent)
        assert found.photos_per_s == rate
        assert found.seconds == (2.0, pytest.approx(seconds))
