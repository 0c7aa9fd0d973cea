"""Files appear whole or not at all, and nothing else changes."""

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from dhm_cli.runtime.atomic import written_atomically
from dhm_cli.runtime.outputs import STDOUT


def write(path: Path, text: str = "new") -> None:
    with written_atomically(path) as partial:
        partial.write_text(text)


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_a_file_appears_and_replaces_an_older_one(tmp_path: Path) -> None:
    write(tmp_path / "folder" / "a.txt", "old")
    write(tmp_path / "folder" / "a.txt")
    assert (tmp_path / "folder" / "a.txt").read_text() == "new"
    assert names(tmp_path / "folder") == ["a.txt"]


def test_an_error_leaves_the_older_file(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "old")

    def fail() -> None:
        with written_atomically(tmp_path / "a.txt") as partial:
            partial.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_foreign_partial_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.txt.partial").write_text("of somebody else")
    write(tmp_path / "a.txt")
    assert (tmp_path / "a.txt.partial").read_text() == "of somebody else"


def test_leftovers_of_killed_processes_go_and_those_of_running_ones_stay(tmp_path: Path) -> None:
    gone = 2**22 + 1  # no process has such a number on Linux
    for process in (gone, os.getppid()):
        (tmp_path / f".a.txt.{process}.partial").write_text("half")
    (tmp_path / ".a.txt.notes.partial").write_text("of somebody else")
    write(tmp_path / "a.txt")
    assert names(tmp_path) == [f".a.txt.{os.getppid()}.partial", ".a.txt.notes.partial", "a.txt"]


def test_the_longest_name_that_a_file_system_takes(tmp_path: Path) -> None:
    name = "ä" * 125 + ".jpg"  # 254 bytes
    write(tmp_path / name)
    assert names(tmp_path) == [name]


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link.txt").symlink_to(tmp_path / "real" / "a.txt")
    for text in ("first", "second"):  # the link dangles at first
        write(tmp_path / "link.txt", text)
        assert (tmp_path / "link.txt").is_symlink()
        assert (tmp_path / "real" / "a.txt").read_text() == text
    assert names(tmp_path) == ["link.txt", "real"]


def test_a_pipe_stays_a_pipe_and_its_reader_gets_all(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write(pipe, "whole")
    reader.join(timeout=30)
    assert read == [b"whole"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert names(tmp_path) == ["pipe"]


def test_a_device_stays_a_device(tmp_path: Path) -> None:
    device = tmp_path / "null"
    try:
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        device.write_bytes(b"")
    except OSError as error:
        pytest.skip(f"no device can be made here: {error}")
    write(device)
    assert stat.S_ISCHR(device.stat().st_mode)
    assert names(tmp_path) == ["null"]


def test_standard_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    write(STDOUT, "whole")
    assert capfd.readouterr().out == "whole"
    assert names(tmp_path) == []


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space") as caught, written_atomically(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.filename == str(tmp_path / "a.txt")
