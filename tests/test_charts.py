"""Charts: what is drawn, read back from the figure, and the files."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
import pytest

from dhm_cli import charts
from dhm_cli.charts import save_ced, save_learning_curve


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are saved from here on."""
    figures: list[Any] = []
    save = charts._save

    def keep(figure: Any, path: Path) -> None:
        figures.append(figure)
        save(figure, path)

    monkeypatch.setattr(charts, "_save", keep)
    return figures


def make_rows(steps: int = 400, every: int = 10, validate: int = 100) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for step in range(every, steps + 1, every):
        rows.append({"step": step, "epoch": step / 50, "loss": 3 / step, "learning_rate": 1e-3 * (1 - step / steps)})
        if step % validate == 0:
            bins = {"0-30": 2 + 100 / step, "30-60": 3 + 200 / step, "60-90": 4 + 300 / step}
            mean = sum(bins.values()) / 3
            rows[-1]["validation"] = {**bins, "mean_of_bins": mean, "mean_of_images": mean}
    return rows


def lines(axes: Any) -> dict[str, Any]:
    return {line.get_label(): line for line in axes.get_lines()}


def read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None
    return image


def test_ced_is_exact(tmp_path: Path, drawn: list[Any]) -> None:
    errors = {
        "good": np.round(np.random.default_rng(0).gamma(3, 1.2, 150), 1),
        "poor": np.array([3.0, np.nan, 25.0, 9.0, 10.0, 0.0]),
    }
    save_ced(tmp_path / "ced.png", errors, limit=10.0)
    curves = [line for line in drawn[0].axes[0].get_lines() if line.get_drawstyle() == "steps-post"]
    assert len(curves) == 2
    for curve, nme in zip(curves, errors.values(), strict=True):
        x, y = curve.get_data()
        for t in np.linspace(0, 10, 101).round(1):
            shown = y[np.searchsorted(x, t, side="right") - 1]
            assert shown == pytest.approx(100 * np.mean(nme <= t))
    assert curves[0].get_color() != curves[1].get_color()


def test_ced_legend_by_hand(tmp_path: Path, drawn: list[Any]) -> None:
    save_ced(tmp_path / "ced.png", {"_a $x_{$": np.array([1.0, 4.0, 7.0]), "b": np.array([np.nan, 2.0])}, title="title")
    axes = drawn[0].axes[0]
    legend = axes.get_legend()
    # one of three beyond 6; (6 + 3 + 0) / 3 / 7 and (0 + 5) / 2 / 7 of the area under 7
    assert [text.get_text().strip().rsplit(maxsplit=3) for text in legend.get_texts()] == [
        ["_a $x_{$", "4.00", "33.3", "42.9"],
        ["b", "nan", "50.0", "35.7"],
    ]
    assert len({len(text.get_text()) for text in legend.get_texts()}) == 1, "the columns line up"
    assert legend.get_title().get_text().split() == ["mean", "FR@6", "AUC@7"]
    assert axes.get_title(loc="left") == "title"
    assert [line.get_xdata()[0] for line in axes.get_lines()][-1] == 6.0


def test_ced_without_curve(tmp_path: Path) -> None:
    save_ced(tmp_path / "ced.png", {"nothing": np.zeros(0), "far": np.full(3, 50.0)})
    assert read(tmp_path / "ced.png").shape == (720, 1200, 3)


def test_learning_curve_shows_the_rows(tmp_path: Path, drawn: list[Any]) -> None:
    rows = make_rows()
    save_learning_curve(tmp_path / "curve.png", rows)
    left, right, behind = drawn[0].axes
    (loss,), (rate,) = left.get_lines(), behind.get_lines()
    np.testing.assert_allclose(loss.get_data(), [[r["step"] for r in rows], [r["loss"] for r in rows]])
    np.testing.assert_allclose(rate.get_ydata(), [r["learning_rate"] for r in rows])
    assert left.get_yscale() == "log"
    assert left.get_zorder() > behind.get_zorder()
    shown = lines(right)
    assert set(shown) == {"|yaw| 0-30", "|yaw| 30-60", "|yaw| 60-90", "mean of bins", "best 3.50, step 400"}
    np.testing.assert_allclose(shown["|yaw| 60-90"].get_data(), [[100, 200, 300, 400], [7, 5.5, 5, 4.75]])
    low, high = right.get_ylim()
    assert low < 2.25
    assert high > 7


def test_lines_written_again_after_a_resume_count_once(tmp_path: Path, drawn: list[Any]) -> None:
    rows = make_rows(100)
    again = [{**row, "loss": 9.0} for row in rows[5:]]
    save_learning_curve(tmp_path / "curve.png", rows + again)
    x, y = drawn[0].axes[0].get_lines()[0].get_data()
    np.testing.assert_array_equal(x, np.arange(10, 101, 10))
    assert (y[5:] == 9.0).all()
    assert (y[:5] < 1.0).all()


NAN_BINS = {"0-30": 4.0, "30-60": float("nan"), "60-90": None, "mean_of_bins": 4.0, "mean_of_images": 4.0}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], set()),
        (make_rows()[:1], set()),
        ([{"step": 0, "loss": None}], set()),
        ([{"step": 5, "loss": float("nan"), "learning_rate": 0.0, "validation": None}], set()),
        (make_rows(100)[-1:], {"|yaw| 0-30", "|yaw| 30-60", "|yaw| 60-90", "mean of bins", "best 5.00, step 100"}),
        ([{"step": 7, "loss": 0.1, "validation": NAN_BINS}], {"|yaw| 0-30", "mean of bins", "best 4.00, step 7"}),
        ([{"step": 7, "loss": 0.1, "validation": dict.fromkeys(NAN_BINS, float("nan"))}], set()),
    ],
)
def test_little_to_draw(tmp_path: Path, drawn: list[Any], rows: list[dict[str, Any]], expected: set[str]) -> None:
    save_learning_curve(tmp_path / "curve.png", rows)
    assert read(tmp_path / "curve.png").shape == (540, 1200, 3)
    assert set(lines(drawn[0].axes[1])) == expected


def test_single_points_are_marked(tmp_path: Path, drawn: list[Any]) -> None:
    save_learning_curve(tmp_path / "curve.png", make_rows()[:1])
    assert drawn[0].axes[0].get_lines()[0].get_marker() == "o"


@pytest.mark.parametrize(("low", "high"), [(0.11, 0.13), (0.1, 0.1), (0.02, 0.5), (2.0, 90.0), (1e-5, 3e4)])
def test_log_axis_encloses_the_values_with_readable_ticks(
    tmp_path: Path, drawn: list[Any], low: float, high: float
) -> None:
    save_learning_curve(tmp_path / "curve.png", [{"step": 1, "loss": high}, {"step": 2, "loss": low}])
    axes = drawn[0].axes[0]
    bottom, top = axes.get_ylim()
    assert bottom < low <= high < top
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert 2 <= len(labels) <= 20
    np.testing.assert_allclose([float(label) for label in labels], axes.get_yticks())


def test_files_are_the_same_every_time_and_carry_no_version(tmp_path: Path) -> None:
    rows, errors = make_rows(), {"a": np.linspace(0, 9, 50)}
    for name in ("first", "second"):
        save_learning_curve(tmp_path / name / "curve.png", rows)
        save_ced(tmp_path / name / "ced.png", errors)
    for name in ("curve.png", "ced.png"):
        first = (tmp_path / "first" / name).read_bytes()
        assert first == (tmp_path / "second" / name).read_bytes()
        assert b"tEXt" not in first
        assert matplotlib.__version__.encode() not in first
    assert sorted(p.name for p in (tmp_path / "first").iterdir()) == ["ced.png", "curve.png"]


def test_a_failed_chart_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ced.png"
    path.write_bytes(b"old")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        save_ced(path, {"a": np.ones(3)})
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


def test_global_state_of_matplotlib_is_left_alone(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from dhm_cli.charts import save_learning_curve; assert 'matplotlib' not in sys.modules\n"
        "import matplotlib; before = matplotlib.rcParams.copy()\n"
        f"save_learning_curve(pathlib.Path({str(tmp_path / 'c.png')!r}), [{{'step': 1, 'loss': 1.0}}])\n"
        "assert 'matplotlib.pyplot' not in sys.modules and dict.__eq__(matplotlib.rcParams, before)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
