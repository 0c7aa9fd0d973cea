"""The closer look cuts its patches where the guess lies, and moves what it saw."""

import torch

from dhm_cli.geometry.landmarks import MIRROR
from dhm_cli.models.closer_look import CloserLook
from dhm_cli.models.interface import image_tensor

SIZE = 48
EYE = [*range(17, 22), *range(36, 42)]


def seen_by(look: CloserLook, pixels: torch.Tensor, landmarks: torch.Tensor) -> torch.Tensor:
    """The patches that its CNN gets, (3 B, 3, P, P)."""
    patches = []
    handle = look.stem.register_forward_pre_hook(lambda _, arguments: patches.append(arguments[0]))
    look(pixels, landmarks)
    handle.remove()
    return patches[0]


def random_guess(count: int = 2) -> torch.Tensor:
    rng = torch.Generator().manual_seed(2)
    return torch.rand(count, 68, 3, generator=rng) * 8 + torch.tensor([20.0, 20.0, -4.0])


def moving_look() -> CloserLook:
    torch.manual_seed(0)
    look = CloserLook(SIZE)
    for layers in (look.eye, look.mouth):
        torch.nn.init.normal_(layers[-1].weight, std=0.3)
    return look.eval()


def test_a_patch_shows_the_pixels_around_the_middle_of_its_landmarks() -> None:
    """In a picture whose red is x and whose green is y; the second eye's patch is mirrored, the rim is repeated."""
    look = CloserLook(SIZE)
    line = torch.arange(SIZE, dtype=torch.float32)
    pixels = torch.stack([line.expand(SIZE, SIZE), line[:, None].expand(SIZE, SIZE), torch.zeros(SIZE, SIZE)], dim=-1)
    landmarks = torch.zeros(1, 68, 3)
    landmarks[0, EYE, :2] = torch.tensor([15.2, 20.9])
    landmarks[0, MIRROR[EYE], :2] = torch.tensor([30.0, 19.0])
    landmarks[0, 48:, :2] = torch.tensor([24.0, 45.0])
    left, right, mouth = seen_by(look, pixels[None], landmarks)
    reach = look.reach
    steps = torch.arange(-reach, reach + 1)
    assert torch.equal(left[0, 0], (15 + steps).float())
    assert torch.equal(left[1, :, 0], (21 + steps).float())
    assert torch.equal(right[0, 0], (30 - steps).float())
    assert torch.equal(right[1, :, 0], (19 + steps).float())
    assert torch.equal(mouth[1, :, 0], (45 + steps).clamp(max=SIZE - 1).float())


def test_a_mirrored_crop_gives_mirrored_eyes() -> None:
    look, guess = moving_look(), random_guess().round() + 0.25  # centres must not be rounded apart
    pixels = torch.rand(2, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(3)) * 2 - 1
    mirrored = guess[:, MIRROR] * torch.tensor([-1.0, 1.0, 1.0]) + torch.tensor([SIZE - 1.0, 0.0, 0.0])
    found = guess + look(pixels, guess)[0]
    other = mirrored + look(pixels.flip(2), mirrored)[0]
    back = other[:, MIRROR] * torch.tensor([-1.0, 1.0, 1.0]) + torch.tensor([SIZE - 1.0, 0.0, 0.0])
    eyes = [*range(17, 27), *range(36, 48)]
    assert (found - guess)[:, eyes].abs().max() > 0.5
    torch.testing.assert_close(back[:, eyes], found[:, eyes], atol=1e-3, rtol=0)


def test_jaw_and_nose_stay_and_so_does_what_is_known_of_them() -> None:
    look, guess = moving_look(), random_guess()
    moves, its_scale = look(torch.zeros(2, SIZE, SIZE, 3), guess)
    moved = guess + moves
    others = [*range(17), *range(27, 36)]
    assert torch.equal(moved[:, others], guess[:, others])
    assert not its_scale[:, others].any()
    rest = [k for k in range(68) if k not in others]
    assert ((moved - guess)[:, rest].abs().amax(2) > 0).all()
    assert its_scale[:, rest].abs().min() > 0


def test_a_guess_outside_the_crop_is_looked_at_at_its_rim() -> None:
    look = CloserLook(SIZE)
    pixels = image_tensor(torch.full((1, SIZE, SIZE, 3), 7, dtype=torch.uint8)).permute(0, 2, 3, 1)
    moves, _ = look(pixels, random_guess(1) + 1e4)
    assert moves.isfinite().all()
    assert (seen_by(look, pixels, random_guess(1) - 1e4) == pixels[0, 0, 0, 0]).all()
