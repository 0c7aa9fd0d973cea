"""Datasets of images with .pts files (ibug's, MERL-RAV), and images whose labels come from tables."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from dhm_cli.datasets.folders import is_paired, labelled_images, split_suffix, subfolders, walk
from dhm_cli.datasets.layout import Layout
from dhm_cli.datasets.samples import Sample, Truth
from dhm_cli.errors import InputError
from dhm_cli.io.pts import has_merl_signs, read_pts

_SPLITS = {"train": "train", "trainset": "train", "val": "val", "valset": "val", "test": "test", "testset": "test"}
_MERL_POSES = {"frontal", "left", "lefthalf", "right", "righthalf"}

# Of 10,241 files of MERL-RAV 97 % show their signs, of 4,232 others none, so this many cannot miss them.
_SIGN_SAMPLE = 200


def _is_merl_rav(folder: Path) -> bool:
    return _has_pts(folder) and (_has_merl_folders(folder) or _signs_are_merl(folder))


def _is_pts(folder: Path) -> bool:
    return _has_pts(folder) and not _is_merl_rav(folder)


def _has_pts(folder: Path) -> bool:
    """Whether images with .pts files lie in a folder, or in folders in it that are named as splits or as MERL-RAV's."""
    named = [path for path in subfolders(folder) if path.name.lower() in {*_SPLITS, *_MERL_POSES}]
    return any(is_paired(path, ".pts") for path in (folder, *named)) or _has_merl_folders(folder)


def _has_merl_folders(folder: Path) -> bool:
    """Whether a folder has most of MERL-RAV's five folders, with those of its splits inside."""
    poses = [path for path in subfolders(folder) if path.name.lower() in _MERL_POSES]
    splits = [{path.name.lower() for path in subfolders(pose)} & {"trainset", "testset"} for pose in poses]
    return len(poses) > 2 and all(splits)


def _signs_are_merl(folder: Path) -> bool:
    """Whether any of the .pts files below a folder, or of an even choice of them, has the signs of MERL-RAV."""
    walked = walk(folder, [])
    files = [parent / name for parent, names in walked for name in names if split_suffix(name)[1] == ".pts"]
    chosen = np.unique(np.linspace(0, len(files) - 1, min(len(files), _SIGN_SAMPLE)).round().astype(int))
    return any(_tells_merl(files[number]) for number in chosen)


def _tells_merl(path: Path) -> bool:
    try:
        return has_merl_signs(path)
    except InputError:  # reported when the face is read
        return False


def _list_samples(folder: Path, unread: list[str] | None) -> list[Sample]:
    samples = []
    for name, image, annotation in labelled_images(folder, ".pts", unread):
        parts = [part.lower() for part in name.parts[:-1]]
        splits = [part for part in parts if part in _SPLITS]
        poses = [part for part in parts if part in _MERL_POSES]
        subset = "/".join([*splits[-1:], *poses[-1:]]) if poses else "/".join(name.parts[:-1][:1])
        split = _SPLITS[splits[-1]] if splits else "auto"
        # Frames of a video that were saved as images: 001/000012.jpg.
        is_frame = name.stem.isdigit() and name.parent.name.isdigit()
        identity = str(name.parent if is_frame else name)
        samples.append(Sample(str(name), image, annotation, identity, subset, split))
    return samples


def _read(merl_signs: bool, path: Path, sample: Sample) -> Truth:
    return Truth(*read_pts(path, merl_signs))


SIGNED_PTS = Layout(
    name="signed-pts",
    title="images with signed .pts files",
    description="images with .pts files of equal names (MERL-RAV), negative coordinates for occluded and -1 -1 for "
    "hidden points; in folders frontal, left, lefthalf, right, righthalf with trainset and testset, or in any others",
    remedy="put the .pts file of every image beside it, or give --points or --prior; the labels of MERL-RAV come "
    "without photos, which are AFLW's",
    recognise=_is_merl_rav,
    list_samples=_list_samples,
    read_file=partial(_read, True),
    labels_required=False,
    silhouette_jaw=True,
)

PTS = Layout(
    name="pts",
    title="images with .pts files",
    description="images with .pts files of equal names (300-W and others of ibug), coordinates as they are",
    remedy="put the .pts file of every image beside it, or give --points or --prior",
    recognise=_is_pts,
    list_samples=_list_samples,
    read_file=partial(_read, False),
    labels_required=False,
    silhouette_jaw=True,
)

POINTS = Layout(
    name="points",
    title="images with a table of points",
    description="images without annotation files, whose labels come from --points or --prior",
    remedy="give the table with --points or --prior",
    recognise=lambda folder: False,  # any folder of photos would do, so only with a table (find_layout)
    list_samples=lambda folder, unread: [replace(s, annotation=None) for s in _list_samples(folder, unread)],
    read_file=partial(_read, True),
    labels_required=False,
    silhouette_jaw=True,
)
