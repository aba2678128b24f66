"""The embedded scenes of digits: pure, consistent between boxes, masks and label maps, of the stated difficulty."""

import doctest
import pickle

import numpy as np
import pytest

from canon.data import load_source
from canon.data.detection import digit_scenes as module
from canon.data.images import digits
from canon.errors import UsageError


def read(split='train', **kwargs):
    return load_source('digit_scenes', split, **kwargs)


@pytest.fixture(scope='module')
def scenes():
    source = read(target='instances')
    return [source[i] for i in range(400)]


def test_a_scene_is_a_function_of_seed_split_and_number():
    source, sliced = read('train', target='instances'), read('train[3:]', target='instances')
    for field, value in source[5].items():
        np.testing.assert_array_equal(value, sliced[2][field])
        np.testing.assert_array_equal(value, pickle.loads(pickle.dumps(source))[5][field])
    images = [s[5]['image'] for s in (source, read('test'), read(seed=1), read(num_examples=8))]
    np.testing.assert_array_equal(images[0], images[3])
    assert all((images[0] != other).mean() > 0.5 for other in images[1:3])
    assert sliced.info.total == 4096


def test_targets_have_the_same_scenes():
    every, boxes, maps = (read(target=target) for target in ('instances', 'detection', 'segmentation'))
    assert boxes.info.class_names == tuple('0123456789')
    assert maps.info.class_names == ('background', *'0123456789')
    for i in range(4):
        assert boxes[i].keys() | maps[i].keys() | {'masks'} == every[i].keys()
        for field, value in (*boxes[i].items(), *maps[i].items()):
            np.testing.assert_array_equal(value, every[i][field])


def test_boxes_bound_the_visible_pixels(scenes):
    """Boxes, labels and label map are computed again from the masks."""
    for scene in scenes:
        label_map = np.zeros((128, 128), np.uint8)
        for mask, box, label in zip(scene['masks'], scene['boxes'], scene['labels'], strict=True):
            rows, columns = np.nonzero(mask)
            np.testing.assert_array_equal(box, [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            label_map[mask] = label + 1
        np.testing.assert_array_equal(scene['segmentation'], label_map)
        assert scene['masks'].sum(0).max(initial=0) <= 1
        types = [scene[field].dtype.name for field in ('image', 'boxes', 'labels', 'difficult', 'crowd', 'image_id')]
        assert types == ['uint8', 'float32', 'int32', 'bool', 'bool', 'int64']


def test_scenes_are_as_varied_as_stated(scenes):
    counts = np.array([len(scene['boxes']) for scene in scenes])
    assert set(counts) == set(range(13))
    boxes, labels = (np.concatenate([scene[field] for scene in scenes]) for field in ('boxes', 'labels'))
    heights = boxes[:, 3] - boxes[:, 1]
    assert 4 <= heights.min() < 9  # the ink of a small digit is a little less than its height
    assert 60 < heights.max() <= 66
    assert np.bincount(labels, minlength=10).min() > 0.7 * len(labels) / 10
    small, large = (heights < 20).mean(), (heights > 40).mean()
    assert small > 0.35
    assert large > 0.1
    overlapping = [module._max_iou(b, np.delete(s['boxes'], k, 0)) for s in scenes for k, b in enumerate(s['boxes'])]
    assert np.mean(np.array(overlapping) > 0.02) > 0.1
    assert np.max(overlapping) < 0.45  # of the visible parts; non-maximum suppression at .45 loses nothing


def test_digits_stand_out_from_the_ground(scenes):
    """The mean colour of an object differs from that of the ground around it."""
    differences = []
    for scene in scenes[:100]:
        image, ground = scene['image'].astype(float), scene['segmentation'] == 0
        for mask, (x0, y0, x1, y1) in zip(scene['masks'], scene['boxes'].astype(int), strict=True):
            around = image[y0:y1, x0:x1][ground[y0:y1, x0:x1]]
            if len(around):
                differences.append(np.abs(image[mask].mean(0) - around.mean(0)).max())
    assert np.percentile(differences, 5) > 25


def test_held_out_digits_are_in_no_training_scene():
    """Both splits together have each of the 1,797 digits once."""
    images, classes = digits.arrays()
    train, test = (module.load_cut_digits(held_out) for held_out in (False, True))
    assert (len(train[0]), len(test[0])) == (1437, 360)
    for (cut, labels), chosen in zip((train, test), (False, True), strict=True):
        numbers = np.flatnonzero(np.isin(np.arange(1797), digits.held_out(classes)) == chosen)
        np.testing.assert_array_equal(labels, classes[numbers])
        assert all(
            np.isclose(image.sum(), images[i].sum() / 255, rtol=0.2) for image, i in zip(cut, numbers, strict=True)
        )


def test_digits_of_the_largest_size_fit():
    for size in (20, 33, 80):
        source = read(height=size, width=size, most=2, sizes=(4, size * 8 // 10), clutter=0)
        assert max(len(source[i]['boxes']) for i in range(20))


def test_light_digits_are_on_a_dark_ground():
    source = read(target='segmentation', height=64, width=64, sizes=(16, 40), clutter=0, colours='light')
    for scene in (source[i] for i in range(20)):
        # Noise adds up to 23 levels; ink is a blend at the border of a stroke.
        ground, digits = (scene['image'][(scene['segmentation'] > 0) == solid] for solid in (False, True))
        assert np.median(ground) < 110
        assert not len(digits) or np.median(digits) >= 130


def test_arguments_and_errors():
    scene = read(height=64, width=96, most=2, sizes=(10, 20), clutter=0)[1]
    assert scene['image'].shape == (64, 96, 3)
    assert scene['original_size'].tolist() == [64, 96]
    assert len(read(most=0)[0]['boxes']) == 0
    for wrong, message in (
        (dict(height=72), r'sizes \(8, 64\) <= 57, 80 % of the image'),
        (dict(colours='dark'), "colours='dark' must be 'any' or 'light'"),
        (dict(most=-1), 'most=-1'),
        (dict(split='val'), "no split 'val'; there are 'train' and 'test'"),
        (dict(split='train[5:]', num_examples=5), 'has no scenes'),
        (dict(target='boxes'), 'target'),
    ):
        with pytest.raises(UsageError, match=message):
            read(**wrong)
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed
