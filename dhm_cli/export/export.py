"""A trained checkpoint becomes the ONNX file that `dhm align` runs: uint8 crops in, landmarks in crop pixels out."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from dhm_cli.data.batches import load_faces, validation_crops
from dhm_cli.data.store import FaceStore
from dhm_cli.errors import DhmError, FormatError, InputError
from dhm_cli.inference.engines import OnnxEngine
from dhm_cli.inference.weights import FORMAT_VERSION, METADATA_KEY
from dhm_cli.metrics.landmark_error import nme_by_yaw, normalised_mean_error
from dhm_cli.models.checkpoint import load_checkpoint, read_tensors, write_tensors
from dhm_cli.models.fast_dhm import FastDhm
from dhm_cli.models.folded import inference_network
from dhm_cli.models.interface import image_tensor
from dhm_cli.models.onnx_graph import onnx_graph, quantised, store_half
from dhm_cli.models.registry import Network
from dhm_cli.runtime.atomic import written_atomically

PRECISIONS = ("float32", "float16", "int8")
# A reduced precision may cost this much of the NME (percent, mean of the yaw bins) ...
MOST_LOST = 0.05
# ... and float32 may differ this much from torch, crop pixels: a hundredth of what an annotator sees.
_MOST_APART = 0.01
_TEST_CROPS = 32
# Faces whose values set the ranges of int8, spread over the train split.
_CALIBRATION_FACES = 256
# Convolutions of `InferenceFastDhm` that int8 takes. The stem sees few channels, the recurrence and the head are small
# and add up their rounding: all in int8, `fast` lost 0.17 of its NME, the blocks alone 0.02.
_QUANTISED = "cnn."


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how near it is to the checkpoint.

    Attributes:
        size: of the file, bytes.
        apart: largest distance between a landmark in ONNX Runtime and in torch, crop pixels, over 32 validation crops,
            or without data over noise.
        before: NME by yaw bin of the network in float32 on the validation faces, percent; None without data.
        after: the same of the file.
    """

    size: int
    apart: float
    before: dict[str, float] | None = None
    after: dict[str, float] | None = None


def export_onnx(checkpoint: Path, out: Path, precision: str = "float32", data: Path | None = None) -> ExportReport:
    """Write a checkpoint as an ONNX file that carries its own pre-processing, and compare it with the checkpoint.

    Batch norm, heat map, the pixels' scale and the mean shape are folded into the weights (`models.inference`).

    Args:
        checkpoint: a network of `dhm train`.
        out: the ONNX file; written atomically.
        precision: one of `PRECISIONS`. "float16" stores the weights so and widens them when the file is loaded; the
            arithmetic is float32. "int8" computes the separable blocks in 8 bits, the rest as "float16".
        data: a store of `dhm prepare`; NME on its split val, ranges for int8 from its split train.

    Raises:
        InputError: no such file, a network that regresses the parameters of a face model, or int8 without data or of
            another network than Fast DHM.
        FormatError: a foreign or partial file.
        DhmError: the file would be less accurate than the checkpoint by more than `MOST_LOST`, or not agree with it.
    """
    if "face_model" in read_tensors(checkpoint)[1]:
        raise InputError(
            f"{checkpoint}: regresses the parameters of a face model, which the ONNX file would have to hold; its "
            "licence forbids to pass it on",
            f"run the checkpoint itself: dhm align --weights {checkpoint}, or train with --target landmarks",
        )
    model, metadata = load_checkpoint(checkpoint)
    if precision == "int8" and not (isinstance(model, FastDhm) and model.config.heatmap != "predicted"):
        raise InputError(f"{checkpoint}: int8 is made for the networks of Fast DHM", "export float32 or float16")
    if precision == "int8" and data is None:
        raise InputError("int8 needs faces to measure the ranges of its numbers", "pass --data FILE.h5")
    store = None if data is None else FaceStore(data)
    size = model.config.input_size
    faces = _comparison_crops(store, size)
    description: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "arch": metadata["arch"],
        "input_size": size,
        "mean_shape": np.round(model.mean_shape.numpy().astype(float), 6).tolist(),
    }
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    exact = onnx_graph(inference_network(model), example, metadata={METADATA_KEY: json.dumps(description)})
    graph = exact
    if precision == "float16":
        graph = store_half(exact)
    elif precision == "int8":
        assert store is not None
        graph = store_half(quantised(exact, _QUANTISED, _calibration_crops(store, size)))
    with written_atomically(out) as partial:
        partial.write_bytes(graph.SerializeToString())
        report = _compare(partial, model, exact, *faces)
        _check(out, report, precision)
    return report


def export_checkpoint(checkpoint: Path, out: Path, precision: str = "float32") -> ExportReport:
    """Copy a checkpoint of any network, with its training record; needs no face model.

    Args:
        checkpoint: a network of `dhm train`.
        out: the copy.
        precision: "float16" stores the weights so, which halves the file; float32 otherwise. The mean shape stays
            float32.

    Raises:
        InputError: no such file, or int8, which only ONNX files have.
        FormatError: a foreign file.
    """
    if precision == "int8":
        raise InputError(f"{out}: checkpoints are float32 or float16", "choose a file name that ends in .onnx")
    tensors, metadata = read_tensors(checkpoint)
    if "arch" not in metadata:
        raise FormatError(
            f"{checkpoint}: not a network but another kind of dhm file", "use best.safetensors of a training run"
        )
    for name, tensor in tensors.items():
        tensors[name] = tensor.half() if precision == "float16" and name != "mean_shape" else tensor.float()
    write_tensors(out, tensors, metadata)
    return ExportReport(out.stat().st_size, 0.0)


def _calibration_crops(store: FaceStore, size: int) -> NDArray[np.uint8]:
    """Crops of faces spread over the train split, (N, S, S, 3)."""
    faces = load_faces([(store, 1.0)], "train")
    if not len(faces):
        raise InputError(f"{store.path}: no train faces to measure the ranges of int8 on", "pass another --data")
    return validation_crops(faces, size, 0, max(1, len(faces) // _CALIBRATION_FACES))[0][:_CALIBRATION_FACES]


def _compare(
    file: Path,
    model: Network,
    exact: onnx.ModelProto,
    crops: NDArray[np.uint8],
    truth: NDArray[np.float64] | None,
    yaw: NDArray[np.float32],
) -> ExportReport:
    engine = OnnxEngine(file)
    found = engine(crops)
    with torch.inference_mode():
        expected = model(image_tensor(torch.from_numpy(crops[:_TEST_CROPS]))).landmarks[:, -1].numpy()
    apart = float(np.linalg.norm(found[:_TEST_CROPS] - expected, axis=-1).max())
    if truth is None:
        return ExportReport(file.stat().st_size, apart)
    with tempfile.TemporaryDirectory() as folder:
        reference = Path(folder) / "float32.onnx"
        reference.write_bytes(exact.SerializeToString())
        in_float32 = OnnxEngine(reference)(crops)
    before, after = (nme_by_yaw(normalised_mean_error(points, truth), yaw) for points in (in_float32, found))
    return ExportReport(file.stat().st_size, apart, before, after)


def _comparison_crops(
    store: FaceStore | None, size: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64] | None, NDArray[np.float32]]:
    """Crops to compare on, with landmarks and yaw: the val faces, or else noise, without."""
    if store is None:
        noise = np.random.default_rng(0).integers(0, 256, (_TEST_CROPS, size, size, 3), dtype=np.uint8)
        return noise, None, np.empty(0, np.float32)
    faces = load_faces([(store, 1.0)], "val")
    if not len(faces):
        raise InputError(f"{store.path}: no val faces to compare on", "pass another --data")
    return *validation_crops(faces, size), faces.yaw


def _check(out: Path, report: ExportReport, precision: str) -> None:
    if precision == "float32" and report.apart > _MOST_APART:
        raise DhmError(
            f"{out}: not written, its landmarks lie {report.apart:.3g} pixels from those of the checkpoint in torch",
            "another version of torch, onnxscript or onnxruntime may export it rightly",
        )
    if report.before and report.after:
        before, after = report.before["mean_of_bins"], report.after["mean_of_bins"]
        if after - before > MOST_LOST:
            raise DhmError(
                f"{out}: not written, {precision} worsens the NME from {before:.2f} to {after:.2f} %, by more than "
                f"{MOST_LOST}",
                "export float32 or float16",
            )
