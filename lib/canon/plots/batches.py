"""Sheets of batches as a network sees them: images with classes, boxes, maps or texts; sentences; points; rays."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from canon.plots.detection import draw_boxes
from canon.plots.images import draw_gallery, make_dense_layout
from canon.plots.pictures import hide_frame
from canon.plots.segmentation import draw_label_maps
from canon.plots.text import draw_text_images, draw_translations


def draw_image_batch(
    batch: Mapping[str, Any], class_names: Sequence[str] = (), most: int = 32, title: str = ''
) -> Figure:
    """Draws the images of a batch, each under its class.

    Args:
      batch: `image` [B, H, W, C] and perhaps `label`, classes [B] or distributions over them [B, classes].
      class_names: of the classes; their numbers if empty.
      most: images that are drawn, the first ones.
      title: of the figure; how many of each class there are follows.
    """
    images, labels = np.asarray(batch['image'])[:most], batch.get('label')
    titles = [''] * len(images) if labels is None else [_name_label(label, class_names) for label in labels[:most]]
    counts = '' if labels is None or np.ndim(labels) > 1 else count_classes(labels, class_names)
    return draw_gallery(images, titles, title='\n'.join(filter(None, (title, counts))))


def count_classes(labels: Any, class_names: Sequence[str] = (), most: int = 12) -> str:
    """Returns the classes of a batch with their numbers, the most frequent first: `7: 5, 1: 4 and 3 more classes`."""
    classes, counts = np.unique(np.asarray(labels).reshape(-1), return_counts=True)
    order = np.argsort(-counts, kind='stable')
    texts = [f'{_name_label(classes[i], class_names)}: {counts[i]}' for i in order[:most]]
    return ', '.join(texts) + (f' and {len(order) - most} more classes' if len(order) > most else '')


def draw_object_batch(
    batch: Mapping[str, Any],
    class_names: Sequence[str],
    most: int = 12,
    columns: int = 4,
    width: float = 2.8,
    names: Mapping[int, str] = {},
) -> Figure:
    """Draws the images of a batch with the boxes of their objects, and faintly those of their proposals.

    Args:
      batch: `image` [B, H, W, C], `boxes` [B, M, 4], `labels`, `valid` and perhaps `difficult` and `crowd` [B, M], as a
        detector's; `proposals` [B, P, 4] and `proposals_valid` [B, P] as Fast R-CNN's.
      class_names: of the classes.
      most: images that are drawn, the first ones.
      columns: of the grid.
      width: inches per image.
      names: of the files by `image_id`, for the titles.
    """
    images = np.asarray(batch['image'])[:most]
    columns = max(min(columns, len(images)), 1)
    rows = -(-len(images) // columns)
    height = width * images.shape[1] / images.shape[2]
    figure = Figure(figsize=(width * columns, (height + 0.3) * rows), layout=make_dense_layout())
    for i, image in enumerate(images):
        axes = figure.add_subplot(rows, columns, i + 1)
        valid = np.asarray(batch['valid'][i], bool)
        name = names.get(int(batch['image_id'][i]), '') if 'image_id' in batch else ''
        hide_frame(axes, ': '.join(filter(None, (name, f'{valid.sum()} objects'))), fontsize=8)
        fields = {k: batch[k][i] for k in ('boxes', 'labels', 'valid', 'difficult', 'crowd') if k in batch}
        if 'proposals' in batch:
            for x0, y0, x1, y1 in np.asarray(batch['proposals'][i])[np.asarray(batch['proposals_valid'][i], bool)]:
                axes.plot([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], color='0.6', linewidth=0.3, alpha=0.5)
        draw_boxes(axes, image, fields, class_names)
    return figure


def draw_map_batch(batch: Mapping[str, Any], class_names: Sequence[str], most: int = 6) -> Figure:
    """Draws the images of a batch next to their label maps.

    Args:
      batch: `image` uint8 [B, H, W, C] and `segmentation` [B, H, W].
      class_names: of the classes.
      most: images that are drawn, the first ones.
    """
    images, maps = np.asarray(batch['image'])[:most], np.asarray(batch['segmentation'])[:most]
    return draw_label_maps(list(images), {'segmentation': list(maps)}, class_names)


def draw_reading_batch(batch: Mapping[str, Any], texts: Sequence[str], most: int = 32) -> Figure:
    """Draws the images of a batch of text, each under its text."""
    return draw_text_images(list(np.asarray(batch['image'])[:most]), [repr(text) for text in texts[:most]])


def draw_sentence_batch(rows: Sequence[tuple[str, str]], title: str = '', most: int = 16) -> Figure:
    """Draws pairs of texts, one under the other: what a network reads in black, and what it learns to say in blue."""
    return draw_translations(rows[:most], title)


def draw_point_batch(clouds: Mapping[str, tuple[np.ndarray, np.ndarray | None]], most: int = 4000) -> Figure:
    """Draws clouds of points in space, each in a panel under its name.

    Args:
      clouds: {name: (points [N, 3], values)}; values are [N], drawn in colours from blue (negative) to red, or RGB
        [N, 3] in 0..1; None draws all points alike.
      most: points that are drawn of each.
    """
    columns = min(len(clouds), 3)
    rows = -(-len(clouds) // columns)
    figure = Figure(figsize=(3.6 * columns, 3.6 * rows), layout='constrained')
    for i, (name, (points, values)) in enumerate(clouds.items(), 1):
        axes: Any = figure.add_subplot(rows, columns, i, projection='3d')
        x, y, z = np.asarray(points, float)[:most].T
        colours: dict[str, Any] = {}
        if values is not None and np.ndim(values) == 2:
            colours = dict(c=np.clip(np.asarray(values, float)[:most], 0, 1))
        elif values is not None:
            # Most of a shape's points lie near its surface: outliers would leave them all pale.
            limit = float(np.percentile(np.abs(values), 80)) or 1.0
            colours = dict(c=np.asarray(values, float)[:most], cmap='coolwarm', vmin=-limit, vmax=limit)
        drawn = axes.scatter(x, y, z, s=8, edgecolors='0.3', linewidths=0.15, **colours)
        if values is not None and np.ndim(values) == 1:
            figure.colorbar(drawn, ax=axes, shrink=0.6)
        axes.set_title(name, fontsize=8)
        axes.set_aspect('equal')
        axes.tick_params(labelsize=6)
    return figure


def draw_ray_batch(
    colours: np.ndarray, pixels: np.ndarray | None, origins: np.ndarray, directions: np.ndarray
) -> Figure:
    """Draws the rays of a batch: their colours, where they lie in the pictures, and from where they are cast.

    Args:
      colours: [B, 1, 3 or 4] in 0..1; RGB with straight alpha is drawn on white.
      pixels: (x, y) [B, 2] in the picture of the ray; None if they are not known.
      origins: [B, 3].
      directions: [B, 3], of any length.
    """
    if colours.shape[1] == 4:
        colours = colours[:, :3] * colours[:, 3:] + 1 - colours[:, 3:]
    colours = np.broadcast_to(colours, (len(colours), 3))
    figure = Figure(figsize=(9.6, 3.6), layout='constrained')
    order = np.argsort(colours.sum(1), kind='stable')
    side = int(np.ceil(np.sqrt(len(order))))
    tile = np.ones((side * side, 3))
    tile[: len(order)] = colours[order]
    axes = figure.add_subplot(1, 3, 1)
    hide_frame(axes, f'colours of {len(order)} rays, sorted by brightness', fontsize=8)
    axes.imshow(tile.reshape(side, side, 3), interpolation='nearest')
    axes = figure.add_subplot(1, 3, 2)
    axes.set_title('in the pictures, all views over each other' if pixels is not None else 'brightness', fontsize=8)
    if pixels is not None:
        axes.scatter(*np.asarray(pixels).T, c=np.clip(colours, 0, 1), s=9, edgecolors='0.7', linewidths=0.2)
        axes.invert_yaxis()
        axes.set_aspect('equal')
    else:
        axes.hist(colours.mean(1), bins=32, color='C0')
    space: Any = figure.add_subplot(1, 3, 3, projection='3d')
    space.set_title('origins and directions', fontsize=8)
    unit = directions / np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-12)
    length = 0.25 * float(np.ptp(origins, axis=0).max() or 1.0)
    space.quiver(*origins[:300].T, *unit[:300].T, length=length, linewidth=0.4, arrow_length_ratio=0.1)
    space.tick_params(labelsize=6)
    return figure


def draw_match_batch(batch: Mapping[str, Any], most: int = 9) -> Figure:
    """Draws tracks (blue) and detections (orange), and a line from each track to the detection that continues it.

    Args:
      batch: `tracks` and `detections`, each with `boxes` [B, N, 4] and `valid` [B, N]; `matches` [B, N], the slot of
        the detection of each track, -1 for none; `gap` [B], the frames between them.
      most: examples that are drawn, the first ones.
    """
    count = min(most, len(batch['matches']))
    columns = min(count, 3)
    rows = -(-count // columns)
    figure = Figure(figsize=(3.4 * columns, 3 * rows), layout='constrained')
    for i in range(count):
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.set_title(f'gap {batch["gap"][i]}: {(batch["matches"][i] >= 0).sum()} matches', fontsize=8)
        for part, colour in (('tracks', 'C0'), ('detections', 'C1')):
            for x0, y0, x1, y1 in batch[part]['boxes'][i][batch[part]['valid'][i]]:
                axes.plot([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], color=colour, linewidth=1)
        centres = {part: batch[part]['boxes'][i].reshape(-1, 2, 2).mean(1) for part in ('tracks', 'detections')}
        for track in np.flatnonzero(batch['matches'][i] >= 0):
            ends = np.stack([centres['tracks'][track], centres['detections'][batch['matches'][i][track]]])
            axes.plot(*ends.T, color='k', linewidth=1, marker='.', markersize=3)
        axes.invert_yaxis()
        axes.set_aspect('equal')
        axes.tick_params(labelsize=6)
    return figure


def draw_array_batch(batch: Mapping[str, Any], most: int = 12) -> Figure:
    """Draws the numeric arrays of a batch: a map of rows and columns where they have both, else a histogram."""
    arrays = {key: np.asarray(value) for key, value in batch.items() if not isinstance(value, Mapping)}
    arrays = {key: array for key, array in arrays.items() if array.dtype.kind in 'biuf'}
    columns = min(len(arrays), 3)
    rows = -(-len(arrays) // columns)
    figure = Figure(figsize=(4 * columns, 2.6 * rows), layout='constrained')
    for i, (key, array) in enumerate(arrays.items(), 1):
        axes = figure.add_subplot(rows, columns, i)
        axes.set_title(f'{key} {list(array.shape)}', fontsize=8)
        axes.tick_params(labelsize=6)
        if array.ndim > 1:
            drawn = axes.imshow(array[:most].reshape(min(len(array), most), -1).astype(float), aspect='auto')
            figure.colorbar(drawn, ax=axes)
            axes.set(xlabel='elements', ylabel='rows of the batch')
        else:
            axes.hist(array.astype(float), bins=32, color='C0')
    return figure


def _name_label(label: Any, class_names: Sequence[str]) -> str:
    """Returns the name of a class; for a distribution the likeliest classes with their shares."""
    if np.ndim(label) == 0:
        return str(class_names[label]) if 0 <= int(label) < len(class_names) else str(label)
    likely = [i for i in np.argsort(-label)[:2] if label[i] > 0]
    return ', '.join(f'{_name_label(i, class_names)} {label[i]:.2f}' for i in likely)
