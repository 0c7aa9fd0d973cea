"""Photos for tests: the sample photo, files of many kinds, a folder of photos, and the table of its faces."""

import csv
import struct
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from places import SAMPLE_DATA

ASTRONAUT = SAMPLE_DATA / "photos" / "astronaut.png"
# Where the eyes, the nose tip and the mouth of the astronaut are, 0-based pixels, read off the photo: for checks that
# allow for several pixels.
ASTRONAUT_FACE_CENTRE = (225.0, 128.0)

# How the sensor's image lies for each EXIF orientation, from the upright image.
STORED = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: image.transpose(1, 0, 2)[::-1],
    7: lambda image: image.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda image: image.transpose(1, 0, 2)[:, ::-1],
}


def encode(image: NDArray[np.integer], extension: str) -> bytes:
    """Encode RGB, RGBA or grey."""
    if image.ndim == 3:
        image = np.ascontiguousarray(image[..., [2, 1, 0, 3][: image.shape[2]]])
    done, data = cv2.imencode(extension, image)
    assert done
    return data.tobytes()


def exif_segment(orientation: int) -> bytes:
    tiff = b"MM\x00*\x00\x00\x00\x08" + struct.pack(">HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)
    return b"\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\x00\x00" + tiff


def write_album(folder: Path) -> Path:
    """Make a folder of five photos: two portraits, a double portrait, one without a face, one damaged."""
    (folder / "trip, 1").mkdir(parents=True)
    data = ASTRONAUT.read_bytes()
    (folder / "a.png").write_bytes(data)
    (folder / "trip, 1" / "Zoë und Söhne.PNG").write_bytes(data)
    portrait = cv2.imread(str(ASTRONAUT))
    cv2.imwrite(str(folder / "trip, 1" / "a.png"), np.hstack([portrait, portrait]))
    cv2.imwrite(str(folder / "b.jpg"), np.full((200, 300, 3), 128, np.uint8))
    (folder / "c.png").write_bytes(data[:-3000])
    return folder


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a table of `dhm align`."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file))
