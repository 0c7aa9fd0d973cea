"""`dhm prepare`: a face model and datasets become HDF5 with 3DMM parameters, checked on the way.

A dataset is converted in parts (`data.parts`), each of which depends on its own faces only. What is decided over the
whole dataset, its checks, splits and which bad fits to leave out, is decided when the parts are joined.
"""

import hashlib
import itertools
import json
import shlex
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from dhm_cli import __version__
from dhm_cli.data.parts import PartContent, Parts, Progress
from dhm_cli.data.report import REPORT, PrepareReport
from dhm_cli.data.splits import held_out, validation_identities
from dhm_cli.data.store import FILE_VERSION, SPLITS, FaceLabels
from dhm_cli.data.verification import (
    PROJECTION_TOLERANCE,
    Finding,
    by_severity,
    check_counts,
    check_labels,
    check_projection,
    duplicated_landmarks,
)
from dhm_cli.errors import DhmError, InputError
from dhm_cli.io.annotations import NO_LABEL, VISIBLE, FaceRow, PointTable, lookup, read_face_table
from dhm_cli.io.benchmark_labels import read_reannotated, read_yaw_labels
from dhm_cli.io.datasets import discover, find_layout
from dhm_cli.io.layout import Layout
from dhm_cli.io.samples import Sample, Truth, load_images
from dhm_cli.landmarks import bounding_box, face_size
from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.morphable.fitting import fit_face_labels, fit_parameters
from dhm_cli.morphable.readers import read_face_model
from dhm_cli.plotting import contact_sheet, face_tile, save_png
from dhm_cli.threads import available_cores

FACE_MODEL = "face_model.h5"
# Share of the faces held out for validation where nothing else is said; 3,061 of 61,225 in 300W-LP (Sun et al. 2018).
VALIDATION_SHARE = 0.05
# More repeated landmarks than this among the views of 300W-LP, and the copy is a faulty one.
_FAULTY_SHARE = 0.01
# The landmarks of another face model than the parameters' own are tens of percent of the face size off; 300W-LP's human
# points are 2 to 7 % off its projected ones.
_FOREIGN_MODEL = 10.0
_WORST = 24
_FEWEST_POINTS = 8


@dataclass(frozen=True)
class PrepareOptions:
    """What to read besides the images of a dataset, and what to do with it.

    Attributes:
        format: name of a dataset layout (`io.datasets`), or auto.
        points: .npz of human points, for faces without an annotation file (`io.annotations.PointTable`).
        prior: .npz of approximate points of all 68 landmarks, which pull at low weight beside human ones.
        table: CSV with `name` and optionally `split`, `identity` and `yaw`.
        reannotated: second label set of AFLW2000-3D (`io.benchmark_labels.read_reannotated`).
        yaw_labels: .npy of the dataset's own yaw labels, degrees, in the order of the sorted names.
        split: split of faces that neither table nor dataset says anything of: train, val, test, or auto (5 % of the
            faces for validation, by identity).
        seed: of the automatic split.
        max_residual: percent of the face size; worse fits of training faces are dropped or flagged. Faces of other
            splits are kept, so that hard faces stay in the figures.
        over_residual: what to do with them.
        strict: refuse the dataset when the checks find an error or a warning.
        name: name of the store instead of the layout's or the folder's.
    """

    format: str = "auto"
    points: Path | None = None
    prior: Path | None = None
    table: Path | None = None
    reannotated: Path | None = None
    yaw_labels: Path | None = None
    split: str = "auto"
    seed: int = 0
    max_residual: float = 4.0
    over_residual: Literal["drop", "flag"] = "drop"
    strict: bool = False
    name: str | None = None

    def files(self) -> list[Path]:
        """The files named in the options."""
        return [value for value in asdict(self).values() if isinstance(value, Path)]

    def command(self, folder: Path) -> str:
        """The command line that gives the same store, with names in place of paths: the same on every machine."""
        words = ["dhm", "prepare", shlex.quote(folder.resolve().name)]
        for option in fields(self):
            value = getattr(self, option.name)
            if value != option.default and option.name != "strict":
                text = value.name if isinstance(value, Path) else str(value)
                words += [f"--{option.name.replace('_', '-')}", shlex.quote(text)]
        return " ".join(words)


def prepare_face_model(
    source: Path, out: Path, expression: Path | None = None, keypoints: Path | None = None
) -> FaceModel:
    """Convert a face model file or folder to `face_model.h5` in the folder `out`, and return it."""
    model = read_face_model(source, expression, keypoints)
    model.save(out / FACE_MODEL)
    return model


def find_datasets(root: Path, out: Path) -> list[tuple[Path, Layout]]:
    """Known datasets below a folder, without what `dhm prepare` itself wrote."""
    return discover(root, {out.resolve()})


def store_path(folder: Path, out: Path, options: PrepareOptions) -> Path:
    """Where the store of a dataset goes: under the option's name, else the layout's, else the folder's.

    Raises:
        InputError: the folder is no known dataset, or the name is that of the face model's file.
    """
    layout = find_layout(folder, options.format, tables=bool(options.points or options.prior))
    name = options.name or layout.store or folder.resolve().name
    if name == Path(FACE_MODEL).stem:
        raise InputError(f"{folder}: a store cannot be named {name}", "choose another with --name")
    return out / f"{name}.h5"


def name_stores(
    folders: Sequence[Path], out: Path, options: PrepareOptions, rename: bool = False
) -> tuple[list[tuple[Path, PrepareOptions]], list[DhmError]]:
    """See to it that every dataset gets a store of its own.

    Args:
        folders: the datasets.
        out: folder of the stores.
        options: for all of them.
        rename: give datasets of one name longer ones, instead of refusing them.

    Returns:
        Each folder that can be converted with its options, and what is wrong with the others: no known dataset, or a
        store that another one writes.

    Raises:
        InputError: one name for several datasets.
    """
    if options.name is not None and len(folders) > 1:
        raise InputError("--name needs exactly one folder", "run dhm prepare once per folder")
    jobs: dict[Path, tuple[Path, PrepareOptions]] = {}
    failed: list[DhmError] = []
    for folder in folders:
        try:
            own, path = options, store_path(folder, out, options)
        except DhmError as error:
            failed.append(error)
            continue
        if path in jobs and rename:
            names = (f"{path.stem}-{n}" for n in itertools.count(2))
            own = replace(options, name=next(name for name in names if out / f"{name}.h5" not in jobs))
            path = store_path(folder, out, own)
        if path in jobs:
            text = f"{folder}: would write one store, {path}, with {jobs[path][0]}"
            failed.append(InputError(text, "run them one by one, with --name"))
        else:
            jobs[path] = (folder, own)
    return list(jobs.values()), failed


def prepare_folder(
    folder: Path,
    model: FaceModel,
    out: Path,
    options: PrepareOptions,
    progress: Progress = lambda *_: None,
    workers: int | None = None,
) -> PrepareReport:
    """Convert a dataset to a store `<out>/<name>.h5`, check it, and note the outcome in `<out>/report.json`.

    Faces that cannot be used are listed in the report and left out; they never stop the others. A run that was stopped
    goes on where it was; the result is the same to the byte.

    Args:
        folder: the dataset (`io.datasets` lists the known layouts).
        model: the face model to fit.
        out: folder of the store.
        options: what else to read.
        progress: called with a stage name, the number done and the total.
        workers: threads; None for one a core. The store does not depend on it when torch itself uses one thread.

    Raises:
        InputError: an input file is unusable as a whole, no face was left, the dataset is a known faulty copy, or it
            has findings and `options.strict` is set.
    """
    start = time.perf_counter()
    layout = find_layout(folder, options.format, tables=bool(options.points or options.prior))
    report = PrepareReport(folder, store_path(folder, out, options), layout.name)
    converter = _Converter(folder, layout, model, options)
    parts = Parts(report.store, len(converter.samples), converter.key, converter.convert)
    converted = parts.convert(folder.resolve().name, progress, workers or available_cores())
    labels, report.dropped = parts.labels(), parts.dropped()
    if not len(labels):
        raise InputError(f"{folder}: no usable face ({report.first_reasons()})", layout.remedy)
    labels = _assign_splits(labels, converter.samples, converter.rows, layout, options)
    _check(labels, converter, report)
    keep, labels = _settle(labels, layout, options, report)
    report.describe(labels.take(keep))
    report.pictures = [_draw_worst(labels, parts, report.store)]
    report.measure(time.perf_counter() - start, converted, parts.seconds())
    face_model = {"name": model.name, "hash": model.hash()}
    if options.strict and any(f.severity != "note" for f in report.findings):
        report.write(out, face_model)
        text = "; ".join(f.message for f in report.findings if f.severity != "note")
        raise InputError(f"{folder}: {text}", f"see {out / REPORT}; without --strict it is converted")
    parts.write(report.store, labels, keep, converter.attributes() | {"left_out": len(report.dropped)})
    report.write(out, face_model)
    parts.remove()
    return report


class _Converter:
    """Everything that is needed to turn samples into labels; shared by the threads, changed by none."""

    def __init__(self, folder: Path, layout: Layout, model: FaceModel, options: PrepareOptions) -> None:
        self.folder, self.layout, self.model, self.options = folder, layout, model, options
        self.points = PointTable(options.points) if options.points else None
        self.prior = PointTable(options.prior) if options.prior else None
        self.samples = layout.samples(folder)
        self.rows = _table_rows(self.samples, options)
        names = [sample.name for sample in self.samples]
        self.reannotated = read_reannotated(options.reannotated, names) if options.reannotated else None
        self.yaw_labels = self._yaw_labels(names)
        inputs = [hashlib.sha256(path.read_bytes()).hexdigest() for path in options.files() if path.is_file()]
        self._settings = json.dumps([__version__, FILE_VERSION, layout.name, model.hash(), inputs])

    def _yaw_labels(self, names: list[str]) -> NDArray[np.float32] | None:
        if self.options.yaw_labels:
            return read_yaw_labels(self.options.yaw_labels, names)
        yaw = np.array([row.yaw for row in self.rows], dtype=np.float32)
        return None if np.isnan(yaw).all() else yaw

    def attributes(self) -> dict[str, Any]:
        """What the store records."""
        return {
            "tool": f"dhm {__version__}",
            "command": self.options.command(self.folder),
            "source": self.folder.resolve().name,
            "dataset": self.layout.title,
            "layout": self.layout.name,
            "face_model": self.model.hash(),
            "face_model_name": self.model.name,
            "seed": self.options.seed,
        }

    def key(self, start: int, stop: int) -> str:
        """Hash of all that a part depends on: settings, names, sizes and times of the files."""
        files = [[s.name, _stamp(s.image), _stamp(s.annotation)] for s in self.samples[start:stop]]
        return hashlib.sha256(json.dumps([self._settings, files]).encode()).hexdigest()

    def convert(self, start: int, stop: int) -> PartContent:
        """Read and label some samples."""
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
        labels = self._label(faces)
        seconds = (read - began, time.perf_counter() - read)
        return PartContent([face.encoded for face in faces], labels, dropped, seconds)

    def _read(self, number: int, sample: Sample, encoded: bytes, height: int, width: int) -> "_Face":
        truth = self.layout.read(sample, height, width)
        if self.points is not None and not (truth.visibility != NO_LABEL).any():
            xy = self.points.get(sample.name, width, height)
            truth = Truth(xy, np.where(np.isnan(xy).any(axis=1), NO_LABEL, VISIBLE).astype(np.uint8), None, None)
        prior = self.prior.get(sample.name, width, height) if self.prior else np.full((68, 2), np.nan, np.float32)
        labelled = int((truth.visibility != NO_LABEL).sum())
        if truth.parameters is None and labelled < _FEWEST_POINTS and np.isnan(prior).any():
            raise InputError(
                f"{sample.image}: fewer than {_FEWEST_POINTS} labelled landmarks and no prior",
                "add a .pts file, or name tables with --points or --prior",
            )
        for name, values in (("parameters", truth.parameters), ("pt3d_68", truth.landmarks)):
            if values is not None and not np.isfinite(values).all():
                raise InputError(f"{sample.annotation}: NaN or infinite numbers in its {name}")
        return _Face(number, sample, encoded, (height, width), truth, prior)

    def _label(self, faces: list["_Face"]) -> FaceLabels:
        given = np.array([f.truth.parameters is not None for f in faces], dtype=bool)
        parameters = np.zeros((len(faces), 234), np.float32)
        landmarks = np.zeros((len(faces), 68, 3), np.float32)
        residual = np.zeros(len(faces), np.float32)
        for rows, label in ((np.flatnonzero(given), self._project), (np.flatnonzero(~given), self._fit)):
            if len(rows):
                parameters[rows], landmarks[rows], residual[rows] = label([faces[i] for i in rows])
        numbers = [f.number for f in faces]
        return FaceLabels(
            names=np.array([f.sample.name for f in faces], dtype=np.str_),
            source=np.array([f.sample.source for f in faces], dtype=np.str_),
            identity=np.array(
                [self.rows[n].identity or f.sample.identity for n, f in zip(numbers, faces, strict=True)], dtype=np.str_
            ),
            split=np.zeros(len(faces), np.uint8),
            image_size=np.array([f.size for f in faces], np.int32).reshape(-1, 2),
            landmarks=landmarks,
            points=np.array([f.truth.points for f in faces], np.float32).reshape(-1, 68, 2),
            visibility=np.array([f.truth.visibility for f in faces], np.uint8).reshape(-1, 68),
            parameters=parameters,
            box=bounding_box(landmarks).astype(np.float32),
            yaw=np.rad2deg(parameters[:, 2]),
            residual=residual,
            flagged=np.zeros(len(faces), np.uint8),
            reannotated=None if self.reannotated is None else self.reannotated[numbers].astype(np.float32),
            labelled_yaw=None if self.yaw_labels is None else self.yaw_labels[numbers].astype(np.float32),
        )

    def _project(self, faces: list["_Face"]) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Landmarks of faces whose parameters come with the dataset: its own 3D points, else the model's projection."""
        parameters = np.stack([f.truth.parameters for f in faces if f.truth.parameters is not None]).astype(np.float32)
        landmarks = self.model.project(parameters, np.array([f.size[0] for f in faces]))
        for i, face in enumerate(faces):
            if face.truth.landmarks is not None:
                landmarks[i] = face.truth.landmarks
        landmarks[..., 2] -= landmarks[..., 2].mean(axis=1, keepdims=True)
        return parameters, landmarks, _distance(landmarks, np.stack([f.truth.points for f in faces]))

    def _fit(self, faces: list["_Face"]) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        heights = torch.tensor([f.size[0] for f in faces])
        solids = [f.truth.landmarks for f in faces if f.truth.landmarks is not None]
        if len(solids) == len(faces):
            solid = torch.from_numpy(np.stack(solids))
            fit = fit_parameters(self.model, solid, torch.ones(len(faces), 68), heights)
        else:
            points = torch.from_numpy(np.stack([f.truth.points for f in faces]))
            visibility = torch.from_numpy(np.stack([f.truth.visibility for f in faces]))
            prior = torch.from_numpy(np.stack([f.prior for f in faces]))
            fit = fit_face_labels(self.model, points, visibility, prior, heights, self.layout.silhouette_jaw)
        return fit.parameters.numpy(), fit.landmarks.numpy(), fit.residual.numpy()


@dataclass(frozen=True)
class _Face:
    number: int  # of its sample
    sample: Sample
    encoded: bytes
    size: tuple[int, int]  # height, width
    truth: Truth
    prior: NDArray[np.float32]


def _table_rows(samples: list[Sample], options: PrepareOptions) -> list[FaceRow]:
    """What the table says of each sample.

    Raises:
        InputError: an unknown split, or a table that lists none of the faces.
    """
    nothing = FaceRow("", "", float("nan"))
    if not options.table:
        return [nothing] * len(samples)
    table = read_face_table(options.table)
    found = [next((table[n] for n in lookup(sample.name) if n in table), None) for sample in samples]
    if not any(found):
        raise InputError(
            f"{options.table}: lists none of the images, such as {samples[0].name}",
            "name them by their path below the folder, or by file name",
        )
    for sample, row in zip(samples, found, strict=True):
        if row and row.split not in (*SPLITS, "auto", ""):
            raise InputError(
                f"{options.table}: split {row.split!r} of {sample.name}", f"expected one of {', '.join(SPLITS)}, auto"
            )
    return [row or nothing for row in found]


def _assign_splits(
    labels: FaceLabels, samples: list[Sample], rows: list[FaceRow], layout: Layout, options: PrepareOptions
) -> FaceLabels:
    """Split of each face: the table's word, else the dataset's, else the option's, else drawn by identity.

    Where a dataset knows train and test only, the validation faces are drawn from its training faces.
    """
    undecided = {"auto"} if any(s.split == "val" for s in samples) else {"auto", "train"}
    own = {s.name: options.split if s.split in undecided else s.split for s in samples}
    said = {s.name: row.split or own[s.name] for s, row in zip(samples, rows, strict=True)}
    # Mirrored copies follow their originals and do not count.
    flips = layout.flips or (lambda name: False)
    open_ = {n: str(i) for n, i in zip(labels.names, labels.identity, strict=True) if said[n] == "auto"}
    drawn = [identity for name, identity in open_.items() if not flips(name)] or list(open_.values())
    if layout.validation_faces and layout.published_total == len(drawn):
        validation = held_out(drawn, layout.validation_faces, options.seed)
    else:
        validation = validation_identities(drawn, VALIDATION_SHARE, options.seed)
    names = [
        said[name] if name not in open_ else "val" if identity in validation else "train"
        for name, identity in zip(labels.names, labels.identity, strict=True)
    ]
    return replace(labels, split=np.array([SPLITS.index(name) for name in names], dtype=np.uint8))


def _check(labels: FaceLabels, converter: _Converter, report: PrepareReport) -> None:
    """All checks; the findings go to the report.

    Raises:
        InputError: the dataset is a faulty copy or belongs to another face model.
    """
    layout = converter.layout
    findings: list[Finding | None] = list(check_labels(labels))
    subsets = Counter(sample.subset for sample in converter.samples)
    findings.append(check_counts(dict(subsets), dict(layout.published)))
    projected = converter.model.project(labels.parameters, labels.image_size[:, 0])
    findings.append(check_projection(labels, projected, PROJECTION_TOLERANCE))
    if report.dropped:
        names = tuple(name for name, _ in report.dropped[:20])
        text = f"{len(report.dropped):,} face{'s' if len(report.dropped) > 1 else ''} that cannot be used"
        findings.append(Finding("unusable", "warning", text, names))
    if layout.has_parameters:
        off = np.abs(projected[..., :2] - labels.landmarks[..., :2]).max(axis=(1, 2))
        report.figures["projection_px_max"] = float(off.max())
        _refuse_faulty(labels, projected, converter, findings)
    report.findings = by_severity([f for f in findings if f])


def _refuse_faulty(
    labels: FaceLabels, projected: NDArray[np.float32], converter: _Converter, findings: list[Finding | None]
) -> None:
    """Stop at copies of a dataset that would train a network on wrong labels."""
    layout, folder = converter.layout, converter.folder
    off = float(np.median(_distance(projected, labels.points)))
    if off > _FOREIGN_MODEL:
        raise InputError(
            f"{folder}: the parameters do not fit {converter.model.name}: the projected landmarks are {off:.0f} % of "
            "the face size off the points",
            f"the parameters of {layout.title} belong to the Basel Face Model as cut by 3DDFA (53,215 vertices, "
            "199 + 29 modes): prepare that one with --bfm",
        )
    repeated = duplicated_landmarks(labels)
    if not len(repeated):
        return
    names = tuple(str(name) for name in labels.names[repeated[:20]])
    if len(repeated) > _FAULTY_SHARE * len(labels):
        raise InputError(
            f"{folder}: {len(repeated):,} of {len(labels):,} images carry the landmarks of another view of the same "
            f"face, such as {names[0]}",
            "this is a faulty copy that goes round; download the dataset from its authors",
        )
    text = f"{len(repeated):,} images with the landmarks of another view of the same face"
    findings.append(Finding("duplicated-landmarks", "error", text, names))


def _settle(
    labels: FaceLabels, layout: Layout, options: PrepareOptions, report: PrepareReport
) -> tuple[NDArray[np.bool_], FaceLabels]:
    """Which rows stay, and the labels with the bad fits flagged.

    Raises:
        InputError: nothing stays.
    """
    bad = np.zeros(len(labels), bool)
    if not layout.has_parameters:  # given parameters are not a fit of ours
        bad = labels.residual > options.max_residual
    training = labels.split == SPLITS.index("train")
    dropped = bad & training & (options.over_residual == "drop")
    report.dropped += [
        (str(n), f"residual {r:.1f} %") for n, r in zip(labels.names[dropped], labels.residual[dropped], strict=True)
    ]
    if dropped.all():
        raise InputError(
            f"{report.folder}: every fit is worse than {options.max_residual:g} %",
            "check the points, or --max-residual",
        )
    if bad.any():
        text = (
            f"{bad.sum():,} fits are worse than {options.max_residual:g} % of the face size; {dropped.sum():,} left out"
        )
        report.findings.append(Finding("residual", "note", text, tuple(str(n) for n in labels.names[bad][:20])))
    return ~dropped, replace(labels, flagged=bad.astype(np.uint8))


def _draw_worst(labels: FaceLabels, parts: Parts, store: Path) -> Path:
    """Contact sheet of the faces whose landmarks are farthest from the labels of their source."""
    tiles = []
    for row in np.argsort(-labels.residual, kind="stable")[:_WORST]:
        caption = f"{labels.residual[row]:.1f}% {labels.yaw[row]:+.0f} {Path(labels.names[row]).name}"
        tiles.append(face_tile(parts.image(row), labels.landmarks[row], caption))
    picture = store.with_name(f"{store.stem}-worst.png")
    save_png(picture, contact_sheet(tiles, columns=6))
    return picture


def _distance(landmarks: NDArray[np.float32], points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Root mean square x,y distance of landmarks (N, 68, 3) to labelled points (N, 68, 2), percent of the face size."""
    labelled = ~np.isnan(points).any(axis=-1)
    squares = np.square(landmarks[..., :2] - np.nan_to_num(points)).sum(axis=-1) * labelled
    mean = squares.sum(axis=1) / np.maximum(labelled.sum(axis=1), 1)
    return (100 * np.sqrt(mean) / face_size(landmarks)).astype(np.float32)


def _stamp(path: Path | None) -> list[int]:
    if path is None:
        return []
    try:
        status = path.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]
