"""A closer look at eyes and mouth: the crop around a network's own last guess moves their landmarks once more."""

import numpy as np
import torch
from torch import Tensor, nn

from dhm_cli.geometry.landmarks import MIRROR, MOUTH, NUM_LANDMARKS
from dhm_cli.models.layers import SeparableBlock

_STEM, _BLOCKS, _RANK = 16, ((32, 2, 5), (48, 1, 5), (64, 2, 5), (32, 1, 3)), 40
# Brow and eye on the left of the picture, the same of the other side, which is seen in a mirror, and the mouth.
_EYE = np.array([*range(17, 22), *range(36, 42)])
_PARTS = (_EYE, MIRROR[_EYE], np.arange(MOUTH.start, MOUTH.stop))
_FACING = (1.0, -1.0, 1.0)


class CloserLook(nn.Module):
    """Eyes with their brows, and the mouth, seen again at the crop's full resolution where the last step put them.

    The last features of a fast network, 4 x 4, are too coarse to tell how wide a mouth is open. As the heat map of Sun
    et al. 2018 is drawn again around every guess, and as Cao et al. 2014 ("Face Alignment by Explicit Shape
    Regression", section 2.3) index features by the last shape, three patches, a third of the crop wide, are cut around
    the last guess. One small CNN sees them, the second eye in a mirror. What follows is linear: it tells where a
    landmark lies in the patch less where it was guessed.

    Args:
        size: side of the crops, pixels.
    """

    facing: Tensor
    middles: Tensor
    seen: Tensor
    part: Tensor
    signs: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        # 20 pixels of 120, where 35 lie between eyes and mouth; a multiple of 4, as the CNN halves a patch three times.
        self.size, self.reach = size, 4 * round(size / 24)
        # Without padding, so that the pixels' scale and offset can be folded.
        self.stem = nn.Conv2d(3, _STEM, 3, 2, bias=False)
        self.stem_norm: nn.Module = nn.BatchNorm2d(_STEM)
        inputs = (_STEM, *(block[0] for block in _BLOCKS))
        self.cnn = nn.Sequential(
            *(
                SeparableBlock(channels, *block, middle_activation=False)
                for channels, block in zip(inputs[:-1], _BLOCKS, strict=True)
            )
        )
        features = inputs[-1] * (self.reach // 4) ** 2
        self.eye, self.mouth = (_layers(features, len(part)) for part in _PARTS[1:])

        seen = np.concatenate(_PARTS)
        part = np.repeat(np.arange(len(_PARTS)), [len(points) for points in _PARTS])
        mean = np.array([np.isin(np.arange(NUM_LANDMARKS), points) / len(points) for points in _PARTS])
        facing = np.array(_FACING)
        signs = np.stack([facing[part], *np.ones((3, len(part)))], axis=1)
        for name, value in (
            ("facing", torch.from_numpy(facing).long()),
            ("middles", torch.from_numpy(mean).float()),
            ("seen", torch.eye(NUM_LANDMARKS)[seen]),
            ("part", torch.eye(len(_PARTS))[part]),
            ("signs", torch.from_numpy(signs).float()),
        ):
            self.register_buffer(name, value, persistent=False)

    def forward(self, pixels: Tensor, landmarks: Tensor) -> tuple[Tensor, Tensor]:
        """How to move landmarks.

        Args:
            pixels: (B, S, S, 3), RGB in [-1, 1].
            landmarks: (B, 68, 3), crop pixels; where the patches lie gives them no gradient.

        Returns:
            Moves (B, 68, 3), crop pixels, and what to add to `AlignmentOutput.log_scale`, (B, 68); 0 for jaw and nose.
        """
        guess, eyes = landmarks.detach(), 2 * len(_EYE)
        centres = torch.round(self.middles @ guess[..., :2]).clamp(0, self.size - 1)
        maps = self.cnn(torch.relu(self.stem_norm(self.stem(self._patches(pixels, centres)))))
        features = maps.reshape(-1, len(_PARTS), maps.shape[1] * maps.shape[2] * maps.shape[3])
        inside = (self.seen @ guess - self.part @ nn.functional.pad(centres, (0, 1))) * (self.signs[:, :3] / self.reach)
        eye = self.eye(torch.cat([features[:, :2], inside[:, :eyes].reshape(-1, 2, 3 * len(_EYE))], dim=2))
        mouth = self.mouth(torch.cat([features[:, 2], inside[:, eyes:].flatten(1)], dim=1))
        moves = torch.cat([eye.reshape(-1, eyes, 4), mouth.unflatten(1, (-1, 4))], dim=1) * self.signs
        moves = self.seen.T @ moves
        return self.reach * moves[..., :3], moves[..., 3]

    def _patches(self, pixels: Tensor, centres: Tensor) -> Tensor:
        """(B, S, S, 3) around centres (B, 3, 2) -> (3 B, 3, P, P); beyond its rim a picture goes on as its rim."""
        across = torch.arange(-self.reach, self.reach + 1, device=pixels.device)
        middle = centres.long()
        x = (middle[..., :1] + across * self.facing[:, None]).clamp(0, self.size - 1)
        y = (middle[..., 1:] + across).clamp(0, self.size - 1)
        first = torch.arange(pixels.shape[0], device=pixels.device)[:, None, None] * self.size
        rows = ((first + y)[..., :, None] * self.size + x[..., None, :]).flatten()
        side = 2 * self.reach + 1
        patches = pixels.reshape(-1, 3).index_select(0, rows).reshape(-1, side, side, 3)
        return patches.permute(0, 3, 1, 2).float()


def _layers(features: int, landmarks: int) -> nn.Sequential:
    """From a patch's features and its landmarks to x, y, z in units of the reach, and the change of ln s, of each."""
    last = nn.Linear(_RANK, 4 * landmarks)
    nn.init.normal_(last.weight, std=1e-3)  # start from the guess
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(features + 3 * landmarks, _RANK, bias=False), last)
