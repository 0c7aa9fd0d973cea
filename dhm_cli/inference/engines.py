"""Trained networks behind one call, crops in and landmarks out: ONNX Runtime on the CPU, torch on a GPU."""

import hashlib
import importlib.util
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dhm_cli.errors import DhmError, FormatError, InputError
from dhm_cli.geometry.crop import Square, crop_matrix, extract_crop, invert_matrix, transform_landmarks
from dhm_cli.geometry.landmarks import NUM_LANDMARKS
from dhm_cli.inference.external_data import refuse_external_data

if TYPE_CHECKING:
    if sys.version_info >= (3, 11):
        from importlib.resources.abc import Traversable
    else:
        from importlib.abc import Traversable

    from onnxruntime import InferenceSession

FORMAT_VERSION = 1
METADATA_KEY = "dhm"
# Crops per call of the network, so that memory stays flat for a photo of a thousand people: a GPU wants many, a CPU is
# slower with more than fit its cache (0.35 ms a face for up to 4, 0.40 for 32).
MAX_BATCH = {"cpu": 4, "cuda": 256}

# The networks that come with the package, the default first; files may be asked for by these names.
EMBEDDED = ("fast", "fast-x2")
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
        path: an ONNX file written by dhm, or a name of `EMBEDDED`; None for the first of them.
        threads: CPU threads of one call; None for one, which is fastest for a few faces at a time.

    Raises:
        InputError: the file cannot be read.
        FormatError: the file is damaged or was not written by dhm.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, threads: int | None = None) -> None:
        name, data = _read_weights(path)
        self.weights_hash = short_hash(data)
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
        run = lambda part: run_session(self._session, ["landmarks"], crops=part)[0]  # noqa: E731
        return _in_batches(run, crops, MAX_BATCH["cpu"])


class TorchEngine:
    """Run a checkpoint with torch; see `Engine`. Safe to call from several threads.

    Args:
        path: a checkpoint written by dhm, or a name of `EMBEDDED`; None for the first of them.
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
        import torch

        from dhm_cli.models.checkpoint import load_checkpoint

        basis = None if face_model is None else Path(face_model)
        embedded = embedded_name(path)
        source = nullcontext(Path(path or "")) if embedded is None else as_file(_packaged(f"{embedded}.safetensors"))
        with source as file:
            model, metadata = load_checkpoint(file, basis)
            self.weights_hash = short_hash(file.read_bytes())
        self.arch = str(metadata["arch"])
        self.input_size = model.config.input_size
        self.mean_shape = model.get_buffer("mean_shape").numpy().astype(np.float64)
        self._device = torch.device(device)
        self._model = model.to(device).eval()

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Engine`."""
        return _in_batches(self._run, crops, MAX_BATCH["cpu" if self._device.type == "cpu" else "cuda"])

    def _run(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        import torch

        from dhm_cli.models.interface import image_tensor

        with torch.inference_mode():
            images = image_tensor(torch.from_numpy(crops).to(self._device))
            landmarks: NDArray[np.float32] = self._model(images).landmarks[:, -1].float().cpu().numpy()
        return landmarks


class BatchingEngine:
    """Run the crops that several threads ask for in one call of a network; see `Engine`.

    For a GPU, to which 64 crops are little more work than one. While a batch is on its way, the next requests gather.

    Args:
        engine: the network.
    """

    def __init__(self, engine: Engine) -> None:
        self.arch, self.input_size = engine.arch, engine.input_size
        self.mean_shape, self.weights_hash = engine.mean_shape, engine.weights_hash
        self._engine = engine
        self._gathering, self._running = threading.Lock(), threading.Lock()
        self._waiting: list[tuple[NDArray[np.uint8], Future[NDArray[np.float32]]]] = []

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Engine`."""
        answer: Future[NDArray[np.float32]] = Future()
        with self._gathering:
            self._waiting.append((crops, answer))
        with self._running:
            if not answer.done():  # else the thread before has taken these crops along
                with self._gathering:
                    taken, self._waiting = self._waiting, []
                self._answer(taken)
        return answer.result()

    def _answer(self, taken: list[tuple[NDArray[np.uint8], Future[NDArray[np.float32]]]]) -> None:
        try:
            landmarks = self._engine(np.concatenate([crops for crops, _ in taken]))
        except BaseException as error:
            if len(taken) > 1 and isinstance(error, Exception):  # one thread's crops must not spoil the others'
                for request in taken:
                    self._answer([request])
                return
            for _, answer in taken:
                answer.set_exception(error)  # an interrupt too, or the other threads would wait for ever
            return
        ends = np.cumsum([len(crops) for crops, _ in taken])
        for part, (_, answer) in zip(np.split(landmarks, ends[:-1]), taken, strict=True):
            answer.set_result(part)


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
        raise FormatError(f"{name}: not an ONNX network: {str(error).strip()}", hint=_NEXT_STEP) from error


def run_session(session: "InferenceSession", outputs: list[str], **inputs: NDArray[Any]) -> list[NDArray[np.float32]]:
    """Run a network of `onnx_session` on inputs of the right shapes.

    Raises:
        MemoryError: there is not enough memory, which ONNX Runtime tells in words only.
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
    where there is no driver without importing torch. ONNX Runtime runs embedded networks on the CPU, torch on a GPU.

    Args:
        device: "auto", "cpu" or "cuda".
        weights: a file written by dhm, .onnx (CPU only) or .safetensors, or a name of `EMBEDDED`; None for the first of
            them.
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
        problem = cuda_problem()
        if device == "cuda" and problem:
            raise DhmError(f"device cuda cannot be used: {problem}", hint="pass --device cpu")
        use_cuda = not problem
    if use_cuda:
        return BatchingEngine(TorchEngine(weights, "cuda", face_model))
    if suffix == ".safetensors":
        return TorchEngine(weights, "cpu", face_model)
    return OnnxEngine(weights, threads)


def _nvidia_driver_present() -> bool:
    return os.path.exists("/proc/driver/nvidia/version") or shutil.which("nvidia-smi") is not None


def cuda_problem() -> str:
    """Why torch cannot use CUDA here; empty when it can. Imports torch."""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed"
    import torch

    return "" if torch.cuda.is_available() else f"torch {torch.__version__} finds no CUDA device"


def short_hash(data: bytes) -> str:
    """The short SHA-256 of a file of weights, see `Engine.weights_hash`."""
    return hashlib.sha256(data).hexdigest()[:16]


def embedded_name(weights: str | os.PathLike[str] | None) -> str | None:
    """The network of `EMBEDDED` that is asked for, by name or by None; None for a file."""
    name = EMBEDDED[0] if weights is None else os.fspath(weights)
    return name if name in EMBEDDED else None


def _packaged(name: str) -> "Traversable":
    return files("dhm_cli").joinpath(f"weights/{name}")


def _read_weights(path: str | os.PathLike[str] | None) -> tuple[str, bytes]:
    embedded = embedded_name(path)
    source = Path(path or "") if embedded is None else _packaged(f"{embedded}.onnx")
    try:
        return str(source), source.read_bytes()
    except OSError as error:
        hint = _NEXT_STEP if embedded is None else "install dhm-cli again"
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
    run: Callable[[NDArray[np.uint8]], NDArray[np.float32]], crops: NDArray[np.uint8], most: int
) -> NDArray[np.float32]:
    if len(crops) == 0:
        return np.zeros((0, NUM_LANDMARKS, 3), dtype=np.float32)
    parts = [run(crops[start : start + most]) for start in range(0, len(crops), most)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
