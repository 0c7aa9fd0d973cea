"""`dhm train`: stores become a network."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dhm_cli.config.run import RunSettings
from dhm_cli.config.toml import write_toml
from dhm_cli.data.batches import Batch, Faces, TrainBatches, validation_crops
from dhm_cli.data.overlap import split_overlap
from dhm_cli.data.store import FaceStore
from dhm_cli.drawing.faces import evolution_sheet, save_png, spread_over
from dhm_cli.errors import DhmError, InputError
from dhm_cli.metrics.landmark_error import nme_by_yaw, normalised_mean_error
from dhm_cli.models.checkpoint import load_weights, read_tensors, save_checkpoint, write_tensors
from dhm_cli.models.heatmaps import draw_heatmap
from dhm_cli.models.interface import Network, image_tensor
from dhm_cli.models.registry import build_model, float32_bytes
from dhm_cli.runtime.interruption import deferred_interrupts
from dhm_cli.training.distributed import Processes
from dhm_cli.training.inputs import face_model_beside, faces_of, find_face_model, mean_shape_of
from dhm_cli.training.objective import Objective, Teacher
from dhm_cli.training.optimisation import learning_rate_at, make_optimiser, moving_average
from dhm_cli.training.resume import read_state, restore, save_state
from dhm_cli.training.run_folder import RunFolder

# Settings that a resumed run may change: a longer or shorter schedule, more or fewer validations.
_MAY_CHANGE = ("steps", "epochs", "validate_every", "validation_batch")
# Steps between lines of the metrics without a validation.
_REPORT_EVERY = 50
# Not then --resume: a run keeps its batch, size and precision.
_LESS_TO_TRAIN = "start a new run with a lower --batch or --input-size, or on a GPU with --precision bf16"
_LESS_TO_VALIDATE = "lower training.validation_batch in the settings file (--config)"
# Validation faces in the pictures.
_SAMPLES = 6


@dataclass(frozen=True)
class RunOptions:
    """How and from what to train, apart from the settings.

    Attributes:
        workers: processes that make batches; 0 makes them between the steps.
        compile: compile the network with `torch.compile`.
        keep: how many of the numbered checkpoints to keep.
        initial: a checkpoint to start from.
        teacher: a checkpoint whose landmarks are learned too.
        face_model: of networks that regress p; None looks beside the stores.
    """

    workers: int = 1
    compile: bool = False
    keep: int = 3
    initial: Path | None = None
    teacher: Path | None = None
    face_model: Path | None = None


@dataclass(frozen=True)
class TrainProgress:
    """State of a run after a step.

    Attributes:
        step: steps done.
        loss: running mean of the loss.
        samples_per_second: of the last steps, over all processes.
        waiting: share of the time in which the network waited for data, in [0, 1].
        validation: NME by yaw bin (percent) where this step ended with a validation.
    """

    step: int
    loss: float
    samples_per_second: float
    waiting: float
    validation: dict[str, float] | None = None


@dataclass
class _Clock:
    """Time since the last line of the metrics, without validations."""

    samples: int = 0
    waited: float = 0.0
    worked: float = 0.0

    @property
    def speed(self) -> float:
        return self.samples / max(self.waited + self.worked, 1e-9)

    @property
    def waiting(self) -> float:
        return self.waited / max(self.waited + self.worked, 1e-9)


class Trainer:
    """One training run in one folder, resumable to the bit on a CPU.

    Args:
        settings: architecture, network and training.
        stores: stores with sampling weights; their split `val` is validated on, their split `test` is never read.
        out: run folder, see `RunFolder`.
        options: the rest.
        processes: this process among others; None for one process on the CPU.
        resume: continue from the folder's state.

    Attributes:
        step: steps done.
        steps: steps of the whole run.
        warnings: what a user should know before the run: validation faces that overlap training faces.

    Raises:
        InputError: nothing to train on or to resume from, or the folder holds another run.
    """

    def __init__(
        self,
        settings: RunSettings,
        stores: list[tuple[FaceStore, float]],
        out: Path,
        options: RunOptions | None = None,
        processes: Processes | None = None,
        resume: bool = False,
    ) -> None:
        self.settings, self.config = settings, settings.training
        self._options = options or RunOptions()
        self._processes = processes or Processes(0, 1, torch.device("cpu"))
        self._folder = RunFolder(out)
        self._check_folder(resume)
        if self.config.batch % self._processes.world:
            raise InputError(
                f"a batch of {self.config.batch} cannot be shared by {self._processes.world} processes",
                f"choose a --batch that is a multiple of {self._processes.world}",
            )
        train, validation = faces_of(stores)
        self.warnings = split_overlap([store for store, _ in stores])
        self._load_validation(validation)
        self._train_names = train.names
        self._batches = TrainBatches(train, settings.network.input_size, self.config)
        self.steps_per_epoch = self._batches.steps_per_epoch
        self.steps = self.config.steps or math.ceil((self.config.epochs or 0) * self.steps_per_epoch)
        self._record = self._describe(stores)
        with self._memory_explained("building the network for", _LESS_TO_TRAIN):
            self._build(stores)
        self.step, self._best, self._loss = 0, math.inf, math.nan
        if resume:
            self._load_state()
        self._check_processes()
        self._network = self._trained_network()
        if self._processes.is_main:
            self._folder.claim()
            write_toml(self._folder.config, settings.to_toml())
            self._folder.describe({**self._record, "parameters": self._count()}, self.step)
            self._folder.forget_after(self.step)

    def _check_folder(self, resume: bool) -> None:
        out, exists = self._folder.path, self._folder.state.exists()
        if exists and not resume:
            raise InputError(f"{out}: holds a training run", "continue it with --resume, or choose another --out")
        if resume and not exists:
            raise InputError(f"{out}: no training run to resume", "start one without --resume, in a new --out")
        if self._folder.best.exists() and not exists:
            raise InputError(
                f"{out}: holds the networks of a run whose {self._folder.state.name} is gone",
                f"choose another --out; --init {self._folder.last} starts from its weights",
            )

    def _load_validation(self, faces: Faces) -> None:
        size, p = self.settings.network.input_size, self._processes
        self._crops, self._truth = validation_crops(faces, size, p.rank, p.world)
        self._names, self._yaw = faces.names, faces.yaw
        self._sample_rows = spread_over(np.abs(faces.yaw[p.rank :: p.world]), _SAMPLES)

    def _describe(self, stores: list[tuple[FaceStore, float]]) -> dict[str, Any]:
        """What the run is, for its checkpoints and for a later resume."""
        inputs = {"initial": self._options.initial, "teacher": self._options.teacher}
        return {
            "arch": self.settings.arch,
            "recipe": self.settings.recipe,
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
            "network": self.settings.network.to_json(),
            "training": self.config.to_json(),
            "steps": self.steps,
            **{name: None if path is None else _hash_of(path) for name, path in inputs.items()},
        }

    def _build(self, stores: list[tuple[FaceStore, float]]) -> None:
        network, p = self.settings.network, self._processes
        face_model = find_face_model(stores, self._options.face_model) if network.needs_face_model else None
        teacher = self._options.teacher
        shown = None if teacher is None else Teacher(teacher, self._options.face_model or face_model_beside(stores))
        torch.manual_seed(self.config.seed)
        model = build_model(self.settings.arch, mean_shape_of(stores), network, face_model)
        if self._options.initial is not None:
            load_weights(model, read_tensors(self._options.initial)[0], self._options.initial)
        model.to(p.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in the annotations
        self.model = cast(Network, p.prepared(model))
        self._objective = Objective(self.config, network.input_size, face_model, shown).to(p.device)
        self._average = moving_average(self.model, self.config.ema)
        self._optimiser = make_optimiser(self.model, self.config)

    def _check_processes(self) -> None:
        """Raise where machines differ: their networks would drift apart, or wait for each other for ever."""
        mine = {**self._record, "step": self.step}
        if any(other != mine for other in self._processes.gather(mine)):
            raise InputError(
                "the processes differ in their settings, their stores or the state that they resume",
                "start all with one command, and put stores and run folder where every machine sees them",
            )

    def _trained_network(self) -> nn.Module:
        wrapped = self._processes.wrapped(self.model, bool(self.model.unused_parameters(self.config.loss)))
        return cast(nn.Module, torch.compile(wrapped)) if self._options.compile else wrapped

    def _count(self) -> dict[str, int]:
        return {"numbers": sum(p.numel() for p in self.model.parameters()), "float32_bytes": float32_bytes(self.model)}

    @property
    def description(self) -> str:
        """The run in a line: sizes of the network, the data and the run."""
        count = self._count()
        return (
            f"{count['numbers']:,} parameters, {count['float32_bytes'] / 1e6:.1f} MB; {len(self._train_names):,} faces "
            f"to train on and {len(self._yaw):,} to validate on; {self.steps:,} steps of {self.config.batch}, "
            f"{self.steps_per_epoch:,} an epoch; {self._processes.device}, {self._processes.world} process(es)"
        )

    @property
    def averaged(self) -> Network:
        """The network with the averaged weights, which is validated and shipped."""
        return cast(Network, self._average.module)

    def run(self, report: Callable[[TrainProgress], None] = lambda _: None) -> dict[str, float]:
        """Train to the last step.

        Args:
            report: called after every step.

        Returns:
            The last validation's NME by yaw bin, percent.

        Raises:
            DhmError: the loss became NaN, or the memory did not suffice.
            KeyboardInterrupt: Ctrl-C or SIGTERM came; the step under way was finished and the state saved.
        """
        result: dict[str, float] = {}
        p, self._clock = self._processes, _Clock()
        with deferred_interrupts() as interrupted:
            before = time.perf_counter()
            for batch in self._batches.loader(self.step, self.steps, self._options.workers, p.rank, p.world):
                arrived = time.perf_counter()
                with self._memory_explained(f"at a batch of {self.config.batch}", _LESS_TO_TRAIN):
                    stop = self._train_step(batch, interrupted.is_set())
                done = time.perf_counter()
                self._clock.samples += self.config.batch
                self._clock.waited += arrived - before
                self._clock.worked += done - arrived
                validation = None
                if self.step % (self.config.validate_every or self.steps_per_epoch) == 0 or self.step == self.steps:
                    with self._memory_explained(f"validating {self.config.validation_batch}", _LESS_TO_VALIDATE):
                        result = validation = self._validate()
                try:
                    self._report(validation, report)
                except KeyboardInterrupt:
                    interrupted.set()
                if stop or (interrupted.is_set() and p.world == 1):
                    self._save_state()
                    raise KeyboardInterrupt
                before = time.perf_counter()
        return result

    @contextmanager
    def _memory_explained(self, doing: str, hint: str) -> Iterator[None]:
        """Say what to lower where the memory does not suffice."""
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not _is_memory_error(error):
                raise
            size = self.settings.network.input_size
            raise DhmError(f"out of memory {doing} crops of {size} pixels", hint) from error

    def _train_step(self, batch: Batch, interrupted: bool) -> bool:
        """One step of the optimiser; whether any process was interrupted."""
        c, device = self.config, self._processes.device
        self.model.train()
        for group in self._optimiser.param_groups:
            group["lr"] = self._rate = learning_rate_at(self.step, c, self.steps, self.steps_per_epoch)
        images = image_tensor(batch.crops.to(device, non_blocking=True))
        truth = batch.landmarks.to(device, non_blocking=True)
        with torch.autocast(device.type, torch.bfloat16) if c.precision == "bf16" else nullcontext():
            output = self._network(images)
        loss = self._objective(output, truth, images)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        length = nn.utils.clip_grad_norm_(self.model.parameters(), c.gradient_norm or math.inf)
        shared = self._processes.sum(torch.stack([loss.detach(), loss.new_tensor(float(interrupted))]))
        total, stop, norm = torch.cat([shared, length.reshape(1)]).tolist()  # once, for a GPU has to finish for it
        if not (math.isfinite(total) and math.isfinite(norm)):
            self._refuse(batch, loss.item(), norm)
        self._optimiser.step()
        self.step += 1
        self._average.update_parameters(self.model)
        mean = total / self._processes.world
        self._norm = norm
        self._loss = mean if math.isnan(self._loss) else 0.99 * self._loss + 0.01 * mean
        return stop > 0

    def _refuse(self, batch: Batch, loss: float, norm: float) -> None:
        """Save the batch that gave NaN, and say so; all processes' batches where only the gradient did."""
        p = self._processes
        finite = [math.isfinite(other) for other in p.gather(loss)]
        told = p.gather("" if finite[p.rank] and not all(finite) else self._keep(batch, loss, norm))
        raise DhmError(
            next(filter(None, told)),
            "look for wrong labels with: dhm prepare --check; or lower --learning-rate in a new run",
        )

    def _keep(self, batch: Batch, loss: float, norm: float) -> str:
        """Save a batch that gave NaN; a sentence about it."""
        names = self._train_names[batch.rows.numpy()].tolist()
        file = self._folder.path / f"nan_step_{self.step:07d}_rank_{self._processes.rank}.safetensors"
        write_tensors(file, batch._asdict(), {"batch": {"step": self.step, "names": names, "loss": str(loss)}})
        what = f"the loss became {loss}" if not math.isfinite(loss) else f"the gradient's norm became {norm}"
        return f"{what} at step {self.step}, with the batch now in {file} ({', '.join(names[:3])}, ...)"

    def _report(self, validation: dict[str, float] | None, report: Callable[[TrainProgress], None]) -> None:
        clock = self._clock
        if self._processes.is_main:
            if validation is not None or self.step % _REPORT_EVERY == 0:
                self._folder.add_row(
                    {
                        "step": self.step,
                        "epoch": round(self.step / self.steps_per_epoch, 3),
                        "loss": self._loss,
                        "learning_rate": self._rate,
                        "gradient_norm": self._norm,
                        "samples_per_second": round(clock.speed, 1),
                        "waiting": round(clock.waiting, 4),
                        **({"validation": validation} if validation is not None else {}),
                    }
                )
            if validation is not None:
                self._folder.draw_learning_curve()
        report(TrainProgress(self.step, self._loss, clock.speed, clock.waiting, validation))
        if validation is not None or self.step % _REPORT_EVERY == 0:
            self._clock = _Clock()

    def _validate(self) -> dict[str, float]:
        p = self._processes
        p.share_statistics(self.averaged)
        predicted = predict(self.averaged, self._crops, self.config.validation_batch, p.device)
        parts = p.gather(normalised_mean_error(predicted, self._truth))
        nme = np.empty(len(self._yaw))
        for rank, part in enumerate(parts):
            nme[rank :: p.world] = part
        result = nme_by_yaw(nme, self._yaw)
        better = result["mean_of_bins"] < self._best
        self._best = min(self._best, result["mean_of_bins"])
        if p.is_main:
            record = {**self._record, "step": self.step, "validation_nme": result}
            files = [self._folder.last, *([self._folder.best] if better else [])]
            for path in [*files, *([self._folder.checkpoint(self.step)] if self._options.keep else [])]:
                save_checkpoint(path, self.averaged, self.settings.arch, record)
            self._folder.prune_checkpoints(self._options.keep)
            if better:
                self._folder.write_validation(self._names, self._yaw, nme)
            self._draw_samples()
        self._save_state()  # after the best score is known, or a resume would forget it
        return result

    @torch.inference_mode()
    def _draw_samples(self) -> None:
        """Fig. 5 of Sun et al. 2018 for some validation faces."""
        rows, device = self._sample_rows, self._processes.device
        model = self.averaged.eval()
        crops, truth = self._crops[rows], self._truth[rows]
        output = model(image_tensor(torch.from_numpy(crops).to(device)))
        start = model.initial_landmarks.expand(len(rows), 1, -1, -1)
        steps = torch.cat([start, output.landmarks.float()], dim=1)
        heatmaps = draw_heatmap(steps.flatten(0, 1), model.config.input_size).unflatten(0, steps.shape[:2])
        yaw = self._yaw[self._processes.rank :: self._processes.world][rows]
        captions = [f"yaw {angle:.0f}" for angle in yaw]
        sheet = evolution_sheet(crops, steps.cpu().numpy(), heatmaps.cpu().numpy(), truth, captions)
        save_png(self._folder.sample(self.step), sheet)

    def _save_state(self) -> None:
        self._processes.share_statistics(self.model)
        if not self._processes.is_main:
            return
        record = {
            "run": self._record,
            "step": self.step,
            "best": self._best if math.isfinite(self._best) else None,
            "loss": self._loss if math.isfinite(self._loss) else None,
        }
        save_state(self._folder.state, self._modules(), self._optimiser, record)

    def _modules(self) -> dict[str, nn.Module]:
        return {"model": self.model, "average": self._average}

    def _load_state(self) -> None:
        tensors, state = read_state(self._folder.state)
        _check_same_run(state["run"], json.loads(json.dumps(self._record)), self._folder.path)
        restore(tensors, self._modules(), self._optimiser)
        self._record["initial"] = state["run"]["initial"]  # a resume need not name it
        self.step = state["step"]
        if self.step > self.steps:
            raise InputError(
                f"{self._folder.path}: is at step {self.step:,} of {self.steps:,}", "raise --steps or --epochs"
            )
        self._best = math.inf if state["best"] is None else state["best"]
        self._loss = math.nan if state["loss"] is None else state["loss"]


def predict(
    model: nn.Module, crops: NDArray[np.uint8], batch: int = 128, device: torch.device | None = None
) -> NDArray[np.float64]:
    """Landmarks of crops by a torch network.

    Args:
        model: a network, already on its device.
        crops: (N, S, S, 3) uint8 RGB.
        batch: crops at a time.
        device: of the network; None for the CPU.

    Returns:
        (N, 68, 3), crop pixels.
    """
    model.eval()
    parts = [np.empty((0, 68, 3))]
    with torch.inference_mode():
        for start in range(0, len(crops), batch):
            output = model(image_tensor(torch.from_numpy(crops[start : start + batch]).to(device or "cpu")))
            parts.append(output.landmarks[:, -1].double().cpu().numpy())
    return np.concatenate(parts)


def _hash_of(file: Path) -> str:
    if not file.is_file():
        raise InputError(f"{file}: no such checkpoint", "give a file that dhm train wrote")
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def _is_memory_error(error: RuntimeError) -> bool:
    text = str(error).lower()
    # CUDA, cuBLAS and cuDNN, CPU on Windows, CPU elsewhere
    said = ("out of memory", "status_alloc_failed", "not enough memory", "allocate memory")
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(words in text for words in said)


def _check_same_run(before: dict[str, Any], now: dict[str, Any], out: Path) -> None:
    """Raise where a run is to be resumed with settings or data that it was not started with."""
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
