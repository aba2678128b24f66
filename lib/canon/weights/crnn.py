"""Names of the parameters of text recognisers in deep-text-recognition-benchmark, EasyOCR and crnn.pytorch.

`DTRB`: clovaai/deep-text-recognition-benchmark, None-VGG-BiLSTM-CTC and, with a rectifier, TPS-VGG-BiLSTM-CTC, and
EasyOCR's recognisers of the second generation, which are narrower and have other heights and classes: all of them are
`crnn.dtrb`, whose class 0 is the blank. VGG-BiLSTM-Attn is `attention_reader`.
`CRNN_PYTORCH`: meijieru/crnn.pytorch, the form of the authors' code, `crnn.crnn(batch_norm=(3, 5, 7))`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from canon.weights import published
from canon.weights.layout import Names

# Numbers within the benchmark's Sequential, where each ReLU and each pooling has a number too.
_NUMBERS = {
    'conv1': 0, 'conv2': 3, 'conv3': 6, 'conv4': 8, 'conv5': 11, 'bn5': 12, 'conv6': 14, 'bn6': 15, 'conv7': 18,
}  # fmt: skip
_CONVOLUTIONS = {f'conv{n}': f'cnn.conv{n - 1}' for n in range(1, 8)}
_LSTMS = {
    f'lstm{n}/{ours}': (f'SequenceModeling.{n - 1}.{benchmark}', f'rnn.{n - 1}.{pytorch}')
    for n in (1, 2)
    for ours, benchmark, pytorch in (('lstm', 'rnn', 'rnn'), ('output', 'linear', 'embedding'))
}

_RECTIFIER = {
    **{f'conv{n}': f'LocalizationNetwork.conv.{4 * n - 4}' for n in range(1, 5)},
    **{f'bn{n}': f'LocalizationNetwork.conv.{4 * n - 3}' for n in range(1, 5)},
    'fc1': 'LocalizationNetwork.localization_fc1.0',
    'fc2': 'LocalizationNetwork.localization_fc2',
}
_CELL = {'memory': 'i2h', 'query': 'h2h', 'score': 'score', 'lstm': 'rnn'}

_COLUMNS = {
    **{module: f'FeatureExtraction.ConvNet.{number}' for module, number in _NUMBERS.items()},
    **{module: benchmark for module, (benchmark, _) in _LSTMS.items()},
}
_BENCHMARK = {
    **_COLUMNS,
    **{f'rectifier/{module}': f'Transformation.{key}' for module, key in _RECTIFIER.items()},
    'output': 'Prediction',
}
_ATTENTION = {
    **{f'encoder/{module}': key for module, key in _BENCHMARK.items() if module != 'output'},
    **{f'cell/{module}': f'Prediction.attention_cell.{key}' for module, key in _CELL.items()},
    'output': 'Prediction.generator',
}
_PYTORCH = {
    **_CONVOLUTIONS,
    **{f'bn{n}': f'cnn.batchnorm{n - 1}' for n in (3, 5, 7)},
    **{module: pytorch for module, (_, pytorch) in _LSTMS.items()},
}

# The rectifier's matrices depend on the size of the image alone: the benchmark stores them, we compute them.
_IGNORED = r'num_batches_tracked$|GridGenerator\.(inv_delta_C|P_hat)$'
_DTRB = Names(_BENCHMARK.__getitem__, ignored=_IGNORED, required=(*_COLUMNS, 'output'))
DTRB = {
    'crnn.crnn dtrb': _DTRB,
    'crnn.dtrb': _DTRB,
    'attention_reader.attention_reader': Names(
        _ATTENTION.__getitem__, ignored=_IGNORED, required=('encoder/conv1', 'output'), cells=('cell/lstm',)
    ),
}
CRNN_PYTORCH = {'crnn.crnn': Names(_PYTORCH.__getitem__, required=tuple(_PYTORCH))}


def recogniser_reader(model: str, beside: str = 'agent') -> Callable[[str, Mapping[str, Any]], dict[str, Any] | None]:
    """Makes the function with which an `Experiment` reads published weights into a text recogniser.

    Args:
      model: the constructor that the weights are published for, 'crnn.crnn'.
      beside: what else trains along, such as the agent of Learn to Augment: it keeps its initialisation.

    Returns:
      A function as `canon.weights.reader` makes.
    """
    read_weights = published.reader(model)

    def read(source: str, leaves: Mapping[str, Any]) -> dict[str, Any] | None:
        rest = {name: leaf for name, leaf in leaves.items() if beside in name.split('/')[:2]}
        weights = read_weights(source, {name: leaf for name, leaf in leaves.items() if name not in rest})
        return None if weights is None else rest | weights

    return read
