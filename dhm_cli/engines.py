"""Trained networks behind one call, crops in and landmarks out: ONNX Runtime on the CPU, torch on a GPU."""

import hashlib
import importlib.resources
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dhm_cli.data.crop import Square, crop_matrix, extract_crop, invert_matrix, transform_landmarks
from dhm_cli.errors import DhmError, FormatError, InputError
from dhm_cli.landmarks import NUM_LANDMARKS

if TYPE_CHECKING:
    if sys.version_info >= (3, 11):
        from importlib.resources.abc import Traversable
    else:
        from importlib.abc import Traversable

    from onnxruntime import InferenceSession

FORMAT_VERSION = 1
METADATA_KEY = "dhm"
# Crops per call of the network, so that memory stays flat for a photo of a thousand people.
MAX_BATCH = 64

_ONNX_WEIGHTS = "weights/fast.onnx"
_TORCH_WEIGHTS = "weights/fast.safetensors"
_EXPORT_AGAIN = "write the file again with `dhm export`, by this version of dhm"
_NEXT_STEP = "give a network that dhm wrote, or none for the one that comes with the package"


class Engine(Protocol):
    """A trained network, ready to run.

    Attributes:
        arch: name of the architecture.
        input_size: side S of the crops, pixels.
        mean_shape: (68, 3) float64, frontal reference shape, x right, y down, z toward the viewer, any unit.
        weights_hash: short SHA-256 of the file of the weights.
    """

    arch: str
    input_size: int
    mean_shape: NDArray[np.float64]
    weights_hash: str

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Landmarks of face crops.

        Args:
            crops: (B, S, S, 3) uint8 RGB; B may be 0.

        Returns:
            (B, 68, 3) float32, 0-based crop pixels, x right, y down, z in the same unit toward the viewer, about zero.
        """
        ...


class OnnxEngine:
    """Run an exported network with ONNX Runtime on the CPU; see `Engine`. Safe to call from several threads.

    Args:
        path: an ONNX file written by dhm; None for the one that comes with the package.
        threads: CPU threads of one call; None for one, which is fastest for a few faces at a time.

    Raises:
        InputError: the file cannot be read.
        FormatError: the file is damaged or was not written by dhm.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, threads: int | None = None) -> None:
        name, data = _read_weights(path, _ONNX_WEIGHTS)
        self.weights_hash = _hash(data)
        self._session = onnx_session(data, name, threads or 1)
        text = self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        if text is None:
            raise FormatError(
                f"{name}: an ONNX network, but not one written by dhm (no '{METADATA_KEY}' metadata)",
                hint=f"{_NEXT_STEP}; `dhm export` makes one from a checkpoint",
            )
        try:
            metadata = json.loads(text)
        except ValueError as error:
            raise FormatError(
                f"{name}: the '{METADATA_KEY}' metadata is not JSON: {error}", hint=_EXPORT_AGAIN
            ) from error
        self.arch, self.input_size, self.mean_shape = _parse_metadata(metadata, name)
        self._check_graph(name)

    def _check_graph(self, name: str) -> None:
        size = self.input_size
        inputs = [(node.name, node.type, list(node.shape[1:])) for node in self._session.get_inputs()]
        outputs = [(node.name, node.type, list(node.shape[1:])) for node in self._session.get_outputs()]
        if inputs != [("crops", "tensor(uint8)", [size, size, 3])]:
            raise FormatError(
                f"{name}: expected one input crops uint8 (B, {size}, {size}, 3), found {inputs}", hint=_EXPORT_AGAIN
            )
        if outputs != [("landmarks", "tensor(float)", [NUM_LANDMARKS, 3])]:
            raise FormatError(
                f"{name}: expected one output landmarks float32 (B, 68, 3), found {outputs}", hint=_EXPORT_AGAIN
            )

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Engine`."""
        return _in_batches(lambda part: run_session(self._session, ["landmarks"], crops=part)[0], crops)


class TorchEngine:
    """Run a checkpoint with torch; see `Engine`. Safe to call from several threads.

    Args:
        path: a checkpoint written by dhm; None for the one that comes with the package.
        device: a torch device, such as "cuda" or "cpu".
        face_model: file of the face model, as `dhm prepare` wrote it; read for networks that regress its parameters
            and for no others.

    Raises:
        InputError: a file cannot be read, or the face model is missing or not the one the network was trained with.
        FormatError: a file is damaged or was not written by dhm.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        device: str = "cuda",
        face_model: str | os.PathLike[str] | None = None,
    ) -> None:
        from dhm_cli.checkpoint import load_checkpoint

        basis = None if face_model is None else Path(face_model)
        with importlib.resources.as_file(_packaged(_TORCH_WEIGHTS)) as packaged:
            file = packaged if path is None else Path(path)
            model, metadata = load_checkpoint(file, basis)
            self.weights_hash = _hash(file.read_bytes())
        self.arch = str(metadata["arch"])
        self.input_size = model.config.input_size
        self.mean_shape = model.get_buffer("mean_shape").numpy().astype(np.float64)
        self._device = device
        self._model = model.to(device).eval()

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Engine`."""
        return _in_batches(self._run, crops)

    def _run(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        import torch

        from dhm_cli.models.input import image_tensor

        with torch.inference_mode():
            images = image_tensor(torch.from_numpy(crops).to(self._device))
            landmarks: NDArray[np.float32] = self._model(images).landmarks[:, -1].float().cpu().numpy()
        return landmarks


def onnx_session(model: bytes, name: str, threads: int = 1) -> "InferenceSession":
    """A network ready to run in ONNX Runtime on the CPU.

    Args:
        model: content of an ONNX file.
        name: its name, for the message.
        threads: CPU threads of one call.

    Raises:
        FormatError: it is not an ONNX network.
    """
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
        raise FormatError(f"{name}: not an ONNX network: {str(error).strip()}", hint=_NEXT_STEP) from error


def run_session(session: "InferenceSession", outputs: list[str], **inputs: NDArray[Any]) -> list[NDArray[np.float32]]:
    """Run a network of `onnx_session` on inputs of the right shapes.

    Raises:
        MemoryError: there is not enough memory, which ONNX Runtime tells in words only.
    """
    from onnxruntime.capi import onnxruntime_pybind11_state as problems

    try:
        return session.run(outputs, inputs)
    except (problems.Fail, problems.RuntimeException) as error:
        raise MemoryError(str(error)) from error


def landmarks_in_squares(
    engine: Engine, photos: Sequence[NDArray[np.uint8]], squares: Sequence[Square]
) -> NDArray[np.float64]:
    """One pass of a network over squares of photos.

    Args:
        engine: the network.
        photos: B, each (H, W, 3) uint8 RGB, the same object for several faces of one photo.
        squares: B, centre and side, photo pixels.

    Returns:
        (B, 68, 3), photo pixels; z in the same unit toward the viewer.
    """
    size = engine.input_size
    # A collapsed shape would give a square without area.
    matrices = [crop_matrix(centre, max(side, 1.0), size) for centre, side in squares]
    crops = [extract_crop(photo, matrix, size) for photo, matrix in zip(photos, matrices, strict=True)]
    found = engine(np.stack(crops) if crops else np.empty((0, size, size, 3), np.uint8))
    back = [transform_landmarks(points, invert_matrix(matrix)) for points, matrix in zip(found, matrices, strict=True)]
    return np.stack(back) if back else np.empty((0, NUM_LANDMARKS, 3))


def load_engine(
    device: str = "auto",
    weights: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    face_model: str | os.PathLike[str] | None = None,
) -> Engine:
    """Load a network for a device.

    "auto" takes the GPU where an NVIDIA driver is present and torch is installed with CUDA. Else it takes the CPU, and
    where there is no driver without importing torch. ONNX Runtime runs the packaged network on the CPU, torch on a GPU.

    Args:
        device: "auto", "cpu" or "cuda".
        weights: a file written by dhm, .onnx (CPU only) or .safetensors; None for the packaged network.
        threads: CPU threads of one call in ONNX Runtime; None for one.
        face_model: see `TorchEngine`; an ONNX file needs none.

    Raises:
        InputError: `device` is unknown, or asks for what `weights` cannot do; the face model that `weights` need is
            missing or another one.
        DhmError: "cuda" is asked for and missing.
        FormatError: the weights or the face model are damaged or foreign.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"unknown device {device!r}", hint="known are auto, cpu and cuda")
    suffix = Path(weights).suffix.lower() if weights is not None else ""
    if suffix == ".onnx" and device == "cuda":
        raise InputError(f"{weights}: an ONNX file runs on the CPU", hint="pass --device cpu, or a .safetensors file")
    use_cuda = suffix != ".onnx" and (device == "cuda" or (device == "auto" and _nvidia_driver_present()))
    if use_cuda:
        problem = _cuda_problem()
        if device == "cuda" and problem:
            raise DhmError(f"device cuda cannot be used: {problem}", hint="pass --device cpu")
        use_cuda = not problem
    if use_cuda or suffix == ".safetensors":
        return TorchEngine(weights, "cuda" if use_cuda else "cpu", face_model)
    return OnnxEngine(weights, threads)


def _nvidia_driver_present() -> bool:
    return os.path.exists("/proc/driver/nvidia/version") or shutil.which("nvidia-smi") is not None


def _cuda_problem() -> str:
    """Why torch cannot use CUDA here; empty when it can. Imports torch."""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed"
    import torch

    return "" if torch.cuda.is_available() else f"torch {torch.__version__} finds no CUDA device"


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _packaged(name: str) -> "Traversable":
    return importlib.resources.files("dhm_cli").joinpath(name)


def _read_weights(path: str | os.PathLike[str] | None, packaged: str) -> tuple[str, bytes]:
    source = _packaged(packaged) if path is None else Path(path)
    try:
        return str(source), source.read_bytes()
    except OSError as error:
        hint = "install dhm-cli again" if path is None else _NEXT_STEP
        raise InputError(f"{source}: cannot be read: {error.strerror or error}", hint=hint) from error


def _parse_metadata(metadata: Any, name: str) -> tuple[str, int, NDArray[np.float64]]:
    """Architecture, input size and mean shape from what an ONNX file says about itself."""
    if not isinstance(metadata, Mapping):
        raise FormatError(f"{name}: the metadata is not a JSON object", hint=_EXPORT_AGAIN)
    version = metadata.get("format_version")
    if version != FORMAT_VERSION:
        raise FormatError(f"{name}: format version {version}, this dhm reads {FORMAT_VERSION}", hint=_EXPORT_AGAIN)
    try:
        arch, size = str(metadata["arch"]), int(metadata["input_size"])
        mean_shape = np.array(metadata["mean_shape"], dtype=np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{name}: the metadata lacks or garbles {error}", hint=_EXPORT_AGAIN) from error
    if size < 1 or mean_shape.shape != (NUM_LANDMARKS, 3) or not np.isfinite(mean_shape).all():
        raise FormatError(
            f"{name}: expected input_size > 0 and mean_shape (68, 3), found {size}, {mean_shape.shape}",
            hint=_EXPORT_AGAIN,
        )
    return arch, size, mean_shape


def _in_batches(
    run: Callable[[NDArray[np.uint8]], NDArray[np.float32]], crops: NDArray[np.uint8]
) -> NDArray[np.float32]:
    if len(crops) == 0:
        return np.zeros((0, NUM_LANDMARKS, 3), dtype=np.float32)
    parts = [run(crops[start : start + MAX_BATCH]) for start in range(0, len(crops), MAX_BATCH)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
