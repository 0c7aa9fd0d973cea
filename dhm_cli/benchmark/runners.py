"""Runners, networks on an engine: ONNX Runtime, OpenVINO, and torch eager, channels last, half or compiled."""

import copy
import importlib
import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dhm_cli.inference.onnx_session import onnx_session

if TYPE_CHECKING:
    from dhm_cli.benchmark.measured_networks import MeasuredNetwork

CPU_ENGINES = ("onnxruntime", "openvino", "torch", "torch-channels-last", "torch-compiled")
CUDA_ENGINES = ("torch", "torch-channels-last", "torch-half", "torch-compiled")


class Runner(Protocol):
    """A network on an engine."""

    def bind(self, inputs: NDArray[Any]) -> Callable[[], object]:
        """A call of the network on inputs that are moved to its device beforehand; its output stays there."""
        ...

    def __call__(self, inputs: NDArray[Any]) -> NDArray[np.float32]:
        """The network's output for some inputs."""
        ...


def default_engines(device: str) -> tuple[str, ...]:
    """The engines that are measured when none is named."""
    if device == "cuda":
        return ("torch", "torch-channels-last", "torch-half")
    found = importlib.util.find_spec("openvino") is not None
    return ("onnxruntime", "openvino", "torch") if found else ("onnxruntime", "torch")


def make_runner(network: "MeasuredNetwork", engine: str, threads: int, device: str = "cpu") -> Runner:
    """Put a network on an engine.

    Args:
        network: the network.
        engine: one of `CPU_ENGINES`, or of `CUDA_ENGINES` for "cuda".
        threads: of a call, on the CPU.
        device: "cpu" or "cuda".

    Raises:
        Exception: whatever the engine raises where it cannot run this network; ValueError for torch and an ONNX file.
    """
    if engine == "onnxruntime":
        return OnnxRunner(network.onnx, threads)
    if engine == "openvino":
        return OpenVinoRunner(network.onnx, threads)
    if network.network is None:
        raise ValueError("torch cannot run an ONNX file; give its checkpoint")
    return TorchRunner(copy.deepcopy(network.network), engine, device)


class OnnxRunner:
    """ONNX Runtime on the CPU.

    Args:
        network: the ONNX file.
        threads: of a call.
    """

    def __init__(self, network: bytes, threads: int) -> None:
        self._session = onnx_session(network, "the network", threads)
        self._input, self._outputs = self._session.get_inputs()[0].name, None  # all of them

    def bind(self, inputs: NDArray[Any]) -> Callable[[], object]:
        """See `Runner`."""
        return lambda: self._session.run(self._outputs, {self._input: inputs})

    def __call__(self, inputs: NDArray[Any]) -> NDArray[np.float32]:
        """See `Runner`."""
        result: NDArray[np.float32] = self._session.run(self._outputs, {self._input: inputs})[0]
        return result


class OpenVinoRunner:
    """OpenVINO on the CPU, in float32: where a processor has bfloat16 it would else take that.

    Args:
        network: the ONNX file.
        threads: of a call.
    """

    def __init__(self, network: bytes, threads: int) -> None:
        openvino = importlib.import_module("openvino")  # no dependency of this package
        core = openvino.Core()
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,  # the process is pinned as a whole
        }
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "network.onnx"
            file.write_bytes(network)
            self._request = core.compile_model(core.read_model(file), "CPU", settings).create_infer_request()

    def bind(self, inputs: NDArray[Any]) -> Callable[[], object]:
        """See `Runner`."""
        return lambda: self._request.infer([inputs], share_inputs=True, share_outputs=True)

    def __call__(self, inputs: NDArray[Any]) -> NDArray[np.float32]:
        """See `Runner`."""
        self._request.infer([inputs], share_inputs=True, share_outputs=True)
        return np.array(self._request.get_output_tensor(0).data)


class TorchRunner:
    """torch, eager or compiled.

    Args:
        network: in evaluation mode; the runner's own from now on.
        engine: "torch", "torch-channels-last", "torch-compiled", or "torch-half": channels last under autocast to
            float16.
        device: "cpu" or "cuda".
    """

    def __init__(self, network: Any, engine: str, device: str) -> None:
        import torch

        self._device, self._half = device, engine == "torch-half"
        self._format = torch.channels_last if engine in ("torch-channels-last", "torch-half") else None
        network = network.to(device)
        if self._format is not None:
            network = network.to(memory_format=self._format)
        if engine == "torch-compiled":
            # Beyond 8 networks and batch sizes of a class, torch would silently go back to eager.
            torch._dynamo.config.cache_size_limit = 1000
            network = torch.compile(network, dynamic=False)
        self._network = network

    def bind(self, inputs: NDArray[Any]) -> Callable[[], object]:
        """See `Runner`."""
        import torch

        tensor = torch.from_numpy(inputs).to(self._device)
        if tensor.is_floating_point():  # as crops lie, which makes the baselines' convolutions a fifth faster
            tensor = tensor.to(memory_format=torch.channels_last)

        def call() -> object:
            with torch.inference_mode(), torch.autocast(self._device, torch.float16, enabled=self._half):
                return self._network(tensor)

        return call

    def __call__(self, inputs: NDArray[Any]) -> NDArray[np.float32]:
        """See `Runner`."""
        result: Any = self.bind(inputs)()
        first = result[0] if isinstance(result, tuple) else result
        output: NDArray[np.float32] = first.float().cpu().numpy()
        return output
