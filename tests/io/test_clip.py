"""Decoding videos: times, turned flags, codecs, damage."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av", reason="PyAV, the extra [video], is not installed")

from clips import damaged, number_of, numbered, rotated, write_clip

from dhm_cli.errors import InputError
from dhm_cli.io.clip import Clip, Frame

FRAMES = [numbered(number) for number in range(30)]


def read(path: Path, start: int = 0) -> tuple[Clip, list[Frame]]:
    clip = Clip(path)
    frames = list(clip.read(start))
    clip.close()
    return clip, frames


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mov", "prores_ks", "yuv422p10le"),
        ("a.mkv", "ffv1", "yuv444p"),
        ("a.avi", "mpeg4", "yuv420p"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
        ("Zoë, 10 bit.mp4", "libx265", "yuv420p10le"),
    ],
)
def test_codecs(tmp_path: Path, name: str, codec: str, pixels: str) -> None:
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    clip, frames = read(write_clip(tmp_path / name, FRAMES, codec, pixels=pixels, **options))
    assert [frame.index for frame in frames] == list(range(30))
    assert [number_of(frame.image) for frame in frames] == list(range(30))
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(30) / 30, atol=6e-4)
    assert clip.rate == pytest.approx(30)
    assert clip.frames == 30
    assert not clip.lost


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_variable_frame_rate_and_a_late_start(tmp_path: Path, name: str) -> None:
    steps = np.random.default_rng(0).choice([0.02, 0.04, 0.25], 30)
    times = np.cumsum(steps)
    _, frames = read(write_clip(tmp_path / name, FRAMES, times=(times + 3).tolist()))
    assert [number_of(frame.image) for frame in frames] == list(range(30))
    np.testing.assert_allclose([frame.time for frame in frames], times - times[0], atol=2e-3)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_rotation_flags(tmp_path: Path, quarters: int) -> None:
    _, frames = read(rotated(write_clip(tmp_path / "a.mp4", FRAMES[:3]), quarters))
    expected = np.rot90(FRAMES[2], -quarters)
    assert frames[2].image.shape == expected.shape
    np.testing.assert_allclose(frames[2].image, expected, atol=60)
    assert np.abs(frames[2].image.astype(int) - expected).mean() < 8


def test_a_damaged_frame_costs_itself(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", FRAMES, "mjpeg", pixels="yuvj420p")
    data = path.read_bytes()
    pictures = [at for at in range(len(data)) if data.startswith(b"\xff\xd8\xff", at)]
    length = pictures[13] - pictures[12] - 30
    path.write_bytes(data[: pictures[12]] + bytes(length) + data[pictures[12] + length :])
    _, frames = read(path)
    assert [frame.index for frame in frames] == list(range(30))
    assert [frame.index for frame in frames if frame.damaged] == [12]
    assert frames[12].image is None
    assert frames[12].time == pytest.approx(0.4, abs=2e-3)
    assert [number_of(frame.image) for frame in frames if frame.image is not None] == [*range(12), *range(13, 30)]


def test_damage_amid_frames_that_depend_on_each_other(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", FRAMES, g="10", bf="0")
    _, frames = read(damaged(path, 0.45))
    assert [frame.index for frame in frames] == list(range(30))
    assert number_of(frames[-1].image) == 29


def test_a_file_that_was_cut_off(tmp_path: Path) -> None:
    import av

    whole = write_clip(tmp_path / "whole.mp4", FRAMES, g="10", bf="0")
    path = tmp_path / "a.mp4"
    with av.open(str(whole)) as source, av.open(str(path), "w", options={"movflags": "faststart"}) as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 2])
    clip, frames = read(path)
    assert 5 < len(frames) < 25
    assert clip.lost == 30 - len(frames)
    assert [number_of(frame.image) for frame in frames] == list(range(len(frames)))


def test_from_a_frame_on(tmp_path: Path) -> None:
    _, frames = read(write_clip(tmp_path / "a.mp4", FRAMES), start=20)
    assert [frame.index for frame in frames if frame.image is not None] == list(range(20, 30))
    assert len(frames) == 30
    assert not any(frame.damaged for frame in frames)


def test_no_videos(tmp_path: Path) -> None:
    import av

    sound = tmp_path / "sound.mp4"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("aac", rate=44_100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate, frame.pts = 44_100, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video\n" * 100)
    for name, said in (
        ("sound.mp4", "audio and no video"),
        ("empty.mp4", "cannot be opened as a video"),
        ("text.mp4", "cannot be opened as a video"),
        ("none.mp4", "No such file"),
    ):
        with pytest.raises(InputError, match=said) as error:
            Clip(tmp_path / name)
        assert str(tmp_path / name) in error.value.message


def test_nothing_but_files_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "a.mp4", FRAMES[:2])
    (tmp_path / "list.mp4").write_text(f"ffconcat version 1.0\nfile http://localhost:9/a.mp4\nfile {tmp_path}/a.mp4\n")
    for name in ("http://localhost:9/a.mp4", "concat:a.mp4|a.mp4", "list.mp4"):
        with pytest.raises(InputError):
            list(Clip(name).read())
    assert len(list(Clip("a.mp4").read())) == 2


def test_huge_frames(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", FRAMES[:2])
    with pytest.raises(InputError, match="224 x 96"):
        Clip(path, most_pixels=20_000)


def test_without_pyav(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="PyAV") as error:
        Clip(tmp_path / "a.mp4")
    assert "[video]" in error.value.hint
