"""What `dhm evaluate --report` leaves behind: the numbers, the predictions, charts and one page with all of it."""

import csv
import math
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dhm_cli.drawing.charts import save_ced, save_error_by_yaw, save_landmark_errors, save_robustness
from dhm_cli.drawing.doubt_charts import save_doubts, save_rolls
from dhm_cli.drawing.png_mark import SOFTWARE, is_our_png
from dhm_cli.errors import InputError
from dhm_cli.evaluation.gallery import gallery
from dhm_cli.evaluation.ground_truth import GroundTruth
from dhm_cli.evaluation.method import Method
from dhm_cli.evaluation.page import write_page
from dhm_cli.evaluation.report import Report, is_report, json_text, without_nan
from dhm_cli.evaluation.scores import Score
from dhm_cli.metrics.headline import AUC_THRESHOLDS
from dhm_cli.runtime.atomic import written_atomically
from dhm_cli.runtime.outputs import check_output

# Characters of a name in a chart.
_LEGEND = 32
# Charts, by the names that the page knows, and those that not every report has.
_CHARTS, _OPTIONAL = ("ced", "yaw", "landmarks"), ("robustness", "rolls", "doubts")
# Error axis of the CED, in units of the threshold of the failure rate.
_CED_REACH = 5 / 3
# How a page and a table of faces begin, the page within so many bytes.
_GENERATOR, _HEAD = b'<meta name="generator" content="dhm ', 4096
_COLUMNS = ("name", "yaw", "nme: ")


class ReportFolder:
    """The folder of one report.

    Args:
        path: made where it is missing.
        inputs: files that the evaluation reads.
        force: replace files in it that no evaluation wrote, though never an input.

    Raises:
        InputError: it is a file, nothing can be written there, or what would be written there would destroy a file.
    """

    def __init__(self, path: Path, inputs: Iterable[Path] = (), force: bool = False) -> None:
        if path.exists() and not path.is_dir():
            raise InputError(f"{path}: is a file", "name a folder for --report")
        self.path = path
        self._check(list(inputs), force)
        try:  # before the work, not after it
            path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path) as file:
                file.write(b"a full disk takes no byte")
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror}", "choose another --report") from error

    def _check(self, inputs: Sequence[Path], force: bool) -> None:
        """Refuse to destroy a file that has the name of one of a report."""
        kinds = {"report.json": is_report, "report.html": _is_page, "faces.csv": _is_table}
        kinds |= {"predictions.npz": _is_predictions}
        kinds |= {f"{name}.png": is_our_png for name in (*_CHARTS, *_OPTIONAL)}
        for name, is_ours in kinds.items():
            check_output(self.path / name, "--report", "a file of dhm evaluate", is_ours, inputs, force)

    def unfinished(self, number: int) -> Path:
        """Where the predictions of a method are kept until all are done."""
        return self.path / f"unfinished-{number}.npz"

    def write(self, report: Report, truth: GroundTruth, methods: Sequence[Method], scores: Sequence[Score]) -> None:
        """Write every file, the page last, and remove what an earlier report or a stopped one has left."""
        for name in _OPTIONAL:
            (self.path / f"{name}.png").unlink(missing_ok=True)
        self._write_predictions(truth, methods[0])
        self._write_faces(truth, methods, scores)
        pictures = self._draw(report, truth, methods, scores)
        with written_atomically(self.path / "report.json") as partial:
            partial.write_text(json_text(report), encoding="utf-8")
        faces = gallery(truth, methods[0], scores[0])
        write_page(self.path / "report.html", without_nan(report.to_json()), pictures, faces, report.show_published)
        for number in range(len(methods)):
            self.unfinished(number).unlink(missing_ok=True)

    def _write_predictions(self, truth: GroundTruth, method: Method) -> None:
        found = method.found
        arrays: dict[str, NDArray[Any]] = {"names": truth.faces.names[found], "landmarks": method.landmarks[found]}
        if method.pose is not None:
            arrays["pose"] = method.pose[found]
        with written_atomically(self.path / "predictions.npz") as partial, partial.open("w+b") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
            with zipfile.ZipFile(file, "a") as archive:
                archive.comment = SOFTWARE.encode()  # by which dhm knows it again

    def _write_faces(self, truth: GroundTruth, methods: Sequence[Method], scores: Sequence[Score]) -> None:
        """The NME of every face by every method; empty where a method did not find it."""
        columns = [[_cell(value) for value in score.nme] for score in scores]
        yaw = [f"{value:.3f}" for value in truth.faces.yaw]
        with (
            written_atomically(self.path / "faces.csv") as partial,
            partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([*_COLUMNS[:2], *(f"{_COLUMNS[2]}{method.name}" for method in methods)])
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
        pictures = {name: self.path / f"{name}.png" for name in _CHARTS}
        limit = max(_CED_REACH * threshold, *AUC_THRESHOLDS)
        title = f"{truth.store.path.name}, {numbers.n:,} faces"
        save_ced(pictures["ced"], errors, threshold, limit, title, unit)
        save_error_by_yaw(pictures["yaw"], by_yaw, truth.faces.yaw, unit)
        save_landmark_errors(pictures["landmarks"], _mean_face(truth), np.array(numbers.landmarks), unit)
        if numbers.robustness:
            pictures["robustness"] = self.path / "robustness.png"
            save_robustness(pictures["robustness"], [asdict(row) for row in numbers.robustness], unit)
        if numbers.rolls:
            pictures["rolls"] = self.path / "rolls.png"
            save_rolls(pictures["rolls"], [asdict(row) for row in numbers.rolls], unit)
        if numbers.doubts:
            pictures["doubts"] = self.path / "doubts.png"
            save_doubts(pictures["doubts"], asdict(numbers.doubts))
        return pictures


def _is_page(path: Path) -> bool:
    with path.open("rb") as file:
        return _GENERATOR in file.read(_HEAD)


def _is_table(path: Path) -> bool:
    with path.open("rb") as file:
        return file.readline(_HEAD).replace(b'"', b"").startswith(",".join(_COLUMNS).encode())


def _is_predictions(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.comment == SOFTWARE.encode()
    except zipfile.BadZipFile:
        return False


def _short_names(names: Sequence[str]) -> list[str]:
    """Names that fit into a legend, still all different."""
    short = [name if len(name) <= _LEGEND else f"{name[: _LEGEND // 2 - 1]}…{name[-_LEGEND // 2 :]}" for name in names]
    return [name if short.count(name) == 1 else f"{k + 1}: {name}" for k, name in enumerate(short)]


def _mean_face(truth: GroundTruth) -> NDArray[np.float64]:
    from dhm_cli.morphable.mean_shape import mean_frontal_shape  # with torch, which only the picture needs

    return mean_frontal_shape(truth.faces.landmarks, truth.faces.parameters).double().numpy()


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6f}"
