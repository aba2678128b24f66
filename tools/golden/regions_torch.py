"""Writes tests/ops/golden/regions.npz and tests/losses/golden/regions.npz: what torchvision computes of regions.

python -m tools.golden.regions_torch      (from the root of the repository; needs torch, torchvision and numpy)

ops: RoIAlign and RoI pooling with their gradients, MultiScaleRoIAlign, anchors, matches, and the proposals of
`filter_proposals`, for the inputs of tests/ops/drawn_regions.py. losses: the losses of a region proposal network and of
a head with their gradients, for those of tests/losses/drawn_regions.py; every anchor and region is sampled.
"""

from collections import OrderedDict

import numpy as np
import torch
from torchvision import ops
from torchvision.models.detection import _utils, rpn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss

from tests.losses.drawn_regions import draw_head, draw_rpn
from tests.ops import drawn_regions as drawn
from tests.ops.detections import draw_boxes


def to_nchw(maps: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(maps).permute(0, 3, 1, 2)


def to_nhwc(x: torch.Tensor) -> np.ndarray:
    return x.detach().permute(0, 2, 3, 1).float().numpy()


def pool(function, maps: torch.Tensor, boxes: np.ndarray):
    """Returns the pooled regions [2, R, h, w, C] and the gradient of their sum weighted by cosines."""
    maps = maps.clone().requires_grad_()
    out = function(maps, [torch.from_numpy(b).to(maps.dtype) for b in boxes]).permute(0, 2, 3, 1)
    (out * torch.cos(torch.arange(out.numel(), dtype=out.dtype)).reshape(out.shape)).sum().backward()
    return out.detach().float().numpy().reshape(2, -1, *out.shape[1:]), to_nhwc(maps.grad)


def operations() -> dict:
    out, maps, boxes = {}, to_nchw(drawn.draw_features()), drawn.draw_regions()
    for samples, aligned, size in drawn.SETTINGS:
        name = f'align/{samples}/{aligned}'
        out[name], out[f'{name}/gradient'] = pool(
            lambda m, b, size=size, samples=samples, aligned=aligned: ops.roi_align(
                m, b, size, 1 / drawn.STRIDE, samples, aligned
            ),
            maps.double(),
            boxes,
        )
    out['pool'], out['pool/gradient'] = pool(lambda m, b: ops.roi_pool(m, b, (3, 2), 1 / drawn.STRIDE), maps, boxes)

    pyramid, boxes = drawn.draw_pyramid()
    pooler = ops.MultiScaleRoIAlign(['0', '1', '2', '3'], 3, 2)
    maps = OrderedDict((str(i), to_nchw(m)) for i, m in enumerate(pyramid))
    lists = [torch.from_numpy(b) for b in boxes]
    out['levels'] = to_nhwc(pooler(maps, lists, [(128, 160)] * 2)).reshape(2, -1, 3, 3, 3)
    out['assigned'] = pooler.map_levels(lists).numpy().reshape(2, -1).astype(np.int8)

    generator = AnchorGenerator(drawn.ANCHOR_SIZES, ((0.5, 1.0, 2.0),) * 3)
    maps = [torch.zeros(2, 1, *grid) for grid in ((12, 14), (6, 7), (3, 4))]
    images = ImageList(torch.zeros(2, 3, 96, 112), [(96, 112), (80, 100)])
    anchors = generator(images, maps)
    out['anchors'] = anchors[0].numpy()
    mixed = AnchorGenerator(((32, 64), (90, 33)), ((0.5, 1.0, 2.0, 3.0), (1.0,)))
    out['anchors/mixed'] = mixed(ImageList(torch.zeros(1, 3, 64, 64), [(64, 64)]), [m[:1] for m in maps[1:]])[0].numpy()

    priors, objects = (torch.from_numpy(draw_boxes('integer', n, seed)) for n, seed in ((300, 3), (12, 4)))
    iou = ops.box_iou(objects, priors)
    out['iou'] = iou.T.numpy()
    out['matches'] = _utils.Matcher(0.7, 0.3, True)(iou).numpy().astype(np.int8)
    out['matches/head'] = _utils.Matcher(0.5, 0.5, False)(iou).numpy().astype(np.int8)

    counts = [3 * m.shape[2] * m.shape[3] for m in maps]
    scores, offsets = (np.concatenate(x, 1) for x in drawn.draw_outputs(counts))
    network = rpn.RegionProposalNetwork(
        generator, None, 0.7, 0.3, 256, 0.5, dict(training=0, testing=150), dict(training=0, testing=80), 0.7
    ).eval()
    decoded = network.box_coder.decode(torch.from_numpy(offsets).reshape(-1, 4), anchors).view(2, -1, 4)
    found = network.filter_proposals(decoded, torch.from_numpy(scores), images.image_sizes, counts)
    for i, (kept, probabilities) in enumerate(zip(*found, strict=True)):
        out |= {f'proposals/{i}': kept.numpy(), f'scores/{i}': probabilities.numpy()}
    return out


def losses() -> dict:
    drawn = {k: torch.from_numpy(v) for k, v in draw_rpn().items()}
    targets = [
        {'boxes': b[v], 'labels': 1 + c[v].long()}  # torchvision's class 0 is the background
        for b, c, v in zip(drawn['boxes'], drawn['labels'], drawn['valid'], strict=True)
    ]
    anchors, images = drawn['anchors'], len(targets)
    network = rpn.RegionProposalNetwork(None, None, 0.7, 0.3, len(anchors), 1.0, {}, {}, 0.7)
    labels, matched = network.assign_targets_to_anchors([anchors] * images, targets)
    encoded = network.box_coder.encode(matched, [anchors] * images)
    objectness, offsets = (drawn[k].requires_grad_() for k in ('objectness', 'offsets'))
    values = network.compute_loss(objectness.reshape(-1, 1), offsets.reshape(-1, 4), labels, encoded)
    sum(values).backward()
    out = {
        'rpn/labels': torch.stack(labels).numpy().astype(np.int8),
        'rpn/classification': values[0].item(),
        'rpn/localisation': values[1].item(),
        'rpn/objectness': objectness.grad.numpy(),
        'rpn/offsets': offsets.grad.numpy(),
    }

    drawn = {k: torch.from_numpy(v) for k, v in draw_head().items()}
    count = drawn['logits'].shape[1]
    heads = RoIHeads(None, None, None, 0.5, 0.5, count, 1.0, None, 0.05, 0.5, 100)
    # The objects follow the proposals, and padding among them does not exist for torchvision.
    rows = [torch.cat([torch.ones(count - len(v), dtype=torch.bool), v]) for v in drawn['valid']]
    _, _, labels, encoded = heads.select_training_samples(list(drawn['regions']), targets)
    logits, offsets = (drawn[k].requires_grad_() for k in ('logits', 'offsets'))
    chosen = [torch.cat([x[i][rows[i]] for i in range(images)]) for x in (logits, offsets)]
    values = fastrcnn_loss(chosen[0], chosen[1].flatten(1), labels, encoded)
    sum(values).backward()
    return out | {
        'head/labels': np.concatenate([x.numpy() for x in labels]).astype(np.int8),
        'head/classification': values[0].item(),
        'head/localisation': values[1].item(),
        'head/logits': logits.grad.numpy(),
        'head/offsets': offsets.grad.numpy(),
    }


def main():
    for path, arrays in (('tests/ops/golden/regions.npz', operations()), ('tests/losses/golden/regions.npz', losses())):
        np.savez_compressed(path, **arrays)
        print(path, {k: np.shape(v) for k, v in arrays.items()})


if __name__ == '__main__':
    main()
