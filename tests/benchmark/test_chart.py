"""The chart of accuracy against time, and which numbers of a report it shows."""

from pathlib import Path
from typing import Any

import pytest

from dhm_cli.benchmark.accuracy import Accuracy
from dhm_cli.benchmark.chart import chart_rows
from dhm_cli.benchmark.costs import Costs
from dhm_cli.benchmark.report import BenchmarkReport, Line, NetworkReport, PhotoReport
from dhm_cli.benchmark.timing import Statistics
from dhm_cli.drawing import charts
from dhm_cli.drawing.charts import _extent_of_text, save_accuracy_against_time
from dhm_cli.metrics.published import published_results

PUBLISHED = published_results(comparable=False)["rows"]


def network(name: str, milliseconds: float, nme: float | None, of: str | None = "faces") -> dict[str, Any]:
    of = of if nme is not None else None
    return {"name": name, "milliseconds": milliseconds, "engine": "onnxruntime", "nme": nme, "of": of}


def texts(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_chart(drawn: list[Any], tmp_path: Path) -> None:
    rows = [network("fast", 0.4, 2.7), network("fast-x2", 0.8, 2.5), network("MobileNet", 0.9, None)]
    save_accuracy_against_time(tmp_path / "a.png", rows, PUBLISHED)
    assert (tmp_path / "a.png").stat().st_size > 10_000
    above, below = drawn[0].axes
    assert set(texts(above)) == {
        "fast, 2.70 % in 0.4 ms, onnxruntime",
        "fast-x2, 2.50 % in 0.8 ms, onnxruntime",
        "MobileNet, 0.9 ms, NME not measured",
    }
    assert "NME: faces" in above.get_title("left")
    assert "as published" in below.get_title("left")
    names = {row["name"] for row in PUBLISHED if row["cpu_fps"]}
    assert names < set(texts(below))
    assert "Hyperface" not in texts(below)  # its speed is not published
    assert above.get_xlim() == below.get_xlim()
    points = {tuple(float(v[0]) for v in line.get_data()) for line in below.get_lines()}
    assert (1000 / 81, 4.01) in points  # Fast DHM: 81 FPS, 4.01 %
    assert (1000.0, 3.85) in points  # DHM+RHG: below 1 FPS


def test_no_label_of_the_chart_covers_another(drawn: list[Any], tmp_path: Path) -> None:
    rows = [network(f"network {k}", 0.4 + 0.002 * k, 2.7 + 0.001 * k if k % 2 else None) for k in range(6)]
    save_accuracy_against_time(tmp_path / "a.png", rows, PUBLISHED)
    for axes in drawn[0].axes:
        boxes = [_extent_of_text(text) for text in axes.texts if hasattr(text, "update_positions")]
        for k, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[:k])


def test_chart_without_any_accuracy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(charts, "save_figure", lambda figure, _: drawn.append(figure))  # what they show, not the files
    published = [row for row in PUBLISHED if row["cpu_fps"]][:1]
    save_accuracy_against_time(tmp_path / "a.png", [network("fast", 0.4, None)], published)
    assert {"no NME is known", "fast, 0.4 ms, NME not measured"} <= set(texts(drawn[0].axes[0]))
    save_accuracy_against_time(tmp_path / "b.png", [], published)  # interrupted before the first line
    several = [network("fast", 0.4, 2.7, "these"), network("rhg", 40, 2.5, "those")]
    save_accuracy_against_time(tmp_path / "c.png", several, published)
    assert any("these" in text for text in texts(drawn[2].axes[0]))


def test_rows_are_of_the_fastest_engine_at_batch_1() -> None:
    def line(engine: str, batch: int, milliseconds: float, level: str = "network", name: str = "fast") -> Line:
        timing = Statistics(1, *[milliseconds] * 5, cpu_per_wall=None)
        return Line(level, engine, batch, name, timing, milliseconds / batch, 1000 * batch / milliseconds)

    def described(name: str, accuracy: Accuracy | None) -> NetworkReport:
        return NetworkReport(name, "random", 8, (), "", Costs(), accuracy=accuracy)

    networks = [described("fast", Accuracy(2.5, "faces")), described("2drnn", None), described("rhg", None)]
    report = BenchmarkReport("", "cpu", 1, {}, PhotoReport("built-in", (8, 8), 1), "x0.5", networks)
    report.lines = [
        line("torch", 1, 4.0),
        line("onnxruntime", 1, 2.0),
        line("onnxruntime", 32, 3.2),
        line("onnxruntime", 1, 1.0, "crop"),
        line("torch", 1, 9.0, name="2drnn"),
        line("torch", 32, 9.0, name="rhg"),
    ]
    assert chart_rows(report) == [
        {"name": "fast", "milliseconds": 2.0, "engine": "onnxruntime", "nme": 2.5, "of": "faces"},
        {"name": "2drnn", "milliseconds": 9.0, "engine": "torch", "nme": None, "of": None},
    ]
