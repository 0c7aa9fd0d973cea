"""`dhm prepare --check` and `--show`: what is in a store, and whether it can be trusted."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from dhm_cli.data.store import SPLITS, FaceLabels, FaceStore
from dhm_cli.drawing.faces import TILE, contact_sheet, face_tile, save_png, spread_over
from dhm_cli.drawing.png_mark import is_our_png
from dhm_cli.errors import DhmError, FormatError, InputError
from dhm_cli.geometry.crop import crop_matrix, landmark_crop_square, transform_landmarks
from dhm_cli.io.hdf5 import open_hdf5
from dhm_cli.io.images import decode_image
from dhm_cli.io.pts import FARTHEST
from dhm_cli.metrics.landmark_error import YAW_BINS, in_yaw_bin
from dhm_cli.models.heatmaps import draw_heatmap
from dhm_cli.morphable.face_model import FILE_FORMAT, FaceModel
from dhm_cli.morphable.location import face_model_beside
from dhm_cli.preparation.checks import (
    PROJECTION_TOLERANCE,
    Finding,
    by_severity,
    check_identities,
    check_labels,
    check_projection,
)
from dhm_cli.runtime.outputs import check_output
from dhm_cli.runtime.progress import Progress, silent


@dataclass(frozen=True)
class Description:
    """What is in a file.

    Attributes:
        title: one line.
        rows: name and value, for a table.
        picture: contact sheet that was written, where there is one.
    """

    title: str
    rows: list[tuple[str, str]]
    picture: Path | None = None


def check_store(path: Path, progress: Progress = silent) -> tuple[FaceStore, list[Finding]]:
    """Validate a store: its form, every image, every label, and the projection of p by the face model beside it.

    Args:
        path: a store of `dhm prepare`.
        progress: called with a stage name, the number of images checked and the total.

    Returns:
        The store and what is wrong with it; notes are harmless.

    Raises:
        InputError, FormatError: it cannot be read as a store at all.
    """
    store = FaceStore(path)
    labels = store.labels
    if not len(labels):
        raise FormatError(f"{path}: no face in this store", "prepare it again")
    findings = check_labels(labels)
    findings += filter(None, [check_identities(labels)])
    if store.fingerprint() != store.attributes.get("contents"):
        findings.append(Finding("contents", "error", "the labels are not those that were written (hash differs)"))
    findings += _check_images(store, progress)
    findings += _check_projection(store, face_model_beside(path))
    return store, by_severity(findings)


def _check_images(store: FaceStore, progress: Progress) -> list[Finding]:
    """Images that cannot be decoded or have another size than recorded."""
    bad, digest = [], hashlib.sha256()
    rows = np.arange(len(store))
    for row, encoded in zip(rows, store.encoded_images(rows), strict=True):
        progress("checking", int(row) + 1, len(store))
        digest.update(encoded)
        try:
            shape = decode_image(encoded, store.labels.names[row], upright=False).shape[:2]
        except DhmError:
            shape = (0, 0)
        if tuple(store.labels.image_size[row]) != shape:
            bad.append(str(store.labels.names[row]))
    findings = []
    if bad:
        text = f"{len(bad):,} images are damaged or of another size than recorded"
        findings.append(Finding("images", "error", text, tuple(bad[:20])))
    if digest.hexdigest()[:16] != store.attributes.get("images_hash"):
        findings.append(Finding("images-hash", "error", "the images are not those that were written (hash differs)"))
    return findings


def _check_projection(store: FaceStore, path: Path) -> list[Finding]:
    wanted = str(store.attributes.get("face_model"))
    if not path.exists():
        return [Finding("face-model", "note", f"no {path.name} beside the store: the projection of p was not checked")]
    model = FaceModel.load(path)
    if model.hash() != wanted:
        text = f"{path.name} is {model.hash()}, the store was made with {wanted}: the projection of p was not checked"
        return [Finding("face-model", "warning", text)]
    projected = model.project(store.labels.parameters, store.labels.image_size[:, 0])
    finding = check_projection(store.labels, projected, PROJECTION_TOLERANCE)
    return [finding] if finding else []


def show(path: Path, force: bool = False) -> Description:
    """Describe a store, with a contact sheet `<name>.png` beside it, or a face model.

    Args:
        path: the file.
        force: replace a picture of the contact sheet's name that dhm did not draw.

    Raises:
        InputError: no such file, or the contact sheet would destroy another.
        FormatError: it is neither.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file", "give a store or a face model that dhm prepare wrote")
    try:
        with open_hdf5(path) as file:
            kind = file.attrs.get("format")
    except OSError as error:
        raise FormatError(f"{path}: not an HDF5 file ({error})", "give a file that dhm prepare wrote") from error
    return _show_model(path) if kind == FILE_FORMAT else _show_store(path, force)


def _show_model(path: Path) -> Description:
    FaceModel.load(path)
    rows = []
    with open_hdf5(path) as file:
        rows += [(name, _text(value)) for name, value in sorted(file.attrs.items())]
        file.visititems(
            lambda name, item: rows.append((name, _shape(item))) if isinstance(item, h5py.Dataset) else None
        )
    return Description(f"{path}: face model", rows)


def _show_store(path: Path, force: bool) -> Description:
    picture = path.with_suffix(".png")
    check_output(picture, "name of the store", "a picture that dhm drew", is_our_png, [path], force)
    store = FaceStore(path)
    labels = store.labels
    rows = [(name, _text(value)) for name, value in sorted(store.attributes.items())]
    rows += [(name, _shape(values)) for name, values in labels.arrays().items()]
    rows.append(("images", f"{int(store.sizes.sum()):,} bytes"))
    splits = {name: int((labels.split == i).sum()) for i, name in enumerate(SPLITS)}
    rows.append(("faces by split", ", ".join(f"{name} {count:,}" for name, count in splits.items() if count)))
    rows.append(("faces by |yaw|", ", ".join(f"{b} {in_yaw_bin(labels.yaw, b).sum():,}" for b in YAW_BINS)))
    rows.append(("identities", f"{len(set(labels.identity)):,}"))
    levels = np.percentile(labels.residual, (5, 50, 95, 100))
    rows.append(("residual, % of face size", "5th {:.2f}, median {:.2f}, 95th {:.2f}, worst {:.2f}".format(*levels)))
    rows.append(("flagged", f"{int(labels.flagged.sum()):,}"))
    save_png(picture, _sheet(store))
    return Description(f"{path}: {len(store):,} faces", rows, picture)


def _sheet(store: FaceStore) -> NDArray[np.uint8]:
    """Faces from all yaws with their landmarks and heat maps."""
    labels = store.labels
    near = (np.abs(labels.landmarks.astype(np.float64)) < FARTHEST).all(axis=(1, 2))
    drawable = np.flatnonzero(near & (labels.box[:, 2:] >= 1).all(1))
    if not len(drawable):
        raise FormatError(f"{store.path}: no face whose landmarks can be drawn", "prepare it again")
    chosen = drawable[spread_over(labels.yaw[drawable])]
    tiles = []
    for row, image, heatmap in zip(chosen, store.images(chosen), _heatmaps(labels.take(chosen)), strict=True):
        split = dict(enumerate(SPLITS)).get(int(labels.split[row]), "no split")  # --check says more of it
        caption = f"{labels.yaw[row]:+.0f} deg  {split}  {labels.names[row].rpartition('/')[2]}"
        tiles.append(face_tile(image, labels.landmarks[row], caption, heatmap=heatmap))
    return contact_sheet(tiles, columns=4)


def _heatmaps(labels: FaceLabels) -> NDArray[np.float32]:
    crops = [transform_landmarks(p, crop_matrix(*landmark_crop_square(p), TILE)) for p in labels.landmarks]
    return draw_heatmap(torch.from_numpy(np.stack(crops)).float(), TILE).numpy()


def _shape(item: "h5py.Dataset | NDArray[Any]") -> str:
    return f"{' x '.join(map(str, item.shape))} {'text' if item.dtype.kind in 'UO' else item.dtype}"


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, np.ndarray) else str(value)
