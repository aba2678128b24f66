"""`launch.prepare`: what it makes can be read, what is there is kept, what fails says why."""

import importlib.util
import json
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from canon.data import load_source
from canon.errors import CanonError, UsageError, run_command
from launch import prepare
from tests.data import test_tfds


class CanonFailing(tfds.core.GeneratorBasedBuilder):
    """Stops half-way."""

    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({'id': np.int64}))

    def _split_generators(self, dl_manager):
        return {'train': self._generate_examples()}

    def _generate_examples(self):
        yield 0, {'id': 0}
        raise OSError('no space left on device')


@pytest.fixture
def stock(monkeypatch):
    """Our fabricated builders stand for stock ones; they need no TensorFlow."""
    monkeypatch.setattr(prepare, '_check_tensorflow', lambda name: None)
    monkeypatch.setattr(tfds, 'list_builders', lambda **_: ['canon_fabricated', 'canon_failing', 'mnist'])


def run(arguments):
    return run_command(lambda: prepare.main(arguments))


def test_a_set_is_prepared_once_and_read(stock, tmp_path, capsys):
    arguments = ['canon_fabricated/few', '--data_dir', str(tmp_path)]
    assert run(arguments) == 0
    folder = tmp_path / 'canon_fabricated' / 'few' / '1.2.0'
    assert f'now in {folder}' in capsys.readouterr().out
    written = {p: p.stat().st_mtime_ns for p in folder.iterdir()}
    source = load_source('canon_fabricated/few', data_dir=tmp_path)
    assert sorted(int(source[i]['id']) for i in range(12)) == list(range(12))
    assert run(arguments) == 0
    assert f'already in {folder}' in capsys.readouterr().out
    assert written == {p: p.stat().st_mtime_ns for p in folder.iterdir()}
    assert sorted(p.name for p in tmp_path.iterdir()) == ['canon_fabricated', 'downloads']
    assert 'tensorflow' not in sys.modules


def test_another_format_is_replaced_and_renamed(stock, tmp_path):
    builder = test_tfds.CanonFabricated(data_dir=tmp_path, config='few', file_format='array_record')
    builder.download_and_prepare()
    folder = tmp_path / 'canon_fabricated' / 'few' / '1.2.0'
    info = json.loads((folder / 'dataset_info.json').read_text())
    (folder / 'dataset_info.json').write_text(json.dumps({**info, 'fileFormat': 'tfrecord'}))
    with pytest.raises(UsageError, match='prepare canon_fabricated/few'):
        load_source('canon_fabricated/few', data_dir=tmp_path)
    assert run(['canon_fabricated/few', '--data_dir', str(tmp_path)]) == 0
    assert len(load_source('canon_fabricated/few', data_dir=tmp_path)) == 12
    assert sorted(p.name for p in folder.parent.iterdir()) == ['1.2.0', '1.2.0.tfrecord']


def test_a_failing_builder_leaves_no_files(stock, tmp_path):
    with pytest.raises(CanonError, match=r'canon_failing could not be prepared: OSError: .*no space left'):
        prepare.prepare('canon_failing', tmp_path)
    assert [p.name for p in tmp_path.iterdir() if p.name != 'downloads'] == []


def test_digits_are_prepared_without_tensorflow(tmp_path, capsys):
    assert run(['digits', '--data_dir', str(tmp_path)]) == 0
    assert run(['digits', '--data_dir', str(tmp_path)]) == 0
    assert 'now in' in capsys.readouterr().out


def test_a_damaged_set_is_not_taken_for_a_prepared_one(tmp_path, capsys):
    folder = tmp_path / 'digits' / '1.0.0'
    folder.mkdir(parents=True)
    for stored in (b'', b'null', b'\xff'):
        (folder / 'dataset_info.json').write_bytes(stored)
        assert run(['digits', '--data_dir', str(tmp_path)]) == 1
        error = capsys.readouterr().err
        assert f'{folder}/dataset_info.json is damaged' in error
        assert f'delete {folder}' in error
        assert error.count('\n') == 1


@pytest.mark.parametrize(
    ('name', 'status', 'message'),
    [
        ('mnit', 2, "TFDS knows no data set 'mnit'; did you mean 'mnist'"),
        ('folder', 2, "'folder' needs no preparation"),
        ('mnist', 1, '`./launch.sh prepare mnist` makes one that does'),
    ],
)
def test_data_that_cannot_be_prepared_are_one_line(name, status, message, tmp_path, capsys, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None if name == 'tensorflow' else find_spec(name))
    assert run([name, '--data_dir', str(tmp_path)]) == status
    error = capsys.readouterr().err
    assert message in error
    assert error.count('\n') == 1


def test_an_unwritable_place_is_named(stock, tmp_path, capsys):
    (tmp_path / 'file').write_text('')
    assert run(['mnist', '--data_dir', str(tmp_path / 'file')]) == 1
    assert f'cannot write to {tmp_path}/file' in capsys.readouterr().err
