"""COLMAP's files, written here byte by byte after its documentation, read back to the cameras they came from."""

import struct

import numpy as np
import pytest
from PIL import Image

from canon.data.scenes import views
from canon.errors import CanonError

LENSES = {
    'SIMPLE_PINHOLE': (0, (30.0, 11.0, 13.0), ((30.0, 30.0), (11.0, 13.0), ())),
    'PINHOLE': (1, (30.0, 31.0, 11.0, 13.0), ((30.0, 31.0), (11.0, 13.0), ())),
    'SIMPLE_RADIAL': (2, (30.0, 11.0, 13.0, 0.1), ((30.0, 30.0), (11.0, 13.0), (0.1, 0, 0, 0))),
    'RADIAL': (3, (30.0, 11.0, 13.0, 0.1, 0.2), ((30.0, 30.0), (11.0, 13.0), (0.1, 0.2, 0, 0))),
    'OPENCV': (4, (30.0, 31.0, 11.0, 13.0, 0.1, 0.2, 0.03, 0.04), ((30.0, 31.0), (11.0, 13.0), (0.1, 0.2, 0.03, 0.04))),
}


def scene():
    return views.load_views('traced', views=9, size=24, seed=2)


def shots(scene):
    """(name, quaternion, translation, numbers of points seen) of each view, in an order that is not that of names."""
    for i in reversed(range(len(scene.poses))):
        seen = np.linalg.inv(scene.poses[i].astype(float) @ np.diag([1.0, -1, -1, 1]))
        yield f'sub/{i:02}.png', quaternion(seen[:3, :3]), seen[:3, 3], ([7, -1, 9] if i else [])


def quaternion(turn):
    """(w, x, y, z): the eigenvector of Bar-Itzhack's matrix to its largest eigenvalue."""
    (a, b, c), (d, e, f), (g, h, k) = turn
    square = np.array([
        [a - e - k, b + d, c + g, h - f],
        [b + d, e - a - k, f + h, c - g],
        [c + g, f + h, k - a - e, d - b],
        [h - f, c - g, d - b, a + e + k],
    ])  # fmt: skip
    x, y, z, w = np.linalg.eigh(square)[1][:, -1]
    return np.array([w, x, y, z])


POINTS = {7: (0.5, 0.0, 0.0), 9: (0.0, -1.0, 0.25)}


def pictures(folder, scene):
    (folder / 'images' / 'sub').mkdir(parents=True)
    (folder / 'sparse' / '0').mkdir(parents=True)
    for i, image in enumerate(scene.images):
        Image.fromarray(image).save(folder / 'images' / 'sub' / f'{i:02}.png')
    return folder / 'sparse' / '0'


def binary(folder, scene, lens):
    number, values, _ = LENSES[lens]
    model = pictures(folder, scene)
    (model / 'cameras.bin').write_bytes(struct.pack(f'<QiiQQ{len(values)}d', 1, 5, number, 24, 24, *values))
    data = struct.pack('<Q', len(scene.poses))
    for i, (name, turn, place, seen) in enumerate(shots(scene)):
        data += struct.pack('<i7di', i + 1, *turn, *place, 5) + name.encode() + b'\0' + struct.pack('<Q', len(seen))
        data += b''.join(struct.pack('<ddq', 1.5, 2.5, point) for point in seen)
    (model / 'images.bin').write_bytes(data)
    data = struct.pack('<Q', len(POINTS))
    for i, place in POINTS.items():
        data += struct.pack('<Q3d3BdQ', i, *place, 1, 2, 3, 0.5, 2) + struct.pack('<4i', 1, 0, 2, 0)
    (model / 'points3D.bin').write_bytes(data)


def text(folder, scene, lens):
    model = pictures(folder, scene)
    (model / 'cameras.txt').write_text(f'# Camera list\n5 {lens} 24 24 {" ".join(map(str, LENSES[lens][1]))}\n')
    rows = ['# Image list']
    for i, (name, turn, place, seen) in enumerate(shots(scene)):
        rows.append(' '.join(map(repr, [i + 1, *map(float, turn), *map(float, place), 5])) + f' {name}')
        rows.append(' '.join(f'1.5 2.5 {point}' for point in seen))
    (model / 'images.txt').write_text('\n'.join(rows) + '\n')
    rows = [f'{i} {" ".join(map(str, place))} 1 2 3 0.5 1 0 2 0' for i, place in POINTS.items()]
    (model / 'points3D.txt').write_text('# points\n' + '\n'.join(rows) + '\n')


@pytest.mark.parametrize('write', [binary, text])
@pytest.mark.parametrize('lens', LENSES)
def test_poses_and_lenses_come_back(tmp_path, write, lens):
    loaded = scene()
    write(tmp_path, loaded, lens)
    read = views.load_views('colmap', path=str(tmp_path))
    np.testing.assert_allclose(read.poses, loaded.poses[1:8], atol=1e-6)
    np.testing.assert_array_equal(read.images, loaded.images[1:8])
    assert (read.camera.focal, read.camera.centre, read.camera.distortion) == LENSES[lens][2]
    eyes, axes = loaded.poses[1:, :3, 3].astype(float), -loaded.poses[1:, :3, 2]  # the first saw no points
    depths = np.concatenate([((point - eyes) * axes).sum(1) for point in POINTS.values()])
    np.testing.assert_allclose([read.near, read.far], np.percentile(depths, (0.1, 99.9)) * (0.9, 1.1), rtol=1e-6)
    held_out = views.load_views('colmap', 'test', path=str(tmp_path), factor=2, near=1, far=9)
    np.testing.assert_allclose(held_out.poses, loaded.poses[[0, 8]], atol=1e-6)
    assert held_out.names == ('sub/00.png', 'sub/08.png')
    assert held_out.camera.focal[0] == 15.0


def refusal(folder, **arguments):
    with pytest.raises(CanonError) as caught:
        views.load_views('colmap', path=str(folder), **arguments)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def test_what_cannot_be_read_says_why(tmp_path):
    binary(tmp_path, scene(), 'PINHOLE')
    model = tmp_path / 'sparse' / '0'
    (model / 'points3D.bin').unlink()
    assert 'near and far must be given' in refusal(tmp_path)
    (tmp_path / 'images' / 'sub' / '03.png').unlink()
    assert '03.png' in refusal(tmp_path, near=1, far=9)
    sound_bytes = (model / 'images.bin').read_bytes()
    (model / 'images.bin').write_bytes(sound_bytes[:-100])
    assert 'images.bin is cut short' in refusal(tmp_path)
    (model / 'images.bin').write_bytes(sound_bytes)
    (model / 'cameras.bin').write_bytes(struct.pack('<QiiQQ8d', 1, 5, 5, 24, 24, *range(8)))
    assert 'lens 5 is not read' in refusal(tmp_path)
    (model / 'cameras.bin').write_bytes(struct.pack('<QiiQQ3d', 1, 6, 0, 24, 24, 30, 12, 12))
    assert 'sub/00.png was taken by camera 5, which is not listed' in refusal(tmp_path)
    (model / 'cameras.bin').write_bytes(struct.pack('<QiiQQ3d', 1, 5, 0, 24, 24, np.nan, 12, 12))
    assert 'a SIMPLE_PINHOLE camera has' in refusal(tmp_path)
    assert 'holds no cameras' in refusal(tmp_path, model='sparse/1')


def test_a_camera_for_each_picture(tmp_path):
    """Intrinsics reach the views, at the pictures' size; the camera of new views is a median one."""
    binary(tmp_path, scene(), 'OPENCV')
    model = tmp_path / 'sparse' / '0'
    cameras = b''.join(
        struct.pack('<iiQQ8d', 50 + i, 4, 48, 48, 60 + i, 62 + i, 24, 23, 0.01 * i, 0, 0, 0) for i in range(9)
    )
    (model / 'cameras.bin').write_bytes(struct.pack('<Q', 9) + cameras)
    listed = (model / 'images.bin').read_bytes()
    for i in range(9):
        name = f'sub/{i:02}.png'.encode()
        listed = listed.replace(struct.pack('<i', 5) + name, struct.pack('<i', 50 + i) + name)
    (model / 'images.bin').write_bytes(listed)
    read = views.load_views('colmap', path=str(tmp_path))
    expected = [[30 + i / 2, 31 + i / 2, 12, 11.5, 0.01 * i, 0, 0, 0] for i in range(1, 8)]
    assert read.intrinsics is not None
    np.testing.assert_allclose(read.intrinsics, expected, rtol=1e-6)
    assert read.camera.focal == (32.0, 33.0)
    few = views.take(read, [2, 0])
    assert few.intrinsics is not None
    np.testing.assert_allclose(few.intrinsics, [expected[2], expected[0]], rtol=1e-6)
    # Two cameras of the same numbers are one.
    same = b''.join(struct.pack('<iiQQ8d', 50 + i, 4, 48, 48, 60, 62, 24, 23, 0, 0, 0, 0) for i in range(9))
    (model / 'cameras.bin').write_bytes(struct.pack('<Q', 9) + same)
    assert views.load_views('colmap', path=str(tmp_path)).intrinsics is None


def test_near_and_far_of_a_wide_lens_are_depths(tmp_path):
    """On a lens of 90 degrees a point in the corner is 1.73 times as far away as it is deep."""
    loaded = scene()
    binary(tmp_path, loaded, 'PINHOLE')
    model = tmp_path / 'sparse' / '0'
    points = b''
    for number, (x, y, depth) in {7: (1.0, 1.0, 1.5), 9: (-1.0, 1.0, 8.0)}.items():
        place = loaded.poses[4].astype(float) @ [x * depth, y * depth, -depth, 1]
        points += struct.pack('<Q3d3BdQ', number, *place[:3], 1, 2, 3, 0.5, 0)
    (model / 'points3D.bin').write_bytes(struct.pack('<Q', 2) + points)
    listed = struct.pack('<Q', 1)
    name, turn, place, _ = next(shot for shot in shots(loaded) if shot[0] == 'sub/04.png')
    listed += struct.pack('<i7di', 1, *turn, *place, 5) + name.encode() + b'\0' + struct.pack('<Q', 2)
    listed += b''.join(struct.pack('<ddq', 1.5, 2.5, point) for point in (7, 9))
    (model / 'images.bin').write_bytes(listed)
    read = views.load_views('colmap', 'test', path=str(tmp_path))
    expected = np.percentile([1.5, 8.0], (0.1, 99.9)) * (0.9, 1.1)
    np.testing.assert_allclose([read.near, read.far], expected, rtol=1e-5)


def test_a_zero_quaternion_is_refused(tmp_path):
    text(tmp_path, scene(), 'PINHOLE')
    file = tmp_path / 'sparse' / '0' / 'images.txt'
    rows = file.read_text().splitlines()
    words = rows[1].split()
    file.write_text('\n'.join([rows[0], ' '.join([words[0], '0', '0', '0', '0', *words[5:]]), *rows[2:]]))
    assert 'sub/08.png has a quaternion of length 0' in refusal(tmp_path)
    file.write_text('\n'.join([rows[0], ' '.join([*words[:5], 'nan', *words[6:]]), *rows[2:]]))
    assert 'sub/08.png has' in refusal(tmp_path)
    (file.parent / 'points3D.txt').write_text('7 nan 0 0 1 2 3 0.5 1 0 2 0\n')
    file.write_text('\n'.join(rows) + '\n')
    assert 'point 7 needs three finite coordinates' in refusal(tmp_path)


def test_a_picture_turned_against_its_camera_is_refused(tmp_path):
    binary(tmp_path, scene(), 'PINHOLE')
    (tmp_path / 'sparse' / '0' / 'cameras.bin').write_bytes(struct.pack('<QiiQQ4d', 1, 5, 1, 24, 32, 30, 31, 11, 13))
    assert 'the camera is calibrated for pictures of 24x32, those on disk are 24x24' in refusal(tmp_path)
    for i in range(9):
        Image.new('RGB', (32, 24)).save(tmp_path / 'images' / 'sub' / f'{i:02}.png')
    assert 'turned by 90 degrees' in refusal(tmp_path)
