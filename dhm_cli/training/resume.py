"""Exact resume: the state file of a run, and the check that a resume continues the run that was started.

The state file holds weights, averaged weights, optimiser moments, counters and the record of what the run is.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dhm_cli.config.run import RunSettings
from dhm_cli.config.training import TrainConfig
from dhm_cli.data.not_faces import NotFaces
from dhm_cli.data.store import FaceStore
from dhm_cli.errors import FormatError, InputError
from dhm_cli.models.checkpoint import read_tensors, write_tensors
from dhm_cli.runtime.hashing import short_hash
from dhm_cli.training.run_folder import RunFolder

# Settings that a resumed run may change: a longer or shorter schedule, more or fewer validations.
_MAY_CHANGE = ("steps", "epochs", "validate_every", "validation_batch")


def run_record(
    settings: RunSettings,
    steps: int,
    stores: list[tuple[FaceStore, float]],
    initial: Path | None,
    teacher: Path | None,
    not_faces: NotFaces | None = None,
) -> dict[str, Any]:
    """What a run is, plain JSON, for its checkpoints and for a later resume.

    Args:
        settings: architecture, network and training.
        steps: of the whole run.
        stores: stores with sampling weights.
        initial: the checkpoint that it starts from.
        teacher: the checkpoint of its teacher.
        not_faces: the pictures without a face.

    Raises:
        InputError: a checkpoint is missing.
    """
    return {
        "arch": settings.arch,
        "recipe": settings.recipe,
        "stores": [
            {
                "file": s.path.name,
                "faces": len(s),
                "weight": weight,
                "hash": s.fingerprint(),
                "images_hash": str(s.attributes.get("images_hash")),
            }
            for s, weight in stores
        ],
        "face_model": str(stores[0][0].attributes.get("face_model")),
        "network": settings.network.to_json(),
        "training": settings.training.to_json(),
        "steps": steps,
        "initial": _hash_of(initial),
        "teacher": _hash_of(teacher),
        **({} if not_faces is None else {"not_faces": not_faces.fingerprint}),
    }


def _hash_of(checkpoint: Path | None) -> str | None:
    if checkpoint is None:
        return None
    if not checkpoint.is_file():
        raise InputError(f"{checkpoint}: no such checkpoint", "give a file that dhm train wrote")
    return short_hash(checkpoint)


def check_same_run(before: dict[str, Any], now: dict[str, Any], out: Path) -> None:
    """Check that a run is resumed with the settings and the data that it was started with.

    Settings that no longer exist are passed over at their defaults, so that runs of older versions can be resumed.

    Args:
        before: the run's record (`run_record`) as the state file holds it.
        now: the record of the run that is to continue it.
        out: the run folder, for messages.

    Raises:
        InputError: they differ; names what does.
    """
    now = json.loads(json.dumps(now))  # tuples become lists, as they are in the file
    if before["arch"] != now["arch"]:
        raise InputError(f"{out}: a run of {before['arch']}, not {now['arch']}", "choose another --out")
    for name in ("stores", "face_model"):
        if before[name] != now[name]:
            raise InputError(f"{out}: this run was started with other data", "give the same stores and weights")
    if before["teacher"] != now["teacher"]:
        raise InputError(f"{out}: this run was started with another teacher", "give the same --teacher")
    compared = [("network", name) for name in now["network"]]
    compared += [("training", name) for name in now["training"] if name not in _MAY_CHANGE]
    changed = [
        f"{name} {before[table].get(name)}, not {now[table][name]}"
        for table, name in compared
        if before[table].get(name) != now[table][name]
    ]
    if changed:
        raise InputError(f"{out}: this run has {', '.join(changed)}", "resume with the options it was started with")
    values = before["training"]
    retired = [
        f"{name} {values[name]}"
        for name, nothing in TrainConfig.RETIRED.items()
        if values.get(name, nothing) != nothing
    ]
    if retired:
        raise InputError(
            f"{out}: this run has {', '.join(retired)}, which this version of dhm does not know",
            f"start a new run from its last network: --init {RunFolder(out).last}",
        )


def save_state(path: Path, modules: Mapping[str, nn.Module], optimiser: torch.optim.Optimizer, record: Any) -> None:
    """Write the state of a run, atomically.

    Batches are pure functions of the seed and the step, and no layer draws random numbers; so the step is all that a
    resume must know about randomness.

    Args:
        path: the file.
        modules: networks by name.
        optimiser: its moments are saved.
        record: counters and what the run is, plain JSON.
    """
    tensors = {f"{name}.{key}": value for name, m in modules.items() for key, value in m.state_dict().items()}
    for index, moments in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{key}": value for key, value in moments.items()}
    write_tensors(path, tensors, {"state": record})


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors of a saved state by name, and its record.

    Raises:
        InputError: no such file.
        FormatError: it is damaged, or holds something else.
    """
    try:
        tensors, metadata = read_tensors(path)
    except FormatError as error:
        raise FormatError(error.message, _start_anew(path)) from error
    if not isinstance(metadata.get("state"), dict):
        raise FormatError(f"{path}: not the state of a training but another kind of dhm file", _start_anew(path))
    return tensors, metadata["state"]


def _start_anew(path: Path) -> str:
    return f"copy the file again, or start a new run from the last network: --init {RunFolder(path.parent).last}"


@contextmanager
def damage_explained(path: Path) -> Iterator[None]:
    """Explain what goes wrong where a state file was read but holds other than `save_state` writes.

    Raises:
        FormatError: something did; says what in one line.
    """
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise FormatError(f"{path}: damaged, a training cannot go on from it ({reason})", _start_anew(path)) from error


def restore(tensors: dict[str, Tensor], modules: Mapping[str, nn.Module], optimiser: torch.optim.Optimizer) -> None:
    """Put the tensors of `read_state` back into networks and optimiser; learning rates stay as they are.

    Raises:
        RuntimeError: tensors are missing, too many, or of another shape.
    """
    for name, module in modules.items():
        module.load_state_dict(_below(tensors, name))
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in _below(tensors, "optimiser").items():
        index, name = key.split(".")
        moments.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})
    for parameter, loaded in optimiser.state.items():
        for name, value in loaded.items():
            if value.dim() and value.shape != parameter.shape:
                raise RuntimeError(f"{name} of shape {tuple(value.shape)} for weights of {tuple(parameter.shape)}")
            if value.shape == parameter.shape:
                # Files hold plain order; fused optimisers walk memory, so the moments must lie as the weights do.
                loaded[name] = torch.empty_like(parameter).copy_(value)


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
