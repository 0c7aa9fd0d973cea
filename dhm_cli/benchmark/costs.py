"""What a network costs apart from time: parameters, multiplications, bytes."""

import zlib
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dhm_cli.benchmark.networks import Subject
from dhm_cli.models.registry import float32_bytes


def costs(subject: Subject) -> dict[str, Any]:
    """Costs of a network that do not depend on the machine; None is unknown.

    Returns:
        parameters, learned numbers, of a lone ONNX file all its numbers; macs, of one face as it is run, in
        convolutions and matrix products; float32_bytes, see `registry.float32_bytes`; file_bytes and compressed_bytes,
        of its ONNX file where there is one, else of its checkpoint, and the former after zlib at level 9.
    """
    result: dict[str, Any] = dict.fromkeys(
        ("parameters", "macs", "float32_bytes", "file_bytes", "compressed_bytes", "sized_file")
    )
    if subject.model is not None and subject.network is not None:
        result["parameters"] = sum(parameter.numel() for parameter in subject.model.parameters())
        result["macs"] = multiplications(subject.network, torch.from_numpy(subject.inputs(1)))
        result["float32_bytes"] = float32_bytes(subject.model)
    elif subject.onnx_file is not None:
        result["parameters"] = _onnx_numbers(subject.onnx)
    file = subject.onnx_file or subject.file
    if file is not None:
        result |= sizes(file.read_bytes()) | {"sized_file": file.name}
    return result


def multiplications(network: nn.Module, inputs: torch.Tensor) -> int:
    """Multiply-accumulate operations of a call in convolutions and matrix products, counted by torch as it runs."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(inputs)
    return int(counter.get_total_flops()) // 2


def sizes(data: bytes) -> dict[str, int]:
    """Bytes of a file's content, as it is and compressed with zlib at level 9."""
    return {"file_bytes": len(data), "compressed_bytes": len(zlib.compress(data, 9))}


def _onnx_numbers(data: bytes) -> int:
    import onnx

    return sum(int(torch.tensor(tensor.dims).prod()) for tensor in onnx.load_from_string(data).graph.initializer)
