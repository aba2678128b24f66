"""Profiles the main train steps on this CPU, for docs/profile.md: where the time goes, and how far from the roofline.

    python -m benchmarks.profile [--only=backbones.resnet50_train,nerf.vanilla_64] [--save]

Each step runs in processes of its own: on all cores as users run it, and on one core with XLA's threads off, where the
trace gives every instruction its full time. The roofline is the time that the products and convolutions of the step, as
its paper has them, take at the rate of a large product, which is measured in the same run; a step that does fewer
(Winograd's convolutions) may be below it.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.comparison import HUGE
from launch.pages import TablePage

PAGE = Path(__file__).parents[1] / 'docs' / 'profile.md'
STEPS = {
    'backbones.resnet50_train': 'classification: ResNet-50, 8 images of 224x224',
    'backbones.mobilenet_v2_train': 'classification: MobileNetV2, 8 images of 224x224',
    'detection.faster_rcnn_train': 'detection: Faster R-CNN with ResNet-50 and FPN, 2 images of 320x320',
    'detection.ssd300_train': 'detection: SSD300, 4 images',
    'translation.base_train': 'translation: Transformer base, 16 pairs of 32 and 32 tokens',
    'recurrence.lstm_256': 'sequences: LSTM of 256 units, 32 sequences of 100 steps',
    'text_recognition.crnn_train': 'text: CRNN, 64 words of 32x100',
    'nerf.vanilla_64': 'view synthesis: NeRF, 64 rays',
}
# Beginnings of the names that XLA gives to instructions and their fusions, by class.
CLASSES = {
    'products': ('dot', 'wrapped_dot', 'conv', 'wrapped_conv'),
    'kernels': ('ffi_call', 'custom-call'),
    'reductions': ('ynn_fusion', 'reduce', 'wrapped_reduce'),
    'copies': ('copy', 'transpose', 'wrapped_transpose', 'concatenate', 'pad', 'wrapped_pad', 'slice', 'bitcast',
               'wrapped_slice', 'wrapped_concatenate', 'dynamic', 'wrapped_copy', 'gather', 'scatter',
               'wrapped_gather'),
}  # fmt: skip
HEAD = ('step', 'ms', 'GFLOP', 'roofline, ms', 'time / roofline', *(f'{c}, %' for c in CLASSES), 'elementwise, %')
TITLE = """# Where the time goes

The main train steps on a CPU, by `python -m benchmarks.profile --save`, float32. The roofline is the arithmetic of the
step's products and convolutions, as the paper has them, at the rate of a product of 2048x2048, measured in the same
run: {rate:.0f} GFLOP/s on {cores} cores; arrays are copied at {bandwidth:.0f} GB/s. The shares are of the time on one
core: *products* are XLA's matrix products and convolutions, *kernels* those of `canon.native` (recurrences, depthwise
convolution, pooling, the sums of batch normalisation), *copies* transpositions, concatenation, padding and slices, and
*elementwise* is the rest: activations, normalisation, sums of residual connections, the optimizer.

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').partition('\n')[0])
    parser.add_argument('--only', default=','.join(STEPS), help='names of steps, separated by commas')
    parser.add_argument('--save', action='store_true', help='write docs/profile.md')
    parser.add_argument('--measure', choices=('machine', 'count', 'time', 'trace'), help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = options.only.split(',')
    if unknown := [name for name in names if name not in STEPS]:
        parser.error(f'--only: {", ".join(unknown)}: expected some of {", ".join(STEPS)}')
    if options.measure:
        measures = {'machine': measure_machine, 'count': count_flop, 'time': time_step, 'trace': trace_step}
        print(json.dumps(measures[options.measure](names[0])))
        return
    machine = run_part('machine', names[0])
    title = TITLE.format(**machine, cores=os.cpu_count())
    print(title)
    page = TablePage(title, HEAD, lambda row: row[0], lambda row: row[0] in STEPS.values())
    for name in names:
        row = describe(name, machine['rate'])
        print(', '.join(f'{head} {cell}' for head, cell in zip(HEAD, row, strict=True)), flush=True)
        if options.save:
            page.write(PAGE, [row])


def describe(name: str, rate: float) -> list[str]:
    flop, seconds, shares = (run_part(part, name) for part in ('count', 'time', 'trace'))
    bound = flop / rate / 1e9
    total = sum(shares.values())
    percent = [f'{100 * shares.get(c, 0) / total:.0f}' for c in (*CLASSES, 'elementwise')]
    return [
        STEPS[name],
        f'{1e3 * seconds:,.0f}',
        f'{flop / 1e9:,.1f}',
        f'{1e3 * bound:,.0f}',
        f'{seconds / bound:.2f}',
        *percent,
    ]


def run_part(part: str, name: str) -> Any:
    """Measures a part in a process of its own, as the allocator's settings and XLA's flags ask for one."""
    command = [sys.executable, '-m', 'benchmarks.profile', f'--measure={part}', f'--only={name}']
    environment = os.environ | HUGE
    if part == 'trace':
        environment['XLA_FLAGS'] = '--xla_cpu_multi_thread_eigen=false'
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=PAGE.parents[1])
    if done.returncode:
        raise SystemExit(f'{name}: {part} failed\n{done.stderr}')
    return json.loads(done.stdout.splitlines()[-1])


# --- parts ----------------------------------------------------------------------------------------------------------


def build(name: str) -> Callable:
    module, work = name.split('.')
    return importlib.import_module(f'benchmarks.{module}').WORKS[work].sides['canon']()


def measure_machine(name: str) -> dict[str, float]:
    """Returns the rate of a large product in GFLOP/s, and of copying 256 MB in GB/s (read and written)."""
    import jax
    import jax.numpy as jnp

    n = 2048
    a, x = jnp.ones((n, n)), jnp.ones(64 << 20)
    product, copy = jax.jit(lambda a: a @ a), jax.jit(lambda x: x + 1)
    return {
        'rate': 2 * n**3 / _fastest(lambda: product(a)) / 1e9,
        'bandwidth': 2 * x.nbytes / _fastest(lambda: copy(x)) / 1e9,
    }


def _fastest(call: Callable, times: int = 10) -> float:
    import jax

    jax.block_until_ready(call())
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - start)
    return min(seconds)


class _Traced(Exception):
    """Ends the building of a step whose program is known."""


def count_flop(name: str) -> float:
    """Returns the arithmetic of a step's products and convolutions in the plain forms, twice its multiply-adds."""
    import jax

    from canon import backend
    from canon.nn.trace import count_products

    traced: list = []
    original = jax.stages.Traced.lower

    def lower(self, *arguments, **options):
        traced.append(self.jaxpr)
        return original(self, *arguments, **options)

    # A step is what its benchmark compiles ahead of time; it is not compiled here.
    with (
        backend.forms('plain'),
        mock.patch.object(jax.stages.Traced, 'lower', lower),
        mock.patch.object(jax.stages.Lowered, 'compile', side_effect=_Traced),
        contextlib.suppress(_Traced),
    ):
        build(name)
    return 2.0 * count_products(traced[-1].jaxpr)


def time_step(name: str) -> float:
    return _fastest(build(name))


def trace_step(name: str, calls: int = 3) -> dict[str, float]:
    """Returns seconds by class of instruction, of calls on one core."""
    import jax

    if hasattr(os, 'sched_setaffinity'):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # before XLA counts the cores
    call = build(name)
    for _ in range(2):
        jax.block_until_ready(call())
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, create_perfetto_trace=True):
            for _ in range(calls):
                jax.block_until_ready(call())
        (file,) = Path(folder).rglob('perfetto_trace.json.gz')
        events = json.loads(gzip.decompress(file.read_bytes()))['traceEvents']
    shares: dict[str, float] = defaultdict(float)
    for event in events:
        if event.get('ph') == 'X' and (kind := classify(event['name'])):
            shares[kind] += event['dur'] / 1e6 / calls
    return shares


def classify(name: str) -> str | None:
    """Returns the class of an instruction's event, None for one of the runtime or of Python."""
    if name[:1] in '$' or '::' in name or '(' in name or ' ' in name:
        return None
    return next((kind for kind, starts in CLASSES.items() if name.startswith(starts)), 'elementwise')


if __name__ == '__main__':
    main()
