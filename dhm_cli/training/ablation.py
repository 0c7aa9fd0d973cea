"""Comparison of finished trainings, on the faces that all of them were validated on."""

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dhm_cli.drawing.charts import save_ced
from dhm_cli.errors import FormatError, InputError
from dhm_cli.metrics.headline import AUC_THRESHOLDS
from dhm_cli.metrics.landmark_error import area_under_ced, failure_rate, nme_by_yaw
from dhm_cli.runtime.atomic import written_atomically
from dhm_cli.training.run_folder import RunFolder

# Thresholds of the failure rate and of the area under the CED, percent: FR@6, AUC@7.
FAILURE_THRESHOLD, AUC_THRESHOLD = 6.0, AUC_THRESHOLDS[0]
_HINT = "give folders that dhm train wrote; finish one with --resume"


@dataclass(frozen=True)
class _Run:
    """What is compared of a run.

    Attributes:
        names: of the validation faces.
        yaw: (N,), degrees.
        nme: (N,), percent.
        arch: the network.
        steps: optimiser steps, None where unknown.
        hashes: of the stores, by file name.
    """

    names: list[str]
    yaw: NDArray[np.float64]
    nme: NDArray[np.float64]
    arch: str
    steps: int | None
    hashes: dict[str, str]

    def faces(self) -> Counter[str]:
        """The faces with their yaw: it differs where a store was prepared anew."""
        return Counter(f"{name} at {yaw:+.2f} degrees" for name, yaw in zip(self.names, self.yaw, strict=True))


def compare_runs(runs: Mapping[str, Path], out: Path) -> dict[str, list[dict[str, Any]]]:
    """Compare the best checkpoints of finished runs; writes `ced.png` and `comparison.csv`.

    Args:
        runs: run folders (`RunFolder`) by the names to print.
        out: folder for the two files, made where it is missing.

    Returns:
        Under "rows" one dict a run, the columns of the table: run, arch, steps (None where unknown), faces, and in
        percent the NME by yaw bin, mean of bins and of images (`metrics.nme_by_yaw`), failure_rate_6 and auc_7.

    Raises:
        InputError: no run, a file is missing, or the runs were validated on different faces.
        FormatError: a file cannot be read.
    """
    if not runs:
        raise InputError("no run to compare", _HINT)
    read = {name: _read_run(folder) for name, folder in runs.items()}
    first, *others = read
    for other in others:
        _refuse_other_faces(first, read[first], other, read[other])
    rows = [_row(name, run) for name, run in read.items()]
    faces = len(read[first].nme)
    errors = {name: run.nme for name, run in read.items()}
    save_ced(out / "ced.png", errors, FAILURE_THRESHOLD, title=f"validation, {faces:,} faces")
    _write_table(out / "comparison.csv", rows)
    return {"rows": rows}


def _read_run(folder: Path) -> _Run:
    run = RunFolder(folder)
    names, yaw, nme = _read_table(run.validation)
    path = run.record
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        hashes = {store["file"]: store["hash"] for store in record["stores"]}
        return _Run(names, yaw, nme, record["arch"], record.get("steps"), hashes)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file", _HINT) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{path}: not the record of a run ({error!r})", _HINT) from error


def _read_table(path: Path) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [(row["name"], float(row["yaw"]), float(row["nme"])) for row in csv.DictReader(file)]
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; the run has not been validated yet", _HINT) from error
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise FormatError(f"{path}: expected columns name, yaw, nme ({error!r})", _HINT) from error
    if not rows:
        raise FormatError(f"{path}: no face in it", _HINT)
    names, yaw, nme = zip(*rows, strict=True)
    return list(names), np.array(yaw), np.array(nme)


def _refuse_other_faces(name: str, run: _Run, other_name: str, other: _Run) -> None:
    """Raise an InputError unless both runs were validated on the same faces with the same labels.

    Runs may differ in the stores that they were trained on, so only a store that both have must be the same.
    """
    hint = "train both on the same stores, or compare them one by one"
    changed = [file for file in run.hashes if other.hashes.get(file, run.hashes[file]) != run.hashes[file]]
    if changed:
        file = changed[0]
        raise InputError(
            f"{name} and {other_name} were validated on different faces: {file} is {run.hashes[file]} in {name}, "
            f"{other.hashes[file]} in {other_name}",
            hint,
        )
    only, only_other = run.faces() - other.faces(), other.faces() - run.faces()
    if only or only_other:
        missing = [
            f"{counts.total():,} of {len(holder.names):,} only in {label} ({next(iter(counts))})"
            for label, holder, counts in ((name, run, only), (other_name, other, only_other))
            if counts
        ]
        raise InputError(f"{name} and {other_name} were validated on different faces: {', '.join(missing)}", hint)


def _row(name: str, run: _Run) -> dict[str, Any]:
    return {
        "run": name,
        "arch": run.arch,
        "steps": run.steps,
        "faces": len(run.nme),
        **nme_by_yaw(run.nme, run.yaw),
        f"failure_rate_{FAILURE_THRESHOLD:g}": failure_rate(run.nme, FAILURE_THRESHOLD),
        f"auc_{AUC_THRESHOLD:g}": area_under_ced(run.nme, AUC_THRESHOLD),
    }


def _write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with written_atomically(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(rows[0])
        writer.writerows([f"{v:.3f}" if isinstance(v, float) else v for v in row.values()] for row in rows)
