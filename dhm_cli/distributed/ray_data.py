"""`dhm align --ray`: photos shared out by Ray Data to actors that keep a network each and write parts of the table."""

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import numpy as np

from dhm_cli.alignment.photos import each_photo
from dhm_cli.alignment.shard import Shard
from dhm_cli.datasets.folders import readable
from dhm_cli.distributed.align_batch import AlignBatch
from dhm_cli.distributed.parts import Parts
from dhm_cli.errors import DhmError, InputError
from dhm_cli.inference.results import NO_FACE, UNREADABLE
from dhm_cli.io.images import MOST_PIXELS
from dhm_cli.io.packed import IMAGE_COLUMN, is_pack, photo_of
from dhm_cli.io.parquet import load_pyarrow
from dhm_cli.io.photo_lists import COLUMN
from dhm_cli.io.photo_search import find_photos
from dhm_cli.io.remote import is_url
from dhm_cli.runtime.threads import available_cores
from dhm_cli.writers.registry import WRITERS

# Photos of a part: at most so many, and so few that every actor gets some.
_MOST_PHOTOS, _PARTS_AN_ACTOR = 2048, 8
# Seconds without a finished part after which it is given up: Ray waits for ever for cores that are never free.
STALLED = 600.0


@dataclass(frozen=True)
class RayReport:
    """What a run did.

    Attributes:
        counts: of photos, faces, doubtful faces, and photos of each status but ok; without those kept.
        kept: photos in the parts of the runs before.
        broken_packs: packs that could not be read to their end, each with the reason.
        seconds: duration, without the start of Ray.
    """

    counts: Mapping[str, int]
    kept: int
    broken_packs: tuple[str, ...]
    seconds: float


def align_on_ray(
    paths: Iterable[str | os.PathLike[str]],
    out: str,
    address: str = "auto",
    *,
    lists: Sequence[str | os.PathLike[str]] = (),
    path_column: str = COLUMN,
    image_column: str = IMAGE_COLUMN,
    shard: Shard | None = None,
    device: str = "auto",
    most_pixels: int = MOST_PIXELS,
    threads: int | None = None,
    resume: bool = False,
    stalled: float = STALLED,
    progress: Callable[[int, int], None] = lambda done, total: None,
    **settings: Any,
) -> RayReport:
    """Align the faces of many photos on the machines of a Ray cluster, and write them to a folder of Parquet files.

    The rows are those of `align_files`, with the column `reason`, in any order. What a killed worker had in hand is
    done again by another; after a killed run `resume` does the photos that are in no part. So each photo is there once.

    Args:
        paths, lists, path_column, image_column, shard: see `align_files`. A pack is the work of one actor.
        out: the folder, or its address; all machines must see it, and the photos, under these names.
        address: of the cluster; "auto" for the one that runs here, else one of this machine alone; "local" for that.
        device: as for `Aligner`; with "cuda" each actor takes a GPU.
        most_pixels: photos that declare more are not read.
        threads: actors, each of a core; None for one per core, in a cluster but for one core, which Ray needs.
        resume: go on with a run that was interrupted.
        stalled: seconds without a finished part after which the run is given up.
        progress: called as (photos done, photos in all, or 0 where there are packs), first with the number kept.
        settings: see `AlignBatch`.

    Raises:
        DhmError: Ray is not installed, or nothing moves; see also `align_files`.
    """
    ray = _load_ray()
    _check_folder(out)
    settings |= {"device": device, "most_pixels": most_pixels}
    load_pyarrow(out)
    # What is wrong with the settings is told here, not in a worker.
    parts = Parts(out, AlignBatch(**(settings | {"device": "cpu"})).schema)
    photos = find_photos(paths, lists, path_column).photos
    finished = parts.finished(resume)
    packs = [str(photo) for photo in photos if is_pack(photo)]
    names = [str(photo) for photo in photos if not is_pack(photo) and (shard is None or shard.holds(photo))]
    to_do = [name for name in names if readable(name) not in finished]
    with _Cluster(ray, address, threads, device) as cluster:
        start = time.perf_counter()
        work = [[pack] for pack in packs] + list(_chunks(to_do, cluster.actors))
        counts, broken = Counter[str](), list[str]()
        progress(len(finished), 0 if packs else len(finished) + len(to_do))
        options = {"image_column": image_column, "path_column": path_column, "most_pixels": most_pixels}
        arguments = (parts, settings, options, shard, frozenset(finished) if packs else frozenset())
        for done in _moving(cluster.map(work, arguments), stalled, out) if work else ():
            counts.update({name: int(sum(done[name])) for name in done if name != "broken"})
            broken += [problem for problems in done["broken"] for problem in problems]
            progress(len(finished) + counts["photos"], 0 if packs else len(finished) + len(to_do))
        return RayReport(counts, len(finished), tuple(broken), time.perf_counter() - start)


class _Worker:
    """An actor: aligns chunks of photos, and writes their parts."""

    def __init__(
        self,
        parts: Parts,
        settings: dict[str, Any],
        options: dict[str, Any],
        shard: Shard | None,
        finished: frozenset[str],
    ) -> None:
        self._parts, self._options, self._shard, self._finished = parts, options, shard, finished
        self._align = AlignBatch(**settings)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do chunks; returns counts of each, whose names are those of `RayReport.counts`."""
        done = [self._chunk(os.fsdecode(chunk).split("\0")) for chunk in batch["chunk"]]
        columns = {name: np.array([counts[name] for counts, _ in done]) for name in _COUNTED}
        return columns | {"broken": [broken for _, broken in done]}

    def _chunk(self, names: list[str]) -> tuple[Counter[str], list[str]]:
        counts, broken = Counter[str](), list[str]()
        photos, rows = list[str](), list[dict[str, Any]]()
        try:
            for photo in each_photo(map(photo_of, names), broken=broken, **self._options):
                path = str(photo)
                if readable(path) in self._finished or not (self._shard is None or self._shard.holds(path)):
                    continue
                result, faces = self._align.align(photo)
                photos.append(path)
                rows += self._align.rows(result, faces)
                counts.update({"photos": 1, "faces": result.faces, "doubtful": result.doubtful, result.status: 1})
                if len(photos) == _MOST_PHOTOS:
                    self._parts.write(photos, rows)
                    photos, rows = [], []
        except InputError as error:  # of a chunk that is one broken pack; others are there already
            if error.message not in broken:
                raise
        if photos:
            self._parts.write(photos, rows)
        return counts, broken


_COUNTED = ("photos", "faces", "doubtful", NO_FACE, UNREADABLE)


class _Cluster:
    """A connection to a cluster, which ends with the block."""

    def __init__(self, ray: Any, address: str, actors: int | None, device: str) -> None:
        self._ray, self._on_gpu = ray, device == "cuda"
        quiet = {"log_to_driver": False, "logging_level": "ERROR"}
        cores = actors or available_cores()
        try:
            if address == "local":
                raise ConnectionError
            ray.init(address=address, **quiet)
            free = int(ray.cluster_resources().get("GPU" if self._on_gpu else "CPU", 0)) - (not self._on_gpu)
        except ConnectionError as error:
            if address not in ("auto", "local"):
                hint = "start it with ray start --head, or pass --ray auto for this machine alone"
                raise DhmError(f"--ray {address}: no Ray cluster there", hint) from error
            # One core more than the actors take is told to Ray, which hangs when they hold all.
            ray.init(address="local", num_cpus=cores + 1, include_dashboard=False, **quiet)
            free = int(ray.cluster_resources().get("GPU", 0)) if self._on_gpu else cores
        self.actors = min(actors or free, free)
        if self.actors < 1:
            ray.shutdown()
            raise DhmError(
                f"--ray {address}: no free {'GPU' if self._on_gpu else 'core'} for a network beside Ray's own",
                "see what `ray status` tells of the cluster",
            )

    def __enter__(self) -> "_Cluster":
        return self

    def __exit__(self, *error: object) -> None:
        self._ray.shutdown()

    def map(self, work: list[list[str]], arguments: tuple[Any, ...]) -> Iterator[dict[str, Any]]:
        """What the actors return of each chunk, as they are done."""
        data = self._ray.data
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        chunks = data.from_items(
            [{"chunk": os.fsencode("\0".join(names))} for names in work], override_num_blocks=min(len(work), 10_000)
        )
        done = chunks.map_batches(
            _Worker,
            fn_constructor_args=arguments,
            batch_size=1,
            batch_format="numpy",
            compute=data.ActorPoolStrategy(size=min(self.actors, len(work))),
            num_cpus=1,
            num_gpus=1 if self._on_gpu else None,
        )
        yield from done.iter_batches(batch_size=None, batch_format="numpy")


def _moving(items: Iterator[Any], stalled: float, out: str) -> Iterator[Any]:
    """Items as they come, from a thread, which is left behind when none comes for so many seconds."""
    queue: Queue[tuple[str, Any]] = Queue()

    def work() -> None:
        try:
            for item in items:
                queue.put(("item", item))
            queue.put(("end", None))
        except BaseException as error:
            queue.put(("error", error))

    threading.Thread(target=work, daemon=True).start()
    while True:
        try:
            kind, item = queue.get(timeout=stalled)
        except Empty:
            raise DhmError(
                f"{out}: no photo was finished for {stalled:g} seconds",
                "see what `ray status` tells of free cores; what is done is kept, and --resume goes on",
            ) from None
        if kind == "end":
            return
        if kind == "error":
            raise _told(item, out) from item
        yield item


def _told(error: BaseException, out: str) -> BaseException:
    """The error of a worker in its own words, where it is one of ours."""
    if isinstance(error, KeyboardInterrupt):
        return error
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, DhmError):
            return DhmError(seen.message, seen.hint)
        seen = getattr(seen, "cause", None) or seen.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    told = lines[-1].strip() if lines else type(error).__name__
    return DhmError(f"{out}: Ray gave up: {told}", "what is done is kept, and --resume goes on")


def _chunks(names: Sequence[str], actors: int) -> Iterator[list[str]]:
    size = min(_MOST_PHOTOS, max(1, -(-len(names) // (_PARTS_AN_ACTOR * actors))))
    return (list(names[start : start + size]) for start in range(0, len(names), size))


def _check_folder(out: str) -> None:
    if out == "-" or (out.lower().endswith(tuple(WRITERS)) and not (not is_url(out) and Path(out).is_dir())):
        raise InputError(f"--out {out}: --ray writes a folder of Parquet files", "name a folder, such as faces/")


def _load_ray() -> Any:
    # Ray would send usage data to its maker, and its inner parts would write on the terminal.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise DhmError("--ray: Ray Data is not installed", "pip install 'dhm-cli[ray]'") from error
    return ray
