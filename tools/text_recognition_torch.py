"""Torch's side of benchmarks/text_recognition.py. It needs torch, and imports nothing of Canon."""

import torch
from torch import nn
from turns import form, serve_torch

BATCH, SIZE = 64, (32, 100)
CTC = {'ctc_37': (64, 26, 37, 8), 'ctc_3756': (16, 64, 3756, 16)}  # batch, frames, classes, characters


class CRNN(nn.Module):
    """None-VGG-BiLSTM-CTC of deep-text-recognition-benchmark: images [B, 1, 32, W] -> logits [B, W // 4 - 1, 37]."""

    def __init__(self):
        super().__init__()

        def unit(inputs, outputs, norm=False):
            layers = [nn.Conv2d(inputs, outputs, 3, padding=1, bias=not norm)]
            return [*layers, *([nn.BatchNorm2d(outputs)] if norm else []), nn.ReLU(inplace=True)]

        self.columns = nn.Sequential(
            *(*unit(1, 64), nn.MaxPool2d(2), *unit(64, 128), nn.MaxPool2d(2)),
            *(*unit(128, 256), *unit(256, 256), nn.MaxPool2d((2, 1))),
            *(*unit(256, 512, norm=True), *unit(512, 512, norm=True), nn.MaxPool2d((2, 1))),
            *(nn.Conv2d(512, 512, 2), nn.ReLU(inplace=True)),
        )
        self.first, self.second = (nn.LSTM(n, 256, bidirectional=True, batch_first=True) for n in (512, 256))
        self.linear = nn.ModuleList([nn.Linear(512, 256), nn.Linear(512, 256), nn.Linear(256, 37)])

    def forward(self, x):
        x = self.columns(x).mean(2).transpose(1, 2)
        x = self.linear[0](self.first(x)[0])
        return self.linear[2](self.linear[1](self.second(x)[0]))


def make_network():
    network = form(CRNN().to(memory_format=torch.channels_last))
    return network, torch.randn(BATCH, 1, *SIZE).contiguous(memory_format=torch.channels_last)


def make_forward():
    network, x = make_network()
    network.eval()

    def call():
        with torch.no_grad():
            network(x)

    return call


def compute_ctc(logits, labels):
    """The sum of -log p of rows whose frames and characters all count."""
    rows, frames = logits.shape[:2]
    log_p = logits.log_softmax(-1).transpose(0, 1)
    lengths = [torch.full((rows,), n) for n in (frames, labels.shape[1])]
    return nn.functional.ctc_loss(log_p, labels, *lengths, reduction='sum')


def make_train_step():
    network, x = make_network()
    labels = torch.randint(1, 37, (BATCH, 8))
    optimizer = torch.optim.SGD(network.parameters(), 0.01, 0.9)

    def call():
        optimizer.zero_grad()
        (compute_ctc(network(x), labels) / BATCH).backward()
        optimizer.step()

    return call


def make_ctc(name):
    batch, frames, classes, length = CTC[name]
    logits = torch.randn(batch, frames, classes).requires_grad_()
    labels = torch.randint(1, classes, (batch, length))

    def call():
        logits.grad = None
        compute_ctc(logits, labels).backward()

    return call


if __name__ == '__main__':
    serve_torch(
        {
            'crnn_forward': make_forward,
            'crnn_train': make_train_step,
            'ctc_37': lambda: make_ctc('ctc_37'),
            'ctc_3756': lambda: make_ctc('ctc_3756'),
        }
    )
