"""Training on two machines, played by two torchruns with one rendezvous: python tests/two_hosts.py FOLDER, minutes.

Three trainings of one kind end with the same state, to the bit: one that nothing happens to; one of which a machine is
lost, and that is started again with --resume; one of which a process is lost, then a machine, which torchrun brings
together again (--max-restarts).
"""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from places import ROOT, SAMPLE_DATA

_SETTINGS = """[network]
input_size = 32
blocks = [[16, 2]]
recurrent_channels = 16
head_rank = 8
[training]
steps = 400
batch = 8
validate_every = 100
warmup = 1
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Hosts:
    """Two machines that train into one folder."""

    def __init__(self, folder: Path, name: str, *more: str, restarts: int = 0) -> None:
        self.out, self._log = folder / name, folder / f"{name}.log"
        self._agent = ["--nnodes", "2", "--nproc-per-node", "1", "--max-restarts", str(restarts)]
        self._agent += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free_port()}", "--rdzv-id", name]
        self._command = ["-m", "dhm_cli", "train", "--config", str(folder / "small.toml")]
        self._command += ["--data", str(folder / "data" / "faces.h5"), "--out", str(self.out), *more]
        self.hosts = [self.host(), self.host()]

    def host(self) -> "subprocess.Popen[bytes]":
        """Start a machine."""
        command = [sys.executable, "-m", "torch.distributed.run", *self._agent, *self._command]
        # Or torch finds in the store, which torchrun keeps, the addresses of processes that are gone (issue 135712).
        store = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        environment = {**os.environ, **store, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with self._log.open("ab") as log:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)

    def wait_for_step(self, step: int) -> None:
        """Until the reports have got to a step."""
        reports, deadline = self.out / "metrics.jsonl", time.monotonic() + 600
        while not (reports.exists() and f'"step": {step},' in reports.read_text()):
            assert time.monotonic() < deadline, self._log.read_text()
            assert any(host.poll() is None for host in self.hosts), self._log.read_text()
            time.sleep(0.05)

    def lose(self, host: "subprocess.Popen[bytes]", process_only: bool = False) -> None:
        """A machine with all that runs on it, or the one process that trains there."""
        found = subprocess.run(["pgrep", "-P", str(host.pid)], capture_output=True, text=True, check=True)
        for pid in [*map(int, found.stdout.split()), *([] if process_only else [host.pid])]:
            os.kill(pid, signal.SIGKILL)

    def codes(self) -> list[int]:
        """Exit codes, when both have ended."""
        return [host.wait(600) for host in self.hosts]

    def state(self) -> bytes:
        """What training left."""
        codes = self.codes()
        assert codes == [0, 0], (codes, self._log.read_text())
        return (self.out / "state.safetensors").read_bytes()


def main(folder: Path) -> None:
    """Show it."""
    folder.mkdir(parents=True)
    (folder / "small.toml").write_text(_SETTINGS)
    prepare = ["prepare", str(SAMPLE_DATA / "faces"), "--bfm", str(SAMPLE_DATA / "toy_bfm.mat"), "--out"]
    prepare += [str(folder / "data"), "--table", str(SAMPLE_DATA / "faces.csv")]
    subprocess.run([sys.executable, "-m", "dhm_cli", *prepare], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)

    whole = Hosts(folder, "whole").state()

    lost = Hosts(folder, "lost")
    lost.wait_for_step(150)
    lost.lose(lost.hosts[1])
    assert 0 not in lost.codes()
    assert Hosts(folder, "lost", "--resume").state() == whole

    elastic = Hosts(folder, "elastic", restarts=3)
    elastic.wait_for_step(150)
    elastic.lose(elastic.hosts[1], process_only=True)
    elastic.wait_for_step(250)
    elastic.lose(elastic.hosts[1])
    elastic.hosts[1] = elastic.host()
    assert elastic.state() == whole
    sys.stdout.write("three equal trainings\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
