"""A job of two processes tracks what one does, and its files are written once."""

import csv

import pytest

from canon.train.log import read_rows
from experiments import configs
from tests.experiments import job

pytestmark = pytest.mark.slow  # three processes start


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """The folder in which a process, and a job of two, have tracked three sequences, which two do not divide."""
    made = configs.load(f'{job.ROOT}/configs/tracking/mot17.py:smoke')
    with made.unlocked():
        made.data.source.update(dict(num_sequences=3, length=12))
        made.data.evals.test.update(dict(video_frames=2, pr_thresholds=(0.0, 0.5)))
        made.detections.min_score = 0.3
    folder = tmp_path_factory.mktemp('runs')
    job.train_with_one_and_two_processes({'mot17': made}, folder)
    return folder


def test_two_processes_report_what_one_does(runs):
    one, two = (read_rows(runs / name / 'mot17' / 'metrics.jsonl') for name in ('one', 'two'))
    assert len(one) == len(two) == 1
    timed = {key for key in one[0] if 'second' in key}
    assert {k: v for k, v in two[0].items() if k not in timed} == {k: v for k, v in one[0].items() if k not in timed}
    assert one[0]['test/HOTA'] > 0
    assert 'test/DIGITS-02-FRCNN/HOTA' in one[0]


def test_their_files_are_the_same_and_whole(runs):
    folders = [runs / name / 'mot17' / 'results' / 'test' for name in ('one', 'two')]
    names = [f'DIGITS-{i:02d}-FRCNN.txt' for i in range(3)] + ['scores.csv']
    for folder in folders:
        assert sorted(p.name for p in folder.iterdir()) == names
    for name in names:
        assert (folders[0] / name).read_text() == (folders[1] / name).read_text() != ''
    rows = list(csv.DictReader((folders[1] / 'scores.csv').open()))
    assert [row['sequence'] for row in rows] == [name[:-4] for name in names[:3]] + ['combined']
