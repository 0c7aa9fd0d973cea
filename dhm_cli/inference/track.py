"""One face over the frames of a video: where it is, how it moves, and what it looks like."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from dhm_cli.geometry.crop import TurnedSquare, crop_matrix, extract_crop, upright_squares
from dhm_cli.geometry.landmarks import face_size

# Frames of a track that its motion is taken from, and how many of the last of them are left out when the face was lost:
# they may have slid toward what covers it.
HISTORY, _SLID = 12, 3
# Side of the picture by which faces are told apart, pixels, and the share of a new one in the memory.
_LOOK_SIDE, _LOOK_SHARE = 16, 0.1
# What of a face's last step is expected again.
_STEP_SHARE = 0.7


@dataclass
class Track:
    """A face over time; pixels of the upright frame.

    Attributes:
        number: its own, from 0.
        landmarks: (68, 3), where it was seen last.
        frame: number of that frame.
        path: (n, 4), its last frames without a gap, at most `HISTORY`: number, middle in x and y, size.
        look: what it looks like (`look_of`), a running mean.
    """

    number: int
    landmarks: NDArray[np.float64]
    frame: int
    path: NDArray[np.float64]
    look: NDArray[np.float64]

    STATE: ClassVar = ("number", "landmarks", "frame", "path", "look")

    @classmethod
    def begin(cls, number: int, frame: int, landmarks: NDArray[np.float64], look: NDArray[np.float64]) -> "Track":
        """A track of one frame."""
        return cls(number, landmarks, frame, _place(frame, landmarks)[None], look)

    @property
    def size(self) -> float:
        """Face size, pixels."""
        return float(self.path[-1, 3])

    def see(self, frame: int, landmarks: NDArray[np.float64]) -> None:
        """Take over where the face is in a frame."""
        before = self.path[1 - HISTORY :] if frame == self.frame + 1 else self.path[:0]
        self.landmarks, self.frame = landmarks, frame
        self.path = np.concatenate([before, [_place(frame, landmarks)]])

    def remember(self, look: NDArray[np.float64]) -> None:
        """Take a new look into the memory."""
        self.look = self.look + _LOOK_SHARE * (look - self.look)

    def forget_slide(self) -> None:
        """The face is lost: go back to before its landmarks began to slide toward what covers it."""
        if len(self.path) > 2 * _SLID:
            self.path = self.path[:-_SLID]

    def expected(self, frame: int) -> NDArray[np.float64]:
        """Where its middle should be in a frame by constant velocity, (2,)."""
        times, places = self.path[:, 0], self.path[:, 1:3]
        if frame == self.path[-1, 0] + 1:  # most of the last step again
            step = (places[-1] - places[-2]) * _STEP_SHARE if len(places) > 1 else np.zeros(2)
            return places[-1] + step
        spread = times - times.mean()
        speed = spread @ places / max(float(spread @ spread), 1e-9)
        return places[-1] + speed * (frame - times[-1])

    def expected_or_seen(self, frame: int) -> NDArray[np.float64]:
        """Where its middle is in a frame, or should be where it is not seen, (2,)."""
        return middle_of(self.landmarks) if self.frame == frame else self.expected(frame)

    def swap(self, other: "Track") -> None:
        """Change places with another track; each keeps its number and its look."""
        for name in ("landmarks", "frame", "path"):
            mine, theirs = getattr(self, name), getattr(other, name)
            setattr(self, name, theirs)
            setattr(other, name, mine)

    def state(self) -> dict[str, NDArray[Any]]:
        """Arrays that `restored` takes; of the same shapes for all tracks."""
        path = np.full((HISTORY, 4), np.nan)
        path[: len(self.path)] = self.path
        return {**{name: np.asarray(getattr(self, name)) for name in self.STATE}, "path": path}

    @classmethod
    def restored(cls, state: Mapping[str, NDArray[Any]]) -> "Track":
        """The track of a `state`."""
        path = state["path"][~np.isnan(state["path"][:, 0])]
        return cls(int(state["number"]), state["landmarks"], int(state["frame"]), path, state["look"])

    def square(self, frame: int, mean_shape: NDArray[np.float64]) -> TurnedSquare:
        """The upright square in which to look for it."""
        ((centre, side, roll),) = upright_squares(self.landmarks[None], mean_shape)
        return centre + self.expected(frame) - middle_of(self.landmarks), side, roll


def middle_of(landmarks: NDArray[np.floating]) -> NDArray[np.float64]:
    """Middle of landmarks (..., 68, 3) in the image, (..., 2)."""
    return np.asarray(landmarks[..., :2].mean(axis=-2), np.float64)


def _place(frame: int, landmarks: NDArray[np.float64]) -> NDArray[np.float64]:
    """A row of `Track.path`."""
    return np.array([frame, *middle_of(landmarks), face_size(landmarks)])


def look_of(
    image: NDArray[np.uint8], landmarks: NDArray[np.float64], mean_shape: NDArray[np.float64]
) -> NDArray[np.float64]:
    """What a face looks like: its upright square as a tiny picture, without its brightness and contrast.

    Args:
        image: (H, W, 3) uint8 RGB.
        landmarks: (68, 3), pixels.
        mean_shape: (68, 3), `Engine.mean_shape`.

    Returns:
        (768,), zero mean, length 1. The product of two is their likeness, up to 1.
    """
    ((centre, side, roll),) = upright_squares(landmarks[None], mean_shape)
    matrix = crop_matrix(centre, max(side, 1.0), 4 * _LOOK_SIDE, roll)
    crop = extract_crop(image, matrix, 4 * _LOOK_SIDE, cv2.BORDER_REPLICATE)
    small = cv2.resize(crop, (_LOOK_SIDE, _LOOK_SIDE), interpolation=cv2.INTER_AREA).astype(np.float64).ravel()
    small -= small.mean()
    return small / max(float(np.linalg.norm(small)), 1e-9)  # type: ignore[no-any-return]


def unlikeness(track: Track, look: NDArray[np.float64]) -> float:
    """How little a face looks like that of a track, 0 to 2."""
    return 1.0 - float(track.look @ look) / max(float(np.linalg.norm(track.look)), 1e-9)


def in_one_place(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Whether faces lie in one place: their middles within half of the smaller one's size.

    Args:
        a: (..., 68, 3).
        b: (..., 68, 3); leading dimensions broadcast.
    """
    apart = np.linalg.norm(middle_of(a) - middle_of(b), axis=-1)
    return np.asarray(apart < np.minimum(face_size(a), face_size(b)) / 2)
