"""`dhm train`: stores become a network."""

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dhm_cli.checkpoint import read_tensors, save_checkpoint, write_tensors
from dhm_cli.config import TrainConfig
from dhm_cli.data.batches import TrainBatches, load_faces, validation_crops
from dhm_cli.data.store import FaceStore
from dhm_cli.errors import DhmError, InputError
from dhm_cli.files import written_atomically
from dhm_cli.landmarks import MIRROR, bounding_box
from dhm_cli.losses import landmark_loss
from dhm_cli.metrics import nme_by_yaw, normalised_mean_error
from dhm_cli.models.fast_dhm import FastDhm
from dhm_cli.models.input import image_tensor
from dhm_cli.models.registry import build_model
from dhm_cli.morphable.face_model import FACE_MODEL
from dhm_cli.morphable.parameters import LAYOUT
from dhm_cli.morphable.rotation import euler_to_matrix

_VALIDATION_BATCH = 256
# Where `dhm prepare` writes.
DEFAULT_DATA = Path("data")
# Settings that a resumed run may change: a longer or shorter schedule, more or fewer validations.
_MAY_CHANGE = ("steps", "validate_every")


@dataclass(frozen=True)
class TrainProgress:
    """State of a run after a step.

    Attributes:
        step: steps done.
        loss: running mean of the loss.
        validation: NME by yaw bin (percent) where this step ended with a validation.
    """

    step: int
    loss: float
    validation: dict[str, float] | None = None


def open_stores(data: Sequence[str] | None) -> list[tuple[FaceStore, float]]:
    """Open the stores to train on.

    Args:
        data: files, each with an optional sampling weight as in `faces.h5=0.5`; None for every store in `data/`.

    Returns:
        Stores with their weights.

    Raises:
        InputError: nothing found, or a weight that is not a positive number.
    """
    if not data:
        data = sorted(str(p) for p in DEFAULT_DATA.glob("*.h5") if p.name != FACE_MODEL)
        if not data:
            raise InputError(f"no store in {DEFAULT_DATA}/", "make one with: dhm prepare FOLDER --bfm BFM.mat")
    stores = []
    for item in data:
        file, _, weight = item.rpartition("=") if not item.endswith(".h5") else (item, "", "")
        try:
            value = float(weight or 1)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"--data {item}: the weight {weight!r} is not a positive number", "write FILE.h5=0.5")
        stores.append((FaceStore(Path(file)), value))
    return stores


@contextmanager
def _deferred_interrupts() -> Iterator[threading.Event]:
    """Turn SIGINT and SIGTERM into an event, so that a step is never cut in two."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: event.set()) for number in signals]
    try:
        yield event
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def mean_frontal_shape(landmarks: NDArray[np.floating], parameters: NDArray[np.floating]) -> Tensor:
    """Mean of the training faces, each turned back to the front by its fitted pose, made symmetric.

    Args:
        landmarks: (N, 68, 3), pixels, y down, z toward the viewer.
        parameters: (N, 234), for their angles.

    Returns:
        (68, 3), x right, y down, z toward the viewer; box centre at the origin, longer side of the box 1.
    """
    flip = torch.tensor([1.0, -1.0, 1.0])
    points = torch.from_numpy(np.asarray(landmarks, np.float32)) * flip
    points = points - points.mean(1, keepdim=True)
    points = points / points.square().sum((1, 2), keepdim=True).sqrt()
    angles = torch.from_numpy(np.asarray(parameters, np.float32)[:, LAYOUT["angles"]])
    frontal = (points @ euler_to_matrix(angles)).mean(0) * flip  # p R is R^T p for row vectors
    frontal = (frontal + frontal[MIRROR] * torch.tensor([-1.0, 1.0, 1.0])) / 2
    left, top, width, height = bounding_box(frontal.numpy())
    centre = torch.tensor([left + width / 2, top + height / 2, frontal[:, 2].mean()])
    return (frontal - centre) / float(max(width, height))


def learning_rate_at(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then a cosine down to zero at the last step."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def predict(model: nn.Module, crops: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Landmarks of crops by a torch network, (N, S, S, 3) uint8 -> (N, 68, 3), crop pixels."""
    model.eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(crops), _VALIDATION_BATCH):
            output = model(image_tensor(torch.from_numpy(crops[start : start + _VALIDATION_BATCH])))
            parts.append(output.landmarks[:, -1].double().numpy())
    return np.concatenate(parts)


class Trainer:
    """One training run in one folder, resumable to the bit.

    The folder holds `best.safetensors` and `last.safetensors` (averaged weights), `state.safetensors` (all that a
    resume needs), `metrics.jsonl` and `config.json`.

    Args:
        arch: architecture.
        stores: stores with sampling weights; their split `val` is validated on.
        config: settings.
        out: run folder.
        resume: continue from `state.safetensors`.

    Raises:
        InputError: nothing to train on or to resume from, or the folder holds another run.
    """

    def __init__(
        self, arch: str, stores: list[tuple[FaceStore, float]], config: TrainConfig, out: Path, resume: bool = False
    ) -> None:
        self.arch, self.config, self.out = arch, config, out
        self._state_file = out / "state.safetensors"
        if self._state_file.exists() and not resume:
            raise InputError(f"{out}: holds a training run", "continue it with --resume, or choose another --out")
        if resume and not self._state_file.exists():
            raise InputError(f"{out}: no training run to resume", "start one without --resume")
        models = {str(s.path): str(s.attributes.get("face_model")) for s, _ in stores}
        if len(set(models.values())) > 1:
            found = ", ".join(f"{path} {model}" for path, model in models.items())
            raise InputError(f"stores with labels of different face models: {found}", "prepare them with one --bfm")
        torch.manual_seed(config.seed)
        train = load_faces(stores, "train")
        validation = load_faces(stores, "val")
        if not len(train) or not len(validation):
            raise InputError(
                f"{len(train)} faces to train on and {len(validation)} to validate on",
                "prepare the stores with a --table of splits, or a folder more with --split val",
            )
        self.model = build_model(arch, self._mean_shape(stores))
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in the annotations
        size = self.model.config.input_size
        self._batches = TrainBatches(train, size, config)
        self._crops, self._truth = validation_crops(validation, size)
        self._yaw = validation.yaw
        self._average = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(config.ema), use_buffers=True)
        self._optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.step = 0
        self._best, self._loss = math.inf, math.nan
        self._record: dict[str, Any] = {
            "stores": [{"file": s.path.name, "faces": len(s), "weight": w, "hash": s.fingerprint()} for s, w in stores],
            "face_model": next(iter(models.values())),
            "config": config.to_json(),
        }
        if resume:
            self._load_state()
        with written_atomically(out / "config.json") as partial:
            partial.write_text(json.dumps({"arch": arch, **self._record}, indent=1))

    @staticmethod
    def _mean_shape(stores: list[tuple[FaceStore, float]]) -> Tensor:
        labels = [s.labels.take(s.labels.in_split("train")) for s, _ in stores]
        return mean_frontal_shape(
            np.concatenate([x.landmarks for x in labels]), np.concatenate([x.parameters for x in labels])
        )

    @property
    def averaged(self) -> FastDhm:
        """The network with the averaged weights, which is validated and shipped."""
        return cast(FastDhm, self._average.module)

    def run(self, report: Callable[[TrainProgress], None] = lambda _: None) -> dict[str, float]:
        """Train to the last step.

        Args:
            report: called after every step.

        Returns:
            The last validation's NME by yaw bin, percent.

        Raises:
            DhmError: the loss became NaN.
            KeyboardInterrupt: Ctrl-C or SIGTERM came; the step under way was finished and the state saved.
        """
        result: dict[str, float] = {}
        started = time.perf_counter()
        batches = self._batches.loader(self.step, self.config.steps)
        with _deferred_interrupts() as interrupted:
            for crops, landmarks in batches:
                loss = self._train_step(image_tensor(crops), landmarks)
                self._loss = loss if math.isnan(self._loss) else 0.99 * self._loss + 0.01 * loss
                validation = None
                if self.step % self.config.validate_every == 0 or self.step == self.config.steps:
                    result = validation = self._validate(time.perf_counter() - started)
                try:
                    report(TrainProgress(self.step, self._loss, validation))
                except KeyboardInterrupt:
                    interrupted.set()
                if interrupted.is_set():
                    self.save_state()
                    raise KeyboardInterrupt
        return result

    def _train_step(self, images: Tensor, landmarks: Tensor) -> float:
        self.model.train()
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate_at(self.step, self.config)
        output = self.model(images)
        c = self.config
        loss = landmark_loss(output.landmarks, landmarks, c.wing_width, c.wing_curvature, c.depth_weight)
        if not math.isfinite(loss.item()):
            raise DhmError(
                f"the loss became {loss.item()} at step {self.step}",
                "lower --learning-rate; then --resume from the last state",
            )
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_norm)
        self._optimiser.step()
        self.step += 1
        self._average.update_parameters(self.model)
        return loss.item()

    def _validate(self, seconds: float) -> dict[str, float]:
        nme = normalised_mean_error(predict(self.averaged, self._crops), self._truth)
        result = nme_by_yaw(nme, self._yaw)
        record = {**self._record, "step": self.step, "validation_nme": result}
        save_checkpoint(self.out / "last.safetensors", self.averaged, self.arch, record)
        if result["mean_of_bins"] < self._best:
            self._best = result["mean_of_bins"]
            save_checkpoint(self.out / "best.safetensors", self.averaged, self.arch, record)
        self.save_state()  # after the best score is known, or a resume would forget it
        with (self.out / "metrics.jsonl").open("a") as file:
            line = {"step": self.step, "loss": self._loss, "seconds": round(seconds, 1), **result}
            file.write(json.dumps(line) + "\n")
        return result

    def save_state(self) -> None:
        """Write all that an exact resume needs: weights, averaged weights, optimiser moments, counters."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self._average.state_dict().items()}
        for index, moments in self._optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{k}": v for k, v in moments.items()}
        metadata = {
            "state_of": self.arch,
            "stores": self._record["stores"],
            "config": self.config.to_json(),
            "step": self.step,
            "best": self._best if math.isfinite(self._best) else None,
            "loss": self._loss if math.isfinite(self._loss) else None,
        }
        write_tensors(self._state_file, tensors, metadata)

    def _load_state(self) -> None:
        tensors, metadata = read_tensors(self._state_file)
        if metadata.get("state_of") != self.arch:
            raise InputError(
                f"{self._state_file}: a run of {metadata.get('state_of')}, not {self.arch}", "choose another --out"
            )
        if metadata["stores"] != self._record["stores"]:
            raise InputError(f"{self.out}: this run was started with other data", "give the same stores and weights")
        before, now = metadata["config"], json.loads(json.dumps(self.config.to_json()))
        changed = [name for name in now if name not in _MAY_CHANGE and before.get(name) != now[name]]
        if changed:
            difference = ", ".join(f"{name} {before.get(name)}, not {now[name]}" for name in changed)
            raise InputError(f"{self.out}: this run has {difference}", "resume with the options it was started with")

        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        self.model.load_state_dict(part("model."))
        self._average.load_state_dict(part("average."))
        self.model.redraw_heatmap()
        self.averaged.redraw_heatmap()
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in part("optimiser.").items():
            index, name = key.split(".")
            moments.setdefault(int(index), {})[name] = value
        groups = self._optimiser.state_dict()["param_groups"]
        self._optimiser.load_state_dict({"state": moments, "param_groups": groups})
        for parameter, loaded in self._optimiser.state.items():
            for name, value in loaded.items():
                if value.shape == parameter.shape:
                    # Files hold plain order; the fused AdamW walks memory, so the moments must lie as the weights do.
                    loaded[name] = torch.empty_like(parameter).copy_(value)
        self.step = metadata["step"]
        self._best = math.inf if metadata["best"] is None else metadata["best"]
        self._loss = math.nan if metadata["loss"] is None else metadata["loss"]
