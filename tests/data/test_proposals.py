"""Files of proposals: kept by content, completed, resumed and refused; windows; how transforms move proposals."""

import json
import multiprocessing
import os
import signal

import numpy as np
import pytest

from canon.data import Arrays, Batches, Key, Mapped, Subset, transforms
from canon.data.detection import proposals as props
from canon.data.detection import selective_search
from canon.data.detection.digit_scenes import digit_scenes
from canon.data.detection.sized_batches import image_sizes
from canon.data.images import geometry
from canon.errors import CanonError, UsageError
from canon.metrics.detection import measure_proposals


def make_source(count=6, size=24):
    rng = np.random.default_rng(5)
    return Arrays({'image': rng.integers(0, 255, (count, size, size, 3), np.uint8)})


class Search:
    """Boxes that tell the image they belong to: one per row of pixels brighter than 128; counts its calls."""

    def __init__(self, monkeypatch, fail_at=None):
        self.calls, self.fail_at = 0, fail_at
        monkeypatch.setattr(props, 'PROPOSERS', {'sliding_windows': self})

    def __call__(self, image, sides=(32.0,), seed=0):
        self.calls += 1
        if self.fail_at == self.calls:
            raise KeyboardInterrupt
        rows = np.flatnonzero(image[:, 0, 0] > 128)
        return np.stack([rows * 0, rows, rows * 0 + 3, rows + 1], 1)


def find_all(found, source):
    return [found.find(source[i]['image']) for i in range(len(source))]


def test_boxes_are_found_by_the_content_of_an_image(tmp_path, monkeypatch):
    source, search = make_source(), Search(monkeypatch)
    proposer = props.Proposer('sliding_windows', {'seed': 0})
    path = tmp_path / 'made' / 'boxes.npz'
    twice = Subset(source, [3, 1, 1, 0, 3])
    found = props.compute_proposals(twice, path, proposer, report=lambda done, total: None)
    assert search.calls == 3  # equal images are searched once
    # The rest is added; a complete file is not computed again.
    for _ in range(2):
        found = props.compute_proposals(source, path, proposer, report=lambda done, total: None)
    assert search.calls == 6
    assert [*path.parent.iterdir()] == [path]
    again = props.read_proposals(path, proposer)
    for i, boxes in enumerate(find_all(again, source)):
        np.testing.assert_array_equal(boxes, search(source[i]['image']))
        np.testing.assert_array_equal(found.find(source[i]['image'].copy()), boxes)
    # The file is a function of the images, not of their order.
    content = path.read_bytes()
    path.unlink()
    props.compute_proposals(Subset(source, [5, 2, 4, 0, 1, 3]), path, proposer, report=lambda done, total: None)
    assert path.read_bytes() == content


def test_an_interrupted_computation_continues(tmp_path, monkeypatch):
    source, path = make_source(), tmp_path / 'boxes.npz'
    proposer = props.Proposer('sliding_windows', {'seed': 0})
    search = Search(monkeypatch, fail_at=4)
    with pytest.raises(KeyboardInterrupt):
        props.compute_proposals(source, path, proposer)
    assert not path.exists()
    part = tmp_path / 'boxes.npz.part'
    part.write_bytes(part.read_bytes()[:-5])  # a kill within the third entry
    search = Search(monkeypatch)
    seen = []
    found = props.compute_proposals(source, path, proposer, report=lambda *counts: seen.append(counts))
    assert search.calls == 4
    assert seen[-1] == (6, 6)
    assert not part.exists()
    for i, boxes in enumerate(find_all(found, source)):
        np.testing.assert_array_equal(boxes, search(source[i]['image']))


def test_a_journal_that_is_given_outlives_the_file(tmp_path, monkeypatch):
    source, journal = make_source(), tmp_path / 'train.part'
    proposer, search = props.Proposer('sliding_windows', {'seed': 0}), Search(monkeypatch)
    for path in (tmp_path / 'a.npz', tmp_path / 'b.npz'):  # the first one is lost by a kill
        props.compute_proposals(source, path, proposer, report=lambda done, total: None, journal=journal)
    assert search.calls == 6
    assert (tmp_path / 'a.npz').read_bytes() == (tmp_path / 'b.npz').read_bytes()


class Killed:
    """Images, the third of which kills a process that was started to search it."""

    def __init__(self, count):
        self.images = make_source(count)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        if index == 2 and multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.images[index]

    def __repr__(self):
        return 'Killed'


@pytest.mark.slow  # processes are started
def test_a_killed_process_is_one_line_and_what_is_done_stays(tmp_path, monkeypatch):
    source, path, seen = Killed(5), tmp_path / 'boxes.npz', []
    proposer = props.make_proposer('sliding_windows', sides=(8.0,))
    message = 'Killed: a process that searches its images was killed, .*; the same command continues'
    with pytest.raises(CanonError, match=message):
        props.compute_proposals(source, path, proposer, workers=2, report=lambda *counts: seen.append(counts))
    assert not multiprocessing.active_children()
    searched = []
    monkeypatch.setattr(props, 'PROPOSERS', {'sliding_windows': lambda image, **_: searched.append(image) or [[0] * 4]})
    props.compute_proposals(source, path, proposer, report=lambda done, total: None)
    assert len(searched) == 5 - len(seen)


def test_difficult_objects_and_crowds_do_not_count_in_recall(tmp_path):
    boxes = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    images = np.stack([make_source(2)[i]['image'] for i in range(2)])
    fields = {'image': images, 'boxes': boxes, 'labels': np.array([[0, 1, 2]] * 2)}
    marks = {'difficult': np.array([[0, 1, 0], [0, 0, 0]], bool), 'crowd': np.array([[0, 0, 1], [0, 0, 0]], bool)}
    proposer = props.make_proposer('sliding_windows')
    found = props.compute_proposals(Arrays(fields), tmp_path / 'a.npz', proposer)
    (windows, first, labels), second = props.pair_objects(Arrays({**fields, **marks}), found)
    np.testing.assert_array_equal(windows, found.find(images[0]))
    np.testing.assert_array_equal(first, boxes[0, :1])
    assert labels.tolist() == [0]
    np.testing.assert_array_equal(second[1], boxes[1])
    np.testing.assert_array_equal(next(props.pair_objects(Arrays(fields), found))[1], boxes[0])  # without any marks


def test_other_settings_and_other_files_are_refused_and_stay(tmp_path, monkeypatch):
    source, path = make_source(3), tmp_path / 'boxes.npz'
    one, other = (props.Proposer('sliding_windows', {'seed': seed}) for seed in (0, 1))
    Search(monkeypatch, fail_at=2)
    with pytest.raises(KeyboardInterrupt):
        props.compute_proposals(source, path, one)
    message = (
        r'boxes.npz.part was made with other settings \(seed=0 there and 1 here\); remove it, or give another path'
    )
    with pytest.raises(UsageError, match=message):
        props.compute_proposals(source, path, other)
    Search(monkeypatch)
    props.compute_proposals(source, path, one)
    content = path.read_bytes()
    with pytest.raises(UsageError, match=r'boxes.npz was made with other settings \(seed=0 there and 1 here\)'):
        props.compute_proposals(source, path, other)
    assert path.read_bytes() == content
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UsageError, match=r'boxes.npz is not a file of proposals .*; remove it'):
        props.compute_proposals(source, path, one)


def test_a_running_computation_is_not_disturbed(tmp_path, monkeypatch):
    Search(monkeypatch)
    proposer, path = props.Proposer('sliding_windows', {}), tmp_path / 'boxes.npz'

    def start_another(done, total):
        props.compute_proposals(make_source(1), path, proposer)

    with pytest.raises(UsageError, match='another process is computing these proposals'):
        props.compute_proposals(make_source(2), path, proposer, report=start_another)


@pytest.mark.slow
def test_processes_compute_the_same(tmp_path):
    source = digit_scenes('train[:3]', 3, most=2, height=64, width=64, sizes=(20, 40))
    proposer = props.make_proposer(strategy='fast', scales=(50,), colours=('lab',))
    found = props.compute_proposals(source, tmp_path / 'a.npz', proposer, workers=2)
    props.compute_proposals(source, tmp_path / 'b.npz', proposer)
    assert (tmp_path / 'a.npz').read_bytes() == (tmp_path / 'b.npz').read_bytes()
    assert len(found) == 3


def test_a_proposer_states_all_of_its_settings(monkeypatch):
    proposer = props.make_proposer('selective_search', width=500)
    assert json.loads(proposer.describe())['width'] == 500
    assert json.loads(proposer.describe())['strategy'] == 'fast'
    assert proposer.describe() == props.make_proposer(width=500, sigma=0.8).describe()
    # A configured width is checked, and an image of that width is not searched to check the rest.
    sizes, resize = [], selective_search._resize_to_width
    monkeypatch.setattr(selective_search, '_resize_to_width', lambda *args: sizes.append(args[1]) or resize(*args))
    props.make_proposer(width=500)
    assert max(sizes) <= 8
    for arguments, message in (
        (dict(name='selectiv'), "proposals.name='selectiv' is unknown; did you mean 'selective_search'"),
        (dict(widht=3), 'proposals.widht: selective_search takes no such key; did you mean'),
        (dict(width=0), 'proposals.width=0 must be'),
        (dict(colours=('hsw',)), "no colour space is called 'hsw'"),
    ):
        with pytest.raises(UsageError, match=message):
            props.make_proposer(**arguments)


def test_a_source_with_proposals(tmp_path, monkeypatch):
    source = digit_scenes('train[:4]', 4, most=2, height=64, width=64, sizes=(8, 40))
    search = Search(monkeypatch)
    proposer = props.Proposer('sliding_windows', {})
    found = props.compute_proposals(source, tmp_path / 'boxes.npz', proposer)
    wrapped = props.WithProposals(source, found, most=5)
    example = wrapped[2]
    np.testing.assert_array_equal(example['proposals'], search(example['image'])[:5])
    np.testing.assert_array_equal(example['boxes'], source[2]['boxes'])
    assert wrapped.info == source.info
    assert wrapped.ids == source.ids
    np.testing.assert_array_equal(image_sizes(wrapped), [[64, 64]] * 4)
    assert not hasattr(wrapped, 'count_per_image')
    changed = Mapped(source, [transforms.random_flip(p=1.0)._replace(random=False)])
    with pytest.raises(CanonError, match=r'example 0 of .* has no entry in its file of proposals; compute them before'):
        props.WithProposals(changed, found)[0]
    # Batches hold them in a fixed length, none included.
    dark = Arrays({'image': np.zeros((2, 8, 8, 3), np.uint8), 'boxes': np.zeros((2, 0, 4), np.float32)})
    nothing = props.compute_proposals(dark, tmp_path / 'dark.npz', proposer)
    chain = (transforms.resize(16), transforms.pad_boxes(2), transforms.pad_proposals(3))
    batch = Batches(props.WithProposals(dark, nothing), 2, transforms=chain, threads=0)[0]
    assert batch['proposals'].shape == (2, 3, 4)
    assert not batch['proposals_valid'].any()


def test_transforms_move_proposals_and_keep_those_that_are_partly_visible():
    boxes = np.array([[2, 2, 10, 10], [20, 4, 30, 12], [0, 0, 32, 24]], np.float32)
    example = {'image': np.zeros((24, 32, 3), np.uint8), 'boxes': boxes, 'labels': np.arange(3), 'proposals': boxes}
    matrix = geometry.translation(-9, 0)
    along = geometry.SpatialFields(min_visible=0.9)
    out = geometry.transform_fields(example, 'image', example['image'][:, 9:], matrix, along)
    # Objects that are hidden by more than a tenth are dropped, with their labels; proposals are clipped.
    np.testing.assert_array_equal(out['boxes'], [[11, 4, 21, 12]])
    np.testing.assert_array_equal(out['labels'], [1])
    np.testing.assert_array_equal(out['proposals'], [[0, 2, 1, 10], [11, 4, 21, 12], [0, 0, 23, 24]])
    out = geometry.transform_fields(example, 'image', example['image'][:, 10:], geometry.translation(-10, 0), along)
    np.testing.assert_array_equal(out['proposals'], [[10, 4, 20, 12], [0, 0, 22, 24]])  # the first one touches only
    # A chain treats both alike where nothing is lost.
    for transform in (transforms.random_flip(p=1.0), transforms.resize((48, 16)), transforms.letterbox(50)):
        moved = transform.apply(example, Key(0, 0, 0))
        np.testing.assert_array_equal(moved['proposals'], moved['boxes'])
        assert moved['proposals'].dtype == np.float32
        assert (moved['proposals'] != boxes).any()
    # A crop that drops objects by their centres drops no proposal that is visible.
    cropping = transforms.min_iou_crop(overlaps=(0.1,))
    for visit in range(12):
        moved = cropping.apply(example, Key(0, visit, 0))
        assert len(moved['proposals']) >= len(moved['boxes'])
        assert {*map(tuple, moved['boxes'])} <= {*map(tuple, moved['proposals'])}
    with pytest.raises(CanonError, match=r"field 'proposals' has the shape \(3, 3\)"):
        transforms.random_flip(p=1.0).apply({**example, 'proposals': boxes[:, :3]}, Key(0, 0, 0))


def test_padding_keeps_the_first_in_rank():
    boxes = np.arange(20, dtype=np.float32).reshape(5, 4)
    padded = transforms.pad_proposals(7).apply({'proposals': boxes}, Key(0, 0, 0))
    np.testing.assert_array_equal(padded['proposals'][:5], boxes)
    assert not padded['proposals'][5:].any()
    assert padded['proposals_valid'].tolist() == [True] * 5 + [False] * 2
    cut = transforms.pad_proposals(2).apply({'proposals': boxes}, Key(0, 0, 0))
    np.testing.assert_array_equal(cut['proposals'], boxes[:2])
    assert cut['proposals_valid'].all()
    with pytest.raises(UsageError, match='count=0 is not positive'):
        transforms.pad_proposals(0)
    with pytest.raises(UsageError, match="no field is called 'proposals'"):
        transforms.pad_proposals(2).apply({}, Key(0, 0, 0))


def test_windows_cover_every_place_of_every_shape():
    boxes = props.sliding_windows(np.zeros((60, 100, 3)), sides=(20.0, 400.0), aspect_ratios=(1.0, 4.0), stride=0.5)
    assert len(np.unique(boxes, axis=0)) == len(boxes)
    assert boxes.min() == 0
    np.testing.assert_array_equal(boxes.max(0)[2:], [100, 60])
    squares = boxes[(boxes[:, 2:] - boxes[:, :2] == 20).all(1)]
    # Every ten pixels from 0 to 80 and to 40.
    assert {*map(tuple, squares[:, :2])} == {(x, y) for x in range(0, 81, 10) for y in range(0, 41, 10)}
    assert [0, 0, 100, 60] in boxes.tolist()  # windows that do not fit are clipped
    np.testing.assert_array_equal(
        props.sliding_windows(np.zeros((60, 100)), seed=3, max_boxes=9)[:5],
        props.sliding_windows(np.zeros((60, 100)), seed=3, max_boxes=5),
    )


def test_recall_counts_the_first_proposals():
    objects = np.array([[0, 0, 10, 10], [20, 20, 30, 40]], np.float32)
    ranked = np.array([[50, 50, 60, 60], [0, 0, 10, 5], [0, 0, 10, 9], [20, 20, 30, 40]], np.float32)
    none = np.zeros((0, 4), np.float32)
    images = [(ranked, objects, np.array([0, 1])), (none, objects[:1], np.array([0])), (ranked, none, np.zeros(0, int))]
    measured = measure_proposals(images, counts=(1, 2, 3, 10))
    np.testing.assert_allclose(measured.best_iou, [[0, 0.5, 0.9, 0.9], [0, 0, 0, 1], [0, 0, 0, 0]])
    np.testing.assert_allclose(measured.recall(0.5), [0, 1 / 3, 1 / 3, 2 / 3])
    np.testing.assert_allclose(measured.recall(0.95), [0, 0, 0, 1 / 3])
    np.testing.assert_allclose(measured.average_best_overlap(), [0, 0.125, 0.225, 0.725])  # the mean of two classes
    np.testing.assert_allclose(measured.mean_count, [2 / 3, 4 / 3, 2, 8 / 3])
    empty = measure_proposals([(none, none, np.zeros(0, int))], counts=(5,))
    assert np.isnan(empty.recall()).all()
    assert np.isnan(empty.average_best_overlap()).all()
