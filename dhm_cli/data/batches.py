"""Training and validation batches from stores held in memory.

Every training batch is a pure function of (seed, step), so a run that was interrupted continues with exactly the
batches it would have seen.
"""

import signal
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dhm_cli.config import TrainConfig
from dhm_cli.data.augmentation import augmented_crop
from dhm_cli.data.crop import crop_matrix, extract_crop, landmark_crop_square, transform_landmarks
from dhm_cli.data.store import FaceStore
from dhm_cli.metrics import YAW_BINS, in_yaw_bin


@dataclass(frozen=True)
class Faces:
    """Decoded faces of one split of several stores.

    Attributes:
        images: N arrays (H, W, 3) uint8 RGB.
        landmarks: (N, 68, 3), image pixels.
        yaw: (N,), degrees.
        weight: (N,), sampling weight of the store a face came from.
    """

    images: list[NDArray[np.uint8]]
    landmarks: NDArray[np.float32]
    yaw: NDArray[np.float32]
    weight: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.images)


def load_faces(stores: Sequence[tuple[FaceStore, float]], split: str) -> Faces:
    """Decode all faces of a split into memory; of the training split without those that are flagged.

    Args:
        stores: each with its sampling weight.
        split: train, val or test.
    """
    images: list[NDArray[np.uint8]] = []
    landmarks, yaw, weight = [], [], []
    for store, store_weight in stores:
        rows = store.labels.in_split(split)
        images += store.images(rows)
        landmarks.append(store.labels.landmarks[rows])
        yaw.append(store.labels.yaw[rows])
        weight.append(np.full(len(rows), store_weight))
    return Faces(images, np.concatenate(landmarks), np.concatenate(yaw), np.concatenate(weight))


def yaw_balanced_probabilities(
    yaw: NDArray[np.floating], weight: NDArray[np.floating], shares: Sequence[float]
) -> NDArray[np.float64]:
    """Sampling probability of each face: the |yaw| bins get the given shares, faces within a bin go by their weight.

    Args:
        yaw: (N,), degrees.
        weight: (N,), > 0.
        shares: of the bins 0-30, 30-60, 60-90; the share of an empty bin goes to the others.

    Returns:
        (N,), summing to 1.
    """
    probability = np.zeros(len(yaw))
    for name, share in zip(YAW_BINS, shares, strict=True):
        inside = in_yaw_bin(yaw, name)
        if inside.any():
            probability[inside] = share * weight[inside] / weight[inside].sum()
    return probability / probability.sum()


class TrainBatches(Dataset[tuple[Tensor, Tensor]]):
    """Augmented, yaw-balanced batches; number `step` is crops (B, S, S, 3) uint8 and landmarks (B, 68, 3), crop pixels.

    Args:
        faces: training faces.
        size: side S of the crops, pixels.
        config: batch size, shares, seed and augmentation.
    """

    def __init__(self, faces: Faces, size: int, config: TrainConfig) -> None:
        self._faces, self._size, self._config = faces, size, config
        self._probability = yaw_balanced_probabilities(faces.yaw, faces.weight, config.yaw_shares)

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng((self._config.seed, step))
        rows = rng.choice(len(self._faces), self._config.batch, p=self._probability)
        images, landmarks, ranges = self._faces.images, self._faces.landmarks, self._config.augmentation
        pairs = [augmented_crop(images[r], landmarks[r], self._size, ranges, rng) for r in rows]
        crops, points = zip(*pairs, strict=True)
        return torch.from_numpy(np.stack(crops)), torch.from_numpy(np.stack(points)).float()

    def loader(self, start: int, stop: int) -> Iterable[tuple[Tensor, Tensor]]:
        """Batches start, ..., stop - 1 in order, made ahead by a process of its own.

        A thread would hold Python's lock while the network wants it: measured, a third of the training speed.
        """
        return DataLoader(
            self,
            batch_size=None,
            sampler=range(start, stop),
            num_workers=1,
            prefetch_factor=4,
            worker_init_fn=_start_worker,
            # A forked worker shares the decoded images; a spawned one has to be sent a copy.
            multiprocessing_context="fork" if sys.platform == "linux" else None,
        )


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)  # OpenCV's threads do not survive the fork
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the trainer's to handle


def validation_crops(faces: Faces, size: int) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Crops of the test protocol (true box, squared, times sqrt 2): (N, S, S, 3) uint8 and landmarks (N, 68, 3)."""
    crops, landmarks = [], []
    for image, points in zip(faces.images, faces.landmarks, strict=True):
        matrix = crop_matrix(*landmark_crop_square(points), size)
        crops.append(extract_crop(image, matrix, size))
        landmarks.append(transform_landmarks(points, matrix))
    return np.stack(crops), np.stack(landmarks)
