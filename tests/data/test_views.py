"""The embedded scene against closed forms, and views of each format read back as they were written."""

import json
import math
import pickle

import numpy as np
import pytest
from PIL import Image

import canon
from canon.data.scenes import captures, traced, views
from canon.errors import CanonError, UsageError

SMALL = dict(views=6, size=24, seed=3)


def small(split='train', **more):
    return views.load_views('traced', split, **{**SMALL, **more})


def first_hits(camera, pose, time):
    """Distances [H, W] and numbers of what is hit, ray by ray: roots of a quadratic, and faces of boxes."""
    height, width = camera.size
    far = np.full((height, width), np.inf)
    who = np.full((height, width), -1)
    for j in range(height):
        for i in range(width):
            own = np.array(
                [(i + 0.5 - camera.centre[0]) / camera.focal[0], -(j + 0.5 - camera.centre[1]) / camera.focal[1], -1.0]
            )
            direction, eye = pose[:3, :3].astype(float) @ own, pose[:3, 3].astype(float)
            for n, thing in enumerate(traced.scene_objects(time)):
                for t in roots(thing, eye, direction):
                    if 0 < t * np.linalg.norm(direction) < far[j, i]:
                        far[j, i], who[j, i] = t * np.linalg.norm(direction), n
    return far, who


def roots(body, eye, direction):
    offset = eye - body.centre
    if isinstance(body, traced.Ball):
        result = np.roots([direction @ direction, 2 * direction @ offset, offset @ offset - body.radius**2])
        return result.real[np.abs(result.imag) < 1e-12]
    c, s = math.cos(body.turn), math.sin(body.turn)
    axes, result = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]), []
    for k in range(3):
        for side in (-1, 1):
            t = (side * body.half[k] - axes[k] @ offset) / (axes[k] @ direction)
            at = axes @ (offset + t * direction)
            if all(abs(at[m]) <= body.half[m] + 1e-9 for m in range(3) if m != k):
                result.append(t)
    return result


@pytest.mark.parametrize('motion', [False, True])
def test_depth_is_where_rays_meet_spheres_and_boxes(motion):
    scene = small(views=2, motion=motion)
    hit_objects = set()
    for i, pose in enumerate(scene.poses):
        expected, who = first_hits(scene.camera, pose, float(scene.times[i]) if motion else 0.0)
        np.testing.assert_allclose(scene.depths[i], expected, rtol=1e-6)
        hit_objects |= set(who.ravel())
    assert len(hit_objects) > 4, 'the two views show too little to judge'
    hit = np.isfinite(scene.depths)
    assert scene.near < scene.depths[hit].min()
    assert scene.depths[hit].max() < scene.far


@pytest.mark.parametrize('only', [(1,), (2, 3)])
def test_some_of_the_things_alone(only):
    """They hide what they did, and hide nothing else; a thing alone is lit by the sun."""
    scene, everything = small(views=2, only=only), small(views=2)
    for i, pose in enumerate(scene.poses):
        expected, who = first_hits(scene.camera, pose, 0.0)
        seen = np.isin(who, only)
        np.testing.assert_allclose(scene.depths[i][seen], expected[seen], rtol=1e-6)
        assert (scene.depths[i] >= everything.depths[i]).all()
        assert 0.03 < np.isfinite(scene.depths[i]).mean() < 0.3
        assert scene.images[i][np.isfinite(scene.depths[i])].max() > 150
    with pytest.raises(UsageError, match=r'traced: only=\(6,\) must hold indices of objects, 0\.\.5'):
        small(only=(6,))


def test_cameras_are_reachable_from_canon():
    assert 'camera' in dir(canon)
    assert canon.camera.Camera is type(traced.pinhole_camera(8))


def test_depth_along_the_axis_is_that_of_the_points():
    scene = small(views=1)
    x, y = (np.arange(24) + 0.5 - 12 for _ in 'xy')
    length = np.sqrt(1 + (x[None] ** 2 + y[:, None] ** 2) / scene.camera.focal[0] ** 2)
    np.testing.assert_allclose(views.axial_depth(scene.depths, scene.camera) * length, scene.depths, rtol=1e-6)


def test_cameras_look_at_the_origin_upright_and_apart():
    poses = np.concatenate([traced.sample_poses(split, 40, 5)[0] for split in views.SPLITS]).astype(float)
    turn, eye = poses[:, :3, :3], poses[:, :3, 3]
    np.testing.assert_allclose(turn.swapaxes(1, 2) @ turn, np.broadcast_to(np.eye(3), turn.shape), atol=1e-6)
    np.testing.assert_allclose(np.linalg.det(turn), 1, atol=1e-6)
    np.testing.assert_allclose(eye + traced.RADIUS * -turn[:, :, 2], 0, atol=1e-5)  # along -z, 4 away, is the origin
    assert (turn[:, 2, 1] > 0).all(), 'up in the picture is up in the world'
    assert (eye[:, 2] > 0).all()
    offset = np.linalg.norm(eye[:, None] - eye[None], axis=-1)[~np.eye(len(eye), dtype=bool)]
    assert offset.min() > 0.01, 'a held-out view that is also trained on'


def test_views_are_a_function_of_their_arguments_and_the_first_ones_stay():
    a, few = small(), small(views=2)
    np.testing.assert_array_equal(a.images[:2], few.images)
    np.testing.assert_array_equal(a.poses[:2], few.poses)
    assert not np.array_equal(a.poses, small('test').poses)
    assert not np.array_equal(a.poses, small(seed=4).poses)
    traced._render_views.cache_clear()
    np.testing.assert_array_equal(a.images, small().images)


def test_pixels_are_means_of_their_rays_with_straight_alpha():
    camera, pose = traced.pinhole_camera(8), traced.sample_poses('train', 1, 0)[0][0]
    coarse = traced.trace_picture(camera, pose, samples=3).astype(float)
    fine = traced.trace_picture(traced.pinhole_camera(24), pose, samples=1).astype(float)  # the same rays
    assert set(np.unique(fine[..., 3])) == {0.0, 255.0}
    blocks = (fine * (fine[..., 3:] > 0)).reshape(8, 3, 8, 3, 4).sum((1, 3))
    hits = (fine[..., 3] > 0).reshape(8, 3, 8, 3).sum((1, 3))
    np.testing.assert_allclose(coarse[..., 3], 255 * hits / 9, atol=0.5)
    np.testing.assert_allclose(coarse[..., :3], blocks[..., :3] / np.maximum(hits, 1)[..., None], atol=1.01)


def test_the_highlight_depends_on_the_view():
    """The same point of the red ball, in the sun, is brighter where it mirrors the sun into the camera."""
    ball, others = traced.scene_objects()[1], (*traced.scene_objects()[:1], *traced.scene_objects()[2:])
    at = np.asarray(ball.centre)[:, None] + ball.radius * traced._SUN[:, None]
    directions = [np.array([[0.0], [0.0], [-1.0]]), -traced._SUN[:, None]]
    side, mirror = (traced._light(ball, others, at, direction) for direction in directions)
    assert (mirror - side > 0.1)[1:].all()  # red is at its brightest in both


def test_blender_gives_back_what_was_written(tmp_path):
    traced.write_scene(tmp_path, views=4, held_out=2, size=20, seed=1, motion=True)
    for split, count in (('train', 4), ('val', 2), ('test', 2)):
        wrote = views.load_views('traced', split, views=count, size=20, seed=1, motion=True)
        read = views.load_views('blender', split, path=str(tmp_path))
        for name in ('images', 'poses', 'times', 'depths'):
            np.testing.assert_array_equal(getattr(read, name), getattr(wrote, name))
        assert read[2:5] == wrote[2:5]
    assert not np.array_equal(read.poses, views.load_views('blender', 'val', path=str(tmp_path)).poses)


def test_smaller_pictures_weigh_colours_by_their_alpha(tmp_path):
    image = np.zeros((4, 4, 4), np.uint8)
    image[0, 0] = 200, 100, 50, 255  # the one opaque pixel of its block
    image[2:, 2:] = 40, 80, 120, 100
    Image.fromarray(image).save(tmp_path / 'a.png')
    reduced, size = captures.read_pictures([tmp_path / 'a.png'], 2)
    assert size == (4, 4)
    np.testing.assert_array_equal(reduced[0, 0, 0], [200, 100, 50, 64])
    np.testing.assert_array_equal(reduced[0, 1, 1], [40, 80, 120, 100])


def test_backgrounds():
    scene = small()
    alpha = scene.images[..., 3:] / 255
    np.testing.assert_allclose(
        views.blend_background(scene, 'white'), scene.images[..., :3] * alpha + 255 * (1 - alpha), atol=0.51
    )
    np.testing.assert_allclose(
        views.blend_background(scene, (9, 0, 255))[..., 0],
        (scene.images[..., :3] * alpha + 9 * (1 - alpha))[..., 0],
        atol=0.51,
    )
    plain = scene._replace(images=scene.images[..., :3])
    assert views.blend_background(plain) is plain.images
    with pytest.raises(UsageError, match='no alpha'):
        views.blend_background(plain, 'white')
    with pytest.raises(UsageError, match='have alpha'):
        views.blend_background(scene)
    with pytest.raises(UsageError, match="background='pink' must be"):
        views.blend_background(scene, 'pink')


def test_some_of_the_views():
    few = views.take(small(), [4, 1])
    np.testing.assert_array_equal(few.depths, small().depths[[4, 1]])
    assert few.names == ('train/r_4', 'train/r_1')


def ngp_folder(folder, scene, **more):
    folder.mkdir(exist_ok=True)
    frames = []
    for i, image in enumerate(scene.images):
        Image.fromarray(image).save(folder / f'{i:02}.png')
        frames.append({'file_path': f'{i:02}.png', 'transform_matrix': scene.poses[i].tolist()})
    (folder / 'transforms.json').write_text(json.dumps({**more, 'frames': frames}))
    return folder


def test_ngp_reads_the_whole_camera(tmp_path, caplog):
    scene = small(views=9)
    lens = dict(fl_x=60.0, fl_y=62.0, cx=25.0, cy=23.0, w=48, h=48, k1=0.1, k2=0.01, p1=0.002, p2=-0.003)
    folder = ngp_folder(tmp_path / 'a', scene, **lens)  # measured at twice the size of the pictures
    read = views.load_views('ngp', 'train', path=str(folder), near=1, far=7)
    np.testing.assert_array_equal(read.poses, scene.poses[1:8])
    np.testing.assert_array_equal(read.images, scene.images[1:8])
    assert read.camera == ((30.0, 31.0), (12.5, 11.5), (24, 24), (0.1, 0.01, 0.002, -0.003))
    held_out = views.load_views('ngp', 'test', path=str(folder / 'transforms.json'), factor=2)
    np.testing.assert_array_equal(held_out.poses, scene.poses[[0, 8]])
    assert held_out.camera.focal == (15.0, 15.5)
    assert held_out.camera.size == (12, 12)
    assert not caplog.records
    (folder / '03.png').unlink()
    names = [name for split in ('train', 'test') for name in views.load_views('ngp', split, path=str(folder)).names]
    assert sorted(names) == [f'{i:02}.png' for i in range(9) if i != 3]
    assert '1 of 9 frames' in caplog.text


def test_ngp_from_the_angle_alone(tmp_path):
    read = views.load_views('ngp', path=str(ngp_folder(tmp_path / 'a', small(), camera_angle_x=traced.ANGLE)))
    assert read.camera == small().camera
    # The traced cameras look at the origin from a distance of 4.
    np.testing.assert_allclose([read.near, read.far], [1, 8], rtol=1e-5)


def test_near_and_far_of_a_capture_from_one_side_enclose_what_it_looks_at(tmp_path):
    scene = small(views=9, facing=True)
    read = views.load_views('ngp', path=str(ngp_folder(tmp_path / 'a', scene, camera_angle_x=traced.ANGLE)))
    hit = np.isfinite(scene.depths)
    along = views.axial_depth(scene.depths, scene.camera)[hit]
    assert read.near < along.min()
    assert along.max() < read.far


def test_cameras_that_look_in_parallel_are_warned_of(tmp_path, caplog):
    scene = small(views=9)
    poses = np.tile(np.eye(4, dtype=np.float32), (9, 1, 1))
    poses[:, 0, 3] = np.arange(9)
    folder = ngp_folder(tmp_path / 'a', scene._replace(poses=poses), camera_angle_x=traced.ANGLE)
    read = views.load_views('ngp', path=str(folder))
    assert 'look at no common point' in caplog.text
    spread = np.arange(9).std()
    np.testing.assert_allclose([read.near, read.far], [0.25 * 5 * spread, 2 * 5 * spread])
    caplog.clear()
    views.load_views('ngp', path=str(folder), near=1, far=9)
    assert not caplog.records


def test_frames_with_cameras_of_their_own(tmp_path):
    file = ngp_folder(tmp_path / 'a', small(views=4), fl_x=30.0, k1=0.1) / 'transforms.json'
    content = json.loads(file.read_text())
    content['frames'][2] |= dict(fl_x=40.0, cx=11.0)
    file.write_text(json.dumps(content))
    read = views.load_views('ngp', path=str(file), near=1, far=7, factor=2)
    lens = [0.1, 0, 0, 0]
    # One focal length holds for both directions.
    expected = [[15, 15, 6, 6, *lens], [20, 20, 5.5, 6, *lens], [15, 15, 6, 6, *lens]]
    assert read.intrinsics is not None
    np.testing.assert_allclose(read.intrinsics, expected, rtol=1e-6)


@pytest.mark.parametrize('place', ['../../secret.png', '/etc/hostname'])
def test_pictures_outside_the_folder_are_refused(tmp_path, place):
    file = ngp_folder(tmp_path / 'a', small(views=4), fl_x=30.0) / 'transforms.json'
    content = json.loads(file.read_text())
    content['frames'][2]['file_path'] = place
    file.write_text(json.dumps(content))
    with pytest.raises(
        UsageError, match=f'file_path: {place!r} points outside .* put the file, or a link to it, there'
    ):
        views.load_views('ngp', path=str(file), near=1, far=7)


def test_blender_reads_the_intrinsics_in_its_file(tmp_path):
    traced.write_scene(tmp_path, views=2, held_out=1, size=8)
    file = tmp_path / 'transforms_train.json'
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, 'fl_x': 9.0, 'fl_y': 10.0, 'cx': 3.5, 'cy': 4.5, 'k1': 0.05}))
    read = views.load_views('blender', path=str(tmp_path))
    assert read.camera == ((9.0, 10.0), (3.5, 4.5), (8, 8), (0.05, 0, 0, 0))
    file.write_text(json.dumps({**content, 'k3': 0.1}))
    with pytest.raises(CanonError, match='k3, k4'):
        views.load_views('blender', path=str(tmp_path))


@pytest.mark.parametrize(
    ('said', 'frame', 'message'),
    [
        (dict(fl_x=30.0, k3=0.1), {}, 'k3, k4'),
        (dict(fl_x=30.0, camera_model='OPENCV_FISHEYE'), {}, 'lenses other than'),
        ({}, {}, "has no 'camera_angle_x'"),
        (dict(fl_x=30.0), dict(fl_x='wide'), "fl_x must be a finite number, got 'wide'"),
        (dict(fl_x=30.0, cx=math.nan), {}, 'cx must be a finite number'),
        (dict(fl_x=10**400), {}, 'fl_x must be a finite number'),
        (dict(camera_angle_x='0.7'), {}, "camera_angle_x must be a finite number, got '0.7'"),
        (dict(camera_angle_x=4.0), {}, 'camera_angle_x must be in radians'),
        (dict(fl_x=30.0, w=24, h=36), {}, 'pictures of 24x36, those on disk are 24x24'),
        (dict(fl_x=30.0, w=0, h=24), {}, 'w and h must be at least 1'),
        (dict(fl_x=30.0, k1=-0.5, k2=-3.0), {}, 'folds the picture over'),
        (dict(fl_x=30.0), dict(transform_matrix=None), 'frame 0 needs'),
        (dict(fl_x=30.0), dict(file_path=7), 'frame 0 needs'),
        (
            dict(fl_x=30.0),
            dict(transform_matrix=[[1, 0, 0, 'a']] * 3),
            "transform_matrix must be a finite number, got 'a'",
        ),
        (dict(fl_x=30.0), dict(file_path='lost'), 'names 2 pictures, and none'),
        (dict(fl_x=30.0), dict(transform_matrix=[[1, 0], [0, 1]]), 'frame 0 needs'),
        (dict(fl_x=-30.0), {}, 'focal length is positive'),
    ],
)
def test_cameras_that_are_not_read_are_named(tmp_path, said, frame, message):
    file = ngp_folder(tmp_path / 'a', small(views=2), **said) / 'transforms.json'
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, 'frames': [{**old, **frame} for old in content['frames']]}))
    with pytest.raises(CanonError, match=message):
        views.load_views('ngp', path=str(file))


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('{"camera_angle_x": 0.7, "frames": null}', 'needs a list of frames'),
        ('{"camera_angle_x": 0.7, "frames": [null]}', 'frame 0 needs'),
        ('[' * 100_000, 'is not valid JSON'),
        (b'\xff\xfe{}', 'is not valid JSON'),
    ],
)
@pytest.mark.parametrize('name', ['ngp', 'blender'])
def test_transforms_that_are_no_list_of_frames(tmp_path, name, content, message):
    file = tmp_path / ('transforms.json' if name == 'ngp' else 'transforms_train.json')
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(CanonError, match=rf'{file.name}.*{message}') as caught:
        views.load_views(name, path=str(tmp_path))
    assert '\n' not in str(caught.value)


def test_arrays_that_are_none_name_their_file(tmp_path):
    folder = llff_folder(tmp_path / 'a', small())
    file = folder / 'poses_bounds.npy'
    rows = np.load(file)
    header = np.lib.format.header_data_from_array_1_0(np.zeros(1))
    for write, message in (
        (lambda: file.write_text('0 1 2'), 'is not a NumPy array'),
        (lambda: file.write_bytes(pickle.dumps([1.0])), 'is not a NumPy array'),
        (lambda: np.save(file, np.array([[None] * 17]), allow_pickle=True), 'is not a NumPy array'),
        (lambda: np.save(file, rows.astype(str)), 'must be one array of real numbers'),
        (lambda: np.save(file, rows[:, :15]), r'must be \[N, 17\]'),
        (lambda: np.save(file, np.where(rows == rows[2, 3], np.nan, rows)), 'row 2 has numbers that are not finite'),
        (lambda: np.savez(file.with_suffix(''), rows) or file.with_suffix('.npz').replace(file), 'an archive'),
        (lambda: write_header(file, header | {'shape': (10**18, 17)}), 'is not a NumPy array'),
    ):
        write()
        with pytest.raises(CanonError, match=message) as caught:
            views.load_views('llff', path=str(folder))
        assert str(file) in str(caught.value)
        assert '\n' not in str(caught.value)


def write_header(file, header):
    with file.open('wb') as opened:
        np.lib.format.write_array_header_1_0(opened, header)


def test_depths_and_times_of_another_shape_are_refused(tmp_path):
    traced.write_scene(tmp_path, views=2, held_out=1, size=8, motion=True)
    np.save(tmp_path / 'train' / 'r_1_depth.npy', np.ones((4, 8)))
    with pytest.raises(CanonError, match=r'r_1_depth.npy must be \[8, 8\] like its picture, got \[4, 8\]'):
        views.load_views('blender', path=str(tmp_path))
    scene = small(views=2)
    for wrong, message in (
        (dict(times=np.zeros(3, np.float32)), r'need times of shape \[2\], got \[3\]'),
        (dict(times=np.array([0, np.nan])), r'times must be in \[0, 1\]'),
        (dict(depths=scene.depths[:1]), r'need depths of shape \[2, 24, 24\]'),
        (dict(depths=np.full((2, 24, 24), np.nan)), 'depths must be positive'),
        (dict(intrinsics=np.ones((2, 5))), r'need intrinsics of \[N, 4 or 8\]'),
        (dict(intrinsics=np.full((2, 4), np.nan)), 'focal length is positive'),
        (dict(camera=scene.camera._replace(focal=(np.nan, 1.0))), 'focal length is positive'),
        (dict(far=np.inf), 'near < far'),
    ):
        with pytest.raises(CanonError, match=message):
            views.check_views(scene._replace(**wrong), 'these')


def test_smaller_pictures_are_those_of_their_folder_where_there_is_one(tmp_path):
    folder = llff_folder(tmp_path / 'a', small())
    (folder / 'images_2').mkdir()
    for i in range(6):
        Image.new('RGB', (12, 12), (i, 0, 0)).save(folder / 'images_2' / f'{i:03}.png')
    read = views.load_views('llff', path=str(folder), factor=2)
    assert read.images[:, 0, 0, 0].tolist() == [1, 2, 3, 4, 5]
    assert read.camera.focal[0] == small().camera.focal[0] / 2


def llff_folder(folder, scene, near=3.0, far=9.0, scale=1.0):
    """As LLFF's imgs2poses writes it: columns down, right, back, place, (H, W, focal)."""
    (folder / 'images').mkdir(parents=True)
    rows = []
    for i, (image, pose) in enumerate(zip(scene.images, scene.poses.astype(float), strict=True)):
        Image.fromarray(image[..., :3]).save(folder / 'images' / f'{i:03}.png')
        right, up, back, place = pose[:3].T
        hwf = [*scene.camera.size, scene.camera.focal[0]]
        rows.append([*np.stack((-up, right, back, scale * place, hwf), 1).ravel(), near, far])
    np.save(folder / 'poses_bounds.npy', np.array(rows))
    return folder


def test_llff_is_scaled_and_recentred_as_nerf_does(tmp_path):
    scene = small(views=9)
    folder = llff_folder(tmp_path / 'a', scene, scale=2.0)
    plain = views.load_views('llff', path=str(folder), factor=1, recentre=False)
    scale = 1 / (3.0 * 0.75)
    np.testing.assert_allclose(plain.poses[:, :3, :3], scene.poses[1:8, :3, :3], atol=1e-6)
    np.testing.assert_allclose(plain.poses[:, :3, 3], scene.poses[1:8, :3, 3] * 2 * scale, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose([plain.near, plain.far], [0.9 * 3 * scale, 9 * scale])
    np.testing.assert_array_equal(plain.images, scene.images[1:8, ..., :3])
    turned = [views.load_views('llff', split, path=str(folder), factor=2) for split in ('train', 'test')]
    poses = np.concatenate([t.poses for t in turned]).astype(float)
    np.testing.assert_allclose(poses[:, :3, 3].mean(0), 0, atol=1e-6)
    back = poses[:, :3, 2].sum(0)
    np.testing.assert_allclose(back / np.linalg.norm(back), [0, 0, 1], atol=1e-6)
    among = np.linalg.inv(poses[0]) @ poses[1]  # a rigid motion of all leaves what one is to another
    before = [np.block([[p[:3, :3], 2 * scale * p[:3, 3:]], [0, 0, 0, 1]]) for p in scene.poses[1:3].astype(float)]
    np.testing.assert_allclose(among, np.linalg.inv(before[0]) @ before[1], atol=1e-5)
    assert turned[0].camera.size == (12, 12)
    np.testing.assert_allclose(turned[0].camera.focal[0], scene.camera.focal[0] / 2)
    (folder / 'images' / '000.png').unlink()
    with pytest.raises(CanonError, match=r'9 poses, but .* 8 pictures'):
        views.load_views('llff', path=str(folder))


def spoilt(tmp_path, change):
    """What reading says of a Blender folder after `change(folder, transforms)`."""
    traced.write_scene(tmp_path, views=2, held_out=1, size=8)
    file = tmp_path / 'transforms_train.json'
    said = json.loads(file.read_text())
    change(tmp_path, said)
    file.write_text(json.dumps(said))
    with pytest.raises(CanonError) as caught:
        views.load_views('blender', path=str(tmp_path))
    assert '\n' not in str(caught.value)
    return str(caught.value)


def test_a_folder_that_cannot_be_learnt_from_says_why(tmp_path):
    def larger(folder, said):
        Image.new('RGBA', (9, 8)).save(folder / 'train' / 'r_1.png')

    def mirrored(folder, said):
        said['frames'][1]['transform_matrix'][0] = [-x for x in said['frames'][1]['transform_matrix'][0]]

    def no_rotation(folder, said):
        said['frames'][0]['transform_matrix'][0][0] += 0.1

    assert 'r_1.png' in spoilt(tmp_path / 'a', lambda folder, said: (folder / 'train' / 'r_1.png').unlink())
    assert 'r_1.png is 9x8 and r_0.png is 8x8' in spoilt(tmp_path / 'b', larger)
    assert 'r_1.png is not a rotation' in spoilt(tmp_path / 'c', mirrored)
    assert 'r_0.png is not a rotation' in spoilt(tmp_path / 'd', no_rotation)
    assert "has no 'camera_angle_x'" in spoilt(tmp_path / 'e', lambda folder, said: said.pop('camera_angle_x'))
    assert 'no picture' in spoilt(tmp_path / 'f', lambda folder, said: said['frames'].clear())
    with pytest.raises(UsageError, match='expected 0 <= near < far, got near=6 and far=6'):
        views.load_views('blender', 'val', path=str(tmp_path / 'a'), near=6.0)
    with pytest.raises(UsageError, match='no folder'):
        views.load_views('blender', path=str(tmp_path / 'nowhere'))
    with pytest.raises(UsageError, match="no set of views is called 'blendr'; did you mean 'blender'"):
        views.load_views('blendr')
    with pytest.raises(UsageError, match="did you mean 'size'"):
        views.load_views('traced', siz=3)
    with pytest.raises(UsageError, match="'path'"):
        views.load_views('llff')


def test_a_forward_facing_capture_is_the_scene_seen_in_other_axes():
    """Undone, its poses are those it was traced from; all of the scene lies before the near plane z = -1 and it is
    seen: points at the depths are where the tracer met the scene."""
    loaded = views.load_views('traced', size=16, views=6, facing=True)
    plain, _ = traced.sample_poses('train', 6, 0, facing=True)
    scale = np.linalg.norm(loaded.poses[0, :3, 3] - loaded.poses[1, :3, 3]) / np.linalg.norm(
        plain[0, :3, 3] - plain[1, :3, 3]
    )
    for a, b in ((loaded.poses[0], plain[0]), (loaded.poses[3], plain[3])):
        turn = loaded.poses[1, :3, :3].T @ a[:3, :3]
        np.testing.assert_allclose(turn, plain[1, :3, :3].T @ b[:3, :3], atol=1e-5)
        np.testing.assert_allclose(
            loaded.poses[1, :3, :3].T @ (a[:3, 3] - loaded.poses[1, :3, 3]) / scale,
            plain[1, :3, :3].T @ (b[:3, 3] - plain[1, :3, 3]),
            atol=1e-4,
        )
    assert loaded.depths is not None
    for pose, depth in zip(loaded.poses, loaded.depths, strict=True):
        along = views.axial_depth(depth, loaded.camera)
        y, x = np.nonzero(np.isfinite(depth))
        assert len(x) > 50
        at = (np.stack((x, y), -1) + 0.5 - loaded.camera.centre) / loaded.camera.focal
        own = along[y, x][:, None] * np.stack((at[:, 0], -at[:, 1], -np.ones(len(x))), -1)
        world = own @ pose[:3, :3].T + pose[:3, 3]
        assert (world[:, 2] < -1).all()
        assert loaded.near < along[y, x].min()
        assert along[y, x].max() < loaded.far
