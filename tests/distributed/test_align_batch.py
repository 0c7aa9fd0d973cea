"""AlignBatch, without any engine."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from example_photos import ASTRONAUT, write_album

from dhm_cli.alignment.photos import align_files
from dhm_cli.distributed import AlignBatch
from dhm_cli.errors import InputError
from dhm_cli.inference.columns import Record

COLUMNS = ("score", "box", "landmarks", "sigma")


@pytest.fixture(scope="module")
def align(dummy_network: Path) -> AlignBatch:
    return AlignBatch(dummy_network, "cpu", columns=COLUMNS)


def rows_of(batch: dict[str, np.ndarray]) -> list[Record]:
    """The rows of a batch, as JSON lines have them."""
    assert len({len(column) for column in batch.values()}) == 1
    return [dict(zip(batch, row, strict=True)) for row in zip(*batch.values(), strict=True)]


def test_a_batch_has_the_rows_of_dhm_align(tmp_path: Path, align: AlignBatch, dummy_network: Path) -> None:
    album = write_album(tmp_path / "album")
    align_files([album], tmp_path / "out.jsonl", device="cpu", model=dummy_network, columns=COLUMNS)
    expected = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    paths = sorted({row["path"] for row in expected})
    found = align({"path": np.array(paths)})
    assert list(found) == ["path", "face", "status", "score", "left", "top", "width", "height", *COLUMNS[2:], "reason"]
    assert all(column.dtype == object for column in found.values())
    found_rows = rows_of(found)
    reasons = {row["path"]: row.pop("reason") for row in found_rows}
    assert {Path(path).name: reason for path, reason in reasons.items() if reason} == {"c.png": "truncated PNG"}
    blank = dict.fromkeys(found_rows[0])
    order = [row["path"] for row in found_rows]
    assert found_rows == sorted((blank | row for row in expected), key=lambda row: order.index(row["path"]))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: {"bytes": data, "path": "x"}])
def test_images_come_as_engines_hold_them(align: AlignBatch, kind: type) -> None:
    images = np.empty(3, object)
    images[:] = [kind(ASTRONAUT.read_bytes()), kind(b""), None]
    found = align({"path": np.array(["a", "s3://bucket/b.jpg", "c"]), "image": images, "other": np.arange(3)})
    assert found["status"].tolist() == ["ok", "unreadable", "unreadable"]
    assert found["face"].tolist() == [0, None, None]
    assert [reason.split(",")[0] for reason in found["reason"].tolist()[1:]] == ["the file is empty", "no image file"]


def test_a_batch_of_one_face_keeps_its_lists(align: AlignBatch) -> None:
    """Of which numpy would make further axes."""
    found = align({"path": [str(ASTRONAUT)]})
    assert found["landmarks"].shape == (1,)
    assert np.shape(found["landmarks"][0]) == (68, 3)
    assert isinstance(found["landmarks"][0], list)
    assert align({"path": []})["landmarks"].shape == (0,)


def test_it_goes_to_another_process(align: AlignBatch) -> None:
    batch = {"path": [str(ASTRONAUT), "absent.jpg"]}
    again = pickle.loads(pickle.dumps(align))(batch)
    assert rows_of(again) == rows_of(align(batch))


def test_settings_are_checked_when_it_is_made() -> None:
    with pytest.raises(InputError, match="--columns nonsense"):
        AlignBatch(columns=["nonsense"])
    with pytest.raises(InputError, match="--min-confidence"):
        AlignBatch(device="cpu", min_confidence=2)


def test_a_table_has_its_types_whatever_is_in_it(align: AlignBatch, dummy_network: Path) -> None:
    """Or an engine could not join what came of a batch without a face to the rest."""
    arrow = pytest.importorskip("pyarrow", reason="pyarrow, the extra [parquet], is not installed")
    of_tables = AlignBatch(dummy_network, "cpu", columns=COLUMNS, arrow=True)
    batch = {"path": ["absent.jpg", str(ASTRONAUT)]}
    bad, both = of_tables({"path": ["absent.jpg"]}), of_tables(batch)
    assert bad.schema == both.schema == of_tables.schema
    assert bad.schema.field("landmarks").type == arrow.list_(arrow.list_(arrow.float64()))
    assert both.to_pylist() == rows_of(align(batch))


def test_it_fits_pandas_and_arrow(align: AlignBatch) -> None:
    """As Spark's mapInPandas and Arrow want it: a frame, whose objects become lists of lists."""
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    arrow = pytest.importorskip("pyarrow", reason="pyarrow, the extra [parquet], is not installed")
    frame = pandas.DataFrame({"path": ["a", "b"], "image": [ASTRONAUT.read_bytes(), b""]})
    table = arrow.Table.from_pandas(pandas.DataFrame(align(frame)))
    assert table.schema.field("landmarks").type == arrow.list_(arrow.list_(arrow.float64()))
    assert table.column("face").to_pylist() == [0, None]
