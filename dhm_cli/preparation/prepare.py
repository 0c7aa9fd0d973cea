"""`dhm prepare`: a face model and datasets become HDF5 with 3DMM parameters, checked on the way.

A dataset is converted in parts (`shards`), each of which depends on its own faces only. What is decided over the
whole dataset, its checks, splits and which bad fits to leave out, is decided when the parts are joined.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dhm_cli.data.store import FILE_VERSION
from dhm_cli.datasets.discovery import discover
from dhm_cli.datasets.layout import Layout
from dhm_cli.errors import InputError
from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.morphable.location import FACE_MODEL
from dhm_cli.morphable.readers.face_model_files import read_face_model
from dhm_cli.preparation.acceptance import examine, settle
from dhm_cli.preparation.label_sources import make_labeller
from dhm_cli.preparation.labelling import Labeller
from dhm_cli.preparation.options import PrepareOptions
from dhm_cli.preparation.report import REPORT, PrepareReport
from dhm_cli.preparation.shards import Parts
from dhm_cli.preparation.splits import assign_splits
from dhm_cli.preparation.store_names import dataset_name, layout_of, store_path
from dhm_cli.preparation.worst_faces import draw_worst
from dhm_cli.runtime.hashing import short_hash
from dhm_cli.runtime.progress import Progress, silent
from dhm_cli.runtime.threads import available_cores
from dhm_cli.version import __version__


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


def prepare_folder(
    folder: Path,
    model: FaceModel,
    out: Path,
    options: PrepareOptions,
    progress: Progress = silent,
    workers: int | None = None,
) -> PrepareReport:
    """Convert a dataset to a store `<out>/<name>.h5`, check it, and note the outcome in `<out>/report.json`.

    Faces that cannot be used are listed in the report and left out; they never stop the others. A run that was stopped
    goes on where it was; the result is the same to the byte.

    Args:
        folder: the dataset (`datasets.catalogue` lists the known ones).
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
    layout = layout_of(folder, options)
    name = dataset_name(folder, layout, options)
    report = PrepareReport(folder, store_path(folder, layout, out, options), layout.name, name)
    labeller = make_labeller(folder, layout, model, out, options)
    report.unread = list(labeller.unread)
    parts = Parts(report.store, len(labeller.samples), _part_key(labeller, options), labeller.label)
    with parts.locked():
        converted = parts.convert(folder.resolve().name, progress, workers or available_cores())
        labels, report.dropped, thread_seconds = parts.read()
        try:
            labels, repeated = examine(labels, labeller, report)
        except InputError:
            parts.remove()  # of no use to a later run
            raise
        labels = assign_splits(labels, labeller, options)
        keep, labels = settle(labels, repeated, layout, options, report)
        report.describe(labels.take(keep))
        report.pictures = [draw_worst(labels, parts, report.store)]
        report.measure(time.perf_counter() - start, converted, thread_seconds)
        refusal = report.serious_findings() if options.strict else ""
        report.written = not refusal
        report.write(out, {"name": model.name, "hash": model.hash()})
        if refusal:
            raise InputError(f"{folder}: {refusal}", f"see {out / REPORT}; without --strict it is converted")
        parts.write(report.store, labels, keep, _attributes(folder, labeller, options, report))
        parts.remove()
    return report


def _part_key(labeller: Labeller, options: PrepareOptions) -> Callable[[int, int], str]:
    """Hash of all that a part depends on: settings, what other files say, names, sizes and times of its own files."""
    second = None if labeller.reannotated is None else short_hash(labeller.reannotated.tobytes())
    settings = [__version__, FILE_VERSION, labeller.layout.name, labeller.model.hash(), options.hashes(), second]

    def key(start: int, stop: int) -> str:
        files = [[s.name, _stamp(s.image), _stamp(s.annotation)] for s in labeller.samples[start:stop]]
        return short_hash(json.dumps([settings, files]).encode())

    return key


def _attributes(folder: Path, labeller: Labeller, options: PrepareOptions, report: PrepareReport) -> dict[str, Any]:
    """What the store records."""
    attributes: dict[str, Any] = {
        "tool": f"dhm {__version__}",
        "command": options.command(folder, labeller.model),
        "source": folder.resolve().name,
        "dataset": report.dataset,
        "layout": labeller.layout.name,
        "face_model": labeller.model.hash(),
        "face_model_name": labeller.model.name,
        "seed": options.seed,
        "left_out": len(report.dropped),
    }
    if options.reannotated is not None:
        attributes["reannotated_origin"] = options.reannotated_origin
    return attributes


def _stamp(path: Path | None) -> list[int]:
    if path is None:
        return []
    try:
        status = path.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]
