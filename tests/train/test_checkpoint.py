"""Damage to a checkpoint is found before it is restored, and an older sound one takes its place."""

import json
import logging
import shutil

import jax
import numpy as np
import pytest

from canon import optim
from canon.errors import CanonError, UsageError
from canon.train import digests, fit
from canon.train.checkpoint import Checkpoints
from canon.train.checkpoint_files import name_model
from canon.train.init_from import read_model
from canon.train.restore import load_trained
from canon.train.settings import Checkpointing
from canon.train.setup import make_setup
from canon.train.types import State
from tests.train import toy

BEST = dict(every=5, keep=3, best='test/accuracy', mode='max')


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A run with checkpoints of steps 5 and 10, both evaluated."""
    folder = tmp_path_factory.mktemp('run')
    config = toy.config(evals=dict(test=dict(every=5)), checkpoint=BEST)
    fit(toy.experiment(), config, folder, quiet=True)
    return folder


@pytest.fixture(scope='module')
def target():
    return make_setup(toy.experiment(), toy.config()).target


@pytest.fixture
def folder(run, tmp_path):
    return shutil.copytree(run / 'checkpoints', tmp_path / 'run' / 'checkpoints')


def restore(folder, target, read_only=False, step=None):
    with Checkpoints(folder, Checkpointing(**BEST), read_only) as checkpoints:
        return checkpoints.restore(target, step)


def change_one_byte(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE = {
    'one bit': change_one_byte,
    'zeros': lambda path: path.write_bytes(bytes(path.stat().st_size)),
    'half': lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    'empty': lambda path: path.write_bytes(b''),
    'removed': lambda path: path.unlink(),
}


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob('*') if p.is_file())


REQUIRED = (  # one of each sort of file
    'model/params.Conv_0.kernel/0.0.0.0',
    'model/_METADATA',
    'model/array_metadatas/process_0',
    'opt/opt.1.0.count/0',
    'opt/opt.2.average.Dense_0.bias/.zarray',
    'progress/metadata',
)
OPTIONAL = ('_CHECKPOINT_METADATA', 'commit_success.txt', 'metrics/metrics', 'evaluated.json')


@pytest.mark.parametrize('kind', DAMAGE)
def test_damage_is_never_restored(folder, target, kind):
    """What is read afterwards is step 5 where a file of the state is damaged, and else step 10 as it was saved."""
    saved = {step: jax.tree.leaves(restore(folder, target, step=step)[0]) for step in (5, 10)}
    sound_copy = shutil.copytree(folder / '10', folder.parent / 'kept')
    for name in (*REQUIRED, *OPTIONAL):
        DAMAGE[kind](folder / '10' / name)
        state, _ = restore(folder, target)
        assert int(state.step) == (5 if name in REQUIRED else 10), name
        for leaf, expected in zip(jax.tree.leaves(state), saved[int(state.step)], strict=True):
            np.testing.assert_array_equal(leaf, expected, err_msg=name)
        for path in folder.glob('*10*'):
            shutil.rmtree(path)
        shutil.copytree(sound_copy, folder / '10')


@pytest.mark.parametrize('name', ['model/params.Dense_0.bias/0', 'opt/step/0'])
def test_the_step_and_the_array_are_named(folder, target, name, caplog):
    change_one_byte(folder / '10' / name)
    array = name.split('/')[1]
    with pytest.raises(CanonError, match=rf'of step 10 in \S+ is damaged: the array {array} \({name}\) has changed'):
        restore(folder, target, step=10)
    with pytest.raises(CanonError, match=rf'10 is damaged: the array {array}'):
        read_model(folder / '10')
    assert int(restore(folder, target, read_only=True)[0].step) == 5
    assert (folder / '10').is_dir()  # where a run may be writing nothing is moved
    assert int(restore(folder, target)[0].step) == 5
    line = f'step 10 is damaged: the array {array} ({name}) has changed since it was saved; moved to unreadable-10'
    assert f'{line}; that of step 5 is used' in caplog.text


def test_orbax_warns_of_nothing_that_a_user_can_fix(folder, target, caplog, monkeypatch):
    def list_records():
        caplog.clear()
        with Checkpoints(folder, Checkpointing(**BEST), read_only=True) as checkpoints:
            checkpoints.restore(target)
            logging.getLogger('absl').warning('of a user')
        return [record.getMessage() for record in caplog.records if record.name == 'absl']

    before = logging.getLogger('absl').filters[:]
    assert list_records() == ['of a user']
    assert logging.getLogger('absl').filters == before
    monkeypatch.setattr(Checkpoints, '_keep_record', lambda self, record: True)
    assert len(list_records()) > 1  # Orbax would warn


def test_a_run_whose_checkpoints_are_all_damaged_is_not_started_over(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / 'run')
    config = toy.config(evals=dict(test=dict(every=5)), checkpoint=BEST)
    before = files(folder)
    log = (folder / 'metrics.jsonl').read_bytes()
    for step in (5, 10):
        change_one_byte(folder / 'checkpoints' / str(step) / 'opt' / 'step' / '0')
    for _ in range(2):  # and not by the second launch either
        with pytest.raises(
            CanonError, match=r'no checkpoint in \S+ can be read \(step 10: the array step .*; step 5: '
        ):
            fit(toy.experiment(), config, folder, quiet=True)
        assert (folder / 'metrics.jsonl').read_bytes() == log
        assert set(before) <= set(files(folder))


def test_a_damaged_value_is_taken_from_the_progress(folder):
    """The value that ranks a checkpoint is not the model: the checkpoint stays, and so does its rank."""
    values = {s: json.loads((folder / s / 'metrics' / 'metrics').read_text())['value'] for s in ('5', '10')}
    best = max(values, key=values.get)
    (folder / best / 'metrics' / 'metrics').write_text('{"value": -1')
    with Checkpoints(folder, Checkpointing(**BEST), read_only=True) as checkpoints:
        assert checkpoints.best_step() != int(best)
    with Checkpoints(folder, Checkpointing(**BEST)) as checkpoints:
        assert checkpoints.best_step() == int(best)
    assert json.loads((folder / best / 'metrics' / 'metrics').read_text())['value'] == values[best]
    assert (
        digests.compare_digest(folder / best, 'metrics/metrics', digests.read_digests(folder / best)['metrics/metrics'])
        is None
    )


def test_the_latest_of_equal_values_is_best_everywhere(folder):
    for step in ('5', '10'):
        (folder / step / 'metrics' / 'metrics').write_text('{"value": 0.5}')
        digests.write_digests(folder / step)
    (folder.parent / 'config.json').write_text(json.dumps({'run': {'checkpoint': BEST}}))
    with Checkpoints(folder, Checkpointing(**BEST), read_only=True) as checkpoints:
        assert checkpoints.best_step() == 10
    stored, latest = read_model(folder.parent), read_model(folder / '10')
    assert all((stored[name] == latest[name]).all() for name in latest)


def test_processes_meet_whether_or_not_they_see_the_value_written(folder, monkeypatch):
    """The second process may look after the first has written: both must come to the same places."""
    places = []
    monkeypatch.setattr('canon.train.checkpoint.wait_for_all', places.append)
    with Checkpoints(folder, Checkpointing(**BEST)) as checkpoints:
        shutil.rmtree(folder / '10' / 'metrics')
        places.clear()
        checkpoints.amend(10, {}, 0.5)
        absent = places.copy()
        places.clear()
        checkpoints.amend(10, {}, 0.5)
    assert places == absent


@pytest.mark.parametrize('key', ['shape', 'chunks'])
def test_an_absurd_shape_is_one_line(folder, target, key):
    """Without digests, as an older Canon wrote them: allocating such an array would end the process."""
    header = folder / '10' / 'model' / 'params.Dense_0.bias' / '.zarray'
    header.write_text(json.dumps(json.loads(header.read_text()) | {key: [10**18]}))
    (folder / '10' / digests.NAME).unlink()
    with pytest.raises(CanonError, match=r'the array params/Dense_0/bias of shape .*10{18}'):
        read_model(folder / '10')
    with pytest.raises(CanonError, match=r'Dense_0/bias.*10{18}'):
        restore(folder, target, step=10)


def test_another_optimizer_is_named_before_anything_is_read(folder):
    chain = dict(chain=('sgd', 'ema'), sgd=dict(learning_rate=0.1), ema=dict(decay=0.9))
    target = make_setup(toy.experiment(tx=optim.make_optimizer(chain)), toy.config()).target
    with pytest.raises(UsageError, match=r'optimizer state does not fit: opt/.* is .* there and .* here'):
        restore(folder, target)


CHAINS = {
    'ema': dict(chain=('sgd', 'ema'), sgd=dict(learning_rate=0.1), ema=dict(decay=0.5)),
    # Its mode is the wrong one, so that the mean begins at the first evaluation that can begin it.
    'average_on_plateau': dict(
        chain=('sgd', 'average_on_plateau'),
        sgd=dict(learning_rate=0.1),
        average_on_plateau=dict(metric='test/accuracy', patience=1, mode='min'),
    ),
    'average_in_valley': dict(
        chain=('sgd', 'average_in_valley'),
        sgd=dict(learning_rate=0.1),
        average_in_valley=dict(metric='test/accuracy', start_patience=1, end_patience=5),
    ),
    'schedule_free': dict(name='schedule_free', tx=dict(name='sgd', learning_rate=0.1)),
    'nesterov': dict(name='nesterov', learning_rate=0.1, momentum=0.9),
    'a partition': dict(
        name='partition',
        rules=(('^Dense_0/k', 'slow'), ('.', 'fast')),
        slow=dict(chain=('sgd', 'ema'), sgd=dict(learning_rate=0.1), ema=dict(decay=0.5)),
        fast=dict(name='sgd', learning_rate=0.1),
    ),
}


FAST_CHAINS = [('ema', 2), ('a partition', 1)]
ALL_CHAINS = [(name, average) for name in CHAINS for average in (1, 2)]


@pytest.mark.parametrize(
    ('name', 'average'),
    [case if case in FAST_CHAINS else pytest.param(*case, marks=pytest.mark.slow) for case in ALL_CHAINS],
)
def test_a_run_hands_on_the_weights_that_it_evaluated(tmp_path, name, average):
    """What `init_from` reads of a run is what `load_trained` gives: an average with its statistics, if any."""
    config = toy.config(6, checkpoint=dict(every=3, keep=2, average=average), evals=dict(test=dict(every=1)))
    experiment = toy.experiment(tx=optim.make_optimizer(CHAINS[name]))
    fitted = fit(experiment, config, tmp_path, quiet=True)
    run, stored = load_trained(experiment, config, tmp_path), read_model(tmp_path)
    expected = name_model(State(0, run.params, run.mutable, None))
    assert stored.keys() == expected.keys()
    for key in stored:
        np.testing.assert_allclose(stored[key], expected[key], rtol=1e-6, atol=1e-7, err_msg=key)
    raw = fitted.state.params['Dense_0']['kernel']
    assert np.abs(stored['Dense_0/kernel'] - raw).max() > 1e-4
