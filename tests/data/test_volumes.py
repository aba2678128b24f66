"""Volumes read back as they were written, and made ones against their formulas and numeric integrals."""

import gzip
import struct

import numpy as np
import pytest

from canon.data.scenes import volumes
from canon.errors import CanonError, UsageError

VALUES = np.random.default_rng(0).integers(0, 200, (4, 5, 6)).astype(np.int16)


def test_npy(tmp_path):
    np.save(tmp_path / 'v.npy', VALUES)
    volume = volumes.load_volume('read_volume', path=str(tmp_path / 'v.npy'), spacing=(1, 2, 0.5))
    np.testing.assert_array_equal(volume.values, VALUES)
    assert volume.scaled.dtype == np.float32
    np.testing.assert_allclose(volume.half, np.array([3, 8, 2.5]) / 8)


@pytest.mark.parametrize('dtype', ['<i2', '>i2', 'float64'])
def test_raw_runs_along_x_first(tmp_path, dtype):
    path = tmp_path / 'v.raw'
    voxels = [VALUES[x, y, z] for z in range(6) for y in range(5) for x in range(4)]
    path.write_bytes(np.array(voxels, dtype).tobytes())
    np.testing.assert_array_equal(volumes.read_volume(path, (4, 5, 6), dtype).values, VALUES)


@pytest.mark.parametrize('name', ['v.nii', 'v.nii.gz'])
def test_nifti_is_turned_and_scaled_as_it_says(tmp_path, name):
    """Axes stored as left, posterior, and z first: they come back as right, anterior, superior with their spacing."""
    import nibabel

    affine = np.array([[0, 0, -3.0, 9], [0, 2.0, 0, 1], [1.5, 0, 0, 4], [0, 0, 0, 1]])
    image = nibabel.Nifti1Image(VALUES, affine)
    image.header.set_slope_inter(0.5, -10)
    nibabel.save(image, tmp_path / name)
    volume = volumes.read_volume(tmp_path / name)
    np.testing.assert_allclose(volume.values, 0.5 * VALUES.transpose(2, 1, 0)[::-1] - 10)
    np.testing.assert_allclose(volume.spacing, (3, 2, 1.5))


AXES = np.array(
    [[0, 1.8, -0.9, 5], [1.2, 0, 0, -7], [0, 0.7, 2.4, 3], [0, 0, 0, 1]]
)  # oblique, of voxels 1.2, 1.93, 2.56


@pytest.mark.parametrize('codes', [(1, 0), (1, 2), (0, 1)], ids=['sform', 'both', 'qform'])
def test_one_geometry_has_one_spacing_however_it_is_stored(tmp_path, codes):
    """Turned to left, posterior, superior, with a spacing in `pixdim` that the sform does not have."""
    import nibabel

    turned = nibabel.orientations.axcodes2ornt('LPS')
    affine = AXES if codes[0] else np.diag([1.2, 1.9, 2.5, 1])
    stored = nibabel.Nifti1Image(VALUES, affine)
    read = []
    for image in (stored, nibabel.as_closest_canonical(stored), stored.as_reoriented(turned)):
        own = nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine)
        own.set_sform(image.affine, codes[0])
        own.set_qform(image.affine if not codes[0] else np.diag([9.0, 9, 9, 1]), codes[1])  # sets pixdim as well
        nibabel.save(own, tmp_path / 'v.nii')
        read.append(volumes.read_volume(tmp_path / 'v.nii'))
    canonical = nibabel.as_closest_canonical(stored)
    spacing = np.linalg.norm(canonical.affine[:3, :3], axis=0)
    for volume in read:
        np.testing.assert_array_equal(volume.values, np.asarray(canonical.dataobj))
        np.testing.assert_allclose(volume.spacing, spacing, rtol=1e-6)


@pytest.mark.parametrize('dtype', ['int8', 'uint8', '>i4', 'int64', 'uint64', 'float64', 'bool'])
def test_values_are_scaled_in_their_own_precision(tmp_path, dtype):
    """68 grey values at the top of each type, which float32 (and for 64 bits float64) would join."""
    kind = np.dtype(dtype)
    first = {'b': 0, 'f': 2.0**31 + 2**-15}.get(kind.kind)
    grey = np.arange(2 if kind.kind == 'b' else 68)
    first = int(np.iinfo(kind).max) - 67 if first is None else first
    steps = np.resize(grey, (5, 5, 5))
    np.save(tmp_path / 'v.npy', np.array([first + i for i in steps.ravel().tolist()], kind).reshape(5, 5, 5))
    np.testing.assert_array_equal(volumes.read_volume(tmp_path / 'v.npy').scaled, np.float32(steps / grey[-1]))
    if kind.kind == 'i':
        ends = np.zeros((2, 2, 2), kind)
        ends[0], ends[1] = np.iinfo(kind).min, np.iinfo(kind).max  # their difference overflows the type
        np.save(tmp_path / 'v.npy', ends)
        np.testing.assert_array_equal(volumes.read_volume(tmp_path / 'v.npy').scaled[:, 0, 0], [0, 1])


def nifti(**fields):
    """The bytes of a NIfTI file whose header has other values at offsets: {name: (offset, format, values)}."""
    import nibabel

    stored = bytearray(nibabel.Nifti1Image(VALUES, np.diag([1.0, 2, 3, 1])).to_bytes())
    for at, form, *values in fields.values():
        struct.pack_into(f'<{form}', stored, at, *values)
    return bytes(stored)


def damage(stored, at, bit=64):
    """`stored` with one bit changed."""
    changed = bytearray(stored)
    changed[at] ^= bit
    return bytes(changed)


PLAIN = gzip.compress(nifti(), 0)  # not packed: a damaged byte still unpacks


@pytest.mark.parametrize(
    ('stored', 'message'),
    [
        (damage(PLAIN, 500), 'CRC check failed'),  # a voxel
        (damage(PLAIN, len(PLAIN) - 6), 'CRC check failed'),
        (PLAIN[:-8], 'ended before the end-of-stream'),
        (PLAIN + b'more', 'Not a gzipped file'),
        (gzip.compress(nifti(dim=(42, 'h', -4))), 'its voxels are -4x5x6, not X x Y x Z'),
        (gzip.compress(nifti(dims=(40, '8h', 3, *(32767,) * 7))), 'its voxels take bytes 352 to 70,362,301,923,678'),
        (gzip.compress(nifti(axes=(40, 'h', 2))), 'its voxels are 4x5, not X x Y x Z'),
        (gzip.compress(nifti(offset=(108, 'f', 400.0))), 'its voxels take bytes 400 to 640, and it has 592'),
        (gzip.compress(nifti(offset=(108, 'f', np.nan))), 'cannot convert float NaN'),
        (gzip.compress(nifti(affine=(280, 'f', 0.0))), 'not an orientation and spacing'),
        (gzip.compress(nifti(affine=(280, 'f', np.inf))), 'not an orientation and spacing'),
        (gzip.compress(nifti(codes=(252, '2h', 1, 0), quaternion=(256, '3f', 5, 5, 5))), 'w2 should be positive'),
        (gzip.compress(nifti(kind=(70, 'h', 511))), 'data code 511'),
        (gzip.compress(nifti()[:-10]), 'its voxels take bytes 352 to 592, and it has 582'),
    ],
)
def test_damaged_nifti_files_are_one_line(tmp_path, stored, message):
    assert volumes.read_volume(wrote(tmp_path / 'v.nii.gz', PLAIN)).values.shape == (4, 5, 6)
    for path in (wrote(tmp_path / 'w.nii.gz', stored), wrote(tmp_path / 'W.NII.GZ', stored)):
        with pytest.raises(CanonError, match=message) as error:
            volumes.read_volume(path)
        assert str(error.value).startswith(f'{path} cannot be read as NIfTI')
        assert '\n' not in str(error.value)


def wrote(path, stored):
    path.write_bytes(stored)
    return path


def test_a_header_that_asks_for_more_memory_than_there_is(tmp_path):
    np.save(tmp_path / 'v.npy', VALUES)
    stored = (tmp_path / 'v.npy').read_bytes()
    for shape in (b'(1000000000000000000,)', b'(4000000, 5000000, 6000000)', b'(-4, 5, 6)'):
        given = stored.replace(b'(4, 5, 6), }' + b' ' * (len(shape) - 9), shape + b', }')
        with pytest.raises(CanonError, match=r'v\.npy is not an array of numbers'):
            volumes.read_volume(wrote(tmp_path / 'v.npy', given))


def test_one_frame_of_several(tmp_path):
    many = np.stack((VALUES, VALUES + 1), -1)
    np.save(tmp_path / 'v.npy', many)
    np.testing.assert_array_equal(volumes.read_volume(tmp_path / 'v.npy', frame=1).values, VALUES + 1)
    np.save(tmp_path / 'one.npy', many[..., :1])
    np.testing.assert_array_equal(volumes.read_volume(tmp_path / 'one.npy').values, VALUES)


def test_voxels_that_are_none(tmp_path):
    holes = VALUES.astype(float)
    holes[1, 2, 3] = np.nan
    holes[3, 2, 1] = np.inf
    np.save(tmp_path / 'v.npy', holes)
    with pytest.raises(CanonError, match=r'2 of 120 voxels are NaN or infinite, the first at \(1, 2, 3\); set fill=0'):
        volumes.read_volume(tmp_path / 'v.npy')
    assert volumes.read_volume(tmp_path / 'v.npy', fill=7).values[1, 2, 3] == 7


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
        (
            'v.raw',
            'short',
            dict(shape=(4, 5, 6), dtype='int16'),
            CanonError,
            'voxels of int16 are 240; correct shape or',
        ),
        ('v.raw', 'short', dict(), UsageError, r'does not state its shape: give shape=\(X, Y, Z\)'),
        ('v.raw', 'short', dict(shape=(4, 5)), UsageError, r"got shape=\(4, 5\), dtype='uint8'"),
        ('v.raw', 'short', dict(shape=(4, 5, 5), dtype='uint7'), UsageError, "dtype='uint7' is not a type of voxels"),
        ('v.npy', '4d', dict(), UsageError, r'has four axes, 4x5x6x3: choose a frame of 0\.\.2'),
        ('v.npy', '4d', dict(frame=3), UsageError, r'has frames 0\.\.2, not 3'),
        ('v.npy', '2d', dict(), CanonError, 'is 4x5; a volume is X x Y x Z'),
        ('v.npy', 'objects', dict(), CanonError, 'is not an array of numbers'),
        ('v.npy', 'text', dict(), CanonError, 'is not an array of numbers'),
        ('v.npy', 'words', dict(), CanonError, 'voxels, not numbers'),
        ('v.nii', 'text', dict(), CanonError, 'cannot be read as NIfTI'),
        ('v.nii.gz', 'gzip', dict(), CanonError, 'cannot be read as NIfTI'),
        ('v.nii.gz', 'text', dict(), CanonError, 'cannot be read as NIfTI'),
        ('v.npy', 'nothing', dict(), UsageError, 'no volume at .*v.npy: give a .npy, .nii'),
        ('v.npy', '4d', dict(frame=0, spacing=(1, 0, 1)), UsageError, 'must be three positive numbers'),
    ],
)
def test_what_is_refused(tmp_path, name, kind, given, error, message):
    write(tmp_path / name, kind)
    with pytest.raises(error, match=message):
        volumes.read_volume(tmp_path / name, **given)


def test_values_from_0_to_1(tmp_path):
    np.save(tmp_path / 'v.npy', VALUES)
    volume = volumes.read_volume(tmp_path / 'v.npy')
    np.testing.assert_allclose(volume.scaled, (VALUES - VALUES.min()) / np.ptp(VALUES), atol=1e-6)
    phantom = volumes.shepp_logan(5)  # its skull falls between voxels, and 1 is the skull all the same
    assert phantom.values.max() < 1
    np.testing.assert_array_equal(phantom.scaled, phantom.values)
    with pytest.raises(CanonError, match='all voxels are 3; there is nothing to display'):
        _ = volumes.Volume(np.full((2, 2, 2), 3.0, np.float32)).scaled


def test_names_are_checked():
    with pytest.raises(UsageError, match="no volume is called 'sheep_logan'; did you mean 'shepp_logan'"):
        volumes.load_volume('sheep_logan')
    with pytest.raises(UsageError, match='size=1 must be a whole number at least 2'):
        volumes.load_volume('shepp_logan', size=1)


def test_the_phantom_is_a_head():
    """By hand: in the skull 1, in the brain 0.2, in a ventricle 0, in the blobs of the middle plane 0.3, outside 0."""
    points = [[0, 0.9, 0], [0.4, -0.4, 0], [0.22, 0, 0], [0, 0.4, -0.15], [0, 0.1, 0.25], [0, -0.606, 0], [0.9, 0.9, 0]]
    np.testing.assert_allclose(volumes.phantom_at(np.array(points)), [1, 0.2, 0, 0.3, 0.3, 0.3, 0], atol=1e-12)
    volume = volumes.shepp_logan(33, 1)
    np.testing.assert_allclose(volume.values[16, 30, 16], volumes.phantom_at(np.array([0, 30 / 16 - 1, 0])), atol=1e-6)
    fine = volumes.shepp_logan(16, 3).values
    assert fine.min() >= -1e-6
    assert fine.max() <= 1 + 1e-6
    # The sum of voxels is that of the ellipsoids' volumes.
    expected = sum(row[0] * 4 / 3 * np.pi * row[1:4].prod() for row in volumes.SHEPP_LOGAN)
    assert abs(volumes.shepp_logan(64, 2).values.sum() * (2 / 63) ** 3 / expected - 1) < 0.01


def test_the_phantoms_line_integrals_are_those_of_fine_sums():
    rng = np.random.default_rng(0)
    origins = rng.normal(size=(30, 3))
    origins *= 2 / np.linalg.norm(origins, axis=-1, keepdims=True)
    directions = 2 * (rng.uniform(-0.5, 0.5, (30, 3)) - origins)
    t = (np.arange(20000) + 0.5) / 20000
    sums = volumes.phantom_at(origins[:, None] + t[:, None] * directions[:, None]).mean(1) * np.linalg.norm(
        directions, axis=-1
    )
    np.testing.assert_allclose(volumes.phantom_integrals(origins, directions), sums, atol=1e-3)


def test_rings_are_the_formulas():
    volume = volumes.marschner_lobb(9)
    x, y, z = 0.5, -0.25, 0.75
    ring = np.cos(2 * np.pi * 6 * np.cos(np.pi * np.sqrt(x * x + y * y) / 2))
    expected = (1 - np.sin(np.pi * z / 2) + 0.25 * (1 + ring)) / 2.5
    np.testing.assert_allclose(volume.values[6, 3, 7], expected, rtol=1e-6)
    assert (volume.values.min() >= 0) & (volume.values.max() <= 1)
