"""Outputs: inputs and files of others are safe, links are followed, pipes and devices are written to."""

import os
import stat
import threading
from pathlib import Path

import pytest

from dhm_cli.errors import InputError
from dhm_cli.runtime.outputs import STDOUT, check_output, is_stream, open_stream


def is_ours(path: Path) -> bool:
    return path.read_bytes().startswith(b"ours")


def check(path: Path, **options: object) -> None:
    check_output(path, "--out", "a table of dhm align", is_ours, **options)  # type: ignore[arg-type]


def test_a_free_name_our_own_file_and_an_empty_one_pass(tmp_path: Path) -> None:
    check(tmp_path / "no folder yet" / "free.csv")
    (tmp_path / "old.csv").write_text("ours, of an earlier run")
    check(tmp_path / "old.csv")
    (tmp_path / "empty.csv").touch()
    check(tmp_path / "empty.csv")


def test_a_file_of_another_kind_is_refused_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "thesis.txt"
    path.write_text("years of work")
    with pytest.raises(InputError, match=r"thesis\.txt: exists and is not a table of dhm align") as caught:
        check(path)
    assert "--force" in caught.value.hint
    assert "choose another --out" in caught.value.hint
    check(path, force=True)


@pytest.mark.parametrize("force", [False, True])
def test_an_input_is_refused_by_whatever_name(tmp_path: Path, force: bool) -> None:
    photo, hard = tmp_path / "photo.jpg", tmp_path / "hard.jpg"
    photo.write_text("ours")
    os.link(photo, hard)
    (tmp_path / "soft.jpg").symlink_to(photo)
    for name in (photo, hard, tmp_path / "soft.jpg", tmp_path / "." / "photo.jpg"):
        with pytest.raises(InputError, match="is read by this command too"):
            check(name, inputs=[tmp_path / "missing", photo], force=force)
    check(photo, inputs=[tmp_path / "missing"])


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        check(tmp_path, force=True)


def test_a_link_stands_for_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    (tmp_path / "link.csv").symlink_to(tmp_path / "thesis.txt")
    with pytest.raises(InputError, match="exists and is not"):
        check(tmp_path / "link.csv")
    (tmp_path / "dangling.csv").symlink_to(tmp_path / "free.csv")
    check(tmp_path / "dangling.csv")


def test_streams(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    (tmp_path / "file").touch()
    for path, expected in (("pipe", True), ("link", True), ("file", False), ("free", False), (".", False)):
        assert is_stream(tmp_path / path) == expected, path
    assert is_stream(STDOUT)
    check(tmp_path / "pipe", inputs=[tmp_path / "pipe"])


def test_a_pipe_gets_what_is_written(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    with open_stream(tmp_path / "pipe") as stream:
        stream.write(b"rows")
    reader.join(timeout=30)
    assert read == [b"rows"]
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_standard_output_stays_open(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    for text in (b"one ", b"two"):
        with open_stream(STDOUT) as stream:
            stream.write(text)
    assert capfdbinary.readouterr().out == b"one two"
