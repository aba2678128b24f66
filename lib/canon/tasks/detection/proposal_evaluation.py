"""The evaluator of proposals: which objects they cover. It knows nothing of the method that makes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from canon.metrics import Mean, Rows, detection
from canon.ops import boxes as box_ops
from canon.tasks.detection.evaluation import Predict
from canon.tasks.detection.prediction import INPUTS
from canon.train import Evaluator

_OVERLAPS = np.linspace(0.5, 0.95, 10, dtype=np.float32)  # COCO's IoU thresholds


def proposal_evaluator(predict: Predict, batches: Any, counts: Sequence[int] = (10, 50, 100, 300)) -> Evaluator:
    """Evaluates proposals, whatever class they are of.

    Metrics: `recall_N`, the share of the objects that one of the best N proposals of their image overlaps with an IoU
    of at least 0.5, and `average_recall_N`, its mean over IoUs of 0.5, 0.55, ..., 0.95 (Hosang et al. 2016). Difficult
    objects and crowds do not count.

    Args:
      predict: (params, mutable, batch) -> detections, sorted by score.
      batches: finite data.
      counts: numbers of proposals.
    """

    def measure(params, mutable, batch):
        found = predict(params, mutable, batch)
        objects = batch['valid'] & ~batch['crowd'] & ~batch['difficult'] & batch['mask'][:, None]
        iou = box_ops.pairwise_iou(found['boxes'], batch['boxes'])  # [B, D, M], in canvas pixels
        iou = jnp.where(found['valid'][..., None], iou, 0)
        sums = {}
        for count in counts:
            best = iou[:, :count].max(1, initial=0)
            sums[f'recall_{count}'] = Mean.of(best >= _OVERLAPS[0], objects)
            sums[f'average_recall_{count}'] = Mean.of((best[..., None] >= _OVERLAPS).mean(-1), objects)
        return sums

    return Evaluator(batches, measure, lambda sums: {name: float(mean.value) for name, mean in sums.items()})


def score_proposal_counts(
    detect: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    batches: Sequence[Mapping[str, Any]],
    counts: Sequence[int],
    num_classes: int,
    year: Literal[2007, 2010] = 2010,
) -> list[float]:
    """Returns VOC's mAP of a detector that classifies the first N proposals of each image, for each N of `counts`.

    Args:
      detect: compiled, from the inputs of a batch to its detections, such as `predict` of `fast_rcnn_task`.
      batches: with 'proposals' [B, P, 4] in order of rank and 'proposals_valid' [B, P], P at least the largest count.
      counts: numbers of proposals, ascending.
      num_classes: of the objects.
      year: of the rules, see `DetectionEvaluation`.
    """
    most = max((int(batch['proposals_valid'].sum(1).max()) for batch in batches), default=0)
    scores: list[float] = []
    for i, count in enumerate(counts):
        if i and counts[i - 1] >= most:  # no image has further ones
            scores.append(scores[-1])
            continue
        rows = Rows(())
        for batch in batches:
            inputs = {name: batch[name] for name in INPUTS if name in batch}
            inputs |= {name: batch[name][:, :count] for name in ('proposals', 'proposals_valid')}
            found = {name: np.asarray(values) for name, values in detect(inputs).items()}
            rows = rows + detection.collect_detections(found, batch)
        scores.append(detection.score_voc(detection.match_detections(rows), num_classes, year).mean_ap)
    return scores
