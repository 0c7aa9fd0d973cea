"""Typed settings of the networks and their training, with a source for each value that is not ours."""

from dataclasses import asdict, dataclass
from typing import Any

from dhm_cli.errors import InputError


@dataclass(frozen=True)
class FastDhmConfig:
    """Shape of a Fast DHM network (Sun et al., "Fast DHM", Eq. 6-7, Fig. 2b and 4).

    The paper prints neither layers nor channels; these were chosen by latency in ONNX Runtime (channels in multiples of
    16, a cheap stem, no work at full resolution) within the paper's size on disk.

    Attributes:
        input_size: side of the square crop, pixels.
        stem_channels: channels of the first convolution (3x3, stride 2).
        blocks: the separable blocks as (channels, stride); one more block of stride 2 makes the features F_0.
        recurrent_channels: channels of F_t and h_t.
        steps: T, recurrent updates.
        head_rank: the fully connected layer to 204 numbers is a product of two of this inner width. 68 points of a
            posed, deforming face vary in far fewer than 204 directions, and the full layer alone would take 0.84 MB.
        cnn_width: multiplies the channels of the stem and the blocks ("x2" in the paper's Fig. 7).
        recurrent_width: multiplies `recurrent_channels`.
    """

    input_size: int = 120
    stem_channels: int = 16
    blocks: tuple[tuple[int, int], ...] = (
        (32, 2), (32, 1),
        (64, 2), (64, 1), (64, 1), (64, 1),
        (128, 2), (128, 1), (128, 1), (128, 1), (128, 1), (128, 1),
    )  # fmt: skip
    recurrent_channels: int = 64
    steps: int = 4
    head_rank: int = 64
    cnn_width: float = 1.0
    recurrent_width: float = 1.0

    def to_json(self) -> dict[str, Any]:
        """The settings as plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "FastDhmConfig":
        """Inverse of `to_json`.

        Raises:
            InputError: an unknown field, or blocks are missing; other missing fields take their defaults.
        """
        try:
            return cls(**{**values, "blocks": tuple((int(c), int(s)) for c, s in values["blocks"])})
        except (TypeError, KeyError, ValueError) as error:
            raise InputError(
                f"not the settings of a Fast DHM network: {error}", "use a checkpoint of this version"
            ) from error


FAST_PRESETS: dict[str, FastDhmConfig] = {
    "fast": FastDhmConfig(),
    # "Fast DHM x2 means the channels in the fast CNN module are doubled" (paper, Table I).
    "fast-x2": FastDhmConfig(cnn_width=2.0, head_rank=44),
}


@dataclass(frozen=True)
class AugmentationConfig:
    """Ranges of the random changes of a training crop; probabilities in [0, 1].

    Attributes:
        rotation: standard deviation of the in-plane rotation, degrees.
        wide_rotation: faces get a uniform rotation up to this, degrees ...
        wide_rotation_share: ... with this probability.
        scale: standard deviation of the logarithm of the crop's side.
        shift: standard deviation of the crop's centre, share of its side.
        mirror: probability of mirroring.
        colour: strength of brightness, contrast, saturation, gamma and white balance changes; 0 is none.
        grey: probability of a grey crop.
        low_resolution: probability of reducing the crop by 1.4 to 5 and enlarging it again.
        blur: probability of a Gaussian or motion blur.
        noise: probability of sensor noise.
        jpeg: probability of strong JPEG compression.
        occlusion: probability of a random rectangle.
    """

    rotation: float = 15.0
    wide_rotation: float = 45.0
    wide_rotation_share: float = 0.25
    scale: float = 0.08
    shift: float = 0.05
    mirror: float = 0.5
    colour: float = 1.0
    grey: float = 0.1
    low_resolution: float = 0.15
    blur: float = 0.1
    noise: float = 0.1
    jpeg: float = 0.1
    occlusion: float = 0.3


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes:
        steps: optimiser steps.
        batch: faces per step.
        learning_rate: peak rate of AdamW; linear warm-up, then a cosine to zero.
        warmup: steps of the warm-up.
        weight_decay: AdamW's.
        ema: decay of the moving average of the weights, which is what is validated and shipped.
        gradient_norm: gradients are clipped to this norm.
        depth_weight: weight of the z error against the x,y error.
        wing_width: w of the Wing loss, share of the face size.
        wing_curvature: epsilon of the Wing loss, share of the face size.
        yaw_shares: sampling share of the |yaw| bins 0-30, 30-60 and 60-90 degrees.
        validate_every: steps between validations and checkpoints.
        seed: of initial weights, data order and augmentation.
        augmentation: see there.
    """

    steps: int = 40_000
    batch: int = 64
    learning_rate: float = 2e-3
    warmup: int = 500
    weight_decay: float = 0.01
    ema: float = 0.999
    gradient_norm: float = 5.0
    depth_weight: float = 0.5
    wing_width: float = 0.08
    wing_curvature: float = 0.02
    yaw_shares: tuple[float, float, float] = (0.4, 0.3, 0.3)
    validate_every: int = 1000
    seed: int = 0
    augmentation: AugmentationConfig = AugmentationConfig()

    def to_json(self) -> dict[str, Any]:
        """The settings as plain JSON."""
        return asdict(self)
