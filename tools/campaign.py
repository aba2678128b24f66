"""Runs Canon's commands on hundreds of bad settings and damaged files, and judges their output.

    python -m tools.campaign [--seed=0] [--count=400] [--only=sound,settings,files,runs] [--jobs=2] [--verbose]

Families of cases, drawn from the seed:

  sound     a small sound file of each format that Canon reads, which must be accepted
  settings  one key of a `:smoke` config with an impossible value
  files     the same files damaged: empty, truncated, overwritten, of another format
  runs      a finished run with one damaged file, then continued, evaluated, exported or replayed

A case passes if the command ends in time without a traceback, and either succeeds or names what is wrong in one line.
If the case makes no sense ("must refuse"), success counts as a failure. Each command runs in a fork of a process that
has imported everything, so a case takes a second instead of ten. The exit status is 1 if a case fails.
"""

import argparse
import collections
import concurrent.futures
import functools
import gzip
import io
import json
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.quick import XLA_FLAGS

SECONDS = 120  # of CPU, or five times as long by the clock, after which a case counts as hanging
LONGEST = 700  # characters of an error message that is still one clear line
CONFIGS = (
    'classification/lenet_digits',
    'language_modelling/awd_lstm',
    'nerf/traced',
    'optimizer_lab/paths',
    'shapes/occupancy',
    'text_recognition/crnn_digits',
    'translation/catalogue',
    'volume_rendering/phantom',
)

# A small network with published weights, and statistics of BatchNorm among them.
NETWORK = dict(name='vgg.vgg11', num_classes=10, batch_norm=True, width=0.0625)


class Case(NamedTuple):
    """One command and how it may end."""

    name: str
    arguments: tuple[str, ...]  # of experiments.main
    must_refuse: bool = False
    must_accept: bool = False
    prepare: Callable[[Path], None] = lambda folder: None  # fills the working directory of the command


class Result(NamedTuple):
    """status: the exit status; None after a timeout, negative for a signal."""

    case: Case
    status: int | None
    output: str
    seconds: float

    @property
    def verdict(self) -> str:
        """'refused' and 'accepted' pass; 'traceback', 'hang', 'crash', 'silent', 'unclear' and 'broken' fail."""
        if self.status is None:
            return 'hang'
        if 'Traceback (most recent call last)' in self.output:
            return 'traceback'
        if self.status < 0:
            return 'crash'
        if self.status == 0:
            return 'silent' if self.case.must_refuse else 'accepted'
        if self.case.must_accept:
            return 'broken'
        errors = re.findall(r'^error: (.*)$', self.output, re.MULTILINE)
        return 'refused' if len(errors) == 1 and len(errors[0]) <= LONGEST else 'unclear'


PASSED = ('refused', 'accepted')


# --- settings -----------------------------------------------------------------------------------------------------


def load_config(name: str):
    """Returns the `:smoke` form of a config."""
    from experiments import configs

    return configs.load(f'configs/{name}.py:smoke')


def bad_values(value: Any, rng: random.Random) -> list[tuple[str, bool]]:
    """Returns (text, whether it must be refused) of values that a key with this value is unlikely to take."""
    if isinstance(value, bool):
        return [('maybe', True), ('7', True), ('', True)]
    if isinstance(value, int):
        return [
            ('many', True),
            ('nan', True),
            (str(-rng.randint(1, 9)), False),
            ('0', False),
            (str(10 ** rng.randint(19, 400)), False),
            ('1.5', False),
            ('', True),
        ]
    if isinstance(value, float):
        return [
            ('nan', True),
            ('fast', True),
            (str(-rng.uniform(0.1, 9)), False),
            ('inf', False),
            ('1e400', False),
            ('0.0', False),
        ]
    if isinstance(value, str):
        return [
            ('no_such_thing', False),
            ('', False),
            ('\udcff\x07', False),
            (str(rng.randint(-9, 9)), False),
            ('../../..', False),
        ]
    if isinstance(value, tuple):
        return [('()', False), ("('a', None)", False), ('nan', True), ('(-1,)', False), ('((', True)]
    return [('no_such_thing', False), ('-1', False), ('nan', False)]


def settings_cases(rng: random.Random) -> list[Case]:
    """Returns a case for each bad value of each key of `CONFIGS`."""
    from canon.configuration import list_leaves

    cases = []
    for name in CONFIGS:
        for key, value in list_leaves(load_config(name)):
            for text, must_refuse in bad_values(value, rng):
                short = () if key == 'run.steps' else ('--config.run.steps=2',)
                arguments = (f'--config=configs/{name}.py:smoke', *short, f'--config.{key}={text}')
                cases.append(Case(f'{name} {key}={text[:40]!r}', arguments, must_refuse))
    return cases


# --- files --------------------------------------------------------------------------------------------------------


def encode_image(kind: str, size: int = 28) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    pixels = np.random.default_rng(size).integers(0, 255, (size, size, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def encode_array(**arrays) -> bytes:
    buffer = io.BytesIO()
    if list(arrays) == ['array']:
        np.save(buffer, arrays['array'])
    else:
        np.savez(buffer, **arrays)
    return buffer.getvalue()


def encode_nifti() -> bytes:
    import nibabel

    return nibabel.Nifti1Image(np.arange(8**3, dtype=np.float32).reshape(8, 8, 8), np.eye(4)).to_bytes()


def encode_transforms(**more) -> bytes:
    poses = []
    for angle in np.linspace(0, 2 * np.pi, 8, endpoint=False):
        backward = np.array([np.cos(angle), np.sin(angle), 0.3]) / np.sqrt(1.09)
        right = np.cross([0, 0, 1.0], backward) / np.linalg.norm(np.cross([0, 0, 1.0], backward))
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = np.stack((right, np.cross(backward, right), backward), 1), 4 * backward
        poses.append(pose.tolist())
    frames = [{'file_path': f'images/{i}.png', 'transform_matrix': pose} for i, pose in enumerate(poses)]
    return json.dumps({'camera_angle_x': 0.7, 'w': 28, 'h': 28, 'frames': frames} | more).encode()


def encode_mesh() -> bytes:
    import trimesh

    return bytes(trimesh.creation.box().export(file_type='ply'))


@functools.cache
def encode_weights() -> bytes:
    """Weights of a small network, written by another process: this one may not touch a device before it forks."""
    script = f"""
import sys, jax, jax.numpy as jnp
from canon import models, weights
variables = jax.jit(models.make_model(**{NETWORK}).init)(jax.random.key(0), jnp.zeros((1, 32, 32, 1)))
weights.save_variables(sys.argv[1], '{NETWORK['name']}', variables)
"""
    with tempfile.TemporaryDirectory(prefix='campaign-weights-') as folder:
        path = Path(folder) / 'net.safetensors'
        subprocess.run([sys.executable, '-c', script, path], check=True)
        return path.read_bytes()


class Format(NamedTuple):
    """What a command reads. files: by path, sound contents; targets: those that are damaged."""

    files: dict[str, bytes | Callable[[], bytes]]
    targets: tuple[str, ...]
    arguments: tuple[str, ...]


@functools.cache
def formats() -> dict[str, Format]:
    def config(name: str, *overrides: str) -> tuple[str, ...]:
        return (f'--config=configs/{name}', '--config.run.steps=2', *(f'--config.{o}' for o in overrides))

    digits = np.random.default_rng(0).integers(0, 255, (40, 28, 28, 1), np.uint8), np.arange(40) % 10
    arrays = encode_array(x_train=digits[0], y_train=digits[1], x_test=digits[0], y_test=digits[1])
    folder = {
        f'data/{split}/{label}/{i}.{kind.lower()}': encode_image(kind, 28 + i)
        for split in ('train', 'test')
        for label in 'ab'
        for i, kind in enumerate(('PNG', 'JPEG', 'TIFF', 'BMP'))
    }
    words = {f'data/{i}.png': encode_image('PNG', 32) for i in range(4)}
    words |= {
        f'data/{s}.csv': b'file,text\n' + b''.join(b'%d.png,%d%d\n' % (i, i, i) for i in range(4))
        for s in ('train', 'val')
    }
    lines = b''.join(b'the statement number %d of many others\n' % i for i in range(400))
    corpus = {f'data/{split}.txt': lines for split in ('train', 'valid', 'test')}
    pairs = {f'data/{s}.{lang}.gz': gzip.compress(lines) for s in ('train', 'val', 'test') for lang in ('de', 'en')}
    pictures = {f'data/images/{i}.png': encode_image('PNG') for i in range(8)}
    scene = pictures | {'data/transforms.json': encode_transforms()}
    meshes = {f'data/{split}/{i}.ply': encode_mesh() for split in ('train', 'test') for i in range(2)}
    volume = ('data.name=read_volume', 'data.source={}')
    transformer = ('model.layers=1', 'model.d_model=32', 'model.d_ff=32', 'data.train.tokens=200')
    nerf = ('model.layers=2', 'model.width=16', 'render.coarse=8', 'render.fine=8', 'data.batch_size=64')
    lenet = 'classification/lenet_digits.py:smoke'
    return {
        'npz': Format({'data.npz': arrays}, ('data.npz',), config(lenet, 'data.name=npz', 'data.source.path=data.npz')),
        'images': Format(
            folder,
            ('data/train/a/0.png', 'data/train/a/1.jpeg', 'data/train/a/2.tiff', 'data/train/b/3.bmp'),
            config(lenet, 'data.name=folder', 'data.source.path=data', 'model.num_classes=2'),
        ),
        'words': Format(
            words,
            ('data/train.csv', 'data/1.png'),
            config('text_recognition/crnn.py', 'data.source.path=data', 'data.batch_size=2', 'model.hidden=16'),
        ),
        'corpus': Format(
            corpus,
            ('data/train.txt', 'data/test.txt'),
            config('language_modelling/pydoc_characters.py:smoke', 'data.name=text', 'data.source.path=data'),
        ),
        'parallel text': Format(
            pairs,
            ('data/train.de.gz', 'data/val.en.gz'),
            config('translation/folder.py', 'data.source.path=data', 'vocabulary.size=80', *transformer),
        ),
        'transforms.json': Format(
            scene,
            ('data/transforms.json', 'data/images/1.png'),
            config('nerf/llff.py', 'data.name=ngp', 'data.path=data', 'render.ndc=false', *nerf),
        ),
        'meshes': Format(meshes, ('data/train/0.ply',), config('shapes/occupancy.py:smoke', 'data.path=data')),
        'nifti': Format(
            {'volume.nii': encode_nifti()},
            ('volume.nii',),
            config('volume_rendering/phantom.py:smoke', 'data.path=volume.nii', *volume),
        ),
        'nifti.gz': Format(
            {'volume.nii.gz': gzip.compress(encode_nifti())},
            ('volume.nii.gz',),
            config('volume_rendering/phantom.py:smoke', 'data.path=volume.nii.gz', *volume),
        ),
        'npy': Format(
            {'volume.npy': encode_array(array=np.random.default_rng(0).random((8, 8, 8), np.float32))},
            ('volume.npy',),
            config('volume_rendering/phantom.py:smoke', 'data.path=volume.npy', *volume),
        ),
        'weights': Format(
            {'net.safetensors': encode_weights},
            ('net.safetensors',),
            config(
                'classification/vgg.py:smoke',
                'run.init_from.path=net.safetensors',
                *(f'model.{key}={value}' for key, value in NETWORK.items()),
            ),
        ),
    }  # fmt: skip


class Damage(NamedTuple):
    """change(path, rng) damages a sound file in place."""

    name: str
    change: Callable[[Path, random.Random], None]
    must_refuse: bool = False


def overwrite(make: Callable[[bytes, random.Random], bytes]) -> Callable[[Path, random.Random], None]:
    return lambda path, rng: void(path.write_bytes(make(path.read_bytes(), rng)))


def void(_: Any) -> None:
    pass


def replace_by_folder(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


def replace_by_fifo(path: Path, rng: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def flip_bytes(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(max(1, len(data) // 200)):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def flip_head(data: bytes, rng: random.Random) -> bytes:
    return flip_bytes(data[:64], rng) + data[64:]


def zero_part(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    stop = min(len(data), start + rng.randint(1, 256))
    return data[:start] + bytes(stop - start) + data[stop:]


DAMAGES = (
    Damage('removed', lambda path, rng: path.unlink(), True),
    Damage('empty', overwrite(lambda data, rng: b''), True),
    Damage('cut', overwrite(lambda data, rng: data[: rng.randrange(1, max(2, len(data)))])),
    Damage('text', overwrite(lambda data, rng: b'hello, this is a text\n' * 3)),
    Damage('noise', overwrite(lambda data, rng: rng.randbytes(rng.randint(1, 4000)))),
    Damage('bits', overwrite(flip_bytes)),
    Damage('head', overwrite(flip_head)),
    Damage('zeros', overwrite(zero_part)),
    Damage('twice', overwrite(lambda data, rng: data + data)),
    Damage('pickle', overwrite(lambda data, rng: pickle.dumps({'a': [1, 2, 3]}))),
    Damage('folder', replace_by_folder, True),
    Damage('fifo', replace_by_fifo, True),
)


def write_files(folder: Path, files: dict[str, bytes | Callable[[], bytes]]) -> None:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data() if callable(data) else data)


def sound_cases() -> list[Case]:
    """Each format undamaged. If one of these is refused, its damaged forms prove nothing."""
    return [
        Case(
            f'{name}: sound', form.arguments, must_accept=True, prepare=functools.partial(write_files, files=form.files)
        )
        for name, form in formats().items()
    ]


def file_cases(rng: random.Random) -> list[Case]:
    cases = []
    for name, form in formats().items():
        for target in form.targets:
            for damage in DAMAGES:
                for _ in range(1 if damage.must_refuse else 3):
                    seed = rng.randrange(10**9)

                    def prepare(folder: Path, form=form, target=target, damage=damage, seed=seed) -> None:
                        write_files(folder, form.files)
                        damage.change(folder / target, random.Random(seed))

                    # One file less makes a folder of pictures or meshes another folder, not a damaged one. A capture
                    # warns of frames without a picture (tests/data/test_views.py), for programs leave some of them out.
                    is_set = name in ('images', 'meshes') or '/images/' in target
                    is_set = is_set and damage.name in ('removed', 'folder', 'fifo')
                    must_refuse = damage.must_refuse and not is_set
                    cases.append(
                        Case(f'{name}: {target} {damage.name} ({seed})', form.arguments, must_refuse, prepare=prepare)
                    )
    return cases


# --- runs ---------------------------------------------------------------------------------------------------------

RUN = '--config=configs/classification/lenet_digits.py:smoke', '--config.run.steps=4', '--workdir=run'
VERBS = {
    'train again': RUN,
    'evaluate': ('--workdir=run', '--mode=evaluate'),
    'export': ('--workdir=run', '--mode=export'),
    'replay': ('--workdir=run', '--mode=replay', '--step=2'),
    'predict': ('--workdir=run', '--mode=predict', '--input=run/missing.png'),
    'init_from': (*RUN[:2], '--config.run.init_from=run', '--workdir=other'),
}


@functools.cache
def finished_run() -> Path:
    """A folder with a finished run, which each case copies."""
    folder = Path(tempfile.mkdtemp(prefix='campaign-run-'))
    result = run_case(Case('a sound run', RUN), folder)
    assert result.status == 0, result.output
    return folder / 'run'


def run_cases(rng: random.Random) -> list[Case]:
    run = finished_run()
    files = sorted(p.relative_to(run) for p in run.rglob('*') if p.is_file())
    kept = [p for p in files if p.suffix not in ('.html', '.png', '.svg') and 'tfevents' not in p.name]
    cases = []
    for path in kept:
        for damage in (d for d in DAMAGES if d.name != 'fifo'):  # nobody's disk turns a file into one
            for verb, arguments in VERBS.items():
                seed = rng.randrange(10**9)

                def prepare(folder: Path, path=path, damage=damage, seed=seed) -> None:
                    shutil.copytree(run, folder / 'run')
                    damage.change(folder / 'run' / path, random.Random(seed))

                cases.append(
                    Case(f'run: {path} {damage.name} ({seed}), {verb}', arguments, verb == 'predict', prepare=prepare)
                )
    return cases


# --- running and judging ------------------------------------------------------------------------------------------


def import_all() -> None:
    """Imports what the commands need, without touching a device, so that forks share it."""
    import importlib

    import jax  # noqa: F401

    for name in ('main', *{load_config(name).experiment for name in CONFIGS}):
        importlib.import_module(f'experiments.{name}')
    for name in ('canon.train.loop', 'canon.train.replay', 'canon.models', 'canon.optim', 'canon.weights.stablehlo'):
        importlib.import_module(name)


def _cpu_seconds(pid: int) -> float:
    """Returns the CPU time that a process has used, by Linux's /proc; 0 elsewhere."""
    try:
        fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')  # utime and stime


def run_case(case: Case, folder: Path, seconds: float = SECONDS) -> Result:
    """Runs a case in a fork of this process, in `folder`."""
    case.prepare(folder)
    log, start = folder / 'campaign.log', time.monotonic()
    child = os.fork()
    if not child:
        execute_case(case, folder, log)
    status: int | None = None
    # By the clock alone, a machine that is busy with something else would make cases hang.
    while time.monotonic() - start < 5 * seconds and _cpu_seconds(child) < seconds:
        done, code = os.waitpid(child, os.WNOHANG)
        if done:
            status = os.waitstatus_to_exitcode(code)
            break
        time.sleep(0.02)
    else:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    output = log.read_text(errors='replace') if log.exists() else ''
    return Result(case, status, output, time.monotonic() - start)


def execute_case(case: Case, folder: Path, log: Path) -> None:
    """The child: runs the command with its output in `log`; does not return."""
    status = 1
    try:
        # A group of its own, so that its reader processes are killed with it.
        os.setsid()
        root = Path(__file__).resolve().parents[1]
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        arguments = [a.replace('--config=configs/', f'--config={root}/configs/') for a in case.arguments]
        os.chdir(folder)
        from experiments import main

        sys.argv = ['experiments.main', f'--runs={folder}/runs', *arguments]
        main.main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def judge_case(case: Case) -> Result:
    folder = Path(tempfile.mkdtemp(prefix='campaign-'))
    try:
        return run_case(case, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


FAMILIES = {'sound': lambda rng: sound_cases(), 'settings': settings_cases, 'files': file_cases, 'runs': run_cases}


def draw_cases(seed: int, count: int, families: tuple[str, ...] = tuple(FAMILIES)) -> list[Case]:
    """`count` cases, equally many per family where it has as many; the small family of sound files comes first."""
    cases: list[Case] = []
    for i, family in enumerate(families):
        rng = random.Random(f'{seed} {family}')
        pool = FAMILIES[family](rng)
        cases += rng.sample(pool, min(len(pool), (count - len(cases)) // (len(families) - i)))
    return cases


def run_campaign(cases: list[Case], jobs: int, report: Callable[[Result], None] = void) -> list[Result]:
    """Runs the cases, `jobs` at a time, in worker processes that fork one child per case."""
    results, lock = [], threading.Lock()

    def run(case: Case) -> None:
        result = judge_case(case)
        with lock:
            results.append(result)
            report(result)

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        list(pool.map(run, cases))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition('\n')[0])
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--count', type=int, default=400)
    parser.add_argument('--only', default=','.join(FAMILIES), help='families, separated by commas')
    parser.add_argument('--match', default='', help='only cases whose name contains this')
    parser.add_argument('--jobs', type=int, default=os.cpu_count())
    parser.add_argument('--verbose', action='store_true', help='also print the output of cases that fail')
    options = parser.parse_args()
    os.environ.setdefault('XLA_FLAGS', XLA_FLAGS)  # for the cases: messages are judged, not speed
    import_all()
    cases = [
        c for c in draw_cases(options.seed, options.count, tuple(options.only.split(','))) if options.match in c.name
    ]

    def report(result: Result) -> None:
        last = result.output.strip().splitlines()[-1:] or ['']
        print(f'{result.verdict:10s}{result.seconds:6.1f} s  {result.case.name}: {last[0][:200]}', flush=True)
        if options.verbose and result.verdict not in PASSED:
            print(result.output)

    results = run_campaign(cases, options.jobs, report)
    counts = collections.Counter(result.verdict for result in results)
    print(f'{len(results)} cases: ' + ', '.join(f'{count} {verdict}' for verdict, count in counts.most_common()))
    sys.exit(any(result.verdict not in PASSED for result in results))


if __name__ == '__main__':
    main()
