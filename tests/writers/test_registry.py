"""The outputs of `dhm align`: chosen by the ending of the name, handed photos and faces, closed in any case."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from example_photos import write_album

from dhm_cli.alignment.photos import align_files
from dhm_cli.errors import InputError
from dhm_cli.inference.aligner import Face
from dhm_cli.inference.columns import Identity, Layout
from dhm_cli.inference.results import NO_FACE, OK, UNREADABLE, PhotoResult, partial_path
from dhm_cli.writers import registry
from dhm_cli.writers.registry import Kind, open_writer
from dhm_cli.writers.row_files import RowFile


class Diary:
    """A writer that notes what it is asked for; it has finished a photo before."""

    def __init__(self, out: Path, layout: Layout, resume: bool) -> None:
        done = {(str(out.parent / "album" / "a.png"),): PhotoResult("a.png", OK, 7)}
        self.finished: dict[Identity, PhotoResult] = done if resume else {}
        self.written: list[tuple[PhotoResult, list[Face]]] = []
        self.ends: list[str] = []

    def write(self, result: PhotoResult, faces: Sequence[Face]) -> None:
        self.written.append((result, list(faces)))

    def keep(self, count: int) -> None:
        assert count == len(self.finished)

    def complete(self) -> None:
        self.ends.append("complete")

    def finish(self) -> None:
        self.ends.append("finish")

    def close(self) -> None:
        self.ends.append("close")


@pytest.fixture
def diaries(monkeypatch: pytest.MonkeyPatch) -> list[Diary]:
    """The writers that are opened for names on .diary."""
    opened: list[Diary] = []

    def open_diary(out: Path, layout: Layout, resume: bool) -> Diary:
        opened.append(Diary(out, layout, resume))
        return opened[-1]

    monkeypatch.setitem(registry.WRITERS, ".diary", Kind(open_diary, open_diary, lambda _: True))
    return opened


def test_the_ending_chooses(tmp_path: Path, diaries: list[Diary]) -> None:
    for name in ("a.diary", "b.DIARY"):
        assert open_writer(tmp_path / name) is diaries[-1]
    writer = open_writer(tmp_path / "landmarks.CSV")
    assert isinstance(writer, RowFile)
    writer.close()
    for name in ("landmarks", "landmarks.txt", "landmarks.xml", "x.docx"):
        with pytest.raises(InputError, match="no such kind of output") as caught:
            open_writer(tmp_path / name)
        assert ".csv" in caught.value.hint
    assert len(diaries) == 2


def test_a_writer_is_handed_photos_and_faces(tmp_path: Path, dummy_network: Path, diaries: list[Diary]) -> None:
    write_album(tmp_path / "album")
    report = align_files([tmp_path / "album"], tmp_path / "out.diary", device="cpu", model=dummy_network)
    (diary,) = diaries
    assert diary.ends == ["complete", "finish", "close"]
    results = [result for result, _ in diary.written]
    assert tuple(results) == report.results
    assert [result.status for result in results] == [OK, NO_FACE, UNREADABLE, OK, OK]
    assert results[2].problems == ("truncated PNG",)
    assert [len(faces) for _, faces in diary.written] == [result.faces for result in results] == [1, 0, 0, 1, 2]
    assert diary.written[0][1][0].landmarks.shape == (68, 3)


def test_a_writer_says_what_is_done(tmp_path: Path, dummy_network: Path, diaries: list[Diary]) -> None:
    write_album(tmp_path / "album")
    out = tmp_path / "out.diary"
    partial_path(out).touch()
    report = align_files([tmp_path / "album"], out, device="cpu", model=dummy_network, resume=True)
    assert (report.kept, report.faces) == (1, 7 + 3)
    assert len(diaries[0].written) == 4


def test_a_writer_is_closed_after_an_interruption(tmp_path: Path, dummy_network: Path, diaries: list[Diary]) -> None:
    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    write_album(tmp_path / "album")
    options = {"device": "cpu", "model": dummy_network}
    with pytest.raises(KeyboardInterrupt):
        align_files([tmp_path / "album"], tmp_path / "out.diary", progress=stop, **options)
    assert diaries[0].ends == ["close"]
    assert len(diaries[0].written) == 2
