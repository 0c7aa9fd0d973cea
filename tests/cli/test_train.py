"""The README's training commands on the sample data, and what users see when something is wrong."""

import csv
import errno
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import pytest
from places import SAMPLE_DATA
from printed import folded
from typer.testing import CliRunner

from dhm_cli.cli.main import app
from dhm_cli.config.toml import read_toml
from dhm_cli.data.store import FaceStore
from dhm_cli.errors import InputError
from dhm_cli.models.checkpoint import read_tensors, write_tensors
from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.runtime.atomic import written_atomically
from dhm_cli.training import run_folder
from dhm_cli.training.inputs import open_stores
from dhm_cli.training.objective import Objective
from dhm_cli.training.run_folder import RunFolder

SMALL_NETWORK = "[network]\ninput_size = 32\nblocks = [[16, 2]]\nrecurrent_channels = 16\nhead_rank = 8\n"


def dhm(*arguments: str | Path, expect: int = 0) -> str:
    """Run `dhm` in this process; returns what it printed on both streams."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == expect, result.output
    return result.output


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the sample data was prepared as the README says."""
    folder = tmp_path_factory.mktemp("work")
    before = Path.cwd()
    os.chdir(folder)
    try:
        dhm(
            *("prepare", SAMPLE_DATA / "faces", "--bfm", SAMPLE_DATA / "toy_bfm.mat"),
            *("--table", SAMPLE_DATA / "faces.csv"),
        )
    finally:
        os.chdir(before)
    return folder


def test_prepare_train_export_align(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    labels = FaceStore(Path("data/faces.h5")).labels
    assert len(labels) == 16
    Path("small.toml").write_text(SMALL_NETWORK)  # torch needs seconds to export the default one
    flags = ("--steps", "2", "--batch", "2", "--validate-every", "1", "--threads", "1")
    output = dhm("train", "--arch", "fast", "--config", "small.toml", *flags)
    assert "step 2: validation NME" in output
    assert re.search(r"^  0-30 \S+  30-60 \S+  60-90 \S+  mean of bins \S+  mean of images \S+$", output, re.M)
    folder = RunFolder(Path("runs/fast"))
    assert len(folder.rows()) == 2
    for picture in (folder.learning_curve, folder.sample(1), folder.sample(2)):
        assert cv2.imread(str(picture)).std() > 10
    assert "next: dhm export --model runs/fast/best.safetensors" in output
    exported = dhm("export", "--model", "runs/fast/best.safetensors")
    assert "MB" in exported
    assert "next: dhm align photos --model runs/fast/best.onnx" in exported
    dhm("align", SAMPLE_DATA / "photos" / "astronaut.png", "--model", "runs/fast/best.onnx")
    assert len(Path("landmarks.csv").read_text().splitlines()) == 2

    again = dhm("train", "--arch", "fast", "--steps", "2", expect=1)
    assert "error: runs/fast: holds a training run" in again
    assert "--resume" in again
    other = dhm("train", "--arch", "fast", "--steps", "3", "--batch", "4", "--resume", expect=1)
    assert "batch 2, not 4" in other


@pytest.fixture
def quick_curves() -> Iterator[None]:
    """Most of the time would go into learning curves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_folder, "save_learning_curve", lambda path, rows, warmup: None)
        yield


@pytest.fixture
def small(workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_curves: None) -> Path:
    """A settings file of small networks and short runs, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "small.toml"
    file.write_text(
        f'data = ["{(workplace / "data" / "faces.h5").as_posix()}"]\n'
        f"{SMALL_NETWORK}[training]\nsteps = 4\nbatch = 4\nvalidate_every = 4\nwarmup = 1\n"
    )
    return file


@pytest.fixture
def small_dhm(small: Path) -> Path:
    """The same for dhm and its relatives."""
    head, training = small.read_text().split("[network]")[0], small.read_text().split("[training]")[1]
    small.write_text(f"{head}[network]\ninput_size = 32\nchannels = [16, 16]\nhidden = 16\n[training]{training}")
    return small


def weights(run: str) -> dict[str, bytes]:
    names = ("state", "best", "last", "validation", "config")
    return {name: getattr(RunFolder(Path(run)), name).read_bytes() for name in names}


def test_resume_takes_the_settings_of_the_run_folder(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dhm("train", "--config", small, "--workers", "0", "--seed", "5", "--out", "whole")
    stop_after(monkeypatch, 3)
    stopped = dhm("train", "--config", small, "--workers", "0", "--seed", "5", "--out", "run", expect=130)
    assert "stopped at step 3; continue with: the same command and --resume" in stopped
    monkeypatch.undo()
    monkeypatch.chdir(small.parent)
    assert "holds a training run" in dhm("train", "--config", small, "--out", "run", expect=1)
    assert "seed 5, not 6" in dhm("train", "--out", "run", "--resume", "--seed", "6", expect=1)
    output = dhm("train", "--out", "run", "--resume", "--workers", "1")
    assert "best network: run" in output
    assert weights("run") == weights("whole")
    sessions = json.loads(RunFolder(Path("run")).record.read_text())["sessions"]
    assert [session["step"] for session in sessions] == [0, 3]


def test_resume_of_a_run_of_an_older_version(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its settings file and its state hold settings that no longer exist, at their defaults."""
    dhm("train", "--config", small, "--workers", "0", "--out", "whole")
    stop_after(monkeypatch, 3)
    dhm("train", "--config", small, "--workers", "0", "--out", "run", expect=130)
    monkeypatch.undo()
    monkeypatch.chdir(small.parent)
    retired = {"wing_start": 0.01, "part_weight": 0.0, "feature_weight": 0.0, "mirror_weight": 0.0}
    folder = RunFolder(Path("run"))
    lines = "".join(f"{name} = {value}\n" for name, value in retired.items())
    folder.config.write_text(folder.config.read_text().replace("[training]\n", f"[training]\n{lines}"))
    tensors, metadata = read_tensors(folder.state)
    metadata["state"]["run"]["training"].update(retired)
    write_tensors(folder.state, tensors, metadata)
    dhm("train", "--out", "run", "--resume", "--workers", "0")
    assert weights("run") == weights("whole")
    folder.config.write_text(folder.config.read_text().replace("[training]\n", "[training]\nmirror_weight = 0.5\n"))
    assert "training.mirror_weight is 0.5: this setting was removed" in dhm(
        "train", "--out", "run", "--resume", expect=1
    )


def test_resume_in_the_default_folder(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --arch and --out: the run in runs/fast, with its own settings."""
    stop_after(monkeypatch, 3)
    dhm("train", "--config", small, "--workers", "0", expect=130)
    monkeypatch.undo()
    monkeypatch.chdir(small.parent)
    assert "4 steps of 4" in folded(dhm("train", "--resume", "--workers", "0"))
    assert json.loads(RunFolder(Path("runs/fast")).record.read_text())["steps"] == 4


def test_the_settings_file_of_a_run_starts_another(small_dhm: Path) -> None:
    dhm("train", "--config", small_dhm, "--workers", "0", "--arch", "3dcnn", "--target", "landmarks", "--out", "a")
    dhm("train", "--config", "a/config.toml", "--workers", "0", "--out", "b")
    assert weights("a") == weights("b")
    assert read_toml(RunFolder(Path("b")).config)["arch"] == "3dcnn"
    assert cv2.imread(str(RunFolder(Path("b")).sample(4))).std() > 10


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Ctrl-C in the given step, counted over all runs from now."""
    original, calls = Objective.forward, []

    def interrupted(*arguments: Any) -> Any:
        calls.append(None)
        if len(calls) == steps:
            signal.raise_signal(signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(Objective, "forward", interrupted)


def test_overlap_is_warned_of_before_the_first_step(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sample faces twice, once all of them for training: the validation faces are among them."""
    folder = SAMPLE_DATA / "faces"
    dhm("prepare", folder, "--bfm", SAMPLE_DATA / "toy_bfm.mat", "--split", "train", "--name", "again", "--out", ".")
    stop_after(monkeypatch, 1)
    stores = [*read_toml(small)["data"], "again.h5"]
    flags = [flag for store in stores for flag in ("--data", store)]
    result = CliRunner().invoke(app, ["train", "--config", str(small), *flags, "--workers", "0", "--out", "run"])
    assert result.exit_code == 130, result.output
    first, *_ = result.stderr.splitlines()
    assert first.startswith("warning: ")
    assert "validation faces" in first
    assert "image of a training face" in result.stderr
    assert "warning" not in result.stdout


ABLATION = ("dhm", "3dcnn", "2drnn")


def test_ablation(small_dhm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in the second network, started again, and once more when all is done."""
    command = ("train", "--ablation", "--config", small_dhm, "--workers", "0", "--out", "ab")
    stop_after(monkeypatch, 4 + 3)
    assert "stopped at step 3" in dhm(*command, expect=130)
    assert not Path("ab/ced.png").exists()
    finished = weights("ab/dhm")
    monkeypatch.undo()
    monkeypatch.chdir(small_dhm.parent)

    output = dhm(*command)
    assert weights("ab/dhm") == finished
    assert sorted(p.name for p in Path("ab").iterdir()) == ["2drnn", "3dcnn", "ced.png", "comparison.csv", "dhm"]
    assert cv2.imread("ab/ced.png").std() > 10
    rows = list(csv.DictReader(Path("ab/comparison.csv").read_text().splitlines()))
    assert [(row["run"], row["arch"], row["steps"]) for row in rows] == [(arch, arch, "4") for arch in ABLATION]
    for row in rows:
        record = read_tensors(RunFolder(Path("ab") / row["run"]).best)[1]["training"]
        assert float(row["mean_of_bins"]) == pytest.approx(record["validation_nme"]["mean_of_bins"], abs=6e-4)
        line = next(line for line in output.splitlines() if line.startswith(f"{row['run']} "))
        assert f"{record['validation_nme']['mean_of_bins']:.2f}" in line
    alike = [read_toml(RunFolder(Path("ab") / arch).config) for arch in ABLATION]
    assert all(settings["training"] == alike[0]["training"] for settings in alike)
    trained = weights("ab/3dcnn")
    dhm("train", "--arch", "3dcnn", "--config", small_dhm, "--workers", "0", "--out", "alone")
    assert weights("alone") == trained

    stop_after(monkeypatch, 1)  # would stop any step
    again = dhm(*command)
    assert "comparison: " in again
    assert weights("ab/3dcnn") == trained


def test_prepare_of_a_face_model_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "BFM.mat").write_bytes((SAMPLE_DATA / "toy_bfm.mat").read_bytes())
    assert "data/face_model.h5" in dhm("prepare", "--bfm", "BFM.mat").replace("\n", "")
    assert (tmp_path / "data/face_model.h5").is_file()


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (("prepare",), "nothing to do", "--bfm"),
        (("prepare", "faces"), "faces: no such folder", "path"),
        (("prepare", str(SAMPLE_DATA / "faces")), "no such face model", "dhm prepare --bfm"),
        (("prepare", "--bfm", "missing.mat"), "missing.mat: no such file", "check"),
        (("prepare", "a", "b", "--name", "x", "--bfm", "missing.mat"), "--name needs exactly one folder", "once"),
        (("train", "--arch", "fats"), "unknown architecture 'fats'", "fast, fast-x2"),
        (("train",), "no store in data/", "dhm prepare FOLDER"),
        (("train", "--steps", "5", "--epochs", "2"), "--steps and --epochs: a run has one of them", "leave one out"),
        (("train", "--recipe", "worst"), "unknown recipe 'worst'", "best, paper"),
        (("train", "--batch", "1"), "--batch is 1: expected", ""),
        (("train", "--config", "missing.toml"), "missing.toml: cannot be read", "check the path"),
        (("train", "--target", "params"), "--target is 'params': expected landmarks", ""),
        (("train", "--device", "tpu9"), "--device tpu9", "auto, cpu, cuda"),
        (("train", "--data", "missing.h5"), "missing.h5: no such store", "dhm prepare"),
        (("train", "--data", "x.h5=heavy"), "'heavy' is not a positive number", "FILE.h5=0.5"),
        (("train", "--data", "x.h5="), "'' is not a positive number", "FILE.h5=0.5"),
        (("train", "--data", "x.safetensors"), "x.safetensors: no such store", "dhm prepare"),
        (("export", "--model", "missing.safetensors"), "missing.safetensors: no such checkpoint", "dhm train"),
    ],
)
def test_errors_name_the_problem_and_the_next_step(
    arguments: tuple[str, ...], message: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    output = dhm(*arguments, expect=1)
    error, _, advice = output.partition("\nhint: ")
    assert error.startswith("error: ")
    assert message in error
    assert hint in advice


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (("--resume",), "runs/fast: no training run to resume", "without --resume"),
        (("--teacher", "missing.safetensors"), "missing.safetensors: no such checkpoint", "dhm train"),
        (("--init", "missing.safetensors"), "missing.safetensors: no such checkpoint", "dhm train"),
        (("--teacher", "small.toml"), "small.toml: not a readable safetensors file", "copy"),
    ],
)
def test_errors_of_runs_that_have_data(small: Path, arguments: tuple[str, ...], message: str, hint: str) -> None:
    error, _, advice = dhm("train", "--config", small, *arguments, expect=1).partition("\nhint: ")
    assert error.startswith("error: ")
    assert message in error
    assert hint in advice
    assert not Path("runs").exists()


def test_another_face_model_is_named(small_dhm: Path, toy_model: FaceModel) -> None:
    missing = dhm("train", "--config", small_dhm, "--arch", "dhm", "--face-model", "missing.h5", expect=1)
    assert "missing.h5: no such face model" in missing
    assert "hint: make one with: dhm prepare --bfm" in missing
    replace(toy_model, mean=toy_model.mean * 2).save(Path("other.h5"))
    output = dhm("train", "--config", small_dhm, "--arch", "dhm", "--face-model", "other.h5", expect=1)
    assert "was prepared with face model" in folded(output)
    assert "but other.h5 is" in output


@pytest.mark.parametrize("flag", ["--arch", "--init"])
def test_ablation_takes_no_architecture(small: Path, flag: str) -> None:
    output = dhm("train", "--config", small, "--ablation", flag, "rhg", expect=2)
    assert "--ablation" in output
    assert flag in output


def test_a_store_given_twice(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    with pytest.raises(InputError, match=r"data/\.\./data/faces\.h5: given twice"):
        open_stores(["data/faces.h5", "data/../data/faces.h5=0.5"])


def test_ctrl_c_within_the_imports(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def available_cores() -> None:
        raise AssertionError("went on")

    class Module:
        @property
        def available_cores(self) -> object:
            signal.raise_signal(signal.SIGINT)
            return available_cores

    monkeypatch.setitem(sys.modules, "dhm_cli.runtime.threads", Module())
    assert dhm("train", "--config", small, expect=130) == "interrupted\n"


def test_stores_with_weights(workplace: Path) -> None:
    store = workplace / "data" / "faces.h5"
    other = shutil.copy(store, workplace / "other.h5")
    ((first, one), (_, half)) = open_stores([str(store), f"{other}=0.5"])
    assert (len(first), one, half) == (16, 1.0, 0.5)
    odd = workplace / "rate=0.1"
    odd.mkdir(exist_ok=True)
    (odd / "faces.h5").write_bytes(store.read_bytes())
    ((_, weight),) = open_stores([str(odd / "faces.h5")])
    assert weight == 1.0
    with pytest.raises(InputError, match="positive"):
        open_stores([f"{store}=-1"])


def test_two_folders_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    folders = [Path(shutil.copytree(SAMPLE_DATA / "faces", tmp_path / name / "faces")) for name in "ab"]
    output = dhm("prepare", *folders, "--bfm", SAMPLE_DATA / "toy_bfm.mat", "--out", tmp_path, expect=1)
    assert f"error: {folders[1]}: would write one store" in folded(output)
    assert len(FaceStore(tmp_path / "faces.h5")) == 16


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as raised, written_atomically(tmp_path / "run.json"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert raised.value.filename == str(tmp_path / "run.json")
    assert list(tmp_path.iterdir()) == []


def test_what_the_disk_says_is_an_error_not_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    output = dhm("prepare", "--bfm", SAMPLE_DATA / "toy_bfm.mat", "--out", tmp_path / "file" / "data", expect=1)
    assert output.startswith("error: ")
    assert "ot a directory" in output
