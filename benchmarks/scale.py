"""Tabulates how memory and costs grow with devices, data and steps, for docs/scale.md.

    python -m benchmarks.scale [--only=devices,data,training,evaluation,folders,run] [--save]

devices: bytes per device of the state and of what a train step holds besides, from the program that XLA compiles for 8,
64 and 512 devices, which are simulated on this CPU; every device has as many rows as at 8. The operations are in the
form that TPU and GPU compile; sizes of temporary buffers are those of XLA's CPU compiler.
data: the memory and time that the order of 10^4 to 10^9 examples takes.
training: a step, the memory and a checkpoint of a run on 10^4 to 10^9 examples.
evaluation: the time and memory of evaluators that add sums up, and of those that keep what they detected.
folders: the start of a run on a folder of 10^4 to 10^6 image files (hard links to a few), in a temporary folder.
run: the log and the report of runs of 10^5 to 10^7 steps.
"""

from __future__ import annotations

import argparse
import functools
import json
import operator
import os
import re
import resource
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from launch.pages import format_table

PAGE = Path(__file__).parents[1] / 'docs' / 'scale.md'
DEVICES = (8, 64, 512)
LAYOUTS = {'replicated': None, 'fsdp': 1 << 16}  # parameters of as many elements are divided over the devices
# Buffers are assigned before LLVM, whose passes take most of the time that compilation does.
FAST: Any = {'xla_backend_optimization_level': 0, 'xla_llvm_disable_expensive_passes': True}
COLLECTIVES = ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute')
TITLE = """# Scale

These tables show how memory and costs grow with devices, data and steps (`python -m benchmarks.scale --save`): the
programs are compiled for as many simulated devices, and the order, the log and the report are those of any run.
"""


def run_apart(name: str, *arguments: Any, **environment: str) -> dict[str, float]:
    """Runs a function of this module in a process of its own, whose peak of memory and devices are its own."""
    command = [sys.executable, '-m', 'benchmarks.scale', '--call', name, *map(str, arguments)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    if done.returncode:
        shown = ' '.join(map(str, [*arguments, *environment.values()]))
        raise SystemExit(f'{name} {shown}: {done.stderr.strip().splitlines()[-1]}')
    return json.loads(done.stdout.splitlines()[-1])


def get_peak() -> float:
    """Returns the most memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


# --- devices ------------------------------------------------------------------------------------------------------


def describe_resnet50(devices: int):
    """ResNet-50: 64 images of 224x224 per device, SGD with momentum."""
    from canon import models, optim
    from canon.tasks.classification import classification_task, make_image_input

    rows = 64 * devices
    batch = {'image': ((rows, 224, 224, 3), np.uint8), 'label': ((rows,), np.int32), 'mask': ((rows,), bool)}
    return classification_task(models.make_model('resnet.resnet50'), make_image_input()), optim.momentum(0.1), batch


def describe_transformer_big(devices: int):
    """Transformer big: 32 pairs of 96 and 96 tokens per device, a vocabulary of 37,000, Adam."""
    from canon import models, optim
    from canon.tasks.translation import translation_task

    rows = 32 * devices
    batch: dict[str, tuple] = {side: ((rows, 96), np.int32) for side in ('source', 'target')}
    batch |= {f'{side}_length': ((rows,), np.int32) for side in ('source', 'target')} | {'mask': ((rows,), bool)}
    task = translation_task(models.make_model('transformer.big', vocab=37_000), 1, label_smoothing=0.1)
    return task, optim.adam(1e-4), batch


def describe_faster_rcnn(devices: int):
    """Faster R-CNN with ResNet-50 and a feature pyramid: 2 images of 800x800 per device, SGD with momentum."""
    from benchmarks.detection import make_faster_rcnn_task
    from canon import optim

    rows, objects = 2 * devices, 16
    batch: dict[str, tuple] = {'image': ((rows, 800, 800, 3), np.float32), 'boxes': ((rows, objects, 4), np.float32)}
    batch |= {'labels': ((rows, objects), np.int32), 'mask': ((rows,), bool)}
    batch |= {key: ((rows, objects), bool) for key in ('valid', 'difficult', 'crowd')}
    return make_faster_rcnn_task(), optim.momentum(0.01), batch


WORKS: dict[str, Callable[[int], tuple]] = {
    'resnet50': describe_resnet50,
    'transformer_big': describe_transformer_big,
    'faster_rcnn': describe_faster_rcnn,
}


def compile_for_devices(name: str, layout: str) -> dict[str, Any]:
    """Compiles the train step of a work for all devices of this process; returns bytes and numbers per device."""
    import jax

    from canon import backend
    from canon.train import make_step, shard
    from canon.train.setup import gather_first
    from canon.train.step import init_state

    task, tx, shapes = WORKS[name](jax.device_count())
    mesh = shard.make_mesh()
    rows, everywhere = shard.batch_sharding(mesh), shard.replicated_sharding(mesh)
    batch = {key: jax.ShapeDtypeStruct(*shape, sharding=rows) for key, shape in shapes.items()}
    with backend.forms('plain'):
        state = jax.eval_shape(lambda batch: init_state(task, tx, 0, batch), batch)
        layouts = shard.state_shardings(tx, state, mesh, fsdp=LAYOUTS[layout])
        step = jax.jit(
            gather_first(make_step(task, tx, 0), layouts.params),
            donate_argnums=0,
            in_shardings=(layouts, rows),
            out_shardings=(layouts, everywhere),
        )
        compiled = step.lower(state, batch).compile(FAST)
    memory: Any = compiled.memory_analysis()
    leaves = list(zip(jax.tree.leaves(state), jax.tree.leaves(layouts), strict=True))
    return {
        'state': sum(int(np.prod(s.shard_shape(x.shape))) * x.dtype.itemsize for x, s in leaves),
        'step': memory.temp_size_in_bytes,
        **count_collectives(compiled.as_text() or ''),
    }


def count_collectives(program: str) -> dict[str, int]:
    """Returns the number of collective operations of a compiled program, and the bytes that they return."""
    kinds = '|'.join(COLLECTIVES)
    sizes = {'f32': 4, 's32': 4, 'u32': 4, 'bf16': 2, 'f16': 2, 'pred': 1, 'u8': 1, 's64': 8, 'f64': 8}
    count, total = 0, 0
    for line in program.splitlines():
        if match := re.search(rf'= (.*?) (?:{kinds})(?:-start)?\(', line):
            count += 1
            for kind, dimensions in re.findall(r'(\w+)\[([\d,]*)\]', match[1]):
                total += sizes.get(kind, 4) * int(np.prod([int(n) for n in dimensions.split(',') if n], initial=1))
    return {'collectives': count, 'exchanged': total}


def measure_devices() -> Iterable[Sequence[str]]:
    for name, describe in WORKS.items():
        for layout in LAYOUTS:
            for devices in DEVICES:
                flag = f'--xla_force_host_platform_device_count={devices}'
                row = run_apart('compile_for_devices', name, layout, XLA_FLAGS=flag, JAX_PLATFORMS='cpu')
                print(f'{name} {layout} {devices}: {row}', file=sys.stderr, flush=True)
                megabytes = (f'{row[key] / 1e6:,.1f}' for key in ('state', 'step', 'exchanged'))
                yield (str(describe.__doc__), layout, str(devices), *megabytes, str(row['collectives']))


# --- data ---------------------------------------------------------------------------------------------------------


def measure_data() -> Iterable[Sequence[str]]:
    from canon.data.pipeline.order import shuffled

    for power in (4, 6, 7, 9):
        before, start = get_peak(), time.process_time()
        draw = shuffled(10**power, seed=0)
        draw(np.arange(256))
        first = time.process_time() - start
        start = time.process_time()
        for step in range(100):
            draw(np.arange(256) + 256 * (10**6 + step))
        per_batch = (time.process_time() - start) / 100
        yield f'10^{power}', f'{get_peak() - before:.0f}', f'{1e3 * first:.1f}', f'{1e3 * per_batch:.2f}'


def make_lenet(examples: int) -> tuple[Any, Any]:
    """Returns (experiment, config) of LeNet-5 on so many random images of 32x32, to train and to test."""
    from experiments import classification, configs

    config = configs.load('configs/classification/lenet_digits.py')
    with config.unlocked():
        config.data.name = 'fake'
        config.data.source = dict(size=32, channels=1, num_examples=examples)
        config.data.train = dict(split='train', sampler='shuffled')
        config.data.evals = dict(test=dict(split='test'))
        config.run = dict(steps=300, log_every=100, checkpoint=dict(every=300))
        del config.target
    return classification.make(config), config


def train_on(examples: int) -> dict[str, float]:
    from canon.train import fit
    from canon.train.log import read_rows

    experiment, config = make_lenet(examples)
    with tempfile.TemporaryDirectory() as folder:
        fit(experiment._replace(evals={}), config, folder, quiet=True)
        rows = read_rows(Path(folder) / 'metrics.jsonl')
        files = (path for path in (Path(folder) / 'checkpoints').rglob('*') if path.is_file())
        return {
            'ms': 1e3 * rows[-1]['train/step_seconds'],
            'peak': get_peak(),
            'kb': sum(path.stat().st_size for path in files) / 1e3,
        }


def measure_training() -> Iterable[Sequence[str]]:
    for power in (4, 6, 9):
        row = run_apart('train_on', 10**power)
        yield f'10^{power}', f'{row["ms"]:.1f}', f'{row["peak"]:,.0f}', f'{row["kb"]:.0f}'


def evaluate_images(examples: int) -> dict[str, float]:
    """LeNet-5's accuracy on images of 32x32, which are added up."""
    from canon.train import lengths
    from canon.train.evaluation import compile_measure, evaluate
    from canon.train.setup import make_setup

    experiment, config = make_lenet(examples)
    config.run.evals = dict(test=dict(every=300))
    setup = make_setup(experiment, lengths.resolve(config, None, None))
    state, evaluator = setup.initial_state(), experiment.evals['test']
    measure = compile_measure(evaluator, setup.mesh)
    before, start = get_peak(), time.perf_counter()
    evaluate(evaluator, state.params, state.mutable, setup.mesh, measure, quiet=True)
    return {'seconds': time.perf_counter() - start, 'memory': get_peak() - before}


def score_detections(examples: int) -> dict[str, float]:
    """COCO's average precision of 100 detections in each image, which are kept and scored at the end."""
    import benchmarks.detection_scoring  # noqa: F401, so that tools/ is where its peer's modules are imported from
    from canon.metrics import detection
    from tools import scoring_pycocotools as sets

    batches = [sets.draw_set() for _ in range(examples // sets.IMAGES)]
    for i, (_, truth) in enumerate(batches):
        truth['image_id'] = truth['image_id'] + i * sets.IMAGES
    before, start = get_peak(), time.perf_counter()
    rows = functools.reduce(operator.add, (detection.collect_detections(*batch) for batch in batches))
    detection.score_coco(rows, sets.CLASSES)
    return {'seconds': time.perf_counter() - start, 'memory': get_peak() - before}


def measure_evaluation() -> Iterable[Sequence[str]]:
    for function, powers in ((evaluate_images, (3, 4, 5)), (score_detections, (3, 4))):
        for power in powers:
            row = run_apart(function.__name__, 10**power)
            per_thousand = 1e3 * row['seconds'] / 10**power
            yield str(function.__doc__), f'10^{power}', f'{per_thousand:.2f}', f'{row["memory"]:,.0f}'


def start_on_folder(folder: str, records: str) -> dict[str, float]:
    """Reads the folder as a run does at its start."""
    from canon.data import load_source
    from canon.data.images import checked

    checked.FOLDER = records  # ty: ignore[invalid-assignment]
    before, start = get_peak(), time.perf_counter()
    load_source('folder', path=folder)
    return {'seconds': time.perf_counter() - start, 'memory': get_peak() - before}


def write_links(folder: Path, count: int) -> None:
    """Makes `count` JPEGs of 32x32 in classes of 1,000, most of them further names of a few files."""
    from PIL import Image

    rng, file, long_ago = np.random.default_rng(0), folder / 'first.jpg', time.time() - 3600
    for i in range(count):
        if i % 30_000 == 0:  # file systems bound the names of one file
            file = folder / f'{i}.jpg'
            Image.fromarray(rng.integers(0, 255, (32, 32, 3)).astype(np.uint8)).save(file)
        parent = folder / 'images' / f'class_{i // 1000:04}'
        if i % 1000 == 0:
            parent.mkdir(parents=True)
        os.link(file, parent / f'{i}.jpg')
        if i % 1000 == 999:
            os.utime(parent, (long_ago, long_ago))


def measure_folders() -> Iterable[Sequence[str]]:
    for power in (4, 5, 6):
        with tempfile.TemporaryDirectory() as folder:
            write_links(Path(folder), 10**power)
            paths = f'{folder}/images', f'{folder}/records'
            first, later = (run_apart('start_on_folder', *paths) for _ in range(2))
            yield f'10^{power}', f'{first["seconds"]:.1f}', f'{later["seconds"]:.1f}', f'{later["memory"]:,.0f}'


# --- run ----------------------------------------------------------------------------------------------------------


def measure_run() -> Iterable[Sequence[str]]:
    from canon.train.log import read_rows
    from canon.train.report import write_report
    from canon.train.settings import Settings

    every = int(str(Settings.__dataclass_fields__['log_every'].default))
    values = {f'train/{name}': 0.123456789 for name in ('loss', 'accuracy', 'grad_norm', 'lr', 'step_seconds')}
    for power in (5, 6, 7):
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / 'metrics.jsonl'
            with log.open('w') as file:
                for step in range(every, 10**power + 1, every):
                    file.write(json.dumps({'step': step, **values, 'train/data_seconds': 1e-4}) + '\n')
            start = time.process_time()
            rows = read_rows(log)
            read = time.process_time() - start
            start = time.process_time()
            report = write_report(folder)
            written = time.process_time() - start
            sizes = (f'{path.stat().st_size / 1e6:.1f}' for path in (log, report))
            yield f'10^{power}', f'{len(rows):,}', *sizes, f'{read:.1f}', f'{written:.1f}'


TABLES: dict[str, tuple[str, tuple[str, ...], Callable[[], Iterable[Sequence[str]]]]] = {
    'devices': (
        'Devices',
        ('train step', 'parameters', 'devices', 'state, MB', 'of the step, MB', 'exchanged, MB', 'collectives'),
        measure_devices,
    ),
    'data': ('Examples', ('examples', 'memory, MB', 'first 256 places, ms', 'later 256 places, ms'), measure_data),
    'training': (
        'Training on many examples',
        ('examples', 'step, ms', 'peak memory, MB', 'checkpoint, KB'),
        measure_training,
    ),
    'evaluation': (
        'Evaluation on many examples',
        ('evaluator', 'examples', 's per 1,000', 'memory, MB'),
        measure_evaluation,
    ),
    'folders': ('Folders', ('files', 'first start, s', 'later starts, s', 'memory, MB'), measure_folders),
    'run': ('Steps', ('steps', 'rows', 'log, MB', 'report, MB', 'read, s', 'report written, s'), measure_run),
}
NOTES = {
    'devices': 'Per device: its part of the state, the buffers of a step besides state and batch, and what collective '
    'operations return to it. `fsdp` is `run.shard.fsdp=65536`: parameters of as many elements are divided where a '
    'dimension allows it, so with 512 devices more of them stay whole. Exchanges that grow with the number of devices '
    "are of Faster R-CNN's top_k, which XLA computes for the rows of all devices.",
    'data': 'The order of `shuffled`, at its beginning and after 10^6 batches of 256; CPU times of one core. '
    'Up to 2^24 examples the permutation of an epoch is kept, beyond it is computed place by place.',
    'training': 'LeNet-5 on batches of 64 random images of 32x32, which are made when they are read, with two threads. '
    'A checkpoint has the parameters, the state of Adam and the number of the step, from which the order follows.',
    'evaluation': 'Memory beyond that of the compiled program: for the accuracy the images themselves, which are kept '
    'up to 1 GB; for average precision the detections and objects, which are rows until the last image, and the '
    'records that faster-coco-eval makes of them.',
    'folders': 'Reading a folder with a class per 1,000 files, as `data.name=folder` does at the start of a run. Every '
    'file is opened once, to name what cannot be read; later starts list them, and open those of directories that '
    'changed (`canon.data.images.checked`).',
    'run': 'A row of the log every 50 steps, which is the default, with six metrics. The report of a run that is '
    'running takes at most 2 % of its time, however long writing it takes.',
}


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition('\n')[0])
    parser.add_argument('--only', default=','.join(TABLES), help='names of tables, separated by commas')
    parser.add_argument('--save', action='store_true', help='write the tables to docs/scale.md; others there stay')
    parser.add_argument('--call', nargs='+', help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.call:
        name, *arguments = options.call
        print(json.dumps(globals()[name](*(int(a) if a.isdigit() else a for a in arguments))))
        return
    chosen = options.only.split(',')
    if unknown := [name for name in chosen if name not in TABLES]:
        parser.error(f'--only: {", ".join(unknown)}: expected some of {", ".join(TABLES)}')
    sections = read_sections()
    for name in chosen:
        title, head, measure = TABLES[name]
        sections[title] = f'{title}\n\n{textwrap.fill(NOTES[name], 120)}\n\n{format_table(head, measure(), "---:")}'
        print(f'\n## {sections[title]}', flush=True)
        if options.save:
            titles = [title for title, *_ in TABLES.values() if title in sections]
            PAGE.write_text(TITLE + ''.join(f'\n## {sections[title].rstrip()}\n' for title in titles))


def read_sections() -> dict[str, str]:
    """Returns {title: text} of the sections of the page as it is."""
    parts = PAGE.read_text().split('\n## ')[1:] if PAGE.exists() else []
    return {part.partition('\n')[0]: part for part in parts}


if __name__ == '__main__':
    main()
