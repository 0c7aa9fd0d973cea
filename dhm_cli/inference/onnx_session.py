"""Networks in ONNX Runtime on the CPU: no other module runs networks with it, but for the benchmark."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dhm_cli.errors import DhmError, FormatError
from dhm_cli.inference.external_data import refuse_external_data
from dhm_cli.inference.weights import GIVE_ANOTHER

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


def onnx_session(model: bytes, name: str, threads: int = 1) -> "InferenceSession":
    """A network ready to run in ONNX Runtime on the CPU.

    Args:
        model: content of an ONNX file.
        name: its name, for the message.
        threads: CPU threads of one call.

    Raises:
        FormatError: it is not an ONNX network, or not whole, see `refuse_external_data`.
    """
    refuse_external_data(model, name)
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as problems

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except (
        *(problems.Fail, problems.InvalidArgument, problems.InvalidGraph, problems.InvalidProtobuf),
        *(problems.NoModel, problems.NotImplemented, problems.RuntimeException),
    ) as error:
        raise FormatError(f"{name}: not an ONNX network: {str(error).strip()}", hint=GIVE_ANOTHER) from error


def run_session(session: "InferenceSession", outputs: list[str], **inputs: NDArray[Any]) -> list[NDArray[np.float32]]:
    """Run a network of `onnx_session` on inputs of the right shapes.

    Raises:
        MemoryError: there is not enough memory, which ONNX Runtime says in the text of its error only.
        DhmError: it cannot run the network for another reason.
    """
    from onnxruntime.capi import onnxruntime_pybind11_state as problems

    try:
        return session.run(outputs, inputs)
    except (problems.Fail, problems.RuntimeException) as error:
        text = " ".join(str(error).split())
        if "alloc" in text.lower() or "memory" in text.lower():
            raise MemoryError(text) from error
        raise DhmError(f"ONNX Runtime cannot run the network: {text}", "try another version of onnxruntime") from error


def providers() -> list[str]:
    """What this build of ONNX Runtime can run networks on, such as CPUExecutionProvider."""
    import onnxruntime

    return list(onnxruntime.get_available_providers())
