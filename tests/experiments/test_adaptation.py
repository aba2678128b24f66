"""The experiment of adaptation: hidden labels, honest rows of selection, and errors that name the key."""

import numpy as np
import pytest

from canon import transfer
from canon.data import domains
from canon.errors import CanonError, UsageError
from canon.tasks.adaptation import join_for_rules, select_from_log
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


def test_a_run_is_a_row_of_last_every_rule_and_oracle(config, tmp_path):
    config.data.train.split, config.run.steps = 'train[:10%]', 4
    for name in config.run.evals:
        config.run.evals[name].every = '50%'
        config.data.evals[name].split = 'test[:40]'
    with quick_programs():
        fit(adaptation.make(config), config, tmp_path)
    row = select_from_log(read_rows(tmp_path / 'metrics.jsonl'))
    assert list(row) == ['last', *transfer.RULES, 'oracle']
    assert row['last'][0] == 4
    assert all(row['oracle'][1] >= accuracy for _, accuracy in row.values())
    assert {step for step, _ in row.values()} <= {2, 4}
    with pytest.raises(CanonError, match='give both the same `every`'):
        select_from_log([{'step': 1, 'target/accuracy': 0.5}])


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
        ({'data.name': 'digit_style'}, "no set of domains is called 'digit_style'"),
    ],
    ids=str,
)
def test_values_that_do_not_fit_are_one_line(flags, message, config):
    config.update_from_flattened_dict(flags)
    with pytest.raises(UsageError, match=message):
        adaptation.make(config)
