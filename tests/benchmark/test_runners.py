"""Engines agree with each other."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dhm_cli.benchmark.measured_networks import MeasuredNetwork, find_networks
from dhm_cli.benchmark.runners import make_runner


def test_torch_says_what_the_file_says() -> None:
    network = find_networks(["fast"])[0]
    inputs = network.inputs(2)
    torch_says, channels_last, file_says = (
        make_runner(network, engine, 1)(inputs) for engine in ("torch", "torch-channels-last", "onnxruntime")
    )
    assert torch_says.shape == (2, 68, 3)
    np.testing.assert_allclose(channels_last, torch_says, atol=1e-3)
    np.testing.assert_allclose(file_says, torch_says, atol=0.1)  # the file may hold float16


def test_torch_gets_the_images_of_baselines_as_crops_lie() -> None:
    network = MeasuredNetwork("nothing", "baseline", 8, network=torch.nn.Identity())
    for engine in ("torch", "torch-channels-last"):
        images: Any = make_runner(network, engine, 1).bind(network.inputs(2))()
        assert images.shape == (2, 3, 8, 8)
        assert images.is_contiguous(memory_format=torch.channels_last)


def test_torch_cannot_run_an_onnx_file(dummy_network: Path) -> None:
    with pytest.raises(ValueError, match="torch cannot run an ONNX file"):
        make_runner(find_networks([str(dummy_network)])[0], "torch", 1)
