"""Memory that does not suffice becomes an error that says what to lower."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dhm_cli.errors import DhmError

# Not then --resume: a run keeps its batch, size and precision.
LESS_TO_TRAIN = "start a new run with a lower --batch or --input-size, or on a GPU with --precision bf16"
LESS_TO_VALIDATE = "lower training.validation_batch in the settings file (--config)"
# What RuntimeErrors say: CUDA, cuBLAS and cuDNN, the CPU on Windows, the CPU elsewhere.
_SAID = ("out of memory", "status_alloc_failed", "not enough memory", "allocate memory")


@contextmanager
def memory_explained(doing: str, hint: str) -> Iterator[None]:
    """Turn what torch and Python raise without memory into a DhmError; other errors pass.

    Args:
        doing: what the memory was for, as in "validating 128 crops of 120 pixels".
        hint: what to lower.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _is_memory_error(error):
            raise
        raise DhmError(f"out of memory {doing}", hint) from error


def _is_memory_error(error: RuntimeError) -> bool:
    text = str(error).lower()
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(words in text for words in _SAID)
