"""One scene in four layouts: recognised, and the same after it is moved to where a field expects it."""

import json

import numpy as np
import pytest
from PIL import Image

from canon.data.scenes import layouts, traced, views
from canon.errors import CanonError, UsageError
from tests.data import test_colmap, test_views


def blender_folder(folder, scene):
    (folder / 'train').mkdir(parents=True)
    frames = []
    for i, (image, pose) in enumerate(zip(scene.images, scene.poses, strict=True)):
        Image.fromarray(image).save(folder / 'train' / f'{i:02}.png')
        frames.append({'file_path': f'train/{i:02}', 'transform_matrix': pose.tolist()})
    content = json.dumps({'camera_angle_x': traced.ANGLE, 'frames': frames})
    for split in ('train', 'test'):
        (folder / f'transforms_{split}.json').write_text(content)


def colmap_folder(folder, scene):
    focal = scene.camera.focal[0]
    lens = (1, (focal, focal, 12.0, 12.0), None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(test_colmap.LENSES, 'PINHOLE', lens)
        test_colmap.binary(folder, scene, 'PINHOLE')


WRITERS = {
    'blender': blender_folder,
    'ngp': lambda folder, scene: test_views.ngp_folder(folder, scene, camera_angle_x=traced.ANGLE),
    'llff': lambda folder, scene: test_views.llff_folder(folder, scene, scale=2.0),
    'colmap': colmap_folder,
}


def opaque_scene(**more):
    scene = views.load_views('traced', views=9, size=24, seed=2, **more)
    return scene._replace(images=scene.images[..., :3])


@pytest.mark.parametrize('layout', WRITERS)
def test_four_layouts_of_a_scene_are_one(tmp_path, layout):
    """About what the cameras look at, at a mean depth of 1, z up; as the traced scene is when it is moved by hand."""
    scene = opaque_scene()
    WRITERS[layout](tmp_path / layout, scene)
    assert layouts.recognise(tmp_path / layout)[0] == layout
    result = views.load_views('capture', path=str(tmp_path / layout))
    expected = scene.poses.copy()
    expected[:, :3, 3] /= traced.RADIUS
    expected = expected if layout == 'blender' else expected[1:8]  # of which no view is held out
    # Which way is x is the layout's; LLFF's scene is turned.
    np.testing.assert_allclose(result.poses[:, 2], expected[:, 2], atol=2e-3)
    np.testing.assert_allclose(result.camera.focal, scene.camera.focal, rtol=1e-6)
    assert 0 < result.near < 0.7
    assert result.far > 1.4
    held_out = views.load_views('capture', 'test', path=str(tmp_path / layout), factor=2)
    assert held_out.images.shape[1:] == (12, 12, 3)
    poses = (
        held_out.poses
        if layout == 'blender'
        else np.concatenate([held_out.poses[:1], result.poses, held_out.poses[1:]])
    )
    among = np.linalg.inv(scene.poses[0].astype(float)) @ scene.poses.astype(float)
    among[:, :3, 3] /= traced.RADIUS
    np.testing.assert_allclose(np.linalg.inv(poses[0].astype(float)) @ poses, among, atol=1e-5)


def test_a_capture_from_one_side_is_enclosed(tmp_path):
    scene = opaque_scene(facing=True)
    test_views.ngp_folder(tmp_path / 'a', scene, camera_angle_x=traced.ANGLE)
    result = views.load_views('capture', path=str(tmp_path / 'a' / 'transforms.json'))
    scale = np.linalg.norm(result.poses[0, :3, 3] - result.poses[1, :3, 3]) / np.linalg.norm(
        scene.poses[1, :3, 3] - scene.poses[2, :3, 3]
    )
    assert scene.depths is not None
    along = views.axial_depth(scene.depths, scene.camera)[np.isfinite(scene.depths)] * scale
    assert result.near < along.min()
    assert along.max() < result.far
    plain, _ = traced.sample_poses('train', 9, 2, facing=True)
    np.testing.assert_allclose(result.poses[:, 2, :3], plain[1:8, 2, :3], atol=0.02)  # upright as it was


def test_an_object_with_alpha_fits_the_ball_of_radius_one(tmp_path):
    traced.write_scene(tmp_path, views=9, held_out=3, size=24)
    result = views.load_views('capture', path=str(tmp_path))
    assert result.images.shape[-1] == 4
    assert result.depths is not None
    hit = np.isfinite(result.depths)
    along = views.axial_depth(result.depths, result.camera)[hit]
    assert result.near < along.min()
    assert along.max() < result.far < 10
    height, width = result.camera.size
    y, x = np.indices((height, width)) + 0.5
    own = np.stack(
        ((x - width / 2) / result.camera.focal[0], -(y - height / 2) / result.camera.focal[1], -np.ones_like(x)), -1
    )
    own = own / np.linalg.norm(own, axis=-1, keepdims=True)
    for pose, depth in zip(result.poses, result.depths, strict=True):
        seen = np.isfinite(depth)
        points = (own[seen] * depth[seen][:, None]) @ pose[:3, :3].T + pose[:3, 3]
        assert np.linalg.norm(points, axis=-1).max() < 1.25
    test = views.load_views('capture', 'test', path=str(tmp_path))
    np.testing.assert_allclose(test.near, result.near)


def test_near_and_far_are_in_the_captures_own_units(tmp_path):
    test_views.ngp_folder(tmp_path / 'a', opaque_scene(), camera_angle_x=traced.ANGLE)
    result = views.load_views('capture', path=str(tmp_path / 'a'), near=2.0, far=12.0)
    np.testing.assert_allclose([result.near, result.far], [0.5, 3], rtol=1e-5)


def test_a_factor_is_chosen_by_the_longer_side(tmp_path):
    scene = opaque_scene()
    scene = scene._replace(images=np.zeros((9, 40, 700, 3), np.uint8))
    test_views.ngp_folder(tmp_path / 'a', scene, camera_angle_x=traced.ANGLE)
    assert views.load_views('capture', path=str(tmp_path / 'a')).images.shape[1:3] == (13, 233)


def test_what_is_no_capture_is_refused(tmp_path):
    with pytest.raises(CanonError, match=r'has none of transforms_train\.json, transforms\.json'):
        views.load_views('capture', path=str(tmp_path))
    with pytest.raises(UsageError, match=r"layout='colmp'.*did you mean 'colmap'"):
        views.load_views('capture', path=str(tmp_path), layout='colmp')
    with pytest.raises(UsageError, match=r'are those of their poses_bounds\.npy'):
        views.load_views('capture', path=str(tmp_path), layout='llff', near=1.0)
    with pytest.raises(UsageError, match='there is no folder'):
        views.load_views('capture', path=str(tmp_path / 'nowhere'))
    (tmp_path / 'sparse' / '0').mkdir(parents=True)
    (tmp_path / 'sparse' / '0' / 'cameras.bin').touch()
    (tmp_path / 'poses_bounds.npy').touch()
    assert layouts.recognise(tmp_path) == ('colmap', 'sparse/0')
