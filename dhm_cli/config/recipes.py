"""The architectures in one list, each with its recipes: the papers' and ours.

Paper A is Sun et al. 2018 ("Deep Evolutionary 3D Diffusion Heat Maps"), paper B is Sun et al., "Fast DHM".
"""

from dataclasses import fields, replace
from typing import NamedTuple

from dhm_cli.config.networks import DhmConfig, FastDhmConfig, NetworkConfig
from dhm_cli.config.settings import Rule, choice
from dhm_cli.config.training import AugmentationConfig, TrainConfig
from dhm_cli.errors import InputError


class Recipe(NamedTuple):
    """A network and how to train it.

    Attributes:
        network: the network's shape.
        training: how it is trained.
    """

    network: NetworkConfig
    training: TrainConfig


class Architecture(NamedTuple):
    """The recipes of an architecture.

    Attributes:
        best: by us.
        paper: as the papers print it; None for an architecture that no paper has.
    """

    best: Recipe
    paper: Recipe | None = None


RECIPES = Architecture._fields
NO_AUGMENTATION = AugmentationConfig(**{field.name: 0.0 for field in fields(AugmentationConfig)})

# What the paper recipes share. Neither paper names augmentation, balancing, averaging, clipping, warm-up or weight
# decay: all off.
PAPER_TRAINING = TrainConfig(
    steps=None,
    optimiser="adam",  # A, section 4.1, "Adam stochastic optimization with default hyperparameters"
    batch=50,  # A, section 4.1
    warmup=0,
    weight_decay=0.0,
    ema=0.0,
    gradient_norm=0.0,
    loss="squared",  # A and B, Eq. (5), squared Frobenius norm of all three coordinates ...
    depth_weight=1.0,  # ... so depth counts as x and y do
    # Eq. (5), and B, section III-C ("the final predicted shapes after the fully connected layer"), compare the shape
    # after the last step only. We supervise every step: Alg. 1 of A predicts p_k in every step, and with an error at
    # the last alone nothing ties the steps between, whose heat maps are the next steps' input, to the face.
    step_weights="equal",
    yaw_shares=None,
    augmentation=NO_AUGMENTATION,
)
_TRAIN_DHM = replace(
    PAPER_TRAINING,
    epochs=40.0,  # ours: not printed; as RHG
    # B, section IV-B: "0.001 for 300W-LP with exponential decay of 0.95 every 2000 iterations, and an initial learning
    # rate of 0.0001", which we read as fall from the one to the other. A, section 4.1, prints 0.0001 in both places.
    learning_rate=1e-3,
    final_learning_rate=1e-4,
    schedule="exponential",
    decay=0.95,
    decay_steps=2000,
)
_TRAIN_RHG = replace(
    PAPER_TRAINING,
    epochs=40.0,  # A, section 4.1, like all of these
    optimiser="rmsprop",
    learning_rate=1e-3,
    schedule="milestones",
    decay_epochs=(5, 15, 30),
    decay=0.1,  # ours: not printed
    batch=32,
    validation_batch=16,
)
_TRAIN_FAST = replace(
    PAPER_TRAINING,
    epochs=120.0,  # B, section IV-B, like all of these
    learning_rate=5e-3,
    schedule="milestones",
    decay_epochs=(60,),  # "after 60 epochs, the learning rate is reset to 0.00001" ...
    decay=0.002,  # ... 0.005 times this
)
# Ours. The loss reaches p through the face model, so its steps are smaller than those of a network of landmarks.
# AdamW, for Muon was tried on the fast family only.
_BEST_DHM = TrainConfig(steps=None, epochs=60.0, batch=32, optimiser="adamw", learning_rate=5e-4, prior_weight=1e-4)


def _stage(channels: int, count: int) -> tuple[tuple[int, ...], ...]:
    """Blocks of kernel 5, the first of which halves the side."""
    return ((channels, 2, 5),) + ((channels, 1, 5),) * (count - 1)


# Chosen by time in ONNX Runtime on a CPU and by accuracy after the same short training (README, "How fast is it"). A
# pointwise convolution costs what its multiplications cost at any resolution, so channels grow where a map is small;
# a depthwise one is bound by memory, so 5x5 costs little more than 3x3 at 15x15 and below.
_FAST = FastDhmConfig(
    blocks=((32, 2), *_stage(64, 4), *_stage(128, 4), *_stage(192, 2)),
    middle_activation=False,
    feature_stride=1,
    recurrent_channels=96,
)
_FAST_X2 = replace(
    _FAST,
    blocks=((32, 2), (32, 1), *_stage(96, 4), *_stage(192, 6), *_stage(256, 4)),
    recurrent_channels=128,
    closer_look=True,
)
# Finds a face's place, size and roll for the crop that the others look at; a quarter of the time of `fast`.
_TINY = FastDhmConfig(
    input_size=64,
    blocks=((24, 2), *_stage(64, 2), *_stage(128, 3)),
    middle_activation=False,
    feature_stride=1,
    recurrent_channels=64,
    steps=1,
    head_rank=32,
)
_TRAIN_TINY = TrainConfig(
    augmentation=AugmentationConfig(
        any_rotation_share=0.7, surround=0.35, shift=0.025, scale=0.03, wide_placement_share=0.7
    )
)
# B, section III-B: 224 x 224. One more block of stride 2 in front, ours, keeps the head and so the size on disk below
# B's (Table I: 0.9 and 2.2 MB), and the maps behind it as small as those of 120 pixels.
_PAPER_FAST = FastDhmConfig(input_size=224, blocks=((16, 2), *FastDhmConfig().blocks))
# "Fast DHM x2 means the channels in the fast CNN module are doubled" (Table I).
_PAPER_FAST_X2 = replace(_PAPER_FAST, cnn_width=2.0, head_rank=44)


def _fast(best: FastDhmConfig, paper: FastDhmConfig) -> Architecture:
    return Architecture(Recipe(best, TrainConfig()), Recipe(paper, _TRAIN_FAST))


def _dhm(network: DhmConfig, paper: TrainConfig = _TRAIN_DHM) -> Architecture:
    # A, Eq. (2): p holds pitch, yaw and roll.
    return Architecture(Recipe(network, _BEST_DHM), Recipe(replace(network, rotation="euler"), paper))


# A class of settings that is new here needs a line in `models.registry.NETWORKS` too.
ARCHITECTURES: dict[str, Architecture] = {
    "dhm": _dhm(DhmConfig()),
    "dhm-vgg": _dhm(DhmConfig(features="vgg", channels=(32, 64, 128, 256, 256))),
    "rhg": _dhm(
        DhmConfig(input_size=256, features="hourglass", recurrence="lstm", channels=(128,), hidden=768), _TRAIN_RHG
    ),
    "3dcnn": _dhm(DhmConfig(recurrence="none", steps=1)),
    "2drnn": _dhm(DhmConfig(target="landmarks", heatmap="points")),
    "fast": _fast(_FAST, _PAPER_FAST),
    "fast-x2": _fast(_FAST_X2, _PAPER_FAST_X2),
    "tiny": Architecture(Recipe(_TINY, _TRAIN_TINY)),
}
ARCHS = tuple(ARCHITECTURES)


def find_recipe(arch: str, recipe: str = "best") -> Recipe:
    """The network of an architecture and its training, "best" by us or "paper" as the papers print it.

    Raises:
        InputError: unknown architecture or recipe; the message lists the known ones.
    """
    if arch not in ARCHITECTURES:
        raise InputError(f"unknown architecture {arch!r}", f"known architectures: {', '.join(ARCHS)}")
    if recipe not in RECIPES:
        raise InputError(f"unknown recipe {recipe!r}", f"known recipes: {', '.join(RECIPES)}")
    found: Recipe | None = getattr(ARCHITECTURES[arch], recipe)
    if found is None:
        raise InputError(f"no paper has {arch}", "leave out --recipe")
    return found


def network_rules(arch: str) -> dict[str, Rule]:
    """The rules of an architecture's network; `target` can be given for all, but only some can regress p."""
    network = ARCHITECTURES[arch].best.network
    rules = network.rules()
    if network.target == "landmarks":
        # Section III-C of B; section 4.2 of A for 2drnn.
        expected = f"landmarks, which is all that {arch} regresses in its paper"
        rules["target"] = choice("landmarks", expected=expected)
    return rules
