"""Writers of small made-up examples of every dataset layout, with the numbers that must come back."""

import struct
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
import scipy.io
from numpy.typing import NDArray

from dhm_cli.datasets.discovery import find_layout
from dhm_cli.datasets.samples import Encoded, Sample, load_images
from dhm_cli.errors import InputError

HEIGHT, WIDTH = 90, 120
SIZE = (HEIGHT, WIDTH)
MATLAB_CLASSES = {"f4": b"single", "f8": b"double", "u1": b"uint8"}


def write_image(path: Path, seed: int = 0) -> Path:
    """A smooth colour image of HEIGHT x WIDTH pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
    return path


def make_points(seed: int = 0, dimensions: int = 2) -> NDArray[np.float64]:
    """68 points inside such an image, (68, dimensions), 1-based as on disk, exact in float32."""
    rng = np.random.default_rng(seed)
    points = rng.integers(8, 8 * HEIGHT, (68, dimensions)) / 8
    return np.asarray(points)


def write_pts(path: Path, points: NDArray[np.floating]) -> Path:
    """A .pts file with the numbers as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "\n".join(f"{x:.3f} {y:.3f}" for x, y in points)
    path.write_text(f"version: 1\nn_points: {len(points)}\n{{\n{lines}\n}}\n")
    return path


def t7_bytes(values: NDArray[Any], transposed: bool = False) -> bytes:
    """A binary Torch7 file with one tensor; transposed in memory as Torch's `t()` leaves it."""
    kind = {"float32": b"Float", "float64": b"Double", "int64": b"Long"}[values.dtype.name]
    stride = [step // values.itemsize for step in np.ascontiguousarray(values).strides]
    data = np.ascontiguousarray(values)
    if transposed:
        data, stride = np.ascontiguousarray(values.T), [1, len(values)]

    def head(index: int, name: bytes) -> bytes:
        return struct.pack("<ii", 4, index) + b"".join(struct.pack("<i", len(s)) + s for s in (b"V 1", name))

    sizes = struct.pack(f"<i{values.ndim}q{values.ndim}qq", values.ndim, *values.shape, *stride, 1)
    storage = head(2, b"torch." + kind + b"Storage") + struct.pack("<q", values.size) + data.tobytes()
    return head(1, b"torch." + kind + b"Tensor") + sizes + storage


def write_t7(path: Path, points: NDArray[Any]) -> Path:
    """An LS3D-W annotation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(t7_bytes(points))
    return path


def make_fields(seed: int = 0) -> dict[str, NDArray[Any]]:
    """The parameter fields of a .mat file, with data types as varied as the real ones'."""
    rng = np.random.default_rng(seed)
    pose = np.array([[0.1, -0.4, 0.05, 60.0, 45.0, -80.0, 1e-3]], np.float32) * (1 + 0.01 * rng.normal(size=7))
    return {
        "Pose_Para": pose.astype(np.float32),
        "Shape_Para": rng.normal(0, 1e5, (199, 1)),
        "Exp_Para": rng.integers(0, 3, (29, 1), dtype=np.uint8),
        "Tex_Para": np.zeros((199, 1)),
        "roi": np.array([[1, 2, 3, 4]], np.int16),
    }


def expected_parameters(fields: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    """p as its layout says, number by number: f, pitch, yaw, roll, t_x, t_y, identity, expression."""
    pitch, yaw, roll, t_x, t_y, _, f = fields["Pose_Para"].ravel().tolist()
    numbers = [f, pitch, yaw, roll, t_x, t_y, *fields["Shape_Para"].ravel(), *fields["Exp_Para"].ravel()]
    return np.array(numbers, np.float32)


def write_mat(path: Path, fields: dict[str, NDArray[Any]]) -> Path:
    """A MATLAB file of version 5."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, fields)
    return path


def write_mat73(path: Path, fields: dict[str, NDArray[Any]]) -> Path:
    """A MATLAB file of version 7.3: HDF5 behind 512 bytes of its own, axes reversed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in fields.items():
            file[name] = values.T
            file[name].attrs["MATLAB_class"] = np.bytes_(MATLAB_CLASSES.get(values.dtype.str[1:], b"double"))
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
    return path


def write_face_300w_lp(image: Path, seed: int = 0) -> dict[str, NDArray[Any]]:
    """An image of 300W-LP and its .mat file; returns the fields."""
    write_image(image, seed)
    fields = make_fields(seed) | {"pt2d": make_points(seed).T}
    write_mat(image.with_suffix(".mat"), fields)
    return fields


def write_300w_lp(root: Path) -> list[str]:
    """Two source faces in two rotations each, one in AFW and one in HELEN, and their flips; returns the names."""
    names = []
    for number, (part, face) in enumerate((("AFW", "AFW_134212_1"), ("HELEN", "HELEN_10_2"))):
        for rotation in range(2):
            for folder in (part, f"{part}_Flip"):
                names.append(f"{folder}/{face}_{rotation}.jpg")
                write_face_300w_lp(root / names[-1], seed=10 * number + rotation)
    # What else the download holds.
    write_image(root / "Code" / "figure.jpg")
    write_mat(root / "landmarks" / "AFW" / "AFW_134212_1_0_pts.mat", {"pts_2d": np.zeros((68, 2))})
    return sorted(names)


def write_aflw2000(root: Path, numbers: tuple[int, ...] = (2, 4, 51)) -> list[dict[str, NDArray[Any]]]:
    """Some faces of AFLW2000-3D; returns the fields of each."""
    faces = []
    for number in numbers:
        image = write_image(root / f"image{number:05d}.jpg", number)
        points = make_points(number, 3).astype(np.float32)
        faces.append(make_fields(number) | {"pt2d": np.full((2, 21), -1.0), "pt3d_68": points.T})
        write_mat(image.with_suffix(".mat"), faces[-1])
    write_image(root / "Code" / "figure.jpg")
    write_mat(root / "Code" / "Model_Shape.mat", {"w": np.zeros((6, 2))})
    return faces


def write_video(path: Path, frames: int = 12) -> NDArray[np.uint8]:
    """A Motion JPEG video, red 200, green 100, blue 20 times the frame's index and some noise; returns the blue."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (WIDTH, HEIGHT))
    assert writer.isOpened()
    noise = np.random.default_rng(0).integers(0, 9, (HEIGHT, WIDTH, 1), dtype=np.uint8)
    levels = np.arange(frames, dtype=np.uint8) * 20
    for level in levels:
        writer.write(noise + np.array([level, 96, 196], np.uint8))
    writer.release()
    return levels + np.uint8(4)


def write_ls3d_w(root: Path) -> list[str]:
    """All parts of LS3D-W; returns the names of its faces."""
    names = ["300W-Testset-3D/indoor_001.png", "AFLW2000-3D-Reannotated/image00002.jpg", "Menpo-3D/a 1.jpg"]
    names += [f"300VW-3D/{part}/{name}" for part in ("CatA/114", "Trainset/001") for name in ("0001.jpg", "0002.jpg")]
    for seed, name in enumerate(names):
        write_image(root / name, seed)
        write_t7((root / name).with_suffix(".t7"), make_points(seed).astype(np.float32))
    write_image(root / "overview.png")
    return sorted(names)


def write_300vw(root: Path, videos: tuple[str, ...] = ("001", "002")) -> NDArray[np.uint8]:
    """Videos of 300VW with annotations of frames 1, 3 and 12; returns the blue of every frame."""
    for video in videos:
        levels = write_video(root / video / "vid.avi")
        for number in (1, 3, 12):
            write_pts(root / video / "annot" / f"{number:06d}.pts", make_points(number))
    return levels


def write_merl_rav(root: Path) -> None:
    """The folders of MERL-RAV, a face in each."""
    for seed, pose in enumerate(("frontal", "left", "lefthalf", "right", "righthalf")):
        for split in ("trainset", "testset"):
            image = write_image(root / pose / split / f"image{seed:05d}.jpg", seed)
            points = make_points(seed)
            points[0] = -1
            points[1] *= -1
            write_pts(image.with_suffix(".pts"), points)


def load_image(sample: Sample) -> Encoded:
    """The image of one face alone."""
    (loaded,) = load_images([sample])
    if isinstance(loaded, InputError):
        raise loaded
    return loaded


def by_name(folder: Path, format: str = "auto") -> dict[str, Sample]:
    return {sample.name: sample for sample in find_layout(folder, format).samples(folder)}


def message_of(error: pytest.ExceptionInfo[InputError]) -> str:
    return f"{error.value.message}\n{error.value.hint}"
