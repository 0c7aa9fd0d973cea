"""What each of two processes does for test_distributed.py."""

import math
import os
from datetime import timedelta
from pathlib import Path

import torch
from real_processes import dhm

from dhm_cli.config.networks import DhmConfig, FastDhmConfig
from dhm_cli.config.run import RunSettings
from dhm_cli.config.training import TrainConfig
from dhm_cli.data.store import FaceStore
from dhm_cli.errors import InputError
from dhm_cli.models.checkpoint import write_tensors
from dhm_cli.training import distributed, run_folder
from dhm_cli.training.distributed import Processes
from dhm_cli.training.objective import Objective
from dhm_cli.training.trainer import RunOptions, Trainer, TrainProgress

TRAINING = TrainConfig(steps=6, batch=8, validate_every=3, warmup=2, ema=0.5, seed=3)
# No batch norm.
DHM = RunSettings("dhm", "best", DhmConfig(input_size=32, channels=(16, 16), hidden=16, steps=2), TRAINING)
SMALL_FAST = FastDhmConfig(
    input_size=32, stem_channels=16, blocks=((16, 2),), recurrent_channels=16, steps=2, head_rank=8
)
FAST = RunSettings("fast", "best", SMALL_FAST, TRAINING)


class Runs:
    """Runs on one store, below one folder.

    Args:
        store: the store.
        face_model: the face model of DHM.
        out: the runs' parent folder.
        processes: this process among others.
    """

    def __init__(self, store: Path, face_model: Path, out: Path, processes: Processes | None = None) -> None:
        self.store, self.face_model, self.out, self.processes = store, face_model, out, processes

    def train(
        self, name: str, settings: RunSettings, resume: bool = False, stop: int | None = None, workers: int = 0
    ) -> list[float]:
        """Train, up to a Ctrl-C after step `stop` if given; the running means of the loss."""
        means: list[float] = []

        def report(progress: TrainProgress) -> None:
            means.append(progress.loss)
            if progress.step == stop:
                raise KeyboardInterrupt

        options = RunOptions(workers, face_model=self.face_model)
        stores = [(FaceStore(self.store), 1.0)]
        trainer = Trainer(settings, stores, self.out / name, options, self.processes, resume)
        try:
            trainer.run(report)
        except KeyboardInterrupt:
            means.append(float("nan"))
        rank = self.processes.rank if self.processes else 0
        networks = {"model": trainer.model, "average": trainer.averaged}
        tensors = {f"{n}.{key}": t for n, network in networks.items() for key, t in network.state_dict().items()}
        write_tensors(self.out / f"{name}_rank_{rank}.safetensors", tensors, {"means": means, "step": trainer.step})
        return means


def train_and_save(store: Path, face_model: Path, out: Path) -> None:
    """The runs of one of two processes, and what it holds after each."""
    _prepare()
    with distributed.joined_processes("cpu") as processes:
        runs = Runs(store, face_model, out, processes)
        runs.train("dhm", DHM, workers=1)
        runs.train("fast", FAST)
        runs.train("from_one", DHM, resume=True)
        runs.train("stopped", DHM, stop=2 if processes.rank == 1 else None)
        other = RunSettings("fast", "best", SMALL_FAST, TrainConfig(batch=8, seed=processes.rank))
        try:
            runs.train("differ", other)
        except InputError as error:
            (out / f"differ_rank_{processes.rank}.txt").write_text(error.message)


def dhm_of_rank(*commands: list[str]) -> None:
    """`dhm` with the command of this process's rank."""
    _prepare()
    dhm(*commands[int(os.environ["RANK"])])


def dhm_with_nan_on_rank_1(*arguments: str) -> None:
    """`dhm`, whose loss is no number in the second process."""
    _prepare()
    if os.environ["RANK"] == "1":
        forward = Objective.forward
        Objective.forward = lambda *values: forward(*values) * math.nan
    dhm(*arguments)


def _prepare() -> None:
    torch.set_num_threads(1)
    run_folder.save_learning_curve = lambda path, rows, warmup: None  # longer than these runs
    distributed._LAST_WORDS = timedelta(seconds=1)  # nothing has to be loaded before they are spoken
