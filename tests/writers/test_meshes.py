"""Dense faces in files, drawn on photos, and in columns."""

import csv
from pathlib import Path

import numpy as np
import pytest
from example_photos import ASTRONAUT
from numpy.typing import NDArray
from places import SAMPLE_DATA

from dhm_cli.alignment.dense import DenseOptions
from dhm_cli.alignment.photos import align_files
from dhm_cli.drawing.surfaces import draw_surface
from dhm_cli.errors import InputError
from dhm_cli.inference.aligner import Aligner, Face
from dhm_cli.inference.surfaces import with_surfaces
from dhm_cli.morphable.readers.wavefront import read_obj
from dhm_cli.writers.meshes import obj_bytes, photo_colours, ply_bytes
from dhm_cli.writers.overlays import draw


@pytest.fixture(scope="module")
def face(astronaut: NDArray[np.uint8]) -> Face:
    return with_surfaces(Aligner("cpu").align(astronaut))[0]


def test_the_surface_lies_on_the_landmarks(face: Face) -> None:
    surface = face.surface
    assert surface is not None
    points = surface.vertices[surface.face.keypoints]
    inner = slice(27, 68)  # nose, eyes, mouth: offsets of millimetres
    off = np.linalg.norm((points - face.landmarks)[inner, :2], axis=1)
    assert off.mean() < 0.05 * np.ptp(face.landmarks[:, 0])
    assert surface.blendshapes["mouthSmile_L"] > 0.25  # she smiles
    assert surface.blendshapes["eyeBlink_L"] < 0.2


def test_meshes_in_files(face: Face, astronaut: NDArray[np.uint8], tmp_path: Path) -> None:
    surface = face.surface
    assert surface is not None
    colours = photo_colours(astronaut, surface)
    assert colours[:, 0].mean() > colours[:, 2].mean() + 10  # skin, not sky
    (tmp_path / "a.obj").write_bytes(obj_bytes(surface, colours))
    vertices, triangles = read_obj(tmp_path / "a.obj")
    np.testing.assert_allclose(vertices, surface.vertices * [1, -1, 1], atol=1e-3)
    np.testing.assert_array_equal(triangles, surface.triangles)
    first = obj_bytes(surface, colours).splitlines()[2].split()
    assert len(first) == 7
    np.testing.assert_allclose([float(value) for value in first[4:]], colours[0] / 255, atol=1e-3)
    ply = ply_bytes(surface, colours)
    head, _, body = ply.partition(b"end_header\n")
    assert b"element vertex 6690" in head
    assert len(body) == 6690 * (24 + 3) + 13140 * 13
    np.testing.assert_allclose(np.frombuffer(body[:12], "<f4"), surface.vertices[0] * [1, -1, 1], rtol=1e-6)


def test_align_writes_meshes_and_columns(tmp_path: Path) -> None:
    out, meshes = tmp_path / "t.csv", tmp_path / "meshes"
    meshes.mkdir()
    (meshes / "astronaut_0.obj").write_text("of somebody")
    options = DenseOptions(meshes, texture=True)
    photos = [ASTRONAUT, SAMPLE_DATA / "photos" / "astronaut_turned_left_45.jpg"]
    report = align_files(photos, out, device="cpu", dense=options, columns=("parameters", "blendshapes"))
    assert "not made by --mesh" in report.results[0].mesh_problem
    assert (meshes / "astronaut_0.obj").read_text() == "of somebody"
    assert (meshes / "astronaut_turned_left_45_0.obj").read_bytes().startswith(b"# dhm mesh\n")
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["mouthSmile_L"]) > 0.25
    assert {"scale", "rotation_00", "t_z", "identity_39", "expression_44"} <= rows[0].keys()
    assert "browInnerUp_L" not in rows[0]  # 68 points do not tell it
    assert rows[0]["expression_52"] == ""  # this model has 45
    assert 0.5 < float(rows[0]["scale"]) < 0.8
    assert rows[0]["identity_0"] != rows[1]["identity_0"]


def test_one_person_has_one_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, looked, align = tmp_path / "t.csv", [], Aligner.align
    monkeypatch.setattr(Aligner, "align", lambda *given: looked.append(given) or align(*given))
    options = DenseOptions(same_person=True)
    align_files([SAMPLE_DATA / "photos"], out, device="cpu", dense=options, columns=("parameters",))
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(looked) == 5
    assert len({row["identity_3"] for row in rows}) == 1
    assert len({row["scale"] for row in rows}) == 5


@pytest.mark.parametrize(
    ("options", "columns", "message"),
    [
        (DenseOptions(same_person=True), ("box",), "--same-person: does nothing"),
        (DenseOptions("m", mesh_format="stl"), ("box",), "--mesh-format stl"),
        (DenseOptions("m", model="none.h5"), ("box",), "none.h5: no such face model"),
    ],
)
def test_what_cannot_be_done(options: DenseOptions, columns: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        align_files([ASTRONAUT], tmp_path / "t.csv", device="cpu", dense=options, columns=columns)


def test_a_drawn_surface_hides_the_face_and_leaves_the_rest(face: Face, astronaut: NDArray[np.uint8]) -> None:
    drawn = draw(astronaut, [face], parts=("mesh",))
    changed = np.abs(drawn.astype(int) - astronaut).max(axis=2) > 8
    x, y = face.landmarks[30, :2].round().astype(int)
    assert changed[y, x]
    assert not changed[300:].any()
    assert drawn[y - 3 : y + 4, x - 3 : x + 4].std(axis=2).max() < 40  # grey, not skin


def test_what_is_turned_away_is_left_out_and_the_near_is_in_front() -> None:
    canvas = np.zeros((20, 20, 3), np.uint8)
    square = np.array([[2.0, 2, 0], [18, 2, 0], [18, 18, 0], [2, 18, 0]])
    towards = np.array([[0, 2, 1], [0, 3, 2]])
    draw_surface(canvas, square, towards[:, ::-1])
    assert not canvas.any()
    draw_surface(canvas, square, towards, strength=1.0)
    flat = canvas[10, 10].copy()
    assert flat.min() > 100
    slope = square.copy()
    slope[:, 2] = 35, 35, 5, 5  # a darker one before it
    draw_surface(canvas, np.vstack([slope, square]), np.vstack([towards, towards + 4]), strength=1.0)
    assert (canvas[10, 10] != flat).any()
