"""The evaluator of proposals: which objects they cover. It knows nothing of the method that makes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from canon.metrics import Mean
from canon.ops import boxes as box_ops
from canon.tasks.detection.evaluation import Predict
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
