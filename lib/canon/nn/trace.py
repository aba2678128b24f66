"""What a network costs and what it sees, read off its trace: parameters, multiply-adds, receptive field, stride.

Nothing is computed. `traced` writes the network down as a jaxpr and walks it once: of every array that depends on the
images it keeps how many rows and columns of them one place sees, and how far apart two places are.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core

from canon import backend
from canon.errors import CanonError

Pair = tuple[int, int]


class Traced(NamedTuple):
    """parameters: of the collection 'params'. multiply_adds: of convolutions and matrix products, for one image.

    field, stride: (rows, columns) of the images, of the last map: what is flattened, averaged or returned as logits.
    Fields count padding too, so they may be larger than the images.
    """

    parameters: int
    multiply_adds: int
    field: Pair
    stride: Pair


class Field(NamedTuple):
    """One place of a map sees `extent` rows and columns of the images; the next one sees them `stride` further on."""

    extent: Pair = (1, 1)
    stride: Pair = (1, 1)

    def through(self, window: Pair, stride: Pair = (1, 1), dilation: Pair = (1, 1)) -> 'Field':
        axes = list(zip(self.extent, self.stride, window, stride, dilation, strict=True))
        return Field(
            tuple(e + (w - 1) * d * j for e, j, w, _, d in axes),  # ty: ignore[invalid-argument-type]
            tuple(j * s for _, j, _, s, _ in axes),  # ty: ignore[invalid-argument-type]
        )


def traced(model: Any, size: int | Pair, channels: int = 3) -> Traced:
    """Of a linen module that takes images [1, H, W, channels], as it evaluates; what does not lead to its logits, such
    as auxiliary heads, costs nothing (but has parameters). Raises CanonError for a network with loops.
    """
    height, width = (size, size) if isinstance(size, int) else size
    images = jax.ShapeDtypeStruct((1, height, width, channels), np.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    with backend.forms('plain'):
        run = jax.make_jaxpr(lambda key, images: model.init_with_output(key, images), return_shape=True)
        closed, (logits, variables) = run(key, images)
    jaxpr = closed.jaxpr
    walk = _Walk()
    found = walk.over(_leading_to(jaxpr, len(jax.tree.leaves(logits))), jaxpr, [None, Field()])
    last = [f for f in (*walk.ends, *found[: len(jax.tree.leaves(logits))]) if isinstance(f, Field)]
    fields = max(last, default=Field())
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables.get('params', {})))
    return Traced(parameters, walk.multiply_adds, fields.extent, fields.stride)


def _leading_to(jaxpr: Any, count: int) -> list[Any]:
    """The equations that the first `count` outputs depend on, in order."""
    wanted, kept = {v for v in jaxpr.outvars[:count] if isinstance(v, core.Var)}, []
    for equation in reversed(jaxpr.eqns):
        if not wanted.isdisjoint(equation.outvars):
            kept.append(equation)
            wanted.update(v for v in equation.invars if isinstance(v, core.Var))
    return kept[::-1]


class _Walk:
    """A variable's state is None where it does not depend on the images, a Field where it is a map, else 'no map'."""

    def __init__(self):
        self.multiply_adds = 0
        self.ends: list[Field] = []  # of maps that something else than a map was made of

    def over(self, equations: list[Any], jaxpr: Any, states: list[Any]) -> list[Any]:
        known = dict(zip(jaxpr.invars, states, strict=True))
        for equation in equations:
            inputs = [known.get(v) if isinstance(v, core.Var) else None for v in equation.invars]
            if all(state is None for state in inputs):
                continue
            known.update(zip(equation.outvars, self._one(equation, inputs), strict=True))
        return [known.get(v) if isinstance(v, core.Var) else None for v in jaxpr.outvars]

    def _one(self, equation: Any, inputs: list[Any]) -> list[Any]:
        name = equation.primitive.name
        if name in ('scan', 'while', 'cond'):
            raise CanonError(f'a trace with a {name!r} is not counted; write the network without it')
        for inner in _inner(equation.params):
            return self.over(inner.eqns, inner, inputs)
        self.multiply_adds += _multiply_adds(equation)
        fields = [(state, v.aval.shape) for state, v in zip(inputs, equation.invars, strict=True) if state is not None]
        maps = [(state, shape) for state, shape in fields if isinstance(state, Field)]
        states = [self._state(equation, maps, v.aval.shape) for v in equation.outvars]
        if not all(isinstance(state, Field) for state in states):
            self.ends += [state for state, _ in maps]
        return states

    def _state(self, equation: Any, maps: list[tuple[Field, tuple]], shape: tuple[int, ...]) -> Any:
        if not maps or len(shape) != 4:
            return 'no map'
        joined = Field(
            tuple(max(f.extent[i] for f, _ in maps) for i in (0, 1)),  # ty: ignore[invalid-argument-type]
            tuple(max(f.stride[i] for f, _ in maps) for i in (0, 1)),  # ty: ignore[invalid-argument-type]
        )
        if window := _window(equation):
            return joined.through(*window)
        same = all(shape[1:3] == seen[1:3] for _, seen in maps)
        return joined if same or equation.primitive.name in ('slice', 'pad', 'concatenate') else 'no map'


def _inner(params: Mapping[str, Any]) -> Iterator[Any]:
    """The jaxpr that an equation calls: of jit, custom_jvp_call, custom_vjp_call, checkpoint."""
    for value in params.values():
        if isinstance(value, core.ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, core.Jaxpr):
            yield value


def _multiply_adds(equation: Any) -> int:
    """An output of a convolution is a sum over its window and the channels of its group."""
    params, out = equation.params, equation.outvars[0].aval
    if equation.primitive.name == 'conv_general_dilated':
        kernel = equation.invars[1].aval.shape
        return out.size * int(np.prod([kernel[i] for i in params['dimension_numbers'].rhs_spec[1:]]))
    if equation.primitive.name == 'dot_general':
        (contracted, _), _ = params['dimension_numbers']
        return out.size * int(np.prod([equation.invars[0].aval.shape[i] for i in contracted]))
    return 0


def _window(equation: Any) -> tuple[Pair, Pair, Pair] | None:
    """(size, stride, dilation) of the rows and columns of [B, H, W, C] that an output's place is made of."""
    name, params = equation.primitive.name, equation.params
    if name == 'conv_general_dilated':
        if params['dimension_numbers'].lhs_spec != (0, 3, 1, 2) or params['lhs_dilation'] != (1, 1):
            raise CanonError('a trace with a transposed or a channels-first convolution is not counted')
        kernel = equation.invars[1].aval.shape
        size = tuple(kernel[i] for i in params['dimension_numbers'].rhs_spec[2:])
        return size, params['window_strides'], params['rhs_dilation']
    if name.startswith('reduce_window'):
        return tuple(params[k][1:3] for k in ('window_dimensions', 'window_strides', 'window_dilation'))
    if name == 'slice' and params['strides'] is not None:
        return (1, 1), params['strides'][1:3], (1, 1)
    return None
