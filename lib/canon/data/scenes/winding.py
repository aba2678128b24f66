"""Winding numbers of closed surfaces, and the orientation of the bodies of a mesh.

The winding number w(p) of a closed surface about a point p is the sum of the solid angles of its triangles over 4 pi
(Jacobson et al. 2013, eq. 5). With outward orientation each body that contains p adds 1 and each cavity around p
subtracts 1, so p is inside where w(p) > 0, even where bodies overlap.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

_PAIRS = 1 << 18  # pairs of a point and a triangle that are tested at a time
_CELLS_PER_TRIANGLE = 8  # cells in which a triangle is listed, on average, at most
_PROBES = 200  # centroids of a body's triangles that are tested against the other bodies


class WindingNumber:
    """Computes the exact winding number of a closed surface about points.

    For a closed surface the sum of solid angles equals the signed number of crossings along any ray: those from inside
    to outside less those from outside to inside. Rays run along +z, and a grid over (x, y) lists the triangles that
    each ray can meet.

    Args:
      triangles: vertices [F, 3, 3] of a closed surface.
    """

    def __init__(self, triangles: np.ndarray):
        self._triangles = np.asarray(triangles, float)
        corners = self._triangles[..., :2]
        self._low = corners.min((0, 1))
        self._size = np.maximum(corners.max((0, 1)) - self._low, np.finfo(float).tiny)
        self._side = max(1, round(len(triangles) ** 0.5))
        while True:  # coarsens the grid until long triangles are not listed in too many cells
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
        """Returns winding numbers int [N] about points [N, 3]; on the surface, that of either side."""
        points = np.asarray(points, float)
        numbers = np.zeros(len(points), int)  # 0 for points outside the bounding rectangle
        near = np.flatnonzero(((points[:, :2] >= self._low) & (points[:, :2] <= self._low + self._size)).all(1))
        cells = self._cell(points[near, :2])
        cells = cells[:, 0] * self._side + cells[:, 1]
        parts = np.cumsum(self._counts[cells]) // _PAIRS
        for part in np.split(np.arange(len(near)), np.flatnonzero(np.diff(parts)) + 1):
            point, nth = _expand(self._counts[cells[part]])
            triangle = self._listed[self._starts[cells[part]][point] + nth]
            crossed = _crossings(self._triangles[triangle] - points[near[part]][point, None])
            numbers[near[part]] = np.bincount(point, crossed, len(part))
        return numbers

    def _cell(self, positions: np.ndarray) -> np.ndarray:
        """Returns column and row [..., 2] of the cells that contain positions [..., 2]."""
        index = ((positions - self._low) / self._size * self._side).astype(int)
        return np.clip(index, 0, self._side - 1)


def _crossings(corners: np.ndarray) -> np.ndarray:
    """Returns the crossings of the ray from the origin along +z with triangles [M, 3, 3].

    1 for a crossing outwards, -1 inwards, 0 for a miss. A ray through an edge or a vertex is treated as if it were
    shifted by (e, e^2) for a vanishing e (simulation of simplicity, Edelsbrunner & Muecke 1990). An edge has exactly
    opposite signs in its two triangles, so rounding never opens the surface along it.
    """
    x, y, z = np.moveaxis(corners, -1, 0)
    ahead = np.array([1, 2, 0])
    to_x, to_y = x[:, ahead], y[:, ahead]
    areas = x * to_y - y * to_x  # twice the area of edge i and the ray: the weight of the vertex opposite, (i + 2) % 3
    sides = np.sign(areas)
    sides = np.where(sides == 0, np.sign(y - to_y), sides)
    sides = np.where(sides == 0, np.sign(to_x - x), sides)
    turns = np.where((sides == sides[:, :1]).all(1), sides[:, 0], 0)
    above = (areas * z[:, [2, 0, 1]]).sum(1) * turns > 0
    return np.where(above, turns, 0)


def _expand(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lists the entries of rows that have `counts` entries each: the row of each entry, and its index in the row."""
    rows = np.repeat(np.arange(len(counts)), counts)
    return rows, np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)


# --- orientation --------------------------------------------------------------------------------------------------


def count_unpaired_edges(faces: np.ndarray) -> int:
    """Counts the edges that triangles [F, 3] traverse more often in one direction than in the other.

    It is 0 for closed and consistently oriented triangles, whose winding number is an integer.
    """
    _, edge, forward = _edges(faces)
    return int(np.count_nonzero(np.bincount(edge, forward)))


def orient_bodies(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Flips triangles so that each connected body is consistently oriented, and closed bodies face outwards.

    Within a body the orientation of the larger area is kept. Between bodies the given orientation is kept wherever
    possible: a body within another may be a cavity of it, or a part that overlaps it. Where it would make the winding
    number negative, the body is flipped together with all bodies inside it. The outermost bodies thus face outwards,
    and a mesh that is inside out keeps its cavities.

    Args:
      vertices: [V, 3].
      faces: vertex indices [F, 3].

    Returns:
      faces [F, 3].
    """
    edges = _edges(faces)
    body, flip = _orient_faces(vertices[faces], edges)
    forward = np.where(flip[edges[0]], -edges[2], edges[2])
    faces = np.where(flip[:, None], faces[:, ::-1], faces)
    volumes = _signed_volumes(vertices[faces], body, edges[1], forward)
    if (volumes >= 0).all():
        return faces
    flip_body = _choose_flips(vertices[faces], body, volumes)
    return np.where(flip_body[body][:, None], faces[:, ::-1], faces)


def _edges(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the three edges of each face, in order: face, number of the edge, and direction 1 or -1, each [3 F]."""
    ends = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).astype(np.int64)
    low, high = ends.min(1), ends.max(1)
    _, edge = np.unique(low * (high.max() + 1) + high, return_inverse=True)
    return np.arange(len(ends)) // 3, edge, np.where(ends[:, 0] < ends[:, 1], 1, -1)


def _orient_faces(triangles: np.ndarray, edges: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the body of each face [F], and whether the face must be flipped to agree with most of its body's area.

    Faces are neighbours across edges that belong to exactly two faces. Each face is two nodes of a graph, one for
    either orientation, linked to those of its neighbours that agree with it: an orientable body is two components.
    """
    face, edge, forward = edges
    order, counts = np.argsort(edge, kind='stable'), np.bincount(edge)
    first = (np.cumsum(counts) - counts)[counts == 2]
    edge_a, edge_b = order[first], order[first + 1]
    disagree = forward[edge_a] == forward[edge_b]
    a, b, count = face[edge_a], face[edge_b], len(triangles)
    body = _components(a, b, count)
    if not disagree.any():
        return body, np.zeros(count, bool)
    label = _components(
        np.concatenate((a, a + count)),
        np.concatenate((b + count * disagree, b + count * ~disagree)),
        2 * count,
    )
    as_given, flipped = label[:count], label[count:]
    kept = np.bincount(as_given, _double_areas(triangles), 2 * count)  # area that either orientation of a body keeps
    ties = (kept[flipped] == kept[as_given]) & (flipped < as_given)
    return body, (kept[flipped] > kept[as_given]) | ties


def _components(a: np.ndarray, b: np.ndarray, count: int) -> np.ndarray:
    """Returns the connected component [count] of each node of a graph with edges from a to b."""
    return connected_components(coo_array((np.ones(len(a)), (a, b)), (count, count)), directed=False)[1]


def _double_areas(triangles: np.ndarray) -> np.ndarray:
    a, b, c = np.moveaxis(triangles, 1, 0)
    return np.linalg.norm(np.cross(b - a, c - a), axis=-1)


def _signed_volumes(triangles: np.ndarray, body: np.ndarray, edge: np.ndarray, forward: np.ndarray) -> np.ndarray:
    """Returns the signed volumes of bodies, positive where they face outwards; 0 for bodies that are not closed."""
    count = edge.max() + 1
    pairs, number = np.unique(np.repeat(body, 3) * count + edge, return_inverse=True)
    volumes = np.bincount(body, np.linalg.det(triangles - triangles.mean((0, 1))) / 6)
    volumes[pairs[np.bincount(number, forward) != 0] // count] = 0
    return volumes


def _choose_flips(triangles: np.ndarray, body: np.ndarray, volumes: np.ndarray) -> np.ndarray:
    """Returns which bodies [K] must be flipped; the largest are decided first."""
    order = np.argsort(body, kind='stable')
    parts = np.split(triangles[order], np.cumsum(np.bincount(body))[:-1])
    lows, highs = (np.stack([end(part, (0, 1)) for part in parts]) for end in (np.min, np.max))
    probes = [part[:: -(-len(part) // _PROBES)].mean(1) for part in parts]
    around = [np.zeros(len(points)) for points in probes]  # winding number of all larger bodies about the probes
    signs = np.sign(volumes)
    closed = [k for k in np.argsort(-np.abs(volumes), kind='stable') if volumes[k]]
    for position, k in enumerate(closed):
        near = [i for i in closed[position + 1 :] if (lows[i] < highs[k]).all() and (highs[i] > lows[k]).all()]
        number = WindingNumber(parts[k]) if near else None
        inside = {i: number(probes[i]) != 0 for i in near} if number else {}
        # A winding number below 0: the body would be a cavity in empty space.
        if around[k].min() + signs[k] < 0:
            signs[k] = -signs[k]
            for i, contained in inside.items():
                signs[i] *= -1 if contained.all() else 1
        for i, contained in inside.items():
            around[i] += signs[k] * contained
    return signs != np.sign(volumes)
