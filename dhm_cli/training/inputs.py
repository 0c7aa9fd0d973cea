"""What a training starts from: stores, their faces, their mean shape, their face model, the untrained network."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dhm_cli.config.run import RunSettings
from dhm_cli.data.batches import Faces, load_faces
from dhm_cli.data.store import FaceStore
from dhm_cli.errors import InputError
from dhm_cli.models.checkpoint import load_weights, read_tensors
from dhm_cli.models.interface import Network
from dhm_cli.models.registry import build_model
from dhm_cli.morphable import location
from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.morphable.mean_shape import mean_frontal_shape

# Where `dhm prepare` writes.
DEFAULT_DATA = Path("data")


def open_stores(data: Sequence[str] | None) -> list[tuple[FaceStore, float]]:
    """Open the stores to train on.

    Args:
        data: files, each with an optional sampling weight as in `faces.h5=0.5`; None for every store in `data/`.

    Returns:
        Stores with their weights.

    Raises:
        InputError: nothing found, a store given twice, or a weight that is not a positive number.
    """
    if not data:
        data = sorted(str(p) for p in DEFAULT_DATA.glob("*.h5") if p.name != location.FACE_MODEL)
        if not data:
            raise InputError(f"no store in {DEFAULT_DATA}/", "make one with: dhm prepare FOLDER --bfm BFM.mat")
    stores: list[tuple[FaceStore, float]] = []
    for item in data:
        file, _, weight = item.rpartition("=") if "=" in item and not item.endswith(".h5") else (item, "", "1")
        try:
            value = float(weight)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"--data {item}: the weight {weight!r} is not a positive number", "write FILE.h5=0.5")
        if any(store.path.resolve() == Path(file).resolve() for store, _ in stores):
            raise InputError(f"--data {file}: given twice", "give it once, with a weight if it is to count more")
        stores.append((FaceStore(Path(file)), value))
    return stores


def faces_of(stores: list[tuple[FaceStore, float]]) -> tuple[Faces, Faces]:
    """The faces to train on and those to validate on.

    Raises:
        InputError: one of them is empty, or the stores belong to different face models.
    """
    models = {str(s.path): str(s.attributes.get("face_model")) for s, _ in stores}
    if len(set(models.values())) > 1:
        found = ", ".join(f"{path} {model}" for path, model in models.items())
        raise InputError(f"stores with labels of different face models: {found}", "prepare them with one --bfm")
    train, validation = load_faces(stores, "train"), load_faces(stores, "val")
    if not len(train) or not len(validation):
        raise InputError(
            f"{len(train)} faces to train on and {len(validation)} to validate on",
            "prepare the stores with a --table of splits, or a folder more with --split val",
        )
    return train, validation


def mean_shape_of(stores: list[tuple[FaceStore, float]]) -> Tensor:
    """Mean frontal shape of the training faces, (68, 3), see `mean_frontal_shape`."""
    labels = [s.labels.take(s.labels.in_split("train")) for s, _ in stores]
    return mean_frontal_shape(
        np.concatenate([x.landmarks for x in labels]), np.concatenate([x.parameters for x in labels])
    )


def face_model_beside(stores: list[tuple[FaceStore, float]]) -> Path:
    """Where `dhm prepare` put the face model of the stores."""
    return location.face_model_beside(stores[0][0].path)


def find_face_model(stores: list[tuple[FaceStore, float]], file: Path | None) -> FaceModel:
    """The face model of the stores' parameters.

    Args:
        stores: stores with weights.
        file: where it is; None looks beside the first store.

    Raises:
        InputError: there is none, or it is not the one that the stores were prepared with.
    """
    path = file or face_model_beside(stores)
    model = FaceModel.load(path)
    store, hint = stores[0][0], "pass the --face-model that dhm prepare wrote with the stores"
    model.require(str(store.attributes.get("face_model")), path, f"{store.path} was prepared", hint)
    return model


def new_network(
    settings: RunSettings, stores: list[tuple[FaceStore, float]], face_model: FaceModel | None, initial: Path | None
) -> Network:
    """The network before the first step.

    Args:
        settings: architecture, shape and seed.
        stores: the training faces' mean shape is that of the network.
        face_model: of networks that regress p.
        initial: a checkpoint to take the weights from; None for random ones.

    Raises:
        InputError: no such checkpoint.
        FormatError: its weights do not fit the network.
    """
    torch.manual_seed(settings.training.seed)
    model = build_model(settings.arch, mean_shape_of(stores), settings.network, face_model)
    if initial is not None:
        load_weights(model, read_tensors(initial)[0], initial, may_lack=(model.doubts_weights, *model.added_weights))
    return model
