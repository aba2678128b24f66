"""Sequences that a user brings: a folder of MOTChallenge, detections, frames or a video; and the files of a result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from canon.data.images import image_files
from canon.data.text import text_files
from canon.data.tracking import (
    SequenceInfo,
    TrackSequence,
    TrackTable,
    is_mot_sequence,
    read_mot_detections,
    read_mot_sequence,
)
from canon.errors import UsageError
from canon.tasks.tracking.evaluation import TrackingEvaluation, make_video, write_results

_MIN_SIDE = 320  # pixels of the shorter side of a video that is written
_VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.gif')


def read_user_sequence(source: str) -> TrackSequence:
    """Reads a sequence that has no truth, or whose truth is not looked at.

    Args:
      source: a folder with det/det.txt or det.txt (and img1/ for pictures), a file of MOTChallenge's detections, a
        folder of frames in the order of their names, or a video file.

    Raises:
      UsageError: it is none of these, or the video cannot be read.
    """
    path = text_files.expand_path(source)
    if path.is_file() and path.suffix.lower() in _VIDEOS:
        return _read_video(path)
    if path.is_file() and path.suffix.lower() == '.txt':
        return _read_detections(path)
    if not path.is_dir():
        raise UsageError(
            f'{path} is neither a folder nor a .txt of detections nor a video ({", ".join(_VIDEOS)}); give one of them'
        )
    if is_mot_sequence(path):
        return read_mot_sequence(path)
    frames = image_files.Files(str(path / 'img1' if (path / 'img1').is_dir() else path)).paths
    height, width = image_files.read_image(frames[0]).shape[:2]
    return TrackSequence(SequenceInfo(path.name, len(frames), None, height, width), frames=list(frames))


def list_result_files(sequence: TrackSequence, tracks: TrackTable, settings: TrackingEvaluation) -> dict[str, Any]:
    """Returns {name: content} of a tracked sequence: its result in the format of `settings`, and NAME.mp4."""
    info, files = sequence.info, {}
    suffixes = {'ua_detrac': ('_LX.txt', '_LY.txt', '_W.txt', '_H.txt'), 'csv': ('.csv',)}
    for suffix in suffixes.get(settings.results, ('.txt',)):
        files[f'{info.name}{suffix}'] = _ResultFile(partial(write_results, info=info, tracks=tracks), settings, suffix)
    if settings.video_frames:
        files[f'{info.name}.mp4'] = make_video(sequence, tracks, replace(settings, video_frames=info.length), _MIN_SIDE)
    return files


class _ResultFile(NamedTuple):
    """One of the files of `write_results`, as `plots.save_content` saves it."""

    write: Callable[..., None]
    settings: TrackingEvaluation
    suffix: str

    def save(self, path: str | Path) -> None:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            self.write(Path(folder), form=self.settings.results)
            written = next(p for p in Path(folder).iterdir() if p.name.endswith(self.suffix))
            Path(path).write_bytes(written.read_bytes())


class _VideoFrames:
    """Reads frames of a video by number, one at a time: in order, as they are asked for in tracking and drawing.

    An earlier frame than the last one begins the video again.
    """

    def __init__(self, path: Path):
        self._path, self._next, self._frames = path, 0, iter(())

    def __call__(self, index: int) -> np.ndarray:
        if index < self._next or self._next == 0:
            self._frames, self._next = iterate_frames(self._path), 0
        for frame in self._frames:
            self._next += 1
            if self._next > index:
                return frame
        raise IndexError(f'{self._path} has {self._next} frames, and no frame {index}')


def iterate_frames(path: Path) -> Iterator[np.ndarray]:
    """Yields the frames of a video, uint8 [H, W, 3], as they are decoded."""
    import imageio.v3 as imageio

    for frame in imageio.imiter(path):
        yield np.asarray(frame)[..., :3]


def _read_detections(path: Path) -> TrackSequence:
    """Reads a file of MOTChallenge's detections alone: without pictures, as long as its last frame."""
    table = read_mot_detections(path)
    if not len(table.frames):
        raise UsageError(f'{path} is empty; a sequence has at least one detection')
    return TrackSequence(SequenceInfo(path.stem, int(table.frames[-1]) + 1), detections=table)


def _read_video(path: Path) -> TrackSequence:
    import imageio.v3 as imageio

    try:
        about = imageio.immeta(path)
        # Containers state their length not at all or wrongly, so all frames are decoded once.
        sizes = [frame.shape[:2] for frame in iterate_frames(path)]
    except Exception as error:  # imageio raises many kinds, by format and by what is installed
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(
            f'{path} cannot be read as a video ({reason}); install imageio-ffmpeg, or give a folder of its frames'
        ) from error
    if not sizes:
        raise UsageError(f'{path} has no frames')
    rate = about.get('fps') or (1000 / about['duration'] if about.get('duration') else None)
    return TrackSequence(SequenceInfo(path.stem, len(sizes), rate, *sizes[0]), frames=_VideoFrames(path))
