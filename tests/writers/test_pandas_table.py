"""Faces as a pandas table."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dhm_cli import faces_to_pandas
from dhm_cli.errors import DhmError
from dhm_cli.inference.aligner import Face
from dhm_cli.inference.columns import Layout
from dhm_cli.inference.results import OK, PhotoResult
from dhm_cli.writers.registry import open_writer

POINTS = np.arange(204).reshape(68, 3) / 7
FACE = Face(POINTS, (1.0, 2.0, 3.0, 4.0), float("nan"), np.eye(3), 0.75)


def test_the_columns_of_the_table(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    table = faces_to_pandas([FACE, replace(FACE, score=0.5)])
    assert list(table) == Layout().header[3:]
    assert table["x_1"].tolist() == [3 / 7, 3 / 7]  # not rounded
    assert table["score"].isna().tolist() == [True, False]
    writer = open_writer(tmp_path / "a.csv")
    writer.write(PhotoResult("a.jpg", OK, 2), [FACE, FACE])
    writer.finish()
    read = pandas.read_csv(tmp_path / "a.csv").drop(columns="status")
    pandas.testing.assert_frame_equal(faces_to_pandas({"a.jpg": [FACE, FACE]}), read, atol=6e-4, check_dtype=False)


def test_no_face(tmp_path: Path) -> None:
    pytest.importorskip("pandas", reason="pandas is not installed")
    table = faces_to_pandas({"a.jpg": []}, ["sigma"])
    assert list(table) == ["path", "face", *(f"sigma_{k}" for k in range(68))]
    assert len(table) == 0
    assert faces_to_pandas([FACE], ["sigma"]).isna().all(axis=None)


def test_without_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(DhmError, match="needs pandas") as caught:
        faces_to_pandas([FACE])
    assert caught.value.hint == "pip install pandas"
