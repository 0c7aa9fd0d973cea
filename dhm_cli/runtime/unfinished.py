"""Landmarks predicted so far, kept in a file, so that a command that was stopped can go on from there."""

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
    """The file of the landmarks predicted so far, of N faces.

    The caller removes the file when its own output is written.

    Args:
        path: the file; None keeps nothing.
        key: everything that the landmarks depend on, such as the hashes of the network and of the images. Landmarks
            that were kept under another key are not used.
    """

    def __init__(self, path: Path | None, key: Mapping[str, object]) -> None:
        self._path = path
        self._key = json.dumps(key, sort_keys=True)
        self._saved = time.monotonic()

    def load(self, predicted: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Fill in the landmarks that were kept.

        Args:
            predicted: (V, N, ...), changed in place; V variants of the landmarks of N faces.

        Returns:
            Which faces were filled in, (N,). None of them where the file is missing, damaged or of another key.
        """
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
        """Save as `save` does, but at most every 20 seconds."""
        if time.monotonic() - self._saved > _SAVE_EVERY:
            self.save(predicted, done)

    def save(self, predicted: NDArray[np.float32], done: NDArray[np.bool_]) -> None:
        """Write the file, atomically; nothing where no face is done.

        Args:
            predicted: (V, N, ...).
            done: (N,), the faces whose landmarks are predicted.
        """
        self._saved = time.monotonic()
        if self._path is not None and done.any():
            with written_atomically(self._path) as partial, partial.open("wb") as file:
                np.savez(file, key=np.array(self._key), predicted=predicted, done=done)
