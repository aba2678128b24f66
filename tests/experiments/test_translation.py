"""Translation as an experiment: what is learnt, how it is searched and scored, what is written."""

import gzip
import json
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy.special import log_softmax

from canon import metrics
from canon.data.text import parallel_text, text_files, vocabulary
from canon.data.text.parallel_text import build_languages
from canon.errors import CanonError, UsageError
from canon.tasks import predictions
from canon.tasks.translation import SearchSettings, Translation, Translator
from canon.train import At, fit, shard
from canon.train.evaluation import evaluate
from canon.train.runs import Run
from canon.train.setup import make_setup
from experiments import overrides
from experiments import translation as tr
from experiments.claims.translation import plot_chrf_by_length

ENGLISH, FRENCH = ['one', 'two', 'three', 'four', 'five', 'six'], ['un', 'deux', 'trois', 'quatre', 'cinq', 'six']
WORDS = dict(zip(ENGLISH, FRENCH, strict=True))
MODELS = {
    'bahdanau': dict(name='seq2seq.bahdanau', embed=12, hidden=24, align=12, maxout=12, start='glorot'),
    'sutskever': dict(name='seq2seq.sutskever', embed=12, hidden=16, layers=1, start='glorot'),
    'transformer': dict(name='transformer.transformer', layers=1, d_model=16, d_ff=32, heads=2, dropout=0.0),
}


def slow(value):
    return pytest.param(value, marks=pytest.mark.slow)


def sentences(count, seed, longest=6):
    rng = np.random.default_rng(seed)
    chosen = [rng.choice(list(WORDS), rng.integers(1, longest + 1)) for _ in range(count)]
    return [(' '.join(words), ' '.join(WORDS[w] for w in words)) for words in chosen]


def write_sentences(folder):
    for split, count in (('train', 200), ('test', 9)):
        for side, language in enumerate(('en', 'fr')):
            lines = [pair[side] for pair in sentences(count, len(split))]
            (folder / f'{split}.{language}').write_text('\n'.join(lines) + '\n')


@pytest.fixture
def folder(tmp_path):
    write_sentences(tmp_path)
    return tmp_path


def make_config(folder, model='bahdanau', **changes):
    config = ConfigDict(
        dict(
            experiment='translation',
            seed=0,
            data=dict(
                name='files',
                source=dict(path=str(folder), source='en', target='fr'),
                train=dict(split='train', batch_size=8, buckets=(4, 7)),
                evals=dict(test=dict(split='test', batch_size=4, extra=3, bounds=(2,))),
            ),
            vocabulary=dict(level='word'),
            model=MODELS[model],
            loss=dict(label_smoothing=0.0),
            tx=dict(name='adam', learning_rate=0.02),
            run=dict(steps=3),
            search=dict(beams=3, extra=3, alignments=1),
        )
    )
    config.update_from_flattened_dict(changes)
    return config


def start(config):
    experiment = tr.make(config)
    return experiment, make_setup(experiment, config).starting_state()


@pytest.mark.parametrize('smoothing', [slow('uniform'), 'others'])
def test_the_loss_is_the_cross_entropy_with_the_named_target(folder, smoothing):
    config = make_config(folder, loss=dict(label_smoothing=0.3, smoothing=smoothing))
    experiment, state = start(config)
    batch = jax.tree.map(np.copy, experiment.train[0])
    batch['mask'][1] = False
    loss, (_, measured) = jax.jit(experiment.task.loss)(state.params, {}, batch, At(jax.random.key(0), 0))
    words = tr._build_languages(config, None).target
    target = batch['target']
    inputs = np.concatenate([np.full((8, 1), words.bos), target[:, :-1]], 1)
    model = tr._make_model(config, tr._build_languages(config, None))
    logits = jax.jit(model.apply)({'params': state.params}, batch['source'], batch['source_length'], inputs)
    log_p = log_softmax(np.asarray(logits, np.float64), -1)
    size = len(words)
    hot = np.eye(size)[target]
    wanted = 0.7 * hot + 0.3 * (np.full(size, 1 / size) if smoothing == 'uniform' else (1 - hot) / (size - 1))
    counted = (np.arange(target.shape[1]) < batch['target_length'][:, None]) & batch['mask'][:, None]
    np.testing.assert_allclose(loss.total, -(wanted * log_p).sum(-1)[counted].sum(), rtol=1e-5)
    assert float(loss.weight) == counted.sum()
    np.testing.assert_allclose(measured['nats'].total, -(hot * log_p).sum(-1)[counted].sum(), rtol=1e-5)
    with pytest.raises(UsageError, match=r"loss.smoothing='even' is neither 'uniform' nor 'others'"):
        tr.make(make_config(folder, loss=dict(smoothing='even')))


@pytest.mark.parametrize('kind', [kind if kind == 'bahdanau' else slow(kind) for kind in MODELS])
def test_what_is_measured(folder, kind):
    """Translations by applying the model to ever longer beginnings, without a cache; scores of those texts."""
    config = make_config(folder, kind)
    experiment, state = start(config)
    evaluator = experiment.evals['test']
    result = evaluate(evaluator, state.params, state.mutable, shard.make_mesh(1))
    results, languages = result.metrics, tr._build_languages(config, None)
    model, pairs = tr._make_model(config, languages), sentences(9, 4)
    order = [i for bound in (range(0, 5), range(5, 9)) for i, p in enumerate(pairs) if len(p[0].split()) + 1 in bound]
    read = jax.jit(
        lambda params, *a: model.apply({'params': params}, *a)
    )  # of one shape: nothing behind t is seen at t
    texts = []
    for i in order:
        tokens = np.append(languages.source.encode(pairs[i][0]), languages.source.eos)
        source, length = np.zeros((1, 7), np.int32), np.array([len(tokens)])
        source[0, : len(tokens)] = tokens
        inputs = np.full((1, 11), languages.target.bos)
        for t in range(len(tokens) + 3):  # `extra` beyond its own source
            inputs[0, t + 1] = read(state.params, source, length, inputs)[0, t].argmax()
            if inputs[0, t + 1] == languages.target.eos:
                break
        texts.append(languages.target.decode(inputs[0, 1 : t + 2]).strip())
    sources, references = zip(*(pairs[i] for i in order), strict=True)
    assert results['bleu'] == pytest.approx(metrics.bleu(texts, references).value)
    assert results['chrf'] == pytest.approx(metrics.chrf(texts, references).value)
    assert results['copy_chrf'] == pytest.approx(metrics.chrf(sources, references).value)
    assert results['gain'] == pytest.approx(results['chrf'] - results['copy_chrf'])
    short = [i for i, source in enumerate(sources) if len(source.split()) <= 2]
    expected = metrics.chrf([texts[i] for i in short], [references[i] for i in short]).value
    assert results['chrf_to_2'] == pytest.approx(expected)
    assert results['perplexity'] == pytest.approx(np.exp(results['loss']), rel=1e-6)
    pictures = evaluator.draw(state.params, state.mutable, result.sums)
    drawn = {'alignment 1', 'alignment 2'} if kind != 'sutskever' else set()
    assert pictures.keys() == {'translations', 'lengths'} | drawn
    if kind == 'transformer':
        assert len([a for a in pictures['alignment 1'].axes if a.images]) == 2  # heads


@pytest.mark.slow
def test_it_learns_to_translate(folder):
    config = make_config(folder, **{'run.steps': 400, 'tx.learning_rate': 0.02, 'data.train.batch_size': 32})
    fitted = fit(tr.make(config), config, folder / 'run', quiet=True)
    assert fitted.metrics['test/bleu'] > 90


@pytest.mark.parametrize('kind', [kind if kind == 'transformer' else slow(kind) for kind in MODELS])
def test_lines_of_a_file_are_translated_in_order(folder, tmp_path, kind):
    config = make_config(folder, kind)
    experiment, state = start(config)
    lines = ['one two', '', 'three', 'four five six three one', 'two']
    (tmp_path / 'lines.txt').write_text('\n'.join(lines) + '\n')
    yielded = list(tr.predict(config, experiment, state.params, {}, str(tmp_path / 'lines.txt')))
    predictions.write_predictions(yielded, tmp_path / 'out')
    written = (tmp_path / 'out' / 'translations.txt').read_text().split('\n')[:-1]
    assert len(written) == 5
    assert written[1] == ''
    rows = [prediction.row for prediction in yielded if prediction.row]
    assert [row['source'] for row in rows] == [line for line in lines if line]
    assert [row['translation'] for row in rows] == [text for line, text in zip(lines, written, strict=True) if line]
    assert (tmp_path / 'out' / 'alignment-1.png').is_file() == (kind != 'sutskever')
    predictions.write_predictions(
        tr.predict(config, experiment, state.params, {}, 'four five six three one'), tmp_path / 'one'
    )
    assert (tmp_path / 'one' / 'translations.txt').read_text() == written[3] + '\n'


def test_vocabularies_are_shared_and_kept_where_asked(folder, tmp_path):
    apart = tr._build_languages(make_config(folder), None)
    assert apart.source != apart.target
    settings = {'vocabulary.shared': True, 'vocabulary.path': str(tmp_path / 'words' / 'both.json')}
    config = make_config(
        folder, 'transformer', vocabulary=dict(level='word', shared=True, path=settings['vocabulary.path'])
    )
    shared = tr._build_languages(config, None)
    assert shared.source == shared.target == vocabulary.read_vocabulary(settings['vocabulary.path'])
    _, state = start(config)
    assert set(state.params) & {'embedding', 'source_embedding'} == {'embedding'}
    (folder / 'train.en').write_text('zebra\n' * 200)
    assert tr._build_languages(config, None) == shared  # read, not built


def test_pairs_that_are_too_long_are_counted_and_other_data_refused(folder, caplog):
    config = make_config(folder, **{'data.train.buckets': (3, 4)})
    with caplog.at_level('WARNING', 'canon'):
        experiment = tr.make(config)
    over = sum(len(source.split()) + 1 > 4 for source, _ in sentences(200, 5))
    assert experiment.about['pairs'] == dict(train=200 - over, longer=over)
    assert f'{over} of 200 pairs are longer than max_length=4 and left out' in caplog.text
    assert ' pairs are longer than max_length=4 and cut' in caplog.text  # of the test: it is scored whole
    config = make_config(folder, 'transformer', **{'run.steps': 1})
    config.data.evals = {}
    fit(tr.make(config), config, folder / 'run', quiet=True)
    with (folder / 'train.en').open('a') as more, (folder / 'train.fr').open('a') as others:
        more.write('zebra\n')
        others.write('zèbre\n')
    with pytest.raises(UsageError, match='made with other data: vocabulary was'):
        fit(tr.make(config), config, folder / 'run', quiet=True)
    with (folder / 'train.en').open('a') as more:
        more.write('lion\n')
    with pytest.raises(CanonError, match=r'has 202 lines and .* 201'):
        tr.make(make_config(folder))


def test_batches_of_tokens_have_more_short_pairs():
    train = sentences(200, 5)
    languages = build_languages(train, level='word')
    pairs = parallel_text.Pairs(train, *languages, max_length=7)
    data = parallel_text.Buckets(pairs.buckets([4, 7]), tokens=70, multiple=2)
    shapes = {data[i]['source'].shape for i in range(data.steps_per_epoch)}
    assert shapes == {(16, 4), (10, 7)}
    counts = [int(((pairs.lengths().max(1) <= 4) == short).sum()) for short in (True, False)]
    assert data.steps_per_epoch == -(-counts[0] // 16) + -(-counts[1] // 10)
    assert data.num_examples / data.batch_size == pytest.approx(data.steps_per_epoch)
    with pytest.raises(UsageError, match='batch_size=8 and tokens=70: batches are of one or of the other'):
        parallel_text.Buckets(pairs.buckets([4, 7]), 8, tokens=70)


def test_a_wide_beam_scores_no_worse_than_greedy(folder):
    config = make_config(folder, 'transformer')
    _, state = start(config)
    languages = tr._build_languages(config, None)
    model, first = tr._make_model(config, languages), languages.target.bos
    source, lengths = jnp.array([[4, 5, 6, 3], [7, 3, 0, 0]]), jnp.array([4, 2])
    apply = jax.jit(model.apply)

    def scores(beams):
        translator = Translator(model, languages, SearchSettings(beams=beams, extra=2, alpha=0.0))
        tokens, counts = map(np.asarray, jax.jit(translator.search)(state.params, source, lengths))
        inputs = np.concatenate([np.full((2, 1), first), tokens[:, :-1]], 1)
        log_p = log_softmax(np.asarray(apply({'params': state.params}, source, lengths, inputs)), -1)
        told = np.take_along_axis(log_p, tokens[..., None], -1)[..., 0]
        return tokens, np.where(np.arange(tokens.shape[1]) < counts[:, None], told, 0).sum(1)

    greedy, least = scores(1)
    assert greedy.shape == (2, 6)
    assert (scores(60)[1] >= least - 1e-4).all()


def test_forms_are_drawn_by_length_at_their_best_rate(tmp_path):
    def run(form, rate, seed, score):
        folder = tmp_path / f'{form}{rate}{seed}'
        folder.mkdir()
        (folder / 'config.json').write_text(json.dumps({'model': {'name': f'seq2seq.{form}'}, 'rate': rate}))
        told = {'test/chrf': score, 'test/chrf_to_2': score - 1, 'test/chrf_to_10': score + 1, 'test/chrf_beyond': 0.0}
        return Run(folder, '', {}, {}, 'done', metrics=told)

    swept = [run('luong', rate, seed, 10 * rate + seed) for rate in (1, 2) for seed in (0, 1)]
    swept += [run('sutskever', rate, 0, 9 / rate) for rate in (1, 2)]
    (axes,) = plot_chrf_by_length(swept, 'model.name', 'rate').axes

    lines = {line.get_label(): list(line.get_ydata()) for line in axes.lines if line.get_label()[0] != '_'}
    assert lines == {'luong, 2': [19.5, 21.5, 0.0], 'sutskever, 1': [8, 10, 0]}
    assert [text.get_text() for text in axes.get_xticklabels()] == ['to 2', 'to 10', 'beyond']


@pytest.mark.parametrize('beams', [slow(1), 3])
def test_a_translation_does_not_depend_on_the_sentence_next_to_it(folder, beams):
    """A model that never ends is bounded by the length of its own source."""
    config = make_config(folder)
    languages = tr._build_languages(config, None)
    model = tr._make_model(config, languages)
    _, state = start(config)
    size, end = len(languages.target), languages.target.eos
    params = jax.tree.map(lambda x: x.at[end].add(-1e3) if x.shape == (size,) else x, state.params)
    translator = Translator(model, languages, SearchSettings(beams=beams, extra=3))
    short, long = 'one two', ' '.join(['three'] * 40)
    alone, together = (next(translator.translate(params, lines, 2)) for lines in ([short], [short, long]))
    assert len(alone.target) == len(together.target) == 3 + 3  # two words, <eos>, and `extra`
    np.testing.assert_array_equal(alone.target, together.target)


def test_bleu_is_computed_by_the_tokenizer_of_the_target_language(tmp_path):
    """A perfect translation into Chinese has BLEU 100; '13a' would take each sentence for one word and give 0."""
    pair = ('today the weather is good', '今天天气很好啊')
    for split in ('train', 'test'):
        for language, text in zip(('en', 'zh'), pair, strict=True):
            (tmp_path / f'{split}.{language}').write_text(f'{text}\n')
    config = make_config(tmp_path, **{'data.train.batch_size': 1, 'vocabulary.level': 'character'})
    config.data.source.target = 'zh'
    config.data.train.buckets = (30,)
    config.data.evals = dict(test=dict(split='test', batch_size=1))
    evaluator, zero = tr.make(config).evals['test'], metrics.Mean(np.float64(0), np.float64(1))
    tokens = tr._build_languages(config, None).target.encode(pair[1])[None]
    rows = metrics.Rows.of((tokens, tokens[:, 0], tokens, np.array([tokens.shape[1]])), np.array([True]))
    assert evaluator.finish({'nats': zero, 'accuracy': zero, 'rows': rows})['bleu'] == pytest.approx(100)
    config.data.evals.test.tokenize = 'chinese'
    with pytest.raises(UsageError, match="sacrebleu has no tokenizer 'chinese'"):
        tr.make(config)


def test_lines_are_read_as_those_of_training_are(folder, tmp_path, monkeypatch):
    """A line of the output for each of the input: they end at line feeds alone, and outer white space is dropped."""
    config = make_config(folder)
    experiment, state = start(config)
    translated = []

    def translate(self, params, lines, batch_size):
        translated.extend(lines)
        yield from (Translation(f'{line}\nand more', np.zeros(1), np.zeros(1)) for line in lines)

    def predict(source):
        predictions.write_predictions(tr.predict(config, experiment, state.params, {}, source), tmp_path / 'out')

    monkeypatch.setattr(Translator, 'translate', translate)
    monkeypatch.setattr('canon.tasks.translation.plot_alignment', lambda *_: None)
    lines = ['one\x0ctwo', '', '  three\u2028four ', 'five\x85six\r', ' \t', 'one']
    with gzip.open(tmp_path / 'lines.en.gz', 'wb') as packed:
        packed.write(('\ufeff' + '\n'.join(lines) + '\n').encode())
    predict(str(tmp_path / 'lines.en.gz'))
    expected = [line.strip() for line in lines]
    assert translated == [line for line in expected if line]
    written = (tmp_path / 'out' / 'translations.txt').read_bytes().decode()
    assert written == ''.join(f'{line} and more\n' if line else '\n' for line in expected)
    (tmp_path / 'train.en').write_bytes('\n'.join(line for line in lines if line.strip()).encode())
    (tmp_path / 'train.fr').write_text('un\n' * 4)
    assert [pair[0] for pair in parallel_text.files(str(tmp_path), 'en', 'fr')] == translated
    for missing in ('lines.en', 'lines.txt', 'runs/lines', 'my runs/lines.txt'):
        with pytest.raises(UsageError, match=f'there is no file {missing}'):
            predict(missing)
    with pytest.raises(UsageError, match='is a folder'):
        predict(str(tmp_path))
    with pytest.raises(UsageError, match='is not UTF-8'):
        predict('lines\udcff')
    for sentence in ('one/two three.', 'one.', 'Open the file /etc/hosts', 'a' * 5000, 'one\0two'):
        assert text_files.read_input(sentence) == [sentence]


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('data.train.buckets', (7, 4), r'data\.train\.buckets=\(7, 4\) must be lengths that rise'),
        ('data.train.buckets', 'abc', r"data\.train\.buckets='abc' must be a tuple"),
        ('data.train.batch_size', 1.5, r'data\.train\.batch_size=1\.5 must be a whole number'),
        ('data.evals.test.beams', 0, r'data\.evals\.test\.beams=0 must be a whole number at least 1'),
        ('data.source.path', ' ', r'data\.source\.path is empty'),
        ('loss.label_smoothing', 1.5, r'loss\.label_smoothing=1\.5 must be'),
        ('search.extra', -1, r'search\.extra=-1 must be a whole number at least 0'),
    ],
)
def test_settings_are_refused_before_training(folder, key, value, message):
    config = make_config(folder)
    *parents, last = key.split('.')
    section = config
    for name in parents:
        section = section[name]
    with section.ignore_type():
        section[last] = value
    with pytest.raises(UsageError, match=message):
        tr.make(config)


def test_keys_left_to_their_defaults_are_overridden(folder):
    config = make_config(folder, 'transformer')
    words = [
        '--config.data.train.longer=cut',
        '--config.data.train.threads=0',
        '--config.data.evals.test.beams=2',
        '--config.vocabulary.min_count=2',
        '--config.vocabulary.shared',
        '--config.loss.smoothing=others',
        '--config.search.alpha=1',
    ]
    with config.unlocked():
        values = overrides.apply(config, overrides.read_flags(words)[0])
    assert list(values.values()) == ['cut', 0, 2, 2, True, 'others', 1.0]
    experiment = tr.make(config)
    assert experiment.train.threads == 0
    assert experiment.about['vocabulary'][0] == experiment.about['vocabulary'][1]
    for word, message in (
        ('loss.first_token=3', "no key 'loss.first_token'"),
        ('data.train.parts=3', "no key 'data.train.parts'"),
        ('search.beam=3', "did you mean 'search.beams'"),
        ('data.evals.test.tokenise=zh', "did you mean 'data.evals.test.tokenize'"),
    ):
        with pytest.raises(UsageError, match=message):
            overrides.apply(config, overrides.read_flags([f'--config.{word}'])[0])


def test_splits_that_share_sentences_are_refused_unless_it_is_stated(folder):
    for train, test, shared in (
        ('train', 'train[:9]', True),
        ('train[:90%]', 'train[90%:]', False),
        ('train[:150]', 'train[150:]', False),
        ('train[:150]', 'train[-60:]', True),
        ('train', 'test', False),
    ):
        config = make_config(folder, **{'data.train.split': train, 'data.evals.test.split': test})
        if shared:
            with pytest.raises(UsageError, match=r'data\.evals\.test\.split=.* shares sentences with data\.train'):
                tr.make(config)
            config.data.evals.test.trained_on = True
        assert 'test' in tr.make(config).evals


def test_processes_may_build_the_same_vocabularies_at_once(tmp_path):
    """Each either builds the vocabularies or reads whole files of another; none reads a part."""
    pairs, path = sentences(300, 0), tmp_path / 'words.json'
    with ThreadPoolExecutor(8) as pool:
        built = list(pool.map(lambda _: build_languages(pairs, path=path, level='word'), range(40)))
    assert all(languages == built[0] for languages in built)
    assert sorted(file.name for file in tmp_path.iterdir()) == ['words.json.source', 'words.json.target']
