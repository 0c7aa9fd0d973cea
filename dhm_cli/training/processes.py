"""Many processes that train one network: torchrun and DistributedDataParallel, or one process alone."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from dhm_cli.errors import DhmError, InputError


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        rank: number of this process.
        world: how many there are.
        device: where this process computes.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run folder."""
        return self.rank == 0

    def wrapped(self, model: nn.Module) -> nn.Module:
        """The network, made to average its gradients over the processes where there are several."""
        if self.world == 1:
            return model
        ids = [self.device.index] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=ids)

    def prepared(self, model: nn.Module) -> nn.Module:
        """The network with batch norms that see the whole batch, where the devices can share them (CUDA)."""
        if self.world > 1 and self.device.type == "cuda":
            return nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return model

    def sum(self, values: Tensor) -> Tensor:
        """Sum of a tensor over the processes."""
        if self.world > 1:
            values = values.to(self.device)
            distributed.all_reduce(values)
        return values

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, in order of their ranks."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        distributed.all_gather_object(values, value)
        return values

    def share_buffers(self, model: nn.Module) -> None:
        """Give every process the main one's buffers: running means of batch norms, which each has of its own share."""
        if self.world > 1:
            for buffer in model.buffers():
                distributed.broadcast(buffer, 0)


@contextmanager
def joined_processes(device: str) -> Iterator[Processes]:
    """Join the processes that torchrun started, with nccl on GPUs and gloo on CPUs; alone without torchrun.

    Args:
        device: "auto" takes a GPU where there is one; else "cpu", "cuda" or "cuda:1".

    Raises:
        InputError: an unknown device.
        DhmError: there is no such device.
    """
    rank, world, local = (int(os.environ.get(name, default)) for name, default in _TORCHRUN)
    place = _device(device, local if world > 1 else None)
    if world == 1:
        yield Processes(0, 1, place)
        return
    if place.type == "cuda":
        torch.cuda.set_device(place)
    distributed.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield Processes(rank, world, place)
    finally:
        distributed.destroy_process_group()


_TORCHRUN = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))


def _device(name: str, local_rank: int | None) -> torch.device:
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
    index = local_rank if local_rank is not None else device.index or 0
    if index >= torch.cuda.device_count():
        raise DhmError(
            f"--device {name}: process {index} has no GPU of its own, there are {torch.cuda.device_count()}",
            "start torchrun with --nproc-per-node at most the number of GPUs",
        )
    return torch.device("cuda", index)
