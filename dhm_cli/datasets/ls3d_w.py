"""LS3D-W and 300VW on disk: images with Torch7 files beside them, and videos with annotated frames."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from dhm_cli.datasets.folders import files_in, has_any_below, is_paired, pairs, readable, split_suffix, subfolders, walk
from dhm_cli.datasets.layout import Layout
from dhm_cli.datasets.samples import Sample, Truth
from dhm_cli.errors import InputError
from dhm_cli.io.images import EXTENSIONS
from dhm_cli.io.pts import read_pts
from dhm_cli.io.torch7 import read_t7
from dhm_cli.io.video import VIDEO_EXTENSIONS

_300VW_PARTS = {"cata", "catb", "catc", "trainset"}
_PARTS = {"300vw-3d", "300w-testset-3d", "menpo-3d", "aflw2000-3d-reannotated"} | _300VW_PARTS
_TEST_WORDS = {"test", "testset", "cata", "catb", "catc", "menpo"}
# Videos looked at when a folder of them is to be recognised.
_GLANCE = 20


def _is_ls3d_w(folder: Path) -> bool:
    inside = subfolders(folder)
    if is_paired(folder, ".t7") or _frame_files(folder, ".t7"):
        return True
    if inside and {path.name.lower() for path in inside} <= _PARTS:
        return has_any_below(folder, (".t7",))
    return any(is_paired(path, ".t7") or _frame_files(path, ".t7") for path in _video_folders(inside))


def _is_300vw(folder: Path) -> bool:
    candidates = [folder, *_video_folders(subfolders(folder))]
    return any(_frame_files(path, ".pts") for path in candidates)


def _video_folders(inside: list[Path]) -> list[Path]:
    """The first folders named by numbers, as 300VW names one for each video, if most are."""
    numbered = [path for path in inside if path.name.isdigit()]
    return numbered[:_GLANCE] if len(numbered) > len(inside) / 2 else []


def _list_samples(suffix: str, folder: Path, unread: list[str] | None) -> list[Sample]:
    top = folder.resolve().name
    samples: list[Sample] = []
    for parent, files in walk(folder, unread):
        below = PurePosixPath(readable(parent.relative_to(folder).as_posix()))
        split = _split([top, *below.parts])
        if suffix == ".t7":
            samples += _images(parent, below, files, split, top)
        subset = below.parts[0] if len(below.parts) > 1 else ""
        for video, number, path in _annotated_frames(parent, suffix):
            name = f"{below / readable(video)}#{number:06d}"
            samples.append(Sample(name, parent / video, path, str(below), subset, split, number - 1))
    return samples


def _images(parent: Path, below: PurePosixPath, files: list[str], split: str, top: str) -> Iterator[Sample]:
    """Samples of the images in one folder; none where it holds no .t7 file and so is no part of LS3D-W."""
    found = pairs(files, ".t7")
    if not any(annotation for _, annotation in found):
        return
    # In 300VW-3D the frames of a video lie as images in a folder of their own.
    is_video = any(name.lower() in _300VW_PARTS for name in [top, *below.parts][:-1])
    subset = below.parts[0] if below.parts else ""
    for image, annotation in found:
        name = str(below / readable(image))
        path = parent / annotation if annotation else None
        yield Sample(name, parent / image, path, str(below) if is_video else name, subset, split)


def _split(names: list[str]) -> str:
    """Split of a folder from its name and those above it; the innermost that says anything decides."""
    for name in reversed([name.lower() for name in names]):
        if "trainset" in name:
            return "train"
        if _TEST_WORDS & set(re.split(r"[^a-z]+", name)) or name.startswith(("aflw2000", "300vw-3d")):
            return "test"
    return "auto"


def _annotated_frames(folder: Path, suffix: str) -> list[tuple[str, int, Path]]:
    """The video in a folder, and number (from 1) and annotation file of each of its labelled frames, in order.

    Raises:
        InputError: there are several videos, or a frame number 0.
    """
    frames = _frame_files(folder, suffix)
    videos = _videos(folder) if frames else []
    if len(videos) > 1:
        raise InputError(f"{folder}: annotated frames and {len(videos)} videos", "leave the video they belong to")
    if 0 in frames:
        raise InputError(f"{frames[0]}: frame 0, but 300VW counts from 1", "rename the annotations")
    return [(videos[0], number, path) for number, path in sorted(frames.items())]


def _frame_files(folder: Path, suffix: str) -> dict[int, Path]:
    """Annotations of the frames of the video in a folder, by number; none where there is no video.

    They are named by the number and lie beside the video or in a folder `annot`. Where an image has the same name, the
    annotation is the image's.
    """
    frames: dict[int, Path] = {}
    for place in (folder / "annot", folder) if _videos(folder) else ():
        files = [(*split_suffix(name), name) for name in files_in(place)]
        images = {stem for stem, kind, _ in files if kind in EXTENSIONS}
        for stem, kind, name in files:
            if kind == suffix and re.fullmatch("[0-9]{1,9}", stem) and stem not in images:
                frames[int(stem)] = place / name
    return frames


def _videos(folder: Path) -> list[str]:
    return [name for name in files_in(folder) if split_suffix(name)[1] in VIDEO_EXTENSIONS]


def _read_t7(path: Path, sample: Sample) -> Truth:
    return Truth.all_visible(read_t7(path))


def _read_pts(path: Path, sample: Sample) -> Truth:
    return Truth(*read_pts(path, merl_signs=False))


LS3D_W = Layout(
    name="ls3d-w",
    title="LS3D-W",
    description="images with .t7 files of equal names (LS3D-W, Menpo-3D, 300W-3D, 300VW-3D, AFLW2000-3D-Reannotated), "
    "or folders with one video and its frames' annotations NNNNNN.t7",
    remedy="put the .t7 file of every image beside it, under the same name",
    recognise=_is_ls3d_w,
    list_samples=partial(_list_samples, ".t7"),
    read_file=_read_t7,
)

W300_VW = Layout(
    name="300vw",
    title="300VW",
    description="a folder for each video, in it vid.avi and its frames' annotations annot/NNNNNN.pts, numbered from 1",
    remedy="put each video into a folder of its own beside the folder annot of its .pts files",
    recognise=_is_300vw,
    list_samples=partial(_list_samples, ".pts"),
    read_file=_read_pts,
    silhouette_jaw=True,
)
