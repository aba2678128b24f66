"""COLMAP's files, written here byte by byte after its documentation, read back to the cameras they came from."""

import struct

import numpy as np
import pytest
from PIL import Image

from canon.data import views
from canon.errors import CanonError

LENSES = {
    'SIMPLE_PINHOLE': (0, (30.0, 11.0, 13.0), ((30.0, 30.0), (11.0, 13.0), ())),
    'PINHOLE': (1, (30.0, 31.0, 11.0, 13.0), ((30.0, 31.0), (11.0, 13.0), ())),
    'SIMPLE_RADIAL': (2, (30.0, 11.0, 13.0, 0.1), ((30.0, 30.0), (11.0, 13.0), (0.1, 0, 0, 0))),
    'RADIAL': (3, (30.0, 11.0, 13.0, 0.1, 0.2), ((30.0, 30.0), (11.0, 13.0), (0.1, 0.2, 0, 0))),
    'OPENCV': (4, (30.0, 31.0, 11.0, 13.0, 0.1, 0.2, 0.3, 0.4), ((30.0, 31.0), (11.0, 13.0), (0.1, 0.2, 0.3, 0.4))),
}


def scene():
    return views.load('traced', views=9, size=24, seed=2)


def shots(told):
    """(name, quaternion, translation, numbers of points seen) of each view, in an order that is not that of names."""
    for i in reversed(range(len(told.poses))):
        seen = np.linalg.inv(told.poses[i].astype(float) @ np.diag([1.0, -1, -1, 1]))
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


def pictures(folder, told):
    (folder / 'images' / 'sub').mkdir(parents=True)
    (folder / 'sparse' / '0').mkdir(parents=True)
    for i, image in enumerate(told.images):
        Image.fromarray(image).save(folder / 'images' / 'sub' / f'{i:02}.png')
    return folder / 'sparse' / '0'


def binary(folder, told, lens):
    number, values, _ = LENSES[lens]
    model = pictures(folder, told)
    (model / 'cameras.bin').write_bytes(struct.pack(f'<QiiQQ{len(values)}d', 1, 5, number, 24, 24, *values))
    data = struct.pack('<Q', len(told.poses))
    for i, (name, turn, place, seen) in enumerate(shots(told)):
        data += struct.pack('<i7di', i + 1, *turn, *place, 5) + name.encode() + b'\0' + struct.pack('<Q', len(seen))
        data += b''.join(struct.pack('<ddq', 1.5, 2.5, point) for point in seen)
    (model / 'images.bin').write_bytes(data)
    data = struct.pack('<Q', len(POINTS))
    for i, place in POINTS.items():
        data += struct.pack('<Q3d3BdQ', i, *place, 1, 2, 3, 0.5, 2) + struct.pack('<4i', 1, 0, 2, 0)
    (model / 'points3D.bin').write_bytes(data)


def text(folder, told, lens):
    model = pictures(folder, told)
    (model / 'cameras.txt').write_text(f'# Camera list\n5 {lens} 24 24 {" ".join(map(str, LENSES[lens][1]))}\n')
    rows = ['# Image list']
    for i, (name, turn, place, seen) in enumerate(shots(told)):
        rows.append(' '.join(map(repr, [i + 1, *map(float, turn), *map(float, place), 5])) + f' {name}')
        rows.append(' '.join(f'1.5 2.5 {point}' for point in seen))
    (model / 'images.txt').write_text('\n'.join(rows) + '\n')
    rows = [f'{i} {" ".join(map(str, place))} 1 2 3 0.5 1 0 2 0' for i, place in POINTS.items()]
    (model / 'points3D.txt').write_text('# points\n' + '\n'.join(rows) + '\n')


@pytest.mark.parametrize('write', [binary, text])
@pytest.mark.parametrize('lens', LENSES)
def test_poses_and_lenses_come_back(tmp_path, write, lens):
    told = scene()
    write(tmp_path, told, lens)
    read = views.load('colmap', path=str(tmp_path))
    np.testing.assert_allclose(read.poses, told.poses[1:8], atol=1e-6)
    np.testing.assert_array_equal(read.images, told.images[1:8])
    assert (read.camera.focal, read.camera.centre, read.camera.distortion) == LENSES[lens][2]
    eyes = told.poses[1:, :3, 3].astype(float)  # the first saw no points
    apart = np.concatenate([np.linalg.norm(eyes - point, axis=1) for point in POINTS.values()])
    np.testing.assert_allclose([read.near, read.far], np.percentile(apart, (0.1, 99.9)) * (0.9, 1.1), rtol=1e-6)
    held = views.load('colmap', 'test', path=str(tmp_path), factor=2, near=1, far=9)
    np.testing.assert_allclose(held.poses, told.poses[[0, 8]], atol=1e-6)
    assert held.names == ('sub/00.png', 'sub/08.png')
    assert held.camera.focal[0] == 15.0


def refusal(folder, **arguments):
    with pytest.raises(CanonError) as caught:
        views.load('colmap', path=str(folder), **arguments)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def test_what_cannot_be_read_says_why(tmp_path):
    binary(tmp_path, scene(), 'PINHOLE')
    model = tmp_path / 'sparse' / '0'
    (model / 'points3D.bin').unlink()
    assert 'near and far must be given' in refusal(tmp_path)
    (tmp_path / 'images' / 'sub' / '03.png').unlink()
    assert '03.png' in refusal(tmp_path, near=1, far=9)
    whole = (model / 'images.bin').read_bytes()
    (model / 'images.bin').write_bytes(whole[:-100])
    assert 'images.bin is cut short' in refusal(tmp_path)
    (model / 'images.bin').write_bytes(whole)
    (model / 'cameras.bin').write_bytes(struct.pack('<QiiQQ8d', 1, 5, 5, 24, 24, *range(8)))
    assert 'lens 5 is not read' in refusal(tmp_path)
    two = b''.join(struct.pack('<iiQQ3d', n, 0, 24, 24, 30 + n, 12, 12) for n in (5, 6))
    (model / 'cameras.bin').write_bytes(struct.pack('<Q', 2) + two)
    changed = whole.replace(struct.pack('<i', 5) + b'sub/02', struct.pack('<i', 6) + b'sub/02')
    assert changed != whole
    (model / 'images.bin').write_bytes(changed)
    assert '2 cameras' in refusal(tmp_path)
    assert 'holds no cameras' in refusal(tmp_path, model='sparse/1')
