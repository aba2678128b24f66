"""Generated batches and random images."""

import numpy as np
import pytest

from canon.data import Generated, fake, load_source
from canon.errors import UsageError


def test_generated_batches_start_anywhere_and_end_where_told():
    squares = Generated(lambda step: step**2, length=4)
    assert [*squares.iterate()] == [0, 1, 4, 9]
    assert [*squares.iterate(2)] == [4, 9]
    assert len(squares) == 4
    with pytest.raises(IndexError):
        squares[4]
    endless = Generated(lambda step: step)
    assert next(endless.iterate(10**6)) == 10**6
    with pytest.raises(TypeError, match='endless'):
        len(endless)


def test_processes_cut_their_rows_of_generated_batches():
    data = Generated(lambda step: {'a': {'x': np.arange(6) + step}, 'b': np.zeros((6, 2))}, batch_size=6)
    parts = [data.for_process(k, 3)[10] for k in range(3)]
    assert [part['a']['x'].tolist() for part in parts] == [[10, 11], [12, 13], [14, 15]]
    assert parts[0]['b'].shape == (2, 2)
    with pytest.raises(UsageError, match='batch_size=6 is not a positive multiple of the 4 processes'):
        data.for_process(0, 4)


def test_a_random_image_depends_on_its_split_and_number_only():
    a, b = load_source('fake', num_examples=5, size=8), fake(num_examples=9, size=8)
    np.testing.assert_array_equal(a[3]['image'], b[3]['image'])
    assert not np.array_equal(a[3]['image'], a[4]['image'])
    assert not np.array_equal(a[3]['image'], fake('test', size=8)[3]['image'])
    labels = [int(fake(num_classes=3, size=1)[i]['label']) for i in range(60)]
    assert set(labels) == {0, 1, 2}
