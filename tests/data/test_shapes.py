"""Meshes, synthetic bodies and their samples, against closed forms and plain loops."""

import pickle

import numpy as np
import pytest
import trimesh

from canon.data.scenes import distances, isosurfaces, meshes, shapes, voxels
from canon.errors import CanonError, UsageError


def wavy(seed=0):
    """A body with hollows: an icosphere whose corners are pushed in and out."""
    body = trimesh.creation.icosphere(subdivisions=2, radius=0.4)
    rng = np.random.default_rng(seed)
    body.vertices *= rng.uniform(0.6, 1.1, (len(body.vertices), 1))
    return meshes.clean_mesh(body.vertices, body.faces)


# --- meshes -------------------------------------------------------------------------------------------------------


def test_nearest_points_of_triangles():
    """Against 40,000 points of each triangle; what is nearest is nearer than all of them."""
    rng = np.random.default_rng(0)
    triangles, points = rng.normal(size=(60, 3, 3)), 2 * rng.normal(size=(60, 3))
    weights = distances.nearest_weights(points, triangles)
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-12)
    nearest = (weights[..., None] * triangles).sum(1)
    u, v = np.meshgrid(np.linspace(0, 1, 200), np.linspace(0, 1, 200))
    dense = np.stack((1 - u, u * (1 - v), u * v), -1).reshape(-1, 3)
    for i in range(60):
        least = np.linalg.norm(dense @ triangles[i] - points[i], axis=-1).min()
        distance = np.linalg.norm(nearest[i] - points[i])
        assert distance <= least + 1e-9
        assert distance >= least - 0.02 * np.abs(triangles[i]).max()
    kinds = set((weights > 0).sum(-1).tolist())
    assert kinds == {1, 2, 3}  # corners, edges and faces were all met


def test_signed_distance_of_a_cube():
    """In closed form; near faces, edges and corners, inside and out."""
    surface = distances.MeshDistance(trimesh.creation.box((0.6, 0.8, 1.0)))
    rng = np.random.default_rng(1)
    points = rng.uniform(-0.9, 0.9, (3000, 3))
    expected = shapes.Primitive('box', (0.3, 0.4, 0.5)).signed_distance(points)
    np.testing.assert_allclose(surface.signed_distance(points), expected, atol=1e-12)


def test_signed_distance_of_a_body_with_hollows():
    """Distances by trying all triangles; sides by the winding number, the sum of solid angles over 4 pi."""
    body = wavy()
    rng = np.random.default_rng(2)
    points = np.concatenate((rng.uniform(-0.5, 0.5, (300, 3)), meshes.sample_mesh(body, 300, rng)[0]))
    points[300:] += 0.02 * rng.normal(size=(300, 3))
    corners = np.asarray(body.triangles)
    signed = distances.MeshDistance(body).signed_distance(points)
    for point, value in zip(points, signed, strict=True):
        weights = distances.nearest_weights(point[None], corners)
        far = np.linalg.norm((weights[..., None] * corners).sum(1) - point, axis=-1).min()
        a, b, c = np.moveaxis(corners - point, 1, 0)
        x, y, z = (np.linalg.norm(v, axis=-1) for v in (a, b, c))
        below = x * y * z + (a * b).sum(-1) * z + (b * c).sum(-1) * x + (c * a).sum(-1) * y
        turns = np.arctan2((a * np.cross(b, c)).sum(-1), below).sum() / (2 * np.pi)
        assert value == pytest.approx(-far if turns > 0.5 else far, abs=1e-12)
    assert 100 < (signed < 0).sum() < 500


def test_a_mesh_with_holes_has_no_inside(tmp_path):
    body = trimesh.creation.box((1, 1, 1))
    body.update_faces(np.arange(12) != 5)
    with pytest.raises(CanonError, match='not watertight: 3 of its 18 edges'):
        distances.MeshDistance(body).signed_distance(np.zeros((1, 3)))
    body.export(tmp_path / 'open.ply')
    opened = shapes.MeshShape(tmp_path / 'open.ply')
    for query in (opened.signed_distance, opened.is_inside):
        with pytest.raises(CanonError, match=r'open\.ply: the mesh is not watertight'):
            query(np.zeros((1, 3)))
    shapes.MeshShape(tmp_path / 'open.ply').sample_surface(
        10, np.random.default_rng(0)
    )  # its surface can be learnt from


@pytest.mark.parametrize('ending', meshes.WRITTEN)
def test_written_and_read(tmp_path, ending):
    body = wavy()
    meshes.write_mesh(body, tmp_path / f'body{ending}')
    back = meshes.read_mesh(tmp_path / f'body{ending}')
    assert meshes.count_bad_edges(back) == 0
    assert back.volume == pytest.approx(body.volume, rel=1e-5)
    np.testing.assert_allclose(back.bounds, body.bounds, atol=1e-6)


def test_a_mesh_inside_out_is_turned():
    body = wavy()
    assert meshes.clean_mesh(body.vertices, body.faces[:, ::-1]).volume == pytest.approx(body.volume)
    scattered = np.asarray(body.triangles).reshape(-1, 3)  # three corners of its own for each face
    assert meshes.count_bad_edges(meshes.clean_mesh(scattered, np.arange(len(scattered)).reshape(-1, 3))) == 0


def test_files_that_are_no_meshes(tmp_path):
    (tmp_path / 'a.obj').write_text('nothing here\n')
    with pytest.raises(CanonError, match=r'a\.obj'):
        meshes.read_mesh(tmp_path / 'a.obj')
    with pytest.raises(UsageError, match=r'b\.txt is not a file of triangles'):
        meshes.read_mesh(tmp_path / 'b.txt')
    with pytest.raises(UsageError, match=r'c\.stl: meshes are written as \.ply, \.obj, \.glb'):
        meshes.write_mesh(wavy(), tmp_path / 'c.stl')
    with pytest.raises(CanonError, match='cannot be scaled'):
        meshes.fit_cube(np.zeros((4, 3)))


def test_clouds_from_files(tmp_path):
    rng = np.random.default_rng(0)
    points, normals = rng.normal(size=(2, 20, 3))
    np.save(tmp_path / 'a.npy', points)
    np.savez(tmp_path / 'b.npz', points=points, normals=normals)
    np.savetxt(tmp_path / 'c.xyz', np.hstack((points, normals)))
    names = ('x', 'y', 'z', 'nx', 'ny', 'nz')
    rows = '\n'.join(' '.join(map(str, row)) for row in np.hstack((points, normals)))
    head = '\n'.join(f'property float {name}' for name in names)
    (tmp_path / 'd.ply').write_text(f'ply\nformat ascii 1.0\nelement vertex 20\n{head}\nend_header\n{rows}\n')
    for name, expected_normals in (('a.npy', None), ('b.npz', normals), ('c.xyz', normals), ('d.ply', normals)):
        positions, directions = meshes.read_points(tmp_path / name)
        np.testing.assert_allclose(positions, points, rtol=1e-6)
        length = np.linalg.norm(normals, axis=-1, keepdims=True)
        assert (
            directions is None
            if expected_normals is None
            else np.allclose(directions, expected_normals / length, atol=1e-6)
        )
    np.save(tmp_path / 'e.npy', points[:, :2])
    with pytest.raises(CanonError, match=r'e\.npy: points are numbers \[N, 3\]'):
        meshes.read_points(tmp_path / 'e.npy')


def test_normals_of_any_length():
    """Labels are distances whatever the length of the normals; a normal without direction is refused."""
    body = shapes.Primitive('sphere', (0.35,))
    points, normals = shapes.AnalyticShape('ball', (body,)).sample_surface(2000, np.random.default_rng(0))
    lengths = np.random.default_rng(1).choice([1e-200, 0.3, 3, 1e200], (2000, 1))
    np.testing.assert_allclose(meshes.unit_normals(lengths * normals), normals, atol=1e-12)
    queries = np.random.default_rng(2).uniform(-0.5, 0.5, (500, 3))
    signed = distances.field_from_points(points, lengths * normals)(queries)
    np.testing.assert_array_equal(signed.round(12), distances.field_from_points(points, normals)(queries).round(12))
    assert np.abs(signed - body.signed_distance(queries)).max() < 0.02
    for bad in (0, np.nan, np.inf):
        normals[7] = bad
        with pytest.raises(CanonError, match='1 of 2000 normals have no direction, the first at 7'):
            distances.field_from_points(points, normals)


CLOUD = np.random.default_rng(0).normal(size=(9, 6))


@pytest.mark.parametrize(
    ('name', 'stored', 'message'),
    [
        ('a.xyz', b'a b c\n', 'cannot be read as points: could not convert'),
        ('a.xyz', pickle.dumps({'points': 1}), 'cannot be read as points'),
        ('a.xyz', b'', 'is empty'),
        ('a.xyz', b'1 2 nan\n', 'point 0 is NaN or infinite'),
        ('a.xyz', b'1 2 3\n1 2\n', 'cannot be read as points'),
        ('a.npy', b'hello', 'is not an array of numbers'),
        ('a.npy', pickle.dumps([1]), 'is not an array of numbers'),
        ('a.npy', np.float64(3), r'points are numbers \[N, 3\], not float64 \(\)'),
        ('a.npy', np.full((4, 3), 'a'), 'points are numbers'),
        ('a.npy', np.full((4, 3), None), 'is not an array of numbers'),
        ('a.npy', np.full((4, 3), 1j), 'points are numbers'),
        ('a.npy', np.full((4, 3), np.inf), 'point 0 is NaN or infinite'),
        ('a.npy', CLOUD * (1, 1, 1, 0, 0, 0), '9 of 9 normals have no direction'),
        ('a.npz', b'PK hello', 'cannot be read as .npz'),
        ('a.npz', dict(points=CLOUD[:, :3], normals=CLOUD[:4, :3]), r'normals are \(4, 3\), and points \(9, 3\)'),
        ('a.npz', dict(points=np.array({}, object)), 'a.npz'),
        ('a.npz', dict(places=CLOUD), "holds places, and no 'points'"),
        ('a.ply', b'ply\nhello', 'cannot be read as points'),
        ('a.ply', b'', 'is empty'),
        ('b.npy', None, 'there is no file of points'),
    ],
)
def test_files_that_are_no_points(tmp_path, name, stored, message):
    path = tmp_path / name
    if isinstance(stored, dict):
        np.savez(path, **stored)
    elif isinstance(stored, bytes):
        path.write_bytes(stored)
    elif stored is not None:
        np.save(path, stored)
    with pytest.raises(CanonError, match=message) as error:
        meshes.read_points(path)
    assert str(path) in str(error.value)
    assert '\n' not in str(error.value)


def face_of(corner):
    """A box in .ply text whose first face names another corner."""
    stored = trimesh.creation.box((1, 1, 1)).export(file_type='ply', encoding='ascii').decode()
    return stored.replace('\n3 1 3 0\n', f'\n3 1 3 {corner}\n')


CORNERS = 'v 0 0 0\nv 1 0 0\nv 0 1 0\nv {} 0 1\n'
FACES = 'f 1 3 2\nf 1 2 4\nf 2 3 4\nf 3 1 4\n'


@pytest.mark.parametrize(
    ('name', 'stored', 'message'),
    [
        ('a.ply', face_of(88), 'a face names vertex 88, but there are 8'),
        ('a.ply', face_of(-1), 'a face names vertex -1, but there are 8'),
        ('a.obj', CORNERS.format(0) + 'f 1 2 99\n', 'cannot be read as a mesh'),
        ('a.obj', CORNERS.format('nan') + FACES, 'a vertex is NaN or infinite'),
        ('a.obj', CORNERS.format('1e308') + FACES, r'a shape of size 1e\+308 cannot be scaled'),
        ('a.obj', CORNERS.format(0) + 'f 1 1 2\n', 'all 1 triangles are without area'),
        ('a.obj', 'v 0 0 0\nv 1 1 1\nv 2 2 2\nf 1 2 3\n', 'all 1 triangles are without area'),
        ('a.obj', 'v 2 2 2\nv 2 2 2\nv 2 2 2\nf 1 2 3\n', 'a shape of size 0 cannot be scaled'),
        ('a.ply', '', 'cannot be read as a mesh'),
        ('a.off', 'OFF\n9000000000000 12 0\n0 0 0\n', 'cannot be read as a mesh'),
        ('a.stl', bytes(80) + b'\0\0\0\xff' + bytes(50), 'a.stl'),
        ('a.gltf', '[' * 100_000, 'cannot be read as a mesh'),
    ],
)
def test_files_that_are_no_meshes_are_one_line(tmp_path, name, stored, message):
    path = tmp_path / name
    path.write_bytes(stored if isinstance(stored, bytes) else stored.encode())
    with pytest.raises(CanonError, match=message) as error:
        meshes.read_mesh(path)
    assert str(path) in str(error.value)
    assert '\n' not in str(error.value)


def test_fits():
    points = np.array([[0.0, 0, 0], [4, 2, 2]])
    cube, sphere = meshes.fit_cube(points), meshes.fit_sphere(points)
    np.testing.assert_allclose(cube.apply(points), [[-0.5, -0.25, -0.25], [0.5, 0.25, 0.25]])
    np.testing.assert_allclose(np.linalg.norm(sphere.apply(points), axis=-1), 1 / 1.03)
    for fit in (cube, sphere):
        np.testing.assert_allclose(fit.invert(fit.apply(points)), points, atol=1e-12)


# --- fields -------------------------------------------------------------------------------------------------------


def test_the_surface_of_a_field_is_closed_and_where_it_should_be():
    """A sphere of radius 0.4: linear interpolation is off by at most h^2 / (8 r) where the field is the distance."""
    body = shapes.Primitive('sphere', (0.4,))
    mesh = isosurfaces.extract_mesh(body.signed_distance, 0.5, 32, 0)
    assert meshes.count_bad_edges(mesh) == 0
    assert np.abs(body.signed_distance(np.asarray(mesh.vertices))).max() < (1 / 32) ** 2 / (8 * 0.4) * 3
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * 0.4**3, rel=0.01)  # positive: faces look outwards
    cut = isosurfaces.extract_mesh(
        shapes.Primitive('sphere', (0.6,)).signed_distance, 0.5, 16, 0
    )  # it reaches beyond the grid
    assert meshes.count_bad_edges(cut) == 0
    assert np.abs(cut.vertices).max() == pytest.approx(0.5, abs=1e-5)


def test_mise_asks_near_the_surface_alone_and_finds_the_same():
    body = shapes.make_bodies(('torus',), 1)[0]
    evaluated = []

    def field(points):
        evaluated.append(points)
        return body.signed_distance(points)

    values = isosurfaces.sample_near_level(field, 0.5, 8, 3)
    full = body.signed_distance(isosurfaces.grid_points(64, 0.5)).reshape(65, 65, 65)
    np.testing.assert_array_equal(values < 0, full < 0)
    meshes_of_grids = [isosurfaces.extract_iso_surface(grid, 0.5) for grid in (values, full)]
    np.testing.assert_allclose(*(mesh.volume for mesh in meshes_of_grids), rtol=1e-6)
    assert len(meshes_of_grids[0].faces) == len(meshes_of_grids[1].faces)
    positions = np.concatenate(evaluated)
    assert len(positions) == len(np.unique(positions.round(9), axis=0)) < 0.15 * 65**3
    np.testing.assert_array_equal(
        isosurfaces.sample_near_level(body.signed_distance, 0.5, 16, 0),
        body.signed_distance(isosurfaces.grid_points(16, 0.5)).reshape(17, 17, 17),
    )


def test_mise_follows_a_surface_out_of_the_cells_that_showed_it():
    """A needle crosses coarse cells between their corners: points of finer neighbours tell of it."""
    needle = shapes.Primitive(
        'capsule', (0.3, 0.06), centre=(0.0, 0.0, 0.15)
    )  # its upper end contains no vertex of the coarse grid
    ball = shapes.Primitive('sphere', (0.2,), (0, 0, -0.25))
    field = lambda p: np.minimum(needle.signed_distance(p), ball.signed_distance(p))  # noqa: E731
    full = field(isosurfaces.grid_points(32, 0.5)).reshape(33, 33, 33)
    np.testing.assert_array_equal(isosurfaces.sample_near_level(field, 0.5, 8, 2) < 0, full < 0)


def test_an_empty_level_set():
    with pytest.raises(CanonError, match=r'there is no surface: the field is 1 to 1\.\d+, nowhere below the level 0'):
        isosurfaces.extract_mesh(lambda p: 1 + (p**2).sum(-1), 0.5, 4, 1)
    with pytest.raises(CanonError, match='the field has values from nan'):
        isosurfaces.extract_mesh(lambda p: np.full(len(p), np.nan), 0.5, 4, 0)
    partly = lambda p: np.where(p[:, 2] > 0.2, np.nan, np.linalg.norm(p, axis=-1) - 0.3)  # noqa: E731
    with pytest.raises(CanonError, match='the field has values from nan'):  # not filled by what is next to it
        isosurfaces.extract_mesh(partly, 0.5, 4, 2)
    with pytest.raises(UsageError, match='got resolution=0'):
        isosurfaces.sample_near_level(lambda p: p, 0.5, 0)
    with pytest.raises(UsageError, match='at most 1024 cells per side'):
        isosurfaces.sample_near_level(lambda p: p, 0.5, 512, 2)
    for resolution in (0, -4, 10**6):
        for grid in (isosurfaces.grid_points, lambda n, half: voxels.voxelize_points(np.zeros((1, 3)), n, half)):
            with pytest.raises(UsageError, match=f'resolution={resolution} is not between 1 and 1024'):
                grid(resolution, 0.5)


def test_points_of_a_mesh_are_even_by_area():
    body = trimesh.creation.box((1, 1, 4))
    points, normals = meshes.sample_mesh(body, 20_000, np.random.default_rng(0))
    assert np.abs(shapes.Primitive('box', (0.5, 0.5, 2)).signed_distance(points)).max() < 1e-12
    ends = np.abs(normals[:, 2]) > 0.5
    assert ends.mean() == pytest.approx(2 / 18, abs=0.01)
    np.testing.assert_allclose(np.abs(points[ends, 2]), 2)
    assert np.histogram(points[~ends, 2], 4)[0] / 20_000 == pytest.approx(4 / 18, abs=0.015)


def test_points_to_a_field_and_a_mesh():
    body = shapes.Primitive('sphere', (0.35,))
    points, normals = shapes.AnalyticShape('ball', (body,)).sample_surface(5000, np.random.default_rng(0))
    mesh = isosurfaces.extract_mesh(distances.field_from_points(points, normals), 0.5, 24, 0)
    assert np.abs(body.signed_distance(np.asarray(mesh.vertices))).max() < 0.01
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * 0.35**3, rel=0.02)


def test_voxels_are_converted_and_back():
    body = shapes.Primitive('torus', (0.27, 0.12))
    full = voxels.voxelize_field(body.signed_distance, 40, 0.5)
    volume = 2 * np.pi**2 * 0.27 * 0.12**2
    assert full.mean() == pytest.approx(volume, rel=0.03)
    middles = voxels.voxel_centres(full, 0.5)
    np.testing.assert_array_equal(voxels.voxelize_points(middles, 40, 0.5), full)
    walls = np.array([[0.5, 0.5, 0.5], [0.5, -0.5, 0.01], [-0.5, -0.5, -0.5], [0.5001, 0, 0]])
    np.testing.assert_array_equal(np.argwhere(voxels.voxelize_points(walls, 4, 0.5)), [[0, 0, 0], [3, 0, 2], [3, 3, 3]])
    assert voxels.mesh_from_voxels(full, 0.5).volume == pytest.approx(volume, rel=0.06)
    signed = voxels.voxel_distances(full, 0.5)
    np.testing.assert_array_equal(signed < 0, full)
    line = (np.arange(40) + 0.5) / 40 - 0.5
    exact = body.signed_distance(np.stack(np.meshgrid(line, line, line, indexing='ij'), -1))
    assert np.abs(signed - exact).max() < 1 / 40  # a cell
    for alike in (np.zeros((3, 3, 3), bool), np.ones((3, 3, 3), bool)):
        with pytest.raises(CanonError, match='have no surface'):
            voxels.voxel_distances(alike, 0.5)


# --- synthetic bodies ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize('kind', shapes.KINDS[:-1])
def test_distances_of_the_family_are_exact(kind):
    """The gradient is 1 long, and so far along it the surface is met: only the distance does both."""
    body = shapes.make_bodies((kind,), 1, rotated=True, seed=4)[0]
    rng = np.random.default_rng(0)
    points = shapes.sample_cube(500, 0.55, rng)
    slope, value = body._gradient(points), body.signed_distance(points)
    smooth = np.abs(np.linalg.norm(slope, axis=-1) - 1) < 1e-4  # except where two points are equally near
    assert smooth.mean() > 0.98
    landed = points - value[:, None] * slope
    assert np.abs(body.signed_distance(landed[smooth])).max() < 1e-4
    surface, normals = body.sample_surface(500, rng)
    assert np.abs(body.signed_distance(surface)).max() < 1e-9
    assert np.abs(surface).max() < 0.5
    # No point of the surface is nearer than the distance.
    between = np.linalg.norm(points[:, None] - surface, axis=-1).min(1)
    assert (between >= np.abs(value) - 1e-9).all()
    assert (body.signed_distance(surface + 1e-4 * normals) > 0).all()


def test_a_blend_has_exact_sides_and_no_more_than_the_distance():
    body = shapes.make_bodies(('blend',), 1, seed=2)[0]
    rng = np.random.default_rng(0)
    points = shapes.sample_cube(400, 0.5, rng)
    surface, _ = body.sample_surface(4000, rng)
    assert np.abs(body.signed_distance(surface)).max() < 1e-6
    between = np.linalg.norm(points[:, None] - surface, axis=-1).min(1)
    assert (np.abs(body.signed_distance(points)) <= between + 1e-9).all()
    inside = distances.MeshDistance(body.mesh).signed_distance(points) < 0
    assert (inside != (body.signed_distance(points) < 0)).mean() < 0.02  # of the mesh, that cuts corners


def test_the_family_is_drawn_from_its_seed():
    first, again, more = (shapes.make_bodies(count=n, seed=1) for n in (5, 5, 9))
    assert first == again == more[:5]
    others = shapes.make_bodies(count=5, seed=2) + shapes.make_bodies(count=5, split='test', seed=1)
    assert not {body.parts for body in first} & {body.parts for body in others}
    point = np.array([[0.3, 0.1, 0.2]])
    large = shapes.make_bodies(count=1, space='sphere', seed=1)[0]
    scale = 2 / shapes.BUFFER
    np.testing.assert_allclose(large.signed_distance(scale * point), scale * first[0].signed_distance(point))
    with pytest.raises(UsageError, match="no shapes are called 'spheer'; did you mean 'sphere'"):
        shapes.make_bodies(('spheer',))
    with pytest.raises(UsageError, match="split='val' must be one of"):
        shapes.load_shapes(split='val')


def test_a_folder_of_meshes(tmp_path):
    for i in range(11):
        meshes.write_mesh(wavy(i), tmp_path / f'{i:02}.ply')
    train, test = (shapes.load_shapes(str(tmp_path), split) for split in shapes.SPLITS)
    assert [s.name for s in test] == ['09']
    assert len(train) == 10
    np.testing.assert_allclose((train[0].mesh.bounds[1] - train[0].mesh.bounds[0]).max(), 1)
    sphere = shapes.load_shapes(str(tmp_path), 'test', 'sphere')[0]
    assert np.linalg.norm(sphere.mesh.vertices, axis=-1).max() == pytest.approx(1 / 1.03)
    assert [s.name for s in shapes.load_shapes(str(tmp_path / '03.ply'), 'test')] == ['03']
    for split in shapes.SPLITS:
        meshes.write_mesh(wavy(), tmp_path / 'parts' / split / f'{split}.obj')
    assert [s.name for s in shapes.load_shapes(str(tmp_path / 'parts'), 'test')] == ['test']
    with pytest.raises(UsageError, match='there is no such file or folder'):
        shapes.load_shapes(str(tmp_path / 'none'))
    with pytest.raises(UsageError, match=r'data\.path is empty'):
        shapes.load_shapes('')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(UsageError, match='holds no meshes'):
        shapes.load_shapes(str(tmp_path / 'empty'))


# --- samples ------------------------------------------------------------------------------------------------------


def test_samples_near_the_surface_have_both_variances():
    body = shapes.AnalyticShape('plane-like', (shapes.Primitive('box', (2.0, 2.0, 0.2)),))
    body.__dict__['_begun'] = trimesh.creation.box((4.0, 4.0, 0.4))
    points = shapes.sample_near_surface(body, 20_000, np.random.default_rng(0), (0.005, 0.0005))
    inner = (np.abs(points[:, :2]) < 1.5).all(-1)
    for first, variance in ((0, 0.005), (1, 0.0005)):
        chosen = np.arange(len(points)) % 2 == first
        offsets = np.abs(points[chosen & inner, 2]) - 0.2
        assert offsets.var() == pytest.approx(variance, rel=0.1)


def test_samples_near_the_surface_have_a_variance():
    with pytest.raises(UsageError, match='variances is empty'):
        shapes.sample_near_surface(shapes.make_bodies(count=1)[0], 5, np.random.default_rng(0), ())


def test_distance_samples_are_those_of_deepsdf():
    body = shapes.make_bodies(('sphere',), 1, space='sphere')[0]
    points, values = shapes.sample_distances(body, 1000, np.random.default_rng(0))
    np.testing.assert_allclose(values, body.signed_distance(points))
    assert np.abs(values[:940]).max() < 0.4
    assert np.abs(points[940:]).max() > 0.9
    chosen = shapes.balance_signs(values, 500, np.random.default_rng(0))
    assert (values[chosen] < 0).sum() == 250
    assert (shapes.balance_signs(np.ones(5), 8, np.random.default_rng(0)) < 5).all()


def test_the_local_sigma_is_the_distance_of_a_neighbour():
    points = np.random.default_rng(0).normal(size=(80, 3))
    expected = np.sort(np.linalg.norm(points[:, None] - points, axis=-1), axis=1)[:, 7]
    np.testing.assert_allclose(shapes.neighbour_distances(points, 7), expected)
