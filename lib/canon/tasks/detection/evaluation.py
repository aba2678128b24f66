"""The evaluator of detectors, by VOC's and COCO's rules. It knows nothing of the detector."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from canon import named
from canon.metrics import Mean, detection
from canon.tasks.image_settings import HeldOutImages
from canon.train import Evaluator

Predict = Callable[[Any, Any, Any], Mapping[str, Any]]  # (params, mutable, batch) -> detections


@dataclass(frozen=True, kw_only=True)
class DetectionEvaluation(HeldOutImages):
    """An entry of config.data.evals.

    Attributes:
      sizes: sides in pixels of the squares between small, medium and large objects; COCO's by default.
      year: 2007 averages the precision at 11 recalls, 2010 takes the area below the curve.
      coco: whether COCO's twelve numbers are computed as well.
    """

    sizes: tuple[named.Positive, named.Positive] = (32.0, 96.0)
    year: Literal[2007, 2010] = 2010
    coco: bool = True


def detection_evaluator(
    predict: Predict,
    batches: Any,
    names: Sequence[str],
    settings: DetectionEvaluation = DetectionEvaluation(split='test'),
    draw: Callable[[Any, Any, Any], Mapping[str, Any]] | None = None,
) -> Evaluator:
    """Evaluates a detector on whole images: average precision, and what its errors are.

    Metrics: `map50`, the mean average precision of VOC at an IoU of 0.5; `mean_iou` of the right detections; the
    shares `right`, `badly_located`, `confused`, `duplicate` and `background` of the best N detections of each class, N
    being the number of its objects; `missed`, the share of all objects; with `settings.coco` COCO's twelve numbers as
    `coco_ap`, `coco_ap50`, ...; `truncated`, the number of objects that padding left out, where batches count them.

    Args:
      predict: (params, mutable, batch) -> detections.
      batches: finite data.
      names: of the classes.
      settings: of the measures.
      draw: (params, mutable, sums) -> {title: Figure}, such as `figures.make_draw`.
    """
    areas = square_sides(settings.sizes)

    # Detections are kept, not summed: average precision ranks those of all images together.
    def measure(params, mutable, batch):
        sums: dict[str, Any] = {'detections': detection.collect_detections(predict(params, mutable, batch), batch)}
        if 'truncated' in batch:  # an average precision over fewer objects than there are is not left unsaid
            sums['truncated'] = Mean.of(batch['truncated'], batch['mask'])
        return sums

    def finish(sums):
        rows = sums['detections']
        matches = detection.match_detections(rows)
        errors = detection.analyse_errors(matches, len(names), areas)
        map50 = detection.score_voc(matches, len(names), settings.year).mean_ap
        metrics = {'map50': map50, 'mean_iou': errors.mean_iou, **share_errors(errors)}
        if 'truncated' in sums:
            metrics['truncated'] = float(sums['truncated'].total)
        if settings.coco:
            values = detection.score_coco(rows, len(names), areas).values
            metrics |= {f'coco_{name}': value for name, value in values.items()}
        return metrics

    return Evaluator(batches, measure, finish, draw)


def square_sides(sizes: tuple[float, float]) -> tuple[float, float]:
    """Returns the areas of squares with the given sides, as the metrics take them."""
    return sizes[0] ** 2, sizes[1] ** 2


def share_errors(errors: detection.ErrorAnalysis) -> dict[str, float]:
    """Returns the kinds of detections as shares of all that count, and the missed ones as a share of the objects."""
    counts = dict(zip(detection.ERROR_KINDS, errors.counts.sum((0, 1)).tolist(), strict=True))
    missed = counts.pop('missed')
    total, objects = sum(counts.values()), counts['right'] + missed
    # NaN, not 0, where there is nothing to take a share of: 0 would look like a perfect detector.
    shares = {name.replace(' ', '_'): count / total if total else np.nan for name, count in counts.items()}
    return {**shares, 'missed': missed / objects if objects else np.nan}
