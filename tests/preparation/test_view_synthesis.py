"""Face profiling: what the camera sees of a turned face, and that landmarks and parameters turn with it."""

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dhm_cli.errors import InputError
from dhm_cli.geometry.landmarks import MIRROR
from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.morphable.parameters import Parameters, pack
from dhm_cli.preparation.scene import Scene, photograph
from dhm_cli.preparation.view_synthesis import Profiler, View, name_generator, target_yaws, upright_yaw

SIZE = 160
# Landmarks at least 8 pixels apart in the tests' photos.
SPARSE = [2, 5, 8, 11, 14, 17, 21, 22, 26, 30, 36, 45, 48, 54]
FACING = [8, 11, 14, 21, 22, 26, 45, 54]  # those that no outline cuts when the nose points left
NEAR = [9, 10, 11, 12, 13, 14, 15, 16, 22, 23, 24, 25, 26, 42, 43, 44, 45, 54]  # seen when the nose points left


def parameters(pitch: float = 5.0, yaw: float = 15.0, roll: float = 12.0, x: float = 80.0) -> NDArray[np.float32]:
    """p of one mean face in a photo 150 pixels high, degrees, (1, 234)."""
    angles = torch.deg2rad(torch.tensor([[pitch, yaw, roll]]))
    empty = torch.zeros(1, 0)
    return pack(Parameters(torch.tensor([5e-4]), angles, torch.tensor([[x, 76.0]]), empty, empty)).numpy()


def dotted_photo(model: FaceModel, p: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A dark photo, 160 wide and 150 high, with white dots at the sparse landmarks."""
    image = np.full((150, 160, 3), 40, np.uint8)
    for x, y, _ in model.landmarks(torch.from_numpy(p), 150)[0].numpy()[SPARSE]:
        cv2.circle(image, (round(x * 16), round(y * 16)), 24, (255, 255, 255), -1, cv2.LINE_AA, shift=4)
    return image


def dots(view: View, landmarks: list[int], reach: int = 5) -> dict[int, NDArray[np.floating]]:
    """Offset of each dot from the visible landmark that it marks, pixels."""
    grey = view.image[..., 0].astype(float) - 40
    found = {}
    for index in landmarks:
        x, y = view.landmarks[index, :2]
        if view.visibility[index]:
            left, top = round(float(x)) - reach, round(float(y)) - reach
            part = np.clip(grey[top : top + 2 * reach + 1, left : left + 2 * reach + 1] - 30, 0, None)
            assert part.sum() > 0, f"no dot near landmark {index}"
            centre = [(part.sum(axis=axis) * np.arange(2 * reach + 1)).sum() / part.sum() for axis in (0, 1)]
            found[index] = np.array([left + centre[0] - x, top + centre[1] - y])
    return found


@pytest.mark.parametrize("same_model", [True, False], ids=["the model's own mesh", "another model's mesh"])
@pytest.mark.parametrize("yaw", [30.0, 50.0, 70.0])
def test_pixels_move_with_the_landmarks(
    dense_model: FaceModel, toy_model: FaceModel, same_model: bool, yaw: float
) -> None:
    model = dense_model if same_model else FaceModel(*vars_without_last_mode(toy_model))
    p = parameters()
    view = Profiler(dense_model, model, SIZE).turn([dotted_photo(model, p)], p, [np.array([yaw])])[0][0]
    offsets = dots(view, SPARSE if yaw < 40 else FACING)
    assert len(offsets) >= 7
    distances = np.linalg.norm(list(offsets.values()), axis=1)
    assert distances.max() < 1.5
    assert np.median(distances) < 0.6


def vars_without_last_mode(model: FaceModel) -> tuple[torch.Tensor, ...]:
    """The parts of a model that is another one by its hash."""
    return (model.mean, model.identity[..., :-1], model.expression, model.identity_std[:-1], model.expression_std)


def test_parameters_reproduce_the_landmarks_and_the_yaw(dense_model: FaceModel) -> None:
    p = np.concatenate([parameters(), parameters(pitch=-18, yaw=-33, roll=-40)])
    p[:, 6:10] = [[2e4, -4e4, 1e4, 3e4], [-5e4, 1e4, 0, 2e4]]
    yaws = [np.array([25.0, 60.0, 90.0]), np.array([-45.0, -80.0])]
    views = Profiler(dense_model, dense_model, SIZE).turn([np.zeros((150, 160, 3), np.uint8)] * 2, p, yaws)
    assert [len(v) for v in views] == [3, 2]
    for face, wanted, of_face in zip(p, yaws, views, strict=True):
        for yaw, view in zip(wanted, of_face, strict=True):
            again = dense_model.landmarks(torch.from_numpy(view.parameters[None]), SIZE)[0].numpy()
            assert np.abs(again[:, :2] - view.landmarks[:, :2]).max() < 1e-2
            assert np.abs(again[:, 2] - again[:, 2].mean() - view.landmarks[:, 2]).max() < 1e-2
            assert abs(view.landmarks[:, 2].mean()) < 1e-3
            assert view.yaw == pytest.approx(yaw, abs=1e-3)
            assert np.rad2deg(view.parameters[2]) == pytest.approx(yaw, abs=0.05)
            assert np.array_equal(view.parameters[6:], face[6:])  # the same person with the same expression
            assert np.abs(view.landmarks[:, :2] - (SIZE - 1) / 2).max() < SIZE / 2 / 1.9 + 0.01  # centred, with room


def test_the_turn_is_a_rotation_of_the_landmarks(dense_model: FaceModel) -> None:
    p = parameters()
    before = dense_model.landmarks(torch.from_numpy(p), 150)[0].double().numpy()
    view = Profiler(dense_model, dense_model, SIZE).turn([np.zeros((150, 160, 3), np.uint8)], p, [np.array([70.0])])[0][
        0
    ]
    a, b = before - before.mean(axis=0), view.landmarks - view.landmarks.mean(axis=0)
    linear = np.linalg.lstsq(a, b, rcond=None)[0]
    scale = np.cbrt(np.linalg.det(linear))
    assert np.abs(linear @ linear.T / scale**2 - np.eye(3)).max() < 1e-4
    assert np.abs(a @ linear - b).max() < 1e-3


def test_visibility_follows_the_surface(dense_model: FaceModel) -> None:
    p = parameters(yaw=5, roll=0, pitch=0)
    photo = np.full((150, 160, 3), 90, np.uint8)
    near_front, profile = Profiler(dense_model, dense_model, SIZE).turn([photo], p, [np.array([12.0, 80.0])])[0]
    assert near_front.visibility.mean() > 0.9
    assert profile.visibility[NEAR].all()
    assert not profile.visibility[MIRROR[[11, 12, 13, 14, 15, 16, 24, 25, 26, 44, 45]]].any()
    assert profile.visibility[[8, 30, 33]].all()  # the outline of the profile
    assert profile.visibility.dtype == np.uint8


@pytest.mark.parametrize("yaw", [40.0, 65.0, 90.0])
def test_a_bright_photo_gives_no_dark_holes(dense_model: FaceModel, yaw: float) -> None:
    stripes = np.full((150, 160, 3), 120, np.uint8)
    stripes[:, ::2] = 250
    views = Profiler(dense_model, dense_model, SIZE).turn([stripes], parameters(), [np.array([yaw])])
    assert views[0][0].image.min() >= 110


def test_a_mirrored_photo_gives_mirrored_views(dense_model: FaceModel) -> None:
    rng = np.random.default_rng(1)
    photo = cv2.resize(rng.integers(0, 255, (15, 16, 3), dtype=np.uint8), (160, 150), interpolation=cv2.INTER_CUBIC)
    p = parameters()
    # x -> 159 - x in pixels is x -> 161 - x in the 1-based space of p; yaw and roll change their signs.
    mirrored = p.copy()
    mirrored[:, [2, 3]] *= -1
    mirrored[:, 4] = 161 - mirrored[:, 4]
    profiler = Profiler(dense_model, dense_model, SIZE)
    view = profiler.turn([photo], p, [np.array([60.0])])[0][0]
    other = profiler.turn([photo[:, ::-1].copy()], mirrored, [np.array([-60.0])])[0][0]
    expected = other.landmarks[MIRROR] * [-1, 1, 1] + [SIZE - 1, 0, 0]
    assert np.abs(view.landmarks - expected).max() < 1e-2
    assert np.array_equal(view.visibility, other.visibility[MIRROR])
    difference = np.abs(view.image.astype(int) - other.image[:, ::-1])
    assert difference.mean() < 1.0
    assert np.percentile(difference, 99) < 12


def test_the_same_input_gives_the_same_views(dense_model: FaceModel) -> None:
    p = parameters()
    photo = dotted_photo(dense_model, p)
    copies = photo.copy(), p.copy()
    profiler = Profiler(dense_model, dense_model, SIZE)
    first, second = (profiler.turn([photo], p, [np.array([35.0, 75.0])])[0] for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a.image, b.image)
        assert np.array_equal(a.parameters, b.parameters)
    assert np.array_equal(photo, copies[0])
    assert np.array_equal(p, copies[1])
    together = profiler.turn([photo[::-1].copy(), photo], np.concatenate([parameters(yaw=-20), p]), [[-50.0], [35.0]])
    assert np.array_equal(together[1][0].landmarks, first[0].landmarks)


def test_an_untouched_scene_stays_as_it_is() -> None:
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
    scene = Scene(colours, np.zeros((64, 64), np.float32), np.zeros_like(colours), 32, 20.0)
    picture, _ = photograph(scene, 0.0, np.array([[1.0, 0, 0], [0, 1.0, 0]]))
    assert np.abs(picture.astype(int) - cv2.resize(colours, (32, 32), interpolation=cv2.INTER_AREA)).max() <= 1


def test_a_near_wall_hides_what_is_behind_it() -> None:
    """A step of 10 pixels in depth at the middle: turned by 45 degrees, it covers 10 / sqrt(2) pixels."""
    colours = np.zeros((64, 64, 3), np.uint8)
    colours[:, :32] = np.arange(32)[:, None] * 4  # the low left half is a ramp, the high right half white
    colours[:, 32:] = 255
    depth = np.where(np.arange(64) < 32, 0, 10).astype(np.float32)[None].repeat(64, axis=0)
    depth[:, 56:] = -np.inf
    scene = Scene(colours, depth, np.full_like(colours, 7), 32, 20.0)
    centred = np.array([[1.0, 0, 0], [0, 1.0, 0]])
    picture, surface = photograph(scene, np.pi / 4, centred)
    row = picture[16, :, 0].astype(int)
    edge = int(np.argmax(row > 150))
    # The wall's edge moves to -10 sin 45 = -7.1 from the middle; the ramp there is of -7.1 / cos 45 = -10 pixels.
    assert abs(edge - (15.5 - 7.1)) <= 1
    seen = (edge - 2 - 15.5) / np.cos(np.pi / 4)
    assert abs(row[edge - 2] - (31.5 + 2 * seen) * 4) <= 4
    assert (np.diff(row[5 : edge - 1]) > 0).all()
    # The wall's far edge, at 12 from the middle, moves to (12 - 10) / sqrt(2) = 1.4; beyond it lies the background.
    assert (row[edge + 2 : 16] == 255).all()
    assert (row[19:] == 7).all()
    assert np.isneginf(surface.depth[16, 38:]).all()


def test_target_yaws_turn_away_from_frontal() -> None:
    rng = np.random.default_rng(0)
    right = target_yaws(30.0, 500, rng)
    assert right.min() >= 40.0
    assert right.max() <= 90.0
    assert right.mean() == pytest.approx(65, abs=2)
    assert (target_yaws(-30.0, 50, rng) < -40).all()
    either = target_yaws(-3.0, 500, rng)
    assert 0.4 < (either > 0).mean() < 0.6
    assert np.abs(either).max() <= 87.0  # the turn to the other side is not larger than 90
    assert np.abs(target_yaws(10.0, 100, rng, least=50.0)).min() >= 50.0
    assert target_yaws(81.0, 3, rng).shape == (0,)
    assert target_yaws(-140.0, 3, rng).shape == (0,)


def test_names_give_generators_of_their_own() -> None:
    first = [name_generator(name).random() for name in ("a.jpg", "b.jpg", "grün.jpg")]
    assert first == [name_generator(name).random() for name in ("a.jpg", "b.jpg", "grün.jpg")]
    assert len({*first, name_generator("a.jpg", seed=1).random()}) == 4


def test_a_model_without_mesh_is_refused(toy_model: FaceModel) -> None:
    with pytest.raises(InputError, match=r"toy: .*dense surface.*68 key vertices"):
        Profiler(toy_model, toy_model)


def test_wrong_calls_are_refused(dense_model: FaceModel) -> None:
    profiler = Profiler(dense_model, dense_model)
    photo, p = np.zeros((150, 160, 3), np.uint8), parameters()
    assert profiler.turn([], np.zeros((0, 234)), []) == []
    assert profiler.turn([photo], p, [np.zeros(0)]) == [[]]
    with pytest.raises(ValueError, match="1 images"):
        profiler.turn([photo], np.zeros((2, 234)), [np.zeros(1)])
    for yaw in (95.0, np.nan):
        with pytest.raises(ValueError, match="from -90 to 90"):
            profiler.turn([photo], p, [np.array([yaw])])


def test_turns_end_at_90_degrees(dense_model: FaceModel) -> None:
    photo = np.zeros((150, 160, 3), np.uint8)
    p = parameters(yaw=-40, pitch=0, roll=0)
    view = Profiler(dense_model, dense_model).turn([photo], p, [np.array([60.0])])[0][0]
    assert view.yaw == pytest.approx(50.0, abs=1e-3)
    again = dense_model.landmarks(torch.from_numpy(view.parameters[None]), SIZE)[0].numpy()
    assert np.abs(again[:, :2] - view.landmarks[:, :2]).max() < 1e-2


def test_upright_yaw_is_the_yaw_of_the_view(dense_model: FaceModel) -> None:
    """No turn is needed for the yaw that the head has once it is upright."""
    assert upright_yaw(parameters(pitch=0, yaw=33, roll=0)) == pytest.approx([33.0])
    p = parameters(pitch=25, yaw=20, roll=40)
    yaw = upright_yaw(p)
    assert abs(yaw[0] - 20) > 5
    view = Profiler(dense_model, dense_model).turn([dotted_photo(dense_model, p)], p, [yaw])[0][0]
    before = dense_model.landmarks(torch.from_numpy(p), 150)[0].numpy()
    scale = view.parameters[0] / p[0, 0]
    assert np.abs(scale * (before[:, 2] - before[:, 2].mean()) - view.landmarks[:, 2]).max() < 1e-2
