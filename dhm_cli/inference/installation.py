"""Whether all that dhm needs is installed and works: packages, weights, and one face found and timed."""

import statistics
import time
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dhm_cli
from dhm_cli.runtime.environment import environment, machine
from dhm_cli.runtime.hashing import file_hash

if TYPE_CHECKING:
    from packaging.requirements import Requirement

_PACKAGE = Path(dhm_cli.__file__).parent
# The files of weights and their hashes as they were shipped; `sha256sum --check` reads it too.
_WEIGHTS, _HASHES = _PACKAGE / "weights", "SHA256SUMS"

# The extras of the package, and what each is for.
EXTRAS = {
    "heic": "HEIC photos of phones",
    "parquet": "dhm align --out faces.parquet",
    "ray": "dhm align --ray, on many machines",
    "remote": "photos at s3://, https:// and so on",
    "video": "videos",
}
# Timed calls, after one that is not.
_RUNS = 9


@dataclass(frozen=True)
class Package:
    """A package that dhm asks for.

    Attributes:
        name: as pip knows it.
        asked: the versions that will do, such as ">=1.18"; empty for any.
        found: the version that is installed; None where there is none.
        fits: whether that will do.
        extra: the extra that brings it; empty where dhm always needs it.
    """

    name: str
    asked: str
    found: str | None
    fits: bool
    extra: str


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights of the package.

    Attributes:
        name: of the file.
        sha256: its hash, 64 digits; empty where it cannot be read.
        shipped: whether that is the hash of the file that was shipped.
    """

    name: str
    sha256: str
    shipped: bool


@dataclass(frozen=True)
class TimedFace:
    """The face of the packaged photo, from JPEG to landmarks on the CPU.

    Attributes:
        start_s: to load the libraries and the networks, seconds.
        median_ms: of some calls, milliseconds.
        confidence: of the network in the face, 0 to 1.
    """

    start_s: float
    median_ms: float
    confidence: float


@dataclass
class Installation:
    """What was found.

    Attributes:
        environment: of `runtime.environment.environment`.
        machine: of `runtime.environment.machine`; its instructions also where there is no /proc/cpuinfo.
        packages: all that the package asks for, of its extras too; empty where dhm is not installed but lies there.
        gpu: what torch says of CUDA.
        providers: what ONNX Runtime can run on.
        weights_folder: where the weights lie.
        weights: its files.
        face: the timed face; None where it failed.
        problems: what is broken, each with what to do.
    """

    environment: dict[str, Any]
    machine: dict[str, Any]
    packages: list[Package] = field(default_factory=list)
    gpu: str = ""
    providers: list[str] = field(default_factory=list)
    weights_folder: str = str(_WEIGHTS)
    weights: list[WeightsFile] = field(default_factory=list)
    face: TimedFace | None = None
    problems: list[str] = field(default_factory=list)


def examine() -> Installation:
    """Look at everything; what is broken becomes a problem, not an error."""
    found = Installation(environment(), machine())
    for what, look in (
        ("packages", _look_at_packages),
        ("weights", _look_at_weights),
        ("torch", _look_for_gpu),
        ("onnxruntime", _look_for_providers),
        ("one face", _time_a_face),
    ):
        try:
            look(found)
        except Exception as error:  # a broken library fails in ways of its own
            found.problems.append(f"{what}: {type(error).__name__}: {error}")
    return found


def _look_at_packages(found: Installation) -> None:
    """What the metadata of the installed package ask for on this machine."""
    from packaging.requirements import Requirement

    try:
        lines = requires("dhm-cli") or []
    except PackageNotFoundError:  # dhm is not installed, it only lies there
        return
    for extra in ("", *EXTRAS):
        for wanted in (each for each in map(Requirement, lines) if _belongs(each, extra)):
            here = _version(wanted.name)
            fits = here is not None and wanted.specifier.contains(here, prereleases=True)
            # An extra of the package, such as http of fsspec[http], is there when what it asks for is.
            inner = map(Requirement, (requires(wanted.name) or []) if here and wanted.extras else [])
            fits &= all(_version(each.name) for each in inner if any(_belongs(each, name) for name in wanted.extras))
            found.packages.append(Package(wanted.name, str(wanted.specifier), here, fits, extra))
    for package in found.packages:
        if not package.fits and not package.extra:
            here = f"{package.found} is installed" if package.found else "is not installed"
            found.problems.append(f"{package.name} {here}: pip install '{package.name}{package.asked}'")


def _belongs(wanted: "Requirement", extra: str) -> bool:
    """Whether a requirement is that of an extra, or for an empty name that of the package itself, on this machine."""
    if wanted.marker is None:
        return not extra
    always = wanted.marker.evaluate({"extra": ""})
    return always if not extra else wanted.marker.evaluate({"extra": extra}) and not always


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _look_at_weights(found: Installation) -> None:
    from dhm_cli.inference.weights import INSTALL_AGAIN

    for line in (_WEIGHTS / _HASHES).read_text(encoding="ascii").splitlines():
        expected, name = line.split()
        file = _WEIGHTS / name
        digest = file_hash(file) if file.is_file() else ""
        found.weights.append(WeightsFile(name, digest, digest == expected))
        if digest != expected:
            what = "is not the file that was shipped" if digest else "is missing"
            found.problems.append(f"{name} {what}: {INSTALL_AGAIN}")


def _look_for_gpu(found: Installation) -> None:
    from dhm_cli.inference.engines import cuda_problem

    found.gpu = cuda_problem()
    if not found.gpu:
        import torch

        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        found.gpu = f"{', '.join(names)}; CUDA {torch.version.cuda}"


def _look_for_providers(found: Installation) -> None:
    from dhm_cli.inference.onnx_session import providers

    found.providers = providers()
    if not found.machine["instructions"]:
        import numpy

        known = numpy.show_config(mode="dicts")["SIMD Extensions"]
        found.machine["instructions"] = [name.lower() for name in (*known["baseline"], *known["found"])]


def _time_a_face(found: Installation) -> None:
    began = time.perf_counter()
    from dhm_cli.inference.aligner import Aligner

    photo = _PACKAGE / "benchmark" / "photo.jpg"
    aligner = Aligner("cpu", threads=1)
    start = time.perf_counter() - began
    times = []
    for _ in range(1 + _RUNS):
        began = time.perf_counter()
        faces = aligner.align(photo)
        times.append(1000 * (time.perf_counter() - began))
    if len(faces) != 1 or faces[0].doubtful:
        raise RuntimeError(f"expected one sure face in the packaged photo, found {len(faces)}")
    found.face = TimedFace(start, statistics.median(times[1:]), faces[0].confidence)
