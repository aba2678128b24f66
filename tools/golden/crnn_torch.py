"""Writes tests/models/golden/text_recognition.npz: what deep-text-recognition-benchmark's networks compute in torch.

python tools/golden/crnn_torch.py      (needs torch and numpy, nothing of Canon but its tests)

The networks are built here from torch's layers under the benchmark's names, narrow: None-VGG-BiLSTM-CTC at heights of
32 and 64 (EasyOCR's) with 37 and 97 classes, crnn.pytorch's form of CRNN, and VGG-BiLSTM-Attn without and with the TPS
rectifier, read with given characters and with its own. Weights and images are drawn by the rule of
tests/models/drawn.py. Of each network: the keys and shapes of its state and its outputs; of the full-sized benchmark
and EasyOCR's the keys and shapes.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.models.drawn import draw_parameter, images  # noqa: E402

WIDTH, HIDDEN, FIDUCIALS = 32, 6, 8


class Scope(nn.Module):
    """A module that only holds others by name."""

    def __init__(self, **modules):
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)


class BiLSTM(Scope):
    def __init__(self, inputs, hidden, outputs, linear='linear'):
        rnn = nn.LSTM(inputs, hidden, bidirectional=True, batch_first=True)
        super().__init__(rnn=rnn, **{linear: nn.Linear(2 * hidden, outputs)})
        self.last = linear

    def forward(self, x):
        return getattr(self, self.last)(self.rnn(x)[0])


def vgg(width):
    a, b, c = width // 8, width // 4, width // 2
    rows = [
        nn.Conv2d(1, a, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2, 2),
        nn.Conv2d(a, b, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2, 2),
        nn.Conv2d(b, c, 3, 1, 1), nn.ReLU(),
        nn.Conv2d(c, c, 3, 1, 1), nn.ReLU(), nn.MaxPool2d((2, 1), (2, 1)),
        nn.Conv2d(c, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d((2, 1), (2, 1)),
        nn.Conv2d(width, width, 2, 1, 0), nn.ReLU(),
    ]  # fmt: skip
    return nn.Sequential(*rows)


class Benchmark(Scope):
    def __init__(self, width, hidden, prediction, fiducials=0):
        modules = {'Transformation': TPS(fiducials)} if fiducials else {}
        super().__init__(
            **modules,
            FeatureExtraction=Scope(ConvNet=vgg(width)),
            SequenceModeling=nn.Sequential(BiLSTM(width, hidden, hidden), BiLSTM(hidden, hidden, hidden)),
            Prediction=prediction,
        )
        self.rectify = bool(fiducials)

    def forward(self, x, *arguments):
        x = self.Transformation(x) if self.rectify else x
        columns = self.FeatureExtraction.ConvNet(x).mean(2).transpose(1, 2)
        return self.Prediction(self.SequenceModeling(columns), *arguments)


class PyTorchCRNN(Scope):
    """meijieru's CRNN: BatchNorm after convolutions 3, 5 and 7, pools of 2x2 with a column of padding."""

    def __init__(self, width, hidden, classes):
        widths = (1, width // 8, width // 4, width // 2, width // 2, width, width, width)
        modules = {}
        for i in range(7):
            modules[f'conv{i}'] = nn.Conv2d(widths[i], widths[i + 1], 2 if i == 6 else 3, 1, 0 if i == 6 else 1)
            if i in (2, 4, 6):
                modules[f'batchnorm{i}'] = nn.BatchNorm2d(widths[i + 1])
            modules[f'relu{i}'] = nn.ReLU()
            if i in (0, 1):
                modules[f'pooling{i}'] = nn.MaxPool2d(2, 2)
            if i in (3, 5):
                modules[f'pooling{i // 2 + 1}'] = nn.MaxPool2d((2, 2), (2, 1), (0, 1))
        cnn = nn.Sequential()
        for name, module in modules.items():
            cnn.add_module(name, module)
        rows = BiLSTM(width, hidden, hidden, 'embedding'), BiLSTM(hidden, hidden, classes, 'embedding')
        super().__init__(cnn=cnn, rnn=nn.Sequential(*rows))

    def forward(self, x):
        return self.rnn(self.cnn(x)[:, :, 0].transpose(1, 2))


class Attention(Scope):
    def __init__(self, inputs, hidden, classes):
        cell = Scope(
            i2h=nn.Linear(inputs, hidden, bias=False),
            h2h=nn.Linear(hidden, hidden),
            score=nn.Linear(hidden, 1, bias=False),
            rnn=nn.LSTMCell(inputs + classes, hidden),
        )
        super().__init__(attention_cell=cell, generator=nn.Linear(hidden, classes))
        self.hidden, self.classes = hidden, classes

    def forward(self, memory, tokens=None, steps=0):
        """Logits of each step, given `tokens` [B, steps], or the own ones if None."""
        cell, rows = self.attention_cell, len(memory)
        h = c = torch.zeros(rows, self.hidden)
        token, logits = torch.zeros(rows, dtype=torch.long), []
        for step in range(steps if tokens is None else tokens.shape[1]):
            token = token if tokens is None else tokens[:, step]
            energies = cell.score(torch.tanh(cell.i2h(memory) + cell.h2h(h)[:, None]))
            context = (energies.softmax(1) * memory).sum(1)
            one_hot = nn.functional.one_hot(token, self.classes).to(memory)
            h, c = cell.rnn(torch.cat([context, one_hot], 1), (h, c))
            logits.append(self.generator(h))
            token = logits[-1].argmax(1)
        return torch.stack(logits, 1)


class TPS(Scope):
    """The benchmark's rectifier: predicted points, a spline through them, border-clamped sampling."""

    def __init__(self, fiducials):
        conv, inputs = [], 1
        for i, channels in enumerate((64, 128, 256, 512)):
            conv += [nn.Conv2d(inputs, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
            conv.append(nn.MaxPool2d(2, 2) if i < 3 else nn.AdaptiveAvgPool2d(1))
            inputs = channels
        network = Scope(
            conv=nn.Sequential(*conv),
            localization_fc1=nn.Sequential(nn.Linear(512, 256), nn.ReLU()),
            localization_fc2=nn.Linear(256, 2 * fiducials),
        )
        super().__init__(LocalizationNetwork=network)
        self.fiducials = fiducials

    def forward(self, x):
        net = self.LocalizationNetwork
        points = net.localization_fc2(net.localization_fc1(net.conv(x).flatten(1))).reshape(len(x), -1, 2).double()
        across = np.linspace(-1, 1, self.fiducials // 2)
        fixed = torch.tensor([(a, y) for y in (-1.0, 1.0) for a in across], dtype=torch.float64)
        count = self.fiducials
        system = torch.zeros(count + 3, count + 3, dtype=torch.float64)
        distances = (fixed[:, None] - fixed[None]).norm(dim=-1)
        system[:count, 0], system[:count, 1:3] = 1, fixed
        system[:count, 3:] = torch.where(distances > 0, distances**2 * distances.clamp_min(1e-300).log(), 0)
        system[count : count + 2, 3:], system[count + 2, 3:] = fixed.T, 1
        zeros = torch.zeros(len(x), 3, 2, dtype=torch.float64)
        coefficients = torch.linalg.solve(system, torch.cat([points, zeros], 1))
        height, width = x.shape[2:]
        rows, columns = ((2 * torch.arange(n, dtype=torch.float64) + 1) / n - 1 for n in (height, width))
        grid = torch.stack([columns.repeat(height), rows.repeat_interleave(width)], 1)
        distances = (grid[:, None] - fixed[None]).norm(dim=-1)
        radial = distances**2 * (distances + 1e-6).log()  # the benchmark's guard of the logarithm
        basis = torch.cat([torch.ones(len(grid), 1, dtype=torch.float64), grid, radial], 1)
        places = (basis @ coefficients).reshape(len(x), height, width, 2).to(x)
        return nn.functional.grid_sample(x, places, padding_mode='border', align_corners=True)


def shapes(network):
    return {k: tuple(v.shape) for k, v in network.state_dict().items() if not k.endswith('tracked')}


def drawn(network):
    network = network.eval()
    state = {k: torch.from_numpy(draw(k, s)) for k, s in shapes(network).items()}
    network.load_state_dict(network.state_dict() | state)
    return network


def draw(key, shape):
    """As `draw_parameter`; the rectifier's points stay close to the borders, where they start in a trained one."""
    value = draw_parameter(key, shape)
    if key.endswith('localization_fc2.weight'):
        return value * np.float32(0.02)
    if key.endswith('localization_fc2.bias'):
        across = np.linspace(-0.9, 0.8, shape[0] // 4)
        return np.array([(a, y + 0.2 * a) for y in (-0.7, 0.6) for a in across], np.float32).ravel()
    return value


def batch(height, width):
    return torch.from_numpy(images(2, height, width, 1).transpose(0, 3, 1, 2))


def main():
    tokens = torch.tensor([[0, 3, 4, 2, 9], [0, 5, 5, 1, 0]])
    cases = {
        'dtrb32': (Benchmark(WIDTH, HIDDEN, nn.Linear(HIDDEN, 37)), 32, ()),
        'dtrb64': (Benchmark(WIDTH, HIDDEN, nn.Linear(HIDDEN, 97)), 64, ()),
        'crnn_pytorch': (PyTorchCRNN(WIDTH, HIDDEN, 37), 32, ()),
        'attention': (Benchmark(WIDTH, HIDDEN, Attention(HIDDEN, HIDDEN, 38)), 32, (tokens,)),
        'rectified': (Benchmark(WIDTH, HIDDEN, Attention(HIDDEN, HIDDEN, 38), FIDUCIALS), 32, (tokens,)),
    }
    arrays = {'tokens': tokens.numpy()}
    for name, (network, height, arguments) in cases.items():
        network = drawn(network)
        arrays[f'{name}/logits'] = network(batch(height, 100), *arguments).numpy()
        if arguments:
            arrays[f'{name}/read'] = network(batch(height, 100), None, 7).numpy()
        if name == 'rectified':
            arrays['rectified/image'] = network.Transformation(batch(height, 100)).numpy()[:, 0]
    sizes = {name: network for name, (network, *_) in cases.items()}
    sizes['dtrb_full'] = Benchmark(512, 256, nn.Linear(256, 37))
    sizes['easyocr_full'] = Benchmark(256, 256, nn.Linear(256, 97))
    for name, network in sizes.items():
        rows = shapes(network)
        arrays[f'{name}/keys'] = np.array(list(rows))
        arrays[f'{name}/shapes'] = np.array([','.join(map(str, shape)) for shape in rows.values()])
    np.savez_compressed(ROOT / 'tests/models/golden/text_recognition.npz', **arrays)


if __name__ == '__main__':
    with torch.no_grad():
        main()
