"""Batches are pure in (seed, step), whatever reads them; evaluation sees each example exactly once."""

import itertools
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canon.data import Arrays, Batches, Cached, Info, Once, Transform, rng, transforms
from canon.data.pipeline import keys
from canon.data.pipeline.loading import WithInfo
from canon.data.pipeline.order import balanced, shuffled
from canon.errors import CanonError, UsageError

AUGMENT = transforms.make_transforms(
    {'chain': ('crop', 'random_flip', 'to_float'), 'crop': {'name': 'random_crop', 'size': 5, 'padding': 2}}
)


def source(n: int, classes: int = 3) -> Arrays:
    """Images without symmetry, of which no two are alike."""
    images = np.arange(n * 25, dtype=np.uint32).reshape(n, 5, 5, 1) * 2654435761 >> 24
    return Arrays({'image': images.astype(np.uint8), 'label': np.arange(n) % classes, 'number': np.arange(n)})


def same(a: dict, b: dict) -> None:
    assert a.keys() == b.keys()
    for field in a:
        assert a[field].dtype == b[field].dtype, field
        np.testing.assert_array_equal(a[field], b[field], err_msg=field)


sizes = st.tuples(st.integers(1, 23), st.integers(1, 40))


@given(sizes, st.integers(0, 5), st.integers(0, 2**32))
@settings(deadline=None, max_examples=40)
def test_every_epoch_holds_each_example_once(size, first_epoch, seed):
    n, batch_size = size
    batches = Batches(source(n), batch_size, seed)
    start, stop = first_epoch * n, (first_epoch + 2) * n
    steps = range(start // batch_size, -(-stop // batch_size))
    stream = np.concatenate([batches[step]['number'] for step in steps])
    epochs = stream[start - steps[0] * batch_size :][: 2 * n].reshape(2, n)
    assert (np.sort(epochs, axis=1) == np.arange(n)).all()
    if n > 12:
        assert (epochs[0] != epochs[1]).any()
    assert batches.steps_per_epoch == n / batch_size


@given(sizes, st.sampled_from(['shuffled', 'balanced', 'in_order']), st.integers(0, 50))
@settings(deadline=None, max_examples=40)
def test_the_rows_of_two_processes_are_the_batch(size, sampler, step):
    n, half = size
    global_batch = Batches(source(n), 2 * half, 7, AUGMENT, sampler)[step]
    data = Batches(source(n), 2 * half, 7, AUGMENT, sampler)
    parts = [data.for_process(1 - k, 2).for_process(k, 2)[step] for k in range(2)]  # the last call holds
    same(global_batch, {field: np.concatenate([part[field] for part in parts]) for field in global_batch})
    same(global_batch, data[step])


def test_random_streams_have_numbers_of_their_own():
    assert len(set(keys.STREAMS.values())) == len(keys.STREAMS)
    draws = {name: keys.stream(name, 3, 14).integers(2**63) for name in keys.STREAMS}
    assert len(set(draws.values())) == len(draws)
    assert draws['rays'] == np.random.default_rng((5, 3, 14, 0)).integers(2**63)
    with pytest.raises(CanonError, match="no random stream 'ray'; did you mean 'rays'"):
        keys.stream('ray', 0)


def test_balanced_sampling_refuses_labels_that_equal_nothing():
    with pytest.raises(UsageError, match='a label for each example; some are NaN'):
        balanced(Arrays({'label': np.array([0.0, 1.0, np.nan])}), 0, 4)


@pytest.mark.parametrize('sampler', ['shuffled', 'balanced'])
@pytest.mark.parametrize('threads', [0, 1, 4])
def test_batches_do_not_depend_on_start_threads_or_what_was_read_before(sampler, threads):
    def make(threads):
        return Batches(source(37), 10, 3, AUGMENT, sampler, threads=threads)

    fresh = make(0)
    backwards = {step: fresh[step] for step in reversed(range(12))}
    used = make(threads)
    for start in (0, 5, 5):
        for step, batch in zip(range(start, 12), used.iterate(start), strict=False):
            same(batch, backwards[step])


def test_opencv_has_one_thread_while_batches_are_prepared_and_its_own_number_otherwise():
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(3)
        first, second = (Batches(source(9), 2).iterate() for _ in range(2))
        next(first), next(second)
        assert cv2.getNumThreads() == 1
        first.close()  # the second one still reads
        assert cv2.getNumThreads() == 1
        second.close()
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(before)


def test_worker_processes_give_the_same_batches():
    batches = Batches(source(37), 10, 3, AUGMENT, 'balanced')
    inside = Batches(source(37), 10, 3, AUGMENT, 'balanced', workers=2)
    for step, batch in enumerate(itertools.islice(inside.iterate(4), 5), 4):
        same(batch, batches[step])


def test_an_error_in_a_thread_reaches_the_caller_as_it_is():
    check = transforms.check_label(2)
    with pytest.raises(CanonError, match=r'example \d+: label 2 is not in 0\.\.1'):
        list(itertools.islice(Batches(source(9), 4, 0, (check,), threads=2).iterate(), 3))


def test_the_seed_matters_and_the_visit_too():
    batches, other = Batches(source(16), 16, 0), Batches(source(16), 16, 1)
    assert (batches[0]['number'] != other[0]['number']).any()
    assert (batches[0]['number'] != batches[1]['number']).any()
    one = Batches(source(1), 1, 0, AUGMENT)
    assert len({one[step]['image'].tobytes() for step in range(30)}) > 5


def test_augmentation_depends_on_the_example_and_the_visit_not_on_the_batch():
    """The same example on the same visit looks alike in batches of any size and place."""
    small, large = Batches(source(12), 3, 5, AUGMENT), Batches(source(12), 8, 5, AUGMENT)

    def seen(batches, steps):
        visits: dict[int, int] = {}
        for step in range(steps):
            for number, image in zip(batches[step]['number'].tolist(), batches[step]['image'], strict=True):
                visits[number] = visits.get(number, -1) + 1
                yield (number, visits[number]), image.tobytes()

    assert dict(seen(small, 16)) == dict(seen(large, 6))


def test_links_of_a_chain_draw_independently():
    draw = Transform(lambda e, key: {**e, f'draw{len(e)}': rng(key).random(4)}, random=True)
    batch = Batches(Arrays({'number': np.arange(50)}), 50, 0, (draw, draw))[0]
    drawn = np.concatenate([batch['draw1'], batch['draw2']]).ravel()
    assert len(np.unique(drawn)) == 400
    assert abs(drawn.mean() - 0.5) < 0.06


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(1, 25), st.integers(0, 99))
@settings(deadline=None)
def test_balanced_batches_hold_equal_counts(labels, batch_size, seed):
    labels = np.array(labels)
    batches = Batches(Arrays({'label': labels, 'number': np.arange(len(labels))}), batch_size, seed, sampler='balanced')
    classes = np.unique(labels)
    for step in range(20):
        counts = [(batches[step]['label'] == c).sum() for c in classes]
        assert max(counts) - min(counts) <= 1


def test_balanced_walks_through_each_class_in_permutations_of_its_own():
    labels = np.repeat([0, 1, 2], [2, 5, 11])
    order = balanced(Arrays({'label': labels}), 4, 7)
    ids, visits = order(np.arange(7 * 3 * 11 * 5))
    for c in range(3):
        mine, members = ids[labels[ids] == c], np.flatnonzero(labels == c)
        cycles = mine[: len(mine) // len(members) * len(members)].reshape(-1, len(members))
        assert (np.sort(cycles, 1) == members).all()
        assert len({tuple(cycle) for cycle in cycles.tolist()}) > 1
    assert len(set(zip(ids.tolist(), visits.tolist(), strict=True))) == len(ids)
    assert len({tuple(row) for row in labels[ids].reshape(-1, 21)[:, :3].tolist()}) == 6  # every order of the classes


def test_orders_are_named_or_given():
    with pytest.raises(UsageError, match='sampler'):
        Batches(source(5), 2, sampler='shufled')
    with pytest.raises(UsageError, match="no sampler is called 'shufled'; did you mean 'shuffled'"):
        Batches(source(5), 2, sampler={'name': 'shufled'})
    with pytest.raises(UsageError, match=r'sampler\.fields: balanced takes no such key'):
        Batches(source(5), 2, sampler={'name': 'balanced', 'fields': 'x'})
    given_order = Batches(source(5), 4, sampler=shuffled(5, 8))
    np.testing.assert_array_equal(given_order[3]['number'], Batches(source(5), 4, 8)[3]['number'])
    np.testing.assert_array_equal(Batches(source(5), 4, sampler='in_order')[1]['number'], [4, 0, 1, 2])


@pytest.mark.parametrize('kind', ['text', 'numbers', 'cached', 'read'])
def test_any_field_may_be_balanced(kind):
    domains = np.repeat(['photo', 'sketch', 'clip art'], [20, 3, 1])
    arrays = Arrays({'label': np.zeros(24, int), 'domain': domains, 'number': np.arange(24)})
    if kind == 'numbers':
        arrays.arrays['domain'] = np.repeat([2.5, -1, 7], [20, 3, 1])
    one_by_one = WithInfo([arrays[i] for i in range(24)], Info())
    data = {'cached': Cached(arrays), 'read': one_by_one}.get(kind, arrays)
    keep = transforms.keep_fields(('number',))
    batches = Batches(data, 6, seed=1, transforms=(keep,), sampler={'name': 'balanced', 'field': 'domain'})
    for step in range(8):
        assert np.bincount(np.digitize(batches[step]['number'], [20, 23])).tolist() == [2, 2, 2]
    with pytest.raises(UsageError, match="no field 'style' with one value per example"):
        Batches(data, 6, sampler={'name': 'balanced', 'field': 'style'})


def test_a_sampler_may_be_of_any_module(tmp_path, monkeypatch):
    (tmp_path / 'canon_reversed.py').write_text(
        'def backwards(n, batch_size):\n    return lambda positions: (n - 1 - positions % n, positions // n)\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert Batches(source(5), 4, sampler='canon_reversed:backwards')[1]['number'].tolist() == [0, 4, 3, 2]


@given(sizes, st.sampled_from([1, 2]), st.booleans())
@settings(deadline=None, max_examples=40)
def test_once_counts_each_example_once(size, processes, whole):
    n, batch_size = size[0], size[1] * processes
    parts = [Once(source(n), batch_size, AUGMENT, threads=0).for_process(k, processes) for k in range(processes)]
    assert {len(part) for part in parts} == {-(-n // batch_size)}
    numbers = []
    for batches in zip(*(part.iterate() for part in parts), strict=True):
        for batch in batches:
            assert batch['mask'].shape == (batch_size // processes,) == batch['number'].shape
            assert not batch['image'][~batch['mask']].any()
            assert not batch['number'][~batch['mask']].any()
            numbers.append(batch['number'][batch['mask']])
    np.testing.assert_array_equal(np.concatenate(numbers), np.arange(n))


def test_once_sums_exactly_and_starts_anywhere():
    once = Once(source(23), 10)
    batches = list(once.iterate())
    total = sum((b['image'].astype(int).sum((1, 2, 3)) * b['mask']).sum() for b in batches)
    assert total == source(23).arrays['image'].sum(dtype=int)
    for a, b in zip(once.iterate(1), batches[1:], strict=True):
        same(a, b)
    assert len(list(once)) == 3
    with pytest.raises(IndexError):
        once[3]


BATCHED = {
    'shift': (transforms.random_shift(3, value=7),),
    'crop': (transforms.random_crop((6, 9), padding=2, value=1),),
    'flip': (transforms.random_flip(),),
    'flip, never': (transforms.random_flip(0.0),),
    'all, after one for examples': (
        transforms.random_grey(0.5),
        transforms.to_float(),
        transforms.random_shift(2, value=0.5),
        transforms.random_flip(),
        transforms.random_crop(5),
    ),
    'all': (transforms.random_crop(8, padding=3), transforms.random_flip(), transforms.random_shift(1)),
}


@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('chain', BATCHED.values(), ids=BATCHED.keys())
def test_transforms_of_a_batch_are_those_of_its_examples(chain, channels, dtype):
    images = (255 * np.random.default_rng(0).random((17, 8, 10, channels))).astype(dtype)
    source = Arrays({'image': images, 'label': np.arange(17)})
    for data in (Batches(source, 7, seed=5, transforms=chain), Once(source, 7, transforms=chain)):
        together = [data[step] for step in range(3)]
        data._rows.tail = len(data._rows.transforms)  # each example alone
        for one, other in zip(together, (data[step] for step in range(3)), strict=True):
            for field in ('image', 'label', 'mask'):
                assert one[field].dtype == other[field].dtype
                np.testing.assert_array_equal(one[field], other[field])


def test_batches_whose_fields_move_along_are_transformed_by_example():
    images, boxes = np.zeros((4, 8, 8, 1), np.uint8), np.tile(np.float32([3, 3, 5, 5]), (4, 1, 1))
    chain = (transforms.random_shift(2),)
    data = Once(Arrays({'image': images, 'boxes': boxes}), 4, transforms=chain)
    batch = data[0]
    np.testing.assert_array_equal(data[0]['boxes'], batch['boxes'])  # after the first refusal, too
    shifts = batch['boxes'] - boxes
    assert len(np.unique(shifts)) > 1
    np.testing.assert_array_equal(shifts[..., :2], shifts[..., 2:])


def test_images_of_several_sizes_and_types_are_cropped_to_a_batch():
    examples = [{'image': np.full((6 + i, 9 - i, 1), i, (np.uint8, np.float32)[i % 2])} for i in range(4)]
    source = WithInfo(examples, Info('list', 'train'))
    batch = Batches(source, 4, transforms=(transforms.random_crop(5), transforms.random_flip()), sampler='in_order')[0]
    np.testing.assert_array_equal(batch['image'][:, 0, 0, 0], range(4))
    assert batch['image'].shape == (4, 5, 5, 1)
    with pytest.raises(CanonError, match='example 0'):
        Batches(source, 4, transforms=(transforms.random_crop(7),), sampler='in_order')[0]


@pytest.mark.parametrize('make', [Batches, Once])
def test_wrong_sizes_and_transforms_are_refused(make):
    with pytest.raises(UsageError, match='no examples'):
        make(source(0), 4)
    with pytest.raises(UsageError, match='batch_size=5 is not a positive multiple of the 2 processes'):
        make(source(9), 5).for_process(0, 2)
    with pytest.raises(CanonError, match='no process 2 of 2'):
        make(source(9), 4).for_process(2, 2)
    with pytest.raises(UsageError, match='batch_size=0'):
        make(source(9), 0)
    with pytest.raises(UsageError, match='is not a Transform'):
        make(source(9), 2, transforms=(np.negative,))


def test_ragged_fields_are_named():
    class Ragged:
        info = Info('ragged')

        def __len__(self):
            return 3

        def __getitem__(self, i):
            return {'label': np.asarray(i), 'image': np.zeros((i + 1, 4))}

    with pytest.raises(CanonError, match=r"field 'image' has shapes \(1, 4\) and \(2, 4\) and \(3, 4\)"):
        Batches(Ragged(), 3)[0]
    assert Batches(Ragged(), 3, transforms=(transforms.keep_fields(('label',)),))[0].keys() == {'label', 'mask'}


def test_a_field_called_mask_is_not_overwritten():
    masks = Arrays({'mask': np.zeros((4, 2, 2))})
    with pytest.raises(CanonError, match='rename it'):
        Batches(masks, 2)[0]
    assert Batches(masks, 2, transforms=(transforms.rename({'mask': 'object'}),))[0]['object'].shape == (2, 2, 2)


class Counting:
    """Counts how often each example is read."""

    info = Info('counting')

    def __init__(self, n):
        self.reads = np.zeros(n, int)

    def __len__(self):
        return len(self.reads)

    def __getitem__(self, i):
        self.reads[i] += 1
        return {'image': np.full((8, 8, 1), i, np.uint8)}


def test_small_sources_are_decoded_once():
    small = Counting(100)
    batches = Batches(
        small, 10, transforms=transforms.make_transforms({'chain': ('to_float', 'random_flip')}), threads=0
    )
    small.reads[:] = 0  # the probe that measured the examples
    for step in range(40):
        batches[step]
    assert (small.reads == 1).all()
    large = Counting(100)
    batches = Batches(large, 10, memory_limit=1000, threads=0)
    large.reads[:] = 0
    for step in range(40):
        batches[step]
    assert (large.reads == 4).all()


def test_cached_stops_at_its_limit_and_cannot_be_spoilt():
    counting = Counting(100)
    cache = Cached(counting, memory_limit=20 * (512 + 64))
    for _ in range(3):
        for i in range(100):
            assert cache[i]['image'][0, 0, 0] == i
    assert counting.reads.tolist() == [1] * 20 + [3] * 80
    with pytest.raises(ValueError, match='read-only'):
        cache[3]['image'] += 1
    cache[3]['image'] = None  # of this copy only
    assert cache[3]['image'] is not None


def test_batches_are_pickled_for_worker_processes():
    batches = Batches(source(9), 4, 1, sampler='balanced')
    same(pickle.loads(pickle.dumps(batches))[5], batches[5])


def test_an_error_in_a_worker_process_reaches_the_caller_as_it_is():
    chain = (transforms.check_label(3), transforms.random_flip())
    batches = Batches(source(20, classes=4), 5, 0, chain, workers=1)
    with pytest.raises(CanonError, match=r'example \d+: label 3 is not in 0\.\.2'):
        list(itertools.islice(batches.iterate(), 4))


def test_there_is_no_step_before_the_first():
    with pytest.raises(IndexError, match='step -1'):
        Batches(source(5), 2)[-1]


READER = """
import os, signal, sys, time
import numpy as np
from multiprocessing import resource_tracker
from canon.data import Arrays, Batches

count = [0]
for each in (signal.SIGINT, signal.SIGTERM):
    signal.signal(each, lambda *_: count.__setitem__(0, count[0] + 1))
if __name__ == '__main__':
    images = np.arange(8, dtype=np.uint8)[:, None, None, None] + np.zeros((1, 300, 300, 3), np.uint8)
    batches = Batches(Arrays({'image': images}), 4, workers=1, sampler='in_order')
    print('start', flush=True)
    for step, batch in enumerate(batches.iterate()):
        assert (batch['image'][:, 0, 0, 0] == (step % 2) * 4 + np.arange(4)).all()
        if step == 3:
            tasks = os.listdir('/proc/self/task')
            children = [pid for task in tasks for pid in open(f'/proc/self/task/{task}/children').read().split()]
            print(count[0], *children, flush=True)
        time.sleep(0.05)
"""


@pytest.mark.skipif(not hasattr(signal, 'pthread_sigmask'), reason='signals of POSIX')
def test_reader_processes_outlive_signals_to_the_group_and_not_their_parent(tmp_path):
    """Ctrl-C at a time when readers start failed the run; a killed parent left them, and their shared memory."""
    (tmp_path / 'reader.py').write_text(READER)
    process = subprocess.Popen(
        [sys.executable, tmp_path / 'reader.py'], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == 'start\n'
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.append(process.stdout.readline()))  # ty: ignore
        reader.start()
        while reader.is_alive():  # also while the readers start, which takes seconds
            os.killpg(process.pid, signal.SIGTERM)
            os.killpg(process.pid, signal.SIGINT)
            reader.join(0.2)
        met, *children = map(int, lines[0].split())
        assert met > 3
        assert len(children) == 2  # the reader, and the tracker of shared memory, which unlinks what they leave
    finally:
        process.kill()
        process.wait()
    deadline = time.monotonic() + 10
    while any(is_running(pid) for pid in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        state = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in 'ZX'  # the container's init may be slow to reap


LEFT_OPEN = """
import sys
if not sys.argv[1]:
    sys.modules['grain'] = None  # cannot be imported
import cv2, numpy as np
from canon.data import Arrays, Batches
iterator = Batches(Arrays({'x': np.arange(9)}), 3).iterate()
next(iterator)
"""


@pytest.mark.parametrize('grain', ['', 'grain'])
def test_an_iterator_that_is_left_open_ends_silently_with_the_interpreter(grain, root):
    done = subprocess.run(
        [sys.executable, '-c', LEFT_OPEN, grain], cwd=root / 'lib', capture_output=True, text=True, check=True
    )
    assert not done.stderr


def test_a_mapping_is_not_a_source():
    with pytest.raises(UsageError, match=r"wrap the arrays \['x'\] in canon.data.Arrays"):
        Batches({'x': np.arange(9)}, 3)  # ty: ignore[invalid-argument-type]
