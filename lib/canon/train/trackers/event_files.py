"""TensorBoard event files, written without TensorFlow."""

from __future__ import annotations

import contextlib
import os
import struct
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from canon.train.trackers import TrackedRun

PACKAGE = 'tensorboardX'


def tensorboard(run: TrackedRun) -> _Events:
    """Writes event files into the folder of the run; `./launch.sh watch` shows them."""
    return _Events(run)


class _Events:
    """An event file, written with each row: a writing thread would delay rows, and fail unnoticed."""

    immediate = True

    def __init__(self, run: TrackedRun):
        self._run = run
        # An event file cannot be edited; a session that starts at a step makes TensorBoard forget later events.
        self._resumed = any(run.workdir.glob('events.out.tfevents.*'))

    def open(self) -> None:
        """Makes the file: a run that writes nothing leaves none."""
        from tensorboardX.event_file_writer import EventsWriter

        # TensorBoard reads files in the order of their names, and two may be begun within one second.
        suffix = f'.{time.time_ns()}.{os.getpid()}'
        self._writer = EventsWriter(str(self._run.workdir / 'events'), suffix)
        if self._resumed:
            messages = _messages()
            start = messages.SessionLog(status=messages.SessionLog.START)
            self._writer.write_event(messages.Event(wall_time=time.time(), step=self._run.resume_at, session_log=start))
            for row in self._run.kept:  # of the step from which all is void
                self.log(row['step'], {name: value for name, value in row.items() if name != 'step'})

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        from tensorboardX.summary import scalar

        for name, value in metrics.items():
            self._add(step, scalar(name, value))
        self._writer.flush()

    def log_picture(self, name: str, png: bytes, step: int) -> None:
        from tensorboardX.summary import image

        # An event holds a PNG: the file itself takes the place of one pixel that tensorboardX encodes.
        summary = image(name, np.zeros((1, 1, 3), np.uint8), dataformats='HWC')
        picture = summary.value[0].image
        picture.encoded_image_string = png
        picture.width, picture.height = struct.unpack('>II', png[16:24])  # of the header
        self._add(step, summary)
        self._writer.flush()

    def close(self, state: str) -> None:
        del state
        with contextlib.suppress(OSError):
            self._writer.close()

    def _add(self, step: int, summary) -> None:
        self._writer.write_event(_messages().Event(wall_time=time.time(), step=step, summary=summary))


def _messages() -> Any:
    """Returns the module of event messages; protobuf makes its classes at import, where no type checker sees them."""
    from tensorboardX.proto import event_pb2

    return event_pb2
