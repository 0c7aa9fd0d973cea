"""Validation of a training: errors on the faces of the split `val`, the best network so far, pictures of some faces."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dhm_cli.data.batches import Faces, validation_crops
from dhm_cli.drawing.faces import evolution_sheet, save_png, spread_over
from dhm_cli.geometry.landmarks import face_size
from dhm_cli.metrics.doubts import RIGHT_SHARES
from dhm_cli.metrics.landmark_error import nme_by_yaw, normalised_mean_error
from dhm_cli.models.checkpoint import save_checkpoint
from dhm_cli.models.heatmaps import draw_heatmap
from dhm_cli.models.interface import Network, image_tensor
from dhm_cli.training.distributed import Processes
from dhm_cli.training.run_folder import RunFolder

# Faces in the pictures.
_SAMPLES = 6


class Validation:
    """The validation faces of a run, of which each process has a share, and the best network on them.

    Args:
        faces: all validation faces.
        size: side S of the crops, pixels.
        batch: crops at a time.
        folder: where networks and pictures are saved.
        keep: how many of the numbered checkpoints to keep.
        processes: this process among others.

    Attributes:
        names: (N,), of all faces.
        yaw: (N,), of all faces, degrees.
        crops: (M, S, S, 3) uint8 RGB, this process's share: faces rank, rank + world, ...
        truth: (M, 68, 3), crop pixels.
        best: the lowest mean of the yaw bins so far, percent; infinite before the first validation.
    """

    def __init__(self, faces: Faces, size: int, batch: int, folder: RunFolder, keep: int, processes: Processes) -> None:
        self.names, self.yaw = faces.names, faces.yaw
        self.crops, self.truth = validation_crops(faces, size, processes.rank, processes.world)
        self.best = math.inf
        self._own_yaw = faces.yaw[processes.rank :: processes.world]
        self._shown = spread_over(np.abs(self._own_yaw), _SAMPLES)
        self._batch, self._folder, self._keep, self._processes = batch, folder, keep, processes

    def run(self, network: Network, arch: str, record: dict[str, Any]) -> dict[str, float]:
        """Validate a network; the main process saves it, and pictures of its predictions.

        Args:
            network: the averaged weights; all processes get the main one's batch norm statistics.
            arch: the network's name.
            record: what the run is, and `step`; the checkpoints hold it.

        Returns:
            NME by yaw bin, percent (`metrics.nme_by_yaw`), the same in every process.
        """
        self._processes.share_statistics(network)
        nme = self._errors(network)
        if network.config.uncertainty:
            self._calibrate(network)
        result = nme_by_yaw(nme, self.yaw)
        is_best = result["mean_of_bins"] <= self.best  # the later where the landmarks do not change
        self.best = min(self.best, result["mean_of_bins"])
        if self._processes.is_main:
            folder, step = self._folder, record["step"]
            files = [
                folder.last,
                *([folder.best] if is_best else []),
                *([folder.checkpoint(step)] if self._keep else []),
            ]
            for path in files:
                save_checkpoint(path, network, arch, {**record, "validation_nme": result})
            folder.prune_checkpoints(self._keep)
            if is_best:
                folder.write_validation(self.names, self.yaw, nme)
            save_png(folder.sample(step), self._sample_sheet(network))
        return result

    def _errors(self, network: Network) -> NDArray[np.float64]:
        """NME of all faces, (N,), percent."""
        p = self._processes
        predicted = predict(network, self.crops, self._batch, p.device)
        parts = p.gather(normalised_mean_error(predicted, self.truth))
        nme = np.empty(len(self.yaw))
        for rank, part in enumerate(parts):
            nme[rank :: p.world] = part
        return nme

    def _calibrate(self, network: Network) -> None:
        """Set the factor by which sigma holds 68.27 % of the errors of the validation faces."""
        p = self._processes
        with torch.inference_mode():
            ratios = []
            for start in range(0, len(self.crops), self._batch):
                part = slice(start, start + self._batch)
                output = network.eval()(image_tensor(torch.from_numpy(self.crops[part]).to(p.device)))
                assert output.log_scale is not None
                points, truth = output.landmarks[:, -1].double().cpu().numpy(), self.truth[part]
                distance = np.linalg.norm(points[..., :2] - truth[..., :2], axis=-1) / face_size(points)[:, None]
                ratios.append((distance / output.log_scale[:, -1].double().exp().cpu().numpy()).ravel())
            every = np.concatenate(p.gather(np.concatenate(ratios) if ratios else np.empty(0)))
            network.get_buffer("doubts.sigma_of_scale").fill_(
                float(np.quantile(every, RIGHT_SHARES["within_one"] / 100))
            )

    @torch.inference_mode()
    def _sample_sheet(self, network: Network) -> NDArray[np.uint8]:
        """Draw the steps of the recurrence for some faces, as Fig. 5 of Sun et al. 2018 does: (H, W, 3) uint8 RGB."""
        rows = self._shown
        output = network.eval()(image_tensor(torch.from_numpy(self.crops[rows]).to(self._processes.device)))
        start = network.initial_landmarks.expand(len(rows), 1, -1, -1)
        steps = torch.cat([start, output.landmarks.float()], dim=1)
        heatmaps = draw_heatmap(steps.flatten(0, 1), network.config.input_size).unflatten(0, steps.shape[:2])
        captions = [f"yaw {angle:.0f}" for angle in self._own_yaw[rows]]
        steps_shown, heatmaps_shown = steps.cpu().numpy(), heatmaps.cpu().numpy()
        return evolution_sheet(self.crops[rows], steps_shown, heatmaps_shown, self.truth[rows], captions)


def predict(
    model: nn.Module, crops: NDArray[np.uint8], batch: int = 128, device: torch.device | None = None
) -> NDArray[np.float64]:
    """Landmarks of crops by a torch network.

    Args:
        model: a network, already on its device.
        crops: (N, S, S, 3) uint8 RGB.
        batch: crops at a time.
        device: of the network; None for the CPU.

    Returns:
        (N, 68, 3), crop pixels.
    """
    model.eval()
    parts = [np.empty((0, 68, 3))]
    with torch.inference_mode():
        for start in range(0, len(crops), batch):
            output = model(image_tensor(torch.from_numpy(crops[start : start + batch]).to(device or "cpu")))
            parts.append(output.landmarks[:, -1].double().cpu().numpy())
    return np.concatenate(parts)
