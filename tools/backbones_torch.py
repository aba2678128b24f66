"""Torch's side of benchmarks/backbones.py. It needs torch and torchvision, and imports nothing of Canon."""

import torch
import torchvision
from torch.nn import functional as F
from turns import form, serve_torch

BATCH, SIZE = 8, 224


def random_tensor(*shape: int) -> torch.Tensor:
    x = torch.randn(*shape)
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def build_model(name: str):
    net = getattr(torchvision.models, name)(weights=None).to(memory_format=torch.channels_last)
    for layer in net.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
    return form(net), random_tensor(BATCH, 3, SIZE, SIZE)


def forward(name: str):
    net, x = build_model(name)
    net.eval()

    def call():
        with torch.no_grad():
            net(x)

    return call


def train(name: str):
    net, x = build_model(name)
    labels = torch.arange(BATCH)
    optimizer = torch.optim.SGD(net.parameters(), 0.01, 0.9)

    def call():
        optimizer.zero_grad()
        F.cross_entropy(net(x), labels).backward()
        optimizer.step()

    return call


def operation(function, *shapes: tuple[int, ...], gradient: bool = True):
    inputs = [random_tensor(*shape).requires_grad_(gradient) for shape in shapes]
    upstream, function = torch.randn_like(function(*inputs)), form(function)

    def call():
        if not gradient:
            with torch.no_grad():
                function(*inputs)
            return
        torch.autograd.grad(function(*inputs), inputs, upstream)

    return call


def max_pool(x):
    return F.max_pool2d(x, 3, 2, 1)


def lrn(x):
    return F.local_response_norm(x, 5, 1e-4, 0.75, 2.0)


def batch_norm(x, scale, bias):
    return F.batch_norm(x, None, None, scale, bias, training=True, eps=1e-5)


WORKS = {
    'resnet50_forward': lambda: forward('resnet50'),
    'resnet50_train': lambda: train('resnet50'),
    'mobilenet_v2_forward': lambda: forward('mobilenet_v2'),
    'mobilenet_v2_train': lambda: train('mobilenet_v2'),
    'max_pool': lambda: operation(max_pool, (BATCH, 64, 112, 112)),
    'lrn': lambda: operation(lrn, (BATCH, 96, 55, 55), gradient=False),
    'batch_norm': lambda: operation(batch_norm, (BATCH, 256, 56, 56), (256,), (256,)),
}


if __name__ == '__main__':
    serve_torch(WORKS)
