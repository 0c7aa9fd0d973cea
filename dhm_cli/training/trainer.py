"""`dhm train`: stores become a network."""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import nn

from dhm_cli.config.run import RunSettings
from dhm_cli.config.toml import write_toml
from dhm_cli.data.batches import Batch, TrainBatches
from dhm_cli.data.not_faces import read_not_faces
from dhm_cli.data.overlap import split_overlap
from dhm_cli.data.store import FaceStore
from dhm_cli.errors import InputError
from dhm_cli.models.interface import Network, image_tensor
from dhm_cli.models.registry import float32_bytes
from dhm_cli.runtime.interruption import deferred_interrupts
from dhm_cli.training.distributed import Processes
from dhm_cli.training.divergence import raise_divergence
from dhm_cli.training.inputs import face_model_beside, faces_of, find_face_model, new_network
from dhm_cli.training.objective import Objective, Teacher
from dhm_cli.training.optimisation import learning_rate_at, make_optimiser, moving_average
from dhm_cli.training.out_of_memory import LESS_TO_TRAIN, LESS_TO_VALIDATE, memory_explained
from dhm_cli.training.resume import check_same_run, damage_explained, read_state, restore, run_record, save_state
from dhm_cli.training.run_folder import RunFolder
from dhm_cli.training.validation import Validation

# Steps between lines of the metrics without a validation.
_REPORT_EVERY = 50


@dataclass(frozen=True)
class RunOptions:
    """Options of a run that its settings do not hold: the machine, and files to start from.

    Attributes:
        workers: processes that make batches; 0 makes them in the training process, between the steps.
        compile: compile the network with `torch.compile`.
        keep: how many of the numbered checkpoints to keep.
        initial: a checkpoint to start from.
        teacher: the checkpoint of a network whose landmarks are learned too.
        face_model: file for networks that regress p; None looks beside the stores.
        not_faces: folder of pictures without a face, for networks that tell their confidence.
    """

    workers: int = 1
    compile: bool = False
    keep: int = 3
    initial: Path | None = None
    teacher: Path | None = None
    face_model: Path | None = None
    not_faces: Path | None = None


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

    def add(self, samples: int, waited: float, worked: float) -> None:
        """Count a step."""
        self.samples += samples
        self.waited += waited
        self.worked += worked

    @property
    def speed(self) -> float:
        """Samples per second."""
        return self.samples / max(self.waited + self.worked, 1e-9)

    @property
    def waiting(self) -> float:
        """Share of the time in which the network waited for data."""
        return self.waited / max(self.waited + self.worked, 1e-9)


class Trainer:
    """One training run in one folder, resumable to the bit on a CPU.

    Args:
        settings: architecture, network and training.
        stores: stores with sampling weights; their split `val` is validated on, their split `test` is never read.
        out: run folder, see `RunFolder`.
        options: the machine, and files to start from.
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
        self._options = options = options or RunOptions()
        self._processes = processes = processes or Processes(0, 1, torch.device("cpu"))
        self._folder = RunFolder(out)
        self._folder.check_start(resume)
        processes.check_batch(self.config.batch)
        train, validation = faces_of(stores)
        self.warnings = split_overlap([store for store, _ in stores])
        size = self._size = settings.network.input_size
        self._validation = Validation(
            validation, size, self.config.validation_batch, self._folder, options.keep, processes
        )
        self._train_names = train.names
        not_faces = None if options.not_faces is None else read_not_faces(options.not_faces, "train")
        self._batches = TrainBatches(train, size, self.config, not_faces)
        self.steps_per_epoch = self._batches.steps_per_epoch
        self.steps = self.config.steps or math.ceil((self.config.epochs or 0) * self.steps_per_epoch)
        self._record = run_record(settings, self.steps, stores, options.initial, options.teacher, not_faces)
        with memory_explained(f"building the network for crops of {size} pixels", LESS_TO_TRAIN):
            self.model, self._objective = _network_and_objective(settings, stores, options, processes)
            self._average = moving_average(self.model, self.config.ema)
            self._optimiser = make_optimiser(self.model, self.config)
        self.step = 0
        self._loss = self._rate = self._gradient_norm = math.nan
        self._clock = _Clock()
        if resume:
            self._load_state()
        processes.check_alike({**self._record, "step": self.step})
        self._network = self._trained_network()
        if processes.is_main:
            self._folder.claim()
            write_toml(self._folder.config, {**settings.to_toml(), **_named(stores)})
            self._folder.describe({**self._record, "parameters": self._count()}, self.step)
            self._folder.forget_after(self.step)

    def _trained_network(self) -> nn.Module:
        wrapped = self._processes.wrapped(self.model, bool(self.model.unused_parameters(self.config.loss)))
        return cast(nn.Module, torch.compile(wrapped)) if self._options.compile else wrapped

    def _count(self) -> dict[str, int]:
        return {"numbers": sum(p.numel() for p in self.model.parameters()), "float32_bytes": float32_bytes(self.model)}

    @property
    def description(self) -> str:
        """One line about the run: sizes of the network, the data and the run."""
        count, validated, world = self._count(), len(self._validation.yaw), self._processes.world
        steps, processes = f"step{'s' * (self.steps != 1)}", f"process{'es' * (world != 1)}"
        return (
            f"{count['numbers']:,} parameters, {count['float32_bytes'] / 1e6:.1f} MB; {len(self._train_names):,} faces "
            f"to train on and {validated:,} to validate on; {self.steps:,} {steps} of {self.config.batch}, "
            f"{self.steps_per_epoch:,} an epoch; {self._processes.device}, {world} {processes}"
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
        p, c, self._clock = self._processes, self.config, _Clock()
        training = f"at a batch of {c.batch} crops of {self._size} pixels"
        validating = f"validating {c.validation_batch} crops of {self._size} pixels"
        with deferred_interrupts() as interrupted:
            before = time.perf_counter()
            for batch in self._batches.loader(self.step, self.steps, self._options.workers, p.rank, p.world):
                arrived = time.perf_counter()
                with memory_explained(training, LESS_TO_TRAIN):
                    stop = self._train_step(batch, interrupted.is_set())
                self._clock.add(c.batch, arrived - before, time.perf_counter() - arrived)
                validation = None
                if self.step % (c.validate_every or self.steps_per_epoch) == 0 or self.step == self.steps:
                    with memory_explained(validating, LESS_TO_VALIDATE):
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

    def _train_step(self, batch: Batch, interrupted: bool) -> bool:
        """Make one step of the optimiser; returns whether any process was interrupted."""
        c, device = self.config, self._processes.device
        self.model.train(c.learned == "all")  # batch norms keep their statistics where the landmarks are to stay
        self._rate = learning_rate_at(self.step, c, self.steps, self.steps_per_epoch)
        for group in self._optimiser.param_groups:
            group["lr"] = self._rate
        labels = Batch(*(part.to(device, non_blocking=True) for part in batch))
        images = image_tensor(labels.crops)
        with torch.autocast(device.type, torch.bfloat16) if c.precision == "bf16" else nullcontext():
            output = self._network(images)
        loss = self._objective(output, labels, images)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        length = nn.utils.clip_grad_norm_(self.model.parameters(), c.gradient_norm or math.inf)
        shared = self._processes.sum(torch.stack([loss.detach(), loss.new_tensor(float(interrupted))]))
        total, stop, norm = torch.cat([shared, length.reshape(1)]).tolist()  # once, for a GPU has to finish for it
        if not (math.isfinite(total) and math.isfinite(norm)):
            names = self._train_names[batch.rows.numpy()]
            raise_divergence(batch, names, loss.item(), norm, self.step, self._folder, self._processes)
        self._optimiser.step()
        self.step += 1
        self._average.update_parameters(self.model)
        self._gradient_norm = norm
        mean = total / self._processes.world
        self._loss = mean if math.isnan(self._loss) else 0.99 * self._loss + 0.01 * mean
        return stop > 0

    def _validate(self) -> dict[str, float]:
        result = self._validation.run(self.averaged, self.settings.arch, {**self._record, "step": self.step})
        self._save_state()  # after the best score is known, or a resume would forget it
        return result

    def _report(self, validation: dict[str, float] | None, report: Callable[[TrainProgress], None]) -> None:
        clock, is_due = self._clock, validation is not None or self.step % _REPORT_EVERY == 0
        if self._processes.is_main and is_due:
            row = {
                "step": self.step,
                "epoch": round(self.step / self.steps_per_epoch, 3),
                "loss": self._loss,
                "learning_rate": self._rate,
                "gradient_norm": self._gradient_norm,
                "samples_per_second": round(clock.speed, 1),
                "waiting": round(clock.waiting, 4),
            }
            self._folder.add_row(row if validation is None else {**row, "validation": validation})
            if validation is not None:
                self._folder.draw_learning_curve(min(self.config.warmup, self.steps // 10))
        report(TrainProgress(self.step, self._loss, clock.speed, clock.waiting, validation))
        if is_due:
            self._clock = _Clock()

    def _save_state(self) -> None:
        self._processes.share_statistics(self.model)
        if not self._processes.is_main:
            return
        best = self._validation.best
        record = {
            "run": self._record,
            "step": self.step,
            "best": best if math.isfinite(best) else None,
            "loss": self._loss if math.isfinite(self._loss) else None,
        }
        save_state(self._folder.state, self._modules(), self._optimiser, record)

    def _load_state(self) -> None:
        path = self._folder.state
        tensors, state = read_state(path)
        with damage_explained(path):
            check_same_run(state["run"], self._record, self._folder.path)
            restore(tensors, self._modules(), self._optimiser)
            self._record["initial"] = state["run"]["initial"]  # a resume need not name it
            self.step = state["step"]
            if type(self.step) is not int or self.step < 0:
                raise ValueError(f"step {self.step!r}")
            self._validation.best = math.inf if state["best"] is None else float(state["best"])
            self._loss = math.nan if state["loss"] is None else float(state["loss"])
        if self.step > self.steps:
            raise InputError(
                f"{self._folder.path}: is at step {self.step:,} of {self.steps:,}", "raise --steps or --epochs"
            )

    def _modules(self) -> dict[str, nn.Module]:
        return {"model": self.model, "average": self._average}


def _network_and_objective(
    settings: RunSettings, stores: list[tuple[FaceStore, float]], options: RunOptions, processes: Processes
) -> tuple[Network, Objective]:
    """The network before its first step and the loss that it is to minimise, on the process's device."""
    network, device = settings.network, processes.device
    face_model = find_face_model(stores, options.face_model) if network.needs_face_model else None
    teacher = None
    if options.teacher is not None:
        teacher = Teacher(options.teacher, options.face_model or face_model_beside(stores))
    model = new_network(settings, stores, face_model, options.initial)
    if settings.training.learned == "doubts":
        for name, weight in model.named_parameters():
            weight.requires_grad_(name.startswith(model.doubts_weights))
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in the annotations
    objective = Objective(settings.training, network.input_size, face_model, teacher).to(device)
    return cast(Network, processes.prepared(model)), objective


def _named(stores: list[tuple[FaceStore, float]]) -> dict[str, list[str]]:
    """The data as a settings file names it, also where it was every store of the default folder."""
    names = [f"{store.path}" if weight == 1 else f"{store.path}={weight:g}" for store, weight in stores]
    return {"data": names} if all(name.isprintable() for name in names) else {}  # no TOML file can hold the others
