"""Torch's side of benchmarks/segmentation.py. It needs torch and torchvision, and imports nothing of Canon."""

import torch
import torchvision
from turns import form, serve_torch

BATCH, SIZE, CLASSES = 4, 224, 21


def make_forward():
    network = torchvision.models.segmentation.fcn_resnet50(weights=None, weights_backbone=None, num_classes=CLASSES)
    network = form(network.to(memory_format=torch.channels_last).eval())
    x = torch.randn(BATCH, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)

    def call():
        with torch.no_grad():
            network(x)

    return call


def make_deconvolution():
    """The authors' layer: a transposed convolution of all classes, here by groups of one, and a crop."""
    layer = torch.nn.ConvTranspose2d(CLASSES, CLASSES, 16, 8, groups=CLASSES, bias=False)
    x = torch.randn(BATCH, CLASSES, 34, 34)

    def call():
        with torch.no_grad():
            layer(x)[:, :, 31 : 31 + SIZE, 31 : 31 + SIZE]

    return call


if __name__ == '__main__':
    serve_torch({'fcn_resnet50_forward': make_forward, 'bilinear_deconv': make_deconvolution})
