"""Image files of every kind, decoded at once or by a transform; what is broken is named."""

import pickle

import cv2
import numpy as np
import pytest
from PIL import Image

from canon.data import Batches, Key, cached, files, geometry, load, rng, transforms
from canon.data.files import Encoded
from canon.errors import CanonError


def smooth(height: int = 90, width: int = 130, seed: int = 0) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def write(folder, kind: str):
    """(file, RGB that it shows, largest mean error that the kind of file brings)."""
    image = smooth()
    rgb, grey = np.asarray(image), np.asarray(image.convert('L'))[..., None].repeat(3, 2)
    wide = np.random.default_rng(1).integers(0, 65536, (20, 30, 3)).astype(np.uint16)
    file = folder / kind.replace(' ', '.')
    if kind.startswith('deep'):
        cv2.imwrite(str(file), wide[..., ::-1] if 'grey' not in kind else wide[..., 0])
        return file, (wide if 'grey' not in kind else wide[..., :1].repeat(3, 2)) >> 8, 1.01
    if kind == 'turned jpg':
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(file, quality=95, subsampling=0, exif=exif)
        return file, np.rot90(rgb, -1), 4
    mode = {'grey': 'L', 'cmyk': 'CMYK', 'alpha': 'RGBA', 'bilevel': '1'}.get(kind.split()[0], 'RGB')
    options = dict(quality=95, subsampling=0) if kind.endswith('jpg') else {}
    options |= dict(progressive=True) if kind.startswith('progressive') else {}
    converted = image.quantize(200) if kind.startswith('palette') else image.convert(mode)
    converted.save(file, **options)
    if mode == '1':
        return file, np.asarray(converted)[..., None].repeat(3, 2) * np.uint8(255), 0
    shown = grey if mode == 'L' else np.asarray(converted.convert('RGB')) if kind.startswith('palette') else rgb
    return file, shown, 4 if options or kind.startswith('palette') else 0


KINDS = (
    'rgb jpg', 'progressive jpg', 'grey jpg', 'cmyk jpg', 'turned jpg', 'rgb png', 'grey png', 'palette png',
    'alpha png', 'bilevel png', 'deep png', 'deep grey.png', 'deep grey.tiff', 'rgb bmp', 'palette gif', 'grey pgm',
    'rgb tiff', 'rgb webp',
)  # fmt: skip


@pytest.mark.parametrize('kind', KINDS)
def test_every_kind_of_file_is_rgb_of_a_byte(tmp_path, kind):
    file, expected, most = write(tmp_path, kind)
    image = files.read_image(file)
    assert image.dtype == np.uint8
    assert image.shape == expected.shape
    assert abs(image.astype(int) - expected).mean() <= (12 if kind == 'rgb webp' else most)
    encoded = files.read_encoded(file)
    assert files.head(encoded)[:2] == image.shape[:2]
    np.testing.assert_array_equal(transforms.decode().apply({'image': encoded}, Key(0, 0, 0))['image'], image)


@pytest.mark.parametrize('mode', ['RGB', 'L', 'CMYK'])
def test_jpegs_are_pillows_pixels(tmp_path, mode):
    """CMYK to one level: both convert after decoding, and round differently."""
    smooth(301, 203).convert(mode).save(tmp_path / 'a.jpg', quality=80)
    expected = np.asarray(Image.open(tmp_path / 'a.jpg').convert('RGB')).astype(int)
    assert abs(files.read_image(tmp_path / 'a.jpg') - expected).max() <= (2 if mode == 'CMYK' else 0)


@pytest.mark.parametrize(
    'kind', ['rgb jpg', 'progressive jpg', 'cmyk jpg', 'grey jpg', 'rgb png', 'rgb bmp', 'rgb webp']
)
@pytest.mark.parametrize('share', [0.0, 0.02, 0.3, 0.9])
def test_a_file_cut_short_is_named(tmp_path, kind, share, capfd):
    file, *_ = write(tmp_path, kind)
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    with pytest.raises(CanonError) as error:
        files.read_image(file)
    assert str(file) in str(error.value)
    assert 'mend or remove it' in str(error.value)
    assert '0x' not in str(error.value)
    assert '\n' not in str(error.value)
    for transform in (transforms.decode(), transforms.decode_random_resized_crop(8)):
        with pytest.raises(CanonError, match=file.name):
            transform.apply({'image': files.read_encoded(file)}, Key(0, 0, 0))


def test_what_is_no_image_is_named(tmp_path):
    (tmp_path / 'a.jpg').write_text('hello')
    for read in (files.read_image, lambda file: files.head(files.read_encoded(file))):
        with pytest.raises(CanonError, match=r'a\.jpg cannot be read \(cannot identify image file\)'):
            read(tmp_path / 'a.jpg')
    with pytest.raises(CanonError, match=r'b\.jpg cannot be read'):
        files.read_encoded(tmp_path / 'b.jpg')


@pytest.mark.parametrize('reduce', [2, 4, 8])
@pytest.mark.parametrize('kind', ['rgb jpg', 'grey jpg', 'cmyk jpg'])
def test_a_reduced_jpeg_is_the_mean_of_its_blocks(tmp_path, kind, reduce):
    file, *_ = write(tmp_path, kind)
    encoded = files.read_encoded(file)
    whole, small = files.decode(encoded).astype(float), files.decode(encoded, reduce)
    height, width = whole.shape[:2]
    assert small.shape == (-(-height // reduce), -(-width // reduce), 3)
    rows, columns = height // reduce, width // reduce
    means = whole[: rows * reduce, : columns * reduce].reshape(rows, reduce, columns, reduce, 3).mean((1, 3))
    assert abs(small[:rows, :columns] - means).mean() < 3


@pytest.mark.parametrize('kind', ['plain.jpg', 'turned.jpg', 'plain.png'])
def test_decoding_and_cropping_in_one_shows_what_its_boxes_say(tmp_path, kind):
    """The window of the whole image, moved to whole pixels of the reduced one, and its boxes and masks with it."""
    exif = Image.Exif()
    exif[0x0112] = 8 if kind == 'turned.jpg' else 1
    smooth(361, 523).save(tmp_path / kind, **(dict(quality=95, exif=exif) if kind != 'plain.png' else {}))
    encoded, whole = files.read_encoded(tmp_path / kind), files.read_image(tmp_path / kind)
    height, width = whole.shape[:2]
    padded = np.pad(whole, ((0, 8), (0, 8), (0, 0)), mode='edge')  # as the blocks of a JPEG are
    crop, steps, corners = transforms.decode_random_resized_crop((60, 72)), set(), np.array([[120.0, 80, 280, 240]])
    mask = np.zeros((1, height, width), bool)
    mask[:, 80:240, 120:280] = True
    for visit in range(60):
        key = Key(0, visit, 1)
        out = crop.apply({'image': encoded, 'boxes': corners, 'masks': mask}, key)
        box = geometry.inception_window(rng(key), height, width, (0.08, 1), (3 / 4, 4 / 3))
        step = _coarsest(box, 72, 60) if kind == 'plain.jpg' else 1
        steps.add(step)
        ends = (-(-width // step), -(-height // step)) * 2
        x0, y0, x1, y1 = box = [step * min(round(b / step), end) for b, end in zip(box, ends, strict=True)]
        expected = geometry.resample(padded[y0:y1, x0:x1], (60, 72), 'fast').astype(float)
        assert out['image'].shape == (60, 72, 3)
        assert out['image'].dtype == np.uint8
        assert abs(out['image'] - expected).mean() < 1.5
        moved = geometry.clip_boxes(geometry.move_boxes(corners, geometry.window(box, (60, 72))), (60, 72))
        if not geometry.area(moved):
            assert not len(out['boxes'])
            continue
        np.testing.assert_allclose(out['boxes'], moved, atol=1e-4)
        rows, columns = np.nonzero(out['masks'][0])
        if not len(rows):  # less than half a pixel of it is to be seen
            assert np.min(out['boxes'][0, 2:] - out['boxes'][0, :2]) < 0.5
            continue
        shown = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert abs(shown - out['boxes'][0]).max() <= 1
    assert steps == ({1, 2, 4} if kind == 'plain.jpg' else {1})


def _coarsest(box, width, height):
    """The largest reduction that leaves at least one pixel of the file for each of the crop."""
    fits = [s for s in (1, 2, 4, 8) if box[2] - box[0] >= s * width and box[3] - box[1] >= s * height]
    return max(fits, default=1)


@pytest.fixture
def photos(tmp_path):
    for i in range(12):
        file = tmp_path / 'photos' / 'ab'[i % 2] / f'{i}.jpg'
        file.parent.mkdir(parents=True, exist_ok=True)
        smooth(70 + i, 90, i).save(file, quality=90)
    return str(tmp_path / 'photos')


def test_a_folder_gives_bytes_that_are_kept_and_decoded_later(photos):
    eager, lazy = load('folder', path=photos), load('folder', path=photos, decode=False)
    crop = (transforms.random_resized_crop(16), transforms.random_flip())
    ours = (transforms.decode_random_resized_crop(16), transforms.random_flip())
    kept = cached(lazy, 1 << 20)
    for batch, expected in zip(
        (Batches(kept, 6, transforms=(transforms.decode(), *crop), threads=0)[k] for k in range(3)),
        (Batches(eager, 6, transforms=crop, threads=0)[k] for k in range(3)),
        strict=True,
    ):
        np.testing.assert_array_equal(batch['image'], expected['image'])
        np.testing.assert_array_equal(batch['label'], expected['label'])
    fused = [Batches(lazy, 6, transforms=ours, threads=threads).iterate() for threads in (0, 3)]
    for _ in range(3):
        np.testing.assert_array_equal(*(next(batches)['image'] for batches in fused))


def test_undecoded_images_are_named_where_pixels_are_wanted(photos):
    lazy = load('folder', path=photos, decode=False)
    for links in ((transforms.resize(8),), (transforms.center_crop(8),), (transforms.random_flip(p=1.0),), ()):
        with pytest.raises(CanonError, match=r"\.jpg is not decoded yet: put 'decode' before"):
            Batches(lazy, 2, transforms=links)[0]


def test_of_decoded_images_the_fused_crop_is_the_crop():
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    for visit in range(5):
        key = Key(0, visit, 3)
        fused = transforms.decode_random_resized_crop(8).apply({'image': image}, key)
        np.testing.assert_array_equal(
            fused['image'], transforms.random_resized_crop(8).apply({'image': image}, key)['image']
        )


def test_encoded_images_travel():
    image = pickle.loads(pickle.dumps(Encoded(b'abc\0', 'name', False)))
    assert (bytes(image), image.name, image.turn) == (b'abc\0', 'name', False)
