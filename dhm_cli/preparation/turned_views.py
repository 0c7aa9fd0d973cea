"""`dhm prepare --profile`: a store of views at larger yaw, made from the training faces of another store.

Part of view synthesis, which can be removed whole: see `view_synthesis`.
"""

import json
import shlex
import time
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np

from dhm_cli.data.store import FILE_VERSION, SPLITS, FaceLabels, FaceStore
from dhm_cli.dense.face import PACKAGED
from dhm_cli.drawing.faces import contact_sheet, face_tile, save_png, spread_over
from dhm_cli.errors import InputError
from dhm_cli.geometry.landmarks import bounding_box
from dhm_cli.io.images import encode_jpeg
from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.morphable.location import FACE_MODEL
from dhm_cli.morphable.readers.face_model_files import read_face_model
from dhm_cli.preparation.report import PrepareReport
from dhm_cli.preparation.shards import PartContent, Parts
from dhm_cli.preparation.view_synthesis import Profiler, View, name_generator, target_yaws, upright_yaw
from dhm_cli.runtime.hashing import short_hash
from dhm_cli.runtime.progress import Progress, silent
from dhm_cli.runtime.threads import available_cores
from dhm_cli.version import __version__

# Photos turned further than this give no views: too little of the face is seen.
STEEPEST_PHOTO = 60.0
_BATCH = 32


def profile_path(store: Path) -> Path:
    """Where the views of a store's faces go."""
    return store.with_name(f"{store.stem}-profile.h5")


def picture_of(profile: Path) -> Path:
    """Where the picture of a store of views goes."""
    return profile.with_name(f"{profile.stem}-views.png")


def load_surface(out: Path, source: Path | None) -> FaceModel:
    """The dense face model that gives the depth.

    Args:
        out: folder with the face_model.h5 of the parameters, whose mesh is used where no other model is given.
        source: a dense face model as its authors ship it; None for the mesh of the model in `out`, or where that has
            none, for the face of ICT-FaceKit that comes with dhm.

    Raises:
        InputError: the source has no mesh.
    """
    surface = read_face_model(source) if source else FaceModel.load(out / FACE_MODEL, mesh=True)
    if surface.mesh is None and source is None:
        with as_file(files("dhm_cli").joinpath(f"dense/{PACKAGED}")) as packaged:
            return replace(read_face_model(packaged), name=f"dhm/{PACKAGED}")
    if surface.mesh is None:
        raise InputError(
            f"{surface.name}: only the 68 landmarks are in this face model, no surface to turn",
            "name a dense one with --surface, for example the folder of ICT-FaceKit (MIT licence)",
        )
    return surface


def profile_store(
    path: Path,
    model: FaceModel,
    surface: FaceModel,
    count: int,
    progress: Progress = silent,
    workers: int | None = None,
) -> PrepareReport:
    """Make `<name>-profile.h5` beside a store: new views of its training faces, all for training.

    A run that was stopped goes on where it was. The views of a face depend on its name and labels only.

    Args:
        path: the store.
        model: the face model it was made with.
        surface: the dense face model.
        count: views per face.
        progress: called with a stage name, the number of faces done and the total.
        workers: threads; None for one a core.

    Raises:
        InputError: no face can be turned further.
    """
    start = time.perf_counter()
    maker = _Maker(FaceStore(path), model, surface, count)
    report = PrepareReport(path, profile_path(path), "profile", str(maker.store.attributes.get("dataset", path.stem)))
    if not len(maker.rows):
        raise InputError(
            f"{path}: no training face within {STEEPEST_PHOTO:g} degrees of yaw to make views of",
            "prepare a dataset with training faces, or leave out --profile",
        )
    parts = Parts(report.store, len(maker.rows), maker.key, maker.make)
    with parts.locked():
        converted = parts.convert(report.store.stem, progress, workers or available_cores())
        labels, _, thread_seconds = parts.read()
        report.describe(labels)
        report.pictures = [_draw_sample(labels, parts, report.store)]
        report.measure(time.perf_counter() - start, converted * count, thread_seconds)
        parts.write(report.store, labels, np.ones(len(labels), bool), maker.attributes())
        report.write(path.parent, {"name": model.name, "hash": model.hash()})
        parts.remove()
    return report


class _Maker:
    """Turns faces of a store; shared by the threads, changed by none."""

    def __init__(self, store: FaceStore, model: FaceModel, surface: FaceModel, count: int) -> None:
        self.store, self.model, self.surface, self.count = store, model, surface, count
        train = store.labels.in_split("train")
        self._yaw = upright_yaw(store.labels.parameters)
        self.rows = train[np.abs(self._yaw[train]) <= STEEPEST_PHOTO]
        self._profiler = Profiler(surface, model)
        self._contents = store.fingerprint()
        images = str(store.attributes.get("images_hash"))
        settings = [__version__, FILE_VERSION, self._contents, images, model.hash(), surface.hash(), count]
        self._settings = json.dumps(settings)

    def key(self, start: int, stop: int) -> str:
        """Hash of all that the views of faces [start, stop) depend on."""
        return short_hash(f"{self._settings} {start} {stop}".encode())

    def attributes(self) -> dict[str, str | int]:
        """What the store records: its source's, and how the views were made."""
        kept = ("source", "dataset", "face_model", "face_model_name", "command", "reannotated_origin")
        record = {name: self.store.attributes[name] for name in kept if name in self.store.attributes}
        record["command"] += f" --profile {self.count} --surface {shlex.quote(self.surface.name)}"
        made = {"tool": f"dhm {__version__}", "layout": "profile", "surface": self.surface.name, "views": self.count}
        return record | made | {"profiled": self.store.path.name, "profiled_contents": self._contents}

    def make(self, start: int, stop: int) -> PartContent:
        """The views of faces [start, stop)."""
        began = time.perf_counter()
        images: list[bytes] = []
        views: list[View] = []
        names: list[tuple[int, str]] = []
        for first in range(start, stop, _BATCH):
            rows = self.rows[first : min(first + _BATCH, stop)]
            labels = self.store.labels.take(rows)
            yaws = [
                target_yaws(float(yaw), self.count, name_generator(str(name)))
                for name, yaw in zip(labels.names, self._yaw[rows], strict=True)
            ]
            for row, name, made in zip(
                rows, labels.names, self._profiler.turn(self.store.images(rows), labels.parameters, yaws), strict=True
            ):
                for number, view in enumerate(made, start=1):
                    images.append(encode_jpeg(view.image))
                    views.append(view)
                    names.append((int(row), f"{name}#view{number}"))
        return PartContent(images, self._labels(views, names), [], (0.0, time.perf_counter() - began))

    def _labels(self, views: list[View], names: list[tuple[int, str]]) -> FaceLabels:
        rows = np.array([row for row, _ in names], dtype=np.int64)
        source = self.store.labels.take(rows)
        landmarks = np.array([view.landmarks for view in views], np.float32).reshape(-1, 68, 3)
        visibility = np.array([view.visibility for view in views], np.uint8).reshape(-1, 68)
        return FaceLabels(
            names=np.array([name for _, name in names], dtype=np.str_),
            source=source.names,
            identity=source.identity,
            split=np.full(len(views), SPLITS.index("train"), np.uint8),
            image_size=np.array([view.image.shape[:2] for view in views], np.int32).reshape(-1, 2),
            landmarks=landmarks,
            points=np.where(visibility[..., None] > 0, landmarks[..., :2], np.float32(np.nan)),
            visibility=visibility,
            parameters=np.array([view.parameters for view in views], np.float32).reshape(-1, 234),
            box=bounding_box(landmarks).astype(np.float32),
            yaw=np.array([view.yaw for view in views], np.float32),
            residual=source.residual,  # of the photo's fit: the turn itself is exact
            flagged=np.zeros(len(views), np.uint8),
        )


def _draw_sample(labels: FaceLabels, parts: Parts, store: Path) -> Path:
    """Contact sheet of views from the whole range of yaw."""
    chosen = spread_over(labels.yaw)
    tiles = [
        face_tile(image, labels.landmarks[row], f"{labels.yaw[row]:+.0f} {labels.names[row]}")
        for row, image in zip(chosen, parts.images(chosen), strict=True)
    ]
    picture = picture_of(store)
    save_png(picture, contact_sheet(tiles, columns=6))
    return picture
