"""A recogniser as a library user builds it: docs/examples/word_reading.py, and the blocks of the pages on text."""

import importlib.util
import re

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope='module')
def example(root):
    spec = importlib.util.spec_from_file_location('word_reading_example', f'{root}/docs/examples/word_reading.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_imports_canon_alone_and_is_short(root):
    with open(f'{root}/docs/examples/word_reading.py') as file:
        lines = file.read().splitlines()
    modules = {line.split()[1].partition('.')[0] for line in lines if line.startswith(('import ', 'from '))}
    assert modules <= {'canon', 'sys', 'functools'}
    assert len(lines) <= 66


@pytest.mark.slow
def test_the_example_trains_and_reads(example, tmp_path):
    task = example.build_task(features=(2,) * 7, hidden=2)
    fitted = example.train(task, tmp_path / 'run', steps=1, tested=8)
    assert {f'words/{name}/word_accuracy_36' for name in ('free', 'near', 'whole', 'all')} <= set(fitted.metrics)
    # An untrained network reads nothing by itself, but with the whole lexicon always one of its words.
    assert fitted.metrics['words/free/word_accuracy_36'] == 0
    Image.fromarray(np.zeros((40, 90, 3), np.uint8)).save(tmp_path / 'x.png')
    ((path, reading, probability),) = example.read(task, fitted.state, str(tmp_path / 'x.png'))
    assert str(path).endswith('x.png')
    assert 0 <= probability <= 1
    assert set(reading) <= set(example.ALPHABET.characters)


def test_the_blocks_of_the_pages_are_valid(root):
    """They are Python, and what they import exists; they are not run, since they train and read files."""
    for page in ('text_recognition', 'text_data', 'text_networks'):
        for block in re.findall(r'```python\n(.*?)```', (root / f'docs/{page}.md').read_text(), re.DOTALL):
            imports = [line for line in block.splitlines() if line.startswith(('import ', 'from '))]
            if imports:  # others are sections of configs
                compile(block, page, 'exec')
                exec('\n'.join(imports), {})
