"""Batches: pure functions of seed and step, and balanced over yaw."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from dhm_cli.config import TrainConfig
from dhm_cli.data.batches import Faces, TrainBatches, load_faces, validation_crops, yaw_balanced_probabilities
from dhm_cli.data.store import SPLITS, FaceStore, write_store
from dhm_cli.models.input import image_tensor

CONFIG = TrainConfig(batch=4, seed=7)
SIZE = 32


def make_faces(count: int = 10) -> Faces:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (60 + i, 50 + 2 * i, 3), dtype=np.uint8) for i in range(count)]
    landmarks = rng.uniform(10, 45, (count, 68, 3)).astype(np.float32)
    return Faces(images, landmarks, np.linspace(-90, 90, count).astype(np.float32), np.ones(count))


def test_probabilities_by_hand() -> None:
    yaw = np.array([0.0, -30.0, 31.0, 60.0, -60.1, 90.0, 120.0])
    weight = np.array([1.0, 3.0, 1.0, 1.0, 1.0, 1.0, 2.0])
    # 0.5 shared 1:3, 0.2 shared 1:1, 0.3 shared 1:1:2
    expected = [0.125, 0.375, 0.1, 0.1, 0.075, 0.075, 0.15]
    np.testing.assert_allclose(yaw_balanced_probabilities(yaw, weight, (0.5, 0.2, 0.3)), expected)


def test_the_share_of_an_empty_bin_goes_to_the_others() -> None:
    got = yaw_balanced_probabilities(np.array([0.0, 5.0, 80.0]), np.ones(3), (0.4, 0.3, 0.4))
    np.testing.assert_allclose(got, [0.25, 0.25, 0.5])


def test_draws_follow_the_shares() -> None:
    faces = make_faces(8)
    yaw = np.array([0.0, 0, 0, 0, 0, 0, 45, 80], np.float32)
    images = [np.full((40, 40, 3), 10 * (i + 1), np.uint8) for i in range(8)]
    landmarks = np.random.default_rng(0).uniform(15, 25, (8, 68, 3)).astype(np.float32)
    quiet = replace(
        CONFIG.augmentation, colour=0, grey=0, low_resolution=0, blur=0, noise=0, jpeg=0, occlusion=0, scale=0
    )
    config = replace(CONFIG, batch=600, yaw_shares=(0.2, 0.3, 0.5), augmentation=quiet)
    crops, _ = TrainBatches(replace(faces, images=images, landmarks=landmarks, yaw=yaw), 16, config)[0]
    grey = crops[:, 8, 8, 0].float()  # tells which face it was
    share = [((grey - 10 * (i + 1)).abs() < 1).float().mean().item() for i in range(8)]
    assert sum(share) == pytest.approx(1.0)
    assert [sum(share[:6]), share[6], share[7]] == pytest.approx([0.2, 0.3, 0.5], abs=0.06)


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
    crops, landmarks = batches[5]
    assert crops.shape == (4, SIZE, SIZE, 3)
    assert crops.dtype == torch.uint8
    assert landmarks.shape == (4, 68, 3)
    assert landmarks.dtype == torch.float32
    batches[3]
    again = TrainBatches(make_faces(), SIZE, CONFIG)[5]
    assert torch.equal(again[0], crops)
    assert torch.equal(again[1], landmarks)
    assert not torch.equal(batches[6][0], crops)
    assert not torch.equal(TrainBatches(faces, SIZE, replace(CONFIG, seed=8))[5][0], crops)


def test_batches_made_ahead_come_in_order() -> None:
    batches = TrainBatches(make_faces(), SIZE, CONFIG)
    drawn = list(batches.loader(2, 12))
    assert len(drawn) == 10
    for step, (crops, landmarks) in enumerate(drawn, start=2):
        expected = batches[step]
        assert torch.equal(crops, expected[0])
        assert torch.equal(landmarks, expected[1])


def test_nothing_left_to_do() -> None:
    assert list(TrainBatches(make_faces(), SIZE, CONFIG).loader(9, 9)) == []


def test_an_error_in_the_worker_is_raised_here() -> None:
    faces = make_faces()
    broken = replace(faces, images=[np.zeros((0, 0, 3), np.uint8)] * len(faces))
    with pytest.raises(cv2.error, match=r"warpAffine|remap"):
        next(iter(TrainBatches(broken, SIZE, CONFIG).loader(0, 5)))


def test_validation_crops_follow_the_test_protocol() -> None:
    faces = make_faces()
    before = [image.copy() for image in faces.images]
    crops, landmarks = validation_crops(faces, SIZE)
    assert crops.shape == (10, SIZE, SIZE, 3)
    assert crops.dtype == np.uint8
    for points, original in zip(landmarks, faces.landmarks, strict=True):
        low, high = points[:, :2].min(0), points[:, :2].max(0)
        np.testing.assert_allclose((low + high) / 2, (SIZE - 1) / 2, atol=1e-6)
        scale = SIZE / (np.ptp(original[:, :2], axis=0).max() * np.sqrt(2))
        np.testing.assert_allclose(points - points[0], (original - original[0]) * scale, atol=1e-4)
    assert all(np.array_equal(a, b) for a, b in zip(faces.images, before, strict=True))


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
