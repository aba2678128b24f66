"""Folders of images, .npz files and the digits: what is read is what was written, and what is broken is named."""

import io
import subprocess
import sys
import textwrap
import zipfile

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from canon.data import Arrays, Batches, Info, Source, labels, load_source
from canon.data.images import image_files
from canon.data.pipeline import arrays, splits
from canon.data.pipeline.splits import parse_split, to_slice
from canon.errors import CanonError, UsageError


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp('tensorflow_datasets')


# --- digits ----------------------------------------------------------------------------------------------------------


def test_digits_are_scikit_learns(data_dir):
    train, test = load_source('digits', data_dir=data_dir), load_source('digits', 'test', data_dir)
    assert (len(train), len(test)) == (1437, 360)
    assert isinstance(train, Source)
    assert train.info == Info('digits', 'train', 10, tuple('0123456789'), 1437)
    prepared = sorted(
        (np.rint(e['image'][..., 0] * (16 / 255)).astype(int).ravel().tolist(), int(e['label']))
        for source in (train, test)
        for e in (source[i] for i in range(len(source)))
    )
    bunch = load_digits()
    assert prepared == sorted(zip(bunch.data.astype(int).tolist(), bunch.target.tolist(), strict=True))
    assert train[0]['image'].dtype == np.uint8
    assert max(train[i]['image'].max() for i in range(9)) == 255
    counts = np.bincount(labels(test), minlength=10)
    assert (abs(counts - np.bincount(bunch.target) / 5) < 1).all()


def test_digits_have_not_been_split_anew():
    """The held-out examples of version 1.0.0, for ever: the accuracies of our documents refer to them."""
    from canon.data.images.digits import held_out

    target = load_digits().target
    test = held_out(target)
    assert test[:8].tolist() == [2, 3, 9, 12, 17, 26, 27, 34]
    assert int(test.sum()) == 322154


def test_digits_slices(data_dir):
    parts = [load_source('digits', f'train[{s}]', data_dir) for s in (':90%', '90%:')]
    assert sum(map(len, parts)) == 1437
    assert len(load_source('digits', 'train+test', data_dir)) == 1797
    whole = load_source('digits', 'train', data_dir)
    np.testing.assert_array_equal(parts[1][0]['image'], whole[len(parts[0])]['image'])


def test_two_processes_prepare_the_digits_at_once_and_import_neither_jax_nor_tensorflow(tmp_path):
    """This process and another one, which begin together."""
    code = textwrap.dedent(f"""
        import sys
        from canon.data import load_source
        import canon.data.images.digits
        print('ready', flush=True)
        source = load_source('digits', data_dir={str(tmp_path / 'new')!r})
        print(len(source), [name for name in ('tensorflow', 'jax', 'grain') if name in sys.modules])
    """)
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with subprocess.Popen([sys.executable, '-c', code], **pipes) as process:
        process.stdout.readline()
        assert len(load_source('digits', data_dir=tmp_path / 'new')) == 1437
        out, err = process.communicate(timeout=100)
    assert (out, process.returncode) == ('1437 []\n', 0), err
    assert [p.name for p in (tmp_path / 'new').iterdir()] == ['digits']  # no scratch left behind


def test_an_unwritable_data_directory_is_named(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(CanonError, match=f'cannot write the digits to {tmp_path}/file'):
        load_source('digits', data_dir=tmp_path / 'file')


# --- folder ----------------------------------------------------------------------------------------------------------


def picture(seed: int, mode: str = 'RGB') -> Image.Image:
    """12 by 8 in large smooth patches, so that JPEG keeps it nearly."""
    patches = np.random.default_rng(seed).integers(40, 215, (2, 3, 3), np.uint8)
    return Image.fromarray(patches.repeat(4, 0).repeat(4, 1)).convert(mode)


@pytest.fixture
def animals(tmp_path):
    for name, seeds in {'cat': range(3), 'dog': range(3, 5), 'Ant': range(5, 6)}.items():
        (tmp_path / name).mkdir()
        for seed in seeds:
            picture(seed).save(tmp_path / name / f'{seed}.png')
    (tmp_path / 'cat' / 'notes.txt').write_text('not an image')
    (tmp_path / 'cat' / '._0.png').write_text('left by a Mac')
    (tmp_path / '.hidden').mkdir()
    return tmp_path


def content(source) -> dict[bytes, int]:
    return {source[i]['image'].tobytes(): int(source[i]['label']) for i in range(len(source))}


def test_a_folder_holds_each_image_with_its_class(animals):
    source = load_source('folder', 'all', path=str(animals))
    assert source.info.class_names == ('Ant', 'cat', 'dog')
    assert source.info.num_classes == 3
    expected = {np.asarray(picture(s)).tobytes(): y for s, y in enumerate([1, 1, 1, 2, 2, 0])}
    assert content(source) == expected
    assert labels(source).tolist() == [int(source[i]['label']) for i in range(6)]
    parts = [load_source('folder', f'all[{s}]', path=animals) for s in (':50%', '50%:')]
    assert [len(p) for p in parts] == [3, 3]
    assert content(parts[0]) | content(parts[1]) == expected


def test_splits_share_their_class_numbers(animals, tmp_path_factory):
    root = tmp_path_factory.mktemp('splits')
    (root / 'train').symlink_to(animals)
    (root / 'test' / 'dog').mkdir(parents=True)
    picture(9).save(root / 'test' / 'dog' / 'x.png')
    test = load_source('folder', 'test', path=root)
    assert len(test) == 1
    assert test[0]['label'] == 2  # as in train, though test has only dogs
    assert len(load_source('folder', path=root)) == 6
    with pytest.raises(UsageError, match=r"no split 'tset'; did you mean 'test'\?"):
        load_source('folder', 'tset', path=root)


def test_a_folder_without_splits_is_divided(tmp_path, caplog):
    for name, count in (('ant', 10), ('bee', 2), ('train', 1)):  # a class may be called as a split
        (tmp_path / name).mkdir()
        for i in range(count):
            picture(i).save(tmp_path / name / f'{i}.png')
    with caplog.at_level('INFO', 'canon'):
        parts = {split: load_source('folder', split, path=tmp_path) for split in ('train', 'test', 'all')}
    names = {split: {file for file, _ in part.files} for split, part in parts.items()}
    assert names['train'] | names['test'] == names['all']
    assert not names['train'] & names['test']
    counts = {split: np.bincount(labels(part), minlength=3).tolist() for split, part in parts.items()}
    assert counts == {'train': [8, 1, 1], 'test': [2, 1, 0], 'all': [10, 2, 1]}
    assert caplog.text.count('has no splits: 10 images to train and 3 to test') == 1
    assert [file for file, _ in load_source('folder', 'test', path=tmp_path).files] == [
        f for f, _ in parts['test'].files
    ]
    assert np.bincount(labels(load_source('folder', 'test', path=tmp_path, held_out=0.5))).tolist() == [5, 1]


@pytest.mark.parametrize(
    ('first', 'second', 'total', 'expected'),
    [
        ('train', 'test', 9, False),
        ('train', 'train', None, True),
        ('train[:90%]', 'train[90%:]', 7, False),
        ('train[:90%]', 'train[89%:]', None, True),
        ('train[:5]', 'train[50%:]', 10, False),
        ('train[:6]', 'train[50%:]', 10, True),
        ('train[-2:]', 'train[:8]', 10, False),
        ('train+test', 'test[:10%]', 10, True),
        ('train[3:3]', 'train', 10, False),
        ('fold 1', 'fold 2', None, False),
        ('fold 1', 'fold 1', None, True),
    ],
)
def test_slices_that_share_examples(first, second, total, expected):
    assert splits.share_examples(first, second, total) is expected
    assert splits.share_examples(second, first, total) is expected


def test_every_kind_of_image_becomes_rgb(tmp_path):
    rgb = np.asarray(picture(1)).astype(int)
    grey = np.asarray(picture(1, 'L')).astype(int)
    (tmp_path / 'a').mkdir()

    def read(name, image, **options):
        image.save(tmp_path / 'a' / name, **options)
        out = image_files.read_image(tmp_path / 'a' / name)
        assert out.dtype == np.uint8
        return out.astype(int)

    assert np.array_equal(read('grey.png', picture(1, 'L')), grey[..., None].repeat(3, 2))
    assert np.array_equal(read('palette.png', picture(1).quantize(16)), rgb)
    assert np.array_equal(read('alpha.png', picture(1, 'RGBA')), rgb)
    sixteen = Image.fromarray((grey * 257).astype(np.uint16))
    assert np.array_equal(read('sixteen.png', sixteen), grey[..., None].repeat(3, 2))
    assert abs(read('grey.jpg', picture(1, 'L'), quality=95) - grey[..., None]).max() < 12
    cmyk = read('cmyk.jpg', picture(1, 'CMYK'), quality=95, subsampling=0)
    assert cmyk.shape == rgb.shape
    assert abs(cmyk - rgb).mean() < 6
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    turned = read('turned.jpg', picture(1), quality=95, subsampling=0, exif=exif)
    assert abs(turned - np.rot90(rgb, -1)).mean() < 6


def break_two(root):
    (root / 'cat' / 'empty.jpg').write_bytes(b'')
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(buffer, 'JPEG')
    (root / 'dog' / 'cut.jpg').write_bytes(buffer.getvalue()[:2000])


def test_unreadable_images_are_refused_by_name(animals):
    break_two(animals)
    with pytest.raises(
        CanonError, match=r'1 of 8 images in .* cannot be read: cat/empty\.jpg \(the first: .*unreadable=.skip'
    ):
        load_source('folder', 'all', path=animals)
    (animals / 'cat' / 'empty.jpg').unlink()
    source = load_source(
        'folder', 'all', path=animals
    )  # a cut file has a sound head; it is refused when its pixels are wanted
    with pytest.raises(CanonError, match=r'dog/cut\.jpg cannot be read'):
        content(source)


def test_unreadable_images_are_skipped_and_counted(animals, caplog):
    break_two(animals)
    source = load_source('folder', 'all', path=animals, unreadable='skip')
    assert len(content(source)) == 6
    assert [p.name for p in source.skipped] == ['empty.jpg', 'cut.jpg']
    assert '2 of 8 images' in caplog.text
    assert 'cat/empty.jpg, dog/cut.jpg' in caplog.text


def test_a_class_without_images_keeps_its_number(animals, caplog):
    (animals / 'bee').mkdir()
    source = load_source('folder', 'all', path=animals)
    assert source.info.class_names == ('Ant', 'bee', 'cat', 'dog')
    assert sorted(labels(source).tolist()) == [0, 2, 2, 2, 3, 3]
    assert "'bee' has no images" in caplog.text
    batches = Batches(source, 6, sampler='balanced')
    assert np.bincount(batches[0]['label'], minlength=4).tolist() == [2, 0, 2, 2]


def test_wrong_folders_are_refused(animals, tmp_path_factory):
    empty = tmp_path_factory.mktemp('empty')
    (empty / 'train').mkdir()
    for arguments, message in [
        ({'path': empty / 'no'}, 'there is no folder'),
        ({'path': empty}, 'holds no images in folders of classes'),
        ({'path': animals, 'split': 'valid'}, "no split 'valid': make .* or take 'train' and 'test' of"),
        ({'path': animals, 'split': 'train[::2]'}, 'neither a name nor a slice'),
        ({'path': animals, 'split': 'train[:101%]'}, '101% is more than 100%'),
        ({'path': animals, 'split': 3}, 'split=3'),
        ({'path': ''}, 'data.source.path is empty'),
        ({'path': animals, 'held_out': 1.5}, 'held_out=1.5'),
        ({'path': animals, 'unreadable': 'ignore'}, "neither 'refuse' nor 'skip'"),
        ({'path': animals, 'unreadible': 'skip'}, "did you mean 'unreadable'"),
        ({}, "needs 'path'"),
    ]:
        with pytest.raises(UsageError, match=message):
            load_source('folder', **arguments)


def test_plain_files_stand_in_the_order_of_their_names(animals):
    source = image_files.Files(animals)
    assert [p.name for p in source.paths] == ['5.png', '0.png', '1.png', '2.png', '3.png', '4.png']
    assert np.array_equal(source[1]['image'], np.asarray(picture(0)))
    assert len(image_files.Files(animals / 'cat' / '1.png')) == 1
    for wrong in (animals / 'no.png', animals / '.hidden'):
        with pytest.raises(UsageError):
            image_files.Files(wrong)


# --- npz -------------------------------------------------------------------------------------------------------------


def test_npz(tmp_path):
    image, label = np.arange(60).reshape(10, 2, 3), np.arange(10) % 4
    np.savez_compressed(tmp_path / 'train.npz', image=image, label=label)
    np.savez(tmp_path / 'test.npz', x=image[::-1])
    source = load_source('npz', path=tmp_path / 'train.npz', class_names=tuple('abcd'))
    assert source.info.num_classes == 4
    np.testing.assert_array_equal(source[7]['image'], image[7, ..., None])  # grey images have one channel
    assert source[7]['label'] == 3
    np.testing.assert_array_equal(labels(load_source('npz', 'train[20%:5]', path=tmp_path)), label[2:5])
    test = load_source('npz', 'test', path=tmp_path, fields={'image': 'x'})
    np.testing.assert_array_equal(test[0]['image'], image[9, ..., None])
    with pytest.raises(UsageError, match="one file and has no split 'test'"):
        load_source('npz', 'test', path=tmp_path / 'train.npz')
    with pytest.raises(UsageError, match=r'no vali\.npz.*test, train'):
        load_source('npz', 'vali', path=tmp_path)
    with pytest.raises(UsageError, match="no array 'imag'; did you mean 'image'"):
        load_source('npz', path=tmp_path, fields={'image': 'imag'})
    with pytest.raises(CanonError, match=r'2 of 10 labels are not in 0\.\.2; the first is label 3 of example 3'):
        load_source('npz', path=tmp_path, num_classes=3)


def test_npz_that_cannot_be_used(tmp_path):
    np.savez(tmp_path / 'unequal.npz', image=np.zeros((4, 2)), label=np.zeros(5, int))
    np.savez(tmp_path / 'scalar.npz', image=np.zeros((4, 2)), label=np.zeros(()))
    np.savez(tmp_path / 'objects.npz', text=np.array(['a', None], object))
    np.save(tmp_path / 'one.npy', np.zeros(3))
    (tmp_path / 'cut.npz').write_bytes((tmp_path / 'unequal.npz').read_bytes()[:200])
    for name, kind, message in [
        ('unequal.npz', UsageError, 'need equal first axes; they have image: 4, label: 5'),
        ('scalar.npz', UsageError, 'image: 4, label: None'),
        ('one.npy', UsageError, 'without a name'),
        ('no.npz', UsageError, 'there is no file'),
        ('objects.npz', CanonError, 'cannot be read as .npz'),
        ('cut.npz', CanonError, 'cannot be read as .npz'),
    ]:
        with pytest.raises(kind, match=message):
            load_source('npz', path=tmp_path / name)


@pytest.mark.parametrize(('images', 'labels_'), [('x_{}', 'y_{}'), ('{}_images', '{}_labels')])
def test_one_npz_with_all_its_splits(tmp_path, images, labels_):
    """Keras's form and MedMNIST's, whose labels are [N, 1]."""
    rng = np.random.default_rng(0)
    stored = {}
    for split, n in (('train', 5), ('test', 3)):
        stored[images.format(split)] = rng.integers(256, size=(n, 4, 6), dtype=np.uint8)
        stored[labels_.format(split)] = rng.integers(3, size=(n, 1))
    np.savez(tmp_path / 'all.npz', **stored)
    test = load_source('npz', 'test[1:]', path=tmp_path / 'all.npz')
    np.testing.assert_array_equal(test[0]['image'], stored[images.format('test')][1][..., None])
    np.testing.assert_array_equal(labels(test), stored[labels_.format('test')][1:, 0])
    assert len(load_source('npz', path=tmp_path / 'all.npz')) == 5
    with pytest.raises(UsageError, match=r"no split 'tset'; did you mean 'test'\?"):
        load_source('npz', 'tset', path=tmp_path / 'all.npz')


@pytest.mark.parametrize(
    ('stored', 'message'),
    [
        (np.zeros(4), 'labels are integers 0, 1, ..., not float64'),
        (np.zeros((4, 1)), 'not float64'),
        (np.zeros(4, bool), 'not bool'),
        (np.array(['cat', 'dog', 'cat', 'dog']), 'not <U3'),
    ],
)
def test_labels_of_npz_are_integers(tmp_path, stored, message):
    np.savez(tmp_path / 'a.npz', image=np.zeros((4, 2, 2), np.uint8), label=stored)
    with pytest.raises(CanonError, match=message):
        load_source('npz', path=tmp_path / 'a.npz')


def test_too_many_classes_for_the_labels_are_told(tmp_path, caplog):
    np.savez(tmp_path / 'a.npz', image=np.zeros((4, 2, 2), np.uint8), label=[0, 1, 2, 1])
    load_source('npz', path=tmp_path / 'a.npz', num_classes=3)
    assert not caplog.text
    load_source('npz', path=tmp_path / 'a.npz', num_classes=5)
    assert 'num_classes=5, but the largest label is 2' in caplog.text
    with pytest.raises(UsageError, match='class_names has 2 names'):
        load_source('npz', path=tmp_path / 'a.npz', num_classes=3, class_names=('a', 'b'))


@pytest.mark.parametrize('shape', ['(1000000000000000000,)', '(3000000000, 100)', '(-4, 1)', '(4, 3)'])
def test_a_header_that_promises_another_size_is_refused(tmp_path, shape):
    """Memory is taken by the header: a shape of 10^18 would end the process."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b'\n'
    with zipfile.ZipFile(tmp_path / 'a.npz', 'w') as archive:
        archive.writestr('image.npy', b'\x93NUMPY\x01\x00' + len(header).to_bytes(2, 'little') + header + b'1234')
    with pytest.raises(CanonError, match=r"a\.npz cannot be read as \.npz: array 'image' of shape"):
        load_source('npz', path=tmp_path / 'a.npz')


@pytest.mark.parametrize('header', ["{'descr': '|u1', 'shape': (4,", "{'descr': '|u1' 'shape'}", 'hello', "{'a"])
def test_a_header_that_is_no_python_is_one_line(tmp_path, header):
    """numpy reads it with Python's tokenizer, whose errors are neither OSError nor ValueError."""
    head = header.ljust(117).encode() + b'\n'
    array = b'\x93NUMPY\x01\x00' + len(head).to_bytes(2, 'little') + head + b'1234'
    (tmp_path / 'a.npy').write_bytes(array)
    with pytest.raises(CanonError, match=r'a\.npy is not an array of numbers'):
        arrays.read_npy(tmp_path / 'a.npy')
    with zipfile.ZipFile(tmp_path / 'a.npz', 'w') as archive:
        archive.writestr('image.npy', array)
    with pytest.raises(CanonError, match=r'a\.npz cannot be read as \.npz'):
        load_source('npz', path=tmp_path / 'a.npz')


# --- the rest --------------------------------------------------------------------------------------------------------


def test_slices_meet():
    for n in (1, 7, 100, 1437):
        for percent in range(0, 101, 7):
            first_part, second_part = (
                to_slice(*parse_split(f'train[:{percent}%]')[1:], n),
                to_slice(*parse_split(f'train[{percent}%:]')[1:], n),
            )
            assert [*range(n)[first_part], *range(n)[second_part]] == list(range(n))
    assert list(range(10)[to_slice(*parse_split('train[-3:]')[1:], 10)]) == [7, 8, 9]
    assert list(range(10)[to_slice(*parse_split('train[-30%:]')[1:], 10)]) == [7, 8, 9]


def test_labels_are_read_where_the_source_cannot_tell():
    class Plain:
        info = Info('plain')

        def __len__(self):
            return 2500

        def __getitem__(self, i):
            return {'label': np.asarray(i % 7)}

    assert labels(Plain()).tolist() == [i % 7 for i in range(2500)]
    with pytest.raises(UsageError, match="no field 'label'"):
        labels(Arrays({'image': np.zeros((3, 2))}))
    shares = Arrays({'share': np.array([0.5, 1.5])})
    with pytest.raises(UsageError, match="field 'share' are float64, not integers"):
        labels(shares, 'share')


def test_what_a_named_set_does_not_take(data_dir):
    with pytest.raises(UsageError, match=r"data 'digits'\.path: digits takes no such key"):
        load_source('digits', data_dir=data_dir, path='.')
    with pytest.raises(UsageError, match=r"no split 'tset'; did you mean 'test'\?"):
        load_source('digits', 'tset', data_dir)
