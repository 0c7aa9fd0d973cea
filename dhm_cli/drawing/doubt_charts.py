"""Charts of what a network knows about its own errors, and of faces at every roll."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dhm_cli.drawing.charts import COLOURS, DARK_GREY, UNIT, draw_line, new_figure, numbers_of, save_figure, style_axes
from dhm_cli.metrics.doubts import RIGHT_SHARES


def save_rolls(path: Path, rows: Sequence[Mapping[str, Any]], unit: str = UNIT) -> None:
    """Draw the error over the angle by which the photo is turned.

    Args:
        path: PNG, 1200 x 540 pixels, written atomically; the same input gives the same bytes.
        rows: `roll` (degrees), `mean_of_images` and `failure_rate` (percent).
        unit: of the errors.
    """
    figure = new_figure(10, 4.5)
    left, right = figure.subplots(1, 2)
    style_axes(left, "roll of the photo, degrees", f"NME, {unit}", "mean of images")
    style_axes(right, "roll of the photo, degrees", "images, %", "failure rate")
    for axes, key in ((left, "mean_of_images"), (right, "failure_rate")):
        draw_line(axes, numbers_of(rows, "roll"), numbers_of(rows, key), color=COLOURS[0], linewidth=1.8)
        axes.set_xticks(range(0, 361, 45))
        axes.set_ylim(bottom=0)
    save_figure(figure, path)


def save_doubts(path: Path, doubts: Mapping[str, Any]) -> None:
    """Draw the reliability of the confidence, the calibration of sigma, and the error of the faces that are kept.

    Args:
        path: PNG, 1560 x 540 pixels, written atomically; the same input gives the same bytes.
        doubts: `doubts` of `report.json`.
    """
    figure = new_figure(13, 4.5)
    reliable, calibrated, kept = figure.subplots(1, 3)
    style_axes(reliable, "confidence, mean of a tenth", "share that was right", "confidence")
    reliable.plot([0, 1], [0, 1], color=DARK_GREY, linewidth=1, linestyle=":")
    told = [row for row in doubts["confidence"]["reliability"] if row["claims"]]
    draw_line(reliable, numbers_of(told, "claimed"), numbers_of(told, "right"), color=COLOURS[0], linewidth=1.8)
    for row in told:
        place = (row["claimed"], row["right"])
        reliable.annotate(f"{row['claims']:.0f}", place, (3, -10), textcoords="offset points", fontsize=8)
    reliable.set_xlim(0, 1)
    reliable.set_ylim(0, 1.02)

    style_axes(calibrated, "|yaw|, degrees", "share of the errors, %", "within 1 and 1.79 sigma")
    names = list(doubts["sigma"])
    for key, colour in (("within_one", COLOURS[0]), ("within_wide", COLOURS[1])):
        calibrated.axhline(RIGHT_SHARES[key], color=DARK_GREY, linewidth=1, linestyle=":")
        calibrated.plot(range(len(names)), [doubts["sigma"][name][key] for name in names], "o", color=colour)
    calibrated.set_xticks(range(len(names)), names)
    calibrated.set_xlim(-0.5, len(names) - 0.5)
    calibrated.set_ylim(0, 100)

    style_axes(kept, "faces kept, the surest first, %", "%", "error of the kept")
    rows = sorted(doubts["confidence"]["kept"], key=lambda row: row["percent"])
    for key, colour, label in (("nme", COLOURS[0], "NME"), ("failure_rate", COLOURS[1], "failure rate at 6 %")):
        draw_line(kept, numbers_of(rows, "percent"), numbers_of(rows, key), color=colour, linewidth=1.8, label=label)
    kept.set_ylim(bottom=0)
    kept.legend(edgecolor="none", framealpha=0.9, fontsize=9)
    save_figure(figure, path)
