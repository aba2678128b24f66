"""Metrics of object detectors: VOC's average precision, COCO's twelve numbers, and an analysis of errors.

A ranking over a whole set is not a mean over batches, so the accumulator is `Rows`: `collect_detections` makes it from
the detections and the batch, in pixels of the original images, and the functions that follow score all rows at once.

    def measure(params, mutable, batch):
        return {'detections': detection.collect_detections(task.predict(params, mutable, batch), batch)}

    def finish(sums):
        return {'map': detection.score_voc(sums['detections'], num_classes=20, year=2007).mean_ap}

Images are ordered by `image_id` before they are scored, so neither the order of batches nor their padding nor the
number of processes changes a result. Boxes are [x0, y0, x1, y1] in pixels at pixel edges: VOC's inclusive widths
x_max - x_min + 1 are x1 - x0 here, and overlaps equal those of the development kit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from canon.errors import UsageError
from canon.metrics.rows import Rows

COCO_SIZES = (32.0**2, 96.0**2)  # areas in pixels^2 that part small from medium and medium from large objects
SIZE_NAMES = ('small', 'medium', 'large')
ERROR_KINDS = ('right', 'badly located', 'confused', 'duplicate', 'background', 'missed')
COCO_NAMES = (
    'ap', 'ap50', 'ap75', 'ap_small', 'ap_medium', 'ap_large',
    'ar1', 'ar10', 'ar100', 'ar_small', 'ar_medium', 'ar_large',
)  # fmt: skip
_ROUNDING = 2e-4  # pixels within which the coordinates of objects are taken for hundredths
_RIGHT, _BADLY_LOCATED, _CONFUSED, _DUPLICATE, _BACKGROUND, _MISSED = range(len(ERROR_KINDS))


# --- the accumulator -------------------------------------------------------------------------------------------------


def collect_detections(detections: Mapping[str, Any], batch: Mapping[str, Any]) -> Rows:
    """Collects the detections and the objects of a batch, in pixels of the original images, as `Rows` that add.

    Works on arrays of JAX, also under jit, and of NumPy.

    Args:
      detections: 'boxes' float [B, D, 4] in pixels of the batch's images, 'scores' [B, D], 'labels' int [B, D] and
        'valid' bool [B, D]. Boxes are clipped to the original image if the batch has 'original_size' and 'placement'.
      batch: 'boxes' [B, M, 4], 'labels' [B, M] and 'valid' [B, M]; optional are 'difficult' and 'crowd' [B, M], 'area'
        [B, M] (COCO's area of the object's segmentation in original pixels; without it, of the box), 'image_id' [B],
        'placement' [B, 4] (scale_x, scale_y, shift_x, shift_y from original to batch pixels), 'original_size' [B, 2]
        (height, width) and 'mask' [B], false for rows of padding.

    Raises:
      UsageError: a field is missing, or boxes are not [B, D, 4].

        >>> objects = {'boxes': np.array([[[0, 0, 8, 8]]]), 'labels': np.array([[1]]), 'valid': np.array([[True]])}
        >>> predicted = {'boxes': np.array([[[0, 0, 8, 6], [20, 20, 30, 30]]]), 'labels': np.array([[1, 1]])}
        >>> predicted |= {'scores': np.array([[0.9, 0.8]]), 'valid': np.array([[True, True]])}
        >>> rows = collect_detections(predicted, objects)
        >>> score_voc(rows, num_classes=2).ap.tolist(), round(score_coco(rows, num_classes=2).values['ap'], 2)
        ([nan, 1.0], 0.6)
    """
    for what, fields, names in (('detections', detections, ('scores',)), ('batch', batch, ())):
        if missing := [name for name in ('boxes', 'labels', 'valid', *names) if name not in fields]:
            raise UsageError(f'collect_detections: the {what} have no {missing[0]!r}, only {sorted(fields)}')
        if fields['boxes'].ndim != 3 or fields['boxes'].shape[-1] != 4:
            raise UsageError(f'collect_detections: boxes of the {what} are {fields["boxes"].shape}, not [B, N, 4]')
    # Stored detections stay NumPy's: they need neither a device nor a compilation for each shape of batch.
    xp = jnp if isinstance(detections['boxes'], jax.Array) or isinstance(batch['boxes'], jax.Array) else np
    rows = len(batch['boxes'])
    no_flags = xp.zeros(batch['valid'].shape, bool)
    boxes = _to_original(detections['boxes'], batch)
    if 'original_size' in batch and 'placement' in batch:  # else the canvas may be larger than the original
        limits = batch['original_size'][:, [1, 0, 1, 0]][:, None].astype(boxes.dtype)
        boxes = xp.clip(boxes, 0, limits)
    predicted = {'boxes': boxes, **{name: detections[name] for name in ('scores', 'labels', 'valid')}}
    truth = {
        'boxes': _to_original(batch['boxes'], batch),
        'labels': batch['labels'],
        'valid': batch['valid'],
        'difficult': batch.get('difficult', no_flags),
        'crowd': batch.get('crowd', no_flags),
    }
    if 'area' in batch:
        truth['area'] = batch['area']
    image_id = batch.get('image_id', xp.zeros(rows, xp.int32))
    mask = batch.get('mask', xp.ones(rows, bool))
    return Rows.of({'detections': predicted, 'truth': truth, 'image_id': image_id}, mask)


def _to_original(boxes, batch):
    """Maps boxes [B, N, 4] from pixels of the batch to pixels of the original images."""
    if 'placement' not in batch:
        return boxes
    placement = batch['placement'][:, None]
    return (boxes - placement[..., [2, 3, 2, 3]]) / placement[..., [0, 1, 0, 1]]


# --- matching --------------------------------------------------------------------------------------------------------


class Matches(NamedTuple):
    """All detections of a set in order of falling score, each with the objects that it overlaps most.

    Attributes:
      image: of each detection, [P]; the position of its row.
      labels: [P].
      scores: [P].
      areas: of the detections' boxes, [P].
      target: the object of its class with the largest overlap, [P]; -1 if the image has none of this class.
      iou: its overlap with `target`, [P]; 0 without one.
      other: the object of another class with the largest overlap, [P]; -1 if there is none.
      other_iou: its overlap with `other`, [P].
      object_image: the row of each object, [Q].
      object_labels: [Q].
      object_areas: [Q].
      ignored: bool [Q], difficult and crowd objects, which count neither for nor against a detector.
      image_ids: of the rows, [N].
    """

    image: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    areas: np.ndarray
    target: np.ndarray
    iou: np.ndarray
    other: np.ndarray
    other_iou: np.ndarray
    object_image: np.ndarray
    object_labels: np.ndarray
    object_areas: np.ndarray
    ignored: np.ndarray
    image_ids: np.ndarray


class _Table(NamedTuple):
    """Detections and objects of all images in flat arrays, by image."""

    image: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    object_image: np.ndarray
    object_boxes: np.ndarray
    object_labels: np.ndarray
    object_areas: np.ndarray
    difficult: np.ndarray
    crowd: np.ndarray
    image_ids: np.ndarray


def match_detections(rows: Rows) -> Matches:
    """Finds for each detection the objects of its image, of its class and of the others, that it overlaps most.

    Of several objects with the same overlap the first counts, as in VOC's development kit. Detections of equal score
    are in the order of their images' ids, then of their rank within the image.
    """
    table = _flatten(rows)
    count = len(table.scores)
    target, other = np.full(count, -1), np.full(count, -1)
    iou, other_iou = np.zeros(count), np.zeros(count)
    images = np.arange(len(table.image_ids) + 1)
    starts, object_starts = np.searchsorted(table.image, images), np.searchsorted(table.object_image, images)
    for i in range(len(table.image_ids)):
        part, objects = slice(starts[i], starts[i + 1]), slice(object_starts[i], object_starts[i + 1])
        if part.start == part.stop or objects.start == objects.stop:
            continue
        overlaps = _pairwise_iou(table.boxes[part], table.object_boxes[objects])
        same = table.labels[part, None] == table.object_labels[objects]
        for considered, indices, values in ((same, target, iou), (~same, other, other_iou)):
            # -1 and not 0 for the others: an object of the class without overlap still is its target.
            masked = np.where(considered, overlaps, -1)
            best = masked.argmax(1)
            values[part] = np.maximum(masked[np.arange(len(best)), best], 0)
            indices[part] = np.where(considered.any(1), best + objects.start, -1)
    order = np.argsort(-table.scores, kind='stable')
    areas = _compute_areas(table.boxes)
    return Matches(
        *(x[order] for x in (table.image, table.labels, table.scores, areas, target, iou, other, other_iou)),
        *(table.object_image, table.object_labels, table.object_areas, table.difficult | table.crowd, table.image_ids),
    )


def _flatten(rows: Rows) -> _Table:
    """Drops the padding of rows, detections and objects; images are in the order of their ids."""
    ids = [np.asarray(values['image_id'])[np.asarray(mask, bool)] for values, mask in rows.parts]
    ids = np.concatenate(ids).astype(np.int64) if ids else np.zeros(0, np.int64)
    # By id: of detections with equal scores the order then does not depend on batches and processes.
    order = np.argsort(ids, kind='stable')
    position = np.empty(len(ids), np.int64)
    position[order] = np.arange(len(ids))
    columns: dict[str, list[np.ndarray]] = {}
    start = 0
    for values, mask in rows.parts:
        mask = np.asarray(mask, bool)
        here = position[start : start + mask.sum()]
        start += len(here)
        for prefix, fields in (('', values['detections']), ('object_', values['truth'])):
            valid = np.asarray(fields['valid'], bool)[mask]
            columns.setdefault(f'{prefix}image', []).append(here[np.nonzero(valid)[0]])
            for name in set(fields) - {'valid'}:
                columns.setdefault(prefix + name, []).append(np.asarray(fields[name])[mask][valid])

    def join(name, kind, width=()):
        return np.concatenate([np.zeros((0, *width), kind), *columns.get(name, ())]).astype(kind)

    image, object_image = join('image', np.int64), join('object_image', np.int64)
    by_image, objects_by_image = np.argsort(image, kind='stable'), np.argsort(object_image, kind='stable')
    # Annotations are whole pixels or hundredths, and come back from float32 on the canvas with an error of up to 1e-4
    # pixels, which would move objects across thresholds of area and overlap. Other numbers stay as they are.
    object_boxes = join('object_boxes', np.float64, (4,))
    if not np.isfinite(object_boxes).all():
        raise UsageError(
            'boxes of objects have no place in the original images: a transform of the evaluation mirrors, turns or '
            'crops at random; remove it from the transforms of data.evals'
        )
    hundredths = np.round(object_boxes, 2)
    object_boxes = np.where(np.abs(hundredths - object_boxes) < _ROUNDING, hundredths, object_boxes)
    areas = join('object_area', np.float64) if 'object_area' in columns else _compute_areas(object_boxes)
    return _Table(
        image[by_image],
        join('boxes', np.float64, (4,))[by_image],
        join('scores', np.float64)[by_image],
        join('labels', np.int64)[by_image],
        object_image[objects_by_image],
        object_boxes[objects_by_image],
        join('object_labels', np.int64)[objects_by_image],
        areas[objects_by_image],
        join('object_difficult', bool)[objects_by_image],
        join('object_crowd', bool)[objects_by_image],
        ids[order],
    )


def _compute_areas(boxes: np.ndarray) -> np.ndarray:
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    return sides[:, 0] * sides[:, 1]


def _pairwise_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Computes overlaps [N, M] in float64; boxes without area overlap nothing."""
    sides = np.maximum(np.minimum(a[:, None, 2:], b[:, 2:]) - np.maximum(a[:, None, :2], b[:, :2]), 0)
    intersection = sides[..., 0] * sides[..., 1]  # a product of two columns, ten times as fast as np.prod over an axis
    union = _compute_areas(a)[:, None] + _compute_areas(b) - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


# --- Pascal VOC ------------------------------------------------------------------------------------------------------


class VocScores(NamedTuple):
    """Average precision per class, and the curves it is computed from.

    Attributes:
      ap: [C]; NaN for a class without objects.
      recall: per class an array [P_c], one entry per detection in order of falling score.
      precision: likewise.
      scores: likewise.
      objects: how many objects that are not ignored each class has, [C].
    """

    ap: np.ndarray
    recall: tuple[np.ndarray, ...]
    precision: tuple[np.ndarray, ...]
    scores: tuple[np.ndarray, ...]
    objects: np.ndarray

    @property
    def mean_ap(self) -> float:
        """The mean over the classes that have objects; NaN if none has."""
        present = self.ap[~np.isnan(self.ap)]
        return float(present.mean()) if len(present) else float('nan')


def score_voc(
    rows: Rows | Matches, num_classes: int, year: Literal[2007, 2010] = 2010, iou_threshold: float = 0.5
) -> VocScores:
    """Computes Pascal VOC's average precision of each class (Everingham et al. 2010, section 4.2).

    A detection is right if its overlap with the object of its class that it overlaps most is at least `iou_threshold`
    and no detection of a higher score is right about the same object. A detection whose object is difficult (or a
    crowd) counts neither as right nor as wrong, however many there are, and such objects need not be found.

    Args:
      rows: of `collect_detections`, or their `match_detections`, which several scores can share.
      num_classes: C.
      year: 2007 averages the largest precision at recalls of at least 0, 0.1, ..., 1; 2010 and later take the area
        below the precision made monotone. The thresholds of 2007 are `np.arange(0, 1.1, 0.1)`, as in the code that
        published results were computed with: 0.3 is 0.30000000000000004 there, above a recall of 3 in 10.
      iou_threshold: VOC's is 0.5, inclusive.
    """
    if year not in (2007, 2010):
        raise UsageError(f'score_voc: year={year!r} is not 2007 (11 points) or 2010 (area)')
    matches = rows if isinstance(rows, Matches) else match_detections(rows)
    _check_labels(num_classes, matches.labels, matches.object_labels)
    right, considered = _mark_right(matches, iou_threshold)
    objects = np.bincount(matches.object_labels[~matches.ignored], minlength=num_classes)
    average = _average_at_11_points if year == 2007 else _average_area
    curves = []
    for label in range(num_classes):
        hits = right[considered & (matches.labels == label)]
        true_positives = np.cumsum(hits)
        precision = true_positives / np.arange(1, len(hits) + 1)
        curves.append((true_positives / max(objects[label], 1), precision))
    ap = [average(*curve) if objects[label] else np.nan for label, curve in enumerate(curves)]
    recall, precision = (tuple(x) for x in zip(*curves, strict=True)) if curves else ((), ())
    scores = tuple(matches.scores[considered & (matches.labels == label)] for label in range(num_classes))
    return VocScores(np.array(ap, np.float64), recall, precision, scores, objects)


def _mark_right(matches: Matches, iou_threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns which detections [P] are right, and which are considered: not matched to an ignored object."""
    # A target of -1 reads the last entry; its overlap is 0, so that it decides nothing.
    hits = (matches.iou >= iou_threshold) & (matches.target >= 0)
    ignored = np.append(matches.ignored, False)[matches.target] & hits
    hits &= ~ignored
    # The object is chosen before it is known whether it is taken, as in VOC's development kit: a second detection of it
    # is wrong even if it overlaps another object enough. COCO would give it that one. So the first of
    # each object in order of falling score is right.
    first = np.flatnonzero(hits)[np.unique(matches.target[hits], return_index=True)[1]]
    right = np.zeros(len(hits), bool)
    right[first] = True
    return right, ~ignored


def _average_at_11_points(recall: np.ndarray, precision: np.ndarray) -> float:
    return sum(precision[recall >= t].max(initial=0) for t in np.arange(0, 1.1, 0.1)) / 11


def _average_area(recall: np.ndarray, precision: np.ndarray) -> float:
    # The largest precision at this recall or a higher one; recalls that are never reached add nothing.
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0) * envelope))


# --- COCO ------------------------------------------------------------------------------------------------------------


class CocoScores(NamedTuple):
    """COCO's numbers, NaN where COCO prints -1: no object is of this size or class.

    Attributes:
      values: the twelve numbers by the names of `COCO_NAMES`: average precision (over IoU 0.50:0.05:0.95, at 0.5, at
        0.75, of small, medium and large objects) and average recall (of 1, 10 and 100 detections per image, by size).
      class_ap: [C], over IoU 0.50:0.05:0.95.
      class_ap50: [C], at IoU 0.5.
      size_ap: [C, 3], `class_ap` of small, medium and large objects.
    """

    values: dict[str, float]
    class_ap: np.ndarray
    class_ap50: np.ndarray
    size_ap: np.ndarray


def score_coco(rows: Rows, num_classes: int, sizes: tuple[float, float] = COCO_SIZES) -> CocoScores:
    """Computes COCO's twelve numbers (Lin et al. 2014 and its detection challenge) by faster-coco-eval.

    Crowd objects are ignored by COCO's rule. Difficult ones count as any other: COCO has no such flag.

    Args:
      rows: of `collect_detections`.
      num_classes: C.
      sizes: areas in pixels^2 between small and medium, and between medium and large objects. An object of exactly
        such an area is of both sizes, as in COCO.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    _check_sizes(sizes, 'score_coco')
    table = _flatten(rows)
    _check_labels(num_classes, table.labels, table.object_labels)
    if not len(table.image_ids):
        undefined = np.full((num_classes, 3), np.nan)
        return CocoScores(dict.fromkeys(COCO_NAMES, np.nan), undefined[:, 0], undefined[:, 0], undefined)
    objects = _to_annotations(
        table.object_image, table.object_boxes, table.object_labels, area=table.object_areas, iscrowd=table.crowd
    )
    detections = _to_annotations(
        table.image, table.boxes, table.labels, area=_compute_areas(table.boxes), score=table.scores
    )
    images = [{'id': i + 1} for i in range(len(table.image_ids))]
    categories = [{'id': i + 1} for i in range(num_classes)]
    truth, results = COCO(), COCO()
    for api, instances in ((truth, objects), (results, detections)):
        # `loadRes` would add a polygon to each detection, which takes longer than the scoring.
        api.dataset = {'images': images, 'annotations': instances, 'categories': categories}
        api.createIndex()
    # From 0 to 1e5^2, the bounds in COCO's code.
    edges = (0.0, *sizes, 1e10)
    ranges = {name: [edges[i], edges[i + 1]] for i, name in enumerate(SIZE_NAMES)}
    evaluation = COCOeval_faster(truth, results, 'bbox', ranges=ranges)
    evaluation.run()
    precision = np.asarray(evaluation.eval['precision'])[..., -1]  # [IoU, recall, class, size], of 100 detections
    precision = np.where(precision > -1, precision, np.nan)
    values = dict(zip(COCO_NAMES, (float(x) if x > -1 else np.nan for x in evaluation.stats), strict=True))
    # A class has objects of a size or it has not, so all entries of its curves are NaN or none is.
    class_ap, class_ap50 = precision[..., 0].mean((0, 1)), precision[0, ..., 0].mean(0)
    return CocoScores(values, class_ap, class_ap50, precision[..., 1:].mean((0, 1)))


def list_coco_results(rows: Rows, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
    """Lists detections as COCO's result JSON has them: image_id, category_id, bbox [x, y, width, height], score.

    Args:
      rows: of `collect_detections`.
      category_ids: COCO's id of each class; None counts from 1.
    """
    table = _flatten(rows)
    corners = np.concatenate([table.boxes[:, :2], table.boxes[:, 2:] - table.boxes[:, :2]], 1)
    labels = table.labels + 1 if category_ids is None else np.asarray(category_ids, np.int64)[table.labels]
    # Hundredths of a pixel, as fine as COCO's annotations: most of the file is digits.
    columns = (table.image_ids[table.image], labels, np.round(corners, 2), np.round(table.scores, 5))
    names = ('image_id', 'category_id', 'bbox', 'score')
    return [dict(zip(names, row, strict=True)) for row in zip(*(x.tolist() for x in columns), strict=True)]


def _to_annotations(image, boxes, labels, **columns) -> list[dict[str, Any]]:
    boxes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
    columns = {'image_id': image + 1, 'bbox': boxes, 'category_id': labels + 1, **columns}
    # From 1: pycocotools marks what is not matched by the id 0.
    columns['id'] = np.arange(1, len(boxes) + 1)
    columns.setdefault('iscrowd', np.zeros(len(boxes), int))
    values = [np.asarray(x, int if x.dtype == bool else x.dtype).tolist() for x in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]


def _check_labels(num_classes: int, *labels: np.ndarray) -> None:
    for values in labels:
        if len(values) and not 0 <= values.min() <= values.max() < num_classes:
            raise UsageError(f'labels are {values.min()}..{values.max()}, expected 0..{num_classes - 1}')


def _check_sizes(sizes: tuple[float, float], what: str) -> None:
    if len(sizes) != 2 or not 0 < sizes[0] < sizes[1]:
        raise UsageError(f'{what}: sizes={tuple(sizes)} must be two areas in pixels^2, positive and in order')


# --- errors ----------------------------------------------------------------------------------------------------------


class ErrorAnalysis(NamedTuple):
    """Counts of the detections of a set by kind of error, and the overlaps of the right ones.

    Attributes:
      counts: int [C, 3, 6] by class, by size (small, medium, large) and by kind (`ERROR_KINDS`). The class is that of
        the detection, or of the object for 'missed'. The size is that of the object concerned, or of the detection for
        'background'.
      image_counts: int [N, 6] by image and by kind.
      image_ids: of those images, [N].
      iou_sums: [C, 3], sums of the overlaps of the right detections.
    """

    counts: np.ndarray
    image_counts: np.ndarray
    image_ids: np.ndarray
    iou_sums: np.ndarray

    @property
    def mean_iou(self) -> float:
        """The mean overlap of right detections with their objects; NaN without a right one."""
        right = self.counts[..., _RIGHT].sum()
        return float(self.iou_sums.sum() / right) if right else float('nan')

    @property
    def size_iou(self) -> np.ndarray:
        """`mean_iou` of small, medium and large objects, [3]."""
        with np.errstate(invalid='ignore'):
            return self.iou_sums.sum(0) / self.counts[..., _RIGHT].sum(0)


def analyse_errors(
    rows: Rows | Matches,
    num_classes: int,
    sizes: tuple[float, float] = COCO_SIZES,
    iou_threshold: float = 0.5,
    background_iou: float = 0.1,
    score_threshold: float = 0.0,
    limit_to_objects: bool = True,
) -> ErrorAnalysis:
    """Counts right detections and errors by kind (Hoiem et al. 2012, section 3; YOLO, Redmon et al. 2016, figure 4).

    Of a detection, with IoU the overlap with the object of its class that it overlaps most:
      right: IoU >= iou_threshold, the first for this object in order of falling score.
      duplicate: IoU >= iou_threshold, not the first.
      badly located: background_iou <= IoU < iou_threshold.
      confused: none of these, and an overlap of at least background_iou with an object of another class.
      background: none of these.
    An object is missed if no detection is right about it. Detections that fall to a difficult or crowd object count
    in no kind.

    Args:
      rows: of `collect_detections`, or their `match_detections`.
      num_classes: C.
      sizes: areas in pixels^2 between small and medium, and between medium and large.
      iou_threshold: overlap from which a detection is right.
      background_iou: overlap below which a detection is of the background.
      score_threshold: detections of lower scores are left out.
      limit_to_objects: considers only the best N detections of a class that has N objects, as both papers do: at a
        detector's low score thresholds nearly all others are of the background.
    """
    _check_sizes(sizes, 'analyse_errors')
    if not 0 <= background_iou <= iou_threshold:
        raise UsageError(f'analyse_errors: 0 <= background_iou={background_iou} <= iou_threshold={iou_threshold} fails')
    matches = rows if isinstance(rows, Matches) else match_detections(rows)
    _check_labels(num_classes, matches.labels, matches.object_labels)
    right, considered = _mark_right(matches, iou_threshold)
    # A badly located detection of a difficult object is no error either.
    near = np.append(matches.ignored, False)[matches.target] & (matches.iou >= background_iou)
    considered = considered & ~near & (matches.scores >= score_threshold)
    if limit_to_objects:
        # Matches are in order of falling score, so those after the first N of a class are dropped.
        objects = np.bincount(matches.object_labels[~matches.ignored], minlength=num_classes)
        for label in range(num_classes):
            considered[np.flatnonzero(considered & (matches.labels == label))[objects[label] :]] = False
    hits = (matches.iou >= iou_threshold) & (matches.target >= 0)
    near_other = (matches.other_iou >= background_iou) & (matches.other >= 0)
    kinds = np.select(
        [right, hits, (matches.iou >= background_iou) & (matches.target >= 0), near_other],
        [_RIGHT, _DUPLICATE, _BADLY_LOCATED, _CONFUSED],
        _BACKGROUND,
    )
    # Areas of the object that a kind is about, the detection's own for the background.
    object_areas = np.append(matches.object_areas, 0.0)
    areas = np.where(kinds == _CONFUSED, object_areas[matches.other], object_areas[matches.target])
    areas = np.where(kinds == _BACKGROUND, matches.areas, areas)
    # Only by detections that are considered: an object whose detection is dropped above is missed.
    missed = ~matches.ignored
    missed[matches.target[considered & right]] = False
    n = len(matches.image_ids)
    image_counts, counts = np.zeros((n, 6), np.int64), np.zeros((num_classes, 3, 6), np.int64)
    iou_sums = np.zeros((num_classes, 3))
    detection_sizes, object_sizes = np.digitize(areas, sizes), np.digitize(matches.object_areas, sizes)
    # np.add.at and not +=, which adds once where an index repeats. An area on a threshold is of the larger size.
    np.add.at(counts, (matches.labels[considered], detection_sizes[considered], kinds[considered]), 1)
    np.add.at(counts, (matches.object_labels[missed], object_sizes[missed], _MISSED), 1)
    np.add.at(image_counts, (matches.image[considered], kinds[considered]), 1)
    np.add.at(image_counts, (matches.object_image[missed], _MISSED), 1)
    located = considered & right
    np.add.at(iou_sums, (matches.labels[located], detection_sizes[located]), matches.iou[located])
    return ErrorAnalysis(counts, image_counts, matches.image_ids, iou_sums)
