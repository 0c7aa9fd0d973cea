"""Photos shared out by Ray Data; its parts without it, and one run with it where it is installed."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from example_photos import ASTRONAUT, write_album
from printed import folded
from typer.testing import CliRunner

from dhm_cli.alignment.photos import align_files
from dhm_cli.alignment.shard import Shard
from dhm_cli.cli.main import app
from dhm_cli.distributed import ray_data
from dhm_cli.distributed.parts import Parts
from dhm_cli.distributed.ray_data import align_on_ray
from dhm_cli.errors import DhmError, InputError
from dhm_cli.inference.columns import Layout
from dhm_cli.writers.parquet_table import arrow_schema

parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow, the extra [parquet], is not installed")


class Here:
    """A cluster that does the work in this process, and some of it twice, as after the death of an actor."""

    def __init__(self, ray: Any, address: str, actors: int | None, device: str) -> None:
        self.actors = 2

    def __enter__(self) -> "Here":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def map(self, work: list[list[str]], arguments: tuple[Any, ...]) -> Iterator[dict[str, Any]]:
        worker = ray_data._Worker(*arguments)
        for names in work:
            chunk = {"chunk": [os.fsencode("\0".join(names))]}
            worker(chunk)
            yield worker(chunk)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(ray_data, "_load_ray", lambda: None)
    monkeypatch.setattr(ray_data, "_Cluster", Here)
    monkeypatch.chdir(tmp_path)
    write_album(tmp_path / "album")
    return tmp_path


def rows(*places: Path | str) -> list[str]:
    """The rows of tables, in any order, without the reasons."""
    found = [row for place in places for row in parquet.read_table(place).to_pylist()]
    return sorted(repr([(name, value) for name, value in row.items() if name != "reason"]) for row in found)


def test_the_parts_hold_the_rows_of_one_run(here: Path, dummy_network: Path) -> None:
    options = {"device": "cpu", "model": dummy_network}
    seen = list[tuple[int, int]]()
    align_files(["album"], "whole.parquet", **options)
    report = align_on_ray(["album"], "out", progress=lambda *progress: seen.append(progress), **options)
    assert rows("out") == rows("whole.parquet")
    assert report.counts == {"photos": 5, "faces": 4, "doubtful": 0, "no_face": 1, "unreadable": 1}
    assert (seen[0], seen[-1]) == ((0, 5), (5, 5))
    assert [r for r in parquet.read_table("out").column("reason").to_pylist() if r] == ["truncated PNG"]
    assert len(list(Path("out").iterdir())) == 5  # a part an actor and more, as far as there are photos


@pytest.mark.parametrize("shared", [False, True])
def test_a_run_goes_on_with_the_photos_that_are_in_no_part(here: Path, dummy_network: Path, shared: bool) -> None:
    options = {"device": "cpu", "model": dummy_network, "shard": Shard(1, 2) if shared else None}
    align_files(["album"], "whole.parquet", **options)
    align_on_ray(["album"], "out", **options)
    with pytest.raises(InputError, match="out: holds parts of an earlier run"):
        align_on_ray(["album"], "out", **options)
    parts = sorted(Path("out").iterdir())
    before = parts[0].stat().st_mtime_ns
    parts[-1].unlink()
    report = align_on_ray(["album"], "out", resume=True, **options)
    assert (report.counts["photos"], report.kept) == (1, len(parts) - 1)
    assert rows("out") == rows("whole.parquet")
    assert parts[0].stat().st_mtime_ns == before
    assert align_on_ray(["album"], "out", resume=True, **options).counts == {}


def test_packs_are_aligned_by_photo_and_resumed_by_photo(
    here: Path, dummy_network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as pa

    images = [ASTRONAUT.read_bytes(), *([b"no photo"] * 4)]
    parquet.write_table(pa.table({"image": images}), "photos.parquet")
    Path("cut.tar").write_bytes(b"no tar")
    monkeypatch.setattr(ray_data, "_MOST_PHOTOS", 2)
    options = {"device": "cpu", "model": dummy_network}
    align_files(["photos.parquet"], "whole.parquet", **options)
    for resume in (False, True):
        report = align_on_ray(["photos.parquet", "cut.tar"], "out", resume=resume, **options)
        assert rows("out") == rows("whole.parquet")
        assert len(report.broken_packs) == 1
        assert "cut.tar" in report.broken_packs[0]
        sorted(Path("out").iterdir())[0].unlink()
        assert rows("out") != rows("whole.parquet")


def test_what_is_in_the_way_is_told(here: Path, dummy_network: Path) -> None:
    Path("file").touch()
    with pytest.raises(InputError, match="file: is a file"):
        align_on_ray(["album"], "file", device="cpu", model=dummy_network)
    with pytest.raises(InputError, match=r"faces\.csv: --ray writes a folder"):
        align_on_ray(["album"], "faces.csv")
    align_on_ray(["album"], "out", device="cpu", model=dummy_network)
    with pytest.raises(InputError, match="other columns"):
        align_on_ray(["album"], "out", device="cpu", model=dummy_network, resume=True, columns=["box"])
    part = sorted(Path("out").iterdir())[0]
    part.write_bytes(b"PAR1")
    with pytest.raises(InputError, match=f"{part.name}: not a readable part") as caught:
        align_on_ray(["album"], "out", device="cpu", model=dummy_network, resume=True)
    assert "delete it" in caught.value.hint


def test_parts_go_elsewhere(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec", reason="fsspec, the extra [remote], is not installed")
    parts = Parts("memory://dhm-parts", arrow_schema(Layout()))
    row = {"path": "a.jpg", "status": "no_face"}
    assert parts.finished(False) == set()
    try:
        parts.write(["a.jpg"], [row])
        parts.write(["a.jpg"], [row])
        parts.write(["b.jpg"], [row | {"path": "b.jpg"}])
        assert parts.finished(True) == {"a.jpg", "b.jpg"}
        assert len(fsspec.filesystem("memory").ls("/dhm-parts")) == 2
    finally:
        fsspec.filesystem("memory").rm("/dhm-parts", recursive=True)


def test_a_run_in_which_nothing_moves_ends(here: Path, dummy_network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(self: Here, work: list[list[str]], arguments: object) -> Iterator[dict[str, Any]]:
        time.sleep(2)
        yield {}

    monkeypatch.setattr(Here, "map", hang)
    with pytest.raises(DhmError, match=r"no photo was finished for 0\.1 seconds") as caught:
        align_on_ray(["album"], "out", device="cpu", model=dummy_network, stalled=0.1)
    assert "--resume" in caught.value.hint


def test_an_error_in_a_worker_is_told_in_its_words() -> None:
    class TaskError(Exception):
        def __init__(self) -> None:
            super().__init__("long\ntrace\nInputError: disk full")
            self.cause = InputError("out/part: cannot be written: disk full", "make room")

    told = ray_data._told(TaskError(), "out")
    assert (told.args, told.hint) == (("out/part: cannot be written: disk full",), "make room")  # type: ignore[attr-defined]
    told = ray_data._told(RuntimeError("long\n\nthe last line\n"), "out")
    assert told.args == ("out: Ray gave up: the last line",)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DhmError, match="Ray Data is not installed") as caught:
        align_on_ray(["album"], "out")
    assert "dhm-cli[ray]" in caught.value.hint


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--out", "a/", "--boxes", "b.csv"], "--boxes: does not go with --ray"),
        (["--out", "a/", "--gallery", "g.html"], "--gallery: does not go with --ray"),
        (["--out", "a/", "--out", "b/"], "writes one folder"),
        (["--out", "a/", "--force"], "--force: does not go with --ray"),
    ],
)
def test_options_that_do_not_go_with_it(here: Path, options: list[str], told: str) -> None:
    result = CliRunner().invoke(app, ["align", "album", "--ray", "auto", *options])
    assert result.exit_code == 1
    assert told in folded(result.output)


def test_the_command(here: Path, dummy_network: Path) -> None:
    arguments = ["align", "album", "--ray", "auto", "--out", "out/", "--device", "cpu", "--model", str(dummy_network)]
    result = CliRunner().invoke(app, arguments)
    assert "5 photos, 4 faces, 1 without a face, 1 unreadable" in folded(result.output)
    assert result.exit_code == 1  # one is unreadable


def test_ray_itself(tmp_path: Path, dummy_network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="ray, the extra [ray], is not installed")
    monkeypatch.chdir(tmp_path)
    write_album(tmp_path / "album")
    options = {"device": "cpu", "model": dummy_network}
    align_files(["album"], "whole.parquet", **options)
    report = align_on_ray(["album"], "out", "local", threads=1, stalled=120, **options)
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert rows("out") == rows("whole.parquet")
    assert report.counts["photos"] == 5
