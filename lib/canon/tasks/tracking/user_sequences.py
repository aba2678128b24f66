"""Sequences that a user brings: a folder of MOTChallenge, detections, frames or a video; and the files of a result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from canon.data.images import image_files
from canon.data.images.videos import SUFFIXES, VideoFiles, is_camera
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
_VIDEOS = (*SUFFIXES, '.gif')  # of an animation; elsewhere a GIF is a picture


def read_user_sequence(source: str) -> TrackSequence:
    """Reads a sequence that has no truth, or whose truth is not looked at.

    Args:
      source: a folder with det/det.txt or det.txt (and img1/ for pictures), a file of MOTChallenge's detections, a
        folder of frames in the order of their names, a video file, or the number of a camera.

    Raises:
      UsageError: it is none of these, or the video cannot be read.
    """
    if is_camera(source):
        return _read_frames(VideoFiles.record(int(source)))
    path = text_files.expand_path(source)
    if path.is_file() and path.suffix.lower() in _VIDEOS:
        return _read_frames(VideoFiles(path))
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


def _read_detections(path: Path) -> TrackSequence:
    """Reads a file of MOTChallenge's detections alone: without pictures, as long as its last frame."""
    table = read_mot_detections(path)
    if not len(table.frames):
        raise UsageError(f'{path} is empty; a sequence has at least one detection')
    return TrackSequence(SequenceInfo(path.stem, int(table.frames[-1]) + 1), detections=table)


def _read_frames(video: VideoFiles) -> TrackSequence:
    return TrackSequence(SequenceInfo(video.name, len(video), video.frame_rate, *video.size), frames=video.read)
