"""`dhm prepare`: a face model and folders of annotated faces become HDF5 with fitted 3DMM parameters."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dhm_cli.data.store import SPLITS, FaceLabels, write_store
from dhm_cli.errors import DhmError, InputError
from dhm_cli.io.annotations import (
    NO_LABEL,
    OCCLUDED,
    VISIBLE,
    Annotation,
    FaceRow,
    PointTable,
    find_annotations,
    lookup,
    read_face_table,
    read_pts,
)
from dhm_cli.io.images import read_image
from dhm_cli.landmarks import JAW
from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.morphable.fitting import Fit, far_side_jaw, fit_parameters
from dhm_cli.morphable.readers import read_face_model

# Trust in a landmark, relative to a visible human label.
OCCLUDED_WEIGHT = 0.5
PRIOR_WEIGHT = 0.15
PRIOR_JAW_WEIGHT = 0.4
_FIT_CHUNK = 512

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class PrepareOptions:
    """What to read besides the images of a folder.

    Attributes:
        points: .npz of human points, for faces without a .pts file (`io.annotations.PointTable`).
        prior: .npz of approximate points of all 68 landmarks, which pull at low weight beside human ones.
        table: CSV with `name` and optionally `split` and `identity`.
        split: split of faces that the table says nothing of: train, val, or auto (5 % validation by identity).
        max_residual: drop training faces whose fit is worse, percent of the face size. Faces of other splits are kept,
            so that hard faces stay in the figures.
        name: name of the store instead of the folder's.
    """

    points: Path | None = None
    prior: Path | None = None
    table: Path | None = None
    split: str = "auto"
    max_residual: float = 4.0
    name: str | None = None


@dataclass
class PrepareReport:
    """What became of one folder."""

    folder: Path
    store: Path
    faces: int = 0
    by_split: dict[str, int] = field(default_factory=dict)
    median_residual: float = float("nan")
    dropped: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class _Face:
    name: str  # path below the folder
    annotation: Annotation
    prior: NDArray[np.float32]
    height: int


def prepare_face_model(source: Path, out: Path) -> FaceModel:
    """Convert a face model file to `face_model.h5` in the folder `out`, and return it."""
    model = read_face_model(source)
    model.save(out / "face_model.h5")
    return model


def store_path(folder: Path, out: Path, options: PrepareOptions) -> Path:
    """Where the store of a folder goes.

    Raises:
        InputError: the name is that of the face model's file.
    """
    name = options.name or folder.resolve().name
    if name == "face_model":
        raise InputError(f"{folder}: a store cannot be named face_model", "choose another with --name")
    return out / f"{name}.h5"


def prepare_folder(
    folder: Path, model: FaceModel, out: Path, options: PrepareOptions, progress: Progress = lambda *_: None
) -> PrepareReport:
    """Convert a folder of images with landmarks to a store `<out>/<name>.h5`.

    Faces that cannot be used are listed in the report and left out; they never stop the others.

    Args:
        folder: images with .pts files beside them, or with points in `options.points` or `options.prior`.
        model: the face model to fit.
        out: folder of the store.
        options: what else to read.
        progress: called with a stage name, the number done and the total.

    Raises:
        InputError: an input file is unusable as a whole, or no face was left.
    """
    report = PrepareReport(folder, store_path(folder, out, options))
    faces = _read_faces(folder, options, report, progress)
    if not faces:
        raise InputError(f"{folder}: no usable face ({_first_reasons(report)})", "add .pts files, --points or --prior")
    splits = _splits(faces, options)
    labels = _labels(faces, fit_faces(model, faces, progress), splits)
    keep = (labels.residual <= options.max_residual) | (labels.split != SPLITS.index("train"))
    report.dropped += [
        (n, f"residual {r:.1f} %") for n, r in zip(labels.names[~keep], labels.residual[~keep], strict=True)
    ]
    if not keep.any():
        raise InputError(
            f"{folder}: every fit is worse than {options.max_residual} %", "check the points, or --max-residual"
        )
    labels = labels.take(keep)
    images = [f.annotation.image for f, kept in zip(faces, keep, strict=True) if kept]
    source = {"source": folder.name, "face_model": model.hash(), "face_model_name": model.name}
    write_store(report.store, images, labels, source)
    report.faces = len(labels)
    report.by_split = {
        name: int((labels.split == i).sum()) for i, name in enumerate(SPLITS) if (labels.split == i).any()
    }
    report.median_residual = float(np.median(labels.residual))
    return report


def _read_faces(folder: Path, options: PrepareOptions, report: PrepareReport, progress: Progress) -> list[_Face]:
    points = PointTable(options.points) if options.points else None
    prior = PointTable(options.prior) if options.prior else None
    found = find_annotations(folder)
    faces = []
    for done, (image, pts) in enumerate(found):
        progress("reading", done, len(found))
        try:
            faces.append(_read_face(folder, image, pts, points, prior))
        except DhmError as error:
            report.dropped.append((image.relative_to(folder).as_posix(), error.message))
    progress("reading", len(found), len(found))
    return faces


def _read_face(
    folder: Path, image: Path, pts: Path | None, points: PointTable | None, prior: PointTable | None
) -> _Face:
    name = image.relative_to(folder).as_posix()
    height, width = read_image(image, upright=False).shape[:2]
    nothing = np.full((68, 2), np.nan, dtype=np.float32)
    if pts is not None:
        xy, visibility = read_pts(pts)
    else:
        xy = points.get(name, width, height) if points else nothing
        visibility = np.where(np.isnan(xy).any(axis=1), NO_LABEL, VISIBLE).astype(np.uint8)
    approximate = prior.get(name, width, height) if prior else nothing
    if (visibility != NO_LABEL).sum() < 8 and np.isnan(approximate).any():
        raise InputError(f"{image}: fewer than 8 labelled landmarks and no prior", "add a .pts file")
    return _Face(name, Annotation(image, xy, visibility), approximate, height)


def fit_faces(model: FaceModel, faces: list[_Face], progress: Progress) -> Fit:
    """Fit p twice: first without jaw labels, to learn the yaw; then with all but the far-side jaw."""
    fits = []
    for start in range(0, len(faces), _FIT_CHUNK):
        progress("fitting", start, len(faces))
        part = faces[start : start + _FIT_CHUNK]
        human = torch.from_numpy(np.stack([f.annotation.points for f in part]))
        visibility = torch.from_numpy(np.stack([f.annotation.visibility for f in part]))
        prior = torch.from_numpy(np.stack([f.prior for f in part]))
        heights = torch.tensor([f.height for f in part])
        trust = (visibility == VISIBLE) + OCCLUDED_WEIGHT * (visibility == OCCLUDED)
        inner = trust.clone()
        inner[:, JAW] *= 0.1
        rough = fit_parameters(model, *_merge(human, inner, prior), heights, iterations=5)
        trust[far_side_jaw(rough.parameters[:, 2])] = 0
        fits.append(fit_parameters(model, *_merge(human, trust, prior), heights))
    progress("fitting", len(faces), len(faces))
    return Fit(*(torch.cat([getattr(f, name) for f in fits]) for name in ("parameters", "landmarks", "residual")))


def _merge(human: torch.Tensor, trust: torch.Tensor, prior: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted mean of human and prior points: two quadratic costs are one, (B, 68, 2) and weights (B, 68)."""
    prior_trust = torch.full_like(trust, PRIOR_WEIGHT)
    prior_trust[:, JAW] = PRIOR_JAW_WEIGHT
    prior_trust[prior.isnan().any(-1)] = 0
    total = trust + prior_trust
    mixed = torch.nan_to_num(human) * trust[..., None] + torch.nan_to_num(prior) * prior_trust[..., None]
    return mixed / total.clamp_min(1e-9)[..., None], total


def _splits(faces: list[_Face], options: PrepareOptions) -> list[tuple[str, str]]:
    """Split and identity of each face.

    Raises:
        InputError: an unknown split, or a table that lists none of the faces.
    """
    table = read_face_table(options.table) if options.table else {}
    rows = [next((table[n] for n in lookup(face.name) if n in table), FaceRow("", "")) for face in faces]
    if options.table and all(row == ("", "") for row in rows):
        raise InputError(
            f"{options.table}: lists none of the images, such as {faces[0].name}",
            "name them by their path below the folder, or by file name",
        )
    identities = [row.identity or face.name for row, face in zip(rows, faces, strict=True)]
    chosen = [row.split or options.split for row in rows]
    for split, face in zip(chosen, faces, strict=True):
        if split not in (*SPLITS, "auto"):
            where = options.table or "--split"
            raise InputError(f"{where}: split {split!r} of {face.name}", f"expected one of {', '.join(SPLITS)}, auto")
    drawn = {i for i, split in zip(identities, chosen, strict=True) if split == "auto"}
    held_out = _held_out(drawn)
    return [
        (split if split != "auto" else "val" if identity in held_out else "train", identity)
        for split, identity in zip(chosen, identities, strict=True)
    ]


def _draw(identity: str) -> int:
    return int(hashlib.sha256(identity.encode()).hexdigest(), 16)


def _held_out(identities: set[str]) -> set[str]:
    """One identity in twenty for validation, drawn by name; at least one where there are two or more."""
    held_out = {i for i in identities if _draw(i) % 20 == 0}
    return held_out or (set(sorted(identities, key=_draw)[:1]) if len(identities) > 1 else set())


def _labels(faces: list[_Face], fit: Fit, splits: list[tuple[str, str]]) -> FaceLabels:
    return FaceLabels(
        names=np.array([f.name for f in faces]),
        identity=np.array([identity for _, identity in splits]),
        split=np.array([SPLITS.index(split) for split, _ in splits], dtype=np.uint8),
        landmarks=fit.landmarks.numpy(),
        points=np.stack([f.annotation.points for f in faces]),
        visibility=np.stack([f.annotation.visibility for f in faces]),
        parameters=fit.parameters.numpy(),
        yaw=np.rad2deg(fit.parameters[:, 2].numpy()),
        residual=fit.residual.numpy(),
    )


def _first_reasons(report: PrepareReport) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in report.dropped[:3]) or "no reason"
