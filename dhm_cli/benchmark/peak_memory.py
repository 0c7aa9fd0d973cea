"""Peak memory of fresh processes: a network that is loaded and run once, or a whole command.

This module imports little more than the standard library, because the measured processes load it too.
"""

import atexit
import json
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from dhm_cli.runtime.memory import peak_bytes
from dhm_cli.runtime.processes import child_command

if TYPE_CHECKING:
    from dhm_cli.benchmark.measured_networks import MeasuredNetwork

# Seconds that a network may take to load and run once.
_TIME_LIMIT = 300


def report_peak_at_exit(path: str) -> None:
    """Have this process write its peak memory to a file when it ends."""
    atexit.register(lambda: Path(path).write_text(str(peak_bytes())))


def peak_of_network(network: "MeasuredNetwork", engine: str, threads: int) -> int:
    """Peak memory of a fresh process that loads a network and runs it on one face, bytes.

    Raises:
        RuntimeError: the process failed; the message is its last line.
        subprocess.TimeoutExpired: it took minutes.
    """
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        file, inputs = Path(folder) / "network", Path(folder) / "inputs.npy"
        np.save(inputs, network.inputs(1))
        if engine in ("onnxruntime", "openvino"):
            file.write_bytes(network.onnx)
        else:
            import torch

            torch.save(network.network, file)
        settings = json.dumps([engine, str(file), str(inputs), threads])
        code = "from dhm_cli.benchmark.peak_memory import run_network\nrun_network(*arguments)"
        return run_measured(code, settings, _TIME_LIMIT)[1]


def run_network(engine: str, network: str, inputs: str, threads: int) -> None:
    """Run the network that `peak_of_network` wrote; called in the fresh process."""
    import numpy as np

    from dhm_cli.benchmark.runners import OnnxRunner, OpenVinoRunner, Runner, TorchRunner

    runner: Runner
    if engine == "onnxruntime":
        runner = OnnxRunner(Path(network).read_bytes(), threads)
    elif engine == "openvino":
        runner = OpenVinoRunner(Path(network).read_bytes(), threads)
    else:
        import torch

        torch.set_num_threads(threads)
        # Our own file of a moment ago, not a user's.
        runner = TorchRunner(torch.load(network, weights_only=False), engine, "cpu")
    runner(np.load(inputs))


def run_measured(code: str, arguments: str = "[]", time_limit: float | None = None) -> tuple[str, int]:
    """Run Python code in a fresh process.

    Args:
        code: may use `arguments`, a list.
        arguments: the list, as JSON.
        time_limit: seconds.

    Returns:
        What it printed, and its peak memory in bytes.

    Raises:
        RuntimeError: it failed; the message is its last line.
        subprocess.TimeoutExpired: it took longer than the limit.
    """
    with tempfile.TemporaryDirectory() as folder:
        peak = Path(folder) / "peak"
        start = (
            "import json\nfrom dhm_cli.benchmark.peak_memory import report_peak_at_exit\n"
            "report_peak_at_exit(sys.argv[1])\narguments = json.loads(sys.argv[2])\n"
        )
        result = subprocess.run(
            child_command(start + code, str(peak), arguments), capture_output=True, text=True, timeout=time_limit
        )
        if result.returncode:
            raise RuntimeError((result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1])
        return result.stdout, int(peak.read_text())
