"""What every number of a report means, in one sentence each."""

from dhm_cli.evaluation.numbers import Scoring
from dhm_cli.evaluation.scores import POSE_LIMIT
from dhm_cli.geometry.occlusion import HIDDEN
from dhm_cli.inference.passes import BELIEVED
from dhm_cli.metrics.bootstrap import FEWEST_IMAGES, LEVEL
from dhm_cli.metrics.doubts import SCALES_OF_SIGMA, SHAPE
from dhm_cli.metrics.headline import HEADLINE

_NORMALISERS = {
    "bbox": "sqrt(width x height) of the smallest box around the true 68 points of the label set in use, no margin",
    "interocular": "the distance in the image between the true outer eye corners (points 36 and 45), which shrinks to "
    "nothing in profile: for frontal faces only",
    "diagonal": "the diagonal of the smallest box around the true 68 points of the label set in use",
}
_PROTOCOLS = {
    "paper": "each face was cropped by the smallest box around the true points (original label set), squared on its "
    "longer side, times sqrt(2) about its centre",
    "detector": "each face was looked for by the face detector YuNet; of several boxes the one nearest to the true box "
    "was taken and squared as in dhm align, and a face without a box is missing",
    "jitter": "the crop of the protocol 'paper' was moved and scaled at random, uniformly, by up to the level given in "
    "percent of its side, a seed a face; the headline is the level of 10 % for both shift and scale",
    "roll": "the photo was turned by every 15 degrees, the true points with it, and the face was cropped as in "
    "'paper'; the headline is the upright photo",
    "predictions": "points that the method's own program made; how it found the faces is its own affair",
}
_LABELS = {
    "original": "the landmarks of the store: for 300W-LP and AFLW2000-3D those of the published parameters, for other "
    "datasets a 3D face model fitted to the annotated points",
    "reannotated": "the second label set of AFLW2000-3D, 2D only (Bulat and Tzimiropoulos 2017)",
}


def definitions(label_set: str, protocol: str, refine: int | None, scoring: Scoring) -> dict[str, str]:
    """One sentence for each number of a report.

    Args:
        label_set: one of `ground_truth.LABEL_SETS`.
        protocol: one of `protocols.PROTOCOLS`, or "predictions".
        refine: passes after the first; None where the method is no network of ours.
        scoring: how methods are scored.
    """
    passes = (
        f"; then {refine} more passes over upright crops around the points found, and where the network was not sure a "
        "small one that knows any roll said which way is up"
        if refine
        else ""
    )
    missing = "left out everywhere" if scoring.skip_missing else "an error beyond every threshold in rates and areas"
    return {
        "n": "faces that count; bins: the same by yaw; measured: those of them that the method gave points for, over "
        "which means and medians are",
        "nme": "mean distance in x and y of the 68 points from the true ones, in percent of "
        f"{_NORMALISERS[scoring.normaliser]}",
        **{number.defined_as: number.definition.format(threshold=scoring.threshold) for number in HEADLINE},
        "worst": "the faces of the largest NME",
        "missing": "a face for which the method gave no points has no NME and takes no part in means and medians; it "
        f"is {missing}",
        "ced": "cumulative error distribution: share of the images with an NME of at most t, from the sorted errors",
        "intervals": f"{LEVEL} % percentile intervals of {scoring.replicates:,} bootstrap replicates over the images "
        f"(seed {scoring.seed}); none from fewer than {FEWEST_IMAGES} images, nor for a failure rate of 0 or 100 %",
        "difference": "ours minus the other's by paired bootstrap: both on the same draws, means and medians over the "
        f"images that both found; better or worse where the {LEVEL} % interval excludes zero, else level; this is "
        "about the draw of these images, not about training again",
        "regions": "NME over the points of a region alone, with the normaliser of the whole face",
        "visibility": "NME over the landmarks on the near side and over those on the side turned away, of the faces "
        "that have such landmarks, by the true pose and limits taken from the annotators of MERL-RAV; hands, hair and "
        "glasses are not known",
        "landmarks": "mean error of each landmark over the images, with the normaliser of the whole face",
        "mean_offset": "median over the images of the mean shift of the points in x and y, pixels; about 1 and 1 "
        "means that a file with 1-based pixels was read as 0-based",
        "nme_3d": "as nme with distances in x, y and z, after shifting z of prediction and truth to a mean of zero "
        "over the 68 points (weak perspective knows no absolute depth); depth is the mean absolute z error alone",
        "pose": "geodesic: angle of the one rotation between the poses; then absolute errors of pitch, yaw and roll "
        "(300W-LP's convention, R = R_x R_y R_z, in which they swell near profile); degrees, without faces whose true "
        f"angles exceed {POSE_LIMIT:g} degrees; source predicted: the "
        "method's own pose; aligned: the rotation of the true points onto the predicted ones, which knows the true "
        "shape and is kinder",
        "robustness": "mean of bins and failure rate where boxes are off, by kind and level, percent of their side",
        "rolls": "the same numbers for the photo turned by every 15 degrees, over the faces whose photo reaches far "
        "enough around them; what a crop shows beyond the photo is mirrored, for a black corner would tell the angle",
        "upright": "nme and failure rate after one more pass, over an upright crop around the points found, as in dhm "
        "align",
        "sigma": "the radius around a landmark that should hold 68.27 % of its errors in x and y; 1.79 times as far 95 "
        "%, twice as far 97.2; likelihood: mean of -ln p of the errors in percent of the face size, p(d) = "
        f"C exp(-(d / s)^{SHAPE:g}) in the plane with s = sigma / {SCALES_OF_SIGMA:g}",
        "doubts": "what a network tells of its own errors: sigma, confidence, and visibility as probabilities of three "
        "states against the marks of people: hidden by the head itself, against the rest, balanced accuracy above "
        f"{HIDDEN:g}; occluded by something else, against visible",
        "confidence": "the chance of a face with an NME below 6 % of the box; areas under the ROC for that among "
        "faces, and for faces against pictures without one (the last fifth of --not-faces by name); doubtful is below "
        f"{BELIEVED:g}; kept: the faces of least mean sigma",
        "hash": "first 16 digits of a SHA-256: of a network's file, of the points of predictions as float64 in the "
        "order of the store, of a store's labels and image sizes",
        "noise_floor": "the re-annotated points scored against the original ones, by the normaliser of the original "
        "ones",
        "other_origin": "nme against the re-annotated labels with their pixels counted from the other number, 0 or 1, "
        "since their file does not say from which",
        "labels": _LABELS[label_set],
        "protocol": _PROTOCOLS[protocol] + passes,
    }
