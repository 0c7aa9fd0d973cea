"""Which of the faces of a photo are written."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dhm_cli.errors import InputError
from dhm_cli.inference.aligner import Face, check_number
from dhm_cli.inference.results import NONE_LEFT_OUT


@dataclass(frozen=True)
class Filters:
    """Filters of faces, in the order in which they are applied.

    Attributes:
        min_confidence: faces in which the network has less are left out, 0 to 1; those of networks that tell none stay.
        min_size: faces whose box has a longer side below this are left out, photo pixels.
        largest: keep only the face with the largest box; a doubtful one only where there is no other.
        max_faces: keep only the first so many, in the order of the output; None for all.

    Raises:
        InputError: a value that is out of range.
    """

    min_confidence: float = 0.0
    min_size: float = 0.0
    largest: bool = False
    max_faces: int | None = None

    def __post_init__(self) -> None:
        check_number("--min-confidence", self.min_confidence, float)
        if not 0.0 <= self.min_confidence <= 1.0:
            raise InputError(f"--min-confidence: expected a number from 0 to 1, found {self.min_confidence}")
        check_number("--min-size", self.min_size, float)
        if not self.min_size >= 0:
            raise InputError(f"--min-size: expected 0 or more pixels, found {self.min_size}")
        check_number("--max-faces", self.max_faces, int, least=1)

    def __call__(self, faces: Sequence[Face]) -> tuple[list[Face], Mapping[str, int]]:
        """The faces of one photo that stay, in their order, and how many each filter left out, by its option."""
        left_out: Counter[str] = Counter()

        def keep(option: str, kept: list[Face]) -> list[Face]:
            left_out[option] += len(faces) - len(kept)
            return kept

        faces = keep("--min-confidence", [face for face in faces if not face.confidence < self.min_confidence])
        faces = keep("--min-size", [face for face in faces if not max(face.box[2:]) < self.min_size])
        if self.largest:
            best = sorted(faces, key=lambda face: (face.doubtful, -face.box[2] * face.box[3]))
            faces = keep("--largest", best[:1])
        faces = keep("--max-faces", list(faces[: self.max_faces]))
        return faces, +left_out or NONE_LEFT_OUT
