"""`metrics.jsonl` and TensorBoard hold each step once, whatever stopped the run between."""

import io
import json
import math

import numpy as np
import pytest
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from canon.train import fit
from canon.train.log import MetricsWriter, read_rows
from tests.train import toy


def points(folder, name):
    """(step, value) as TensorBoard shows them."""
    events = EventAccumulator(str(folder)).Reload()
    return [(e.step, e.value) for e in events.Scalars(name)] if name in events.Tags()['scalars'] else []


def write(folder, steps, resume_at=0, value=1.0, close=True):
    writer = MetricsWriter(folder, resume_at, trackers=('tensorboard',))
    for step in steps:
        writer.write(step, {'train/loss': value})
    if close:
        writer.close()


@pytest.mark.parametrize('resume_at', [0, 2])
def test_points_of_a_retry_replace_those_before(tmp_path, resume_at):
    """Runs that begin within one second have files of their own."""
    write(tmp_path, (1, 2, 3, 4), value=1.0)
    write(tmp_path, range(resume_at + 1, 4), resume_at, value=2.0)
    expected = [(step, 1.0 if step <= resume_at else 2.0) for step in (1, 2, 3)]
    assert points(tmp_path, 'train/loss') == expected
    assert [(r['step'], r['train/loss']) for r in read_rows(tmp_path / 'metrics.jsonl')] == expected


def test_a_kill_loses_no_point(tmp_path):
    write(tmp_path, (1, 2, 3), close=False)
    assert points(tmp_path, 'train/loss') == [(1, 1.0), (2, 1.0), (3, 1.0)]


def test_events_hold_the_file_of_a_figure(tmp_path):
    figure, content = Figure(figsize=(3, 2)), io.BytesIO()
    figure.add_subplot().plot([1, 3, 2])
    figure.savefig(content, format='png', dpi=50)
    writer = MetricsWriter(tmp_path, trackers=('tensorboard',))
    writer.write_picture('test/a title', content.getvalue(), 7)
    writer.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    ((tag, image),) = [(tag, image) for tag in events.Tags()['images'] for image in events.Images(tag)]
    assert (tag, image.step, image.width, image.height) == ('test/a_title', 7, 150, 100)
    assert image.encoded_image_string == content.getvalue()


def test_an_evaluation_that_is_redone_stands_once(tmp_path):
    """Of two evaluations at step 4 the checkpoint knows one."""
    writer = MetricsWriter(tmp_path, trackers=('tensorboard',))
    writer.write(2, {'a/loss': 5.0, 'a/seconds': 0.1})
    writer.write(4, {'train/loss': 1.0})
    writer.write(4, {'a/loss': 2.0, 'a/seconds': 0.1})
    writer.write(4, {'b/loss': 3.0, 'b/seconds': 0.1})
    writer.close()
    writer = MetricsWriter(tmp_path, 4, measured={'a': 4, 'b': 2}, trackers=('tensorboard',))
    writer.write(4, {'b/loss': 3.5, 'b/seconds': 0.1})
    writer.close()
    rows = read_rows(tmp_path / 'metrics.jsonl')
    assert [(r['step'], r.get('a/loss'), r.get('b/loss')) for r in rows] == [
        (2, 5.0, None),
        (4, None, None),
        (4, 2.0, None),
        (4, None, 3.5),
    ]
    assert points(tmp_path, 'a/loss') == [(2, 5.0), (4, 2.0)]
    assert points(tmp_path, 'b/loss') == [(4, 3.5)]
    assert points(tmp_path, 'train/loss') == [(4, 1.0)]


def test_rows_are_json(tmp_path):
    """NaN and infinities are null in the file and NaN for who reads it; rows of an older Canon are read, too."""
    writer = MetricsWriter(tmp_path)
    writer.write(1, {'a': math.nan, 'b': math.inf, 'c': 2.0, 'd': np.float64('nan')})
    writer.close()
    path = tmp_path / 'metrics.jsonl'
    assert json.loads(path.read_text(), parse_constant=pytest.fail) == {
        'step': 1,
        'a': None,
        'b': None,
        'c': 2.0,
        'd': None,
    }
    path.write_text(path.read_text() + '{"step": 2, "a": NaN}\n')
    first, second = read_rows(path)
    assert [math.isnan(x) for x in (first['a'], first['b'], first['d'], second['a'])] == [True] * 4


@pytest.mark.parametrize(
    'damage', [b'\xff\xfe\x00', b'[1, 2]', b'{"loss": 1}', b'{"step": "x"}', b'{"step": 2, "tr', b'3']
)
def test_damaged_lines_are_counted(tmp_path, damage, caplog):
    path = tmp_path / 'metrics.jsonl'
    path.write_bytes(b'{"step": 1}\n' + damage + b'\n{"step": 3}\n')
    assert [row['step'] for row in read_rows(path)] == [1, 3]
    assert f'{path}: 1 damaged line' in caplog.text
    MetricsWriter(tmp_path, 1).close()
    assert path.read_text() == '{"step": 1}\n'


def test_the_log_of_a_killed_run_is_that_of_one_that_never_stopped(tmp_path, monkeypatch):
    """A checkpoint between two log rows keeps the sums of the next one."""

    class Killed(Exception):
        pass

    class Stream(toy.Stream):
        def __getitem__(self, step):
            if step == 9:
                raise Killed
            return super().__getitem__(step)

    config = toy.config(12, log_every=4, checkpoint=dict(every=6, keep=3))
    straight = fit(toy.linear(), config, tmp_path / 'a', quiet=True)
    with monkeypatch.context() as patch:
        patch.setattr('canon.train.loop.TrainingSession._rescue', lambda loop, state: None)  # as a kill leaves it
        with pytest.raises(Killed):
            fit(toy.linear(train=Stream()), config, tmp_path / 'b', quiet=True)
    resumed = fit(toy.linear(), config, tmp_path / 'b', quiet=True)
    assert straight.metrics == resumed.metrics
    rows = [
        [
            {k: v for k, v in row.items() if not k.endswith('seconds')}
            for row in read_rows(tmp_path / x / 'metrics.jsonl')
        ]
        for x in 'ab'
    ]
    assert rows[0] == rows[1]
