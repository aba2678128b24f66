"""Writes tests/ops/golden/detection.npz and tests/models/golden/ssd300.npz: what torchvision computes of detection.

python tools/golden/detection_torch.py      (needs torch, torchvision and numpy, nothing of Canon but its tests)

detection.npz: boxes, their pairwise IoU and generalised IoU with gradients, encoded and decoded boxes, clipped ones,
matches of SSD's matcher, and for several thresholds what NMS keeps of clustered, spread and integer boxes. ssd300.npz:
`ssd300_vgg16` with the weights and the image of tests/models/drawn.py, computed in float64: of all 8,732 priors the
prior itself, the decoded box, the best class (without the background, from 0) and its score; digests of the raw
outputs and of all scores; the detections; and the keys and shapes of its state.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torchvision
from torchvision.models.detection import _utils as utils
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import boxes as box_ops

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.models.drawn import digest, draw_parameter, images  # noqa: E402
from tests.ops.detections import draw_boxes, draw_scores  # noqa: E402

THRESHOLDS = (0.3, 0.5, 0.7)


def operations():
    a, b = (torch.from_numpy(draw_boxes('clustered', n, seed).astype(np.float64)) for n, seed in ((20, 0), (15, 1)))
    out = {}
    for name, function in (('iou', box_ops.box_iou), ('giou', box_ops.generalized_box_iou)):
        x, y = a.clone().requires_grad_(), b.clone().requires_grad_()
        value = function(x, y)
        (value * torch.cos(torch.arange(value.numel(), dtype=torch.float64)).reshape(value.shape)).sum().backward()
        out |= {name: value.detach().numpy(), f'{name}_da': x.grad.numpy(), f'{name}_db': y.grad.numpy()}
    coder = utils.BoxCoder((10.0, 10.0, 5.0, 5.0))
    out['encoded'] = coder.encode_single(a[:15], b).numpy()
    offsets = torch.from_numpy(np.random.default_rng(2).normal(size=(15, 4)) * 20)  # some beyond the bound of sizes
    out |= {'offsets': offsets.numpy(), 'decoded': coder.decode_single(offsets, b).numpy()}
    out['clipped'] = box_ops.clip_boxes_to_image(a, (90, 70)).numpy()
    # Objects apart from each other: torchvision's matcher is not bipartite where two of them share their best prior.
    priors, objects = (torch.from_numpy(draw_boxes(kind, n, 3)) for kind, n in (('spread', 300), ('grid', 9)))
    out['matches'] = utils.SSDMatcher(0.4)(box_ops.box_iou(objects, priors)).numpy()
    for kind in ('clustered', 'spread', 'integer'):
        boxes, scores = torch.from_numpy(draw_boxes(kind, 400, 4)), torch.from_numpy(draw_scores(400, 4))
        labels = torch.arange(400) % 3
        for threshold in THRESHOLDS:
            out[f'nms/{kind}/{threshold}'] = box_ops.nms(boxes, scores, threshold).numpy().astype(np.int16)
            kept = box_ops.batched_nms(boxes, scores, labels, threshold)
            out[f'batched/{kind}/{threshold}'] = kept.numpy().astype(np.int16)
    return out


def ssd300():
    network = torchvision.models.detection.ssd300_vgg16(weights=None, weights_backbone=None, num_classes=91).eval()
    shapes = {k: tuple(v.shape) for k, v in network.state_dict().items()}
    network.load_state_dict({k: torch.from_numpy(draw_parameter(k, s)) for k, s in shapes.items()})
    network.double()
    x = torch.from_numpy(images(1, 300, 300).transpose(0, 3, 1, 2)).double()
    maps = list(network.backbone(x).values())
    outputs = network.head(maps)
    anchors = network.anchor_generator(ImageList(x, [(300, 300)]), maps)
    (detections,) = network.postprocess_detections(outputs, anchors, [(300, 300)])
    scores = torch.softmax(outputs['cls_logits'][0], -1)
    best, labels = scores[:, 1:].max(-1)
    return {
        'keys': np.array(list(shapes)),
        'shapes': np.array([','.join(map(str, s)) for s in shapes.values()]),
        'maps': np.stack([digest(m.numpy().transpose(0, 2, 3, 1)) for m in maps]),
        'offsets': digest(outputs['bbox_regression'].numpy()),
        'logits': digest(outputs['cls_logits'].numpy()),
        'scores': digest(scores.numpy()),
        'priors': anchors[0].numpy().astype(np.float32),
        'boxes': network.box_coder.decode_single(outputs['bbox_regression'][0], anchors[0]).numpy().astype(np.float32),
        'best_scores': best.numpy().astype(np.float32),
        'best_labels': labels.numpy().astype(np.uint8),
        'detected_boxes': detections['boxes'].numpy().astype(np.float32),
        'detected_scores': detections['scores'].numpy().astype(np.float32),
        'detected_labels': detections['labels'].numpy().astype(np.uint8),
    }


def main():
    for path, arrays in (
        ('tests/ops/golden/detection.npz', operations()),
        ('tests/models/golden/ssd300.npz', None),
    ):
        if arrays is None:
            with torch.no_grad():
                arrays = ssd300()
        np.savez_compressed(ROOT / path, **arrays)
        print(path, (ROOT / path).stat().st_size)


if __name__ == '__main__':
    main()
