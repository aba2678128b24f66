"""Torch's side of benchmarks/regions.py. It needs torch and torchvision, and imports nothing of Canon."""

import torch
import torchvision
from regions import ANCHOR_SIZES, GRIDS, SIZE, draw_features, draw_proposal_outputs, draw_regions
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork
from turns import serve_torch


def align(gradient: bool):
    maps, cotangent = map(torch.from_numpy, draw_features())
    maps = maps.permute(0, 3, 1, 2).contiguous().requires_grad_(gradient)
    cotangent = cotangent[0].permute(0, 3, 1, 2).contiguous()
    boxes = [torch.from_numpy(draw_regions())]

    def call():
        maps.grad = None
        out = torchvision.ops.roi_align(maps, boxes, 7, 1 / 16, 2)
        if gradient:
            out.backward(cotangent)
        return out

    return call


def filter_proposals():
    """What follows the network: decoding, the best per level, clipping, suppression, the best of all."""
    top = dict(training=1000, testing=1000)
    network = RegionProposalNetwork(None, None, 0.7, 0.3, 256, 0.5, top, top, 0.7).eval()
    maps = [torch.zeros(1, 1, *grid) for grid in GRIDS]
    images = ImageList(torch.zeros(1, 3, SIZE, SIZE), [(SIZE, SIZE)])
    anchors = AnchorGenerator(ANCHOR_SIZES, ((0.5, 1.0, 2.0),) * len(GRIDS))(images, maps)
    scores, offsets = (torch.cat([torch.from_numpy(x) for x in parts], 1) for parts in draw_proposal_outputs())
    counts = [3 * rows * columns for rows, columns in GRIDS]

    def call():
        with torch.no_grad():
            boxes = network.box_coder.decode(offsets.reshape(-1, 4), anchors).view(1, -1, 4)
            return network.filter_proposals(boxes, scores, images.image_sizes, counts)

    return call


WORKS = {
    'roi_align': lambda: align(False),
    'roi_align_gradient': lambda: align(True),
    'proposals': filter_proposals,
}


if __name__ == '__main__':
    serve_torch(WORKS)
