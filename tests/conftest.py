"""The whole suite: one compilation cache, worker processes of one core each, and what the tests cost at the end.

`./launch.sh test` runs two workers (pytest-xdist). A second run of the suite compiles nothing.
"""

import gc
import logging
import os
from collections import defaultdict
from pathlib import Path

import jax
import pytest
from absl import flags

from tests.quick import XLA_FLAGS

flags.FLAGS.mark_as_parsed()  # grain's workers read absl flags

jax.config.update('jax_compilation_cache_dir', os.path.expanduser('~/.cache/canon/xla-tests'))
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)
jax.config.update('jax_persistent_cache_min_entry_size_bytes', 0)


def choose_pool_cores(config) -> list[int]:
    """Returns the cores for XLA's pool of threads: one in each of xdist's workers, else all; empty if unknown."""
    if not hasattr(os, 'sched_getaffinity'):
        return []
    cores = sorted(os.sched_getaffinity(0))
    if not hasattr(config, 'workerinput'):
        return cores
    return [cores[int(config.workerinput['workerid'].removeprefix('gw')) % len(cores)]]


def start_xla(cores: list[int]) -> None:
    """Starts XLA with a thread per core of `cores`; the process itself may use every core."""
    if not cores:
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)  # XLA sizes its pool by the affinity that it finds when it starts
    jax.devices()
    os.sched_setaffinity(0, allowed)


def pytest_configure(config):
    """Chooses how XLA compiles, and starts it with one core in each of xdist's workers.

    The fast tests compile without LLVM's optimisation, which halves their time; with the slow ones (`-m ''`, CI)
    programs are compiled as users compile them. Two pools of as many threads as cores would contend.
    """
    if 'not slow' in config.option.markexpr:
        os.environ.setdefault('XLA_FLAGS', XLA_FLAGS)  # XLA reads it when it starts; processes inherit it
    if hasattr(config, 'workerinput'):
        start_xla(choose_pool_cores(config))


# Files of few but long tests. Handed out last, one of them would keep a worker busy after the other is done.
LONGEST = (
    'tests/test_readme.py',
    'tests/experiments/test_two_processes.py',
    'tests/slurm/test_slurm.py',
    'tests/test_campaign.py',
    'tests/experiments/test_main.py',
)


def pytest_collection_modifyitems(items):
    """Moves the longest files to the front; their order is that of the workers, too."""
    items.sort(key=lambda item: item.nodeid.partition('::')[0] not in LONGEST)


def pytest_collection_finish():
    """Exempts all that is imported by now from garbage collection, which each module ends with."""
    gc.freeze()


@pytest.fixture(autouse=True)
def keep_loggers():
    """Gives the loggers back as they were: a command called in a test's process silences them for good."""
    loggers = [logging.getLogger(name) for name in ('absl', 'canon')]
    before = [(logger.level, logger.propagate, logger.handlers[:], logger.filters[:]) for logger in loggers]
    yield
    for logger, (level, propagate, handlers, filters) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.propagate, logger.handlers[:], logger.filters[:] = propagate, handlers, filters


@pytest.fixture(scope='session')
def root() -> Path:
    """The root of the repository."""
    return Path(__file__).parents[1]


@pytest.fixture(scope='session')
def same_pool(pytestconfig) -> str:
    """Source for another process: gives XLA there as many threads as here.

    XLA divides long sums among its threads, so results are bitwise equal only between pools of one size.
    """
    return f'from tests import conftest\nconftest.start_xla({choose_pool_cores(pytestconfig)})\n'


@pytest.fixture(scope='module', autouse=True)
def _compiled_programs_are_dropped():
    """Frees what a module compiled: programs that no later module calls again would add up to gigabytes."""
    yield
    jax.clear_caches()
    gc.collect()


def pytest_terminal_summary(terminalreporter):
    """Prints the seconds that each directory of tests took, dearest first, where more than one file ran."""
    seconds = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if hasattr(report, 'duration') and hasattr(report, 'fspath'):
                seconds[str(Path(report.fspath).parent)] += report.duration
    if len(seconds) > 1:
        terminalreporter.section('seconds per directory, over all workers')
        for folder, total in sorted(seconds.items(), key=lambda item: -item[1]):
            terminalreporter.write_line(f'{total:8.1f}  {folder}')
