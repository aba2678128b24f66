"""The translator as a library user builds it: docs/examples/translation.py, from arguments and without a config."""

import importlib.util

import pytest

from canon import models
from canon.models.protocols import TranslationModel


@pytest.fixture(scope='module')
def example(root):
    spec = importlib.util.spec_from_file_location('translation_example', f'{root}/docs/examples/translation.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_imports_canon_alone_and_is_short(root):
    with open(f'{root}/docs/examples/translation.py') as file:
        lines = file.read().splitlines()
    modules = {line.split()[1].partition('.')[0] for line in lines if line.startswith(('import ', 'from '))}
    assert modules <= {'canon', 'optax', 'sys'}
    assert len(lines) <= 60


@pytest.mark.slow
def test_the_example_trains_and_translates(example, tmp_path, monkeypatch):
    monkeypatch.setattr(example, 'BUCKETS', (24,))  # one shape to compile
    translator, params, metrics = example.train(tmp_path, steps=4, size=400, width=8)
    assert metrics['valid/copy_chrf'] > metrics['valid/chrf'] >= 0
    sentences = ['Restart the kernel', 'Edit', 'File']
    translations = list(translator.translate(params, sentences, batch_size=2))
    assert len(translations) == 3
    assert all(isinstance(translation.text, str) for translation in translations)
    (weights,) = translator.align(params, translations[0])
    assert weights.shape == (max(len(translations[0].target), 1), len(translations[0].source))


@pytest.mark.parametrize('name', ['seq2seq.sutskever', 'seq2seq.luong', 'seq2seq.bahdanau', 'transformer.base'])
def test_translation_models_have_one_interface(name):
    assert isinstance(models.make_model(name, vocab=9), TranslationModel)
