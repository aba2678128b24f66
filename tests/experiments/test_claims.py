"""The figures of claims on runs that never ran: points, medians and labels from their folders alone."""

import json

import pytest
from matplotlib.text import Text

from canon.errors import CanonError
from canon.train.runs import find_runs, finished_runs, format_settings
from experiments import configs
from experiments.claims.classification import count_multiply_adds, draw_best_forms, draw_costs
from experiments.claims.segmentation import draw_strides


def write_run(folder, config, metrics):
    folder.mkdir(parents=True)
    (folder / 'config.json').write_text(json.dumps(config))
    (folder / 'run.json').write_text(json.dumps(dict(config='relu_tanh.py')))
    (folder / 'status.json').write_text(json.dumps(dict(state='done', step=10, steps=10, metrics=metrics)))
    rows = [{'step': step, 'train/loss': 1 / step} for step in (1, 5, 10)]
    (folder / 'metrics.jsonl').write_text('\n'.join(map(json.dumps, rows)))


@pytest.fixture(scope='module')
def runs(tmp_path_factory, root):
    """Two activations at two rates, the lower error at 0.1 for ReLU and at 0.01 for tanh; two seeds each."""
    folder = tmp_path_factory.mktemp('claims')
    config = json.loads(configs.load(f'{root}/configs/claims/relu_tanh.py').to_json_best_effort())
    for activation, best in (('relu', 0.1), ('tanh', 0.01)):
        for rate in (0.01, 0.1):
            for seed in (0, 1):
                config['model']['activation'], config['tx']['momentum']['learning_rate'] = activation, rate
                accuracy = (0.9 if rate == best else 0.7) + seed / 100
                write_run(folder / f'{activation}-{rate}-{seed}', config, {'test/accuracy': accuracy})
    return find_runs(folder)


def test_each_form_is_drawn_at_its_best_rate(runs):
    assert len(finished_runs(runs)) == 8
    rate = 'tx.momentum.learning_rate'
    figure = draw_best_forms(runs, 'model.activation', rate, '1 - test/accuracy', {'training loss': 'train/loss'})
    figure.canvas.draw()
    labels = ' '.join(t.get_text() for t in figure.findobj(Text))
    assert 'relu  learning_rate 0.1: 0.095' in labels
    assert 'tanh  learning_rate 0.01: 0.095' in labels
    assert len(figure.axes) == 2
    assert figure.axes[0].get_ylabel() == 'test/error'


def test_results_are_drawn_against_their_cost(runs):
    figure = draw_costs(runs, 'model.activation', count_multiply_adds, '1 - test/accuracy', 'multiply-adds')
    figure.canvas.draw()
    (axes,) = figure.axes
    assert {t.get_text() for t in axes.texts} == {'relu: 0.195', 'tanh: 0.195'}
    config = finished_runs(runs)[0][1]
    assert count_multiply_adds(config) == 32**2 * 25 * 32 + 16**2 * 25 * 32 * 32 + 8**2 * 25 * 32 * 64 + 4**2 * 64 * 10
    assert format_settings(config, ('model.activation', 'data.batch_size')) == 'relu, batch_size 64'


def test_strides_of_segmentation_networks_are_read_from_their_names(tmp_path):
    for name, score in (('fcn32s', 0.3), ('fcn8s', 0.5)):
        for seed in (0, 1):
            metrics = {'test/mean_iu': score + seed / 100, 'test/pixel_accuracy': 0.9}
            write_run(tmp_path / f'{name}-{seed}', {'model': {'name': f'fcn.{name}'}, 'seed': seed}, metrics)
    figure = draw_strides(find_runs(tmp_path))
    figure.canvas.draw()
    (axes,) = figure.axes
    assert {t.get_text() for t in axes.texts} >= {'fcn32s: 0.305', 'fcn8s: 0.505'}
    assert sorted({x for line in axes.lines for x in line.get_xdata()}) == [8, 32]


def test_a_sweep_without_finished_runs_is_one_line(tmp_path):
    with pytest.raises(CanonError, match='no run of this sweep is done'):
        finished_runs(find_runs(tmp_path))
