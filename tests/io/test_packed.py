"""Tar shards and Parquet tables of photos."""

import io
import tarfile
from itertools import chain
from operator import itemgetter
from pathlib import Path

import pytest
from example_photos import ASTRONAUT, read_table

from dhm_cli.alignment.photos import align_files
from dhm_cli.alignment.shard import Shard
from dhm_cli.errors import InputError
from dhm_cli.inference.results import partial_path
from dhm_cli.io.packed import is_pack, unpack

MOST = 10**6
NAMES = ["a/one.jpg", "a/one.json", "two.left.PNG", "._two.jpg", "three.jpg"]


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        folder = tarfile.TarInfo("a")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    photo = ASTRONAUT.read_bytes()
    return write_tar(tmp_path / "photos-000.tar", dict.fromkeys(NAMES, photo) | {"three.jpg": b"no photo"})


def test_the_photos_of_a_tar_come_in_order(shard: Path) -> None:
    photos = list(unpack(shard, MOST))
    assert [photo.path for photo in photos] == [f"{shard}/{name}" for name in (NAMES[0], NAMES[2], NAMES[4])]
    assert [photo.data for photo in photos] == [ASTRONAUT.read_bytes()] * 2 + [b"no photo"]
    assert [photo.data for photo in unpack(shard, 2)] == [None, None, b"no photo"]
    assert is_pack(shard)
    assert not is_pack(photos[0])


def test_a_tar_elsewhere(shard: Path) -> None:
    pytest.importorskip("fsspec", reason="fsspec, the extra [remote], is not installed")
    assert [photo.data for photo in unpack(shard.as_uri(), MOST)] == [photo.data for photo in unpack(shard, MOST)]


def test_the_photos_of_a_table(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow, the extra [parquet], is not installed")
    import pyarrow as pa

    plain, hub = tmp_path / "plain.parquet", tmp_path / "hub.parquet"
    images = [b"%d" % k for k in range(70)]
    parquet.write_table(pa.table({"image": [*images, None], "text": ["x"] * 71}), plain)
    table = pa.table({"picture": [{"bytes": b"abc", "path": "a"}], "name": ["x.jpg"]})
    parquet.write_table(table, hub)
    photos = list(unpack(plain, MOST))
    assert [photo.data for photo in photos] == [*images, None]
    assert (photos[0].path, photos[70].path) == (f"{plain}/0", f"{plain}/70")
    (photo,) = unpack(hub, MOST, "picture", "name")
    assert (photo.path, photo.data) == (f"{hub}/x.jpg", b"abc")
    with pytest.raises(InputError, match="has no column 'image'") as caught:
        list(unpack(hub, MOST))
    assert "--image-column" in caught.value.hint
    hub.write_bytes(b"no table")
    with pytest.raises(InputError, match=r"hub\.parquet: not a readable Parquet file"):
        list(unpack(hub, MOST))


def test_packed_photos_give_the_rows_of_files(tmp_path: Path, shard: Path, dummy_network: Path) -> None:
    options = {"device": "cpu", "model": dummy_network}
    photo = tmp_path / "one.jpg"
    photo.write_bytes(ASTRONAUT.read_bytes())
    report = align_files([photo, shard], tmp_path / "out.csv", **options)
    alone, first, second, bad = read_table(tmp_path / "out.csv")
    assert [first["path"], second["path"]] == [f"{shard}/a/one.jpg", f"{shard}/two.left.PNG"]
    assert {**first, "path": ""} == {**second, "path": ""} == {**alone, "path": ""}
    assert bad["status"] == "unreadable"
    assert report.broken_packs == ()


def test_a_cut_off_tar_costs_its_rest_only(tmp_path: Path, shard: Path, dummy_network: Path) -> None:
    options = {"device": "cpu", "model": dummy_network}
    cut = tmp_path / "cut.tar"
    cut.write_bytes(shard.read_bytes()[: 3 * 1024 + len(ASTRONAUT.read_bytes()) + 700])
    report = align_files([cut, shard], tmp_path / "out.csv", **options)
    assert [row["path"] for row in read_table(tmp_path / "out.csv")][:2] == [f"{cut}/a/one.jpg", f"{shard}/a/one.jpg"]
    assert len(report.broken_packs) == 1
    assert "cut.tar: cannot be read on" in report.broken_packs[0]
    cut.write_bytes(b"\x1f\x8b" + b"0" * 2000)
    with pytest.raises(InputError, match=r"cut\.tar") as caught:
        align_files([cut], tmp_path / "other.csv", **options)
    assert "gunzip" in caught.value.hint


def test_a_run_is_resumed_within_a_tar(tmp_path: Path, shard: Path, dummy_network: Path) -> None:
    def stop(done: int, total: int) -> None:
        assert total == 0  # not known
        if done == 2:
            raise KeyboardInterrupt

    options = {"device": "cpu", "model": dummy_network, "threads": 1}
    out, whole = tmp_path / "out.csv", tmp_path / "whole.csv"
    align_files([shard], whole, **options)
    with pytest.raises(KeyboardInterrupt):
        align_files([shard], out, progress=stop, **options)
    assert partial_path(out).exists()
    report = align_files([shard], out, resume=True, **options)
    assert out.read_bytes() == whole.read_bytes()
    assert (report.kept, len(report.results)) == (1, 3)  # of the last photo it is not sure


def test_shards_divide_a_tar(tmp_path: Path, dummy_network: Path) -> None:
    options = {"device": "cpu", "model": dummy_network}
    pack = write_tar(tmp_path / "a.tar", {f"{k}.jpg": b"no photo" for k in range(30)})
    (tmp_path / "b.jpg").write_bytes(b"no photo")
    sources = [pack, tmp_path / "b.jpg"]
    align_files(sources, tmp_path / "whole.csv", **options)
    found = []
    for number in (1, 2, 3):
        align_files(sources, tmp_path / f"{number}.csv", shard=Shard(number, 3), **options)
        found.append(read_table(tmp_path / f"{number}.csv"))
    assert all(3 < len(rows) < 20 for rows in found)
    together = sorted(chain.from_iterable(found), key=itemgetter("path"))
    assert together == sorted(read_table(tmp_path / "whole.csv"), key=itemgetter("path"))


@pytest.mark.parametrize("option", ["boxes_csv", "overlay_dir", "crop_dir"])
def test_what_needs_files_is_refused(tmp_path: Path, shard: Path, option: str) -> None:
    with pytest.raises(InputError, match="needs photos in files"):
        align_files([shard], tmp_path / "out.csv", **{option: tmp_path / "x"})
