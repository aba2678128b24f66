"""Batches of several sizes: by the aspect of the images, and drawn per step; functions of (seed, step)."""

import doctest

import numpy as np
import pytest

from canon.data import (
    Arrays,
    Batches,
    Concatenated,
    Info,
    Interleaved,
    Once,
    SizedBatches,
    Subset,
    evaluate_by_size,
    transforms,
)
from canon.data.detection import sized_batches
from canon.data.pipeline.chain import Mapped, Transform
from canon.data.pipeline.keys import rng
from canon.errors import UsageError

SIZES = ((16, 16), (24, 24), (12, 24), (24, 12))  # two squares, wide, tall


class Photos:
    """23 images, of which 9 are wide, 8 square and 6 tall; the grey level of an image is its number."""

    info = Info('photos')
    shapes = [(20, 40)] * 9 + [(30, 32)] * 8 + [(50, 20)] * 6

    def __len__(self):
        return len(self.shapes)

    def __getitem__(self, index):
        image = np.full((*self.shapes[index], 3), index, np.uint8)
        return {'image': image, 'image_id': np.int64(index), 'original_size': np.array(self.shapes[index], np.int32)}


def make_transforms(size):
    """Resizes, and adds a random number that depends on the key alone."""
    noise = Transform(lambda example, key: {**example, 'noise': rng(key).random()}, random=True)
    return [transforms.resize(size), noise]


def make(seed=3, batch_size=4, sizes=SIZES, **kwargs):
    return SizedBatches(Photos(), batch_size, sizes, make_transforms, seed, threads=0, **kwargs)


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for field, values in first.items():
        np.testing.assert_array_equal(values, second[field])


def test_batches_have_the_size_of_nearest_aspect():
    batches = make()
    expected = {'wide': {(12, 24)}, 'square': {(16, 16), (24, 24)}, 'tall': {(24, 12)}}
    seen = {kind: set() for kind in expected}
    for step in range(40):
        batch = batches[step]
        kinds = {('wide', 'square', 'tall')[int(i >= 9) + int(i >= 17)] for i in batch['image_id']}
        assert len(kinds) == 1
        seen[kinds.pop()].add(batch['image'].shape[1:3])
        np.testing.assert_array_equal(batch['image'][:, 0, 0, 0], batch['image_id'])
    assert seen == expected


def test_an_epoch_visits_each_group_once():
    """An epoch has 3 + 2 + 2 batches; a group walks through permutations of its images, so visits differ by one."""
    batches = make()
    assert batches.steps_per_epoch == 7
    ids = np.concatenate([batches[step]['image_id'] for step in range(7 * 6)])
    counts = np.bincount(ids, minlength=23)
    for group in (counts[:9], counts[9:17], counts[17:]):
        assert group.max() - group.min() <= 1
    assert counts[9:17].tolist() == [6] * 8


def test_they_are_functions_of_seed_and_step_for_any_process():
    batches, again, other = make(), make(), make(seed=4)
    stream = batches.iterate(5)
    for step in range(5, 12):
        whole = next(stream)
        assert_equal(whole, again[step])
        parts = [make().for_process(i, 2)[step] for i in range(2)]
        assert_equal(whole, {field: np.concatenate([part[field] for part in parts]) for field in whole})
    assert any(
        batches[step]['image'].shape != other[step]['image'].shape
        or (batches[step]['image_id'] != other[step]['image_id']).any()
        for step in range(4)
    )
    noise = [make(memory_limit=limit)[6]['noise'] for limit in (0, 1 << 30)]
    np.testing.assert_array_equal(*noise)


def test_multi_scale_training_keeps_the_order_of_the_examples():
    """With squares only, the examples of a step are those of plain `Batches`, whatever the size drawn."""
    squares = [(size, size) for size in (16, 20, 24)]
    batches, plain = make(sizes=squares), Batches(Photos(), 4, 3, make_transforms((8, 8)), threads=0)
    sizes = []
    for step in range(60):
        batch = batches[step]
        np.testing.assert_array_equal(batch['image_id'], plain[step]['image_id'])
        np.testing.assert_array_equal(batch['noise'], plain[step]['noise'])
        sizes.append(batch['image'].shape[1])
    assert all(12 <= sizes.count(size) <= 30 for size in (16, 20, 24))
    weighted = make(sizes=squares, weights=(1, 0, 0))
    assert {weighted[step]['image'].shape[1] for step in range(9)} == {16}
    assert batches.steps_per_epoch == 6


def test_evaluation_visits_each_image_once():
    sizes = SIZES[1:]
    once = evaluate_by_size(Photos(), 4, sizes, make_transforms)
    batches = list(once.iterate())
    assert len(batches) == len(once) == 7
    ids = np.concatenate([batch['image_id'][batch['mask']] for batch in batches])
    assert sorted(ids.tolist()) == list(range(23))
    assert [batch['image'].shape[1:3] for batch in batches] == [(24, 24)] * 2 + [(12, 24)] * 3 + [(24, 12)] * 2
    parts = [evaluate_by_size(Photos(), 4, sizes, make_transforms).for_process(i, 2) for i in range(2)]
    for index, whole in enumerate(batches):
        assert_equal(whole, {field: np.concatenate([part[index][field] for part in parts]) for field in whole})
    assert (once.num_examples, once.batch_size) == (23, 4)
    with pytest.raises(UsageError, match='sizes 16x16 and 24x24 have one aspect'):
        evaluate_by_size(Photos(), 4, SIZES, make_transforms)
    with pytest.raises(IndexError, match='batch 7 of 7'):
        once[7]
    with pytest.raises(UsageError, match=r'one batch size, not \[2, 3\]'):
        Concatenated([Once(Photos(), size) for size in (2, 3)])


def test_sizes_and_aspects():
    photos = Photos()
    for source in (photos, Mapped(photos, [transforms.resize((5, 5))]), Subset(photos, range(23))):
        assert sized_batches.image_sizes(source).tolist() == [list(shape) for shape in photos.shapes]
    assert sized_batches.image_sizes(Subset(photos, [20, 0])).tolist() == [[50, 20], [20, 40]]
    plain = Arrays({'image': np.zeros((2, 4, 6, 1), np.uint8)})
    assert sized_batches.image_sizes(plain).tolist() == [[4, 6]] * 2
    groups = sized_batches.group_by_aspect(np.array([[10, 10], [10, 30]]), [(480, 640), (608, 800), (100, 100)])
    assert [(group, ids.tolist()) for group, ids in groups] == [([0, 1], [1]), ([2], [0])]
    for sizes in ((), ((0, 3),), ((3,),)):
        with pytest.raises(UsageError, match='pairs of a height and a width'):
            make(sizes=sizes)
    with pytest.raises(UsageError, match='one number for each of 4 sizes'):
        make(weights=(1, 2))
    result = doctest.testmod(sized_batches)
    assert result.attempted
    assert not result.failed


def test_aligned_parts_are_read_at_the_number_of_the_step():
    parts = [Batches(Arrays({'x': np.arange(9)}), 3, seed=1, threads=0) for _ in range(2)]
    mixed = Interleaved(parts, weights=(1, 1), aligned=True)
    for step in (0, 5, 17):
        np.testing.assert_array_equal(mixed[step]['x'], parts[0][step]['x'])
    assert mixed.num_examples == 9
