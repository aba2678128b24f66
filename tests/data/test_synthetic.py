"""Generated batches and random images."""

import numpy as np
import pytest

from canon.data import Fake, Generated, load


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


def test_a_random_image_depends_on_its_split_and_number_only():
    a, b = load('fake', num_examples=5, size=8), Fake(num_examples=9, size=8)
    np.testing.assert_array_equal(a[3]['image'], b[3]['image'])
    assert not np.array_equal(a[3]['image'], a[4]['image'])
    assert not np.array_equal(a[3]['image'], Fake('test', size=8)[3]['image'])
    labels = [int(Fake(num_classes=3, size=1)[i]['label']) for i in range(60)]
    assert set(labels) == {0, 1, 2}
