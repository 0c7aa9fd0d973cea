"""`--check` finds what was done to a store, and `--show` tells what is in it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from dhm_cli.errors import FormatError, InputError
from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.preparation.inspection import check_store, show


@pytest.fixture
def store(face_store: Path, toy_model: FaceModel, tmp_path: Path) -> Path:
    """A copy of the prepared drawn faces with its face model beside it."""
    toy_model.save(tmp_path / "face_model.h5")
    return Path(shutil.copy(face_store, tmp_path / "faces.h5"))


def errors(path: Path) -> dict[str, tuple[str, ...]]:
    return {f.check: f.names for f in check_store(path)[1] if f.severity == "error"}


def test_a_good_store_has_no_faults(store: Path) -> None:
    checked, findings = check_store(store)
    assert len(checked) == 24
    assert [f for f in findings if f.severity != "note"] == []


def change(store: Path, name: str, row: int, value: float) -> str:
    """Change all numbers of one row; returns its name."""
    with h5py.File(store, "a") as file:
        values = file[name][()]
        values[row] = value
        file[name][...] = values
        return str(file["names"].asstr()[row])


@pytest.mark.parametrize(
    ("name", "value", "check"),
    [
        ("landmarks", np.nan, "not-finite"),
        ("parameters", 0.0, "projection"),
        ("box", 0.0, "box"),
        ("visibility", 9, "codes"),
        ("image_size", 50, "images"),
    ],
)
def test_changed_labels_are_found(store: Path, name: str, value: float, check: str) -> None:
    changed = change(store, name, 5, value)
    found = errors(store)
    assert "contents" in found  # whatever was changed
    assert found[check] == (changed,)


def test_a_damaged_image_is_found(store: Path) -> None:
    with h5py.File(store, "a") as file:
        start, stop = file["offsets"][2:4]
        file["images"][start : start + (stop - start) // 2] = 0
        name = str(file["names"].asstr()[2])
    assert errors(store) == {"images": (name,), "images-hash": ()}


def test_a_changed_byte_of_an_image_is_found(store: Path) -> None:
    """Decoders take a damaged JPEG without complaint."""
    with h5py.File(store, "a") as file:
        at = int(file["offsets"][2]) - 40
        file["images"][at] = file["images"][at] ^ 1
    assert "images-hash" in errors(store)


def test_another_face_model_beside_the_store(store: Path, toy_model: FaceModel) -> None:
    from dataclasses import replace

    replace(toy_model, mean=toy_model.mean * 1.1).save(store.with_name("face_model.h5"))
    findings = check_store(store)[1]
    assert [(f.check, f.severity) for f in findings if f.severity != "note"] == [("face-model", "warning")]
    store.with_name("face_model.h5").unlink()
    assert "not checked" in next(f.message for f in check_store(store)[1] if f.check == "face-model")


def cut_rows(file: h5py.File) -> None:
    values = file["yaw"][:-1]
    del file["yaw"]
    file["yaw"] = values


def drop_array(file: h5py.File) -> None:
    del file["box"]


def other_kind(file: h5py.File) -> None:
    file.attrs["format"] = "something"


@pytest.mark.parametrize("damage", [cut_rows, drop_array, other_kind])
def test_what_is_no_store_is_refused(store: Path, damage: Callable[[h5py.File], None]) -> None:
    with h5py.File(store, "a") as file:
        damage(file)
    with pytest.raises(FormatError, match=r"faces\.h5"):
        check_store(store)


def test_show_a_store(store: Path) -> None:
    shown = show(store)
    rows = dict(shown.rows)
    assert rows["faces by split"] == "train 18, val 6"
    assert rows["landmarks"] == "24 x 68 x 3 float32"
    assert rows["command"].startswith("dhm prepare 'drawn faces' --bfm toy")
    assert shown.picture == store.with_suffix(".png")
    picture = cv2.imread(str(shown.picture))
    assert picture.shape == (6 * 174, 4 * 320, 3)
    # Every tile has a heat map on its right half: mostly black, with bright spots.
    heat = picture[:160, 160:320]
    assert (heat.max(-1) < 10).mean() > 0.5
    assert heat.max() > 200


def test_show_a_store_with_a_split_that_there_is_not(store: Path, tmp_path: Path) -> None:
    """It was a traceback."""
    shutil.copy(store, tmp_path / "odd.h5")
    with h5py.File(tmp_path / "odd.h5", "r+") as file:
        file["split"][...] = 200
    assert show(tmp_path / "odd.h5").picture is not None


def test_show_a_face_model(store: Path) -> None:
    shown = show(store.with_name("face_model.h5"))
    assert "face model" in shown.title
    assert dict(shown.rows)["identity"] == "68 x 3 x 199 float32"
    assert shown.picture is None


def test_show_what_is_neither(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        show(tmp_path / "absent.h5")
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(FormatError, match="not an HDF5 file"):
        show(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(FormatError, match="not a face store"):
        show(tmp_path / "other.h5")
