"""`dhm prepare` as users type it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest
from model_files import write_face_model_mat
from places import ROOT
from synthetic_faces import SyntheticFaces, draw_300w_lp, draw_aflw2000
from typer.testing import CliRunner

from dhm_cli.cli.main import app
from dhm_cli.data.store import FaceStore
from dhm_cli.datasets.catalogue import DATASETS
from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.preparation import shards

# `dhm` with parts of three faces, so that a few faces make many parts.
# In a process of its own, which obeys SIGINT even where the tests run in the background.
SMALL_PARTS = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "import dhm_cli.preparation.shards as shards; shards.PART = 3; from dhm_cli.cli.main import main; main()"
)


def dhm(*arguments: str | Path, expect: int = 0) -> str:
    """Run `dhm` in this process; returns what it printed on both streams."""
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(a) for a in arguments])
    assert result.exit_code == expect, result.output
    return result.output


@pytest.fixture
def workplace(tmp_path: Path, toy_model: FaceModel, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with BFM.mat, two known datasets some folders deep, and things that are none."""
    write_face_model_mat(toy_model, tmp_path / "BFM.mat")
    draw_300w_lp(tmp_path / "datasets" / "300W_LP", toy_model, faces=2, views=2)
    draw_aflw2000(tmp_path / "datasets" / "AFLW2000", toy_model)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("x")
    (tmp_path / ".hidden").mkdir()
    shutil.copytree(tmp_path / "datasets" / "AFLW2000", tmp_path / ".hidden" / "AFLW2000")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_face_model_alone_converts_all_that_is_known_below(workplace: Path) -> None:
    output = dhm("prepare", "--bfm", "BFM.mat")
    assert sorted(p.name for p in (workplace / "data").iterdir()) == [
        "300w-lp-worst.png", "300w-lp.h5", "aflw2000-3d-worst.png", "aflw2000-3d.h5", "face_model.h5", "report.json",
    ]  # fmt: skip
    assert "wrote data/face_model.h5" in output
    assert "found 300W-LP in datasets/300W_LP" in output
    assert "aflw2000-3d.h5" in output
    assert "test 4" in output
    again = dhm("prepare", "--bfm", "BFM.mat")  # what it wrote itself is no dataset
    assert again.count("found ") == 2


def test_nothing_known_below(tmp_path: Path, toy_model: FaceModel, monkeypatch: pytest.MonkeyPatch) -> None:
    write_face_model_mat(toy_model, tmp_path / "BFM.mat")
    monkeypatch.chdir(tmp_path)
    assert "no known dataset below this folder" in dhm("prepare", "--bfm", "BFM.mat")
    assert (tmp_path / "data" / "face_model.h5").exists()


def test_one_bad_dataset_does_not_stop_the_others(workplace: Path) -> None:
    output = dhm("prepare", "notes", "datasets/AFLW2000", "--bfm", "BFM.mat", expect=1)
    assert "error: notes: no known dataset" in output
    assert (workplace / "data" / "aflw2000-3d.h5").exists()


def test_check_and_show(workplace: Path) -> None:
    dhm("prepare", "datasets/AFLW2000", "--bfm", "BFM.mat")
    assert "4 faces, 0 warnings, no errors" in dhm("prepare", "--check", "data/aflw2000-3d.h5")
    shown = dhm("prepare", "--show", "data/aflw2000-3d.h5")
    assert "dhm prepare AFLW2000" in shown
    assert (workplace / "data" / "aflw2000-3d.png").exists()
    assert "3DDFA" in dhm("prepare", "--show", "data/face_model.h5")
    with h5py.File("data/aflw2000-3d.h5", "a") as file:
        file["landmarks"][2, 5] = 1.0
    output = dhm("prepare", "--check", "data/aflw2000-3d.h5", expect=1)
    assert "aflw2000-3d.h5: error: 1 face whose landmarks are not the projection" in output
    assert "image00020.jpg" in output


def test_views_from_the_side(drawn_faces: SyntheticFaces, dense_model: FaceModel, workplace: Path) -> None:
    """The dense model, once as --surface and once as the face model itself."""
    dense_model.save(workplace / "dense.h5")
    few = workplace / "few faces"
    few.mkdir()
    for image in sorted(drawn_faces.folder.rglob("face_*.png")):
        for file in (image, image.with_suffix(".pts")):
            shutil.copyfile(file, few / file.name)
    folder = ("prepare", few, "--split", "train", "--profile", "1")
    output = dhm(*folder, "--bfm", "BFM.mat", "--surface", "dense.h5", "--out", "a")
    assert "few faces-profile.h5" in output
    views = FaceStore(workplace / "a" / "few faces-profile.h5")
    assert len(views) > 4
    assert "--profile 1 --surface 'toy mask'" in str(views.attributes["command"])
    dhm(*folder, "--bfm", "dense.h5", "--out", "b")
    assert len(FaceStore(workplace / "b" / "few faces-profile.h5")) == len(views)
    # A dataset without training faces has none to turn, and that is no error.
    output = dhm("prepare", "datasets/AFLW2000", "--bfm", "dense.h5", "--out", "b", "--profile", "1")
    assert "datasets/AFLW2000: no training faces" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to do"),
        (("--check", "absent.h5"), "absent.h5: no such store"),
        (("--show", "absent.h5"), "absent.h5: no such file"),
        (("--bfm", "absent.mat"), "absent.mat"),
        (("absent",), "absent: no such folder"),
        (("datasets/AFLW2000",), "face_model.h5: no such face model"),
        (("datasets/AFLW2000", "--format", "300w-lp", "--bfm", "BFM.mat"), "not the layout 300w-lp"),
        (("datasets/AFLW2000", "--expression", "x.mat"), "belong to a face model"),
        (("datasets/AFLW2000", "--bfm", "BFM.mat", "--profile", "1"), "name a dense one with --surface"),
        (("datasets/AFLW2000", "--bfm", "BFM.mat", "--table", "absent.csv"), "absent.csv"),
        (("datasets/AFLW2000", "--bfm", "BFM.mat", "--reannotated", "absent.npy"), "absent.npy"),
        (("datasets/AFLW2000", "--bfm", "BFM.mat", "--prior", "absent.npz"), "absent.npz"),
    ],
)
def test_what_users_see_when_something_is_wrong(workplace: Path, arguments: tuple[str, ...], message: str) -> None:
    output = dhm("prepare", *arguments, expect=1)
    assert message in output
    assert "hint: " in output
    assert "Traceback" not in output


def test_the_formats_are_the_layouts() -> None:
    output = dhm("prepare", "x", "--format", "nonsense", expect=2)
    assert all(f"'{name}'" in output for name in DATASETS)
    assert output.count("', '") == len(DATASETS)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_killed_conversion_goes_on_and_gives_the_same_file(
    workplace: Path, drawn_faces: SyntheticFaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped by Ctrl-C, started again, killed, and started again."""
    monkeypatch.setattr(shards, "PART", 3)

    def command(out: str) -> list[str]:
        bfm, folder = str(workplace / "BFM.mat"), str(drawn_faces.folder)
        return ["prepare", folder, "--bfm", bfm, "--out", str(workplace / out), "--workers", "1", "--split", "train"]

    parts, store = workplace / "cut" / ".drawn faces.parts", workplace / "cut" / "drawn faces.h5"

    def cut(how: signal.Signals, after: int) -> tuple[int, str]:
        pipe, code = subprocess.PIPE, [sys.executable, "-c", SMALL_PARTS, *command("cut")]
        process = subprocess.Popen(code, cwd=ROOT, stderr=pipe, stdout=pipe, text=True)
        deadline = time.monotonic() + 120
        while len(list(parts.glob("*.h5"))) < after and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        os.kill(process.pid, how)
        _, errors = process.communicate(timeout=60)
        assert after <= len(list(parts.glob("*.h5"))) < 8
        assert not store.exists()
        return process.returncode, errors

    code, errors = cut(signal.SIGINT, after=2)
    assert code == 130
    assert "the same command goes on from here" in errors
    assert "Traceback" not in errors
    done = {path: path.stat().st_mtime_ns for path in parts.glob("*.h5")}
    code, _ = cut(signal.SIGKILL, after=len(done) + 1)
    assert code == -signal.SIGKILL
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in done.items())
    dhm(*command("cut"))
    assert not parts.exists()
    dhm(*command("whole"))
    assert (workplace / "whole" / "drawn faces.h5").read_bytes() == store.read_bytes()
    assert len(FaceStore(store)) == 24
