"""Writes tests/models/golden/faster_rcnn.npz: what torchvision's Faster R-CNN on a feature pyramid computes.

python tools/golden/faster_rcnn_torch.py      (needs torch, torchvision and numpy, nothing of Canon but its tests)

Weights and images are drawn by the rules of tests/models/drawn.py, and everything is computed in float64. 'pyramid': a
`FeaturePyramidNetwork` on three maps of odd sizes, with both kinds of further levels. Of `fasterrcnn_resnet50_fpn` with
91 classes and frozen norms: keys and shapes of its state, digests of the levels, of the outputs of the RPN and its
anchors, of regions pooled from four levels, and of the logits and offsets of all proposals; proposals and detections.
"""

import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
import torchvision
from torchvision.models.detection import backbone_utils, faster_rcnn, rpn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7
from torchvision.ops.misc import FrozenBatchNorm2d

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.models.drawn import digest, draw_detector_parameter, draw_parameter, images  # noqa: E402
from tests.ops.detections import draw_boxes  # noqa: E402

SIZE = (96, 128)  # P6 has 2x2 places, so that torchvision takes strides of 48 and 64 for its anchors
MAPS = ((19, 27, 8), (10, 14, 12), (5, 7, 16))


def to_torch(x):
    return torch.from_numpy(x.transpose(0, 3, 1, 2)).double()


def nhwc(tensor):
    return tensor.numpy().transpose(0, 2, 3, 1)


def load(network, draw):
    shapes = {k: tuple(v.shape) for k, v in network.state_dict().items()}
    network.load_state_dict({k: torch.from_numpy(draw(k, s)) for k, s in shapes.items()})
    network.double().eval()
    return shapes


def pyramid():
    maps = OrderedDict((str(i), to_torch(images(2, *shape))) for i, shape in enumerate(MAPS))
    outputs = {}
    for name, top in (('subsample', LastLevelMaxPool()), ('convolve', LastLevelP6P7(MAPS[-1][-1], 6))):
        network = FeaturePyramidNetwork([channels for *_, channels in MAPS], 6, top)
        load(network, draw_parameter)
        outputs |= {f'pyramid/{name}{i}': nhwc(x) for i, x in enumerate(network(maps).values())}
    return {k: v.astype(np.float32) for k, v in outputs.items()}


def detector():
    backbone = backbone_utils._resnet_fpn_extractor(torchvision.models.resnet50(norm_layer=FrozenBatchNorm2d), 3)
    network = faster_rcnn.FasterRCNN(backbone, num_classes=91)
    torchvision.models.detection._utils.overwrite_eps(network, 0.0)  # as with the published weights
    shapes = load(network, draw_detector_parameter)
    x = ImageList(to_torch(images(1, *SIZE)), [SIZE])
    levels = network.backbone(x.tensors)
    outputs = network.rpn.head(list(levels.values()))
    objectness, offsets = rpn.concat_box_prediction_layers(*map(list, outputs))
    (anchors,) = network.rpn.anchor_generator(x, list(levels.values()))
    (proposals,), _ = network.rpn(x, levels)
    boxes = torch.from_numpy(draw_boxes('spread', 40, 5)).double().clamp(0, 96)
    pooled = MultiScaleRoIAlign(['0', '1', '2', '3'], 7, 2, canonical_scale=28)(levels, [boxes], [SIZE])
    heads = network.roi_heads
    features = heads.box_head(heads.box_roi_pool(levels, [proposals], [SIZE]))
    logits, regression = heads.box_predictor(features)
    (detected,), (scores,), (labels,) = heads.postprocess_detections(logits, regression, [proposals], [SIZE])
    print('objectness', objectness.std(), 'offsets', offsets.std(), 'logits', logits.std(), regression.std())
    print(len(proposals), 'proposals', len(scores), 'detections', scores[:5], scores[-5:], labels.unique())
    print('level sizes', [float(v.abs().max()) for v in levels.values()])
    return {
        'keys': np.array(list(shapes)),
        'shapes': np.array([','.join(map(str, s)) for s in shapes.values()]),
        'levels': np.stack([digest(nhwc(level)) for level in levels.values()]),
        'objectness': digest(objectness.numpy(), 256),
        'offsets': digest(offsets.numpy(), 256),
        'anchors': digest(anchors.numpy(), 256),
        'proposals': proposals.numpy().astype(np.float32),
        'boxes': boxes.numpy().astype(np.float32),
        'pooled': digest(nhwc(pooled), 256),
        'region_logits': digest(logits.numpy(), 256),
        'region_offsets': digest(regression.reshape(len(proposals), -1, 4).numpy(), 256),
        'detected_boxes': detected.numpy().astype(np.float32),
        'detected_scores': scores.numpy().astype(np.float32),
        'detected_labels': labels.numpy().astype(np.uint8),
    }


def main():
    with torch.no_grad():
        arrays = pyramid() | detector()
    path = ROOT / 'tests/models/golden/faster_rcnn.npz'
    np.savez_compressed(path, **arrays)
    print(path.name, path.stat().st_size)


if __name__ == '__main__':
    main()
