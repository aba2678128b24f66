"""Winding numbers of closed surfaces, and meshes whose bodies face outwards.

The winding number w(p) of a closed surface about a point is the sum of the solid angles of its triangles over 4 pi
(Jacobson et al. 2013, eq. 5). Oriented outwards, each body that holds p adds 1 and each cavity around p subtracts 1, so
p is inside where w(p) > 0, also where bodies overlap.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

_PAIRS = 1 << 18  # of points and triangles at a time
_CELLS_PER_TRIANGLE = 8  # at most, on average, that list a triangle
_PROBES = 200  # triangles of a body whose centroids are tested against the other bodies


class WindingNumber:
    """The winding number of a closed surface about points, exact.

    For a closed surface the sum of solid angles is the number of crossings of a ray, those from inside to outside less
    those from outside to inside. Rays run along +z, and a grid over (x, y) lists the triangles that each can meet.

    Args:
      triangles: the corners [F, 3, 3]; the surface is closed.
    """

    def __init__(self, triangles: np.ndarray):
        self._triangles = np.asarray(triangles, float)
        corners = self._triangles[..., :2]
        self._low = corners.min((0, 1))
        self._size = np.maximum(corners.max((0, 1)) - self._low, np.finfo(float).tiny)
        self._side = max(1, round(len(triangles) ** 0.5))
        while True:
            first, last = self._cell(corners.min(1)), self._cell(corners.max(1))
            spans = last - first + 1
            counts = spans.prod(1)
            if self._side == 1 or counts.sum() <= _CELLS_PER_TRIANGLE * len(counts):
                break
            self._side //= 2
        triangle, nth = _expand(counts)
        column, row = np.divmod(nth, spans[triangle, 1])
        cell = (first[triangle, 0] + column) * self._side + first[triangle, 1] + row
        self._listed = triangle[np.argsort(cell, kind='stable')]
        self._counts = np.bincount(cell, minlength=self._side**2)
        self._starts = np.cumsum(self._counts) - self._counts

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """int [N], about points [N, 3]; on the surface itself it is that of either side."""
        points = np.asarray(points, float)
        found = np.zeros(len(points), int)
        near = np.flatnonzero(((points[:, :2] >= self._low) & (points[:, :2] <= self._low + self._size)).all(1))
        cells = self._cell(points[near, :2])
        cells = cells[:, 0] * self._side + cells[:, 1]
        parts = np.cumsum(self._counts[cells]) // _PAIRS
        for part in np.split(np.arange(len(near)), np.flatnonzero(np.diff(parts)) + 1):
            which, nth = _expand(self._counts[cells[part]])
            triangle = self._listed[self._starts[cells[part]][which] + nth]
            crossed = _crossings(self._triangles[triangle] - points[near[part]][which, None])
            found[near[part]] = np.bincount(which, crossed, len(part))
        return found

    def _cell(self, places: np.ndarray) -> np.ndarray:
        """Column and row [.., 2] of the cell of each place [.., 2]."""
        at = (places - self._low) / self._size * self._side
        return np.clip(at.astype(int), 0, self._side - 1)


def _crossings(corners: np.ndarray) -> np.ndarray:
    """How the ray from the origin along +z crosses triangles [M, 3, 3]: 1 outwards, -1 inwards, 0 not at all.

    A ray through an edge or a corner counts as one beside it, shifted by (e, e^2) for a vanishing e (simulation of
    simplicity, Edelsbrunner & Muecke 1990). Edges of two triangles have exactly opposite signs in both, so that no
    rounding opens the surface along them.
    """
    x, y, z = np.moveaxis(corners, -1, 0)
    ahead = np.array([1, 2, 0])
    to_x, to_y = x[:, ahead], y[:, ahead]
    areas = x * to_y - y * to_x  # of edge i and the ray; it weighs the corner across, (i + 2) % 3
    sides = np.sign(areas)
    sides = np.where(sides == 0, np.sign(y - to_y), sides)
    sides = np.where(sides == 0, np.sign(to_x - x), sides)
    turns = np.where((sides == sides[:, :1]).all(1), sides[:, 0], 0)
    above = (areas * z[:, [2, 0, 1]]).sum(1) * turns > 0
    return np.where(above, turns, 0)


def _expand(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each of the `counts` entries of each row: its row, and which of the row's entries it is."""
    rows = np.repeat(np.arange(len(counts)), counts)
    return rows, np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)


# --- orientation --------------------------------------------------------------------------------------------------


def unpaired_edges(faces: np.ndarray) -> int:
    """How many edges triangles [F, 3] do not run along as often in one direction as in the other.

    It is 0 where the triangles are closed and oriented alike, so that their winding number is whole.
    """
    _, edge, forward = _edges(faces)
    return int(np.count_nonzero(np.bincount(edge, forward)))


def orient_bodies(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Turns triangles [F, 3] so that each connected body is oriented alike, and closed bodies face outwards.

    Within a body the larger area decides. Between bodies the given orientation stays wherever it is possible: a body
    within another may be a cavity of it, or a part that overlaps it. Where it would make the winding number negative
    the body is turned, with all that lies within it: so the outermost bodies face outwards, and a mesh that is inside
    out keeps its cavities.
    """
    edges = _edges(faces)
    body, turned = _agree(vertices[faces], edges)
    forward = np.where(turned[edges[0]], -edges[2], edges[2])
    faces = np.where(turned[:, None], faces[:, ::-1], faces)
    volumes = _volumes(vertices[faces], body, edges[1], forward)
    if (volumes >= 0).all():
        return faces
    return np.where(_inside_out(vertices[faces], body, volumes)[body][:, None], faces[:, ::-1], faces)


def _edges(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the three edges of each face, in order [3 F]: the face, the number of the edge, and 1 or -1 by direction."""
    ends = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).astype(np.int64)
    low, high = ends.min(1), ends.max(1)
    _, edge = np.unique(low * (high.max() + 1) + high, return_inverse=True)
    return np.arange(len(ends)) // 3, edge, np.where(ends[:, 0] < ends[:, 1], 1, -1)


def _agree(triangles: np.ndarray, edges: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The body of each face [F], and whether it is to be turned to agree with most of its body's area.

    Faces are neighbours over edges of exactly two. Every face stands in a graph twice, as it is and turned, and is
    linked to its neighbours as they agree with it: a body that can be oriented is two components of that graph.
    """
    face, edge, forward = edges
    order, counts = np.argsort(edge, kind='stable'), np.bincount(edge)
    first = (np.cumsum(counts) - counts)[counts == 2]
    one, other = order[first], order[first + 1]
    against = forward[one] == forward[other]
    one, other, count = face[one], face[other], len(triangles)
    body = _components(one, other, count)
    if not against.any():
        return body, np.zeros(count, bool)
    label = _components(
        np.concatenate((one, one + count)),
        np.concatenate((other + count * against, other + count * ~against)),
        2 * count,
    )
    as_it_is, turned = label[:count], label[count:]
    kept = np.bincount(as_it_is, _double_areas(triangles), 2 * count)  # the area that each way to orient a body keeps
    ties = (kept[turned] == kept[as_it_is]) & (turned < as_it_is)
    return body, (kept[turned] > kept[as_it_is]) | ties


def _components(one: np.ndarray, other: np.ndarray, count: int) -> np.ndarray:
    return connected_components(coo_array((np.ones(len(one)), (one, other)), (count, count)), directed=False)[1]


def _double_areas(triangles: np.ndarray) -> np.ndarray:
    a, b, c = np.moveaxis(triangles, 1, 0)
    return np.linalg.norm(np.cross(b - a, c - a), axis=-1)


def _volumes(triangles: np.ndarray, body: np.ndarray, edge: np.ndarray, forward: np.ndarray) -> np.ndarray:
    """Signed volumes of the bodies, positive where they face outwards; 0 of those that are not closed."""
    count = edge.max() + 1
    pairs, number = np.unique(np.repeat(body, 3) * count + edge, return_inverse=True)
    volumes = np.bincount(body, np.linalg.det(triangles - triangles.mean((0, 1))) / 6)
    volumes[pairs[np.bincount(number, forward) != 0] // count] = 0
    return volumes


def _inside_out(triangles: np.ndarray, body: np.ndarray, volumes: np.ndarray) -> np.ndarray:
    """Whether each body [K] is to be turned; the largest are decided first."""
    order = np.argsort(body, kind='stable')
    parts = np.split(triangles[order], np.cumsum(np.bincount(body))[:-1])
    lows, highs = (np.stack([end(part, (0, 1)) for part in parts]) for end in (np.min, np.max))
    probes = [part[:: -(-len(part) // _PROBES)].mean(1) for part in parts]
    around = [np.zeros(len(places)) for places in probes]  # the winding number of all larger bodies
    signs = np.sign(volumes)
    closed = [k for k in np.argsort(-np.abs(volumes), kind='stable') if volumes[k]]
    for place, k in enumerate(closed):
        near = [i for i in closed[place + 1 :] if (lows[i] < highs[k]).all() and (highs[i] > lows[k]).all()]
        number = WindingNumber(parts[k]) if near else None
        inside = {i: number(probes[i]) != 0 for i in near} if number else {}
        if around[k].min() + signs[k] < 0:
            signs[k] = -signs[k]
            for i, held in inside.items():
                signs[i] *= -1 if held.all() else 1
        for i, held in inside.items():
            around[i] += signs[k] * held
    return signs != np.sign(volumes)
