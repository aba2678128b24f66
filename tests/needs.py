"""Programs that some tests need and not every machine has."""

import os

import pytest


def skip_unless_needed(variable: str, reason: str) -> None:
    """Skips for a reason that is not empty, or fails where the environment sets `variable` to 'needed', as CI does."""
    if reason and os.environ.get(variable) == 'needed':
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
