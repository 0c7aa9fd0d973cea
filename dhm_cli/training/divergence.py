"""A loss or a gradient that is no finite number ends a training; the batch that gave it is kept."""

import math
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from dhm_cli.data.batches import Batch
from dhm_cli.errors import DhmError
from dhm_cli.models.checkpoint import write_tensors
from dhm_cli.training.distributed import Processes
from dhm_cli.training.run_folder import RunFolder


def raise_divergence(
    batch: Batch, names: NDArray[np.str_], loss: float, norm: float, step: int, folder: RunFolder, processes: Processes
) -> NoReturn:
    """Save the batch of every process whose loss is not finite, or of all where only the gradient is not; then raise.

    Args:
        batch: this process's share of the step's batch.
        names: (B,), of its faces.
        loss: of this process.
        norm: of the gradient over all processes.
        step: steps done before.
        folder: where the batch is saved.
        processes: this process among others; all must call this.

    Raises:
        DhmError: always; says in every process what the first one found.
    """
    finite = [math.isfinite(other) for other in processes.gather(loss)]
    sentence = ""
    if not finite[processes.rank] or all(finite):
        file = folder.nan_batch(step, processes.rank)
        record = {"step": step, "names": names.tolist(), "loss": str(loss)}
        write_tensors(file, batch._asdict(), {"batch": record})
        what = f"the loss became {loss}" if not math.isfinite(loss) else f"the gradient's norm became {norm}"
        sentence = f"{what} at step {step}, with the batch now in {file} ({', '.join(names[:3])}, ...)"
    raise DhmError(
        next(filter(None, processes.gather(sentence))),
        "look for wrong labels with: dhm prepare --check; or lower --learning-rate in a new run",
    )
