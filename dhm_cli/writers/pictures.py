"""All pictures that `dhm align` makes of one photo while it is in memory: overlay, crops, tiles of a gallery."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from dhm_cli.inference.aligner import Face
from dhm_cli.inference.results import PhotoResult
from dhm_cli.io.packed import is_pack
from dhm_cli.io.photo import Pixels, copy_of
from dhm_cli.writers.crops import CropFolder
from dhm_cli.writers.jpeg_folder import JpegFolder
from dhm_cli.writers.overlays import check_parts, save_overlay
from dhm_cli.writers.tiles import SIDE, largest_side, with_tiles


class Pictures:
    """What pictures are made, and where they go. Safe to use from several threads.

    Args:
        photos: all photos.
        overlay_dir: folder for overlays, or None for none.
        parts: what is drawn in them (`overlays.draw`).
        crop_dir: folder for crops, or None for none.
        crop_size: see `crops.crop`.
        crop_style: see `crops.crop`.
        tiles: whether to make tiles.
        force: replace files that dhm did not write.

    Raises:
        InputError: an option or a folder cannot be used.
    """

    def __init__(
        self,
        photos: Sequence[Path],
        overlay_dir: str | os.PathLike[str] | None,
        parts: Sequence[str],
        crop_dir: str | os.PathLike[str] | None,
        crop_size: int | None,
        crop_style: str,
        tiles: bool,
        force: bool,
    ) -> None:
        self._parts, self._tiles = check_parts(parts), tiles
        self._crops = CropFolder.wanted(crop_dir, photos, crop_size, crop_style, force)
        self._overlays = (
            None if overlay_dir is None else JpegFolder(Path(overlay_dir), "overlay", "--overlay", photos, force=force)
        )
        self._largest_tile = SIDE if any(map(is_pack, photos)) else largest_side(len(photos))  # of packs nobody knows

    @property
    def are_none(self) -> bool:
        """Whether no pictures are made."""
        return self._overlays is None and self._crops is None and not self._tiles

    def check_kept(self, results: Iterable[PhotoResult]) -> None:
        """Refuse to go on with a run that made crops of another style or size.

        Args:
            results: what that run has finished.

        Raises:
            InputError: it did.
        """
        last = next((Path(result.path) for result in reversed(list(results)) if result.faces), None)
        if self._crops is not None and last is not None:
            self._crops.check_kept(self._crops.path(last, 0))

    def make(self, name: Path, photo: Pixels, faces: list[Face]) -> tuple[list[Face], str, str]:
        """Make the pictures of one photo.

        Args:
            name: one of the photos.
            photo: (H, W, 3) uint8 RGB, or a `Photo`; decoded whole where there is a picture to make.
            faces: its faces.

        Returns:
            The faces with their crops and tiles; why it has no overlay; why some faces have no crop. '' where all is
            well.

        Raises:
            InputError: a file cannot be written, and those of the next photos cannot either.
        """
        undrawn = uncropped = ""
        if self.are_none:
            return faces, "", ""
        image = copy_of(photo, 1).image
        if self._overlays is not None:
            undrawn = save_overlay(self._overlays, name, image, faces, self._parts)
        if self._crops is not None:
            paths = [self._crops.path(name, number) for number in range(len(faces))]
            faces, uncropped = self._crops.save_all(paths, image, faces)
        return with_tiles(image, faces, self._largest_tile) if self._tiles else faces, undrawn, uncropped
