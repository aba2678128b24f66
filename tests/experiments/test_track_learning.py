"""Learnt parts of trackers from configs: they train, leave runs that trackers load, and refuse what does not fit."""

import functools

import numpy as np
import pytest

from canon import tracking
from canon.data.tracking import digit_sequences, pad_frames
from canon.errors import UsageError
from canon.tasks.tracking import add_embeddings
from canon.train import fit, run_stages
from canon.train.workdir import read_mapping
from experiments import configs, sequences, staged, track_affinity, track_embedding
from tests.quick import quick_programs

EMBEDDING, AFFINITY = (f'{configs.ROOT}/configs/tracking/{name}_digits.py:smoke' for name in ('embedding', 'affinity'))


def shrink_embedding(config):
    with config.unlocked():
        config.data.source.update(dict(num_sequences=2, length=12))
        config.data.batch_size, config.data.reading.threads = 8, 0
        config.data.evals.test.update(dict(split='test[:1]', every=4, separation=4))
        config.model = dict(name='appearance.backbone_embedding', units=8, backbone=dict(name='lenet.lenet5'))
        config.run.update(dict(steps=2, log=()))
    return config


def shrink_affinity(config):
    with config.unlocked():
        config.data.source.update(dict(num_sequences=2, length=12))
        config.data.batch_size = 2
        config.data.pairs.update(dict(slots=24, max_gap=3))
        config.data.evals.test.update(dict(split='test[:1]', gaps=(1, 3), every=4))
        config.model.units = (8,)
        config.run.update(dict(steps=2, log=()))
    return config


def train(module, config, folder):
    with quick_programs():
        fit(module.make(config), config, folder, quiet=True)
    return folder


@pytest.fixture(scope='module')
def affinity_run(tmp_path_factory):
    return train(
        track_affinity, shrink_affinity(configs.load(AFFINITY)), tmp_path_factory.mktemp('learnt') / 'affinity'
    )


def track(tracker, sequence, embedder=None):
    detections = pad_frames(sequence.detections, sequence.info.length, 24)
    detections = detections if embedder is None else add_embeddings(embedder, sequence, detections)
    return tracking.run(tracker, detections)[1]


def test_a_run_leaves_an_affinity_that_trackers_use(affinity_run):
    assert 0 <= read_mapping(affinity_run / 'status.json')['metrics']['test/f1'] <= 1
    assert (affinity_run / 'figures' / 'test-assignment.png').is_file()
    affinity, size = track_affinity.load_affinity(affinity_run)
    assert size == 0
    # The affinity of a run is that of its task with the weights of the run.
    _, experiment, params, mutable = sequences.read_run(affinity_run, 'track_affinity', 'affinity')
    batch = track_affinity.make(shrink_affinity(configs.load(AFFINITY))).train[0]
    expected = np.exp(experiment.task.predict(params, mutable, batch))[0, :-1, :-1]
    found = affinity(*({key: x[0] for key, x in batch[side].items()} for side in ('tracks', 'detections')))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    tracker = tracking.deep_sort(0, affinity=affinity, max_cosine_cost=0.99, min_hits=1, form='numpy')
    assert track(tracker, digit_sequences('test[:1]', length=6, num_sequences=1)[0])['valid'].sum() > 6


@pytest.mark.slow
def test_a_run_leaves_an_embedding_that_trackers_and_affinities_use(tmp_path):
    folder = train(track_embedding, shrink_embedding(configs.load(EMBEDDING)), tmp_path / 'embedding')
    assert 0 <= read_mapping(folder / 'status.json')['metrics']['test/mAP'] <= 1
    assert (folder / 'figures' / 'test-nearest_neighbours.png').is_file()
    embedder = track_embedding.load_embedder(folder)
    _, experiment, params, mutable = sequences.read_run(folder, 'track_embedding', 'appearance')
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    expected = experiment.task.predict(params, mutable, {'image': images})
    np.testing.assert_allclose(embedder.apply(images), expected, atol=1e-5)

    config = shrink_affinity(configs.load(AFFINITY))
    with config.unlocked():
        config.appearance = dict(run=str(folder))
    affinity, size = track_affinity.load_affinity(train(track_affinity, config, tmp_path / 'affinity'))
    assert size == embedder.size == 8
    make = functools.partial(tracking.deep_sort, size, form='numpy', min_hits=1)
    sequence = digit_sequences('test[:1]', length=6, num_sequences=1)[0]
    for tracker in (make(max_cosine_cost=0.9), make(affinity=affinity, max_cosine_cost=0.99)):
        assert track(tracker, sequence, embedder)['valid'].sum() > 6


def test_runs_that_are_none_are_refused(affinity_run, tmp_path):
    with pytest.raises(UsageError, match=r'affinity: .* holds no run; give the folder of a run of the experiment'):
        track_affinity.load_affinity(tmp_path)
    with pytest.raises(UsageError, match=r"appearance: .* holds a run of 'track_affinity'; give .* 'track_embedding'"):
        track_embedding.load_embedder(affinity_run)
    stages = {'crops': affinity_run}
    assert sequences.find_run({'run': None, 'stage': 'crops'}, stages, 'appearance') == affinity_run
    assert sequences.find_run(None, stages, 'appearance') is None
    with pytest.raises(UsageError, match=r"appearance\.stage='crop'.*did you mean 'crops'"):
        sequences.find_run({'stage': 'crop'}, stages, 'appearance')
    with pytest.raises(UsageError, match='both name a trained part'):
        sequences.find_run({'stage': 'crops', 'run': 'x'}, stages, 'appearance')


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('data.train.split', 'test', r"data\.evals\.test\.split='test\[:8\]' shares sequences with data\.train\.split"),
        ('data.name', 'mot_challenge', r"data 'mot_challenge' is read from files: give --config\.data\.source\.path"),
        ('loss.margin', -1.0, r'loss\.margin=-1\.0 must be'),
        ('data.crops.height', 0, r'data\.crops\.height=0 must be a whole number at least 1'),
        ('data.evals.test.every', 0, r'data\.evals\.test\.every=0 must be a whole number at least 1'),
    ],
)
def test_keys_that_do_not_fit_are_named(key, value, message):
    config = configs.load(EMBEDDING)
    with config.unlocked():
        config.data.source = dict(num_sequences=1, length=12) if value != 'mot_challenge' else {}
        config.data.batch_size = 4
        config.update_from_flattened_dict({key: value})
    with pytest.raises(UsageError, match=message):
        track_embedding.make(config)


def test_a_motion_that_is_none_is_refused():
    config = configs.load(AFFINITY)
    config.motion.name = 'sort_motions'
    with pytest.raises(UsageError, match=r"motion\.name='sort_motions' is unknown; did you mean 'sort_motion'"):
        track_affinity.make(config)


@pytest.mark.slow
def test_the_stages_of_learnt_tracking(tmp_path):
    """Each stage reads the runs of those before it."""
    config = configs.load(f'{configs.ROOT}/configs/tracking/deep_sort_learnt.py:smoke')
    shrink_embedding(config.stages.appearance)
    shrink_affinity(config.stages.affinity)
    with config.unlocked():
        config.data.source.update(dict(num_sequences=2, length=12))
        config.stages.tracking.data.evals.test.update(dict(split='test[:1]', video_frames=2))
    with quick_programs():
        fitted = run_stages(staged.make(config), config, tmp_path, quiet=True)
    assert fitted.status == 'done'
    assert -1 < fitted.metrics['test/MOTA'] <= 1
