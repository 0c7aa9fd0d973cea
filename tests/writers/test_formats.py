"""All formats of one run: equal rows and numbers, the same after an interruption, and read back."""

import csv
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dhm_cli.alignment.given_boxes import read_boxes
from dhm_cli.errors import DhmError, InputError
from dhm_cli.evaluation.predictions import read_predictions
from dhm_cli.geometry.pose import yaw_pitch_roll_to_matrix
from dhm_cli.inference.aligner import Face, SavedCrop
from dhm_cli.inference.columns import COLUMN_GROUPS, CROP_COLUMNS, DEFAULT_COLUMNS, Layout
from dhm_cli.inference.results import BAD_BOX, NO_FACE, OK, UNREADABLE, PhotoResult, partial_path
from dhm_cli.io.pts import read_pts
from dhm_cli.writers.built_files import BuiltFile
from dhm_cli.writers.pts_folder import INDEX, PtsFolder
from dhm_cli.writers.registry import Outputs
from dhm_cli.writers.row_files import RowFile

NAMES = ("a.csv", "b.jsonl", "c.json", "d.parquet", "e.npz", "points/")
FILES = (*NAMES[:3], *NAMES[4:])  # without Parquet, whose pyarrow is an extra
ALL = Layout(tuple(COLUMN_GROUPS))

# Two faces, none, one of many bytes of name, a useless box beside a face, one that cannot be read, three.
PHOTOS = [
    PhotoResult("in/two.jpg", OK, 2),
    PhotoResult("in/none.jpg", NO_FACE),
    PhotoResult('in/ü, "b"\n.JPG', OK, 1),
    PhotoResult("in/box.png", BAD_BOX, 1, ("it lies outside",)),
    PhotoResult("in/bad.png", UNREADABLE, 0, ("damaged",)),
    PhotoResult("in/two.png", OK, 3),
]


def needs_pyarrow() -> None:
    pytest.importorskip("pyarrow", reason="pyarrow, the extra [parquet], is not installed")


def make_face(k: int) -> Face:
    """A face of odd numbers; of every other one the network tells nothing of its errors, and there is no crop."""
    rng = np.random.default_rng(k)
    rotation = yaw_pitch_roll_to_matrix(np.radians(rng.uniform(-80, 80, 3)))
    face = Face(rng.uniform(-50, 3000, (68, 3)), tuple(rng.uniform(1, 99, 4)), 0.5 if k else np.nan, rotation)
    told = rng.dirichlet(np.ones(3), 68)
    crop = SavedCrop(f"crops/ü, {k}.jpg", rng.normal(size=(2, 3)), rng.uniform(0, 256, (68, 3)))
    sure = {"confidence": 0.3 + k / 10, "sigma": rng.random(68), "visibility": told, "crop": crop}
    return replace(face, **sure) if k % 2 else face


def write(folder: Path, names: tuple[str, ...], layout: Layout = ALL, resume: bool = False, stop: int = 99) -> Outputs:
    """Write the photos that are not finished; stop after some as if killed."""
    outputs = Outputs([f"{folder}/{name}" for name in names], layout, resume)
    for number, result in enumerate(PHOTOS[:stop]):
        if (result.path,) not in outputs.finished:
            outputs.write(result, [make_face(number + k) for k in range(result.faces)])
    if stop > len(PHOTOS):
        outputs.finish()
    outputs.close()
    return outputs


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "a.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def records_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a file as JSON has them."""
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_bytes().splitlines()]
    if path.suffix == ".json":
        return json.loads(path.read_bytes())
    if path.suffix == ".parquet":
        import pyarrow.parquet

        return pyarrow.parquet.read_table(path).to_pylist()
    with np.load(path) as arrays:
        rows = [dict(zip(arrays.files, values, strict=True)) for values in zip(*arrays.values(), strict=True)]
    return [{k: None if k in ("face", "track") and v == -1 else v.tolist() for k, v in row.items()} for row in rows]


def assert_equal_to(rows: list[dict[str, str]], records: list[dict[str, Any]]) -> None:
    """The numbers of a table are exactly those of another format."""
    assert len(records) == len(rows)
    for row, record in zip(rows, records, strict=True):
        assert (row["path"], row["status"]) == (record["path"], record["status"])
        assert row["face"] == ("" if record["face"] is None else str(record["face"]))
        found = {k: np.nan if v is None else v for k, v in record.items()}
        for group in ALL.groups:
            if group.kind is str:
                assert [row[column] for column in group.columns] == [record.get(name) or "" for name in group.columns]
                continue
            expected = np.array([float(row[column] or "nan") for column in group.columns])
            if group.shape and isinstance(found.get(group.name), list):
                array = np.array(found[group.name], float)
                assert array.shape == group.shape
                values = array.T.ravel()
            else:
                values = np.array([found.get(column, np.nan) for column in group.columns], float)
            np.testing.assert_array_equal(values, expected, group.name)


@pytest.mark.parametrize("name", NAMES[1:5])
def test_all_formats_hold_equal_rows(tmp_path: Path, name: str) -> None:
    if name == "d.parquet":
        needs_pyarrow()
    write(tmp_path, ("a.csv", name))
    rows = table(tmp_path)
    assert [row["status"] for row in rows].count("ok") == 6
    assert [row["status"] for row in rows].count("doubtful") == 1
    assert_equal_to(rows, records_of(tmp_path / name))
    assert sorted(os.listdir(tmp_path)) == ["a.csv", name]


def test_numbers_are_rounded_once(tmp_path: Path) -> None:
    write(tmp_path, ("a.csv", "b.jsonl"))
    face = make_face(0)
    row, record = table(tmp_path)[0], records_of(tmp_path / "b.jsonl")[0]
    for k in (0, 67):
        assert row[f"y_{k}"] == f"{face.landmarks[k, 1]:.3f}"
        assert record["landmarks"][k][1] == round(face.landmarks[k, 1], 3)


def test_a_photo_without_a_face_has_a_line_of_its_status(tmp_path: Path) -> None:
    write(tmp_path, ("b.jsonl",))
    lines = (tmp_path / "b.jsonl").read_text().splitlines()
    assert lines[2] == '{"path": "in/none.jpg", "face": null, "status": "no_face"}'


def test_a_folder_of_pts_files(tmp_path: Path) -> None:
    write(tmp_path, ("a.csv", "points/"), Layout())
    rows = [row for row in table(tmp_path) if row["face"]]
    names = ["two.jpg.pts", "two.jpg_1.pts", 'ü, "b"\n.pts', "box.pts", *(f"two.png{k}.pts" for k in ("", "_1", "_2"))]
    assert sorted(os.listdir(tmp_path / "points")) == sorted([*names, INDEX])
    for row, name in zip(rows, names, strict=True):
        points, _ = read_pts(tmp_path / "points" / name, merl_signs=False)
        expected = [[float(row[f"{axis}_{k}"]) for axis in "xy"] for k in range(68)]
        np.testing.assert_allclose(points, expected, atol=2e-4)  # read as float32
    text = (tmp_path / "points" / "box.pts").read_text()
    x, y = float(rows[3]["x_0"]) + 1, float(rows[3]["y_0"]) + 1
    assert text.startswith(f"version: 1\nn_points: 68\n{{\n{x:.3f} {y:.3f}\n")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("columns", [DEFAULT_COLUMNS, ("landmarks", "visible", "pose_300w_lp")])
def test_read_back_as_predictions(tmp_path: Path, name: str, columns: tuple[str, ...]) -> None:
    if name == "d.parquet":
        needs_pyarrow()
    write(tmp_path, ("a.csv", name) if name != "a.csv" else ("a.csv",), Layout(columns))
    expected, found = read_predictions(tmp_path / "a.csv"), read_predictions(tmp_path / name)
    assert found.names == expected.names
    axes = found.landmarks.shape[-1]
    assert axes == (2 if name == "points/" else 3)
    np.testing.assert_allclose(found.landmarks, expected.landmarks[..., :axes], atol=2e-4 if axes == 2 else 0)
    if axes == 3:
        assert found.pose is not None
        np.testing.assert_array_equal(found.pose, expected.pose)


@pytest.mark.parametrize("name", NAMES[:5])
def test_read_back_as_boxes(tmp_path: Path, name: str) -> None:
    if name == "d.parquet":
        needs_pyarrow()
    write(tmp_path, (name,))
    boxes = read_boxes(tmp_path / name)
    assert list(boxes) == [result.path for result in PHOTOS if result.faces]
    assert [len(found) for found in boxes.values()] == [2, 1, 1, 3]
    assert boxes["in/two.jpg"][1] == tuple(round(value, 3) for value in make_face(1).box)


def test_a_folder_of_pts_files_has_no_boxes(tmp_path: Path) -> None:
    write(tmp_path, ("points/",), Layout())
    with pytest.raises(InputError, match="is a folder") as caught:
        read_boxes(tmp_path / "points")
    assert "no boxes" in caught.value.hint


# --- interruption


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("stop", range(len(PHOTOS) + 1))
def test_killed_and_resumed_gives_equal_bytes(tmp_path: Path, stop: int) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    write(whole, FILES)
    write(cut, FILES, stop=stop)
    assert not any((cut / name.strip("/")).exists() for name in FILES)
    outputs = write(cut, FILES, resume=True)
    assert len(outputs.finished) == max(0, stop - 1)  # the last photo may lack rows
    assert content(cut) == content(whole)


def test_outputs_that_got_to_different_photos_go_on_from_what_all_have(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    write(whole, FILES)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        write(cut, FILES, stop=5)
        for name in FILES:
            partial = partial_path(cut / name.strip("/"))
            os.truncate(partial, int(rng.integers(partial.stat().st_size // 2, partial.stat().st_size + 1)))
        outputs = write(cut, FILES, resume=True)
        assert list(outputs.finished) == [(result.path,) for result in PHOTOS[: len(outputs.finished)]]
        assert content(cut) == content(whole)
        shutil.rmtree(cut)


def test_killed_while_outputs_are_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    write(whole, FILES)
    for target in ("built_files.move_into_place", "pts_folder.remove", "npz_arrays.np.savez_compressed"):
        with monkeypatch.context() as patch:
            patch.setattr(f"dhm_cli.writers.{target}", interrupt)
            with pytest.raises(KeyboardInterrupt):
                write(cut, FILES)
        left = tuple(name for name in FILES if partial_path(cut / name.strip("/")).exists())
        assert left
        write(cut, FILES, resume=True)
        assert content(cut) == content(whole)
        shutil.rmtree(cut)


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("named", range(1, len(FILES)))
def test_killed_while_outputs_get_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: int) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    write(whole, FILES)
    left = [named]
    give = {kind: kind._give_name for kind in (RowFile, BuiltFile, PtsFolder)}

    def killed_after_some(self: RowFile) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        give[type(self)](self)

    with monkeypatch.context() as patch:
        for kind in give:
            patch.setattr(kind, "_give_name", killed_after_some)
        for resume in (False, True):  # the second time no name is given
            with pytest.raises(KeyboardInterrupt):
                write(cut, FILES, resume=resume)
    assert [partial_path(cut / name.strip("/")).exists() for name in FILES] == [k >= named for k in range(len(FILES))]
    with pytest.raises(InputError, match="of an interrupted run"):
        write(cut, FILES)
    write(cut, FILES, resume=True)
    assert content(cut) == content(whole)


def test_an_output_that_the_interrupted_run_did_not_have_is_refused(tmp_path: Path) -> None:
    write(tmp_path, ("a.csv",), stop=4)
    before = content(tmp_path)
    with pytest.raises(InputError, match=r"b\.jsonl: is no output of the interrupted run") as caught:
        write(tmp_path, ("a.csv", "b.jsonl"), resume=True)
    assert caught.value.hint.startswith(f"go on with --out {tmp_path}/a.csv alone")
    assert len(content(tmp_path)) == len(before)


def test_an_interrupted_run_with_other_columns_does_not_go_on(tmp_path: Path) -> None:
    for name in FILES:
        write(tmp_path, (name,), Layout(("landmarks", "box")), stop=4)
        with pytest.raises(InputError, match="other columns"):
            write(tmp_path, (name,), Layout(("landmarks", "score")), resume=True)


# --- what is not replaced


@pytest.mark.parametrize("name", NAMES[:5])
@pytest.mark.parametrize("text", ["name,mark\nAda,1\n", '{"name": 1}\n', "[1, 2]", "PK\x03\x04"])
def test_files_of_others_are_kept(tmp_path: Path, name: str, text: str) -> None:
    if name == "d.parquet":
        needs_pyarrow()
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match="exists and is not an output of dhm align"):
        write(tmp_path, (name,))
    assert (tmp_path / name).read_text() == text


@pytest.mark.parametrize("name", NAMES)
def test_its_own_output_is_replaced(tmp_path: Path, name: str) -> None:
    if name == "d.parquet":
        needs_pyarrow()
    write(tmp_path, (name,), Layout(("landmarks",)))
    before = content(tmp_path)
    write(tmp_path, (name,), Layout(("landmarks", "score")))
    assert set(content(tmp_path)) == set(before)
    assert name == "points/" or content(tmp_path) != before


def test_a_folder_with_files_of_others_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "points"
    (folder / "sub").mkdir(parents=True)
    write(tmp_path, ("points/",))  # no file in it
    (folder / "sub").mkdir()
    (folder / "sub" / "mine.pts").write_text("by hand")
    with pytest.raises(InputError, match=r"holds sub/mine\.pts, which dhm did not write"):
        write(tmp_path, ("points/",))
    assert (folder / "sub" / "mine.pts").read_text() == "by hand"
    assert (folder / "box.pts").exists()


def test_names_that_cannot_be(tmp_path: Path) -> None:
    for name, hint in (("points.pts", "points/"), ("faces.xml", ".parquet"), (".", "/")):
        with pytest.raises(InputError, match="no such kind of output") as caught:
            write(tmp_path, (name,))
        assert hint in caught.value.hint
    with pytest.raises(InputError, match="is named twice"):
        write(tmp_path, ("a.csv", "./a.csv"))
    with pytest.raises(InputError, match="hold landmarks only"):
        write(tmp_path, ("points/",), Layout(("box",)))
    with pytest.raises(InputError, match="no output"):
        Outputs([])
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is no folder"):
        write(tmp_path, ("file/",))
    assert sorted(os.listdir(tmp_path)) == ["file"]


def test_pipes_get_what_they_are_named_for(tmp_path: Path) -> None:
    for name, stream, start in (
        ("p", None, b"path,face"),
        ("p.jsonl", None, b'{"path"'),
        ("p.csv", "jsonl", b'{"path"'),
    ):
        os.mkfifo(tmp_path / name)
        reader = os.open(tmp_path / name, os.O_RDONLY | os.O_NONBLOCK)
        outputs = Outputs([tmp_path / name, tmp_path / "a.csv"], Layout(("box",)), stream=stream)
        outputs.write(PHOTOS[1], [])
        outputs.finish()
        outputs.close()
        assert os.read(reader, 9999).startswith(start)
        os.close(reader)
    for outs, stream in ((["a.csv"], "jsonl"), (["-"], "xml")):
        with pytest.raises(InputError, match=f"--format {stream}"):
            Outputs(outs, stream=stream)


def test_a_full_disk_is_told_and_the_run_goes_on_when_there_is_room(
    small_disk: Path, filling_disk: Callable[[Callable[[], object], int], set[str]]
) -> None:
    # Of such a size that the disk is full in the middle of every file, in steps of 4096.
    layout = Layout(tuple(name for name in COLUMN_GROUPS if name not in CROP_COLUMNS))

    def run() -> None:
        write(small_disk, FILES, layout, resume=True)

    named = filling_disk(run, 4096)
    assert any(name.startswith("a.csv.partial: cannot be written: No space left") for name in named), named
    assert any(name.startswith("e.npz: cannot be written: No space left") for name in named), named
    assert sorted(os.listdir(small_disk)) == sorted(name.strip("/") for name in FILES)
    write(small_disk.parent / "whole", FILES, layout)
    assert content(small_disk) == content(small_disk.parent / "whole")


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    for act in (lambda path: write(path.parent, (path.name,)), read_boxes, read_predictions):
        with pytest.raises(DhmError, match="pyarrow, which is not installed") as caught:
            act(tmp_path / "d.parquet")
        assert "[parquet]" in caught.value.hint
    assert os.listdir(tmp_path) == []


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    """JSON keeps its bytes; Parquet, which holds text only, has them as escapes."""
    needs_pyarrow()
    outputs = Outputs([tmp_path / name for name in NAMES[:5]])
    outputs.write(PhotoResult("caf\udce9.jpg", OK, 1), [make_face(0)])
    outputs.finish()
    for name in ("b.jsonl", "c.json", "e.npz"):
        assert list(read_boxes(tmp_path / name)) == ["caf\udce9.jpg"]
    assert list(read_boxes(tmp_path / "d.parquet")) == ["caf\\xe9.jpg"]
    (tmp_path / "b.jsonl").read_text(encoding="utf-8")


def test_no_photo_at_all_leaves_nothing(tmp_path: Path) -> None:
    write(tmp_path, FILES, stop=0)
    assert os.listdir(tmp_path) == []


def test_only_photos_without_a_face(tmp_path: Path) -> None:
    needs_pyarrow()
    outputs = Outputs([f"{tmp_path}/{name}" for name in NAMES])
    outputs.write(PHOTOS[1], [])
    outputs.finish()
    outputs.close()
    for name in NAMES:
        with pytest.raises(InputError, match="no face"):
            read_predictions(tmp_path / name)
    assert os.listdir(tmp_path / "points") == [INDEX]


@pytest.mark.parametrize("name", ["b.jsonl", "c.json", "d.parquet", "e.npz"])
@pytest.mark.parametrize("read", [read_boxes, read_predictions])
def test_damaged_files_are_refused_or_read(tmp_path: Path, name: str, read: Callable[[Path], object]) -> None:
    if name == "d.parquet":
        needs_pyarrow()
    write(tmp_path, (name,), Layout(("box", "landmarks")))
    whole = (tmp_path / name).read_bytes()
    rng = np.random.default_rng(0)
    for cut in range(0, len(whole) - 1, len(whole) // 20):
        (tmp_path / name).write_bytes(whole[:cut])
        if name != "b.jsonl" or cut:
            with pytest.raises(InputError, match=name):
                read(tmp_path / name)
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] = rng.integers(256)
        (tmp_path / name).write_bytes(damaged)
        with suppress(InputError):  # any other error is a traceback for the user
            read(tmp_path / name)
