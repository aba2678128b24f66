"""pycocotools' side of benchmarks/detection_scoring.py, and what both sides score. Imports nothing of Canon."""

import contextlib
import io

import numpy as np
from turns import serve

IMAGES, CLASSES, OBJECTS, DETECTIONS = 1000, 20, 16, 100


def draw_set():
    """Draws (detections, truth) of 1,000 images: 0 to 16 objects of 20 classes, 100 detections, half near one."""
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 400, (IMAGES, OBJECTS, 2))
    sides = np.exp(rng.uniform(np.log(10), np.log(250), (IMAGES, OBJECTS, 2)))
    boxes = np.concatenate([corner, corner + sides], -1).astype(np.float32)
    labels = rng.integers(0, CLASSES, (IMAGES, OBJECTS))
    valid = np.arange(OBJECTS) < rng.integers(0, OBJECTS + 1, (IMAGES, 1))
    target = rng.integers(0, OBJECTS, (IMAGES, DETECTIONS))
    near = np.take_along_axis(boxes, target[..., None], 1)
    size = np.tile(near[..., 2:] - near[..., :2], 2)
    found = near + rng.normal(0, 0.1, near.shape) * size
    far = rng.uniform(0, 400, (IMAGES, DETECTIONS, 2))
    random = rng.random((IMAGES, DETECTIONS, 1)) < 0.5
    found = np.where(random, np.concatenate([far, far + rng.uniform(5, 200, far.shape)], -1), found)
    found = np.concatenate([np.minimum(found[..., :2], found[..., 2:]), np.maximum(found[..., :2], found[..., 2:])], -1)
    kinds = np.where(random[..., 0], rng.integers(0, CLASSES, target.shape), np.take_along_axis(labels, target, 1))
    scores = np.sort(rng.random(target.shape), 1)[:, ::-1]
    detections = {'boxes': found, 'scores': scores, 'labels': kinds, 'valid': np.ones(target.shape, bool)}
    truth = {'boxes': boxes, 'labels': labels, 'valid': valid, 'image_id': np.arange(IMAGES)}
    return {name: np.asarray(x, np.float32) if x.dtype == float else x for name, x in detections.items()}, truth


def score(single_threshold: bool):
    """Returns a call that loads the detections and scores them; the objects are loaded once, before."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    detections, truth = draw_set()
    objects = []
    for i, k in np.argwhere(truth['valid']).tolist():
        x0, y0, x1, y1 = truth['boxes'][i, k].tolist()
        one = dict(image_id=i, category_id=int(truth['labels'][i, k]) + 1, bbox=[x0, y0, x1 - x0, y1 - y0])
        objects.append(one | dict(id=len(objects) + 1, area=(x1 - x0) * (y1 - y0), iscrowd=0))
    images = [dict(id=i) for i in range(IMAGES)]
    with contextlib.redirect_stdout(io.StringIO()):
        api = COCO()
        api.dataset = dict(images=images, annotations=objects, categories=[dict(id=c + 1) for c in range(CLASSES)])
        api.createIndex()

    def call():
        boxes = detections['boxes'].astype(np.float64)
        image = np.repeat(np.arange(IMAGES), DETECTIONS)[:, None]
        corners = np.concatenate([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], -1).reshape(-1, 4)
        columns = (detections['scores'].reshape(-1, 1), detections['labels'].reshape(-1, 1) + 1)
        with contextlib.redirect_stdout(io.StringIO()):
            results = api.loadRes(np.concatenate([image, corners, *columns], 1))
            evaluation = COCOeval(api, results, 'bbox')
            if single_threshold:
                evaluation.params.iouThrs, evaluation.params.maxDets = np.array([0.5]), [DETECTIONS]
                evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ['all']
            evaluation.evaluate()
            evaluation.accumulate()
            if not single_threshold:  # the summary is that of the twelve numbers
                evaluation.summarize()
        return evaluation.eval['precision']

    return call


if __name__ == '__main__':
    serve({'voc': lambda: score(True), 'coco': lambda: score(False)}, 'pycocotools')
