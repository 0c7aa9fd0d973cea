"""`dhm evaluate` as a user meets it."""

import json
from pathlib import Path

import numpy as np
import pytest
from scored_faces import NAMES, make_labels, write_scored_store
from typer.testing import CliRunner, Result

from dhm_cli.cli.main import app
from dhm_cli.morphable.face_model import FaceModel


@pytest.fixture
def here(tmp_path: Path, toy_model: FaceModel, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the store faces.h5 and its truth as truth.npz."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    labels = make_labels(toy_model)
    write_scored_store(Path("faces.h5"), labels)
    np.savez("truth.npz", names=labels.names, landmarks=labels.landmarks)
    return tmp_path


def dhm(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def test_the_network_that_comes_with_the_package(here: Path) -> None:
    result = dhm("--data", "faces.h5", "--replicates", 100)
    assert result.exit_code == 0, result.output
    assert "fast on faces.h5: 8 test faces, original labels, protocol paper" in result.stdout
    for words in (
        "mean of bins",
        "failures beyond 6 %",
        "AUC@7",
        "95 % interval",
        "Fast DHM x2",
        "self-occluded",
        "pose",
    ):
        assert words in result.stdout, words
    assert "NOT comparable with this run" in result.stdout
    assert "B prints 4.11 as the mean of DHM" in " ".join(result.stdout.split())


def test_report(here: Path, dummy_network: Path) -> None:
    result = dhm(dummy_network, "--data", "faces.h5", "--report", "out", "--against", "truth.npz", "--threshold", 5)
    assert result.exit_code == 0, result.output
    assert "report: out/report.html" in result.stdout
    assert "dummy minus it" in result.stdout
    assert "too few images" in result.stdout
    report = json.loads(Path("out/report.json").read_text())
    assert report["failure_rate"]["threshold"] == 5.0
    assert "failures beyond 5 %" in result.stdout


def test_missing_faces_are_said(here: Path) -> None:
    with np.load("truth.npz") as truth:
        np.savez("some.npz", names=truth["names"][:7], landmarks=truth["landmarks"][:7])
    result = dhm("--predictions", "some.npz", "--data", "faces.h5", "--replicates", 100)
    assert result.exit_code == 0, result.output
    assert f"warning: 1 faces have no prediction (60-90 1; {NAMES[7]}): counted as failures" in result.stderr
    result = dhm("--predictions", "some.npz", "--data", "faces.h5", "--missing", "skip", "--replicates", 100)
    assert "left out" in result.stderr
    assert "7 test faces" in result.stdout


def test_one_based_points_are_suspected(here: Path) -> None:
    with np.load("truth.npz") as truth:
        np.savez("shifted.npz", names=truth["names"], landmarks=truth["landmarks"][..., :2] + 1)
    result = dhm("--predictions", "shifted.npz", "--data", "faces.h5", "--replicates", 100)
    assert "+1.00, +1.00 pixels off on the whole; are they 1-based?" in result.stderr
    assert "1-based" not in dhm("--predictions", "truth.npz", "--data", "faces.h5", "--replicates", 100).stderr


def test_jitter_prints_a_robustness_table(here: Path, dummy_network: Path) -> None:
    result = dhm(dummy_network, "--data", "faces.h5", "--protocol", "jitter", "--replicates", 100)
    assert result.exit_code == 0, result.output
    assert "boxes off by up to" in result.stdout
    assert "30 %" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--data", "absent.h5"), ("absent.h5: no such store", "dhm prepare")),
        (("--data", "truth.npz"), ("truth.npz: not a readable face store",)),
        (("--data", "faces.h5", "--labels", "reannotated"), ("no re-annotated points",)),
        (("--data", "faces.h5", "--split", "train"), ("no train faces, only test 8",)),
        (("--data", "faces.h5", "--predictions", "faces.h5"), ("faces.h5",)),
        (("--data", "faces.h5", "--predictions", "absent.json"), ("absent.json",)),
        (("truth.npz", "--data", "faces.h5"), ("truth.npz: not a network", "--predictions truth.npz")),
    ],
)
def test_bad_input_names_the_file_and_the_next_step(
    here: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    result = dhm(*arguments)
    assert result.exit_code == 1
    assert all(text in result.stderr for text in words), result.stderr
    assert result.stderr.startswith("error: ")
    assert "\nhint: " in result.stderr


def test_data_is_asked_for(here: Path) -> None:
    result = dhm()
    assert result.exit_code == 2
    assert "--data" in result.stderr
