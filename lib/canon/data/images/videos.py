"""Videos and cameras as sources of images: the frames of a video file, or of a camera that is recorded first.

files = open_files('clip.mp4')       # or a folder, an image, or '0', the first camera
files[12]['image'], files.paths[12]  # uint8 [H, W, 3], clip.mp4/000012.png
"""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from canon.data.images.image_files import Files
from canon.data.pipeline.source import Example, Info
from canon.errors import UsageError

SUFFIXES = ('.avi', '.m4v', '.mkv', '.mov', '.mp4', '.webm')
_REMEMBERED = 64  # frames, which are drawn after their batch is predicted, and read by several threads
_MEMORY = 256e6  # bytes of them, but for the last eight
_CAMERA_RATE = 30.0  # frames per second of a camera that does not state its own


def open_files(source: str) -> Files | VideoFiles:
    """Returns the images of a folder, an image, the frames of a video, or those of a camera that is recorded now.

    Images that cannot be read are left out, with a warning, and listed in `skipped`.

    Args:
      source: a path, or the number of a camera; Ctrl-C ends the recording.

    Raises:
      UsageError: there is no such file, folder or camera, or the video cannot be read.
      CanonError: no image can be read.
    """
    if is_camera(source):
        return VideoFiles.record(int(source))
    path = Path(source).expanduser()
    is_video = path.is_file() and path.suffix.lower() in SUFFIXES
    return VideoFiles(path) if is_video else Files(source, unreadable='skip')


def is_camera(source: str) -> bool:
    """Returns whether a source is the number of a camera, rather than a file of that name."""
    return source.isdigit() and not Path(source).exists()


class VideoFiles:
    """The frames of a video, as `image_files.Files` has the images of a folder.

    Attributes:
      paths: VIDEO/000000.png, ...: names of the frames; there are no such files.
      frame_rate: per second; None if the file does not state it.
      size: (H, W).
      name: of the video, without its suffix.
    """

    def __init__(self, path: Path, name: str = ''):
        """Decodes the video once, for containers state their length not at all or wrongly.

        Args:
          path: of the file.
          name: of a recording; that of the file by default.

        Raises:
          UsageError: it cannot be read, or has no frames.
        """
        import imageio.v3 as imageio

        try:
            about = imageio.immeta(path)
            sizes = [frame.shape[:2] for frame in iterate_frames(path)]
        except Exception as error:  # imageio raises many kinds, by format and by what is installed
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UsageError(
                f'{path} cannot be read as a video ({reason}); install imageio-ffmpeg, or give a folder of its frames'
            ) from error
        if not sizes:
            raise UsageError(f'{path} has no frames')
        self.frame_rate = about.get('fps') or (1000 / about['duration'] if about.get('duration') else None)
        self.size, self.name = sizes[0], name or path.stem
        self.paths = tuple(Path(name or path) / f'{i:06}.png' for i in range(len(sizes)))
        self.info = Info(str(path))
        self._path, self._lock = path, threading.Lock()
        self._capacity = int(min(_REMEMBERED, max(8, _MEMORY / (3 * sizes[0][0] * sizes[0][1]))))
        self._recent: OrderedDict[int, np.ndarray] = OrderedDict()
        self._next, self._frames = 0, iter(())
        self._folder: Any = None  # of a recording, which is removed with this object

    @classmethod
    def record(cls, camera: int) -> VideoFiles:
        """Records a camera until Ctrl-C; raises UsageError if it cannot be opened."""
        folder = tempfile.TemporaryDirectory()
        path = Path(folder.name) / 'camera.mp4'
        record_camera(camera, path)
        files = cls(path, f'camera{camera}')
        files._folder = folder
        return files

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Example:
        return {'image': self.read(index)}

    def read(self, index: int) -> np.ndarray:
        """Returns a frame uint8 [H, W, 3]; in order each is decoded once, a much earlier one begins the video again."""
        if not 0 <= index < len(self):
            raise IndexError(f'{self._path} has {len(self)} frames, and no frame {index}')
        with self._lock:
            if index not in self._recent and index < self._next:
                self._next = 0
            if self._next == 0:
                self._frames = iterate_frames(self._path)
            while index >= self._next:
                self._recent[self._next] = next(self._frames)
                self._recent.move_to_end(self._next)
                self._next += 1
                if len(self._recent) > self._capacity:
                    self._recent.popitem(last=False)
            return self._recent[index]

    def __repr__(self) -> str:
        return f'VideoFiles({self.info.name}, {len(self)} frames)'


def iterate_frames(path: Path) -> Iterator[np.ndarray]:
    """Yields the frames of a video, uint8 [H, W, 3], as they are decoded."""
    import imageio.v3 as imageio

    for frame in imageio.imiter(path):
        yield np.asarray(frame)[..., :3]


def record_camera(camera: int, path: Path) -> None:
    """Records a camera into an MP4 until it ends or Ctrl-C; raises UsageError if it gives no picture."""
    import imageio.v2 as imageio

    opened = cv2.VideoCapture(camera)
    frames, began = 0, time.monotonic()
    writer: Any = None
    rate = opened.get(cv2.CAP_PROP_FPS) or _CAMERA_RATE
    logging.getLogger('canon').warning('recording camera %d; Ctrl-C ends the recording', camera)
    try:
        while (read := opened.read())[0]:
            writer = writer or imageio.get_writer(path, fps=rate, macro_block_size=2)
            writer.append_data(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
            frames += 1
    except KeyboardInterrupt:
        pass
    finally:
        opened.release()
        if writer is not None:
            writer.close()
    if not frames:
        raise UsageError(f'--input={camera}: camera {camera} gives no picture; connect one, or give a file or a folder')
    seconds = time.monotonic() - began
    logging.getLogger('canon').warning('recorded %d frames in %.1f s', frames, seconds)
