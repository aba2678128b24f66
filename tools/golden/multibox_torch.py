"""Writes tests/losses/golden/multibox.npz: torchvision's SSD loss and its gradients for the inputs of
tests/losses/drawn_boxes.py.

python -m tools.golden.multibox_torch      (from the root of the repository; needs torch, torchvision and numpy)
"""

from types import SimpleNamespace

import numpy as np
import torch
from torchvision.models.detection import _utils, ssd
from torchvision.ops import box_iou

from tests.losses.drawn_boxes import draw_predictions, draw_priors


def main():
    priors = torch.from_numpy(draw_priors())
    drawn = {key: torch.from_numpy(value) for key, value in draw_predictions(len(priors)).items()}
    offsets, logits = (drawn[key].requires_grad_() for key in ('offsets', 'logits'))
    matcher, targets, matched = _utils.SSDMatcher(0.5), [], []
    for boxes, labels, valid in zip(drawn['boxes'], drawn['labels'], drawn['valid'], strict=True):
        targets.append({'boxes': boxes[valid], 'labels': 1 + labels[valid].long()})  # torchvision's 0 is background
        none = torch.full((len(priors),), -1)
        matched.append(matcher(box_iou(boxes[valid], priors)) if valid.any() else none)
    settings = SimpleNamespace(box_coder=_utils.BoxCoder((10.0, 10.0, 5.0, 5.0)), neg_to_pos_ratio=3)
    heads = {'bbox_regression': offsets, 'cls_logits': logits}
    losses = ssd.SSD.compute_loss(settings, targets, heads, [priors] * len(targets), matched)
    sum(losses.values()).backward()
    np.savez_compressed(
        'tests/losses/golden/multibox.npz',
        localisation=losses['bbox_regression'].item(),
        confidence=losses['classification'].item(),
        matched=torch.stack(matched).numpy().astype(np.int8),
        offsets=offsets.grad.numpy(),
        logits=logits.grad.numpy(),
    )


if __name__ == '__main__':
    main()
