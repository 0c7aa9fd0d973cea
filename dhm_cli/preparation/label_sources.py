"""What labels are made from: the files of a dataset, and the tables that `dhm prepare` is given besides."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dhm_cli.data.store import SPLITS
from dhm_cli.datasets.benchmark_labels import read_reannotated, read_yaw_labels
from dhm_cli.datasets.layout import Layout
from dhm_cli.datasets.samples import Sample
from dhm_cli.errors import InputError
from dhm_cli.io.point_tables import FaceRow, PointTable, lookup, read_face_table
from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.preparation.labelling import Labeller
from dhm_cli.preparation.options import PrepareOptions


def make_labeller(folder: Path, layout: Layout, model: FaceModel, out: Path, options: PrepareOptions) -> Labeller:
    """Bring together what the labels of a dataset are made from.

    Args:
        folder: the dataset.
        layout: its layout.
        model: the face model of its parameters, or to fit.
        out: folder of the stores, which is left out where it lies in the dataset.
        options: name the other files.

    Raises:
        InputError: the dataset has no face, or a file of the options is unusable or lists none of the faces.
    """
    unread: list[str] = []
    samples = layout.samples(folder, unread)
    if folder.resolve() in out.resolve().parents:  # as in `dhm prepare .`: our own pictures are no faces of the dataset
        own = f"{out.resolve().relative_to(folder.resolve()).as_posix()}/"
        samples = [sample for sample in samples if not sample.name.startswith(own)]
    rows = _table_rows(samples, options)
    names = [sample.name for sample in samples]
    return Labeller(
        layout=layout,
        model=model,
        samples=samples,
        unread=unread,
        rows=rows,
        points=_point_table(options.points, names),
        prior=_point_table(options.prior, names),
        reannotated=_reannotated(options, names),
        labelled_yaw=_yaw_labels(options, rows, names),
        self_occlusion=options.self_occlusion,
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


def _reannotated(options: PrepareOptions, names: list[str]) -> NDArray[np.float32] | None:
    if options.reannotated is None:
        return None
    return read_reannotated(options.reannotated, names, options.reannotated_origin)


def _yaw_labels(options: PrepareOptions, rows: list[FaceRow], names: list[str]) -> NDArray[np.float32] | None:
    if options.yaw_labels:
        return read_yaw_labels(options.yaw_labels, names)
    yaw = np.array([row.yaw for row in rows], dtype=np.float32)
    return None if np.isnan(yaw).all() else yaw


def _table_rows(samples: list[Sample], options: PrepareOptions) -> list[FaceRow]:
    """The row of the table for each sample; one that says nothing where it has none.

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
