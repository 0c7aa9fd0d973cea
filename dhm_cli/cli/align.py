"""`dhm align`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dhm_cli.cli.align_video import align_a_video, refuse_for_videos, video_of
from dhm_cli.cli.guides import say_same_with
from dhm_cli.cli.lines import count, say
from dhm_cli.cli.names import completed, networks
from dhm_cli.cli.progress import counted_on, interrupted
from dhm_cli.morphable.location import DEFAULT_FACE_MODEL, existing_face_model

if TYPE_CHECKING:
    from dhm_cli.inference.results import AlignmentReport

_INPUT, _OUTPUT, _PICTURES, _DENSE = "Input", "Output", "Pictures", "Dense face"
_METHOD, _FACES, _MACHINE = "Method", "Which faces", "Machine"
# Photos listed by name in a warning.
_LISTED = 20
# Faces that a browser shows in one page; a page of so many has half a gigabyte and more.
_MOST_IN_A_PAGE = 100_000


def align(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            help="Photos, folders of photos (searched recursively), patterns in quotes ('photos/**/*.jpg'), or - for "
            "paths on standard input, one a line; tar shards and Parquet tables of image files; all these also as "
            "addresses: s3://bucket/folder, https://host/photo.jpg, zip://::photos.zip. Or one video.",
            show_default=False,
        ),
    ] = None,
    lists: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            metavar="<path>",
            help="A list of photos: a path a line, or a table (.csv, .tsv, .jsonl, .json, .parquet, .npz) with a "
            "column of paths, as seen from here or from the list's folder. May be given several times.",
            show_default=False,
            rich_help_panel=_INPUT,
        ),
    ] = None,
    path_column: Annotated[
        str,
        typer.Option(
            help="The column of the paths in a table of --from, or of the names beside --image-column.",
            rich_help_panel=_INPUT,
        ),
    ] = "path",
    image_column: Annotated[
        str, typer.Option(help="The column of the image files in a Parquet table among PATHS.", rich_help_panel=_INPUT)
    ] = "image",
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="K/N",
            help="Align only the Kth of N shares of the photos, K from 1, for job arrays: what share a photo is in "
            "depends on its path alone, so give all runs the same PATHS, and each its own --out.",
            show_default=False,
            rich_help_panel=_INPUT,
        ),
    ] = None,
    out: Annotated[
        list[str],
        typer.Option(
            "--out",
            "-o",
            metavar="<path>",
            help="What to write, by its name: a .csv, .jsonl (one face a line), .json, .parquet or .npz file, a folder "
            "of .pts files with a slash at its end (points/), or - for standard output. Files may be addresses such as "
            "s3://bucket/faces.parquet. May be given several times.",
            rich_help_panel=_OUTPUT,
        ),
    ] = ["landmarks.csv"],  # noqa: B006  typer makes a new list
    stream: Annotated[
        Literal["csv", "jsonl"] | None,
        typer.Option(
            "--format",
            help="What --out - writes: a table, or JSON lines. Default: csv.",
            show_default=False,
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(
            help="Use these face boxes instead of detection: a table as for --from with path, left, top, width, "
            "height, a row per box, 0-based pixels. The path is the photo's as given here, or relative to the boxes "
            "file, or a file name that occurs once. A box is what the min/max box of the true landmarks would be, as "
            "in the AFLW2000-3D protocol: it is squared on its longer side and enlarged by sqrt(2). For a detector's "
            "boxes, such as those in a table of this command, add --refine 1. Rows without a box in such a table are "
            "skipped.",
            show_default=False,
            rich_help_panel=_INPUT,
        ),
    ] = None,
    overlay: Annotated[
        Path | None,
        typer.Option(
            help="Also save each photo with its faces drawn in this folder; of a video, the file of a video, .mp4.",
            show_default=False,
            rich_help_panel=_PICTURES,
        ),
    ] = None,
    draw: Annotated[
        str | None,
        typer.Option(
            help="What --overlay draws, a list of mesh (the dense face), points, lines, axes (of the head: x red, y "
            "green, z blue), box, number, confidence. Default: points,lines,number.",
            autocompletion=completed("drawing.heads", "PARTS", commas=True),
            show_default=False,
            rich_help_panel=_PICTURES,
        ),
    ] = None,
    crops: Annotated[
        Path | None,
        typer.Option(
            help="Also save a crop of each face in this folder, as photo_0.jpg, of a video as video_FRAME_TRACK.jpg: "
            "upright by its 3D pose, in profile too, black where the photo ends. The columns crop, crop_matrix (2x3, "
            "photo pixels to crop pixels) and crop_landmarks go into the table.",
            show_default=False,
            rich_help_panel=_PICTURES,
        ),
    ] = None,
    crop_style: Annotated[
        Literal["face", "ffhq", "arcface"],
        typer.Option(
            help="face: the box of the landmarks, widened, as the networks see it. ffhq: the square of FFHQ. arcface: "
            "eyes, nose and mouth where face recognition expects them. The last two keep the size of a head however it "
            "is turned.",
            rich_help_panel=_PICTURES,
        ),
    ] = "face",
    crop_size: Annotated[
        int | None,
        typer.Option(
            help="Side of the crops, pixels. Default: 256, of arcface 112.",
            show_default=False,
            rich_help_panel=_PICTURES,
        ),
    ] = None,
    mesh: Annotated[
        Path | None,
        typer.Option(
            help="Also save a dense surface of each face in this folder, as photo_0.obj, in photo pixels with y up: "
            "6,690 vertices of ICT-FaceKit (MIT licence), or the surface of a --face-model. Of a video as "
            "video_FRAME_TRACK.obj, for each frame 0.7 MB and more.",
            show_default=False,
            rich_help_panel=_DENSE,
        ),
    ] = None,
    mesh_format: Annotated[
        Literal["obj", "ply"], typer.Option(help="Kind of the files of --mesh.", rich_help_panel=_DENSE)
    ] = "obj",
    texture: Annotated[
        bool,
        typer.Option("--texture", help="The vertices of --mesh have the colours of the photo.", rich_help_panel=_DENSE),
    ] = False,
    blendshapes: Annotated[
        bool,
        typer.Option(
            "--blendshapes",
            help="Also columns with the weights of named expressions, 0 to 1, as ARKit calls them (jawOpen, "
            "mouthSmile_L); empty where 68 landmarks do not tell them.",
            rich_help_panel=_DENSE,
        ),
    ] = False,
    same_person: Annotated[
        bool,
        typer.Option(
            "--same-person",
            help="The largest face of each photo is one person: one identity for all, in meshes and columns.",
            rich_help_panel=_DENSE,
        ),
    ] = False,
    gallery: Annotated[
        Path | None,
        typer.Option(
            help="Also write a page to look at, .html: all faces as tiles, to sort and to filter; of a video those of "
            "each track once a second. One file, which works offline. Where dense faces are fitted, as for --mesh or "
            "--blendshapes, they can be turned there.",
            show_default=False,
            rich_help_panel=_PICTURES,
        ),
    ] = None,
    camera: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Follow what this camera sees, from 0, until Ctrl-C.",
            show_default=False,
            rich_help_panel=_INPUT,
        ),
    ] = None,
    smooth: Annotated[
        Literal["none", "file", "live"] | None,
        typer.Option(
            help="How landmarks of a video are kept from jittering. file: over a window around each frame, without "
            "lag. live: by the frames before. none: raw values. Default: file, of a camera live.",
            show_default=False,
            rich_help_panel=_METHOD,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="The network: fast, or fast-x2, which is more accurate and takes a quarter more time a photo, or a "
            "file of your own, .onnx or .safetensors. Default: fast.",
            autocompletion=networks,
            show_default=False,
            rich_help_panel=_METHOD,
        ),
    ] = None,
    weights: Annotated[Path | None, typer.Option(hidden=True)] = None,
    face_model: Annotated[
        Path | None,
        typer.Option(
            help="Face model that --model was trained with, for networks that regress its parameters (dhm, dhm-vgg, "
            f"rhg, 3dcnn); others do without. Default: {DEFAULT_FACE_MODEL.as_posix()}, where there is one. Named "
            "here, its surface is also the dense face of --mesh.",
            show_default=False,
            rich_help_panel=_METHOD,
        ),
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        typer.Option(
            help="auto: the GPU where an NVIDIA driver and torch with CUDA are installed, else the CPU.",
            rich_help_panel=_MACHINE,
        ),
    ] = "auto",
    min_confidence: Annotated[
        float,
        typer.Option(
            help="Leave out faces in which the network has less confidence, 0 to 1; doubtful is below 0.5.",
            rich_help_panel=_FACES,
        ),
    ] = 0.0,
    min_size: Annotated[
        float,
        typer.Option(help="Leave out faces whose box has a longer side below this, pixels.", rich_help_panel=_FACES),
    ] = 0.0,
    largest: Annotated[
        bool,
        typer.Option(
            "--largest",
            help="Keep only the largest face of a photo; a doubtful one if there is no other.",
            rich_help_panel=_FACES,
        ),
    ] = False,
    max_faces: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Keep only the first so many faces of a photo, in the order of the output. Filters are applied in the "
            "order in which they stand here.",
            show_default=False,
            rich_help_panel=_FACES,
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            help="Groups of columns of all outputs, a list such as score,box,landmarks; also known: confidence, pose, "
            "sigma, visible, parameters (of the dense face), blendshapes. Default: "
            "score, confidence, box, pose, landmarks.",
            autocompletion=completed("inference.columns", "COLUMN_GROUPS", commas=True),
            show_default=False,
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    min_score: Annotated[
        float, typer.Option(help="Least score of a detected face, 0 to 1.", rich_help_panel=_FACES)
    ] = 0.6,
    refine: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="More passes, over upright crops around the points found so far; where the network is not sure of "
            "them, a small network that knows any roll says which way is up. Default: 1, with --boxes 0.",
            show_default=False,
            rich_help_panel=_METHOD,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Photos processed at a time; default: one per core.",
            show_default=False,
            rich_help_panel=_MACHINE,
        ),
    ] = None,
    max_pixels: Annotated[
        int,
        typer.Option(min=1, help="Photos and videos that declare more pixels are not read.", rich_help_panel=_INPUT),
    ] = 120_000_000,
    angles: Annotated[
        Literal["yaw-pitch-roll", "300w-lp"],
        typer.Option(
            help="The head pose: yaw, pitch, roll as people see them (R = R_y R_x R_z), or pitch, yaw, roll of the "
            "300W-LP files (R = R_x R_y R_z), for benchmarks, in columns of other names.",
            rich_help_panel=_OUTPUT,
        ),
    ] = "yaw-pitch-roll",
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="auto|ADDRESS",
            help="Share the work out by Ray Data, to the cluster of this address; auto: the one that runs here, else "
            "the cores of this machine. --out is then a folder, which gets Parquet files as the work goes on.",
            show_default=False,
            rich_help_panel=_MACHINE,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace files that dhm did not write.", rich_help_panel=_OUTPUT)
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with a run that was interrupted; give it the same photos and options as that run.",
            rich_help_panel=_OUTPUT,
        ),
    ] = False,
) -> None:
    """Find the 68 landmarks of every face in photos, or in a video, and write them to files.

    Every output has one row per face: path, face (from 0), status, score of the detector, confidence, box, yaw, pitch,
    roll in degrees, then x_0 … x_67, y_0 … y_67 and z_0 … z_67, which formats with lists hold as 68 landmarks of x, y,
    z. A positive yaw turns the nose to the left of the photo, a positive pitch up; a positive roll tilts the head
    clockwise as seen. Coordinates are 0-based pixels (in .pts files 1-based) of the upright photo (EXIF orientation
    obeyed), y down, z toward the viewer. Confidence is the chance that this is a face and its landmarks are right (mean
    error below 6 % of the face); below 0.5 the status is doubtful. A photo without a face has one row of status
    no_face, one that cannot be read or worked on of unreadable.

    Of a video the rows are those of its frames, with the columns frame (from 0), time (seconds) and track: the same
    number for the same face in all frames. A damaged frame is unreadable and costs itself only.

    The exit code is 0 when every photo was processed, 1 when one is unreadable or its box in --boxes is bad_box.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # photos share the cores; numpy's threads would wait for each other
    from tqdm import tqdm

    from dhm_cli.alignment.dense import DenseOptions
    from dhm_cli.alignment.photos import align_files
    from dhm_cli.alignment.shard import Shard
    from dhm_cli.cli.align_ray import align_with_ray
    from dhm_cli.errors import InputError
    from dhm_cli.inference.columns import DEFAULT_COLUMNS
    from dhm_cli.inference.results import BAD_BOX, UNREADABLE
    from dhm_cli.runtime.outputs import is_stream
    from dhm_cli.writers.overlays import DEFAULT_PARTS

    if not paths and not lists and camera is None:
        raise InputError(
            "dhm align: no photos named", "name a folder, photos or a video: dhm align photos --gallery faces.html"
        )
    for option, given, needed, folder in (
        ("--draw", draw is not None, "--overlay", overlay),
        ("--crop-size", crop_size is not None, "--crops", crops),
        ("--crop-style", crop_style != "face", "--crops", crops),
        ("--texture", texture, "--mesh", mesh),
        ("--mesh-format", mesh_format != "obj", "--mesh", mesh),
    ):
        if given and folder is None:
            raise InputError(f"{option}: does nothing without {needed}", f"pass {needed} and a folder too")
    if gallery is not None and gallery.suffix.lower() != ".html":
        raise InputError(
            f"--gallery {gallery}: a page has a name that ends in .html", f"such as {gallery.with_suffix('.html')}"
        )
    if gallery is not None:
        out = [*out, str(gallery)]
    if weights is not None:
        raise InputError("--weights: a network is named by --model", f"pass --model {weights}")
    for option, place in (("--overlay", overlay), ("--crops", crops), ("--mesh", mesh)):
        if place is not None and ":/" in place.as_posix():
            raise InputError(f"{option} {place}: pictures go to this machine only", "name a folder")
    groups = DEFAULT_COLUMNS if columns is None else _names(columns)
    # What photos and videos have in common, wherever the work is done.
    settings: dict[str, Any] = {
        "device": device,
        "min_score": min_score,
        "model": model,
        "face_model": face_model or existing_face_model(),
        "most_pixels": max_pixels,
        "min_confidence": min_confidence,
        "min_size": min_size,
        "largest": largest,
        "max_faces": max_faces,
        "columns": [*groups, "blendshapes"] if blendshapes else groups,
        "angles": angles,
        "resume": resume,
    }
    # What is drawn and written by this machine.
    written: dict[str, Any] = {
        "draw": DEFAULT_PARTS if draw is None else _names(draw),
        "crop_dir": crops,
        "crop_size": crop_size,
        "crop_style": crop_style,
        "dense": DenseOptions(mesh, mesh_format, texture, same_person, face_model),
        "stream": stream,
        "force": force,
    }
    video = video_of(paths or [], camera, smooth)
    if video is not None:
        one_person = same_person or None  # a track always has one identity
        refuse_for_videos(
            lists=lists, boxes=boxes, refine=refine, threads=threads, shard=shard, ray=ray, same_person=one_person
        )
        align_a_video(video, out, overlay=overlay, smooth=smooth, **settings, **written)
        return
    settings |= {
        "lists": lists or (),
        "path_column": path_column,
        "image_column": image_column,
        "shard": None if shard is None else Shard.parse(shard),
        "threads": threads,
        "refine": refine,
    }
    if ray is not None:
        refused = {"boxes": boxes, "overlay": overlay, "crops": crops, "gallery": gallery, "mesh": mesh}
        align_with_ray(paths or (), out, ray, refused | {"format": stream, "force": force or None}, **settings)
        return
    # On a terminal only; elsewhere a moving bar is noise.
    with tqdm(unit=" photos", disable=None) as bar:
        try:
            report = align_files(
                paths or (), out, boxes_csv=boxes, overlay_dir=overlay, progress=counted_on(bar), **settings, **written
            )
        except KeyboardInterrupt as stop:
            raise interrupted(bar, out, "photos") from stop
    _print_report(report, out, boxes)
    if gallery is not None:
        say(f"next: open {gallery} in a browser", err=True)
    elif overlay is None and not any(is_stream(Path(name)) for name in out):
        say_same_with("--gallery faces.html", "makes a page to look at")
    if report.with_status(UNREADABLE) or report.with_status(BAD_BOX) or report.unsearched or report.broken_packs:
        raise typer.Exit(1)


def _names(listed: str) -> list[str]:
    return [name.strip() for name in listed.split(",")]


def _print_report(report: "AlignmentReport", out: list[str], boxes: Path | None) -> None:
    from dhm_cli.inference.results import BAD_BOX, NO_FACE, UNREADABLE
    from dhm_cli.io.images import HEIC_EXTENSIONS
    from dhm_cli.io.remote import is_url
    from dhm_cli.runtime.outputs import is_stream
    from dhm_cli.writers.face_page import is_page

    unreadable, without = report.with_status(UNREADABLE), report.with_status(NO_FACE)
    _warn("unreadable", [f"{result.path}: {result.reason}" for result in unreadable])
    if boxes is not None:
        bad = report.with_status(BAD_BOX)
        _warn(f"with a useless box in {boxes}", [f"{result.path}: {result.reason}" for result in bad])
        _warn(f"without a box in {boxes}", [result.path for result in without])
        _warn(f"of {boxes} without a photo", list(report.unused_boxes), "path")
    undrawn = [result for result in report.results if result.overlay_problem]
    _warn("without an overlay", [f"{result.path}: {result.overlay_problem}" for result in undrawn])
    uncropped = [result for result in report.results if result.crop_problem]
    _warn("without a crop of each face", [f"{result.path}: {result.crop_problem}" for result in uncropped])
    unmeshed = [result for result in report.results if result.mesh_problem]
    _warn("without a mesh of each face", [f"{result.path}: {result.mesh_problem}" for result in unmeshed])
    photos = len(report.results)
    rate = (photos - report.kept) / max(report.seconds, 1e-6)
    kept = f" ({report.kept} of them from the interrupted run)" if report.kept else ""
    doubtful = f" ({report.doubtful} doubtful)" if report.doubtful else ""
    _warn("not searched", list(report.unsearched), "folder")
    _warn("not read to the end", list(report.broken_packs), "file")
    if report.not_read:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(report.not_read.items()))
        heic = " and ".join(suffix for suffix in HEIC_EXTENSIONS if report.not_read.get(suffix))
        extra = f"; pip install 'dhm-cli[heic]' to read {heic}" if heic else ""
        say(f"not read: {kinds}{extra}", err=True)
    if report.left_out:
        counts = ", ".join(f"{count:,} by {option}" for option, count in report.left_out.items())
        rest = ", without those of the interrupted run" if report.kept else ""
        say(f"left out: {count(sum(report.left_out.values()), 'face')} ({counts}{rest})", err=True)
    for page in filter(is_page, out):
        if report.faces > _MOST_IN_A_PAGE:
            size = "" if is_url(page) else f"{Path(page).stat().st_size / 1e6:,.0f} MB, "
            say(
                f"warning: {page}: {size}{report.faces:,} faces, which a browser may fail to open; make "
                "pages of parts of the photos, or leave faces out, by --largest, --min-size or --min-confidence",
                err=True,
            )
    say(
        f"{', '.join(out)}: {count(photos, 'photo')}{kept}, {count(report.faces, 'face')}{doubtful}, "
        f"{len(without)} without a face, {len(unreadable)} unreadable; {rate:.1f} photos/s",
        err=any(is_stream(Path(name)) for name in out),
    )


def _warn(what: str, items: list[str], noun: str = "photo") -> None:
    if not items:
        return
    say(f"warning: {count(len(items), noun)} {what}:", err=True)
    for item in items[:_LISTED]:
        say(f"  {item}", "    ", err=True)
    if len(items) > _LISTED:
        say(f"  … and {len(items) - _LISTED} more, see the table", err=True)
