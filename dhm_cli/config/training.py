"""Settings of a training: what determines its result, apart from the network and the data."""

from dataclasses import dataclass
from typing import Any, ClassVar

from dhm_cli.config.settings import (
    NOT_NEGATIVE,
    POSITIVE,
    PROBABILITY,
    TABLE,
    Rule,
    Settings,
    choice,
    integer,
    number,
    setting,
    several,
)
from dhm_cli.errors import InputError


@dataclass(frozen=True)
class AugmentationConfig(Settings):
    """Ranges of the random changes of a training crop."""

    rotation: float = setting(8.0, number(0, 180), "Standard deviation of the in-plane rotation, degrees.")
    wide_rotation: float = setting(45.0, number(0, 180), "Some faces get a uniform rotation up to this, degrees.")
    wide_rotation_share: float = setting(0.1, PROBABILITY, "Share of the faces that get the wide rotation.")
    any_rotation_share: float = setting(0.0, PROBABILITY, "Share of the faces that are turned by any angle.")
    # Turned or not: a network that sees the corners of turned pictures reads the angle off them.
    surround: float = setting(
        0.0, PROBABILITY, "Probability of cutting the picture to a circle and laying it on another one."
    )
    scale: float = setting(0.025, number(0, 1), "Standard deviation of the logarithm of the crop's side.")
    shift: float = setting(0.015, number(0, 1), "Standard deviation of the crop's centre, share of its side.")
    # So that a box that is far off is known too.
    wide_placement: float = setting(4.0, number(0, 100), "Some faces get this many times the scale and shift.")
    wide_placement_share: float = setting(0.2, PROBABILITY, "Share of the faces that get the wide placement.")
    mirror: float = setting(0.5, PROBABILITY, "Probability of mirroring.")
    colour: float = setting(
        1.0,
        number(0, 10),
        "Strength of brightness, contrast, saturation, gamma and white balance changes; 0 is none.",
    )
    grey: float = setting(0.1, PROBABILITY, "Probability of a grey crop.")
    low_resolution: float = setting(
        0.15, PROBABILITY, "Probability of reducing the crop by 1.4 to 5 and enlarging it again."
    )
    blur: float = setting(0.1, PROBABILITY, "Probability of a Gaussian or motion blur.")
    noise: float = setting(0.1, PROBABILITY, "Probability of sensor noise.")
    jpeg: float = setting(0.1, PROBABILITY, "Probability of strong JPEG compression.")
    occlusion: float = setting(0.3, PROBABILITY, "Probability of a random rectangle.")
    cover: float = setting(0.0, PROBABILITY, "Probability of hiding most of the face behind another picture.")


def _shares(value: Any) -> tuple[float, ...] | None:
    if isinstance(value, list | tuple) and not value:  # TOML has no word for None
        return None
    shares: tuple[float, ...] = several("", number(0), 3, 3).convert(value)
    if not any(shares):
        raise ValueError
    return shares


def _epochs(value: Any) -> tuple[int, ...]:
    epochs: tuple[int, ...] = several("", integer(1, 1_000_000), 0, 1000).convert(value)
    if list(epochs) != sorted(set(epochs)):
        raise ValueError
    return epochs


_STEPS = integer(1, 1_000_000_000)
_YAW_SHARES = Rule("three numbers of at least 0, not all 0, or an empty list for no balancing", _shares)


@dataclass(frozen=True)
class TrainConfig(Settings):
    """What determines the result of a training, apart from the network and the data."""

    # None where the other of the two says how long. With `yaw_shares` faces are drawn with replacement, and an epoch is
    # as many draws as there are faces.
    steps: int | None = setting(40_000, _STEPS, "Optimiser steps, in place of epochs.")
    epochs: float | None = setting(None, number(0, 1_000_000, above=True), "Passes over the training faces.")
    batch: int = setting(64, integer(2, 1_000_000), "Faces per step, over all processes.")  # batch norm needs two
    optimiser: str = setting("muon", choice("muon", "adamw", "adam", "rmsprop"), "What updates the weights.")
    learning_rate: float = setting(2e-3, POSITIVE, "Initial rate.")  # after the warm-up
    schedule: str = setting(
        "cosine",
        choice("cosine", "exponential", "milestones"),
        "Cosine to zero at the last step; exponential, times decay every decay_steps steps; or milestones, times decay "
        "at each of the epochs decay_epochs.",
    )
    decay: float = setting(1.0, number(0, 1, above=True), "Factor of the exponential and milestones schedules.")
    decay_steps: int = setting(1, _STEPS, "Steps between decays of the exponential schedule.")
    decay_epochs: tuple[int, ...] = setting(
        (),
        Rule("a list of rising epochs, each an integer from 1", _epochs),
        "Epochs at whose end the milestones schedule decays.",
    )
    final_learning_rate: float = setting(0.0, NOT_NEGATIVE, "The exponential schedule stops falling here.")
    warmup: int = setting(
        500, integer(0, 1_000_000_000), "Steps over which the rate first rises linearly; at most a tenth of the run."
    )
    weight_decay: float = setting(0.01, NOT_NEGATIVE, "Decoupled for muon and adamw, an L2 term for the others.")
    ema: float = setting(
        0.999,
        number(0, 1, below=True),
        "Decay of the moving average of the weights, which is what is validated and shipped; 0 for none.",
    )
    gradient_norm: float = setting(5.0, NOT_NEGATIVE, "Gradients are clipped to this norm; 0 for no clipping.")
    loss: str = setting(
        "wing",
        choice("wing", "l1", "likelihood", "squared"),
        "On distances over the face size wing, l1 or likelihood (for networks with uncertainty), or squared error of "
        "coordinates over the crop's side (Eq. 5 of Sun et al. 2018).",
    )
    step_weights: str = setting(
        "rising",
        choice("rising", "equal", "last"),
        "Rising, step t of T weighs t / T; equal; or last, the last step alone.",
    )
    depth_weight: float = setting(0.5, NOT_NEGATIVE, "Weight of the z error against the x,y error.")
    wing_width: float = setting(0.08, POSITIVE, "w of the Wing loss, share of the face size.")
    wing_curvature: float = setting(0.02, POSITIVE, "Epsilon of the Wing loss, share of the face size.")
    # It keeps what landmarks cannot tell near the mean face.
    prior_weight: float = setting(
        0.0,
        NOT_NEGATIVE,
        "Weight of the mean square of the identity and expression coefficients over their standard deviations, for "
        "networks that regress p.",
    )
    distillation_weight: float = setting(
        1.0, NOT_NEGATIVE, "Weight of the same loss against a teacher's landmarks, where there is a teacher."
    )
    not_face_share: float = setting(
        0.0,
        PROBABILITY,
        "Share of the samples that show no face, or one far from where it is looked for, for networks with "
        "uncertainty.",
    )
    doubts_weight: float = setting(
        0.2,
        NOT_NEGATIVE,
        "Weight of the losses of visibility, confidence and, beside another loss than likelihood, expected errors, for "
        "networks with uncertainty.",
    )
    learned: str = setting(
        "all",
        choice("all", "doubts"),
        "All weights, or those alone that tell the network's uncertainty; its landmarks then stay as they are.",
    )
    yaw_shares: tuple[float, float, float] | None = setting(
        (0.4, 0.3, 0.3),
        _YAW_SHARES,
        "Sampling share of the |yaw| bins 0-30, 30-60 and 60-90 degrees; none takes every face once an epoch.",
    )
    validate_every: int | None = setting(None, _STEPS, "Steps between validations and saved states; default: an epoch.")
    validation_batch: int = setting(128, integer(1, 1_000_000), "Faces at a time in validation.")
    precision: str = setting("float32", choice("float32", "bf16"), "float32 or bf16 (autocast).")
    seed: int = setting(
        0,
        integer(0, 2**63 - 1),  # what TOML can hold
        "Of weights, data order and augmentation.",
    )
    augmentation: AugmentationConfig = setting(  # noqa: RUF009 (a field)
        AugmentationConfig(), TABLE, "Random changes of the training crops."
    )

    # Settings of older versions, with the values at which they changed nothing; files of those versions hold them.
    RETIRED: ClassVar[dict[str, float]] = {
        "feature_weight": 0.0,
        "mirror_weight": 0.0,
        "part_weight": 0.0,
        "wing_start": 0.01,
    }

    def check(self) -> None:
        """Check what the rules of single settings cannot tell.

        Raises:
            InputError: two settings contradict each other.
        """
        if (self.steps is None) == (self.epochs is None):
            raise InputError("training needs one of steps and epochs", "set one of them")
        if self.schedule == "exponential" and self.final_learning_rate > self.learning_rate:
            raise InputError(
                f"final_learning_rate {self.final_learning_rate:g} is above learning_rate {self.learning_rate:g}",
                "lower final_learning_rate, or raise learning_rate",
            )
        if self.schedule == "milestones" and not self.decay_epochs:
            raise InputError("schedule milestones without decay_epochs", "set decay_epochs, such as [20, 30]")
        if self.schedule != "cosine" and self.decay == 1:
            raise InputError(f"schedule {self.schedule} with decay 1 never lowers the rate", "set decay below 1")
