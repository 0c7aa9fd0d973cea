"""Fixtures that many tests share."""

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from dummy_network import write_dummy_network
from example_photos import ASTRONAUT
from numpy.typing import NDArray

from dhm_cli.io.images import read_image

if TYPE_CHECKING:
    from synthetic_faces import SyntheticFaces

    from dhm_cli.morphable.face_model import FaceModel


@pytest.fixture(scope="session")
def dummy_network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ONNX file with dhm's metadata; see `write_dummy_network`."""
    return write_dummy_network(tmp_path_factory.mktemp("network") / "dummy.onnx")


@pytest.fixture(scope="session")
def astronaut() -> NDArray[np.uint8]:
    """The sample photo, (512, 512, 3) RGB, one face."""
    return read_image(ASTRONAUT)


@pytest.fixture(scope="session", autouse=True)
def single_torch_thread() -> None:
    """One thread, so that sums are added in the same order on every machine and in every run."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def toy_model() -> "FaceModel":
    """The made-up face model."""
    from dhm_cli.morphable.toy import toy_face_model

    return toy_face_model()


@pytest.fixture(scope="session")
def face_model(tmp_path_factory: pytest.TempPathFactory, toy_model: "FaceModel") -> Path:
    """File of the made-up face model."""
    path = tmp_path_factory.mktemp("model") / "face_model.h5"
    toy_model.save(path)
    return path


@pytest.fixture(scope="session")
def dense_model(toy_model: "FaceModel") -> "FaceModel":
    """The toy model with a mask-like surface through its 68 points; the modes of a vertex are smooth in x and y."""
    import torch
    from scipy.interpolate import RBFInterpolator

    from dhm_cli.morphable.face_model import FaceModel, Mesh

    points = toy_model.mean.double().numpy()
    modes = torch.cat([toy_model.identity, toy_model.expression], dim=-1).double().numpy()
    x, y = np.meshgrid(np.linspace(-80e3, 80e3, 130), np.linspace(-90e3, 75e3, 130))
    grid = np.stack([x.ravel(), y.ravel()], axis=1)
    around = cv2.convexHull(points[:, :2].astype(np.float32))[:, 0]
    inside = [cv2.pointPolygonTest(around, (float(a), float(b)), False) > 0 for a, b in grid]
    grid = grid[inside]
    values = np.concatenate([points[:, 2:], modes.reshape(68, -1)], axis=1)
    spread = RBFInterpolator(points[:, :2], values, kernel="thin_plate_spline")(grid)
    mean = np.concatenate([points, np.concatenate([grid, spread[:, :1]], axis=1)])
    fields = np.concatenate([modes, spread[:, 1:].reshape(len(grid), 3, -1)]).astype(np.float32)
    split = toy_model.identity.shape[-1]
    mesh = Mesh(
        mean=mean.astype(np.float32),
        identity=fields[..., :split],
        expression=fields[..., split:],
        keypoints=np.arange(68),
        triangles=np.zeros((0, 3), np.int32),
    )
    parts = (toy_model.mean, toy_model.identity, toy_model.expression, toy_model.identity_std, toy_model.expression_std)
    return FaceModel(*parts, name="toy mask", mesh=mesh)


@pytest.fixture(scope="session")
def drawn_faces(tmp_path_factory: pytest.TempPathFactory, toy_model: "FaceModel") -> "SyntheticFaces":
    """A dataset of 24 drawn faces on disk; not to be changed by tests."""
    from synthetic_faces import draw_dataset

    return draw_dataset(tmp_path_factory.mktemp("dataset"), toy_model)


@pytest.fixture(scope="session")
def face_store(tmp_path_factory: pytest.TempPathFactory, toy_model: "FaceModel", drawn_faces: "SyntheticFaces") -> Path:
    """The drawn faces, prepared with the splits of their table; not to be changed by tests."""
    from dhm_cli.preparation.options import PrepareOptions
    from dhm_cli.preparation.prepare import prepare_folder

    out = tmp_path_factory.mktemp("prepared")
    return prepare_folder(drawn_faces.folder, toy_model, out, PrepareOptions(table=drawn_faces.table)).store


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are saved from here on."""
    from dhm_cli.drawing import charts

    figures: list[Any] = []
    save = charts.save_figure

    def keep(figure: Any, path: Path) -> None:
        figures.append(figure)
        save(figure, path)

    monkeypatch.setattr(charts, "save_figure", keep)
    return figures


@pytest.fixture
def no_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The charts of an evaluation's report are a pixel each: for tests of its other files."""
    import cv2
    import numpy as np

    from dhm_cli.drawing.png_mark import marked

    pixel = marked(cv2.imencode(".png", np.zeros((1, 1), np.uint8))[1].tobytes())
    for chart in ("save_ced", "save_error_by_yaw", "save_landmark_errors"):
        monkeypatch.setattr(f"dhm_cli.evaluation.report_folder.{chart}", lambda path, *_: path.write_bytes(pixel))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    options = ["-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    try:
        done = subprocess.run(["mount", *options], capture_output=True, timeout=30)
    except FileNotFoundError:
        pytest.skip("no mount command")
    if done.returncode:
        pytest.skip("a small disk cannot be mounted here: not root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True, timeout=30)


@pytest.fixture
def filling_disk(small_disk: Path) -> Callable[[Callable[[], object], int], set[str]]:
    """Run something on the small disk with ever more room, from none on, until it goes through.

    The function takes what to run and the bytes by which the room grows; it returns the names of the files for which
    there was no room, as the errors give them.
    """
    from dhm_cli.errors import DhmError

    def run(work: Callable[[], object], step: int) -> set[str]:
        filler, named = small_disk / "filler", set()
        for room in range(0, 2_000_000, step):
            with filler.open("wb", buffering=0) as file:
                with contextlib.suppress(OSError):
                    while file.write(bytes(4096)):
                        pass
                file.truncate(max(0, file.tell() - room))
            try:
                work()
            except (DhmError, OSError) as error:
                said = error.message.partition(": no room")[0] if isinstance(error, DhmError) else error.filename
                named.add(Path(said))
            else:
                filler.unlink()
                assert all(path.is_relative_to(small_disk) for path in named), named
                return {path.name for path in named}
        raise AssertionError("no room on an empty disk")

    return run
