"""The controls of the viewer, without a browser: tests/browser/test_view.py looks at its page."""

import socket
import types

import imageio.v3 as imageio
import numpy as np
import pytest

from canon.data.scenes.framing import look_at
from canon.rendering.interactive import Look, Scene
from launch import view

pytestmark = pytest.mark.slow
POINTS = ((0.0, 0.0, 0.0, 0.0, 0.0), (0.5, 1.0, 0.0, 0.0, 0.2), (1.0, 1.0, 1.0, 1.0, 1.0))


def trace(rays, shown, mode):
    return np.repeat(rays['pixel'][:, :1] / 512, 3, 1)


@pytest.fixture
def viewer(tmp_path):
    from canon.rendering.viewer import Viewer

    with socket.create_server(('127.0.0.1', 0)) as free:
        port = free.getsockname()[1]
    eye, up = look_at(np.array([3.0, 0, 0])), np.array([0, 0, 1.0])
    scene = Scene(trace, ('colour',), eye, np.zeros(3), up, (1.0, 5.0), points=POINTS)
    viewer = Viewer(scene, port, lambda frames: view.save_video(tmp_path, frames))
    yield viewer
    viewer.stop()


def test_a_path_of_views_becomes_a_numbered_video(viewer, tmp_path):
    shown = []
    client = types.SimpleNamespace(
        add_notification=lambda title, body, **options: shown.append(title),
        send_file_download=lambda name, content: shown.append((name, content == (tmp_path / name).read_bytes())),
    )
    event = types.SimpleNamespace(client=client)
    viewer._record(event)
    assert shown == ['no key frame']
    viewer._keys += [Look(look_at(np.array(eye))) for eye in ([3.0, 0, 0], [0, 3.0, 0.5])]
    viewer._seconds.value, viewer._side.value = 0.5, '256'
    for number in (1, 2):
        viewer._record(event)
        assert shown[-2:] == ['recorded', (f'path-{number}.mp4', True)]
        about = imageio.immeta(tmp_path / f'path-{number}.mp4')
        assert (about['fps'], about['duration']) == (30, pytest.approx(0.5, abs=1 / 30))


def test_a_recording_ends_with_the_server_and_leaves_no_file(viewer, tmp_path):
    shown = []
    client = types.SimpleNamespace(add_notification=lambda title, body, **options: shown.append(title))
    viewer._keys.append(Look(look_at(np.array([3.0, 0, 0]))))
    viewer.stop()
    viewer._record(types.SimpleNamespace(client=client))
    assert shown == []
    assert list(tmp_path.iterdir()) == []
    assert not viewer._recorder.disabled


def test_a_point_of_a_transfer_function_is_edited(viewer):
    editor = viewer._controls._transfer
    editor._chosen.value = 2
    editor._load()
    assert (editor._value.value, editor._opacity.value, tuple(editor._colour.value)) == (0.5, 0.2, (255, 0, 0))
    editor._opacity.value = 0.7
    editor._store()
    assert editor.table[128, 3] == pytest.approx(0.7, abs=0.01)
    editor._add()
    assert len(editor._points) == 4
    editor._remove()
    editor._remove()
    editor._remove()  # two remain: a table needs its ends
    assert len(editor._points) == 2
