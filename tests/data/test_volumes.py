"""Volumes read back as they were written, and made ones against their formulas and numeric integrals."""

import gzip

import numpy as np
import pytest

from canon.data import volumes
from canon.errors import CanonError, UsageError

VALUES = np.random.default_rng(0).integers(0, 200, (4, 5, 6)).astype(np.int16)


def test_npy(tmp_path):
    np.save(tmp_path / 'v.npy', VALUES)
    told = volumes.load('file', path=str(tmp_path / 'v.npy'), spacing=(1, 2, 0.5))
    np.testing.assert_array_equal(told.values, VALUES)
    assert told.values.dtype == np.float32
    np.testing.assert_allclose(told.half, np.array([3, 8, 2.5]) / 8)


@pytest.mark.parametrize('dtype', ['<i2', '>i2', 'float64'])
def test_raw_runs_along_x_first(tmp_path, dtype):
    path = tmp_path / 'v.raw'
    voxels = [VALUES[x, y, z] for z in range(6) for y in range(5) for x in range(4)]
    path.write_bytes(np.array(voxels, dtype).tobytes())
    np.testing.assert_array_equal(volumes.read(path, (4, 5, 6), dtype).values, VALUES)


@pytest.mark.parametrize('name', ['v.nii', 'v.nii.gz'])
def test_nifti_is_turned_and_scaled_as_it_says(tmp_path, name):
    """Axes stored as left, posterior, and z first: they come back as right, anterior, superior with their spacing."""
    import nibabel

    affine = np.array([[0, 0, -3.0, 9], [0, 2.0, 0, 1], [1.5, 0, 0, 4], [0, 0, 0, 1]])
    image = nibabel.Nifti1Image(VALUES, affine)
    image.header.set_slope_inter(0.5, -10)
    nibabel.save(image, tmp_path / name)
    told = volumes.read(tmp_path / name)
    np.testing.assert_allclose(told.values, 0.5 * VALUES.transpose(2, 1, 0)[::-1] - 10)
    np.testing.assert_allclose(told.spacing, (3, 2, 1.5))


def test_one_frame_of_several(tmp_path):
    many = np.stack((VALUES, VALUES + 1), -1)
    np.save(tmp_path / 'v.npy', many)
    np.testing.assert_array_equal(volumes.read(tmp_path / 'v.npy', frame=1).values, VALUES + 1)
    np.save(tmp_path / 'one.npy', many[..., :1])
    np.testing.assert_array_equal(volumes.read(tmp_path / 'one.npy').values, VALUES)


def test_voxels_that_are_none(tmp_path):
    holes = VALUES.astype(float)
    holes[1, 2, 3] = np.nan
    holes[3, 2, 1] = np.inf
    np.save(tmp_path / 'v.npy', holes)
    with pytest.raises(CanonError, match=r'2 of 120 voxels are NaN or infinite, the first at \(1, 2, 3\); set fill=0'):
        volumes.read(tmp_path / 'v.npy')
    assert volumes.read(tmp_path / 'v.npy', fill=7).values[1, 2, 3] == 7


def write(path, kind):
    {
        'short': lambda: path.write_bytes(bytes(100)),
        '4d': lambda: np.save(path, np.zeros((4, 5, 6, 3))),
        '2d': lambda: np.save(path, np.zeros((4, 5))),
        'objects': lambda: np.save(path, np.array([[[{}]]], object)),
        'text': lambda: path.write_text('hello'),
        'gzip': lambda: path.write_bytes(gzip.compress(b'hello')),
        'words': lambda: np.save(path, np.full((2, 2, 2), 'a')),
        'nothing': lambda: None,
    }[kind]()


@pytest.mark.parametrize(
    ('name', 'kind', 'given', 'error', 'message'),
    [
        ('v.raw', 'short', dict(shape=(4, 5, 6)), CanonError, 'has 100 bytes, and 4x5x6 voxels of uint8 are 120;'),
        ('v.raw', 'short', dict(shape=(4, 5, 6), dtype='int16'), CanonError, 'voxels of int16 are 240; mend shape or'),
        ('v.raw', 'short', dict(), UsageError, r'does not say its shape: give shape=\(X, Y, Z\)'),
        ('v.raw', 'short', dict(shape=(4, 5)), UsageError, r'shape=\(4, 5\) of uint8 is no volume'),
        ('v.raw', 'short', dict(shape=(4, 5, 5), dtype='uint7'), UsageError, "dtype='uint7' is no type of voxels"),
        ('v.npy', '4d', dict(), UsageError, r'has four axes, 4x5x6x3: say which frame of 0\.\.2'),
        ('v.npy', '4d', dict(frame=3), UsageError, r'has frames 0\.\.2, not 3'),
        ('v.npy', '2d', dict(), CanonError, 'is 4x5; a volume is X x Y x Z'),
        ('v.npy', 'objects', dict(), CanonError, 'is no array of numbers'),
        ('v.npy', 'text', dict(), CanonError, 'is no array of numbers'),
        ('v.npy', 'words', dict(), CanonError, 'voxels, not numbers'),
        ('v.nii', 'text', dict(), CanonError, 'is no NIfTI file'),
        ('v.nii.gz', 'gzip', dict(), CanonError, 'is no NIfTI file'),
        ('v.nii.gz', 'text', dict(), CanonError, 'is no NIfTI file'),
        ('v.npy', 'nothing', dict(), UsageError, 'no volume at .*v.npy: give a .npy, .nii'),
        ('v.npy', '4d', dict(frame=0, spacing=(1, 0, 1)), UsageError, 'is no three positive numbers'),
    ],
)
def test_what_is_refused(tmp_path, name, kind, given, error, message):
    write(tmp_path / name, kind)
    with pytest.raises(error, match=message):
        volumes.read(tmp_path / name, **given)


def test_values_from_0_to_1(tmp_path):
    np.save(tmp_path / 'v.npy', VALUES)
    told = volumes.read(tmp_path / 'v.npy')
    np.testing.assert_allclose(told.scaled, (VALUES - VALUES.min()) / np.ptp(VALUES), atol=1e-6)
    phantom = volumes.shepp_logan(5)  # its skull falls between voxels, and 1 is the skull all the same
    assert phantom.values.max() < 1
    np.testing.assert_array_equal(phantom.scaled, phantom.values)
    with pytest.raises(CanonError, match='all voxels are 3; there is nothing to see'):
        _ = volumes.Volume(np.full((2, 2, 2), 3.0, np.float32)).scaled


def test_names_are_checked():
    with pytest.raises(UsageError, match="no volume is called 'sheep_logan'; did you mean 'shepp_logan'"):
        volumes.load('sheep_logan')
    with pytest.raises(UsageError, match='size=1 >= 2'):
        volumes.load('shepp_logan', size=1)


def test_the_phantom_is_a_head():
    """By hand: in the skull 1, in the brain 0.2, in a ventricle 0, in the blobs of the middle plane 0.3, outside 0."""
    points = [[0, 0.9, 0], [0.4, -0.4, 0], [0.22, 0, 0], [0, 0.4, -0.15], [0, 0.1, 0.25], [0, -0.606, 0], [0.9, 0.9, 0]]
    np.testing.assert_allclose(volumes.phantom_at(np.array(points)), [1, 0.2, 0, 0.3, 0.3, 0.3, 0], atol=1e-12)
    told = volumes.shepp_logan(33, 1)
    np.testing.assert_allclose(told.values[16, 30, 16], volumes.phantom_at(np.array([0, 30 / 16 - 1, 0])), atol=1e-6)
    fine = volumes.shepp_logan(16, 3).values
    assert fine.min() >= -1e-6
    assert fine.max() <= 1 + 1e-6
    # The sum of voxels is that of the ellipsoids' volumes.
    wanted = sum(row[0] * 4 / 3 * np.pi * row[1:4].prod() for row in volumes.SHEPP_LOGAN)
    assert abs(volumes.shepp_logan(64, 2).values.sum() * (2 / 63) ** 3 / wanted - 1) < 0.01


def test_the_phantoms_line_integrals_are_those_of_fine_sums():
    rng = np.random.default_rng(0)
    origins = rng.normal(size=(30, 3))
    origins *= 2 / np.linalg.norm(origins, axis=-1, keepdims=True)
    ways = 2 * (rng.uniform(-0.5, 0.5, (30, 3)) - origins)
    t = (np.arange(20000) + 0.5) / 20000
    sums = volumes.phantom_at(origins[:, None] + t[:, None] * ways[:, None]).mean(1) * np.linalg.norm(ways, axis=-1)
    np.testing.assert_allclose(volumes.phantom_integrals(origins, ways), sums, atol=1e-3)


def test_rings_are_the_formulas():
    told = volumes.marschner_lobb(9)
    x, y, z = 0.5, -0.25, 0.75
    ring = np.cos(2 * np.pi * 6 * np.cos(np.pi * np.sqrt(x * x + y * y) / 2))
    wanted = (1 - np.sin(np.pi * z / 2) + 0.25 * (1 + ring)) / 2.5
    np.testing.assert_allclose(told.values[6, 3, 7], wanted, rtol=1e-6)
    assert (told.values.min() >= 0) & (told.values.max() <= 1)
