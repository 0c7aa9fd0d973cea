"""Which faces are written: each filter, and the order in which they are applied."""

from pathlib import Path

import numpy as np
import pytest
from example_photos import read_table, write_album

from dhm_cli.alignment.filters import Filters
from dhm_cli.alignment.photos import align_files
from dhm_cli.errors import InputError
from dhm_cli.inference.aligner import Face
from dhm_cli.inference.results import NO_FACE, OK


def face(width: float, height: float, confidence: float = 0.9) -> Face:
    return Face(np.zeros((68, 3)), (0.0, 0.0, width, height), 0.5, np.eye(3), confidence)


# In the order of an output: the largest first, doubtful ones last.
LARGE, TALL, SMALL, DOUBTFUL = face(90, 90), face(20, 70), face(30, 40, 0.6), face(100, 100, 0.3)
FACES = [LARGE, TALL, SMALL, DOUBTFUL]


@pytest.mark.parametrize(
    ("options", "kept", "left_out"),
    [
        ({}, FACES, {}),
        ({"min_confidence": 0.6}, [LARGE, TALL, SMALL], {"--min-confidence": 1}),
        ({"min_size": 70}, [LARGE, TALL, DOUBTFUL], {"--min-size": 1}),  # the longer side, and equal is enough
        ({"max_faces": 2}, [LARGE, TALL], {"--max-faces": 2}),
        ({"largest": True}, [LARGE], {"--largest": 3}),
        ({"min_size": 95, "largest": True}, [DOUBTFUL], {"--min-size": 3}),
        # Filters before the count: not the first two and then those that are sure.
        ({"min_confidence": 0.95, "max_faces": 2}, [], {"--min-confidence": 4}),
        ({"min_size": 75, "max_faces": 2}, [LARGE, DOUBTFUL], {"--min-size": 2}),
        ({"min_confidence": 0.5, "min_size": 50, "max_faces": 1}, [LARGE], dict.fromkeys(
            ("--min-confidence", "--min-size", "--max-faces"), 1)),
    ],
)  # fmt: skip
def test_filters(options: dict[str, float], kept: list[Face], left_out: dict[str, int]) -> None:
    assert Filters(**options)(FACES) == (kept, left_out)


def test_given_boxes_keep_their_order() -> None:
    """With --boxes the first is not the largest."""
    assert Filters(largest=True)([SMALL, LARGE, TALL])[0] == [LARGE]
    assert Filters(max_faces=2)([SMALL, LARGE, TALL])[0] == [SMALL, LARGE]


def test_networks_that_tell_no_confidence_are_not_filtered_by_it() -> None:
    assert len(Filters(min_confidence=1.0)([face(9, 9, float("nan"))])[0]) == 1


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"min_size": -1}, "--min-size"),
        ({"min_size": float("nan")}, "--min-size"),
        ({"min_size": "9"}, "--min-size"),
        ({"max_faces": 0}, "--max-faces"),
        ({"max_faces": 1.5}, "--max-faces"),
        ({"min_confidence": 2}, "--min-confidence"),
    ],
)
def test_values_out_of_range(options: dict[str, object], name: str) -> None:
    with pytest.raises(InputError, match=name):
        Filters(**options)


def test_a_run_tells_what_was_left_out(tmp_path: Path, dummy_network: Path) -> None:
    album, options = write_album(tmp_path / "album"), {"device": "cpu", "model": dummy_network}
    report = align_files([album], tmp_path / "all.csv", **options)
    assert (report.faces, dict(report.left_out)) == (4, {})
    report = align_files([album], tmp_path / "one.csv", max_faces=1, **options)
    assert (report.faces, dict(report.left_out)) == (3, {"--max-faces": 1})
    boxes = tmp_path / "boxes.csv"
    boxes.write_text(f"path,left,top,width,height\n{album}/a.png,180,70,90,106\n{album}/b.jpg,9,9,30,40\n")
    report = align_files([album], tmp_path / "boxes_out.csv", boxes_csv=boxes, min_size=50, **options)
    assert dict(report.left_out) == {"--min-size": 1}
    statuses = [row["status"] for row in read_table(tmp_path / "boxes_out.csv")]
    assert statuses[:2] == [OK, NO_FACE]
