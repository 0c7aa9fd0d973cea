"""`dhm evaluate` as a user meets it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scored_faces import NAMES, make_labels, write_scored_store
from typer.testing import CliRunner, Result

from dhm_cli.cli.main import app
from dhm_cli.evaluation.report_folder import ReportFolder
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


def folded(text: str) -> str:
    """A text without its line breaks."""
    return " ".join(text.split())


def test_the_network_that_comes_with_the_package(here: Path) -> None:
    result = dhm("--data", "faces.h5", "--replicates", 100)
    assert result.exit_code == 0, result.output
    assert "fast on faces.h5: 8 test faces, original labels, protocol paper" in result.stdout
    for words in (
        "mean of bins",
        "failures beyond 6 %",
        "AUC@7",
        "95 % interval",
        "self-occluded",
        "pose",
    ):
        assert words in result.stdout, words
    assert "Published rows on AFLW2000-3D are not comparable with this run" in folded(result.stdout)
    assert "Fast DHM x2" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_report(here: Path, dummy_network: Path) -> None:
    result = dhm(
        "--model", dummy_network, "--data", "faces.h5", "--report", "out", "--against", "truth.npz", "--threshold", 5
    )
    assert result.exit_code == 0, result.output
    assert "report: out/report.html" in result.stdout
    assert "next: open out/report.html in a browser" in result.stderr
    assert "dummy minus truth, by paired bootstrap" in result.stdout
    assert "too few images" in result.stdout
    report = json.loads(Path("out/report.json").read_text())
    assert report["failure_rate"]["threshold"] == 5.0
    assert "failures beyond 5 %" in result.stdout


def test_json_to_a_file_and_to_standard_output(here: Path) -> None:
    to_file = dhm("--predictions", "truth.npz", "--data", "faces.h5", "--replicates", 100, "--json", "out.json")
    assert to_file.exit_code == 0, to_file.output
    result = dhm("--predictions", "truth.npz", "--data", "faces.h5", "--replicates", 100, "--json", "-")
    found = json.loads(result.stdout)
    assert found["nme"]["mean_of_bins"] == pytest.approx(0.0, abs=1e-4)
    assert "mean of bins" in result.stderr
    saved = json.loads(Path("out.json").read_text())
    for report in (found, saved):
        report.pop("environment")
    assert found == saved
    again = dhm("--predictions", "truth.npz", "--data", "faces.h5", "--replicates", 100, "--json", "out.json")
    assert again.exit_code == 0, again.output


@pytest.mark.usefixtures("no_charts")
def test_published_rows_only_where_they_can_be_compared_or_on_demand(here: Path) -> None:
    plain = ("--predictions", "truth.npz", "--data", "faces.h5", "--replicates", 100)
    result = dhm(*plain, "--report", "out", "--published")
    assert "NOT comparable with this run" in result.stdout
    assert "Fast DHM x2" in result.stdout
    assert "Fast DHM x2" in Path("out/report.html").read_text()
    assert max(map(len, result.stdout.splitlines())) <= 80
    dhm(*plain, "--report", "out")
    page = Path("out/report.html").read_text()
    assert "cannot be compared with this evaluation" in page
    assert "Fast DHM x2" not in page


def test_reannotated_labels_are_read_with_both_origins(here: Path, toy_model: FaceModel) -> None:
    """The store's number, here recorded as 0, and the other one: shifted by a pixel."""
    labels = make_labels(toy_model)
    second = labels.landmarks[..., :2]
    write_scored_store(Path("two.h5"), make_labels(toy_model, reannotated=second), reannotated_origin=0)
    np.savez("shifted.npz", names=labels.names, landmarks=second - 1)
    more = ("--data", "two.h5", "--labels", "reannotated", "--replicates", 100, "--json", "out.json")
    result = dhm("--predictions", "shifted.npz", *more)
    assert result.exit_code == 0, result.output
    report = json.loads(Path("out.json").read_text())
    assert report["nme"]["mean_of_images"] > 0.5
    assert report["other_origin"]["origin"] == 1
    assert report["other_origin"]["nme"]["mean_of_images"] == pytest.approx(0.0, abs=1e-4)
    assert "the same labels read 1-based: 0-30 0.00" in folded(result.stdout)


def test_relabelled_labels_are_called_so(here: Path, toy_model: FaceModel) -> None:
    """They used to be called the original labels."""
    record = json.dumps({"network": "916c40c9aa", "name": "fast-x2", "date": "2026-11-26"})
    write_scored_store(Path("new.h5"), make_labels(toy_model), relabelled=record)
    result = dhm("--predictions", "truth.npz", "--data", "new.h5", "--replicates", 100, "--report", "out")
    assert result.exit_code == 0, result.output
    words = "relabelled by fast-x2 (916c40c9…) on 2026-11-26"
    assert words in folded(result.stdout)
    assert "original labels" not in result.stdout
    assert words in json.loads(Path("out/report.json").read_text())["data"]["labels"]
    assert words in Path("out/report.html").read_text(encoding="utf-8")


def test_missing_faces_are_said(here: Path) -> None:
    with np.load("truth.npz") as truth:
        np.savez("some.npz", names=truth["names"][:7], landmarks=truth["landmarks"][:7])
    result = dhm("--predictions", "some.npz", "--data", "faces.h5", "--replicates", 100)
    assert result.exit_code == 0, result.output
    words = f"warning: some: no points for 1 of 8 faces (1 at 60-90 degrees; such as {NAMES[7]}), which are failures"
    assert words in folded(result.stderr)
    result = dhm("--predictions", "some.npz", "--data", "faces.h5", "--missing", "skip", "--replicates", 100)
    assert "left out" in result.stderr
    assert "7 test faces" in result.stdout


def test_one_based_points_are_suspected(here: Path) -> None:
    with np.load("truth.npz") as truth:
        np.savez("shifted.npz", names=truth["names"], landmarks=truth["landmarks"][..., :2] + 1)
    result = dhm("--predictions", "shifted.npz", "--data", "faces.h5", "--replicates", 100)
    assert "+1.00, +1.00 pixels off on the whole; are they 1-based?" in folded(result.stderr)
    assert "1-based" not in dhm("--predictions", "truth.npz", "--data", "faces.h5", "--replicates", 100).stderr


def test_nothing_misleads_about_the_other_method_either(here: Path) -> None:
    with np.load("truth.npz") as truth:
        names, landmarks = truth["names"], truth["landmarks"]
    np.savez("shifted.npz", names=[*names[:5], "no such face"], landmarks=landmarks[:6, :, :2] + 1)
    result = dhm("--predictions", "truth.npz", "--data", "faces.h5", "--against", "B=shifted.npz", "--replicates", 100)
    assert "warning: B: its points lie +1.00, +1.00 pixels off on the whole; are they 1-based?" in folded(result.stderr)
    assert "warning: B: no points for 3 of 8 faces" in folded(result.stderr)
    assert "1 of its predictions belong to no face here" in folded(result.stderr)
    assert "over the 5 faces that both found" in " ".join(result.stdout.split())


@pytest.mark.usefixtures("no_charts")
def test_names_are_printed_as_they_are(here: Path) -> None:
    names = ["[/x]", "[bold]x", "a\nb", "n\x1b[31m"]
    own = "".join(names)
    more = [text for name in (*names, own) for text in ("--against", f"{name}=truth.npz")]
    arguments = ("--data", "faces.h5", "--name", own, "--report", "out", "--replicates", 100, *more)
    result = dhm("--predictions", "truth.npz", *arguments)
    assert result.exit_code == 0, result.output
    report = json.loads(Path("out/report.json").read_text())
    assert report["method"]["name"] == (shown := "[/x][bold]xa?bn?[31m")
    assert result.stdout.startswith(f"{shown} on faces.h5")
    others = [other["name"] for other in report["against"]]
    assert others == ["[/x]", "[bold]x", "a?b", "n?[31m", f"{shown} (2)"]
    assert all(f"{shown} minus {other}, by paired bootstrap" in folded(result.stdout) for other in others)


def test_the_numbers_are_printed_even_where_the_report_cannot_be_written(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: ReportFolder, *_: object) -> None:
        raise OSError(28, "No space left on device", "out/report.json")

    monkeypatch.setattr(ReportFolder, "write", full)
    result = dhm("--predictions", "truth.npz", "--data", "faces.h5", "--report", "out", "--replicates", 100)
    assert result.exit_code == 1
    assert "mean of bins" in result.stdout
    assert "out/report.json: No space left on device" in result.stderr


def test_jitter_prints_a_robustness_table(here: Path, dummy_network: Path) -> None:
    result = dhm("--model", dummy_network, "--data", "faces.h5", "--protocol", "jitter", "--replicates", 100)
    assert result.exit_code == 0, result.output
    assert "boxes off by up to" in result.stdout
    assert "30 %" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--data", "absent.h5"), ("absent.h5: no such store", "dhm prepare")),
        (("--data", "truth.npz"), ("truth.npz: not a readable face store",)),
        (("--data", "."), (".: a folder, not a store",)),
        (("--data", "faces.h5", "--against", ""), ("--against : no such file",)),
        (("--data", "faces.h5", "--predictions", "truth.npz", "--refine", "1"), ("--refine 1: is for networks",)),
        (("--data", "faces.h5", "--report", "truth.npz"), ("truth.npz: is a file",)),
        (("--data", "faces.h5", "--labels", "reannotated"), ("no re-annotated points",)),
        (("--data", "faces.h5", "--split", "train"), ("no train faces, only test 8",)),
        (("--data", "faces.h5", "--predictions", "faces.h5"), ("faces.h5",)),
        (("--data", "faces.h5", "--predictions", "absent.json"), ("absent.json",)),
        (("fast-x2", "--data", "faces.h5"), ("a network is named by an option", "--model fast-x2")),
        (("--data", "faces.h5", "--json", "faces.h5"), ("faces.h5: is read by this command too",)),
        (("--data", "faces.h5", "--json", "truth.npz"), ("truth.npz: exists and is not a report", "--force")),
        (("--model", "truth.npz", "--data", "faces.h5"), ("truth.npz: not a network", "--predictions truth.npz")),
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
    assert result.exit_code == 1
    assert "error: --data: nothing to score on" in result.stderr
    assert "--video" in result.stderr


@pytest.mark.usefixtures("no_charts")
def test_a_report_replaces_no_file_of_another_kind(here: Path) -> None:
    """It replaced all that had the names of its files, and removed a robustness.png."""
    command = ("--predictions", "truth.npz", "--data", "faces.h5", "--replicates", 100, "--report", "out")
    names = ("report.json", "report.html", "faces.csv", "predictions.npz", "ced.png", "robustness.png")
    Path("out").mkdir()
    for name in names:
        own = Path("out") / name
        own.write_text("name,years of work")
        result = dhm(*command)
        assert result.exit_code == 1
        assert f"out/{name}: exists and is not a file of dhm evaluate" in folded(result.stderr)
        assert [path.name for path in Path("out").iterdir()] == [name]
        assert own.read_text() == "name,years of work"
        own.unlink()
    shutil.copy("truth.npz", "out/predictions.npz")  # a user's points of the very form that is written
    assert dhm(*command).exit_code == 1
    assert dhm(*command, "--force").exit_code == 0
    assert dhm(*command).exit_code == 0, "what it wrote itself needs no force"
    reread = dhm(*command, "--force", "--against", "out/predictions.npz")
    assert "out/predictions.npz: is read by this command too" in folded(reread.stderr)
