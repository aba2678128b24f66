"""Detections over images next to the truth, precision-recall curves, and errors by class and size."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, Stroke

from canon.plots.bars import style_axes
from canon.plots.images import make_dense_layout, to_colours
from canon.plots.pictures import hide_frame

_SIZE_NAMES = ('small', 'medium', 'large')
# Of right, badly located, confused, duplicate, background and missed: what is right stands out from all errors.
_KIND_COLOURS = ('#54a24b', '#f2cf5b', '#f58518', '#b279a2', '#9d9da1', '#d8d8dc')
_MAX_CLASSES = 40  # beyond it names of classes overlap
_MAX_CURVES = 20  # curves that can be told apart
_WRONG = '#e3001b'  # the frame of what is wrong, on a white one


def draw_detections(
    images: Sequence[np.ndarray],
    detections: Sequence[Mapping[str, Any]],
    class_names: Sequence[str],
    truth: Sequence[Mapping[str, Any]] | None = None,
    titles: Sequence[str] = (),
    score_threshold: float = 0.3,
    columns: int = 2,
    width: float = 3.2,
) -> Figure:
    """Draws the detections of images with names and scores, each next to its objects if they are given.

    Args:
      images: [H, W, 1 or 3] each, uint8 or floats in 0..1; sizes may differ.
      detections: per image 'boxes' [D, 4] in its pixels, 'labels' [D], 'scores' [D], and maybe 'valid' and 'wrong' [D];
        what is wrong has a thick red frame, and its name a cross.
      class_names: of all classes; a class has the same colour everywhere.
      truth: per image 'boxes' [K, 4], 'labels' [K], and maybe 'valid', 'difficult', 'crowd' and 'wrong' [K]: difficult
        objects and crowds are dashed, and those that are missed are wrong. None draws the detections alone.
      titles: one per image.
      score_threshold: detections of lower scores are not drawn.
      columns: images per row of the figure.
      width: inches per panel.
    """
    panels = 1 if truth is None else 2
    columns = max(min(columns, len(images)), 1)
    rows = max(-(-len(images) // columns), 1)
    tallest = max((image.shape[0] / image.shape[1] for image in images), default=1)
    figure = Figure(figsize=(width * panels * columns, (width * tallest + 0.3) * rows), layout=make_dense_layout())
    for i in range(rows * columns):
        axes = [figure.add_subplot(rows, panels * columns, panels * i + k + 1) for k in range(panels)]
        for a in axes:
            hide_frame(a)
        if i >= len(images):
            continue
        title = titles[i] if len(titles) else ''
        if truth is not None:
            draw_boxes(axes[0], images[i], truth[i], class_names)
            missed = _count_wrong(truth[i], 'missed')
            axes[0].set_title((f'{title}: truth' if title else 'truth') + missed, fontsize=8, y=1.0)
        predicted = {name: np.asarray(values) for name, values in detections[i].items()}
        confident = predicted['scores'] >= score_threshold
        predicted['valid'] = confident & predicted.get('valid', True)
        draw_boxes(axes[-1], images[i], predicted, class_names)
        prediction = title
        if truth is not None:
            prediction = f'predictions from {score_threshold:g}' + _count_wrong(predicted, 'wrong')
        axes[-1].set_title(prediction, fontsize=8, y=1.0)
    return figure


def overlay_detections(
    image: np.ndarray, detections: Mapping[str, Any], class_names: Sequence[str], score_threshold: float = 0.0
) -> Figure:
    """Draws detections over an image in its own size: a pixel of the saved picture is a pixel of the image.

    Args:
      image: [H, W, 1 or 3], uint8 or floats in 0..1.
      detections: 'boxes' [D, 4] in its pixels, 'labels' [D], 'scores' [D], and maybe 'valid' [D].
      class_names: of all classes; a class has the same colour everywhere.
      score_threshold: detections of lower scores are not drawn.
    """
    height, width = image.shape[:2]
    # Saved with 100 pixels per inch, of which the canvas takes the whole part.
    figure = Figure(figsize=((width + 0.01) / 100, (height + 0.01) / 100), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    hide_frame(axes)
    confident = np.asarray(detections['scores']) >= score_threshold
    detections = {**detections, 'valid': confident & detections.get('valid', True)}
    # Lines and names that are clear in 480 pixels would hardly be seen in 2000.
    draw_boxes(axes, image, detections, class_names, max(1.0, min(height, width) / 480))
    axes.images[0].set_interpolation('nearest')
    return figure


def _count_wrong(boxes: Mapping[str, Any], word: str) -> str:
    """Returns the end of a title, such as ', 2 missed', where boxes are marked."""
    return f', {int(np.sum(boxes["wrong"]))} {word}' if 'wrong' in boxes else ''


def draw_precision_recall(
    recall: Sequence[np.ndarray],
    precision: Sequence[np.ndarray],
    average_precision: np.ndarray,
    class_names: Sequence[str],
    title: str = '',
) -> Figure:
    """Draws a precision-recall curve per class, with its average precision in the legend.

    Of more than 20 classes the 10 worst and the 10 best are drawn. Classes without objects have no curve.

    Args:
      recall: an array per class.
      precision: likewise.
      average_precision: [C]; NaN for a class without objects.
      class_names: C names.
      title: of the figure.
    """
    average_precision = np.asarray(average_precision, float)
    present = np.flatnonzero(~np.isnan(average_precision))
    order = present[np.argsort(-average_precision[present], kind='stable')]
    drawn = order
    if len(order) > _MAX_CURVES:
        drawn = np.concatenate([order[: _MAX_CURVES // 2], order[-_MAX_CURVES // 2 :]])
    colours = matplotlib.colormaps['tab10' if len(drawn) <= 10 else 'tab20']
    figure = Figure(figsize=(6.4, max(3.8, 1.2 + 0.19 * len(drawn))), layout='constrained')
    axes = figure.add_subplot()
    for number, label in enumerate(drawn):
        # The curve starts at recall 0 with its first precision, and ends where the detector does.
        r, p = (np.asarray(x[label], float) for x in (recall, precision))
        r, p = np.concatenate([[0], r]), np.concatenate([p[:1] if len(p) else [0], p])
        name = f'{class_names[label]}  {average_precision[label]:.3f}'
        axes.plot(r, p, label=name, color=colours(number % 20), linewidth=1.4)
    axes.set(xlim=(0, 1.01), ylim=(0, 1.02), xlabel='recall', ylabel='precision')
    mean = float(average_precision[present].mean()) if len(present) else float('nan')
    selection = f': {_MAX_CURVES // 2} best and worst' if len(drawn) < len(order) else ''
    axes.set_title(title or f'mean average precision of {len(order)} classes {mean:.4f}{selection}', fontsize=10)
    style_axes(axes)
    if len(drawn):
        figure.legend(loc='outside right center', frameon=False, fontsize=8)
    return figure


def draw_errors(counts: np.ndarray, kinds: Sequence[str], class_names: Sequence[str]) -> Figure:
    """Draws what the detections of each class and size are, right or errors of several kinds, and what is missed.

    Bars are shares of all detections of a class or a size; the fraction of objects that are missed stands after them.
    Of more than 40 classes the 40 with the smallest share of right detections are drawn.

    Args:
      counts: [C, 3, 6] by class, size and kind: right, four kinds of errors, missed objects
        (`canon.metrics.detection.analyse_errors`).
      kinds: their names.
      class_names: C names.
    """
    counts = np.asarray(counts)
    by_class, by_size = counts.sum(1), counts.sum(0)
    present = np.flatnonzero(by_class.sum(1))
    shares = by_class[present, 0] / np.maximum(by_class[present, :-1].sum(1), 1)
    order = present[np.argsort(shares, kind='stable')][:_MAX_CLASSES]
    bars = [('all', counts.sum((0, 1))), *zip(_SIZE_NAMES, by_size, strict=True)]
    bars += [(class_names[i], by_class[i]) for i in order]
    # Gaps separate the total, the three sizes and the classes.
    rows = np.arange(len(bars)) + 0.6 * (np.arange(len(bars)) > 0) + 0.6 * (np.arange(len(bars)) > 3)
    figure = Figure(figsize=(7.2, 1.4 + 0.27 * (rows[-1] + 1)), layout='constrained')
    axes, missed = figure.subplots(1, 2, sharey=True, width_ratios=(3.2, 1))
    values = np.array([bar for _, bar in bars], float)
    detections = values[:, :-1].sum(1)
    left = np.zeros(len(bars))
    for k, (kind, colour) in enumerate(zip(kinds[:-1], _KIND_COLOURS, strict=False)):
        share = values[:, k] / np.maximum(detections, 1)
        axes.barh(rows, share, left=left, color=colour, height=0.8, label=kind)
        for row, start, part in zip(rows, left, share, strict=True):
            if part > 0.045:  # narrower than its number otherwise
                axes.text(start + part / 2, row, f'{100 * part:.0f}', ha='center', va='center', fontsize=7)
        left += share
    objects = values[:, 0] + values[:, -1]
    absent = values[:, -1] / np.maximum(objects, 1)
    # A panel of its own: missed objects are shares of the objects, not of the detections.
    missed.barh(rows, absent, color='#e45756', height=0.8)
    for row, part, count in zip(rows, absent, objects, strict=True):
        if count:
            missed.text(1.02, row, f'{round(part * count)} of {int(count)}', va='center', fontsize=7)
    axes.set_yticks(rows, [f'{name} ({int(n)})' for (name, _), n in zip(bars, detections, strict=True)], fontsize=8)
    axes.set(xlim=(0, 1), ylim=(rows[-1] + 0.7, -0.7), xlabel='share of the detections')
    missed.set(xlim=(0, 1), xlabel='objects missed')
    axes.set_title('detections by kind, in percent', fontsize=10)
    for a in (axes, missed):
        style_axes(a)
        a.grid(False)
    figure.legend(loc='outside lower left', ncols=5, frameon=False, fontsize=8)
    return figure


def draw_boxes(
    axes: Axes, image: np.ndarray, boxes: Mapping[str, Any], class_names: Sequence[str], scale: float = 1.0
) -> None:
    """Draws an image and boxes with the names of their classes, and scores if there are any: `draw_detections`.

    Args:
      axes: to draw in.
      image: [H, W, 1 or 3].
      boxes: as `detections` or `truth` of `draw_detections`.
      class_names: of all classes.
      scale: of lines and names.
    """
    height, width = image.shape[:2]
    limit = 255 if image.dtype == np.uint8 else 1
    # The corner of the first pixel is (0, 0), as it is for boxes.
    axes.imshow(to_colours(image), cmap='gray', vmin=0, vmax=limit, extent=(0, width, height, 0))
    corners = np.asarray(boxes['boxes'], float).reshape(-1, 4)
    labels = np.asarray(boxes['labels'], int).reshape(-1)
    shown = np.asarray(boxes.get('valid', np.ones(len(corners), bool)), bool)
    dashed = np.zeros(len(corners), bool)
    for name in ('difficult', 'crowd'):
        dashed |= np.asarray(boxes.get(name, dashed), bool)
    wrong = np.asarray(boxes.get('wrong', np.zeros(len(corners), bool)), bool)
    colours = matplotlib.colormaps['tab10' if len(class_names) <= 10 else 'tab20']
    for i in np.flatnonzero(shown)[::-1]:  # the best last, above the others
        x0, y0, x1, y1 = corners[i]
        colour = colours(labels[i] % 20)
        line = '--' if dashed[i] else '-'
        frame = Rectangle(
            (x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=1.4 * scale, linestyle=line
        )
        text = class_names[labels[i]]
        if wrong[i]:  # the name keeps the colour of the class; white tells the frame from a class that is red
            frame.set(edgecolor=_WRONG, linewidth=2.2, path_effects=[Stroke(linewidth=4, foreground='w'), Normal()])
            text = f'\N{MULTIPLICATION X} {text}'
        axes.add_patch(frame)
        # By luma (ITU-R BT.601): black on light colours, white on dark ones.
        ink = 'k' if np.dot(colour[:3], (0.299, 0.587, 0.114)) > 0.6 else 'w'
        if 'scores' in boxes:
            text += f' {float(boxes["scores"][i]):.2f}'
        box = dict(facecolor=colour, edgecolor='none', pad=0.8, alpha=0.8)
        # Names stand above their boxes, and within them at the upper border of the image.
        inside = y0 < 0.06 * height
        side = 'top' if inside else 'bottom'
        axes.text(max(x0, 0), max(y0, 0), text, fontsize=6 * scale, color=ink, bbox=box, va=side, clip_on=True)
    axes.set(xlim=(0, width), ylim=(height, 0))
