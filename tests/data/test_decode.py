"""Image files of every kind, decoded at once or by a transform; what is broken is named."""

import io
import os
import pickle
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from canon.data import Batches, Key, cache_if_small, load_source, rng, transforms
from canon.data.images import geometry, image_files
from canon.data.images.image_files import Encoded
from canon.errors import CanonError, UsageError


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
    image = image_files.read_image(file)
    assert image.dtype == np.uint8
    assert image.shape == expected.shape
    assert abs(image.astype(int) - expected).mean() <= (12 if kind == 'rgb webp' else most)
    encoded = image_files.read_encoded(file)
    assert image_files.read_head(encoded)[:2] == image.shape[:2]
    np.testing.assert_array_equal(transforms.decode().apply({'image': encoded}, Key(0, 0, 0))['image'], image)


@pytest.mark.parametrize('mode', ['RGB', 'L', 'CMYK'])
def test_jpegs_are_pillows_pixels(tmp_path, mode):
    """CMYK to one level: both convert after decoding, and round differently."""
    smooth(301, 203).convert(mode).save(tmp_path / 'a.jpg', quality=80)
    expected = np.asarray(Image.open(tmp_path / 'a.jpg').convert('RGB')).astype(int)
    assert abs(image_files.read_image(tmp_path / 'a.jpg') - expected).max() <= (2 if mode == 'CMYK' else 0)


@pytest.mark.parametrize(
    'kind', ['rgb jpg', 'progressive jpg', 'cmyk jpg', 'grey jpg', 'rgb png', 'rgb bmp', 'rgb webp']
)
@pytest.mark.parametrize('share', [0.0, 0.02, 0.3, 0.9])
def test_a_file_cut_short_is_named(tmp_path, kind, share, capfd):
    file, *_ = write(tmp_path, kind)
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    with pytest.raises(CanonError) as error:
        image_files.read_image(file)
    assert str(file) in str(error.value)
    assert 'repair or remove it' in str(error.value)
    assert '0x' not in str(error.value)
    assert '\n' not in str(error.value)
    for transform in (transforms.decode(), transforms.decode_random_resized_crop(8)):
        with pytest.raises(CanonError, match=file.name):
            transform.apply({'image': image_files.read_encoded(file)}, Key(0, 0, 0))


def test_files_that_are_not_images_are_named(tmp_path):
    (tmp_path / 'a.jpg').write_text('hello')
    for read in (image_files.read_image, lambda file: image_files.read_head(image_files.read_encoded(file))):
        with pytest.raises(CanonError, match=r'a\.jpg cannot be read \(cannot identify image file\)'):
            read(tmp_path / 'a.jpg')
    with pytest.raises(CanonError, match=r'b\.jpg cannot be read'):
        image_files.read_encoded(tmp_path / 'b.jpg')


@pytest.mark.parametrize('reduce', [2, 4, 8])
@pytest.mark.parametrize('kind', ['rgb jpg', 'grey jpg', 'cmyk jpg'])
def test_a_reduced_jpeg_is_the_mean_of_its_blocks(tmp_path, kind, reduce):
    file, *_ = write(tmp_path, kind)
    encoded = image_files.read_encoded(file)
    full, small = image_files.decode_image(encoded).astype(float), image_files.decode_image(encoded, reduce)
    height, width = full.shape[:2]
    assert small.shape == (-(-height // reduce), -(-width // reduce), 3)
    rows, columns = height // reduce, width // reduce
    means = full[: rows * reduce, : columns * reduce].reshape(rows, reduce, columns, reduce, 3).mean((1, 3))
    assert abs(small[:rows, :columns] - means).mean() < 3


@pytest.mark.parametrize('kind', ['plain.jpg', 'turned.jpg', 'plain.png'])
def test_decoding_and_cropping_in_one_shows_what_its_boxes_say(tmp_path, kind):
    """The window of the whole image, moved to whole pixels of the reduced one, and its boxes and masks with it."""
    exif = Image.Exif()
    exif[0x0112] = 8 if kind == 'turned.jpg' else 1
    smooth(361, 523).save(tmp_path / kind, **(dict(quality=95, exif=exif) if kind != 'plain.png' else {}))
    encoded, whole = image_files.read_encoded(tmp_path / kind), image_files.read_image(tmp_path / kind)
    height, width = whole.shape[:2]
    padded = np.pad(whole, ((0, 8), (0, 8), (0, 0)), mode='edge')  # as the blocks of a JPEG are
    crop, steps, corners = transforms.decode_random_resized_crop((60, 72)), set(), np.array([[120.0, 80, 280, 240]])
    mask = np.zeros((1, height, width), bool)
    mask[:, 80:240, 120:280] = True
    for visit in range(60):
        key = Key(0, visit, 1)
        out = crop.apply({'image': encoded, 'boxes': corners, 'masks': mask}, key)
        box = geometry.draw_crop_box(rng(key), height, width, (0.08, 1), (3 / 4, 4 / 3))
        step = _coarsest(box, 72, 60) if kind == 'plain.jpg' else 1
        steps.add(step)
        ends = (-(-width // step), -(-height // step)) * 2
        x0, y0, x1, y1 = box = [step * min(round(b / step), end) for b, end in zip(box, ends, strict=True)]
        expected = geometry.resample(padded[y0:y1, x0:x1], (60, 72), 'fast').astype(float)
        assert out['image'].shape == (60, 72, 3)
        assert out['image'].dtype == np.uint8
        assert abs(out['image'] - expected).mean() < 1.5
        moved = geometry.clip_boxes(geometry.transform_boxes(corners, geometry.box_to_canvas(box, (60, 72))), (60, 72))
        if not geometry.box_area(moved):
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
    eager, lazy = load_source('folder', path=photos), load_source('folder', path=photos, decode=False)
    crop = (transforms.random_resized_crop(16), transforms.random_flip())
    links = (transforms.decode_random_resized_crop(16), transforms.random_flip())
    kept = cache_if_small(lazy, 1 << 20)
    for batch, expected in zip(
        (Batches(kept, 6, transforms=(transforms.decode(), *crop), threads=0)[k] for k in range(3)),
        (Batches(eager, 6, transforms=crop, threads=0)[k] for k in range(3)),
        strict=True,
    ):
        np.testing.assert_array_equal(batch['image'], expected['image'])
        np.testing.assert_array_equal(batch['label'], expected['label'])
    fused = [Batches(lazy, 6, transforms=links, threads=threads).iterate() for threads in (0, 3)]
    for _ in range(3):
        np.testing.assert_array_equal(*(next(batches)['image'] for batches in fused))


def test_undecoded_images_are_named_where_pixels_are_needed(photos):
    lazy = load_source('folder', path=photos, decode=False)
    for links in ((transforms.resize(8),), (transforms.center_crop(8),), (transforms.random_flip(p=1.0),), ()):
        with pytest.raises(CanonError, match=r"\.jpg is not decoded yet: put 'decode' before"):
            Batches(lazy, 2, transforms=links)[0]


def test_the_fused_crop_of_decoded_images_is_the_crop():
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    for visit in range(5):
        key = Key(0, visit, 3)
        fused = transforms.decode_random_resized_crop(8).apply({'image': image}, key)
        np.testing.assert_array_equal(
            fused['image'], transforms.random_resized_crop(8).apply({'image': image}, key)['image']
        )


def test_encoded_images_are_pickled():
    image = pickle.loads(pickle.dumps(Encoded(b'abc\0', 'name', False, 7)))
    assert (bytes(image), image.name, image.rotate, image.max_pixels) == (b'abc\0', 'name', False, 7)


# --- orientation -----------------------------------------------------------------------------------------------------

# What EXIF's values 2 to 8 say of the stored image (CIPA DC-008, table of Orientation).
SHOWN = {
    1: lambda x: x, 2: np.fliplr, 3: lambda x: np.rot90(x, 2), 4: np.flipud, 5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, -1), 7: lambda x: np.rot90(x, 2).transpose(1, 0, 2), 8: np.rot90,
}  # fmt: skip
XMP = (
    '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF'
    ' xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description'
    ' xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="{}"/></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)


def save_turned(file, orientation: int, by: str) -> np.ndarray:
    """Writes an image of that orientation, and returns what it shows."""
    image, exif = smooth(), Image.Exif()
    exif[0x0112] = orientation
    if by == 'xmp':
        image.save(file, quality=95, subsampling=0, xmp=XMP.format(orientation).encode())
    elif file.suffix == '.tiff':
        image.save(file, tiffinfo={0x0112: orientation})
    else:
        image.save(file, exif=exif, **(dict(quality=95, subsampling=0) if file.suffix == '.jpg' else {}))
    return SHOWN[orientation](np.asarray(image))


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize(('suffix', 'by'), [('jpg', 'exif'), ('jpg', 'xmp'), ('png', 'exif'), ('tiff', 'exif')])
def test_every_orientation_is_applied_by_the_decoder_and_the_header(tmp_path, suffix, by, orientation):
    """A TIFF was turned twice in the head, and a JPEG turned by XMP alone in the head only: crops left the image."""
    file = tmp_path / f'a.{suffix}'
    expected = save_turned(file, orientation, by)
    encoded = image_files.read_encoded(file)
    shown = image_files.decode_image(encoded)
    assert image_files.read_head(encoded)[:2] == shown.shape[:2] == expected.shape[:2]
    assert abs(shown.astype(int) - expected).mean() < 4
    assert image_files.read_head(encoded).can_reduce == (suffix == 'jpg' and orientation == 1)
    crop = transforms.decode_random_resized_crop(16)
    for visit in range(3):
        assert crop.apply({'image': encoded}, Key(0, visit, 0))['image'].shape == (16, 16, 3)


def test_unknown_orientations_are_ignored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 42
    smooth().save(tmp_path / 'a.jpg', exif=exif)
    encoded = image_files.read_encoded(tmp_path / 'a.jpg')
    assert image_files.decode_image(encoded).shape == (90, 130, 3)
    assert image_files.read_head(encoded)[:2] == (90, 130)


# --- levels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('values', 'dtype', 'suffix', 'expected'),
    [
        ([[0, 0.25, 0.5, 1]], np.float32, 'tiff', [0, 64, 128, 255]),
        ([[0, 25.4, 77.6, 255]], np.float32, 'tiff', [0, 25, 78, 255]),
        ([[0, 20, 255, 7]], np.int32, 'tiff', [0, 20, 255, 7]),
        ([[0, 257, 65535, 256 * 7]], np.int32, 'tiff', [0, 1, 255, 7]),
        ([[0, 257, 65535, 256 * 7]], np.uint16, 'tiff', [0, 1, 255, 7]),
        ([[0, 1, 255, 200]], np.uint16, 'png', [0, 0, 0, 0]),  # sixteen bits stay sixteen bits, dark as they are
        ([[0, 70000, 1, 2]], np.int32, 'tiff', r'0\.\.70000; store 8 or 16 bits'),
        ([[-1, 0, 1, 2]], np.int32, 'tiff', r'-1\.\.2; store'),
        ([[0, 0, 1, 300]], np.float32, 'tiff', r'floats are in 0\.\.300; store them in 0\.\.1 or 0\.\.255'),
        ([[0, 0, 1, np.nan]], np.float32, 'tiff', 'nan'),
    ],
)
def test_wide_grey_is_scaled_or_refused(tmp_path, values, dtype, suffix, expected):
    """Floats in 0..1 were read as nearly black, and integers of 32 bits wrapped."""
    file = tmp_path / f'a.{suffix}'
    Image.fromarray(np.array(values, dtype)).save(file)
    if isinstance(expected, str):
        with pytest.raises(CanonError, match=expected):
            image_files.read_image(file)
    else:
        np.testing.assert_array_equal(
            image_files.read_image(file), np.array(expected, np.uint8)[None, :, None].repeat(3, 2)
        )


# --- what a folder may hold ------------------------------------------------------------------------------------------


def test_an_image_that_is_too_large_is_refused_by_its_head(tmp_path, caplog):
    """No pixel of it is decoded: 13,000 pixels square took 5 GB, and OpenCV failed at 60,000."""
    (tmp_path / 'a').mkdir()
    for i in range(2):
        smooth(8, 8).save(tmp_path / 'a' / f'{i}.png')
    buffer = io.BytesIO()
    smooth(16, 16).save(buffer, 'JPEG')
    data = bytearray(buffer.getvalue())
    at = data.index(b'\xff\xc0')
    data[at + 5 : at + 9] = struct.pack('>HH', 60000, 60000)
    (tmp_path / 'a' / 'huge.jpg').write_bytes(data)
    with pytest.raises(CanonError, match='60000x60000 is more than max_pixels=89,478,485'):
        image_files.read_image(tmp_path / 'a' / 'huge.jpg')
    with pytest.raises(CanonError, match=r'huge\.jpg cannot be read .*3600000000 pixels'):
        image_files.read_head(image_files.read_encoded(tmp_path / 'a' / 'huge.jpg'))
    with pytest.raises(CanonError, match=r'1 of 3 images .*huge\.jpg \(the first: .*3600000000 pixels'):
        load_source('folder', 'all', path=tmp_path)
    source = load_source('folder', 'all', path=tmp_path, unreadable='skip')
    assert [file.name for file in source.skipped] == ['huge.jpg']
    assert 'huge.jpg' in caplog.text
    with pytest.raises(CanonError, match='8x8 is more than max_pixels=63'):
        load_source('folder', 'all', path=tmp_path, max_pixels=63, unreadable='skip')
    (tmp_path / 'a' / 'huge.jpg').unlink()
    assert load_source('folder', 'all', path=tmp_path, max_pixels=64, decode=False)[0]['image'].max_pixels == 64


def test_less_known_suffixes_are_read_and_others_counted(tmp_path, caplog):
    (tmp_path / 'a').mkdir()
    for name, form in [('a.jfif', 'JPEG'), ('b.JPE', 'JPEG'), ('c.jp2', 'JPEG2000'), ('d.avif', 'AVIF')]:
        smooth().save(tmp_path / 'a' / name, form)
    for name in ('e.heic', 'f.HEIC', 'g.cr2', 'notes.txt', 'README'):
        (tmp_path / 'a' / name).write_bytes(b'x')
    source = load_source('folder', 'all', path=tmp_path)
    assert sorted(Path(file).name for file, _ in source.files) == ['a.jfif', 'b.JPE', 'c.jp2', 'd.avif']
    for i in range(4):
        assert abs(source[i]['image'].astype(int) - np.asarray(smooth())).mean() < 6
    assert 'files that are not read as images: 1 .cr2, 2 .heic, 1 without suffix' in caplog.text


def test_a_pipe_in_a_folder_does_not_hang(tmp_path):
    (tmp_path / 'a').mkdir()
    smooth().save(tmp_path / 'a' / 'x.png')
    os.mkfifo(tmp_path / 'a' / 'y.png')
    assert len(load_source('folder', 'all', path=tmp_path)) == 1
    assert len(image_files.Files(tmp_path).paths) == 1
    with pytest.raises(CanonError, match='not a regular file'):
        image_files.read_image(tmp_path / 'a' / 'y.png')
    with pytest.raises(UsageError, match='neither a file nor a folder'):
        image_files.Files(tmp_path / 'a' / 'y.png')


def test_names_that_are_not_utf_8_are_read(tmp_path):
    root = os.fsencode(tmp_path)
    os.mkdir(root + b'/caf\xe9')
    for i in range(3):
        smooth(8, 8).save(root + b'/caf\xe9/\xff%d.png' % i)
    source = load_source('folder', 'all', path=tmp_path)
    assert len([source[i] for i in range(len(source))]) == 3
    assert source.info.class_names == ('caf\ufffd',)


def test_paths_of_a_list_stay_in_their_folder(tmp_path):
    assert image_files.path_within(tmp_path, 'a/../b.png', 'list.txt') == tmp_path / 'a/../b.png'
    for name in ('../b.png', '/etc/passwd', 'a/../../b.png'):
        with pytest.raises(UsageError, match=f'list.txt: {name!r} points outside'):
            image_files.path_within(tmp_path, name, 'list.txt')


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('form', ['AVIF', 'JPEG', 'JPEG2000', 'PNG', 'TIFF', 'WEBP'])
def test_damaged_images_are_decoded_or_refused_in_one_line(form, tmp_path):
    """Decoders raise errors of a dozen types."""
    buffer, generator = io.BytesIO(), np.random.default_rng(0)
    smooth(20, 30).save(buffer, form)
    sound, messages = np.frombuffer(buffer.getvalue(), np.uint8), []
    for i in range(40):
        data = sound.copy()
        data[generator.integers(len(data) if i % 2 else 60, size=4)] = generator.integers(256, size=4)
        image = Encoded(data.tobytes()[: generator.integers(len(data)) if i % 4 == 3 else None], 'a')
        for function in (image_files.decode_image, image_files.read_head):
            try:
                function(image)
            except CanonError as error:
                messages.append(str(error))
    assert messages
    assert not any('\n' in message for message in messages)
