"""`dhm evaluate`: score a network, or any method's points, on the faces of a store."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dhm_cli.data.not_faces import read_not_faces
from dhm_cli.errors import InputError
from dhm_cli.evaluation.ground_truth import GroundTruth, check_choice, load_ground_truth
from dhm_cli.evaluation.matching import match_predictions
from dhm_cli.evaluation.method import Method, Origin
from dhm_cli.evaluation.network_landmarks import predict_faces
from dhm_cli.evaluation.numbers import Scoring
from dhm_cli.evaluation.predictions import read_predictions
from dhm_cli.evaluation.protocols import JITTER_HEADLINE, PROTOCOLS, REFINE, can_be_turned, make_protocol
from dhm_cli.evaluation.report import Report, assemble
from dhm_cli.evaluation.report_folder import ReportFolder
from dhm_cli.evaluation.scores import difference, score
from dhm_cli.geometry.landmarks import bounding_box
from dhm_cli.geometry.pose import estimate_pose
from dhm_cli.inference.engines import Engine, load_engine
from dhm_cli.inference.passes import find_landmarks
from dhm_cli.inference.weights import SCOUT, embedded_name
from dhm_cli.runtime.hashing import short_hash
from dhm_cli.runtime.progress import Progress, silent
from dhm_cli.runtime.threads import available_cores
from dhm_cli.runtime.unfinished import Unfinished

# Files of these kinds are networks; all others hold predictions.
NETWORKS = (".onnx", ".safetensors")


@dataclass(frozen=True)
class EvaluationOptions:
    """What to score and how.

    Attributes:
        data: a store of `dhm prepare`.
        model: a network, .onnx or .safetensors, or the name of one that comes with the package; None for the first.
        predictions: a method's points (`io.predictions`), in place of a network.
        name: of the method, for tables; None for one made of the file's name.
        against: other networks or predictions, each FILE or NAME=FILE.
        label_set: original or reannotated.
        split: train, val, test or all; None for test, or val where there are no test faces.
        protocol: where networks look, paper, detector or jitter; None for paper. With predictions it also says how
            they were made.
        refine: passes of the network after the first; None for what the protocol says.
        scoring: how methods are scored.
        report: folder for the report; None writes none.
        device: auto, cpu or cuda.
        threads: that work on the faces; None for one per CPU core at hand.
        face_model: for networks that regress its parameters.
        command: the command line, for the report.
        show_published: show the published rows although they cannot be compared.
        not_faces: folder of pictures without a face, to score the confidence with.
        force: replace files in the report's folder that no evaluation wrote.
    """

    data: Path
    model: str | os.PathLike[str] | None = None
    predictions: Path | None = None
    name: str | None = None
    against: Sequence[str] = ()
    label_set: str = "original"
    split: str | None = None
    protocol: str | None = None
    refine: int | None = None
    scoring: Scoring = field(default_factory=Scoring)
    report: Path | None = None
    device: str = "auto"
    threads: int | None = None
    face_model: Path | None = None
    command: str = ""
    show_published: bool = False
    not_faces: Path | None = None
    force: bool = False


@dataclass(frozen=True)
class _Source:
    """A network (file None: the embedded one; or the name of an embedded one) or a file of predictions."""

    name: str | None
    file: Path | None

    @property
    def is_network(self) -> bool:
        return embedded_name(self.file) is not None or str(self.file).lower().endswith(NETWORKS)


def evaluate(
    options: EvaluationOptions,
    progress: Progress = silent,
    ready: Callable[[Report], None] = lambda _: None,
) -> Report:
    """Score a method, compare it with others, and write the report.

    Args:
        options: what and how.
        progress: called in this thread with what is being done, the number of faces done and the total.
        ready: called in this thread with the report before it is written.

    Returns:
        What was found; NaN where there is no number.

    Raises:
        InputError: an option or a file cannot be used, or predictions do not fit the faces.
        FormatError: a store, a network or a face model is damaged.
    """
    sources = _sources(options)
    if not 0 < options.scoring.threshold < math.inf:
        raise InputError(f"--threshold {options.scoring.threshold}: not a percentage above 0", "6 is the usual one")
    truth = load_ground_truth(options.data, options.label_set, options.split)
    if options.protocol == "roll":
        truth = _turnable(truth)
    files = (options.data, options.face_model, *(source.file for source in sources))
    inputs = [file for file in files if file is not None]
    folder = None if options.report is None else ReportFolder(options.report, inputs, options.force)
    methods: list[Method] = []
    for number, source in enumerate(sources):
        if source.is_network:
            unfinished = None if folder is None else folder.unfinished(number)
            made = _network(source, truth, options, unfinished, progress)
        else:
            made = _predictions(source, truth)
        methods.append(_with_own_name(made, [method.name for method in methods]))
    progress("scoring", 0, len(truth))
    scores = [score(method, truth, options.scoring) for method in methods]
    if not scores[0].numbers.n:
        raise InputError(f"{methods[0].name}: gave no points for any face", "leave out --missing skip")
    comparisons = [difference(scores[0], other, truth, options.scoring) for other in scores[1:]]
    protocol = options.protocol or ("predictions" if options.predictions else "paper")
    refine = _refine(options)[0] if sources[0].is_network else None
    report = assemble(truth, methods, scores, comparisons, protocol, refine, options.command, options.show_published)
    ready(report)
    if folder is not None:
        progress("report", 0, len(truth))
        folder.write(report, truth, methods, scores)
    return report


def _turnable(truth: GroundTruth) -> GroundTruth:
    """The faces that the protocol "roll" can turn."""
    chosen = can_be_turned(truth.faces.landmarks, truth.faces.image_size)
    if not chosen.any():
        raise InputError(
            f"{truth.store.path}: no image reaches far enough around its face to be turned",
            "prepare whole photos, or crops of twice the face's box",
        )
    return truth.take(chosen)


def _sources(options: EvaluationOptions) -> list[_Source]:
    """The method, then those it is compared with."""
    model = None if options.model is None else Path(options.model)
    if options.predictions is not None:
        if options.model is not None:
            raise InputError("a network and --predictions: one at a time", "compare two with --against")
        if options.protocol in ("jitter", "roll"):
            raise InputError(
                f"--protocol {options.protocol}: moves the boxes of a network", "leave it out with --predictions"
            )
        if options.predictions.suffix.lower() in NETWORKS:
            raise InputError(f"{options.predictions}: a network", "give it as --model, without --predictions")
    elif not _Source(None, model).is_network:
        hint = f"for a method's points write --predictions {model}"
        raise InputError(f"{model}: not a network, which ends in {' or '.join(NETWORKS)}", hint)
    if options.protocol is not None:
        check_choice("--protocol", options.protocol, PROTOCOLS)
    sources = [_Source(options.name, options.predictions or model), *map(_other, options.against)]
    if options.refine is not None and not any(source.is_network for source in sources):
        raise InputError(f"--refine {options.refine}: is for networks", "leave it out with --predictions")
    return sources


def _other(text: str) -> _Source:
    """A method to compare with, from FILE or NAME=FILE."""
    name, equals, file = text.partition("=")
    if not equals or Path(text).exists():
        name, file = "", text
    source = _Source(name.strip() or None, Path(file))
    if embedded_name(file) is None and not (file and Path(file).exists()):
        raise InputError(f"--against {text}: no such file", "give FILE or NAME=FILE, a network or predictions")
    return source


def _with_own_name(method: Method, taken: Sequence[str]) -> Method:
    """The method under a name that can be printed and that no other has."""
    plain = "".join(letter if letter.isprintable() else "?" for letter in method.name)
    name, number = plain, 2
    while name in taken:
        name, number = f"{plain} ({number})", number + 1
    return replace(method, name=name)


def _refine(options: EvaluationOptions) -> tuple[int, ...]:
    return REFINE[options.protocol or "paper"] if options.refine is None else (options.refine,)


def _network(
    source: _Source, truth: GroundTruth, options: EvaluationOptions, unfinished: Path | None, progress: Progress
) -> Method:
    """Run a network over the faces; what is done is kept in the file `unfinished`."""
    engine = load_engine(options.device, source.file, face_model=options.face_model)
    scout = load_engine(options.device, SCOUT)
    embedded = embedded_name(source.file)
    protocol_name, refine = options.protocol or "paper", _refine(options)
    origin = Origin(
        "network",
        file=str(source.file) if embedded is None else f"the network {embedded} that comes with dhm",
        hash=engine.weights_hash,
        arch=engine.arch,
        input_size=engine.input_size,
        protocol=protocol_name,
        refine=refine[0],
    )
    name = source.name or embedded or "/".join(Path(str(source.file)).with_suffix("").parts[-2:])
    protocol = make_protocol(protocol_name, truth.faces.landmarks, truth.faces.names)
    images = str(truth.store.attributes.get("images_hash"))
    faces = {"split": truth.split, "faces": truth.store.fingerprint(), "images": images, "number": len(truth)}
    key = {"network": origin.to_json(), "refine": refine, "scout": scout.weights_hash, **faces}
    kept = Unfinished(unfinished, key)
    threads = options.threads or available_cores()
    found = predict_faces(scout, engine, truth, protocol, refine, threads, kept, progress, name)
    row = JITTER_HEADLINE if protocol_name == "jitter" else 0
    landmarks = found.landmarks[row].astype(np.float64)
    not_faces = None
    if options.not_faces is not None and engine.doubts:
        not_faces = _confidence_without_a_face(scout, engine, options.not_faces, refine[-1])
    return Method(
        name,
        origin,
        landmarks,
        _pose(landmarks, engine.mean_shape),
        variants=found.landmarks if protocol.variants > 1 else None,
        upright=found.landmarks[1].astype(np.float64) if len(refine) > 1 else None,
        sigma=None if found.sigma is None else found.sigma[row],
        visibility=None if found.visibility is None else found.visibility[row],
        confidence=None if found.confidence is None else found.confidence[row],
        not_faces=not_faces,
    )


def _confidence_without_a_face(scout: Engine, engine: Engine, folder: Path, refine: int) -> NDArray[np.floating]:
    """The network's confidence in the held-out pictures of a folder, (M,)."""
    pictures = read_not_faces(folder, "val")
    claims = []
    for row in range(len(pictures)):
        image = pictures.image(row)
        height, width = image.shape[:2]
        square = np.array([(width - 1) / 2, (height - 1) / 2]), float(min(width, height))
        found = find_landmarks(scout, engine, [image], [square], refine).confidence
        assert found is not None
        claims.append(found[0])
    return np.array(claims)


def _pose(landmarks: NDArray[np.float64], mean_shape: NDArray[np.float64]) -> NDArray[np.float64]:
    """The pose by the angles of 300W-LP, (N, 3), degrees; NaN for a face that was not found."""
    pose = np.full((len(landmarks), 3), np.nan)
    found = ~np.isnan(landmarks).any(axis=(1, 2))
    pose[found] = np.degrees(estimate_pose(landmarks[found], mean_shape))
    return pose


def _predictions(source: _Source, truth: GroundTruth) -> Method:
    """Read a method's points and find those of each face."""
    file = source.file
    assert file is not None
    read = read_predictions(file)
    match = match_predictions(read, truth.faces.names.tolist(), bounding_box(truth.faces.landmarks), file)
    rows, found = match.rows, match.rows >= 0
    landmarks = np.full((len(truth), *read.landmarks.shape[1:]), np.nan)
    landmarks[found] = read.landmarks[rows[found]]
    pose = None
    if read.pose is not None:
        pose = np.full((len(truth), 3), np.nan)
        pose[found] = read.pose[rows[found]]
    digest = short_hash(landmarks.tobytes())
    origin = Origin("predictions", file=str(file), hash=digest, unused=len(match.unused))
    return Method(source.name or file.stem, origin, landmarks, pose)
