"""Curves of training and evaluation, drawn with matplotlib: error distributions and learning curves.

matplotlib is loaded when a chart is drawn; its global state (pyplot, rcParams) is left alone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dhm_cli.files import written_atomically
from dhm_cli.metrics import YAW_BINS, area_under_ced, cumulative_error, failure_rate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Told apart by people of all kinds of colour vision (Okabe and Ito); the line style tells apart more than seven.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_LINE_STYLES = ("-", "--", ":", "-.")
_GREY = "#9a9a9a"
# Pixels per inch; text of 10 points is 17 pixels high.
_RESOLUTION = 120
# Threshold of the area under the CED in the legend, percent: AUC@7.
AUC_THRESHOLD = 7.0
# A line of at most this many points gets its points marked.
_MARKED = 40


def save_ced(
    path: Path,
    errors: Mapping[str, NDArray[np.floating]],
    threshold: float = 6.0,
    limit: float = 10.0,
    title: str = "",
) -> None:
    """Draw the cumulative error distributions of several methods, exact steps, as in Fig. 6 of Sun et al. 2018.

    Args:
        path: PNG, 1200 x 720 pixels, written atomically; the same input gives the same bytes.
        errors: NME of every image by method, (N,), percent; NaN counts as beyond every error.
        threshold: percent, marked in the chart; the legend has the failure rate there, the mean NME and the AUC@7.
        limit: percent, where the error axis ends.
        title: printed above.
    """
    figure = _figure(10, 6)
    axes = figure.add_subplot()
    width = max((len(name) for name in errors), default=0)
    for k, (name, nme) in enumerate(errors.items()):
        reached, share = cumulative_error(nme)
        inside = reached <= limit
        share = 100 * np.concatenate([[0.0], share[inside]])
        axes.step(
            np.concatenate([[0.0], reached[inside], [limit]]),
            np.concatenate([share, share[-1:]]),
            where="post",
            color=_COLOURS[k % len(_COLOURS)],
            linestyle=_LINE_STYLES[k // len(_COLOURS) % len(_LINE_STYLES)],
            linewidth=1.8,
            # The space in front, because matplotlib leaves out labels that begin with an underscore.
            label=f" {name:{width}}  {_mean(nme):5.2f}  {failure_rate(nme, threshold):5.1f}  "
            f"{area_under_ced(nme, AUC_THRESHOLD):5.1f}",
        )
    axes.axvline(threshold, color=_GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    _style(axes, "NME, % of face size", "images with at most this NME, %", title)
    axes.set(xlim=(0, limit), ylim=(0, 100))
    axes.set_yticks(range(0, 101, 10))
    _legend(axes, f"{'':{width + 6}}  {'mean':>5}  {f'FR@{threshold:g}':>5}  {f'AUC@{AUC_THRESHOLD:g}':>5}")
    _save(figure, path)


def _mean(nme: NDArray[np.floating]) -> float:
    return float(np.mean(nme)) if len(nme) else float("nan")


def _legend(axes: "Axes", heading: str) -> None:
    font = {"family": "DejaVu Sans Mono", "size": 9}  # comes with matplotlib; the columns must line up
    legend = axes.legend(loc="lower right", prop=font, title=heading, title_fontproperties=font, alignment="left")
    for text in legend.get_texts():
        text.set_parse_math(False)  # a run may have dollar signs in its name
    legend.get_frame().set(edgecolor="none", alpha=0.9)


def save_learning_curve(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw the loss and the validation error over the steps of a training.

    Args:
        path: PNG, 1200 x 540 pixels, written atomically; the same input gives the same bytes.
        rows: lines of `metrics.jsonl`: `step`, and as far as known `epoch`, `loss`, `learning_rate` and `validation`,
            the NME by yaw bin as `metrics.nme_by_yaw` gives it. Of several lines of a step, written again after a
            resume, the last counts.
    """
    rows = [row for _, row in sorted({row["step"]: row for row in rows}.items())]
    figure = _figure(10, 4.5)
    left, right = figure.subplots(1, 2)
    _draw_loss(left, rows)
    _draw_validation(right, [row for row in rows if row.get("validation")])
    epoch = rows[-1].get("epoch") if rows else None
    for axes in (left, right):
        axes.set_xlabel("step" if epoch is None else f"step ({epoch:.3g} epochs so far)")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.locator_params(axis="x", nbins=5)
        if rows:
            axes.set_xlim(0, rows[-1]["step"] * 1.02 or 1)
    _save(figure, path)


def _draw_loss(axes: "Axes", rows: Sequence[Mapping[str, Any]]) -> None:
    steps, loss, rate = (_numbers(rows, key) for key in ("step", "loss", "learning_rate"))
    _style(axes, "step", "loss (log)", "training")
    _log_scale(axes, loss)
    _line(axes, steps, loss, color=_COLOURS[0], linewidth=1.6)
    if np.isfinite(rate).any():
        behind = axes.twinx()
        axes.set_zorder(behind.get_zorder() + 1)
        axes.patch.set_visible(False)
        _line(behind, steps, rate, color=_GREY, linewidth=0.9)
        behind.set_ylabel("learning rate", color="#707070")
        behind.tick_params(colors="#707070", labelsize=9, length=0)
        behind.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        behind.set_ylim(bottom=0)
        behind.spines[:].set_visible(False)


def _draw_validation(axes: "Axes", rows: Sequence[Mapping[str, Any]]) -> None:
    _style(axes, "step", "NME, % of face size (log)", "validation")
    if not rows:
        axes.text(0.5, 0.5, "no validation yet", transform=axes.transAxes, ha="center", color="#707070")
        axes.set_yticks([])
        return
    steps, scores = _numbers(rows, "step"), [row["validation"] for row in rows]
    bins = [_numbers(scores, name) for name in YAW_BINS]
    _log_scale(axes, np.concatenate(bins))
    for name, nme, colour in zip(YAW_BINS, bins, ("#56b4e9", "#009e73", "#d55e00"), strict=True):
        _line(axes, steps, nme, color=colour, linewidth=1.4, label=f"|yaw| {name}")
    mean = _numbers(scores, "mean_of_bins")
    _line(axes, steps, mean, color="black", linewidth=2.2, label="mean of bins")
    if np.isfinite(mean).any():
        best = int(np.nanargmin(mean))
        label = f"best {mean[best]:.2f}, step {steps[best]:,.0f}"
        axes.axvline(steps[best], color=_GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1, label=label)
        axes.legend(edgecolor="none", framealpha=0.9, fontsize=9)


def _numbers(rows: Sequence[Mapping[str, Any]], key: str) -> NDArray[np.float64]:
    return np.array([row.get(key) for row in rows], dtype=np.float64)  # None becomes NaN


def _line(axes: "Axes", x: NDArray[np.float64], y: NDArray[np.float64], **style: Any) -> None:
    known = np.isfinite(y)
    if known.any():
        axes.plot(x[known], y[known], marker="o" if known.sum() <= _MARKED else None, markersize=3.5, **style)


def _log_scale(axes: "Axes", values: NDArray[np.float64]) -> None:
    """A logarithmic y axis from the round number below the values to the one above, with plain numbers at its ticks.

    matplotlib's own has no tick at all where the values span less than a factor of two.
    """
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):
        return
    low, high = float(values.min()), float(values.max())
    decades = 10.0 ** np.arange(np.floor(np.log10(low)) - 1, np.ceil(np.log10(high)) + 2)
    digits = (1, 1.5, 2, 3, 4, 5, 6, 8) if high < 100 * low else (1,)
    ticks = np.outer(decades, digits).ravel()
    ticks = ticks[np.searchsorted(ticks, low) - 1 : np.searchsorted(ticks, high, "right") + 1]
    axes.set_yscale("log")
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_yticks([], minor=True)
    axes.set_ylim(ticks[0], ticks[-1])


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_RESOLUTION, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _style(axes: "Axes", x: str, y: str, title: str) -> None:
    axes.set(xlabel=x, ylabel=y)
    axes.set_title(title, fontsize=11, loc="left")
    axes.grid(color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9, length=0)
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: "Figure", path: Path) -> None:
    with written_atomically(path) as partial:
        # Without the version of matplotlib that it would note in the file.
        figure.savefig(partial, format="png", metadata={"Software": None})
