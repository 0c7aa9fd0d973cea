"""Comparison of runs, from the files that training leaves."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dhm_cli.errors import DhmError, FormatError, InputError
from dhm_cli.metrics.landmark_error import area_under_ced, nme_by_yaw
from dhm_cli.training.ablation import compare_runs

NAMES = [f"faces/{k}.jpg" for k in range(6)]
YAW = [0.0, -20.0, 45.0, -50.0, 70.0, -88.5]


def make_run(
    folder: Path,
    nme: list[float],
    names: list[str] = NAMES,
    yaw: list[float] = YAW,
    stores: dict[str, str] | None = None,
    **settings: Any,
) -> Path:
    folder.mkdir()
    rows = [f"{n},{y},{e}" for n, y, e in zip(names, yaw, nme, strict=True)]
    (folder / "validation.csv").write_text("\n".join(["name,yaw,nme", *rows]) + "\n")
    listed = [{"file": f, "faces": 60, "weight": 1.0, "hash": h} for f, h in (stores or {"a.h5": "11aa"}).items()]
    record = {"arch": "dhm", "stores": listed, "steps": 500, **settings}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def test_rows_by_hand(tmp_path: Path) -> None:
    first, second = [1.0, 3.0, 5.0, 7.0, 6.0, 8.0], [2.0, 2.0, 2.0, 2.0, 2.0, float("nan")]
    runs = {
        "ours": make_run(tmp_path / "x", first),
        "other": make_run(tmp_path / "y", second, arch="fast", steps=None),
    }
    ours, other = compare_runs(runs, tmp_path / "out")["rows"]
    assert ours == {
        "run": "ours",
        "arch": "dhm",
        "steps": 500,
        "faces": 6,
        "0-30": 2.0,
        "30-60": 6.0,
        "60-90": 7.0,
        "mean_of_bins": 5.0,
        "mean_of_images": 5.0,
        "failure_rate_6": pytest.approx(100 / 3),
        "auc_7": pytest.approx(100 * (6 + 4 + 2 + 0 + 1 + 0) / 6 / 7),
    }
    assert (other["run"], other["arch"], other["steps"]) == ("other", "fast", None)
    assert other["failure_rate_6"] == pytest.approx(100 / 6)

    with (tmp_path / "out" / "comparison.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["run"] for row in table] == ["ours", "other"]
    assert list(table[0]) == list(ours)
    assert (table[0]["steps"], table[0]["mean_of_bins"], table[0]["failure_rate_6"]) == ("500", "5.000", "33.333")
    assert (table[1]["steps"], table[1]["60-90"]) == ("", "nan")
    assert (tmp_path / "out" / "ced.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_the_order_of_the_faces_and_further_training_data_do_not_matter(tmp_path: Path) -> None:
    nme = np.linspace(1, 9, 6)
    order = [3, 1, 5, 0, 4, 2]
    names, yaw = [NAMES[k] for k in order], [YAW[k] for k in order]
    more = {"b.h5": "22bb", "a.h5": "11aa"}
    runs = {
        "a": make_run(tmp_path / "a", nme.tolist()),
        "b": make_run(tmp_path / "b", nme[order].tolist(), names=names, yaw=yaw, stores=more),
    }
    a, b = compare_runs(runs, tmp_path)["rows"]
    assert {**b, "run": "a"} == {k: v if isinstance(v, str) else pytest.approx(v) for k, v in a.items()}
    assert b["auc_7"] == pytest.approx(area_under_ced(nme, 7.0))
    assert b["60-90"] == pytest.approx(nme_by_yaw(nme, np.array(YAW))["60-90"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"names": [*NAMES[:4], "new/1.jpg", "new/2.jpg"]},
            r"2 of 6 only in a \(faces/4.jpg at \+70.00 degrees\), 2 of 6 only in c \(new/1.jpg",
        ),
        ({"names": [*NAMES, "more.jpg"], "yaw": [*YAW, 1.0], "nme": [1.0] * 7}, r"faces: 1 of 7 only in c \(more.jpg"),
        ({"names": [*NAMES, NAMES[5]], "yaw": [*YAW, YAW[5]], "nme": [1.0] * 7}, r"faces: 1 of 7 only in c"),
        ({"yaw": [5.0, *YAW[1:]]}, r"1 of 6 only in a \(faces/0.jpg at \+0.00 degrees\), 1 of 6 only in c"),
        ({"stores": {"a.h5": "33cc"}}, "a.h5 is 11aa in a, 33cc in c"),
    ],
)
def test_other_faces_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    ones = [1.0] * 6
    runs = {
        "a": make_run(tmp_path / "1", ones),
        "b": make_run(tmp_path / "2", ones),
        "c": make_run(tmp_path / "3", **{"nme": ones, **change}),
    }
    with pytest.raises(
        InputError, match=f"a and c were validated on different faces: .*{message.removeprefix('faces: ')}"
    ):
        compare_runs(runs, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("file", ["validation.csv", "run.json"])
def test_an_unfinished_run(tmp_path: Path, file: str) -> None:
    folder = make_run(tmp_path / "run", [1.0] * 6)
    (folder / file).unlink()
    with pytest.raises(InputError, match=f"{file}: no such file") as raised:
        compare_runs({"a": folder}, tmp_path / "out")
    assert "--resume" in raised.value.hint


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("validation.csv", ""),
        ("validation.csv", "name,yaw,nme\n"),
        ("validation.csv", "name,nme\na,1\n"),
        ("validation.csv", "name,yaw,nme\na,1,x\n"),
        ("validation.csv", "name,yaw,nme\na,1\n"),
        ("run.json", "{"),
        ("run.json", "[]"),
        ("run.json", "{}"),
        ("run.json", '{"arch": "dhm", "stores": [{"file": "a.h5"}]}'),
        ("run.json", '{"arch": "dhm", "stores": ["a.h5"]}'),
    ],
)
def test_damaged_files(tmp_path: Path, file: str, text: str) -> None:
    folder = make_run(tmp_path / "run", [1.0] * 6)
    (folder / file).write_text(text)
    with pytest.raises(FormatError, match=file):
        compare_runs({"a": folder}, tmp_path / "out")


def test_nothing_to_compare(tmp_path: Path) -> None:
    with pytest.raises(DhmError, match="no run"):
        compare_runs({}, tmp_path / "out")
