"""Which of the known datasets lies in a folder, and where there are any."""

from collections.abc import Iterator
from pathlib import Path

from dhm_cli.datasets.catalogue import layouts
from dhm_cli.datasets.folders import has_any_below, subfolders, survey
from dhm_cli.datasets.layout import Layout
from dhm_cli.datasets.pts_images import POINTS, PTS, SIGNED_PTS
from dhm_cli.errors import InputError
from dhm_cli.io.images import EXTENSIONS

# What distinguishes these two is a matter of interpretation: each can be read as the other.
_PTS_FAMILY = {PTS.name, SIGNED_PTS.name}

# Folders of programs, not of data.
_PROGRAMS = {"node_modules", "site-packages", "__pycache__"}


def find_layout(folder: Path, format: str = "auto", tables: bool = False) -> Layout:
    """Which of the known datasets a folder holds, at its top or in folders below.

    Args:
        folder: the dataset.
        format: the name of a layout, which is then only checked; or auto.
        tables: labels come from tables, so images alone are enough.

    Raises:
        InputError: no such folder, an unknown format, or a folder that holds no known dataset, several, or not the one
            that was named.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}", "check the path")
    by_name = {layout.name: layout for layout in layouts()}
    if format != "auto" and format not in by_name:
        raise InputError(f"unknown format {format!r}", f"known are auto, {', '.join(by_name)}")
    found = {layout.name for _, layout in discover(folder, set())}
    if len(found) > 1 and found != _PTS_FAMILY:
        raise InputError(
            f"{folder}: holds several datasets: {', '.join(sorted(found))}; seen: {survey(folder)}",
            "give their folders one by one",
        )
    if not found and (tables or format == POINTS.name) and has_any_below(folder, EXTENSIONS):
        found = {POINTS.name}
    if format in found or (found & _PTS_FAMILY and format in (*_PTS_FAMILY, POINTS.name)):
        return by_name[format]
    if found and format == "auto":
        # Of one dataset of MERL-RAV's kind some folders may have no occluded landmark, and look like plain ones.
        return by_name[SIGNED_PTS.name if SIGNED_PTS.name in found else found.pop()]
    raise InputError(_mismatch(folder, by_name.get(format)), _known())


def _mismatch(folder: Path, wanted: Layout | None) -> str:
    expected = f"not the layout {wanted.name}, that is {wanted.description}" if wanted else "no known dataset"
    return f"{folder}: {expected}; seen: {survey(folder)}"


def _known() -> str:
    return "known layouts:\n" + "\n".join(f"  {layout.name}: {layout.description}" for layout in layouts())


def discover(root: Path, skip: set[Path], depth: int = 4) -> list[tuple[Path, Layout]]:
    """Datasets in a folder and below.

    A dataset is not searched for others inside. Hidden folders, virtual environments and linked folders are not
    entered.

    Args:
        root: where to look.
        skip: resolved folders to leave out.
        depth: how many folders deep; 0 looks at the root only.

    Returns:
        Folders with their layouts, sorted.
    """
    return sorted(_discover(root, skip, depth), key=lambda found: found[0])


def _discover(folder: Path, skip: set[Path], depth: int) -> Iterator[tuple[Path, Layout]]:
    if folder.resolve() in skip or folder.name in _PROGRAMS or (folder / "pyvenv.cfg").exists():
        return
    layout = next((layout for layout in layouts() if layout.recognise(folder)), None)
    if layout is not None:
        yield folder, layout
    elif depth > 0:
        for inside in subfolders(folder):
            yield from _discover(inside, skip, depth - 1)
