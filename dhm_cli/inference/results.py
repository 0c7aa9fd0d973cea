"""What became of each photo of a run of `dhm align`."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dhm_cli.errors import DhmError

OK, NO_FACE, UNREADABLE, BAD_BOX = "ok", "no_face", "unreadable", "bad_box"
# Of a face in which the network has less than `passes.BELIEVED` confidence; its photo is ok.
DOUBTFUL = "doubtful"


# Of a photo of which every face is written; one for all, since runs keep what became of each photo.
NONE_LEFT_OUT: Mapping[str, int] = {}


@dataclass(frozen=True, slots=True)
class PhotoResult:
    """What became of one photo. A run keeps them all, so they are small.

    Attributes:
        path: the photo, as in the output.
        status: `OK`, `NO_FACE`, `UNREADABLE` or, when any of its given boxes is useless, `BAD_BOX`.
        faces: number of its faces in the output.
        problems: why it is unreadable, or what is wrong with each of its useless boxes.
        overlay_problem: why it has no overlay, where one was asked for and only that went wrong.
        doubtful: how many of its faces are doubtful.
        left_out: how many of its faces each filter left out, by its option.
        crop_problem: why some of its faces have no crop, where crops were asked for and only that went wrong.
        mesh_problem: why some of its faces have no mesh, where meshes were asked for and only that went wrong.
        frame: of a frame of a video, its number from 0.
        time: of a frame, seconds from the video's start.
    """

    path: str
    status: str
    faces: int = 0
    problems: tuple[str, ...] = ()
    overlay_problem: str = ""
    doubtful: int = 0
    left_out: Mapping[str, int] = field(default_factory=lambda: NONE_LEFT_OUT)
    crop_problem: str = ""
    mesh_problem: str = ""
    frame: int | None = None
    time: float | None = None

    @property
    def reason(self) -> str:
        """The problems in one line."""
        return "; ".join(self.problems)


@dataclass(frozen=True)
class AlignmentReport:
    """What a run did.

    Attributes:
        results: one per photo.
        kept: how many of them were taken over from an interrupted run.
        unused_boxes: paths in the boxes file that name none of the photos.
        seconds: duration, loading not included.
        unsearched: folders that could not be searched, each with the reason.
        not_read: files of kinds that are not read, by suffix.
        broken_packs: packs (`io.packed`) that could not be read to their end, each with the reason.
    """

    results: tuple[PhotoResult, ...]
    kept: int
    unused_boxes: tuple[str, ...]
    seconds: float
    unsearched: tuple[str, ...] = ()
    not_read: Mapping[str, int] = field(default_factory=dict)
    broken_packs: tuple[str, ...] = ()

    @property
    def faces(self) -> int:
        """Number of faces in the output."""
        return sum(result.faces for result in self.results)

    @property
    def doubtful(self) -> int:
        """Number of doubtful faces among them."""
        return sum(result.doubtful for result in self.results)

    @property
    def left_out(self) -> Mapping[str, int]:
        """How many faces each filter left out, by its option; without those of an interrupted run."""
        return sum((Counter(result.left_out) for result in self.results), Counter())

    def with_status(self, status: str) -> list[PhotoResult]:
        """The photos of that status."""
        return [result for result in self.results if result.status == status]


def partial_path(out: Path) -> Path:
    """Where the finished photos of a run lie until its output is whole, for the next run to go on with."""
    return out.with_name(out.name + ".partial")


def reason_of(error: Exception, path: str) -> str:
    """Why the work on one file failed, in one line.

    Args:
        error: a DhmError of this file, an error of OpenCV, or a MemoryError.
        path: the file, left out of the reason.
    """
    if isinstance(error, DhmError):
        return error.message.removeprefix(f"{path}: ")
    return "not enough memory" if isinstance(error, MemoryError) else " ".join(str(error).split())
