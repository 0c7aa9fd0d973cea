"""The face model: Eq. (1) and (2) by hand, its file, and the toy model."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from dhm_cli.errors import FormatError, InputError
from dhm_cli.geometry.landmarks import MIRROR
from dhm_cli.morphable import face_model
from dhm_cli.morphable.face_model import FaceModel, Mesh, Origin, is_face_model
from dhm_cli.morphable.parameters import Parameters, pack
from dhm_cli.morphable.toy import toy_face_model


def plain_model() -> FaceModel:
    """A mean of zeros; identity mode k moves landmark k along x by 1, expression mode 0 lifts all landmarks by 1."""
    identity = torch.zeros(68, 3, 2, dtype=torch.float64)
    identity[0, 0, 0] = identity[1, 0, 1] = 1.0
    expression = torch.zeros(68, 3, 1, dtype=torch.float64)
    expression[:, 1, 0] = 1.0
    mean = torch.zeros(68, 3, dtype=torch.float64)
    mean[5] = torch.tensor([10.0, 20.0, 30.0])
    return FaceModel(mean, identity, expression, torch.ones(2).double(), torch.ones(1).double(), "plain")


def test_shape_by_hand() -> None:
    shape = plain_model().shape(torch.tensor([[3.0, 4.0]]).double(), torch.tensor([[0.5]]).double())[0]
    assert shape[0].tolist() == [3.0, 0.5, 0.0]
    assert shape[1].tolist() == [4.0, 0.5, 0.0]
    assert shape[5].tolist() == [10.0, 20.5, 30.0]


def test_landmarks_by_hand() -> None:
    """Scale 2, no rotation, t = (100, 50), an image 200 high: x -> 2 x + 99, y -> 200 - (2 y + 50), z -> 2 z."""
    p = pack(
        Parameters(
            torch.tensor([2.0]).double(), torch.zeros(1, 3).double(), torch.tensor([[100.0, 50.0]]).double(),
            torch.tensor([[3.0, 4.0]]).double(), torch.tensor([[0.5]]).double(),
        )
    )  # fmt: skip
    points = plain_model().landmarks(p, 200.0)[0]
    assert points[0].tolist() == [105.0, 149.0, 0.0]
    assert points[5].tolist() == [119.0, 109.0, 60.0]


def test_landmarks_gradient_in_p() -> None:
    rng = torch.Generator().manual_seed(0)
    p = torch.randn(2, 234, generator=rng, dtype=torch.float64).requires_grad_()
    model = plain_model()
    assert torch.autograd.gradcheck(lambda q: model.landmarks(q, 100.0)[:, :8], (p,), fast_mode=True)


def test_toy_model_has_the_sizes_and_units_of_the_basel_face_model() -> None:
    model = toy_face_model()
    assert model.identity.shape == (68, 3, 199)
    assert model.expression.shape == (68, 3, 29)
    width, height, _ = (model.mean.amax(0) - model.mean.amin(0)).tolist()
    assert 1e5 < width < 2e5  # micrometres
    assert 1e5 < height < 2e5
    assert (model.identity_std > 0).all()
    assert (model.expression_std > 0).all()


def test_toy_model_is_a_face() -> None:
    """Upright, y up, nose tip in front, left eye of the image at negative x."""
    mean = toy_face_model().mean
    assert mean[30, 2] == mean[:, 2].max()
    assert mean[8, 1] == mean[:, 1].min()
    assert mean[36:42, 0].mean() < 0 < mean[42:48, 0].mean()
    assert mean[17:27, 1].mean() > mean[36:48, 1].mean() > mean[48:68, 1].mean()


def test_toy_model_is_the_same_on_every_call() -> None:
    assert toy_face_model().hash() == toy_face_model().hash()


def test_symmetric_modes_of_the_toy_model() -> None:
    identity = toy_face_model().identity.numpy()
    mirrored = identity[MIRROR] * np.array([-1, 1, 1])[:, None]
    symmetric = np.abs(mirrored - identity).max(axis=(0, 1)) < 1e-6
    assert 0.7 < symmetric.mean() < 0.8


def test_hash_sees_every_array_and_no_name() -> None:
    model = toy_face_model()
    names = ("mean", "identity", "expression", "identity_std", "expression_std")
    hashes = {model.hash()}
    for changed in names:
        arrays = {name: getattr(model, name).clone() for name in names}
        arrays[changed].view(-1)[0] += 1.0
        hashes.add(FaceModel(**arrays, name=model.name).hash())
    assert len(hashes) == 6
    assert FaceModel(**{name: getattr(model, name) for name in names}, name="other").hash() == model.hash()
    assert model.to(torch.float64).hash() == model.hash()


def test_file_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "face_model.h5"
    model = toy_face_model()
    model.save(path)
    again = FaceModel.load(path)
    assert again.hash() == model.hash()
    assert again.name == "toy"
    for name in ("mean", "identity", "expression", "identity_std", "expression_std"):
        assert torch.equal(getattr(again, name), getattr(model, name))
    assert [p.name for p in path.parent.iterdir()] == ["face_model.h5"]


def model_with_mesh() -> FaceModel:
    rng = np.random.default_rng(0)
    mesh = Mesh(
        mean=rng.normal(size=(100, 3)).astype(np.float32),
        identity=rng.normal(size=(100, 3, 199)).astype(np.float32),
        expression=rng.normal(size=(100, 3, 29)).astype(np.float32),
        keypoints=rng.permutation(100)[:68],
        triangles=rng.integers(0, 100, (30, 3)).astype(np.int32),
    )
    origin = Origin("BFM 2009", ("a.mat", "b c.mat"), ("0" * 64, "f" * 64), "micrometre", ("a note", "größer"))
    return replace(toy_face_model(), mesh=mesh, origin=origin)


def test_file_keeps_the_mesh_and_the_origin(tmp_path: Path) -> None:
    model = model_with_mesh()
    model.save(tmp_path / "face_model.h5")
    rows, whole = FaceModel.load(tmp_path / "face_model.h5"), FaceModel.load(tmp_path / "face_model.h5", mesh=True)
    assert rows.mesh is None
    assert rows.origin == whole.origin == model.origin
    assert rows.hash() == whole.hash() == toy_face_model().hash()
    assert model.mesh is not None
    for name, expected in vars(model.mesh).items():
        found = getattr(whole.mesh, name)
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype


def test_file_names_its_units(tmp_path: Path) -> None:
    toy_face_model().save(tmp_path / "face_model.h5")
    with h5py.File(tmp_path / "face_model.h5") as file:
        assert file.attrs["units"] == "micrometre"
        assert "mesh" not in file


def test_no_notes_are_no_notes(tmp_path: Path) -> None:
    model = replace(toy_face_model(), origin=Origin("3DDFA", ("a.mat",), ("0" * 64,), "micrometre", ()))
    model.save(tmp_path / "face_model.h5")
    assert FaceModel.load(tmp_path / "face_model.h5").origin == model.origin


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.h5", "b.h5"):
        model_with_mesh().save(tmp_path / name)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_another_floating_type_keeps_name_mesh_and_origin() -> None:
    model = model_with_mesh()
    double = model.to(torch.float64)
    assert double.expression.dtype == double.identity_std.dtype == torch.float64
    assert (double.name, double.mesh, double.origin) == (model.name, model.mesh, model.origin)


def test_a_model_without_expressions(tmp_path: Path) -> None:
    toy = toy_face_model()
    model = replace(toy, expression=toy.expression[..., :0], expression_std=toy.expression_std[:0])
    model.save(tmp_path / "face_model.h5")
    again = FaceModel.load(tmp_path / "face_model.h5")
    assert again.expression.shape == (68, 3, 0)
    assert again.hash() == model.hash() != toy.hash()
    p = torch.randn(2, 234, generator=torch.Generator().manual_seed(0))
    still = p.clone()
    still[:, 205:] = 0
    torch.testing.assert_close(again.landmarks(p, 100.0), toy.landmarks(still, 100.0))


def test_which_files_are_ours(tmp_path: Path) -> None:
    toy_face_model().save(tmp_path / "face_model.h5")
    assert is_face_model(tmp_path / "face_model.h5")
    for name, content in (("a.h5", b""), ("b.h5", (tmp_path / "face_model.h5").read_bytes()[:3000])):
        (tmp_path / name).write_bytes(content)
        assert not is_face_model(tmp_path / name)
    h5py.File(tmp_path / "c.h5", "w").close()
    assert not is_face_model(tmp_path / "c.h5")


def test_version_1_is_to_be_converted_again(tmp_path: Path) -> None:
    path = tmp_path / "face_model.h5"
    toy_face_model().save(path)
    with h5py.File(path, "a") as file:
        file.attrs["version"] = 1
    with pytest.raises(FormatError, match="not a face model of version 2, but of version 1") as caught:
        FaceModel.load(path)
    assert "dhm prepare --bfm" in caught.value.hint


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such face model") as caught:
        FaceModel.load(tmp_path / "absent.h5")
    assert "dhm prepare" in caught.value.hint


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"version": 99}, id="version"),
        pytest.param({"format": "dhm-faces"}, id="another kind of ours"),
    ],
)
def test_other_versions_and_kinds_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "face_model.h5"
    toy_face_model().save(path)
    with h5py.File(path, "a") as file:
        file.attrs.update(change)
    with pytest.raises(FormatError, match="not a face model of version 2"):
        FaceModel.load(path)


def test_a_missing_array_is_named(tmp_path: Path) -> None:
    path = tmp_path / "face_model.h5"
    toy_face_model().save(path)
    with h5py.File(path, "a") as file:
        del file["expression"]
    with pytest.raises(FormatError, match="expression"):
        FaceModel.load(path)


def test_foreign_and_truncated_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "face_model.h5"
    toy_face_model().save(path)
    content = path.read_bytes()
    for damaged in (b"", b"not HDF5 at all", content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(FormatError, match="not a readable face model"):
            FaceModel.load(path)


@pytest.mark.parametrize("name", ["mean", "identity_std"])
def test_text_in_place_of_numbers_is_refused(tmp_path: Path, name: str) -> None:
    """It was a traceback."""
    path = tmp_path / "face_model.h5"
    toy_face_model().save(path)
    with h5py.File(path, "r+") as file:
        del file[name]
        file[name] = "numbers"
    with pytest.raises(FormatError, match=r"face_model\.h5: not a readable face model"):
        FaceModel.load(path)


def test_project_is_landmarks_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(face_model, "_CHUNK", 2)
    model, rng = toy_face_model(), np.random.default_rng(0)
    p = np.concatenate([rng.uniform(1e-4, 1e-3, (5, 1)), rng.normal(size=(5, 3)), rng.uniform(0, 99, (5, 230))], axis=1)
    heights = rng.integers(50, 500, 5)
    expected = model.to(torch.float64).landmarks(torch.from_numpy(p), torch.from_numpy(heights).double())
    np.testing.assert_allclose(model.project(p, heights), expected.numpy(), rtol=1e-6)
    assert model.project(p[:0], heights[:0]).shape == (0, 68, 3)


def test_what_was_made_with_another_face_model_is_refused() -> None:
    model = toy_face_model()
    model.require(model.hash(), Path("toy.h5"), "a.safetensors: was trained", "train again")
    with pytest.raises(InputError) as caught:
        model.require("0123456789abcdef", Path("toy.h5"), "a.safetensors: was trained", "train again")
    said = f"a.safetensors: was trained with face model 0123456789abcdef, but toy.h5 is {model.hash()} (toy)"
    assert (caught.value.message, caught.value.hint) == (said, "train again")
