"""README and docs: topics, links, widths, and tables that say what figures.json says."""

import io
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from figures import CARDS, FIGURES, NETWORKS, PAGES, TABLES, filled, rates, ratios
from places import ROOT, SAMPLE_DATA
from printed import folded
from rich.console import Console
from rich.markdown import Markdown
from typer.testing import CliRunner

from dhm_cli.cli import docs
from dhm_cli.cli.main import app
from dhm_cli.docs.topics import TOPICS, page, summary
from dhm_cli.inference.aligner import Aligner
from dhm_cli.runtime.hashing import short_hash

README = (ROOT / "README.md").read_text(encoding="utf-8")


def dhm_docs(*arguments: str, expect: int = 0) -> str:
    result = CliRunner(env={"COLUMNS": "80"}).invoke(app, ["docs", *arguments])
    assert result.exit_code == expect, result.output
    return result.output


def test_every_page_is_a_topic() -> None:
    assert sorted(TOPICS) == sorted(path.stem for path in PAGES if path.name != "README.md")


def test_the_list_has_a_sentence_for_each_topic() -> None:
    listed = dhm_docs()
    assert [line.split()[0] for line in listed.splitlines() if not line.startswith(" ")] == list(TOPICS)
    assert max(map(len, listed.splitlines())) <= 80
    for topic in TOPICS:
        assert summary(topic).endswith(".")
        assert summary(topic) in folded(listed)


def test_in_a_pipe_a_topic_is_its_markdown() -> None:
    assert dhm_docs("conventions") == page("conventions")


@pytest.mark.parametrize(
    ("word", "near"), [("train", "training"), ("evaluate", "evaluating"), ("convention", "conventions")]
)
def test_an_unknown_topic_names_the_nearest_and_all(word: str, near: str) -> None:
    said = folded(dhm_docs(word, expect=1))
    assert f"error: {word}: no topic" in said
    assert f"dhm docs {near} may be meant" in said
    assert ", ".join(TOPICS) in said


def test_a_word_like_none_of_them() -> None:
    assert "may be meant" not in dhm_docs("zzz", expect=1)


@pytest.mark.parametrize("topic", TOPICS)
def test_a_page_fits_a_terminal_of_80_columns(topic: str) -> None:
    """Drawings, commands and code stay as they are written; no link or picture is left."""
    text = docs.for_terminal(page(topic))
    assert not re.search(r"\]\((?!https?:)", text)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(Markdown(text))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    shown = {line.strip() for line in lines}
    for block in re.findall(r"^```\w*\n(.*?)^```$", text, re.M | re.S):
        for line in block.splitlines():
            assert line.strip() in shown, line


def test_readme_is_short() -> None:
    assert len(README.splitlines()) < 160


def test_nothing_is_said_twice() -> None:
    """No sentence of README and docs stands in two places."""
    seen: dict[str, Path] = {}
    for path in PAGES:
        text = re.sub(r"<!-- figures.*?<!-- end -->|```.*?```", "", path.read_text(encoding="utf-8"), flags=re.S)
        for sentence in re.split(r"(?<=[.:;])\s+|\n\n|\|", text):
            words = " ".join(sentence.split())
            if len(words) > 50:
                assert words not in seen, f"{path.name} and {seen[words].name}: {words}"
                seen[words] = path


@pytest.mark.parametrize("path", [*PAGES, *CARDS], ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]*)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


def test_the_tables_say_what_the_figures_say() -> None:
    """After new measurements: make figures."""
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    for path in (*PAGES, *CARDS):
        text = path.read_text(encoding="utf-8")
        assert filled(text, figures) == text, path.name


@pytest.mark.parametrize("name", NETWORKS)
def test_the_accuracy_is_that_of_the_shipped_network(name: str) -> None:
    """New weights are measured before they are shipped: make accuracy DATA=folder, then make figures."""
    measured = json.loads(FIGURES.read_text(encoding="utf-8"))["accuracy"][name]["hash"]
    assert measured == short_hash(ROOT / "dhm_cli" / "weights" / f"{name}.onnx")


def test_the_picture_is_what_the_command_draws(tmp_path: Path) -> None:
    (command,) = re.findall(r"`(dhm align sample_data/heads.jpg [^`]*)`", folded(README))
    words = command.replace("sample_data", str(SAMPLE_DATA)).replace("drawn", str(tmp_path / "drawn")).split()[1:]
    assert CliRunner().invoke(app, [*words, "--out", str(tmp_path / "a.csv")]).exit_code == 0
    drawn, kept = (cv2.imread(str(p)).astype(int) for p in (tmp_path / "drawn/heads.jpg", SAMPLE_DATA / "overview.jpg"))
    assert np.abs(drawn - kept).mean() < 3
    assert (SAMPLE_DATA / "overview.jpg").stat().st_size < 200_000


def test_the_heads_are_what_their_script_makes() -> None:
    from sample_heads import HEADS, heads

    kept = cv2.imread(str(SAMPLE_DATA / "heads.jpg"))[..., ::-1]
    assert np.abs(kept.astype(int) - heads()).mean() < 3
    faces = Aligner(device="cpu").align(np.ascontiguousarray(kept))
    assert len(faces) == len(HEADS)
    assert min(face.confidence for face in faces if face.confidence is not None) > 0.9


def test_what_the_benchmark_wrote_comes_into_the_tables() -> None:
    shown = {"engine": "onnxruntime", "batch": 1}
    networks = [{"level": "network", "subject": n, "times_faster": 2.0 + k} for k, n in enumerate(NETWORKS)]
    photos = [{"level": "photo", "subject": n, "median_ms": 4.0 + 4 * k} for k, n in enumerate(NETWORKS)]
    report = {
        "command": "dhm benchmark --json a.json",
        "environment": {"processor": "Abacus", "commit": "0123456789"},
        "lines": [{**shown, **line} for line in networks + photos],
        "folders": [
            {"subject": n, "folder": folder, "photos_per_s": rate, "peak_bytes": [0, 2e8]}
            for n in NETWORKS
            for folder, rate in (("250 x 250", 100.0), ("12 MP", 20.0))
        ],
        "processes": [{"subject": n, "speed_up": 1.5} for n in NETWORKS],
    }
    found = {"ratios": ratios(report), "rates": rates(report)}
    speed, scale = TABLES["speed"](found), TABLES["scale"](found)
    assert "**2.00 times as fast** | **3.00 times as fast** |" in speed
    assert "| 250 photos/s | 125 photos/s |" in speed
    assert "| 100 photos/s, 200 MB | 100 photos/s, 200 MB |" in speed
    assert "`dhm align`, 12 MP | 20 photos/s, 200 MB |" in speed
    assert "Abacus, commit 0123456" in speed
    # 1e8 / (100 x 64 x 3600) = 4.3 hours; 1e8 / (100 x 86400) = 11.6 cores
    assert "| 250 x 250 | 100 | 0.3 h | 3.5 h | 4.3 h | 12 cores |" in scale
