"""Many processes that train one network: torchrun and DistributedDataParallel, or one process alone."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from dhm_cli.errors import DhmError, InputError

# How long the processes wait for each other: to come up, and at work, where one may write a large state to a slow disk.
_JOIN_TIMEOUT = timedelta(minutes=5)
_WORK_TIMEOUT = timedelta(minutes=10)
# How long the other processes wait for the one that reports an error: torchrun ends all as soon as one has ended.
_LAST_WORDS = timedelta(seconds=5)
_ALONE = "start with torchrun; for one process unset RANK and WORLD_SIZE"


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        rank: number of this process.
        world: how many there are.
        device: where this process computes.
        neighbours: how many of them run on this machine, this one included.
    """

    rank: int
    world: int
    device: torch.device
    neighbours: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run folder."""
        return self.rank == 0

    def wrapped(self, model: nn.Module, unused: bool = False) -> nn.Module:
        """Make a network average its gradients over the processes, where there are several.

        Every process starts from the main one's weights.

        Args:
            model: the network, on its device.
            unused: whether the loss does not depend on some of its parameters. The processes would wait for their
                gradients.
        """
        if self.world == 1:
            return model
        ids = [self.device.index] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=ids, find_unused_parameters=unused)

    def prepared(self, model: nn.Module) -> nn.Module:
        """Make batch norms see the whole batch, on CUDA devices.

        torch has no such batch norms for CPUs: there each process normalises its own share of the batch.
        """
        if self.world > 1 and self.device.type == "cuda":
            return nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return model

    def check_batch(self, batch: int) -> None:
        """Raise an InputError where the processes cannot share a batch evenly."""
        if batch % self.world:
            raise InputError(
                f"a batch of {batch} cannot be shared by {self.world} processes",
                f"choose a --batch that is a multiple of {self.world}",
            )

    def check_alike(self, mine: dict[str, Any]) -> None:
        """Raise an InputError where the processes' runs differ: their networks would drift apart, or wait for ever.

        Args:
            mine: what this process trains, and the step that it starts from.
        """
        if any(other != mine for other in self.gather(mine)):
            raise InputError(
                "the processes differ in their settings, their stores or the state that they resume",
                "start all with one command, and put stores and run folder where every machine sees them",
            )

    def sum(self, values: Tensor) -> Tensor:
        """Sum of a tensor over the processes."""
        if self.world > 1:
            values = values.to(self.device, copy=True)
            distributed.all_reduce(values)
        return values

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, in order of their ranks."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        distributed.all_gather_object(values, value)
        return values

    def share_statistics(self, model: nn.Module) -> None:
        """Give every process the main one's running statistics of batch norms; each has those of its own share.

        They are not averaged: so it does not matter how often they are shared, and a resume stays exact.
        """
        if self.world > 1:
            for name, buffer in model.named_buffers():
                if name.endswith(("running_mean", "running_var")):
                    distributed.broadcast(buffer, 0)


@contextmanager
def joined_processes(device: str) -> Iterator[Processes]:
    """Join the processes that torchrun started, with nccl on GPUs and gloo on CPUs; alone without torchrun.

    Only the first process that fails reports its error. The others wait a little for its message, then end with its
    exit code and without one. Ctrl-C reaches them all; the main one reports it.

    Args:
        device: "auto" takes a GPU where there is one; else "cpu", "cuda" or "cuda:1".

    Raises:
        InputError: an unknown device, or an environment that names processes that are not there.
        DhmError: there is no such device, or another process died.
        SystemExit: another process reports the error.
    """
    rank, world, local, neighbours = _places()
    if world == 1:
        place = _device(device, None)
        if place.type == "cuda":
            torch.cuda.set_device(place)  # or the pinned memory would belong to the first GPU
        yield Processes(0, 1, place)
        return
    store = _meeting_point(rank, world)
    try:
        place = _device(device, local)
        _connect(place, store, rank, world)
        yield Processes(rank, world, place, neighbours)
    except KeyboardInterrupt:
        if rank == 0:
            store.set("interrupted", "")
            raise
        _wait_for(store, "interrupted")
        raise SystemExit(130) from None
    except Exception as error:
        # The group is left as it is: to dissolve it, nccl would wait for processes that may never come.
        if not _is_first_failure(store):
            time.sleep(_LAST_WORDS.total_seconds())
            raise SystemExit(1) from error
        if _is_broken_connection(error):
            raise DhmError(
                f"another process ended, or did not answer for {_WORK_TIMEOUT.seconds // 60} minutes",
                "look for what the system says of it, such as memory that did not suffice; then --resume",
            ) from error
        raise
    distributed.destroy_process_group()


def may_be_restarted() -> bool:
    """Whether torchrun starts the processes again when one ends (`--max-restarts`); in all processes alike.

    That it has done so, `TORCHELASTIC_RESTART_COUNT` tells only on the machine where the process ended.
    """
    return os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0"


def _places() -> tuple[int, int, int, int]:
    """Rank, world size, local rank and local world size from torchrun's variables."""
    if "WORLD_SIZE" not in os.environ:
        if "RANK" in os.environ:
            raise InputError(f"RANK is {os.environ['RANK']}, but WORLD_SIZE is not set", _ALONE)
        return 0, 1, 0, 1
    world = _number("WORLD_SIZE", 1)
    rank = _number("RANK", 0)
    if rank >= world:
        raise InputError(f"RANK is {rank}, but WORLD_SIZE is {world}", _ALONE)
    return rank, world, _number("LOCAL_RANK", 0, rank), _number("LOCAL_WORLD_SIZE", 1, world)


def _number(variable: str, least: int, default: int | None = None) -> int:
    text = os.environ.get(variable, "" if default is None else str(default))
    if not text.isdecimal() or int(text) < least:
        raise InputError(f"{variable} is {text!r}: expected a number from {least}", _ALONE)
    return int(text)


def _meeting_point(rank: int, world: int) -> Store:
    """The key-value store of all processes, at MASTER_ADDR and MASTER_PORT."""
    try:
        store, _, _ = next(rendezvous("env://", timeout=_JOIN_TIMEOUT))
    except (ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"process {rank} of {world} did not find the others: {reason}", _ALONE) from error
    return PrefixStore("dhm", store)


def _connect(place: torch.device, store: Store, rank: int, world: int) -> None:
    on_gpu = place.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(place)
    distributed.init_process_group(
        "nccl" if on_gpu else "gloo",
        store=store,
        rank=rank,
        world_size=world,
        timeout=_WORK_TIMEOUT,
        device_id=place if on_gpu else None,
    )
    # One that went on and failed while another still connects would make that one's library report it too.
    store.set(f"connected {rank}", "")
    store.wait([f"connected {other}" for other in range(world)], _JOIN_TIMEOUT)


def _is_first_failure(store: Store) -> bool:
    try:
        return store.add("failures", 1) == 1
    except RuntimeError:  # the process that held the store is gone
        return True


def _wait_for(store: Store, key: str) -> None:
    try:
        store.wait([key], _LAST_WORDS)
    except RuntimeError:  # it did not come, or the store is gone
        return


def _is_broken_connection(error: Exception) -> bool:
    # gloo's errors have no type of their own, but name its files.
    return isinstance(error, distributed.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def _device(name: str, local_rank: int | None) -> torch.device:
    """The device of that name; with a local rank, the GPU of that number for "cuda"."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"--device {name}: no device of that name", "known are auto, cpu, cuda and cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"--device {name}: not supported", "known are auto, cpu, cuda and cuda:N")
    if device.type == "cpu":
        return device
    if not torch.cuda.is_available():
        raise DhmError(f"--device {name}: torch {torch.__version__} finds no CUDA device", "pass --device cpu")
    if local_rank is not None and device.index is not None:
        raise InputError(f"--device {name}: one GPU for many processes", "pass --device cuda: each takes its own")
    index = device.index or 0 if local_rank is None else local_rank
    count = torch.cuda.device_count()
    if index >= count and local_rank is not None:
        raise DhmError(
            f"process {index} of this machine has no GPU of its own: there are {count}",
            f"start torchrun with --nproc-per-node of at most {count}",
        )
    if index >= count:
        raise DhmError(f"--device {name}: there are {count} CUDA devices", f"name one from cuda:0 to cuda:{count - 1}")
    return torch.device("cuda", index)
