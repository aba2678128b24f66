"""Backbones and layers beside a plain linen model of the same network, and beside torchvision: below 1 is better.

    python -m benchmarks.backbones [--rounds=5] [--only=resnet50_train,lrn] [--torch=PYTHON]

Batches of 8, 224 pixels, float32, SGD with momentum. linen's side is what one writes without Canon: nn.Conv,
nn.BatchNorm, linen's pools, the compiler's default options. --torch names an interpreter with torch and torchvision,
whose side is channels last. How the sides take turns: benchmarks/beside.py.
"""

import time
from collections.abc import Callable
from typing import Any

from benchmarks import beside
from benchmarks.beside import Work

if __name__ == '__main__':
    beside.restart('benchmarks.backbones')

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from canon import ops, optim
from canon.models import mobilenet, resnet
from canon.ops import backend

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


def drawn(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def parameters(variables) -> int:
    return sum(p.size for p in jax.tree.leaves(variables['params']))


def networks(name: str) -> tuple[nn.Module, nn.Module]:
    if name == 'resnet50':
        return resnet.resnet50(), ResNet50()
    return mobilenet.mobilenet_v2(dropout=0.0), MobileNetV2()


def variables_of(model: nn.Module, x: jax.Array):
    return jax.jit(model.init, compiler_options=backend.compiler_options())(jax.random.key(0), x)


def forward(name: str) -> tuple[Callable, Callable]:
    x = drawn(BATCH, SIZE, SIZE, 3)
    calls = []
    for model, options in zip(networks(name), (backend.compiler_options(), {}), strict=True):
        variables = variables_of(model, x)
        call = jax.jit(lambda v, x, model=model: model.apply(v, x), compiler_options=options)
        calls.append(lambda call=call, variables=variables: call(variables, x))
    return calls[0], calls[1]


def train(name: str) -> tuple[Callable, Callable]:
    ours, linen = networks(name)
    x = drawn(BATCH, SIZE, SIZE, 3)
    counts = [parameters(jax.eval_shape(model.init, jax.random.key(0), x)) for model in (ours, linen)]
    assert counts[0] == counts[1], f'not the same network: {counts} parameters'
    return (
        trainer(ours, optim.momentum(0.01), x, backend.compiler_options(), 'canon'),
        trainer(linen, optax.sgd(0.01, 0.9), x, {}, 'linen'),
    )


def trainer(model: nn.Module, tx: Any, x: jax.Array, options: dict, who: str) -> Callable:
    """One donated step of SGD with momentum; prints what its compilation took."""
    labels = jnp.arange(BATCH)

    def step(params, stats, state):
        def loss(params):
            logits, mutated = model.apply(
                {'params': params, 'batch_stats': stats}, x, train=True, mutable=['batch_stats']
            )
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), mutated['batch_stats']

        (value, moved), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), moved, state, value

    variables = variables_of(model, x)
    held = [variables['params'], variables['batch_stats'], jax.jit(tx.init)(variables['params'])]
    traced = jax.jit(step, donate_argnums=(0, 1, 2), compiler_options=options).lower(*held)
    wall, cpu = time.perf_counter(), time.process_time()
    compiled = traced.compile()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f'  {who}: the train step compiles in {cpu:.1f} s of CPU ({wall:.1f} s)', flush=True)

    def call():
        *held[:], value = compiled(*held)
        return value

    return call


def operation(ours: Callable, linen: Callable, *shapes: tuple[int, ...], gradient: bool = True):
    inputs = [drawn(*shape) for shape in shapes]

    def with_gradient(function):
        def both(upstream, *inputs):
            y, pull = jax.vjp(function, *inputs)
            return y, pull(upstream)

        return both

    if not gradient:
        first, second = jax.jit(ours, compiler_options=backend.compiler_options()), jax.jit(linen)
        return lambda: first(*inputs), lambda: second(*inputs)
    upstream = drawn(*jax.eval_shape(ours, *inputs).shape)
    first = jax.jit(with_gradient(ours), compiler_options=backend.compiler_options())
    second = jax.jit(with_gradient(linen))
    return lambda: first(upstream, *inputs), lambda: second(upstream, *inputs)


def plain_max_pool(x):
    return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))


def plain_lrn(x):
    total = lax.reduce_window(jnp.square(x), 0.0, lax.add, (1, 1, 1, 5), (1, 1, 1, 1), 'SAME')
    return x / (2 + 1e-4 / 5 * total) ** 0.75


def plain_batch_norm(x, scale, bias):
    layer = nn.BatchNorm(use_running_average=False, epsilon=1e-5)
    stats = {'mean': jnp.zeros_like(scale), 'var': jnp.ones_like(scale)}
    return layer.apply({'params': {'scale': scale, 'bias': bias}, 'batch_stats': stats}, x, mutable=['batch_stats'])[0]


def max_pool():
    return operation(lambda x: ops.max_pool(x, 3, 2, 1), plain_max_pool, (BATCH, 112, 112, 64))


def lrn():
    return operation(lambda x: ops.lrn(x, divide_by_n=True), plain_lrn, (BATCH, 55, 55, 96), gradient=False)


def batch_norm():
    shapes = (BATCH, 56, 56, 256), (256,), (256,)
    return operation(lambda *a: ops.batch_norm_train(*a, 1e-5)[0], plain_batch_norm, *shapes)


WORKS = {
    'max_pool': Work(max_pool, 5, 0.3, 2.0),
    'lrn': Work(lrn, 10, 0.6, 0.3),
    'batch_norm': Work(batch_norm, 5, 0.8, 0.9),
    'mobilenet_v2_forward': Work(lambda: forward('mobilenet_v2'), 2, 0.2, 0.5),
    'resnet50_forward': Work(lambda: forward('resnet50'), 1, 0.7, 0.9),
    'mobilenet_v2_train': Work(lambda: train('mobilenet_v2'), 1, 0.15, 1.1),
    'resnet50_train': Work(lambda: train('resnet50'), 1, 0.35, 1.0),
}


if __name__ == '__main__':
    beside.main(str(__doc__), WORKS, 'backbones_torch.py')
