"""Many photos to an output: `align_files`, the work of `dhm align`."""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from dhm_cli.alignment.filters import Filters
from dhm_cli.alignment.given_boxes import match_boxes, read_boxes
from dhm_cli.errors import DhmError
from dhm_cli.geometry.pose import Angles
from dhm_cli.inference.aligner import Aligner, Face, check_number, usable_boxes
from dhm_cli.inference.columns import DEFAULT_COLUMNS, Layout, with_angles, with_crops
from dhm_cli.inference.face_box import MIN_SCORE, Box
from dhm_cli.inference.results import BAD_BOX, NO_FACE, OK, UNREADABLE, AlignmentReport, PhotoResult, reason_of
from dhm_cli.io.images import MOST_PIXELS, read_image
from dhm_cli.io.photo_lists import COLUMN
from dhm_cli.io.photo_search import find_photos, list_hint, video_hint
from dhm_cli.runtime.threads import available_cores, in_order
from dhm_cli.writers.face_page import is_page
from dhm_cli.writers.overlays import DEFAULT_PARTS
from dhm_cli.writers.pictures import Pictures
from dhm_cli.writers.registry import Outputs

# What is known of a photo that an earlier run has finished.
_KEPT = "see the interrupted run"


def align_files(
    paths: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    lists: Sequence[str | os.PathLike[str]] = (),
    path_column: str = COLUMN,
    boxes_csv: str | os.PathLike[str] | None = None,
    overlay_dir: str | os.PathLike[str] | None = None,
    draw: Sequence[str] = DEFAULT_PARTS,
    crop_dir: str | os.PathLike[str] | None = None,
    crop_size: int | None = None,
    crop_style: str = "face",
    device: str = "auto",
    threads: int | None = None,
    min_score: float = MIN_SCORE,
    refine: int | None = None,
    model: str | os.PathLike[str] | None = None,
    face_model: str | os.PathLike[str] | None = None,
    most_pixels: int = MOST_PIXELS,
    min_confidence: float = 0.0,
    min_size: float = 0.0,
    largest: bool = False,
    max_faces: int | None = None,
    columns: Sequence[str] = DEFAULT_COLUMNS,
    angles: Angles = "yaw-pitch-roll",
    stream: str | None = None,
    resume: bool = False,
    force: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> AlignmentReport:
    """Align the faces of many photos and write them to outputs (`dhm_cli.writers.registry`).

    Each photo is read, searched and aligned by one worker thread; a few photos are in the making at any time, so memory
    does not grow with their number. The output follows the order of the photos whatever the workers' order. An
    exception, Ctrl-C included, leaves the finished photos in `<out>.partial`, where `resume` picks them up.

    Args:
        paths: photos, folders of photos and patterns; see `find_photos`.
        lists, path_column: files that name photos; see `find_photos`.
        out: the output, or several; replaced at the very end.
        boxes_csv: boxes to use instead of detection; see `read_boxes`, `match_boxes` and `Aligner.align`.
        overlay_dir: where to save a copy of each photo with its faces drawn, in the photos' folder structure.
        draw: what is drawn there; see `overlays.draw`.
        crop_dir: where to save a crop of each face, `<photo>_<face>.jpg` in the photos' folder structure.
        crop_size, crop_style: see `crops.crop`.
        device: "auto", "cpu" or "cuda".
        threads: number of workers; None for one per CPU core at hand.
        min_score, refine, model, face_model: see `Aligner`.
        most_pixels: photos that declare more are not read.
        min_confidence, min_size, largest, max_faces: see `Filters`. A photo whose faces are all left out has none.
        columns: groups of columns of the table, names of `columns.COLUMN_GROUPS`; those of `CROP_COLUMNS` need
            `crop_dir`, and follow the default ones where there is one.
        angles: of the group "pose", as people see them (`Face.pose`) or those of 300W-LP (`Face.pose_300w_lp`).
        stream: what an output that is a stream gets, "csv" or "jsonl"; None for what its name says, or CSV.
        resume: go on with an interrupted run that had the same arguments.
        force: replace files that dhm did not write.
        progress: called as (photos done, photos in all) in the calling thread, first with the number kept.

    Returns:
        Counts, and the photos that need attention.

    Raises:
        DhmError: a path, file or option cannot be used, or a file cannot be written. A photo that cannot be read,
            aligned or drawn, or whose box is useless, does not raise.
    """
    _keep_freed_memory()
    check_number("--threads", threads, int, least=1)
    filters = Filters(min_confidence, min_size, largest, max_faces)
    layout = Layout(with_angles(with_crops(columns, crop_dir is not None), angles))
    found = find_photos(paths, lists, path_column)
    photos = found.photos
    boxes, unused = (None, []) if boxes_csv is None else _boxes_of(photos, boxes_csv)
    outs = [out] if isinstance(out, str | os.PathLike) else out
    has_page = any(map(is_page, outs))
    pictures = Pictures(photos, overlay_dir, draw, crop_dir, crop_size, crop_style, has_page, force)
    aligner = Aligner(device, min_score=min_score, refine=refine, model=model, face_model=face_model)

    def work(photo: Path) -> tuple[PhotoResult, list[Face]]:
        its_boxes = None if boxes is None else boxes.get(photo, [])
        return _align_photo(aligner, photo, its_boxes, pictures, most_pixels, filters)

    inputs = [*photos, *(Path(file) for file in (*lists, boxes_csv, model, face_model) if file is not None)]
    start = time.perf_counter()
    with closing(Outputs(outs, layout, resume, inputs, force, stream)) as writer:
        kept = [replace(writer.finished[p,], problems=(_KEPT,)) for p in map(str, photos) if (p,) in writer.finished]
        pictures.check_kept(kept)
        to_do = [photo for photo in photos if (str(photo),) not in writer.finished]
        results = list(kept)
        with closing(in_order(work, to_do, threads or available_cores())) as done:
            progress(len(results), len(photos))
            for result, faces in done:
                writer.write(result, faces)
                results.append(result)
                progress(len(results), len(photos))
            writer.finish()
    return AlignmentReport(
        tuple(results), len(kept), tuple(unused), time.perf_counter() - start, tuple(found.problems), found.not_read
    )


def _boxes_of(photos: Sequence[Path], boxes_csv: str | os.PathLike[str]) -> tuple[dict[Path, list[Box]], list[str]]:
    """The given boxes by photo, and the paths of the boxes file that name none of the photos."""
    return match_boxes(photos, read_boxes(boxes_csv), Path(boxes_csv).parent)


def _align_photo(
    aligner: Aligner,
    photo: Path,
    boxes: list[Box] | None,
    pictures: Pictures,
    most_pixels: int,
    filters: Filters,
) -> tuple[PhotoResult, list[Face]]:
    """One photo's result and its faces; its pictures are saved."""
    path = str(photo)
    try:
        image = read_image(photo, most_pixels)
        usable, problems = (None, []) if boxes is None else usable_boxes(boxes, image)
        faces, left_out = filters(aligner.align(image, usable))
    except (DhmError, cv2.error, MemoryError) as error:
        reason = "; ".join(filter(None, (reason_of(error, path), video_hint(photo), list_hint(photo))))
        return PhotoResult(path, UNREADABLE, problems=(reason,)), []
    faces, undrawn, uncropped = pictures.make(photo, image, faces)
    status = BAD_BOX if problems else OK if faces else NO_FACE
    doubtful = sum(face.doubtful for face in faces)
    return PhotoResult(path, status, len(faces), tuple(problems), undrawn, doubtful, left_out, uncropped), faces


def _keep_freed_memory() -> None:
    """Have glibc keep the memory of one photo for the next; fetching it anew costs 500 page faults, 1-2 ms a photo.

    Freeing one large block raises glibc's thresholds for giving memory back (mallopt(3), M_TRIM_THRESHOLD) to 62 MiB.
    """
    np.empty(31 * 2**20, np.uint8)
