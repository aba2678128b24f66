"""Torch's side of benchmarks/detection.py. It needs torch and torchvision, and imports nothing of Canon."""

import torch
import torchvision
from boxes import draw_boxes, draw_objects
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.detection.faster_rcnn import FasterRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.ops.misc import FrozenBatchNorm2d
from turns import form, serve_torch

BATCH, SIZE, REGION_SIZE, CLASSES, OBJECTS = 4, 300, 320, 91, 8


def suppress(kind: str, threshold: float):
    boxes, scores = map(torch.from_numpy, draw_boxes(kind, 2000))
    return lambda: torchvision.ops.nms(boxes, scores, threshold)


def build_ssd():
    net = torchvision.models.detection.ssd300_vgg16(weights=None, weights_backbone=None, num_classes=CLASSES)
    images = torch.randn(BATCH, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    net = net.to(memory_format=torch.channels_last)
    net.backbone = form(net.backbone)
    return net, images


def forward():
    """The backbone and the heads, without the normalisation of the images and the suppression."""
    net, images = build_ssd()
    net.eval()

    def call():
        with torch.no_grad():
            return net.head(list(net.backbone(images).values()))

    return call


def train():
    """The same with matching, the MultiBox loss, its gradient and SGD with momentum."""
    net, images = build_ssd()
    boxes, labels = map(torch.from_numpy, draw_objects(BATCH, OBJECTS, SIZE, CLASSES - 1))
    targets = [{'boxes': b, 'labels': c + 1} for b, c in zip(boxes, labels, strict=True)]
    optimizer = torch.optim.SGD(net.parameters(), 1e-3, 0.9)
    box_iou, sizes = torchvision.ops.box_iou, [(SIZE, SIZE)] * BATCH

    def call():
        optimizer.zero_grad()
        maps = list(net.backbone(images).values())
        priors = net.anchor_generator(ImageList(images, sizes), maps)
        matches = [net.proposal_matcher(box_iou(t['boxes'], p)) for t, p in zip(targets, priors, strict=True)]
        sum(net.compute_loss(targets, net.head(maps), priors, matches).values()).backward()
        optimizer.step()

    return call


def build_faster_rcnn(batch: int):
    backbone = torchvision.models.resnet50(weights=None, norm_layer=FrozenBatchNorm2d)
    net = FasterRCNN(_resnet_fpn_extractor(backbone, 3), num_classes=CLASSES)
    with torch.no_grad():
        for parameter in net.rpn.parameters():
            parameter.mul_(1e-4)
    images = torch.randn(batch, 3, REGION_SIZE, REGION_SIZE).contiguous(memory_format=torch.channels_last)
    net = net.to(memory_format=torch.channels_last)
    net.backbone = form(net.backbone)
    return net, ImageList(images, [(REGION_SIZE, REGION_SIZE)] * batch)


def detect():
    """Without the normalisation and the resizing of the images."""
    net, images = build_faster_rcnn(1)
    net.eval()

    def call():
        with torch.no_grad():
            maps = net.backbone(images.tensors)
            proposals, _ = net.rpn(images, maps)
            return net.roi_heads(maps, proposals, images.image_sizes)

    return call


def train_faster_rcnn():
    net, images = build_faster_rcnn(2)
    boxes, labels = map(torch.from_numpy, draw_objects(2, OBJECTS, REGION_SIZE, CLASSES - 1))
    targets = [{'boxes': b, 'labels': c + 1} for b, c in zip(boxes, labels, strict=True)]
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], 1e-12, 0.9)

    def call():
        optimizer.zero_grad()
        maps = net.backbone(images.tensors)
        proposals, first = net.rpn(images, maps, targets)
        _, second = net.roi_heads(maps, proposals, images.image_sizes, targets)
        sum((first | second).values()).backward()
        optimizer.step()

    return call


WORKS = {
    'nms_clustered_0.5': lambda: suppress('clustered', 0.5),
    'nms_clustered_0.7': lambda: suppress('clustered', 0.7),
    'nms_spread_0.5': lambda: suppress('spread', 0.5),
    'nms_spread_0.7': lambda: suppress('spread', 0.7),
    'ssd300_forward': forward,
    'ssd300_train': train,
    'faster_rcnn_forward': detect,
    'faster_rcnn_train': train_faster_rcnn,
}


if __name__ == '__main__':
    serve_torch(WORKS)
