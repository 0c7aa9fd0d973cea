""".pts files as datasets ship them, and what is wrong with some of them."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dhm_cli.errors import InputError
from dhm_cli.io.pts import NO_LABEL, OCCLUDED, VISIBLE, has_merl_signs, read_pts


def write_pts(path: Path, lines: list[str], header: str = "version: 1\nn_points: 68\n") -> Path:
    path.write_text(header + "{\n" + "\n".join(lines) + "\n}\n")
    return path


def plain_lines() -> list[str]:
    return [f"{10 + i}.500 {200 - i}.25" for i in range(68)]


def test_pts_are_1_based_on_disk(tmp_path: Path) -> None:
    points, visibility = read_pts(write_pts(tmp_path / "a.pts", plain_lines()))
    assert points.dtype == np.float32
    assert points[0].tolist() == [9.5, 199.25]
    assert points[67].tolist() == [76.5, 132.25]
    assert (visibility == VISIBLE).all()


def test_merl_signs(tmp_path: Path) -> None:
    lines = plain_lines()
    lines[1] = "-31.5 -42.0"  # something in front: estimated position
    lines[2] = "-1 -1"  # self-occluded: no position
    lines[3] = "-1.000 -1.000"
    lines[4] = "-1 -7"  # only both at -1 mean no label
    lines[5] = "-3.0 50.0"  # left of the image, visible
    lines[6] = "1 1"  # the first pixel
    points, visibility = read_pts(write_pts(tmp_path / "a.pts", lines))
    assert visibility[:7].tolist() == [VISIBLE, OCCLUDED, NO_LABEL, NO_LABEL, OCCLUDED, VISIBLE, VISIBLE]
    assert points[1].tolist() == [30.5, 41.0]
    assert np.isnan(points[2:4]).all()
    assert points[4].tolist() == [0.0, 6.0]
    assert points[5].tolist() == [-4.0, 49.0]
    assert points[6].tolist() == [0.0, 0.0]
    assert np.isfinite(np.delete(points, [2, 3], axis=0)).all()


def test_plain_coordinates_are_taken_as_they_are(tmp_path: Path) -> None:
    lines = plain_lines()
    lines[1:3] = ["-31.5 -42.0", "-1 -1"]
    points, visibility = read_pts(write_pts(tmp_path / "a.pts", lines), merl_signs=False)
    assert points[1:3].tolist() == [[-32.5, -43.0], [-2.0, -2.0]]
    assert (visibility == VISIBLE).all()


def lines_of(points: NDArray[np.floating]) -> list[str]:
    return [f"{x} {y}" for x, y in points]


def drawn_face(centre: tuple[float, float]) -> NDArray[np.float64]:
    """68 points on a spiral of some 100 pixels, neighbours near each other."""
    angle = np.linspace(0, 6 * np.pi, 68)
    radius = np.linspace(50, 10, 68)
    return np.stack([centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle)], axis=1)


def test_signs_of_merl_are_told_from_a_face_at_the_corner(tmp_path: Path) -> None:
    inside = drawn_face((100, 120))
    occluded = inside.copy()
    occluded[40:43] *= -1
    hidden = inside.copy()
    hidden[40:43] = -1
    at_corner, beyond = drawn_face((5, 5)), drawn_face((-80, -80))
    across = inside.copy()
    across[:17] = np.linspace(40, -43, 17)[:, None]  # the jaw leaves the photo just at the corner
    assert (at_corner < 0).all(axis=1).sum() > 10
    signs = [
        has_merl_signs(write_pts(tmp_path / "a.pts", lines_of(points)))
        for points in (inside, occluded, hidden, at_corner, beyond, across)
    ]
    assert signs == [False, True, True, False, False, False]


def test_signs_of_a_file_that_is_no_pts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="67 points"):
        has_merl_signs(write_pts(tmp_path / "a.pts", plain_lines()[:67]))


def test_other_line_ends_and_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.pts"
    text = "version: 1\nn_points:  68\n{\n" + "\n".join(plain_lines()) + "\n}"
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert read_pts(path)[0][0].tolist() == [9.5, 199.25]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (plain_lines()[:67], "67 points"),
        (plain_lines()[:21], "21 points"),
        ([], "0 points"),
        ([*plain_lines()[:67], "12.0"], r"not a \.pts file"),
        ([*plain_lines()[:67], "12,0 13,0"], r"not a \.pts file"),
        ([*plain_lines()[:67], "nan 13.0"], "no pixel positions"),
        ([*plain_lines()[:67], "inf 13.0"], "no pixel positions"),
        ([*plain_lines()[:67], "1e300 13.0"], "no pixel positions"),
    ],
)
def test_malformed_bodies(tmp_path: Path, lines: list[str], message: str) -> None:
    path = write_pts(tmp_path / "broken.pts", lines)
    with pytest.raises(InputError, match=message) as caught:
        read_pts(path)
    assert "broken.pts" in caught.value.message


@pytest.mark.parametrize(
    "content",
    [b"", b"no braces", b"{ 1 2", b"} {", b"\xff\xfe\x00{1}", b"\x89PNG\r\n\x1a\n{}"],
)
def test_files_that_are_no_pts(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.pts"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"broken\.pts"):
        read_pts(path)


def test_missing_pts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not a \.pts file"):
        read_pts(tmp_path / "absent.pts")
