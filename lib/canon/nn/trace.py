"""Counts parameters and multiply-adds of networks, and finds the receptive fields and strides of their maps.

Nothing is computed: the network is traced to a jaxpr, which is walked once. For every map that depends on the images
the walk keeps the receptive field of one place, and the distance between the fields of two neighbouring places.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core

from canon import backend
from canon.errors import CanonError

Pair = tuple[int, int]


class NetworkTrace(NamedTuple):
    """The costs of a network and the receptive field of its last map.

    Attributes:
      parameters: number of values in the collection 'params'.
      multiply_adds: of convolutions and matrix products, for one image.
      field: (rows, columns) of the image that one place of the last map sees: of the map that is flattened, averaged or
        returned as logits. Padding counts, so a field may be larger than the image.
      stride: (rows, columns) of the image between two neighbouring places of that map.
    """

    parameters: int
    multiply_adds: int
    field: Pair
    stride: Pair


class Costs(NamedTuple):
    """The costs of a network: values in the collection 'params'; multiply-adds of its convolutions and products."""

    parameters: int
    multiply_adds: int


class StageTrace(NamedTuple):
    """One stage of a backbone: what a detector or a segmentation network has to know of it.

    Attributes:
      stride: (rows, columns) of the image between two neighbouring places.
      channels: of the map.
      field: (rows, columns) of the image that one place sees, padding counted.
    """

    stride: Pair
    channels: int
    field: Pair


class Field(NamedTuple):
    """The receptive field of one place of a map: `extent` rows and columns, `stride` apart from its neighbour's."""

    extent: Pair = (1, 1)
    stride: Pair = (1, 1)

    def through(self, window: Pair, stride: Pair = (1, 1), dilation: Pair = (1, 1)) -> 'Field':
        """Returns the field of a window over this map: extent + (window - 1) dilation stride of the map."""
        axes = list(zip(self.extent, self.stride, window, stride, dilation, strict=True))
        return Field(
            tuple(e + (w - 1) * d * j for e, j, w, _, d in axes),  # ty: ignore[invalid-argument-type]
            tuple(j * s for _, j, _, s, _ in axes),  # ty: ignore[invalid-argument-type]
        )


def trace_network(model: Any, size: int | Pair, channels: int = 3) -> NetworkTrace:
    """Counts the parameters and multiply-adds of a network at evaluation, and finds the field of its last map.

    Layers that do not lead to the logits, such as auxiliary heads, cost nothing, but their parameters count.

    Args:
      model: a linen module that takes images [1, H, W, channels].
      size: of the images, one number or (H, W).
      channels: of the images.

    Raises:
      CanonError: the network has loops (`lax.scan`, `while_loop`, `cond`).
    """
    (logits, variables), equations, jaxpr = _trace(model, size, channels)
    walk = _Walk()
    count = len(jax.tree.leaves(logits))
    states = walk.over(_leading_to(equations, jaxpr, count), jaxpr, [None, Field()])
    maps = [state for state in (*walk.ends, *states[:count]) if isinstance(state, Field)]
    last = max(maps, default=Field())  # the deepest of the maps that lead to the logits
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables.get('params', {})))
    return NetworkTrace(parameters, walk.multiply_adds, last.extent, last.stride)


def count_costs(model: Any, *inputs: Any, **arguments: Any) -> Costs:
    """Counts the parameters and multiply-adds of any network at evaluation, loops of a fixed length included.

    >>> from canon import models
    >>> count_costs(models.make_model('igr.igr'), jax.ShapeDtypeStruct((1, 3), np.float32)).parameters
    1839614

    Args:
      model: a linen module.
      *inputs: what it is called with, arrays or `jax.ShapeDtypeStruct`s.
      **arguments: further arguments, which are not traced.

    Raises:
      CanonError: the network has a loop whose length depends on values.
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    with backend.forms('plain'):
        variables = jax.eval_shape(lambda key, *x: model.init(key, *x, **arguments), key, *inputs)
        closed = jax.make_jaxpr(lambda variables, *x: model.apply(variables, *x, **arguments))(variables, *inputs)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables.get('params', {})))
    return Costs(parameters, count_products(closed.jaxpr))


def count_products(jaxpr: Any) -> int:
    """Counts the multiply-adds of a program: of a scan, those of its body per step; of a choice, the dearest case."""
    total = 0
    for equation in jaxpr.eqns:
        name, inner = equation.primitive.name, list(_inner(equation.params))
        if name == 'while' and any(map(count_products, inner)):
            raise CanonError("a 'while' of unknown length is not counted; write the network without it")
        if name == 'cond':
            total += max(count_products(branch.jaxpr) for branch in equation.params['branches'])
        elif inner:
            total += count_products(inner[0]) * equation.params.get('length', 1)
        else:
            total += _multiply_adds(equation)
    return total


def trace_stages(model: Any, size: int | Pair = 224, channels: int = 3) -> dict[str, StageTrace]:
    """Finds stride, channels and receptive field of every stage that `model.features` returns, in their order.

    >>> from canon import models
    >>> {name: stage.stride[0] for name, stage in trace_stages(models.make_model('resnet.resnet18')).items()}
    {'conv1': 2, 'conv2_x': 4, 'conv3_x': 8, 'conv4_x': 16, 'conv5_x': 32}

    Args:
      model: a network with a method `features`, see `canon.nn.Network`.
      size: of the images, one number or (H, W); strides do not depend on it.
      channels: of the images.

    Raises:
      CanonError: the network has loops.
    """
    names: list[str] = []

    def features(module, images):
        stages = module.features(images)
        names[:] = stages  # a dict that leaves a trace is sorted by its keys
        return list(stages.values())

    (stages, _), equations, jaxpr = _trace(model, size, channels, method=features)
    states = _Walk().over(_leading_to(equations, jaxpr, len(stages)), jaxpr, [None, Field()])
    return {
        name: StageTrace(state.stride, stage.shape[-1], state.extent)
        for name, stage, state in zip(names, stages, states, strict=False)
    }


def select_pyramid(stages: Mapping[str, StageTrace]) -> dict[int, str]:
    """Selects the last, semantically strongest stage of each stride: {stride: name}, as feature pyramids use them.

    >>> from canon import models
    >>> select_pyramid(trace_stages(models.make_model('mobilenet.mobilenet_v2')))
    {2: 'bottleneck1', 4: 'bottleneck2', 8: 'bottleneck3', 16: 'bottleneck5', 32: 'conv_last'}

    Args:
      stages: of `trace_stages`.
    """
    return {max(stage.stride): name for name, stage in stages.items()}


def _trace(model: Any, size: int | Pair, channels: int, method: Callable | None = None) -> tuple[Any, list, Any]:
    """Returns ((output, variables) of `init` as shapes, the equations, the jaxpr of (key, images))."""
    height, width = (size, size) if isinstance(size, int) else size
    images = jax.ShapeDtypeStruct((1, height, width, channels), np.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    with backend.forms('plain'):  # one convolution per layer, not the sums of products of the CPU forms
        run = jax.make_jaxpr(lambda key, x: model.init_with_output(key, x, method=method), return_shape=True)
        closed, shapes = run(key, images)
    return shapes, closed.jaxpr.eqns, closed.jaxpr


def _leading_to(equations: list[Any], jaxpr: Any, count: int) -> list[Any]:
    """Returns the equations that the first `count` outputs depend on, in order."""
    needed, selected = {v for v in jaxpr.outvars[:count] if isinstance(v, core.Var)}, []
    # Backwards, so that an equation is reached after all that read its outputs.
    for equation in reversed(equations):
        if not needed.isdisjoint(equation.outvars):
            selected.append(equation)
            needed.update(v for v in equation.invars if isinstance(v, core.Var))
    return selected[::-1]


class _Walk:
    """Walks equations. A variable's state is None if independent of the images, a Field if a map, else 'no map'."""

    def __init__(self):
        self.multiply_adds = 0
        self.ends: list[Field] = []  # of the maps that end in something other than a map: a flattening, a mean

    def over(self, equations: list[Any], jaxpr: Any, states: list[Any]) -> list[Any]:
        state_of = dict(zip(jaxpr.invars, states, strict=True))
        for equation in equations:
            inputs = [state_of.get(v) if isinstance(v, core.Var) else None for v in equation.invars]
            if all(state is None for state in inputs):  # of parameters and constants alone
                continue
            state_of.update(zip(equation.outvars, self._step(equation, inputs), strict=True))
        return [state_of.get(v) if isinstance(v, core.Var) else None for v in jaxpr.outvars]

    def _step(self, equation: Any, inputs: list[Any]) -> list[Any]:
        name = equation.primitive.name
        if name in ('scan', 'while', 'cond'):
            raise CanonError(f'a trace with a {name!r} is not counted; write the network without it')
        for inner in _inner(equation.params):  # a call: its equations stand for it
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
        if window := _window(equation):  # branches that meet have the larger field of the two
            return joined.through(*window)
        same_size = all(shape[1:3] == map_shape[1:3] for _, map_shape in maps)
        # Cropping and padding shift a map but keep its stride; any other change of size ends it.
        return joined if same_size or equation.primitive.name in ('slice', 'pad', 'concatenate') else 'no map'


def _inner(params: Mapping[str, Any]) -> Iterator[Any]:
    """Yields the jaxpr that an equation calls: of jit, custom_jvp_call, custom_vjp_call, checkpoint."""
    for value in params.values():
        if isinstance(value, core.ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, core.Jaxpr):
            yield value


def _multiply_adds(equation: Any) -> int:
    """Counts products: each output of a convolution sums over its window and the channels of its group.

    The zeros between the pixels of a transposed convolution, or of the gradient of a strided one, are not multiplied.
    """
    params, out = equation.params, equation.outvars[0].aval
    if equation.primitive.name == 'conv_general_dilated':
        kernel = equation.invars[1].aval.shape
        window = int(np.prod([kernel[i] for i in params['dimension_numbers'].rhs_spec[1:]]))
        return out.size * window // int(np.prod(params['lhs_dilation']))
    if equation.primitive.name == 'dot_general':
        # Batch and free axes are those of the output; each of its entries is a sum over the contracted ones.
        (contracted, _), _ = params['dimension_numbers']
        return out.size * int(np.prod([equation.invars[0].aval.shape[i] for i in contracted]))
    return 0


def _window(equation: Any) -> tuple[Pair, Pair, Pair] | None:
    """Returns the (size, stride, dilation) of an equation's windows over rows and columns; None if it has none."""
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
