"""Readers of boxes, on files that are written here: what they return, and how they answer to wrong annotations."""

import io
import json
import logging
import pickle
import re
import shutil
import tarfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from canon.data import Batches, Key, Once, load_boxes, load_source, splits, transforms
from canon.data.detection import coco, tfds_boxes
from canon.data.detection.annotations import check_classes, check_most
from canon.errors import CanonError, UsageError

F = tfds.features
PET = ('cat', 'dog')
OBJECT = (
    '<object><name>{name}</name>{difficult}<bndbox><ymin>{1}</ymin><xmin>{0}</xmin><xmax>{2}</xmax><ymax>{3}</ymax>'
    '</bndbox>{part}</object>'
)
PART = '<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>'


def write_image(path, size=(40, 30), orientation=None):
    """Writes an image of `size` (width, height) whose EXIF may ask for a rotation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.random.default_rng(len(path.name)).integers(0, 255, (*size[::-1], 3), np.uint8))
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    image.save(path, exif=exif)


def voc_object(name, *box, difficult=None, part=''):
    flag = '' if difficult is None else f'<difficult>{difficult}</difficult>'
    return OBJECT.format(*box, name=name, difficult=flag, part=part)


def write_voc(root, objects, sets=None, size=(40, 30), stated=(40, 30)):
    """Writes a folder of VOC: `objects` is {name: XML of its objects}, `sets` {image set: names}."""
    for name, content in objects.items():
        write_image(root / f'JPEGImages/{name}.jpg', size)
        annotation = root / f'Annotations/{name}.xml'
        annotation.parent.mkdir(exist_ok=True)
        shape = f'<size><width>{stated[0]}</width><height>{stated[1]}</height></size>' if stated else ''
        annotation.write_text(f'<annotation>{shape}{content}</annotation>')
    for image_set, names in (sets or {'train': objects}).items():
        listing = root / f'ImageSets/Main/{image_set}.txt'
        listing.parent.mkdir(parents=True, exist_ok=True)
        listing.write_text(''.join(f'{name}\n' for name in names))
    return root


def pack(folder, file, prefix):
    with tarfile.open(file, 'w') as archive:
        archive.add(folder, prefix)
    return file


def voc(path, split='train', **kwargs):
    return load_source('voc_detection', split, path=str(path), **{'class_names': PET, **kwargs})


# --- Pascal VOC ------------------------------------------------------------------------------------------------------


def test_voc_boxes_are_at_pixel_edges(tmp_path):
    """A box of one pixel, 1-based with both ends included, has an area of one; `part` elements are not objects."""
    content = {
        'a': voc_object('dog', 3, 2, 3, 2, difficult=1) + voc_object('cat', 1, 1, 40, 30, part=PART),
        'b': '',
        'c': voc_object('cat', '4.5', 5, 6, 7, difficult=0),
    }
    source = voc(write_voc(tmp_path, content))
    np.testing.assert_array_equal(source[0]['boxes'], [[2, 1, 3, 2], [0, 0, 40, 30]])
    np.testing.assert_array_equal(source[2]['boxes'], [[3.5, 4, 6, 7]])
    assert source[0]['labels'].tolist() == [1, 0]
    assert source[0]['difficult'].tolist() == [True, False]
    assert [source[i]['image_id'] for i in range(3)] == [0, 1, 2]
    assert source.info.class_names == PET
    assert source.count_objects().tolist() == [2, 1]
    for i, k in enumerate((2, 0, 1)):  # an image without objects has the same fields
        shapes = {name: (np.asarray(value).dtype.name, np.shape(value)) for name, value in source[i].items()}
        assert shapes == {
            'image': ('uint8', (30, 40, 3)),
            'boxes': ('float32', (k, 4)),
            'labels': ('int32', (k,)),
            'difficult': ('bool', (k,)),
            'crowd': ('bool', (k,)),
            'image_id': ('int64', ()),
            'original_size': ('int32', (2,)),
        }
        assert source[i]['original_size'].tolist() == [30, 40]


def test_voc_years_sets_and_slices(tmp_path):
    """'2007-trainval+2012-train' and years=(2007, 2012) are training sets of SSD; slices follow the list."""
    for year in (2007, 2012):
        names = [f'{year}_{i}' for i in range(4)]
        sets = {'train': names[:3], 'val': names[3:], 'cat_train': []}
        write_voc(tmp_path / f'VOCdevkit/VOC{year}', dict.fromkeys(names, voc_object('cat', 1, 1, 9, 9)), sets)
    source = voc(tmp_path, 'train[:2]+2012-val', years=(2007,))
    assert [name.rpartition('/')[2] for name in source.names] == ['2007_0.jpg', '2007_1.jpg', '2012_3.jpg']
    assert len(voc(tmp_path / 'VOCdevkit', years=(2007, 2012))) == 6
    assert voc(tmp_path, '2012-train[2:]').info.total == 3
    with pytest.raises(UsageError, match=r"has VOC2007, VOC2012; give years=, or a split such as '2007-train'"):
        voc(tmp_path)
    with pytest.raises(UsageError, match='VOC2010; there are VOC2007, VOC2012'):
        voc(tmp_path, years=(2010,))
    with pytest.raises(UsageError, match=r"ImageSets/Main/trian.txt; did you mean 'train'"):
        voc(tmp_path, '2007-trian')
    with pytest.raises(UsageError, match='JPEGImages'):
        voc(tmp_path / 'VOCdevkit/VOC2007/Annotations')


def test_a_tar_is_read_as_its_folder(tmp_path):
    folder = write_voc(tmp_path / 'pets', {'a': voc_object('dog', 3, 2, 9, 8), 'b': ''})
    sources = voc(folder), voc(pack(folder, tmp_path / 'pets.tar', 'pets'))
    assert sources[0].names == sources[1].names
    for i in range(2):
        for field, value in sources[0][i].items():
            np.testing.assert_array_equal(sources[1][i][field], value)
    copy = pickle.loads(pickle.dumps(sources[1]))  # as for a worker process
    np.testing.assert_array_equal(copy[0]['image'], sources[0][0]['image'])
    with tarfile.open(tmp_path / 'pets.tar.gz', 'w:gz') as archive:
        archive.add(folder, 'pets')
    with pytest.raises(UsageError, match=r'not an uncompressed tar.*: unpack it and give the folder'):
        voc(tmp_path / 'pets.tar.gz')
    with pytest.raises(UsageError, match='there is no folder or tar file'):
        voc(tmp_path / 'missing')


GOOD = voc_object('cat', 1, 1, 9, 9)
WRONG = {
    'area': (
        voc_object('cat', 5, 5, 4, 9),
        r'boxes without area: 1, the first in .*x\.xml \(object 2: \[4, 4, 4, 9\] in',
    ),
    'outside': (voc_object('cat', 30, 5, 44, 9), r'boxes that reach outside .*object 2: \[29, 4, 44, 9\] in 40x30'),
    'beyond': (voc_object('cat', 50, 5, 54, 9), 'boxes that lie outside of the image: 1'),
    'class': (
        voc_object('cow', 1, 1, 9, 9),
        r"classes that are not listed: 1.*object 2: 'cow'\).*add .* to class_names",
    ),
    'case': (voc_object('CAT', 1, 1, 9, 9), r"object 2: 'CAT'; did you mean 'cat'\?\); correct the names, or"),
    'misspelt': (voc_object('dgo', 1, 1, 9, 9), r"object 2: 'dgo'; did you mean 'dog'\?\)"),
    'infinite': (voc_object('cat', 'nan', 1, 9, 9), 'boxes that are not four finite numbers: 1'),
}


@pytest.mark.parametrize('kind', WRONG)
def test_wrong_objects_are_refused_dropped_or_clipped(tmp_path, caplog, kind):
    content, message = WRONG[kind]
    root = write_voc(tmp_path, {'w': GOOD, 'x': GOOD + content + GOOD})
    with pytest.raises(UsageError, match=message) as error:
        voc(root)
    assert '\n' not in str(error.value)
    assert "invalid='drop'" in str(error.value) or "'clip' or 'drop'" in str(error.value)
    for invalid in ('drop', 'clip'):
        source = voc(root, invalid=invalid)
        clipped = kind == 'outside' and invalid == 'clip'
        assert [len(source[i]['boxes']) for i in range(2)] == [1, 3 if clipped else 2]
        assert len(source.defects) == 1
        assert 'x.xml' in caplog.text
        assert clipped == caplog.text.endswith('; clipped\n')  # else dropped, which the line says as well
        caplog.clear()
        if clipped:
            np.testing.assert_array_equal(source[1]['boxes'][1], [29, 4, 40, 9])
    with pytest.raises(UsageError, match="invalid='dorp' must be 'error'"):
        load_source('voc_detection', 'train', path=str(root), invalid='dorp')


def test_wrong_images_and_annotations_are_all_named_in_one_line(tmp_path):
    """Five files, each wrong in its own way, and one that is right."""
    root = write_voc(tmp_path, dict.fromkeys('abcdef', GOOD), {'train': 'abcdeff'})
    (root / 'JPEGImages/a.jpg').unlink()
    (root / 'Annotations/b.xml').unlink()
    (root / 'Annotations/c.xml').write_text('<annotation><object>')
    (root / 'Annotations/d.xml').write_text('<annotation><object><name>cat</name></object></annotation>')
    (root / 'Annotations/e.xml').write_text('<annotation></annotation>')  # its size is that of the broken file
    (root / 'JPEGImages/e.jpg').write_bytes(b'no image')
    with pytest.raises(UsageError) as error:
        voc(root)
    text = str(error.value)
    assert '\n' not in text
    for part in (
        'images that are listed and missing: 1, the first in',
        'a.jpg (listed by',
        'images without annotations: 1, the first in',
        'b.xml',
        'annotations that cannot be read: 2, the first in',
        'c.xml is not XML',
        'images that cannot be read: 1',
        'e.jpg is not an image',
        'images listed twice: 1',
    ):
        assert part in text
    source = voc(root, invalid='drop')
    assert source.names == ('JPEGImages/f.jpg',)
    assert len(source.defects) == 6
    (root / 'JPEGImages/f.jpg').unlink()
    with pytest.raises(
        UsageError, match=r'no images are left: .*; images that are listed and missing: 2, .*; restore them'
    ):
        voc(root, invalid='drop')
    shutil.rmtree(root / 'Annotations')
    with pytest.raises(UsageError, match=r'Annotations has no \.xml; put the annotation of each image there'):
        voc(root, invalid='drop')


def test_an_annotation_of_another_size_is_named_instead_of_its_boxes(tmp_path):
    root = write_voc(tmp_path, {'a': GOOD, 'b': GOOD + voc_object('cat', 30, 5, 64, 9)}, stated=(40, 30))
    write_image(root / 'JPEGImages/b.jpg', (80, 60))
    message = r'annotations of another size than their image: 1, .*b\.xml \(40x30 in it, 80x60 in the image\)'
    with pytest.raises(UsageError, match=message) as error:
        voc(root)
    assert 'outside' not in str(error.value)
    assert voc(root, invalid='clip').names == ('JPEGImages/a.jpg',)


def write_flat(root, names):
    """Writes x.jpg and x.xml next to each other, as LabelImg does."""
    for name in names:
        write_image(root / f'{name}.jpg')
        (root / f'{name}.xml').write_text(f'<annotation>{GOOD}</annotation>')
    return root


def test_annotations_next_to_their_images(tmp_path, caplog):
    root = write_flat(tmp_path / 'cells', 'badce')
    write_image(root / 'f.jpg')
    parts = [voc(root, split).names for split in ('train[:80%]', 'train[80%:]')]
    assert parts == [('a.jpg', 'b.jpg', 'c.jpg', 'd.jpg'), ('e.jpg',)]
    assert 'images without annotations: 1, the first is f.jpg; they are left out' in caplog.text
    assert voc(root)[0]['boxes'].tolist() == [[0, 0, 9, 9]]
    assert voc(pack(root, tmp_path / 'cells.tar', 'cells')).names == voc(root).names
    message = r"has no image sets, .* there is no 'trainval': slice it, data\.train\.split='train\[:80%\]'"
    with pytest.raises(UsageError, match=message):
        voc(root, 'trainval')
    with pytest.raises(UsageError, match=r"no folder or tar file .*cels; did you mean 'cells'"):
        voc(tmp_path / 'cels')


def test_folders_of_voc_without_image_sets(tmp_path):
    root = write_voc(tmp_path, dict.fromkeys('abcde', GOOD))
    (root / 'ImageSets/Main/train.txt').unlink()
    assert [len(voc(root, split)) for split in ('train', 'train[:80%]', 'train[80%:]')] == [5, 4, 1]
    with pytest.raises(UsageError, match=r'write .*Main/val\.txt: the names of images without suffix, one per line'):
        voc(root, 'val')
    for part in ('JPEGImages', 'Annotations'):
        with pytest.raises(UsageError, match=rf'give the folder above it, {root}'):
            voc(root / part)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(UsageError, match=r'put images into JPEGImages/ .* or each \.xml next to its image'):
        voc(tmp_path / 'empty')


def test_truncated_images_are_skipped(tmp_path, caplog):
    root = write_flat(tmp_path, 'abc')
    (root / 'b.jpg').write_bytes((root / 'b.jpg').read_bytes()[:-300])
    (root / 'train.csv').write_text('a.jpg,0,0,9,9,cat\nb.jpg,0,0,9,9,dog\n')
    with pytest.raises(CanonError, match=r'b\.jpg cannot be read .*; repair or remove it'):
        voc(root)[1]
    assert voc(root, unreadable='skip').names == ('a.jpg', 'c.jpg')
    assert load_source('csv_boxes', 'train', path=str(root), unreadable='skip').names == ('a.jpg',)
    assert re.search(
        r'1 of 3 images in .* cannot be read: b\.jpg \(the first: .* \(\d+ bytes not processed\)\); they', caplog.text
    )
    with pytest.raises(UsageError, match="unreadable='skp' must be 'refuse' or 'skip'"):
        voc(root, unreadable='skp')


def test_classes_without_objects(tmp_path, caplog):
    source = voc(write_flat(tmp_path, 'ab'))
    check_classes(source)
    assert "has no object of 'dog'; compare class_names with the names" in caplog.text
    assert '(objects: cat: 2, dog: 0)' in caplog.text
    with pytest.raises(UsageError, match=r'data\.train: .* has no object of any class; compare class_names'):
        check_classes(voc(tmp_path, class_names=('cow', 'hen'), invalid='drop'), 'data.train')


def test_images_without_objects(tmp_path, caplog):
    caplog.set_level(logging.INFO, 'canon')
    root = write_voc(tmp_path, {'a': '', 'b': GOOD, 'c': voc_object('cow', 1, 1, 9, 9)})
    assert len(voc(root, invalid='drop')) == 3
    assert 'images without objects: 2' in caplog.text
    assert 'a.xml' in caplog.text
    assert voc(root, invalid='drop', empty='drop').names == ('JPEGImages/b.jpg',)
    with pytest.raises(UsageError, match=r'without objects: 2, the first in .*a\.xml; annotate or remove them, or set'):
        voc(root, invalid='drop', empty='error')


def test_exif_rotations_and_sizes(tmp_path):
    """The size that the annotation states decides whether the pixels are rotated as EXIF says."""
    objects = {'a': GOOD, 'b': GOOD, 'c': GOOD}
    root = write_voc(tmp_path, objects, size=(40, 30), stated=(40, 30))
    write_image(root / 'JPEGImages/b.jpg', (30, 40), orientation=6)  # annotated after the rotation
    write_image(root / 'JPEGImages/c.jpg', (40, 30), orientation=6)  # annotated before
    source = voc(root)
    assert [source[i]['image'].shape for i in range(3)] == [(30, 40, 3)] * 3
    np.testing.assert_array_equal(source[2]['image'], np.asarray(Image.open(root / 'JPEGImages/c.jpg')))
    encoded = voc(root, decode=False)
    decoded = transforms.decode()
    for i in range(3):
        np.testing.assert_array_equal(decoded.apply(encoded[i], Key(0, 0, i))['image'], source[i]['image'])
    for name in 'ab':
        (root / f'Annotations/{name}.xml').write_text(f'<annotation>{GOOD}</annotation>')  # no size: that of the file
    assert voc(root).image_sizes().tolist() == [[30, 40]] * 3
    write_image(root / 'JPEGImages/c.jpg', (41, 30))
    with pytest.raises(CanonError, match=r'c\.jpg is 41x30 pixels, but .*c\.xml states 40x30; correct the annotation'):
        voc(root)[2]


# --- COCO ------------------------------------------------------------------------------------------------------------

SQUARE = [10, 5, 20, 5, 20, 15, 10, 15]  # a polygon of 10 x 10 pixels
RUNS = np.zeros((30, 40), bool)
RUNS[3:9, 30:38] = True


def run_lengths(mask):
    """COCO's run lengths count down the columns, and begin with zeros."""
    flat = mask.T.ravel()
    changes = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff([0, *changes, flat.size]).tolist()
    return {'size': list(mask.shape), 'counts': [0, *lengths] if flat[0] else lengths}


def coco_content():
    annotations = [
        {'id': 1, 'image_id': 7, 'category_id': 18, 'bbox': [10, 5, 10, 10], 'segmentation': [SQUARE], 'area': 77.5},
        {
            'id': 2,
            'image_id': 7,
            'category_id': 3,
            'bbox': [30, 3, 8, 6],
            'segmentation': run_lengths(RUNS),
            'iscrowd': 1,
        },
        {
            'id': 3,
            'image_id': 7,
            'category_id': 3,
            'bbox': [15, 5, 8, 4],
            'segmentation': [[15, 5, 23, 5, 23, 9, 15, 9]],
        },
    ]
    images = [{'id': i, 'file_name': f'{i}.jpg', 'width': 40, 'height': 30} for i in (9, 7)]
    categories = [{'id': 18, 'name': 'dog'}, {'id': 3, 'name': 'cat'}, {'id': 5, 'name': 'cow'}]
    return {'images': images, 'annotations': annotations, 'categories': categories}


def write_coco(root, content):
    for i in (7, 9):
        write_image(root / f'val2017/{i}.jpg')
    file = root / 'annotations/instances_val2017.json'
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content))
    return root


def read_coco(root, split='val2017', **kwargs):
    return load_source('coco_detection', split, path=str(root), **kwargs)


def test_coco_boxes_crowds_and_ids(tmp_path):
    root = write_coco(tmp_path, coco_content())
    source = read_coco(root)
    assert source.info.class_names == ('cat', 'cow', 'dog')  # in the order of their ids
    assert [int(source[i]['image_id']) for i in range(2)] == [9, 7]
    example = source[1]
    np.testing.assert_array_equal(example['boxes'], [[10, 5, 20, 15], [30, 3, 38, 9], [15, 5, 23, 9]])
    assert example['labels'].tolist() == [2, 0, 0]
    assert example['crowd'].tolist() == [False, True, False]
    assert example['area'].tolist() == [77.5, 48, 32]
    assert {field: len(source[0][field]) for field in ('boxes', 'area', 'crowd')} == {'boxes': 0, 'area': 0, 'crowd': 0}
    chosen = read_coco(root, class_names=('dog', 'cow'))
    ids = {category['name']: category['id'] for category in coco_content()['categories']}
    assert chosen.category_ids == (ids['dog'], ids['cow'])
    assert chosen[1]['labels'].tolist() == [0]
    assert read_coco(root, 'val2017[1:]', empty='drop').names == ('val2017/7.jpg',)
    with pytest.raises(UsageError, match="has no category 'dgo'; did you mean 'dog'"):
        read_coco(root, class_names=('dgo',))
    with pytest.raises(UsageError, match=r'no annotations annotations/instances_train2017.json or'):
        read_coco(root, 'train2017')


def test_coco_masks_and_label_maps(tmp_path):
    """Polygons fill exactly the pixels whose centres they contain; pixels of two objects or of a crowd are void."""
    root = write_coco(tmp_path, coco_content())
    example = read_coco(root, target='instances')[1]
    square, second = np.zeros((2, 30, 40), bool)
    square[5:15, 10:20] = second[5:9, 15:23] = True
    np.testing.assert_array_equal(example['masks'], [square, RUNS, second])
    source = read_coco(root, target='segmentation')
    assert source.info.class_names == ('background', 'cat', 'cow', 'dog')
    expected = np.where(square, 3, np.where(second, 1, 0))
    expected[(square & second) | RUNS] = 255
    np.testing.assert_array_equal(source[1]['segmentation'], expected)
    assert source[0]['segmentation'].max() == 0
    compressed = coco.encode_mask(run_lengths(RUNS), (30, 40))
    assert coco.encode_mask({'size': [30, 40], 'counts': compressed.decode()}, (30, 40)) == compressed
    content = coco_content()
    content['annotations'][0]['segmentation'] = [[1, 2, 3, 4]]
    content['annotations'][1]['segmentation']['counts'].append(1)
    content['annotations'][2]['segmentation'] = {'size': [40, 30], 'counts': [1200]}
    with pytest.raises(UsageError, match=r'masks that cannot be read: 3, .*annotation 1: a polygon needs three points'):
        read_coco(write_coco(root, content), target='instances')
    assert read_coco(root, target='instances', invalid='drop')[1]['masks'].shape == (0, 30, 40)


@pytest.mark.parametrize(
    ('segmentation', 'message'),
    [
        ([[0, 0, 1e12, 0, 1e12, 1e12]], 'a polygon leads far out of the image'),
        ([[0, 0, float('nan'), 0, 9, 9]], 'a polygon leads far out of the image'),
        ({'size': [30, 40], 'counts': 'junk'}, 'annotation 1'),
        ({'counts': [1200]}, "'size'"),
        (None, 'annotation 1'),
    ],
)
def test_masks_that_would_take_all_memory_or_crash(tmp_path, segmentation, message):
    content = coco_content()
    content['annotations'][0]['segmentation'] = segmentation
    with pytest.raises(UsageError, match=f'masks that cannot be read: 1, .*{message}'):
        read_coco(write_coco(tmp_path, content), target='instances')
    content['images'][1]['width'] = 10**12
    with pytest.raises(UsageError, match=r'annotations that cannot be read: 1, .*its size is 1000000000000x30'):
        read_coco(write_coco(tmp_path, content))


def test_wrong_coco_files(tmp_path):
    content = coco_content()
    content['annotations'] += [
        {**content['annotations'][0], 'bbox': [0, 0, 5, 5]},  # id 1 again
        {**content['annotations'][0], 'id': 4, 'image_id': 8},
        {**content['annotations'][0], 'id': 5, 'category_id': 99},
        {**content['annotations'][0], 'id': 6, 'bbox': [1, 1, 0, 5]},
    ]
    content['images'] += [{**content['images'][0]}, {**content['images'][0], 'id': 10, 'file_name': 'none.jpg'}]
    with pytest.raises(UsageError) as error:
        read_coco(write_coco(tmp_path, content))
    for part in (
        'doubled ids: 2, the first in',
        'instances_val2017.json (images 9)',
        '(annotation 4 of image 8)',
        "'category 99'",
        'boxes without area: 1',
        'none.jpg',
    ):
        assert part in str(error.value)
    source = read_coco(tmp_path, invalid='drop')
    assert (len(source), len(source[1]['boxes']), len(source.defects)) == (2, 3, 6)
    for broken, message in (
        ({'images': []}, "needs a list 'annotations'"),
        ({**content, 'images': [{'id': 3}]}, "an entry has no 'height'"),
        ([], "needs a list 'images'"),
        ({**content, 'categories': [{'id': 3}]}, "each category needs a number 'id' and a text 'name'"),
        ({**content, 'images': [{**content['images'][0], 'id': '9.jpg'}]}, "each image needs a number 'id'"),
        ({**content, 'images': [{**content['images'][0], 'id': 2**31}]}, 'the image id 2147483648 is not in 0..'),
        (
            {**coco_content(), 'annotations': [{**coco_content()['annotations'][0], 'area': 'large'}]},
            'could not convert',
        ),
    ):
        with pytest.raises(CanonError, match=message):
            read_coco(write_coco(tmp_path, broken))
    (tmp_path / 'annotations/instances_val2017.json').write_text('{')
    with pytest.raises(CanonError, match='is not JSON'):
        read_coco(tmp_path)


# --- YOLO's texts and CSV --------------------------------------------------------------------------------------------


@pytest.mark.parametrize('layout', [('images/train', 'labels/train'), ('train/images', 'train/labels'), ('train',) * 2])
def test_yolo_texts(tmp_path, layout):
    for name in 'ab':
        write_image(tmp_path / layout[0] / f'{name}.jpg')
    (tmp_path / layout[1]).mkdir(parents=True, exist_ok=True)
    (tmp_path / layout[1] / 'b.txt').write_text('1 0.5 0.5 0.25 0.2\n\n0 0.5 0.5 1 1\n')
    with pytest.raises(UsageError, match=r'neither data.yaml nor classes.txt; give class_names'):
        load_source('yolo_boxes', 'train', path=str(tmp_path))
    (tmp_path / 'classes.txt').write_text('cat\ndog\n')
    source = load_source('yolo_boxes', 'train', path=str(tmp_path))
    assert len(source[0]['boxes']) == 0
    np.testing.assert_allclose(source[1]['boxes'], [[15, 12, 25, 18], [0, 0, 40, 30]], atol=1e-5)
    assert source[1]['labels'].tolist() == [1, 0]
    for names in (['cat', 'dog'], {0: 'cat', 1: 'dog'}):
        (tmp_path / 'data.yaml').write_text(json.dumps({'names': names}).replace('"0"', '0').replace('"1"', '1'))
        assert load_source('yolo_boxes', 'train', path=str(tmp_path)).info.class_names == PET
    (tmp_path / layout[1] / 'a.txt').write_text('2 0.5 0.5 0.25 0.2\n0 0.9 0.5 0.4 0.2\n')
    with pytest.raises(UsageError, match=r"not listed: 1, .*a\.txt \(object 1: 'number 2'\).*reach outside .*a\.txt"):
        load_source('yolo_boxes', 'train', path=str(tmp_path))
    (tmp_path / layout[1] / 'a.txt').write_text('0 0.5 0.5 0.25\n')
    with pytest.raises(UsageError, match=r"a\.txt, line 1 is '0 0.5 0.5 0.25', not a class and four numbers"):
        load_source('yolo_boxes', 'train', path=str(tmp_path))
    with pytest.raises(UsageError, match='no folders images/val and labels/val or'):
        load_source('yolo_boxes', 'val', path=str(tmp_path))


def test_csv(tmp_path):
    for name in 'abc':
        write_image(tmp_path / f'photos/{name}.jpg')
    rows = ['file,x0,y0,x1,y1,class', 'photos/b.jpg,1,2,3.5,4,dog', 'photos/a.jpg,,,,,', 'photos/b.jpg,0,0,40,30,dog']
    (tmp_path / 'train.csv').write_text('\ufeff' + '\r\n'.join(rows))
    (tmp_path / 'test.csv').write_text('"photos/c.jpg",0,0,1,1,cat\n')
    source = load_source('csv_boxes', 'train', path=str(tmp_path))
    assert source.names == ('photos/b.jpg', 'photos/a.jpg')
    assert source.info.class_names == PET  # of both files
    np.testing.assert_array_equal(source[0]['boxes'], [[1, 2, 3.5, 4], [0, 0, 40, 30]])
    assert source[0]['labels'].tolist() == [1, 1]
    assert len(load_source('csv_boxes', 'train+test', path=str(tmp_path))) == 3
    (tmp_path / 'train.csv').write_text('\n'.join([*rows, 'photos/a.jpg,1,2,3,dog', 'photos/d.jpg,1,2,3,4,dog']))
    with pytest.raises(UsageError, match=r'train\.csv, line 5 .*is not file,x0,y0,x1,y1,class.*d\.jpg \(listed by'):
        load_source('csv_boxes', 'train', path=str(tmp_path))
    assert len(load_source('csv_boxes', 'train', path=str(tmp_path), invalid='drop').defects) == 2
    with pytest.raises(UsageError, match=r'val\.csv; there are test, train'):
        load_source('csv_boxes', 'val', path=str(tmp_path))
    (tmp_path / 'train.csv').write_text('../a.jpg,1,2,3,4,dog\n')
    with pytest.raises(UsageError, match='points outside'):
        load_source('csv_boxes', 'train', path=str(tmp_path))


# --- TFDS ------------------------------------------------------------------------------------------------------------


class VocFabricated(tfds.core.GeneratorBasedBuilder):
    """The features of TFDS's own VOC that matter, and an area as its COCO has."""

    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
        objects = {'bbox': F.BBoxFeature(), 'label': F.ClassLabel(names=PET), 'is_difficult': np.bool_}
        features = {'image': F.Image(shape=(None, None, 3), encoding_format='jpeg'), 'objects': F.Sequence(objects)}
        return tfds.core.DatasetInfo(builder=self, description='fabricated', features=F.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {'train': self._generate_examples()}

    def _generate_examples(self):
        buffer = io.BytesIO()
        Image.new('RGB', (40, 30)).save(buffer, 'JPEG')
        boxes = [(3, 2, 3, 2), (1, 1, 40, 30)]  # xmin, ymin, xmax, ymax as in VOC's files
        objects = [
            {'bbox': F.BBox(y0 / 30, x0 / 40, y1 / 30, x1 / 40), 'label': 'dog', 'is_difficult': k == 1}
            for k, (x0, y0, x1, y1) in enumerate(boxes)
        ]
        for i, chosen in enumerate((objects, [])):
            yield i, {'image': io.BytesIO(buffer.getvalue()), 'objects': chosen}


def test_tfds_boxes_become_pixels(tmp_path):
    VocFabricated(data_dir=tmp_path, file_format='array_record').download_and_prepare()
    source = load_boxes('voc_fabricated', 'train', data_dir=str(tmp_path))
    np.testing.assert_allclose(source[0]['boxes'], [[2, 1, 3, 2], [0, 0, 40, 30]], atol=1e-5)
    assert source[0]['difficult'].tolist() == [False, True]
    assert source[0]['labels'].tolist() == [1, 1]
    assert [len(source[1][field]) for field in ('boxes', 'labels', 'crowd')] == [0, 0, 0]
    assert source.info.class_names == PET
    encoded = load_boxes('voc_fabricated', 'train', data_dir=str(tmp_path), decode=False)
    np.testing.assert_array_equal(encoded[0]['boxes'], source[0]['boxes'])
    as_coco = tfds_boxes.TfdsBoxes(source.prepared, PET, one_based=False, invalid='drop')
    np.testing.assert_allclose(as_coco[0]['boxes'], [[1, 1, 40, 30]], atol=1e-5)  # the other has no area
    with pytest.raises(UsageError, match='boxes without area'):
        tfds_boxes.TfdsBoxes(source.prepared, PET, one_based=False, invalid='error')[0]
    assert load_boxes('digit_scenes', 'test').info.num_classes == 10


def test_trainval_shares_images_with_its_parts():
    for first, second, shared in (
        ('trainval', 'val', True),
        ('2007-train', '2007-trainval[:50%]', True),
        ('trainval', 'test', False),
        ('2007-trainval', '2012-val', False),
        ('train', 'val', False),
    ):
        assert splits.share_examples(first, second, None) == shared


# --- static shapes ---------------------------------------------------------------------------------------------------


def test_more_boxes_than_the_batch_has_room_for():
    boxes = np.array([[0, 0, 2, 2], [0, 0, 9, 9], [1, 1, 2, 2], [0, 0, 3, 3], [0, 0, 2, 2]], np.float32)
    example = {'boxes': boxes, 'labels': np.arange(5), 'crowd': np.arange(5) > 2, 'image_id': np.int64(4)}
    with pytest.raises(CanonError, match=r"example 3 has 5 boxes, more than count=3; .*overflow='truncate'"):
        transforms.pad_boxes(3).apply(example, Key(0, 0, 3))
    padded = transforms.pad_boxes(3, overflow='truncate').apply(example, Key(0, 0, 3))
    assert padded['labels'].tolist() == [0, 1, 3]  # of equal boxes the first
    assert padded['crowd'].tolist() == [False, False, True]
    assert (padded['truncated'], padded['valid'].all()) == (2, True)
    padded = transforms.pad_boxes(7, overflow='truncate').apply(example, Key(0, 0, 3))
    assert (padded['truncated'], padded['valid'].sum()) == (0, 5)
    with pytest.raises(UsageError, match='overflow'):
        transforms.pad_boxes(3, overflow='drop')


def test_most_is_checked_before_training(tmp_path):
    source = voc(write_voc(tmp_path, {'a': GOOD, 'b': GOOD * 3}))
    check_most(source, 3)
    with pytest.raises(
        UsageError, match=r'data\.most=2, but JPEGImages/b\.jpg of AnnotatedImages.* has 3 objects; incr'
    ):
        check_most(source, 2)
    check_most(load_source('digit_scenes'), 0)  # does not know; pad_boxes refuses it


def test_batches_of_a_detection_set(tmp_path):
    """The contract of docs/batches.md, also for a batch in which no image has an object, and for rows of padding."""
    root = write_voc(tmp_path, {'a': GOOD, 'b': '', 'c': GOOD + voc_object('dog', 1, 1, 40, 30, difficult=1)})
    chain = (transforms.pad_boxes(4),)
    expected = {
        'image': ('uint8', (2, 30, 40, 3)),
        'boxes': ('float32', (2, 4, 4)),
        'labels': ('int32', (2, 4)),
        'difficult': ('bool', (2, 4)),
        'crowd': ('bool', (2, 4)),
        'valid': ('bool', (2, 4)),
        'image_id': ('int64', (2,)),
        'original_size': ('int32', (2, 2)),
        'mask': ('bool', (2,)),
    }
    once = Once(voc(root), 2, chain)
    empty = voc(root, 'train[1:2]')
    for batch in (Batches(voc(root), 2, 0, chain)[0], once[1], Batches(empty, 2, 0, chain)[0]):
        assert {field: (values.dtype.name, values.shape) for field, values in batch.items()} == expected
    assert once[1]['mask'].tolist() == [True, False]
    assert not any(once[1][field][1].any() for field in ('boxes', 'labels', 'valid', 'difficult', 'crowd'))
    assert not Batches(empty, 2, 0, chain)[0]['valid'].any()
