"""The figures of claims on texts, from the folders of runs that never ran, and the stage that reads with lexica."""

import csv
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.text import Text

from canon import plots
from canon.configuration import make_stage_config
from canon.data import Alphabet
from canon.data.text.engine.lexicon import read_words
from canon.errors import CanonError
from canon.train.artefacts import Artefacts
from canon.train.runs import find_runs
from configs.claims import learn_to_augment
from configs.text_recognition._words import FONTS, OTHER_FONTS, STREET_WORDS
from experiments import configs, lexicon_sizes, text_recognition
from experiments.claims import text_recognition as figures_of_text
from launch.sweep import read_points
from tests.experiments import test_claims

CLAIMS = {
    'claims/engine_stages': [
        *('all stages', 'no borders', 'no colours', 'no projection', 'no textures', 'no noise', 'letters alone'),
    ],
    'claims/synthetic_to_real': [
        *('1 font', '4 fonts', '16 fonts', '16 fonts, listed words', '16 fonts, invented words'),
    ],
    'claims/word_readers': ['DICT', 'CHAR', 'NGRAM', 'CRNN'],
    'text_recognition/crnn_iiit5k': ['none', 'random', 'learnt'],
}


def write_run(folder, mode, seed, accuracy, learns):
    folder.mkdir(parents=True)
    (folder / 'config.json').write_text(json.dumps(dict(augment=dict(mode=mode), seed=seed)))
    (folder / 'run.json').write_text(json.dumps(dict(config='learn_to_augment.py')))
    metrics = {'test/word_accuracy': accuracy}
    (folder / 'status.json').write_text(json.dumps(dict(state='done', step=20, steps=20, metrics=metrics)))
    rows = [
        {'step': s, 'train/loss': 1.0, **({'train/agent_entropy': 0.69 - s / 100} if learns else {})} for s in (10, 20)
    ]
    rows[-1] |= {'test/edits': 0.2, 'test/edits_random': 0.5} | ({'test/edits_agent': 0.8} if learns else {})
    (folder / 'metrics.jsonl').write_text('\n'.join(map(json.dumps, rows)))


def test_a_sweep_over_augmentations_draws_accuracies_and_what_the_agent_learns(tmp_path):
    points = list(learn_to_augment.sweep())
    assert [list(point.values()) for point in points[:3]] == [['none', 0], ['random', 0], ['learnt', 0]]
    for number, point in enumerate(points):
        mode = point['augment.mode']
        write_run(tmp_path / f'{number}', mode, point['seed'], number / 10, mode == 'learnt')
    figures = learn_to_augment.pictures(find_runs(tmp_path))
    assert set(figures) == {'accuracy', 'agent'}
    for figure in figures.values():
        figure.canvas.draw()
    labels = {t.get_text() for t in figures['accuracy'].findobj(Text)}
    assert {'none', 'random', 'learnt'} <= labels
    entropy, *_ = (axes for axes in figures['agent'].axes if 'entropy' in axes.get_title())
    assert entropy.lines[0].get_xdata().tolist() == [10, 20]
    assert entropy.lines[0].get_ydata() == pytest.approx([0.59, 0.49])
    edits, *_ = (axes for axes in figures['agent'].axes if 'edits' in axes.get_title())
    assert {line.get_label(): line.get_ydata()[0] for line in edits.lines} == pytest.approx(
        {'warped at random': 0.5, 'warped by the agent': 0.8, 'as they are': 0.2}
    )
    with pytest.raises(CanonError, match='no run of this sweep is done'):
        learn_to_augment.pictures([])


@pytest.mark.parametrize('claim', CLAIMS)
def test_every_form_of_a_sweep_has_its_bars(claim, root, tmp_path):
    file = f'{root}/configs/{claim}.py'
    points = read_points(file)
    for number, point in enumerate(points):
        config = configs.load(file)
        config.update_from_flattened_dict(point)
        # No run has read SVT, whose bars are left out.
        names = (
            f'benchmarks/{name}/word_accuracy_36' for name in ('drawn', 'stand_in', 'listed', 'unlisted', 'iiit5k')
        )
        metrics = {name: 0.01 * (number + 1) for name in ('test/word_accuracy', *names)}
        test_claims.write_run(tmp_path / f'{number:02d}', config.to_dict(), metrics)
        (tmp_path / f'{number:02d}' / 'run.json').write_text(json.dumps(dict(config=claim, overrides=point)))
    figures = configs.load_module(file).pictures(find_runs(tmp_path))
    figure = next(iter(figures.values()))
    figure.canvas.draw()
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == CLAIMS[claim]
    assert 'SVT' not in [text.get_text() for text in axes.get_xticklabels()]
    of_first = [n for n, point in enumerate(points, 1) if {**point, 'seed': 0} == {**points[0], 'seed': 0}]
    assert axes.patches[0].get_height() == pytest.approx(0.01 * np.mean(of_first))


def test_words_and_fonts_that_stand_in_for_photographs_are_not_those_of_training():
    assert not set(STREET_WORDS) & set(read_words(None, Alphabet(ignore_case=True))[0])
    assert len(set(STREET_WORDS)) == 100
    assert len({*FONTS, *OTHER_FONTS}) == 21


def narrow_learnt_run(root):
    config = configs.load(f'{root}/configs/claims/learn_to_augment.py:smoke')
    with config.unlocked():
        config.data.batch_size = 4
        config.model.update(features=(2, 2, 2, 2, 2, 2, 2), hidden=2)
        config.augment.agent = dict(features=(2, 2, 2, 2, 2, 2))
    return config


def test_warps_of_the_same_words_are_drawn_at_several_checkpoints(root, tmp_path, monkeypatch):
    """Of an agent that is a bias alone, larger from step to step."""
    config = narrow_learnt_run(root)
    test_claims.write_run(tmp_path / 'run', json.loads(config.to_json_best_effort()), {'test/word_accuracy': 0.5})
    for step in (10, 20, 30, 40, 50):
        (tmp_path / 'run' / 'checkpoints' / str(step)).mkdir(parents=True)

    def load_trained(experiment, config, folder, step):
        shapes = dict(jax.eval_shape(experiment.task.init, jax.random.key(0), experiment.train[0]))
        variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
        params = variables.pop('params')
        params['agent']['output']['bias'] += np.tile(np.array([0, step / 10], np.float32), 16)
        return SimpleNamespace(params=params, mutable=variables)

    drawn = {}
    monkeypatch.setattr(figures_of_text, 'load_trained', load_trained)
    monkeypatch.setattr(plots, 'draw_warp_history', lambda *values: drawn.update(history=values), raising=False)
    monkeypatch.setattr(plots, 'draw_move_clouds', lambda *values: drawn.update(clouds=values), raising=False)
    assert set(figures_of_text.draw_agent_warps(find_runs(tmp_path), count=2, times=3)) == {'warps', 'moves'}
    images, history, points = drawn['history']
    assert list(history) == ['step 10', 'step 30', 'step 50']
    assert images.shape == (2, 32, 100, 1)
    assert points.shape == (8, 2)
    # P(forwards) - P(backwards) = tanh(b / 2) for logits 0 and b, times half of the radius of 6.
    for step, (warped, moves) in zip((10, 30, 50), history.values(), strict=True):
        np.testing.assert_allclose(moves, 3 * np.tanh(step / 20), rtol=1e-5)
        assert (warped != images).any()
    assert drawn['clouds'][1].shape == (4, 8, 2)
    assert drawn['clouds'][2:] == ((32, 100), 3)


def test_the_stage_of_lexica_reports_what_is_read_with_each(root, tmp_path, monkeypatch):
    """By a network that knows the text of each image: every lexicon reads all."""
    config = configs.load(f'{root}/configs/claims/lexicon_sizes.py:smoke')
    with config.unlocked():
        config.data.benchmarks.sets.drawn.split = 'test[:3]'
        config.lexicon.update(sizes=(2, 6), distances=(1,))
    stage = make_stage_config(config, 'lexica')
    make = text_recognition.make

    def make_knowing(config):
        made = make(config)

        def predict(params, mutable, batch):
            # A character in every second frame, blanks between.
            label = jnp.asarray(batch['label'])[:, :12]
            path = jnp.stack([label, jnp.zeros_like(label)], -1).reshape(len(label), -1)
            return jnp.log(0.9 * jax.nn.one_hot(path, 37) + 0.1 / 37)

        return made._replace(task=made.task._replace(predict=predict))

    monkeypatch.setattr(text_recognition, 'make', make_knowing)
    monkeypatch.setattr(lexicon_sizes, 'load_trained', lambda *_: SimpleNamespace(params={}, mutable={}))
    artefacts = Artefacts(tmp_path / 'artefacts', lambda line: None, bool)
    metrics = lexicon_sizes.compute(stage, {'reader': tmp_path}, artefacts)
    assert {name.partition('drawn/')[2] for name in metrics} == {
        f'{column}_{size}' for column in ('exact', 'within_1', 'scored_1') for size in (2, 6)
    }
    assert [metrics[f'benchmarks/drawn/{name}'] for name in ('exact_2', 'exact_6', 'within_1_2')] == [1, 1, 1]
    assert metrics['benchmarks/drawn/scored_1_2'] >= 1
    with (tmp_path / 'artefacts' / 'lexica.csv').open(newline='') as file:
        assert [row['words'] for row in csv.DictReader(file)] == ['2', '6']
    assert (tmp_path / 'figures' / 'drawn lexica.png').exists()
