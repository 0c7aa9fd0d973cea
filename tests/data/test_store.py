"""The HDF5 store: what goes in comes out, and nothing half-written or foreign is taken for a store."""

import json
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from dhm_cli.data.store import FaceLabels, FaceStore, write_store
from dhm_cli.errors import DhmError, FormatError, InputError

NAMES = ["plain.png", "grey.png", "sub/ünï côdé.png", "deep 16.png", "alpha.png"]


def make_labels(count: int, optional: bool = False) -> FaceLabels:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(count, 68, 2)).astype(np.float32)
    points[0, 3] = np.nan
    return FaceLabels(
        names=np.array(NAMES[:count]),
        source=np.array([f"video {i}.avi" for i in range(count)]),
        identity=np.array([f"person {i // 2}" for i in range(count)]),
        split=(np.arange(count) % 3).astype(np.uint8),
        image_size=rng.integers(1, 999, (count, 2)).astype(np.int32),
        landmarks=rng.normal(size=(count, 68, 3)).astype(np.float32),
        points=points,
        visibility=rng.integers(0, 3, (count, 68)).astype(np.uint8),
        parameters=rng.normal(size=(count, 234)).astype(np.float32),
        box=rng.normal(size=(count, 4)).astype(np.float32),
        yaw=rng.normal(size=count).astype(np.float32),
        residual=rng.uniform(0, 4, count).astype(np.float32),
        flagged=(np.arange(count) % 2).astype(np.uint8),
        reannotated=rng.normal(size=(count, 68, 2)).astype(np.float32) if optional else None,
        labelled_yaw=rng.normal(size=count).astype(np.float32) if optional else None,
    )


def write(path: Path, images: list[Path], labels: FaceLabels, attributes: dict[str, Any]) -> None:
    """Write the files' bytes as a store."""
    encoded = [image.read_bytes() for image in images]
    write_store(path, encoded, np.array([len(e) for e in encoded]), labels, attributes)


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
    write(path, images, make_labels(len(images)), {"source": "somewhere", "face_model": "abc"})
    return path


@pytest.mark.parametrize("optional", [False, True])
def test_labels_round_trip(tmp_path: Path, optional: bool) -> None:
    path, labels = tmp_path / "stores" / "faces.h5", make_labels(5, optional)
    write(path, make_images(tmp_path)[0], labels, {"source": "somewhere"})
    again = FaceStore(path)
    assert len(again) == 5
    assert set(again.labels.arrays()) == set(labels.arrays())
    for name, written in labels.arrays().items():
        read = again.labels.arrays()[name]
        np.testing.assert_array_equal(read, written, err_msg=name)
        assert read.dtype.kind == written.dtype.kind
        if written.dtype.kind != "U":
            assert read.dtype == written.dtype
    assert again.attributes["source"] == "somewhere"
    assert again.attributes["contents"] == again.fingerprint()
    assert "0-based" in again.attributes["pixels"]


def test_the_same_input_gives_the_same_bytes(store: Path, tmp_path: Path) -> None:
    write(tmp_path / "again.h5", make_images(tmp_path)[0], make_labels(5), {"source": "somewhere", "face_model": "abc"})
    assert (tmp_path / "again.h5").read_bytes() == store.read_bytes()


def test_images_may_come_in_pieces_of_any_size(store: Path, tmp_path: Path) -> None:
    encoded = [image.read_bytes() for image in make_images(tmp_path)[0]]
    pieces = [b"".join(encoded[:2]), b"", b"".join(encoded[2:])]
    sizes = np.array([len(e) for e in encoded])
    write_store(tmp_path / "again.h5", pieces, sizes, make_labels(5), {"source": "somewhere", "face_model": "abc"})
    assert (tmp_path / "again.h5").read_bytes() == store.read_bytes()
    with pytest.raises(AssertionError, match="as long as announced"):
        write_store(tmp_path / "short.h5", pieces[:1], sizes, make_labels(5), {})
    assert not (tmp_path / "short.h5").exists()


def test_encoded_images_are_the_files(store: Path, tmp_path: Path) -> None:
    encoded = [image.read_bytes() for image in make_images(tmp_path)[0]]
    assert list(FaceStore(store).encoded_images(np.array([4, 1]))) == [encoded[4], encoded[1]]


def test_rows_of_a_split_without_the_flagged_ones_in_train() -> None:
    labels = make_labels(5)  # splits 0 1 2 0 1, flagged 0 1 0 1 0
    assert labels.in_split("train").tolist() == [0]
    assert labels.in_split("val").tolist() == [1, 4]
    assert labels.in_split("test").tolist() == [2]


def test_join() -> None:
    labels = make_labels(5, optional=True)
    joined = FaceLabels.join(
        [labels.take(np.array([0, 1])), labels.take(np.array([], int)), labels.take(np.array([4]))]
    )
    for name, values in joined.arrays().items():
        np.testing.assert_array_equal(values, labels.arrays()[name][[0, 1, 4]])


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
    write(tmp_path / "faces.h5", [path], make_labels(1), {})
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
        write(tmp_path / "out" / "faces.h5", [*images[:4], tmp_path / "absent.png"], make_labels(5), {})
    assert list(tmp_path.rglob("*.h5*")) == []


def test_a_failed_write_keeps_the_older_store(store: Path, tmp_path: Path) -> None:
    images, _ = make_images(tmp_path)
    before = store.read_bytes()
    with pytest.raises(TypeError):  # found only while writing: an attribute that HDF5 cannot hold
        write(store, images, make_labels(5), {"source": object()})
    assert store.read_bytes() == before
    assert [p.name for p in store.parent.iterdir()] == ["faces.h5"]


def test_images_and_labels_must_match(tmp_path: Path) -> None:
    images, _ = make_images(tmp_path)
    with pytest.raises((ValueError, AssertionError)):
        write(tmp_path / "faces.h5", images, make_labels(4), {})
    assert not (tmp_path / "faces.h5").exists()


def test_no_such_store(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such store") as caught:
        FaceStore(tmp_path / "absent.h5")
    assert "dhm prepare" in caught.value.hint


def test_another_version_is_refused(store: Path) -> None:
    with h5py.File(store, "a") as file:
        file.attrs["version"] = 1
    with pytest.raises(FormatError, match="a face store of version 1, not 2"):
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
    write(tmp_path / "faces.h5", [path], make_labels(1), {})
    with pytest.raises(FormatError, match=r"image plain\.png is damaged"):
        FaceStore(tmp_path / "faces.h5").images(np.array([0]))


def test_a_full_disk_is_an_error_that_names_the_store_and_leaves_nothing(small_disk: Path) -> None:
    """HDF5 by itself once ended in a segmentation fault."""
    with pytest.raises(DhmError, match=r"a\.h5: no room on the disk"):
        write_store(small_disk / "a.h5", [bytes(3_000_000)], np.array([3_000_000]), make_labels(1), {})
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("split", np.array(["train"] * 3).astype(h5py.string_dtype())),
        ("split", np.full(3, np.nan)),
        ("names", np.arange(3)),
        ("flagged", np.zeros(3, np.float32)),
        ("image_size", np.full((3, 2), np.nan)),
        ("yaw", np.zeros(3, np.int64)),
        ("offsets", np.array([0, 5, 3, 10**12])),
        ("offsets", np.array([0.0, np.nan, 1, 2])),
    ],
)
def test_labels_of_another_type_are_refused(tmp_path: Path, name: str, values: NDArray[Any]) -> None:
    """They once passed, and ended in a traceback of whoever used them."""
    images, _ = make_images(tmp_path)
    write(tmp_path / "a.h5", images[:3], make_labels(3), {})
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file[name]
        file[name] = values
    with pytest.raises(FormatError, match=r"a\.h5: not a readable face store"):
        FaceStore(tmp_path / "a.h5")


def test_a_store_that_shows_another_file_is_refused(tmp_path: Path) -> None:
    """External links once were followed."""
    images, _ = make_images(tmp_path)
    write(tmp_path / "a.h5", images[:3], make_labels(3), {})
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["yaw"]
        file["yaw"] = h5py.ExternalLink("secret.h5", "yaw")
    with pytest.raises(FormatError, match=r"a\.h5: yaw lies in another file, secret\.h5"):
        FaceStore(tmp_path / "a.h5")


def test_a_store_says_what_its_labels_are(tmp_path: Path) -> None:
    """A relabelled store once was called fitted to the annotated points."""
    images, _ = make_images(tmp_path)
    write(tmp_path / "a.h5", images[:3], make_labels(3), {})
    assert FaceStore(tmp_path / "a.h5").labels_are == "fitted to the annotated points"
    record = {"network": "916c40c9aaaabbbb", "name": "fast-x2", "date": "2026-11-26"}
    write(tmp_path / "b.h5", images[:3], make_labels(3), {"relabelled": json.dumps(record)})
    assert FaceStore(tmp_path / "b.h5").labels_are == (
        "relabelled by fast-x2 (916c40c9…) on 2026-11-26: fitted to human points, a prior and that network"
    )
    write(tmp_path / "c.h5", images[:3], make_labels(3), {"relabelled": json.dumps({"network": "916c40c9aaaabbbb"})})
    assert FaceStore(tmp_path / "c.h5").labels_are.startswith("relabelled by 916c40c9…: fitted")
