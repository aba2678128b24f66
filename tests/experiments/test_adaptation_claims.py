"""The claims about transfer: figures of runs that are written by hand, DomainBed's selection, and forms that build."""

import itertools
import json

import numpy as np
import pytest

from canon.configuration import apply_form, make_stage_config, order_stages
from canon.errors import CanonError
from canon.train.runs import find_runs
from configs.claims import _domainbed as domainbed
from experiments import configs, staged
from experiments.claims.adaptation import METHODS, RULES, select_domainbed
from launch.sweep import read_points
from tests.experiments.test_claims import write_run

# {claim: ({figure: texts of its legend or axis}, how many runs the sweep has)}
CLAIMS = {
    'adaptation_pairs': (
        dict.fromkeys(
            ('mnist_5k_to_uci', 'rendered_to_uci', 'uci_to_mnist_5k'), ('source only', 'mean cov', 'mmd', 'dann', 'mcc')
        ),
        3 * 5 * 5,
    ),
    'target_labels': (
        {'target_labels': ('source', 'target', 'features', 'instances', 'parameters')},
        3 * (4 * 5 - 2),
    ),
    'gradual_angles': ({'angles': ('multi-step', 'one step')}, 3 * 2 * 3),
    'label_shift': ({'label_shift': ('source only', 'mean cov', 'mmd', 'dann', 'weights')}, 5 * 5),
    'irm_colours': ({'colours': ('erm', 'irm', 'grey')}, 3 * 5),
    'domainbed_colours': (
        dict.fromkeys(('target_0.1', 'target_0.2', 'target_0.9'), ('source_only', 'irm')),
        2 * 3 * 2 * 9,
    ),
    'domainbed_rotations': (
        dict.fromkeys([f'target_{angle}' for angle in range(0, 90, 15)], ('source_only', 'mean_cov')),
        2 * 2 * 6,
    ),
}
METRICS = (
    *('target/accuracy', 'source/accuracy', 'target_held_out/accuracy', 'left_out/accuracy'),
    *(f'summary/{rule}' for rule in RULES),
)


def last_config(config):
    """The config that the last stage of a run leaves."""
    if config.experiment == 'gradual_adaptation':
        return config
    config = apply_form(config)
    return make_stage_config(config, order_stages(config)[-1]) if config.experiment == 'staged' else config


def write_sweep(file, folder):
    """Writes a run for every point, whose metrics are all 0.001 times the number of the point."""
    points = read_points(file)
    for number, point in enumerate(points):
        config = configs.load(file)
        config.update_from_flattened_dict(point)
        write_run(folder / f'{number:03}', last_config(config).to_dict(), dict.fromkeys(METRICS, 0.001 * number))
        (folder / f'{number:03}' / 'run.json').write_text(json.dumps(dict(config=file, overrides=point)))
    return points


@pytest.mark.parametrize('claim', CLAIMS)
def test_every_form_of_a_sweep_is_drawn(claim, root, tmp_path):
    file = f'{root}/configs/claims/{claim}.py'
    points = write_sweep(file, tmp_path)
    expected, count = CLAIMS[claim]
    assert len(points) == count
    figures = configs.load_module(file).pictures(find_runs(tmp_path))
    assert list(figures) == list(expected)
    for name, figure in figures.items():
        figure.canvas.draw()
        (axes,) = figure.axes
        legend = axes.get_legend()
        texts = legend.get_texts() if legend else axes.get_xticklabels()
        assert tuple(text.get_text() for text in texts) == expected[name]


def test_lines_are_means_of_the_seeds_with_their_standard_error(root, tmp_path):
    file = f'{root}/configs/claims/gradual_angles.py'
    write_sweep(file, tmp_path)
    figure = configs.load_module(file).pictures(find_runs(tmp_path))['angles']
    (axes,) = figure.axes
    multi, one = (np.asarray(container.lines[0].get_ydata(), float) for container in axes.containers)
    # Three seeds in a row of each chain of each angle: 0 to 2, 3 to 5, ...
    np.testing.assert_allclose(multi, [0.001, 0.007, 0.013])
    np.testing.assert_allclose(one, [0.004, 0.010, 0.016])
    segments = axes.containers[0].lines[2][0].get_segments()
    np.testing.assert_allclose([s[1, 1] - s[0, 1] for s in segments], 2 * 0.001 / 3**0.5)


def test_domainbed_selects_by_each_rule():
    """Against the rules written out for each draw of hyperparameters."""
    rng = np.random.default_rng(0)
    sources = 'abc'
    runs = [
        {'hyperparameters': h, 'left_out': left_out, **dict(zip(keys, rng.random(4).round(3), strict=True))}
        for keys in [('accuracy', 'source', 'target', 'others')]
        for h, left_out in itertools.product(range(5), (None, *sources))
    ]
    table = {(run['hyperparameters'], run['left_out']): run for run in runs}
    chosen = select_domainbed(runs)
    by_source = max(range(5), key=lambda h: table[h, None]['source'])
    by_target = max(range(5), key=lambda h: table[h, None]['target'])
    by_folds = max(range(5), key=lambda h: np.mean([table[h, s]['others'] for s in sources]))
    assert chosen == {
        'training domains': table[by_source, None]['accuracy'],
        'leave one out': table[by_folds, None]['accuracy'],
        'oracle': table[by_target, None]['accuracy'],
    }
    assert list(chosen) == list(METHODS)
    assert set(select_domainbed([run for run in runs if run['left_out'] is None])) == {'training domains', 'oracle'}
    # A draw of which one fold has failed has no mean over the folds.
    partial = [run for run in runs if (run['hyperparameters'], run['left_out']) != (by_folds, 'b')]
    assert select_domainbed(partial)['leave one out'] != chosen['leave one out']
    with pytest.raises(CanonError, match='no run of this sweep has all sources'):
        select_domainbed([run for run in runs if run['left_out'] == 'a'])


def test_hyperparameters_are_seeded_and_begin_with_the_default():
    assert domainbed.draw_hyperparameters('irm', 0) == {
        'tx.learning_rate': 1e-3,
        'method.weight': 100.0,
        'method.anneal_steps': 500,
    }
    drawn = [domainbed.draw_hyperparameters('irm', number) for number in range(1, 200)]
    assert drawn[4] == domainbed.draw_hyperparameters('irm', 5)
    rates = np.log10([d['tx.learning_rate'] for d in drawn])
    weights = np.log10([d['method.weight'] for d in drawn])
    assert -4.5 <= rates.min() < -4.3 < -2.7 < rates.max() <= -2.5
    assert -1 <= weights.min() < -0.5 < 4.5 < weights.max() <= 5
    assert abs(np.corrcoef(rates, weights)[0, 1]) < 0.25  # each has a stream of its own


def test_runs_that_leave_out_two_domains_see_neither():
    points = list(domainbed.sweep_domainbed(('source_only',), 'abc', draws=1, trials=1))
    roles = {(p['data.domains.target'], p['data.evals.left_out.domain']): p['data.domains.sources'] for p in points}
    assert len(points) == len(roles) == 9
    for (target, other), sources in roles.items():
        assert set(sources) == set('abc') - {target, other}


@pytest.mark.slow
@pytest.mark.parametrize('claim', ['adaptation_pairs', 'target_labels', 'label_shift'])
def test_the_first_stage_of_every_form_builds(claim, root):
    config = configs.load(f'{root}/configs/claims/{claim}.py:smoke')
    for form in config.forms:
        config.form = form
        experiment, _ = staged.make(config)[0].make({})
        assert set(experiment.train[0]) <= {'source', 'target', 'shown'}
