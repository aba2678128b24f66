"""The experiment of adaptation: hidden labels, honest rows of selection, and errors that name the key."""

import numpy as np
import pytest
from PIL import Image

from canon import transfer
from canon.data import domains
from canon.errors import CanonError, UsageError
from canon.tasks.adaptation import join_for_rules, select_from_log
from canon.tasks.adaptation.pictures import draw_weights
from canon.train import fit
from canon.train.log import read_rows
from experiments import adaptation, configs
from tests.quick import quick_programs


@pytest.fixture
def config(root):
    made = configs.load(f'{root}/configs/adaptation/coral_digits.py:smoke')
    made.update_from_flattened_dict({'data.source.size': 8, 'data.batch_size': 16, 'data.evals.rules.most': 40})
    made.model.update(dict(channels=(4, 4), units=8))
    return made


def check_predictions(config, experiment, state, folder):
    """A run predicts and exports from its `about` alone."""
    folder.mkdir()
    images = domains.load_digit_images('uci', 'test[:3]', 8).arrays['image']
    for number, image in enumerate(images):
        Image.fromarray(image[..., 0]).save(folder / f'{number}.png')
    restored = adaptation.without_data(config, experiment.about)
    scores = np.asarray(experiment.task.predict(state.params, state.mutable, {'image': images}))
    *rows, _ = adaptation.predict(config, restored, state.params, state.mutable, str(folder))
    names = experiment.about['class_names']
    assert [prediction.row['class1'] for prediction in rows] == [names[i] for i in scores.argmax(1)]
    p = np.exp(scores - scores.max(1, keepdims=True))
    exported = adaptation.served(config, restored).function(state.params, state.mutable, images)
    np.testing.assert_allclose(exported, p / p.sum(1, keepdims=True), rtol=1e-5)


def test_a_run_is_a_row_of_last_every_rule_and_oracle(config, tmp_path):
    config.data.train.split, config.run.steps = 'train[:10%]', 4
    for name in config.run.evals:
        config.run.evals[name].every = '50%'
        config.data.evals[name].split = 'test[:40]'
        config.data.evals[name].figures = name == 'rules'
    with quick_programs():
        experiment = adaptation.make(config)
        fitted = fit(experiment, config, tmp_path)
        check_predictions(config, experiment, fitted.state, tmp_path / 'images')
    row = select_from_log(read_rows(tmp_path / 'metrics.jsonl'))
    assert list(row) == ['last', *transfer.RULES, 'oracle']
    assert row['last'][0] == 4
    assert all(row['oracle'][1] >= accuracy for _, accuracy in row.values())
    assert {step for step, _ in row.values()} <= {2, 4}
    # The run itself ends with the row, for `table` and the report.
    assert {name: fitted.metrics[f'summary/{name}'] for name in row} == {
        name: value for name, (_, value) in row.items()
    }
    assert 0 <= fitted.metrics['rules/a_distance'] <= 2
    assert (tmp_path / 'figures/rules-features.png').is_file()
    with pytest.raises(CanonError, match='give both the same `every`'):
        select_from_log([{'step': 1, 'target/accuracy': 0.5}])


def test_weighted_sources_reach_the_batches_and_are_drawn(root):
    config = configs.load(f'{root}/configs/adaptation/weighted_digits.py:smoke')
    config.update_from_flattened_dict({'data.source.size': 8, 'data.batch_size': 16, 'data.train.split': 'train[:10%]'})
    config.data.weights = dict(name='discriminator')  # takes less time than the others
    experiment = adaptation.make(config)
    batch = experiment.train[0]
    assert batch['source']['weight'].dtype == np.float32
    assert set(batch['target']) == {'image', 'mask'}
    source = experiment.train.parts['source'].source
    weights = source.arrays['weight']
    assert weights.mean() == pytest.approx(1, abs=1e-5)
    assert weights.std() > 0.1
    (figure,) = draw_weights({'source': source, 'shown': domains.digit_styles('test', size=8)['uci']}).values()
    titles = [float(axes.get_title()) for axes in figure.axes]
    expected = np.sort(weights)[::-1]
    np.testing.assert_allclose(titles, np.concatenate([expected[:16], expected[-16:]]), rtol=6e-3)


def test_rules_of_a_target_of_another_domain_set(config):
    """The rules may be given a labelled domain of their own, and an evaluation all sources."""
    config.data.name = 'rotated_digits'
    config.data.source = dict(angles=(0, 15, 30), size=8)
    config.data.domains.update(dict(sources=('0', '15'), target='30'))
    config.data.evals.rules.domain, config.data.evals.source.domain = '15', 'sources'
    evals = adaptation.make(config).evals
    parts = domains.rotated_digits('test', angles=(0, 15, 30), size=8)
    assert evals['source'].data.num_examples == len(parts['0']) + len(parts['15'])
    examples = evals['rules'].data.source
    labels = [int(examples[i]['label']) for i in range(40)]
    kept = np.unique(np.linspace(0, len(parts['15']) - 1, 40).astype(int))
    np.testing.assert_array_equal(labels, parts['15'].labels()[kept])


def test_labels_of_the_target_reach_neither_training_nor_rules(config):
    config.data.domains.shown = 2
    experiment = adaptation.make(config)
    batch = experiment.train[0]
    assert set(batch) == {'source', 'target', 'shown'}
    assert set(batch['target']) == {'image', 'mask'}
    assert len(experiment.train.parts['shown'].source) == 20
    pair = domains.digit_styles('train', size=8)
    examples = join_for_rules([pair['rendered']], pair['uci'], 30)
    labels = np.array([examples[i]['label'] for i in range(len(examples))])
    assert len(examples) == 60
    np.testing.assert_array_equal(labels < 0, np.arange(60) >= 30)
    config.data.domains.update(dict(hidden=False, shown=0))  # generalisation: not even the images
    config.data.domains.sources, config.method.name = ('rendered',), 'source_only'
    del config.method.weight
    assert set(adaptation.make(config).train[0]) == {'source'}


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        ({'data.domains.target': 'rendered'}, 'must be different domains'),
        ({'data.domains.target': 'ucy'}, "no domain is called 'ucy'.*uci"),
        ({'data.domains.shown': 5000}, 'show fewer than per_class=5000'),
        ({'data.evals.rules.split': 'train[:10%]'}, 'the selection split'),
        ({'method.name': 'corral'}, "method.name='corral' is unknown.*coral"),
        ({'method.weight': -1.0}, 'method.weight=-1.0 must be a number at least 0'),
        ({'data.domains.sources': ()}, 'data.domains.sources is empty; name at least one of rendered, uci'),
        ({'data.name': 'domain_folder'}, 'is read from files: give --config.data.source.path=FOLDER'),
        ({'data.domains.use_sources': False}, 'use_sources=False leaves no labelled domain'),
        ({'data.evals.source.domain': 'rendred'}, "no domain is called 'rendred'"),
        ({'data.name': 'digit_style'}, "no set of domains is called 'digit_style'"),
    ],
    ids=str,
)
def test_values_that_do_not_fit_are_one_line(flags, message, config):
    config.update_from_flattened_dict(flags)
    with pytest.raises(UsageError, match=message):
        adaptation.make(config)
