"""What becomes of a dataset once its faces are labelled: refused as a whole, or which faces stay and which are flagged.

`checks` finds the faults; here it is decided what follows from them.
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dhm_cli.data.store import SPLITS, FaceLabels
from dhm_cli.datasets.layout import Layout
from dhm_cli.errors import InputError
from dhm_cli.io.pts import NO_LABEL
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
from dhm_cli.preparation.options import PrepareOptions
from dhm_cli.preparation.report import PrepareReport

# More repeated landmarks than this among the views of 300W-LP, and the copy is a faulty one.
_FAULTY_SHARE = 0.01
# The landmarks of another face model than the parameters' own are tens of percent of the face size off; 300W-LP's human
# points are 2 to 7 % off its projected ones.
_FOREIGN_MODEL = 10.0


def examine(labels: FaceLabels, labeller: Labeller, report: PrepareReport) -> tuple[FaceLabels, NDArray[np.bool_]]:
    """All checks that need no split; the findings go to the report.

    Args:
        labels: of all faces that could be used.
        labeller: what they were made from.
        report: knows the folder and the faces that could not be used.

    Returns:
        The labels, without the points of views that carry those of another; and (N,), which faces carry the landmarks
        of another.

    Raises:
        InputError: no face is left, or the dataset is a faulty copy or belongs to another face model.
    """
    layout = labeller.layout
    if not len(labels):
        raise InputError(f"{report.folder}: no usable face ({report.first_reasons()})", layout.remedy)
    if layout.has_parameters:
        labels = _without_repeated_points(labels, report)
    projected = labeller.model.project(labels.parameters, labels.image_size[:, 0])
    optional = (
        check_counts(Counter(sample.subset for sample in labeller.samples), layout.published),
        check_projection(labels, projected, PROJECTION_TOLERANCE),
        check_unusable([name for name, _ in report.dropped]),
    )
    report.findings += [*check_labels(labels), *filter(None, optional)]
    repeated = np.zeros(len(labels), bool)
    if layout.has_parameters:
        off = np.abs(projected[..., :2] - labels.landmarks[..., :2]).max(axis=(1, 2))
        report.figures["projection_px_max"] = float(off.max())
        labelled = (labels.visibility != NO_LABEL).any(axis=1)
        _refuse_foreign_model(report.folder, residual_of(projected, labels.points)[labelled], labeller)
        repeated = repeated_rows(labels.identity, labels.landmarks)
        _refuse_faulty_copy(report.folder, labels.names[repeated], len(labels))
    return labels, repeated


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


def settle(
    labels: FaceLabels, repeated: NDArray[np.bool_], layout: Layout, options: PrepareOptions, report: PrepareReport
) -> tuple[NDArray[np.bool_], FaceLabels]:
    """Which rows stay, and the labels with the bad fits flagged.

    Args:
        labels: N faces with their splits.
        repeated: (N,), faces that carry the landmarks of another.
        layout: of the dataset.
        options: how bad a fit may be, and what becomes of worse ones.
        report: gets the findings and the faces that are left out.

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
