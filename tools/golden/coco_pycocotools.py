"""Writes tests/metrics/golden/coco.npz: COCO's twelve numbers by pycocotools, of random detections that it stores too.

python tools/golden/coco_pycocotools.py      (needs pycocotools and numpy)
"""

from pathlib import Path

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

IMAGES, CLASSES, OBJECTS, DETECTIONS = 40, 5, 12, 130
SIZES = {'coco': (32.0**2, 96.0**2), 'digits': (16.0**2, 32.0**2)}


def draw():
    """Objects of all sizes, some crowds, images without objects or without detections, ties, and class 4 nowhere."""
    rng = np.random.default_rng(16)
    boxes, labels = np.zeros((IMAGES, OBJECTS, 4), np.float32), np.zeros((IMAGES, OBJECTS), np.int32)
    valid = np.arange(OBJECTS) < rng.integers(0, OBJECTS + 1, (IMAGES, 1))
    valid[:3] = False
    sides = np.exp(rng.uniform(np.log(8), np.log(200), (IMAGES, OBJECTS, 2)))
    sides[rng.random((IMAGES, OBJECTS)) < 0.1] = 32  # on the threshold of area, hence both small and medium
    corner = rng.uniform(0, 300, (IMAGES, OBJECTS, 2))
    boxes[...] = np.round(4 * np.concatenate([corner, corner + sides], -1)) / 4
    labels[...] = rng.integers(0, CLASSES - 1, labels.shape)
    crowd = rng.random(labels.shape) < 0.15
    found = np.zeros((IMAGES, DETECTIONS, 4), np.float32)
    kinds, scores = np.zeros((IMAGES, DETECTIONS), np.int32), np.zeros((IMAGES, DETECTIONS), np.float32)
    shown = np.arange(DETECTIONS) < rng.integers(0, 50, (IMAGES, 1))
    shown[[2, 5]], shown[7] = False, True  # more than the 100 that COCO considers
    for i in range(IMAGES):
        for d in range(DETECTIONS):
            if valid[i].any() and rng.random() < 0.75:
                target = rng.choice(np.flatnonzero(valid[i]))
                size = boxes[i, target, 2:] - boxes[i, target, :2]
                box = boxes[i, target] + rng.normal(0, 0.12, 4) * np.tile(size, 2)
                kinds[i, d] = labels[i, target] if rng.random() < 0.9 else rng.integers(0, CLASSES)
            else:
                corner = rng.uniform(0, 300, 2)
                box, kinds[i, d] = np.concatenate([corner, corner + rng.uniform(5, 150, 2)]), rng.integers(0, CLASSES)
            found[i, d] = np.concatenate([np.minimum(box[:2], box[2:]), np.maximum(box[:2], box[2:])])
        scores[i] = np.round(rng.random(DETECTIONS), 2)  # with ties
        order = np.argsort(-scores[i], kind='stable')
        scores[i], kinds[i], found[i] = scores[i, order], kinds[i, order], found[i, order]
    truth = dict(boxes=boxes, labels=labels, valid=valid, crowd=crowd)
    return truth, dict(boxes=found, labels=kinds, scores=scores, valid=shown)


def annotate(rows, image):
    for d in np.flatnonzero(rows['valid'][image]):
        x0, y0, x1, y1 = rows['boxes'][image, d].astype(np.float64).tolist()
        yield d, dict(image_id=image, category_id=int(rows['labels'][image, d]) + 1, bbox=[x0, y0, x1 - x0, y1 - y0])


def main():
    truth, found = draw()
    objects, results = [], []
    for i in range(IMAGES):
        for d, one in annotate(truth, i):
            area = one['bbox'][2] * one['bbox'][3]
            objects.append(one | dict(id=len(objects) + 1, area=area, iscrowd=int(truth['crowd'][i, d])))
        results += [one | dict(score=float(found['scores'][i, d])) for d, one in annotate(found, i)]
    api = COCO()
    api.dataset = dict(
        images=[dict(id=i) for i in range(IMAGES)],
        annotations=objects,
        categories=[dict(id=c + 1) for c in range(CLASSES)],
    )
    api.createIndex()
    out = {f'truth_{k}': v for k, v in truth.items()} | {f'detections_{k}': v for k, v in found.items()}
    for name, (small, medium) in SIZES.items():
        evaluation = COCOeval(api, api.loadRes(results), 'bbox')
        evaluation.params.areaRng = [[0, 1e10], [0, small], [small, medium], [medium, 1e10]]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        out |= {f'{name}_sizes': np.array((small, medium)), f'{name}_stats': evaluation.stats}
        precision = evaluation.eval['precision'][..., -1]
        out[f'{name}_class_size_ap'] = precision.mean((0, 1))  # [C, 4], -1 for a class without objects of the size
        out[f'{name}_class_ap50'] = precision[0, ..., 0].mean(0)
    np.savez_compressed(Path(__file__).parents[2] / 'tests/metrics/golden/coco.npz', **out)


if __name__ == '__main__':
    main()
