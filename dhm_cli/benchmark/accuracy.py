"""Accuracy of measured networks, from reports of `dhm evaluate` or else from the records of their training."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dhm_cli.benchmark.networks import Subject
from dhm_cli.errors import FormatError, InputError

_SCHEMA, _VERSION = "dhm-evaluation", 1
_HINT = "give report.json of dhm evaluate --report FOLDER"


def read_reports(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Reports of `dhm evaluate`.

    Raises:
        InputError: a file that cannot be read.
        FormatError: not such a report, or of another version, or incomplete.
    """
    return [_read(path) for path in paths]


def _read(path: Path) -> dict[str, Any]:
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--accuracy {path}: cannot be read: {error.strerror or error}", _HINT) from error
    except ValueError as error:
        raise FormatError(f"--accuracy {path}: not JSON: {error}", _HINT) from error
    if not isinstance(report, dict) or (report.get("schema"), report.get("schema_version")) != (_SCHEMA, _VERSION):
        raise FormatError(f"--accuracy {path}: not a report of dhm evaluate, or of another version", _HINT)
    try:
        _faces(report), report["method"].get("hash"), report["nme"]["mean_of_bins"]
    except (AttributeError, KeyError, TypeError) as error:
        raise FormatError(f"--accuracy {path}: an incomplete report: {error}", _HINT) from error
    return report


def _faces(report: dict[str, Any]) -> str:
    data = report["data"]
    return f"{data['name']} {data['split']}, {report['labels']} labels, protocol {report['protocol']}"


def accuracy(subject: Subject, reports: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Error of a network: of the first report on its very weights or its file, else of its training's validation.

    Returns:
        nme, percent, mean of the yaw bins, and of: which faces; None where it was never measured.
    """
    for report in reports:
        method = report["method"]
        same_file = subject.file is not None and method.get("file") in (str(subject.file), str(subject.onnx_file))
        if method.get("hash") in subject.hashes or (same_file and not method.get("hash")):
            return _known(report["nme"]["mean_of_bins"], _faces(report))
    return _known((subject.validation_nme or {}).get("mean_of_bins"), "validation faces of the network's training")


def _known(nme: float | None, of: str) -> dict[str, Any] | None:
    return None if nme is None or not math.isfinite(nme) else {"nme": nme, "of": of}
