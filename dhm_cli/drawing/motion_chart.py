"""A chart of how landmarks move in videos, raw and smoothed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dhm_cli.drawing.charts import COLOURS, DARK_GREY, new_figure, save_figure, style_axes

# Frames that are shown, and videos.
_SHOWN, _MOST = 90, 6


def save_motion(path: Path, videos: Sequence[tuple[str, Mapping[str, NDArray[np.floating]]]]) -> None:
    """Draw the place of the nose tip over three seconds, and how far it is from the true one.

    Args:
        path: PNG, a row of 360 pixels for each of at most 6 videos, written atomically; the same input gives the same
            bytes.
        videos: names, each with curves (T,), percent of the face size: the first the true one.
    """
    shown = videos[:_MOST]
    figure = new_figure(13, 3 * len(shown))
    for (left, right), (name, curves) in zip(figure.subplots(len(shown), 2, squeeze=False), shown, strict=True):
        true = next(iter(curves.values()))
        start = max(0, (len(true) - _SHOWN) // 2)
        part = slice(start, start + _SHOWN)
        style_axes(left, "frame", "x of the nose tip, % of the face", name)
        style_axes(right, "frame", "from the true one, % of the face", "")
        frames = np.arange(len(true))[part]
        for k, (label, curve) in enumerate(curves.items()):
            colour, width = (DARK_GREY, 2.5) if k == 0 else (COLOURS[k - 1], 1.2)
            left.plot(frames, curve[part], color=colour, linewidth=width, label=label)
            if k:
                off = curve - true
                right.plot(frames, (off - np.nanmean(off))[part], color=colour, linewidth=width, label=label)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, edgecolor="none", fontsize=9, loc="outside upper right", ncols=len(labels))
    save_figure(figure, path)
