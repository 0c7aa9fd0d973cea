"""Readers of face model files, on files of every format written here (`model_files`)."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from model_files import (
    DenseToy,
    Save,
    dense_toy,
    expression_3ddfa,
    fields_bfm2009,
    moved,
    numbered_landmarks,
    save_v5,
    save_v73,
    shape_3ddfa,
    write_3ddfa_folder,
    write_3ddfa_merged,
    write_bfm2009_folder,
    write_bfm2017,
    write_deep3d,
    write_expression_bin,
    write_face3d,
    write_face_model_mat,
    write_ict_folder,
    write_ict_npz,
    write_obj,
)
from places import SHARED_DATA
from scipy.spatial.transform import Rotation

from dhm_cli.errors import DhmError, FormatError, InputError
from dhm_cli.geometry.landmarks import face_size
from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.morphable.readers.face_model_files import read_face_model
from dhm_cli.morphable.readers.keypoint_files import KEYPOINTS_53215, MESH_53215
from dhm_cli.morphable.readers.surface import IDENTITY_LAW
from dhm_cli.morphable.toy import toy_face_model

TOY = dense_toy()
FEW = dense_toy(identity=4, expression=3)  # where the number of modes does not matter


def displacements(basis: np.ndarray, std: np.ndarray) -> np.ndarray:
    """What each mode does to the landmarks at one standard deviation: free of the units that basis and std have."""
    return np.asarray(basis, np.float64) * np.asarray(std, np.float64)


def check(model: FaceModel, toy: DenseToy, same_std: bool = True) -> None:
    """The model is the toy in micrometres, to float32 precision, at the key rows and in the mesh."""
    assert model.mesh is not None
    rows = (model, toy_rows(toy)), (model.mesh, toy)
    for found, expected in rows:
        np.testing.assert_allclose(found.mean, expected.mean, atol=0.05)
        for name in ("identity", "expression"):
            true = displacements(getattr(expected, name), getattr(toy, f"{name}_std"))
            np.testing.assert_allclose(
                displacements(getattr(found, name), getattr(model, f"{name}_std")),
                true,
                atol=2e-6 * np.abs(true).max(initial=0),
            )
    if same_std:
        np.testing.assert_allclose(model.identity_std, toy.identity_std, rtol=1e-6)
        np.testing.assert_allclose(model.expression_std, toy.expression_std, rtol=1e-6)
    np.testing.assert_array_equal(model.mesh.keypoints, toy.keypoints)


def toy_rows(toy: DenseToy) -> DenseToy:
    return replace(
        toy,
        mean=toy.mean[toy.keypoints],
        identity=toy.identity[toy.keypoints],
        expression=toy.expression[toy.keypoints],
    )


def sorted_triangles(triangles: np.ndarray) -> np.ndarray:
    return np.sort(triangles, axis=1)


MAT_WRITERS = [
    pytest.param(write_3ddfa_folder, "3DDFA", "micrometre", id="3DDFA folder"),
    pytest.param(write_3ddfa_merged, "3DDFA", "micrometre", id="3DDFA merged"),
    pytest.param(write_bfm2009_folder, "BFM 2009", "micrometre", id="BFM 2009"),
    pytest.param(write_face3d, "face3d", "micrometre", id="face3d"),
    pytest.param(write_deep3d, "Deep3DFaceRecon", "decimetre", id="Deep3DFaceRecon"),
]


@pytest.mark.parametrize("save", [pytest.param(save_v5, id="v5"), pytest.param(save_v73, id="v7.3")])
@pytest.mark.parametrize(("write", "name", "units"), MAT_WRITERS)
def test_mat_formats(tmp_path: Path, write: Callable[..., Path], name: str, units: str, save: Save) -> None:
    model = read_face_model(write(tmp_path, TOY, save))
    check(model, TOY, same_std=name != "Deep3DFaceRecon")
    assert model.mesh is not None
    np.testing.assert_array_equal(sorted_triangles(model.mesh.triangles), sorted_triangles(TOY.triangles))
    assert model.origin is not None
    assert (model.origin.format, model.origin.units) == (name, units)


OTHER_WRITERS = [
    pytest.param(write_bfm2017, TOY, "BFM 2017/2019", "millimetre", id="BFM 2017"),
    pytest.param(write_ict_folder, dense_toy(150, 12, 8), "ICT-FaceKit", "centimetre", id="ICT folder"),
    pytest.param(write_ict_npz, dense_toy(200, 100, 29), "ICT-FaceKit", "centimetre", id="ICT npz"),
]


@pytest.mark.parametrize(("write", "toy", "name", "units"), OTHER_WRITERS)
def test_other_formats(tmp_path: Path, write: Callable[..., Path], toy: DenseToy, name: str, units: str) -> None:
    model = read_face_model(write(tmp_path, toy))
    check(model, toy, same_std=name == "BFM 2017/2019")
    assert model.origin is not None
    assert (model.origin.format, model.origin.units) == (name, units)
    if write is not write_ict_npz:  # which holds no triangles
        assert model.mesh is not None
        np.testing.assert_array_equal(sorted_triangles(model.mesh.triangles), sorted_triangles(toy.triangles))


def test_the_folder_or_a_file_in_it_names_the_same_model(tmp_path: Path) -> None:
    write_3ddfa_folder(tmp_path / "a", FEW)
    assert read_face_model(tmp_path / "a").hash() == read_face_model(tmp_path / "a" / "Model_Shape.mat").hash()
    write_bfm2017(tmp_path / "b", FEW)
    assert (
        read_face_model(tmp_path / "b").hash() == read_face_model(tmp_path / "b" / "model2017-1_bfm_nomouth.h5").hash()
    )
    folder = write_ict_folder(tmp_path / "c" / "FaceXModel", dense_toy(150, 2, 2))
    named = [read_face_model(path).hash() for path in (folder, folder.parent, folder / "generic_neutral_mesh.obj")]
    assert len(set(named)) == 1


def test_origin_names_the_files_and_their_hashes(tmp_path: Path) -> None:
    origin = read_face_model(write_bfm2009_folder(tmp_path, FEW)).origin
    assert origin is not None
    assert origin.files == ("01_MorphableModel.mat", "model_info.mat", "Model_Exp.mat")
    assert len(set(origin.sha256)) == 3
    assert all(len(digest) == 64 for digest in origin.sha256)
    assert origin.notes == ("300 of 320 vertices are kept, by trimIndex of model_info.mat",)


def test_reading_and_writing_is_bit_identical(tmp_path: Path) -> None:
    source = write_deep3d(tmp_path, dense_toy(200, 10, 40 - 11))
    for name in ("a", "b"):
        read_face_model(source).save(tmp_path / f"{name}.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_our_own_file_is_read_back(tmp_path: Path) -> None:
    model = read_face_model(write_face3d(tmp_path, FEW))
    model.save(tmp_path / "face_model.h5")
    again = read_face_model(tmp_path / "face_model.h5")
    assert again.hash() == model.hash()
    assert again.mesh is not None


def test_written_toy_model_reads_back_exactly(tmp_path: Path) -> None:
    model = toy_face_model()
    write_face_model_mat(model, tmp_path / "toy.mat")
    again = read_face_model(tmp_path / "toy.mat")
    assert again.hash() == model.hash()
    assert again.mesh is None  # nothing but the key vertices


def test_micrometres_stay_bit_for_bit(tmp_path: Path) -> None:
    """300W-LP's parameters belong to these very numbers: float64 sums of the means, rounded once."""
    path = write_3ddfa_merged(tmp_path, TOY)
    fields, model = scipy.io.loadmat(path), read_face_model(path)
    mean = fields["mu_shape"].astype(np.float64) + fields["mu_exp"].astype(np.float64)
    expected = mean.reshape(-1, 3)[TOY.keypoints].astype(np.float32)
    np.testing.assert_array_equal(model.mean, expected)
    np.testing.assert_array_equal(model.identity, fields["w"].reshape(-1, 3, 199)[TOY.keypoints])
    np.testing.assert_array_equal(model.expression, fields["w_exp"].reshape(-1, 3, 29)[TOY.keypoints])


def test_plain_face3d_fields_without_the_struct(tmp_path: Path) -> None:
    model = scipy.io.loadmat(write_face3d(tmp_path, FEW), simplify_cells=True)["model"]
    save_v5(tmp_path / "plain" / "joined.mat", {k: v[:, None] if np.ndim(v) == 1 else v for k, v in model.items()})
    check(read_face_model(tmp_path / "plain" / "joined.mat"), FEW)


class TestBfm2009:
    """The shape comes alone; expressions, key points and the table of vertices lie in other files."""

    def folder(self, tmp_path: Path, toy: DenseToy = FEW) -> Path:
        write_bfm2009_folder(tmp_path, toy)
        (tmp_path / "Model_Exp.mat").unlink()
        return tmp_path

    def test_with_exp_pca_bin(self, tmp_path: Path) -> None:
        basis = write_expression_bin(self.folder(tmp_path), FEW)
        check(read_face_model(tmp_path / "01_MorphableModel.mat", expression=basis), FEW)
        check(read_face_model(tmp_path), FEW)

    def test_expression_in_another_folder(self, tmp_path: Path) -> None:
        self.folder(tmp_path)
        other = tmp_path / "expressions"
        other.mkdir()
        write_expression_bin(other, FEW)
        check(read_face_model(tmp_path / "01_MorphableModel.mat", expression=other), FEW)

    def test_without_std_exp(self, tmp_path: Path) -> None:
        write_expression_bin(self.folder(tmp_path), FEW, std=False)
        origin = read_face_model(tmp_path).origin
        assert origin is not None
        assert any("no standard deviations of the expression modes" in note for note in origin.notes)

    def test_without_expression(self, tmp_path: Path) -> None:
        save_v5(tmp_path / "bfm.mat", fields_bfm2009(FEW))
        (tmp_path / "points.anl").write_text(" ".join(map(str, FEW.keypoints)))
        model = read_face_model(tmp_path / "bfm.mat", keypoints=tmp_path / "points.anl")
        assert model.expression.shape == (68, 3, 0)
        assert model.origin is not None
        assert any("smiles" in note for note in model.origin.notes)
        check(model, replace(FEW, expression=np.zeros((300, 3, 0)), expression_std=np.zeros(0)))

    def test_public_key_points_through_the_table(self, tmp_path: Path) -> None:
        """At the true sizes, 53,490 and 53,215 vertices: cut down with an expression basis, whole without."""
        toy, number = full_size_toy(), np.sort(np.random.default_rng(2).permutation(53_490)[:MESH_53215])
        large = moved(toy, number, 53_490)
        save_v5(tmp_path / "bfm.mat", fields_bfm2009(large))
        save_v5(tmp_path / "BFM_exp_idx.mat", {"trimIndex": number[None] + 1})
        whole = read_face_model(tmp_path)
        assert whole.mesh is not None
        np.testing.assert_array_equal(whole.mesh.keypoints, large.keypoints)
        write_expression_bin(tmp_path, replace(toy, expression=toy.expression[..., :1], expression_std=np.ones(1)))
        cut = read_face_model(tmp_path)
        assert cut.mesh is not None
        np.testing.assert_array_equal(cut.mesh.keypoints, KEYPOINTS_53215)
        np.testing.assert_allclose(cut.mean, toy_face_model().mean + 100, atol=0.05)  # the basis adds its mean offset

    def test_key_points_of_the_whole_mesh_follow_the_cut(self, tmp_path: Path) -> None:
        folder = write_bfm2009_folder(tmp_path, FEW)
        kept = scipy.io.loadmat(folder / "model_info.mat")["trimIndex"].ravel() - 1
        save_v5(folder / "model_info.mat", {"trimIndex": kept + 1})
        (folder / "points.txt").write_text("\n".join(map(str, kept[FEW.keypoints])))
        check(read_face_model(folder, keypoints=folder / "points.txt"), FEW)

    def test_no_table_joins_the_meshes(self, tmp_path: Path) -> None:
        folder = write_bfm2009_folder(tmp_path, FEW)
        (folder / "model_info.mat").unlink()
        with pytest.raises(InputError, match=r"expression basis of 300 vertices, but .* has 320") as caught:
            read_face_model(folder)
        assert "trimIndex" in caught.value.hint

    def test_no_key_points(self, tmp_path: Path) -> None:
        save_v5(tmp_path / "bfm.mat", fields_bfm2009(FEW))
        with pytest.raises(InputError, match="300 vertices does not say which are the 68") as caught:
            read_face_model(tmp_path / "bfm.mat")
        assert "--keypoints" in caught.value.hint


def full_size_toy() -> DenseToy:
    """The toy on the 53,215-vertex mesh, with two modes of each kind, key points at the public vertices."""
    toy, rng = toy_face_model(), np.random.default_rng(1)
    keypoints = np.array(KEYPOINTS_53215)
    mean = rng.uniform(-7e4, 7e4, (MESH_53215, 3))
    mean[keypoints] = toy.mean
    basis = rng.normal(size=(MESH_53215, 3, 2))
    return DenseToy(mean, basis, basis, np.ones(2), np.ones(2), keypoints, np.array([[0, 1, 2]]))


class TestMissingParts:
    """3DDFA files without sigma or keypoints."""

    def test_public_key_points_and_assumed_sigma(self, tmp_path: Path) -> None:
        toy = full_size_toy()
        fields = shape_3ddfa(toy) | expression_3ddfa(toy)
        for name in ("sigma", "sigma_exp", "keypoints"):
            del fields[name]
        save_v5(tmp_path / "model.mat", fields)
        model = read_face_model(tmp_path / "model.mat")
        assert model.mesh is not None
        np.testing.assert_array_equal(model.mesh.keypoints, KEYPOINTS_53215)
        moves = displacements(model.identity, model.identity_std)
        expected = IDENTITY_LAW[0] * np.arange(1, 3) ** -IDENTITY_LAW[1]
        np.testing.assert_allclose(np.sqrt((moves**2).sum(1).mean(0)), expected, rtol=1e-5)
        assert model.origin is not None
        assert [note.split(":")[0] for note in model.origin.notes] == [
            "key points",
            "no standard deviations of the identity modes",
            "no standard deviations of the expression modes",
        ]

    def test_modes_that_carry_their_std(self, tmp_path: Path) -> None:
        toy = replace(TOY, identity=TOY.identity * TOY.identity_std, expression=TOY.expression * TOY.expression_std)
        fields = shape_3ddfa(toy) | expression_3ddfa(toy)
        del fields["sigma"], fields["sigma_exp"]
        save_v5(tmp_path / "model.mat", fields)
        model = read_face_model(tmp_path / "model.mat")
        assert set(model.identity_std.tolist()) == set(model.expression_std.tolist()) == {1.0}
        check(model, TOY, same_std=False)


def test_more_expression_modes_than_p_has_room_for(tmp_path: Path) -> None:
    toy = dense_toy(300, 5, 29)
    rng = np.random.default_rng(0)
    extra = rng.normal(size=(300, 3, 35)) * toy.expression.std()
    toy = replace(
        toy,
        expression=np.concatenate([toy.expression, extra], axis=-1),
        expression_std=np.concatenate([toy.expression_std, np.full(35, 1e-3)]),
    )
    model = read_face_model(write_deep3d(tmp_path, toy))
    assert model.expression.shape == (68, 3, 29)
    assert (np.diff(model.expression_std) <= 0).all()
    found = displacements(model.expression, model.expression_std).reshape(204, -1)
    true = displacements(toy.expression[toy.keypoints], toy.expression_std).reshape(204, -1)
    np.testing.assert_allclose(found @ found.T, true @ true.T, atol=1e-5 * np.abs(true @ true.T).max())
    assert model.origin is not None
    assert model.origin.notes == ("64 expression modes reduced to the 29 principal ones, 100.0 % of the variance",)


def test_more_identity_modes_than_p_has_room_for(tmp_path: Path) -> None:
    wide = replace(TOY, identity=np.repeat(TOY.identity, 2, axis=-1), identity_std=np.repeat(TOY.identity_std, 2))
    model = read_face_model(write_3ddfa_merged(tmp_path, wide))
    assert model.identity.shape == (68, 3, 199)
    np.testing.assert_allclose(model.identity, wide.identity[TOY.keypoints, :, :199], rtol=1e-6)
    assert model.mesh is not None
    assert model.mesh.identity.shape == (300, 3, 199)


class TestKeypoints:
    """BFM 2017/2019 files name other landmarks than the 68."""

    def test_option(self, tmp_path: Path) -> None:
        path = write_bfm2017(tmp_path / "model", FEW, anl=False)
        (tmp_path / "68.txt").write_text(", ".join(map(str, FEW.keypoints)))
        check(read_face_model(path, keypoints=tmp_path / "68.txt"), FEW)

    def test_a_file_with_a_matlab_comment_is_1_based(self, tmp_path: Path) -> None:
        path = write_bfm2017(tmp_path, FEW, anl=False)
        (tmp_path / "68.anl").write_text("%68 landmarks\n" + "\n".join(map(str, FEW.keypoints + 1)))
        check(read_face_model(path), FEW)

    def test_numbered_landmarks_in_the_metadata(self, tmp_path: Path) -> None:
        check(read_face_model(write_bfm2017(tmp_path, FEW, numbered_landmarks(FEW), anl=False)), FEW)

    def test_files_beside_the_model_that_do_not_fit_are_passed_over(self, tmp_path: Path) -> None:
        path = write_bfm2017(tmp_path, FEW)
        (tmp_path / "21.anl").write_text("\n".join(map(str, range(21))))
        (tmp_path / "another mesh.anl").write_text("\n".join(map(str, FEW.keypoints[::-1])))
        (tmp_path / "larger mesh.anl").write_text("\n".join(map(str, FEW.keypoints + 300)))
        check(read_face_model(path), FEW)

    def test_none_anywhere(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="does not say which are the 68 landmarks") as caught:
            read_face_model(write_bfm2017(tmp_path, FEW, anl=False))
        assert ".anl" in caught.value.hint

    def test_two_that_fit(self, tmp_path: Path) -> None:
        path = write_bfm2017(tmp_path, FEW)
        (tmp_path / "copy.anl").write_text((tmp_path / "Landmarks68.anl").read_text())
        with pytest.raises(InputError, match=r"2 files of key points beside it: Landmarks68\.anl, copy\.anl"):
            read_face_model(path)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            pytest.param(" ".join(map(str, range(67))), "expected 68 vertex numbers, found 67", id="67 numbers"),
            pytest.param("nose tip", "expected a text file of numbers", id="words"),
            pytest.param(" ".join(["1.5"] * 68), "expected 68 vertex numbers", id="fractions"),
            pytest.param(" ".join(["7"] * 68), "only 1 different vertices", id="one vertex"),
            pytest.param(" ".join(map(str, range(250, 318))), "has 300 vertices", id="beyond the mesh"),
            pytest.param(" ".join(map(str, range(68))), "not those of an upright face", id="any vertices"),
        ],
    )
    def test_bad_files(self, tmp_path: Path, content: str, message: str) -> None:
        path = write_bfm2017(tmp_path, FEW)
        (tmp_path / "bad.txt").write_text(content)
        with pytest.raises(InputError, match=message):
            read_face_model(path, keypoints=tmp_path / "bad.txt")

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"absent\.anl: no such file"):
            read_face_model(write_bfm2017(tmp_path, FEW), keypoints=tmp_path / "absent.anl")


class TestIctFolder:
    """OBJ files that do not belong together."""

    def test_another_number_of_vertices(self, tmp_path: Path) -> None:
        folder = write_ict_folder(tmp_path, dense_toy(150, 2, 2))
        write_obj(folder / "identity001.obj", np.zeros((149, 3)))
        with pytest.raises(InputError, match=r"identity001\.obj: expected 150 vertices .* found 149"):
            read_face_model(folder)

    def test_no_identity(self, tmp_path: Path) -> None:
        folder = write_ict_folder(tmp_path, dense_toy(150, 1, 2))
        (folder / "identity000.obj").unlink()
        with pytest.raises(InputError, match=r"no identity000\.obj"):
            read_face_model(folder)

    def test_without_vertex_indices(self, tmp_path: Path) -> None:
        folder = write_ict_folder(tmp_path, toy := dense_toy(150, 2, 2))
        (folder / "vertex_indices.json").unlink()
        (folder / "PupilDilate_L.obj").unlink()
        with pytest.raises(InputError, match="does not say which are the 68 landmarks"):
            read_face_model(folder)
        (tmp_path / "68.txt").write_text(" ".join(map(str, toy.keypoints)))
        check(read_face_model(folder, keypoints=tmp_path / "68.txt"), toy, same_std=False)

    def test_damaged_vertex_indices(self, tmp_path: Path) -> None:
        folder = write_ict_folder(tmp_path, dense_toy(150, 1, 1))
        (folder / "vertex_indices.json").write_text('{"expressions": [')
        with pytest.raises(InputError, match=r"vertex_indices\.json: not a readable JSON"):
            read_face_model(folder)


def spoiled_mat(changes: dict[str, object]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        save_v5(folder / "model.mat", shape_3ddfa(FEW) | expression_3ddfa(FEW) | changes)
        return folder / "model.mat"

    return write


def file_of(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def half(name: str) -> Callable[[Path], Path]:
    """A 3DDFA folder with one of its two files."""

    def write(folder: Path) -> Path:
        write_3ddfa_folder(folder, FEW)
        (folder / name).unlink()
        return folder

    return write


def truncated(write_whole: Callable[[Path, DenseToy], Path], share: float) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = write_whole(folder, FEW)
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        return path

    return write


def foreign_hdf5(folder: Path) -> Path:
    with h5py.File(folder / "faces.h5", "w") as file:
        file.attrs["format"] = "dhm-faces"
        file["images"] = np.zeros(3)
    return folder / "faces.h5"


def two_models(folder: Path) -> Path:
    write_deep3d(folder, FEW)
    write_face3d(folder, FEW)
    return folder


def two_bases(folder: Path) -> Path:
    write_3ddfa_folder(folder, FEW)
    write_expression_bin(folder, FEW)
    return folder


def empty_folder(folder: Path) -> Path:
    (folder / "holiday.jpg").touch()
    return folder


def bin_with_a_bad_table(folder: Path) -> Path:
    write_3ddfa_folder(folder, FEW)
    (folder / "Model_Exp.mat").unlink()
    write_expression_bin(folder, FEW)
    (folder / "std_exp.txt").write_text("1 2")
    return folder


MIRRORED = FEW.mean * [-1, 1, 1]
UPSIDE_DOWN = FEW.mean * [1, -1, 1]
BACKWARDS = FEW.mean * [1, 1, -1]
ENDLESS = np.where(np.arange(900) == 5, np.inf, FEW.identity[..., 0].ravel())[:, None]


@pytest.mark.parametrize(
    ("write", "message"),
    [
        pytest.param(lambda folder: folder / "absent.mat", "no such file or folder", id="missing"),
        pytest.param(file_of("a.mat", b""), "found an empty file", id="empty file"),
        pytest.param(file_of("a.jpg", b"\xff\xd8\xff\xe0JFIF"), "found a JPEG image", id="image"),
        pytest.param(file_of("w", b"\x10\x27" + bytes(6) + b'{"a"'), "found network weights", id="checkpoint"),
        pytest.param(file_of("m.pth", b"\x80\x02}q\x00."), "found a Python pickle", id="pickle"),
        pytest.param(file_of("BFM.mat", b"<!DOCTYPE html>"), r"BFM\.mat: not a readable MATLAB", id="web page"),
        pytest.param(file_of("a.xyz", b"who knows"), "neither MATLAB, HDF5 nor", id="unknown"),
        pytest.param(foreign_hdf5, "an HDF5 file of the kind dhm-faces", id="store"),
        pytest.param(truncated(write_3ddfa_merged, 0.5), "not a readable MATLAB file", id="truncated .mat"),
        pytest.param(truncated(write_bfm2017, 0.5), "not a readable HDF5 file", id="truncated .h5"),
        pytest.param(truncated(write_ict_npz, 0.9), "neither MATLAB, HDF5 nor .npz", id="truncated .npz"),
        pytest.param(empty_folder, r"no face model in this folder: found holiday\.jpg", id="folder without models"),
        pytest.param(two_models, r"2 face models .* BFM\.mat \(face3d\), BFM_model_front\.mat", id="two models"),
        pytest.param(two_bases, r"2 expression bases: Exp_Pca\.bin, Model_Exp\.mat", id="two expression bases"),
        pytest.param(half("Model_Exp.mat"), "shape half of a 3DDFA model, without an expression", id="shape half"),
        pytest.param(
            half("Model_Shape.mat"), r"expression basis \(Model_Exp\.mat\) without the shape", id="other half"
        ),
        pytest.param(
            spoiled_mat({"w": np.ones((900, 0))}), r"w must have shape \(900, number of modes\)", id="no modes"
        ),
        pytest.param(spoiled_mat({"w_exp": np.ones((897, 2))}), r"w_exp must have shape \(900", id="rows"),
        pytest.param(spoiled_mat({"mu_exp": np.ones((897, 1))}), r"mu_exp of 300 vertices .* found 897", id="mu_exp"),
        pytest.param(spoiled_mat({"mu_shape": np.ones((901, 1))}), "mu_shape must hold x, y, z", id="not 3 N"),
        pytest.param(spoiled_mat({"mu_shape": "face"}), "mu_shape must hold numbers", id="text"),
        pytest.param(spoiled_mat({"w": ENDLESS, "sigma": 1.0}), "identity holds numbers that are not finite", id="inf"),
        pytest.param(spoiled_mat({"sigma": np.ones((3, 1))}), "identity modes must be 4 positive", id="sigma count"),
        pytest.param(spoiled_mat({"sigma_exp": -np.ones((3, 1))}), "expression modes must be 3 positive", id="sign"),
        pytest.param(spoiled_mat({"keypoints": np.arange(67.0)}), "expected 68 key points, found 67", id="67 points"),
        pytest.param(spoiled_mat({"keypoints": np.arange(250.0, 318)}), "has 300 vertices", id="beyond the mesh"),
        pytest.param(spoiled_mat({"tri": np.full((3, 5), 301)}), "tri must name vertices 1 to 300", id="triangles"),
        pytest.param(spoiled_mat({"tri": np.ones((2, 5))}), "tri must name three vertices", id="edges"),
        pytest.param(spoiled_mat({"mu_shape": MIRRORED.reshape(-1, 1)}), "x must grow", id="mirrored"),
        pytest.param(spoiled_mat({"mu_shape": UPSIDE_DOWN.reshape(-1, 1)}), "y must grow upwards", id="upside down"),
        pytest.param(spoiled_mat({"mu_shape": BACKWARDS.reshape(-1, 1)}), "z must grow out of", id="looking away"),
        pytest.param(
            spoiled_mat({"mu_shape": FEW.mean.reshape(-1, 1) * 5, "mu_exp": np.zeros((900, 1))}),
            r"no face in any of micrometre, .* expected 0\.08 to 0\.25 m",
            id="a giant",
        ),
        pytest.param(bin_with_a_bad_table, r"std_exp\.txt: expected 3 numbers, .* found 2", id="std_exp"),
    ],
)
def test_refusals(tmp_path: Path, write: Callable[[Path], Path], message: str) -> None:
    path = write(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        read_face_model(path)
    assert caught.value.hint
    assert str(tmp_path) in caught.value.message


def test_the_refusal_of_an_unknown_file_lists_what_is_known(tmp_path: Path) -> None:
    save_v5(tmp_path / "a.mat", {"Pose_Para": 1.0, "roi": 2.0})
    with pytest.raises(InputError, match="not a face model: found a MATLAB file with Pose_Para, roi") as caught:
        read_face_model(tmp_path / "a.mat")
    for name in ("shapeMU", "mu_shape", "idBase", "shape/model", "generic_neutral_mesh.obj"):
        assert name in caught.value.hint


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(None, "no such file or folder", id="missing"),
        pytest.param(b"\x05\x00\x00\x00abc", "no expression basis: found a file .bin", id="not an Exp_Pca.bin"),
    ],
)
def test_expression_option_refusals(tmp_path: Path, content: bytes | None, message: str) -> None:
    folder = half("Model_Exp.mat")(tmp_path)
    place = tmp_path / "expression.bin"
    if content is not None:
        place.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_face_model(folder / "Model_Shape.mat", expression=place)


def test_expression_option_for_a_complete_model(tmp_path: Path) -> None:
    write_3ddfa_folder(tmp_path / "a", FEW)
    with pytest.raises(InputError, match="an expression basis of its own"):
        read_face_model(write_deep3d(tmp_path, FEW), expression=tmp_path / "a")


def test_a_face_model_of_version_1_is_to_be_converted_again(tmp_path: Path) -> None:
    toy_face_model().save(tmp_path / "face_model.h5")
    with h5py.File(tmp_path / "face_model.h5", "a") as file:
        file.attrs["version"] = 1
    with pytest.raises(FormatError, match="of version 1") as caught:
        read_face_model(tmp_path / "face_model.h5")
    assert isinstance(caught.value, DhmError)
    assert "dhm prepare --bfm" in caught.value.hint


NO_DATA = "no shared data; name its folder in DHM_SHARED_DATA"
BFM68, ICT = SHARED_DATA / "bfm" / "BFM68.mat", SHARED_DATA / "ict_face" / "ict_face.npz"


@pytest.mark.skipif(not BFM68.is_file(), reason=NO_DATA)
def test_the_real_basel_face_model_keeps_its_hash() -> None:
    """Trained checkpoints name it."""
    model = read_face_model(BFM68)
    assert model.hash() == "9650e522a82163ea"
    assert model.origin is not None
    assert (model.origin.units, model.origin.notes) == ("micrometre", ())


@pytest.mark.skipif(not (BFM68.is_file() and ICT.is_file()), reason=NO_DATA)
def test_the_real_ict_model_can_take_the_shape_of_the_basel_mean() -> None:
    """Size, axes, order of the landmarks and spread of the modes all have to be right for a small residual."""
    target = read_face_model(BFM68).mean.numpy().astype(np.float64)
    ict = read_face_model(ICT)
    assert ict.identity.shape == (68, 3, 100)
    assert ict.expression.shape == (68, 3, 29)
    bases = [displacements(ict.identity, ict.identity_std), displacements(ict.expression, ict.expression_std)]
    basis = np.concatenate(bases, axis=-1).reshape(204, -1)
    target = target - target.mean(axis=0)
    mean = ict.mean.numpy() - ict.mean.numpy().mean(axis=0)
    turned, _ = Rotation.align_vectors(mean, target)
    missing = (turned.apply(target) - mean).ravel()
    noise = 1500.0  # micrometres
    weights = np.linalg.solve(basis.T @ basis + noise**2 * np.eye(basis.shape[1]), basis.T @ missing)
    residual = (missing - basis @ weights).reshape(68, 3)
    assert np.sqrt((residual**2).sum(axis=1).mean()) / face_size(target) < 0.03
    assert np.sqrt((weights**2).mean()) < 1.5  # standard deviations
