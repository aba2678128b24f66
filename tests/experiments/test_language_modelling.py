"""Language modelling as an experiment: what is carried, what is measured, what is written."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy.special import log_softmax

from canon import models
from canon.data.text import corpora, vocabulary
from canon.data.text.streams import Streams
from canon.errors import UsageError
from canon.metrics import KneserNey
from canon.models.protocols import LanguageModel
from canon.tasks import predictions
from canon.tasks.language_modelling import language_task, make_sampler
from canon.train import At, fit, make_step, shard
from canon.train.evaluation import evaluate
from canon.train.setup import make_setup
from canon.train.types import CARRY
from experiments import configs, overrides
from experiments import language_modelling as lm

TEXT = ['the cat sat on the mat', 'the dog sat on the log', 'a cat and a dog sat', 'on the mat the dog ate'] * 6
KEY = jax.random.key(0)
SHAPES = {
    'rnn_lm.language_model': dict(embed=8, hidden=12, layers=1),
    'transformer.causal_transformer': dict(layers=1, d_model=8, d_ff=16, heads=2),
}


def make_config(path, **changes):
    config = ConfigDict(
        dict(
            experiment='language_modelling',
            seed=0,
            data=dict(
                name='text',
                source=dict(path=str(path), held_out=0.2),
                train=dict(batch_size=4, length=8),
                evals=dict(test=dict(split='test', batch_size=2, length=5, ngram=3)),
            ),
            vocabulary=dict(level='character'),
            model=dict(name='rnn_lm.language_model', embed=8, hidden=12, layers=1),
            loss=dict(label_smoothing=0.0),
            tx=dict(name='adam', learning_rate=0.01),
            run=dict(steps=3),
            sample=dict(length=7, count=2, temperature=0.7, seed=1),
        )
    )
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture
def path(tmp_path):
    (tmp_path / 'text.txt').write_text('\n'.join(TEXT) + '\n')
    return tmp_path / 'text.txt'


def test_rows_go_on_where_their_window_ended_and_begin_anew_with_the_text():
    model = models.make_model('rnn_lm.language_model', vocab=9, embed=6, hidden=8, layers=2)
    task = language_task(model)
    tokens = np.random.default_rng(0).integers(9, size=61)
    streams = Streams(tokens, 4, 8)  # 16 tokens a stream, two windows an epoch
    variables = dict(jax.jit(task.init)(KEY, streams[0]))
    params = variables.pop('params')
    long_window = {k: np.concatenate([streams[0][k], streams[1][k]], 1) for k in ('input', 'target', 'mask')}
    read = jax.jit(model.apply)({'params': params}, long_window['input'])
    log_p = log_softmax(np.asarray(read.logits, np.float64), -1)
    expected = -np.take_along_axis(log_p, long_window['target'][..., None], -1)[..., 0]
    mutable, sums, compute_loss = variables, [], jax.jit(task.loss)
    for step in range(4):
        loss, (mutable, measured) = compute_loss(params, mutable, streams[step], At(KEY, 0))
        sums.append(float(loss.total))
        np.testing.assert_allclose(measured['nats'].total, loss.total)
    parts = [(expected * long_window['mask'])[:, i : i + 8].sum() for i in (0, 8)]
    np.testing.assert_allclose(sums, parts * 2, rtol=1e-5)  # the second epoch begins anew


def test_drawn_windows_read_the_text_as_one_pass_does(root):
    """Windows of drawn lengths are padded; neither the carry nor the penalties may notice it (Merity et al. 2018)."""
    model = models.make_model('rnn_lm.language_model', vocab=9, embed=6, hidden=8, layers=2)
    task = language_task(model)
    penalised = language_task(model, activation=1.0)
    tokens = np.random.default_rng(1).integers(9, size=239)
    streams = Streams(tokens, 4, 9, deviation=2.0, half=0.3)
    stride = -(-len(tokens) // 4)
    variables = dict(jax.jit(task.init)(KEY, streams[0]))
    params = variables.pop('params')
    one_window = Streams(tokens, 4, stride)[0]
    read = jax.jit(model.apply)({'params': params}, one_window['input'])
    log_p = log_softmax(np.asarray(read.logits, np.float64), -1)
    expected = -np.take_along_axis(log_p, one_window['target'][..., None], -1)[..., 0]
    outputs = np.asarray(read.outputs, np.float64)
    predict, losses = jax.jit(task.predict), [jax.jit(t.loss) for t in (task, penalised)]
    mutable, begin, begins = variables, 0, []
    while begin < stride:
        batch = streams[len(begins)]
        length = int(batch['mask'].sum(1).max())
        begins.append(begin)
        nats, carry = predict(params, mutable, batch)
        mask = batch['mask'][:, :length]
        window = slice(begin, begin + length)
        np.testing.assert_allclose(nats[:, :length][mask], expected[:, window][mask], rtol=1e-4)
        plain, penalty = (compute_loss(params, mutable, batch, At(KEY, 0))[0] for compute_loss in losses)
        square = (outputs[:, window][mask] ** 2).mean()
        np.testing.assert_allclose(penalty.value - plain.value, square, rtol=1e-3)
        mutable, begin = {CARRY: carry}, begin + length
    assert begin == stride
    assert configs.load(f'{root}/configs/language_modelling/awd_lstm.py:smoke').data.train.deviation > 0
    assert len(begins) > 4
    for carried, last in zip(jax.tree.leaves(mutable[CARRY]), jax.tree.leaves(read.state), strict=True):
        np.testing.assert_allclose(carried[:3], last[:3], atol=1e-5)  # the fourth stream is one token shorter


def test_the_penalties_of_awd_lstm():
    """Merity et al. 2018, section 4.6, added to the mean over the words."""
    model = models.make_model('rnn_lm.language_model', vocab=9, embed=6, hidden=8, layers=1)
    streams = Streams(np.random.default_rng(0).integers(9, size=64), 4, 8)
    batch = streams[1]  # not the first: it starts from the carry
    plain, penalised = language_task(model), language_task(model, activation=2.0, slowness=3.0)
    variables = dict(plain.init(KEY, batch))
    params = variables.pop('params')
    state = jax.tree.map(lambda s: s + 0.3, variables[CARRY])
    outputs = np.asarray(jax.jit(model.apply)({'params': params}, batch['input'], state).outputs, np.float64)
    penalty = 2.0 * (outputs**2).mean() + 3.0 * (np.diff(outputs, axis=1) ** 2).mean()
    first, second = (jax.jit(t.loss)(params, {CARRY: state}, batch, At(KEY, 0))[0] for t in (plain, penalised))
    np.testing.assert_allclose(second.value - first.value, penalty, rtol=1e-4)


@pytest.mark.parametrize('name', SHAPES)
def test_what_is_measured(path, name):
    config = make_config(path)
    config.model = dict(name=name, **SHAPES[name])
    experiment = lm.make(config)
    state = make_setup(experiment, config).starting_state()
    evaluator = experiment.evals['test']
    results = evaluate(evaluator, state.params, state.mutable, shard.make_mesh(1)).metrics
    lines = TEXT[-5:]
    characters = sum(len(line) + 1 for line in lines)
    assert results['bits_per_character'] == pytest.approx(
        results['loss'] / np.log(2), rel=1e-6
    )  # a token is a character
    assert results['perplexity'] == pytest.approx(np.exp(results['loss']), rel=1e-6)
    assert 0 < results['loss'] < 5
    text = corpora.corpus('text', path=str(path), held_out=0.2)
    words = vocabulary.build(text.lines('train'), 'character')
    learnt, held = (words.stream(text.lines(split)) for split in ('train', 'test'))
    assert len(held) == characters
    theirs = -KneserNey(learnt, len(words), 3).log_probs(held).sum() / characters / np.log(2)
    assert results['ngram_bits_per_character'] == pytest.approx(theirs, rel=1e-9)
    assert results['gain'] == pytest.approx(theirs - results['bits_per_character'], rel=1e-9)
    pictures = evaluator.draw(state.params, state.mutable, None)
    assert len(pictures['surprise'].axes[0].texts) == -(-characters // 2)  # the first of two streams


def test_an_evaluation_does_not_depend_on_the_training_carry(path):
    config = make_config(path)
    experiment = lm.make(config)
    state = make_setup(experiment, config).starting_state()
    mesh = shard.make_mesh(1)
    before = evaluate(experiment.evals['test'], state.params, state.mutable, mesh).metrics
    disturbed = jax.tree.map(lambda s: s + 1.0, state.mutable)
    assert evaluate(experiment.evals['test'], state.params, disturbed, mesh).metrics == before


def test_microbatches_make_the_same_update(path):
    config = make_config(path)
    experiment = lm.make(config)
    setup = make_setup(experiment, config)
    state, tx = setup.starting_state(), setup.tx
    states = []
    for accumulate in (1, 2):
        step, s = jax.jit(make_step(experiment.task, tx, 0, accumulate)), state
        for k in range(3):
            s, _ = step(s, jax.tree.map(jnp.asarray, experiment.train[k]))
        states.append(s)
    for a, b in zip(jax.tree.leaves(states[0].mutable), jax.tree.leaves(states[1].mutable), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize('name', SHAPES)
def test_writing_goes_on_from_prompts(path, tmp_path, name):
    config = make_config(path)
    config.model = dict(name=name, **SHAPES[name])
    experiment = lm.make(config)
    state = make_setup(experiment, config).starting_state()
    yielded = list(lm.predict(config, experiment, state.params, state.mutable, 'the '))
    assert [set(prediction.row) for prediction in yielded] == [{'prompt', 'text'}] * 2 + [set()]
    predictions.write_predictions(yielded, tmp_path / 'out')
    texts = (tmp_path / 'out' / 'samples.txt').read_text().removesuffix('\n').split('\n\n----\n\n')
    assert len(texts) == 2
    assert all(text.startswith('the ') for text in texts)
    prompts = tmp_path / 'prompts.txt'
    prompts.write_text('a\ndog\n')
    config.sample = dict(length=4, temperature=0)
    predictions.write_predictions(
        lm.predict(config, experiment, state.params, state.mutable, str(prompts)), tmp_path / 'two'
    )
    texts = (tmp_path / 'two' / 'samples.txt').read_text().removesuffix('\n').split('\n\n----\n\n')
    assert [text[:1] for text in texts] == ['a', 'd']


def test_another_text_is_refused_in_the_same_folder(path, tmp_path):
    config = make_config(path)
    fit(lm.make(config), config, tmp_path / 'run', quiet=True)
    path.write_text('\n'.join([*TEXT, 'zebra quiz']) + '\n')
    with pytest.raises(UsageError, match='made with other data: vocabulary was'):
        fit(lm.make(config), config, tmp_path / 'run', quiet=True)
    with pytest.raises(UsageError, match=r"loss\.smoothing: .*did you mean 'label_smoothing'"):
        lm.make(make_config(path, **{'loss': dict(smoothing=0.1)}))


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('data.train.length', 'abc', r"data\.train\.length='abc' must be a whole number"),
        ('data.train.length', 0, r'data\.train\.length=0 must be a whole number at least 1'),
        ('data.train.deviation', float('nan'), r'data\.train\.deviation=nan must be'),
        ('data.evals.test.ngram', -1, r'data\.evals\.test\.ngram=-1 must be'),
        ('data.source.held_out', 'x', r"held_out='x' must be a number"),
        ('data.source.path', '', r'data\.source\.path is empty'),
        ('data.name', 5, r'data\.name=5 must be text'),
        ('vocabulary.min_count', 1.5, r'vocabulary\.min_count=1\.5 must be a whole number'),
        ('vocabulary.level', 'words', r"level='words' is none of"),
        ('model.name', None, r'the name of a model=None must be text'),
        ('model.dtype', 'float33', r"model\.dtype='float33' is not a type .*did you mean 'float3"),
        ('loss.weight_dropout', 1.0, r'loss\.weight_dropout=1\.0 must be a number at least 0 and below 1'),
        ('sample.length', '7', r"sample\.length='7' must be a whole number"),
        ('sample.top_p', 0.0, r'sample\.top_p=0\.0 must be a number above 0'),
    ],
)
def test_settings_are_refused_before_training(path, key, value, message):
    config = make_config(path)
    *parents, last = key.split('.')
    section = config
    for name in parents:
        section = section[name]
    with section.ignore_type():
        section[last] = value
    with pytest.raises(UsageError, match=message) as caught:
        lm.make(config)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('name', SHAPES)
def test_language_models_have_one_interface(name):
    """`canon.models.protocols`: windows, and tokens one after the other, whether a state is carried or not."""
    model = models.make_model(name, vocab=9, **SHAPES[name])
    assert isinstance(model, LanguageModel)
    assert model.carries_state == name.startswith('rnn')
    tokens = np.arange(8).reshape(2, 4)

    @jax.jit
    def read_both_ways(variables):
        state, logits = model.start(2, 4), []
        for column in tokens.T:
            step, state = model.apply(variables, state, column, method='step')
            logits.append(step)
        return model.apply(variables, tokens), jnp.stack(logits, 1)

    output, logits = read_both_ways(model.init(KEY, tokens))
    assert (output.state is None) == (not model.carries_state)
    np.testing.assert_allclose(logits, output.logits, atol=1e-5)
    task = language_task(model)
    assert (CARRY in task.init(KEY, {'input': tokens})) == model.carries_state


def test_keys_left_to_their_defaults_are_overridden(path):
    config = make_config(path)
    words = [
        '--config.data.train.deviation=1.5',
        '--config.data.evals.test.trained_on',
        '--config.vocabulary.size=12',
        '--config.loss.slowness=0.5',
        '--config.sample.top_k=3',
    ]
    with config.unlocked():
        values = overrides.apply(config, overrides.read_flags(words)[0])
    assert list(values.values()) == [1.5, True, 12, 0.5, 3]
    experiment = lm.make(config)
    assert experiment.about['vocabulary'][1] == 12
    assert experiment.train.width == 8 + 6
    for word, message in (
        ('data.train.tokens=3', "no key 'data.train.tokens'"),
        ('loss.model=x', "no key 'loss.model'"),
        ('loss.slownes=1', "did you mean 'loss.slowness'"),
        ('data.source.tset=book.txt', "did you mean 'data.source.test'"),
        ('sample.top_p=high', 'must be None or a number'),
    ):
        with pytest.raises(UsageError, match=message):
            overrides.apply(config, overrides.read_flags([f'--config.{word}'])[0])
    overrides.apply(config, [('data.source.test', 'book.txt')])  # an argument of the function that data.name selects
    assert config.data.source.test == 'book.txt'


def test_evaluating_on_the_training_text_is_refused_unless_it_is_stated(path):
    config = make_config(path, **{'data.evals.test.split': 'train'})
    with pytest.raises(UsageError, match=r"data\.evals\.test\.split='train' shares text with the training split"):
        lm.make(config)
    config.data.evals.test.trained_on = True
    assert 'test' in lm.make(config).evals
    folder = path.parent
    config = make_config(
        folder, **{'data.source': dict(path=str(folder), train='text.txt', valid='text.txt', test='text.txt')}
    )
    with pytest.raises(UsageError, match='shares text'):
        lm.make(config)


def test_the_same_prompt_has_the_same_continuations():
    words = vocabulary.build(TEXT, 'character')
    model = models.make_model('rnn_lm.language_model', vocab=len(words), **SHAPES['rnn_lm.language_model'])
    params = model.init(KEY, np.zeros((1, 2), int))['params']
    sample = make_sampler(model, length=5, count=2, seed=3)
    assert sample(params, words, 'the') == sample(params, words, 'the')
    assert all(text.startswith('the') and len(text) >= 8 for text in sample(params, words, 'the'))
