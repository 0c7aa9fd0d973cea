"""Landmarks of many faces that are not complete yet, kept in a file when the work is stopped."""

import json
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dhm_cli.runtime.atomic import written_atomically

# Seconds between two savings of what is done.
_SAVE_EVERY = 20.0


class Unfinished:
    """The file of predictions that are not complete yet.

    Args:
        path: the file; None keeps nothing.
        key: all that decides the predictions; what was kept under another key is not used.
    """

    def __init__(self, path: Path | None, key: Mapping[str, object]) -> None:
        self._path = path
        self._key = json.dumps(key, sort_keys=True)
        self._saved = time.monotonic()

    def load(self, predicted: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Fill in what was kept; returns which faces that were, (N,)."""
        nothing = np.zeros(predicted.shape[1], bool)
        if self._path is None:
            return nothing
        try:
            with np.load(self._path, allow_pickle=False) as kept:
                if str(kept["key"]) != self._key or kept["predicted"].shape != predicted.shape:
                    return nothing
                predicted[:] = kept["predicted"]
                return np.asarray(kept["done"], bool)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # none, or damaged: begin anew
            return nothing

    def save_at_times(self, predicted: NDArray[np.float32], done: NDArray[np.bool_]) -> None:
        """Keep what is done, if a while has passed since that was done last."""
        if time.monotonic() - self._saved > _SAVE_EVERY:
            self.save(predicted, done)

    def save(self, predicted: NDArray[np.float32], done: NDArray[np.bool_]) -> None:
        """Keep what is done."""
        self._saved = time.monotonic()
        if self._path is not None and done.any():
            with written_atomically(self._path) as partial, partial.open("wb") as file:
                np.savez(file, key=np.array(self._key), predicted=predicted, done=done)
