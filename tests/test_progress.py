"""The live line of long operations: on a terminal with the time left, nothing on a pipe."""

import functools
import io
import re
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from jax.sharding import Mesh

from canon import progress
from canon.data import Generated
from canon.data.text import vocabulary
from canon.errors import CanonError
from canon.tasks.predictions import Prediction, write_predictions
from canon.train import Evaluator, artefacts, evaluation
from launch import prepare


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """Stands for a terminal, on which lines appear at once."""
    stream = Terminal()
    monkeypatch.setattr(progress, 'sys', SimpleNamespace(stderr=stream))
    monkeypatch.setattr(progress, '_SECONDS', 0.0)
    monkeypatch.setattr(progress, 'tqdm', functools.partial(progress.tqdm, mininterval=0.0, miniters=1))
    return stream


def test_a_bar_shows_the_time_left(terminal):
    with progress.make_bar(4, 'proposals', 'image') as bar:
        bar.update(2)
        bar.refresh()
    text = terminal.getvalue()
    assert 'proposals:  50% |' in text
    assert '| 2/4 [' in text
    assert '<' in text.rpartition('2/4 [')[2]  # elapsed<remaining
    assert text.endswith('\r')  # and is removed


@pytest.mark.parametrize('stream', [io.StringIO, Terminal])
def test_a_pipe_and_a_quiet_bar_get_nothing(monkeypatch, stream):
    written = stream()
    monkeypatch.setattr(progress, 'sys', SimpleNamespace(stderr=written))
    with progress.make_bar(4, quiet=stream is Terminal, delay=0.0) as bar:
        bar.update(4)
    assert written.getvalue() == ''


def evaluate(quiet):

    data = Generated(lambda step: {'x': np.ones((2,), np.float32), 'mask': np.ones(2, bool)})
    evaluator = Evaluator(_Few(data), lambda params, mutable, batch: batch['x'].sum(), lambda sums: {'sum': sums})
    mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ('data', 'model'))
    return evaluation.evaluate(evaluator, {}, {}, mesh, measure=lambda p, m, b: b['x'].sum(), quiet=quiet)


class _Few:
    """Three batches."""

    batch_size, num_examples = 2, 6

    def __init__(self, data):
        self._data = data

    def __len__(self):
        return 3

    def iterate(self, start=0):
        return (self._data[step] for step in range(start, 3))


def test_an_evaluation_has_a_bar(terminal):
    assert evaluate(quiet=False).metrics == {'sum': 6.0}
    assert 'evaluation:' in terminal.getvalue()
    assert '/3 [' in terminal.getvalue()
    terminal.truncate(0)
    evaluate(quiet=True)
    assert terminal.getvalue() == ''


def test_a_stage_that_computes_has_a_bar_and_a_pipe_has_lines(terminal, monkeypatch, tmp_path):
    lines = []

    def write(path):
        for done in range(1, 4):
            made.report(done, 3)
        path.write_text('x')

    made = artefacts.Artefacts(tmp_path / 'a', lines.append, bool)
    made.compute('features.npz', write)
    assert 'features.npz:' in terminal.getvalue()
    assert [line.partition(' ')[0] for line in lines] == ['computing', 'computed']
    piped = io.StringIO()
    monkeypatch.setattr(progress, 'sys', SimpleNamespace(stderr=piped))
    monkeypatch.setattr(artefacts, '_SECONDS_BETWEEN_LINES', -1.0)
    made = artefacts.Artefacts(tmp_path / 'b', lines.append, bool)
    made.compute('features.npz', write)
    assert piped.getvalue() == ''
    assert lines[3:5] == ['features.npz: 1 of 3', 'features.npz: 2 of 3']


def test_predictions_have_a_bar(terminal, tmp_path, capsys):
    write_predictions([Prediction({'a': 1}, text='one'), Prediction({'a': 2})], tmp_path, total=2)
    assert 'prediction:' in terminal.getvalue()
    assert capsys.readouterr().out == 'one\n'


def read_titles(terminal):
    """Returns the titles of the bars that were shown, each once."""
    lines = re.split(r'[\r\n]+', terminal.getvalue())
    return list(dict.fromkeys(line.partition(': ')[0] for line in lines if '% |' in line))


def test_items_are_counted_and_a_generator_has_no_time_left(terminal):
    assert list(progress.show_progress([3, 1], 'numbers')) == [3, 1]
    assert '| 2/2 [' in terminal.getvalue()
    assert list(progress.show_progress((n for n in [3, 1]), 'generated')) == [3, 1]
    assert 'generated: 2 it [' in terminal.getvalue()
    assert list(progress.show_progress((n for n in [3, 1]), 'counted', total=4)) == [3, 1]
    assert '| 2/4 [' in terminal.getvalue()


@pytest.mark.parametrize('level', ['character', 'word', 'subword'])
def test_a_vocabulary_and_its_corpus_have_bars(terminal, level):
    lines = ['a cat sat on a mat', 'the dog ate the log'] * 20
    words = vocabulary.build(lines, level, size=16 if level == 'subword' else None)
    words.stream(lines)
    assert read_titles(terminal) == [f'vocabulary of {level}s', 'encoding']
    assert '40/40 [' in terminal.getvalue()
    assert ('all read, training' in terminal.getvalue()) == (level == 'subword')


def test_the_bars_of_tfds_are_for_terminals(monkeypatch, tmp_path):
    shown = []
    monkeypatch.setattr(tfds, 'display_progress_bar', shown.append)
    for stream in (io.StringIO(), Terminal()):
        monkeypatch.setattr(prepare, 'sys', SimpleNamespace(stderr=stream))
        with pytest.raises(CanonError, match='could not be prepared'):
            prepare._build('no_such_set', tmp_path)
    assert shown == [False, True]
