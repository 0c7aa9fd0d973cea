"""Training and validation batches from stores. The encoded images are held in memory and decoded when needed.

Sample i of training step s is a pure function of (seed, s, i), so a run that was interrupted goes on with exactly what
it would have seen, and neither the number of worker processes nor that of training processes changes a number.
"""

import math
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dhm_cli.config.training import TrainConfig
from dhm_cli.data.augmentation import Sample, augmented_crop
from dhm_cli.data.not_faces import NotFaces
from dhm_cli.data.store import FaceStore
from dhm_cli.errors import DhmError, FormatError, InputError
from dhm_cli.geometry.crop import crop_matrix, extract_crop, landmark_crop_square, transform_landmarks
from dhm_cli.geometry.landmarks import MIRROR
from dhm_cli.io.images import decode_image
from dhm_cli.io.pts import OCCLUDED, VISIBLE
from dhm_cli.metrics.landmark_error import YAW_BINS, in_yaw_bin


@dataclass(frozen=True)
class Faces:
    """Faces of one split of several stores; images stay encoded: 1.4 GB, not 74, for all of 300W-LP.

    Attributes:
        names: (N,) str, the store's file name and the face's name, for messages.
        encoded: the image files end to end. One array, not a list of bytes: a worker process shares its memory, while
            counting the references to 100,000 objects would copy most of it.
        offsets: (N + 1,), where each image begins and the last ends.
        landmarks: (N, 68, 3), image pixels.
        yaw: (N,), degrees.
        weight: (N,), sampling weight of the store a face came from.
        visibility: (N, 68) uint8, codes of `io.pts`.
    """

    names: NDArray[np.str_]
    encoded: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    landmarks: NDArray[np.float32]
    yaw: NDArray[np.float32]
    weight: NDArray[np.float64]
    visibility: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.names)

    def image(self, row: int) -> NDArray[np.uint8]:
        """Decode an image, (H, W, 3) uint8 RGB.

        Raises:
            FormatError: it is damaged.
        """
        data = self.encoded[self.offsets[row] : self.offsets[row + 1]].tobytes()
        try:
            return decode_image(data, str(self.names[row]), upright=False)
        except InputError as error:
            raise FormatError(error.message, "prepare the store again") from error


def load_faces(stores: Sequence[tuple[FaceStore, float]], split: str) -> Faces:
    """Read the encoded images and the labels of a split; flagged faces are left out of the training split.

    Args:
        stores: each with its sampling weight.
        split: train, val or test.

    Raises:
        FormatError: a store is shorter than its table of images says, or has labels that are no numbers.
    """
    chosen = [(store, store.labels.in_split(split)) for store, _ in stores]
    for store, rows in chosen:
        store.check_labels(rows)
    names = [f"{store.path.name}: {name}" for store, rows in chosen for name in store.labels.names[rows]]
    sizes = np.concatenate([store.sizes[rows] for store, rows in chosen])
    offsets = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    encoded = np.empty(offsets[-1], np.uint8)
    images = (data for store, rows in chosen for data in store.encoded_images(rows))
    for number, data in enumerate(images):
        if len(data) != sizes[number]:
            raise FormatError(f"{names[number]}: the image is cut off", "prepare the store again")
        encoded[offsets[number] : offsets[number + 1]] = np.frombuffer(data, np.uint8)
    return Faces(
        names=np.array(names, dtype=np.str_),
        encoded=encoded,
        offsets=offsets,
        landmarks=np.concatenate([store.labels.landmarks[rows] for store, rows in chosen]),
        yaw=np.concatenate([store.labels.yaw[rows] for store, rows in chosen]),
        weight=np.repeat([weight for _, weight in stores], [len(rows) for _, rows in chosen]).astype(np.float64),
        visibility=np.concatenate([store.labels.visibility[rows] for store, rows in chosen]),
    )


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

    Raises:
        InputError: no face lies in a bin that has a share.
    """
    probability = np.zeros(len(yaw))
    for name, share in zip(YAW_BINS, shares, strict=True):
        inside = in_yaw_bin(yaw, name)
        if inside.any():
            probability[inside] = share * weight[inside] / weight[inside].sum()
    if not probability.any():
        wanted = ", ".join(name for name, share in zip(YAW_BINS, shares, strict=True) if share)
        raise InputError(f"no training face with a yaw of {wanted or 'any'} degrees", "add faces, or change the shares")
    return probability / probability.sum()


class Batch(NamedTuple):
    """Faces of one training step.

    Attributes:
        crops: (B, S, S, 3) uint8 RGB.
        landmarks: (B, 68, 3) float32, crop pixels.
        rows: (B,) int64, which of the training faces these are.
        visibility: (B, 68) uint8, codes of `io.pts`; landmarks that an augmentation hid count as OCCLUDED.
        faces: (B,) bool, False where there is no face, or none to be found from this crop: no landmarks to learn.
    """

    crops: Tensor
    landmarks: Tensor
    rows: Tensor
    visibility: Tensor
    faces: Tensor


class TrainBatches:
    """The augmented batches of a training.

    With `yaw_shares` every sample is drawn with replacement. Without, every face is seen once an epoch: samples follow
    one permutation of the faces after the other. A batch may span the end of an epoch, so every batch is full.

    Args:
        faces: training faces.
        size: side S of the crops, pixels.
        config: batch size, shares, seed and augmentation.
        not_faces: pictures without a face; half of `not_face_share` is drawn from them, the rest, or without them all,
            are faces far from where they are looked for.

    Raises:
        InputError: no face in a bin of yaw that has a share, or weights where every face is seen once an epoch.
    """

    def __init__(self, faces: Faces, size: int, config: TrainConfig, not_faces: NotFaces | None = None) -> None:
        self._faces, self._size, self._config, self._not_faces = faces, size, config, not_faces
        self._cumulated: NDArray[np.float64] | None = None
        if config.yaw_shares is not None:
            cumulated = np.cumsum(yaw_balanced_probabilities(faces.yaw, faces.weight, config.yaw_shares))
            self._cumulated = cumulated / cumulated[-1]
        elif (faces.weight != 1).any():
            raise InputError(
                "stores have weights, but every face is to be seen once an epoch",
                "leave out the weights, or draw faces by yaw",
            )

    @property
    def steps_per_epoch(self) -> int:
        """Steps after which as many samples were drawn as there are faces."""
        return math.ceil(len(self._faces) / self._config.batch)

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """The share of one process in a step: samples rank, rank + world, ... of the step's batch.

        Args:
            step: from 0.
            rank: number of this process, from 0.
            world: how many processes share the batch.

        Raises:
            FormatError: an image is damaged.
        """
        samples = range(rank, self._config.batch, world)
        crops = np.empty((len(samples), self._size, self._size, 3), np.uint8)
        landmarks = np.empty((len(samples), 68, 3), np.float32)
        rows = np.empty(len(samples), np.int64)
        visibility = np.zeros((len(samples), 68), np.uint8)
        faces = np.ones(len(samples), bool)
        for place, sample in enumerate(samples):
            rng = np.random.default_rng((self._config.seed, step, sample))
            row = rows[place] = self._draw(step, sample, rng)
            share = self._config.not_face_share
            faces[place] = not share or rng.random() >= share
            made = self._sample(row, bool(faces[place]), rng)
            crops[place], landmarks[place] = made.crop, made.landmarks
            if faces[place]:
                states = self._faces.visibility[row][MIRROR if made.mirrored else slice(None)]
                visibility[place] = np.where(made.covered & (states == VISIBLE), np.uint8(OCCLUDED), states)
        return Batch(*(torch.from_numpy(values) for values in (crops, landmarks, rows, visibility, faces)))

    def _sample(self, row: int, face: bool, rng: np.random.Generator) -> Sample:
        def another() -> NDArray[np.uint8]:
            return self._faces.image(int(rng.integers(len(self._faces))))

        image, landmarks, misplaced = self._faces.image(row), self._faces.landmarks[row], not face
        if not face and self._not_faces is not None and rng.random() < 0.5:
            image = self._not_faces.image(int(rng.integers(len(self._not_faces))))
            landmarks, misplaced = _points_around(image), False
        return augmented_crop(image, landmarks, self._size, self._config.augmentation, rng, another, misplaced)

    def _draw(self, step: int, sample: int, rng: np.random.Generator) -> int:
        if self._cumulated is not None:
            return int(np.searchsorted(self._cumulated, rng.random(), side="right"))
        epoch, place = divmod(step * self._config.batch + sample, len(self._faces))
        return int(_permutation(self._config.seed, epoch, len(self._faces))[place])

    def loader(self, start: int, stop: int, workers: int = 1, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """The batches of steps start, ..., stop - 1 in order, made ahead by worker processes.

        Threads in place of processes were measured to cost a third of the training speed, by Python's lock.

        Args:
            start: first step.
            stop: step after the last.
            workers: processes; 0 makes every batch in the calling process when it is asked for.
            rank: as for `batch`.
            world: as for `batch`.

        Returns:
            Batches in pinned memory where there is a CUDA device.

        Raises:
            FormatError: an image is damaged.
        """
        made: DataLoader[Batch | DhmError] = DataLoader(
            _Steps(self, rank, world),
            batch_size=None,
            sampler=range(start, stop),
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            worker_init_fn=_start_worker,
            # A forked worker shares the images; a spawned one has to be sent a copy.
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
            pin_memory=torch.cuda.is_available(),
        )
        for batch in made:
            if isinstance(batch, DhmError):
                raise batch
            yield batch


class _Steps(Dataset["Batch | DhmError"]):
    """One process's batches by step, for a `DataLoader`."""

    def __init__(self, batches: TrainBatches, rank: int, world: int) -> None:
        self._batches, self._rank, self._world = batches, rank, world

    def __getitem__(self, step: int) -> Batch | DhmError:
        try:
            return self._batches.batch(step, self._rank, self._world)
        except DhmError as error:  # raised in a worker it would arrive as a traceback, without its hint
            return error


def _points_around(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Stand-ins for landmarks, (68, 3), whose crop is the whole image."""
    height, width = image.shape[:2]
    half = min(height, width) / math.sqrt(8.0)
    points = np.tile([(width - 1) / 2 - half, (height - 1) / 2 - half, 0.0], (68, 1))
    points[1::2, :2] += 2 * half
    return points


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    # Four numbers: numpy pads shorter seeds with zeros, so (seed, epoch) would be the generator of (seed, step, 0).
    return np.random.default_rng((seed, epoch, 0, 1)).permutation(count)


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)  # OpenCV's threads do not survive the fork
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole process group; the trainer handles them
        signal.signal(number, signal.SIG_IGN)


def validation_crops(
    faces: Faces, size: int, rank: int = 0, world: int = 1
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Crops of the test protocol (true box, squared, times sqrt 2) of faces rank, rank + world, ...

    Args:
        faces: validation faces.
        size: side S of the crops, pixels.
        rank: number of this process, from 0.
        world: how many processes share the faces.

    Returns:
        (N, S, S, 3) uint8 RGB and landmarks (N, 68, 3), crop pixels.

    Raises:
        FormatError: an image is damaged.
    """
    rows = range(rank, len(faces), world)
    crops = np.empty((len(rows), size, size, 3), np.uint8)
    landmarks = np.empty((len(rows), 68, 3))
    for place, row in enumerate(rows):
        matrix = crop_matrix(*landmark_crop_square(faces.landmarks[row]), size)
        crops[place] = extract_crop(faces.image(row), matrix, size)
        landmarks[place] = transform_landmarks(faces.landmarks[row], matrix)
    return crops, landmarks
