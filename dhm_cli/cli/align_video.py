"""`dhm align` on a video or a camera."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from dhm_cli.cli.guides import say_same_with
from dhm_cli.cli.lines import count, say
from dhm_cli.cli.progress import counted_on, interrupted

if TYPE_CHECKING:
    from dhm_cli.alignment.videos import VideoReport


def video_of(paths: Sequence[str], camera: int | None, smooth: str | None) -> Path | int | None:
    """The video file or the number of the camera that is meant; None for photos.

    Raises:
        InputError: a video among other files, or --smooth with photos.
    """
    from dhm_cli.errors import InputError
    from dhm_cli.io.photo_search import find_photos
    from dhm_cli.io.remote import is_url
    from dhm_cli.io.video import VIDEO_EXTENSIONS

    videos = [path for path in paths if path.lower().endswith(VIDEO_EXTENSIONS) and not Path(path).is_dir()]
    if camera is not None:
        if paths:
            raise InputError(f"--camera {camera} and {paths[0]}: one at a time", "leave one of them out")
        return camera
    if videos:
        if is_url(videos[0]):
            raise InputError(f"{videos[0]}: videos are read from this machine only", "download it first")
        found = find_photos(paths).photos  # what is not there is told, and a pattern may stand for one video
        if len(found) > 1:
            raise InputError(
                f"{videos[0]}: a video among other files", "align each video alone, and photos without them"
            )
        return Path(found[0])
    if smooth is not None:
        raise InputError(f"--smooth {smooth}: is for videos", "leave it out, or name one video")
    return None


def refuse_for_videos(**options: object) -> None:
    """Raise an InputError where an option for photos is given, by its name; `lists` is --from."""
    from dhm_cli.errors import InputError

    for name, value in options.items():
        if value is not None:
            option = "--from" if name == "lists" else f"--{name.replace('_', '-')}"
            raise InputError(f"{option}: is for photos, not for a video", "leave it out")


def align_a_video(video: Path | int, out: Sequence[str], *, columns: Sequence[str], **options: Any) -> None:
    """Follow the faces of a video, with a bar; see `alignment.videos.align_video`."""
    from tqdm import tqdm

    from dhm_cli.alignment.videos import STRIDE, align_video
    from dhm_cli.runtime.outputs import is_stream

    with tqdm(unit=" frames", disable=None) as bar:
        try:
            report = align_video(
                video,
                out,
                columns=["track", *(name for name in columns if name != "track")],
                progress=counted_on(bar),
                **options,
            )
        except KeyboardInterrupt as stop:
            raise interrupted(bar, out, "frames", f"from every {STRIDE}th frame") from stop
    _print_report(report, out)
    if options["overlay"] is None and not any(is_stream(Path(name)) for name in out):
        say_same_with("--overlay drawn.mp4", "draws the faces")
    if report.damaged or report.lost:
        raise typer.Exit(1)


def _print_report(report: "VideoReport", out: Sequence[str]) -> None:
    from dhm_cli.runtime.outputs import is_stream

    if report.damaged:
        say(f"warning: {report.name}: {count(report.damaged, 'damaged frame')}, see the table", err=True)
    if report.lost:
        say(
            f"warning: {report.name}: ends early, {count(report.lost, 'frame')} of {report.frames + report.lost:,} "
            "are not in the file",
            err=True,
        )
    if report.incomplete:
        frames = count(report.incomplete, "frame")
        say(f"warning: {report.name}: {frames} without a crop or a mesh of each face:", err=True)
        say(f"  {report.problem}", "    ", err=True)
    kept = f" ({report.kept:,} of them from the interrupted run)" if report.kept else ""
    doubtful = f" ({report.doubtful} doubtful)" if report.doubtful else ""
    rate = (report.frames - report.kept) / max(report.seconds, 1e-6)
    say(
        f"{', '.join(out)}: {count(report.frames, 'frame')}{kept}, {count(report.tracks, 'track')}, "
        f"{count(report.faces, 'face')}{doubtful}, {report.without:,} without a face, {report.damaged:,} damaged; "
        f"{rate:.1f} frames/s",
        err=any(is_stream(Path(name)) for name in out),
    )
