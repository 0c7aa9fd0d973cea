"""Parity: how near an exported file is to its checkpoint, and whether that is near enough."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from dhm_cli.data.batches import load_faces, validation_crops
from dhm_cli.data.store import FaceStore
from dhm_cli.errors import DhmError, InputError
from dhm_cli.inference.engines import OnnxEngine
from dhm_cli.metrics.landmark_error import nme_by_yaw, normalised_mean_error
from dhm_cli.models.interface import Network, image_tensor

# A reduced precision may worsen the NME by this much (percent, mean of the yaw bins) ...
MOST_LOST = 0.05
# ... and float32 may differ from torch by this much, crop pixels: a hundredth of what an annotator sees.
_MOST_APART = 0.01
_TEST_CROPS = 32


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


@dataclass(frozen=True, eq=False)
class ComparisonFaces:
    """Faces that an exported file and its checkpoint are compared on.

    Attributes:
        crops: (N, S, S, 3) uint8 RGB.
        truth: (N, 68, 3), crop pixels; None of noise.
        yaw: (N,), radians; empty of noise.
    """

    crops: NDArray[np.uint8]
    truth: NDArray[np.float64] | None
    yaw: NDArray[np.float32]


def comparison_faces(store: FaceStore | None, size: int) -> ComparisonFaces:
    """The val faces of a store, or without one crops of noise.

    Args:
        store: of `dhm prepare`.
        size: side of the crops, pixels.

    Raises:
        InputError: the store has no val faces.
    """
    if store is None:
        noise = np.random.default_rng(0).integers(0, 256, (_TEST_CROPS, size, size, 3), dtype=np.uint8)
        return ComparisonFaces(noise, None, np.empty(0, np.float32))
    faces = load_faces([(store, 1.0)], "val")
    if not len(faces):
        raise InputError(f"{store.path}: no val faces to compare on", "pass another --data")
    return ComparisonFaces(*validation_crops(faces, size), faces.yaw)


def compare(file: Path, model: Network, exact: onnx.ModelProto, faces: ComparisonFaces) -> ExportReport:
    """Compare an exported file with its checkpoint.

    Args:
        file: the ONNX file.
        model: the network of the checkpoint, in evaluation mode.
        exact: the graph in float32.
        faces: to compare on.
    """
    found = OnnxEngine(file)(faces.crops)
    with torch.inference_mode():
        images = image_tensor(torch.from_numpy(faces.crops[:_TEST_CROPS]))
        expected = model(images).landmarks[:, -1].numpy()
    size, apart = file.stat().st_size, float(np.linalg.norm(found[:_TEST_CROPS] - expected, axis=-1).max())
    if faces.truth is None:
        return ExportReport(size, apart)
    with tempfile.TemporaryDirectory() as folder:
        reference = Path(folder) / "float32.onnx"
        reference.write_bytes(exact.SerializeToString())
        in_float32 = OnnxEngine(reference)(faces.crops)
    before, after = (
        nme_by_yaw(normalised_mean_error(points, faces.truth), faces.yaw) for points in (in_float32, found)
    )
    return ExportReport(size, apart, before, after)


def check_parity(out: Path, report: ExportReport, precision: str) -> None:
    """Refuse a file that is too far from its checkpoint.

    Args:
        out: the file, for the message.
        report: of `compare`.
        precision: of the file, "float32", "float16" or "int8".

    Raises:
        DhmError: in float32, landmarks lie elsewhere than in torch; or the NME is worse by more than `MOST_LOST`.
    """
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
