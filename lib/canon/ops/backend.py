"""Which form of an operation is written, and with which options it is compiled: the one place that asks.

Some operations have two forms, equal to rounding, gradients too: the plain one, which TPU and GPU compile well, and one
written for XLA's CPU compiler. Functions of this room choose between them here; models never ask.
"""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

import jax

_forced: ContextVar[str | None] = ContextVar('canon_ops_form', default=None)


def cpu_form() -> bool:
    """Should the form for XLA's CPU compiler be traced? So it is where JAX runs on a CPU, unless `forms` says else."""
    return (_forced.get() or jax.default_backend()) == 'cpu'


@contextmanager
def forms(kind: str) -> Generator[None]:
    """Within it, functions trace the forms of `kind`: 'cpu' or 'plain'. For tests, counts and export.

    `jax.jit` does not see it: trace a fresh function inside.
    """
    if kind not in ('cpu', 'plain'):
        raise ValueError(f"forms are 'cpu' or 'plain', not {kind!r}")
    token = _forced.set(kind)
    try:
        yield
    finally:
        _forced.reset(token)


def compiler_options() -> dict[str, str]:
    """Options for `jax.jit(..., compiler_options=...)` of a program with convolutions.

    XLA:CPU turns them into YNNPACK fusions by default, whose weight gradients are several times slower than Eigen's
    (jaxlib 0.10.2); its fused reductions are worth keeping.
    """
    if jax.default_backend() != 'cpu':
        return {}
    return {'xla_cpu_experimental_ynn_fusion_type': 'LIBRARY_FUSION_TYPE_REDUCE'}
