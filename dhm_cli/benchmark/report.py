"""The report of a benchmark: what `dhm benchmark` prints, and what `--json` writes."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from dhm_cli.benchmark.accuracy import Accuracy
from dhm_cli.benchmark.costs import Costs
from dhm_cli.benchmark.cuda import CudaMachine
from dhm_cli.benchmark.photo_folder import FolderTiming
from dhm_cli.benchmark.processes import ProcessesTiming
from dhm_cli.benchmark.timing import Statistics
from dhm_cli.errors import DhmError
from dhm_cli.runtime.atomic import written_atomically

SCHEMA, SCHEMA_VERSION = "dhm-benchmark", 1
# Fields whose own fields stand in their place in the JSON.
_INLINE = ("costs", "timing")
_REASON_LENGTH = 160


@dataclass
class NetworkReport:
    """One network and what it costs.

    Attributes:
        name: unique within the report; lines refer to it as `subject`.
        kind: "packaged", "random", "checkpoint", "onnx" or "baseline".
        input_size: side of its square input, pixels.
        hashes: short hashes of its files.
        note: what a reader of its numbers must know; may be empty.
        costs: see `Costs`; its fields stand here in the JSON.
        peak_bytes: peak memory of a fresh process that runs it on one face, bytes, by engine.
        accuracy: None where it was never measured.
    """

    name: str
    kind: str
    input_size: int
    hashes: tuple[str, ...]
    note: str
    costs: Costs
    peak_bytes: dict[str, int] = field(default_factory=dict)
    accuracy: Accuracy | None = None


@dataclass(frozen=True)
class Line:
    """Timed calls of one network at one level, on one engine, with one batch size.

    Attributes:
        level: "network", "crop" or "photo".
        engine: of `runners.CPU_ENGINES` or `runners.CUDA_ENGINES`.
        batch: crops in a call; 1 of a photo.
        subject: name of the network.
        timing: see `Statistics`; its fields stand here in the JSON.
        ms_per_face: median milliseconds of a call over its faces.
        faces_per_s: 1000 / ms_per_face.
        times_faster: median of the reference over the median of this line, at the same level, engine and batch size;
            None where the reference was not measured.
        share_of_limit: floating-point operations a second over those of a large matrix product, 0 to 1; None but for
            the level network on CUDA.
    """

    level: str
    engine: str
    batch: int
    subject: str
    timing: Statistics
    ms_per_face: float
    faces_per_s: float
    times_faster: float | None = None
    share_of_limit: float | None = None


@dataclass(frozen=True)
class Part:
    """Timed calls of one part of a whole photo; the other attributes are those of `Line`.

    Attributes:
        part: "read", "detect" or "two passes".
    """

    level: str
    engine: str
    batch: int
    subject: str
    part: str
    timing: Statistics
    ms_per_face: float
    faces_per_s: float


@dataclass(frozen=True)
class PhotoReport:
    """The photo that is measured on.

    Attributes:
        file: as it was given, or "built-in".
        size: width and height, pixels.
        faces: how many were found.
    """

    file: str
    size: tuple[int, int]
    faces: int


@dataclass(frozen=True)
class Problem:
    """A measurement that failed.

    Attributes:
        engine: on which engine; "folder" or "processes" for these measurements.
        subject: name of the network.
        where: batch size or "peak memory"; empty for the whole engine.
        reason: in one line.
    """

    engine: str
    subject: str
    where: str
    reason: str


@dataclass
class BenchmarkReport:
    """Everything that was measured.

    Attributes:
        command: the command line as it was typed.
        device: "cpu" or "cuda".
        threads: CPU threads of a call.
        environment: `runtime.environment`, with `machine` in it.
        photo: what the levels above the network were measured on.
        reference: name of the network that `times_faster` is against.
        subjects: the networks, the baselines last.
        interrupted: whether Ctrl-C ended the benchmark early.
        pinned_cores: numbers of the cores that the process was pinned to; empty where the system cannot pin.
        cuda: the device; None on the CPU.
        lines: the levels network, crop and photo.
        parts: the parts of whole photos.
        folders: the level folder.
        processes: whole photos in several processes at once.
        problems: what could not be measured.
        warnings: reasons to doubt the lines, each a sentence and the worst lines, one below the other.
        schema: "dhm-benchmark".
        schema_version: of the JSON.
    """

    schema: str = field(default=SCHEMA, init=False)
    schema_version: int = field(default=SCHEMA_VERSION, init=False)
    interrupted: bool = field(default=False, init=False)
    command: str
    device: str
    threads: int
    pinned_cores: list[int] = field(default_factory=list, init=False)
    environment: dict[str, Any]
    cuda: CudaMachine | None = field(default=None, init=False)
    photo: PhotoReport
    reference: str
    subjects: list[NetworkReport]
    lines: list[Line] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    folders: list[FolderTiming] = field(default_factory=list)
    processes: list[ProcessesTiming] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def network(self, name: str) -> NetworkReport:
        """The network of a name."""
        return next(network for network in self.subjects if network.name == name)

    def add_problem(self, engine: str, network: str, error: Exception, where: str = "") -> None:
        """Note a measurement that failed; see `Problem`."""
        self.problems.append(Problem(engine, network, where, reason(error)))

    def add_ratios(self) -> None:
        """Complete the lines with their ratios to the reference and to the device's limit."""
        medians = {
            (line.level, line.engine, line.batch): line.timing.median_ms
            for line in self.lines
            if line.subject == self.reference
        }
        self.lines = [
            replace(
                line,
                times_faster=_ratio(medians.get((line.level, line.engine, line.batch)), line.timing.median_ms),
                share_of_limit=self._share_of_limit(line),
            )
            for line in self.lines
        ]

    def _share_of_limit(self, line: Line) -> float | None:
        macs = self.network(line.subject).costs.macs
        if self.cuda is None or macs is None or line.level != "network":
            return None
        limit = self.cuda.matrix_product_flops["float16" if line.engine == "torch-half" else "float32"]
        return 2 * macs * line.faces_per_s / limit


def _ratio(reference: float | None, value: float) -> float | None:
    return None if reference is None else reference / value


def reason(error: Exception) -> str:
    """What an error says, in one line that is not too long."""
    text = error.message if isinstance(error, DhmError) else str(error)
    line = " ".join(text.split()) or type(error).__name__
    return line if len(line) <= _REASON_LENGTH else line[:_REASON_LENGTH] + " …"


def report_json(report: BenchmarkReport) -> dict[str, Any]:
    """A report as plain JSON, keys in the order of the fields."""
    return asdict(report, dict_factory=_flattened)


def save_report(path: Path, report: BenchmarkReport) -> None:
    """Write a report as JSON, atomically."""
    with written_atomically(path) as partial:
        partial.write_text(json.dumps(report_json(report), indent=1) + "\n", encoding="utf-8")


def is_report(path: Path) -> bool:
    """Whether a file is a report of `save_report`, of any version.

    Raises:
        OSError: it cannot be read.
    """
    try:
        return bool(json.loads(path.read_text(encoding="utf-8"))["schema"] == SCHEMA)
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _flattened(items: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A dataclass as a dictionary, with the fields of `_INLINE` in place of themselves."""
    flat: dict[str, Any] = {}
    for name, value in items:
        flat |= value if name in _INLINE else {name: value}
    return flat
