"""Charts of training and evaluation, drawn with matplotlib: error distributions, learning curves, where the errors are.

matplotlib is loaded when a chart is drawn; its global state (pyplot, rcParams) is left alone.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dhm_cli.drawing.png_mark import SOFTWARE
from dhm_cli.geometry.landmarks import CURVES, GROUPS
from dhm_cli.metrics.headline import AUC_THRESHOLDS
from dhm_cli.metrics.landmark_error import NORMALISERS, YAW_BINS, area_under_ced, cumulative_error, failure_rate
from dhm_cli.runtime.atomic import written_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Told apart by people of all kinds of colour vision (Okabe and Ito); the line style tells apart more than seven.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_LINE_STYLES = ("-", "--", ":", "-.")
_GREY = "#9a9a9a"
# Pixels per inch; text of 10 points is 17 pixels high.
_RESOLUTION = 120
# Of a text or an axis beside the data.
DARK_GREY = "#707070"
_DASHES = (0, (4, 3))
# Comes with matplotlib; the columns of a legend must line up.
_MONOSPACED = "DejaVu Sans Mono"
# What errors are printed in, unless another normaliser was chosen.
UNIT = NORMALISERS["bbox"]
# A line of at most this many points gets its points marked.
_MARKED = 40
# Width of a bin of yaw, degrees, and how many faces it needs for a median.
_YAW_STEP, _FEWEST = 10, 3
# How far the mean face is turned in its second view, degrees: the far half of the jaw is still to be seen.
_TURN = 55.0
# How many of the worst landmarks get their numbers.
_NAMED = 5


def save_ced(
    path: Path,
    errors: Mapping[str, NDArray[np.floating]],
    threshold: float = 6.0,
    limit: float = 10.0,
    title: str = "",
    unit: str = UNIT,
) -> None:
    """Draw the cumulative error distributions of several methods, exact steps, as in Fig. 6 of Sun et al. 2018.

    Args:
        path: PNG, 1200 x 720 pixels, written atomically; the same input gives the same bytes.
        errors: NME of every image by method, (N,), percent; NaN counts as beyond every error.
        threshold: percent, marked in the chart. The legend has the failure rate there, AUC@7 and AUC@8.
        limit: percent, where the error axis ends.
        title: printed above.
        unit: of the errors.
    """
    figure = new_figure(10, 6)
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
            color=COLOURS[k % len(COLOURS)],
            linestyle=_LINE_STYLES[k // len(COLOURS) % len(_LINE_STYLES)],
            linewidth=1.8,
            # The space in front, because matplotlib leaves out labels that begin with an underscore.
            label=f" {name:{width}}  {failure_rate(nme, threshold):5.1f}  "
            + "  ".join(f"{area_under_ced(nme, end):5.1f}" for end in AUC_THRESHOLDS),
        )
    axes.axvline(threshold, color=_GREY, linewidth=1, linestyle=_DASHES, zorder=1)
    style_axes(axes, f"NME, {unit}", "images with at most this NME, %", title)
    axes.set(xlim=(0, limit), ylim=(0, 100))
    axes.set_yticks(range(0, 101, 10))
    columns = [f"FR@{threshold:g}", *(f"AUC@{end:g}" for end in AUC_THRESHOLDS)]
    _legend(axes, "  ".join([" " * (width + 6), *(f"{column:>5}" for column in columns)]))
    save_figure(figure, path)


def _legend(axes: "Axes", heading: str) -> None:
    font = {"family": _MONOSPACED, "size": 9}
    legend = axes.legend(loc="lower right", prop=font, title=heading, title_fontproperties=font, alignment="left")
    for text in legend.get_texts():
        text.set_parse_math(False)  # a run may have dollar signs in its name
    legend.get_frame().set(edgecolor="none", alpha=0.9)


def save_learning_curve(path: Path, rows: Sequence[Mapping[str, Any]], warmup: int = 0) -> None:
    """Draw the loss and the validation error over the steps of a training.

    Args:
        path: PNG, 1200 x 540 pixels, written atomically; the same input gives the same bytes.
        rows: lines of `metrics.jsonl`: `step`, and as far as known `epoch`, `loss`, `learning_rate` and `validation`,
            the NME by yaw bin as `metrics.nme_by_yaw` gives it. Of several lines of a step, written again after a
            resume, the last counts.
        warmup: steps over which the learning rate rises at first; they are shaded.
    """
    rows = [row for _, row in sorted({row["step"]: row for row in rows}.items())]
    figure = new_figure(10, 4.5)
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
        if warmup:
            axes.axvspan(0, warmup, color=_GREY, alpha=0.15, linewidth=0, zorder=0, label="warm-up")
        _legend_of(axes)
    save_figure(figure, path)


def _legend_of(axes: "Axes") -> None:
    """A legend of all that has a name on these axes and on those behind them."""
    every = [other for other in axes.figure.axes if other.get_subplotspec() == axes.get_subplotspec()]
    pairs = [pair for other in every for pair in zip(*other.get_legend_handles_labels(), strict=True)]
    if pairs:
        axes.legend(*zip(*pairs, strict=True), edgecolor="none", framealpha=0.9, fontsize=9, loc="upper right")


def _draw_loss(axes: "Axes", rows: Sequence[Mapping[str, Any]]) -> None:
    steps, loss, rate = (numbers_of(rows, key) for key in ("step", "loss", "learning_rate"))
    style_axes(axes, "step", "loss (log)", "training")
    _log_scale(axes, loss)
    draw_line(axes, steps, loss, color=COLOURS[0], linewidth=1.6, label="loss")
    if np.isfinite(rate).any():
        behind = axes.twinx()
        axes.set_zorder(behind.get_zorder() + 1)
        axes.patch.set_visible(False)
        draw_line(behind, steps, rate, color=_GREY, linewidth=0.9, label="learning rate")
        behind.set_ylabel("learning rate", color=DARK_GREY)
        behind.tick_params(colors=DARK_GREY, labelsize=9, length=0)
        behind.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        behind.set_ylim(bottom=0)
        behind.spines[:].set_visible(False)


def _draw_validation(axes: "Axes", rows: Sequence[Mapping[str, Any]]) -> None:
    style_axes(axes, "step", "NME, % of face size", "validation")
    if not rows:
        axes.text(0.5, 0.5, "no validation yet", transform=axes.transAxes, ha="center", color=DARK_GREY)
        axes.set_yticks([])
        return
    steps, scores = numbers_of(rows, "step"), [row["validation"] for row in rows]
    bins = [numbers_of(scores, name) for name in YAW_BINS]
    axes.set_ylim(_readable(np.concatenate(bins)))
    for name, nme, colour in zip(YAW_BINS, bins, ("#56b4e9", "#009e73", "#d55e00"), strict=True):
        draw_line(axes, steps, nme, color=colour, linewidth=1.4, label=f"|yaw| {name}")
    mean = numbers_of(scores, "mean_of_bins")
    draw_line(axes, steps, mean, color="black", linewidth=2.2, label="mean of bins")
    if np.isfinite(mean).any():
        best = int(np.nanargmin(mean))
        label = f"best {mean[best]:.2f}, step {steps[best]:,.0f}"
        axes.axvline(steps[best], color=_GREY, linewidth=1, linestyle=_DASHES, zorder=1, label=label)


def _readable(values: NDArray[np.float64]) -> tuple[float, float]:
    """Ends of a linear axis: errors of the first steps, several times the last ones, may leave at its top."""
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(min(values.max(), 3 * np.median(values)))
    return max(0.0, low - 0.1 * (high - low)), high + 0.05 * (high - low) + 1e-6


def save_error_by_yaw(
    path: Path, errors: Mapping[str, NDArray[np.floating]], yaw: NDArray[np.floating], unit: str = UNIT
) -> None:
    """Draw the error over the signed yaw: each face of the first method, and the median of each method by 10 degrees.

    The band around the first method's line is the distribution-free 95 % interval of a median between two order
    statistics, their ranks from the binomial distribution with p = 1/2 (David and Nagaraja 2003, section 7.1).

    Args:
        path: PNG, 1200 x 600 pixels, written atomically; the same input gives the same bytes.
        errors: NME of every face by method, (N,), percent, one method or more; NaN where a method gave nothing. A bin
            of fewer than three faces has no median, one of fewer than six no band.
        yaw: (N,), degrees; beyond +-180 it is wrapped.
        unit: of the errors.
    """
    yaw = (np.asarray(yaw, np.float64) + 180) % 360 - 180
    furthest = max(90.0, float(np.ceil(np.abs(yaw).max(initial=0) / _YAW_STEP)) * _YAW_STEP)
    edges = np.arange(-furthest, furthest + 1, _YAW_STEP)
    centres = edges[:-1] + _YAW_STEP / 2
    figure = new_figure(10, 5)
    axes = figure.add_subplot()
    style_axes(axes, "yaw, degrees", f"NME, {unit}", "")
    for bound in (-60, -30, 30, 60):
        axes.axvline(bound, color=_GREY, linewidth=1, linestyle=_DASHES, zorder=1)
    top = 0.0
    for k, (name, nme) in enumerate(errors.items()):
        middle, low, high = _medians_by_bin(np.asarray(nme, np.float64), yaw, edges)
        colour, style = COLOURS[k % len(COLOURS)], _LINE_STYLES[k // len(COLOURS) % len(_LINE_STYLES)]
        label = f" {name}: median" + ("" if k else ", 95 % interval and every face")
        axes.plot(centres, middle, "o", linestyle=style, color=colour, markersize=4, zorder=4, label=label)
        top = max(top, float(np.nan_to_num(middle).max(initial=0)))
        if k == 0:
            axes.fill_between(centres, low, high, color=colour, alpha=0.22, linewidth=0, zorder=3)
    _draw_faces(axes, np.asarray(next(iter(errors.values())), np.float64), yaw, top)
    axes.set_xticks(np.arange(-180, 181, 30))
    axes.set_xlim(-furthest, furthest)
    legend = figure.legend(loc="outside lower center", edgecolor="none", fontsize=9, ncols=min(3, len(errors)))
    for text in legend.get_texts():
        text.set_parse_math(False)
    save_figure(figure, path)


def _medians_by_bin(
    nme: NDArray[np.float64], yaw: NDArray[np.float64], edges: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Median of each bin [edge, next edge), the last closed, and the ends of its interval; NaN of too few faces."""
    places = np.clip(np.searchsorted(edges, yaw, side="right") - 1, 0, len(edges) - 2)
    result = np.full((3, len(edges) - 1), np.nan)
    for k in range(len(edges) - 1):
        inside = np.sort(nme[(places == k) & ~np.isnan(nme)])
        if len(inside) >= _FEWEST:
            result[0, k] = np.median(inside)
            rank = _rank_below_median(len(inside))
            if rank:
                result[1:, k] = inside[rank - 1], inside[-rank]
    return result[0], result[1], result[2]


def _rank_below_median(count: int) -> int:
    """Largest r such that the r-th smallest and the r-th largest of `count` values enclose their median at 95 %.

    That is, with B binomial of `count` and 1/2, P(B < r) <= 1 / 40; 0 where there is none. In whole numbers, exact.
    """
    rank, term, below = 0, 1, 1
    while 40 * below <= 2**count:
        rank += 1
        term = term * (count - rank + 1) // rank
        below += term
    return rank


def _draw_faces(axes: "Axes", nme: NDArray[np.float64], yaw: NDArray[np.float64], top: float) -> None:
    """A dot a face; those above nearly all others become triangles at the upper edge, and are counted."""
    known = nme[~np.isnan(nme)]
    if len(known):
        # Room for nine faces in ten at least twice over, and for every median.
        limit = 1.1 * max(min(float(known.max()), 2 * float(np.percentile(known, 90))), top, 1e-6)
        axes.set_ylim(0, limit)
        beyond = nme > limit
        axes.scatter(yaw, nme, s=7, color=COLOURS[0], alpha=0.28, linewidths=0, zorder=2)
        axes.scatter(
            yaw[beyond], np.full(beyond.sum(), limit), s=22, marker="^", color=COLOURS[0], clip_on=False, zorder=5
        )
    else:
        limit, beyond = 1.0, np.zeros(0, bool)
        axes.set_ylim(0, limit)
    remarks = [f"▲ {_faces(int(beyond.sum()))} above {limit:.1f}"] if beyond.any() else []
    if len(known) < len(nme):
        remarks.append(f"{_faces(len(nme) - len(known))} without points not shown")
    axes.set_title("; ".join(remarks), fontsize=9, loc="right", color=DARK_GREY)


def _faces(count: int) -> str:
    return f"{count:,} face{'s' if count != 1 else ''}"


def save_landmark_errors(
    path: Path, shape: NDArray[np.floating], errors: NDArray[np.floating], unit: str = UNIT
) -> None:
    """Draw the mean error of every landmark on the mean face, seen from the front and turned.

    Args:
        path: PNG, 1320 x 564 pixels, written atomically; the same input gives the same bytes.
        shape: (68, 3), frontal mean face, any unit, x right, y down, z toward the viewer.
        errors: (68,), percent; NaN where unknown. The five largest get their landmark's number, counted from 0.
        unit: of the errors.
    """
    figure = new_figure(11, 4.7)
    left, right, bar, table = figure.subplots(1, 4, width_ratios=(1, 0.95, 0.035, 0.5))
    front = np.asarray(shape, np.float64) - np.mean(shape, axis=0)
    sine, cosine = np.sin(np.deg2rad(_TURN)), np.cos(np.deg2rad(_TURN))
    turned = front @ np.array([[cosine, 0.0, -sine], [0.0, 1.0, 0.0], [sine, 0.0, cosine]])
    errors = np.asarray(errors, np.float64)
    known = errors[np.isfinite(errors)]
    span = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    for axes, points, title in ((left, front, "from the front"), (right, turned, f"turned by {_TURN:.0f}°")):
        dots = _draw_mean_face(axes, points, errors, span)
        axes.set_title(title, fontsize=11)
    figure.colorbar(dots, cax=bar).outline.set_visible(False)
    bar.set_title(f"NME, {unit}", fontsize=9, loc="left")
    bar.tick_params(labelsize=9, length=0)
    means = {name: float(np.mean(errors[group])) for name, group in GROUPS.items()} | {"all": float(np.mean(errors))}
    table.axis("off")
    lines = [f"{'mean of':7}  {'NME':>5}", *(f"{name:7}  {mean:5.2f}" for name, mean in means.items())]
    table.text(0.1, 0.98, "\n".join(lines), family=_MONOSPACED, fontsize=10, va="top", linespacing=1.7)
    note = f"numbers: the {_NAMED} worst\nlandmarks, counted from 0"
    table.text(0.1, 0.02, note, fontsize=9, color=DARK_GREY, va="bottom", linespacing=1.5)
    save_figure(figure, path)


def _draw_mean_face(
    axes: "Axes", points: NDArray[np.float64], errors: NDArray[np.floating], span: tuple[float, float]
) -> Any:
    """One view; returns the dots, which carry the colours."""
    from matplotlib.patheffects import withStroke

    for first, last, closed in CURVES:
        curve = [*range(first, last + 1), *([first] if closed else [])]
        axes.plot(points[curve, 0], points[curve, 1], color="#c4c4c4", linewidth=1.2, zorder=1)
    order = np.argsort(points[:, 2], kind="stable")  # far to near
    dots = axes.scatter(
        points[order, 0],
        points[order, 1],
        c=errors[order],
        cmap="viridis_r",
        vmin=span[0],
        vmax=span[1],
        s=62,
        edgecolors="#404040",
        linewidths=0.6,
        zorder=2,
    )
    ranked = np.argsort(errors, kind="stable")
    middle = points.mean(axis=0)
    for k in ranked[-_NAMED:]:
        away = points[k, :2] - middle[:2]
        away = 11 * away / max(float(np.linalg.norm(away)), 1e-9)
        axes.annotate(
            str(k),
            (points[k, 0], points[k, 1]),
            (away[0], -away[1]),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=8,
            zorder=3,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )
    axes.set_aspect("equal")
    axes.margins(0.09)
    axes.invert_yaxis()
    axes.axis("off")
    return dots


def save_robustness(path: Path, rows: Sequence[Mapping[str, Any]], unit: str = UNIT) -> None:
    """Draw how the error grows where the box of the face is off, a line for each kind of disturbance.

    Args:
        path: PNG, 1200 x 540 pixels, written atomically; the same input gives the same bytes.
        rows: `kind`, `level` (percent of the box's side), `mean_of_bins` and `failure_rate` (percent).
        unit: of the errors.
    """
    figure = new_figure(10, 4.5)
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    left, right = figure.subplots(1, 2)
    style_axes(left, "disturbance, % of the box's side", f"NME, {unit}", "mean of bins")
    style_axes(right, "disturbance, % of the box's side", "images, %", "failure rate")
    for axes, key in ((left, "mean_of_bins"), (right, "failure_rate")):
        for k, kind in enumerate(kinds):
            chosen = sorted((row for row in rows if row["kind"] == kind), key=lambda row: row["level"])
            colour = COLOURS[k % len(COLOURS)]
            draw_line(
                axes, numbers_of(chosen, "level"), numbers_of(chosen, key), color=colour, linewidth=1.8, label=kind
            )
        axes.set_ylim(bottom=0)
        if axes.get_lines():
            axes.legend(edgecolor="none", framealpha=0.9, fontsize=9)
    save_figure(figure, path)


def save_accuracy_against_time(
    path: Path, networks: Sequence[Mapping[str, Any]], published: Sequence[Mapping[str, Any]]
) -> None:
    """Draw accuracy against time of a face: networks as measured, and below them, on axes of their own, published rows.

    Args:
        path: PNG, 1200 x 1080 pixels, written atomically; the same input gives the same bytes.
        networks: `name`, `milliseconds`, `engine`, `nme` in percent and `of`, which faces; both None where the network
            was not measured, which makes it a tick on the axis of time.
        published: rows of published.json, one with a speed or more: `name`, `cpu_fps` as printed, such as "<1", and
            `original`, the NME of the yaw bins and their mean. Rows without a speed are left out.
    """
    figure = new_figure(10, 9)
    above, below = figure.subplots(2, 1, sharex=True)
    rows = [(row["name"], str(row["cpu_fps"]), row["original"][-1]) for row in published if row["cpu_fps"]]
    times = [row["milliseconds"] for row in networks] + [1000 / float(fps.lstrip("<>")) for _, fps, _ in rows]
    below.set_xscale("log")
    below.set_xlim(0.6 * min(times), 6 * max(times))
    below.xaxis.set_major_formatter("{x:g}")
    known = [row for row in networks if row["nme"] is not None]
    faces = list(dict.fromkeys(row["of"] for row in known))
    style_axes(
        above, "", "NME, mean of bins, %", "measured in this run" + (f"; NME: {faces[0]}" if len(faces) == 1 else "")
    )
    style_axes(below, "time of a face, ms (log)", "NME, mean of bins, %", "")
    title = "as published: AFLW2000-3D, the authors' machines, CPU; not comparable with the panel above"
    below.set_title(title, fontsize=11, loc="left", color=DARK_GREY)
    labels = []
    for row in known:
        above.plot(row["milliseconds"], row["nme"], "o", color=COLOURS[0], markersize=7, zorder=3)
        source = f"\n{row['of']}" if len(faces) > 1 else ""
        text = f"{row['name']}, {row['nme']:.2f} % in {row['milliseconds']:.2g} ms, {row['engine']}{source}"
        labels.append((text, row["milliseconds"], row["nme"], above.transData))
    # From the right, so that the lines to labels that had to move up do not cross.
    for row in sorted(networks, key=lambda row: -row["milliseconds"]):
        if row["nme"] is None:
            place = above.get_xaxis_transform()
            above.plot(row["milliseconds"], 0, "|", transform=place, color=COLOURS[1], markersize=16, clip_on=False)
            text = f"{row['name']}, {row['milliseconds']:.2g} ms, NME not measured"
            labels.append((text, row["milliseconds"], 0.0, place))
    if not known:
        above.text(0.5, 0.5, "no NME is known", transform=above.transAxes, ha="center", color=DARK_GREY)
        above.set_yticks([])
    above.margins(y=0.35)
    slow = [name for name, fps, _ in rows if fps.startswith("<")]
    for name, fps, nme in rows:
        milliseconds = 1000 / float(fps.lstrip("<>"))
        below.plot(milliseconds, nme, ">" if name in slow else "D", color=_GREY, markersize=6, zorder=3)
        labels.append((name, milliseconds, nme, below.transData))
    if slow:
        below.text(0.99, 0.02, "▶ slower than that", transform=below.transAxes, ha="right", fontsize=9, color=DARK_GREY)
    below.margins(y=0.12)
    _place_labels(figure, labels)
    save_figure(figure, path)


def _place_labels(figure: "Figure", labels: Sequence[tuple[str, float, float, Any]]) -> None:
    """Write texts beside their points where they cover neither each other nor a point, with a line where they moved.

    Args:
        figure: with all else drawn and its axes' limits set.
        labels: text, x, y and their transform.
    """
    from matplotlib.transforms import Bbox

    figure.canvas.draw()  # settles the layout
    points = [transform.transform((x, y)) for _, x, y, transform in labels]
    taken = [Bbox.from_extents(x - 6, y - 6, x + 6, y + 6) for x, y in points]
    line = {"arrowstyle": "-", "color": _GREY, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 3}
    steps = [0, *(sign * step for step in range(1, 9) for sign in (1, -1))]
    for k, (text, x, y, transform) in enumerate(labels):
        axes = next(axes for axes in figure.axes if axes.bbox.padded(8).contains(*points[k]))
        note, box = None, None
        # Beside the point first, then a line higher or lower, and so on.
        for rows, side in ((rows, side) for rows in steps for side in (1, -1)):
            if note is not None:
                note.remove()
            note = axes.annotate(
                text,
                (x, y),
                (side * (9 if rows == 0 else 14), 8 * rows),
                xycoords=transform,
                textcoords="offset points",
                ha="left" if side > 0 else "right",
                va="center",
                fontsize=9,
                arrowprops=None if rows == 0 else {**line, "relpos": (0.0 if side > 0 else 1.0, 0.5)},
                annotation_clip=False,
                parse_math=False,
                zorder=4,
            )
            note.set_in_layout(False)
            box = _extent_of_text(note)
            if not any(box.overlaps(other) for i, other in enumerate(taken) if i != k) and _inside(box, axes.bbox):
                break
        if box is not None:
            taken.append(box)


def _extent_of_text(note: Any) -> Any:
    """Pixels that an annotation's text covers, without its line."""
    from matplotlib.text import Text

    note.update_positions(note.get_figure().canvas.get_renderer())
    return Text.get_window_extent(note)


def _inside(box: Any, frame: Any) -> bool:
    return bool(box.x0 >= frame.x0 and box.x1 <= frame.x1 and box.y0 >= frame.y0 and box.y1 <= frame.y1)


def numbers_of(rows: Sequence[Mapping[str, Any]], key: str) -> NDArray[np.float64]:
    """The values of one key of some rows, NaN where there is none."""
    return np.array([row.get(key) for row in rows], dtype=np.float64)  # None becomes NaN


def draw_line(axes: "Axes", x: NDArray[np.float64], y: NDArray[np.float64], **style: Any) -> None:
    """Draw a line through the points that are known, a few of them marked."""
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


def new_figure(width: float, height: float) -> "Figure":
    """A figure of a size in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_RESOLUTION, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def style_axes(axes: "Axes", x: str, y: str, title: str) -> None:
    """Titles and a quiet grid."""
    axes.set(xlabel=x, ylabel=y)
    axes.set_title(title, fontsize=11, loc="left")
    axes.grid(color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9, length=0)
    axes.spines[["top", "right"]].set_visible(False)


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a PNG, atomically; the same figure gives the same bytes."""
    with written_atomically(path) as partial, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in letters that matplotlib's font lacks
        # In place of the version of matplotlib that it would note in the file.
        figure.savefig(partial, format="png", metadata={"Software": SOFTWARE})
