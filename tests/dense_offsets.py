"""Measure where the networks' landmarks lie beside those vertices of the dense face that ICT-FaceKit names for them.

    python tests/dense_offsets.py DATA/aflw_merl68 dhm_cli/dense/ict_face.npz

The networks follow the points of 300W-LP, which stand elsewhere on a face, at the jaw most of all; taken for
ICT-FaceKit's they would make every face an odd one. The offsets are the mean, over training faces that look about
neutral, of what is left when the mean face is laid onto the landmarks by pose and size, mirrored for symmetry. They are
stored in the file, from the nearest vertices where jaw and brows are concerned.
"""
# ruff: noqa: T201  a script that prints what it did

import csv
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dhm_cli.dense.face import packaged_face
from dhm_cli.geometry.landmarks import BROWS, JAW, MIRROR
from dhm_cli.inference.aligner import Aligner, Face
from dhm_cli.io.images import read_image
from dhm_cli.motion.pose_and_shape import split

MOST_FACES = 4000
FLIP_X, FLIP_Y = np.array([-1.0, 1, 1]), np.array([1.0, -1, 1])


def training_faces(folder: Path, model: str = "fast-x2", subset: str = "train") -> list[tuple[int, Face]]:
    """Rows of teacher68.npz and what the network sees there, in the box of the teacher's points."""
    with (folder / "faces.csv").open(encoding="utf-8") as file:
        wanted = {row["name"] for row in csv.DictReader(file) if row["split"] == subset}
    with np.load(folder / "teacher68.npz") as teacher:
        names, points = [str(name) for name in teacher["names"]], teacher["pts68_in_crop"].astype(np.float64)
    aligner, found = Aligner("cpu", model=model), []
    for row in [k for k, name in enumerate(names) if name in wanted][:MOST_FACES]:
        low, high = points[row].min(axis=0), points[row].max(axis=0)
        image = read_image(folder / "faces" / f"{names[row]}.jpg")
        found += [(row, face) for face in aligner.align(image, boxes=[(*low, *(high - low))])]
    return found


def neutral(faces: list[Face]) -> NDArray[np.bool_]:
    """Faces that look ahead with closed lips and a mouth that is not wide: few of them show an expression."""
    points = np.stack([face.landmarks for face in faces])

    def apart(a: int, b: int) -> NDArray[np.float64]:
        return np.linalg.norm(points[:, a] - points[:, b], axis=1)

    eyes = apart(36, 45)
    width, gap = apart(48, 54) / eyes, apart(62, 66) / eyes
    sure = np.array([face.confidence > 0.9 and abs(face.pose.yaw) < 40 for face in faces])
    return sure & (gap < 0.06) & (width < np.median(width[sure]))


def main(folder: Path, out: Path) -> None:
    """Measure, and add `offsets68` to the file."""
    with np.load(out) as file:
        stored = {name: file[name] for name in file.files if name not in ("keypoints68", "offsets68")}
    face, keypoints = packaged_face(), stored["landmarks68"].copy()
    faces = [found for _, found in training_faces(folder)]
    chosen = np.stack([found.landmarks for found, use in zip(faces, neutral(faces), strict=True) if use]) * FLIP_Y
    named = face.mean[keypoints].astype(np.float64)
    mean = named
    for _ in range(5):
        mean = split(chosen, mean).shape.mean(axis=0)
        mean = (mean + mean[MIRROR] * FLIP_X) / 2
    mean = split(mean[None], named).shape[0] + named.mean(axis=0)
    for k in range(JAW.start, BROWS.stop):  # elsewhere the nearest vertex may be on the other lip or lid
        keypoints[k] = np.linalg.norm(face.mean - mean[k], axis=1).argmin()
    offsets = mean - face.mean[keypoints]
    with out.open("wb") as target:
        np.savez_compressed(target, keypoints68=keypoints, offsets68=np.round(offsets, 2).astype(np.float32), **stored)
    print(f"{len(chosen)} of {len(faces)} faces; mean length of the offsets: ", end="")
    print(f"{np.linalg.norm(mean - named, axis=1).mean():.1f} mm, from the nearest vertices ", end="")
    print(
        f"{np.linalg.norm(offsets, axis=1).mean():.1f} mm, the longest {np.linalg.norm(offsets, axis=1).max():.1f} mm"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
