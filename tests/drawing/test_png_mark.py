"""dhm knows its own pictures from those of others."""

from pathlib import Path

import cv2
import numpy as np

from dhm_cli.drawing.charts import save_learning_curve
from dhm_cli.drawing.faces import save_png
from dhm_cli.drawing.png_mark import is_our_png

PICTURE = np.arange(30 * 40 * 3, dtype=np.uint8).reshape(30, 40, 3)


def test_pictures_and_charts_are_known_again(tmp_path: Path) -> None:
    """They had no mark before."""
    save_png(tmp_path / "picture.png", PICTURE)
    save_learning_curve(tmp_path / "chart.png", [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}])
    assert is_our_png(tmp_path / "picture.png")
    assert is_our_png(tmp_path / "chart.png")
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "picture.png"))[..., ::-1], PICTURE)


def test_a_foreign_file_is_not_ours(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "photo.png"), PICTURE)
    (tmp_path / "text.png").write_text("Software\0dhm")
    assert not is_our_png(tmp_path / "photo.png")
    assert not is_our_png(tmp_path / "text.png")
