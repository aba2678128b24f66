"""Backbones and layers compared with a plain linen model of the same network, and with torchvision: below 1 is better.

    python -m benchmarks.backbones [--rounds=5] [--only=resnet50_train,lrn] [--torch=PYTHON]

Batches of 8, 224 pixels, float32, SGD with momentum. linen's side is what one writes without Canon: nn.Conv,
nn.BatchNorm, linen's pools, the compiler's default options. --torch names an interpreter with torch and torchvision,
whose side is channels last. How the sides take turns: benchmarks/comparison.py.
"""

import functools
import sys
import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from benchmarks import comparison
from benchmarks.comparison import ALL_FORMS, Benchmark, Peer, Work
from benchmarks.steps import repeat
from canon import backend, ops, optim
from canon.models import mobilenet, resnet

BATCH, SIZE = 8, 224


# --- the peers: ResNet-50 (v1.5) and MobileNetV2 as one writes them with linen ------------------------------------


class ResNet50(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        def norm(x):
            return nn.BatchNorm(not train, momentum=0.9)(x)

        x = nn.relu(norm(nn.Conv(64, (7, 7), 2, 3, use_bias=False)(x)))
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage, depth in enumerate((3, 4, 6, 3)):
            for block in range(depth):
                width, stride, y = 64 * 2**stage, 2 if stage and not block else 1, x
                y = nn.relu(norm(nn.Conv(width, (1, 1), use_bias=False)(y)))
                y = nn.relu(norm(nn.Conv(width, (3, 3), stride, 1, use_bias=False)(y)))
                y = norm(nn.Conv(4 * width, (1, 1), use_bias=False)(y))
                if not block:
                    x = norm(nn.Conv(4 * width, (1, 1), stride, use_bias=False)(x))
                x = nn.relu(x + y)
        return nn.Dense(1000)(x.mean((1, 2)))


class MobileNetV2(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        def unit(x, width, kernel=1, stride=1, groups=1):
            pad = kernel // 2
            x = nn.Conv(width, (kernel, kernel), stride, pad, feature_group_count=groups, use_bias=False)(x)
            return nn.BatchNorm(not train, momentum=0.9)(x)

        x = nn.relu6(unit(x, 32, 3, 2))
        table = (
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        )
        for expand, width, depth, stride in table:
            for block in range(depth):
                y, inner, step = x, x.shape[-1] * expand, 1 if block else stride
                if expand > 1:
                    y = nn.relu6(unit(y, inner))
                y = unit(nn.relu6(unit(y, inner, 3, step, inner)), width)
                x = x + y if step == 1 and x.shape[-1] == width else y
        return nn.Dense(1000)(nn.relu6(unit(x, 1280)).mean((1, 2)))


# --- what is timed ------------------------------------------------------------------------------------------------


def draw_array(*shape: int) -> jax.Array:
    """Draws an array of normal numbers, the same in every process."""
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def count_parameters(variables) -> int:
    return sum(p.size for p in jax.tree.leaves(variables['params']))


def make_networks(name: str) -> dict[str, nn.Module]:
    if name == 'resnet50':
        return {'canon': resnet.resnet50(), 'linen': ResNet50()}
    return {'canon': mobilenet.mobilenet_v2(dropout=0.0), 'linen': MobileNetV2()}


def compiler_options(side: str) -> dict:
    """Canon's options for its own side, the compiler's defaults for linen's."""
    return backend.compiler_options() if side == 'canon' else {}


def init_variables(model: nn.Module, x: jax.Array):
    return backend.jit(model.init)(jax.random.key(0), x)


def make_forward(name: str, side: str) -> Callable:
    x, model = draw_array(BATCH, SIZE, SIZE, 3), make_networks(name)[side]
    variables = init_variables(model, x)
    call = jax.jit(model.apply, compiler_options=compiler_options(side))
    return lambda: call(variables, x)


def make_train_step(name: str, side: str) -> Callable:
    x, models = draw_array(BATCH, SIZE, SIZE, 3), make_networks(name)
    # Times of different networks would compare nothing.
    counts = [count_parameters(jax.eval_shape(model.init, jax.random.key(0), x)) for model in models.values()]
    assert counts[0] == counts[1], f'not the same network: {counts} parameters'
    tx = optim.momentum(0.01) if side == 'canon' else optax.sgd(0.01, 0.9)
    return compile_step(models[side], tx, x, compiler_options(side), side)


def compile_step(model: nn.Module, tx: Any, x: jax.Array, options: dict, side: str) -> Callable:
    """One donated step of SGD with momentum; prints what its compilation took."""
    labels = jnp.arange(BATCH)

    def step(params, stats, state):
        def loss(params):
            logits, mutated = model.apply(
                {'params': params, 'batch_stats': stats}, x, train=True, mutable=['batch_stats']
            )
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), mutated['batch_stats']

        (value, stats_after), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), stats_after, state, value

    variables = init_variables(model, x)
    carry = [variables['params'], variables['batch_stats'], jax.jit(tx.init)(variables['params'])]
    traced = jax.jit(step, donate_argnums=(0, 1, 2), compiler_options=options).lower(*carry)
    wall, cpu = time.perf_counter(), time.process_time()
    compiled = traced.compile()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f'  {side}: the train step compiles in {cpu:.1f} s of CPU ({wall:.1f} s)', file=sys.stderr, flush=True)
    return repeat(compiled, carry)


def compile_operation(functions: dict[str, Callable], shapes: tuple, side: str, gradient: bool = True) -> Callable:
    """A compiled operation of arrays of these shapes, with its gradient or without."""
    function, inputs = functions[side], [draw_array(*shape) for shape in shapes]

    def with_gradient(upstream, *inputs):
        y, pull = jax.vjp(function, *inputs)
        return y, pull(upstream)

    if gradient:  # of random numbers: that of a sum would be an array of ones, which XLA simplifies away
        inputs = [draw_array(*jax.eval_shape(function, *inputs).shape), *inputs]
    call = jax.jit(with_gradient if gradient else function, compiler_options=compiler_options(side))
    return lambda: call(*inputs)


def plain_max_pool(x):
    return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))


def plain_lrn(x):
    total = lax.reduce_window(jnp.square(x), 0.0, lax.add, (1, 1, 1, 5), (1, 1, 1, 1), 'SAME')
    return x / (2 + 1e-4 / 5 * total) ** 0.75


def plain_batch_norm(x, scale, bias):
    layer = nn.BatchNorm(use_running_average=False, epsilon=1e-5)
    stats = {'mean': jnp.zeros_like(scale), 'var': jnp.ones_like(scale)}
    return layer.apply({'params': {'scale': scale, 'bias': bias}, 'batch_stats': stats}, x, mutable=['batch_stats'])[0]


OPERATIONS: dict[str, tuple[dict[str, Callable], tuple]] = {
    'max_pool': ({'canon': lambda x: ops.max_pool(x, 3, 2, 1), 'linen': plain_max_pool}, ((BATCH, 112, 112, 64),)),
    'lrn': ({'canon': lambda x: ops.lrn(x, divide_by_n=True), 'linen': plain_lrn}, ((BATCH, 55, 55, 96),)),
    'batch_norm': (
        {'canon': lambda *a: ops.batch_norm_train(*a, 1e-5)[0], 'linen': plain_batch_norm},
        ((BATCH, 56, 56, 256), (256,), (256,)),
    ),
}


def make_operation(name: str, side: str) -> Callable:
    return compile_operation(*OPERATIONS[name], side, gradient=name != 'lrn')


def make_work(make: Callable[[str, str], Callable], name: str, calls: int, linen: float, torch: float) -> Work:
    """The comparison of what make(name, side) builds. linen, torch: the ratios to reach."""
    sides = {side: functools.partial(make, name, side) for side in ('canon', 'linen')}
    return Work(sides, calls, {'linen': linen, 'torch': torch})


WORKS = {
    'max_pool': make_work(make_operation, 'max_pool', 5, 0.3, 1.1),
    'lrn': make_work(make_operation, 'lrn', 10, 0.6, 0.3),
    'batch_norm': make_work(make_operation, 'batch_norm', 5, 0.8, 1.0),
    'mobilenet_v2_forward': make_work(make_forward, 'mobilenet_v2', 2, 0.2, 1.0),
    'resnet50_forward': make_work(make_forward, 'resnet50', 1, 0.7, 1.0),
    'mobilenet_v2_train': make_work(make_train_step, 'mobilenet_v2', 1, 0.15, 1.0),
    'resnet50_train': make_work(make_train_step, 'resnet50', 1, 0.35, 1.0),
}
BENCHMARK = Benchmark('benchmarks.backbones', WORKS, Peer('backbones_torch.py', settings=ALL_FORMS))


if __name__ == '__main__':
    comparison.main(__doc__, BENCHMARK)
