"""The optimizers beside optax's (and torch's, if it is installed), in one process, as ratios: below 1 is better.

    python benchmarks/optimizers.py [--rounds=15] [--only=adam,bucketed adam] [--tree=mobilenet_v2]

Three tables: what XLA says one donated update moves (the same on every run); the float32 error of Adam; the CPU time
of one update on the parameters of MobileNetV2 and ResNet-50. Times are CPU times of whole processes, taken by turns,
and the ratio is the median over the rounds; on a shared machine a tenth either way is noise, of which the first row
gives an idea.

Temporary buffers above glibc's mmap threshold are faulted in anew at every call. The program therefore starts itself
again with the allocator's tunables set, which then hold for all sides.
"""

# ruff: noqa: E402

import argparse
import os
import statistics
import sys
import time

SETTINGS = {
    'GLIBC_TUNABLES': 'glibc.malloc.mmap_threshold=34359738368:glibc.malloc.trim_threshold=68719476736'
    ':glibc.malloc.arena_max=1',
    'OMP_WAIT_POLICY': 'passive',  # torch's idle threads would burn CPU time during the others' turns
}
if __name__ == '__main__' and any(os.environ.get(key) != value for key, value in SETTINGS.items()):
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **SETTINGS})

import jax
import jax.numpy as jnp
import numpy as np
import optax

from canon import optim

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
    'bucketed adam': (lambda: optim.bucketed(optim.adam()), lambda: optax.adam(0.1)),
    'bucketed momentum': (lambda: optim.bucketed(optim.momentum(0.1)), lambda: optax.sgd(0.1, 0.9)),
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


def mobilenet_v2():
    """Sandler et al. 2018, table 2: 158 leaves, 3.5 million parameters."""
    shapes = [(3, 3, 3, 32)]
    inputs = 32
    for expand, outputs, repeats in (
        (1, 16, 1),
        (6, 24, 2),
        (6, 32, 3),
        (6, 64, 4),
        (6, 96, 3),
        (6, 160, 3),
        (6, 320, 1),
    ):
        for _ in range(repeats):
            width = inputs * expand
            shapes += [(1, 1, inputs, width)] if expand > 1 else []
            shapes += [(3, 3, 1, width), (1, 1, width, outputs)]
            inputs = outputs
    shapes += [(1, 1, 320, 1280)]
    return [s for shape in shapes for s in (shape, shape[-1:], shape[-1:])] + [(1280, 1000), (1000,)]


def resnet50():
    """He et al. 2015, table 1: 161 leaves, 25.6 million parameters."""
    shapes = [(7, 7, 3, 64)]
    inputs = 64
    for width, repeats in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(repeats):
            shapes += [(1, 1, inputs, width), (3, 3, width, width), (1, 1, width, 4 * width)]
            shapes += [(1, 1, inputs, 4 * width)] if block == 0 else []
            inputs = 4 * width
    return [s for shape in shapes for s in (shape, shape[-1:], shape[-1:])] + [(2048, 1000), (1000,)]


TREES = {'mobilenet_v2': mobilenet_v2, 'resnet50': resnet50}


def updater(tx, shapes):
    """A function that makes one donated update, and the compiled program."""
    rng = np.random.default_rng(0)
    params = {f'p{i:03}': jnp.asarray(rng.normal(size=s), jnp.float32) for i, s in enumerate(shapes)}
    grads = jax.tree.map(lambda p: 1e-3 * jnp.cos(p), params)

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    carry = [params, jax.jit(tx.init)(params)]
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(*carry, grads).compile()

    def once():
        carry[:] = compiled(*carry, grads)
        jax.block_until_ready(carry)

    return once, compiled


def by_xla(tx):
    shapes = [(512, 512)] * 3
    compiled = updater(tx, shapes)[1]
    size = sum(map(np.prod, shapes))
    return compiled.cost_analysis()['bytes accessed'] / size, compiled.memory_analysis().temp_size_in_bytes / size


def adam_error(tx, steps=20_000, size=64):
    """Median and largest relative error of the updates against float64."""
    grads = np.random.default_rng(0).normal(size=(steps, size)).astype(np.float32)
    seen = jax.jit(lambda gs: jax.lax.scan(lambda s, g: tx.update(g, s)[::-1], tx.init(gs[0]), gs)[1])(grads)
    s, r, errors = np.zeros(size), np.zeros(size), []
    for k, (g, u) in enumerate(zip(grads.astype(np.float64), np.asarray(seen), strict=True), start=1):
        s, r = 0.9 * s + 0.1 * g, 0.999 * r + 0.001 * g**2
        exact = -(s / (1 - 0.9**k)) / (np.sqrt(r / (1 - 0.999**k)) + 1e-8)
        errors.append(np.abs(u - exact) / np.abs(exact))
    return float(np.median(errors)), float(np.median(np.max(errors, axis=1)))


def torch_updaters(shapes):
    try:
        import torch  # ty: ignore[import-not-found]
    except ImportError:
        return {}
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    makers = {
        'momentum': lambda p, **k: torch.optim.SGD(p, 0.1, 0.9, **k),
        'nesterov': lambda p, **k: torch.optim.SGD(p, 0.1, 0.9, nesterov=True, **k),
        'adagrad': lambda p, **k: torch.optim.Adagrad(p, 0.1, **k),
        'rmsprop': lambda p, **k: torch.optim.RMSprop(p, 0.1, **k),
        'adadelta': lambda p, **k: torch.optim.Adadelta(p, 1.0, **k),
        'adam': lambda p, **k: torch.optim.Adam(p, 0.1, **k),
        'adamw': lambda p, **k: torch.optim.AdamW(p, 0.1, **k),
    }
    fused = {'momentum', 'nesterov', 'adagrad', 'adam', 'adamw'}

    def build(name):
        params = [torch.nn.Parameter(torch.randn(s)) for s in shapes]
        for p in params:
            p.grad = 1e-3 * torch.cos(p.detach())
        return makers[name](params, **({'fused': True} if name in fused else {'foreach': True})).step

    return {name: (lambda name=name: build(name)) for name in makers}


def cpu_seconds(once, repeats):
    start = time.process_time()
    for _ in range(repeats):
        once()
    return (time.process_time() - start) / repeats


def compare(sides, rounds, repeats):
    """Median CPU milliseconds of each side, and the median over the rounds of its ratio to the last."""
    for once in sides:
        once()
        once()
    times = []
    for k in range(rounds):
        order = range(len(sides)) if k % 2 else reversed(range(len(sides)))
        row = {i: cpu_seconds(sides[i], repeats) for i in order}
        times.append([row[i] for i in range(len(sides))])
    milliseconds = [1e3 * statistics.median(column) for column in zip(*times, strict=True)]
    return milliseconds, [statistics.median(row[i] / row[-1] for row in times) for i in range(len(sides))]


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    arguments.add_argument('--rounds', type=int, default=15)
    arguments.add_argument('--only', help='names, with commas')
    arguments.add_argument('--tree', choices=TREES, help='one tree instead of both')
    options = arguments.parse_args()
    names = [n for n in PAIRS if options.only is None or n in options.only.split(',')]

    print(f'jax {jax.__version__}, optax {optax.__version__}, {jax.devices()[0].platform}, {os.cpu_count()} cores')
    print('\nBytes a parameter of one donated update (temporary memory), by XLA\n')
    print(f'{"":20}{"canon":>14}{"optax":>14}{"ratio":>8}')
    for name in names:
        if 'bucketed' not in name:  # all leaves are large here
            (ours, temporary), (theirs, also) = (by_xla(make()) for make in PAIRS[name])
            print(f'{name:20}{ours:8.0f} ({temporary:2.0f}){theirs:10.0f} ({also:2.0f}){ours / theirs:9.2f}')

    print('\nRelative error of an Adam update over 20,000 steps in float32: median, and median of the largest\n')
    for title, tx in (('canon', optim.adam(1.0)), ('optax', optax.adam(1.0))):
        print('{:20}{:10.1e}{:10.1e}'.format(title, *adam_error(tx)))

    for tree in [options.tree] if options.tree else TREES:
        shapes = TREES[tree]()
        size = sum(int(np.prod(s)) for s in shapes)
        repeats = max(1, 10_000_000 // size)
        torches = torch_updaters(shapes)
        print(f'\nCPU ms of one update, {tree}: {len(shapes)} leaves, {size / 1e6:.1f} million parameters\n')
        print(f'{"":20}{"canon":>9}{"optax":>9}{"torch":>9}{"canon/optax":>14}{"torch/optax":>14}')
        for name in names:
            sides = [updater(PAIRS[name][0](), shapes)[0]]
            sides += [torches[name]()] if name in torches else []
            sides += [updater(PAIRS[name][1](), shapes)[0]]
            milliseconds, ratios = compare(sides, options.rounds, repeats)
            torch_ms = f'{milliseconds[1]:9.1f}' if name in torches else f'{"-":>9}'
            torch_ratio = f'{ratios[1]:14.2f}' if name in torches else f'{"-":>14}'
            print(
                f'{name:20}{milliseconds[0]:9.1f}{milliseconds[-1]:9.1f}{torch_ms}{ratios[0]:14.2f}{torch_ratio}',
                flush=True,
            )


if __name__ == '__main__':
    main()
