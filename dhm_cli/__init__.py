"""dhm: 68 three-dimensional facial landmarks from photos, large poses included.

The map of the house. A room for each stage, whole; stages never import each other, they meet through files:

    preparation   datasets and face models -> HDF5 stores (`dhm prepare`, `dhm relabel`)
    training      stores -> a network (`dhm train`)
    evaluation    a network, or any method's points -> a report (`dhm evaluate`)
    export        a checkpoint -> the file that `dhm align` runs (`dhm export`)
    alignment     photos and videos -> tables, pages and pictures of their faces (`dhm align`)
    benchmark     networks -> speed, size and memory (`dhm benchmark`)

Above the stages stands what shares their work out:

    distributed   batches of photos -> batches of faces, on many machines (`dhm align --ray`)

Below the stages stands what they share:

    writers       faces -> files: tables, pages, crops, overlays, drawn videos
    inference     an image -> its faces: detector, network, passes, tracks; no torch
    models        the networks, their list and their checkpoints
    data          what networks are trained on: store, batches, augmentation
    datasets      third-party datasets, one file a family
    morphable     the mathematics of 3D face models; `morphable.readers` for the files that users hold
    config        settings of networks and trainings, each declared once
    drawing       charts and pictures of faces
    dense         a dense face: its model, its fit to 68 landmarks, its named expressions; numpy only
    metrics       errors, their bootstrap, the headline numbers, published results
    motion        how faces move: pose and shape apart, smoothing over time
    geometry      landmarks, crops, pose, self-occlusion
    io            bytes <-> arrays: images, video, landmark files
    runtime       the machine: atomic files, threads, locks, memory, interruption, progress
    docs          the documentation, a page a topic (`dhm docs`)

`cli` stands above all: one file a command. `errors` and `version` stand below all.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from dhm_cli.errors import DhmError
from dhm_cli.version import __version__

# PyPI's builds of onnxruntime send usage data to their maker, unless this is set before their import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from dhm_cli.data.store import FaceStore
    from dhm_cli.inference.aligner import Aligner, Face
    from dhm_cli.inference.surfaces import with_surfaces
    from dhm_cli.io.images import read_image
    from dhm_cli.models.checkpoint import load_checkpoint
    from dhm_cli.writers.crops import crop
    from dhm_cli.writers.overlays import draw
    from dhm_cli.writers.pandas_table import faces_to_pandas

__all__ = [
    "Aligner",
    "DhmError",
    "Face",
    "FaceStore",
    "__version__",
    "crop",
    "draw",
    "faces_to_pandas",
    "load_checkpoint",
    "read_image",
    "with_surfaces",
]

_ROOMS = {
    "Aligner": "inference.aligner",
    "Face": "inference.aligner",
    "FaceStore": "data.store",
    "crop": "writers.crops",
    "draw": "writers.overlays",
    "faces_to_pandas": "writers.pandas_table",
    "load_checkpoint": "models.checkpoint",
    "read_image": "io.images",
    "with_surfaces": "inference.surfaces",
}


def __getattr__(name: str) -> Any:
    """Load a noun of the front door on first use, so that `import dhm_cli` stays instant."""
    if name in _ROOMS:
        return getattr(import_module(f"dhm_cli.{_ROOMS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
