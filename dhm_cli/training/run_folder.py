"""What a training run leaves behind: settings, environment, metrics, pictures, checkpoints."""

import csv
import io
import json
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dhm_cli.drawing.charts import save_learning_curve
from dhm_cli.errors import FormatError, InputError
from dhm_cli.runtime.atomic import written_atomically
from dhm_cli.runtime.environment import environment

_MOVE_AWAY = "move the file away: --resume goes on without it"


class RunFolder:
    """The folder of one run.

    `config.toml` holds the resolved settings, `run.json` what they were applied to and where, `metrics.jsonl` one line
    per report, `learning_curve.png` their picture, `samples/` predictions on validation faces, `best.safetensors`,
    `last.safetensors` and `checkpoints/` networks, `validation.csv` the errors of the best one, `state.safetensors`
    what a resume needs.

    Args:
        path: the folder; made when something is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = path / "state.safetensors"
        self.best = path / "best.safetensors"
        self.last = path / "last.safetensors"
        self.config = path / "config.toml"
        self.validation = path / "validation.csv"
        self._run, self._metrics = path / "run.json", path / "metrics.jsonl"

    def describe(self, record: dict[str, Any], step: int) -> None:
        """Write `run.json`; each start of the run adds a session: when, from which step, command, environment."""
        sessions = self._sessions() if step and self._run.exists() else []
        session = {"started": datetime.now(timezone.utc).isoformat(timespec="seconds"), "step": step}
        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        machine = {**environment(), "threads": torch.get_num_threads(), "gpus": gpus}
        sessions.append({**session, "command": sys.argv, **machine})
        _write_text(self._run, json.dumps({**record, "sessions": sessions}, indent=1))

    def _sessions(self) -> list[Any]:
        try:
            return list(json.loads(self._run.read_text(encoding="utf-8"))["sessions"])
        except (ValueError, KeyError, TypeError) as error:
            raise FormatError(f"{self._run}: not the record of a run ({error!r})", _MOVE_AWAY) from error

    def claim(self) -> None:
        """Keep other processes from training in this folder until this one ends, however it ends.

        Raises:
            InputError: another process trains in it.
        """
        if sys.platform == "win32":  # it has no such locks
            return
        import fcntl

        self.path.mkdir(parents=True, exist_ok=True)
        # A record lock, which worker processes do not inherit: they may outlive a killed run by seconds.
        self._lock = (self.path / ".lock").open("w")
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise InputError(
                f"{self.path}: another process trains in it", "wait for it, or choose another --out"
            ) from error

    def rows(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`.

        Raises:
            FormatError: a line is not ours.
        """
        if not self._metrics.exists():
            return []
        *lines, _cut_off = self._metrics.read_text().split("\n")  # a crash may have cut the last one
        try:
            rows = [json.loads(line) for line in lines]
        except ValueError as error:
            raise FormatError(f"{self._metrics}: a line is not JSON ({error})", _MOVE_AWAY) from error
        if not all(isinstance(row, dict) and "step" in row for row in rows):
            raise FormatError(f"{self._metrics}: a line without a step", _MOVE_AWAY)
        return rows

    def forget_after(self, step: int) -> None:
        """Drop metrics of steps that are about to be done again."""
        rows = [row for row in self.rows() if row["step"] <= step]
        if self._metrics.exists():
            _write_text(self._metrics, "".join(json.dumps(row) + "\n" for row in rows))

    def add_row(self, row: dict[str, Any]) -> None:
        """Add a line to `metrics.jsonl`."""
        self.path.mkdir(parents=True, exist_ok=True)
        with self._metrics.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def draw_learning_curve(self) -> None:
        """Draw `learning_curve.png` again."""
        save_learning_curve(self.path / "learning_curve.png", self.rows())

    def sample(self, step: int) -> Path:
        """File of the sample predictions after a step."""
        return self.path / "samples" / f"step_{step:07d}.png"

    def checkpoint(self, step: int) -> Path:
        """File of the network after a step."""
        return self.path / "checkpoints" / f"step_{step:07d}.safetensors"

    def prune_checkpoints(self, keep: int) -> None:
        """Delete all but the newest `keep` of `checkpoints/`."""
        found = sorted((self.path / "checkpoints").glob("step_*.safetensors"))
        for path in found[: max(0, len(found) - keep)]:
            path.unlink()

    def write_validation(self, names: NDArray[np.str_], yaw: NDArray[np.floating], nme: NDArray[np.floating]) -> None:
        """Write `validation.csv`: the NME of every validation face, percent, by the best network."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["name", "yaw", "nme"])
        writer.writerows([n, f"{y:.3f}", f"{e:.6f}"] for n, y, e in zip(names, yaw, nme, strict=True))
        _write_text(self.validation, text.getvalue())


def _write_text(path: Path, text: str) -> None:
    with written_atomically(path) as partial:
        partial.write_text(text, encoding="utf-8")
