"""Figures of an evaluated detector: its curves and errors, images with predictions, and how its priors fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from canon import plots
from canon.metrics import Rows, detection
from canon.metrics.detection.matching import mark_right
from canon.tasks.detection.evaluation import DetectionEvaluation, square_sides
from canon.tasks.detection.prior_coverage import measure_prior_coverage

_SAMPLES = 8  # images in a figure
_SHOWN = 0.3  # score from which detections are drawn


def make_draw(
    batches: Any,
    names: Sequence[str],
    settings: DetectionEvaluation,
    priors: Callable[[int, int], np.ndarray] | None = None,
    threshold: float = 0.5,
) -> Callable[[Any, Any, Any], Mapping[str, Any]]:
    """Makes `draw` of a `detection_evaluator`: (params, mutable, sums) -> {title: Figure}.

    Args:
      batches: of the evaluator.
      names: of the classes.
      settings: of the evaluator.
      priors: (height, width) -> corner boxes [A, 4] of a detector that has them; their fit is drawn too.
      threshold: IoU from which a prior is matched to an object in training.
    """
    areas = square_sides(settings.sizes)

    def draw(params, mutable, sums):
        rows = sums['detections']
        matches = detection.match_detections(rows)
        scores = detection.score_voc(matches, len(names), settings.year)
        errors = detection.analyse_errors(matches, len(names), areas)
        # Predictions of low scores are no part of the pictures; what the pictures show is what is ranked.
        visible = detection.analyse_errors(matches, len(names), areas, score_threshold=_SHOWN, limit_to_objects=False)
        # Column 0 counts what is right; the others are errors.
        worst = np.argsort(-visible.image_counts[:, 1:].sum(1), kind='stable')[:_SAMPLES]
        first = visible.image_ids[:_SAMPLES]
        coco = detection.score_coco(rows, len(names), areas) if settings.coco else None
        notes = [f'{count} objects' for count in scores.objects]
        label = 'average precision at IoU 0.5' + ('' if coco is None else ' (by size: 0.5 to 0.95)')
        figures = {
            'precision and recall': plots.draw_precision_recall(scores.recall, scores.precision, scores.ap, names),
            'average precision': plots.draw_class_scores(
                scores.ap, names, label, None if coco is None else coco.size_ap, notes
            ),
            'errors': plots.draw_errors(errors.counts, detection.ERROR_KINDS, names),
            'found by size': plots.draw_recall_by_size(*recall_by_size(matches)),
            'first images': _draw_images(batches, rows, matches, first, names),
            'worst images': _draw_images(batches, rows, matches, visible.image_ids[worst], names),
        }
        if priors is not None:
            coverage = measure_prior_coverage(batches.iterate(), priors)
            figures['priors'] = plots.draw_prior_coverage(*coverage, threshold)
        return figures

    return draw


def recall_by_size(matches: detection.Matches, score_threshold: float = _SHOWN) -> tuple[np.ndarray, np.ndarray]:
    """Returns the sides of all objects that count, and whether each is found: [Q] and bool [Q].

    A side is the root of the area. An object is found if a detection of its class, with at least the given score, has
    an IoU of at least 0.5 with it.
    """
    right = (matches.iou >= 0.5) & (matches.target >= 0) & (matches.scores >= score_threshold)
    found = np.isin(np.arange(len(matches.object_areas)), matches.target[right])
    counted = ~matches.ignored
    return np.sqrt(matches.object_areas[counted]), found[counted]


def mark_errors(
    row: Mapping[str, Any], matches: detection.Matches, score_threshold: float = _SHOWN
) -> tuple[np.ndarray, np.ndarray]:
    """Returns which detections of an image are wrong, bool [D], and which of its objects are missed, bool [M].

    A detection is right if it has the highest score of those that overlap an object of its class by an IoU of 0.5.
    Only detections of at least the given score count; what belongs to a difficult object or a crowd is not wrong.

    Args:
      row: of the image, from `collect_detections`.
      matches: of all images.
      score_threshold: of the detections.
    """
    position = np.searchsorted(matches.image_ids, int(row['image_id']))
    right, considered = mark_right(matches, 0.5)
    of_image = matches.image == position
    # `matches` has the detections that are valid, in order of falling score.
    valid = np.flatnonzero(row['detections']['valid'])
    scores = np.asarray(row['detections']['scores'], float)
    ranked = valid[np.argsort(-scores[valid], kind='stable')]
    wrong = np.zeros(len(scores), bool)
    wrong[ranked] = (considered & ~right)[of_image]
    found = matches.target[right & of_image & (matches.scores >= score_threshold)]
    objects = np.flatnonzero(matches.object_image == position)
    missed = np.zeros(len(row['truth']['valid']), bool)
    missed[np.flatnonzero(row['truth']['valid'])] = ~np.isin(objects, found) & ~matches.ignored[objects]
    return wrong & (scores >= score_threshold), missed


def name_images(batches: Any) -> dict[int, str]:
    """Returns the names of the files by the ids of their images, for a source of files; others have no names."""
    source = batches
    while not hasattr(source, 'names') and hasattr(source, 'source'):
        source = source.source  # a cache, proposals or a part of a source
    if not (hasattr(source, 'names') and hasattr(source, 'ids')):
        return {}
    return {int(i): PurePath(name).name for i, name in zip(source.ids, source.names, strict=True)}


def _draw_images(
    batches: Any, rows: Rows, matches: detection.Matches, image_ids: np.ndarray, names: Sequence[str]
) -> Figure:
    """Draws the images of the given ids next to their objects, in this order, with marks at what is wrong."""
    files = name_images(batches)
    wanted = {int(image_id): place for place, image_id in enumerate(image_ids)}
    chosen: dict[int, tuple] = {}
    values = {int(row['image_id']): row for row in rows.each() if int(row['image_id']) in wanted}
    # The evaluation keeps detections but no pixels, so the batches are read again until every image has been found.
    for batch in batches.iterate():
        ids = batch.get('image_id')
        for i in np.flatnonzero(batch['mask']):
            image_id = int(ids[i]) if ids is not None else 0
            if image_id in wanted and image_id not in chosen:
                placement = batch['placement'][i] if 'placement' in batch else np.array((1, 1, 0, 0))
                row = values[image_id]
                wrong, missed = mark_errors(row, matches)
                chosen[image_id] = (
                    batch['image'][i],
                    _place({**row['detections'], 'wrong': wrong}, placement),
                    _place({**row['truth'], 'wrong': missed}, placement),
                    files.get(image_id, f'image {image_id}'),
                )
        if len(chosen) == len(wanted):
            break
    samples = [chosen[image_id] for image_id in wanted if image_id in chosen]
    images, detections, truth, titles = zip(*samples, strict=True) if samples else ((),) * 4
    return plots.draw_detections(images, detections, names, truth, titles, _SHOWN)


def _place(fields: Mapping[str, Any], placement: np.ndarray) -> dict[str, Any]:
    """Maps the boxes of an image from pixels of the original to those of the batch."""
    scale, shift = placement[[0, 1, 0, 1]], placement[[2, 3, 2, 3]]
    return {**fields, 'boxes': np.asarray(fields['boxes']) * scale + shift}
