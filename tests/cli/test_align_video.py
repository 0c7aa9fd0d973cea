"""`dhm align` on a video, and `dhm evaluate --video`, through the command line."""

import json
from pathlib import Path

import pytest
from example_photos import ASTRONAUT, read_table
from places import SAMPLE_DATA
from printed import folded
from typer.testing import CliRunner, Result

from dhm_cli.cli.main import app
from dhm_cli.evaluation import made_video

SAMPLE = SAMPLE_DATA / "faces.mp4"


def dhm(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_align_a_video(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV, the extra [video], is not installed")
    result = dhm("align", SAMPLE, "--out", tmp_path / "a.csv", "--columns", "landmarks,track", "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    assert "120 frames, 2 tracks, 240 faces, 0 without a face, 0 damaged;" in folded(result.stdout)
    rows = read_table(tmp_path / "a.csv")
    assert list(rows[0])[:7] == ["path", "frame", "time", "face", "status", "track", "x_0"]
    # The table is read back as boxes of photos are.
    assert dhm("align", SAMPLE, "--out", "-", "--format", "jsonl", "--device", "cpu").stdout.count("\n") == 240


def test_a_file_that_ends_early(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV, the extra [video], is not installed")
    from clips import damaged

    path = tmp_path / "Söhne, cut.mp4"
    path.write_bytes(SAMPLE.read_bytes())
    damaged(path, 0.4, 3000)
    result = dhm("align", path, "--out", tmp_path / "a.csv", "--device", "cpu")
    assert len({row["frame"] for row in read_table(tmp_path / "a.csv")}) == 120
    if "damaged frame" in result.stderr:
        assert result.exit_code == 1
        assert path.name in folded(result.stderr)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((SAMPLE, ASTRONAUT), "a video among other files"),
        ((SAMPLE, "--refine", "1"), "--refine"),
        ((SAMPLE, "--boxes", "boxes.csv"), "--boxes"),
        ((SAMPLE, "--gallery", "faces.jpg"), "--gallery"),
        ((SAMPLE, "--crops", "crops", "--crop-size", "5"), "--crop-size"),
        ((SAMPLE, "--columns", "crop"), "--columns crop"),
        ((SAMPLE, "--overlay", "a.mp4", "--draw", "nose"), "--draw"),
        ((SAMPLE, "--overlay", "drawn"), "ends in .mp4"),
        ((SAMPLE, "--mesh", "meshes", "--same-person"), "--same-person: is for photos"),
        ((ASTRONAUT, "--smooth", "file"), "--smooth"),
        ((ASTRONAUT, "--camera", "0"), "one at a time"),
        (("--camera", "99"), "camera 99"),
        (("none.mp4",), "none.mp4"),
    ],
)
def test_what_does_not_go_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str | Path, ...], said: str
) -> None:
    pytest.importorskip("av", reason="PyAV, the extra [video], is not installed")
    monkeypatch.chdir(tmp_path)
    result = dhm("align", *arguments)
    assert result.exit_code == 1
    assert said in folded(result.stderr)
    assert "Traceback" not in result.output
    assert not list(tmp_path.iterdir())


def test_evaluate_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made_video, "FRAMES", 45)
    report = tmp_path / "report"
    result = dhm("evaluate", "--video", ASTRONAUT, "--report", report, "--json", "-", "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    content = json.loads(result.stdout)
    assert [video["name"] for video in content["videos"]] == ["astronaut.png, still", "astronaut.png, moving"]
    assert content["videos"][0]["by_smoothing"]["none"]["lag"] is None
    assert json.loads((report / "video.json").read_text()) == content
    assert (report / "motion.png").read_bytes().startswith(b"\x89PNG")
    assert "jitter" in result.stderr
    again = dhm("evaluate", "--video", ASTRONAUT, "--report", report, "--device", "cpu")
    assert again.exit_code == 0
    (report / "motion.png").write_bytes(b"mine")
    refused = dhm("evaluate", "--video", ASTRONAUT, "--report", report, "--device", "cpu")
    assert refused.exit_code == 1
    assert "motion.png" in folded(refused.stderr)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((), "--data"), (("--video", ASTRONAUT, "--data", "a.h5"), "--video"), (("--video", "none"), "no photo")],
)
def test_evaluate_refuses(arguments: tuple[str | Path, ...], said: str) -> None:
    result = dhm("evaluate", *arguments)
    assert result.exit_code == 1
    assert said in folded(result.stderr)
