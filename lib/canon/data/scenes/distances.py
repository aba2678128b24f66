"""Exact distances to triangle meshes, and signed distance fields of meshes and of oriented points.

Signed distances are negative inside.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from canon.data.scenes.meshes import count_bad_edges, unit_normals
from canon.data.scenes.winding import WindingNumber
from canon.errors import CanonError

if TYPE_CHECKING:
    from trimesh import Trimesh

Field = Callable[[np.ndarray], np.ndarray]  # points [N, 3] -> values [N], negative inside
_PIECES = 1000  # approximate number of pieces into which a surface is cut for the search
_PAIRS = 1 << 18  # pairs of a point and a triangle that are processed at a time


class NearestPoints(NamedTuple):
    """The points of a surface nearest to N query points.

    Attributes:
      distance: [N].
      face: int [N], the triangles on which the nearest points lie.
      point: [N, 3].
    """

    distance: np.ndarray
    face: np.ndarray
    point: np.ndarray


class MeshDistance:
    """Computes exact distances to a mesh, and on which side of it points are.

    Candidate triangles are tried in the order of their centroids until no remaining one can be nearer. The sign is that
    of the winding number, so bodies may overlap; walls inside another body still count as surface for the distance.
    Compute the union of the bodies first where that matters.
    """

    def __init__(self, mesh: Trimesh):
        from scipy.spatial import KDTree

        self.mesh = mesh
        self._triangles = np.asarray(mesh.triangles, float)
        # Large triangles are cut into pieces whose centroids are searched; distances are to the uncut triangles.
        pieces, self._face_of_piece = _cut(self._triangles, 2 * np.sqrt(mesh.area / _PIECES), 64 * _PIECES)
        centroids = pieces.mean(1)
        self._radius = float(np.linalg.norm(pieces - centroids[:, None], axis=-1).max())
        self._tree = KDTree(centroids)

    def nearest(self, points: np.ndarray) -> NearestPoints:
        """Finds the nearest points of the surface to points [N, 3]."""
        points = np.asarray(points, float)
        weights, face = np.empty((len(points), 3)), np.empty(len(points), int)
        # Most points are certain after 8 candidates; the others are searched again among four times as many.
        todo, count = np.arange(len(points)), 8
        while todo.size:
            count = min(count, self._tree.n)
            uncertain = []
            # In parts, so that memory does not grow with the number of points.
            for part in np.array_split(todo, -(-todo.size * count // _PAIRS)):
                face[part], weights[part], certain = self._nearest_candidate(points[part], count)
                uncertain.append(part[~certain])
            todo, count = np.concatenate(uncertain), count * 4
        nearest = np.einsum('nk,nkd->nd', weights, self._triangles[face])
        return NearestPoints(np.linalg.norm(points - nearest, axis=-1), face, nearest)

    def _nearest_candidate(self, points: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the nearest of `count` candidates, its barycentric weights, and whether no other can be nearer."""
        far, pieces = (x.reshape(len(points), count) for x in self._tree.query(points, count))
        faces = self._face_of_piece[pieces]
        weights = nearest_weights(points[:, None], self._triangles[faces])
        nearest = np.einsum('nck,nckd->ncd', weights, self._triangles[faces])
        distance = np.linalg.norm(points[:, None] - nearest, axis=-1)
        row, best = np.arange(len(points)), distance.argmin(1)
        # A piece lies within `radius` of its centroid, and the centroids left over are at least far[:, -1] away.
        certain = (far[:, -1] - self._radius >= distance[row, best]) | (count == self._tree.n)
        return faces[row, best], weights[row, best], certain

    @cached_property
    def winding_number(self) -> WindingNumber:
        """The winding number of the mesh. Raises CanonError for a mesh that is not watertight."""
        bad = count_bad_edges(self.mesh)
        if bad:
            raise CanonError(
                f'the mesh is not watertight: {bad} of its {len(self.mesh.edges_unique)} edges are not between two '
                'triangles that face the same way, so it has no inside; close it first'
            )
        return WindingNumber(self._triangles)

    def is_inside(self, points: np.ndarray) -> np.ndarray:
        """Returns whether points [N, 3] are inside. Raises CanonError for a mesh that is not watertight."""
        return self.winding_number(points) > 0

    def signed_distance(self, points: np.ndarray) -> np.ndarray:
        """Returns signed distances [N] of points [N, 3]. Raises CanonError for a mesh that is not watertight."""
        inside, distance = self.is_inside(points), self.nearest(points).distance
        return np.where(inside, -distance, distance)


def _cut(triangles: np.ndarray, longest: float, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts triangles into at most `limit` pieces [P, 3, 3] without edges above `longest`.

    Returns also the triangle of each piece [P]. The longest edge is halved each time, so that a sliver becomes few
    pieces.
    """
    source = np.arange(len(triangles))
    while True:
        edges = np.linalg.norm(np.roll(triangles, -1, 1) - triangles, axis=-1)
        long = edges.max(1) > longest
        if not long.any() or len(triangles) + long.sum() > max(limit, len(source)):
            return triangles, source
        # Vertices a, b, c in order, with ab the longest edge: the orientation is kept.
        first = edges[long].argmax(1)[:, None] + np.arange(3)
        a, b, c = np.moveaxis(np.take_along_axis(triangles[long], (first % 3)[..., None], 1), 1, 0)
        half = (a + b) / 2
        triangles = np.concatenate((triangles[~long], np.stack((a, half, c), 1), np.stack((half, b, c), 1)))
        source = np.concatenate((source[~long], source[long], source[long]))


def nearest_weights(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Returns barycentric weights [..., 3] of the points of `triangles` [..., 3, 3] nearest to `points` [..., 3].

    Ericson 2005, "Real-time collision detection", section 5.1.5. On an edge or at a vertex the remaining weights are
    exactly 0.
    """
    a, b, c = np.moveaxis(triangles, -2, 0)
    dot = lambda x, y: (x * y).sum(-1)  # noqa: E731
    ab, ac = b - a, c - a
    # The names are Ericson's; each sign says on which side of a vertex's or an edge's region a point lies.
    d1, d2 = dot(ab, points - a), dot(ac, points - a)
    d3, d4 = dot(ab, points - b), dot(ac, points - b)
    d5, d6 = dot(ab, points - c), dot(ac, points - c)
    va, vb, vc = d3 * d6 - d5 * d4, d5 * d2 - d1 * d6, d1 * d4 - d3 * d2
    ones, zeros = np.ones_like(d1), np.zeros_like(d1)
    tiny = np.finfo(float).tiny  # degenerate triangles divide 0 by it
    share = lambda x, y: np.clip(x / np.where(x + y == 0, tiny, x + y), 0, 1)  # noqa: E731
    on_ab, on_ac, on_bc = share(d1, -d3), share(d2, -d6), share(d4 - d3, d5 - d6)
    total = np.where(va + vb + vc == 0, tiny, va + vb + vc)
    regions = (
        ((d1 <= 0) & (d2 <= 0), (ones, zeros, zeros)),
        ((d3 >= 0) & (d4 <= d3), (zeros, ones, zeros)),
        ((d6 >= 0) & (d5 <= d6), (zeros, zeros, ones)),
        ((vc <= 0) & (d1 >= 0) & (d3 <= 0), (1 - on_ab, on_ab, zeros)),
        ((vb <= 0) & (d2 >= 0) & (d6 <= 0), (1 - on_ac, zeros, on_ac)),
        ((va <= 0) & (d4 >= d3) & (d5 >= d6), (zeros, 1 - on_bc, on_bc)),
    )
    conditions = [condition for condition, _ in regions]
    interior = (va / total, vb / total, vc / total)
    return np.stack([np.select(conditions, [w[i] for _, w in regions], interior[i]) for i in range(3)], -1)


def field_from_points(points: np.ndarray, normals: np.ndarray) -> Field:
    """Returns the signed distance to the tangent plane of the nearest point (Hoppe et al. 1992, section 3.3).

    Args:
      points: [N, 3], on the surface.
      normals: [N, 3], outwards, of any length but 0.
    """
    from scipy.spatial import KDTree

    tree, normals = KDTree(points), unit_normals(normals)

    def field(queries: np.ndarray) -> np.ndarray:
        nearest = tree.query(queries)[1]
        return ((queries - points[nearest]) * normals[nearest]).sum(-1)

    return field
