"""Trained networks behind one call, crops in and landmarks out: ONNX Runtime on the CPU, torch on a GPU."""

import importlib.util
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from importlib.resources import as_file
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from dhm_cli.errors import DhmError, FormatError, InputError
from dhm_cli.geometry.crop import (
    Square,
    TurnedSquare,
    crop_matrix,
    crop_scale,
    extract_crop,
    invert_matrix,
    transform_landmarks,
)
from dhm_cli.geometry.landmarks import NUM_LANDMARKS, face_size
from dhm_cli.geometry.occlusion import STATES
from dhm_cli.inference.onnx_session import onnx_session, run_session
from dhm_cli.inference.weights import (
    EXPORT_AGAIN,
    METADATA_KEY,
    embedded_name,
    packaged,
    parse_metadata,
    read_onnx_file,
)
from dhm_cli.io.photo import Pixels, copy_of
from dhm_cli.runtime.hashing import short_hash

# Crops per call of the network. A GPU wants many. A CPU is slower with more than fit its cache (0.35 ms a face for up
# to 4, 0.40 for 32). And memory stays flat for a photo of a thousand people.
MAX_BATCH = {"cpu": 4, "cuda": 256}


# Shapes of what networks answer, without the batch.
_SHAPES: dict[str, list[int]] = {
    "landmarks": [NUM_LANDMARKS, 3],
    "sigma": [NUM_LANDMARKS],
    "visibility": [NUM_LANDMARKS, STATES],
    "confidence": [],
}


class Answer(NamedTuple):
    """What a network says about B crops.

    Attributes:
        landmarks: (B, 68, 3) float32, 0-based crop pixels, x right, y down, z in the same unit toward the viewer, about
            zero.
        sigma: (B, 68) float32, crop pixels: the radius around a landmark that should hold 68 % of its errors in x,y;
            1.79 times as far 95 % (`metrics.doubts`). None, as the next two, from networks that do not tell it.
        visibility: (B, 68, 3) float32, probabilities of the states VISIBLE, OCCLUDED and SELF_OCCLUDED of
            `geometry.occlusion`.
        confidence: (B,) float32, the chance that there is a face and the landmarks' NME is below 6 %.
    """

    landmarks: NDArray[Any]
    sigma: NDArray[Any] | None = None
    visibility: NDArray[Any] | None = None
    confidence: NDArray[Any] | None = None

    @staticmethod
    def join(parts: "Sequence[Answer]") -> "Answer":
        """The answers about several groups of crops, in order."""
        landmarks, *others = (None if part[0] is None else np.concatenate(part) for part in zip(*parts, strict=True))
        assert landmarks is not None
        return Answer(landmarks, *others)

    def take(self, rows: "slice | NDArray[Any]") -> "Answer":
        """The answer about some of the crops."""
        landmarks, *others = self
        return Answer(landmarks[rows], *(None if part is None else part[rows] for part in others))


class Engine(Protocol):
    """A trained network, ready to run.

    Attributes:
        arch: name of the architecture.
        input_size: side S of the crops, pixels.
        mean_shape: (68, 3) float64, frontal reference shape, x right, y down, z toward the viewer, any unit.
        weights_hash: short SHA-256 of the file of the weights.
        doubts: whether it tells sigma, visibility and confidence.
    """

    doubts: bool
    arch: str
    input_size: int
    mean_shape: NDArray[np.float64]
    weights_hash: str

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Landmarks of face crops.

        Args:
            crops: (B, S, S, 3) uint8 RGB; B may be 0.

        Returns:
            (B, 68, 3) float32, as `Answer.landmarks`.
        """
        ...

    def answer(self, crops: NDArray[np.uint8]) -> Answer:
        """All that the network says about face crops, as for `__call__`."""
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
        name, data = read_onnx_file(path)
        self.weights_hash = short_hash(data)
        self._session = onnx_session(data, name, threads or 1)
        text = self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        self.arch, self.input_size, self.mean_shape = parse_metadata(text, name)
        self._check_graph(name)

    def _check_graph(self, name: str) -> None:
        size = self.input_size
        inputs = [(node.name, node.type, list(node.shape[1:])) for node in self._session.get_inputs()]
        outputs = [(node.name, node.type, list(node.shape[1:])) for node in self._session.get_outputs()]
        if inputs != [("crops", "tensor(uint8)", [size, size, 3])]:
            raise FormatError(
                f"{name}: expected one input crops uint8 (B, {size}, {size}, 3), found {inputs}", hint=EXPORT_AGAIN
            )
        known = [(output, "tensor(float)", shape) for output, shape in _SHAPES.items()]
        if outputs not in (known[:1], known):
            raise FormatError(
                f"{name}: expected an output landmarks float32 (B, 68, 3), alone or with {', '.join(list(_SHAPES)[1:])}"
                f", found {outputs}",
                hint=EXPORT_AGAIN,
            )
        self._outputs = [output for output, _, _ in outputs]
        self.doubts = len(outputs) > 1

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Engine`."""
        return self.answer(crops).landmarks

    def answer(self, crops: NDArray[np.uint8]) -> Answer:
        """See `Engine`."""
        return _in_batches(self._run, crops, MAX_BATCH["cpu"])

    def _run(self, crops: NDArray[np.uint8]) -> Answer:
        return _in_pixels(Answer(*run_session(self._session, self._outputs, crops=crops)))


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
        from dhm_cli.models.folded import LastStep

        basis = None if face_model is None else Path(face_model)
        embedded = embedded_name(path)
        source = nullcontext(Path(path or "")) if embedded is None else as_file(packaged(f"{embedded}.safetensors"))
        with source as file:
            model, metadata = load_checkpoint(file, basis)
            self.weights_hash = short_hash(file.read_bytes())
        self.arch = str(metadata["arch"])
        self.input_size = model.config.input_size
        self.doubts = model.config.uncertainty
        self.mean_shape = model.get_buffer("mean_shape").numpy().astype(np.float64)
        self._device = torch.device(device)
        self._network = LastStep(model.to(device).eval())

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Engine`."""
        return self.answer(crops).landmarks

    def answer(self, crops: NDArray[np.uint8]) -> Answer:
        """See `Engine`."""
        return _in_batches(self._run, crops, MAX_BATCH["cpu" if self._device.type == "cpu" else "cuda"])

    def _run(self, crops: NDArray[np.uint8]) -> Answer:
        import torch

        with torch.inference_mode():
            found = self._network(torch.from_numpy(crops).to(self._device))
        parts = found if isinstance(found, tuple) else (found,)
        return _in_pixels(Answer(*(part.float().cpu().numpy() for part in parts)))


class BatchingEngine:
    """Run the crops that several threads ask for in one call of a network; see `Engine`.

    For a GPU, to which 64 crops are little more work than one. While a batch is on its way, the next requests gather.

    Args:
        engine: the network.
    """

    def __init__(self, engine: Engine) -> None:
        self.arch, self.input_size, self.doubts = engine.arch, engine.input_size, engine.doubts
        self.mean_shape, self.weights_hash = engine.mean_shape, engine.weights_hash
        self._engine = engine
        self._gathering, self._running = threading.Lock(), threading.Lock()
        self._waiting: list[tuple[NDArray[np.uint8], Future[Answer]]] = []

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Engine`."""
        return self.answer(crops).landmarks

    def answer(self, crops: NDArray[np.uint8]) -> Answer:
        """See `Engine`."""
        answer: Future[Answer] = Future()
        with self._gathering:
            self._waiting.append((crops, answer))
        with self._running:
            if not answer.done():  # else the thread before has taken these crops along
                with self._gathering:
                    taken, self._waiting = self._waiting, []
                self._answer(taken)
        return answer.result()

    def _answer(self, taken: list[tuple[NDArray[np.uint8], Future[Answer]]]) -> None:
        try:
            found = self._engine.answer(np.concatenate([crops for crops, _ in taken]))
        except BaseException as error:
            if len(taken) > 1 and isinstance(error, Exception):  # one thread's crops must not spoil the others'
                for request in taken:
                    self._answer([request])
                return
            for _, answer in taken:
                answer.set_exception(error)  # an interrupt too, or the other threads would wait for ever
            return
        ends = np.cumsum([len(crops) for crops, _ in taken])
        for end, (crops, answer) in zip(ends, taken, strict=True):
            answer.set_result(found.take(slice(end - len(crops), end)))


def _in_pixels(answer: Answer) -> Answer:
    """A network's answer, whose sigma is a share of the face size, with sigma in crop pixels."""
    if answer.sigma is None:
        return answer
    return answer._replace(sigma=answer.sigma * face_size(answer.landmarks).astype(np.float32)[:, None])


def answers_in_squares(engine: Engine, photos: Sequence[Pixels], squares: Sequence[Square | TurnedSquare]) -> Answer:
    """One pass of a network over squares of photos.

    Args:
        engine: the network.
        photos: B, each (H, W, 3) uint8 RGB or a `Photo`, the same object for several faces of one photo.
        squares: B, centre and side, photo pixels, and the roll of `crop_matrix` where the crop is to be turned.

    Returns:
        The network's answer, landmarks and sigma in photo pixels, landmarks in float64.
    """
    size = engine.input_size
    # A collapsed shape would give a square without area.
    matrices = [crop_matrix(s[0], max(s[1], 1.0), size, s[2] if len(s) == 3 else 0.0) for s in squares]
    crops = [_crop(photo, matrix, size) for photo, matrix in zip(photos, matrices, strict=True)]
    found = engine.answer(np.stack(crops) if crops else np.empty((0, size, size, 3), np.uint8))
    pairs = zip(found.landmarks, matrices, strict=True)
    back = [transform_landmarks(points, invert_matrix(matrix)) for points, matrix in pairs]
    landmarks = np.stack(back) if back else np.empty((0, NUM_LANDMARKS, 3))
    sigma = found.sigma
    if sigma is not None and len(squares):
        sigma = sigma * np.array([max(square[1], 1.0) / size for square in squares], np.float32)[:, None]
    return found._replace(landmarks=landmarks, sigma=sigma)


def _crop(photo: Pixels, matrix: NDArray[np.float64], size: int) -> NDArray[np.uint8]:
    """A network's input, from a copy of the photo that is fine enough for it."""
    copy = copy_of(photo, 1 / crop_scale(matrix))
    return extract_crop(copy.image, copy.matrix(matrix), size)


def landmarks_in_squares(
    engine: Engine, photos: Sequence[Pixels], squares: Sequence[Square | TurnedSquare]
) -> NDArray[np.float64]:
    """The landmarks of `answers_in_squares`, (B, 68, 3), photo pixels; z in the same unit toward the viewer."""
    return answers_in_squares(engine, photos, squares).landmarks


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


def _in_batches(run: Callable[[NDArray[np.uint8]], Answer], crops: NDArray[np.uint8], most: int) -> Answer:
    if len(crops) == 0:
        return Answer(np.zeros((0, NUM_LANDMARKS, 3), dtype=np.float32))
    parts = [run(crops[start : start + most]) for start in range(0, len(crops), most)]
    return parts[0] if len(parts) == 1 else Answer.join(parts)
