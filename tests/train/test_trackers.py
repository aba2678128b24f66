"""Trackers of experiments: offline modes of their packages, resumed runs, and what fails there."""

import io
import logging
import struct
import sys
import time

import pytest
from matplotlib.figure import Figure

from canon.errors import UsageError
from canon.train import fit, trackers
from canon.train.log import MetricsWriter, read_rows
from tests.train import toy

CONFIG = {'seed': 3, 'run': {'steps': 4}}


def draw_png():
    figure, content = Figure(figsize=(1, 1)), io.BytesIO()
    figure.add_subplot().plot([1, 2])
    figure.savefig(content, format='png', dpi=40)
    return content.getvalue()


def write_session(folder, tracker, steps, resume_at=0, state='done', picture=False):
    folder.mkdir(exist_ok=True)
    writer = MetricsWriter(folder, resume_at, trackers=(tracker,), config=CONFIG)
    for step in steps:
        writer.write(step, {'train/loss': 1 / step})
    if picture:
        writer.write_picture('test/example', draw_png(), 4)
    writer.close(state)


class Recorder:
    """A tracker that keeps what it is sent, and fails if it is to."""

    def __init__(self, calls, fails_at=None):
        self.calls, self.fails_at = calls, fails_at

    def open(self):
        self.calls.append('open')

    def log(self, step, metrics):
        if step == self.fails_at:
            raise ConnectionError('no route to host')
        self.calls.append((step, *metrics))

    def log_picture(self, name, png, step):
        self.calls.append((step, name))

    def close(self, state):
        self.calls.append(state)


sent: list = []


def recorder(run):
    return Recorder(sent)


def failing(run):
    return Recorder(sent, fails_at=10)


@pytest.fixture(autouse=True)
def _nothing_is_sent():
    sent.clear()


def test_a_tracker_receives_every_row_in_order(tmp_path):
    fit(toy.linear(), toy.config(log=(f'{__name__}:recorder',)), tmp_path, quiet=True)
    logged = [step for step, *_ in (row for row in sent if isinstance(row, tuple))]
    assert sent[0] == 'open'
    assert sent[-1] == 'done'
    assert logged == [row['step'] for row in read_rows(tmp_path / 'metrics.jsonl')]


def test_a_tracker_that_fails_is_one_warning(tmp_path, caplog):
    config = toy.config(log=(f'{__name__}:failing',), log_every=2, steps=20)
    with caplog.at_level(logging.WARNING, 'canon'):
        fitted = fit(toy.linear(), config, tmp_path, quiet=True)
    assert (fitted.status, fitted.step) == ('done', 20)
    assert [row for row in sent if isinstance(row, tuple)] == [(s, *row) for s, *row in sent[1:]]  # nothing after it
    (warning,) = [r.message for r in caplog.records if 'run.log' in r.message]
    assert 'has failed, and the run goes on without it: ConnectionError: no route to host' in warning


def test_a_run_that_writes_nothing_opens_no_tracker(tmp_path):
    write_session(tmp_path / 'run', f'{__name__}:recorder', ())
    assert sent == []


def test_a_misspelt_tracker_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"run.log: no tracker is called 'wandbb'; did you mean 'wandb'"):
        fit(toy.linear(), toy.config(log=('wandbb',)), tmp_path / 'run', quiet=True)
    assert not (tmp_path / 'run').exists()


def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'wandb', None)
    with pytest.raises(UsageError, match=r"'wandb' needs the package wandb: pip install 'canon-jax\[trackers\]'"):
        fit(toy.linear(), toy.config(log=('wandb',)), tmp_path / 'run', quiet=True)
    assert not (tmp_path / 'run').exists()


def test_no_package_of_a_tracker_is_imported_unless_it_is_selected(tmp_path, monkeypatch):
    for name in ('wandb', 'mlflow', 'tensorboardX'):
        monkeypatch.setitem(sys.modules, name, None)  # an import would raise
    fit(toy.linear(), toy.config(log=()), tmp_path, quiet=True)


@pytest.mark.slow
def test_mlflow_keeps_a_resumed_run_in_one_run(tmp_path, monkeypatch):
    mlflow = pytest.importorskip('mlflow')
    monkeypatch.setenv('MLFLOW_TRACKING_URI', (tmp_path / 'store').as_uri())
    monkeypatch.setenv('MLFLOW_ALLOW_FILE_STORE', 'true')
    monkeypatch.setenv('MLFLOW_EXPERIMENT_NAME', 'digits')
    mlflow.set_tracking_uri(None)
    write_session(tmp_path / 'run', 'mlflow', (1, 2), state='stopped')
    write_session(tmp_path / 'run', 'mlflow', (3, 4), resume_at=2, picture=True)
    client = mlflow.MlflowClient((tmp_path / 'store').as_uri())
    experiment = client.get_experiment_by_name('digits')
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == 'FINISHED'
    assert run.data.params == {'seed': '3', 'run.steps': '4'}
    history = client.get_metric_history(run.info.run_id, 'train/loss')
    assert sorted((m.step, m.value) for m in history) == [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 0.25)]
    assert any('example' in file.path for file in client.list_artifacts(run.info.run_id, 'images'))


@pytest.mark.slow
def test_wandb_keeps_a_resumed_run_in_one_run(tmp_path, monkeypatch):
    """As its offline files have it, which `wandb sync` sends."""
    pytest.importorskip('wandb')
    monkeypatch.setenv('WANDB_MODE', 'offline')
    write_session(tmp_path / 'run', 'wandb', (1, 2), state='stopped')
    write_session(tmp_path / 'run', 'wandb', (3, 4), resume_at=2, picture=True)
    files = sorted((tmp_path / 'run' / 'wandb').glob('offline-run-*/run-*.wandb'))
    assert len({file.stem for file in files}) == 1  # the identity
    assert len(files) == 2
    rows, config = [], {}
    for file in files:
        for record in wait_for_wandb(file):
            if record.WhichOneof('record_type') == 'history':
                rows.append({item.key or item.nested_key[0]: item.value_json for item in record.history.item})
            elif record.WhichOneof('record_type') == 'run':
                config |= {item.key: item.value_json for item in record.run.config.update}
    losses = [(int(row['step']), float(row['train/loss'])) for row in rows if 'train/loss' in row]
    assert losses == [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 0.25)]
    assert any('test/example' in row for row in rows)
    assert config['seed'] == '3'


def wait_for_wandb(file):
    """Returns the records once the last one is there: its own process writes them, and may do so after `finish`."""
    for _ in range(300):
        records = list(read_wandb(file))
        if records and records[-1].WhichOneof('record_type') == 'exit':
            return records
        time.sleep(0.1)
    raise AssertionError(f'{file} has no end after 30 s')


def read_wandb(file):
    """The records of an offline file: LevelDB's log format, blocks of 32 KiB after a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    content, position, whole = file.read_bytes(), 7, b''
    while position + 7 <= len(content):
        left = 32768 - position % 32768
        if left < 7:  # a record does not begin so near the end of a block
            position += left
            continue
        _, length, kind = struct.unpack_from('<IHB', content, position)
        if position + 7 + length > len(content):
            return  # it is being written
        whole += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # in one piece, or the last piece
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record
            whole = b''


def test_every_tracker_has_its_package_stated():
    modules = [sys.modules[trackers.TRACKERS.find(name).__module__] for name in trackers.TRACKERS.names()]
    assert {module.PACKAGE for module in modules} == {'tensorboardX', 'wandb', 'mlflow'}
