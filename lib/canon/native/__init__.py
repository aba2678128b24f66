"""Kernels in C++ for XLA's CPU backend, compiled on first use for the processor at hand.

What XLA:CPU cannot express well is here: loops whose data should stay in a core's cache between their steps. Each
kernel has a twin in JAX, which tests compare it with and which runs everywhere else: on other backends, without a
compiler, with several devices or processes, in forms that `backend.forms` asks for. Nothing is built when Canon is
installed or imported; the first program that can use a kernel builds all of them (some seconds, once per machine), in
~/.cache/canon/native.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jaxlib

from canon import backend

FOLDER = '~/.cache/canon/native'
_NATIVE = '-mcpu=native' if platform.machine() in ('arm64', 'aarch64') else '-march=native'
FLAGS = ('-std=c++17', '-O3', _NATIVE, '-fPIC', '-shared', '-w')
SOURCES = Path(__file__).parent
KERNELS = (
    *(f'{cell}_{way}' for cell in ('lstm', 'gru', 'rnn') for way in ('forward', 'backward')),
    *('moments', 'gradient_sums', 'max_pool', 'max_pool_gradient'),
    *('depthwise', 'depthwise_image_gradient', 'depthwise_kernel_gradient'),
    *('convolve', 'convolve_kernel_gradient'),
)

_log = logging.getLogger('canon')


def is_available() -> bool:
    """Returns whether a program that is traced now may call kernels; builds them if need be.

    A kernel sees whole arrays, so a program laid out over several devices does without. So do several processes, which
    must compile the same program whatever compiler each of them has.
    """
    return backend.cpu_form() and backend.get_override() is None and jax.device_count() == 1 and _register()


def call(name: str, twin: Callable, results: Any, *arrays: jax.Array, **attributes: Any) -> Any:
    """Calls a kernel.

    Args:
      name: one of `KERNELS`.
      twin: (*arrays) -> the same results in JAX, which is differentiated in the kernel's stead, as the gradient
        of a gradient needs.
      results: a tree of jax.ShapeDtypeStruct.
      *arrays: arguments.
      **attributes: constants.
    """
    function = jax.custom_jvp(functools.partial(_call, name, results, attributes))
    function.defjvp(lambda primals, tangents: (function(*primals), jax.jvp(twin, primals, tangents)[1]))
    return function(*arrays)


def _call(name: str, results: Any, attributes: dict, *arrays: jax.Array) -> Any:
    aliases = attributes.get('input_output_aliases')
    constants = {k: v for k, v in attributes.items() if k != 'input_output_aliases'}
    kernel = jax.ffi.ffi_call(f'canon_{name}', results, vmap_method='sequential', input_output_aliases=aliases)
    return kernel(*arrays, **constants)


@functools.cache
def _register() -> bool:
    """Builds the kernels, unless this machine has them, and tells XLA; returns False, with a line, if it cannot."""
    try:
        library = ctypes.CDLL(str(build()))
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:  # RuntimeError: there is no home
        reason = getattr(error, 'stderr', None) or str(error)
        _log.warning('the kernels in C++ cannot be built, so slower forms are used: %s', reason.strip().split('\n')[0])
        return False
    for name in KERNELS:
        target = jax.ffi.pycapsule(getattr(library, f'canon_{name}'))
        jax.ffi.register_ffi_target(f'canon_{name}', target, platform='cpu')
    return True


def build(folder: str | Path = FOLDER) -> Path:
    """Returns the library of the kernels, built into `folder` unless it is there.

    Raises OSError if there is no compiler or the folder cannot be written, CalledProcessError if compilation fails.
    """
    compiler = next(filter(None, map(shutil.which, ('c++', 'g++', 'clang++'))), None)
    if compiler is None:
        raise OSError('there is no C++ compiler; install g++')
    folder = Path(folder).expanduser()
    library = folder / f'{_digest(compiler)}.so'
    if library.exists():
        return library
    folder.mkdir(parents=True, exist_ok=True)
    _log.info('building the kernels in C++ for this processor, once')
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        built = Path(scratch) / 'canon.so'
        units = sorted(map(str, SOURCES.glob('*.cc')))
        command = [compiler, *FLAGS, '-I', jax.ffi.include_dir(), *units, '-o', str(built)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        # At once, so that another process never loads half of it; what another has built meanwhile may be in use.
        try:
            os.link(built, library)
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            os.replace(built, library)
    return library


def _digest(compiler: str) -> str:
    """Returns a name for what the library depends on: its sources, the compiler, the processor and XLA's headers."""
    digest = hashlib.sha256(
        repr((os.path.realpath(compiler), FLAGS, _describe_processor(), jaxlib.__version__)).encode()
    )
    for file in sorted(SOURCES.glob('*.[ch]*')):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _describe_processor() -> str:
    """Returns what -march=native depends on: a home that several machines share may hold a library for each."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return '\n'.join(sorted({line for line in lines if line.startswith(('flags', 'model name', 'Features'))}))
