"""Synthetic examples of every face model file: the toy model inside a small dense mesh, in the layouts of others."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
from numpy.typing import NDArray

from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.morphable.toy import toy_face_model

Save = Callable[[Path, dict[str, Any]], None]


@dataclass(frozen=True)
class DenseToy:
    """The toy model at its key points, made-up vertices around them; micrometres, basis and std apart."""

    mean: NDArray[np.float64]  # (V, 3)
    identity: NDArray[np.float64]  # (V, 3, K_id)
    expression: NDArray[np.float64]  # (V, 3, K_exp)
    identity_std: NDArray[np.float64]
    expression_std: NDArray[np.float64]
    keypoints: NDArray[np.int64]  # (68,), 0-based
    triangles: NDArray[np.int64]  # (F, 3), 0-based

    @property
    def vertices(self) -> int:
        return len(self.mean)


def dense_toy(vertices: int = 300, identity: int = 199, expression: int = 29) -> DenseToy:
    """The toy model with so many vertices and modes."""
    toy, rng = toy_face_model(), np.random.default_rng(vertices)
    keypoints = rng.permutation(vertices)[:68]
    mean = rng.uniform(-7e4, 7e4, (vertices, 3))
    mean[keypoints] = toy.mean
    bases = {}
    for name, modes in (("identity", identity), ("expression", expression)):
        basis = rng.normal(0, 0.05, (vertices, 3, modes))
        basis[keypoints] = getattr(toy, name)[..., :modes]
        bases[name] = basis
    return DenseToy(
        mean=mean,
        **bases,
        identity_std=toy.identity_std[:identity].double().numpy(),
        expression_std=toy.expression_std[:expression].double().numpy(),
        keypoints=keypoints,
        triangles=np.array([rng.permutation(vertices)[:3] for _ in range(50)]),
    )


def moved(toy: DenseToy, number: NDArray[np.int64], vertices: int) -> DenseToy:
    """The same mesh with vertex i at number[i] of a larger one, whose other vertices lie at the origin."""

    def spread(array: NDArray[np.float64]) -> NDArray[np.float64]:
        larger = np.zeros((vertices, *array.shape[1:]))
        larger[number] = array
        return larger

    return replace(
        toy,
        mean=spread(toy.mean),
        identity=spread(toy.identity),
        expression=spread(toy.expression),
        keypoints=number[toy.keypoints],
        triangles=number[toy.triangles],
    )


def save_v5(path: Path, fields: dict[str, Any]) -> None:
    """Write a .mat file of version 5."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, fields)


def save_v73(path: Path, fields: dict[str, Any]) -> None:
    """Write a .mat file of version 7.3: HDF5 behind 512 bytes, axes reversed, structs as groups, cells by reference."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in fields.items():
            _write_v73(file, name, value, file.create_group("#refs#") if "#refs#" not in file else file["#refs#"])
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


def _write_v73(group: h5py.Group, name: str, value: Any, references: h5py.Group) -> None:
    if isinstance(value, dict):
        inside = group.create_group(name)
        inside.attrs["MATLAB_class"] = np.bytes_("struct")
        for key, item in value.items():
            _write_v73(inside, key, item, references)
        return
    if isinstance(value, str):
        item = group.create_dataset(name, data=np.array([[ord(c)] for c in value], dtype=np.uint16))
        item.attrs["MATLAB_class"] = np.bytes_("char")
        return
    array = np.atleast_2d(np.asarray(value))
    if array.dtype == object:
        item = group.create_dataset(name, array.T.shape, dtype=h5py.ref_dtype)
        for index, element in np.ndenumerate(array.T):
            target = f"{len(references)}"
            _write_v73(references, target, element, references)
            item[index] = references[target].ref
        item.attrs["MATLAB_class"] = np.bytes_("cell")
    elif array.size == 0:
        item = group.create_dataset(name, data=np.array(array.shape, dtype=np.uint64))
        item.attrs["MATLAB_empty"] = np.uint8(1)
    else:
        group.create_dataset(name, data=array.T).attrs["MATLAB_class"] = np.bytes_("double")


def column(points: NDArray[np.float64]) -> NDArray[np.float32]:
    """(V, 3) as MATLAB has it, (3 V, 1)."""
    return points.reshape(-1, 1).astype(np.float32)


def columns(basis: NDArray[np.float64]) -> NDArray[np.float32]:
    """(V, 3, K) as MATLAB has it, (3 V, K)."""
    return basis.reshape(-1, basis.shape[-1]).astype(np.float32)


def write_face_model_mat(model: FaceModel, path: Path) -> None:
    """Write a model as a 3DDFA-style .mat file, which `read_face_model` reads back."""
    mean = model.mean.reshape(-1, 1).numpy()
    fields = {
        "mu_shape": mean,
        "w": columns(model.identity.numpy()),
        "sigma": model.identity_std[:, None].numpy(),
        "mu_exp": np.zeros_like(mean),
        "w_exp": columns(model.expression.numpy()),
        "sigma_exp": model.expression_std[:, None].numpy(),
        "keypoints": np.arange(1, 69)[None],
    }
    scipy.io.savemat(path, fields, do_compression=True)


def shape_3ddfa(toy: DenseToy) -> dict[str, Any]:
    """Fields of a 3DDFA Model_Shape.mat."""
    return {
        "mu_shape": column(toy.mean - 100.0),
        "w": columns(toy.identity),
        "sigma": toy.identity_std[:, None],
        "tri": toy.triangles.T.astype(np.float64) + 1,
        "keypoints": toy.keypoints[None] + 1.0,
    }


def expression_3ddfa(toy: DenseToy) -> dict[str, Any]:
    """Fields of a 3DDFA Model_Exp.mat; the mean face is mu_shape + mu_exp."""
    return {
        "mu_exp": column(np.full_like(toy.mean, 100.0)),
        "w_exp": columns(toy.expression),
        "sigma_exp": toy.expression_std[:, None],
    }


def write_3ddfa_folder(folder: Path, toy: DenseToy, save: Save = save_v5) -> Path:
    save(folder / "Model_Shape.mat", shape_3ddfa(toy))
    save(folder / "Model_Exp.mat", expression_3ddfa(toy))
    return folder


def write_3ddfa_merged(folder: Path, toy: DenseToy, save: Save = save_v5) -> Path:
    save(folder / "3ddfa.mat", shape_3ddfa(toy) | expression_3ddfa(toy))
    return folder / "3ddfa.mat"


def fields_bfm2009(toy: DenseToy) -> dict[str, Any]:
    """Fields of the BFM 2009's 01_MorphableModel.mat, textures too."""
    return {
        "shapeMU": column(toy.mean),
        "shapePC": columns(toy.identity),
        "shapeEV": toy.identity_std[:, None],
        "texMU": column(toy.mean),
        "tl": toy.triangles + 1.0,
    }


def write_bfm2009_folder(folder: Path, toy: DenseToy, save: Save = save_v5) -> Path:
    """The BFM 2009 with 20 vertices more than the expression basis, a Model_Exp.mat, and the table of those it has."""
    number = np.sort(np.random.default_rng(9).permutation(toy.vertices + 20)[: toy.vertices])
    save(
        folder / "01_MorphableModel.mat",
        fields_bfm2009(moved(replace(toy, mean=toy.mean - 100.0), number, len(number) + 20)),
    )
    save(folder / "Model_Exp.mat", expression_3ddfa(toy))
    save(folder / "model_info.mat", {"trimIndex": number[:, None] + 1.0, "keypoints": toy.keypoints[None] + 1.0})
    return folder


def write_expression_bin(folder: Path, toy: DenseToy, std: bool = True) -> Path:
    """Exp_Pca.bin with std_exp.txt; mean offset 100."""
    modes = toy.expression.shape[-1]
    offset = np.full(3 * toy.vertices, 100.0, dtype="<f4")
    basis = np.moveaxis(toy.expression, -1, 0).astype("<f4")
    (folder / "Exp_Pca.bin").write_bytes(np.int32(modes).tobytes() + offset.tobytes() + basis.tobytes())
    if std:
        (folder / "std_exp.txt").write_text(" ".join(f"{value:.9g}" for value in toy.expression_std))
    return folder / "Exp_Pca.bin"


def write_face3d(folder: Path, toy: DenseToy, save: Save = save_v5) -> Path:
    model = {
        "shapeMU": column(toy.mean - 100.0),
        "shapePC": columns(toy.identity),
        "shapeEV": toy.identity_std[:, None],
        "expMU": column(np.full_like(toy.mean, 100.0)),
        "expPC": columns(toy.expression),
        "expEV": toy.expression_std[:, None],
        "tri": toy.triangles.T.astype(np.int32) + 1,
        "kpt_ind": toy.keypoints[None].astype(np.int32) + 1,
    }
    save(folder / "BFM.mat", {"model": model})
    return folder / "BFM.mat"


def write_deep3d(folder: Path, toy: DenseToy, save: Save = save_v5) -> Path:
    """Decimetres; the bases carry their standard deviations."""
    fields = {
        "meanshape": column(toy.mean / 1e5).T,
        "idBase": columns(toy.identity * toy.identity_std / 1e5),
        "exBase": columns(toy.expression * toy.expression_std / 1e5),
        "tri": toy.triangles + 1.0,
        "keypoints": toy.keypoints[None] + 1.0,
    }
    save(folder / "BFM_model_front.mat", fields)
    return folder / "BFM_model_front.mat"


def write_bfm2017(folder: Path, toy: DenseToy, landmarks: Any = None, anl: bool = True) -> Path:
    """Millimetres; variances; cells (3, F) 0-based; landmarks in the metadata as JSON in an array of bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model2017-1_bfm_nomouth.h5"
    parts = {
        "shape": (toy.mean - 100.0, toy.identity, toy.identity_std),
        "expression": (np.full_like(toy.mean, 100.0), toy.expression, toy.expression_std),
    }
    with h5py.File(path, "w") as file:
        for name, (mean, basis, std) in parts.items():
            file[f"{name}/model/mean"] = column(mean / 1e3).ravel()
            file[f"{name}/model/pcaBasis"] = columns(basis / 1e3)
            file[f"{name}/model/pcaVariance"] = (std**2).astype(np.float32)
        file["shape/representer/cells"] = toy.triangles.T.astype(np.uint32)
        named = [{"id": "center.nose.tip", "coordinates": [0, 0, 0]}] if landmarks is None else landmarks
        file["metadata/landmarks/json"] = np.frombuffer(json.dumps(named).encode(), np.int8)
    if anl:
        path.with_name("Landmarks68.anl").write_text("\n".join(map(str, toy.keypoints)))
    return path


def numbered_landmarks(toy: DenseToy) -> list[dict[str, Any]]:
    """68 entries of the metadata of a BFM 2017, millimetres."""
    points = (toy.mean[toy.keypoints] - 100.0) / 1e3
    return [{"id": str(number), "coordinates": place.tolist()} for number, place in enumerate(points)]


def write_obj(path: Path, vertices: NDArray[np.float64], triangles: NDArray[np.int64] | None = None) -> None:
    lines = [f"v {x:.12f} {y:.12f} {z:.12f}" for x, y, z in vertices]
    faces = [] if triangles is None else [f"f {a + 1}/1 {b + 1}/1 {c + 1}/1" for a, b, c in triangles]
    path.write_text("\n".join(["mtllib a.mtl", *lines, "vt 0.5 0.5", *faces]) + "\n")


ICT_EXPRESSION_STD = 0.17


def write_ict_folder(folder: Path, toy: DenseToy) -> Path:
    """Centimetres; a mode is a mesh minus the neutral one; PupilDilate_L.obj is not among the listed expressions."""
    folder.mkdir(parents=True, exist_ok=True)
    mean = toy.mean / 1e4
    write_obj(folder / "generic_neutral_mesh.obj", mean, toy.triangles)
    for k, std in enumerate(toy.identity_std):
        write_obj(folder / f"identity{k:03d}.obj", mean + toy.identity[..., k] * std / 1e4)
    names = [f"shape{k:02d}_L" for k in range(len(toy.expression_std))]
    for k, name in enumerate(names):
        scale = toy.expression_std[k] / ICT_EXPRESSION_STD / 1e4
        write_obj(folder / f"{name}.obj", mean + toy.expression[..., k] * scale)
    write_obj(folder / "PupilDilate_L.obj", mean + 1)
    indices = {"expressions": names, "idx_to_landmark_verts": toy.keypoints.tolist()}
    (folder / "vertex_indices.json").write_text(json.dumps(indices))
    return folder


def write_ict_npz(folder: Path, toy: DenseToy) -> Path:
    path = folder / "ict_face.npz"
    expression = toy.expression * toy.expression_std / ICT_EXPRESSION_STD / 1e4
    np.savez_compressed(
        path,
        mean=(toy.mean / 1e4).astype(np.float32),
        identity=np.moveaxis(toy.identity * toy.identity_std / 1e4, -1, 0).astype(np.float32),
        expression=np.moveaxis(expression, -1, 0).astype(np.float32),
        landmarks68=toy.keypoints.astype(np.int32),
    )
    return path
