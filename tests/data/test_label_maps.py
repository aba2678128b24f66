"""Readers of label maps, on files that are written here: values, void pixels, and maps that are wrong."""

import tarfile

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from canon.data import Once, load_source
from canon.data.detection.label_maps import read_label_map
from canon.errors import CanonError, UsageError

NAMES = ('background', 'cat', 'dog')
SIZE = (6, 8)  # height, width


def draw_map(seed, values=(0, 1, 2, 255)):
    return np.random.default_rng(seed).choice(np.array(values, np.uint8), SIZE)


def write_pair(root, folders, name, values, palette=True, suffix='.jpg'):
    image, label_map = (root / folder for folder in folders)
    for folder in (image, label_map):
        folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*SIZE, 3), 90, np.uint8)).save(image / f'{name}{suffix}')
    stored = Image.fromarray(np.asarray(values, np.uint8))
    if palette:
        stored.putpalette(np.random.default_rng(1).integers(0, 255, 768, np.uint8).tobytes())
    stored.save(label_map / f'{name}.png')


def read(root, split='train', **kwargs):
    return load_source('label_maps', split, path=str(root), **{'class_names': NAMES, **kwargs})


@pytest.mark.parametrize(
    'folders',
    [('train', 'trainannot'), ('images/train', 'annotations/train'), ('train/images', 'train/masks'), ('a', 'b/train')],
)
def test_pairs_of_folders(tmp_path, folders):
    """Values are kept, whatever the colours of a palette; 255 and the values of `void` are void."""
    maps = {name: draw_map(i) for i, name in enumerate(('x', 'y', 'z'))}
    for i, (name, values) in enumerate(maps.items()):
        write_pair(tmp_path, folders, name, values, palette=i % 2, suffix=('.jpg', '.png')[i % 2])
    named = {'images': 'a', 'maps': 'b/{split}'} if folders[0] == 'a' else {}
    source = read(tmp_path, **named)
    assert [name.rpartition('/')[2] for name in source.names] == ['x.jpg', 'y.png', 'z.jpg']
    for i, values in enumerate(maps.values()):
        example = source[i]
        np.testing.assert_array_equal(example['segmentation'], values)
        assert {field: (np.asarray(value).dtype.name, np.shape(value)) for field, value in example.items()} == {
            'image': ('uint8', (*SIZE, 3)),
            'segmentation': ('uint8', SIZE),
            'image_id': ('int64', ()),
            'original_size': ('int32', (2,)),
        }
    void = read(tmp_path, void=(2,), class_names=NAMES[:2], **named)
    np.testing.assert_array_equal(void[0]['segmentation'], np.where(maps['x'] == 2, 255, maps['x']))
    every = np.concatenate([values.ravel() for values in maps.values()])
    np.testing.assert_array_equal(source.count_pixels(), [(every == label).sum() for label in range(3)])
    assert read(tmp_path, 'train[1:]', **named).names == source.names[1:]
    with tarfile.open(tmp_path / 'all.tar', 'w') as archive:
        archive.add(tmp_path / folders[0].partition('/')[0], f'set/{folders[0].partition("/")[0]}')
        archive.add(tmp_path / folders[1].partition('/')[0], f'set/{folders[1].partition("/")[0]}')
    np.testing.assert_array_equal(read(tmp_path / 'all.tar', **named)[2]['segmentation'], maps['z'])
    last = Once(source, 2)[1]
    assert last['mask'].tolist() == [True, False]
    assert last['segmentation'].shape == (2, *SIZE)


def test_wrong_label_maps_are_refused_or_dropped(tmp_path, caplog):
    folders = ('train', 'trainannot')
    for name in 'abcdefgh':
        write_pair(tmp_path, folders, name, draw_map(3, (0, 1, 2)))
    write_pair(tmp_path, folders, 'b', draw_map(4, (0, 7, 9)))
    Image.fromarray(np.zeros((6, 9), np.uint8)).save(tmp_path / 'trainannot/c.png')
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / 'trainannot/d.png')
    (tmp_path / 'trainannot/e.png').write_bytes(b'no image')
    (tmp_path / 'trainannot/f.png').unlink()
    (tmp_path / 'train/g.jpg').unlink()
    (tmp_path / 'train/h.jpg').write_bytes(b'no image')
    with pytest.raises(UsageError) as error:
        read(tmp_path)
    text = str(error.value)
    assert '\n' not in text
    for part in (
        'values above the classes: 1, the first in',
        'b.png (value 7, 9); list more classes in class_names, or list the values in void',
        'another size than their image: 1, the first in',
        'c.png (9x6, the image 8x6)',
        'label maps that cannot be read: 2, the first in',
        'd.png has pixels of mode RGB, not one number each',
        'label maps that are missing: 1, the first in',
        'trainannot/f',
        'images that are missing for a label map: 1',
        'g.png',
        'images that cannot be read: 1',
        'h.jpg',
        "set invalid='drop'",
    ):
        assert part in text
    source = read(tmp_path, invalid='drop')
    assert source.names == ('train/a.jpg', 'train/b.jpg')
    assert set(np.unique(source[1]['segmentation'])) == {0, 255}  # values above the classes are void
    assert 'b.png' in caplog.text
    assert len(source.defects) == 7
    with pytest.raises(UsageError, match='cannot be clipped'):
        load_source('voc_segmentation', 'train', path=str(write_voc(tmp_path / 'voc')), invalid='clip')
    with pytest.raises(UsageError, match='no folders val and valannot or images/val and annotations/val or'):
        read(tmp_path, 'val')
    with pytest.raises(UsageError, match='needs class_names'):
        read(tmp_path, class_names=())
    with pytest.raises(UsageError, match='both or not at all'):
        read(tmp_path, images='train')


def write_voc(root):
    for name, values in (('a', (0, 20, 255)), ('b', (0, 15))):
        write_pair(root, ('JPEGImages', 'SegmentationClass'), name, draw_map(5, values))
    (root / 'ImageSets/Segmentation').mkdir(parents=True)
    (root / 'ImageSets/Segmentation/train.txt').write_text('b\na\n')
    return root


def test_voc_segmentation(tmp_path):
    source = load_source('voc_segmentation', 'train', path=str(write_voc(tmp_path)))
    assert source.names == ('JPEGImages/b.jpg', 'JPEGImages/a.jpg')
    assert source.info.num_classes == 21
    assert source.info.class_names[20] == 'tvmonitor'
    np.testing.assert_array_equal(source[1]['segmentation'], draw_map(5, (0, 20, 255)))
    (tmp_path / 'SegmentationClass/a.png').unlink()
    with pytest.raises(UsageError, match=r'label maps that are missing: 1, the first in .*a\.png'):
        load_source('voc_segmentation', 'train', path=str(tmp_path))


def test_sbd(tmp_path):
    """SBD's label maps are MATLAB files with a struct GTcls, whose field Segmentation has the classes."""
    root = tmp_path / 'dataset'
    for folder in ('img', 'cls'):
        (root / folder).mkdir(parents=True)
    values = draw_map(6, (0, 3, 20))
    for name in 'ab':
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(root / f'img/{name}.jpg')
        savemat(root / f'cls/{name}.mat', {'GTcls': {'Segmentation': values, 'Boundaries': np.zeros(20)}})
    (root / 'train.txt').write_text('a\nb\n')
    for path in (tmp_path, root):
        source = load_source('sbd_segmentation', 'train[1:]', path=str(path))
        np.testing.assert_array_equal(source[0]['segmentation'], values)
    savemat(root / 'cls/a.mat', {'other': np.zeros(2)})
    with pytest.raises(UsageError, match=r'a\.mat cannot be read \(it has no GTcls.Segmentation'):
        load_source('sbd_segmentation', 'train', path=str(root))
    with pytest.raises(UsageError, match=r'val\.txt; there are train'):
        load_source('sbd_segmentation', 'val', path=str(root))


def test_label_maps_of_other_pixel_types(tmp_path):
    from canon.data.detection.file_trees import FileTree

    files = FileTree(tmp_path)
    Image.fromarray(np.full(SIZE, 7, np.uint16)).save(tmp_path / 'small.png')
    Image.fromarray(np.full(SIZE, 256, np.uint16)).save(tmp_path / 'large.png')
    Image.fromarray(np.eye(6, 8) > 0).save(tmp_path / 'binary.png')
    assert (read_label_map(files, 'small.png') == 7).all()
    np.testing.assert_array_equal(read_label_map(files, 'binary.png'), np.eye(6, 8))
    with pytest.raises(CanonError, match=r'large\.png has values above 255'):
        read_label_map(files, 'large.png')
