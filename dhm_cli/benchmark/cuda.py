"""A CUDA device: what it is, its clock, and its limit, the speed of a large matrix product."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

# A product of two square matrices of this side keeps every multiprocessor busy.
_MATRIX_SIDE = 8192
_PRODUCTS = 10


@dataclass(frozen=True)
class CudaMachine:
    """A CUDA device and its libraries.

    Attributes:
        name: of the device.
        memory_bytes: all its memory.
        compute_capability: such as "9.0".
        multiprocessors: how many.
        cuda: version that torch was built with.
        cudnn: version.
        driver: first line of what the kernel reports about NVIDIA's driver; None where unknown.
        cudnn_allow_tf32: whether convolutions in float32 may compute in TF32.
        matrix_product_flops: floating-point operations a second of a large matrix product, by "float32" and "float16".
    """

    name: str
    memory_bytes: int
    compute_capability: str
    multiprocessors: int
    cuda: str | None
    cudnn: int | None
    driver: str | None
    cudnn_allow_tf32: bool
    matrix_product_flops: dict[str, float]


def event_stopwatch(call: Callable[[], object]) -> int:
    """Nanoseconds of a call on an idle device between two events on the current stream.

    Gaps in which the device waits for the CPU to start kernels are included.
    """
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()  # or work that waits already would hide such gaps
    start.record()
    call()
    end.record()
    end.synchronize()
    return round(start.elapsed_time(end) * 1e6)


def cuda_machine() -> CudaMachine:
    """Describe the current CUDA device and measure its matrix products.

    Raises:
        RuntimeError: the device cannot compute, such as for want of memory.
    """
    limits = {"float32": matrix_product_flops(half=False), "float16": matrix_product_flops(half=True)}
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return CudaMachine(
        name=properties.name,
        memory_bytes=properties.total_memory,
        compute_capability=f"{properties.major}.{properties.minor}",
        multiprocessors=properties.multi_processor_count,
        cuda=torch.version.cuda,
        cudnn=torch.backends.cudnn.version(),
        driver=_driver(),
        cudnn_allow_tf32=torch.backends.cudnn.allow_tf32,
        matrix_product_flops=limits,
    )


def matrix_product_flops(half: bool) -> float:
    """Floating-point operations a second of a large matrix product, best of several.

    Args:
        half: float16; else float32 as cuDNN's convolutions have it, in TF32 where the device and torch's settings
            allow that.
    """
    dtype = torch.float16 if half else torch.float32
    matrix = torch.randn(_MATRIX_SIDE, _MATRIX_SIDE, device="cuda", dtype=dtype)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    try:
        for _ in range(2):
            matrix @ matrix
        best = min(event_stopwatch(lambda: matrix @ matrix) for _ in range(_PRODUCTS))
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    return 2.0 * _MATRIX_SIDE**3 / (best / 1e9)


def _driver() -> str | None:
    """First line of what the kernel reports about NVIDIA's driver, on Linux."""
    try:
        with open("/proc/driver/nvidia/version", encoding="utf-8") as file:
            return file.readline().strip()
    except OSError:
        return None
