"""Buckets of width: texts keep their aspect, every image is read once, and what is squeezed is said."""

import doctest

import numpy as np
import pytest
from PIL import Image

from canon.data import Arrays, SizedBatches, evaluate_by_size, load_source, transforms
from canon.data.pipeline.keys import Key
from canon.data.text import line_sizes
from canon.data.text.line_sizes import batch_lines, batch_lines_once, fitted_widths, group_by_width
from canon.errors import UsageError
from tests.data.test_text_readers import pixels, texts, write_lmdb

SIZES = (8, 12), (8, 24), (8, 48)


class Lines:
    """Images of all widths from 1 to 40 at heights 4 and 8, each of one grey level: its number."""

    info = Arrays({'x': np.zeros(1)}).info

    def __init__(self, count=40):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return {'image': np.full((4 + 4 * (index % 2), index + 1, 3), index, np.uint8), 'number': np.int32(index)}


def fit(image, size, **options):
    return transforms.fit_line(size, **options).apply({'image': image}, Key(0, 0, 0))['image']


def test_a_line_keeps_its_aspect():
    image = pixels(0, 16, 40)
    fitted = fit(image, (8, 30))
    assert fitted.shape == (8, 30, 3)
    np.testing.assert_array_equal(
        fitted[:, :20], transforms.resize((8, 20)).apply({'image': image}, Key(0, 0, 0))['image']
    )
    np.testing.assert_array_equal(fitted[:, 20:], np.repeat(fitted[:, 19:20], 10, axis=1))
    assert (fit(image, (8, 30), fill=7)[:, 20:] == 7).all()
    # One pixel is a width, too; a line that is too wide is squeezed as a whole.
    assert (fit(np.full((50, 1, 1), 9, np.uint8), (8, 30)) == 9).all()
    squeezed = transforms.resize((8, 10)).apply({'image': image}, Key(0, 0, 0))['image']
    np.testing.assert_array_equal(fit(image, (8, 10)), squeezed)
    with pytest.raises(UsageError, match="fill='mean' is neither 'edge' nor a number"):
        transforms.fit_line(8, fill='mean')


def test_a_slant_moves_the_upper_border():
    """A vertical bar becomes a line whose places are those of the shear, and nothing of it is cut off."""
    image = np.full((21, 30, 1), 255, np.uint8)
    image[:, 0], image[:, -1] = 0, 0
    widths = set()
    for i in range(20):
        slanted = transforms.random_slant(0.5).apply({'image': image}, Key(0, 0, i))['image'][..., 0]
        ink = 255.0 - slanted
        columns = np.arange(ink.shape[1]) + 0.5
        halves = ink * (columns < columns.mean()), ink * (columns > columns.mean())
        left, right = ((half * columns).sum(1) / half.sum(1) for half in halves)
        slope = (left[0] - left[-1]) / 20
        assert abs(slope) <= 0.5
        offset = max(slope, 0) * 21
        np.testing.assert_allclose(left, 0.5 + offset - slope * (np.arange(21) + 0.5), atol=0.03)
        np.testing.assert_allclose(right - left, 29, atol=0.03)
        assert ink.sum() == pytest.approx(21 * 2 * 255, rel=0.01)
        widths.add(slanted.shape[1] - 30)
    assert len(widths) > 4
    same = transforms.random_slant(0.5, p=0.0).apply({'image': image}, Key(0, 0, 0))['image']
    np.testing.assert_array_equal(same, image)


def test_boxes_move_along():
    example = {'image': pixels(0, 16, 40), 'boxes': np.array([[10, 4, 20, 8]], np.float32)}
    moved = transforms.fit_line((8, 30), along=dict(boxes='boxes')).apply(example, Key(0, 0, 0))
    assert moved['boxes'].tolist() == [[5, 2, 10, 4]]


def test_images_go_to_the_narrowest_bucket(caplog):
    rng = np.random.default_rng(0)
    images = rng.integers(1, 60, (300, 2))
    groups = group_by_width(images, SIZES)
    assert sorted(np.concatenate([ids for _, ids in groups]).tolist()) == list(range(300))
    needed = [max(round(w * 8 / h), 1) for h, w in images.tolist()]
    assert fitted_widths(images, 8).tolist() == needed
    for (group, ids), least, most in zip(groups, (0, 12, 24), (12, 24, 10**9), strict=True):
        assert SIZES[group[0]][1] in (most, 48)
        assert all(least < needed[i] <= most for i in ids)
    too_wide = sum(width > 48 for width in needed)
    assert too_wide
    message = (
        f'{too_wide} of 300 images are squeezed: at the height of the batches they are wider than 48 pixels, up to'
    )
    assert f'{message} {max(needed)}' in caplog.text


def test_sizes_that_are_no_buckets():
    for sizes in ((), ((8, 12), (16, 24)), ((8, 12), (8, 12)), ((8, 0),)):
        with pytest.raises(UsageError, match=r'must be .height, width. of one height and of different widths'):
            group_by_width(np.ones((1, 2), int), sizes)
    result = doctest.testmod(line_sizes)
    assert (result.attempted, result.failed) == (2, 0)


def test_batches_of_several_widths():
    options = dict(make_transforms=lambda size: [transforms.fit_line(size)], grouping=group_by_width, threads=0)
    batches = SizedBatches(Lines(), 4, SIZES, seed=1, **options)
    steps = [batches[step] for step in range(int(batches.steps_per_epoch))]
    assert {batch['image'].shape for batch in steps} == {(4, *size, 3) for size in SIZES}
    # An epoch shows every line, in its bucket, at its own aspect.
    assert {int(n) for batch in steps for n in batch['number']} == set(range(40))
    for batch in steps:
        width = batch['image'].shape[2]
        for number, image in zip(batch['number'].tolist(), batch['image'], strict=True):
            needed = (number + 1) * 8 / (4 + 4 * (number % 2))
            assert needed <= 12 if width == 12 else needed <= width or width == 48
            assert (image == number).all()
    np.testing.assert_array_equal(batches[7]['number'], steps[7]['number'])
    once = evaluate_by_size(Lines(), 16, SIZES, **options)
    read = [int(n) for i in range(len(once)) for n in once[i]['number'][once[i]['mask']]]
    assert sorted(read) == list(range(40))


def test_one_size_or_several():
    def make_transforms(size):
        return [transforms.fit_line(size or (8, 10))]

    several = batch_lines(Lines(), 4, SIZES, make_transforms, seed=1, threads=0)
    expected = SizedBatches(Lines(), 4, SIZES, make_transforms, seed=1, grouping=group_by_width, threads=0)
    np.testing.assert_array_equal(several[3]['number'], expected[3]['number'])
    for sizes, shape in (((), (4, 8, 10, 3)), (SIZES[:1], (4, 8, 12, 3))):
        assert batch_lines(Lines(), 4, sizes, make_transforms, sampler='in_order', threads=0)[0]['image'].shape == shape
        once = batch_lines_once(Lines(), 4, sizes, make_transforms, threads=0)
        assert once[9]['number'].tolist() == [36, 37, 38, 39]
    assert len(batch_lines_once(Lines(), 4, SIZES, make_transforms)) >= 10
    with pytest.raises(UsageError, match="sampler='in_order' cannot be used with sizes="):
        batch_lines(Lines(), 4, SIZES, make_transforms, sampler='in_order')


def test_sizes_come_from_headers(tmp_path, monkeypatch):
    write_lmdb(tmp_path / 'words', ['tea', None, 'ten'], 3)
    words = load_source('lmdb_words', 'words', path=str(tmp_path))
    assert words.image_sizes().tolist() == [[6, 9], [6, 9]]
    batches = evaluate_by_size(
        words, 2, ((4, 6), (4, 8)), lambda size: [transforms.fit_line(size)], grouping=group_by_width
    )
    assert [batches[i]['image'].shape for i in range(len(batches))] == [(2, 4, 6, 3)]
    assert texts(words) == ['tea', 'ten']
    Image.fromarray(pixels(0, 7, 30)).save(tmp_path / 'a.png')
    (tmp_path / 'train.csv').write_text('a.png,Tea\n')
    listed = load_source('words', path=str(tmp_path), outside='filter')
    assert listed.image_sizes().tolist() == [[7, 30]]
    assert listed.read_text(0) == 'ea'
