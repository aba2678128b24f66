"""Chooses the form of an operation for the backend, and the compiler options of programs.

Some operations have two forms, equal to rounding, gradients too: the plain one, which TPU and GPU compile well, and one
written for XLA's CPU compiler. `canon.ops` chooses between them here; models never do.
"""

import functools
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax

_forced: ContextVar[str | None] = ContextVar('canon_ops_form', default=None)


def cpu_form() -> bool:
    """Returns whether to trace the form for XLA's CPU compiler: True on a CPU, unless `forms` overrides it."""
    # Read while tracing, so the choice is a constant of the compiled program.
    return (_forced.get() or jax.default_backend()) == 'cpu'


def get_override() -> str | None:
    """Returns the forms that `forms` asks for, None outside of it."""
    return _forced.get()


@contextmanager
def forms(kind: str) -> Generator[None]:
    """Makes functions trace the forms of `kind`, 'cpu' or 'plain': for tests, counts of FLOPs and export.

    `jax.jit` does not see it: trace a fresh function inside.
    """
    if kind not in ('cpu', 'plain'):
        raise ValueError(f"forms are 'cpu' or 'plain', not {kind!r}")
    # A context variable and not a global: threads that trace at the same time do not see each other's.
    token = _forced.set(kind)
    try:
        yield
    finally:
        _forced.reset(token)


def jit(function: Callable | None = None, **options: Any) -> Any:
    """Compiles `function` as `jax.jit` does, with the compiler options of programs that contain convolutions.

    `options` are those of `jax.jit`. Usable as a decorator, with or without options, but only within functions: it
    looks at the device, which no import may touch.
    """
    if function is None:
        return functools.partial(jit, **options)
    return jax.jit(function, compiler_options=compiler_options(), **options)


def compiler_options() -> dict[str, str]:
    """Returns the options for `jax.jit(..., compiler_options=...)` of a program with convolutions.

    XLA:CPU turns them into YNNPACK fusions by default, whose weight gradients are several times slower than Eigen's
    (jaxlib 0.10.2); its fused reductions are worth keeping.
    """
    # The option belongs to XLA's CPU compiler.
    if jax.default_backend() != 'cpu':
        return {}
    return {'xla_cpu_experimental_ynn_fusion_type': 'LIBRARY_FUSION_TYPE_REDUCE'}
