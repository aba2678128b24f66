"""Predictions are written as they come; what cannot be written is one line."""

import csv

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from canon.errors import UsageError
from canon.tasks.predictions import Prediction, write_predictions


def read_table(folder):
    with (folder / 'predictions.csv').open(newline='', encoding='utf-8', errors='surrogateescape') as file:
        return list(csv.DictReader(file))


def test_rows_are_written_as_they_come(tmp_path):
    def predict():
        yield Prediction({'file': 'a.png', 'class': 3})
        assert [row['file'] for row in read_table(tmp_path / 'out')] == ['a.png']  # before the next is computed
        yield Prediction({'class': np.float32(0.5), 'file': 'b, "c".png'})  # the order of the header holds

    assert write_predictions(predict(), tmp_path / 'out') == f'2 rows in {tmp_path / "out" / "predictions.csv"}'
    assert read_table(tmp_path / 'out') == [{'file': 'a.png', 'class': '3'}, {'file': 'b, "c".png', 'class': '0.5'}]


def test_names_that_are_not_utf8_are_written_as_they_are(tmp_path):
    write_predictions([Prediction({'file': b'\xff.png'.decode(errors='surrogateescape')})], tmp_path)
    assert b'\xff.png' in (tmp_path / 'predictions.csv').read_bytes()


def test_a_row_with_other_columns_is_one_line(tmp_path):
    rows = [Prediction({'file': 'a', 'text': 'x'}), Prediction({'file': 'b', 'word': 'y'})]
    with pytest.raises(UsageError, match='row 2 has the columns file, word, the first row has file, text'):
        write_predictions(rows, tmp_path)
    assert len(read_table(tmp_path)) == 1


class Saved:
    def save(self, path):
        path.write_text('saved')


def test_files_of_every_kind(tmp_path, capsys):
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    predictions = [
        Prediction(text='first', files={'a.txt': 'é\r\n', 'b.bin': b'\0', 'c.png': image, 'grey.png': image[..., :1]}),
        Prediction(text='second', files={'deep/d.gif': np.stack([image, 255 - image]), 'e.mp4': np.stack([image] * 3)}),
        Prediction(files={'f.png': Figure(figsize=(1, 1)), 'g.dat': Saved()}),
    ]
    line = write_predictions(predictions, tmp_path)
    assert capsys.readouterr().out == 'first\nsecond\n'
    assert (tmp_path / 'a.txt').read_bytes() == 'é\r\n'.encode()
    assert (tmp_path / 'b.bin').read_bytes() == b'\0'
    assert np.array_equal(np.asarray(Image.open(tmp_path / 'c.png')), image)
    assert np.array_equal(np.asarray(Image.open(tmp_path / 'grey.png')), image[..., 0])
    assert Image.open(tmp_path / 'deep' / 'd.gif').n_frames == 2
    assert (tmp_path / 'e.mp4').stat().st_size > 0
    assert Image.open(tmp_path / 'f.png').size == (100, 100)
    assert (tmp_path / 'g.dat').read_text() == 'saved'
    assert line.endswith(f'{tmp_path / "e.mp4"}, and 2 more files in {tmp_path}')
    assert not list(tmp_path.rglob('.*'))  # no part of a file is left


def test_an_error_before_the_first_prediction_leaves_no_folder(tmp_path):
    def predict():
        raise UsageError('--input=x does not exist')
        yield Prediction()

    with pytest.raises(UsageError):
        write_predictions(predict(), tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
    assert write_predictions([], tmp_path / 'out') == 'nothing was predicted'


def test_a_file_that_fails_leaves_the_one_before(tmp_path):
    class Failing:
        def save(self, path):
            path.write_text('half')
            raise OSError('disk full')

    (tmp_path / 'x.txt').write_text('before')
    with pytest.raises(OSError, match='disk full'):
        write_predictions([Prediction(files={'x.txt': Failing()})], tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ['x.txt']
    assert (tmp_path / 'x.txt').read_text() == 'before'


@pytest.mark.parametrize('name', ['../x', '/x', 'predictions.csv', ''])
def test_file_names_stay_below_the_folder(tmp_path, name):
    with pytest.raises(UsageError, match='expected a path below the output folder'):
        write_predictions([Prediction(files={name: 'x'})], tmp_path)


def test_a_file_is_written_once(tmp_path):
    with pytest.raises(UsageError, match="two predictions have the file 'x'"):
        write_predictions([Prediction(files={'x': '1'}), Prediction(files={'x': '2'})], tmp_path)


@pytest.mark.parametrize('content', [3, np.zeros((2, 2)), np.zeros(3, np.uint8)])
def test_content_that_cannot_be_written(tmp_path, content):
    with pytest.raises(TypeError, match=r'x\.png|x'):
        write_predictions([Prediction(files={'x.png': content})], tmp_path)
