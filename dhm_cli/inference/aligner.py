"""`dhm align`: photos in, landmarks out, one photo at a time (`Aligner`) or a table of many (`align_files`)."""

import errno
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dhm_cli.drawing.faces import draw_landmarks
from dhm_cli.errors import InputError
from dhm_cli.geometry.crop import Square, landmark_crop_square
from dhm_cli.geometry.pose import estimate_pose
from dhm_cli.inference.boxes import Box, match_boxes, read_boxes
from dhm_cli.inference.detection import MIN_SCORE, FaceDetector, crop_square_from_box
from dhm_cli.inference.engines import landmarks_in_squares, load_engine
from dhm_cli.inference.landmark_csv import BAD_BOX, NO_FACE, OK, UNREADABLE, LandmarkTable, Row, empty_row, face_row
from dhm_cli.io.images import read_image
from dhm_cli.io.photo_search import find_photos
from dhm_cli.runtime.threads import available_cores, in_order

OVERLAY_QUALITY = 92
# More a JPEG cannot hold.
_OVERLAY_LONGEST_SIDE = 65_500
# A given box with a longer side, in units of the photo's longer side, cannot be meant.
_LARGEST_BOX = 10
_BOX_HINT = "boxes are left,top,width,height in 0-based pixels of the upright photo"


@dataclass(frozen=True, eq=False)
class Face:
    """A face in a photo; 0-based photo pixels, x right, y down.

    Attributes:
        landmarks: (68, 3) float64; z toward the viewer in the same unit, zero mean over the landmarks.
        box: left, top, width, height, as detected or as given.
        score: the detector's confidence, 0 to 1; NaN where the box was given.
        pose: pitch, yaw, roll in degrees, in the convention of the 300W-LP files.
    """

    landmarks: NDArray[np.float64]
    box: Box
    score: float
    pose: tuple[float, float, float]


class Aligner:
    """Find the 68 landmarks of every face in a photo. Safe to call from several threads.

    Args:
        device: "auto", "cpu" or "cuda"; see `load_engine`.
        threads: CPU threads of the network; None for one.
        min_score: least score of a detected face, 0 to 1.
        refine: how many more times to crop around the landmarks found so far and look again; None for once after
            detection, which makes up for a box that sits badly, and not at all in a given box.
        weights: a file written by dhm, or "fast" or "fast-x2", which come with the package; None for "fast".
        face_model: file of the face model, as `dhm prepare` wrote it; read for networks that regress its parameters
            and for no others.

    Raises:
        DhmError: the device, the weights, the face model or the detector's file cannot be used.
    """

    def __init__(
        self,
        device: str = "auto",
        threads: int | None = None,
        min_score: float = MIN_SCORE,
        refine: int | None = None,
        weights: str | os.PathLike[str] | None = None,
        face_model: str | os.PathLike[str] | None = None,
    ) -> None:
        if not 0.0 < min_score <= 1.0:
            raise InputError(
                f"--min-score: expected a score above 0 and up to 1, found {min_score}",
                hint=f"the default is {MIN_SCORE}; a lower one finds more faces and more false alarms",
            )
        if refine is not None and refine < 0:
            raise InputError(f"--refine: expected 0 or more passes, found {refine}", hint="1 is enough for most boxes")
        self.refine = refine
        self.engine = load_engine(device, weights, threads, face_model)
        self.detector = FaceDetector(min_score)

    def align(self, image: NDArray[np.uint8], boxes: Sequence[Sequence[float]] | None = None) -> list[Face]:
        """Find the landmarks of every face in a photo.

        Args:
            image: (H, W, 3) uint8 RGB.
            boxes: face boxes to use instead of detection, each (left, top, width, height) in photo pixels. A box is
                what the min/max box of the true landmarks would be: it is squared on its longer side and enlarged by
                sqrt(2).

        Returns:
            The faces, those of the given boxes in their order, else the largest first; empty when there is no face.

        Raises:
            InputError: wrong shape or type of the image; a box that is empty, lies outside the photo or dwarfs it.
        """
        image = _checked_image(image)
        if boxes is None:
            found = self.detector.detect(image)
            squares = [crop_square_from_box(face) for face in found]
            given = [((face.left, face.top, face.width, face.height), face.score) for face in found]
        else:
            checked = [_checked_box(box, image) for box in boxes]
            squares = [_square_from_given_box(box) for box in checked]
            given = [(box, float("nan")) for box in checked]
        if not squares:
            return []
        photos = [image] * len(squares)
        landmarks = landmarks_in_squares(self.engine, photos, squares)
        for _ in range((1 if boxes is None else 0) if self.refine is None else self.refine):
            landmarks = landmarks_in_squares(self.engine, photos, [landmark_crop_square(face) for face in landmarks])
        landmarks[..., 2] -= landmarks[..., 2].mean(axis=1, keepdims=True)
        angles = np.degrees(estimate_pose(landmarks, self.engine.mean_shape))
        return [
            Face(points, box, score, (float(pitch), float(yaw), float(roll)))
            for points, (box, score), (pitch, yaw, roll) in zip(landmarks, given, angles, strict=True)
        ]


def _keep_freed_memory() -> None:
    """Let glibc keep the memory of one photo for the next; fetching it anew costs 500 page faults, 1-2 ms a photo.

    Freeing one large block raises its thresholds for giving memory back (mallopt(3), M_TRIM_THRESHOLD) to 62 MiB.
    """
    np.empty(31 * 2**20, np.uint8)


def _checked_image(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        found = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(f"expected an image of type uint8, found {found}", hint="values are 0 to 255, RGB")
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise InputError(f"expected an image of shape (H, W, 3), found {image.shape}", hint="read_image gives RGB")
    return np.ascontiguousarray(image)


def _checked_box(box: Sequence[float], image: NDArray[np.uint8]) -> Box:
    if len(box) != 4 or not np.isfinite(box).all():
        raise InputError(f"expected a box (left, top, width, height), found {tuple(box)}", hint=_BOX_HINT)
    left, top, width, height = (float(value) for value in box)
    rows, columns = image.shape[:2]
    if width <= 0 or height <= 0:
        raise InputError(
            f"expected a box with a width and a height above 0, found {width:g} x {height:g}", hint=_BOX_HINT
        )
    if max(width, height) > _LARGEST_BOX * max(rows, columns):
        raise InputError(
            f"box of {width:g} x {height:g} is more than {_LARGEST_BOX} times its {columns} x {rows} pixel photo",
            hint=_BOX_HINT,
        )
    if left >= columns or top >= rows or left + width <= 0 or top + height <= 0:
        raise InputError(
            f"box left {left:g}, top {top:g}, {width:g} x {height:g} lies outside its {columns} x {rows} pixel photo",
            hint=_BOX_HINT,
        )
    return left, top, width, height


def _square_from_given_box(box: Box) -> Square:
    left, top, width, height = box
    return landmark_crop_square(np.array([[left, top], [left + width, top + height]]))


@dataclass(frozen=True)
class PhotoResult:
    """What became of one photo.

    Attributes:
        path: the photo, as in the table.
        status: `OK`, `NO_FACE`, `UNREADABLE` or, when any of its given boxes is useless, `BAD_BOX`.
        faces: number of faces in the table.
        reason: why it is unreadable, or what is wrong with its boxes.
        overlay_problem: why it has no overlay, where one was asked for and only that went wrong.
    """

    path: str
    status: str
    faces: int = 0
    reason: str = ""
    overlay_problem: str = ""


@dataclass(frozen=True)
class AlignmentReport:
    """What `align_files` did.

    Attributes:
        results: one per photo of the table.
        kept: how many of them were taken over from an interrupted run.
        unused_boxes: paths in the boxes file that name none of the photos.
        seconds: duration, loading not included.
    """

    results: tuple[PhotoResult, ...]
    kept: int
    unused_boxes: tuple[str, ...]
    seconds: float

    @property
    def faces(self) -> int:
        """Number of faces in the table."""
        return sum(result.faces for result in self.results)

    def with_status(self, status: str) -> list[PhotoResult]:
        """The photos of that status."""
        return [result for result in self.results if result.status == status]


def align_files(
    paths: Iterable[str | os.PathLike[str]],
    out_csv: str | os.PathLike[str],
    *,
    boxes_csv: str | os.PathLike[str] | None = None,
    overlay_dir: str | os.PathLike[str] | None = None,
    device: str = "auto",
    threads: int | None = None,
    min_score: float = MIN_SCORE,
    refine: int | None = None,
    weights: str | os.PathLike[str] | None = None,
    face_model: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> AlignmentReport:
    """Align the faces of many photos and write them to one CSV table (`dhm_cli.inference.landmark_csv`).

    Each photo is read, searched and aligned by one worker thread; a few photos are in the making at any time, so memory
    does not grow with their number. Rows follow the order of the photos whatever the workers' order. An exception,
    Ctrl-C included, leaves the finished rows in `<out>.partial`, where `resume` picks them up.

    Args:
        paths: photos and folders of photos; see `find_photos`.
        out_csv: the table; replaced at the very end.
        boxes_csv: boxes to use instead of detection; see `read_boxes`, `match_boxes` and `Aligner.align`.
        overlay_dir: where to save a copy of each photo with its landmarks, in the photos' folder structure.
        device: "auto", "cpu" or "cuda".
        threads: number of workers; None for one per CPU core at hand.
        min_score, refine, weights, face_model: see `Aligner`.
        resume: go on with an interrupted run that had the same arguments.
        progress: called as (photos done, photos in all) in the calling thread, first with the number kept.

    Returns:
        Counts, and the photos that need attention.

    Raises:
        DhmError: a path, file or option cannot be used, or a file cannot be written. A photo that cannot be read,
            aligned or drawn, or whose box is useless, does not raise.
    """
    _keep_freed_memory()
    photos = find_photos(paths).photos
    boxes: dict[Path, list[Box]] | None = None
    unused: list[str] = []
    if boxes_csv is not None:
        if os.path.realpath(boxes_csv) == os.path.realpath(out_csv):
            raise InputError(f"{out_csv}: is the boxes file too", hint="choose another --out")
        boxes, unused = match_boxes(photos, read_boxes(boxes_csv), Path(boxes_csv).parent)
    overlays = _overlay_paths(photos, Path(overlay_dir)) if overlay_dir is not None else {}
    aligner = Aligner(device, min_score=min_score, refine=refine, weights=weights, face_model=face_model)

    def process(photo: Path) -> tuple[PhotoResult, list[Row]]:
        its_boxes = None if boxes is None else boxes.get(photo, [])
        return _process(aligner, photo, its_boxes, overlays.get(photo))

    table = LandmarkTable(Path(out_csv), resume)
    kept = [photo for photo in photos if str(photo) in table.finished]
    results = [PhotoResult(p, table.finished[p], table.faces[p], "see the interrupted run") for p in map(str, kept)]
    to_do = [photo for photo in photos if str(photo) not in table.finished]
    start = time.perf_counter()
    with closing(table), closing(in_order(process, to_do, threads or available_cores())) as stream:
        if progress is not None:
            progress(len(results), len(photos))
        for result, rows in stream:
            table.write(rows)
            results.append(result)
            if progress is not None:
                progress(len(results), len(photos))
        table.finish()
    return AlignmentReport(tuple(results), len(kept), tuple(unused), time.perf_counter() - start)


def _process(
    aligner: Aligner, photo: Path, boxes: list[Box] | None, overlay: Path | None
) -> tuple[PhotoResult, list[Row]]:
    """One photo's result and its rows in the table."""
    path = str(photo)
    try:
        image = read_image(photo)
        boxes, problems = _usable_boxes(boxes, image)
        faces = aligner.align(image, boxes)
    except (InputError, cv2.error, MemoryError) as error:
        return PhotoResult(path, UNREADABLE, reason=_reason(error, path)), [empty_row(path, UNREADABLE)]
    overlay_problem = "" if overlay is None else _save_overlay(overlay, image, faces)
    rows = [face_row(path, k, face.score, face.box, face.pose, face.landmarks) for k, face in enumerate(faces)]
    rows += [empty_row(path, BAD_BOX) for _ in problems]
    status = BAD_BOX if problems else OK if faces else NO_FACE
    result = PhotoResult(path, status, len(faces), "; ".join(problems), overlay_problem)
    return result, rows or [empty_row(path, NO_FACE)]


def _reason(error: Exception, path: str) -> str:
    """Why one photo failed, on one line."""
    if isinstance(error, InputError):
        return error.message.removeprefix(f"{path}: ")
    return "not enough memory" if isinstance(error, MemoryError) else " ".join(str(error).split())


def _usable_boxes(boxes: list[Box] | None, image: NDArray[np.uint8]) -> tuple[list[Box] | None, list[str]]:
    """The boxes that can be aligned, and what is wrong with the others."""
    if boxes is None:
        return None, []
    usable: list[Box] = []
    problems: list[str] = []
    for box in boxes:
        try:
            usable.append(_checked_box(box, image))
        except InputError as error:
            problems.append(error.message)
    return usable, problems


def _overlay_paths(photos: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Where each photo's overlay goes: the photos' folder structure below the deepest folder that holds them all.

    Raises:
        InputError: a photo lies inside `folder`, so it might be taken for an overlay and an overlay for a photo in the
            next run; an overlay would overwrite a photo, by way of a link; the photos lie on several drives.
    """
    target = _real_folder(folder)
    parents = {parent: _real_folder(parent) for parent in {photo.parent for photo in photos}}
    places = {photo: os.path.abspath(photo) for photo in photos}
    for photo in photos:
        if parents[photo.parent].is_relative_to(target):
            raise InputError(
                f"{photo} lies in the folder for overlays, {folder}", hint="choose another folder for --overlay"
            )
    try:
        root = os.path.commonpath([os.path.dirname(place) for place in places.values()])
    except ValueError as error:
        raise InputError(
            "the photos lie on several drives, so their overlays cannot go to one folder",
            hint="align each drive's photos in a run of their own, or leave out --overlay",
        ) from error
    overlays = {photo: folder / _overlay_name(os.path.relpath(place, root)) for photo, place in places.items()}
    originals = {_identity(photo) for photo in photos} - {None}
    for photo, overlay in overlays.items():
        if _identity(overlay) in originals:
            raise InputError(
                f"the overlay of {photo} would overwrite a photo, because {overlay} is a link to one",
                hint="choose another folder for --overlay",
            )
    return overlays


def _real_folder(folder: Path) -> Path:
    """The folder without links and, where the system does not tell them apart, without capitals."""
    return Path(os.path.normcase(os.path.realpath(folder)))


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from all others, whatever its names; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _overlay_name(name: str) -> str:
    return name if name.lower().endswith((".jpg", ".jpeg")) else name + ".jpg"


def _save_overlay(path: Path, image: NDArray[np.uint8], faces: Sequence[Face]) -> str:
    """Draw and save the overlay of one photo; returns why that is impossible for this photo, else ''.

    Raises:
        InputError: the file cannot be written, so the next photo's will not fare better.
    """
    if max(image.shape[:2]) > _OVERLAY_LONGEST_SIDE:
        return f"a JPEG cannot hold {image.shape[1]} x {image.shape[0]} pixels"
    try:
        drawing = draw_landmarks(image, [face.landmarks for face in faces])
        bgr = cv2.cvtColor(drawing, cv2.COLOR_RGB2BGR)
        encoded, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, OVERLAY_QUALITY])
    except (cv2.error, MemoryError) as error:
        return _reason(error, str(path))
    if not encoded:
        return "it cannot be encoded as a JPEG"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.tobytes())
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return f"{path.name} is too long for a file name"
        raise InputError(
            f"{path}: cannot be written: {error.strerror or error}",
            hint="make room or choose another folder for --overlay, then go on with --resume",
        ) from error
    return ""
