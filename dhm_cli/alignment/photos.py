"""Many photos to an output: `align_files`, the work of `dhm align`."""

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import cv2

from dhm_cli.alignment.dense import DenseFaces, DenseOptions
from dhm_cli.alignment.filters import Filters
from dhm_cli.alignment.given_boxes import match_boxes, read_boxes
from dhm_cli.alignment.shard import Shard
from dhm_cli.errors import DhmError, InputError
from dhm_cli.geometry.pose import Angles
from dhm_cli.inference.aligner import Aligner, Face, check_number, usable_boxes
from dhm_cli.inference.columns import DEFAULT_COLUMNS, Layout, with_angles, with_crops
from dhm_cli.inference.engines import OnnxEngine
from dhm_cli.inference.face_box import MIN_SCORE, Box
from dhm_cli.inference.results import BAD_BOX, NO_FACE, OK, UNREADABLE, AlignmentReport, PhotoResult, reason_of
from dhm_cli.io.images import MOST_PIXELS
from dhm_cli.io.packed import IMAGE_COLUMN, Place, is_pack, read_photo, unpack
from dhm_cli.io.photo import Photo
from dhm_cli.io.photo_lists import COLUMN
from dhm_cli.io.photo_search import find_photos, list_hint, video_hint
from dhm_cli.runtime.memory import keep_freed_memory
from dhm_cli.runtime.processes import Processes
from dhm_cli.runtime.threads import available_cores, in_order
from dhm_cli.writers.face_page import is_page
from dhm_cli.writers.overlays import DEFAULT_PARTS
from dhm_cli.writers.pictures import Pictures
from dhm_cli.writers.registry import Outputs

# So many photos are aligned in threads before processes start, which takes half a second of each core.
_FEW = 1000
_Done = tuple[PhotoResult, list[Face]]
# What is known of a photo that an earlier run has finished.
_KEPT = "see the interrupted run"


def align_files(
    paths: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    lists: Sequence[str | os.PathLike[str]] = (),
    path_column: str = COLUMN,
    image_column: str = IMAGE_COLUMN,
    shard: Shard | None = None,
    boxes_csv: str | os.PathLike[str] | None = None,
    overlay_dir: str | os.PathLike[str] | None = None,
    draw: Sequence[str] = DEFAULT_PARTS,
    crop_dir: str | os.PathLike[str] | None = None,
    crop_size: int | None = None,
    crop_style: str = "face",
    dense: DenseOptions = DenseOptions(),  # noqa: B008  it cannot be changed
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

    Each photo is read, searched and aligned by one worker: a thread, or of many photos a process, where nothing is made
    of them but rows and the network runs on the CPU. A few photos are in the making at any time, so memory does not
    grow with their number. The output follows the order of the photos whatever the workers' order. An
    exception, Ctrl-C included, leaves the finished photos in `<out>.partial`, where `resume` picks them up.

    Args:
        paths: photos, folders of photos and patterns; see `find_photos`.
        lists, path_column: files that name photos; see `find_photos`.
        image_column: of the image files in Parquet tables among `paths`; see `packed.unpack`.
        shard: align only the photos of this share; those in packs are shared out one by one too.
        out: the output, or several; replaced at the very end.
        boxes_csv: boxes to use instead of detection; see `read_boxes`, `match_boxes` and `Aligner.align`.
        overlay_dir: where to save a copy of each photo with its faces drawn, in the photos' folder structure.
        draw: what is drawn there; see `overlays.draw`.
        crop_dir: where to save a crop of each face, `<photo>_<face>.jpg` in the photos' folder structure.
        crop_size, crop_style: see `crops.crop`.
        dense: meshes, and what the surfaces of faces are fitted with for them, for columns and for overlays.
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
    keep_freed_memory()
    check_number("--threads", threads, int, least=1)
    filters = Filters(min_confidence, min_size, largest or dense.same_person, max_faces)
    layout = Layout(with_angles(with_crops(columns, crop_dir is not None), angles))
    found = find_photos(paths, lists, path_column)
    places = [photo if isinstance(photo, Path) else Path(photo) for photo in found.photos]  # no second copy of each
    packs = [photo for photo in found.photos if is_pack(photo)]
    if packs:
        refused = {"boxes": boxes_csv, "overlay": overlay_dir, "crops": crop_dir, "mesh": dense.mesh_dir}
        _refuse_for_packs(packs[0], refused | {"same-person": dense.same_person or None})
    boxes, unused = (None, []) if boxes_csv is None else _boxes_of(places, boxes_csv)
    outs = [out] if isinstance(out, str | os.PathLike) else out
    has_page = any(map(is_page, outs))
    pictures = Pictures(places, overlay_dir, draw, crop_dir, crop_size, crop_style, has_page, force)
    are_dense = dense.wanted(layout.names, None if overlay_dir is None else draw)
    surfaces = DenseFaces(dense, places, force) if are_dense else None
    aligner = Aligner(device, min_score=min_score, refine=refine, model=model, face_model=face_model)
    workers = threads or available_cores()
    known: dict[str, _Seen] = {}  # what a first look at all photos has found, without their pixels

    def look(photo: Place) -> _Seen:
        its_boxes = None if boxes is None else boxes.get(Path(str(photo)), [])
        return _look(aligner, photo, its_boxes, most_pixels, filters, known.pop(str(photo), None))

    def look_first(photo: Place) -> _Seen | None:
        seen = look(photo)
        return None if seen.image is None else seen._replace(image=None)

    def work(photo: Place) -> _Done:
        return _result(look(photo), photo, pictures, surfaces)

    is_table = boxes is None and pictures.are_none and surfaces is None and isinstance(aligner.engine, OnnxEngine)
    alone = partial(align_photo, aligner, most_pixels=most_pixels, filters=filters) if is_table else None
    files = (*lists, boxes_csv, model, face_model, dense.model)
    inputs = [*places, *(Path(file) for file in files if file is not None)]
    start = time.perf_counter()
    with closing(Outputs(outs, layout, resume, inputs, force, stream)) as writer:
        photos = [photo for photo in found.photos if is_pack(photo) or shard is None or shard.holds(photo)]
        names = set(map(str, photos)) if writer.finished else set()
        kept = [
            replace(result, problems=(_KEPT,))
            for (name, *_), result in writer.finished.items()
            if packs or name in names
        ]
        pictures.check_kept(kept)
        results, broken = list(kept), list[str]()
        to_do = (
            photo
            for photo in each_photo(photos, most_pixels, image_column, path_column, broken)
            if (str(photo),) not in writer.finished and (shard is None or shard.holds(photo))
        )
        total = 0 if packs else len(photos)
        if surfaces is not None and dense.same_person:  # a look at all photos before the first is written
            with closing(in_order(look_first, photos, workers)) as looked:
                known.update((str(photo), seen) for photo, seen in zip(photos, looked, strict=True) if seen)
            surfaces.know([face for seen in known.values() for face in seen.faces])
        with closing(_in_order(work, to_do, workers, alone)) as done:
            progress(len(results), total)
            for result, faces in done:
                writer.write(result, faces)
                results.append(result)
                progress(len(results), total)
            writer.finish()
    seconds = time.perf_counter() - start
    problems = tuple(found.problems)
    return AlignmentReport(tuple(results), len(kept), tuple(unused), seconds, problems, found.not_read, tuple(broken))


def _in_order(
    work: Callable[[Place], _Done], photos: Iterator[Place], workers: int, alone: Callable[[Place], _Done] | None
) -> Generator[_Done, None, None]:
    """The results of photos in their order: of the first in threads, of all others by `alone` in processes."""
    if workers == 1 or alone is None:
        yield from in_order(work, photos, workers)
        return
    yield from in_order(work, islice(photos, _FEW), workers)
    if begun := list(islice(photos, workers)):  # no more processes than photos are left
        with closing(Processes(alone, len(begun))) as processes:
            yield from in_order(processes, chain(begun, photos), len(begun))


def each_photo(
    photos: Iterable[Path | str], most_pixels: int, image_column: str, path_column: str, broken: list[str]
) -> Iterator[Place]:
    """Photos, and those in packs one by one.

    Args:
        photos: files, addresses and packs.
        most_pixels, image_column, path_column: see `packed.unpack`.
        broken: gets the packs that could not be read to their end, each with the reason.

    Raises:
        InputError: there was nothing but packs that could not be read.
    """
    empty, problem = True, None
    for photo in photos:
        if not is_pack(photo):
            empty = False
            yield photo
            continue
        try:
            for packed in unpack(photo, most_pixels, image_column, path_column):
                empty = False
                yield packed
        except InputError as error:
            problem = error
            broken.append(error.message)
    if empty and problem is not None:
        raise problem


def _refuse_for_packs(pack: Path | str, options: Mapping[str, object]) -> None:
    for name, value in options.items():
        if value is not None:
            raise InputError(f"{pack}: --{name} needs photos in files", "unpack them, or leave out that option")


def _boxes_of(photos: Sequence[Path], boxes_csv: str | os.PathLike[str]) -> tuple[dict[Path, list[Box]], list[str]]:
    """The given boxes by photo, and the paths of the boxes file that name none of the photos."""
    return match_boxes(photos, read_boxes(boxes_csv), Path(boxes_csv).parent)


class _Seen(NamedTuple):
    """A photo and its faces, or why it cannot be worked on."""

    image: Photo | None
    faces: list[Face]
    problems: list[str]
    left_out: Mapping[str, int]


def align_photo(aligner: Aligner, photo: Place, most_pixels: int, filters: Filters) -> _Done:
    """One photo's result and its faces; a bad photo does not raise."""
    return _result(_look(aligner, photo, None, most_pixels, filters), photo, None, None)


def _look(
    aligner: Aligner,
    photo: Place,
    boxes: list[Box] | None,
    most_pixels: int,
    filters: Filters,
    known: _Seen | None = None,
) -> _Seen:
    path = str(photo)
    place = Path(path)
    try:
        image = read_photo(photo, most_pixels)
        if known is not None:
            return known._replace(image=image)
        usable, problems = (None, []) if boxes is None else usable_boxes(boxes, image)
        faces, left_out = filters(aligner.align(image, usable))
        return _Seen(image, faces, problems, left_out)
    except (DhmError, cv2.error, MemoryError) as error:
        reason = "; ".join(filter(None, (reason_of(error, path), video_hint(place), list_hint(place))))
        return _Seen(None, [], [reason], {})


def _result(seen: _Seen, photo: Place, pictures: Pictures | None, surfaces: DenseFaces | None) -> _Done:
    """One photo's result and its faces; its pictures and meshes are saved."""
    path = str(photo)
    if seen.image is None:
        return PhotoResult(path, UNREADABLE, problems=tuple(seen.problems)), []
    faces, unmeshed, undrawn, uncropped = seen.faces, "", "", ""
    if surfaces is not None:
        faces = surfaces.fit(faces)
        unmeshed = surfaces.save(Path(path), seen.image, faces)
    if pictures is not None:
        faces, undrawn, uncropped = pictures.make(Path(path), seen.image, faces)
    status = BAD_BOX if seen.problems else OK if faces else NO_FACE
    doubtful = sum(face.doubtful for face in faces)
    problems = tuple(seen.problems)
    return PhotoResult(path, status, len(faces), problems, undrawn, doubtful, seen.left_out, uncropped, unmeshed), faces
