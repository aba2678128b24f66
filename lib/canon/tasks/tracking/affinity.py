"""Learnt affinity: scores of tracks and detections, trained through Sinkhorn's algorithm, and their use by a tracker.

    task = affinity_task(models.make_model('pair_affinity.pair_affinity'), AffinitySettings())

Batches are those of `canon.tasks.tracking.PairBatches`: 'tracks' and 'detections' of two frames, 'matches' int32
[B, N], the detection of each track or -1, 'gap' int32 [B] and 'mask' bool [B].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from canon import backend, losses, metrics, named, plots
from canon.tracking import affinity as affinities
from canon.tracking import association
from canon.tracking.arrays import array_module
from canon.train import Evaluator, Task


@dataclass(frozen=True)
class AffinitySettings:
    """config.sinkhorn.

    Attributes:
      iterations: of Sinkhorn's algorithm; 100 in SuperGlue.
      temperature: of its entropy; 1 in SuperGlue.
    """

    iterations: named.Count = 30
    temperature: named.Positive = 1.0


@dataclass(frozen=True, kw_only=True)
class LinkEvaluation:
    """An entry of config.data.evals.

    Attributes:
      split: of the data, such as 'test[:8]'.
      gaps: frames between tracks and detections, each measured by itself.
      every: takes every n-th frame.
      min_probability: of a link; as SuperGlue's threshold of matches.
      min_iou: of the links by IoU that are measured for comparison, as of SORT.
    """

    split: str
    gaps: tuple[named.Count, ...] = (1, 5, 10)
    every: named.Count = 5
    min_probability: named.Probability = 0.2
    min_iou: named.Probability = 0.3


def affinity_task(network: Any, settings: AffinitySettings) -> Task:
    """Makes the task of matching tracks and detections; `predict` returns log P [B, N + 1, M + 1] of `sinkhorn_log`.

    The loss is the negative log-likelihood of the true matches and of what has none (Sarlin et al. 2020, eq. 10), per
    match and unmatched box.

    Args:
      network: as `canon.models.pair_affinity`: (tracks, detections) -> (scores [..., N, M], that of what is unmatched).
      settings: of Sinkhorn's algorithm.
    """

    def plan(params, tracks, detections):
        scores, unmatched = network.apply({'params': params}, tracks, detections)

        def solve(weights, rows, columns):
            return association.sinkhorn_log(
                weights, settings.temperature, settings.iterations, rows, columns, unmatched
            )

        return jax.vmap(solve)(scores, tracks['valid'], detections['valid'])

    def predict(params, mutable, batch):
        return plan(params, batch['tracks'], batch['detections'])

    def loss(params, mutable, batch, at):
        log_plan = predict(params, mutable, batch)
        rows, columns = (batch[side]['valid'] & batch['mask'][:, None] for side in ('tracks', 'detections'))
        totals, counts = jax.vmap(losses.assignment_nll)(log_plan, batch['matches'], rows, columns)
        best = jnp.where(log_plan[:, :-1].argmax(-1) == columns.shape[1], -1, log_plan[:, :-1].argmax(-1))
        correct = metrics.Mean.of(best == batch['matches'], rows)
        return metrics.Mean(totals.sum(), counts.sum().astype(totals.dtype)), (mutable, {'rows_correct': correct})

    def init(key, batch):
        first = {side: {k: v[:1] for k, v in batch[side].items()} for side in ('tracks', 'detections')}
        return {'params': network.init(key, first['tracks'], first['detections'])['params']}

    return Task(init, loss, predict)


def link_evaluator(task: Task, batches: Any, settings: LinkEvaluation) -> Evaluator:
    """Evaluates links of tracks and detections: f1, precision and recall over all gaps, f1 per gap, and by IoU.

    A link is right if it is the true match of its track. Learnt links are the assignment of the largest sum of
    probabilities, of those above `min_probability`; `iou_f1` is of SORT's rule on the predicted boxes.

    Args:
      task: an `affinity_task`.
      batches: finite data.
      settings: thresholds.
    """
    predict = backend.jit(task.predict)

    def measure(params, mutable, batch):
        plans = np.exp(np.asarray(predict(params, mutable, batch)))[:, :-1, :-1]
        counts = {}
        for b in np.flatnonzero(batch['mask']):
            tracks, detections = ({k: v[b] for k, v in batch[side].items()} for side in ('tracks', 'detections'))
            boxes, valid = (x.astype(np.float64) for x in (tracks['boxes'], detections['boxes'])), detections['valid']
            iou = affinities.compute_valid_iou(*boxes, tracks['valid'], valid)
            links = {
                'learnt': association.assign_then_gate(plans[b].astype(np.float64), settings.min_probability),
                'iou': association.assign_then_gate(iou, settings.min_iou),
            }
            for kind, columns in links.items():
                key = f'{kind}/{batch["gap"][b]}'
                counts[key] = counts.get(key, 0) + count_links(columns, batch['matches'][b])
        first = {'plan': plans[:1], 'matches': batch['matches'][:1]}
        first |= {side: batch[side]['valid'][:1] for side in ('tracks', 'detections')}
        # The sums of batches need the same keys, and a batch may lack a gap.
        every = {f'{kind}/{gap}': np.zeros(3) for kind in ('learnt', 'iou') for gap in settings.gaps}
        return {'counts': every | counts, 'first': metrics.Rows.of(first, batch['mask'][:1])}

    def finish(sums):
        counts, scores = sums['counts'], {}
        for kind, prefix in (('learnt', ''), ('iou', 'iou_')):
            per_gap = {gap: np.asarray(counts[f'{kind}/{gap}']) for gap in settings.gaps}
            scores |= {f'{prefix}{k}': v for k, v in score_links(np.sum(list(per_gap.values()), axis=0)).items()}
            scores |= {f'{prefix}f1_gap_{gap}': score_links(c)['f1'] for gap, c in per_gap.items()}
        return scores

    def draw(params, mutable, sums):
        # The least certain example shows the most competition.
        example = max(sums['first'].each(), key=lambda row: float((row['plan'] * (1 - row['plan'])).sum()))
        rows, columns = (example[side].astype(bool) for side in ('tracks', 'detections'))
        plan = example['plan'][np.ix_(rows, columns)]
        # Matches are slots of detections, which are valid from the first on.
        figure = plots.draw_assignment(plan, example['matches'][rows], 'Probabilities of links, rings: true ones')
        return {'assignment': figure}

    return Evaluator(batches, measure, finish, draw, on_host=True)


def count_links(columns: np.ndarray, matches: np.ndarray) -> np.ndarray:
    """Counts (right links, links, true links) of the assigned columns [N] and the true ones [N], -1 for none."""
    right = (columns >= 0) & (columns == matches)
    return np.array([right.sum(), (columns >= 0).sum(), (matches >= 0).sum()], np.float64)


def score_links(counts: np.ndarray) -> dict[str, float]:
    """Returns 'precision', 'recall' and 'f1' of `count_links`; 1 where there is nothing to link and no link."""
    right, linked, true = (float(x) for x in counts)
    return {
        'precision': right / linked if linked else 1.0,
        'recall': right / true if true else 1.0,
        'f1': 2 * right / (linked + true) if linked + true else 1.0,
    }


def learnt_affinity(task: Task, params: Any) -> Callable[[Mapping[str, Any], Mapping[str, Any]], Any]:
    """Returns the affinity of a trained task: (tracks, detections) -> probabilities [S, D], for `tracking.deep_sort`.

    It takes arrays of numpy or of JAX, also within a scan, and returns the same kind.

    Args:
      task: an `affinity_task`.
      params: trained ones.
    """

    def compute(tracks, detections):
        sides = {'tracks': tracks, 'detections': detections}
        batch = {side: {k: jnp.asarray(v)[None] for k, v in part.items()} for side, part in sides.items()}
        return jnp.exp(task.predict(params, {}, batch)[0, :-1, :-1])

    compiled = backend.jit(compute)

    def apply(tracks, detections):
        if array_module(tracks['boxes']) is not np:
            return compute(tracks, detections)
        # Of float64, the compiled function would be another one where JAX has 64 bits.
        narrow = (
            {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in p.items()}
            for p in (tracks, detections)
        )
        return np.asarray(compiled(*narrow), np.float64)

    return apply
