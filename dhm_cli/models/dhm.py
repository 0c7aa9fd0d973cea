"""Deep evolutionary 3D heat maps (Sun et al. 2018): a recurrence updates p, looking at the photo and its last guess.

One class makes DHM, its VGG and hourglass forms (DHM+RHG) and the two ablations of section 4.2; `DhmConfig` says which.
"""

import torch
from torch import Tensor, nn

from dhm_cli.config.networks import DhmConfig
from dhm_cli.models.features import Features
from dhm_cli.models.heatmaps import draw_heatmap
from dhm_cli.models.interface import AlignmentOutput, Network
from dhm_cli.models.recurrent_state import LandmarkState, ParameterState, place_in_crop
from dhm_cli.morphable.face_model import FaceModel


class Dhm(Network):
    """Photo, and a heat map of the last guess -> features -> recurrence -> change of p, T times (Alg. 1, Eq. 4).

    h_{t+1} = tanh(W_ih features([I, DHM(p_t)]) + W_hh h_t), p_{t+1} = p_t + W_ho h_{t+1}; the heat map is drawn again
    from p in every step, and the gradient flows through the face model and the heat map.

    Args:
        config: layers and sizes.
        mean_shape: (68, 3), see `Network`. Where the recurrence updates landmarks, they start from it.
        face_model: needed where the recurrence updates p, which starts from the model's own mean.
    """

    config: DhmConfig

    def __init__(self, config: DhmConfig, mean_shape: Tensor, face_model: FaceModel | None = None) -> None:
        super().__init__(config, mean_shape)
        self.features = Features(config)
        self.recurrence: VanillaRecurrence | LstmRecurrence | NoRecurrence
        self.recurrence = RECURRENCES[config.recurrence](self.features.numbers, config.hidden)
        self.state: LandmarkState | ParameterState
        if config.target == "params":
            assert face_model is not None, "a network that regresses p needs its face model"
            self.state = ParameterState(face_model, config.input_size, config.rotation)
            self.face_model_hash = face_model.hash()
        else:
            self.state = LandmarkState(place_in_crop(self.mean_shape, config.input_size), config.input_size)
            self.register_load_state_dict_post_hook(_start_from_loaded_shape)
        self.update = nn.Linear(config.hidden, self.state.numbers, bias=False)  # W_ho
        self._initialise()

    @property
    def initial_landmarks(self) -> Tensor:
        """Landmarks before the first step, (68, 3), crop pixels."""
        return self.state.landmarks(self._initial_state(1))[0]

    def start_from_mean_shape(self) -> None:
        """Place the mean shape in the crop again, where landmarks start from it; needed after it has changed."""
        self.state.initial.copy_(place_in_crop(self.mean_shape, self.config.input_size))

    def forward(self, images: Tensor) -> AlignmentOutput:
        """Landmarks, and p where the network regresses it, after every step; see `Network`."""
        self._check_shape(images)
        photo = self.features.photo_response(images)
        state = self._initial_state(images.shape[0])  # not len(), which an export would take for a constant
        with torch.autocast(images.device.type, enabled=False):  # pixels need more than the 8 bits of bfloat16
            landmarks = self.state.landmarks(state)
            fixed = None if self.config.heatmap == "evolving" else self._fixed_heatmap()
        features = None if fixed is None else self.features(photo, fixed)
        hidden = None
        steps, parameters = [], []
        for _ in range(self.config.steps):
            seen = self.features(photo, self._draw(landmarks)) if features is None else features
            hidden = self.recurrence(seen, hidden)
            with torch.autocast(images.device.type, enabled=False):
                state = state + self.update(self.recurrence.output(hidden).float())
                landmarks = self.state.landmarks(state)
            steps.append(landmarks)
            parameters.append(self.state.parameters_of(state))
        return AlignmentOutput(torch.stack(steps, dim=1), _stacked(parameters))

    def unused_parameters(self, loss: str) -> tuple[str, ...]:
        """W_hh, where there is one step and so no h before it."""
        return ("recurrence.hidden.weight",) if self.config.recurrence == "rnn" and self.config.steps == 1 else ()

    def _initial_state(self, count: int) -> Tensor:
        return self.mean_shape.new_zeros(count, self.state.numbers)

    def _fixed_heatmap(self) -> Tensor:
        """The heat map of the initial landmarks, or for "points" their positions alone, (1, 3, S, S)."""
        points = self.initial_landmarks[None]
        return self._draw(points, torch.ones_like(points) if self.config.heatmap == "points" else None)

    def _draw(self, landmarks: Tensor, values: Tensor | None = None) -> Tensor:
        # Measured on a CPU: the first convolution takes half the time on a map that lies as its weights do in training.
        return draw_heatmap(landmarks, self.config.input_size, values=values, memory_format=torch.channels_last)

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.update.weight, std=0.1 / self.config.hidden**0.5)  # start near the mean face


def _stacked(steps: list[Tensor | None]) -> Tensor | None:
    known = [step for step in steps if step is not None]
    return torch.stack(known, dim=1) if known else None


class VanillaRecurrence(nn.Module):
    """h_{t+1} = tanh(W_ih x_t + W_hh h_t), Eq. (4).

    Args:
        inputs: length of x.
        hidden: length of h.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.input = nn.Linear(inputs, hidden)
        self.hidden = nn.Linear(hidden, hidden, bias=False)

    def forward(self, x: Tensor, hidden: Tensor | None) -> Tensor:
        """(B, inputs) and the last h or None -> (B, hidden)."""
        return torch.tanh(self.input(x) if hidden is None else self.input(x) + self.hidden(hidden))

    @staticmethod
    def output(hidden: Tensor) -> Tensor:
        """h, from what `forward` returns."""
        return hidden


class LstmRecurrence(nn.Module):
    """A long short-term memory (Hochreiter and Schmidhuber 1997) in the place of Eq. (4), section 3.2.

    Args:
        inputs: length of x.
        hidden: length of h and c.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(inputs, hidden)

    def forward(self, x: Tensor, hidden: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """(B, inputs) and the last (h, c) or None -> (h, c), each (B, hidden)."""
        h, c = self.cell(x, hidden)
        return h, c

    @staticmethod
    def output(hidden: tuple[Tensor, Tensor]) -> Tensor:
        """h, from what `forward` returns."""
        return hidden[0]


class NoRecurrence(nn.Module):
    """One layer, tanh(W x + b), that remembers nothing: the 3D-CNN of section 4.2.

    Args:
        inputs: length of x.
        hidden: length of the result.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.input = nn.Linear(inputs, hidden)

    def forward(self, x: Tensor, _: Tensor | None) -> Tensor:
        """(B, inputs) -> (B, hidden)."""
        return torch.tanh(self.input(x))

    @staticmethod
    def output(hidden: Tensor) -> Tensor:
        """What `forward` returns."""
        return hidden


RECURRENCES: dict[str, type[VanillaRecurrence | LstmRecurrence | NoRecurrence]] = {
    "rnn": VanillaRecurrence,
    "lstm": LstmRecurrence,
    "none": NoRecurrence,
}


def _start_from_loaded_shape(network: Dhm, _: object) -> None:  # not a lambda, so that networks can be pickled
    network.start_from_mean_shape()
