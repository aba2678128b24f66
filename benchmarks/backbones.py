"""Backbones and layers beside a plain linen model of the same network, and beside torchvision: below 1 is better.

    python -m benchmarks.backbones [--rounds=5] [--only=resnet50_train,lrn] [--torch=PYTHON]

Batches of 8, 224 pixels, float32, SGD with momentum. linen's side is what one writes without Canon: nn.Conv,
nn.BatchNorm, linen's pools, the compiler's default options. --torch names an interpreter with torch and torchvision;
it runs in a process of its own, channels last. All sides take turns, and a ratio is the median over the rounds of
this side by that side, of wall time and of CPU time: where others run on the machine the latter is the steadier.
Everybody's temporary buffers come from an allocator that keeps them (launch.sh sets it for all runs), so the program
starts itself again with its tunables set.
"""

# ruff: noqa: E402

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

SETTINGS = {
    'GLIBC_TUNABLES': 'glibc.malloc.mmap_threshold=34359738368:glibc.malloc.trim_threshold=68719476736'
    ':glibc.malloc.arena_max=1',
    'OMP_WAIT_POLICY': 'passive',  # torch's idle threads would burn CPU time during the others' turns
}
if __name__ == '__main__' and any(os.environ.get(key) != value for key, value in SETTINGS.items()):
    os.execve(sys.executable, [sys.executable, '-m', 'benchmarks.backbones', *sys.argv[1:]], {**os.environ, **SETTINGS})

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


class Work(NamedTuple):
    """One row of the table: what each side calls, and the ratios to reach against linen and torch."""

    make: Callable[[], tuple[Callable, Callable]]  # ours and linen's, compiled
    calls: int  # timed in one turn
    linen: float
    torch: float


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


# --- timing -------------------------------------------------------------------------------------------------------


class Torch:
    """torch's side, called by the name of the work."""

    def __init__(self, python: str, script: str = 'backbones_torch.py'):
        path = Path(__file__).parents[1] / 'tools' / script
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [python, str(path)], stdin=pipe, stdout=pipe, text=True, env={**os.environ, **SETTINGS}
        )
        assert process.stdin
        assert process.stdout
        self.process, self.questions, self.answers = process, process.stdin, process.stdout
        print(self.answer())

    def answer(self) -> str:
        line = self.answers.readline()
        if not line:
            raise SystemExit('--torch wants an interpreter with torch, and torchvision for benchmarks.backbones')
        return line.strip()

    def __call__(self, work: str, calls: int) -> tuple[float, float]:
        self.questions.write(f'{work} {calls}\n')
        self.questions.flush()
        wall, cpu = map(float, self.answer().split())
        return wall, cpu


def seconds(call: Callable, calls: int) -> tuple[float, float]:
    """(wall, cpu) of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        result = call()
    jax.block_until_ready(result)
    return (time.perf_counter() - wall) / calls, (time.process_time() - cpu) / calls


def measure(name: str, rounds: int, torch: Torch | None) -> dict[str, list[tuple[float, float]]]:
    """{side: (wall, cpu) of each round}"""
    work = WORKS[name]
    print(f'{name} (load {os.getloadavg()[0]:.1f})', flush=True)
    ours, linen = work.make()
    sides = {'canon': lambda: seconds(ours, work.calls), 'linen': lambda: seconds(linen, work.calls)}
    if torch:
        sides['torch'] = lambda: torch(name, work.calls)
    for turn in sides.values():
        turn()  # compiles, and fills the allocator
    times = {side: [] for side in sides}
    for _ in range(rounds):
        for side, turn in sides.items():
            times[side].append(turn())
    return times


def ratio(times: dict, side: str, clock: int) -> float:
    return statistics.median(a[clock] / b[clock] for a, b in zip(times['canon'], times[side], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition('\n')[0])
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--only', default=','.join(WORKS), help='names of works, with commas')
    parser.add_argument('--torch', metavar='PYTHON', help='an interpreter that has torch and torchvision')
    options = parser.parse_args()
    torch = Torch(options.torch) if options.torch else None
    table = {name: measure(name, options.rounds, torch) for name in options.only.split(',')}

    print(f'\n{"ms: wall, CPU":22s}' + ''.join(f'{side:>18s}' for side in next(iter(table.values()))))
    for name, times in table.items():
        medians = ((statistics.median(t[i] for t in times[side]) for i in (0, 1)) for side in times)
        print(f'{name:22s}' + ''.join(f'{1e3 * wall:9.1f}{1e3 * cpu:9.1f}' for wall, cpu in medians))
    print(
        f'\n{"ratio: wall, CPU":22s}'
        + ''.join(f'{"to " + s:>18s}{"aim":>6s}' for s in ('linen', 'torch')[: 1 + bool(torch)])
    )
    for name, times in table.items():
        row = f'{name:22s}'
        for side in ('linen', 'torch')[: 1 + bool(torch)]:
            row += f'{ratio(times, side, 0):9.2f}{ratio(times, side, 1):9.2f}{getattr(WORKS[name], side):6.2f}'
        print(row)
    print(f'load at the end {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores')


if __name__ == '__main__':
    main()
