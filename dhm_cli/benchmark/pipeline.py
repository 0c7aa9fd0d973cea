"""A network within its pipeline: crops of a photo, and whole photos with their parts."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dhm_cli.benchmark.runners import Runner
from dhm_cli.errors import InputError
from dhm_cli.geometry.crop import Square
from dhm_cli.inference.detection import load_detector
from dhm_cli.inference.engines import Answer, Engine, landmarks_in_squares
from dhm_cli.inference.face_box import Detector, FaceBox, crop_square_from_box
from dhm_cli.inference.passes import find_landmarks
from dhm_cli.io.images import read_image

if TYPE_CHECKING:
    from dhm_cli import Aligner
    from dhm_cli.benchmark.measured_networks import MeasuredNetwork

PHOTO = Path(__file__).parent / "photo.jpg"


@dataclass(frozen=True)
class Scene:
    """The photo that is measured on.

    Attributes:
        file: the image file.
        image: (H, W, 3) uint8 RGB.
        faces: boxes of its faces, the largest first.
    """

    file: Path
    image: NDArray[np.uint8]
    faces: tuple[FaceBox, ...]

    @property
    def square(self) -> Square:
        """The crop of the largest face."""
        return crop_square_from_box(self.faces[0])


def open_scene(file: Path, detector: Detector | None = None) -> Scene:
    """Read a photo and detect its faces, with the detector of `dhm align` or another.

    Raises:
        InputError: it cannot be read, or has no face.
    """
    image = read_image(file)
    faces = (detector or load_detector()).detect(image)
    if not faces:
        raise InputError(f"--photo {file}: no face found", "give a photo with a face, or none for the built-in one")
    return Scene(file, image, tuple(faces))


class RunnerEngine:
    """A runner as an `Engine`.

    Args:
        network: not a baseline.
        runner: the network on an engine.
    """

    def __init__(self, network: "MeasuredNetwork", runner: Runner) -> None:
        assert network.mean_shape is not None
        self.arch, self.input_size, self.mean_shape = network.name, network.size, network.mean_shape
        self.weights_hash = "".join(network.hashes[:1])
        self.doubts = False
        self._runner = runner

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Engine`."""
        return self._runner(crops)

    def answer(self, crops: NDArray[np.uint8]) -> Answer:
        """See `Engine`."""
        return Answer(self._runner(crops))


def open_aligner(network: "MeasuredNetwork", engine: str, runner: Runner, threads: int) -> "Aligner":
    """The aligner of `dhm align` around a network: with its own engine where that is `engine`, else with the runner."""
    from dhm_cli import Aligner  # by the front door of the package, as users do

    if engine == "onnxruntime" and network.onnx_file is not None:
        return Aligner("cpu", threads, model=network.onnx_file)
    aligner = Aligner("cpu", threads)
    aligner.engine = RunnerEngine(network, runner)
    return aligner


def crop_call(engine: Engine, scene: Scene) -> Callable[[], object]:
    """Photo array and square -> crop -> network -> landmarks in photo pixels."""
    return lambda: landmarks_in_squares(engine, [scene.image], [scene.square])


def photo_call(aligner: "Aligner", scene: Scene) -> Callable[[], object]:
    """Encoded photo -> landmarks, with detection and the refining pass."""
    return lambda: aligner.align(read_image(scene.file))


def photo_parts(aligner: "Aligner", scene: Scene) -> dict[str, Callable[[], object]]:
    """The parts of `photo_call`, each on its own; the network's two passes include their crops."""
    squares = [crop_square_from_box(face) for face in scene.faces]
    photos = [scene.image] * len(squares)

    def passes() -> object:
        return find_landmarks(aligner.scout, aligner.engine, photos, squares, 1).landmarks

    return {
        "read": lambda: read_image(scene.file),
        "detect": lambda: aligner.detector.detect(scene.image),
        "two passes": passes,
    }
