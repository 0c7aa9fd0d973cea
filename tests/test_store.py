"""The HDF5 store: what goes in comes out, and nothing half-written or foreign is taken for a store."""

from dataclasses import fields
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from dhm_cli.data.store import FaceLabels, FaceStore, write_store
from dhm_cli.errors import FormatError, InputError

NAMES = ["plain.png", "grey.png", "sub/ünï côdé.png", "deep 16.png", "alpha.png"]


def make_labels(count: int) -> FaceLabels:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(count, 68, 2)).astype(np.float32)
    points[0, 3] = np.nan
    return FaceLabels(
        names=np.array(NAMES[:count]),
        identity=np.array([f"person {i // 2}" for i in range(count)]),
        split=(np.arange(count) % 3).astype(np.uint8),
        landmarks=rng.normal(size=(count, 68, 3)).astype(np.float32),
        points=points,
        visibility=rng.integers(0, 3, (count, 68)).astype(np.uint8),
        parameters=rng.normal(size=(count, 234)).astype(np.float32),
        yaw=rng.normal(size=count).astype(np.float32),
        residual=rng.uniform(0, 4, count).astype(np.float32),
    )


def make_images(folder: Path) -> tuple[list[Path], list[NDArray[np.uint8]]]:
    """One file of each kind, and the RGB pixels that must come out."""
    rng = np.random.default_rng(1)
    colour = rng.integers(0, 256, (7, 5, 3), dtype=np.uint8)
    grey = rng.integers(0, 256, (6, 9), dtype=np.uint8)
    alpha = np.dstack([colour, rng.integers(0, 256, (7, 5), dtype=np.uint8)])
    stored = [colour, grey, colour[:3], colour.astype(np.uint16) * 257, alpha]
    expected = [
        colour[..., ::-1],
        np.repeat(grey[..., None], 3, 2),
        colour[:3, :, ::-1],
        colour[..., ::-1],
        colour[..., ::-1],
    ]
    paths = []
    for i, pixels in enumerate(stored):
        path = folder / f"{i}.png"
        path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
        paths.append(path)
    return paths, expected


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "stores" / "faces.h5"
    images, _ = make_images(tmp_path)
    write_store(path, images, make_labels(len(images)), {"source": "somewhere", "face_model": "abc"})
    return path


def test_labels_round_trip(store: Path) -> None:
    again, labels = FaceStore(store), make_labels(5)
    assert len(again) == 5
    for field in fields(FaceLabels):
        written, read = getattr(labels, field.name), getattr(again.labels, field.name)
        np.testing.assert_array_equal(read, written, err_msg=field.name)
        assert read.dtype.kind == written.dtype.kind
        if written.dtype.kind != "U":
            assert read.dtype == written.dtype
    assert again.attributes["source"] == "somewhere"
    assert again.attributes["face_model"] == "abc"


def test_images_come_out_as_8_bit_rgb_in_the_order_asked(store: Path, tmp_path: Path) -> None:
    _, expected = make_images(tmp_path)
    order = np.array([3, 0, 4, 1, 2, 0])
    for row, image in zip(order, FaceStore(store).images(order), strict=True):
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, expected[row], err_msg=NAMES[row])


def test_the_orientation_tag_is_ignored(tmp_path: Path) -> None:
    """Landmarks belong to the stored pixels, so those must not be turned."""
    pixels = np.zeros((8, 24, 3), np.uint8)
    pixels[:, :8] = 255
    jpeg = cv2.imencode(".jpg", pixels)[1].tobytes()
    tag = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # orientation 6: a quarter turn
    path = tmp_path / "turned.jpg"
    path.write_bytes(jpeg[:2] + b"\xff\xe1" + (len(tag) + 2).to_bytes(2, "big") + tag + jpeg[2:])
    assert cv2.imread(str(path)).shape == (24, 8, 3)  # the tag is understood
    write_store(tmp_path / "faces.h5", [path], make_labels(1), {})
    assert FaceStore(tmp_path / "faces.h5").images(np.array([0]))[0].shape == (8, 24, 3)


def test_take_by_mask_and_index() -> None:
    labels = make_labels(5)
    by_mask, by_index = labels.take(labels.split == 0), labels.take(np.array([3, 0]))
    assert by_mask.names.tolist() == [NAMES[0], NAMES[3]]
    assert by_index.names.tolist() == [NAMES[3], NAMES[0]]
    np.testing.assert_array_equal(by_index.parameters, labels.parameters[[3, 0]])


def test_a_failed_write_leaves_no_store(tmp_path: Path) -> None:
    images, _ = make_images(tmp_path)
    with pytest.raises(OSError, match="absent"):
        write_store(tmp_path / "out" / "faces.h5", [*images[:4], tmp_path / "absent.png"], make_labels(5), {})
    assert list(tmp_path.rglob("*.h5*")) == []


def test_a_failed_write_keeps_the_older_store(store: Path, tmp_path: Path) -> None:
    images, _ = make_images(tmp_path)
    before = store.read_bytes()
    with pytest.raises(TypeError):  # found only while writing: an attribute that HDF5 cannot hold
        write_store(store, images, make_labels(5), {"source": object()})
    assert store.read_bytes() == before
    assert [p.name for p in store.parent.iterdir()] == ["faces.h5"]


def test_images_and_labels_must_match(tmp_path: Path) -> None:
    images, _ = make_images(tmp_path)
    with pytest.raises((ValueError, AssertionError)):
        write_store(tmp_path / "faces.h5", images, make_labels(4), {})
    assert not (tmp_path / "faces.h5").exists()


def test_no_such_store(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such store") as caught:
        FaceStore(tmp_path / "absent.h5")
    assert "dhm prepare" in caught.value.hint


def test_another_version_is_refused(store: Path) -> None:
    with h5py.File(store, "a") as file:
        file.attrs["version"] = 2
    with pytest.raises(FormatError, match="not a face store of version 1"):
        FaceStore(store)


def test_foreign_hdf5_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["images"] = np.zeros(3)
    with pytest.raises(FormatError, match="not a face store"):
        FaceStore(tmp_path / "other.h5")


def test_a_missing_array_is_named(store: Path) -> None:
    with h5py.File(store, "a") as file:
        del file["visibility"]
    with pytest.raises(FormatError, match="visibility"):
        FaceStore(store)


def test_damaged_files_are_refused(store: Path) -> None:
    content = store.read_bytes()
    for damaged in (b"", b"hello", content[: len(content) // 2]):
        store.write_bytes(damaged)
        with pytest.raises(FormatError, match="not a readable face store"):
            FaceStore(store)


@pytest.mark.parametrize("stored", [b"not an image", b""])
def test_a_damaged_image_is_named(tmp_path: Path, stored: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(stored)
    write_store(tmp_path / "faces.h5", [path], make_labels(1), {})
    with pytest.raises(FormatError, match=r"image plain\.png is damaged"):
        FaceStore(tmp_path / "faces.h5").images(np.array([0]))
