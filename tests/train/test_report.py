"""The report of a run that is running: when it is rewritten, what it costs, and that it stops reloading itself."""

import json
import logging
import re

import pytest
from matplotlib.figure import Figure

from canon.train import fit, report
from canon.train.report import LiveReport
from tests.train import toy

RELOADS = 'location.reload()'


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still; each report takes `clock.cost` seconds."""

    class Clock:
        now, cost, written = 1000.0, 1.0, 0

        def write(self, workdir):
            self.now += self.cost
            self.written += 1

    clock = Clock()
    monkeypatch.setattr(report.time, 'monotonic', lambda: clock.now)
    monkeypatch.setattr(report, 'write_report', clock.write)
    return clock


def count_writes(clock, live, seconds):
    before = clock.written
    for _ in range(seconds):
        clock.now += 1
        live.refresh()
    return clock.written - before


def test_a_report_is_written_once_a_minute_and_in_two_percent_of_the_time(clock, tmp_path):
    live = LiveReport(tmp_path)
    assert count_writes(clock, live, 9) == 0
    assert count_writes(clock, live, 1) == 1
    assert count_writes(clock, live, 300) == 5
    clock.cost = 30.0  # of many metrics
    assert count_writes(clock, live, 3000) == 2
    live.close()
    assert clock.written == 9


def test_a_short_run_costs_no_report(clock, tmp_path):
    LiveReport(tmp_path).close()
    assert clock.written == 0


def test_a_report_that_cannot_be_written_is_one_warning(clock, tmp_path, monkeypatch, caplog):
    def fail(workdir):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(report, 'write_report', fail)
    live = LiveReport(tmp_path)
    with caplog.at_level(logging.WARNING, 'canon'):
        count_writes(clock, live, 200)
    assert [r.message for r in caplog.records] == [
        f'{tmp_path}: the report is not written: OSError: [Errno 28] {"No space left on device"}'
    ]


@pytest.mark.parametrize(('panels', 'place'), [(6, 0), (7, -1)])
def test_many_curves_come_after_the_pictures(panels, place, tmp_path):
    for name in ('test-errors.png', 'curves.png', 'test-priors.png', 'test-film.gif', 'notes.txt'):
        (tmp_path / name).touch()
    names = [path.name for path in report._order_figures(tmp_path, panels)]
    assert names.pop(place) == 'curves.png'
    assert names == ['test-errors.png', 'test-film.gif', 'test-priors.png']


def test_the_target_comes_first_and_many_numbers_are_folded(tmp_path):
    metrics = {f'test/metric_{i}': float(i) for i in range(12)}
    (tmp_path / 'config.json').write_text('{"target": {"metric": "test/metric_11"}}')
    (tmp_path / 'status.json').write_text(json.dumps({'state': 'done', 'step': 1, 'steps': 1, 'metrics': metrics}))
    tiles, _, folded = report.write_report(tmp_path).read_text().partition('<details>')
    shown = [name for name in re.findall(r'<span>(.*?)</span>', tiles) if name.startswith('test/')]
    assert shown == ['test/metric_11', *(f'test/metric_{i}' for i in range(7))]
    assert '4 more numbers' in folded
    assert re.findall(r'<td>(test/.*?)</td>', folded) == [f'test/metric_{i}' for i in range(7, 11)]


def test_the_report_of_a_running_run_reloads_itself_and_the_last_one_does_not(tmp_path, monkeypatch):
    monkeypatch.setattr(report, '_FIRST', 0.0)
    monkeypatch.setattr(report, '_BETWEEN', 0.0)
    monkeypatch.setattr(report, '_SHARE', 1e9)
    monkeypatch.setattr(report.plots, 'draw_curves', lambda series: Figure((1, 1)))  # takes a second
    pages = []
    write = report.write_report

    def keep(workdir):
        pages.append(write(workdir).read_text())

    monkeypatch.setattr(report, 'write_report', keep)
    fit(toy.linear(), toy.config(steps=10, log_every=5), tmp_path, quiet=True)
    assert [RELOADS in page for page in pages] == [True] * (len(pages) - 1) + [False]
    assert 'running at step 5 of 10' in ''.join(pages[:-1])
    assert 'done at step 10 of 10' in pages[-1]
    assert (tmp_path / 'report.html').read_text() == pages[-1]
