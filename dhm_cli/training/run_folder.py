"""The folder of a training run: settings, environment, metrics, pictures, checkpoints."""

import csv
import io
import json
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray

from dhm_cli.drawing.charts import save_learning_curve
from dhm_cli.errors import FormatError, InputError
from dhm_cli.runtime.atomic import written_atomically
from dhm_cli.runtime.environment import environment
from dhm_cli.runtime.lock import claim

_MOVE_AWAY = "move the file away: --resume goes on without it"


class RunFolder:
    """The folder of one run, and the one place that knows the names of its files.

    Args:
        path: the folder; made when something is written.

    Attributes:
        config: the resolved settings.
        record: what the settings were applied to, and when and where.
        metrics: one line of JSON per report.
        learning_curve: picture of the metrics.
        best: the network with the best validation.
        last: the network of the last validation.
        validation: the errors of the best network, one row a validation face.
        state: what a resume needs.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.toml"
        self.record = path / "run.json"
        self.metrics = path / "metrics.jsonl"
        self.learning_curve = path / "learning_curve.png"
        self.best = path / "best.safetensors"
        self.last = path / "last.safetensors"
        self.validation = path / "validation.csv"
        self.state = path / "state.safetensors"
        self._checkpoints = path / "checkpoints"
        self._lock: IO[str] | None = None

    def check_start(self, resume: bool) -> None:
        """Check that the folder holds a run to resume, or none to start one.

        Raises:
            InputError: it does not.
        """
        exists = self.state.exists()
        if exists and not resume:
            raise InputError(f"{self.path}: holds a training run", "continue it with --resume, or choose another --out")
        if resume and not exists:
            raise InputError(f"{self.path}: no training run to resume", "start one without --resume, in a new --out")
        if self.best.exists() and not exists:
            raise InputError(
                f"{self.path}: holds the networks of a run whose {self.state.name} is gone",
                f"choose another --out; --init {self.last} starts from its weights",
            )

    def describe(self, record: dict[str, Any], step: int) -> None:
        """Write the record of the run.

        Each start of the run adds a session: when, from which step, command, environment.

        Args:
            record: what the run is, plain JSON.
            step: steps done before this start.

        Raises:
            FormatError: the record of the earlier starts is damaged.
        """
        sessions = self._sessions() if step and self.record.exists() else []
        session = {"started": datetime.now(timezone.utc).isoformat(timespec="seconds"), "step": step}
        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        machine = {**environment(), "threads": torch.get_num_threads(), "gpus": gpus}
        sessions.append({**session, "command": sys.argv, **machine})
        _write_text(self.record, json.dumps({**record, "sessions": sessions}, indent=1))

    def _sessions(self) -> list[Any]:
        try:
            return list(json.loads(self.record.read_text(encoding="utf-8"))["sessions"])
        except (ValueError, KeyError, TypeError) as error:
            raise FormatError(f"{self.record}: not the record of a run ({error!r})", _MOVE_AWAY) from error

    def claim(self) -> None:
        """Keep other processes from training in this folder until this one ends, however it ends.

        Raises:
            InputError: another process trains in it.
        """
        problem = f"{self.path}: another process trains in it"
        self._lock = claim(self.path / ".lock", problem, "wait for it, or choose another --out")

    def rows(self) -> list[dict[str, Any]]:
        """The lines of the metrics.

        Raises:
            FormatError: a line is not one of a training's.
        """
        if not self.metrics.exists():
            return []
        *lines, _cut_off = self.metrics.read_text().split("\n")  # a crash may have cut the last one
        try:
            rows = [json.loads(line) for line in lines]
        except ValueError as error:
            raise FormatError(f"{self.metrics}: a line is not JSON ({error})", _MOVE_AWAY) from error
        if not all(isinstance(row, dict) and "step" in row for row in rows):
            raise FormatError(f"{self.metrics}: a line without a step", _MOVE_AWAY)
        return rows

    def forget_after(self, step: int) -> None:
        """Drop metrics of steps that are about to be done again."""
        rows = [row for row in self.rows() if row["step"] <= step]
        if self.metrics.exists():
            _write_text(self.metrics, "".join(json.dumps(row) + "\n" for row in rows))

    def add_row(self, row: dict[str, Any]) -> None:
        """Add a line to the metrics."""
        self.path.mkdir(parents=True, exist_ok=True)
        with self.metrics.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def draw_learning_curve(self, warmup: int = 0) -> None:
        """Draw the learning curve again."""
        save_learning_curve(self.learning_curve, self.rows(), warmup)

    def sample(self, step: int) -> Path:
        """File of the sample predictions after a step."""
        return self.path / "samples" / f"step_{step:07d}.png"

    def checkpoint(self, step: int) -> Path:
        """File of the network after a step."""
        return self._checkpoints / f"step_{step:07d}.safetensors"

    def nan_batch(self, step: int, rank: int) -> Path:
        """File of the batch that gave no finite loss after a step, in the process of that rank."""
        return self.path / f"nan_step_{step:07d}_rank_{rank}.safetensors"

    def prune_checkpoints(self, keep: int) -> None:
        """Delete all numbered checkpoints but the newest `keep`."""
        found = sorted((self._checkpoints).glob("step_*.safetensors"))
        for path in found[: max(0, len(found) - keep)]:
            path.unlink()

    def write_validation(self, names: NDArray[np.str_], yaw: NDArray[np.floating], nme: NDArray[np.floating]) -> None:
        """Write the table of the validation faces.

        Args:
            names: (N,), of the faces.
            yaw: (N,), degrees.
            nme: (N,), percent, of the best network.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["name", "yaw", "nme"])
        writer.writerows([n, f"{y:.3f}", f"{e:.6f}"] for n, y, e in zip(names, yaw, nme, strict=True))
        _write_text(self.validation, text.getvalue())


def _write_text(path: Path, text: str) -> None:
    with written_atomically(path) as partial:
        partial.write_text(text, encoding="utf-8")
