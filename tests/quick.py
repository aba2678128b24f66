"""Options with which a program that is called once or twice compiles in a half to a fifth of the time, and runs slower.

What is tested so is the program, not the compiler. The fast tests compile all their programs so (`tests/conftest.py`).
With the slow tests, as CI runs them, the compiler is that of users, but for what uses this module: whole runs of
experiments, which repeat what `tests/train` tests, and large programs, but no tests of training, of bits and of the
forms for one backend.
"""

import contextlib
import functools
from collections.abc import Iterator
from unittest import mock

import jax

from canon import backend

# LLVM's optimisation is left out, and loops are emitted by XLA's older emitters, which write shorter code.
COMPILER_OPTIONS = {'xla_backend_optimization_level': 0, 'xla_cpu_use_fusion_emitters': False}
XLA_FLAGS = '--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false'  # the same for a process


@contextlib.contextmanager
def quick_programs() -> Iterator[None]:
    """Within it `canon.backend.jit`, of training and evaluation, compiles as `quick_jit` does."""
    options = backend.compiler_options() | COMPILER_OPTIONS
    with mock.patch.object(backend, 'compiler_options', return_value=options):
        yield


quick_jit = functools.partial(jax.jit, compiler_options=COMPILER_OPTIONS)
