"""Crops of objects against slices of whole frames, and batches of P identities with K crops each."""

import numpy as np
import pytest

from canon.data import Arrays, Batches, Key
from canon.data.tracking import (
    CropSettings,
    ObjectCrops,
    SequenceInfo,
    TrackSequence,
    crop_box,
    crop_object,
    make_table,
)
from canon.errors import UsageError

EXACT = CropSettings(height=6, width=5, context=0.0, jitter=0.0)


def draw_picture(frame=0, height=30, width=40):
    return np.random.default_rng(frame).integers(0, 256, (height, width, 3), np.uint8)


def test_a_crop_of_the_size_of_its_box_is_a_slice():
    picture = draw_picture()
    np.testing.assert_array_equal(crop_box(picture, [3, 10, 8, 16], EXACT), picture[10:16, 3:8])
    # With a fifth of context on each side: 5 x 6 pixels become 7 x 8.4, here of a box of 5 x 5.
    wide = CropSettings(height=7, width=7, context=0.2)
    np.testing.assert_array_equal(crop_box(picture, [10, 10, 15, 15], wide), picture[9:16, 9:16])
    # Beyond the border nothing is invented: the rest is stretched.
    np.testing.assert_array_equal(crop_box(picture, [-5, -6, 5, 6], EXACT), picture[:6, :5])


@pytest.mark.parametrize('box', [[50, 50, 60, 60], [-9, -9, -2, -2], [10, 10, 10, 10], [39.5, 29.5, 45, 40]])
def test_a_box_outside_of_the_picture_or_without_area_has_a_crop(box):
    assert crop_box(draw_picture(), box, EXACT).shape == (6, 5, 3)


def make_sequence(name, table, length=8):
    return TrackSequence(SequenceInfo(name, length, height=30, width=40), table, None, draw_picture)


@pytest.fixture(scope='module')
def source():
    """Ids 7 and 2 of one sequence, 7 of another; a box that is ignored, one that is small, and one that leaves."""
    boxes = [[3, 10, 13, 20], [20, 5, 32, 15], [4, 11, 14, 21], [5, 12, 15, 22], [6, 6, 9, 20], [36, 2, 52, 20]]
    first = make_table([0, 0, 1, 2, 2, 4], [7, 2, 7, 7, 2, 9], boxes, ignored=[0, 0, 0, 1, 0, 0])
    second = make_table([1, 3], [7, 7], [[2, 3, 12, 14], [8, 3, 19, 14]])
    return ObjectCrops([make_sequence('a', first), make_sequence('b', second)], min_size=5)


def test_examples_are_crops_of_their_frames(source):
    assert len(source) == 5
    assert source.num_identities == 3
    assert source.labels().tolist() == [1, 0, 1, 2, 2]
    cut = crop_object(EXACT)
    frames = []
    for i in range(len(source)):
        example = cut.apply(source[i], Key(0, 0, i))
        frames.append((int(example['sequence']), int(example['frame'])))
        np.testing.assert_array_equal(example['image'], crop_box(draw_picture(frames[-1][1]), source.boxes[i], EXACT))
        assert example['label'] == source.labels()[i]
        assert 'box' not in example
    assert frames == [(0, 0), (0, 0), (0, 1), (1, 1), (1, 3)]
    assert source.columns['frame'].tolist() == [frame for _, frame in frames]


def test_frames_are_read_once_and_only_within_the_limit(source):
    read = []
    sequence = source.sequences[0]._replace(frames=lambda frame: read.append(frame) or draw_picture(frame))
    for limit, expected in ((1 << 20, [0]), (0, [0, 0, 0])):
        read.clear()
        crops = ObjectCrops([sequence], min_size=5, memory_limit=limit)
        for i in (0, 1, 0):
            crops[i]
        assert read == expected
    assert ObjectCrops([sequence], every=2, min_size=5).columns['frame'].tolist() == [0, 0]


def test_jitter_moves_the_edges_by_its_share_of_the_size(source):
    """Of a picture whose levels are its x: the mean level of a crop tells where its middle lies."""
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (80, 200, 3))
    settings = CropSettings(height=4, width=4, context=0.0, jitter=0.1)
    example = {'image': ramp, 'box': np.array([80, 20, 120, 60], np.float32)}
    cut = crop_object(settings)
    assert cut.random
    middles = [cut.apply(example, Key(1, visit, 0))['image'].mean() + 0.5 for visit in range(400)]
    assert np.mean(middles) == pytest.approx(100, abs=0.6)
    # The middle of two edges that each move by 0.1 x 40 pixels.
    assert np.std(middles) == pytest.approx(4 / np.sqrt(2), rel=0.15)
    again = cut.apply(example, Key(1, 3, 0))['image']
    np.testing.assert_array_equal(again, cut.apply(example, Key(1, 3, 0))['image'])


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(truth=None), 'the sequence a has no truth'),
        (dict(frames=None), 'the sequence a has no pictures'),
        (dict(truth=make_table([0], [1], [[0, 0, 2, 2]])), 'no boxes of at least 8 pixels in 1 sequences'),
    ],
)
def test_what_cannot_be_cut_out_is_refused(change, message, source):
    with pytest.raises(UsageError, match=message):
        ObjectCrops([source.sequences[0]._replace(**change)])


# --- P identities with K crops ---------------------------------------------------------------------------------------

COUNTS = [9, 4, 2, 7, 5, 8, 3, 6]  # examples per class


def grouped():
    labels = np.repeat(np.arange(len(COUNTS)), COUNTS)
    return Arrays({'label': labels, 'sequence': labels // 4, 'number': np.arange(len(labels))})


@pytest.mark.parametrize('within', [None, 'sequence'])
def test_batches_have_p_classes_of_k_examples(within):
    batches = Batches(grouped(), 12, 5, sampler=dict(name='class_groups', examples=3, within=within))
    drawn = set()
    for step in range(30):
        batch = batches[step]
        classes, counts = np.unique(batch['label'], return_counts=True)
        assert (len(classes), set(counts.tolist())) == (4, {3})
        for label in classes:
            numbers = batch['number'][batch['label'] == label]
            assert len(set(numbers.tolist())) == min(COUNTS[label], 3)  # only a small class repeats its examples
        if within:
            assert len(set(batch['sequence'].tolist())) == 1
        drawn |= set(batch['number'].tolist())
    assert len(drawn) == sum(COUNTS)
    np.testing.assert_array_equal(batches[7]['number'], next(batches.iterate(7))['number'])
    halves = [batches.for_process(i, 2)[7]['number'] for i in (0, 1)]
    np.testing.assert_array_equal(np.concatenate(halves), batches[7]['number'])


def test_every_draw_of_an_example_is_another_visit():
    order = Batches(grouped(), 6, 5, sampler=dict(name='class_groups', examples=3))._order
    ids, visits = order(np.arange(6 * 400))
    assert len(set(zip(ids.tolist(), visits.tolist(), strict=True))) == 6 * 400


@pytest.mark.parametrize(('size', 'examples'), [(10, 3), (36, 4)])
def test_batches_that_cannot_be_filled_are_refused(size, examples):
    with pytest.raises(UsageError, match=f'batch_size={size} must be a multiple of examples={examples} and have at'):
        Batches(grouped(), size, sampler=dict(name='class_groups', examples=examples))
