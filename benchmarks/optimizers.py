"""The optimizers compared with optax's, and with torch's: below 1 is better.

    python -m benchmarks.optimizers [--rounds=5] [--only=adam@mobilenet_v2,sgd@resnet50] [--torch=PYTHON]

Three tables: the bytes that one donated update moves, by XLA (the same in every run); the float32 error of Adam; the
time of one update on the parameters of MobileNetV2 and ResNet-50. 'optax twice' compares optax with itself, which
measures the noise of the clock.
How the sides take turns: benchmarks/comparison.py.
"""

import functools
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import comparison
from benchmarks.comparison import Benchmark, Peer, Work
from canon import optim
from tools.trees import TREES

BF16 = jnp.bfloat16


def chained(*links):
    return optax.chain(*links)


PAIRS = {
    'optax twice': (lambda: optax.sgd(0.1, 0.9), lambda: optax.sgd(0.1, 0.9)),  # what the clock itself is off by
    'sgd': (lambda: optim.sgd(0.1), lambda: optax.sgd(0.1)),
    'momentum': (lambda: optim.momentum(0.1), lambda: optax.sgd(0.1, 0.9)),
    'nesterov': (lambda: optim.nesterov(0.1), lambda: optax.sgd(0.1, 0.9, nesterov=True)),
    'adagrad': (lambda: optim.adagrad(), lambda: optax.adagrad(0.1)),
    'rmsprop': (lambda: optim.rmsprop(), lambda: optax.rmsprop(0.1)),
    'adadelta': (lambda: optim.adadelta(eps_in_sqrt=True), lambda: optax.adadelta(1.0)),
    'adam': (lambda: optim.adam(), lambda: optax.adam(0.1)),
    'bucketed adam': (lambda: optim.bucket_leaves(optim.adam()), lambda: optax.adam(0.1)),
    'bucketed momentum': (lambda: optim.bucket_leaves(optim.momentum(0.1)), lambda: optax.sgd(0.1, 0.9)),
    'adamw': (lambda: optim.adamw(), lambda: optax.adamw(0.1)),
    'clip adamw': (
        lambda: chained(optim.clip_by_global_norm(1.0), optim.adamw()),
        lambda: chained(optax.clip_by_global_norm(1.0), optax.adamw(0.1)),
    ),
    'nadam': (lambda: optim.nadam(), lambda: optax.nadam(0.1)),
    'lion': (lambda: optim.lion(), lambda: optax.lion(0.1)),
    'lamb': (lambda: optim.lamb(), lambda: optax.lamb(0.1)),
    'lars': (lambda: optim.lars(0.1), lambda: optax.lars(0.1)),
    'schedule-free': (
        lambda: optim.schedule_free(optim.sgd(0.1)),
        lambda: optax.contrib.schedule_free(optax.sgd(0.1), 0.1),
    ),
    'bf16 momentum': (
        lambda: optim.momentum(0.1, state_dtype=BF16),
        lambda: optax.sgd(0.1, 0.9, accumulator_dtype=BF16),
    ),
    'bf16 adam': (lambda: optim.adam(state_dtype=BF16), lambda: optax.adam(0.1, mu_dtype=BF16)),
}


def make_update(tx, shapes):
    """A function that makes one donated update, and the compiled program."""
    rng = np.random.default_rng(0)
    params = {f'p{i:03}': jnp.asarray(rng.normal(size=s), jnp.float32) for i, s in enumerate(shapes)}
    grads = jax.tree.map(lambda p: 1e-3 * jnp.cos(p), params)

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    carry = [params, jax.jit(tx.init)(params)]
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(*carry, grads).compile()

    def call():
        carry[:] = compiled(*carry, grads)
        return carry

    return call, compiled


def count_bytes(tx):
    """Bytes per parameter of one donated update, and of its temporary memory, by XLA."""
    shapes = [(512, 512)] * 3
    compiled = make_update(tx, shapes)[1]
    size = sum(map(np.prod, shapes))
    return compiled.cost_analysis()['bytes accessed'] / size, compiled.memory_analysis().temp_size_in_bytes / size


def adam_error(tx, steps=20_000, size=64):
    """Median and largest relative error of the updates against float64."""
    grads = np.random.default_rng(0).normal(size=(steps, size)).astype(np.float32)
    scan = jax.jit(lambda gs: jax.lax.scan(lambda s, g: tx.update(g, s)[::-1], tx.init(gs[0]), gs)[1])
    s, r, errors = np.zeros(size), np.zeros(size), []
    for k, (g, u) in enumerate(zip(grads.astype(np.float64), np.asarray(scan(grads)), strict=True), start=1):
        s, r = 0.9 * s + 0.1 * g, 0.999 * r + 0.001 * g**2
        exact = -(s / (1 - 0.9**k)) / (np.sqrt(r / (1 - 0.999**k)) + 1e-8)
        errors.append(np.abs(u - exact) / np.abs(exact))
    return float(np.median(errors)), float(np.median(np.max(errors, axis=1)))


def print_bytes() -> None:
    print(f'jax {jax.__version__}, optax {optax.__version__}, {jax.devices()[0].platform}')
    print('\nBytes per parameter of one donated update (temporary memory), by XLA\n')
    print(f'{"":20}{"canon":>14}{"optax":>14}{"ratio":>8}')
    for name, pair in PAIRS.items():
        if 'bucketed' not in name:  # all leaves are large here
            (ours, temporary), (theirs, also) = (count_bytes(make()) for make in pair)
            print(f'{name:20}{ours:8.0f} ({temporary:2.0f}){theirs:10.0f} ({also:2.0f}){ours / theirs:9.2f}')


def print_errors() -> None:
    print('\nRelative error of an Adam update over 20,000 steps in float32: median, and median of the largest\n')
    for title, tx in (('canon', optim.adam(1.0)), ('optax', optax.adam(1.0))):
        print('{:20}{:10.1e}{:10.1e}'.format(title, *adam_error(tx)))


def build(name: str, tree: str, side: int) -> Callable:
    return make_update(PAIRS[name][side](), TREES[tree]())[0]


def compare(name: str, tree: str) -> Work:
    parameters = sum(int(np.prod(shape)) for shape in TREES[tree]())
    sides = {side: functools.partial(build, name, tree, i) for i, side in enumerate(('canon', 'optax'))}
    aims = {'optax': 0.9 if name == 'adam' else 1.0}
    if name in IN_TORCH:
        aims['torch'] = 1.2 if name == 'adam' else 1.0
    return Work(sides, max(1, 10_000_000 // parameters), aims)


IN_TORCH = ('momentum', 'nesterov', 'adagrad', 'rmsprop', 'adadelta', 'adam', 'adamw')
WORKS = {f'{name}@{tree}': compare(name, tree) for tree in TREES for name in PAIRS}
BENCHMARK = Benchmark('benchmarks.optimizers', WORKS, Peer('optimizers_torch.py'))


if __name__ == '__main__':
    if not any(argument.startswith(('--side', '--only')) for argument in sys.argv):
        print_bytes()
        print_errors()
    comparison.main(__doc__, BENCHMARK)
