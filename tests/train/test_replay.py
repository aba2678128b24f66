"""Steps that a run does not have are refused by everything that looks at runs."""

import pytest

from canon.errors import UsageError
from canon.train import evaluate_run, fit, load_trained, replay_step
from canon.train.log import read_rows
from tests.train import toy
from tests.train.test_checkpoint import change_one_byte

CONFIG = toy.config(6, log_every=1, checkpoint=dict(every=3, keep=2))


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp('run')
    fit(toy.experiment(), CONFIG, folder, quiet=True)
    return folder


@pytest.mark.parametrize('step', [-1, 0, 7, 10**9])
def test_a_step_beyond_the_run_is_refused(run, step):
    with pytest.raises(UsageError, match=rf'--step={step}: the run in \S+ has steps 1 to 6'):
        replay_step(toy.experiment(), CONFIG, run, step)
    for verb in (evaluate_run, load_trained):
        with pytest.raises(UsageError, match=rf'has no checkpoint of step {step}; there are \[3, 6\]'):
            verb(toy.experiment(), CONFIG, run, step)
        with pytest.raises(UsageError, match=rf'nothing has no checkpoint of step {step}'):
            verb(toy.experiment(), CONFIG, run / 'nothing', step)


def test_a_run_that_stopped_early_has_no_later_steps(tmp_path):
    early = dict(metric='test/accuracy', patience=1, mode='max', min_delta=1.0)
    config = toy.config(20, evals=dict(test=dict(every=2)), early_stop=early)
    fitted = fit(toy.experiment(), config, tmp_path, quiet=True)
    assert (fitted.status, int(fitted.state.step)) == ('early', 4)
    with pytest.raises(UsageError, match=r'--step=5: the run in \S+ has steps 1 to 4'):
        replay_step(toy.experiment(), config, tmp_path, 5)


def test_a_replay_begins_from_a_sound_checkpoint(run, caplog):
    change_one_byte(run / 'checkpoints' / '3' / 'opt' / 'step' / '0')
    replayed = replay_step(toy.experiment(), CONFIG, run, 5)
    assert 'the checkpoint of step 3' in caplog.text
    logged = next(row for row in read_rows(run / 'metrics.jsonl') if row['step'] == 5)
    assert replayed.metrics['loss'] == pytest.approx(logged['train/loss'], rel=1e-5)
