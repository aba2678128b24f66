"""Receptive fields of stages: by arithmetic over windows, and by lighting single rows of the image.

An image that is zero but for one row, and a network without biases whose kernels are all positive, give a stage that is
zero exactly where it does not see that row: whatever the depth, nothing drowns in rounding.
"""

import jax
import jax.numpy as jnp
import numpy as np

from tests.quick import quick_jit


def field(windows, place: int) -> tuple[int, int]:
    """Returns the first and last row of the image that `place` sees through windows (size, stride, padding above)."""
    first, extent, jump = 0, 1, 1
    for size, stride, padding in windows:
        first -= padding * jump
        extent += (size - 1) * jump
        jump *= stride
    return first + place * jump, first + place * jump + extent - 1


def check_fields(model, shapes, paths: dict[str, list], height: int, width: int) -> None:
    """Checks that the middle place of each stage sees the outermost rows of its field, and none beyond.

    paths: {stage: windows of its widest path}.

    Stride and padding are right where both edges are: a place further on is checked too.
    """
    variables = jax.tree_util.tree_map_with_path(_positive, shapes)
    x = jax.ShapeDtypeStruct((1, height, width, 3), np.float32)
    stages = jax.eval_shape(lambda v, x: model.apply(v, x, method='features'), shapes, x)
    cases = []
    for name, windows in paths.items():
        middle = stages[name].shape[1] // 2
        for place in (middle, middle + 1):
            first, last = field(windows, place)
            assert first > 0, f'{name}: {height} rows are too few for rows {first} to {last}'
            assert last < height - 1, f'{name}: {height} rows are too few for rows {first} to {last}'
            cases += [(name, place, row, row in (first, last)) for row in (first - 1, first, last, last + 1)]
    lit = np.zeros((len(cases), height, width, 3), np.float32)
    for i, (_, _, row, _) in enumerate(cases):
        lit[i, row] = 1

    @quick_jit
    def sees(x):
        stages_of_row = model.apply(variables, x[None], method='features')
        return {name: (stages_of_row[name] > 0).any((0, 2, 3)) for name in paths}

    for image, (name, place, row, expected) in zip(lit, cases, strict=True):
        assert bool(sees(image)[name][place]) == expected, (name, place, row)


def _positive(path, leaf):
    kind = path[-1].key
    if kind == 'kernel':
        return jnp.full(leaf.shape, 1 / np.prod(leaf.shape[:-1]))
    return jnp.ones(leaf.shape) if kind in ('scale', 'var') else jnp.zeros(leaf.shape)
