"""All that `dhm align` makes of the faces of a video, frame by frame: crops, meshes, and tiles of a gallery."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dhm_cli.inference.aligner import Face
from dhm_cli.writers.crops import CropFolder
from dhm_cli.writers.meshes import MeshFolder
from dhm_cli.writers.tiles import largest_side, with_tiles

# Seconds between two tiles of a track. All faces of all frames would be 5 kB each and more, 9 MB for a minute of one
# face, and nearly the same picture again and again.
TILE_EVERY = 1.0
_INSTANT = 1e-3


class FramePictures:
    """A crop and a mesh of each face in each frame, and of each track a tile once a second from its first frame.

    Args:
        video: its path, or its name.
        seconds: how long it is, about; 0 where that is not known.
        crop_dir: folder for the crops, `<video>_<frame>_<track>.jpg`; None for none.
        crop_size, crop_style: see `crops.crop`.
        meshes: folder for the meshes, named as the crops are; None for none.
        tiles: whether to make tiles.
        force: replace files that dhm did not write.

    Raises:
        InputError: an option or the folder cannot be used.
    """

    def __init__(
        self,
        video: Path,
        seconds: float,
        crop_dir: str | os.PathLike[str] | None,
        crop_size: int | None,
        crop_style: str,
        meshes: MeshFolder | None,
        tiles: bool,
        force: bool,
    ) -> None:
        self._video, self._meshes, self._tiles = video, meshes, tiles
        self._crops = CropFolder.wanted(crop_dir, [video], crop_size, crop_style, force)
        self._largest_tile = largest_side(round(seconds / TILE_EVERY) or 10**9)
        self._tiled: dict[int | None, float] = {}  # when each track had its last tile

    @property
    def options(self) -> list[Any]:
        """All that the pictures depend on."""
        return [self._tiles, None if self._crops is None else self._crops.sort]

    @property
    def are_made(self) -> bool:
        """Whether pictures are made, so that images of frames are needed."""
        return self._tiles or self._crops is not None or self._meshes is not None

    def make(self, frame: int, time: float, image: NDArray[np.uint8], faces: list[Face]) -> tuple[list[Face], str]:
        """Make the pictures of one frame.

        Args:
            frame: its number.
            time: of the frame, seconds.
            image: (H, W, 3) uint8 RGB.
            faces: its faces.

        Returns:
            The faces with their crops and tiles; why some have no crop or no mesh, '' where all is well.

        Raises:
            InputError: a file cannot be written, and the next ones cannot either.
        """
        uncropped = unmeshed = ""
        names = [f"{frame:06}_{face.track}" for face in faces]
        if self._crops is not None:
            faces, uncropped = self._crops.save_all(
                [self._crops.path(self._video, name) for name in names], image, faces
            )
        if self._meshes is not None:
            unmeshed = self._meshes.save_all([self._meshes.path(self._video, name) for name in names], image, faces)
        problem = uncropped or unmeshed
        return self._with_tiles(time, image, faces) if self._tiles else faces, problem

    def _with_tiles(self, time: float, image: NDArray[np.uint8], faces: Sequence[Face]) -> list[Face]:
        # What lies further back would be due at once as well.
        self._tiled = {track: last for track, last in self._tiled.items() if 0 <= time - last < TILE_EVERY - _INSTANT}
        due = [face for face in faces if face.track not in self._tiled]
        tiled = {face.track: face for face in with_tiles(image, due, self._largest_tile)}
        self._tiled |= dict.fromkeys(tiled, time)
        return [tiled.get(face.track, face) for face in faces]

    def state(self) -> dict[str, NDArray[Any]]:
        """All that the next frame depends on; `restore` takes it."""
        return {"tracks": np.array(list(self._tiled), np.int64), "times": np.array(list(self._tiled.values()))}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on where another was; see `state`."""
        self._tiled = dict(zip(state["tracks"].tolist(), state["times"].tolist(), strict=True))
