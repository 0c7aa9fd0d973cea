"""A store made in parts: stopped at any point and run again, it is the same to the byte."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from label_examples import good_labels

from dhm_cli.data.store import FaceStore
from dhm_cli.errors import InputError
from dhm_cli.preparation import shards as parts_module
from dhm_cli.preparation.shards import PartContent, Parts

TOTAL = 23


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_module, "PART", 4)


class Source:
    """Items whose image is their number; item 7 cannot be used. Counts what is made, and stops after a while."""

    def __init__(self, stop_after: int = 10**9, version: int = 1) -> None:
        self.made: list[int] = []
        self.stop_after, self.version = stop_after, version

    def key(self, start: int, stop: int) -> str:
        return f"{self.version} {start} {stop}"

    def make(self, start: int, stop: int) -> PartContent:
        if len(self.made) >= self.stop_after:
            raise KeyboardInterrupt
        self.made.append(start)
        items = [i for i in range(start, stop) if i != 7]
        labels = good_labels(TOTAL).take(np.array(items, dtype=int))
        images = [cv2.imencode(".png", np.full((2, 3, 3), i, np.uint8))[1].tobytes() for i in items]
        return PartContent(images, labels, [("item 7", "broken")] if start <= 7 < stop else [], (1.0, 2.0))


def finish(store: Path, source: Source, workers: int = 1) -> Parts:
    parts = Parts(store, TOTAL, source.key, source.make)
    with parts.locked():
        parts.convert("converting", lambda *_: None, workers)
        labels, _, _ = parts.read()
        parts.write(store, labels, labels.names != "face 9", {"note": "x"})
    return parts


def test_all_items_arrive_in_order(tmp_path: Path) -> None:
    parts = finish(tmp_path / "a.h5", Source())
    store = FaceStore(tmp_path / "a.h5")
    expected = [i for i in range(TOTAL) if i not in (7, 9)]
    assert store.labels.names.tolist() == [f"face {i}" for i in expected]
    assert [int(image[0, 0, 0]) for image in store.images(np.arange(len(store)))] == expected
    labels, dropped, seconds = parts.read()
    assert len(labels) == TOTAL - 1
    assert dropped == [("item 7", "broken")]
    assert seconds == (6.0, 12.0)
    # Row 8 is item 9, since item 7 is not there.
    assert [int(image[0, 0, 0]) for image in parts.images(np.array([8, 21, 0, 3, 7]))] == [9, 22, 0, 3, 8]
    parts.remove()
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


@pytest.mark.parametrize("stop_after", [0, 1, 4, 5])
def test_a_stopped_run_goes_on_and_gives_the_same_bytes(tmp_path: Path, stop_after: int) -> None:
    finish(tmp_path / "whole.h5", Source())
    with pytest.raises(KeyboardInterrupt):
        finish(tmp_path / "a.h5", Source(stop_after))
    assert not (tmp_path / "a.h5").exists()
    second = Source()
    finish(tmp_path / "a.h5", second)
    assert len(second.made) == 6 - stop_after
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_the_number_of_workers_does_not_matter(tmp_path: Path) -> None:
    for workers in (1, 3):
        finish(tmp_path / f"{workers}.h5", Source(), workers)
    assert (tmp_path / "1.h5").read_bytes() == (tmp_path / "3.h5").read_bytes()


def test_parts_cut_off_in_the_middle_are_made_again(tmp_path: Path) -> None:
    first = finish(tmp_path / "a.h5", Source())
    before = (tmp_path / "a.h5").read_bytes()
    damaged = first.paths[2].read_bytes()
    first.paths[2].write_bytes(damaged[: len(damaged) // 2])
    first.paths[3].write_bytes(b"")
    (first.folder / "00004.h5.partial").write_bytes(b"cut off")
    (first.folder / "00099.h5").write_bytes(b"of a larger dataset")
    second = Source()
    finish(tmp_path / "a.h5", second)
    assert sorted(second.made) == [8, 12]
    assert (tmp_path / "a.h5").read_bytes() == before
    assert sorted(p.name for p in first.folder.glob("*.*")) == [p.name for p in first.paths]


def test_parts_of_other_settings_are_made_again(tmp_path: Path) -> None:
    finish(tmp_path / "a.h5", Source())
    second = Source(version=2)
    finish(tmp_path / "a.h5", second)
    assert len(second.made) == 6


def test_progress_counts_what_is_there_already(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        finish(tmp_path / "a.h5", Source(3))
    seen: list[tuple[str, int, int]] = []
    source = Source()
    parts = Parts(tmp_path / "a.h5", TOTAL, source.key, source.make)
    with parts.locked():
        parts.convert("x", lambda *state: seen.append(state), 1)
    assert seen[0] == ("x", 12, TOTAL)
    assert seen[-1] == ("x", TOTAL, TOTAL)


def test_a_part_may_be_empty(tmp_path: Path) -> None:
    source = Source()
    parts = Parts(tmp_path / "a.h5", 4, source.key, lambda start, stop: source.make(7, 8))
    with parts.locked():
        parts.convert("x", lambda *_: None, 1)
    labels, dropped, _ = parts.read()
    assert len(labels) == 0
    assert dropped == [("item 7", "broken")]


@contextmanager
def locked_elsewhere(folder: Path) -> Iterator[None]:
    """Another process is at the parts in a folder."""
    code = (
        "import sys; from pathlib import Path; from dhm_cli.runtime.lock import claim; "
        "lock = claim(Path(sys.argv[1]) / 'lock', '', ''); print('locked', flush=True); sys.stdin.read()"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code, str(folder)], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield
        process.communicate(timeout=60)


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks")
def test_two_runs_at_once_do_not_meet(tmp_path: Path) -> None:
    source = Source()
    first = Parts(tmp_path / "a.h5", TOTAL, source.key, source.make)
    with locked_elsewhere(first.folder):
        with pytest.raises(InputError, match=r"another dhm prepare is writing this store"):
            finish(tmp_path / "a.h5", source)
        finish(tmp_path / "b.h5", source)
    finish(tmp_path / "a.h5", source)
