"""Costs of a network apart from time: parameters, multiplications, bytes."""

import zlib
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dhm_cli.benchmark.measured_networks import MeasuredNetwork
from dhm_cli.models.registry import float32_bytes


@dataclass(frozen=True)
class Costs:
    """Costs of a network that do not depend on the machine; None is unknown.

    Attributes:
        parameters: learned numbers; of a lone ONNX file all its numbers.
        macs: multiply-accumulate operations of one face, in convolutions and matrix products, as the network runs.
        float32_bytes: see `registry.float32_bytes`.
        file_bytes: of its ONNX file where there is one, else of its checkpoint, else of the ONNX file that is exported.
        compressed_bytes: of that file after zlib at level 9.
        sized_file: which file that is.
    """

    parameters: int | None = None
    macs: int | None = None
    float32_bytes: int | None = None
    file_bytes: int | None = None
    compressed_bytes: int | None = None
    sized_file: str | None = None

    def with_file(self, data: bytes, name: str) -> "Costs":
        """The same costs, with the sizes of a file."""
        return replace(self, file_bytes=len(data), compressed_bytes=len(zlib.compress(data, 9)), sized_file=name)


def costs(network: MeasuredNetwork) -> Costs:
    """Count what a network costs; sizes only where it has a file."""
    found = Costs()
    if network.model is not None and network.network is not None:
        found = Costs(
            parameters=sum(parameter.numel() for parameter in network.model.parameters()),
            macs=multiplications(network.network, torch.from_numpy(network.inputs(1))),
            float32_bytes=float32_bytes(network.model),
        )
    elif network.onnx_file is not None:
        found = Costs(parameters=_onnx_numbers(network.onnx))
    file = network.onnx_file or network.file
    return found if file is None else found.with_file(file.read_bytes(), file.name)


def multiplications(network: nn.Module, inputs: torch.Tensor) -> int:
    """Multiply-accumulate operations of a call in convolutions and matrix products, counted by torch."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(inputs)
    return int(counter.get_total_flops()) // 2


def _onnx_numbers(data: bytes) -> int:
    import onnx

    return sum(int(torch.tensor(tensor.dims).prod()) for tensor in onnx.load_from_string(data).graph.initializer)
