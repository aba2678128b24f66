"""`optim` is an argument of the tests, so that a planted bug (test_mutants.py) can stand in for the library."""

import pytest


@pytest.fixture
def optim():
    from canon import optim

    return optim
