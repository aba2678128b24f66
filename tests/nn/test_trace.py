"""Counts by hand, and fields against the support of a gradient."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon import ops
from canon.errors import CanonError
from canon.nn import BatchNorm, Conv, Network, SeparableConv
from canon.nn.trace import NetworkTrace, trace_network


class Small(Network):
    """Strides, dilation, groups, branches of different height and width, a strided slice, and a head that trains."""

    @nn.compact
    def __call__(self, images, train=False, features=False):
        x = ops.relu(BatchNorm()(Conv(8, 5, 2, 2)(images), train))
        x = ops.max_pool(x, 3, 2, padding=1)
        x = SeparableConv(6, 3)(x)
        y = Conv(6, 3, dilation=3, padding=3, groups=2)(x)
        x = jnp.concatenate([x + y, ops.relu6(Conv(4, (1, 7), padding=(0, 3))(x))], -1)
        x = x[:, ::2, ::2]
        if features:
            return {'last': x}
        if train or self.is_initializing():
            head = nn.Dense(10, name='head')(x.mean((1, 2)))
            if not self.is_initializing():
                self.sow('auxiliary', 'head', head)
        x = nn.Dense(5, name='first')(x.reshape(x.shape[0], -1))
        return nn.Dense(3, name='second')(nn.sigmoid(x))


def test_by_hand():
    trace = trace_network(Small(), (64, 48))
    maps = 32 * 24 * 8 * 25 * 3
    maps += 16 * 12 * (8 * 9 + 8 * 6) + 16 * 12 * 6 * 9 * 3 + 16 * 12 * 4 * 7 * 6
    dense = 8 * 6 * 10 * 5 + 5 * 3
    assert trace.multiply_adds == maps + dense
    parameters = 25 * 3 * 8 + 8 + 2 * 8 + (9 * 8 + 8 * 6 + 6) + (9 * 3 * 6 + 6) + (7 * 6 * 4 + 4)
    assert trace.parameters == parameters + (8 * 6 * 10 * 5 + 5) + (5 * 3 + 3) + (10 * 10 + 10)


def test_field_is_the_support_of_a_gradient(monkeypatch):
    """Of the middle place of the last map; all kernels positive, and averages for maxima, so that nothing hides."""
    model, trace = Small(), trace_network(Small(), 128)
    monkeypatch.setattr(ops, 'max_pool', ops.avg_pool)
    monkeypatch.setattr(ops, 'relu6', ops.relu)
    x = np.ones((1, 128, 128, 3), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    variables = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.1, leaf.dtype), shapes)

    @jax.jit
    def pixels_of(row, column):
        last = lambda x: model.apply(variables, x, method='features')['last'][0, row, column].sum()  # noqa: E731
        return jax.grad(last)(x)[0].sum(-1)

    def support(row, column):
        where = np.asarray(pixels_of(row, column)) > 0
        return [np.flatnonzero(where.any(1 - axis)) for axis in (0, 1)]

    middle, below, beside = support(8, 8), support(9, 8), support(8, 9)
    assert tuple(int(rows[-1] - rows[0] + 1) for rows in middle) == trace.field
    assert (below[0][0] - middle[0][0], beside[1][0] - middle[1][0]) == trace.stride == (8, 8)


def test_nested_calls_are_traced():
    class Called(Network):
        @nn.compact
        def __call__(self, images, train=False, features=False):
            kernel = self.param('kernel', nn.initializers.ones, (3, 3, 3, 4))
            x = jax.jit(lambda x: jax.checkpoint(lambda x: ops.conv(x, kernel, 2))(x))(images)
            return x.mean((1, 2))

    assert trace_network(Called(), 9) == NetworkTrace(108, 4 * 4 * 4 * 27, (3, 3), (2, 2))


def test_loops_are_refused():
    class Looped(Network):
        @nn.compact
        def __call__(self, images, train=False, features=False):
            return jax.lax.fori_loop(0, 3, lambda i, x: x * 2, images)

    with pytest.raises(CanonError, match=r"a trace with a '(scan|while)' is not counted"):
        trace_network(Looped(), 8)
