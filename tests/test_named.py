"""What a signature states is what a config may give: names, types and ranges, checked once by `named.call`."""

import doctest
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pytest

from canon import named
from canon.errors import UsageError
from canon.named import Count, DropRate, Range


def build(
    rate: DropRate = 0.0,
    layers: Count = 1,
    name: str = 'x',
    mean: Sequence[float] = (0.0,),
    size: int | tuple[int, int] | None = None,
    norm: Literal['batch', 'layer'] = 'batch',
    bias: bool = True,
    schedule: float | Callable = 0.1,
    scales: tuple[Annotated[float, Range(0, open_low=True)], ...] = (1.0,),
    anything: Any = None,
    width: int = None,  # noqa: RUF013  # ty: ignore[invalid-parameter-default]
) -> dict:
    return locals()


@pytest.mark.parametrize(
    'given',
    [
        dict(rate=0),
        dict(rate=np.float32(0.5)),
        dict(layers=np.int64(3)),
        dict(mean=(1, 2.5)),
        dict(mean=[0.5]),
        dict(size=(1, 2)),
        dict(size=None),
        dict(norm='layer'),
        dict(schedule=lambda count: 0.1),
        dict(scales=(0.5, 2)),
        dict(anything={'a': 'b'}),
        dict(width=None),
    ],
    ids=lambda given: next(iter(given)) if callable(next(iter(given.values()))) else str(given),
)
def test_valid_arguments_are_passed_on(given):
    (key,) = given
    assert np.all(named.call(build, given, 'model')[key] == named.to_plain(given[key]))


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        (dict(rate=2.0), 'model.rate=2.0 must be a number at least 0 and below 1'),
        (dict(rate=1), 'model.rate=1 must be a number at least 0 and below 1'),
        (dict(rate=-0.1), 'model.rate=-0.1 must be a number at least 0 and below 1'),
        (dict(rate=float('nan')), 'model.rate=nan must be a number at least 0 and below 1'),
        (dict(rate='high'), "model.rate='high' must be a number"),
        (dict(rate=True), 'model.rate=True must be a number'),
        (dict(rate=None), 'model.rate=None must be a number'),
        (dict(layers=0), 'model.layers=0 must be a whole number at least 1'),
        (dict(layers=1.5), 'model.layers=1.5 must be a whole number'),
        (dict(name=3), 'model.name=3 must be text'),
        (dict(mean=0.5), 'model.mean=0.5 must be a tuple, each element a number'),
        (dict(mean=('a',)), "model.mean=('a',) must be a tuple, each element a number"),
        (dict(mean='abc'), "model.mean='abc' must be a tuple, each element a number"),
        (dict(size=(1, 2, 3)), 'model.size=(1, 2, 3) must be a whole number or a tuple or None'),
        (dict(norm='group'), "model.norm='group' must be 'batch' or 'layer'"),
        (dict(bias=1), 'model.bias=1 must be true or false'),
        (dict(scales=(1.0, 0.0)), 'model.scales=(1.0, 0.0) must be a tuple, each element a number above 0'),
        (dict(ratee=1), "model.ratee: build takes no such key; did you mean 'rate'?"),
    ],
    ids=str,
)
def test_invalid_arguments_are_one_line_that_names_the_key(given, message):
    with pytest.raises(UsageError, match=f'^{re.escape(message)}$'):
        named.call(build, given, 'model')


@pytest.mark.parametrize(
    ('limits', 'words'),
    [
        (Range(0, 1), 'at least 0 and at most 1'),
        (Range(0, open_low=True), 'above 0'),
        (Range(high=1, open_high=True), 'below 1'),
    ],
)
def test_a_range_describes_itself(limits, words):
    assert str(limits) == words


def test_functions_of_other_modules_are_found_by_path():
    assert named.lookup('canon.models', 'math:hypot', 'model')(3, 4) == 5
    for path, message in (
        ('maths:hypot', "model: cannot import 'maths'"),
        ('math:hypo', "model: math has no function 'hypo'; did you mean 'hypot'"),
    ):
        with pytest.raises(UsageError, match=message):
            named.lookup('canon.models', path, 'model')


@pytest.mark.parametrize('hint', [named.Positive, named.NonNegative])
def test_infinite_values_are_refused(hint):
    """What counts or multiplies by one overflows far from the config that states it."""
    with pytest.raises(UsageError, match=r'rate=inf must be a number .*finite'):
        named.check(float('inf'), hint, 'rate')


def test_a_function_takes_the_arguments_of_another():
    @named.takes_arguments_of(build, without=['layers'])
    def build_wide(width: Count, norm: Literal['layer', 'none'] = 'layer', **arguments: Any) -> dict:
        return build(width=width, **arguments) | dict(norm=norm)

    built = named.call(build_wide, dict(width=2, rate=0.5), 'model')
    assert built == named.call(build, dict(width=2, rate=0.5), 'model') | dict(norm='layer')
    assert named.get_return_type(build_wide) is dict
    assert [p.name for p in named.list_parameters(build_wide)][:4] == ['width', 'norm', 'rate', 'name']
    for given, message in (
        (dict(rate=1), 'model.rate=1 must be a number at least 0 and below 1'),
        (dict(width=0), 'model.width=0 must be a whole number at least 1'),  # its own, where `build` has no range
        (dict(norm='batch'), "model.norm='batch' must be 'layer' or 'none'"),
        (dict(layers=1), 'model.layers: build_wide takes no such key'),
        (dict(biass=True), "model.biass: build_wide takes no such key; did you mean 'bias'?"),
    ):
        with pytest.raises(UsageError, match=re.escape(message)):
            named.call(build_wide, dict(width=2) | given, 'model')
    assert not doctest.testmod(named.calls).failed
