"""The run folder: what is recorded, what is forgotten, what is kept."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from dhm_cli.errors import FormatError, InputError
from dhm_cli.training import run_folder
from dhm_cli.training.run_folder import RunFolder


def test_each_start_is_a_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path / "run")
    monkeypatch.setattr(sys, "argv", ["dhm", "train"])
    folder.describe({"arch": "fast", "steps": 5}, 0)
    monkeypatch.setattr(sys, "argv", ["dhm", "train", "--resume"])
    folder.describe({"arch": "fast", "steps": 9}, 3)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["arch"], record["steps"]) == ("fast", 9)
    first, second = record["sessions"]
    assert (first["step"], first["command"]) == (0, ["dhm", "train"])
    assert (second["step"], second["command"]) == (3, ["dhm", "train", "--resume"])
    assert first["started"] <= second["started"]
    assert first["threads"] == torch.get_num_threads()
    # A start from nothing, where an earlier one never came to save a state, is a run of its own.
    folder.describe({"arch": "fast"}, 0)
    assert len(json.loads((tmp_path / "run" / "run.json").read_text())["sessions"]) == 1


def test_metrics_are_lines_that_can_be_forgotten(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert folder.rows() == []
    folder.forget_after(0)
    assert not (tmp_path / "run").exists()
    rows = [{"step": step, "loss": step / 3} for step in (50, 100, 150)]
    for row in rows:
        folder.add_row(row)
    assert folder.rows() == rows
    folder.forget_after(100)
    assert folder.rows() == rows[:2]
    folder.add_row(rows[2])
    assert folder.rows() == rows
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize("rest", ['{"step": 60, "lo', "{"])
def test_a_line_that_a_crash_cut_off_is_forgotten(tmp_path: Path, rest: str) -> None:
    folder = RunFolder(tmp_path)
    folder.add_row({"step": 50})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(rest)
    folder.forget_after(50)
    folder.add_row({"step": 100})
    assert folder.rows() == [{"step": 50}, {"step": 100}]


@pytest.mark.parametrize("line", ['{"step": 2', "3", "{}"])
def test_damaged_metrics_are_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(line + "\n")
    with pytest.raises(FormatError, match=r"metrics\.jsonl: a line") as raised:
        RunFolder(tmp_path).forget_after(5)
    assert "--resume goes on without it" in raised.value.hint


@pytest.mark.parametrize("text", ['{"sess', "{}", "3"])
def test_a_damaged_record_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(FormatError, match=r"run\.json: not the record of a run"):
        RunFolder(tmp_path).describe({}, 5)
    assert (tmp_path / "run.json").read_text() == text


@pytest.mark.skipif(sys.platform == "win32", reason="no locks of files")
def test_one_process_at_a_time(tmp_path: Path) -> None:
    holder = (
        "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.lockf(file, fcntl.LOCK_EX); "
        "print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", holder, str(tmp_path / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(InputError, match="another process trains in it"):
            RunFolder(tmp_path).claim()
        other.kill()
    folder = RunFolder(tmp_path)
    folder.claim()
    again = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'w'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    refused = subprocess.run([sys.executable, "-c", again, str(tmp_path / ".lock")], capture_output=True, check=False)
    assert refused.returncode == 1


def test_learning_curve(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    bins = {"0-30": 5.0, "30-60": 6.0, "60-90": 7.0, "mean_of_bins": 6.0, "mean_of_images": 5.5}
    for step in (50, 100, 150):
        row = {"step": step, "loss": 1 / step, "learning_rate": 1e-3, "gradient_norm": 1.0}
        folder.add_row({**row, **({"validation": {k: v / step for k, v in bins.items()}} if step > 50 else {})})
    folder.draw_learning_curve()
    image = cv2.imread(str(tmp_path / "learning_curve.png"))
    assert image.shape[0] > 200
    assert image.std() > 10


@pytest.mark.parametrize(("keep", "left"), [(0, []), (1, [1000]), (3, [20, 300, 1000]), (9, [4, 20, 300, 1000])])
def test_the_newest_checkpoints_are_kept(tmp_path: Path, keep: int, left: list[int]) -> None:
    folder = RunFolder(tmp_path)
    for step in (1000, 4, 300, 20):
        folder.checkpoint(step).parent.mkdir(exist_ok=True)
        folder.checkpoint(step).write_bytes(b"")
    other = folder.checkpoint(1).with_name("mine.safetensors")
    other.write_bytes(b"")
    folder.prune_checkpoints(keep)
    assert sorted(p.name for p in other.parent.glob("step*")) == [folder.checkpoint(step).name for step in left]
    assert other.exists()


def test_table_of_validation_faces(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    names = np.array(['a.h5: Köpfe/"1", 2.jpg', "b.h5: x.png"])
    folder.write_validation(names, np.array([-12.34567, 90.0]), np.array([1.23456789, 60.0]))
    with folder.validation.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows == [["name", "yaw", "nme"], [names[0], "-12.346", "1.234568"], [names[1], "90.000", "60.000000"]]
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["validation.csv"]


def test_a_failed_write_keeps_the_older_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path)
    folder.describe({"arch": "fast"}, 0)
    before = (tmp_path / "run.json").read_bytes()
    monkeypatch.setattr(run_folder.json, "dumps", lambda *_, **__: "\ud800")  # cannot be written as UTF-8
    with pytest.raises(UnicodeEncodeError):
        folder.describe({"arch": "fast"}, 3)
    monkeypatch.undo()
    assert (tmp_path / "run.json").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]
