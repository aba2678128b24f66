"""Tests share one compilation cache, so that a second run of the suite compiles nothing."""

import os
from pathlib import Path

import jax
import pytest
from absl import flags

flags.FLAGS.mark_as_parsed()  # grain's workers read absl flags

jax.config.update('jax_compilation_cache_dir', os.path.expanduser('~/.cache/canon/xla-tests'))
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)
jax.config.update('jax_persistent_cache_min_entry_size_bytes', 0)


@pytest.fixture(scope='session')
def root() -> Path:
    """The root of the repository."""
    return Path(__file__).parents[1]
