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
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dhm_cli.data.store import FILE_VERSION, SPLITS, FaceLabels
from dhm_cli.datasets.benchmark_labels import read_reannotated, read_yaw_labels
from dhm_cli.datasets.discovery import discover, find_layout
from dhm_cli.datasets.layout import Layout
from dhm_cli.datasets.samples import Sample
from dhm_cli.drawing.faces import contact_sheet, face_tile, save_png
from dhm_cli.errors import DhmError, InputError
from dhm_cli.io.point_tables import FaceRow, PointTable, lookup, read_face_table
from dhm_cli.io.pts import NO_LABEL
from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.morphable.location import FACE_MODEL
from dhm_cli.morphable.readers.face_model_files import read_face_model
from dhm_cli.preparation.checks import (
    PROJECTION_TOLERANCE,
    by_severity,
    check_counts,
    check_identities,
    check_labels,
    check_points,
    check_projection,
    check_residual,
    check_unusable,
    repeated_rows,
)
from dhm_cli.preparation.labelling import Labeller, residual_of
from dhm_cli.preparation.report import REPORT, PrepareReport
from dhm_cli.preparation.shards import Parts
from dhm_cli.preparation.splits import validation_identities
from dhm_cli.runtime.progress import Progress
from dhm_cli.runtime.threads import available_cores
from dhm_cli.version import __version__

# Share of the faces held out for validation where nothing else is said; 3,061 of 61,225 in 300W-LP (Sun et al. 2018).
VALIDATION_SHARE = 0.05
# More repeated landmarks than this among the views of 300W-LP, and the copy is a faulty one.
_FAULTY_SHARE = 0.01
# The landmarks of another face model than the parameters' own are tens of percent of the face size off; 300W-LP's human
# points are 2 to 7 % off its projected ones.
_FOREIGN_MODEL = 10.0
_WORST = 24


@dataclass(frozen=True)
class PrepareOptions:
    """What to read besides the images of a dataset, and what to do with it.

    Attributes:
        format: name of a dataset layout (`io.datasets`), or auto.
        points: .npz of human points, for faces without an annotation file (`io.point_tables.PointTable`).
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

    def hashes(self) -> dict[str, str]:
        """SHA-256 of each file named in the options, by the option's name."""
        files = {name: value for name, value in asdict(self).items() if isinstance(value, Path) and value.is_file()}
        return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}

    def command(self, folder: Path, model: FaceModel) -> str:
        """The command line, with names in place of paths: the same on every machine."""
        words = ["dhm", "prepare", shlex.quote(folder.resolve().name), "--bfm", shlex.quote(model.name)]
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


def _find_layout(folder: Path, options: PrepareOptions) -> Layout:
    return find_layout(folder, options.format, tables=bool(options.points or options.prior))


def _store_path(folder: Path, layout: Layout, out: Path, options: PrepareOptions) -> Path:
    """Where the store of a dataset goes: under the option's name, else the layout's, else the folder's.

    Raises:
        InputError: no file can have the name, or that of the face model has it.
    """
    name = options.name or layout.store or folder.resolve().name
    if name == Path(FACE_MODEL).stem or name != Path(name).name or name.startswith("."):
        raise InputError(
            f"{folder}: a store cannot be named {name}", "choose another with --name, a name without folders"
        )
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
            own, path = options, _store_path(folder, _find_layout(folder, options), out, options)
        except DhmError as error:
            failed.append(error)
            continue
        if path in jobs and rename:
            names = (f"{path.stem}-{n}" for n in itertools.count(2))
            own = replace(options, name=next(name for name in names if out / f"{name}.h5" not in jobs))
            path = out / f"{own.name}.h5"
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
    layout = _find_layout(folder, options)
    report = PrepareReport(folder, _store_path(folder, layout, out, options), layout.name)
    labeller = _make_labeller(folder, layout, model, out, options)
    parts = Parts(report.store, len(labeller.samples), _part_key(labeller, options), labeller.label)
    with parts.locked():
        converted = parts.convert(folder.resolve().name, progress, workers or available_cores())
        labels, report.dropped, thread_seconds = parts.read()
        try:
            if not len(labels):
                raise InputError(f"{folder}: no usable face ({report.first_reasons()})", layout.remedy)
            if layout.has_parameters:
                labels = _without_repeated_points(labels, report)
            repeated = _check(labels, labeller, report)
        except InputError:
            parts.remove()  # of no use to a later run
            raise
        labels = _assign_splits(labels, labeller, options)
        keep, labels = _settle(labels, repeated, layout, options, report)
        report.describe(labels.take(keep))
        report.pictures = [_draw_worst(labels, parts, report.store)]
        report.measure(time.perf_counter() - start, converted, thread_seconds)
        refusal = "; ".join(f.message for f in report.findings if f.severity != "note") if options.strict else ""
        report.written = not refusal
        report.write(out, {"name": model.name, "hash": model.hash()})
        if refusal:
            raise InputError(f"{folder}: {refusal}", f"see {out / REPORT}; without --strict it is converted")
        parts.write(report.store, labels, keep, _attributes(folder, labeller, options, report))
        parts.remove()
    return report


def _make_labeller(folder: Path, layout: Layout, model: FaceModel, out: Path, options: PrepareOptions) -> Labeller:
    samples = layout.samples(folder)
    if folder.resolve() in out.resolve().parents:  # as in `dhm prepare .`: our own pictures are no faces of the dataset
        own = f"{out.resolve().relative_to(folder.resolve()).as_posix()}/"
        samples = [sample for sample in samples if not sample.name.startswith(own)]
    rows = _table_rows(samples, options)
    names = [sample.name for sample in samples]
    return Labeller(
        layout=layout,
        model=model,
        samples=samples,
        rows=rows,
        points=_point_table(options.points, names),
        prior=_point_table(options.prior, names),
        reannotated=read_reannotated(options.reannotated, names) if options.reannotated else None,
        labelled_yaw=_yaw_labels(options, rows, names),
    )


def _point_table(path: Path | None, names: list[str]) -> PointTable | None:
    if path is None:
        return None
    table = PointTable(path)
    if not any(name in table for name in names):
        raise _lists_none(path, names[0])
    return table


def _lists_none(table: Path, name: str) -> InputError:
    return InputError(
        f"{table}: lists none of the images, such as {name}",
        "name them by their path below the folder, or by file name",
    )


def _yaw_labels(options: PrepareOptions, rows: list[FaceRow], names: list[str]) -> NDArray[np.float32] | None:
    if options.yaw_labels:
        return read_yaw_labels(options.yaw_labels, names)
    yaw = np.array([row.yaw for row in rows], dtype=np.float32)
    return None if np.isnan(yaw).all() else yaw


def _part_key(labeller: Labeller, options: PrepareOptions) -> Callable[[int, int], str]:
    """Hash of all that a part depends on: settings, what other files say, names, sizes and times of its own files."""
    second = None if labeller.reannotated is None else hashlib.sha256(labeller.reannotated.tobytes()).hexdigest()
    settings = [__version__, FILE_VERSION, labeller.layout.name, labeller.model.hash(), options.hashes(), second]

    def key(start: int, stop: int) -> str:
        files = [[s.name, _stamp(s.image), _stamp(s.annotation)] for s in labeller.samples[start:stop]]
        return hashlib.sha256(json.dumps([settings, files]).encode()).hexdigest()

    return key


def _attributes(folder: Path, labeller: Labeller, options: PrepareOptions, report: PrepareReport) -> dict[str, Any]:
    """What the store records."""
    return {
        "tool": f"dhm {__version__}",
        "command": options.command(folder, labeller.model),
        "source": folder.resolve().name,
        "dataset": labeller.layout.title,
        "layout": labeller.layout.name,
        "face_model": labeller.model.hash(),
        "face_model_name": labeller.model.name,
        "seed": options.seed,
        "left_out": len(report.dropped),
    }


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
        raise _lists_none(options.table, samples[0].name)
    for sample, row in zip(samples, found, strict=True):
        if row and row.split not in (*SPLITS, "auto", ""):
            raise InputError(
                f"{options.table}: split {row.split!r} of {sample.name}", f"expected one of {', '.join(SPLITS)}, auto"
            )
    return [row or nothing for row in found]


def _assign_splits(labels: FaceLabels, labeller: Labeller, options: PrepareOptions) -> FaceLabels:
    """Split of each face: the table's word, else the dataset's, else the option's, else drawn by identity.

    Where a dataset knows train and test only, the validation faces are drawn from its training faces.
    """
    complete = any(sample.split == "val" for sample in labeller.samples)
    own = {"auto": options.split, "train": "train" if complete or options.split == "train" else "auto"}
    said = {
        sample.name: row.split or own.get(sample.split, sample.split)
        for sample, row in zip(labeller.samples, labeller.rows, strict=True)
    }
    unsaid = [(n, i) for n, i in zip(labels.names, labels.identity.tolist(), strict=True) if said[n] == "auto"]
    # Mirrored copies follow their originals and do not count.
    flips = labeller.layout.flips or (lambda name: False)
    drawn = [identity for name, identity in unsaid if not flips(name)] or [identity for _, identity in unsaid]
    validation = validation_identities(drawn, VALIDATION_SHARE, options.seed)
    said |= {name: "val" if identity in validation else "train" for name, identity in unsaid}
    return replace(labels, split=np.array([SPLITS.index(said[name]) for name in labels.names], dtype=np.uint8))


def _check(labels: FaceLabels, labeller: Labeller, report: PrepareReport) -> NDArray[np.bool_]:
    """All checks that need no split; the findings go to the report.

    Returns:
        (N,), which faces carry the landmarks of another.

    Raises:
        InputError: the dataset is a faulty copy or belongs to another face model.
    """
    subsets = Counter(sample.subset for sample in labeller.samples)
    projected = labeller.model.project(labels.parameters, labels.image_size[:, 0])
    optional = (
        check_counts(subsets, labeller.layout.published),
        check_projection(labels, projected, PROJECTION_TOLERANCE),
        check_unusable([name for name, _ in report.dropped]),
    )
    report.findings += [*check_labels(labels), *filter(None, optional)]
    repeated = np.zeros(len(labels), bool)
    if labeller.layout.has_parameters:
        off = np.abs(projected[..., :2] - labels.landmarks[..., :2]).max(axis=(1, 2))
        report.figures["projection_px_max"] = float(off.max())
        labelled = (labels.visibility != NO_LABEL).any(axis=1)
        _refuse_foreign_model(report.folder, residual_of(projected, labels.points)[labelled], labeller)
        repeated = repeated_rows(labels.identity, labels.landmarks)
        _refuse_faulty_copy(report.folder, labels.names[repeated], len(labels))
    return repeated


def _without_repeated_points(labels: FaceLabels, report: PrepareReport) -> FaceLabels:
    """The labels with the points of views taken away that carry those of another view."""
    repeated = repeated_rows(labels.identity, labels.points)
    report.findings += filter(None, [check_points(labels, repeated)])
    return replace(
        labels,
        points=np.where(repeated[:, None, None], np.float32(np.nan), labels.points),
        visibility=np.where(repeated[:, None], np.uint8(NO_LABEL), labels.visibility),
        residual=np.where(repeated, np.float32(0), labels.residual),
    )


def _refuse_foreign_model(folder: Path, distance: NDArray[np.float32], labeller: Labeller) -> None:
    off = float(np.median(distance)) if len(distance) else 0.0
    if off > _FOREIGN_MODEL:
        raise InputError(
            f"{folder}: the parameters do not fit {labeller.model.name}: the projected landmarks are {off:.0f} % of "
            "the face size off the points",
            f"the parameters of {labeller.layout.title} belong to the Basel Face Model as cut by 3DDFA (53,215 "
            "vertices, 199 + 29 modes): prepare that one with --bfm",
        )


def _refuse_faulty_copy(folder: Path, repeated: NDArray[np.str_], count: int) -> None:
    if len(repeated) > _FAULTY_SHARE * count:
        raise InputError(
            f"{folder}: {len(repeated):,} of {count:,} images carry the landmarks of another view of the same face, "
            f"such as {repeated[0]}",
            "this is a faulty copy that goes round; download the dataset from its authors",
        )


def _settle(
    labels: FaceLabels, repeated: NDArray[np.bool_], layout: Layout, options: PrepareOptions, report: PrepareReport
) -> tuple[NDArray[np.bool_], FaceLabels]:
    """Which rows stay, and the labels with the bad fits flagged.

    Raises:
        InputError: nothing stays.
    """
    bad = np.zeros(len(labels), bool)
    if not layout.has_parameters:  # given parameters are not a fit of ours
        bad = ~(labels.residual <= options.max_residual)
    training = labels.split == SPLITS.index("train")
    loose = bad & training & (options.over_residual == "drop")
    if loose.any() and (loose | ~training).all():
        raise InputError(
            f"{report.folder}: every fit is worse than {options.max_residual:g} %",
            "check the points, or --max-residual",
        )
    report.dropped += [
        (str(n), f"residual {r:.1f} %") for n, r in zip(labels.names[loose], labels.residual[loose], strict=True)
    ]
    report.dropped += [(str(name), "has the landmarks of another view of its face") for name in labels.names[repeated]]
    report.findings = by_severity(
        [
            *report.findings,
            *filter(None, [check_identities(labels), check_residual(labels, bad, loose, options.max_residual)]),
        ]
    )
    return ~(loose | repeated), replace(labels, flagged=bad.astype(np.uint8))


def _draw_worst(labels: FaceLabels, parts: Parts, store: Path) -> Path:
    """Contact sheet of the faces whose landmarks are farthest from the labels of their source."""
    tiles = []
    worst = np.argsort(-labels.residual, kind="stable")[:_WORST]
    for row, image in zip(worst, parts.images(worst), strict=True):
        caption = f"{labels.residual[row]:.1f}% {labels.yaw[row]:+.0f} {Path(labels.names[row]).name}"
        tiles.append(face_tile(image, labels.landmarks[row], caption))
    picture = store.with_name(f"{store.stem}-worst.png")
    save_png(picture, contact_sheet(tiles, columns=6))
    return picture


def _stamp(path: Path | None) -> list[int]:
    if path is None:
        return []
    try:
        status = path.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]
