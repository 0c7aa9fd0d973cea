"""A store in the making: parts of some hundred faces in a hidden folder, so that a run can be stopped at any time.

Each part is a small store of its own that appears in one step when it is whole. A run that was stopped, by Ctrl-C or by
a power cut, makes the parts that are missing and joins them all; since a part depends on its own faces only, the result
is the same to the byte.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dhm_cli.data.store import FaceLabels, FaceStore, write_store
from dhm_cli.errors import FormatError
from dhm_cli.io.hdf5 import open_hdf5
from dhm_cli.runtime.lock import claim
from dhm_cli.runtime.progress import Progress
from dhm_cli.runtime.threads import single_threaded_opencv

# Faces in a part: enough for a batched fit, little enough to lose.
PART = 512


class PartContent(NamedTuple):
    """What one part holds.

    Attributes:
        images: encoded images.
        labels: as many rows.
        dropped: faces left out, with the reason.
        seconds: thread time of reading and of computing.
    """

    images: list[bytes]
    labels: FaceLabels
    dropped: list[tuple[str, str]]
    seconds: tuple[float, float]


class Parts:
    """The parts of one store.

    Args:
        store: the store in the making.
        total: number of items that will be converted.
        key: of items [start, stop): a hash of all that their part depends on.
        make: converts items [start, stop); called from several threads.
    """

    def __init__(
        self, store: Path, total: int, key: Callable[[int, int], str], make: Callable[[int, int], PartContent]
    ) -> None:
        self.folder = store.with_name(f".{store.stem}.parts")
        self._lock = self.folder / "lock"
        self._total, self._key, self._make = total, key, make
        self._ranges = [(start, min(start + PART, total)) for start in range(0, total, PART)]
        self.paths = [self.folder / f"{number:05d}.h5" for number in range(len(self._ranges))]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from these parts; the system forgets the locks of the dead.

        Raises:
            InputError: another process is at them.
        """
        problem = f"{self.folder}: another dhm prepare is writing this store"
        with claim(self._lock, problem, "wait for it, or choose another --out or --name"):
            yield

    def convert(self, stage: str, progress: Progress, workers: int) -> int:
        """Make the parts that are not there yet; returns the number of items that were converted."""
        strays = set(self.folder.iterdir()) - {self._lock, *self.paths}
        for stray in strays:  # of a larger dataset, or cut off while it was written
            stray.unlink()
        missing = [number for number in range(len(self.paths)) if not self._is_there(number)]
        items = sum(stop - start for start, stop in (self._ranges[n] for n in missing))
        done = self._total - items
        progress(stage, done, self._total)
        pool = ThreadPoolExecutor(workers, thread_name_prefix="prepare")
        try:
            with single_threaded_opencv():
                running = {pool.submit(self._convert_one, number): number for number in missing}
                for future in as_completed(running):
                    future.result()
                    start, stop = self._ranges[running[future]]
                    done += stop - start
                    progress(stage, done, self._total)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        return items

    def _is_there(self, number: int) -> bool:
        """Whether a part is whole and made of what is there now."""
        try:
            with open_hdf5(self.paths[number]) as file:
                return bool(file.attrs.get("key") == self._key(*self._ranges[number]))
        except (OSError, RuntimeError, FormatError):
            return False

    def _convert_one(self, number: int) -> None:
        key = self._key(*self._ranges[number])
        content = self._make(*self._ranges[number])
        sizes = np.array([len(image) for image in content.images], dtype=np.int64)
        record = {"key": key, "dropped": json.dumps(content.dropped), "seconds": np.array(content.seconds)}
        write_store(self.paths[number], content.images, sizes, content.labels, record)

    def read(self) -> tuple[FaceLabels, list[tuple[str, str]], tuple[float, float]]:
        """All parts together, once they are converted.

        Returns:
            The labels in order; faces left out, with the reason; thread time of reading and of computing, seconds.
        """
        stores = [FaceStore(path) for path in self.paths]
        dropped = [(name, reason) for s in stores for name, reason in json.loads(s.attributes["dropped"])]
        reading, computing = np.sum([s.attributes["seconds"] for s in stores], axis=0)
        return FaceLabels.join([s.labels for s in stores]), dropped, (float(reading), float(computing))

    def images(self, rows: NDArray[np.integer]) -> list[NDArray[np.uint8]]:
        """The images of some rows of the labels, (H, W, 3) uint8 RGB."""
        starts = np.cumsum([0, *(len(FaceStore(path)) for path in self.paths)])
        parts = np.searchsorted(starts, rows, side="right") - 1
        pairs = zip(rows, parts, strict=True)
        return [FaceStore(self.paths[part]).images(np.array([row - starts[part]]))[0] for row, part in pairs]

    def write(self, store: Path, labels: FaceLabels, keep: NDArray[np.bool_], attributes: dict[str, Any]) -> None:
        """Write the store with the kept rows.

        Args:
            store: the file.
            labels: of all rows of the parts, as they shall be written.
            keep: which of them.
            attributes: what to record.
        """
        sizes = [FaceStore(path).sizes for path in self.paths]
        kept = np.split(keep, np.cumsum([len(s) for s in sizes])[:-1])
        write_store(store, self._images(kept), np.concatenate(sizes)[keep], labels.take(keep), attributes)

    def _images(self, kept: list[NDArray[np.bool_]]) -> Iterator[bytes]:
        for path, rows in zip(self.paths, kept, strict=True):
            yield b"".join(FaceStore(path).encoded_images(np.flatnonzero(rows)))

    def remove(self) -> None:
        """Delete the parts, once the store is written."""
        shutil.rmtree(self.folder, ignore_errors=True)
