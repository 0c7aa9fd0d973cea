"""The networks that are measured: of the package, random ones, checkpoints, ONNX files and the baselines."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dhm_cli.benchmark.baselines import BASELINES, INPUT_SIZE, baseline
from dhm_cli.config.recipes import ARCHS, find_recipe
from dhm_cli.errors import InputError
from dhm_cli.inference.engines import OnnxEngine
from dhm_cli.inference.weights import packaged
from dhm_cli.models.checkpoint import load_checkpoint
from dhm_cli.models.onnx_graph import onnx_graph
from dhm_cli.models.registry import build_model, inference_network
from dhm_cli.morphable.toy import toy_face_model
from dhm_cli.runtime.hashing import short_hash

ALL = "all"


@dataclass(frozen=True, eq=False)
class MeasuredNetwork:
    """A network that is measured.

    Attributes:
        name: unique within a benchmark; the report calls it so.
        kind: "packaged", "random", "checkpoint", "onnx" or "baseline".
        size: side of its square input, pixels.
        mean_shape: (68, 3), see `Engine`; None of a baseline.
        model: the network as it was trained, for its parameters; None of an ONNX file.
        network: the network as it runs, batch norm folded; None of an ONNX file.
        file: its checkpoint or ONNX file; None of random weights.
        onnx_file: its ONNX file, where there is one; else it is exported for the measurement.
        hashes: short hashes of its files, as `Engine.weights_hash`.
        validation_nme: from the training record of its checkpoint, as `metrics.nme_by_yaw`; None where there is none.
        note: what a reader of the numbers must know.
    """

    name: str
    kind: str
    size: int
    mean_shape: NDArray[np.float64] | None = None
    model: nn.Module | None = None
    network: nn.Module | None = None
    file: Path | None = None
    onnx_file: Path | None = None
    hashes: tuple[str, ...] = ()
    validation_nme: dict[str, float] | None = None
    note: str = ""

    @property
    def is_baseline(self) -> bool:
        """Whether it is a baseline: it takes prepared float images and gives no landmarks."""
        return self.kind == "baseline"

    def inputs(self, batch: int) -> NDArray[Any]:
        """A batch of noise: (B, S, S, 3) uint8, of a baseline (B, 3, S, S) float32 in [-1, 1]."""
        crops = np.random.default_rng(0).integers(0, 256, (batch, self.size, self.size, 3), dtype=np.uint8)
        if not self.is_baseline:
            return crops
        return np.ascontiguousarray(crops.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1)

    def weights(self, device: str) -> Path | None:
        """The file that `dhm align --model` takes on "cpu" or "cuda"; None of random weights."""
        return self.onnx_file if device == "cpu" and self.onnx_file is not None else self.file

    @functools.cached_property
    def onnx(self) -> bytes:
        """Content of its ONNX file; exported where there is none."""
        if self.onnx_file is not None:
            return self.onnx_file.read_bytes()
        assert self.network is not None
        data: bytes = onnx_graph(self.network, torch.from_numpy(self.inputs(2))).SerializeToString()
        return data


def find_networks(names: Sequence[str], face_model: Path | None = None) -> list[MeasuredNetwork]:
    """Find networks by their names, and put the baselines after them.

    Args:
        names: architectures, "all", and files of dhm (.safetensors, .onnx).
        face_model: for checkpoints that regress its parameters.

    Raises:
        InputError: an unknown name, a missing file, a face model that is missing or another one.
        FormatError: a file that is damaged or foreign.
    """
    wanted: list[str] = []
    for name in names:
        wanted += ARCHS if name == ALL else [name]
    _check_names(wanted)
    networks = [_find(name, face_model) for name in dict.fromkeys(wanted)]
    networks += [_baseline(name) for name in BASELINES]
    return _with_unique_names(networks)


def _check_names(names: Sequence[str]) -> None:
    """Refuse unknown names and missing files before anything is loaded."""
    for name in names:
        if name in ARCHS:
            continue
        if Path(name).suffix.lower() not in (".onnx", ".safetensors"):
            known = ", ".join((*ARCHS, ALL))
            raise InputError(f"unknown network {name!r}", f"known are {known}, and .onnx and .safetensors files of dhm")
        if not Path(name).is_file():
            raise InputError(f"{name}: no such file", "check the path, or name an architecture such as fast")


def _find(name: str, face_model: Path | None) -> MeasuredNetwork:
    if name in ARCHS:
        packaged = _packaged(name)
        if packaged is None:
            return _random(name)
        onnx_file, checkpoint = packaged
        return _from_checkpoint(name, checkpoint, "packaged", None, onnx_file)
    path = Path(name)
    if path.suffix.lower() == ".onnx":
        engine = OnnxEngine(path)
        note = "an ONNX file: no torch engines, MACs unknown, all its numbers counted as parameters"
        return MeasuredNetwork(
            path.stem, "onnx", engine.input_size, engine.mean_shape, file=path, onnx_file=path,
            hashes=(engine.weights_hash,), note=note,
        )  # fmt: skip
    return _from_checkpoint(path.stem, path, "checkpoint", face_model)


def _from_checkpoint(
    name: str, file: Path, kind: str, face_model: Path | None, onnx_file: Path | None = None
) -> MeasuredNetwork:
    model, metadata = load_checkpoint(file, face_model)
    files = [path for path in (onnx_file, file) if path is not None]
    return MeasuredNetwork(
        name=name,
        kind=kind,
        size=model.config.input_size,
        mean_shape=model.get_buffer("mean_shape").numpy().astype(np.float64),
        model=model,
        network=inference_network(model),
        file=file,
        onnx_file=onnx_file,
        hashes=tuple(short_hash(path) for path in files),
        validation_nme=(metadata.get("training") or {}).get("validation_nme"),
    )


def _random(arch: str) -> MeasuredNetwork:
    """An architecture with random weights, the same on every call, and the mean shape of the packaged network."""
    settings = find_recipe(arch).network
    toy = toy_face_model() if settings.needs_face_model else None
    mean_shape = _packaged_mean_shape()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model(arch, mean_shape, settings, toy).eval()
    note = "random weights" + (", toy face model of 68 points" if toy is not None else "")
    shape = mean_shape.numpy().astype(np.float64)
    return MeasuredNetwork(arch, "random", settings.input_size, shape, model, inference_network(model), note=note)


def _packaged(name: str) -> tuple[Path, Path] | None:
    """ONNX file and checkpoint of a network that comes with the package; None of other architectures."""
    files = Path(str(packaged(f"{name}.onnx"))), Path(str(packaged(f"{name}.safetensors")))
    return files if all(file.is_file() for file in files) else None


def _packaged_mean_shape() -> Tensor:
    files = _packaged("fast")
    assert files is not None
    return load_checkpoint(files[1])[0].get_buffer("mean_shape")


def _baseline(name: str) -> MeasuredNetwork:
    model = baseline(name)
    note = f"random weights; float input of {INPUT_SIZE} x {INPUT_SIZE}, prepared beforehand, 62 numbers out, as 3DDFA"
    return MeasuredNetwork(name, "baseline", INPUT_SIZE, model=model, network=model.folded(), note=note)


def _with_unique_names(networks: list[MeasuredNetwork]) -> list[MeasuredNetwork]:
    """Call files of the same name in several folders by their paths."""
    names = [network.name for network in networks]
    return [
        replace(network, name=str(network.file))
        if names.count(network.name) > 1 and network.kind in ("checkpoint", "onnx")
        else network
        for network in networks
    ]
