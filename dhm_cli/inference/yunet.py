"""The face detector YuNet: its network, and the search for faces of all sizes with it."""

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from dhm_cli.errors import DhmError, FormatError
from dhm_cli.inference.face_box import MIN_SCORE, FaceBox
from dhm_cli.inference.onnx_session import onnx_session, run_session
from dhm_cli.inference.weights import INSTALL_AGAIN, packaged
from dhm_cli.io.photo import Pixels, copy_of

# Longest side of the copy in which faces are looked for, pixels; see FaceDetector.
DETECTION_SIZES = (256, 640, 1280)
# A face or a weak candidate below this mean side, in pixels of that copy, calls for the next size.
SMALL_FACE = 24.0
# Score from which a candidate counts as a hint that small faces are about.
HINT_SCORE = 0.3

# YuNet looks for faces on three grids, pixels of its input from one node to the next.
_STRIDES = (8, 16, 32)
# Its heads that are used: face or not, how well the box fits, and the box; it has one for five landmarks too.
_HEAD, _HEADS = "bbox_head.multi_level", ("cls", "obj", "bbox")
# What it gives here, by name, and how many numbers a node.
_OUTPUTS = {"chances": 2, "boxes": 4}
# Of two candidates that share more than this, intersection over union, the better one stays; OpenCV's default.
_MOST_SHARED = 0.3
# A box within another is a piece of that face, not the same face, below this share of its mean side.
_PIECE = 0.6
# As OpenCV's model zoo publishes it, MIT licence.
_MODEL_FILE = "face_detection_yunet_2023mar.onnx"


class YuNet:
    """The network YuNet (Wu et al. 2023) in ONNX Runtime.

    It gives the boxes of `cv2.FaceDetectorYN` in a quarter of the time. Safe to call from several threads.

    Args:
        min_score: least score of a candidate, 0 to 1.

    Raises:
        DhmError: the network's file is missing or damaged.
    """

    def __init__(self, min_score: float) -> None:
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

        self.min_score = min_score
        try:
            self._session = onnx_session(_slim(_read_model()), _MODEL_FILE)
        except (DecodeError, ValueError, LookupError, StopIteration, FormatError) as error:
            raise DhmError(f"the face detector's file {_MODEL_FILE} is damaged", INSTALL_AGAIN) from error

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Find the faces of an image as it is.

        Args:
            image: (H, W, 3) uint8 RGB.

        Returns:
            (N, 5): left, top, width, height, score, the best first. Pixels of the image, in a frame where pixel centres
            lie at +0.5.
        """
        rows, columns = (-side % _STRIDES[-1] for side in image.shape[:2])
        if rows or columns:
            image = cv2.copyMakeBorder(image, 0, rows, 0, columns, cv2.BORDER_CONSTANT)
        (face, inside), boxes = run_session(self._session, [*_OUTPUTS], image=image[None])
        scores = np.sqrt(face * inside)
        kept = np.flatnonzero(scores >= self.min_score)
        nodes, strides = _nodes(*image.shape[:2])
        box, stride = boxes[:, kept].T, strides[kept, None]
        size = np.exp(box[:, 2:]) * stride
        corner = (nodes[kept] + box[:, :2]) * stride - size / 2
        return _best_of_each_face(np.concatenate([corner, size, scores[kept, None]], axis=1), self.min_score)


@lru_cache(maxsize=16)
def _nodes(height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The nodes of an image's three grids, in the network's order: column and row (N, 2), and stride (N,)."""
    grids = [np.indices((height // stride, width // stride))[::-1].reshape(2, -1).T for stride in _STRIDES]
    strides = np.repeat(_STRIDES, [len(grid) for grid in grids])
    return np.concatenate(grids).astype(np.float32), strides.astype(np.float32)


def _best_of_each_face(boxes: NDArray[np.float32], min_score: float) -> NDArray[np.float32]:
    """Non-maximum suppression as `cv2.FaceDetectorYN` does it, on boxes cut to whole pixels."""
    whole = np.trunc(boxes[:, :4]).tolist()
    return boxes[list(cv2.dnn.NMSBoxes(whole, boxes[:, 4].tolist(), min_score, _MOST_SHARED))]


def _slim(model: bytes) -> bytes:
    """YuNet as it is used here, in 60 % of the time for equal numbers.

    Its file takes 640 x 640 pixels, blue first, as planes of floats. This one takes `image`, (1, H, W, 3) uint8 RGB of
    any size in multiples of 32, and its heads, which see the same features, are one. It gives `chances`, (2, N), that a
    node of the three grids sees a face and how well its box fits, and `boxes`, (4, N), centre from the node and
    logarithm of the size, in strides.

    Raises:
        DecodeError: it is not an ONNX file.
        LookupError: it is another network.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    network, make = onnx.load_from_string(model), helper.make_node
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in network.graph.initializer}
    weights["flat"] = np.array([6, -1])
    features = {name: node.input[0] for node in network.graph.node for name in node.input[1:]}
    head = next(k for k, node in enumerate(network.graph.node) if any(_HEAD in name for name in node.input))
    body = network.graph.node[:head]
    weights[body[0].input[1]] = weights[body[0].input[1]][:, ::-1]
    nodes = [make("Transpose", ["image"], ["bytes"], perm=[0, 3, 1, 2])]
    nodes += [make("Cast", ["bytes"], [body[0].input[0]], to=TensorProto.FLOAT), *body]
    for level in map(str, range(len(_STRIDES))):
        parts = [f"{level}.{layer}.{part}" for layer in ("conv1", "conv2") for part in ("weight", "bias")]
        for part in parts:
            weights[part] = np.concatenate([weights[f"{_HEAD}_{name}.{part}"] for name in _HEADS])
        nodes.append(make("Conv", [features[f"{_HEAD}_{_HEADS[0]}.{parts[0]}"], *parts[:2]], [f"mixed_{level}"]))
        nodes.append(make("Conv", [f"mixed_{level}", *parts[2:]], [f"map_{level}"], pads=[1, 1, 1, 1], group=6))
        nodes.append(make("Reshape", [f"map_{level}", "flat"], [f"nodes_{level}"]))
    nodes.append(make("Concat", [f"nodes_{level}" for level in range(len(_STRIDES))], ["found"], axis=1))
    nodes.append(make("Split", ["found"], ["logits", "boxes"], axis=0, split=[2, 4]))
    nodes.append(make("Sigmoid", ["logits"], ["chances"]))
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "yunet",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, "height", "width", 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [k, "nodes"]) for name, k in _OUTPUTS.items()],
        [numpy_helper.from_array(array, name) for name, array in weights.items() if name in used],
    )
    slim = helper.make_model(graph, opset_imports=network.opset_import, ir_version=network.ir_version)
    return slim.SerializeToString()


class FaceDetector:
    """A `Detector`: finds faces with `YuNet`, in a small copy of the photo first.

    Time grows with the area searched (one core: 1.8 ms at 256 x 256, 12 ms at 640, 55 ms at 1280), and a face that
    fills a tenth of the photo is found as surely at 256 as at full size. So each photo is searched at 256, and at the
    next size only where that could change the answer: nothing was found, or something was found, even weakly, that is
    smaller than 24 pixels there, in which case other faces may be too small to be seen. In two group photos of 23 and
    27 people 256 pixels show 23 and 10, and the rule brings all 23 and 27. A small face must be seen at the larger size
    too. Of two boxes of one face the one with the higher score stays, from whatever copy. Where to look does not depend
    on `min_score`, so a higher one only leaves out boxes.

    What it does not find: the small people behind one large face, when none of them leaves a trace at 256 pixels (below
    about 4 % of the photo's longer side), and faces turned sideways or upside down: turned copies are not tried,
    because they would make a photo without a face four times as slow and four times as open to false alarms.

    Safe to call from several threads.

    Args:
        min_score: least score of a face, 0 to 1.
        sizes: longest sides of the copies to search, pixels, ascending.

    Raises:
        DhmError: the detector's file is missing or damaged.
    """

    def __init__(self, min_score: float = MIN_SCORE, sizes: tuple[int, ...] = DETECTION_SIZES) -> None:
        self.min_score = min_score
        self.sizes = sizes
        self._network = YuNet(min(HINT_SCORE, min_score))

    def detect(self, image: Pixels) -> list[FaceBox]:
        """Find the faces of a photo.

        Args:
            image: (H, W, 3) uint8 RGB, at least 1 x 1, or a `Photo`.

        Returns:
            Boxes in photo pixels, largest first; empty when there is no face.
        """
        longest = max(image.shape[:2])
        candidates: list[FaceBox] = []
        for size in self.sizes:
            size = size if size == self.sizes[0] else min(size, longest)  # more would add no detail
            seen = [box for box in self._detect_at(image, size) if not _is_part_of_any(box, candidates)]
            small = SMALL_FACE * longest / size
            sure = any(box.score >= MIN_SCORE for box in [*candidates, *seen])
            large_alone = all(box.mean_side >= small for box in seen if box.score >= HINT_SCORE)
            if size >= longest or size == self.sizes[-1] or (sure and large_alone):
                candidates += seen
                break
            # Small faces are seen better in the next copy, and must be seen there too.
            candidates += [box for box in seen if box.mean_side >= small]
        found = [box for box in _best_boxes(candidates) if box.score >= self.min_score]
        return sorted(found, key=lambda box: (-box.width * box.height, box.left, box.top))

    def _detect_at(self, image: Pixels, size: int) -> list[FaceBox]:
        """Boxes in photo pixels, weak ones included, from a copy of `size` pixels on its longer side."""
        scale = size / max(image.shape[:2])
        seen = copy_of(image, 1 / scale)
        height, width = (seen.factor * side for side in seen.image.shape[:2])
        columns, rows = max(1, round(width * scale)), max(1, round(height * scale))
        copy = cv2.resize(seen.image, (columns, rows), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        boxes = self._network(copy)
        # YuNet's boxes are edges in a frame where pixel centres lie at +0.5.
        factors = np.array([width / columns, height / rows] * 2)
        edges = boxes[:, :4] * factors + [seen.left - 0.5, seen.top - 0.5, 0.0, 0.0]
        return [FaceBox(*row) for row in np.column_stack([edges, boxes[:, 4]]).tolist()]


def _best_boxes(candidates: list[FaceBox]) -> list[FaceBox]:
    """The best box of each face: of two that share half of the smaller one, the one with the higher score stays."""
    kept: list[FaceBox] = []
    for box in sorted(candidates, key=lambda box: -box.score):
        if all(_shared(box, other) < 0.5 for other in kept):
            kept.append(box)
    return kept


def _is_part_of_any(box: FaceBox, others: list[FaceBox]) -> bool:
    """Whether it is a piece of a sure face, much smaller and within it: large copies break large faces up."""
    return any(
        other.score >= MIN_SCORE and box.mean_side < _PIECE * other.mean_side and _shared(box, other) >= 0.5
        for other in others
    )


def _shared(a: FaceBox, b: FaceBox) -> float:
    """Area of the intersection over the smaller box's area, 0 to 1."""
    width = min(a.left + a.width, b.left + b.width) - max(a.left, b.left)
    height = min(a.top + a.height, b.top + b.height) - max(a.top, b.top)
    smaller = min(a.width * a.height, b.width * b.height)
    return 0.0 if min(width, height, smaller) <= 0 else width * height / smaller


def _read_model() -> bytes:
    """YuNet's file, which comes with the package."""
    try:
        return packaged(_MODEL_FILE).read_bytes()
    except OSError as error:
        raise DhmError(f"the face detector's file {_MODEL_FILE} is missing", INSTALL_AGAIN) from error
