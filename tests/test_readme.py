"""The README's commands and programs, and additions to Canon, in a copy of the tree, by a user who has only read it."""

import os
import re
import shutil
import subprocess
import sys
import textwrap

import pytest

# What needs a network, a cluster, an accelerator, somebody's photos, or is done by .ci/run: --dry must print it.
ELSEWHERE = re.compile(
    r'launch\.sh (test|ledger|slurm|tpu|watch|prepare mnist)|--engine=slurm|CANON_EXTRAS|~/photos|name=mnist'
)


@pytest.fixture(scope='module')
def copy(root, tmp_path_factory):
    """The tracked files alone, in an empty folder."""
    folder = tmp_path_factory.mktemp('copy') / 'canon'
    files = subprocess.run(['git', 'ls-files', '-z'], cwd=root, capture_output=True, text=True, check=True).stdout
    for name in filter(None, files.split('\0')):
        if (root / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, folder / name)
    return folder


@pytest.fixture(scope='module')
def env(copy, tmp_path_factory):
    """This environment, taken as it is, with the copy's own canon; the data sets in a home of the test's."""
    home = tmp_path_factory.mktemp('home')
    cache = os.environ.get('XDG_CACHE_HOME', os.path.expanduser('~/.cache'))
    (home / '.cache').symlink_to(cache, target_is_directory=True)
    return os.environ | {
        'CANON_PREPARE': 'no',
        'CANON_VENV': sys.prefix,
        'CANON_VENV_TF': sys.prefix,
        'PYTHONPATH': str(copy / 'lib'),
        'HOME': str(home),
    }


def blocks(root, kind):
    return re.findall(rf'```{kind}\n(.*?)```', (root / 'README.md').read_text(), re.DOTALL)


@pytest.mark.slow
def test_every_command(root, copy, env):
    lines = [line.split(' #')[0].strip() for block in blocks(root, 'bash') for line in block.splitlines()]
    commands = [line for line in lines if line]
    assert len(commands) > 15
    for command in commands:
        dry = ' --dry' if ELSEWHERE.search(command) else ''
        done = subprocess.run(command + dry, shell=True, cwd=copy, env=env, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, f'{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}'
    run = copy / 'runs' / 'classification' / 'lenet_digits' / 'default'
    assert (run / 'report.html').exists()
    assert (copy / 'runs' / 'predictions' / 'predictions.csv').exists()
    assert (copy / 'runs' / 'classification' / 'lenet_digits-smoke' / 'table.png').exists()


ADDITIONS = {
    'lib/canon/models/smith2026.py': """
        import flax.linen as linen

        def linear(num_classes: int = 10):
            return linen.Sequential([lambda x: x.reshape(len(x), -1), linen.Dense(num_classes)])
    """,
    'lib/canon/optim/signs.py': """
        import jax
        import jax.numpy as jnp
        import optax
        from canon.optim.schedules import Schedule

        def signs(learning_rate: Schedule) -> optax.GradientTransformation:
            def update(updates, count, params=None):
                return jax.tree.map(lambda g: -learning_rate(count) * jnp.sign(g), updates), count + 1

            return optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)

        def harmonic(init: float = 1.0) -> Schedule:
            return lambda count: init / (1 + count)
    """,
    'lib/canon/data/transforms/negative.py': """
        from canon.data import Transform

        def negative(top: int = 255):
            return Transform(lambda example, key: {**example, 'image': top - example['image']})
    """,
    'points.py': """
        import numpy as np

        def points(split: str, n: int = 8):
            return [{'image': np.full((2, 2, 1), i, np.uint8), 'label': np.int64(i % 2)} for i in range(n)]
    """,
    'lib/canon/tasks/separation.py': """
        from canon.losses import softmax_cross_entropy
        from canon.metrics import Mean
        from canon.train import Task

        def separation_task(model):
            scores = lambda params, batch: model.apply({'params': params}, batch['image'] / 255)
            return Task(
                init=lambda key, batch: {'params': model.init(key, batch['image'] / 255)['params']},
                loss=lambda params, mutable, batch, at: (
                    Mean.of(softmax_cross_entropy(scores(params, batch), batch['label'])), (mutable, {})
                ),
                predict=lambda params, mutable, batch: scores(params, batch),
            )
    """,
    'experiments/separation.py': """
        from canon import data, models
        from canon.tasks import separation
        from canon.train import Experiment

        def make(config):
            task = separation.separation_task(models.make_model(**config.model))
            source = data.load_source(config.data.name, 'train', **config.data.source)
            transforms = data.transforms.make_transforms(config.data.transforms)
            train = data.Batches(source, config.data.batch_size, transforms=transforms)
            assert train[0]['image'].min() >= 248, 'the transform has been applied'
            return Experiment(task, config.tx, train)

        def offline(config):
            return config
    """,
    'configs/separation/points.py': """
        from ml_collections import ConfigDict

        def get_config(arg=''):
            return ConfigDict(dict(
                experiment='separation',
                data=dict(name='points:points', source=dict(n=4), batch_size=4, transforms=dict(chain=('negative',))),
                model=dict(name='smith2026.linear', num_classes=2),
                tx=dict(name='signs', learning_rate=dict(name='harmonic')),
                run=dict(steps=3),
            ))
    """,
}


def test_one_file_adds_one_of_each_kind(copy, env):
    """A model, optimizer, schedule, transform, data set, task and recipe, from docs/how_to/additions.md alone."""
    for name, text in ADDITIONS.items():
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text(textwrap.dedent(text))
    words = [
        'run',
        'configs/separation/points.py:smoke',
        '--config.data.source.n=8',
        '--config.tx.learning_rate.init=0.5',
    ]
    done = subprocess.run(['./launch.sh', *words], cwd=copy, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'step 3' in done.stdout


DATA_SETS = {
    'images/smith2026.py': """
        import numpy as np
        from canon.data.pipeline.source import Arrays

        def squares(split: str = 'train', n: int = 4) -> Arrays:
            return Arrays({'image': np.zeros((n, 2, 2, 1), np.uint8)})
    """,
    'text/smith2026.py': """
        from canon.data.text.corpora import Corpus
        from canon.data.text.parallel_text import Sentences

        def sayings(n: int = 2) -> Corpus:
            return Corpus('sayings', lambda split: [f'{split} {i}' for i in range(n)])

        def proverbs(split: str = 'train', n: int = 9) -> Sentences:
            return [(f'{split} {i}', f'{i}') for i in range(n)]
    """,
    'scenes/smith2026.py': """
        from canon.data.scenes import shapes, traced, volumes
        from canon.data.scenes.views import Views

        def corridor(split: str = 'train', size: int = 8) -> Views:
            return traced.traced(split, views=2, size=size)

        def fog(size: int = 4) -> volumes.Volume:
            return volumes.marschner_lobb(size)

        def pebbles(split: str, space: str, count: int = 3):
            return shapes.make_bodies(('sphere',), count, split, space)
    """,
}
LOADED = """
    from canon.data import corpora, load_source, parallel_text, shapes, views
    from canon.data.scenes import volumes

    for name in '', 'canon.data.{room}.smith2026:':
        images, text, scenes = (name.format(room=room) for room in ('images', 'text', 'scenes'))
        assert len(load_source(f'{images}squares', n=5)) == 5
        assert list(corpora.corpus(f'{text}sayings', n=1).lines('test')) == ['test 0']
        assert parallel_text.load_pairs(f'{text}proverbs', 'valid[1:3]') == [('valid 1', '1'), ('valid 2', '2')]
        assert views.load_views(f'{scenes}corridor', size=9).images.shape[1] == 9
        assert volumes.load_volume(f'{scenes}fog', size=5).values.shape == (5, 5, 5)
        assert len(shapes.load_shapes(name=f'{scenes}pebbles', count=2)) == 2
"""


def test_one_file_adds_a_data_set_to_each_room(copy, env):
    """Images, running and parallel text, views, volumes and shapes: by name, or as package.module:function."""
    for name, text in DATA_SETS.items():
        (copy / 'lib/canon/data' / name).write_text(textwrap.dedent(text))
    program = [sys.executable, '-c', textwrap.dedent(LOADED)]
    done = subprocess.run(program, cwd=copy, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_every_program(root, copy, env):
    programs = blocks(root, 'python')
    assert len(programs) >= 2
    for program in programs:
        done = subprocess.run([sys.executable, '-c', program], cwd=copy, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
