"""Published results on AFLW2000-3D, as printed, with their known slips."""

import importlib.resources
import json
from typing import Any


def published_results(comparable: bool, why_not: str = "") -> dict[str, Any]:
    """The rows of Table 1 of Sun et al. 2018 and of Table I of Fast DHM.

    Args:
        comparable: whether they may be set beside the results of this evaluation.
        why_not: the reason, if not.

    Returns:
        title, sources (by letter), slips (sentences), rows: each with name, source, citation, original and reannotated
        (NME in percent of the bins 0-30, 30-60, 60-90 and the printed mean, or None), cpu_fps and gpu_fps (text as
        printed, or None), size_mb (or None) and remark; comparable and why_not as given.
    """
    text = importlib.resources.files("dhm_cli").joinpath("metrics/published.json").read_text(encoding="utf-8")
    return {**json.loads(text), "comparable": comparable, "why_not": why_not}
