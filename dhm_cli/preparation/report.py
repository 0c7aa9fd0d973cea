"""What became of a dataset: `report.json` beside its store."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dhm_cli.data.store import SPLITS, FaceLabels
from dhm_cli.metrics.landmark_error import YAW_BINS, in_yaw_bin
from dhm_cli.preparation.checks import Finding
from dhm_cli.runtime.atomic import written_atomically
from dhm_cli.runtime.memory import peak_bytes
from dhm_cli.version import __version__

REPORT = "report.json"
REPORT_VERSION = 1


def is_prepare_report(path: Path) -> bool:
    """Whether a file is a report of `dhm prepare`, of whatever version."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return isinstance(content["version"], int) and isinstance(content["datasets"], dict)
    except (OSError, ValueError, KeyError, TypeError):
        return False


@dataclass
class PrepareReport:
    """What became of one dataset.

    Attributes:
        folder: the dataset.
        store: the file made of it.
        format: name of its layout.
        dataset: what to call it: a published name, else that of --name or of its folder.
        faces: faces in the store.
        by_split: their number in each split.
        by_yaw: their number in each |yaw| bin.
        residual: percentiles 5, 25, 50, 75, 95 and the maximum, percent of the face size.
        flagged: faces kept although their fit is worse than asked for.
        dropped: faces left out, with the reason.
        findings: what the checks found.
        unread: folders of the dataset that could not be read and are left out, a sentence each.
        figures: measured: seconds, images per second, and so on.
        pictures: contact sheets that were written.
        written: whether there is a store; False where the findings stopped it.
    """

    folder: Path
    store: Path
    format: str
    dataset: str
    faces: int = 0
    by_split: dict[str, int] = field(default_factory=dict)
    by_yaw: dict[str, int] = field(default_factory=dict)
    residual: dict[str, float] = field(default_factory=dict)
    flagged: int = 0
    dropped: list[tuple[str, str]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    pictures: list[Path] = field(default_factory=list)
    written: bool = True

    def describe(self, labels: FaceLabels) -> None:
        """Count the faces of the store."""
        self.faces, self.flagged = len(labels), int(labels.flagged.sum())
        counts = {name: int((labels.split == i).sum()) for i, name in enumerate(SPLITS)}
        self.by_split = {name: count for name, count in counts.items() if count}
        self.by_yaw = {name: int(in_yaw_bin(labels.yaw, name).sum()) for name in YAW_BINS}
        levels = (5, 25, 50, 75, 95, 100)
        values = np.percentile(labels.residual, levels)
        self.residual = {f"p{level}": round(float(v), 4) for level, v in zip(levels, values, strict=True)}

    def measure(self, seconds: float, items: int, thread_seconds: tuple[float, float]) -> None:
        """Note the speed of a run, and the memory of this process.

        Args:
            seconds: wall time.
            items: images that were read in that time.
            thread_seconds: spent reading and computing, all threads together; of earlier runs too, if this one resumed.
        """
        self.figures |= {"seconds": seconds, "images_per_second": items / seconds}
        self.figures |= dict(zip(("reading_thread_seconds", "computing_thread_seconds"), thread_seconds, strict=True))
        peak = peak_bytes() / 1e6
        if peak:
            self.figures["peak_memory_mb"] = peak

    def first_reasons(self) -> str:
        """Why the first few faces were left out."""
        return "; ".join(f"{name}: {reason}" for name, reason in self.dropped[:3]) or "no reason"

    def serious_findings(self) -> str:
        """What the checks found apart from notes; empty when that is nothing."""
        return "; ".join(finding.message for finding in self.findings if finding.severity != "note")

    def write(self, out: Path, face_model: dict[str, str]) -> None:
        """Note the outcome in `report.json`, beside those of other datasets.

        Args:
            out: folder of the store.
            face_model: its name and hash.
        """
        path = out / REPORT
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            datasets = dict(content["datasets"]) if content["version"] == REPORT_VERSION else {}
        except (OSError, ValueError, KeyError, TypeError):
            datasets = {}
        datasets[self.store.stem] = self._as_json() | {"face_model": face_model, "tool": f"dhm {__version__}"}
        with written_atomically(path) as partial:
            text = json.dumps({"version": REPORT_VERSION, "datasets": datasets}, indent=1, ensure_ascii=False)
            partial.write_text(text, encoding="utf-8")

    def _as_json(self) -> dict[str, Any]:
        content = asdict(self)
        content |= {"folder": self.folder.resolve().name, "store": self.store.name}
        content["pictures"] = [p.name for p in self.pictures]
        content["dropped"] = [{"name": name, "reason": reason} for name, reason in self.dropped]
        return content
