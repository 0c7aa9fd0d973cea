"""Split a table of faces by their photos: python tests/photo_split.py faces.csv table.csv

Writes name and split, for `dhm prepare --table`. A photo, with all its faces, is for test where the SHA-256 of its name
says so, for 18 of 100, so that the split does not depend on what else is in the table.
"""

import csv
import hashlib
import sys
from pathlib import Path

HELD_OUT = 18


def split_of(photo: str) -> str:
    """Split of all faces of a photo."""
    return "test" if int(hashlib.sha256(photo.encode()).hexdigest(), 16) % 100 < HELD_OUT else "train"


if __name__ == "__main__":
    source, out = map(Path, sys.argv[1:])
    with source.open(newline="", encoding="utf-8") as file:
        rows = [(row["name"], split_of(row["photo"])) for row in csv.DictReader(file)]
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("name", "split"), *rows])
