"""The content of a report: what was evaluated, all numbers, and what a reader must know."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dhm_cli.evaluation.caveats import caveats
from dhm_cli.evaluation.definitions import definitions
from dhm_cli.evaluation.ground_truth import GroundTruth
from dhm_cli.evaluation.method import Method, Origin
from dhm_cli.evaluation.numbers import Comparison, Numbers, OtherOrigin
from dhm_cli.evaluation.scores import Score, noise_floor, other_origin
from dhm_cli.metrics.landmark_error import NORMALISERS
from dhm_cli.metrics.published import published_results
from dhm_cli.runtime.environment import environment
from dhm_cli.version import __version__

SCHEMA, SCHEMA_VERSION = "dhm-evaluation", 1


@dataclass(frozen=True)
class Data:
    """The faces of a report: the store's file, dataset, layout and hashes, the split, and why it is no benchmark.

    `labels` says by what the original labels were replaced; empty where they were not.
    """

    file: str
    name: str
    layout: str
    hash: str
    images_hash: str
    split: str
    note: str
    labels: str = ""


@dataclass(frozen=True)
class Against:
    """Another method: its name and origin, its numbers, and how the method in question differs from it."""

    name: str
    origin: Origin
    numbers: Numbers
    comparison: Comparison


@dataclass(frozen=True)
class Report:
    """All that an evaluation found; `to_json` is the content of `report.json`.

    Attributes:
        name: of the method.
        origin: where its points come from.
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

    name: str
    origin: Origin
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
    def unit(self) -> str:
        """What errors are in."""
        return NORMALISERS[self.numbers.scoring.normaliser]

    def to_json(self) -> dict[str, Any]:
        """The content of `report.json`, schema version 1; NaN stays."""
        return {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "dhm_version": __version__,
            "method": {**self.origin.to_json(), "name": self.name},
            "data": asdict(self.data),
            "caveats": self.caveats,
            "labels": self.label_set,
            "protocol": self.protocol,
            "refine": self.refine,
            "normaliser": self.numbers.scoring.normaliser,
            "unit": self.unit,
            **self.numbers.to_json(),
            "against": [
                {
                    **other.origin.to_json(),
                    "name": other.name,
                    **other.numbers.to_json(),
                    "difference": other.comparison.to_json(),
                }
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
        name=methods[0].name,
        origin=methods[0].origin,
        data=Data(
            file=truth.store.path.name,
            name=str(attributes.get("dataset", truth.store.path.stem)),
            layout=str(attributes.get("layout", "")),
            hash=truth.store.fingerprint(),
            images_hash=str(attributes.get("images_hash", "")),
            split=truth.split,
            note=note,
            labels=_replaced_labels(truth),
        ),
        caveats=caveats(truth, methods, scores),
        label_set=truth.label_set,
        protocol=protocol,
        refine=refine,
        numbers=scores[0].numbers,
        against=[Against(m.name, m.origin, score.numbers, comparison) for m, score, comparison in others],
        noise_floor=noise_floor(truth, scoring),
        published=published_results(not problem, problem),
        definitions=definitions(truth.label_set, protocol, refine, scoring),
        environment={**environment(), "command": command},
        other_origin=other_origin(methods[0], truth, scoring),
        show_published=show_published,
    )


def _replaced_labels(truth: GroundTruth) -> str:
    relabelled = truth.label_set == "original" and "relabelled" in truth.store.attributes
    return truth.store.labels_are if relabelled else ""


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
    return json.dumps(without_nan(report.to_json()), indent=1, allow_nan=False) + "\n"


def is_report(path: Path) -> bool:
    """Whether a file is a JSON report of an evaluation."""
    try:
        return bool(json.loads(path.read_text(encoding="utf-8"))["schema"] == SCHEMA)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def without_nan(value: Any) -> Any:
    """A JSON value with None for NaN and infinity, which JSON does not know."""
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
