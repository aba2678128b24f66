"""Readers of whole words from a config: each kind predicts the files of a folder; sizes that do not fit are refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from canon.errors import UsageError
from canon.train.checkpoint_files import flatten_names
from experiments import configs, staged, word_recognition
from tests.quick import quick_programs

WORDS = tuple(str(n) for n in range(10, 30))


def config(kind='dict', **reader):
    name = {'attention': 'attention_reader'}.get(kind, f'mjsynth_{kind}')
    config = configs.load(f'{configs.ROOT}/configs/text_recognition/{name}.py:smoke')
    with config.unlocked(), config.ignore_type():
        config.data.update(name='digit_lines', batch_size=4)
        config.data.source = dict(num_examples=64, most=2)
        config.text.update(characters='0123456789', max_length=4)
        config.reader.update(words=WORDS, **reader)
        tiny = (
            dict(width=16, hidden=2) if kind == 'attention' else dict(features=(2,), kernels=(3,), pools=(1,), units=())
        )
        config.model.update(tiny)
    return config


_SLOW = [('char', dict(listed=True)), ('dict', {}), ('attention', {})]


@pytest.mark.parametrize(
    ('kind', 'reader'),
    [('ngram', dict(num_ngrams=9)), *(pytest.param(*case, marks=pytest.mark.slow) for case in _SLOW)],
)
def test_files_are_read(kind, reader, tmp_path):
    words_config = config(kind, **reader)
    experiment = word_recognition.make(words_config)
    images = experiment.train[0]['image'][:3]
    for i, image in enumerate(images):
        Image.fromarray(image[..., 0]).save(tmp_path / f'{i}.png')
    batch = {name: jnp.asarray(x) for name, x in experiment.train[0].items()}
    variables = dict(jax.eval_shape(experiment.task.init, jax.random.key(0), batch))
    variables = jax.tree.map(lambda x: np.full(x.shape, 0.1, x.dtype), variables)
    params = variables.pop('params')
    without = word_recognition.without_data(words_config, experiment.about)
    with quick_programs():
        rows = list(word_recognition.predict(words_config, without, params, variables, str(tmp_path)))
    texts = [row.row['text'] for row in rows if row.row]
    assert len(texts) == 3
    assert kind == 'attention' or set(texts) <= set(WORDS)


def test_benchmarks_are_read_if_they_have_a_path(tmp_path):
    with_benchmarks = config()
    for name in ('IMG', 'label'):
        (tmp_path / 'test' / name).mkdir(parents=True)
    Image.fromarray(np.zeros((9, 30), np.uint8)).save(tmp_path / 'test/IMG/1.png')
    (tmp_path / 'test/label/1.txt').write_text('12')
    sets = {name: dict(data='word_folder', source=dict(path=None)) for name in ('folder', 'other')}
    squeeze = dict(chain=('resize',), resize=dict(size=(32, 100)))
    with with_benchmarks.unlocked():
        with_benchmarks.data.benchmarks = dict(sets=sets, transforms=squeeze)
    assert 'benchmarks' not in word_recognition.make(with_benchmarks).evals
    with with_benchmarks.unlocked(), with_benchmarks.ignore_type():
        with_benchmarks.data.benchmarks.sets.folder.source.path = str(tmp_path)
    evaluator = word_recognition.make(with_benchmarks).evals['benchmarks']
    assert evaluator.data[0]['image'].shape == (4, 32, 100, 3)
    with with_benchmarks.unlocked():
        with_benchmarks.data.benchmarks.sets.folder.lexicon = 'full'
    with pytest.raises(UsageError, match=r"sets\.folder\.lexicon must be 'none': experiment='word_recognition' reads"):
        word_recognition.make(with_benchmarks)
    assert 'benchmarks' not in word_recognition.offline(with_benchmarks).data


def test_what_is_refused():
    wrong = config()
    with wrong.unlocked():
        wrong.model.num_words = 19
    with pytest.raises(UsageError, match=r"model\.num_words=19, but reader\.kind='dict' needs 20"):
        word_recognition.make(wrong)
    wrong = config()
    wrong.reader.kind = 'bigram'
    with pytest.raises(UsageError, match=r"reader\.kind='bigram' must be"):
        word_recognition.make(wrong)
    wrong = config()
    with wrong.unlocked():
        wrong.data.sizes = ((32, 64), (32, 100))
    with pytest.raises(
        UsageError, match=r"data\.sizes must be one size: reader\.kind='dict' reads images of one width"
    ):
        word_recognition.make(wrong)


def test_a_longer_dictionary_goes_on_from_a_run(tmp_path, monkeypatch):
    """Stages of mjsynth_dict_grown: the scores of the words that the first stage had are the same in the second."""
    grown = configs.load(f'{configs.ROOT}/configs/text_recognition/mjsynth_dict_grown.py:smoke')
    with grown.unlocked(), grown.ignore_type():
        grown.data.source.num_examples, grown.data.batch_size = 8, 4
        grown.data.evals.test.split = 'test[:4]'
        grown.model.update(features=(2,), kernels=(3,), pools=(1,), units=(), dropout=0.0, batch_norm=False)
        for name, count in zip(grown.stages.chain, (5, 9), strict=True):
            grown.stages[name].reader.most_words = count
    made, variables = {}, {}
    with quick_programs():
        for seed, stage in enumerate(staged.make(grown)):
            experiment, settings = stage.make({})
            batch = {name: jnp.asarray(x) for name, x in experiment.train[0].items()}
            variables[stage.name] = flatten_names(jax.jit(experiment.task.init)(jax.random.key(seed), batch)['params'])
            made[stage.name] = experiment, settings, batch
    first, second = made
    assert made[second][1].run.init_from.stage == first
    (tmp_path / 'config.json').write_text(json.dumps(made[first][1].to_dict()))
    monkeypatch.setattr(word_recognition, 'read_model', lambda path: variables[first])
    read = made[second][0].read(str(tmp_path), variables[second])
    log_probs = {}
    for name, weights in ((first, variables[first]), (second, read)):
        tree = {layer: {kind: weights[f'{layer}/{kind}'] for kind in ('kernel', 'bias')} for layer in ('conv1', 'fc2')}
        log_probs[name] = np.asarray(jax.jit(made[name][0].task.predict)(tree, {}, made[second][2]))
    assert [x.shape for x in log_probs.values()] == [(4, 5), (4, 9)]
    words = [word_recognition._list_dictionary(settings) for _, settings, _ in made.values()]
    assert set(words[0]) < set(words[1])
    shared = log_probs[second][:, [words[1].index(word) for word in words[0]]]
    # Softmax over more words adds one constant per image.
    differences = shared - log_probs[first]
    np.testing.assert_allclose(differences, differences[:, :1].repeat(5, 1), atol=1e-5)
    # Images are of the words of the stage, and the same words go on as any run does.
    listed = {made[first][0].train.source.texts.words, words[0]}
    assert len({tuple(sorted(x)) for x in listed}) == 1
    assert made[first][0].read(str(tmp_path), variables[first]) is None
