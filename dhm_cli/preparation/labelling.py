"""Faces of a dataset become rows of a store: image and annotation are read, landmarks and parameters worked out."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dhm_cli.data.store import FaceLabels
from dhm_cli.datasets.layout import Layout
from dhm_cli.datasets.samples import Sample, Truth, load_images
from dhm_cli.errors import DhmError, InputError
from dhm_cli.geometry.landmarks import NUM_LANDMARKS, bounding_box, face_size
from dhm_cli.io.point_tables import FaceRow, PointTable
from dhm_cli.io.pts import FARTHEST, NO_LABEL, SELF_OCCLUDED, VISIBLE
from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.morphable.fitting import Fit, fit_face_labels, fit_parameters
from dhm_cli.morphable.parameters import NUM_PARAMETERS
from dhm_cli.preparation.shards import PartContent

# A pose alone has six numbers; with less than eight points there is nothing left to tell a face from an accident.
_FEWEST_POINTS = 8

_Solved = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True)
class _Face:
    number: int  # of its sample
    sample: Sample
    encoded: bytes
    size: tuple[int, int]  # height, width
    truth: Truth
    prior: NDArray[np.float32]


@dataclass(frozen=True)
class Labeller:
    """All that is needed to label the faces of a dataset; threads share it.

    Attributes:
        layout: the dataset's.
        model: the face model of its parameters, or to fit.
        samples: N faces.
        rows: N, what a table says of each.
        unread: folders of the dataset that could not be read, a sentence each.
        points: human points of faces without an annotation file.
        prior: approximate points, which pull at low weight.
        reannotated: (N, 68, 2), a second label set, 0-based pixels.
        labelled_yaw: (N,), the dataset's own yaw labels, degrees.
        self_occlusion: see `PrepareOptions`.
    """

    layout: Layout
    model: FaceModel
    samples: Sequence[Sample]
    rows: Sequence[FaceRow]
    unread: Sequence[str] = ()
    points: PointTable | None = None
    prior: PointTable | None = None
    reannotated: NDArray[np.float32] | None = None
    labelled_yaw: NDArray[np.float32] | None = None
    self_occlusion: bool = False

    def label(self, start: int, stop: int) -> PartContent:
        """Read and label the samples [start, stop); what cannot be used is left out, with the reason."""
        samples = self.samples[start:stop]
        began = time.perf_counter()
        faces: list[_Face] = []
        dropped: list[tuple[str, str]] = []
        for number, sample, image in zip(range(start, stop), samples, load_images(samples), strict=True):
            try:
                if isinstance(image, DhmError):
                    raise image
                faces.append(self._read(number, sample, *image))
            except DhmError as error:
                dropped.append((sample.name, f"{error.message} ({error.hint})" if error.hint else error.message))
        read = time.perf_counter()
        with np.errstate(invalid="ignore", over="ignore"):  # absurd numbers, whose faces are left out below
            labels = self._solve(faces)
        sane = np.array([(np.abs(p) < FARTHEST).all() and face_size(p) >= 1 for p in labels.landmarks], dtype=bool)
        reason = "its labels lead to landmarks that are no pixel positions or all one (repair or remove its annotation)"
        dropped += [(str(name), reason) for name in labels.names[~sane]]
        images = [face.encoded for face, good in zip(faces, sane, strict=True) if good]
        return PartContent(images, labels.take(sane), dropped, (read - began, time.perf_counter() - read))

    def _read(self, number: int, sample: Sample, encoded: bytes, height: int, width: int) -> _Face:
        truth = self.layout.read(sample, height, width)
        if self.points is not None and not (truth.visibility != NO_LABEL).any():
            given = self.points.get(sample.name, width, height)
            visibility = np.where(np.isnan(given).any(axis=1), NO_LABEL, VISIBLE).astype(np.uint8)
            solid = given if given.shape[1] == 3 and visibility.all() else None
            truth = Truth(given[:, :2], visibility, solid if truth.landmarks is None else None, truth.parameters)
        nothing = np.full((NUM_LANDMARKS, 2), np.nan, np.float32)
        prior = self.prior.get(sample.name, width, height)[:, :2] if self.prior else nothing
        labelled = int((truth.visibility != NO_LABEL).sum())
        if truth.parameters is None and labelled < _FEWEST_POINTS and np.isnan(prior).any():
            raise InputError(
                f"{sample.image}: fewer than {_FEWEST_POINTS} labelled landmarks and no prior",
                "add an annotation file, or name tables with --points or --prior",
            )
        return _Face(number, sample, encoded, (height, width), truth, prior)

    def _solve(self, faces: list[_Face]) -> FaceLabels:
        given = np.array([f.truth.parameters is not None for f in faces], dtype=bool)
        solid = np.array([f.truth.landmarks is not None for f in faces], dtype=bool)
        parameters = np.zeros((len(faces), NUM_PARAMETERS), np.float32)
        landmarks = np.zeros((len(faces), NUM_LANDMARKS, 3), np.float32)
        residual = np.zeros(len(faces), np.float32)
        for mask, solve in ((given, self._project), (~given & solid, self._fit_3d), (~given & ~solid, self._fit)):
            rows = np.flatnonzero(mask)
            if len(rows):
                parameters[rows], landmarks[rows], residual[rows] = solve([faces[i] for i in rows])
        landmarks[..., 2] -= landmarks[..., 2].mean(axis=1, keepdims=True)
        numbers = np.array([f.number for f in faces], dtype=np.int64)
        identities = [self.rows[f.number].identity or f.sample.identity for f in faces]
        return FaceLabels(
            names=np.array([f.sample.name for f in faces], dtype=np.str_),
            source=np.array([f.sample.source for f in faces], dtype=np.str_),
            identity=np.array(identities, dtype=np.str_),
            split=np.zeros(len(faces), np.uint8),  # decided over the whole dataset
            image_size=np.array([f.size for f in faces], np.int32).reshape(-1, 2),
            landmarks=landmarks,
            points=np.array([f.truth.points for f in faces], np.float32).reshape(-1, NUM_LANDMARKS, 2),
            visibility=self._visibility(faces),
            parameters=parameters,
            box=bounding_box(landmarks).astype(np.float32),
            yaw=np.rad2deg(parameters[:, 2]),
            residual=residual,
            flagged=np.zeros(len(faces), np.uint8),
            reannotated=None if self.reannotated is None else self.reannotated[numbers],
            labelled_yaw=None if self.labelled_yaw is None else self.labelled_yaw[numbers],
        )

    def _visibility(self, faces: list[_Face]) -> NDArray[np.uint8]:
        """Codes of the human labels, (N, 68), with the mark of what the head itself hides where that is known."""
        codes = np.array([f.truth.visibility for f in faces], np.uint8).reshape(-1, NUM_LANDMARKS)
        annotated = (codes != NO_LABEL).any(axis=1, keepdims=True)
        hidden = self.self_occlusion & annotated & (codes == NO_LABEL)
        return np.where(hidden, np.uint8(SELF_OCCLUDED), codes)

    def _project(self, faces: list[_Face]) -> _Solved:
        """Landmarks of faces whose parameters come with the dataset: its own 3D points, else the model's projection."""
        parameters = np.stack([f.truth.parameters for f in faces if f.truth.parameters is not None])
        landmarks = self.model.project(parameters, np.array([f.size[0] for f in faces]))
        for i, face in enumerate(faces):
            if face.truth.landmarks is not None:
                landmarks[i] = face.truth.landmarks
        return parameters, landmarks, residual_of(landmarks, np.stack([f.truth.points for f in faces]))

    def _fit(self, faces: list[_Face]) -> _Solved:
        heights = torch.tensor([f.size[0] for f in faces])
        points = torch.from_numpy(np.stack([f.truth.points for f in faces]))
        visibility = torch.from_numpy(np.stack([f.truth.visibility for f in faces]))
        prior = torch.from_numpy(np.stack([f.prior for f in faces]))
        fit = fit_face_labels(self.model, points, visibility, prior, heights, self.layout.silhouette_jaw)
        return self._of_fit(fit, heights)

    def _fit_3d(self, faces: list[_Face]) -> _Solved:
        heights = torch.tensor([f.size[0] for f in faces])
        solid = torch.from_numpy(np.stack([f.truth.landmarks for f in faces if f.truth.landmarks is not None]))
        return self._of_fit(fit_parameters(self.model, solid, torch.ones(len(faces), NUM_LANDMARKS), heights), heights)

    def _of_fit(self, fit: Fit, heights: torch.Tensor) -> _Solved:
        """The fit with landmarks projected anew: near 90 degrees its float32 rotation and its angles differ."""
        parameters = fit.parameters.numpy()
        return parameters, self.model.project(parameters, heights.numpy()), fit.residual.numpy()


def residual_of(landmarks: NDArray[np.float32], points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Root mean square x,y distance of landmarks to labelled points, percent of the face size.

    Args:
        landmarks: (N, 68, 3), pixels.
        points: (N, 68, 2), same pixels, NaN where there is no label.

    Returns:
        (N,), 0 where no point is labelled.
    """
    labelled = ~np.isnan(points).any(axis=-1)
    squares = np.square(landmarks[..., :2] - np.nan_to_num(points)).sum(axis=-1) * labelled
    mean = squares.sum(axis=1) / np.maximum(labelled.sum(axis=1), 1)
    return (100 * np.sqrt(mean) / face_size(landmarks)).astype(np.float32)
