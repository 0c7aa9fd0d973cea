"""Typed settings of the networks and their training, with a source for each value that is not ours."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from dhm_cli.errors import InputError


@contextmanager
def _explained(network: str) -> Iterator[None]:
    """Say of what network settings are not."""
    try:
        yield
    except (TypeError, KeyError, ValueError) as error:
        raise InputError(
            f"not the settings of a {network} network: {error}", "use a checkpoint of this version"
        ) from error


@dataclass(frozen=True)
class FastDhmConfig:
    """Shape of a Fast DHM network (Sun et al., "Fast DHM", Eq. 6-7, Fig. 2b and 4).

    The paper prints neither layers nor channels. These defaults are a network within its size on disk.

    Attributes:
        input_size: side of the square crop, pixels.
        stem_channels: channels of the first convolution (3x3, stride 2).
        blocks: the separable blocks as (channels, stride) or (channels, stride, kernel); the depthwise kernel is 3
            pixels wide where it is left out. One more block makes the features F_0.
        middle_activation: batch norm and ReLU between the depthwise and the pointwise convolution too, as in MobileNet
            (Howard et al. 2017), or after the pointwise one only.
        feature_stride: of the block that makes F_0.
        recurrent_channels: channels of F_t and h_t.
        steps: T, recurrent updates.
        head_rank: the fully connected layer to 204 numbers is a product of two of this inner width. 68 points of a
            posed, deforming face vary in far fewer than 204 directions, and the full layer alone would take 0.84 MB.
        heatmap: "mean", that of the mean shape for every image, as in the paper; or "none", for ablations.
        uncertainty: tell each landmark's expected error too, for the loss "likelihood".
        cnn_width: multiplies the channels of the stem and the blocks ("x2" in the paper's Fig. 7).
        recurrent_width: multiplies `recurrent_channels`.
    """

    input_size: int = 120
    stem_channels: int = 16
    blocks: tuple[tuple[int, ...], ...] = (
        (32, 2), (32, 1),
        (64, 2), (64, 1), (64, 1), (64, 1),
        (128, 2), (128, 1), (128, 1), (128, 1), (128, 1), (128, 1),
    )  # fmt: skip
    middle_activation: bool = True
    feature_stride: int = 2
    recurrent_channels: int = 64
    steps: int = 4
    head_rank: int = 64
    heatmap: str = "mean"
    uncertainty: bool = False
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
        with _explained("Fast DHM"):
            blocks = tuple(tuple(map(int, block)) for block in values["blocks"])
            if not all(2 <= len(block) <= 3 for block in blocks):
                raise ValueError("a block is (channels, stride) or (channels, stride, kernel)")
            return cls(**{**values, "blocks": blocks})


def _stage(channels: int, count: int) -> tuple[tuple[int, ...], ...]:
    """Blocks of kernel 5, the first of which halves the side."""
    return ((channels, 2, 5),) + ((channels, 1, 5),) * (count - 1)


# Chosen by time in ONNX Runtime on a CPU and by accuracy after the same short training (README, "How fast is it"). A
# pointwise convolution costs what its multiplications cost at any resolution, so channels grow where a map is small;
# a depthwise one is bound by memory, so 5x5 costs little more than 3x3 at 15x15 and below.
FAST_PRESETS: dict[str, FastDhmConfig] = {
    "fast": FastDhmConfig(
        blocks=((32, 2), *_stage(64, 4), *_stage(128, 4), *_stage(192, 2)),
        middle_activation=False,
        feature_stride=1,
        recurrent_channels=96,
    ),
    "fast-x2": FastDhmConfig(
        blocks=((32, 2), (32, 1), *_stage(96, 4), *_stage(192, 6), *_stage(256, 4)),
        middle_activation=False,
        feature_stride=1,
        recurrent_channels=128,
    ),
}


@dataclass(frozen=True)
class DhmConfig:
    """Shape of a deep evolutionary network (Sun et al. 2018, Eq. 4, Alg. 1).

    The paper prints neither channels nor strides; these keep the sizes on disk below its own.

    Attributes:
        input_size: side of the square crop, pixels.
        target: what the recurrence updates: "params", p of 234 numbers, or "landmarks", 204 coordinates.
        features: "plain", two convolutions; "vgg", a reduced VGG; or "hourglass", stacked hourglasses.
        heatmap: "evolving", drawn again from every step's landmarks; "initial", that of the mean face in every step; or
            "points", the initial landmarks as 2D Gaussians without their coordinates (the 2D-RNN of section 4.2).
        recurrence: "rnn", Eq. (4); "lstm"; or "none", one tanh layer and one step (the 3D-CNN of section 4.2).
        rotation: how the recurrence holds the rotation in p: "vector", axis times angle, or "euler", the pitch, yaw and
            roll of Eq. (2), which jump by 90 degrees where a profile is turned a little in the plane.
        steps: T, updates of p; "the number of states t = 4" (Fig. 5).
        channels: of the feature extractor: one number for each convolution ("plain"), each block ("vgg"), or one for
            all ("hourglass").
        hidden: numbers in the recurrent state.
        hourglasses: how many are stacked.
    """

    input_size: int = 224
    target: str = "params"
    features: str = "plain"
    heatmap: str = "evolving"
    recurrence: str = "rnn"
    rotation: str = "vector"
    steps: int = 4
    channels: tuple[int, ...] = (64, 128)
    hidden: int = 1024
    hourglasses: int = 3

    def to_json(self) -> dict[str, Any]:
        """The settings as plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "DhmConfig":
        """Inverse of `to_json`.

        Raises:
            InputError: an unknown field, or channels are missing; other missing fields take their defaults.
        """
        with _explained("DHM"):
            return cls(**{**values, "channels": tuple(int(c) for c in values["channels"])})


DHM_PRESETS: dict[str, DhmConfig] = {
    "dhm": DhmConfig(),
    "dhm-vgg": DhmConfig(features="vgg", channels=(32, 64, 128, 256, 256)),
    "rhg": DhmConfig(input_size=256, features="hourglass", recurrence="lstm", channels=(128,), hidden=768),
    "3dcnn": DhmConfig(recurrence="none", steps=1),
    "2drnn": DhmConfig(target="landmarks", heatmap="points"),
}


PRESETS: dict[str, FastDhmConfig | DhmConfig] = {**DHM_PRESETS, **FAST_PRESETS}
ARCHS = tuple(PRESETS)


def preset(arch: str) -> FastDhmConfig | DhmConfig:
    """Settings of an architecture by name.

    Raises:
        InputError: unknown name; the message lists the known ones.
    """
    if arch not in PRESETS:
        raise InputError(f"unknown architecture {arch!r}", f"known architectures: {', '.join(ARCHS)}")
    return PRESETS[arch]


@dataclass(frozen=True)
class AugmentationConfig:
    """Ranges of the random changes of a training crop; probabilities in [0, 1].

    Attributes:
        rotation: standard deviation of the in-plane rotation, degrees.
        wide_rotation: faces get a uniform rotation up to this, degrees ...
        wide_rotation_share: ... with this probability.
        scale: standard deviation of the logarithm of the crop's side.
        shift: standard deviation of the crop's centre, share of its side.
        wide_placement: faces get this many times the `scale` and `shift` ...
        wide_placement_share: ... with this probability, so that a box that is far off is known too.
        mirror: probability of mirroring.
        colour: strength of brightness, contrast, saturation, gamma and white balance changes; 0 is none.
        grey: probability of a grey crop.
        low_resolution: probability of reducing the crop by 1.4 to 5 and enlarging it again.
        blur: probability of a Gaussian or motion blur.
        noise: probability of sensor noise.
        jpeg: probability of strong JPEG compression.
        occlusion: probability of a random rectangle.
    """

    rotation: float = 8.0
    wide_rotation: float = 45.0
    wide_rotation_share: float = 0.1
    scale: float = 0.025
    shift: float = 0.015
    wide_placement: float = 4.0
    wide_placement_share: float = 0.2
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
    """What determines the result of a training, apart from the network and the data.

    Attributes:
        steps: optimiser steps; None where `epochs` says how long.
        epochs: passes over the training faces; used where `steps` is None. With `yaw_shares` faces are drawn with
            replacement, and an epoch is as many draws as there are faces.
        batch: faces per step, over all processes.
        optimiser: "muon" (`training.muon`), "adamw", "adam" or "rmsprop".
        learning_rate: the initial rate, after the warm-up.
        schedule: "cosine" to zero at the last step; "exponential", times `decay` every `decay_steps` steps; or
            "milestones", times `decay` at each of the epochs `decay_epochs`.
        decay: factor of the exponential and milestones schedules.
        decay_steps: steps between decays of the exponential schedule.
        decay_epochs: epochs at whose end the milestones schedule decays.
        final_learning_rate: the exponential schedule stops falling here.
        warmup: steps over which the rate first rises linearly; at most a tenth of the run.
        weight_decay: decoupled for muon and adamw, an L2 term for the others.
        ema: decay of the moving average of the weights, which is what is validated and shipped; 0 for none.
        gradient_norm: gradients are clipped to this norm; 0 for no clipping.
        loss: on distances over the face size "wing", "l1" or "likelihood" (for networks with `uncertainty`);
            or "squared" error of coordinates over the crop's side (Eq. 5).
        step_weights: "rising", step t of T weighs t / T; "equal"; or "last", the last step alone.
        depth_weight: weight of the z error against the x,y error.
        wing_width: w of the Wing loss, share of the face size.
        wing_curvature: epsilon of the Wing loss, share of the face size.
        prior_weight: weight of the mean square of the identity and expression coefficients over their standard
            deviations, for networks that regress p; it keeps what landmarks cannot tell near the mean face.
        distillation_weight: weight of the same loss against a teacher's landmarks, where there is a teacher.
        yaw_shares: sampling share of the |yaw| bins 0-30, 30-60 and 60-90 degrees; None takes every face once an epoch.
        validate_every: steps between validations and checkpoints; None for once an epoch.
        validation_batch: faces at a time in validation.
        precision: "float32", or "bf16" for bfloat16 autocast.
        seed: of initial weights, data order and augmentation.
        augmentation: see there.
    """

    steps: int | None = 40_000
    epochs: float | None = None
    batch: int = 64
    optimiser: str = "muon"
    learning_rate: float = 2e-3
    schedule: str = "cosine"
    decay: float = 1.0
    decay_steps: int = 1
    decay_epochs: tuple[int, ...] = ()
    final_learning_rate: float = 0.0
    warmup: int = 500
    weight_decay: float = 0.01
    ema: float = 0.999
    gradient_norm: float = 5.0
    loss: str = "wing"
    step_weights: str = "rising"
    depth_weight: float = 0.5
    wing_width: float = 0.08
    wing_curvature: float = 0.02
    prior_weight: float = 0.0
    distillation_weight: float = 1.0
    yaw_shares: tuple[float, float, float] | None = (0.4, 0.3, 0.3)
    validate_every: int | None = None
    validation_batch: int = 128
    precision: str = "float32"
    seed: int = 0
    augmentation: AugmentationConfig = AugmentationConfig()

    def to_json(self) -> dict[str, Any]:
        """The settings as plain JSON."""
        return asdict(self)
