"""The README's training commands on the sample data, and what users see when something is wrong."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dhm_cli.cli.main import app
from dhm_cli.data.store import FaceStore
from dhm_cli.errors import InputError
from dhm_cli.workflows.training import open_stores

SAMPLE_DATA = Path(__file__).parent.parent / "sample_data"


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
    output = dhm("train", "--arch", "fast", "--steps", "2", "--batch", "2", "--validate-every", "1", "--threads", "1")
    assert "step 2: validation NME" in output
    assert len(Path("runs/fast/metrics.jsonl").read_text().splitlines()) == 2
    assert "MB" in dhm("export", "runs/fast/best.safetensors")
    dhm("align", SAMPLE_DATA / "photos" / "astronaut.png", "--weights", "runs/fast/best.onnx")
    assert len(Path("landmarks.csv").read_text().splitlines()) == 2

    again = dhm("train", "--arch", "fast", "--steps", "2", expect=1)
    assert "error: runs/fast: holds a training run" in again
    assert "--resume" in again
    other = dhm("train", "--arch", "fast", "--steps", "3", "--batch", "4", "--resume", expect=1)
    assert "batch 2, not 4" in other


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
        (("train", "--data", "missing.h5"), "missing.h5: no such store", "dhm prepare"),
        (("train", "--data", "x.h5=heavy"), "'heavy' is not a positive number", "FILE.h5=0.5"),
        (("export", "missing.safetensors"), "missing.safetensors: no such checkpoint", "dhm train"),
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


def test_stores_with_weights(workplace: Path) -> None:
    store = workplace / "data" / "faces.h5"
    ((first, one), (_, half)) = open_stores([str(store), f"{store}=0.5"])
    assert (len(first), one, half) == (16, 1.0, 0.5)
    odd = workplace / "rate=0.1"
    odd.mkdir(exist_ok=True)
    (odd / "faces.h5").write_bytes(store.read_bytes())
    ((_, weight),) = open_stores([str(odd / "faces.h5")])
    assert weight == 1.0
    with pytest.raises(InputError, match="positive"):
        open_stores([f"{store}=-1"])


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_saves_and_resume_goes_on(workplace: Path, tmp_path: Path) -> None:
    """A real process, a real signal."""
    command = [sys.executable, "-m", "dhm_cli", "train", "--data", str(workplace / "data" / "faces.h5")]
    command += ["--out", str(tmp_path / "run"), "--batch", "2", "--validate-every", "1", "--threads", "1"]
    process = subprocess.Popen([*command, "--steps", "100000"], stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not metrics.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "--resume" in errors
    assert "Traceback" not in errors
    done = len(metrics.read_text().splitlines())
    assert done >= 1
    result = subprocess.run(
        [*command, "--steps", str(done + 1), "--resume"], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert len(metrics.read_text().splitlines()) >= done


def test_two_folders_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    folders = [Path(shutil.copytree(SAMPLE_DATA / "faces", tmp_path / name / "faces")) for name in "ab"]
    output = dhm("prepare", *folders, "--bfm", SAMPLE_DATA / "toy_bfm.mat", "--out", tmp_path, expect=1)
    assert f"error: {folders[1]}: would write one store" in output
    assert len(FaceStore(tmp_path / "faces.h5")) == 16


def test_what_the_disk_says_is_an_error_not_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    output = dhm("prepare", "--bfm", SAMPLE_DATA / "toy_bfm.mat", "--out", tmp_path / "file" / "data", expect=1)
    assert output.startswith("error: ")
    assert "ot a directory" in output
