"""Boxes and scores that tests and goldens draw by a rule, and greedy suppression and matching as plain loops.

numpy only: `tools/golden/detection_torch.py` imports it too.
"""

import numpy as np

KINDS = ('spread', 'clustered', 'integer', 'grid')


def draw_boxes(kind: str, n: int, seed: int = 0) -> np.ndarray:
    """Boxes [n, 4], float32: 'spread', 'clustered' around six places, 'integer' (equal overlaps), 'grid' (apart)."""
    rng = np.random.default_rng((KINDS.index(kind), n, seed))
    centres = rng.uniform(0, 200, (n, 2))
    if kind == 'clustered':
        centres = rng.uniform(0, 200, (6, 2))[rng.integers(0, 6, n)] + 6 * rng.normal(size=(n, 2))
    sizes = rng.uniform(5, 60, (n, 2))
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], 1)
    if kind == 'integer':  # at multiples of 10, so that overlaps are simple fractions; 1 pixel at least
        boxes = np.round(boxes / 10) * 10
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    if kind == 'grid':
        places = np.stack(np.meshgrid(range(10), range(10)), -1).reshape(-1, 2)[:: 100 // n][:n]
        boxes = np.concatenate([20 * places, 20 * places + 15], 1)
    return boxes.astype(np.float32)


def draw_scores(n: int, seed: int = 0, levels: int | None = None) -> np.ndarray:
    """Scores [n] in 0..1, all different unless `levels` says how many values there are."""
    rng = np.random.default_rng((n, seed))
    scores = (rng.permutation(n) + 0.5) / n
    return (scores if levels is None else np.floor(scores * levels) / levels).astype(np.float32)


def iou_with(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU of a box [4] and others [n, 4] in their own precision; 0 where neither has an area."""
    width, height = np.maximum(np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2]), 0).T
    areas = [(b[..., 2] - b[..., 0]) * (b[..., 3] - b[..., 1]) for b in (box, others)]
    union = areas[0] + areas[1] - width * height
    return np.divide(width * height, union, out=np.zeros_like(union), where=union > 0)


def loop_nms(boxes, scores, threshold, limit, valid=None, labels=None) -> list[int]:
    """Greedy suppression as its definition says."""
    kept: list[int] = []
    for i in np.argsort(-scores, kind='stable'):
        if (valid is not None and not valid[i]) or len(kept) == limit or np.isnan(scores[i]):
            continue
        rivals = [k for k in kept if labels is None or labels[k] == labels[i]]
        if not (iou_with(boxes[i], boxes[rivals]) > np.float32(threshold)).any():
            kept.append(int(i))
    return kept


def loop_match(iou, valid, threshold) -> np.ndarray:
    """SSD's matching as its definition says: the largest pair again and again, then the threshold."""
    matches, objects = np.full(len(iou), -1), {j for j in range(iou.shape[1]) if valid[j]}
    free = set(objects)
    while True:
        pairs = [(-iou[i, j], i, j) for i in range(len(iou)) if matches[i] < 0 for j in free if iou[i, j] > 0]
        if not pairs:
            break
        _, i, j = min(pairs)
        matches[i] = j
        free.remove(j)
    for i in range(len(iou)):
        closest = min(((-iou[i, j], j) for j in objects), default=(0, -1))
        if matches[i] < 0 and -closest[0] >= threshold and closest[0] < 0:
            matches[i] = closest[1]
    return matches
