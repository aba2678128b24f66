"""Every name `canon.x.y` that README.md and the pages of docs/ mention can be imported, and has its types."""

import ast
import importlib
import re
import subprocess
import sys

import pytest

_MENTION = re.compile(r'(?<![\w./-])canon(?:\.[A-Za-z_]\w*)+')
_FILES = ('.py', '.md', '.html', '.toml')  # `canon.py` is a file


def resolve(path):
    """Returns what a dotted name stands for: the longest module of it, and its attributes."""
    parts = path.split('.')
    for end in range(len(parts), 0, -1):
        try:
            value = importlib.import_module('.'.join(parts[:end]))
        except ModuleNotFoundError as error:
            # A module that imports something missing is another failure than one that does not exist.
            if not '.'.join(parts[:end]).startswith(str(error.name)):
                raise
            continue
        for name in parts[end:]:
            value = getattr(value, name)
        return value
    raise AssertionError(path)


def list_imported_names(text):
    """Yields `canon.x.y` for the lines `from canon.x import y` of a page's programs."""
    for line in re.findall(r'^ *(from canon[\w.]* import (?:\w|[ ,]|\([^)]*\))+)', text, re.MULTILINE):
        statement = ast.parse(line.strip()).body[0]
        yield from (f'{statement.module}.{alias.name}' for alias in statement.names)


def test_every_name_of_the_manual_can_be_imported(root):
    pages = [root / 'README.md', root / 'CONTRIBUTING.md', *sorted((root / 'docs').rglob('*.md'))]
    mentions = {}
    for page in pages:
        text = page.read_text()
        names = {match.group().rstrip('.') for match in _MENTION.finditer(text)} | set(list_imported_names(text))
        mentions |= {name: page.name for name in names if not name.endswith(_FILES)}
    assert len(mentions) > 80
    missing = []
    for name, page in mentions.items():
        try:
            resolve(name)
        except (ImportError, AttributeError) as error:
            missing.append(f'{page}: {name}: {error}')
    assert not missing, '\n'.join(missing)


USERS_FILE = """
import jax
import jax.numpy as jnp
import numpy as np
import optax

import canon
from canon import data, losses, metrics, models, optim
from canon.metrics import Mean
from canon.train import At, Experiment, Task, evaluate, fit

tx: optax.GradientTransformation = optax.chain(
    optim.clip_by_global_norm(1.0), optim.adamw(optim.cosine(1e-3, steps=100), weight_decay=1e-4)
)
net = models.make_model('lenet.lenet5', num_classes=10)
images, labels = jnp.zeros((4, 32, 32, 1)), np.zeros(4, np.int32)
small = models.lenet.lenet5(num_classes=10)
for number, batch in enumerate(data.Batches(data.Arrays({'label': labels}), 2)):
    losses.softmax_cross_entropy(np.zeros((2, 10)), batch['label'])
    correct: float = float(metrics.accuracy(np.zeros((2, 10)), batch['label'], mask=batch['mask']))
params = net.init(jax.random.key(0), images)['params']
state = tx.init(params)


def loss(params: optax.Params) -> jax.Array:
    return losses.softmax_cross_entropy(net.apply({'params': params}, images), labels).mean()


value, grads = jax.value_and_grad(loss)(params)
updates, state = tx.update(grads, state, params)
params = optax.apply_updates(params, updates)
error: Mean = Mean.of(value)
version: str = canon.__version__
"""
MISTAKES = """
from canon import data, optim, train

optim.adam(learning_rat=1e-3)
train.fit(1, 2, 3)
data.Batchs
"""


def check_types(folder, text, *options):
    """Returns the lines that ty reports on a user's file in `folder`."""
    file = folder / 'users_file.py'
    file.write_text(text)
    words = [sys.executable, '-m', 'ty', 'check', '--output-format', 'concise', *options, file.name]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith(file.name)]


@pytest.fixture
def options(root):
    return ['--python', sys.prefix, '--extra-search-path', str(root / 'lib')]


def test_a_users_file_has_types(tmp_path, options):
    assert not check_types(tmp_path, USERS_FILE, *options)
    lines = check_types(tmp_path, MISTAKES, *options)
    assert {int(line.split(':')[1]) for line in lines} == {4, 5, 6}, lines
