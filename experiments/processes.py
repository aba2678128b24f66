"""Settings of a process that runs JAX for a command: what libraries print, and where compiled programs are kept."""

from __future__ import annotations

import os
import sys
import warnings
from logging import StreamHandler, getLogger

from absl import logging

CACHE = '~/.cache/canon/xla'  # of compiled programs


def use_compilation_cache(folder: str = CACHE) -> None:
    """Keeps compiled programs in a folder, from which later processes take them; '' keeps none."""
    import jax

    if folder:
        jax.config.update('jax_compilation_cache_dir', os.path.expanduser(folder))
        # JAX's own threshold of a second would leave out most programs of a small network on a CPU.
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.2)


def silence_libraries() -> None:
    """Drops the logs of Orbax and absl: Canon reports what matters of them in its own words."""
    logging.set_verbosity(logging.FATAL)
    ignore_warnings()
    log = getLogger('canon')
    log.addHandler(StreamHandler(sys.stderr))
    log.setLevel('INFO')
    log.propagate = False
    default_hook = sys.unraisablehook

    def hook(event) -> None:
        # After a failed write, Orbax calls back into its event loop, which is closed by then.
        if 'Event loop is closed' not in str(event.exc_value):
            default_hook(event)

    sys.unraisablehook = hook


def ignore_warnings() -> None:
    """Ignores warnings that a user can do nothing about: Orbax's for its callers, and JAX's and Python's about forks.

    Reader processes never call JAX, so they do not need the threads that a fork loses.
    """
    warnings.filterwarnings('ignore', message=r'.*os\.fork\(\) was called')
    warnings.filterwarnings('ignore', message=r'.*multi-threaded, use of fork\(\)')  # Python 3.12's own
    warnings.filterwarnings('ignore', module=r'orbax\.')
