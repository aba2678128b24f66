"""The examples in the docstrings run, and every public function says what it does and where it comes from."""

import doctest
import inspect

import jax.numpy as jnp

import canon.optim
from canon.optim import schedules

OPTIMIZERS = [
    'sgd',
    'momentum',
    'nesterov',
    'adagrad',
    'rmsprop',
    'adadelta',
    'adam',
    'adamw',
    'nadam',
    'lamb',
    'lars',
    'lion',
    'muon',
    'soap',
    'schedule_free',
    'divide_on_plateau',
    'master_weights',
    'clip_by_global_norm',
    'ema',
    'average_on_plateau',
    'average_in_valley',
    'restart',
]


def test_examples():
    for module in (canon.optim, schedules):
        result = doctest.testmod(module, extraglobs={'jnp': jnp})
        assert result.attempted > 0
        assert result.failed == 0


def test_every_public_name_has_a_docstring_and_every_method_its_source():
    for name in canon.optim.__all__:
        value = getattr(canon.optim, name)
        if inspect.isfunction(value):
            assert value.__doc__, name
    for name in OPTIMIZERS:
        doc = getattr(canon.optim, name).__doc__
        assert any(str(year) in doc for year in range(1964, 2027)) or 'Notes' in doc or 'AlexNet' in doc, name
        assert 'optax' in doc or 'torch' in doc or 'author' in doc, name
