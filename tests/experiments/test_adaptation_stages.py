"""Adaptation in stages: self-training along a chain of domains, ADDA after its source, and what is refused."""

import numpy as np
import pytest

from canon.data import domains
from canon.data.pipeline.source import Info, labels
from canon.errors import UsageError
from canon.models.domain_adversarial import digit_network
from canon.tasks.adaptation.self_training import label_most_certain
from canon.train import run_stages
from canon.train.init_from import read_model
from experiments import adaptation, configs, gradual_adaptation, staged
from experiments.regions import read_variables
from tests.quick import quick_programs

TINY = {'data.source.size': 8, 'data.batch_size': 16, 'run.steps': 2}


def shrink(config):
    config.update_from_flattened_dict(TINY)
    config.model.update(dict(channels=(4, 4), units=8))
    config.data.train.split = 'train[:5%]'
    config.data.evals, config.run.evals = {}, {}  # whose figures take seconds
    return config


@pytest.fixture
def gradual(root):
    config = shrink(configs.load(f'{root}/configs/adaptation/rotated_gradual.py:smoke'))
    config.data.source.angles = (0, 15, 30)
    config.data.domains.target = '30'
    config.gradual.update(dict(chain=('15', '30'), source_steps=2))
    return config


def test_each_step_of_a_chain_learns_what_the_stage_before_is_most_certain_of(gradual, tmp_path):
    with quick_programs():
        stages = gradual_adaptation.make(gradual)
        assert [stage.name for stage in stages] == ['source', 'to_15', 'to_30']
        run_stages(stages, gradual, tmp_path, quiet=True)
        folders = {'source': tmp_path / '0-source', 'to_15': tmp_path / '1-to_15'}
        experiment, _ = stages[2].make(folders)
    learnt = experiment.train.parts['source'].source
    digits = domains.rotated_digits('train[:5%]', angles=(0, 15, 30), size=8, disjoint=False)['30'].arrays
    network = digit_network(channels=(4, 4), units=8)
    inputs = ((digits['image'].astype(np.float32) / 255 - 0.3) / 0.35).astype(np.float32)
    logits = np.asarray(network.apply(read_variables(folders, 'to_15'), inputs))
    p = np.exp(logits - logits.max(1, keepdims=True))
    certainty = (p / p.sum(1, keepdims=True)).max(1)
    rows = np.sort(np.argsort(-certainty, kind='stable')[: round(0.9 * len(logits))])
    np.testing.assert_array_equal(learnt.labels(), logits.argmax(1)[rows])
    np.testing.assert_array_equal(learnt.arrays['image'], digits['image'][rows])
    first, last = read_model(tmp_path / '0-source'), read_model(tmp_path / '2-to_30')
    assert np.abs(first['classifier/kernel'] - last['classifier/kernel']).max() > 0


def test_self_training_keeps_the_most_certain_rows_and_reads_no_label():
    class WithoutLabels:
        info = Info('unlabelled', 'train', 3, None, 4)

        def __len__(self):
            return 4

        def __getitem__(self, index):
            return {'image': np.full((2, 2, 1), index, np.uint8)}

    logits = np.array([[3.0, 0, 0], [0, 0.1, 0], [0, 0, 5.0], [0, 2.0, 0]])
    batches = [
        {'image': np.zeros((3, 2, 2, 1)), 'mask': np.array([True, True, True]), 'rows': [0, 1, 2]},
        {'image': np.zeros((3, 2, 2, 1)), 'mask': np.array([True, False, False]), 'rows': [3, 0, 0]},
    ]
    kept = label_most_certain(lambda batch: logits[batch['rows']], batches, WithoutLabels(), 0.75)
    assert [int(kept[i]['image'][0, 0, 0]) for i in range(len(kept))] == [0, 2, 3]
    assert [int(kept[i]['label']) for i in range(len(kept))] == labels(kept).tolist() == [0, 2, 1]
    with pytest.raises(UsageError, match='0 rows and 0 labels; give at least one row'):
        label_most_certain(lambda batch: logits[batch['rows']], batches, WithoutLabels(), 0.1)


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        ({'gradual.chain': ()}, r"gradual.chain is empty: name the intermediate domains and the target '30'"),
        ({'gradual.chain': ('15',)}, "gradual.chain ends at '15', and data.domains.target is '30'"),
        ({'gradual.chain': ('15', '15', '30')}, "gradual.chain visits '15' twice"),
        ({'gradual.chain': ('0', '30')}, "gradual.chain visits '0' twice, or begins at the source"),
        ({'gradual.keep': 0.0}, 'gradual.keep=0.0 must be a number above 0'),
    ],
    ids=str,
)
def test_a_chain_that_does_not_fit_is_one_line(flags, message, gradual):
    gradual.update_from_flattened_dict(flags)
    with pytest.raises(UsageError, match=message):
        gradual_adaptation.make(gradual)


def test_an_unknown_domain_of_a_chain_is_named(gradual, tmp_path):
    gradual.gradual.chain = ('16', '30')
    with pytest.raises(UsageError, match=r"no domain is called '16'.*15"):
        gradual_adaptation.make(gradual)[1].make({'source': tmp_path})


@pytest.mark.slow
def test_adda_begins_from_the_source_and_keeps_it_frozen(root, tmp_path):
    config = shrink(configs.load(f'{root}/configs/adaptation/adda_digits.py:smoke'))
    config.stages.source.run.steps = 2
    with quick_programs():
        run_stages(staged.make(config), config, tmp_path, quiet=True)
    source, adapted = (read_model(tmp_path / folder) for folder in ('0-source', '1-adapt'))
    for name, value in source.items():
        kept = name if name.startswith('batch_stats/') else f'params/{name}'
        np.testing.assert_array_equal(adapted[f'frozen/{kept}'], value)
    moved = {name.partition('/')[0] for name, value in source.items() if (adapted[name] != value).any()}
    assert moved == {'extractor', 'discriminator', 'batch_stats'}


def test_the_figures_of_a_stage_begin_from_the_stage_before(root, tmp_path):
    config = shrink(configs.load(f'{root}/configs/adaptation/source_only_digits.py:smoke'))
    with quick_programs():
        run_stages(adaptation.make(config), config, tmp_path / 'first', quiet=True)
        config.run.init_from = dict(path=str(tmp_path / 'first'))
        experiment = adaptation.make(config)
        params, _ = adaptation._read_start(config, experiment, {})
    stored = read_model(tmp_path / 'first')
    np.testing.assert_array_equal(params['extractor']['conv1']['kernel'], stored['extractor/conv1/kernel'])
