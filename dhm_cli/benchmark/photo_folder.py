"""`dhm align` on a folder of photos, as processes of its own: start-up, photos a second, peak memory."""

import json
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dhm_cli.benchmark.peak_memory import run_measured
from dhm_cli.benchmark.pipeline import Scene
from dhm_cli.geometry.crop import crop_matrix
from dhm_cli.runtime.processes import child_command
from dhm_cli.runtime.progress import Progress

# Side of small photos, pixels: as those of LFW; width and height of a phone's 12 megapixels.
FOLDER_SIDE, LARGE = 250, (3024, 4032)
# What folders hold, by name: how many photos of the folder that is asked for, and of how many one is large. A large one
# takes some ten times as long.
FOLDERS = {"250 x 250": (1, 0), "12 MP": (1 / 20, 1), "250 x 250, each tenth of 12 MP": (1 / 4, 10)}
# Different large photos; making one takes longer than aligning it.
_LARGE_ONES = 4
# Standard deviation of their grain: such a file has 3 MB, as a phone's.
_GRAIN = 5
_START_UPS = 5
# The command, in a process of its own, with arguments that are where the code says.
_ALIGN = "sys.argv = ['dhm', 'align', *{}]\nfrom dhm_cli.cli.main import main\nmain()"


@dataclass(frozen=True)
class FolderTiming:
    """Times and memory of `dhm align` on a quarter of a folder and on all of it.

    Attributes:
        subject: name of the network.
        folder: what the folder holds, of `FOLDERS`.
        photos: how many photos the quarter and the whole have.
        threads: of the command.
        startup_best_s: least wall time of the process for one photo, seconds.
        startup_median_s: median of these times.
        startup_runs: how many they are.
        seconds: wall time on the quarter and on all.
        peak_bytes: peak memory on the quarter and on all.
        photos_per_s: after start-up; None where start-up took most of the time.
    """

    subject: str
    folder: str
    photos: tuple[int, int]
    threads: int
    startup_best_s: float
    startup_median_s: float
    startup_runs: int
    seconds: tuple[float, float]
    peak_bytes: tuple[int, int]
    photos_per_s: float | None


def measure_folder(
    subject: str, kind: str, scene: Scene, weights: Sequence[str], count: int, threads: int, progress: Progress
) -> FolderTiming:
    """Run `dhm align` on one photo several times, on a quarter of a folder, and on the whole folder.

    Args:
        subject: name of the network.
        kind: of folder, of `FOLDERS`.
        scene: what the photos show.
        weights: the command's options that name the network and the device.
        count: photos of the whole folder of small photos.
        threads: of the command.
        progress: called before each run of the command.

    Raises:
        RuntimeError: the command failed.
    """
    share, one_in = FOLDERS[kind]
    count = max(1, round(count * share))
    quarter = max(1, count // 4)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in (quarter, count):
            (folder / str(part)).mkdir(exist_ok=True)
            write_folder(scene, folder / str(part), part, one_in)
        options = ["--out", str(folder / "landmarks.csv"), "--threads", str(threads), *weights]
        total = _START_UPS + 3
        starts = []
        for k in range(_START_UPS + 1):  # the first run fills the file cache and is left out below
            progress("start-up of dhm align", k, total)
            starts.append(_seconds_of_command([str(folder / str(count) / "000000.jpg"), *options]))
        runs = []
        for k, part in enumerate((quarter, count)):
            progress(f"dhm align, {part} photos of {kind}", _START_UPS + 1 + k, total)
            begin = time.perf_counter()
            peak = _peak_of_command([str(folder / str(part)), *options])
            runs.append((time.perf_counter() - begin, peak))
    (quarter_s, quarter_peak), (all_s, all_peak) = runs
    startup = float(np.median(starts[1:]))
    return FolderTiming(
        subject=subject,
        folder=kind,
        photos=(quarter, count),
        threads=threads,
        startup_best_s=min(starts[1:]),
        startup_median_s=startup,
        startup_runs=_START_UPS,
        seconds=(quarter_s, all_s),
        peak_bytes=(quarter_peak, all_peak),
        photos_per_s=(count - 1) / (all_s - startup) if all_s > 2 * startup else None,
    )


def write_folder(scene: Scene, folder: Path, count: int, one_in: int = 0) -> None:
    """Write JPEGs that show the photo's largest face, each shifted, turned and scaled a little.

    The same call writes the same files.

    Args:
        scene: the photo.
        folder: for the files.
        count: of files.
        one_in: of so many files the first is of 12 megapixels with a face a third as wide, the others of 250 x 250; 0
            for none.
    """
    rng = np.random.default_rng(0)
    large = [_picture(scene, rng, LARGE, _GRAIN) for _ in range(min(_LARGE_ONES, count) if one_in else 0)]
    for k in range(count):
        is_large = one_in and k % one_in == 0
        data = large[k // one_in % len(large)] if is_large else _picture(scene, rng, (FOLDER_SIDE, FOLDER_SIDE))
        (folder / f"{k:06d}.jpg").write_bytes(data)


def _picture(scene: Scene, rng: np.random.Generator, size: tuple[int, int], grain: float = 0) -> bytes:
    face, width = scene.faces[0], size[0]
    middle = np.array([face.left + face.width / 2, face.top + face.height / 2])
    centre = middle + rng.uniform(-0.2, 0.2, 2) * face.mean_side
    side = float(rng.uniform(1.8, 2.6) * face.mean_side) * (1.3 if grain else 1)
    matrix = crop_matrix(centre, side, width, rng.uniform(-0.2, 0.2))
    matrix[1, 2] += (size[1] - width) / 2
    picture = cv2.warpAffine(scene.image, matrix, size, borderMode=cv2.BORDER_REPLICATE)
    if grain:
        tile = rng.normal(0, grain, (width // 6, width // 6))
        noise = np.tile(tile, (size[1] // len(tile) + 1, 6))[: size[1], :, None]
        picture = np.clip(picture + noise, 0, 255).astype(np.uint8)
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()


def _seconds_of_command(arguments: list[str]) -> float:
    command = child_command(_ALIGN.format("sys.argv[1:]"), *arguments)
    begin = time.perf_counter()
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"dhm align: {result.stderr.strip()}")
    return time.perf_counter() - begin


def _peak_of_command(arguments: list[str]) -> int:
    return run_measured(_ALIGN.format("arguments"), json.dumps(arguments))[1]
