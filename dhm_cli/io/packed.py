"""Photos packed into one file: tar shards as webdataset writes them, and Parquet tables with a column of image files.

Both are read from their start to their end, one photo at a time, so that memory does not grow with their size and a
store elsewhere streams them.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from dhm_cli.errors import DhmError, InputError
from dhm_cli.io.images import EXTENSIONS, HEIC_EXTENSIONS, most_bytes, read_bytes
from dhm_cli.io.parquet import read_parquet
from dhm_cli.io.photo import Photo
from dhm_cli.io.photo_lists import COLUMN
from dhm_cli.io.remote import is_url, open_file

IMAGE_COLUMN = "image"
PACKS = (".tar", ".parquet")
# Rows of photos held in memory at a time.
_ROWS = 32


@dataclass(frozen=True)
class PackedPhoto:
    """A photo in a pack.

    Attributes:
        path: the pack's name, a slash, and the photo's name in it.
        data: the image file; None where there is none.
    """

    path: str
    data: bytes | None

    def __str__(self) -> str:
        return self.path


def photo_of(name: str) -> Path | str:
    """A file of this machine as a path, an address as it is."""
    return name if is_url(name) else Path(name)


# Where a photo is: a file of this machine, an address (`remote.is_url`), or one out of a pack.
Place = Path | str | PackedPhoto


def is_pack(photo: Place) -> bool:
    """Whether a name is that of a pack."""
    return not isinstance(photo, PackedPhoto) and str(photo).lower().endswith(PACKS)


def read_photo(photo: Place, most_pixels: int) -> Photo:
    """Read a photo from wherever it is; it is decoded when its pixels are asked for.

    Raises:
        InputError: as `read_image`.
    """
    if not isinstance(photo, PackedPhoto):
        return Photo(read_bytes(photo, most_bytes(most_pixels)), photo, most_pixels)
    if photo.data is None:
        raise InputError(f"{photo}: no image file, or one of more than {most_bytes(most_pixels) / 1e6:,.0f} MB")
    return Photo(photo.data, photo.path, most_pixels)


def unpack(
    pack: Path | str, most_pixels: int, image_column: str = IMAGE_COLUMN, path_column: str = COLUMN
) -> Iterator[PackedPhoto]:
    """The photos of a pack, in their order.

    Of a tar those of its files are taken whose names end as photos do; in webdataset's layout a sample is the files
    whose names agree up to their first dot, so the name says which sample a photo is of. Images in a Parquet table are
    as `image_bytes` takes them.

    Args:
        pack: a .tar or a .parquet, of this machine or elsewhere.
        most_pixels: as for `read_image`; the file of a photo that must have more comes without its data.
        image_column: of the images in a Parquet table.
        path_column: of their names; where there is none, the number of the row from 0 is the name.

    Raises:
        InputError: the pack cannot be read, from some place on or at all, or lacks the column.
        DhmError: pyarrow or fsspec is needed and not installed.
    """
    name = str(pack)
    is_tar, most = name.lower().endswith(".tar"), most_bytes(most_pixels)
    try:
        with open_file(pack) as file:
            photos = _tar(file, most) if is_tar else _parquet(file, name, most, image_column, path_column)
            for photo, data in photos:
                yield PackedPhoto(f"{name}/{photo}", data)
    except DhmError:
        raise
    except Exception as error:  # tarfile, pyarrow and each kind of store have errors of their own
        hint = "copy it again; a compressed tar must be unpacked by gunzip first" if is_tar else "copy it again"
        raise InputError(f"{pack}: cannot be read on: {' '.join(str(error).split())}", hint) from error


def _tar(file: IO[bytes], most: int) -> Iterator[tuple[str, bytes | None]]:
    endings = EXTENSIONS + HEIC_EXTENSIONS
    with tarfile.open(fileobj=file, mode="r|") as tar:
        while (member := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # tarfile would keep them all
            name = member.name
            if member.isreg() and name.lower().endswith(endings) and not name.rpartition("/")[2].startswith("."):
                content = tar.extractfile(member) if member.size <= most else None
                yield name, None if content is None else content.read()


def _parquet(
    file: IO[bytes], name: str, most: int, image_column: str, path_column: str
) -> Iterator[tuple[str, bytes | None]]:
    for number, row in enumerate(read_parquet(name, (), (image_column, path_column), file, _ROWS)):
        if image_column not in row:
            hint = "name the column of the image files with --image-column; a table of paths is named with --from"
            raise InputError(f"{name}: has no column {image_column!r}", hint)
        data = image_bytes(row[image_column])
        yield str(row.get(path_column) or number), None if data is None or len(data) > most else data


def image_bytes(cell: Any) -> bytes | None:
    """The image file in a cell of a table: its content, or as in the data sets of Hugging Face a struct with it."""
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    return bytes(content) if isinstance(content, bytes | bytearray | memoryview) else None
