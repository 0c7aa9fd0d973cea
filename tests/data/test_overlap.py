"""What validation faces share with training faces is found, over all stores."""

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import SHARED_DATA

from dhm_cli.data.overlap import split_overlap
from dhm_cli.data.store import SPLITS, FaceLabels, FaceStore, write_store

CFP = SHARED_DATA / "cfp"
TRAIN, VAL, TEST = range(len(SPLITS))


def make_store(path: Path, split: list[int], images: list[bytes], **labels: Any) -> FaceStore:
    """A store of faces whose images are never decoded; `dataset` and `source_folder` go to its record."""
    count = len(split)
    record = {"dataset": labels.pop("dataset", "300W-LP"), "source": labels.pop("source_folder", "300W_LP")}
    zeros = {
        "landmarks": (68, 3),
        "points": (68, 2),
        "visibility": (68,),
        "parameters": (234,),
        "box": (4,),
        "yaw": (),
        "residual": (),
        "image_size": (2,),
        "flagged": (),
    }
    names = np.array([f"{path.stem}{i}.jpg" for i in range(count)])
    kinds = {"visibility": np.uint8, "image_size": np.int32, "flagged": np.uint8}
    fields = {name: np.zeros((count, *shape), kinds.get(name, np.float32)) for name, shape in zeros.items()}
    fields |= {"names": names, "source": names, "identity": names, "split": np.array(split, np.uint8)}
    fields |= {name: np.array(values) for name, values in labels.items()}
    write_store(path, [b"".join(images)], np.array([len(image) for image in images]), FaceLabels(**fields), record)
    return FaceStore(path)


def unlike(count: int, start: int = 0) -> list[bytes]:
    """Equally long images, each different."""
    return [f"image {start + i:05d}".encode() for i in range(count)]


def test_a_clean_store(tmp_path: Path) -> None:
    assert split_overlap([make_store(tmp_path / "a.h5", [TRAIN, VAL, TEST], unlike(3))]) == []


def test_identities_of_one_store(tmp_path: Path) -> None:
    # b stands on both sides with two validation faces, c with one; d is only tested, e's training face is flagged.
    identity = ["a", "b", "b", "b", "c", "c", "d", "d", "e", "e"]
    split = [TRAIN, TRAIN, VAL, VAL, VAL, TRAIN, TRAIN, TEST, TRAIN, VAL]
    flagged = [0, 0, 0, 0, 0, 0, 0, 0, 1, 0]
    store = make_store(tmp_path / "a.h5", split, unlike(10), identity=identity, flagged=flagged)
    expected = "3 validation faces of 300W-LP (300W_LP) with the identity of a training face: b, c"
    assert split_overlap([store]) == [expected]


def test_many_are_not_all_named(tmp_path: Path) -> None:
    identity = [f"p{i % 5}" for i in range(10)]
    store = make_store(tmp_path / "a.h5", [TRAIN] * 5 + [VAL] * 5, unlike(10), identity=identity)
    assert [text.rpartition(": ")[2] for text in split_overlap([store])] == ["p0, p1, p2, ..."]


def test_one_source_file_under_several_identities(tmp_path: Path) -> None:
    sources = ["x.avi", "x.avi", "y.avi", "z.avi"]
    store = make_store(tmp_path / "a.h5", [TRAIN, VAL, VAL, TEST], unlike(4), source=sources)
    expected = "1 validation face of 300W-LP (300W_LP) with the source file of a training face: x.avi"
    assert split_overlap([store]) == [expected]


@pytest.mark.parametrize(("folder", "found"), [("300W_LP", 1), ("elsewhere", 0)])
def test_identities_are_compared_between_stores_of_one_dataset_only(tmp_path: Path, folder: str, found: int) -> None:
    first = make_store(tmp_path / "a.h5", [TRAIN, TRAIN], unlike(2), identity=["1", "2"])
    second = make_store(tmp_path / "b.h5", [VAL, VAL], unlike(2, 9), identity=["2", "3"], source_folder=folder)
    texts = split_overlap([first, second])
    assert len(texts) == found
    assert all("1 validation face of 300W-LP (300W_LP) with the identity" in text for text in texts)


def test_stores_that_do_not_say_where_they_come_from_stand_alone(tmp_path: Path) -> None:
    same: dict[str, Any] = {"identity": ["1", "1"], "dataset": "", "source_folder": ""}
    first = make_store(tmp_path / "a.h5", [TRAIN, TRAIN], unlike(2), **same)
    assert split_overlap([first, make_store(tmp_path / "b.h5", [VAL, VAL], unlike(2, 9), **same)]) == []
    mixed = make_store(tmp_path / "c.h5", [VAL, TRAIN], unlike(2, 9), **same)
    assert len(split_overlap([first, mixed])) == 1


def test_equal_images_are_found_in_all_stores(tmp_path: Path) -> None:
    first = make_store(tmp_path / "a.h5", [TRAIN, TRAIN, TEST, TRAIN], [b"one", b"two", b"six", b"four"])
    images = [b"two", b"six", b"owt", b"two", b"fiver"]
    second = make_store(tmp_path / "b.h5", [VAL] * 4 + [TRAIN], images, dataset="MERL-RAV")
    expected = (
        "2 validation faces with the very image of a training face: "
        "b.h5: b0.jpg is a.h5: a1.jpg, b.h5: b3.jpg is a.h5: a1.jpg"
    )
    assert split_overlap([first, second]) == [expected]
    assert split_overlap([second, first]) == [expected]
    assert split_overlap([second]) == split_overlap([first]) == []


def test_drawn_faces(face_store: Path, tmp_path: Path) -> None:
    store = FaceStore(face_store)
    assert split_overlap([store]) == []
    # The same faces with the splits the other way round.
    rows = np.arange(len(store))
    labels = replace(store.labels, split=1 - store.labels.split)
    write_store(tmp_path / "again.h5", store.encoded_images(rows), store.sizes, labels, store.attributes)
    texts = split_overlap([store, FaceStore(tmp_path / "again.h5")])
    assert [text.split(" ")[0] for text in texts] == ["24", "24", "24"]
    assert ["identity" in texts[0], "source file" in texts[1], "very image" in texts[2]] == [True] * 3


@pytest.mark.skipif(not CFP.is_dir(), reason="no shared data; name its folder in DHM_SHARED_DATA")
def test_real_photos_that_stand_on_both_sides(tmp_path: Path) -> None:
    images = [path.read_bytes() for path in sorted(CFP.rglob("*.jpg"))[:40]]
    train = make_store(tmp_path / "a.h5", [TRAIN] * 25, images[:25])
    validation = make_store(tmp_path / "b.h5", [VAL] * 20, images[20:], dataset="CFP")
    (text,) = split_overlap([train, validation])
    assert text.startswith("5 validation faces with the very image of a training face: b.h5: b0.jpg is a.h5: a20.jpg")


def test_25_000_images_take_a_moment(tmp_path: Path) -> None:
    images = [os.urandom(8) * 100 for _ in range(25_000)]
    store = make_store(tmp_path / "a.h5", [VAL if i % 10 == 0 else TRAIN for i in range(25_000)], images)
    start = time.process_time()
    assert split_overlap([store]) == []
    assert time.process_time() - start < 10  # comparing each with each would take minutes
