"""Every padding convention: its arithmetic for all small windows, then the operations against a loop over windows."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon import backend, ops
from canon.errors import UsageError
from canon.ops.padding import count_windows, resolve_padding
from tests.ops import windows
from tests.quick import quick_jit

CONVENTIONS = ('valid', 'same', 'same_lower', 0, 1, 2, 3, (0, 2), (3, 1))
AXES = tuple(itertools.product(range(1, 8), range(1, 5), range(1, 21), (1, 2)))  # kernel, stride, size, dilation


def as_padding(convention):
    return (convention, convention) if isinstance(convention, tuple) else convention


def width_of(convention) -> int:
    return 0 if isinstance(convention, str) else max(convention) if isinstance(convention, tuple) else convention


@pytest.mark.parametrize(
    ('convention', 'ceil_mode'),
    [(c, mode) for c in CONVENTIONS for mode in (False, True) if not (mode and c in ('same', 'same_lower'))],
    ids=str,
)
def test_positions_of_windows_follow_the_convention(convention, ceil_mode):
    """All kernels 1-7, strides 1-4, sizes 1-20, dilations 1-2: the first window, how many, and that none is cut."""
    tried = 0
    for k, s, n, d in AXES:
        if ceil_mode and width_of(convention) >= (k - 1) * d + 1:
            continue  # Caffe and torch refuse a padding as wide as the window
        places = windows.starts(convention, n, k, s, d, ceil_mode)
        arguments = (as_padding(convention), (n, n), (k, k), (s, s), (d, d))
        if not places:
            with pytest.raises(UsageError, match='does not fit'):
                resolve_padding(*arguments, ceil_mode=ceil_mode)
            continue
        rows = resolve_padding(*arguments, ceil_mode=ceil_mode)
        assert count_windows(rows, (n, n), (k, k), (s, s), (d, d)) == (len(places),) * 2, (k, s, n, d)
        for low, high in rows:
            assert -low == places[0], (k, s, n, d)
            assert n + high == places[-1] + (k - 1) * d + 1, (k, s, n, d)
        tried += 1
    assert tried > 600


def test_names_of_one_convention():
    arguments = (224, 224), (7, 7), (2, 2)
    caffe = ((3, 2), (3, 2))  # 3 above, 2 below: the floor drops the last row
    for padding in (
        3,
        (3, 3),
        ('torch', 3),
        ('caffe', 3),
        ('caffe', (3, 3)),
        ((3, 3), (3, 3)),
        ('explicit', ((3, 3), (3, 3))),
    ):
        assert resolve_padding(padding, *arguments) == caffe, padding
    assert resolve_padding('same', *arguments) == ((2, 3), (2, 3))
    assert resolve_padding('same_lower', *arguments) == ((3, 2), (3, 2))
    assert resolve_padding((1, 2), (5, 5), (3, 3), (1, 1)) == ((1, 1), (2, 2))


def check(rows_of_cases, form, jit=jax.jit):
    """rows: (window, stride, size, dilation, convention, groups), all in one program; each against the loop."""
    rng = np.random.default_rng(0)
    images = [rng.normal(size=(1, *size, 4)) for _, _, size, _, _, _ in rows_of_cases]
    kernels = [rng.normal(size=(*window, 4 // groups, 4)) for window, *_, groups in rows_of_cases]

    def every(images, kernels):
        return [
            (
                ops.conv(x, w, s, as_padding(p), d, g),
                ops.max_pool(x, k, s, as_padding(p)),
                *(ops.avg_pool(x, k, s, as_padding(p), count_include_pad=include) for include in (True, False)),
            )
            for x, w, (k, s, _, d, p, g) in zip(images, kernels, rows_of_cases, strict=True)
        ]

    with jax.enable_x64(True), backend.forms(form):
        results = jit(every)(images, kernels)
    for x, w, row, results_of_case in zip(images, kernels, rows_of_cases, results, strict=True):
        k, s, n, d, p, g = row
        wide = [windows.starts(p, *axis) for axis in zip(n, k, s, d, strict=True)]
        places = [windows.starts(p, *axis) for axis in zip(n, k, s, strict=True)]
        after = [n_ + after_of(p, n_, k_, s_, places_) for n_, k_, s_, places_ in zip(n, k, s, places, strict=True)]
        expected = (
            windows.conv(x, w, wide, d, g),
            windows.max_pool(x, k, places),
            windows.avg_pool(x, k, places, [a - n_ for a, n_ in zip(after, n, strict=True)]),
            windows.avg_pool(x, k, places, None),
        )
        for operation, a, b in zip(('conv', 'max', 'avg', 'avg, own pixels'), results_of_case, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11, err_msg=f'{operation} {row}')


def after_of(p, n, k, s, places):
    """Rows of padding behind the image, as asked for."""
    if isinstance(p, str):
        return max(places[-1] + k - n, 0)
    return p if isinstance(p, int) else p[1]


def rows(pairs):
    """Two axes tried by each image, the conventions in turn: the next that fits both, as 'same' always does.

    Where a padding is as wide as the window, windows may see nothing: such do not count as fitting.
    """
    cases = []
    for i, ((k, s, n, d), (j, t, m, e)) in enumerate(pairs):
        axes = (n, k, s, d), (m, j, t, e), (n, k, s), (m, j, t)
        turn = CONVENTIONS[i % len(CONVENTIONS) :] + CONVENTIONS[: i % len(CONVENTIONS)]
        p = next(p for p in turn if width_of(p) < min(k, j) and all(windows.starts(p, *a) for a in axes))
        cases.append(((k, j), (s, t), (n, m), (d, e), p, (1, 2, 4, 1)[i % 4]))
    return cases


@pytest.mark.parametrize('form', ['cpu', 'plain'])
def test_operations_equal_a_loop_over_windows(form):
    chosen = np.random.default_rng(1).permutation(len(AXES))
    pairs = [(AXES[i], AXES[j]) for i, j in zip(chosen[0:48:2], chosen[1:48:2], strict=True)]
    check(rows(pairs), form)


@pytest.mark.slow
@pytest.mark.parametrize('form', ['cpu', 'plain'])
@pytest.mark.parametrize('k', range(1, 8))
def test_operations_equal_a_loop_for_all_sizes(k, form):
    """Every kernel, stride, size and dilation; each axis beside another of its kernel, the conventions in turn."""
    axes = [a for a in AXES if a[0] == k]
    cases = rows(zip(axes, axes[::-1], strict=True))
    assert {case[4] for case in cases} >= {p for p in CONVENTIONS if width_of(p) < k}
    for i in range(0, len(cases), 20):
        check(cases[i : i + 20], form, quick_jit)  # over 2,000 different shapes, of which each compiles


@pytest.mark.parametrize(
    ('padding', 'message'),
    [
        ('smae', 'unknown'),
        (-1, 'negative'),
        ((1, 2, 3), 'unknown'),
        (('tf', 1), 'unknown'),
        ('valid', 'does not fit'),
    ],
)
def test_windows_that_do_not_fit_are_refused(padding, message):
    with pytest.raises(UsageError, match=message) as caught:
        ops.conv(jnp.zeros((1, 4, 9, 2)), jnp.zeros((5, 5, 2, 3)), padding=padding)
    assert '\n' not in str(caught.value)
