"""Charts: what is drawn, read back from the figure, and the files."""

import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
import pytest

from dhm_cli.drawing import charts
from dhm_cli.drawing.charts import (
    save_ced,
    save_error_by_yaw,
    save_landmark_errors,
    save_learning_curve,
    save_robustness,
)
from dhm_cli.geometry.landmarks import GROUPS


def make_rows(steps: int = 400, every: int = 10, validate: int = 100) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for step in range(every, steps + 1, every):
        rows.append({"step": step, "epoch": step / 50, "loss": 3 / step, "learning_rate": 1e-3 * (1 - step / steps)})
        if step % validate == 0:
            bins = {"0-30": 2 + 100 / step, "30-60": 3 + 200 / step, "60-90": 4 + 300 / step}
            mean = sum(bins.values()) / 3
            rows[-1]["validation"] = {**bins, "mean_of_bins": mean, "mean_of_images": mean}
    return rows


@pytest.fixture
def drafts(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that would be saved from here on: drawing their pixels takes far longer than making them."""
    figures: list[Any] = []
    monkeypatch.setattr(charts, "save_figure", lambda figure, path: figures.append(figure))
    return figures


def lines(axes: Any) -> dict[str, Any]:
    return {line.get_label(): line for line in axes.get_lines()}


def read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None
    return image


def test_ced_is_exact(tmp_path: Path, drafts: list[Any]) -> None:
    errors = {
        "good": np.round(np.random.default_rng(0).gamma(3, 1.2, 150), 1),
        "poor": np.array([3.0, np.nan, 25.0, 9.0, 10.0, 0.0]),
    }
    save_ced(tmp_path / "ced.png", errors, limit=10.0)
    curves = [line for line in drafts[0].axes[0].get_lines() if line.get_drawstyle() == "steps-post"]
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
    # one of three beyond 6; (6 + 3 + 0) / 3 / 7 and (0 + 5) / 2 / 7 of the area under 7, (7 + 4 + 1) / 3 / 8 and
    # (0 + 6) / 2 / 8 of that under 8
    assert [text.get_text().strip().rsplit(maxsplit=3) for text in legend.get_texts()] == [
        ["_a $x_{$", "33.3", "42.9", "50.0"],
        ["b", "50.0", "35.7", "37.5"],
    ]
    assert len({len(text.get_text()) for text in legend.get_texts()}) == 1, "the columns line up"
    assert legend.get_title().get_text().split() == ["FR@6", "AUC@7", "AUC@8"]
    assert axes.get_title(loc="left") == "title"
    assert [line.get_xdata()[0] for line in axes.get_lines()][-1] == 6.0


def test_ced_with_another_threshold(tmp_path: Path, drafts: list[Any]) -> None:
    save_ced(tmp_path / "ced.png", {"a": np.array([3.0, 5.0, 9.0])}, threshold=4.5, unit="% of eye distance")
    axes = drafts[0].axes[0]
    assert axes.get_legend().get_title().get_text().split()[0] == "FR@4.5"
    assert axes.get_legend().get_texts()[0].get_text().split()[1] == "66.7"
    assert [line.get_xdata()[0] for line in axes.get_lines()][-1] == 4.5
    assert axes.get_xlabel() == "NME, % of eye distance"


def test_ced_without_curve(tmp_path: Path) -> None:
    save_ced(tmp_path / "ced.png", {"nothing": np.zeros(0), "far": np.full(3, 50.0)})
    assert read(tmp_path / "ced.png").shape == (720, 1200, 3)


def test_learning_curve_shows_the_rows(tmp_path: Path, drafts: list[Any]) -> None:
    rows = make_rows()
    save_learning_curve(tmp_path / "curve.png", rows)
    left, right, behind = drafts[0].axes
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


def test_lines_written_again_after_a_resume_count_once(tmp_path: Path, drafts: list[Any]) -> None:
    rows = make_rows(100)
    again = [{**row, "loss": 9.0} for row in rows[5:]]
    save_learning_curve(tmp_path / "curve.png", rows + again)
    x, y = drafts[0].axes[0].get_lines()[0].get_data()
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


def test_single_points_are_marked(tmp_path: Path, drafts: list[Any]) -> None:
    save_learning_curve(tmp_path / "curve.png", make_rows()[:1])
    assert drafts[0].axes[0].get_lines()[0].get_marker() == "o"


@pytest.mark.parametrize(("low", "high"), [(0.11, 0.13), (0.1, 0.1), (0.02, 0.5), (2.0, 90.0), (1e-5, 3e4)])
def test_log_axis_encloses_the_values_with_readable_ticks(
    tmp_path: Path, drafts: list[Any], low: float, high: float
) -> None:
    save_learning_curve(tmp_path / "curve.png", [{"step": 1, "loss": high}, {"step": 2, "loss": low}])
    axes = drafts[0].axes[0]
    bottom, top = axes.get_ylim()
    assert bottom < low <= high < top
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert 2 <= len(labels) <= 20
    np.testing.assert_allclose([float(label) for label in labels], axes.get_yticks())


def test_error_by_yaw_by_hand(tmp_path: Path, drawn: list[Any]) -> None:
    yaw = np.array([1, 2, 3, 4, 5, 6, 355, 351, -3, 25, 26, 45.0])  # 355 and 351 are -5 and -9
    first = np.array([6, 1, 2, 5, 3, 4, 1, 2, 9, 7, 8, np.nan])
    save_error_by_yaw(tmp_path / "yaw.png", {"a $x_{$": first, "b": first + 1}, yaw)
    axes = drawn[0].axes[0]
    shown = lines(axes)
    a, b = shown[" a $x_{$: median, 95 % interval and every face"], shown[" b: median"]
    x, y = a.get_data()
    known = np.isfinite(y)
    np.testing.assert_allclose(x[known], [-5, 5], err_msg="two faces in 20 to 30 are too few")
    np.testing.assert_allclose(y[known], [2, 3.5])
    np.testing.assert_allclose(b.get_ydata()[known], y[known] + 1)
    dots = axes.collections[-2].get_offsets()
    assert sorted(np.asarray(dots[np.isfinite(dots[:, 1]), 0])) == sorted((yaw[:11] + 180) % 360 - 180)
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == 1, "of six faces the interval goes from the smallest"
    assert band[:, 1].max() == 6, "to the largest"
    assert {line.get_xdata()[0] for line in axes.get_lines() if len(line.get_xdata()) == 2} == {-60, -30, 30, 60}
    assert axes.get_title(loc="right") == "1 face without points not shown"


def test_interval_of_a_median_is_the_exact_one() -> None:
    # scipy.stats.binom.ppf(0.025, n, 0.5), which is the r of Hahn and Meeker's table
    expected = {0: 0, 1: 0, 5: 0, 6: 1, 8: 1, 9: 2, 10: 2, 20: 6, 50: 18, 100: 40, 2000: 956}
    assert {count: charts._rank_below_median(count) for count in expected} == expected


def test_outliers_are_counted_and_not_cut_in_silence(tmp_path: Path, drafts: list[Any]) -> None:
    nme = np.concatenate([np.full(98, 3.0), [500.0, 40.0]])
    save_error_by_yaw(tmp_path / "yaw.png", {"a": nme}, np.linspace(-100, 100, 100))
    axes = drafts[0].axes[0]
    top = axes.get_ylim()[1]
    assert 3 < top < 40
    assert axes.get_title(loc="right") == f"▲ 2 faces above {top:.1f}"
    triangles = np.asarray(axes.collections[-1].get_offsets())
    np.testing.assert_allclose(triangles, [[97.97979798, top], [100, top]])
    assert axes.get_xlim() == (-100, 100), "beyond profile is shown"


@pytest.mark.parametrize(("nme", "yaw"), [(np.zeros(0), np.zeros(0)), (np.full(4, np.nan), np.arange(4.0))])
def test_error_by_yaw_without_faces(tmp_path: Path, nme: np.ndarray, yaw: np.ndarray) -> None:
    save_error_by_yaw(tmp_path / "yaw.png", {"nothing": nme}, yaw)
    assert read(tmp_path / "yaw.png").shape == (600, 1200, 3)


def make_face() -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle), np.cos(3 * angle)], axis=1)


def test_landmark_errors_are_coloured_and_named(tmp_path: Path, drafts: list[Any]) -> None:
    shape, errors = make_face(), np.random.default_rng(4).permutation(68) / 10 + 1
    save_landmark_errors(tmp_path / "landmarks.png", shape, errors, "% of eye distance")
    front, turned, bar, table = drafts[0].axes
    named = {str(k) for k in np.argsort(errors)[-5:]}
    turn = np.deg2rad(55)
    for axes, x in ((front, shape[:, 0]), (turned, np.cos(turn) * shape[:, 0] + np.sin(turn) * shape[:, 2])):
        dots = axes.collections[0]
        at = {
            tuple(np.round(point, 6)): value for point, value in zip(dots.get_offsets(), dots.get_array(), strict=True)
        }
        expected = zip(np.round(np.stack([x - x.mean(), shape[:, 1]], axis=1), 6) + 0.0, errors, strict=True)
        assert at == {tuple(point): value for point, value in expected}, "every landmark at its place in its colour"
        assert {text.get_text() for text in axes.texts} == named
        assert axes.yaxis_inverted()
    # the near side is drafts over the far side
    depth = dict(zip(np.round(errors, 6), np.cos(turn) * shape[:, 2] - np.sin(turn) * shape[:, 0], strict=True))
    assert (np.diff([depth[round(value, 6)] for value in turned.collections[0].get_array()]) >= -1e-9).all()
    assert bar.get_title(loc="left") == "NME, % of eye distance"
    rows = dict(line.split() for line in table.texts[0].get_text().splitlines()[1:])
    assert rows == {**{k: f"{errors[v].mean():.2f}" for k, v in GROUPS.items()}, "all": f"{errors.mean():.2f}"}


def test_landmark_errors_that_are_not_known(tmp_path: Path) -> None:
    save_landmark_errors(tmp_path / "landmarks.png", make_face(), np.full(68, np.nan))
    assert read(tmp_path / "landmarks.png").shape == (564, 1320, 3)


ROBUSTNESS = [
    {"kind": kind, "level": level, "mean_of_bins": slope * level + 2, "failure_rate": None if level == 5 else level}
    for kind, slope in (("shift", 0.1), ("scale", 0.2))
    for level in (10.0, 0.0, 5.0)
]


def test_robustness_shows_the_rows(tmp_path: Path, drawn: list[Any]) -> None:
    save_robustness(tmp_path / "robustness.png", ROBUSTNESS)
    left, right = drawn[0].axes
    np.testing.assert_allclose(lines(left)["shift"].get_data(), [[0, 5, 10], [2, 2.5, 3]])
    np.testing.assert_allclose(lines(left)["scale"].get_data(), [[0, 5, 10], [2, 3, 4]])
    np.testing.assert_allclose(lines(right)["scale"].get_data(), [[0, 10], [0, 10]])
    save_robustness(tmp_path / "empty.png", [])
    assert read(tmp_path / "empty.png").shape == (540, 1200, 3)


def test_files_are_the_same_every_time_and_carry_no_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nme, yaw = np.linspace(0, 9, 50), np.linspace(-90, 90, 50)
    save_ced(tmp_path / "whole.png", {"a": nme})
    save_ced(tmp_path / "again.png", {"a": nme})
    assert (tmp_path / "whole.png").read_bytes() == (tmp_path / "again.png").read_bytes()
    make = charts.new_figure

    def without_layout(width: float, height: float) -> Any:
        figure = make(width, height)
        figure.set_layout_engine("none")  # which takes as long as all the drawing
        return figure

    monkeypatch.setattr(charts, "new_figure", without_layout)
    for name, more in (("first", 0), ("second", 0), ("other", 1)):
        folder = tmp_path / name
        save_learning_curve(folder / "curve.png", [{**row, "loss": row["loss"] + more} for row in make_rows(100)])
        save_ced(folder / "ced.png", {"a": nme + more})
        save_error_by_yaw(folder / "yaw.png", {"a": nme + more}, yaw)
        save_landmark_errors(folder / "landmarks.png", make_face(), np.linspace(1, 2 + more, 68))
        save_robustness(folder / "robustness.png", ROBUSTNESS[: 6 - more])
    names = ["ced.png", "curve.png", "landmarks.png", "robustness.png", "yaw.png"]
    for name in names:
        first = (tmp_path / "first" / name).read_bytes()
        assert first == (tmp_path / "second" / name).read_bytes()
        assert first != (tmp_path / "other" / name).read_bytes()
        assert first.count(b"tEXt") == 1
        assert b"tEXtSoftware\0dhm" + struct.pack(">I", zlib.crc32(b"tEXtSoftware\0dhm")) in first
        assert matplotlib.__version__.encode() not in first
    assert sorted(p.name for p in (tmp_path / "first").iterdir()) == names


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
        "import sys, pathlib; from dhm_cli.drawing.charts import save_learning_curve\n"
        "assert 'matplotlib' not in sys.modules\n"
        "import matplotlib; before = matplotlib.rcParams.copy()\n"
        f"save_learning_curve(pathlib.Path({str(tmp_path / 'c.png')!r}), [{{'step': 1, 'loss': 1.0}}])\n"
        "assert 'matplotlib.pyplot' not in sys.modules and dict.__eq__(matplotlib.rcParams, before)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
