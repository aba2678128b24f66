"""Building blocks of the transforms: mapping over leaves, accumulators in float32, checks of hyperparameters.

Three rules hold in every file of this package. Arithmetic and accumulators are at least float32, whatever the
parameters are. An update is a function of the *stored* state: if the state is rounded to a narrow type, the update uses
the rounded value, so that XLA can write the state in place. A hyperparameter is the argument (a float, a schedule or a
tracer), and the state records the value last used; only a value set there explicitly overrides the argument.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import keystr, tree_flatten_with_path

from canon.errors import UsageError
from canon.named import suggest

F = TypeVar('F', bound=Callable)
R = TypeVar('R')
Tree = Any
BUCKETS = 'buckets of small leaves'  # the key of the joined leaves in the trees of `bucket_leaves`


def per_leaf(
    kernel: Callable, updates: Tree, *accumulators: Tree, given: tuple[Tree, ...] = (), paths: bool = False
) -> tuple:
    """Maps a kernel over leaves and returns trees.

    Args:
      kernel: (update, *accumulators, *given) -> (update, *accumulators) of one leaf.
      updates: the updates.
      accumulators: trees of the state that the kernel also returns.
      given: trees that are only read, such as the parameters.
      paths: whether the kernel gets the name of the leaf's path as its first argument.

    Raises:
      UsageError: a shape differs from that of the update, which broadcasting would hide.
    """
    leaves, treedef = jax.tree.flatten(updates)
    inputs = [_flatten_like(updates, treedef, tree) for tree in (*accumulators, *given)]
    if paths:  # the name of the path comes first, the update after it
        inputs = [leaves, *inputs]
        leaves = [path_name(path) for path, _ in tree_flatten_with_path(updates)[0]]
    results = [kernel(*row) for row in zip(leaves, *inputs, strict=True)]
    columns = zip(*results, strict=True) if results else [()] * (1 + len(accumulators))
    return tuple(treedef.unflatten(column) for column in columns)


def _flatten_like(updates: Tree, treedef, tree: Tree) -> list:
    try:
        leaves = treedef.flatten_up_to(tree)
    except ValueError as error:
        raise UsageError(f'the tree of the updates differs from that of the parameters: {error}') from error
    for (path, update), leaf in zip(tree_flatten_with_path(updates)[0], leaves, strict=True):
        if jnp.shape(update) != jnp.shape(leaf):
            name, shapes = path_name(path), f'{jnp.shape(update)}, the parameter {jnp.shape(leaf)}'
            raise UsageError(f'the update of {name or "the parameter"} has shape {shapes}')
    return leaves


def path_name(path) -> str:
    """Returns the name of a leaf's path, such as 'Dense_0/kernel', that regular expressions are matched against."""
    return keystr(path, simple=True, separator='/')


def check_params(params: Tree) -> None:
    """Raises UsageError, naming the leaf, if one is not of a real floating-point type."""
    for path, leaf in tree_flatten_with_path(params)[0]:
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            name = path_name(path) or 'the parameter'
            raise UsageError(f'{name} is {dtype}; only floating-point parameters are trained: freeze it, or remove it')


def refuse_buckets(params: Tree, rule: str) -> None:
    """Raises UsageError inside `bucket_leaves`, for rules that treat leaves differently."""
    if isinstance(params, dict) and BUCKETS in params:
        raise UsageError(f'{rule} cannot be applied to the leaves of a bucket; put it outside of bucket_leaves')


def require_params(params: Tree, rule: str) -> Tree:
    if params is None:
        raise UsageError(f'{rule} needs the parameters: call update(updates, state, params)')
    return params


def zeros(params: Tree, dtype=None) -> Tree:
    """Returns zeros in the shapes of the parameters, of `dtype` or at least float32."""
    check_params(params)
    return jax.tree.map(lambda p: jnp.zeros_like(p, dtype=dtype or wide_dtype(p)), params)


def wide_copy(params: Tree) -> Tree:
    """Copies the parameters in at least float32. A state that shared their buffers could not be donated."""
    return jax.tree.map(lambda p: jnp.array(p, wide_dtype(p), copy=True), params)


def wide_dtype(x):
    return jnp.promote_types(jnp.result_type(x), jnp.float32)


def wide(x) -> jax.Array:
    """Returns x in at least float32."""
    return jnp.asarray(x, wide_dtype(x))


def scalar(value) -> jax.Array:
    """Returns a strongly typed scalar of the default float type: float32, or float64 under jax_enable_x64."""
    return jnp.asarray(value, dtype=jax.dtypes.canonicalize_dtype(float))


def times(factor: jax.Array, x: jax.Array) -> jax.Array:
    """Returns factor * x in the type of x."""
    return factor.astype(x.dtype) * x


def zero_count() -> jax.Array:
    return jnp.zeros((), jnp.int32)


def next_count(count: jax.Array) -> jax.Array:
    """Returns count + 1, saturating at the largest int32."""
    # A comparison and not `minimum(count + 1, largest)`, whose sum would overflow first.
    return count + (count < np.iinfo(np.int32).max).astype(jnp.int32)


def one_minus_power(decay: float | jax.Array, count: jax.Array) -> jax.Array:
    """Computes 1 - decay^count without cancellation, by expm1 of a logarithm in double precision.

    In float32 the plain form has an error of 1e-5 for decay=0.999 and of 1e-4 for 0.9999.
    """
    return -jnp.expm1(count.astype(jax.dtypes.canonicalize_dtype(float)) * log(decay))


def log(value: float | jax.Array) -> float | jax.Array:
    """Computes the natural logarithm: of a float in double precision, of a tracer in its type; -inf for 0."""
    if isinstance(value, Tracer):
        return jnp.log1p(value - 1)  # value - 1 is exact above 0.5, where decays are
    return math.log(value) if value > 0 else -math.inf


def lerp(average: jax.Array, value: jax.Array, decay: float | jax.Array) -> jax.Array:
    """Computes decay * average + (1 - decay) * value in a form whose weights add up to one after rounding.

    With 1 - decay rounded once, the average of a constant is that constant; float32(0.999) + float32(0.001) is not 1.
    The step starts from the term with the larger weight, so that it is not rounded in the difference. If the difference
    overflows, or the average has, the plain form is used, whose terms do not.
    """
    # The decay is known when the update is traced, unless it is a tracer: one form is compiled then.
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
    """Divides, with 0 / 0 = 0: with eps=0 a parameter without a gradient does not move."""
    return jnp.where(divisor == 0, 0, numerator / divisor)  # a NaN stays a NaN


def cast(value: float | jax.Array, x: jax.Array) -> float | jax.Array:
    """Returns a hyperparameter for arithmetic in the type of x: a float as it is, a tracer in x's type."""
    return value.astype(x.dtype) if isinstance(value, Tracer) else value


_OF_TORCH = {'lr': 'learning_rate', 'betas': 'b1 and b2'}


def explain_names(function: F) -> F:
    """Decorates a function that raises UsageError, with the near names, for an argument that it does not have."""
    known, title = inspect.signature(function).parameters, getattr(function, '__name__', '')

    @functools.wraps(function)
    def call(*args, **kwargs):
        _check_names(title, kwargs, known)
        return function(*args, **kwargs)

    return call  # ty: ignore[invalid-explicit-return]


def _check_names(title: str, arguments: Iterable[str], known: Iterable[str]) -> None:
    for name in arguments:
        if name not in known:
            meant = _OF_TORCH.get(name)
            suggestion = f'; it is called {meant} here' if meant else suggest(name, known)
            raise UsageError(f'{title} takes no argument {name!r}{suggestion}')


def accept_names(**names: str) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Returns a decorator that accepts optax's names: `accept_names(rho='decay')` takes `rho` for `decay`.

    The function then raises UsageError for an argument that it does not have, with the near names, and for one that is
    given by both names.
    """

    def decorate(function: Callable[..., R]) -> Callable[..., R]:
        signature, title = inspect.signature(function), getattr(function, '__name__', '')
        known = {*signature.parameters, *names}
        aliases = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in names]

        @functools.wraps(function)
        def call(*args, **kwargs):
            _check_names(title, kwargs, known)
            values = {names[alias]: (alias, kwargs.pop(alias)) for alias in names if alias in kwargs}
            bound = signature.bind_partial(*args, **kwargs)
            for name, (alias, value) in values.items():
                if value is None:
                    continue
                default = signature.parameters[name].default
                current = bound.arguments.get(name, default)
                if not isinstance(current, jax.Array) and current != default:  # optax injects defaults too, as arrays
                    raise UsageError(f'{alias} is {name} of {title}; give one of them')
                bound.arguments[name] = value
            return function(*bound.args, **bound.kwargs)

        # Read by canon.named and by optax.inject_hyperparams.
        call.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *aliases])  # ty: ignore
        call.__aliases__ = names  # ty: ignore[missing-attribute]  which --help leaves out
        return call

    return decorate


def to_number(name: str, value, low: float = 0.0, below: float = math.inf, above: float | None = None):
    """Returns a hyperparameter, checked by `check_range`, as a float, or as a strongly typed scalar if it is traced.

    Concrete arrays become floats too, so that values derived from them are computed in double precision.
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
            f'{name} determines shapes and cannot be traced; under optax.inject_hyperparams, name it in static_args'
        )
    kind = getattr(value, 'dtype', np.asarray(value).dtype)
    if isinstance(value, str) or jnp.shape(value) or not np.issubdtype(kind, np.integer):
        raise UsageError(f'{name}={value!r} must be an integer of at least {least}')
    # Lengths are compared with counts, which are int32.
    if not least <= value < 2**31:
        raise UsageError(f'{name}={value!r} must be an integer of at least {least} and below 2^31')
    return int(value)


def check_range(name: str, value, low: float = 0.0, below: float = math.inf, above: float | None = None) -> None:
    """Raises UsageError unless low <= value < below, and value > above if given.

    Traced values are not checked: they have no value yet.
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
