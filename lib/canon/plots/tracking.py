"""Tracks over pictures, identities over time, and metrics of trackers side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from canon.plots.bars import style_axes
from canon.plots.saving import VideoWriter

_NUM_COLOURS = 20
_GROUND = 232  # level of a canvas without a picture
_CAUSE_MARKERS = 'Xvos'


def choose_track_colour(number: int) -> tuple[int, int, int]:
    """Returns the colour of a track, RGB in 0..255: neighbouring ids have different ones."""
    # 7 has no common divisor with 20, so that all colours are used.
    red, green, blue = matplotlib.colormaps['tab20'](number * 7 % _NUM_COLOURS)[:3]
    return round(255 * red), round(255 * green), round(255 * blue)


def render_tracks(
    read_frame: Callable[[int], np.ndarray],
    tracks: Any,
    frames: Sequence[int],
    trail: int = 20,
    scale: float = 1.0,
    min_side: int = 0,
) -> Iterator[np.ndarray]:
    """Renders frames of a sequence with the boxes, ids and trails of tracks, uint8 [H, W, 3] each.

    Args:
      read_frame: returns the picture of a frame, uint8 [H, W, 3].
      tracks: a table with `frames`, `ids` and `boxes`, sorted by frame.
      frames: what is rendered.
      trail: frames for which the path of a box's centre stays visible.
      scale: of the pictures.
      min_side: pictures whose shorter side is smaller are enlarged to it by a whole factor, to be readable.
    """
    for frame in frames:
        picture = Image.fromarray(read_frame(frame))
        factor = scale * max(1, -(-min_side // min(picture.size)))
        if factor != 1:
            size = [max(round(side * factor), 1) for side in picture.size]
            picture = picture.resize(size, Image.Resampling.BILINEAR)
        draw = ImageDraw.Draw(picture)
        recent = slice(*np.searchsorted(tracks.frames, (frame - trail, frame + 1)))
        ids, boxes = np.asarray(tracks.ids[recent]), np.asarray(tracks.boxes[recent]) * factor
        present = np.asarray(tracks.frames[recent]) == frame
        for number in ids[present].tolist():
            colour, path = choose_track_colour(number), boxes[ids == number]
            centres = [tuple(point) for point in ((path[:, :2] + path[:, 2:]) / 2).tolist()]
            if len(centres) > 1:
                draw.line(centres, fill=colour, width=2)
            x0, y0, x1, y1 = boxes[present & (ids == number)][0].tolist()
            draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline=colour, width=2)
            place = draw.textbbox((x0, max(y0 - 11, 0)), str(number))
            draw.rectangle(place, fill=colour)
            draw.text(place[:2], str(number), fill=(0, 0, 0) if sum(colour) > 380 else (255, 255, 255))
        yield np.asarray(picture)


def make_canvas(tracks: Any, height: int | None = None, width: int | None = None) -> Callable[[int], np.ndarray]:
    """Makes blank pictures for a sequence without any, of its size or, where that is unknown, of its boxes' extent."""
    extent = np.max(tracks.boxes, 0, initial=64)[2:]
    canvas = np.full((height or int(extent[1]) + 1, width or int(extent[0]) + 1, 3), _GROUND, np.uint8)
    return lambda frame: canvas


class TrackVideo:
    """A video of rendered frames, saved as a GIF of one palette or as an MP4, by the ending of the path.

    Args:
      render: returns the frames, uint8 [H, W, 3], one after the other; called once per file.
      frame_rate: frames per second.
    """

    def __init__(self, render: Callable[[], Iterator[np.ndarray]], frame_rate: float = 20.0):
        self.render, self.frame_rate = render, frame_rate

    def save(self, path: Any) -> None:
        """Writes the file. An MP4 is written frame by frame, so that a long sequence does not fill the memory."""
        if str(path).endswith('.mp4'):
            with VideoWriter(path, self.frame_rate) as writer:
                for frame in self.render():
                    writer.append(frame)
            return
        pictures = [Image.fromarray(frame) for frame in self.render()]
        # One palette for all frames, so that the ground does not flicker and compresses.
        middle = pictures[len(pictures) // 2].quantize(64, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        first, *rest = (picture.quantize(palette=middle, dither=Image.Dither.NONE) for picture in pictures)
        duration = max(round(1000 / self.frame_rate), 20)
        first.save(path, save_all=True, append_images=rest, duration=duration, loop=0)


def draw_identities(
    truth: tuple[np.ndarray, np.ndarray],
    matches: tuple[np.ndarray, np.ndarray, np.ndarray],
    switches: Any,
    causes: Sequence[str],
    title: str = '',
) -> Figure:
    """Draws a row per object over time, coloured by the track that covers it, and marks its identity switches.

    Args:
      truth: (frames [N], objects [N]): where each object is present; a thin grey line where no track covers it.
      matches: (frames [K], objects [K], tracks [K]).
      switches: `canon.metrics.tracking.IdentitySwitches`.
      causes: names of the causes of switches.
      title: of the figure.
    """
    frames, objects = truth
    rows = int(objects.max(initial=-1)) + 1
    figure = Figure(figsize=(9.2, max(2.2, 1.2 + 0.22 * rows)), layout='constrained')
    axes = figure.add_subplot()
    _add_bars(axes, frames, objects, np.zeros(len(frames), int), lambda number: '0.8', 1.2)
    _add_bars(axes, *matches, lambda number: np.array(choose_track_colour(number)) / 255, 7)
    for cause, (name, marker) in enumerate(zip(causes, _CAUSE_MARKERS, strict=False)):
        chosen = switches.causes == cause
        if chosen.any():
            style: dict[str, Any] = dict(marker=marker, s=34, color='k', linewidths=0.8, edgecolors='w', zorder=3)
            label = f'{name} ({int(chosen.sum())})'
            axes.scatter(switches.frames[chosen], switches.truth_ids[chosen], label=label, **style)
    last = int(frames.max(initial=0))
    axes.set(xlabel='frame', ylabel='object', xlim=(-1, last + 1), ylim=(rows - 0.4, -0.6), title=title)
    style_axes(axes)
    axes.grid(False)
    if len(switches.causes):
        figure.legend(loc='outside lower left', ncols=4, frameon=False, fontsize=8)
    return figure


def draw_track_scores(
    scores: Mapping[str, Mapping[Any, Mapping[str, float]]], metrics: Sequence[str], xlabel: str = ''
) -> Figure:
    """Draws a panel per group, with a bar or a line per metric over the forms of the group.

    Forms whose names are numbers are on an axis, with lines; others have bars side by side.

    Args:
      scores: {group: {form: {metric: value}}}.
      metrics: the metrics, in order.
      xlabel: below the panels.
    """
    figure = Figure(figsize=(max(4.0 * len(scores), 6.4), 3.6), layout='constrained')
    panels = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
    for axes, (group, forms) in zip(panels, scores.items(), strict=True):
        numeric = all(isinstance(form, int | float) for form in forms)
        for i, metric in enumerate(metrics):
            values = [values[metric] for values in forms.values()]
            if numeric:
                axes.plot(list(forms), values, 'o-', color=f'C{i}', label=metric)
            else:
                places = np.arange(len(forms)) + (i - (len(metrics) - 1) / 2) * 0.8 / len(metrics)
                axes.bar(places, values, 0.8 / len(metrics), color=f'C{i}', label=metric)
        if not numeric:
            names = [str(form).replace(' ', '\n') for form in forms]
            axes.set_xticks(range(len(forms)), names, fontsize=7)
        axes.set(title=group, xlabel=xlabel if numeric else '')
        style_axes(axes)
    figure.legend(*panels[0].get_legend_handles_labels(), loc='outside lower left', ncols=6, frameon=False, fontsize=8)
    return figure


def _add_bars(axes: Axes, frames, rows, tracks, colour: Callable[[int], Any], width: float) -> None:
    """Adds a horizontal bar for each run of frames in which a row has the same track."""
    order = np.lexsort((frames, rows))
    frames, rows, tracks = (np.asarray(x)[order] for x in (frames, rows, tracks))
    breaks = (np.diff(rows) != 0) | (np.diff(frames) != 1) | (np.diff(tracks) != 0)
    starts = np.flatnonzero(np.append(True, breaks)) if len(frames) else np.zeros(0, int)
    ends = np.append(starts[1:], len(frames)) - 1 if len(frames) else starts
    lines = [
        [(frames[a] - 0.5, rows[a]), (frames[b] + 0.5, rows[b])]
        for a, b in zip(starts.tolist(), ends.tolist(), strict=True)
    ]
    colours = [colour(int(tracks[a])) for a in starts]
    axes.add_collection(LineCollection(lines, colors=colours, linewidths=width, capstyle='butt'))
