"""Examples in the docstrings of canon.data give what they say."""

import doctest

import pytest

from canon.data import transforms
from canon.data.pipeline import batches, mixing, splits, synthetic
from canon.data.text import alphabets

MODULES = (alphabets, batches, mixing, splits, synthetic, transforms)


@pytest.mark.parametrize('module', MODULES, ids=lambda m: m.__name__)
def test_examples_of_docstrings(module):
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed
