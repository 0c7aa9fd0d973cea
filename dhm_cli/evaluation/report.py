"""What `dhm evaluate --report` leaves behind: the numbers, the predictions, charts and one page with all of it."""

import csv
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dhm_cli.drawing.charts import save_ced, save_error_by_yaw, save_landmark_errors, save_robustness
from dhm_cli.errors import InputError
from dhm_cli.evaluation.caveats import caveats
from dhm_cli.evaluation.definitions import definitions
from dhm_cli.evaluation.gallery import gallery
from dhm_cli.evaluation.ground_truth import GroundTruth
from dhm_cli.evaluation.page import write_page
from dhm_cli.evaluation.scores import Comparison, Method, Numbers, OtherOrigin, Score, noise_floor, other_origin
from dhm_cli.metrics.headline import AUC_THRESHOLDS
from dhm_cli.metrics.landmark_error import NORMALISERS
from dhm_cli.metrics.published import published_results
from dhm_cli.runtime.atomic import written_atomically
from dhm_cli.runtime.environment import environment
from dhm_cli.version import __version__

SCHEMA, SCHEMA_VERSION = "dhm-evaluation", 1
# Characters of a name in a chart.
_LEGEND = 32
# Error axis of the CED, in units of the threshold of the failure rate.
_CED_REACH = 5 / 3


@dataclass(frozen=True)
class Data:
    """The faces of a report: the store's file, dataset, layout and hashes, the split, and why it is no benchmark."""

    file: str
    name: str
    layout: str
    hash: str
    images_hash: str
    split: str
    note: str


@dataclass(frozen=True)
class Against:
    """Another method: where it comes from, its numbers, and how the method in question differs from it."""

    record: Mapping[str, Any]
    numbers: Numbers
    comparison: Comparison


@dataclass(frozen=True)
class Report:
    """All that an evaluation found; `to_json` is the content of `report.json`.

    Attributes:
        method: where the method's points come from.
        data: the faces.
        caveats: what would otherwise mislead, sentences.
        label_set, protocol, refine: as in `EvaluationOptions`; refine None where the method is no network of ours.
        numbers: of the method, percent unless `definitions` says otherwise; NaN where there is none.
        against: other methods.
        noise_floor: see `scores.noise_floor`.
        published: see `metrics.published`.
        definitions: one sentence for each number.
        environment: versions, machine, command line.
        other_origin: re-annotated labels read with pixels counted from the other number: `scores.other_origin`.
        show_published: show the published rows although they cannot be compared.
    """

    method: Mapping[str, Any]
    data: Data
    caveats: list[str]
    label_set: str
    protocol: str
    refine: int | None
    numbers: Numbers
    against: list[Against]
    noise_floor: dict[str, float] | None
    published: dict[str, Any]
    definitions: dict[str, str]
    environment: dict[str, Any]
    other_origin: OtherOrigin | None = None
    show_published: bool = False

    @property
    def name(self) -> str:
        """Of the method."""
        return str(self.method["name"])

    @property
    def unit(self) -> str:
        """What errors are in."""
        return NORMALISERS[self.numbers.scoring.normaliser]

    def to_json(self) -> dict[str, Any]:
        """The content of `report.json`, schema version 1; NaN stays."""
        return {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "dhm_version": __version__,
            "method": dict(self.method),
            "data": asdict(self.data),
            "caveats": self.caveats,
            "labels": self.label_set,
            "protocol": self.protocol,
            "refine": self.refine,
            "normaliser": self.numbers.scoring.normaliser,
            "unit": self.unit,
            **self.numbers.to_json(),
            "against": [
                {**other.record, **other.numbers.to_json(), "difference": other.comparison.to_json()}
                for other in self.against
            ],
            "noise_floor": self.noise_floor,
            "other_origin": None if self.other_origin is None else asdict(self.other_origin),
            "published": self.published,
            "definitions": self.definitions,
            "environment": self.environment,
        }


def assemble(
    truth: GroundTruth,
    methods: Sequence[Method],
    scores: Sequence[Score],
    comparisons: Sequence[Comparison],
    protocol: str,
    refine: int | None,
    command: str,
    show_published: bool = False,
) -> Report:
    """Put a report together.

    Args:
        truth: the faces.
        methods: the method in question, then those it is compared with.
        scores: of all methods.
        comparisons: of the first method with each of the others.
        protocol: one of `protocols.PROTOCOLS`, or "predictions".
        refine: passes after the first, None where the method is no network of ours.
        command: the command line.
        show_published: show the published rows although they cannot be compared.
    """
    scoring, note = scores[0].numbers.scoring, truth.benchmark_problem()
    problem = note or _comparison_problem(scores[0].numbers, protocol, refine)
    attributes = truth.store.attributes
    others = zip(methods[1:], scores[1:], comparisons, strict=True)
    return Report(
        method=methods[0].record,
        data=Data(
            file=truth.store.path.name,
            name=str(attributes.get("dataset", truth.store.path.stem)),
            layout=str(attributes.get("layout", "")),
            hash=truth.store.fingerprint(),
            images_hash=str(attributes.get("images_hash", "")),
            split=truth.split,
            note=note,
        ),
        caveats=caveats(truth, methods, scores),
        label_set=truth.label_set,
        protocol=protocol,
        refine=refine,
        numbers=scores[0].numbers,
        against=[Against(method.record, score.numbers, comparison) for method, score, comparison in others],
        noise_floor=noise_floor(truth, scoring),
        published=published_results(not problem, problem),
        definitions=definitions(truth.label_set, protocol, refine, scoring),
        environment={**environment(), "command": command},
        other_origin=other_origin(methods[0], truth, scoring),
        show_published=show_published,
    )


def _comparison_problem(numbers: Numbers, protocol: str, refine: int | None) -> str:
    """Why the numbers must not be set beside published ones, although the faces are those of the benchmark."""
    lost, normaliser = numbers.missing.count, numbers.scoring.normaliser
    if lost:
        return f"{lost:,} faces have no points here and are in no mean"
    if normaliser != "bbox":
        return f"the published rows are normalised by the box, these numbers by {normaliser}"
    if protocol not in ("paper", "predictions") or refine:
        passes = f" and {refine} refining passes" if refine else ""
        return f"the published rows are for one crop by the true box, these for the protocol {protocol}{passes}"
    return ""


def json_text(report: Report) -> str:
    """The content of `report.json`, null in place of NaN."""
    return json.dumps(_without_nan(report.to_json()), indent=1, allow_nan=False) + "\n"


def is_report(path: Path) -> bool:
    """Whether a file is a JSON report of an evaluation."""
    try:
        return bool(json.loads(path.read_text(encoding="utf-8"))["schema"] == SCHEMA)
    except (OSError, ValueError, KeyError, TypeError):
        return False


class ReportFolder:
    """The folder of one report.

    Args:
        path: made where it is missing.

    Raises:
        InputError: it is a file, or nothing can be written there.
    """

    def __init__(self, path: Path) -> None:
        if path.exists() and not path.is_dir():
            raise InputError(f"{path}: is a file", "name a folder for --report")
        self.path = path
        try:  # before the work, not after it
            path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path) as file:
                file.write(b"a full disk takes no byte")
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror}", "choose another --report") from error

    def unfinished(self, number: int) -> Path:
        """Where the predictions of a method are kept until all are done."""
        return self.path / f"unfinished-{number}.npz"

    def write(self, report: Report, truth: GroundTruth, methods: Sequence[Method], scores: Sequence[Score]) -> None:
        """Write every file, the page last, and remove what an earlier report or a stopped one has left."""
        (self.path / "robustness.png").unlink(missing_ok=True)
        self._write_predictions(truth, methods[0])
        self._write_faces(truth, methods, scores)
        pictures = self._draw(report, truth, methods, scores)
        with written_atomically(self.path / "report.json") as partial:
            partial.write_text(json_text(report), encoding="utf-8")
        faces = gallery(truth, methods[0], scores[0])
        write_page(self.path / "report.html", _without_nan(report.to_json()), pictures, faces, report.show_published)
        for number in range(len(methods)):
            self.unfinished(number).unlink(missing_ok=True)

    def _write_predictions(self, truth: GroundTruth, method: Method) -> None:
        found = method.found
        arrays: dict[str, NDArray[Any]] = {"names": truth.faces.names[found], "landmarks": method.landmarks[found]}
        if method.pose is not None:
            arrays["pose"] = method.pose[found]
        with written_atomically(self.path / "predictions.npz") as partial, partial.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    def _write_faces(self, truth: GroundTruth, methods: Sequence[Method], scores: Sequence[Score]) -> None:
        """The NME of every face by every method; empty where a method did not find it."""
        columns = [[_cell(value) for value in score.nme] for score in scores]
        yaw = [f"{value:.3f}" for value in truth.faces.yaw]
        with (
            written_atomically(self.path / "faces.csv") as partial,
            partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["name", "yaw", *(f"nme: {method.name}" for method in methods)])
            writer.writerows(zip(truth.faces.names, yaw, *columns, strict=True))

    def _draw(
        self, report: Report, truth: GroundTruth, methods: Sequence[Method], scores: Sequence[Score]
    ) -> dict[str, Path]:
        """Charts and pictures, by the names that the page knows."""
        unit, numbers = report.unit, report.numbers
        threshold = numbers.scoring.threshold
        names = _short_names([method.name for method in methods])
        by_yaw = {name: score.nme for name, score in zip(names, scores, strict=True)}
        skip = numbers.scoring.skip_missing
        errors = {name: nme[~np.isnan(nme)] if skip else nme for name, nme in by_yaw.items()}
        pictures = {name: self.path / f"{name}.png" for name in ("ced", "yaw", "landmarks")}
        limit = max(_CED_REACH * threshold, *AUC_THRESHOLDS)
        title = f"{truth.store.path.name}, {numbers.n:,} faces"
        save_ced(pictures["ced"], errors, threshold, limit, title, unit)
        save_error_by_yaw(pictures["yaw"], by_yaw, truth.faces.yaw, unit)
        save_landmark_errors(pictures["landmarks"], _mean_face(truth), np.array(numbers.landmarks), unit)
        if numbers.robustness:
            pictures["robustness"] = self.path / "robustness.png"
            save_robustness(pictures["robustness"], [asdict(row) for row in numbers.robustness], unit)
        return pictures


def _short_names(names: Sequence[str]) -> list[str]:
    """Names that fit into a legend, still all different."""
    short = [name if len(name) <= _LEGEND else f"{name[: _LEGEND // 2 - 1]}…{name[-_LEGEND // 2 :]}" for name in names]
    return [name if short.count(name) == 1 else f"{k + 1}: {name}" for k, name in enumerate(short)]


def _mean_face(truth: GroundTruth) -> NDArray[np.float64]:
    from dhm_cli.morphable.mean_shape import mean_frontal_shape  # with torch, which only the picture needs

    return mean_frontal_shape(truth.faces.landmarks, truth.faces.parameters).double().numpy()


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6f}"


def _without_nan(value: Any) -> Any:
    """The same with None for NaN and infinity, which JSON does not know."""
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
