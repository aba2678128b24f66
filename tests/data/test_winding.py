"""Winding numbers against the sum of solid angles, and the orientation of bodies against what they are made of."""

import numpy as np
import pytest
import trimesh

from canon.data.scenes import distances, meshes, shapes
from canon.data.scenes.winding import WindingNumber, count_unpaired_edges, orient_bodies

BOX = trimesh.creation.box((1, 1, 1))


def solid_angles(triangles, points):
    """Their sum over 4 pi (van Oosterom & Strackee 1983), in loops over points."""
    total = []
    for point in points:
        a, b, c = np.moveaxis(triangles - point, 1, 0)
        x, y, z = (np.linalg.norm(v, axis=-1) for v in (a, b, c))
        below = x * y * z + (a * b).sum(-1) * z + (b * c).sum(-1) * x + (c * a).sum(-1) * y
        total.append(np.arctan2((a * np.cross(b, c)).sum(-1), below).sum() / (2 * np.pi))
    return np.array(total)


def union(*bodies):
    """The triangles of several meshes as one: (vertices, faces)."""
    starts = np.cumsum([0, *(len(body.vertices) for body in bodies)])
    faces = [np.asarray(body.faces) + start for body, start in zip(bodies, starts, strict=False)]
    return np.concatenate([np.asarray(body.vertices) for body in bodies]), np.concatenate(faces)


def box(size=1.0, x=0.0, inwards=False):
    body = BOX.copy()
    body.apply_scale(size)
    body.apply_translation((x, 0, 0))
    if inwards:
        body.invert()
    return body


@pytest.mark.parametrize(
    'body',
    [
        trimesh.creation.icosphere(2),
        trimesh.creation.torus(1, 0.4),
        trimesh.creation.cylinder(0.5, 1, sections=90),  # its walls are along the rays
        trimesh.Trimesh(*union(box(), box(0.6, 0.3), box(0.5, inwards=True)), process=False),
    ],
    ids=['sphere', 'torus', 'cylinder', 'boxes'],
)
def test_it_is_the_sum_of_solid_angles(body):
    """Points anywhere, on a grid, and with rays through corners and along edges."""
    rng = np.random.default_rng(0)
    points = rng.uniform(-1.3, 1.3, (600, 3))
    points[:200] = points[:200].round(1)
    points[200:400, :2] = body.vertices[rng.integers(len(body.vertices), size=200), :2]
    clear = distances.MeshDistance(body).nearest(points).distance > 1e-9  # on the surface there is no winding number
    triangles = np.asarray(body.triangles)
    expected = solid_angles(triangles, points[clear])
    np.testing.assert_allclose(WindingNumber(triangles)(points[clear]), expected, atol=1e-6)
    assert len(np.unique(expected.round())) > 1


def test_many_points_and_triangles_that_lie_across_all_cells():
    """A fan of slivers would be listed in a quarter of the cells each; points are many chunks."""
    cone = trimesh.creation.cone(1, 1, sections=3000)
    number = WindingNumber(np.asarray(cone.triangles))
    assert len(number._listed) <= 8 * len(cone.faces)
    points = np.random.default_rng(0).uniform((-1, -1, -0.2), (1, 1, 1.2), (2000, 3))
    inside = (points[:, 2] > 0) & (np.hypot(points[:, 0], points[:, 1]) < (1 - points[:, 2]) * np.cos(np.pi / 3000))
    assert (number(points) != inside).mean() < 0.002  # between the cone and its facets


SPOTS = np.array([[0.0, 0, 0], [0.4, 0, 0], [0.7, 0, 0], [3, 0, 0], [3, 0, 2.1], [-9, 0, 0]])


@pytest.mark.parametrize(
    ('bodies', 'expected'),
    [
        ((box(), box(1, 3)), (1, 1, 0, 1, 0, 0)),
        ((box(), box(1, 3, inwards=True)), (1, 1, 0, 1, 0, 0)),
        ((box(inwards=True), box(1, 3)), (1, 1, 0, 1, 0, 0)),
        ((box(), box(0.6, inwards=True)), (0, 1, 0, 0, 0, 0)),  # hollow
        ((box(inwards=True), box(0.6)), (0, 1, 0, 0, 0, 0)),  # hollow, and inside out altogether
        ((box(), box(0.6, inwards=True), box(1, 3, inwards=True)), (0, 1, 0, 1, 0, 0)),
        ((box(), box(0.6, inwards=True), box(0.3, inwards=True)), (1, 1, 0, 0, 0, 0)),  # a body in the cavity
        ((box(), box(1, 0.3), box(0.2)), (3, 2, 1, 0, 0, 0)),  # overlapping, one within the others
        ((box(), box(1, 0.3, inwards=True)), (2, 2, 1, 0, 0, 0)),
    ],
)
def test_bodies_face_outwards_and_cavities_stay(bodies, expected):
    vertices, faces = union(*bodies)
    for flipped in (None, 0, 11, 13, len(faces) - 1):  # none or one face is turned as well
        flipped_faces = faces.copy()
        if flipped is not None:
            flipped_faces[flipped] = flipped_faces[flipped, ::-1]
        oriented = orient_bodies(vertices, flipped_faces)
        assert count_unpaired_edges(oriented) == 0
        np.testing.assert_array_equal(WindingNumber(vertices[oriented])(SPOTS), expected)


def test_most_of_an_open_body_decides_and_nothing_orients_a_klein_bottle():
    body = trimesh.creation.icosphere(2)
    faces = np.asarray(body.faces)[:-40]
    given = np.where(np.random.default_rng(0).random(len(faces))[:, None] < 0.2, faces[:, ::-1], faces)
    np.testing.assert_array_equal(orient_bodies(np.asarray(body.vertices), given), faces)
    n = 8
    u, v = np.meshgrid(np.arange(n), np.arange(n), indexing='ij')
    index = lambda u, v: np.where((u // n) % 2, -v % n, v % n) + n * (u % n)  # noqa: E731
    corners = [index(u + i, v + j).ravel() for i, j in ((0, 0), (1, 0), (1, 1), (0, 1))]
    klein = np.concatenate((np.stack(corners[:3], -1), np.stack((corners[0], *corners[2:]), -1)))
    vertices = np.random.default_rng(1).normal(size=(n * n, 3))
    assert count_unpaired_edges(orient_bodies(vertices, klein)) > 0


# --- signed distances of them --------------------------------------------------------------------------------------


def test_the_inside_of_overlapping_boxes():
    """Two unit boxes, the second shifted by a half: signs are those of the union, in samples and on the surface."""
    mesh = meshes.clean_mesh(*union(box(), box(1, 0.5)))
    points = np.random.default_rng(0).uniform(-1, 1.5, (4000, 3))
    exact = shapes.Primitive('box', (0.75, 0.5, 0.5), (0.25, 0.0, 0.0)).signed_distance(points)
    signed = distances.MeshDistance(mesh).signed_distance(points)
    np.testing.assert_array_equal(signed < 0, exact < 0)
    np.testing.assert_allclose(signed[exact > 0], exact[exact > 0], atol=1e-12)
    assert (np.abs(signed) <= np.abs(exact) + 1e-12).all()  # walls within count for the distance


def test_places_on_walls_within_a_body_are_not_drawn(tmp_path):
    meshes.write_mesh(meshes.clean_mesh(*union(box(), box(1, 0.5))), tmp_path / 'boxes.ply')
    shape = shapes.MeshShape(tmp_path / 'boxes.ply')
    points, normals = shape.sample_surface(3000, np.random.default_rng(0))
    outer = shapes.Primitive('box', (0.75, 0.5, 0.5), (0.25, 0.0, 0.0)).signed_distance(
        shape.normalisation.invert(points)
    )
    np.testing.assert_allclose(outer, 0, atol=1e-6)
    assert (shape.signed_distance(points + 1e-3 * normals) > 0).all()
    assert shape.is_inside(points - 1e-3 * normals).all()


def test_boxes_that_touch_are_closed():
    """Edges of four triangles, and a wall of two coincident ones, are no holes."""
    mesh = meshes.clean_mesh(*union(box(), box(1, 1.0)))
    assert meshes.count_bad_edges(mesh) == 0
    inside = distances.MeshDistance(mesh).is_inside(np.array([[0.2, 0, 0], [0.7, 0.1, 0], [1.6, 0, 0], [0.2, 0, 0.6]]))
    np.testing.assert_array_equal(inside, [True, True, False, False])


@pytest.mark.parametrize('size', [1e-9, 1e9, 1e20])
def test_signs_and_distances_of_any_size(size):
    """Corners of their own for each face are joined at any scale."""
    scattered = np.asarray(box(size).triangles).reshape(-1, 3)
    mesh = meshes.clean_mesh(scattered, np.arange(36).reshape(-1, 3))
    signed = distances.MeshDistance(mesh).signed_distance(size * np.array([[0, 0, 0], [0.3, 0, 0], [0.5, 0.9, 0]]))
    np.testing.assert_allclose(signed / size, [-0.5, -0.2, 0.4], atol=1e-12)


def test_a_corner_far_away_makes_no_millions_of_pieces():
    body = trimesh.creation.icosphere(2)
    body.vertices[0] *= 1e6
    surface = distances.MeshDistance(body)
    assert len(surface._face_of_piece) < 100_000
    points = np.random.default_rng(0).uniform(-1, 1, (50, 3))
    weights = distances.nearest_weights(points[:, None], np.asarray(body.triangles)[None])
    nearest = (weights[..., None] * np.asarray(body.triangles)).sum(2)
    expected = np.linalg.norm(nearest - points[:, None], axis=-1).min(1)
    np.testing.assert_allclose(surface.nearest(points).distance, expected, rtol=1e-9)
