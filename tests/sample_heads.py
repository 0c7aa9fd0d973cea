"""Makes `sample_data/heads.jpg`: the heads of the sample photos on one, at several yaws and turned in the picture.

Run it with a path to write the file anew: python tests/sample_heads.py sample_data/heads.jpg
"""

import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from places import SAMPLE_DATA

from dhm_cli.io.images import encode_jpeg, read_image

SIDE, COLUMNS = 240, 4
# The photo, the middle of its face and its height in pixels, and how far it is turned, degrees counter-clockwise.
HEADS = (
    ("astronaut_turned_right_45.jpg", (300, 250), 175, 0),
    ("astronaut_turned_right_25.jpg", (280, 250), 175, 0),
    ("astronaut_turned_left_25.jpg", (235, 250), 175, 0),
    ("astronaut_turned_left_45.jpg", (210, 250), 175, 0),
    ("astronaut_turned_left_25.jpg", (235, 250), 175, 40),
    ("astronaut.png", (225, 130), 88, -60),
    ("astronaut_turned_right_25.jpg", (280, 250), 175, 180),
    ("astronaut_turned_right_45.jpg", (300, 250), 175, -30),
)
_FACE = 110


def heads() -> NDArray[np.uint8]:
    """The photo, uint8 RGB, tile beside tile."""
    tiles = []
    for name, middle, height, degrees in HEADS:
        matrix = cv2.getRotationMatrix2D(middle, degrees, _FACE / height)
        matrix[:, 2] += SIDE / 2 - np.array(middle)
        photo = read_image(SAMPLE_DATA / "photos" / name)
        tiles.append(cv2.warpAffine(photo, matrix, (SIDE, SIDE), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE))
    rows = [np.hstack(tiles[start : start + COLUMNS]) for start in range(0, len(tiles), COLUMNS)]
    return np.vstack(rows)


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(encode_jpeg(heads()))
