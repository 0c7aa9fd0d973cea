"""`dhm prepare` as users type it."""

import json
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
        (("datasets/AFLW2000", "--bfm", "BFM.mat", "--profile", "1", "--surface", "BFM.mat"), "name a dense one"),
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


FOREIGN = ("report.json", "aflw2000-3d-worst.png", "aflw2000-3d.h5", "face_model.h5")


@pytest.mark.parametrize("name", FOREIGN)
def test_no_output_replaces_a_file_of_another_kind_unless_forced(workplace: Path, name: str) -> None:
    """Only the store and the face model were looked at: report and picture replaced whatever had their names."""
    (workplace / "data").mkdir()
    own = workplace / "data" / name
    own.write_text("years of work")
    command = ("prepare", "datasets/AFLW2000", "--bfm", "BFM.mat")
    output = dhm(*command, expect=1)
    assert f"{name}: exists and is not a" in output
    assert "--force" in output
    assert own.read_text() == "years of work"
    assert [path.name for path in (workplace / "data").iterdir()] == [name], "nothing else is written"
    if name == FOREIGN[0]:  # once is enough
        dhm(*command, "--force")
        assert "aflw2000-3d" in own.read_text()
        dhm(*command)  # what it wrote itself needs no force


@pytest.mark.parametrize("option", ["--points", "--prior", "--table"])
def test_no_output_is_an_input(workplace: Path, option: str) -> None:
    """They did not count as inputs, so --force replaced them."""
    (workplace / "data").mkdir()
    own = workplace / "data" / "report.json"
    own.write_text("read and written")
    command = ("prepare", "datasets/AFLW2000", "--bfm", "BFM.mat", option, own, "--force")
    assert "report.json: is read by this command too" in dhm(*command, expect=1)
    assert own.read_text() == "read and written"


def test_a_contact_sheet_replaces_no_picture_of_another(workplace: Path, face_store: Path) -> None:
    shutil.copy(face_store, "faces.h5")
    Path("faces.png").write_bytes(b"a photo")
    assert "faces.png: exists and is not a picture that dhm drew" in dhm("prepare", "--show", "faces.h5", expect=1)
    assert Path("faces.png").read_bytes() == b"a photo"
    dhm("prepare", "--show", "faces.h5", "--force")
    dhm("prepare", "--show", "faces.h5")


def too_deep(folder: Path) -> None:
    """Make folders in the folder whose path is longer than a system can name."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(25):
        os.mkdir("d" * 200, dir_fd=here)
        inside = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inside
    os.close(here)


@pytest.mark.skipif(sys.platform == "win32", reason="paths of any length")
def test_a_folder_that_cannot_be_read_costs_its_own_faces_only(workplace: Path) -> None:
    """One refused the whole dataset, "cannot be read: File name too long"."""
    too_deep(workplace / "datasets" / "AFLW2000")
    output = dhm("prepare", "datasets/AFLW2000", "--bfm", "BFM.mat", expect=1)
    assert "cannot be read: File name too long" in output
    assert "all else was converted" in output
    assert max(map(len, output.splitlines())) <= 200
    assert len(FaceStore(Path("data/aflw2000-3d.h5"))) == 4
    (unread,) = json.loads(Path("data/report.json").read_text())["datasets"]["aflw2000-3d"]["unread"]
    assert "File name too long" in unread
    shutil.rmtree(workplace / "datasets" / "AFLW2000" / ("d" * 200))
    dhm("prepare", "datasets/AFLW2000", "--bfm", "BFM.mat")


def test_nothing_to_do_is_said_without_torch() -> None:
    """Its import takes seconds, which the refusal took too."""
    code = (
        "import sys; from dhm_cli.cli.main import app\n"
        "try: app(['prepare'])\n"
        "except SystemExit as end: print(end.code, sorted({'torch', 'numpy', 'cv2', 'h5py'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert "nothing to do" in result.stderr
    assert result.stdout.strip() == "1 []"


def test_a_format_is_no_dataset(drawn_faces: SyntheticFaces, workplace: Path) -> None:
    """Any folder of .pts files with signs was shown as merl-rav, and found as MERL-RAV."""
    mine = workplace / "my photos"
    shutil.copytree(drawn_faces.folder, mine)
    shutil.rmtree("datasets")
    output = dhm("prepare", "--bfm", "BFM.mat")
    assert "found images with signed .pts files in my photos" in output
    assert "merl" not in (output + Path("data/report.json").read_text()).lower()
    report = json.loads(Path("data/report.json").read_text())["datasets"]["my photos"]
    assert (report["dataset"], report["format"]) == ("my photos", "signed-pts")
    output = dhm("prepare", "my photos", "--bfm", "BFM.mat", "--name", "friends")
    assert "friends" in output.partition("dataset")[2]
    assert json.loads(Path("data/report.json").read_text())["datasets"]["friends"]["dataset"] == "friends"
    refused = dhm("prepare", "my photos", "--format", "merl-rav", expect=2)
    assert "signed-pts" in refused
