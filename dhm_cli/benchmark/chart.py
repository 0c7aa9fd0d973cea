"""The chart of a benchmark: accuracy against time, beside published rows."""

from pathlib import Path
from typing import Any

from dhm_cli.benchmark.report import BenchmarkReport
from dhm_cli.drawing.charts import save_accuracy_against_time
from dhm_cli.metrics.published import published_results


def save_chart(path: Path, report: BenchmarkReport) -> None:
    """Draw the networks of a report beside published rows; see `save_accuracy_against_time`."""
    save_accuracy_against_time(path, chart_rows(report), published_results(comparable=False)["rows"])


def chart_rows(report: BenchmarkReport) -> list[dict[str, Any]]:
    """The networks of a report for the chart, each on its fastest engine, alone and at batch 1.

    Returns:
        Rows for `save_accuracy_against_time`: name; milliseconds of a face; engine; nme, percent, and of, which faces,
        both None where the accuracy was not measured.
    """
    rows = []
    for network in report.subjects:
        lines = [line for line in report.lines if (line.subject, line.level) == (network.name, "network")]
        best = min((line for line in lines if line.batch == 1), key=lambda line: line.ms_per_face, default=None)
        if best is not None:
            known = network.accuracy
            rows.append(
                {
                    "name": network.name,
                    "milliseconds": best.ms_per_face,
                    "engine": best.engine,
                    "nme": None if known is None else known.nme,
                    "of": None if known is None else known.of,
                }
            )
    return rows
