"""Predictions of the frames of a video: one annotated video, and a row per frame or object."""

import csv
import json

import imageio.v3 as imageio
import jax.numpy as jnp
import numpy as np
import pytest

from canon.data.images.videos import open_files
from canon.plots.saving import VideoWriter
from canon.tasks import detection, segmentation
from canon.tasks.predictions import Prediction, join_frames, write_predictions
from canon.tasks.text import predict_texts


@pytest.fixture
def files(tmp_path):
    with VideoWriter(tmp_path / 'clip.mp4', 10) as writer:
        for level in (40, 120, 200):
            writer.append(np.full((48, 64, 3), level, np.uint8))
    return open_files(str(tmp_path / 'clip.mp4'))


def write(predictions, folder):
    """Writes predictions; returns their rows, and the frames of the video."""
    write_predictions(predictions, folder)
    with (folder / 'predictions.csv').open() as file:
        rows = list(csv.DictReader(file))
    return rows, imageio.imread(folder / 'clip.mp4')


def list_files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_detector_writes_boxes_over_a_video(files, tmp_path):
    def predict(params, mutable, batch):
        count = len(batch['image'])
        left = batch['image'][:, 0, 0, 0].astype(jnp.float32) / 10  # the box moves with the level
        box = jnp.stack([left, left * 0 + 5, left + 20, left * 0 + 30], -1)
        fields = {
            'boxes': box[:, None],
            'scores': jnp.full((count, 1), 0.9),
            'labels': jnp.zeros((count, 1), jnp.int32),
        }
        return {**fields, 'valid': jnp.ones((count, 1), bool)}

    settings = detection.PictureSettings()
    made = detection.predict_files(predict, {}, {}, files, (), 2, ['cat'], settings)
    rows, frames = write(made, tmp_path / 'out')
    assert [row['file'].rpartition('/')[2] for row in rows] == ['000000.png', '000001.png', '000002.png']
    assert [row['image_id'] for row in rows] == ['0', '1', '2']
    np.testing.assert_allclose([float(row['x0']) for row in rows], [4, 12, 20], atol=0.6)
    assert len(frames) == 3
    assert list_files(tmp_path / 'out') == ['clip.mp4', 'detections.json', 'predictions.csv']
    assert [found['image_id'] for found in json.loads((tmp_path / 'out/detections.json').read_text())] == [0, 1, 2]


def test_a_segmenter_writes_overlays_of_a_video(files, tmp_path):
    maps = [np.full((48, 64), number % 2, np.uint8) for number in range(3)]
    rows, frames = write(segmentation.predict_label_maps(files, maps, ['ground', 'cat']), tmp_path / 'out')
    assert [row['cat'] for row in rows] == ['0.0000', '1.0000', '0.0000']
    assert frames.shape == (3, 48, 64, 3)
    assert list_files(tmp_path / 'out') == ['clip.mp4', 'predictions.csv']
    assert np.ptp(frames[1].reshape(-1, 3).mean(0)) > 20 > np.ptp(frames[0].reshape(-1, 3).mean(0))  # coloured


def test_a_reader_writes_captions_over_a_video(files, tmp_path):
    image = np.zeros((32, 100, 1), np.uint8)
    readings = [[(image, '', 'one', 0.5), (image, '', 'two', 0.25)], [(image, '', '', 1.0)]]
    rows, frames = write(predict_texts(files, readings), tmp_path / 'out')
    assert [(row['text'], row['probability']) for row in rows] == [('one', '0.5000'), ('two', '0.2500'), ('', '1.0000')]
    assert frames.shape[2] == 320  # enlarged until a text is readable
    band = frames[:, :20].astype(float)
    assert (band.min((1, 2, 3)) < 100).all()  # black on white
    assert list_files(tmp_path / 'out') == ['clip.mp4', 'predictions.csv']


def test_predictions_of_images_are_passed_on(tmp_path):
    made = [Prediction({'a': 1}, {'x_boxes.png': 'figure'})]
    assert list(join_frames(made, object(), '_boxes.png')) == made
