"""Peak memory is that of the fresh process."""

import json
import pickle
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_networks import CASES, make_model

from dhm_cli.benchmark.measured_networks import find_networks
from dhm_cli.benchmark.peak_memory import peak_of_network, run_measured
from dhm_cli.models.registry import inference_network


def test_peak_memory_is_of_the_fresh_process_alone(dummy_network: Path) -> None:
    ours = np.ones(250 * 2**20, np.uint8)  # getrusage would count this as the child's
    peak = peak_of_network(find_networks([str(dummy_network)])[0], "onnxruntime", 1)
    assert 20 * 2**20 < peak < len(ours)


def test_peak_memory_grows_with_what_is_held() -> None:
    held = run_measured("held = bytearray(arguments[0])", json.dumps([100 * 2**20]))[1]
    assert run_measured("print('hello')")[0] == "hello\n"
    assert 100 * 2**20 < held < 160 * 2**20
    with pytest.raises(RuntimeError, match="ValueError: so"):
        run_measured("raise ValueError('so')")
    with pytest.raises(subprocess.TimeoutExpired):
        run_measured("sys.stdin.read() or __import__('time').sleep(60)", time_limit=0.01)


@pytest.mark.parametrize(("arch", "changes"), CASES)
def test_every_network_travels_to_the_process_that_measures_it(arch: str, changes: dict[str, Any]) -> None:
    """Networks that regress landmarks held a lambda, and their peak memory was "not measured"."""
    network = inference_network(make_model(arch, **changes).eval())
    assert len(pickle.dumps(network)) > 1000
