"""The arithmetic that trackers of both forms share: the same rows of numpy and of JAX."""

import jax.numpy as jnp
import numpy as np
import pytest

from canon.tracking.arrays import mix_columns, put_rows, replace_last, select_rows, stack_parts, take_rows

VALUES = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
MASK = np.array([True, False, False, True, False])
FORMS = {'numpy': np.asarray, 'jax': jnp.asarray}


@pytest.fixture(params=FORMS)
def to_form(request):
    return FORMS[request.param]


def check(actual, expected, to_form):
    assert isinstance(actual, type(to_form(VALUES)))
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_columns_are_mixed_by_a_matrix(to_form):
    matrix = np.array([[0.5, 0, -1], [0, 1, 0], [0.5, 0, 1], [0, 2, 0]])
    check(mix_columns(to_form(VALUES), matrix), VALUES @ matrix, to_form)
    batched = np.stack([VALUES, -VALUES])
    check(mix_columns(to_form(batched), matrix), batched @ matrix, to_form)


def test_last_columns_are_replaced_and_the_argument_is_not_changed(to_form):
    values = to_form(VALUES.copy())
    check(replace_last(values, values[:, 0], values[:, 1]), VALUES[:, [0, 1, 0, 1]], to_form)
    np.testing.assert_array_equal(values, VALUES)


def test_rows_are_taken_put_and_selected(to_form):
    values = to_form(VALUES.copy())
    check(take_rows(values, to_form(np.array([2, 2, 0]))), VALUES[[2, 2, 0]], to_form)
    expected = np.where(MASK[:, None], -VALUES, VALUES)
    check(select_rows(to_form(MASK), -values, values), expected, to_form)
    where = np.flatnonzero(MASK) if to_form is np.asarray else to_form(MASK)
    rows = -values[where] if to_form is np.asarray else -values
    check(put_rows(values, where, rows), expected, to_form)
    check(put_rows(to_form(np.arange(5, dtype=np.int32)), where, 7), [7, 1, 2, 7, 4], to_form)
    assert put_rows(to_form(np.arange(5, dtype=np.int32)), where, 7).dtype == np.int32
    np.testing.assert_array_equal(values, VALUES)


def test_selected_rows_keep_the_order_in_memory():
    parts = stack_parts([VALUES, VALUES + 1, VALUES + 2], -2)
    assert parts.transpose(1, 0, 2).flags.c_contiguous
    assert select_rows(MASK, -parts, parts).transpose(1, 0, 2).flags.c_contiguous
