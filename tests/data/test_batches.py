"""Batches: pure functions of seed, step and sample, whoever makes them; balanced over yaw, or every face in turn."""

import multiprocessing
from dataclasses import astuple, replace
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dhm_cli.config.training import AugmentationConfig, TrainConfig
from dhm_cli.data.batches import Batch, Faces, TrainBatches, load_faces, validation_crops, yaw_balanced_probabilities
from dhm_cli.data.not_faces import read_not_faces
from dhm_cli.data.store import SPLITS, FaceStore, write_store
from dhm_cli.errors import FormatError, InputError
from dhm_cli.models.interface import image_tensor

CONFIG = TrainConfig(batch=4, seed=7)
IN_TURN = replace(CONFIG, yaw_shares=None)
NO_AUGMENTATION = AugmentationConfig(*[0.0] * len(astuple(AugmentationConfig())))
SIZE = 32


def make_images(count: int = 10) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (60 + i, 50 + 2 * i, 3), dtype=np.uint8) for i in range(count)]


def encode(images: list[NDArray[np.uint8]]) -> list[bytes]:
    return [cv2.imencode(".png", image[..., ::-1])[1].tobytes() for image in images]


def faces_of(encoded: list[bytes], yaw: NDArray[np.float32] | None = None) -> Faces:
    count = len(encoded)
    return Faces(
        names=np.array([f"made.h5: {i}.png" for i in range(count)]),
        encoded=np.frombuffer(b"".join(encoded), np.uint8),
        offsets=np.cumsum([0, *map(len, encoded)]),
        landmarks=np.random.default_rng(1).uniform(10, 45, (count, 68, 3)).astype(np.float32),
        yaw=np.linspace(-90, 90, count).astype(np.float32) if yaw is None else yaw,
        weight=np.ones(count),
        visibility=np.zeros((count, 68), np.uint8),
    )


def make_faces(count: int = 10) -> Faces:
    return faces_of(encode(make_images(count)))


def same(a: Batch, b: Batch) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_probabilities_by_hand() -> None:
    yaw = np.array([0.0, -30.0, 31.0, 60.0, -60.1, 90.0, 120.0])
    weight = np.array([1.0, 3.0, 1.0, 1.0, 1.0, 1.0, 2.0])
    # 0.5 shared 1:3, 0.2 shared 1:1, 0.3 shared 1:1:2
    expected = [0.125, 0.375, 0.1, 0.1, 0.075, 0.075, 0.15]
    np.testing.assert_allclose(yaw_balanced_probabilities(yaw, weight, (0.5, 0.2, 0.3)), expected)


def test_the_share_of_an_empty_bin_goes_to_the_others() -> None:
    got = yaw_balanced_probabilities(np.array([0.0, 5.0, 80.0]), np.ones(3), (0.4, 0.3, 0.4))
    np.testing.assert_allclose(got, [0.25, 0.25, 0.5])


def test_no_face_where_the_shares_are() -> None:
    with pytest.raises(InputError, match="no training face with a yaw of 30-60, 60-90 degrees"):
        yaw_balanced_probabilities(np.array([0.0, 5.0]), np.ones(2), (0.0, 0.5, 0.5))


def test_draws_follow_the_shares_and_never_take_a_face_without() -> None:
    yaw = np.array([0, 0, 0, 45, 80, 0, 0, 0], np.float32)
    faces = faces_of(encode([np.zeros((8, 8, 3), np.uint8)] * 8), yaw)
    config = replace(CONFIG, batch=300, yaw_shares=(0.0, 0.3, 0.7), augmentation=NO_AUGMENTATION)
    batches = TrainBatches(faces, 8, config)
    drawn = torch.cat([batches.batch(step).rows for step in range(3)])
    share = torch.bincount(drawn, minlength=8) / len(drawn)
    assert share.tolist() == pytest.approx([0, 0, 0, 0.3, 0.7, 0, 0, 0], abs=0.04)


def test_image_tensor() -> None:
    crops = torch.zeros(2, 4, 5, 3, dtype=torch.uint8)
    crops[1, 2, 3] = torch.tensor([255, 0, 51])
    before = crops.clone()
    images = image_tensor(crops)
    assert images.shape == (2, 3, 4, 5)
    assert images.dtype == torch.float32
    assert images[1, :, 2, 3].tolist() == pytest.approx([1.0, -1.0, -0.6])
    assert images[0].eq(-1).all()
    assert torch.equal(crops, before)


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    faces = make_faces()
    batches = TrainBatches(faces, SIZE, CONFIG)
    batch = batches.batch(5)
    assert batch.crops.shape == (4, SIZE, SIZE, 3)
    assert batch.crops.dtype == torch.uint8
    assert batch.landmarks.shape == (4, 68, 3)
    assert batch.landmarks.dtype == torch.float32
    assert batch.rows.shape == (4,)
    assert batch.rows.dtype == torch.int64
    batches.batch(3)
    assert same(TrainBatches(make_faces(), SIZE, CONFIG).batch(5), batch)
    assert not torch.equal(batches.batch(6).crops, batch.crops)
    assert not torch.equal(TrainBatches(faces, SIZE, replace(CONFIG, seed=8)).batch(5).crops, batch.crops)


def test_a_sample_does_not_depend_on_its_neighbours() -> None:
    small = TrainBatches(make_faces(), SIZE, CONFIG).batch(2)
    large = TrainBatches(make_faces(), SIZE, replace(CONFIG, batch=9)).batch(2)
    assert same(small, Batch(*(values[:4] for values in large)))


@pytest.mark.parametrize("config", [CONFIG, IN_TURN])
@pytest.mark.parametrize("world", [2, 3, 5])
def test_processes_share_the_batch_of_one(config: TrainConfig, world: int) -> None:
    batches = TrainBatches(make_faces(), SIZE, config)
    whole = batches.batch(4)
    for rank in range(world):
        assert same(batches.batch(4, rank, world), Batch(*(values[rank::world] for values in whole)))


@pytest.mark.parametrize("batch", [4, 23])
def test_every_face_once_an_epoch_in_full_batches(batch: int) -> None:
    batches = TrainBatches(make_faces(), SIZE, replace(IN_TURN, batch=batch))
    rows = torch.cat([batches.batch(step).rows for step in range(100 // batch + 1)])
    assert len(rows) == batch * (100 // batch + 1)
    epochs = rows[:100].reshape(10, 10)
    assert (epochs.sort(dim=1).values == torch.arange(10)).all()
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 10
    other = TrainBatches(make_faces(), SIZE, replace(IN_TURN, batch=batch, seed=8)).batch(0).rows
    assert not torch.equal(other, rows[:batch])


def test_the_order_of_an_epoch_is_not_drawn_with_the_generator_of_a_sample() -> None:
    rows = TrainBatches(make_faces(), SIZE, replace(IN_TURN, batch=10)).batch(3).rows
    for sample in range(10):
        of_sample = np.random.default_rng((CONFIG.seed, 3, sample)).permutation(10)
        assert rows.tolist() != of_sample.tolist()


@pytest.mark.parametrize(("batch", "steps"), [(4, 3), (5, 2), (10, 1), (11, 1), (1, 10)])
def test_steps_of_an_epoch(batch: int, steps: int) -> None:
    assert TrainBatches(make_faces(), SIZE, replace(CONFIG, batch=batch)).steps_per_epoch == steps


def test_weights_mean_nothing_where_every_face_is_seen_once() -> None:
    faces = replace(make_faces(), weight=np.r_[np.ones(9), 0.5])
    assert len(TrainBatches(faces, SIZE, CONFIG).batch(0).rows) == 4
    with pytest.raises(InputError, match="stores have weights") as error:
        TrainBatches(faces, SIZE, IN_TURN)
    assert "leave out the weights" in error.value.hint


@pytest.mark.parametrize("config", [CONFIG, IN_TURN])
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_workers_change_neither_order_nor_numbers(config: TrainConfig, workers: int) -> None:
    batches = TrainBatches(make_faces(), SIZE, config)
    drawn = list(batches.loader(2, 12, workers, rank=1, world=2))
    assert len(drawn) == 10
    for step, batch in enumerate(drawn, start=2):
        assert isinstance(batch, Batch)
        assert same(batch, batches.batch(step, 1, 2))


def test_nothing_left_to_do() -> None:
    assert list(TrainBatches(make_faces(), SIZE, CONFIG).loader(9, 9)) == []


def test_workers_end_with_the_loader() -> None:
    before = set(multiprocessing.active_children())
    loader = TrainBatches(make_faces(), SIZE, CONFIG).loader(0, 1000, workers=2)
    next(loader)
    assert len(set(multiprocessing.active_children()) - before) == 2
    del loader
    assert set(multiprocessing.active_children()) <= before


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_named(workers: int) -> None:
    encoded = encode(make_images())
    encoded[6] = encoded[6][:40]
    loader = TrainBatches(faces_of(encoded), SIZE, IN_TURN).loader(0, 3, workers)
    with pytest.raises(FormatError, match=r"^made\.h5: 6\.png: truncated PNG$") as error:
        list(loader)
    assert error.value.hint == "prepare the store again"


def test_an_empty_image_is_named() -> None:
    encoded = [*encode(make_images(2)), b""]
    with pytest.raises(FormatError, match=r"made\.h5: 2\.png"):
        validation_crops(faces_of(encoded), SIZE)


def test_validation_crops_follow_the_test_protocol() -> None:
    faces = make_faces()
    crops, landmarks = validation_crops(faces, SIZE)
    assert crops.shape == (10, SIZE, SIZE, 3)
    assert crops.dtype == np.uint8
    for points, original in zip(landmarks, faces.landmarks, strict=True):
        low, high = points[:, :2].min(0), points[:, :2].max(0)
        np.testing.assert_allclose((low + high) / 2, (SIZE - 1) / 2, atol=1e-6)
        scale = SIZE / (np.ptp(original[:, :2], axis=0).max() * np.sqrt(2))
        np.testing.assert_allclose(points - points[0], (original - original[0]) * scale, atol=1e-4)


def test_without_augmentation_training_sees_the_crops_of_the_test_protocol() -> None:
    faces = make_faces()
    # Close to the image's edge, so that the border shows.
    faces = replace(faces, landmarks=faces.landmarks - np.float32([9, 9, 0]))
    crops, landmarks = validation_crops(faces, SIZE)
    assert (crops[:, 0] == 0).all()
    batches = TrainBatches(faces, SIZE, replace(IN_TURN, augmentation=NO_AUGMENTATION))
    for batch in batches.loader(0, 8, workers=0):
        np.testing.assert_array_equal(batch.crops, crops[batch.rows])
        np.testing.assert_allclose(batch.landmarks, landmarks[batch.rows], atol=1e-5)


@pytest.mark.parametrize("world", [2, 3, 11])
def test_processes_share_the_validation_faces(world: int) -> None:
    crops, landmarks = validation_crops(make_faces(), SIZE)
    for rank in range(world):
        part = validation_crops(make_faces(), SIZE, rank, world)
        np.testing.assert_array_equal(part[0], crops[rank::world])
        np.testing.assert_array_equal(part[1], landmarks[rank::world])


def test_faces_of_several_stores(face_store: Path) -> None:
    store = FaceStore(face_store)
    train = store.labels.in_split("train")
    faces = load_faces([(store, 1.0), (FaceStore(face_store), 0.25)], "train")
    assert len(faces) == 2 * len(train)
    assert faces.encoded.nbytes == 2 * store.sizes[train].sum()
    assert faces.weight.tolist() == [1.0] * len(train) + [0.25] * len(train)
    np.testing.assert_array_equal(faces.yaw, np.tile(store.labels.yaw[train], 2))
    assert faces.names.tolist() == [f"{face_store.name}: {name}" for name in store.labels.names[train]] * 2
    for row, image in enumerate([*store.images(train), *store.images(train)]):
        np.testing.assert_array_equal(faces.image(row), image)


def test_a_split_without_faces(face_store: Path) -> None:
    assert len(load_faces([(FaceStore(face_store), 1.0)], "test")) == 0


def test_a_store_that_is_cut_off(face_store: Path, tmp_path: Path) -> None:
    store = FaceStore(face_store)
    rows, path = np.arange(len(store)), tmp_path / "short.h5"
    labels = replace(store.labels, split=np.zeros(len(store), np.uint8))
    write_store(path, store.encoded_images(rows), store.sizes, labels, {})
    with h5py.File(path, "r+") as file:
        images = file["images"][:-5]
        del file["images"]
        file["images"] = images
    with pytest.raises(FormatError, match=r"short\.h5: not a readable .*offsets of the images"):
        load_faces([(FaceStore(path), 1.0)], "train")


def test_flagged_faces_are_not_trained_on(face_store: Path, tmp_path: Path) -> None:
    store = FaceStore(face_store)
    train = store.labels.in_split("train")
    flagged = np.zeros(len(store), np.uint8)
    flagged[train[:5]] = 1
    rows = np.arange(len(store))
    labels = replace(store.labels, flagged=flagged)
    write_store(tmp_path / "a.h5", store.encoded_images(rows), store.sizes, labels, {})
    faces = load_faces([(FaceStore(tmp_path / "a.h5"), 0.5)], "train")
    np.testing.assert_array_equal(faces.landmarks, store.labels.landmarks[train[5:]])
    assert faces.weight.tolist() == [0.5] * (len(train) - 5)
    # Those of other splits stay.
    validation = replace(labels, split=np.full(len(store), SPLITS.index("val"), np.uint8))
    write_store(tmp_path / "b.h5", store.encoded_images(rows), store.sizes, validation, {})
    assert len(load_faces([(FaceStore(tmp_path / "b.h5"), 1.0)], "val")) == len(store)


def test_a_share_of_the_samples_shows_no_face(tmp_path: Path) -> None:
    for number in range(10):
        cv2.imwrite(str(tmp_path / f"{number:02}.png"), np.full((40, 40, 3), 20 * number + 5, np.uint8))
    config = replace(CONFIG, batch=400, not_face_share=0.3, augmentation=NO_AUGMENTATION)
    batch = TrainBatches(make_faces(), SIZE, config, read_not_faces(tmp_path, "train")).batch(0)
    assert (~batch.faces).float().mean().item() == pytest.approx(0.3, abs=0.06)
    flat = batch.crops.flatten(1).float().std(1) < 1  # the pictures of the folder are of one colour
    assert not flat[batch.faces].any()
    assert flat[~batch.faces].float().mean().item() == pytest.approx(0.5, abs=0.12)  # the others are misplaced faces
    assert batch.crops.flatten(1)[flat].max() <= 20 * 7 + 5  # none of those held out
    assert TrainBatches(make_faces(), SIZE, replace(config, not_face_share=0.0)).batch(0).faces.all()


@pytest.mark.parametrize(
    ("name", "value"), [("landmarks", np.nan), ("landmarks", 7.0), ("parameters", np.inf), ("yaw", np.nan)]
)
def test_labels_that_are_no_numbers_are_refused(face_store: Path, tmp_path: Path, name: str, value: float) -> None:
    """Training on a store with a NaN among its labels ended with a traceback."""
    store, path = FaceStore(face_store), tmp_path / "damaged.h5"
    row = store.labels.in_split("train")[2]
    damaged = getattr(store.labels, name).copy()
    damaged[row] = value
    everything = store.encoded_images(np.arange(len(store)))
    write_store(path, everything, store.sizes, replace(store.labels, **{name: damaged}), {})
    with pytest.raises(FormatError, match=rf"damaged\.h5: 1 face has labels .*such as {store.labels.names[row]}"):
        load_faces([(FaceStore(path), 1.0)], "train")
    assert len(load_faces([(FaceStore(path), 1.0)], "val"))
