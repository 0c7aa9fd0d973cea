"""A folder in which the commands of README and docs find what they name: small files in place of people's own."""

import json
import os
import shutil
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from dummy_network import write_dummy_network
from example_networks import make_mean_shape, small, small_checkpoint
from places import SAMPLE_DATA
from synthetic_faces import draw_300w_lp, draw_aflw2000
from typer.testing import CliRunner

from dhm_cli.cli.main import app
from dhm_cli.data.store import FaceStore
from dhm_cli.models.checkpoint import save_checkpoint
from dhm_cli.models.registry import build_model
from dhm_cli.morphable.face_model import FaceModel

PHOTOS = ("astronaut.png", "astronaut_turned_left_45.jpg")


def dhm(*arguments: str | Path) -> str:
    """Run `dhm` in this process; returns what it printed on both streams."""
    result = CliRunner(env={"COLUMNS": "80"}).invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="session")
def example_workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder; tests work in copies."""
    here = tmp_path_factory.mktemp("workplace")
    before = Path.cwd()
    os.chdir(here)
    try:
        Path("sample_data").symlink_to(SAMPLE_DATA)
        _photos()
        _datasets()
        _networks()
    finally:
        os.chdir(before)
    return here


@pytest.fixture
def workplace(example_workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder, in which the test works."""
    here = tmp_path / "here"
    shutil.copytree(example_workplace, here, symlinks=True)
    monkeypatch.chdir(here)
    return here


def _photos() -> None:
    Path("photos").mkdir()
    for name in PHOTOS:
        shutil.copy(SAMPLE_DATA / "photos" / name, "photos")
    turned = Path("photos") / PHOTOS[1]
    for name in ("holiday.jpg", "photo.jpg"):
        shutil.copy(turned, name)
    Path("more.txt").write_text("photo.jpg\n")
    Path("boxes.csv").write_text("path,left,top,width,height\n" + "".join(f"{n},180,87,92,88\n" for n in PHOTOS))
    with tarfile.open("photos-000.tar", "w") as pack, zipfile.ZipFile("photos.zip", "w") as archive:
        pack.add(turned, "a.jpg")
        archive.write(turned, "a.jpg")
    try:
        import av  # noqa: F401
        import pyarrow
        from pyarrow.parquet import write_table
    except ImportError:  # the tests say which commands need it
        return
    write_table(pyarrow.table({"path": ["a.jpg"], "image": [turned.read_bytes()]}), "photos.parquet")
    from clips import write_clip

    frames = [cv2.cvtColor(cv2.imread(str(turned)), cv2.COLOR_BGR2RGB)] * 4
    write_clip(Path("clip.mp4"), frames)


def _datasets() -> None:
    shutil.copy(SAMPLE_DATA / "toy_bfm.mat", "BFM.mat")
    shutil.copytree(SAMPLE_DATA / "faces", "faces")
    dhm("prepare", "faces", "--bfm", "BFM.mat", "--table", SAMPLE_DATA / "faces.csv")
    model = FaceModel.load(Path("data/face_model.h5"))
    draw_300w_lp(Path("300W_LP"), model, faces=2, views=2)
    truth = draw_aflw2000(Path("AFLW2000"), model)
    np.save("AFLW2000-3D-Reannotated.pts68.npy", truth[..., :2].transpose(0, 2, 1))
    dhm("prepare", "AFLW2000", "--bfm", "BFM.mat", "--reannotated", "AFLW2000-3D-Reannotated.pts68.npy")
    dhm("prepare", "300W_LP", "--bfm", "BFM.mat")
    labels = FaceStore(Path("data/faces.h5")).labels
    for name in ("merl", "extra", "ytf", "w300", "faces-profile"):
        shutil.copy("data/faces.h5", f"data/{name}.h5")
    shutil.copy("data/faces.h5", "mine.h5")
    for name in ("aflw_merl68", "aflw_extra"):
        Path(name).mkdir()
        np.savez(f"{name}/teacher68.npz", names=labels.names, landmarks=labels.landmarks[..., :2])
    scored = FaceStore(Path("data/aflw2000-3d.h5")).labels
    head = ",".join(f"{axis}_{k}" for axis in "xyz" for k in range(68))
    rows = [f"{n},0," + ",".join(map(str, p.T.ravel())) for n, p in zip(scored.names, scored.landmarks, strict=True)]
    Path("theirs.csv").write_text("\n".join([f"path,face,{head}", *rows]))
    Path("not_faces").mkdir()
    for k in range(20):
        noise = np.random.default_rng(k).integers(0, 255, (8, 8, 3), np.uint8)
        cv2.imwrite(f"not_faces/{k}.jpg", cv2.resize(noise, (120, 120)))


def _networks() -> None:
    for arch in ("fast", "fast-x2"):
        Path(f"runs/{arch}").mkdir(parents=True)
        small_checkpoint(Path(f"runs/{arch}/best.safetensors"))
    Path("runs/rhg").mkdir()
    settings = replace(small("rhg"), input_size=32, target="landmarks")
    save_checkpoint(Path("runs/rhg/best.safetensors"), build_model("rhg", make_mean_shape(), settings), "rhg", {})
    for name, channels in (("dhm", [16, 16]), ("rhg", [16])):
        Path(f"small-{name}.toml").write_text(f"[network]\ninput_size = 32\nchannels = {channels}\nhidden = 16\n")
    write_dummy_network(Path("mine.onnx"))
    Path("report").mkdir()
    report = {"schema": "dhm-evaluation", "schema_version": 1, "labels": "original", "protocol": "paper"}
    report |= {"data": {"name": "faces", "split": "val"}, "method": {}, "nme": {"mean_of_bins": 5.0}}
    Path("report/report.json").write_text(json.dumps(report))
