"""What every transform here is built on: walking leaves together, float32 accumulators, checks with names.

Three rules hold in every file of this room. Arithmetic and accumulators are at least float32, whatever the
parameters are. An update is a function of the *stored* state: where the state is rounded to a narrow type,
the update uses the rounded value, so XLA can write the state in place. A hyperparameter is what the argument says, be
it a float, a schedule or a tracer; the state records the value last used, unless one was set there explicitly.
"""

from __future__ import annotations

import functools
import inspect
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import keystr, tree_flatten_with_path

from canon.errors import UsageError

Tree = Any
BUCKETS = 'buckets of small leaves'  # the key under which `bucket_leaves` joins them


def per_leaf(
    kernel: Callable, updates: Tree, *accumulators: Tree, given: tuple[Tree, ...] = (), paths: bool = False
) -> tuple:
    """`kernel(update, *accumulators, *given) -> (update, *accumulators)` on each leaf, as trees again.

    `given` are trees that are only read (the parameters). With `paths` the kernel gets the leaf's path name
    first. Raises UsageError where a shape differs from the update's: broadcasting would train the wrong
    thing in silence.
    """
    leaves, treedef = jax.tree.flatten(updates)
    others = [_flatten_like(updates, treedef, tree) for tree in (*accumulators, *given)]
    if paths:
        others = [leaves, *others]
        leaves = [path_name(path) for path, _ in tree_flatten_with_path(updates)[0]]
    results = [kernel(*row) for row in zip(leaves, *others, strict=True)]
    columns = zip(*results, strict=True) if results else [()] * (1 + len(accumulators))
    return tuple(treedef.unflatten(column) for column in columns)


def _flatten_like(updates: Tree, treedef, tree: Tree) -> list:
    try:
        leaves = treedef.flatten_up_to(tree)
    except ValueError as error:
        raise UsageError(f'the updates are another tree than the parameters: {error}') from error
    for (path, update), leaf in zip(tree_flatten_with_path(updates)[0], leaves, strict=True):
        if jnp.shape(update) != jnp.shape(leaf):
            name, shapes = path_name(path), f'{jnp.shape(update)}, the parameter {jnp.shape(leaf)}'
            raise UsageError(f'the update of {name or "the parameter"} has shape {shapes}')
    return leaves


def path_name(path) -> str:
    """`Dense_0/kernel` for a leaf's path: what every regex of this room sees."""
    return keystr(path, simple=True, separator='/')


def compile_pattern(pattern: str) -> re.Pattern:
    """The compiled pattern; raises UsageError for one that is none."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UsageError(f'{pattern!r} is no regular expression: {error}') from error


def check_params(params: Tree) -> None:
    """Raises UsageError for a leaf that is not of a real floating type, naming it."""
    for path, leaf in tree_flatten_with_path(params)[0]:
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            name = path_name(path) or 'the parameter'
            raise UsageError(f'{name} is {dtype}; only floating parameters are trained: freeze it, or take it out')


def refuse_buckets(params: Tree, what: str) -> None:
    """Raises UsageError inside `bucket_leaves`, for a rule that looks at leaves one by one."""
    if isinstance(params, dict) and BUCKETS in params:
        raise UsageError(f'{what} cannot see the leaves in a bucket; put it outside of bucket_leaves')


def require_params(params: Tree, what: str) -> Tree:
    if params is None:
        raise UsageError(f'{what} needs the parameters: call update(updates, state, params)')
    return params


def zeros(params: Tree, dtype=None) -> Tree:
    """Accumulators like the parameters, of `dtype` or at least float32."""
    check_params(params)
    return jax.tree.map(lambda p: jnp.zeros_like(p, dtype=dtype or wide_dtype(p)), params)


def wide_copy(params: Tree) -> Tree:
    """The parameters in their wide types, in buffers of their own: a state that shared theirs could not be donated."""
    return jax.tree.map(lambda p: jnp.array(p, wide_dtype(p), copy=True), params)


def wide_dtype(x):
    return jnp.promote_types(jnp.result_type(x), jnp.float32)


def wide(x) -> jax.Array:
    """`x` in float32, or float64 where it is that already."""
    return jnp.asarray(x, wide_dtype(x))


def scalar(value) -> jax.Array:
    """A strongly typed scalar of the default float type: float32, or float64 under jax_enable_x64."""
    return jnp.asarray(value, dtype=jax.dtypes.canonicalize_dtype(float))


def times(factor: jax.Array, x: jax.Array) -> jax.Array:
    """`factor * x` in the type of x."""
    return factor.astype(x.dtype) * x


def zero_count() -> jax.Array:
    return jnp.zeros((), jnp.int32)


def next_count(count: jax.Array) -> jax.Array:
    """`count + 1`, staying at the largest int32 rather than turning negative."""
    return count + (count < np.iinfo(np.int32).max).astype(jnp.int32)


def one_minus_power(decay: float | jax.Array, count: jax.Array) -> jax.Array:
    """`1 - decay**count` without cancellation: the logarithm is taken in double precision, the rest is expm1.

    In float32 the plain form is 1e-5 off for decay=0.999, and 1e-4 for 0.9999.
    """
    return -jnp.expm1(count.astype(jax.dtypes.canonicalize_dtype(float)) * log(decay))


def log(value: float | jax.Array) -> float | jax.Array:
    """The natural logarithm: in double precision of a float, of a tracer in its own type; -inf for 0."""
    if isinstance(value, Tracer):
        return jnp.log1p(value - 1)  # value - 1 is exact above 0.5, where decays are
    return math.log(value) if value > 0 else -math.inf


def lerp(average: jax.Array, value: jax.Array, decay: float | jax.Array) -> jax.Array:
    """`decay * average + (1 - decay) * value`, in the form whose weights add to one after rounding.

    With `1 - decay` rounded once, a constant value is its own average; float32(0.999) + float32(0.001) is not 1. The
    step starts from the heavier of the two, so that nothing of it is lost in the difference. Where the difference
    overflows, or the average has, the plain form is used: its terms do not.
    """
    decay = cast(decay, average)
    difference = value - average
    if isinstance(decay, Tracer):
        stepped = jnp.where(decay < 0.5, value - decay * difference, average + (1.0 - decay) * difference)
    elif decay < 0.5:
        stepped = value - decay * difference
    else:
        stepped = average + (1.0 - decay) * difference
    return jnp.where(jnp.isfinite(difference), stepped, decay * average + (1.0 - decay) * value)


def ratio(numerator: jax.Array, divisor: jax.Array) -> jax.Array:
    """`numerator / divisor`, and 0 for a divisor of 0: with eps=0 a parameter without a gradient stays where it is."""
    return jnp.where(divisor == 0, 0, numerator / divisor)  # a NaN stays a NaN


def cast(value: float | jax.Array, x: jax.Array) -> float | jax.Array:
    """A hyperparameter for arithmetic with `x`, whose type the result keeps: a float as it is, a tracer in x's type."""
    return value.astype(x.dtype) if isinstance(value, Tracer) else value


def accept_names(**names: str) -> Callable:
    """A decorator: `accept_names(rho='decay')` lets a function be called with optax's `rho` for its own `decay`."""

    def decorate(function: Callable) -> Callable:
        own, title = inspect.signature(function), getattr(function, '__name__', '')
        others = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in names]

        @functools.wraps(function)
        def call(*args, **kwargs):
            given = {names[other]: (other, kwargs.pop(other)) for other in names if other in kwargs}
            bound = own.bind_partial(*args, **kwargs)
            for name, (other, value) in given.items():
                if value is None:
                    continue
                default = own.parameters[name].default
                ours = bound.arguments.get(name, default)
                if not isinstance(ours, jax.Array) and ours != default:  # optax injects defaults too, as arrays
                    raise UsageError(f'{other} is {name} of {title}; give one of them')
                bound.arguments[name] = value
            return function(*bound.args, **bound.kwargs)

        # Seen by canon.named and by optax.inject_hyperparams.
        call.__signature__ = own.replace(parameters=[*own.parameters.values(), *others])  # ty: ignore
        return call

    return decorate


def to_number(name: str, value, low: float = 0.0, below: float = math.inf, above: float | None = None):
    """Returns a hyperparameter, checked by `check_range`, as a float, or as a strongly typed scalar where it is traced.

    Concrete arrays become floats too: what follows from them is then computed in double precision.
    """
    check_range(name, value, low, below, above)
    if jnp.shape(value):
        raise UsageError(f'{name} has shape {jnp.shape(value)}; expected a scalar (use jax.vmap for several)')
    return scalar(value) if isinstance(value, Tracer) else float(value)


def to_integer(name: str, value, least: int = 1, traced: bool = False) -> int:
    """Returns a length or a count as an int. Raises UsageError for anything else, for a tracer unless `traced`."""
    if isinstance(value, Tracer):
        if traced:
            return value
        raise UsageError(
            f'{name} decides shapes and cannot be traced; under optax.inject_hyperparams, name it in static_args'
        )
    kind = getattr(value, 'dtype', np.asarray(value).dtype)
    if isinstance(value, str) or jnp.shape(value) or not np.issubdtype(kind, np.integer):
        raise UsageError(f'{name}={value!r} must be an integer of at least {least}')
    if not least <= value < 2**31:
        raise UsageError(f'{name}={value!r} must be an integer of at least {least} and below 2^31')
    return int(value)


def check_range(name: str, value, low: float = 0.0, below: float = math.inf, above: float | None = None) -> None:
    """Raises UsageError unless low <= value < below, and value > above where that is given.

    Traced values pass: they have no value yet.
    """
    if isinstance(value, Tracer):
        return
    if callable(value):
        raise UsageError(f'{name} takes no schedule; wrap the optimizer in optax.inject_hyperparams')
    try:
        if isinstance(value, str | bool | None):  # numpy would read '1e-3' as a number
            raise TypeError
        number = np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f'{name}={value!r} is not a number') from error
    if above is not None and not np.all(number > above):
        raise UsageError(f'{name}={value!r} must be {"positive" if above == 0 else f"above {above:g}"}')
    if not np.all((number >= low) & (number < below)):
        upper = 'finite' if below == math.inf else f'below {below:g}'
        raise UsageError(f'{name}={value!r} must be at least {low:g} and {upper}')


def to_mode(mode: str | None, metric: str) -> str:
    """Returns the direction of a metric. Raises UsageError unless it is 'min' or 'max'; it has no default."""
    if mode is None or mode not in ('min', 'max'):
        raise UsageError(f"mode={mode!r} must be 'min' or 'max': is {metric!r} better when lower or higher?")
    return mode
