"""The writer of videos: a file is there as a whole, or not at all."""

import numpy as np
import pytest

from canon.plots.saving import VideoWriter


def test_a_video_appears_when_it_ends(tmp_path):
    path = tmp_path / 'clip.mp4'
    with VideoWriter(path, 10) as writer:
        for shade in (0, 100, 200):
            writer.append(np.full((32, 48, 3), shade, np.uint8))
            assert not path.exists()
    assert [file.name for file in tmp_path.iterdir()] == ['clip.mp4']
    assert path.stat().st_size > 500


def test_an_error_leaves_the_old_file(tmp_path):
    path = tmp_path / 'clip.mp4'
    path.write_bytes(b'old')

    def frames():
        yield np.zeros((32, 48, 3), np.uint8)
        raise RuntimeError('no further picture from the camera')

    def write():
        with VideoWriter(path, 10) as writer:
            for frame in frames():
                writer.append(frame)

    with pytest.raises(RuntimeError, match='camera'):
        write()
    assert [file.name for file in tmp_path.iterdir()] == ['clip.mp4']
    assert path.read_bytes() == b'old'
