"""The list of the datasets that `dhm prepare` knows. Importing it loads none of their readers."""

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dhm_cli.datasets.layout import Layout

# Name of a layout -> its module in this room and the `Layout` there. The first that recognises a folder is taken.
DATASETS = {
    "300w-lp": ("w300_lp", "W300_LP"),
    "aflw2000-3d": ("w300_lp", "AFLW2000_3D"),
    "ls3d-w": ("ls3d_w", "LS3D_W"),
    "300vw": ("ls3d_w", "W300_VW"),
    "signed-pts": ("pts_images", "SIGNED_PTS"),
    "pts": ("pts_images", "PTS"),
    "points": ("pts_images", "POINTS"),
}


@cache
def layouts() -> "tuple[Layout, ...]":
    """The layouts of `DATASETS`, in its order."""
    return tuple(getattr(import_module(f"dhm_cli.datasets.{file}"), name) for file, name in DATASETS.values())
