"""Settings of the networks: what determines their shape, with a source for each value that is not ours."""

from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from dhm_cli.config.settings import TRUTH, Rule, Settings, checked, choice, integer, number, setting, several
from dhm_cli.errors import InputError

_Config = TypeVar("_Config", bound="NetworkConfig")


class NetworkConfig(Settings):
    """Base of the settings of every network.

    Attributes:
        input_size: side of the square crop, pixels.
        steps: T, recurrent updates, each of which gives landmarks.
        target: what the network regresses: "landmarks", or "params", the parameters p of a face model.
        uncertainty: whether it tells each landmark's expected error and visibility, and its confidence, too.
    """

    input_size: int
    steps: int
    target: str = "landmarks"
    uncertainty: bool = False
    # Settings without which a checkpoint is not read; what else is missing is newer than the checkpoint.
    IN_EVERY_CHECKPOINT: ClassVar[tuple[str, ...]] = ()

    @property
    def needs_face_model(self) -> bool:
        """Whether the network regresses p, and so works with one face model only."""
        return self.target == "params"

    def check(self) -> None:
        """Check what the rules of single settings cannot tell.

        Raises:
            InputError: two settings contradict each other.
        """

    @classmethod
    def from_json(cls: type[_Config], values: dict[str, Any]) -> _Config:
        """Inverse of `to_json`; missing settings take their defaults.

        Raises:
            InputError: an unknown setting, a value against its rule, a contradiction, or a setting is missing that
                every checkpoint has.
        """
        if not isinstance(values, dict):
            raise InputError("no table of settings")
        for name in cls.IN_EVERY_CHECKPOINT:
            if name not in values:
                raise InputError(f"{name} is missing")
        config = cls(**checked(values, cls.rules(), ""))
        config.check()
        return config


def _block(value: Any) -> tuple[int, ...]:
    block: tuple[int, ...] = several("", integer(1, 4096), 2, 3).convert(value)
    if block[1] > 2 or any(kernel % 2 == 0 or kernel > 15 for kernel in block[2:]):
        raise ValueError
    return block


_INPUT_SIZE, _STEPS, _WIDTH = integer(32, 512, multiple=8), integer(1, 32), number(0.25, 8)
_BLOCKS = several(
    "a list of [channels from 1 to 4096, stride 1 or 2] or [channels, stride, odd kernel up to 15]",
    *(Rule("", _block), 1, 100),
)


@dataclass(frozen=True)
class FastDhmConfig(NetworkConfig):
    """Shape of a Fast DHM network (Sun et al., "Fast DHM", Eq. 6-7, Fig. 2b and 4).

    The paper prints neither layers nor channels. These defaults are a network within its size on disk.
    """

    input_size: int = setting(120, _INPUT_SIZE, "Side of the crops, pixels.")
    stem_channels: int = setting(16, integer(1, 4096), "Channels of the first convolution (3x3, stride 2).")
    # One more block makes the features F_0.
    blocks: tuple[tuple[int, ...], ...] = setting(
        (
            (32, 2), (32, 1),
            (64, 2), (64, 1), (64, 1), (64, 1),
            (128, 2), (128, 1), (128, 1), (128, 1), (128, 1), (128, 1),
        ),
        _BLOCKS,
        "The separable blocks as [channels, stride] or [channels, stride, kernel]; the depthwise kernel is 3 pixels "
        "wide where it is left out.",
    )  # fmt: skip
    middle_activation: bool = setting(
        True,
        TRUTH,
        "Batch norm and ReLU between the depthwise and the pointwise convolution too, as in MobileNet (Howard et al. "
        "2017), or after the pointwise one only.",
    )
    feature_stride: int = setting(2, integer(1, 2), "Stride of the block that makes F_0.")
    recurrent_channels: int = setting(64, integer(4, 4096), "Channels of F_t and h_t.")
    steps: int = setting(4, _STEPS, "T, recurrent updates.")
    # 68 points of a posed, deforming face vary in far fewer than 204 directions, and the full layer alone would take
    # 0.84 MB.
    head_rank: int = setting(
        64, integer(1, 4096), "Inner width of the two layers whose product is the fully connected layer to 204 numbers."
    )
    heatmap: str = setting(
        "mean",
        choice("mean", "none"),
        "That of the mean shape for every image, as in the paper; or none, for ablations.",
    )
    closer_look: bool = setting(
        False, TRUTH, "After the last step look once more at eyes and mouth, at full resolution, and move them."
    )
    uncertainty: bool = setting(
        False, TRUTH, "Tell each landmark's expected error and visibility, and the confidence in the face, too."
    )
    uncertainty_rank: int = setting(32, integer(1, 4096), "Inner width of the layers that tell these.")
    uncertainty_channels: int = setting(8, integer(1, 4096), "Channels of an earlier map that these layers see too.")
    cnn_width: float = setting(1.0, _WIDTH, "Multiplies the channels of fast's CNN (Fig. 7 of the Fast DHM paper).")
    recurrent_width: float = setting(1.0, _WIDTH, "Multiplies the channels of fast's recurrence (Fig. 8).")

    IN_EVERY_CHECKPOINT = ("blocks",)


_CHANNELS = integer(16, 4096, multiple=16)  # group norm takes 8 at a time, in an hourglass of half the channels


@dataclass(frozen=True)
class DhmConfig(NetworkConfig):
    """Shape of a deep evolutionary network (Sun et al. 2018, Eq. 4, Alg. 1).

    The paper prints neither channels nor strides; these keep the sizes on disk below its own.
    """

    input_size: int = setting(224, _INPUT_SIZE, "Side of the crops, pixels.")
    target: str = setting(
        "params", choice("params", "landmarks"), "What the network regresses: params (234) or landmarks (204)."
    )
    features: str = setting(
        "plain",
        choice("plain", "vgg", "hourglass"),
        "Plain, two convolutions; vgg, a reduced VGG; or hourglass, stacked hourglasses.",
    )
    heatmap: str = setting(
        "evolving",
        choice("evolving", "initial", "points"),
        "Evolving, drawn again from every step's landmarks; initial, that of the mean face in every step; or points, "
        "the initial landmarks as 2D Gaussians without their coordinates (the 2D-RNN of section 4.2).",
    )
    recurrence: str = setting(
        "rnn",
        choice("rnn", "lstm", "none"),
        "rnn, Eq. (4); lstm; or none, one tanh layer and one step (the 3D-CNN of section 4.2).",
    )
    # Pitch, yaw and roll jump by 90 degrees where a profile is turned a little in the plane.
    rotation: str = setting(
        "vector",
        choice("vector", "euler"),
        "How the recurrence holds the rotation in p: vector, axis times angle, or euler, the pitch, yaw and roll of "
        "Eq. (2).",
    )
    steps: int = setting(4, _STEPS, "T, recurrent updates.")  # "the number of states t = 4" (Fig. 5)
    channels: tuple[int, ...] = setting(
        (64, 128),
        several(f"a list of 1 to 5 numbers, each {_CHANNELS.expected}", _CHANNELS, 1, 5),
        "Of the feature extractor: one number for each convolution (plain), each block (vgg), or one for all "
        "(hourglass).",
    )
    hidden: int = setting(1024, integer(1, 65_536), "Numbers in the recurrent state.")
    hourglasses: int = setting(3, integer(1, 16), "How many hourglasses are stacked.")

    IN_EVERY_CHECKPOINT = ("channels",)

    def check(self) -> None:
        """See `NetworkConfig.check`."""
        count = {"plain": 2, "hourglass": 1}.get(self.features, len(self.channels))
        if len(self.channels) != count:
            raise InputError(
                f"network.channels {list(self.channels)}: features {self.features} take {count}",
                "give as many numbers as the features take",
            )
        if self.recurrence == "none" and self.steps != 1:
            raise InputError(f"network.steps {self.steps}: recurrence none takes 1", "set network.steps to 1")
