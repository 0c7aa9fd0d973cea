"""A network within its pipeline: crops of a photo, whole photos, folders of photos, several processes at once."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dhm_cli.benchmark.peak_memory import child_environment, run_measured
from dhm_cli.benchmark.runners import Runner
from dhm_cli.errors import InputError
from dhm_cli.geometry.crop import Square, crop_matrix, landmark_crop_square
from dhm_cli.inference.detection import load_detector
from dhm_cli.inference.engines import Engine, landmarks_in_squares
from dhm_cli.inference.face_box import Detector, FaceBox, crop_square_from_box
from dhm_cli.io.images import read_image

if TYPE_CHECKING:
    from dhm_cli import Aligner
    from dhm_cli.benchmark.networks import Subject

PHOTO = Path(__file__).parent / "photo.jpg"
# Photos of the folder: as large as those of LFW.
FOLDER_SIDE = 250
_START_UPS = 5
# How long each of several processes works.
_SECONDS = 4.0


@dataclass(frozen=True)
class Scene:
    """The photo that is measured on: its file, its pixels, and where its largest face is."""

    file: Path
    image: NDArray[np.uint8]
    faces: tuple[FaceBox, ...]

    @property
    def square(self) -> Square:
        """The crop of the largest face."""
        return crop_square_from_box(self.faces[0])


def open_scene(file: Path, detector: Detector | None = None) -> Scene:
    """Read a photo and find its faces, with the detector of `dhm align` or another.

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
        subject: the network; not a baseline.
        runner: it on an engine.
    """

    def __init__(self, subject: "Subject", runner: Runner) -> None:
        assert subject.mean_shape is not None
        self.arch, self.input_size, self.mean_shape = subject.name, subject.size, subject.mean_shape
        self.weights_hash = "".join(subject.hashes[:1])
        self._runner = runner

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Engine`."""
        return self._runner(crops)


def open_aligner(subject: "Subject", engine: str, runner: Runner, threads: int) -> "Aligner":
    """What `dhm align` works with, around a network: its own engine where that is the one asked for."""
    from dhm_cli import Aligner  # by the front door of the package, as users do

    if engine == "onnxruntime" and subject.onnx_file is not None:
        return Aligner("cpu", threads, weights=subject.onnx_file)
    aligner = Aligner("cpu", threads)
    aligner.engine = RunnerEngine(subject, runner)
    return aligner


def crop_call(engine: Engine, scene: Scene) -> Callable[[], object]:
    """Photo array and square -> crop -> network -> landmarks in photo pixels."""
    return lambda: landmarks_in_squares(engine, [scene.image], [scene.square])


def photo_call(aligner: "Aligner", scene: Scene) -> Callable[[], object]:
    """Encoded photo -> landmarks, with detection and the refining pass."""
    return lambda: aligner.align(read_image(scene.file))


def photo_parts(aligner: "Aligner", scene: Scene) -> dict[str, Callable[[], object]]:
    """The parts of `photo_call`, each on its own; the network's passes with their crops."""
    squares = [crop_square_from_box(face) for face in scene.faces]
    photos = [scene.image] * len(squares)

    def passes() -> object:
        landmarks = landmarks_in_squares(aligner.engine, photos, squares)
        return landmarks_in_squares(aligner.engine, photos, [landmark_crop_square(face) for face in landmarks])

    return {
        "read": lambda: read_image(scene.file),
        "detect": lambda: aligner.detector.detect(scene.image),
        "two passes": passes,
    }


def write_folder(scene: Scene, folder: Path, count: int) -> None:
    """Write JPEGs of 250 x 250 that show the photo's face somewhat moved, turned and sized; the same on every call."""
    rng = np.random.default_rng(0)
    face = scene.faces[0]
    for k in range(count):
        middle = np.array([face.left + face.width / 2, face.top + face.height / 2])
        centre = middle + rng.uniform(-0.2, 0.2, 2) * face.mean_side
        side = float(rng.uniform(1.8, 2.6) * face.mean_side)
        matrix = crop_matrix(centre, side, FOLDER_SIDE, rng.uniform(-0.2, 0.2))
        picture = cv2.warpAffine(scene.image, matrix, (FOLDER_SIDE, FOLDER_SIDE), borderMode=cv2.BORDER_REPLICATE)
        data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
        (folder / f"{k:06d}.jpg").write_bytes(data.tobytes())


def measure_folder(
    scene: Scene,
    weights: Sequence[str],
    count: int,
    threads: int,
    progress: Callable[[str, int, int], None],
) -> dict[str, Any]:
    """Run `dhm align` on a folder of photos, on a quarter of it, and on one photo, as processes of their own.

    Args:
        scene: what the photos show.
        weights: the command's options that name the network and the device.
        count: photos.
        threads: of the command.
        progress: called with what is done, how much of it and of how much.

    Returns:
        photos; threads; startup_best_s and startup_median_s, wall time of the process for one photo; seconds and
        peak_bytes of a quarter and of all; photos_per_s, after start-up, None where that took most of the time.

    Raises:
        RuntimeError: the command failed.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        counts = [max(1, count // 4), count]
        for part in counts:
            (folder / str(part)).mkdir(exist_ok=True)
            write_folder(scene, folder / str(part), part)
        options = ["--out", str(folder / "landmarks.csv"), "--threads", str(threads), *weights]
        total = _START_UPS + 1 + len(counts)
        starts = []
        for k in range(_START_UPS + 1):  # the first fills the file cache
            progress("start-up of dhm align", k, total)
            starts.append(_seconds_of_command([str(folder / str(count) / "000000.jpg"), *options]))
        seconds, peaks = [], []
        for k, part in enumerate(counts):
            progress(f"dhm align, {part} photos", _START_UPS + 1 + k, total)
            begin = time.perf_counter()
            peaks.append(_align_measured([str(folder / str(part)), *options]))
            seconds.append(time.perf_counter() - begin)
    startup = float(np.median(starts[1:]))
    return {
        "photos": counts,
        "threads": threads,
        "startup_best_s": min(starts[1:]),
        "startup_median_s": startup,
        "startup_runs": _START_UPS,
        "seconds": seconds,
        "peak_bytes": peaks,
        "photos_per_s": (count - 1) / (seconds[-1] - startup) if seconds[-1] > 2 * startup else None,
    }


def _seconds_of_command(arguments: list[str]) -> float:
    command = [sys.executable, "-m", "dhm_cli", "align", *arguments]
    begin = time.perf_counter()
    result = subprocess.run(command, capture_output=True, text=True, env=child_environment())
    if result.returncode:
        raise RuntimeError(f"dhm align: {result.stderr.strip()}")
    return time.perf_counter() - begin


def _align_measured(arguments: list[str]) -> int:
    code = "sys.argv = ['dhm', 'align', *arguments]\nfrom dhm_cli.cli.main import main\nmain()"
    return run_measured(code, json.dumps(arguments))[1]


def measure_processes(
    scene: Scene, weights: Mapping[str, str | None], cores: Sequence[int], progress: Callable[[str, int, int], None]
) -> dict[str, Any]:
    """Whole photos in one process on one core, in several at once on a core each, and in one again.

    Args:
        scene: the photo.
        weights: `device`, `weights` and `face_model` of `Aligner`.
        cores: a core for each of the processes.
        progress: as in `measure_folder`.

    Returns:
        processes; photos_per_s of one process (mean of before and after) and of all together; speed_up.

    Raises:
        RuntimeError: a process failed.
    """
    rates = []
    for k, used in enumerate((cores[:1], cores, cores[:1])):
        progress(f"whole photos, {len(used)} process{'es' * (len(used) > 1)}", k, 3)
        rates.append(_rate_of_processes(scene, weights, used))
    one = (rates[0] + rates[2]) / 2
    result = {
        "processes": len(cores),
        "photos_per_s_one": one,
        "photos_per_s_all": rates[1],
        "speed_up": rates[1] / one,
    }
    return result


def _rate_of_processes(scene: Scene, weights: Mapping[str, str | None], cores: Sequence[int]) -> float:
    """Photos a second of processes that begin together, each on its core."""
    code = "import json, sys\nfrom dhm_cli.benchmark.pipeline import work\nwork(*json.loads(sys.argv[1]))"
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", code, json.dumps([str(scene.file), dict(weights), core])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=child_environment(),
        )
        for core in cores
    ]
    try:
        for worker in workers:
            assert worker.stdout is not None
            if not worker.stdout.readline():  # else it is ready
                raise RuntimeError(_failure(worker.communicate()[1]))
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        rate = 0.0
        for worker in workers:
            output, problems = worker.communicate()
            if worker.returncode:
                raise RuntimeError(_failure(problems))
            rate += float(output)
        return rate
    finally:
        for worker in workers:
            if worker.poll() is None:
                worker.kill()
                worker.wait()


def _failure(problems: str) -> str:
    return (problems.strip().splitlines() or ["a process failed"])[-1]


def work(file: str, weights: dict[str, str | None], core: int) -> None:
    """Align a photo again and again for some seconds and print the photos a second; called in a process of its own."""
    from dhm_cli import Aligner

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, [core])
    cv2.setNumThreads(1)
    aligner = Aligner(str(weights["device"]), 1, weights=weights["weights"], face_model=weights["face_model"])
    for _ in range(20):
        aligner.align(read_image(file))
    print("ready", flush=True)  # noqa: T201 (to the process that started this one)
    sys.stdin.readline()
    count, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < _SECONDS:
        aligner.align(read_image(file))
        count += 1
    print(count / (time.perf_counter() - begin))  # noqa: T201
