"""Serves a scene to browsers: the model renders it while somebody drags, turns or zooms (viser has the page).

viewer = Viewer(scene, port=8080)
print(viewer.address)
viewer.wait()
"""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import viser
import viser.transforms

from canon.errors import CanonError
from canon.rendering.interactive import FrameLoop, Look, Scene, interpolate_looks, render_frame
from canon.rendering.volumes import make_transfer_table

_TO_OPENGL = np.diag((1.0, -1.0, -1.0))  # viser's cameras look along +z with y down
FRAME_RATE = 30  # of a recorded video, per second
_VIDEO_SIDES = (256, 512, 768, 1080)


class Viewer:
    """A server of one scene, with its controls. Each browser has a camera of its own; the controls are shared."""

    def __init__(
        self,
        scene: Scene,
        port: int = 8080,
        save_video: Callable[[Iterator[np.ndarray]], Path] | None = None,
        host: str = '127.0.0.1',
        title: str = 'Canon',
    ):
        """Starts to serve.

        Args:
          scene: what is shown.
          port: of the address; the next free one if it is taken.
          save_video: (frames uint8 [H, W, 3]) -> the file; None offers no recording.
          host: of the address; '0.0.0.0' lets other machines in.
          title: of the page.
        """
        self._scene, self._save_video = scene, save_video
        self._loops: dict[int, FrameLoop] = {}
        self._keys: list[Look] = []
        self._modes_seen: set[str] = set()
        self.frames_sent = 0
        self._stopped = threading.Event()
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # viser prints a banner, and its caller prints the address
                self._server = viser.ViserServer(host=host, port=port, label=title, verbose=False)
        except OSError as error:
            raise CanonError(f'--port={port} cannot be served: {error.strerror}; give another --port') from error
        self._server.scene.set_up_direction(tuple(scene.up))
        self._server.gui.configure_theme(control_layout='collapsible', show_logo=False, show_share_button=False)
        self._place_camera()
        self._controls = _Controls(self._server.gui, scene, self.refresh)
        if save_video is not None:
            self._add_recorder()
        self._server.on_client_connect(self._connect)
        self._server.on_client_disconnect(self._disconnect)

    @property
    def address(self) -> str:
        """The URL that a browser opens."""
        return f'http://{self._server.get_host()}:{self._server.get_port()}'

    def refresh(self) -> None:
        """Renders again for every browser."""
        for loop in tuple(self._loops.values()):
            loop.change()

    def wait(self) -> None:
        """Serves until it is interrupted."""
        threading.Event().wait()

    def stop(self) -> None:
        """Ends the server, and a recording."""
        self._stopped.set()
        for loop in tuple(self._loops.values()):
            loop.stop()
        self._server.stop()

    def _place_camera(self) -> None:
        """Lets browsers begin at the scene's own camera, turning about its centre."""
        camera, scene = self._server.initial_camera, self._scene
        camera.position = tuple(scene.pose[:3, 3])
        camera.look_at = tuple(scene.centre)
        camera.up = tuple(scene.up)
        camera.fov = scene.field_of_view

    def _connect(self, client: viser.ClientHandle) -> None:
        waiting = []

        def read() -> tuple[Look, float]:
            look = self._read_look(client)
            if look.mode not in self._modes_seen:  # its renderer is compiled, which takes seconds
                self._modes_seen.add(look.mode)
                title = f'preparing the renderer of {look.mode}'
                waiting.append(client.add_notification(title, '', loading=True, with_close_button=False))
            return look, client.camera.aspect

        def show(frame: np.ndarray) -> None:
            client.scene.set_background_image(frame, format='jpeg', jpeg_quality=90)
            self.frames_sent += 1
            while waiting:
                waiting.pop().remove()

        loop = FrameLoop(self._scene, read, show, self._controls.finest)
        self._loops[client.client_id] = loop
        client.camera.on_update(lambda _: loop.change())
        threading.Thread(target=loop.run, name=f'frames of browser {client.client_id}', daemon=True).start()

    def _disconnect(self, client: viser.ClientHandle) -> None:
        if loop := self._loops.pop(client.client_id, None):
            loop.stop()

    def _read_look(self, client: viser.ClientHandle) -> Look:
        """Returns how a browser looks at the scene, with the settings of the controls."""
        camera = client.camera
        pose = np.eye(4)
        pose[:3, :3] = viser.transforms.SO3(np.asarray(camera.wxyz)).as_matrix() @ _TO_OPENGL
        pose[:3, 3] = camera.position
        return self._controls.read(pose, float(camera.fov))

    # A path of cameras, recorded as a video

    def _add_recorder(self) -> None:
        gui = self._server.gui
        with gui.add_folder('camera path', expand_by_default=False):
            self._count = gui.add_markdown('no key frame yet')
            add = gui.add_button('add this view')
            clear = gui.add_button('clear')
            self._seconds = gui.add_number('seconds', 4.0, min=0.5, max=120.0, step=0.5)
            self._side = gui.add_dropdown('pixels', tuple(map(str, _VIDEO_SIDES)), initial_value='512')
            self._recorder = gui.add_button('record a video')
            self._progress = gui.add_progress_bar(0.0, visible=False)
        add.on_click(self._add_key)
        clear.on_click(self._clear_keys)
        self._recorder.on_click(self._record)

    def _add_key(self, event: Any) -> None:
        self._keys.append(self._read_look(event.client))
        self._count.content = f'{len(self._keys)} key frame{"s" if len(self._keys) > 1 else ""}'

    def _clear_keys(self, event: Any) -> None:
        del event
        self._keys.clear()
        self._count.content = 'no key frame yet'

    def _record(self, event: Any) -> None:
        assert self._save_video is not None
        if not self._keys:
            event.client.add_notification('no key frame', 'Add a view first, then turn the scene and add more.')
            return
        looks = interpolate_looks(self._keys, max(2, round(FRAME_RATE * self._seconds.value)))
        width = int(self._side.value)
        size = (width * 3 // 8 * 2, width)  # even sides, which video codecs need

        def render() -> Iterator[np.ndarray]:
            for i, look in enumerate(looks):
                if self._stopped.is_set():  # the process waits for this thread
                    raise _Stopped
                frame = render_frame(self._scene, look, size)
                assert frame is not None  # it cannot be stale
                self._progress.value = 100 * (i + 1) / len(looks)
                yield frame

        self._progress.value, self._progress.visible = 0.0, True
        self._recorder.disabled = True  # a second video at a time would be written under the same name
        try:
            path = self._save_video(render())
            event.client.add_notification('recorded', str(path))
            event.client.send_file_download(path.name, path.read_bytes())
        except _Stopped:
            return
        except Exception as error:
            event.client.add_notification('not recorded', str(error), color='red')
            raise
        finally:
            self._progress.visible = self._recorder.disabled = False


class _Stopped(Exception):
    """The server ends while a video is recorded."""


class _Controls:
    """The sliders of a scene: only those that apply to it."""

    def __init__(self, gui: viser.GuiApi, scene: Scene, changed: Callable[[], None]):
        self._scene, self._changed = scene, changed
        near, far = scene.limits
        self._mode = self._watch(gui.add_dropdown('show', scene.modes)) if len(scene.modes) > 1 else None
        self._exposure = self._watch(gui.add_slider('exposure', -4.0, 4.0, 0.1, 0.0))
        reach = float(f'{2 * far:.2g}')  # its digits are below the slider, whose end is that of the panel
        self._limits = self._watch(
            gui.add_multi_slider('near and far', 0.0, reach, reach / 500, (float(near), float(far)))
        )
        self._level = None
        if scene.level is not None:
            self._level = self._watch(gui.add_slider('surface at', 0.0, 1.0, 0.01, float(scene.level)))
        self._time = self._watch(gui.add_slider('time', 0.0, 1.0, 0.01, 0.0)) if scene.moves else None
        self._crop = []
        if scene.box is not None:
            with gui.add_folder('crop box', expand_by_default=False):
                for name, low, high in zip('xyz', *scene.box, strict=True):
                    low, high = float(low), float(high)
                    self._crop.append(
                        self._watch(gui.add_multi_slider(name, low, high, (high - low) / 200, (low, high)))
                    )
        self._transfer = _TransferEditor(gui, scene.points, changed) if scene.points else None
        self.finest = 512

    def _watch(self, handle: Any) -> Any:
        handle.on_update(lambda _: self._changed())
        return handle

    def read(self, pose: np.ndarray, field_of_view: float) -> Look:
        """Returns a look from a pose with the values of all controls."""
        near, far = self._limits.value
        return Look(
            pose,
            field_of_view,
            self._mode.value if self._mode else self._scene.modes[0],
            near,
            far,
            self._read_crop(),
            self._exposure.value,
            self._transfer.table if self._transfer else None,
            self._level.value if self._level else None,
            self._time.value if self._time else 0.0,
        )

    def _read_crop(self) -> tuple[list[float], list[float]] | None:
        if not self._crop:
            return None
        return [slider.value[0] for slider in self._crop], [slider.value[1] for slider in self._crop]


class _TransferEditor:
    """Edits the control points of a transfer function, one at a time, above a picture of all."""

    def __init__(self, gui: viser.GuiApi, points: tuple[tuple[float, ...], ...], changed: Callable[[], None]):
        self._points, self._changed = [list(point) for point in points], changed
        self._loading = False
        with gui.add_folder('transfer function'):
            self._picture = gui.add_image(draw_transfer(self._points))
            self._chosen = gui.add_slider('point', 1, len(self._points), 1, 1)
            self._value = gui.add_slider('value', 0.0, 1.0, 0.005, 0.0)
            self._opacity = gui.add_slider('opacity', 0.0, 1.0, 0.005, 0.0)
            self._colour = gui.add_rgb('colour', (0, 0, 0))
            add, remove = gui.add_button('add a point after it'), gui.add_button('remove it')
        self._load()
        self._chosen.on_update(lambda _: self._load())
        for handle in (self._value, self._opacity, self._colour):
            handle.on_update(lambda _: self._store())
        add.on_click(lambda _: self._add())
        remove.on_click(lambda _: self._remove())

    @property
    def table(self) -> np.ndarray:
        """The transfer function [256, 4]."""
        return make_transfer_table(self._points)

    def _load(self) -> None:
        """Shows the chosen point."""
        self._loading = True  # setting a slider calls `_store`, as a user's hand does
        value, *colour, opacity = self._points[self._chosen.value - 1]
        self._value.value, self._opacity.value = value, opacity
        self._colour.value = np.array([round(255 * c) for c in colour])
        self._loading = False

    def _store(self) -> None:
        """Takes the values of the sliders; points keep their order."""
        if self._loading:
            return
        i = self._chosen.value - 1
        low = self._points[i - 1][0] if i > 0 else 0.0
        high = self._points[i + 1][0] if i + 1 < len(self._points) else 1.0
        value = min(max(self._value.value, low), high)
        self._points[i] = [value, *(c / 255 for c in self._colour.value), self._opacity.value]
        self._show()

    def _add(self) -> None:
        i = self._chosen.value - 1
        following = self._points[min(i + 1, len(self._points) - 1)]
        self._points.insert(i + 1, [(a + b) / 2 for a, b in zip(self._points[i], following, strict=True)])
        self._chosen.max = len(self._points)
        self._chosen.value = i + 2
        self._load()
        self._show()

    def _remove(self) -> None:
        if len(self._points) <= 2:
            return
        del self._points[self._chosen.value - 1]
        self._chosen.value = min(self._chosen.value, len(self._points))
        self._chosen.max = len(self._points)
        self._load()
        self._show()

    def _show(self) -> None:
        self._picture.image = draw_transfer(self._points)
        self._changed()


def draw_transfer(points: Any, height: int = 80) -> np.ndarray:
    """Draws a transfer function uint8 [height, 256, 3]: its colours below the curve of its opacity, on white."""
    table = make_transfer_table(points)
    # The square root: opacities are often a few hundredths, which would be a line at the bottom.
    filled = np.arange(height)[::-1, None] / height < np.sqrt(table[None, :, 3])
    picture = np.where(filled[..., None], table[None, :, :3], 1.0)
    picture[-6:] = table[None, :, :3]
    return (255 * picture + 0.5).astype(np.uint8)
