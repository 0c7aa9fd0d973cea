"""Accuracy of measured networks, from reports of `dhm evaluate`, else from the records of their training."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dhm_cli.benchmark.measured_networks import MeasuredNetwork
from dhm_cli.errors import FormatError, InputError

_SCHEMA, _VERSION = "dhm-evaluation", 1
_HINT = "give report.json of dhm evaluate --report FOLDER"


@dataclass(frozen=True)
class Accuracy:
    """Error of a network.

    Attributes:
        nme: percent, mean of the yaw bins.
        of: which faces it is the error on.
    """

    nme: float
    of: str


def read_reports(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Read reports of `dhm evaluate`.

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


def known_accuracy(network: MeasuredNetwork, reports: Sequence[dict[str, Any]]) -> Accuracy | None:
    """Look up the error of a network, in reports and in its training record.

    Args:
        network: the network.
        reports: of `read_reports`. The first one with the hash of the network's weights counts, or, where a report has
            no hash, with the name of its file.

    Returns:
        The error in that report, else that of the validation in training; None where it was never measured.
    """
    for report in reports:
        method = report["method"]
        same_file = network.file is not None and method.get("file") in (str(network.file), str(network.onnx_file))
        if method.get("hash") in network.hashes or (same_file and not method.get("hash")):
            return _known(report["nme"]["mean_of_bins"], _faces(report))
    return _known((network.validation_nme or {}).get("mean_of_bins"), "validation faces of the network's training")


def _known(nme: float | None, of: str) -> Accuracy | None:
    return None if nme is None or not math.isfinite(nme) else Accuracy(nme, of)
