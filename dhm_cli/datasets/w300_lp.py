"""300W-LP and AFLW2000-3D on disk: images with MATLAB files beside them."""

import re
from pathlib import Path, PurePosixPath

from dhm_cli.datasets.folders import files_in, is_paired, labelled_images, pairs, subfolders
from dhm_cli.datasets.layout import Layout
from dhm_cli.datasets.mat_labels import has_3d_points, read_300w_lp, read_aflw2000
from dhm_cli.datasets.samples import Sample, Truth

# Zhu et al. 2016; the mirrored copies are as many. With them they are the 122,450 images of 300W-LP.
_FACES = {"AFW": 5_207, "HELEN": 37_676, "IBUG": 1_786, "LFPW": 16_556}


def _subset(folder_name: str) -> str:
    """`AFW`, `AFW_Flip` and so on for the name of a folder in any case; empty for any other name."""
    part, _, flip = folder_name.upper().partition("_")
    return "" if part not in _FACES or flip not in ("", "FLIP") else part + ("_Flip" if flip else "")


def _is_300w_lp(folder: Path) -> bool:
    inside = [path for path in subfolders(folder) if _subset(path.name)]
    if _subset(folder.resolve().name):
        inside.append(folder)
    # The original 300-W has folders of these names too, but no .mat files; AFLW2000-3D never lies in them.
    return any(is_paired(path, ".mat") for path in inside)


def _list_300w_lp(folder: Path) -> list[Sample]:
    top = folder.resolve().name
    samples = []
    for name, image, annotation in labelled_images(folder, ".mat"):
        subset = _subset(name.parent.name or top)
        if subset:  # the download has a folder of landmarks and one of programs besides
            face = re.sub(r"_\d+$", "", name.stem)
            identity = f"{subset.removesuffix('_Flip')}/{face}"
            samples.append(Sample(str(name), image, annotation, identity, subset))
    return samples


def _read_300w_lp(path: Path, sample: Sample) -> Truth:
    return read_300w_lp(path, mirrored=sample.subset.endswith("_Flip"))


def _is_flip(name: str) -> bool:
    return _subset(PurePosixPath(name).parent.name).endswith("_Flip")


def _is_aflw2000(folder: Path) -> bool:
    annotations = [annotation for _, annotation in pairs(files_in(folder), ".mat") if annotation]
    return any(has_3d_points(folder / name) for name in annotations[:5])  # several: one may be damaged


def _list_aflw2000(folder: Path) -> list[Sample]:
    images = labelled_images(folder, ".mat")
    # The download has a folder of programs besides.
    return [
        Sample(str(i.name), i.image, i.annotation, str(i.name), "AFLW2000-3D", "test")
        for i in images
        if "Code" not in i.name.parts
    ]


def _read_aflw2000(path: Path, sample: Sample) -> Truth:
    return read_aflw2000(path)


W300_LP = Layout(
    name="300w-lp",
    title="300W-LP",
    description="folders AFW, HELEN, IBUG, LFPW and AFW_Flip to LFPW_Flip, in them .jpg and .mat files of equal names",
    remedy="point to the folder that holds AFW, HELEN, IBUG and LFPW, or to one of these",
    recognise=_is_300w_lp,
    list_samples=_list_300w_lp,
    read_file=_read_300w_lp,
    store="300w-lp",
    has_parameters=True,
    published=_FACES | {f"{part}_Flip": count for part, count in _FACES.items()},
    flips=_is_flip,
)

AFLW2000_3D = Layout(
    name="aflw2000-3d",
    title="AFLW2000-3D",
    description="imageNNNNN.jpg and .mat files of equal names that hold pt3d_68",
    remedy="point to the folder that holds image00002.jpg and image00002.mat",
    recognise=_is_aflw2000,
    list_samples=_list_aflw2000,
    read_file=_read_aflw2000,
    store="aflw2000-3d",
    has_parameters=True,
    published={"AFLW2000-3D": 2_000},  # Zhu et al. 2016
)
