"""`dhm evaluate --video`."""

import json
import math
import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dhm_cli.cli.guides import say_same_with
from dhm_cli.cli.lines import say
from dhm_cli.cli.progress import shown_on
from dhm_cli.cli.tables import print_table

if TYPE_CHECKING:
    from dhm_cli.evaluation.video import VideoReport

_TITLES = {"none": "raw", "file": "file", "live": "live"}


def evaluate_on_video(
    video: Path,
    model: str | None,
    device: str,
    face_model: Path | None,
    report: Path | None,
    json_file: Path | None,
    force: bool,
) -> None:
    """Score a network on videos, with a bar; see `evaluation.video.evaluate_video`."""
    from tqdm import tqdm

    from dhm_cli.drawing.motion_chart import save_motion
    from dhm_cli.drawing.png_mark import is_our_png
    from dhm_cli.evaluation.report import without_nan
    from dhm_cli.evaluation.video import evaluate_video, is_video_report
    from dhm_cli.inference.aligner import Aligner
    from dhm_cli.runtime.atomic import written_atomically
    from dhm_cli.runtime.outputs import STDOUT, check_output

    chart, numbers = (None, None) if report is None else (report / "motion.png", report / "video.json")
    for file, option, is_ours in (
        (chart, "--report", is_our_png),
        (numbers, "--report", is_video_report),
        (json_file, "--json", is_video_report),
    ):
        if file is not None:
            check_output(file, option, "a file of dhm evaluate --video", is_ours, [video], force)
    aligner = Aligner(device, model=model, face_model=face_model)
    with tqdm(unit=" frames", disable=None, leave=False) as bar:
        found = evaluate_video(video, aligner, model or "fast", shown_on(bar))
    with redirect_stdout(sys.stderr) if json_file == STDOUT else nullcontext():
        _print(found)
    for file in (json_file, numbers):
        if file is not None:
            with written_atomically(file) as partial:
                partial.write_text(json.dumps(without_nan(found.to_json()), indent=1) + "\n", encoding="utf-8")
    if chart is not None:
        save_motion(chart, [(scores.name, scores.curves) for scores in found.videos])
        typer.echo(f"chart: {chart}", err=json_file == STDOUT)
    elif json_file is None:
        say_same_with("--report report", "draws the curves")


def _print(report: "VideoReport") -> None:
    rows, ends = [], []
    for video in report.videos:
        for name, score in video.by_smoothing.items():
            lag = "-" if math.isnan(score.lag) else f"{score.lag:.2f}"
            rows.append([f"{video.name}, {_TITLES[name]}", f"{score.nme:.2f}", f"{score.jitter:.3f}", lag])
        ends.append(len(rows) - 1)
    print_table(("video, smoothing", "NME\n%", "jitter\n% of face", "lag\nframes"), rows, sections=ends)
    for video in report.videos:
        say(
            f"{video.name}: {video.labelled:,} labelled frames, {video.missed:,} missed, {video.numbers} track "
            f"number{'s' * (video.numbers != 1)}, the detector looked at {video.looks:.0f} frames of 1,000",
            indent="  ",
        )
