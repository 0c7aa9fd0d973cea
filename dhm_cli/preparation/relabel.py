"""`dhm relabel`: stores with labels fitted again, with a trained network's landmarks beside the human points."""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dhm_cli.data.store import SPLITS, FaceLabels, FaceStore, write_store
from dhm_cli.drawing.faces import comparison_sheet, comparison_tile, save_png
from dhm_cli.errors import InputError
from dhm_cli.geometry.crop import landmark_crop_square
from dhm_cli.geometry.landmarks import GROUPS, MIRROR, NUM_LANDMARKS, face_size
from dhm_cli.inference.engines import Engine, landmarks_in_squares
from dhm_cli.io.point_tables import PointTable
from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.morphable.location import FACE_MODEL, face_model_beside
from dhm_cli.preparation.label_fusion import Relabelled, Sources, convention_of_prior, relabel
from dhm_cli.runtime.atomic import written_atomically
from dhm_cli.runtime.lock import claimed
from dhm_cli.runtime.progress import Progress, silent
from dhm_cli.runtime.unfinished import Unfinished
from dhm_cli.version import __version__

# Sides of the network's crops, times that of the test protocol; each crop is mirrored too.
_CROP_SCALES = (1.0, 1.1)
_BATCH = 64
_SHOWN = 24


@dataclass(frozen=True)
class RelabelJob:
    """One store.

    Attributes:
        store: where its labels and images are.
        prior: the prior's points; None for none.
        trust: in its human points.
    """

    store: Path
    prior: Path | None = None
    trust: float = 1.0


@dataclass(frozen=True)
class RelabelReport:
    """What became of one store.

    Attributes:
        store: the new file.
        faces: in it.
        left_out: training faces that are flagged.
        reasons: their number by what disagreed; a face may have several.
        bias: how far its human points lay to the right, percent of the face size.
        moved: mean and 95th percentile over the training faces of what landmarks moved, percent of the face size.
        agreement: by what is compared, the mean over the training faces, percent of the face size.
        picture: faces that moved most, old labels white, new ones orange.
    """

    store: Path
    faces: int
    left_out: int
    reasons: dict[str, int]
    bias: float
    moved: tuple[float, float]
    agreement: dict[str, float]
    picture: Path


def picture_of(store: Path) -> Path:
    """Where the picture of a new store goes."""
    return store.with_name(f"{store.stem}-moved.png")


def relabel_stores(
    jobs: Sequence[RelabelJob],
    model: Engine,
    out: Path,
    follow: Sequence[str] = (),
    follow_human: bool = True,
    progress: Progress = silent,
    model_name: str = "a network",
) -> list[RelabelReport]:
    """Write `<out>/<name>.h5` for every store, with new labels and the old images, and the face model beside them.

    The first store's human points and its prior decide what convention all labels get. What the network said is kept
    until the end, so a run that was stopped goes on where it was.

    Args:
        jobs: the stores; all of one face model.
        model: the network.
        out: folder of the new stores, not that of the old ones.
        follow: parts of the face (`landmarks.GROUPS`) in which labels follow the first prior's convention instead of
            the first store's human points.
        follow_human: labels are the fit and what the human points deviate from it, not the fit alone.
        progress: called with a stage, the faces done and the total. Each store has three, `<name>: network`, which all
            stores go through first, `<name>: fit` and `<name>: writing`.
        model_name: what the network is called, for the record.

    Raises:
        InputError: a store or prior is unusable, or would be overwritten, or another process writes there.
        FormatError: a store is damaged.
    """
    stores = [FaceStore(job.store) for job in jobs]
    for store in stores:
        store.check_labels(np.arange(len(store)))
    face_model = face_model_beside(stores[0].path)
    basis = _face_model(face_model, stores)
    _check(jobs, out, follow)
    priors = [_prior_points(job.prior, store.labels) for job, store in zip(jobs, stores, strict=True)]
    with claimed(out / ".relabel.lock", f"{out}: another dhm relabel writes there", "wait, or choose another --out"):
        followed = np.zeros(NUM_LANDMARKS, bool)
        for part in follow:
            followed[GROUPS[part]] = True
        kept = [out / f".{store.path.stem}-network.npz" for store in stores]
        record = {
            "network": model.weights_hash,
            "name": model_name,
            "date": datetime.now(timezone.utc).date().isoformat(),
            "follow": sorted(follow),
            "follow_human": follow_human,
        }
        sources = [
            Sources(prior, *_ask_network(model, store, file, _of_store(store, progress)))
            for store, prior, file in zip(stores, priors, kept, strict=True)
        ]
        wanted = convention_of_prior(stores[0].labels, sources[0], followed)
        # With its surface, which `basis` may leave out. Not `shutil.copyfile`, whose errors name the source.
        with (
            written_atomically(out / FACE_MODEL) as partial,
            face_model.open("rb") as source,
            partial.open("wb") as target,
        ):
            shutil.copyfileobj(source, target)
        reports = []
        deviations = None  # those of the first store's human points
        for number, (job, store, said) in enumerate(zip(jobs, stores, sources, strict=True)):
            everything = np.ones(NUM_LANDMARKS, bool)
            of_store = _of_store(store, progress)
            moved = everything if number else followed
            result = relabel(
                basis, store.labels, said, wanted, moved, job.trust, follow_human, deviations, progress=of_store
            )
            deviations = deviations or result.deviations
            reports.append(_write(out / store.path.name, store, result, {**record, "trust": job.trust}, of_store))
        for file in kept:
            file.unlink(missing_ok=True)
        return reports


def _of_store(store: FaceStore, progress: Progress) -> Progress:
    """The progress of one store: its name goes before that of the stage."""
    return lambda stage, done, total: progress(f"{store.path.stem}: {stage}", done, total)


def _face_model(path: Path, stores: Sequence[FaceStore]) -> FaceModel:
    """The face model of a file, if all stores were prepared with it."""
    model = FaceModel.load(path)
    hint = f"put the {FACE_MODEL} that dhm prepare wrote beside the first store"
    for store in stores:
        model.require(str(store.attributes.get("face_model")), path, f"{store.path}: prepared", hint)
    return model


def _check(jobs: Sequence[RelabelJob], out: Path, follow: Sequence[str]) -> None:
    names = [job.store.stem for job in jobs]  # pictures have them too
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{name}: two stores of this name", "give each store once, and stores different names")
    for job in jobs:
        if (out / job.store.name).resolve() == job.store.resolve():
            raise InputError(f"{job.store}: would be overwritten", "choose another --out")
    unknown = set(follow) - set(GROUPS)
    if unknown:
        raise InputError(f"--follow-prior {unknown.pop()}: no part of the face", f"known are: {', '.join(GROUPS)}")
    if follow and jobs[0].prior is None:
        raise InputError("--follow-prior needs a prior of the first store", "write STORE.h5=POINTS.npz")


def _prior_points(file: Path | None, labels: FaceLabels) -> NDArray[np.float64]:
    """The prior's points of all faces, (N, 68, 2), image pixels."""
    points = np.full((len(labels), NUM_LANDMARKS, 2), np.nan)
    if file is None:
        return points
    table = PointTable(file)
    for row, (name, (height, width)) in enumerate(zip(labels.names, labels.image_size, strict=True)):
        points[row] = table.get(str(name), int(width), int(height))[:, :2]
    if np.isnan(points).all():
        raise InputError(f"{table.path}: lists none of the images, such as {labels.names[0]}", "check the file")
    return points


def _ask_network(
    engine: Engine, store: FaceStore, file: Path, progress: Progress
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The network's mean landmarks (N, 68, 2), image pixels, and the spread of its answers (N,), percent."""
    labels, count = store.labels, len(store)
    key = {"store": store.fingerprint(), "network": engine.weights_hash}
    answers = np.full((2 * len(_CROP_SCALES), count, NUM_LANDMARKS, 3), np.nan, np.float32)
    unfinished = Unfinished(file, key)
    done = unfinished.load(answers)
    try:
        for start in range(0, count, _BATCH):
            rows = np.arange(start, min(start + _BATCH, count))
            progress("network", start, count)
            if done[rows].all():
                continue
            images = store.images(rows)
            squares = [landmark_crop_square(points.astype(np.float64)) for points in labels.landmarks[rows]]
            for number, scale in enumerate(_CROP_SCALES):
                larger = [(centre, side * scale) for centre, side in squares]
                answers[2 * number, rows] = landmarks_in_squares(engine, images, larger)
                answers[2 * number + 1, rows] = _in_mirror(engine, images, larger)
            done[rows] = True
            unfinished.save_at_times(answers, done)
        progress("network", count, count)
    finally:
        unfinished.save(answers, done)
    flat = answers[..., :2].astype(np.float64)
    mean = flat.mean(0)
    return mean, 100 * np.linalg.norm(flat - mean, axis=-1).mean((0, 2)) / face_size(labels.landmarks)


def _in_mirror(
    engine: Engine, images: Sequence[NDArray[np.uint8]], squares: Sequence[tuple[NDArray[np.float64], float]]
) -> NDArray[np.float64]:
    """Landmarks as the network sees them in mirror images, (B, 68, 3), pixels and order of the images themselves."""
    last = np.array([image.shape[1] - 1.0 for image in images])
    flipped = [np.ascontiguousarray(image[:, ::-1]) for image in images]
    there = [(np.array([x - centre[0], centre[1]]), side) for x, (centre, side) in zip(last, squares, strict=True)]
    landmarks = landmarks_in_squares(engine, flipped, there)[:, MIRROR]
    landmarks[..., 0] = last[:, None] - landmarks[..., 0]
    return landmarks


def _write(
    path: Path, store: FaceStore, result: Relabelled, record: dict[str, object], progress: Progress
) -> RelabelReport:
    labels, train = result.labels, result.labels.split == SPLITS.index("train")
    counted = train if train.any() else np.ones_like(train)
    moved = result.moved[counted]
    made_by_writing = ("format", "version", "splits", "pixels", "crop", "parameters", "contents", "images_hash")
    attributes = {k: v for k, v in store.attributes.items() if k not in made_by_writing}
    record = {**record, "from": store.fingerprint(), "store": store.path.name}
    attributes |= {"tool": f"dhm {__version__}", "relabelled": json.dumps(record)}
    write_store(path, _old_images(store, progress), store.sizes, labels, attributes)
    picture = picture_of(path)
    save_png(picture, _moved_most(store, result))
    return RelabelReport(
        store=path,
        faces=len(labels),
        left_out=int(labels.flagged[train].sum()),
        reasons=result.reasons,
        bias=result.bias,
        moved=(float(moved.mean()), float(np.percentile(moved, 95))),
        agreement={name: float(values[counted].mean()) for name, values in result.disagreement.items()},
        picture=picture,
    )


def _old_images(store: FaceStore, progress: Progress) -> Iterator[bytes]:
    for number, encoded in enumerate(store.encoded_images(np.arange(len(store)))):
        progress("writing", number, len(store))
        yield encoded
    progress("writing", len(store), len(store))


def _moved_most(store: FaceStore, result: Relabelled) -> NDArray[np.uint8]:
    """Contact sheet of the faces in training whose labels moved most."""
    old, new = store.labels, result.labels
    training = (new.flagged == 0) & (new.split == SPLITS.index("train"))
    rows = np.sort(np.argsort(np.where(training, -result.moved, 0.0), kind="stable")[:_SHOWN])
    tiles = []
    for row, image in zip(rows, store.images(rows), strict=True):
        caption = f"{result.moved[row]:.1f}% {old.names[row].rpartition('/')[2]}"
        tiles.append(comparison_tile(image, old.landmarks[row], new.landmarks[row], caption))
    return comparison_sheet(tiles, 6, "old labels", "new labels")
