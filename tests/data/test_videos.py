"""Frames of videos and cameras as a source of images."""

import numpy as np
import pytest
from PIL import Image

from canon.data.images import videos
from canon.data.images.image_files import Files
from canon.data.images.videos import VideoFiles, open_files
from canon.errors import UsageError
from canon.plots.saving import VideoWriter

COLOURS = [(250, 10, 10), (10, 250, 10), (10, 10, 250), (250, 250, 10), (10, 250, 250)]


@pytest.fixture(scope='module')
def clip(tmp_path_factory):
    """A video of one colour per frame."""
    path = tmp_path_factory.mktemp('videos') / 'clip.mp4'
    with VideoWriter(path, 12) as writer:
        for colour in COLOURS:
            writer.append(np.full((48, 64, 3), colour, np.uint8))
    return path


def mean_colour(frame):
    return frame.reshape(-1, 3).mean(0)


def test_frames_are_numbered_and_in_order(clip):
    files = open_files(str(clip))
    assert (len(files), files.size, files.frame_rate, files.name) == (5, (48, 64), 12.0, 'clip')
    assert files.paths[3] == clip / '000003.png'
    for i in (0, 1, 2, 3, 4, 1):  # codecs change colours a little
        np.testing.assert_allclose(mean_colour(files[i]['image']), COLOURS[i], atol=12)
    with pytest.raises(IndexError, match='no frame 5'):
        files.read(5)


def test_a_frame_is_decoded_once_unless_it_was_forgotten(clip, monkeypatch):
    files, decoded = VideoFiles(clip), []
    iterate = videos.iterate_frames
    monkeypatch.setattr(videos, 'iterate_frames', lambda path: (decoded.append(1) or f for f in iterate(path)))
    files._capacity = 2
    for i in (0, 1, 2, 1, 2):
        files.read(i)
    assert len(decoded) == 3
    np.testing.assert_allclose(mean_colour(files.read(0)), COLOURS[0], atol=12)
    assert len(decoded) == 4


def test_images_remain_images(tmp_path):
    Image.new('RGB', (8, 8)).save(tmp_path / 'a.png')
    assert isinstance(open_files(str(tmp_path)), Files)


def test_a_file_that_is_no_video_is_named(tmp_path):
    (tmp_path / 'bad.mp4').write_text('not a video')
    with pytest.raises(UsageError, match=r'bad\.mp4 cannot be read as a video'):
        open_files(str(tmp_path / 'bad.mp4'))


class Camera:
    """An OpenCV camera of a few frames, interrupted after the last by Ctrl-C."""

    def __init__(self, number, frames=COLOURS):
        self.frames = [np.full((32, 40, 3), colour[::-1], np.uint8) for colour in frames]  # OpenCV has BGR

    def get(self, what):
        return 10.0

    def read(self):
        if not self.frames:
            raise KeyboardInterrupt
        return True, self.frames.pop(0)

    def release(self):
        pass


def test_a_camera_is_recorded_until_it_is_interrupted(monkeypatch, tmp_path):
    monkeypatch.setattr(videos.cv2, 'VideoCapture', Camera)
    monkeypatch.chdir(tmp_path)  # which has no file '0'
    files = open_files('0')
    assert (files.name, len(files), files.frame_rate) == ('camera0', 5, 10.0)
    np.testing.assert_allclose(mean_colour(files.read(0)), COLOURS[0], atol=12)
    assert str(files.paths[2]) == 'camera0/000002.png'


def test_a_camera_without_a_picture_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(videos.cv2, 'VideoCapture', lambda number: Camera(number, ()))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match='camera 7 gives no picture'):
        open_files('7')


def test_a_file_named_by_a_number_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / '0').mkdir()
    assert not videos.is_camera('0')
    assert videos.is_camera('1')
    assert not videos.is_camera('clip.mp4')
