"""The distribution: its metadata, and a wheel that is built, installed into an empty environment, and used there."""

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections import Counter
from pathlib import Path

import pytest
import yaml

import canon
from tests.distributions import find_distributions, list_core
from tests.test_public_names import USERS_FILE, check_types

TRAIN = """
import importlib.metadata, importlib.resources, json
import jax, jax.numpy as jnp
import canon
from canon import losses, metrics, models, optim

net = models.make_model('lenet.lenet5', num_classes=2)
labels = jnp.arange(16) % 2
images = 0.1 * jax.random.normal(jax.random.key(0), (16, 32, 32, 1)) + labels[:, None, None, None]
tx = optim.adam(optim.cosine(3e-3, steps=20))
params = net.init(jax.random.key(1), images)['params']
state = tx.init(params)

@jax.jit
def step(params, state):
    def loss(params):
        return losses.softmax_cross_entropy(net.apply({'params': params}, images), labels).mean()
    value, grads = jax.value_and_grad(loss)(params)
    updates, state = tx.update(grads, state, params)
    return jax.tree.map(jnp.add, params, updates), state, value

values = []
for _ in range(20):
    params, state, value = step(params, state)
    values.append(float(value))
try:
    import canon.train
except ImportError as error:
    missing = str(error)
print(json.dumps(dict(
    first=values[0], last=values[-1], file=canon.__file__, missing=missing, version=canon.__version__,
    installed=importlib.metadata.version('canon-jax'), typed=(importlib.resources.files(canon) / 'py.typed').is_file(),
    accuracy=float(metrics.accuracy(net.apply({'params': params}, images), labels).value),
)))
"""


def run(*words, **options):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, **options)
    assert not done.returncode, f'{done.stdout[-2000:]}\n{done.stderr[-2000:]}'
    return done.stdout


def test_all_files_state_one_version(root):
    citation = yaml.safe_load((root / 'CITATION.cff').read_text())
    assert citation['version'] == canon.__version__
    assert citation['cff-version'] == '1.2.0'
    assert {'message', 'title', 'authors', 'license'} <= set(citation)
    assert f'\n## [{canon.__version__}] - {citation["date-released"]}\n' in (root / 'CHANGELOG.md').read_text()


@pytest.fixture(scope='module')
def built(root, tmp_path_factory):
    """The folder of the sdist and of the wheel that is built from it, without a network, from the tracked files."""
    tree, output = tmp_path_factory.mktemp('tree'), tmp_path_factory.mktemp('dist')
    for name in ('pyproject.toml', 'README.md', 'LICENSE', 'NOTICE'):
        shutil.copy2(root / name, tree / name)
    shutil.copytree(root / 'lib/canon', tree / 'lib/canon', ignore=shutil.ignore_patterns('__pycache__'))
    run(sys.executable, '-m', 'build', '--no-isolation', '--outdir', output, tree)
    return output


@pytest.mark.slow
def test_the_archives_have_the_library_and_its_licence(root, built):
    (wheel,), (sdist,) = built.glob('*.whl'), built.glob('*.tar.gz')
    files = set(zipfile.ZipFile(wheel).namelist())
    library = {file for file in (root / 'lib/canon').rglob('*') if file.is_file() and '__pycache__' not in file.parts}
    assert {str(file.relative_to(root / 'lib')) for file in library} == {name for name in files if '-info/' not in name}
    info = f'canon_jax-{canon.__version__}.dist-info'
    assert {f'{info}/licenses/LICENSE', f'{info}/licenses/NOTICE'} <= files
    metadata = zipfile.ZipFile(wheel).read(f'{info}/METADATA').decode()
    assert '\nLicense-Expression: Apache-2.0\n' in metadata
    assert '://' not in metadata.partition('\n\n')[0]  # no addresses, the README's aside
    with tarfile.open(sdist) as archive:
        names = {name.partition('/')[2] for name in archive.getnames()}
    assert {'LICENSE', 'NOTICE', 'README.md', 'pyproject.toml', 'lib/canon/py.typed'} <= names


def link_core(packages: Path) -> None:
    """Links what `pip install canon-jax` needs, and nothing else, into a folder of packages."""
    # Several distributions may share a namespace package (`google`), whose parts are then linked one by one.
    owners = Counter({name: len(names) for name, names in find_distributions().items()})
    for distribution in list_core().values():
        parts = [file.parts for file in distribution.files or () if file.parts[0] not in ('..', '__pycache__')]
        for part in {part[: 2 if owners[part[0]] > 1 else 1] for part in parts}:
            link = packages.joinpath(*part)
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(distribution.locate_file('/'.join(part)))


@pytest.fixture(scope='module')
def python(built, tmp_path_factory):
    """The Python of an environment that has the wheel, and jax, flax, optax, numpy and what they require."""
    folder = tmp_path_factory.mktemp('environment')
    venv.create(folder, symlinks=True)
    link_core(next(folder.glob('lib/python*/site-packages')))
    (wheel,) = built.glob('*.whl')
    # With the dependencies, which pip must find installed: it has no index to take them from.
    run(sys.executable, '-m', 'pip', '--python', folder / 'bin/python', 'install', '-q', '--no-index', wheel)
    return folder / 'bin/python'


@pytest.mark.slow
def test_the_wheel_trains_in_an_empty_environment(python, tmp_path):
    environment = {key: value for key, value in os.environ.items() if not key.startswith('PYTHON')}
    result = yaml.safe_load(run(python, '-c', TRAIN, cwd=tmp_path, env=environment).splitlines()[-1])
    assert Path(result['file']).is_relative_to(python.parents[1])
    assert result['version'] == result['installed'] == canon.__version__
    assert result['typed']
    assert result['last'] < 0.2 * result['first']
    assert result['accuracy'] > 0.95
    assert result['missing'] == "canon.train needs ml_collections: pip install 'canon-jax[train]'"


@pytest.mark.slow
def test_the_wheel_has_types(python, tmp_path):
    text = '\n'.join(line for line in USERS_FILE.splitlines() if not line.startswith('from canon.train'))
    assert not check_types(tmp_path, text, '--python', python)
    wrong = check_types(tmp_path, text + '\noptim.adam(learning_rat=1.0)\n', '--python', python)
    assert len(wrong) == 1
    assert 'learning_rat' in wrong[0]
