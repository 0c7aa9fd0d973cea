"""Photos and outputs elsewhere: file://, memory://, archives, a web server of this machine."""

import importlib.util
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from example_photos import read_table, write_album
from typer.testing import CliRunner

from dhm_cli.alignment.photos import align_files
from dhm_cli.cli.main import app
from dhm_cli.errors import DhmError, InputError
from dhm_cli.io import remote
from dhm_cli.io.photo_search import find_photos
from dhm_cli.io.remote import find_urls, is_url, read_url

fsspec = pytest.importorskip("fsspec", reason="fsspec, the extra [remote], is not installed")


@pytest.fixture
def album(tmp_path: Path) -> Path:
    folder = write_album(tmp_path / "album")
    (folder / "sub").mkdir()
    (folder / "sub" / "bad.jpg").write_bytes(b"no photo")
    (folder / "._hidden.jpg").write_bytes(b"no photo")
    return folder


@pytest.fixture
def memory() -> Iterator[str]:
    store = fsspec.filesystem("memory")
    yield "memory://dhm-test"
    if store.exists("/dhm-test"):
        store.rm("/dhm-test", recursive=True)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """The address of a web server on the folder of the test, and what it was asked for."""
    pytest.importorskip("aiohttp", reason="aiohttp, of the extra [remote], is not installed")
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_request(self, *_: object) -> None:
            asked.append(self.path)

        def log_error(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=tmp_path)) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}", asked
        http.shutdown()
        thread.join()


def rows(out: Path, root: str) -> list[dict[str, str]]:
    """The rows of a table, with paths as seen from a root."""
    table = read_table(out)
    assert all(row["path"].startswith(root) for row in table), (root, table[0]["path"])
    return [row | {"path": row["path"].removeprefix(root)} for row in table]


def test_addresses_are_told_from_names() -> None:
    assert is_url("s3://bucket/a.jpg")
    assert is_url("zip://a.jpg::/photos.zip")
    assert not any(map(is_url, ("a.jpg", "/a/b.jpg", "c:\\a.jpg", "a:b", Path("s3://bucket/a.jpg"))))


@pytest.mark.parametrize("kind", ["file", "memory", "zip"])
def test_photos_elsewhere_give_the_rows_of_files(
    tmp_path: Path, album: Path, memory: str, dummy_network: Path, kind: str
) -> None:
    archive = tmp_path / "photos.zip"
    if kind == "memory":
        fsspec.filesystem("memory").put(str(album), "/dhm-test", recursive=True)
    with zipfile.ZipFile(archive, "w") as packed:
        for file in sorted(album.rglob("*.*")):
            packed.write(file, file.relative_to(album))
    source, root = {
        "file": (album.as_uri(), f"{album.as_uri()}/"),
        "memory": (memory, "memory:///dhm-test/"),
        "zip": (f"zip://::{archive}", "zip://"),
    }[kind]
    align_files([album], tmp_path / "files.csv", device="cpu", model=dummy_network)
    report = align_files([source], tmp_path / "out.csv", device="cpu", model=dummy_network)
    found = rows(tmp_path / "out.csv", root)
    if kind == "zip":
        assert all(row["path"].endswith(f"::{archive}") for row in found)
        found = [row | {"path": row["path"].removesuffix(f"::{archive}")} for row in found]
    assert found == rows(tmp_path / "files.csv", f"{album}/")
    truncated, bad = [result.reason for result in report.with_status("unreadable")]
    assert truncated == "truncated PNG"
    assert bad.startswith("not an image")


def test_an_archive_is_opened_once(tmp_path: Path, album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        for name in ("a.jpg", "b.jpg"):
            packed.writestr(name, name)
    opened = []
    url_to_fs = fsspec.url_to_fs
    monkeypatch.setattr(fsspec, "url_to_fs", lambda url: (opened.append(url), url_to_fs(url))[1])
    urls = find_urls(f"zip://*.jpg::{tmp_path / 'a.zip'}", (".jpg",))
    assert [read_url(url, 100) for url in urls] == [b"a.jpg", b"b.jpg"]
    assert len(opened) == 1


def test_photos_on_a_web_server_and_what_is_asked_of_it(
    tmp_path: Path, album: Path, server: tuple[str, list[str]], dummy_network: Path
) -> None:
    address, asked = server
    (tmp_path / "list.txt").write_text(f"{address}/album/sub/bad.jpg\n{address}/album/absent.jpg\n")
    photo = sorted(file for file in album.iterdir() if file.is_file() and not file.name.startswith("."))[0]
    align_files([photo], tmp_path / "file.csv", device="cpu", model=dummy_network)
    report = align_files(
        [f"{address}/album/{photo.name}"],
        tmp_path / "out.csv",
        lists=[tmp_path / "list.txt"],
        device="cpu",
        model=dummy_network,
    )
    good, bad, absent = rows(tmp_path / "out.csv", f"{address}/album/")
    assert [good] == rows(tmp_path / "file.csv", f"{album}/")
    assert (bad["status"], absent["status"]) == ("unreadable", "unreadable")
    assert "FileNotFoundError" in report.with_status("unreadable")[1].reason
    assert sorted(asked) == sorted(f"/album/{name}" for name in (photo.name, "sub/bad.jpg", "absent.jpg"))


def test_a_photo_that_is_too_large_or_not_there(memory: str) -> None:
    fsspec.filesystem("memory").pipe("/dhm-test/a.jpg", b"12345")
    assert read_url(f"{memory}/a.jpg", 5) == b"12345"
    with pytest.raises(InputError, match="more than"):
        read_url(f"{memory}/a.jpg", 4)
    with pytest.raises(InputError, match=r"b\.jpg: cannot be read: FileNotFoundError"):
        read_url(f"{memory}/b.jpg", 4)
    for source in (f"{memory}/none", f"{memory}/*.png"):
        with pytest.raises(InputError, match="no photos there"):
            find_photos([source])


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="Protocol not known: nonsense"):
        find_photos(["nonsense://a.jpg"])
    if importlib.util.find_spec("s3fs") is None:
        with pytest.raises(DhmError, match=r"s3://bucket/a\.jpg: .*s3fs") as caught:
            find_photos(["s3://bucket/a.jpg"])
        assert "install" in caught.value.hint
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(DhmError, match="fsspec is not installed") as caught:
        find_photos(["memory://a.jpg"])
    assert "dhm-cli[remote]" in caught.value.hint


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_outputs_elsewhere(tmp_path: Path, album: Path, memory: str, dummy_network: Path, kind: str) -> None:
    store = fsspec.filesystem(kind)
    folder = (tmp_path / "new" / "folder").as_uri() if kind == "file" else memory
    here, there = tmp_path / "out.jsonl", f"{folder}/out.jsonl"
    options = {"device": "cpu", "model": dummy_network}
    align_files([album], [here, there], **options)
    assert store.cat_file(there) == here.read_bytes()
    with pytest.raises(InputError, match="exists"):
        align_files([album], there, **options)
    align_files([album], there, force=True, **options)
    with pytest.raises(InputError, match="cannot be resumed"):
        align_files([album], there, resume=True, **options)
    if kind == "file":
        assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["out.jsonl"]


def test_an_interrupted_run_leaves_nothing_elsewhere(
    tmp_path: Path, album: Path, memory: str, dummy_network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(done: int, total: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        align_files([album], f"{memory}/out.csv", device="cpu", model=dummy_network, progress=stop)
    assert not fsspec.filesystem("memory").exists(memory)
    assert list(tmp_path.glob("dhm-*")) == []


def test_a_store_that_fails_at_the_end_costs_no_rows(
    tmp_path: Path, album: Path, memory: str, dummy_network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(file: Path, url: str) -> None:
        raise InputError(f"{url}: cannot be written: no rights", "check them")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("dhm_cli.writers.remote_file.upload", fail)
    with pytest.raises(InputError, match="no rights") as caught:
        align_files([album], f"{memory}/out.csv", device="cpu", model=dummy_network)
    (kept,) = tmp_path.glob("dhm-*/out.csv")
    assert str(kept) in caught.value.hint
    assert len(read_table(kept)) > 1


@pytest.mark.parametrize("out", ["http://127.0.0.1:9/out.csv", "zip://out.csv::a.zip", "memory://a/b/"])
def test_places_that_cannot_be_written_are_refused_first(album: Path, out: str) -> None:
    with pytest.raises(InputError, match=r"cannot be written|a folder"):
        align_files([album], out)


def test_pictures_do_not_go_elsewhere(album: Path) -> None:
    result = CliRunner().invoke(app, ["align", str(album), "--overlay", "s3://bucket/drawn"])
    assert result.exit_code == 1
    assert "this machine only" in result.output
    assert not Path("s3:").exists()


def test_reasons_are_one_line() -> None:
    assert remote._reason(ValueError("a\n  b")) == "ValueError: a b"
    assert remote._reason(ValueError()) == "ValueError"
