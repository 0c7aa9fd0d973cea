"""The diffusion heat map: peak, width, values, gradient, speed, and equality with a drawing over the whole image."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from dhm_cli.models.heatmaps import REACH, SIGMA, draw_heatmap, normalise_coordinates
from dhm_cli.morphable.toy import toy_face_model

SIZE = 48


def corner_landmarks(*xyz: tuple[float, float, float]) -> Tensor:
    """Landmarks of which the first has value 0 and the last value 1 on each axis; (1, N, 3) float64."""
    return torch.tensor([xyz], dtype=torch.float64)


def brute_force(landmarks: NDArray[np.float64], size: int, sigma: float) -> NDArray[np.float64]:
    """Eq. (3) with minimum subtraction, one whole-image Gaussian per landmark, in plain numpy."""
    drawn = np.zeros((len(landmarks), 3, size, size))
    y, x = np.mgrid[:size, :size]
    for b, face in enumerate(landmarks):
        for j in range(3):
            value = (face[:, j] - face[:, j].min()) / (face[:, j].max() - face[:, j].min())
            for k, (px, py) in enumerate(face[:, :2]):
                gauss = np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * sigma**2))
                drawn[b, j] = np.maximum(drawn[b, j], value[k] * gauss)
    return drawn


def dense_drawing(landmarks: Tensor, size: int) -> Tensor:
    """The same in torch at sigma 1, for autograd to differentiate; (B, N, 3) -> (B, 3, size, size)."""
    grid = torch.arange(size, dtype=landmarks.dtype)
    x, y = landmarks[..., 0, None, None], landmarks[..., 1, None, None]
    gauss = torch.exp(-0.5 * ((grid - x) ** 2 + (grid[:, None] - y) ** 2))
    low, high = landmarks.min(1, keepdim=True).values, landmarks.max(1, keepdim=True).values
    heights = ((landmarks - low) / (high - low)).transpose(1, 2)
    return (heights[..., None, None] * gauss[:, None]).max(2).values


def make_faces(size: int = SIZE) -> NDArray[np.float64]:
    """Two toy faces in crop pixels, one of which is partly outside the image."""
    mean = toy_face_model().mean.numpy().astype(np.float64) * [1, -1, 1] / 2e5
    rng = np.random.default_rng(0)
    inside = mean * size + [size / 2, size / 2 - 3, 0] + rng.normal(0, 0.3, mean.shape)
    return np.stack([inside, inside + np.array([size * 0.4, -size * 0.3, 5.0])])


def test_the_paper_prints_a_sigma_of_one() -> None:
    assert SIGMA == 1.0


@pytest.mark.parametrize("sigma", [0.8, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("centre", [(30.0, 29.0), (30.3, 29.6), (29.5, 30.51)])
def test_standard_deviation_of_the_drawn_gaussian(sigma: float, centre: tuple[float, float]) -> None:
    """A landmark of value 1, alone in its part of the map, measured by its second moments."""
    x, y = centre
    landmarks = corner_landmarks((3.0, 4.0, 0.0), (x, y, 9.0))
    heat = draw_heatmap(landmarks, SIZE, sigma)[0].numpy()
    rows, columns = np.mgrid[:SIZE, :SIZE]
    for channel in heat:  # the landmark at (3, 4) has value 0 on each axis
        share = channel / channel.sum()
        assert ((share * columns).sum(), (share * rows).sum()) == pytest.approx(centre, abs=1e-3)
        measured = np.sqrt((share * (columns - x) ** 2).sum()), np.sqrt((share * (rows - y) ** 2).sum())
        assert measured == pytest.approx((sigma, sigma), rel=1e-3)
        # A continuous Gaussian of height 1 has volume 2 pi sigma^2.
        assert channel.sum() == pytest.approx(2 * np.pi * sigma**2, rel=1e-3)


def test_peak_at_the_sub_pixel_position_with_the_normalised_value() -> None:
    # On x the middle landmark has value (14.25 - 4) / (44 - 4), on y (20.5 - 4) / 40, on z (2 - 1) / (5 - 1).
    landmarks = corner_landmarks((4.0, 4.0, 1.0), (14.25, 20.5, 2.0), (44.0, 44.0, 5.0))
    heat = draw_heatmap(landmarks, SIZE)[0]
    fall = np.exp(-0.5 * (0.25**2 + 0.5**2))
    for row in (20, 21):  # half way between two rows
        expected = [fall * 10.25 / 40, fall * 16.5 / 40, fall / 4]
        np.testing.assert_allclose(heat[:, row, 14].numpy(), expected, rtol=1e-12)
    # x is the column, y the row: nothing at the swapped position
    assert heat[:, 14, 20].max() == 0
    assert heat[:, 44, 44].tolist() == [1.0, 1.0, 1.0]
    assert heat[:, 4, 4].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("sigma", [0.7, 1.0, 2.0])
def test_equals_the_drawing_over_the_whole_image(sigma: float) -> None:
    faces = make_faces()
    heat = draw_heatmap(torch.from_numpy(faces), SIZE, sigma).numpy()
    cut = np.exp(-0.5 * REACH**2)
    assert cut < 0.0004
    np.testing.assert_allclose(heat, brute_force(faces, SIZE, sigma), atol=cut)


def test_overlapping_landmarks_keep_the_maximum() -> None:
    landmarks = corner_landmarks((0.0, 0.0, 0.0), (20.0, 20.0, 4.0), (21.0, 20.0, 10.0), (40.0, 40.0, 1.0))
    depth = draw_heatmap(landmarks, SIZE)[0, 2]
    assert depth[20, 21] == 1.0
    assert depth[20, 20].item() == pytest.approx(np.exp(-0.5))  # 1 * exp(-1/2) beats 0.4 * 1
    assert depth[20, 19].item() == pytest.approx(0.4 * np.exp(-0.5))  # 0.4 exp(-1/2) beats exp(-2)


def test_given_values_replace_the_coordinates() -> None:
    faces = torch.from_numpy(make_faces())
    plain = draw_heatmap(faces, SIZE, values=torch.ones(()))
    y, x = np.mgrid[:SIZE, :SIZE]
    for face, drawn in zip(faces.numpy(), plain.numpy(), strict=True):
        distance = ((x - face[:, 0, None, None]) ** 2 + (y - face[:, 1, None, None]) ** 2).min(0)
        for channel in drawn:
            np.testing.assert_allclose(channel, np.exp(-0.5 * distance), atol=np.exp(-0.5 * REACH**2))
    torch.testing.assert_close(
        draw_heatmap(faces, SIZE, values=normalise_coordinates(faces)), draw_heatmap(faces, SIZE), rtol=0, atol=0
    )
    heights = torch.tensor([[[0.0, 0.0, 0.0], [0.2, 0.5, 3.0]]], dtype=torch.float64)
    heat = draw_heatmap(corner_landmarks((4.0, 4.0, 1.0), (20.0, 30.0, 2.0)), SIZE, values=heights)
    assert heat[0, :, 30, 20].tolist() == [0.2, 0.5, 3.0]


def test_channels_are_normalised_over_the_landmarks_of_each_face() -> None:
    points = torch.from_numpy(make_faces()) * torch.tensor([1.0, 1.0, 100.0]) - 7.0
    values = normalise_coordinates(points)
    np.testing.assert_allclose(values.amin(1).numpy(), 0.0, atol=1e-15)
    np.testing.assert_allclose(values.amax(1).numpy(), 1.0, atol=1e-15)
    np.testing.assert_allclose(values[0].numpy(), values[1].numpy(), atol=1e-12)  # a shift changes nothing


def test_an_axis_without_extent_is_zero() -> None:
    landmarks = corner_landmarks((4.0, 4.0, 7.0), (30.0, 30.0, 7.0))
    heat = draw_heatmap(landmarks, SIZE)
    assert heat.isfinite().all()
    assert heat[0, 2].eq(0).all()
    assert heat[0, 0].max() == 1


@pytest.mark.parametrize("outside", [(-500.0, 20.0), (1e6, 1e6), (20.0, SIZE + 30.0)])
def test_a_landmark_far_outside_changes_no_pixel(outside: tuple[float, float]) -> None:
    corners = [(-600.0, -600.0, 0.0), (2e6, 2e6, 9.0)]  # both outside as well; they fix the normalisation
    inner = (20.0, 20.0, 3.0)
    without = draw_heatmap(corner_landmarks(corners[0], inner, corners[1]), SIZE)
    with_it = draw_heatmap(corner_landmarks(corners[0], inner, (*outside, 5.0), corners[1]), SIZE)
    assert torch.equal(without, with_it)
    assert without[0, 2, 20, 20].item() == pytest.approx(3 / 9)
    assert without[0, 2].gt(0).sum() == 81  # one patch, 9 by 9


def test_a_landmark_just_outside_reaches_in() -> None:
    landmarks = corner_landmarks((-1.0, 20.0, 3.0), (10.0, 10.0, 0.0), (30.0, 30.0, 3.0))
    depth = draw_heatmap(landmarks, SIZE)[0, 2]
    assert depth[20, 0].item() == pytest.approx(np.exp(-0.5))
    assert depth[19, SIZE - 1] == 0  # and does not wrap round into the row before


def separate_landmarks() -> Tensor:
    """Away from ties: no two landmarks close enough to compete equally, no position near a half pixel."""
    return corner_landmarks(
        (2.2, 3.1, 1.0), (6.3, 4.2, 2.5), (9.1, 8.8, 7.0), (5.7, 11.2, 4.0), (12.3, 12.1, 9.0), (-0.8, 7.3, -1.0)
    )


@pytest.mark.parametrize(("sigma", "memory_format"), [(1.0, torch.contiguous_format), (1.6, torch.channels_last)])
def test_gradcheck_in_positions_and_values(sigma: float, memory_format: torch.memory_format) -> None:
    landmarks = separate_landmarks().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: draw_heatmap(s, 16, sigma, memory_format=memory_format), (landmarks,))
    heights = torch.linspace(0.3, 0.9, 18, dtype=torch.float64).view(1, 6, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda s, v: draw_heatmap(s, 16, sigma, v, memory_format), (landmarks, heights))


def test_gradient_of_one_pixel_by_hand() -> None:
    landmarks = separate_landmarks().requires_grad_()
    depth = draw_heatmap(landmarks, 16)[0, 2]
    # The depth channel knows x and y only as positions: a Gaussian drawn at whole pixels would have no gradient there.
    (gradient,) = torch.autograd.grad(depth[3, 3], landmarks)
    fall = np.exp(-0.5 * (0.8**2 + 0.1**2))
    value = (1.0 - -1.0) / (9.0 - -1.0)
    assert depth[3, 3].item() == pytest.approx(value * fall)
    # d/dx exp(-(3 - x)^2 / 2), and d/dz (z - low) / (high - low)
    assert gradient[0, 0].tolist() == pytest.approx([value * fall * 0.8, value * fall * -0.1, fall / 10])
    assert gradient[0, 1:, :2].abs().max() == 0
    # The lowest and the highest landmark move the scale: d/dlow = (value - 1) / range, d/dhigh = -value / range.
    assert gradient[0, 1:, 2].tolist() == pytest.approx([0, 0, 0, -value * fall / 10, (value - 1) * fall / 10])


@pytest.mark.parametrize("axis", [0, 1])
def test_gradient_of_a_sub_pixel_shift_of_whole_faces(axis: int) -> None:
    faces = torch.from_numpy(make_faces())
    weights = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    step = torch.zeros(3, dtype=torch.float64)
    step[axis] = 1e-6

    def score(s: Tensor) -> Tensor:
        return (draw_heatmap(s, SIZE) * weights).sum((1, 2, 3))

    numeric = (score(faces + step) - score(faces - step)) / 2e-6
    moved = faces.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(score(moved).sum(), moved)
    torch.testing.assert_close(gradient[..., axis].sum(1), numeric, rtol=1e-5, atol=1e-6)
    assert numeric.abs().min() > 0.1


def test_gradient_equals_that_of_the_drawing_over_the_whole_image() -> None:
    """Landmarks that overlap, compete and leave the image; autograd through one Gaussian per landmark and pixel."""
    faces = torch.from_numpy(make_faces())
    weights = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours, dense = (faces.clone().requires_grad_() for _ in range(2))
    (draw_heatmap(ours, SIZE) * weights).sum().backward()
    (dense_drawing(dense, SIZE) * weights).sum().backward()
    assert ours.grad is not None
    # The pixels left out pull with less than 5 exp(-4.5^2 / 2) each, from all sides.
    torch.testing.assert_close(ours.grad, dense.grad, rtol=0, atol=2e-3)
    assert ours.grad.abs().max() > 1


def test_only_the_landmark_on_top_is_pulled_and_equals_are_pulled_each() -> None:
    apart = corner_landmarks((20.0, 20.0, 4.0), (21.0, 20.0, 10.0), (21.0, 20.0, 10.0)).requires_grad_()
    heights = torch.tensor([0.4, 1.0, 1.0], dtype=torch.float64).view(1, 3, 1)
    heat = draw_heatmap(apart, SIZE, values=heights)
    (gradient,) = torch.autograd.grad(heat[0, 0, 20, 20], apart)
    assert gradient[0, 0].tolist() == [0, 0, 0]
    for k in (1, 2):
        assert gradient[0, k].tolist() == pytest.approx([-np.exp(-0.5), 0, 0])


def test_channels_last_is_the_same_map_in_another_order() -> None:
    faces = torch.from_numpy(make_faces()).float()
    plain, last = (faces.clone().requires_grad_() for _ in range(2))
    one, other = draw_heatmap(plain, SIZE), draw_heatmap(last, SIZE, memory_format=torch.channels_last)
    assert other.is_contiguous(memory_format=torch.channels_last)
    assert one.is_contiguous()
    assert torch.equal(one, other)
    weights = torch.rand(one.shape, generator=torch.Generator().manual_seed(0))
    one.backward(weights)
    other.backward(weights.contiguous(memory_format=torch.channels_last))
    assert plain.grad is not None
    assert last.grad is not None
    assert torch.equal(plain.grad, last.grad)


def test_autocast_rounds_neither_map_nor_gradient() -> None:
    plain, rounded = (torch.from_numpy(make_faces()).float().requires_grad_() for _ in range(2))
    one = draw_heatmap(plain, SIZE)
    one.square().sum().backward()
    with torch.autocast("cpu", torch.bfloat16):
        other = draw_heatmap(rounded, SIZE)
        other.square().sum().backward()
    assert other.dtype == torch.float32
    assert torch.equal(one, other)
    assert plain.grad is not None
    assert rounded.grad is not None
    assert torch.equal(plain.grad, rounded.grad)
    assert draw_heatmap(plain.detach().bfloat16(), SIZE).dtype == torch.float32


def test_a_landmark_that_is_not_a_number_stays_in_its_face() -> None:
    faces = torch.from_numpy(make_faces())
    expected = draw_heatmap(faces, SIZE)[1]
    faces[0, 3, 0] = torch.nan  # as an index it would point anywhere
    assert torch.equal(draw_heatmap(faces, SIZE)[1], expected)


def test_each_face_of_a_batch_is_drawn_by_itself() -> None:
    faces = torch.from_numpy(make_faces()).float()
    before = faces.clone()
    together = draw_heatmap(faces, SIZE)
    for b in range(len(faces)):
        torch.testing.assert_close(together[b], draw_heatmap(faces[b : b + 1], SIZE)[0])
    assert torch.equal(faces, before)
    assert together.dtype == torch.float32
