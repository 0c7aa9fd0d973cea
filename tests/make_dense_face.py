"""Make the dense face that comes with the package from ICT-FaceKit's face area (MIT).

    python tests/make_dense_face.py SOURCE/ict_face.npz dhm_cli/dense/ict_face.npz

The source has mean (9409, 3), identity (100, 9409, 3), expression (53, 9409, 3) in centimetres, and landmarks68, but no
triangles. They are found again: two vertices are near when they are near in all expressions at once, which keeps the
lips and the lids apart; around each vertex, its neighbours are laid into a plane and triangulated (Delaunay); triangles
on which their corners agree are taken first.
"""
# ruff: noqa: T201  a script that prints what it did

import sys
from collections import Counter, defaultdict
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import Delaunay, cKDTree

from dhm_cli.dense.expressions import EXPRESSIONS

# The "narrow face area" in ICT-FaceKit's README: no ears and no neck, of which 68 landmarks tell nothing.
FACE = 6706
# The further modes move the 68 landmarks by 0.2 mm and less.
IDENTITY = 60
# Centimetres in one step of the stored whole numbers: 5 micrometres.
STEP = 0.0005
Triangle = tuple[int, int, int]


def triangulate(mean: NDArray[np.float64], expression: NDArray[np.float64]) -> NDArray[np.int32]:
    """Triangles (F, 3) of the vertices mean (V, 3) that move by expression (K, V, 3), seen from outside."""
    space = np.concatenate([mean, *(0.5 * mode for mode in expression)], axis=1)
    apart = ("jawOpen", "mouthUpperUp_L", "mouthUpperUp_R", "mouthLowerDown_L", "mouthLowerDown_R")
    shown = mean + sum(0.6 * expression[EXPRESSIONS.index(name)] for name in apart)  # the lips are
    distance, near = cKDTree(space).query(space, k=25)
    votes: Counter[Triangle] = Counter()
    for v in range(len(mean)):
        around = near[v][distance[v] <= 3 * distance[v, 4]]
        offsets = shown[around] - shown[v]
        weights = np.exp(-((np.linalg.norm(offsets, axis=1) / (1.5 * distance[v, 6])) ** 2))[:13]
        plane = np.linalg.svd(offsets[:13] * weights[:, None], full_matrices=False)[2][:2]
        flat = offsets @ plane.T
        flat *= (np.linalg.norm(offsets, axis=1) / np.maximum(np.linalg.norm(flat, axis=1), 1e-9))[:, None]
        votes.update(_sorted(around[t]) for t in Delaunay(flat).simplices if 0 in t)

    def longest(t: Triangle) -> float:
        return max(float(np.linalg.norm(space[a] - space[b])) for a, b in _edges(t))

    third: dict[tuple[int, int], list[int]] = defaultdict(list)  # what stands over each edge
    taken: list[Triangle] = []
    for t in sorted(votes, key=lambda t: (-votes[t], longest(t), t)):
        corners = [(a, b, next(c for c in t if c not in (a, b))) for a, b in _edges(t)]
        if longest(t) > 2.6 * np.median(distance[list(t), 4]):
            continue
        if any(len(third[a, b]) > 1 or _folds(shown, a, b, c, third[a, b]) for a, b, c in corners):
            continue
        taken.append(t)
        for a, b, c in corners:
            third[a, b].append(c)
    return _outwards(shown, _without_cones(_without_holes(_without_fringe(taken))))


def _sorted(t: NDArray[np.int64]) -> Triangle:
    a, b, c = sorted(t.tolist())
    return a, b, c


def _edges(t: Triangle) -> list[tuple[int, int]]:
    return [(t[0], t[1]), (t[1], t[2]), (t[0], t[2])]


def _folds(points: NDArray[np.float64], a: int, b: int, c: int, others: list[int]) -> bool:
    """Whether a triangle a, b, c would lie over one that stands on its edge a, b already."""
    along = (points[b] - points[a]) / np.linalg.norm(points[b] - points[a])

    def across(k: int) -> NDArray[np.float64]:
        offset = points[k] - points[a]
        away = offset - along * (offset @ along)
        return away / np.linalg.norm(away)

    return any(across(c) @ across(other) > 0.5 for other in others)


def _without_fringe(triangles: list[Triangle]) -> list[Triangle]:
    """Without the triangles that hang on the border by one edge or by one corner."""
    while True:
        count = Counter(edge for t in triangles for edge in _edges(t))
        kept = [t for t in triangles if sum(count[edge] == 1 for edge in _edges(t)) < 2]
        if len(kept) == len(triangles):
            return kept
        triangles = kept


def _without_holes(triangles: list[Triangle]) -> list[Triangle]:
    """With the holes of up to 8 edges closed."""
    count = Counter(edge for t in triangles for edge in _edges(t))
    beside: dict[int, list[int]] = defaultdict(list)
    for a, b in (edge for edge, users in count.items() if users == 1):
        beside[a].append(b)
        beside[b].append(a)
    filled, closed = list(triangles), set[int]()
    for start in [v for v, others in beside.items() if len(others) == 2]:
        loop = [start]
        while len(loop) < 9 and len(beside[loop[-1]]) == 2:
            following = [v for v in beside[loop[-1]] if v not in loop]
            if not following:
                break
            loop.append(following[0])
        inside = [(min(start, v), max(start, v)) for v in loop[2:-1]]
        closes = 2 < len(loop) < 9 and start in beside[loop[-1]] and not closed.intersection(loop)
        if closes and not any(count[edge] for edge in inside):
            filled += [_sorted(np.array([start, b, c])) for b, c in pairwise(loop[1:])]
            closed.update(loop)
    return filled


def _without_cones(triangles: list[Triangle]) -> list[Triangle]:
    """With one triangle for three around a vertex that others hold elsewhere: it stood on their rim as a spike."""
    fans: dict[int, list[Triangle]] = defaultdict(list)
    for t in triangles:
        for v in t:
            fans[v].append(t)
    kept = set(triangles)
    for v, fan in fans.items():
        for three in combinations(fan, 3):
            rim = set().union(*three) - {v}
            if len(rim) == 3 and len(fan) > 3:
                kept = kept - set(three) | {_sorted(np.array(list(rim)))}
    return [t for t in triangles if t in kept] + sorted(kept.difference(triangles))


def _outwards(points: NDArray[np.float64], triangles: list[Triangle]) -> NDArray[np.int32]:
    """All turned one way, counter-clockwise as seen from outside."""
    users: dict[tuple[int, int], list[int]] = defaultdict(list)
    for k, t in enumerate(triangles):
        for edge in _edges(t):
            users[edge].append(k)
    turned: dict[int, Triangle] = {0: triangles[0]}
    waiting = [0]
    while waiting:
        a, b, c = turned[waiting.pop()]
        for start, end in ((a, b), (b, c), (c, a)):
            for k in users[min(start, end), max(start, end)]:
                if k not in turned:
                    (other,) = set(triangles[k]) - {start, end}
                    turned[k] = (end, start, other)
                    waiting.append(k)
    found = np.array(list(turned.values()), np.int32)  # what is not connected is left out
    ways = Counter(way for t in found.tolist() for way in pairwise([*t, t[0]]))
    assert max(ways.values()) == 1, f"{sum(count > 1 for count in ways.values())} edges are used twice one way"
    corners = points[found]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return found if normals[:, 2].sum() > 0 else found[:, ::-1]


def main(source: Path, out: Path) -> None:
    """Read the source, write the packaged file."""
    with np.load(source) as file:
        mean, expression = (file[name].astype(np.float64) for name in ("mean", "expression"))
        identity, landmarks = file["identity"][:IDENTITY].astype(np.float64), file["landmarks68"]
    triangles = triangulate(mean[:FACE], expression[:, :FACE])
    used = np.unique(triangles)
    assert np.isin(landmarks, used).all()
    number = np.full(FACE, -1)
    number[used] = np.arange(len(used))
    steps = {
        name: np.round(values[..., used, :] / STEP).astype(np.int16)
        for name, values in (("mean", mean), ("identity", identity), ("expression", expression))
    }
    mirror = cKDTree(mean[used]).query(mean[used] * [-1, 1, 1])[1]
    with out.open("wb") as target:
        np.savez_compressed(
            target,
            step=np.float64(STEP),
            landmarks68=number[landmarks].astype(np.int32),
            keypoints68=number[landmarks].astype(np.int32),  # until `dense_offsets.py` finds better ones
            offsets68=np.zeros((68, 3), np.float32),
            mirror=mirror.astype(np.uint16),
            triangles=number[triangles].astype(np.uint16),
            **steps,
        )
    print(f"{out}: {len(used)} vertices, {len(triangles)} triangles, {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
