"""Interleaved and zipped data are functions of (seed, step), in any number of processes, with the shares asked for."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from canon.data import Arrays, Batches, Generated, Interleaved, Zipped
from canon.errors import UsageError


def numbers(part: int, n: int, batch_size: int) -> Batches:
    """Examples part * 100 + 0, 1, ... n - 1, in an order of their own."""
    return Batches(Arrays({'x': 100 * part + np.arange(n)}), batch_size, seed=part)


def same(a, b) -> None:
    assert a.keys() == b.keys()
    for name in a:
        if isinstance(a[name], dict):
            same(a[name], b[name])
        else:
            assert a[name].dtype == b[name].dtype
            np.testing.assert_array_equal(a[name], b[name])


PARTS = [numbers(0, 9, 4), numbers(1, 20, 6), numbers(2, 5, 2)]
MIXED = {
    'epochs': Interleaved(PARTS, seed=3, shuffled=True),
    'turns': Interleaved(PARTS, counts=(2, 1, 1)),
    'drawn': Interleaved(PARTS, weights=(0.5, 0.3, 0.2), seed=3),
    'workers': Interleaved(PARTS, weights=(0.5, 0.3, 0.2), seed=3, workers=1),
    'zipped': Zipped(dict(zip('abc', PARTS, strict=True))),
    'joined': Zipped(dict(zip('abc', PARTS, strict=True)), join='part'),
}


@pytest.mark.parametrize('name', [pytest.param(n, marks=pytest.mark.slow if n == 'workers' else ()) for n in MIXED])
def test_any_step_may_come_first(name):
    data = MIXED[name]
    same(pickle.loads(pickle.dumps(data))[7], data[7])
    batches = data.iterate(5)
    for step in range(5, 13):
        same(next(batches), data[step])
    batches.close()
    with pytest.raises(IndexError):
        data[-1]


@pytest.mark.parametrize('name', list(MIXED))
def test_the_rows_of_two_processes_are_the_batch(name):
    data = MIXED[name]
    halves = [data.for_process(1 - k, 2).for_process(k, 2) for k in range(2)]  # the last call holds

    def join(a, b):
        return {f: join(a[f], b[f]) if isinstance(a[f], dict) else np.concatenate([a[f], b[f]]) for f in a}

    for step in range(12):
        same(join(*(half[step] for half in halves)), data[step])


@given(st.lists(st.integers(1, 7), min_size=1, max_size=4), st.integers(1, 4), st.data())
@settings(deadline=None, max_examples=60)
def test_joined_rows_are_cut_anywhere(sizes, processes, draw):
    sizes = [size * processes for size in sizes] if draw.draw(st.booleans()) else sizes
    total = sum(sizes)
    parts = {str(i): numbers(i, 30, size) for i, size in enumerate(sizes)}
    data = Zipped(parts, join='part')
    assert data.batch_size == total
    np.testing.assert_array_equal(data[2]['part'], np.repeat(range(len(sizes)), sizes))
    np.testing.assert_array_equal(data[2]['x'], np.concatenate([part[2]['x'] for part in parts.values()]))
    if total % processes:
        with pytest.raises(UsageError, match=f'batch_size={total} is not a positive multiple of the {processes}'):
            data.for_process(0, processes)
    else:
        rows = [data.for_process(k, processes)[2] for k in range(processes)]
        same({field: np.concatenate([r[field] for r in rows]) for field in rows[0]}, data[2])


def drawn_parts(data, steps: int) -> np.ndarray:
    return np.array([data.locate(step)[0] for step in range(steps)])


def test_a_round_is_an_epoch_of_every_part():
    data = MIXED['epochs']
    assert data.steps_per_epoch == 3 + 4 + 3
    assert data.batch_size == 4  # (3 * 4 + 4 * 6 + 3 * 2) / 10 = 4.2, in steps of 2
    assert data.num_examples == 40
    rounds = drawn_parts(data, 50).reshape(5, 10)
    assert (np.sort(rounds) == np.repeat([0, 1, 2], [3, 4, 3])).all()
    assert len({tuple(r) for r in rounds.tolist()}) == 5
    drawn = np.concatenate([data[step]['x'] for step in range(10)])
    assert all((drawn == x).any() for part in PARTS for x in part.source.arrays['x'])
    each = [[data.locate(step)[1] for step in range(50) if data.locate(step)[0] == part] for part in range(3)]
    assert each == [[*range(15)], [*range(20)], [*range(15)]]  # a part's batches come in order, and each one once


def test_parts_take_turns_in_exact_shares():
    data = MIXED['turns']
    assert drawn_parts(data, 8).tolist() == [0, 0, 1, 2, 0, 0, 1, 2]
    assert [data.locate(step)[1] for step in range(8)] == [0, 1, 0, 0, 2, 3, 1, 1]
    same(data[5], PARTS[0][3])
    assert data.num_examples == 34
    assert data.batch_size == 4
    assert data.steps_per_epoch == 8.5


def test_drawn_parts_have_their_shares():
    data, n = MIXED['drawn'], 20_000
    parts = drawn_parts(data, n)
    for part, weight in enumerate((0.5, 0.3, 0.2)):
        assert stats.binomtest(int((parts == part).sum()), n, weight).pvalue > 1e-3
    first, second = parts[:-1] == 0, parts[1:] == 0  # draws are independent of each other
    assert stats.binomtest(int((first & second).sum()), n - 1, 0.25).pvalue > 1e-3
    assert not np.array_equal(drawn_parts(Interleaved(PARTS, weights=(5, 3, 2), seed=4), 100), parts[:100])
    np.testing.assert_array_equal(drawn_parts(Interleaved(PARTS, weights=(5, 3, 2), seed=3), 100), parts[:100])
    assert set(drawn_parts(Interleaved(PARTS, weights=(1, 0, 1)), 200)) == {0, 2}


def test_drawn_parts_are_counted_across_blocks():
    """Beyond the 65,536 steps of one block of draws the batches of a part still follow each other."""
    data, edge = MIXED['drawn'], 1 << 16
    before = np.bincount([data.locate(step)[0] for step in range(edge - 50, edge)], minlength=3)
    at = {part: number for part, number in map(data.locate, range(edge + 50, edge - 51, -1))}
    after = {part: number for part, number in map(data.locate, range(edge - 50, edge + 51))}
    middle = np.bincount([data.locate(step)[0] for step in range(edge - 50, edge + 51)], minlength=3)
    assert [after[part] - at[part] + 1 for part in range(3)] == middle.tolist()
    assert before.sum() == 50


def test_an_epoch_of_zipped_data_is_that_of_one_part():
    parts = dict(zip('abc', PARTS, strict=True))
    assert Zipped(parts).batch_size == 12
    assert Zipped(parts).num_examples == 27  # 2.25 steps of 12
    assert Zipped(parts, epoch='b').num_examples == 40  # 20 / 6 steps
    batch = Zipped(parts)[4]
    for name, part in parts.items():
        same(batch[name], part[4])


def test_what_cannot_be_mixed_is_refused():
    endless = Generated(lambda step: {'x': np.zeros(4)})
    for arguments, message in (
        (dict(parts=[]), 'one number for each of 0 parts'),
        (dict(parts=PARTS, counts=(1, 2)), r'counts=\(1, 2\) must have one number for each of 3 parts'),
        (dict(parts=PARTS, counts=(1, 0, 2)), r'counts=\(1, 0, 2\) must be at least 1 each'),
        (dict(parts=PARTS, weights=(0, 0, 0)), r'weights=\(0, 0, 0\) must not be negative, and one must be above 0'),
        (dict(parts=PARTS, weights=(1, 1, 1), counts=(1, 1, 1)), 'not both'),
        (dict(parts=[endless]), 'does not know its num_examples'),
    ):
        with pytest.raises(UsageError, match=message):
            Interleaved(**arguments)
    assert Interleaved([endless, *PARTS], weights=(1, 1, 1, 1)).num_examples is None
    for arguments, message in (
        (dict(parts={}), r'epoch=None must name one of the parts \(\)'),
        (dict(parts={'a': PARTS[0]}, epoch='b'), r"epoch='b' must name one of the parts \('a',\)"),
        (dict(parts={'a': endless}, join='part'), "{'a': None} rows cannot be joined"),
    ):
        with pytest.raises(UsageError, match=message):
            Zipped(**arguments)
    with pytest.raises(UsageError, match="join='x' is a field of the parts already"):
        Zipped({'a': PARTS[0]}, join='x')[0]
    other = Batches(Arrays({'y': np.arange(4)}), 2)
    with pytest.raises(UsageError, match='joined parts need the same fields'):
        Zipped({'a': PARTS[0], 'b': other}, join='part')[0]
