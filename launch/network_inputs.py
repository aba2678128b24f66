"""Inputs at which `models` counts the networks whose size no table of images states: scenes, shapes, text, tracks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from canon import models
from canon.nn.trace import Costs, count_costs
from canon.rendering.samples import Samples


class NetworkInput(NamedTuple):
    """One network at one input.

    Attributes:
      text: of the input, for the table.
      inputs: what the network is called with, as shapes.
      arguments: of its function, those without a default.
      published: number of parameters and its source, '' if there is none.
      call: further arguments of the call.
    """

    text: str
    inputs: tuple[Any, ...]
    arguments: Mapping[str, Any] = {}
    published: str = ''
    call: Mapping[str, Any] = {}


def count_network(name: str) -> Costs:
    """Counts a network of `INPUTS` at its input."""
    row = INPUTS[name]
    return count_costs(models.make_model(name, **row.arguments), *row.inputs, **row.call)


def _floats(*shape: int) -> Any:
    return jax.ShapeDtypeStruct(shape, np.float32)


def _ints(*shape: int) -> Any:
    return jax.ShapeDtypeStruct(shape, np.int32)


def _image(height: int, width: int, channels: int, **more: Any) -> NetworkInput:
    return NetworkInput(f'an image of {height}x{width}x{channels}', (_floats(1, height, width, channels),), **more)


def _sample(**fields: Any) -> NetworkInput:
    return NetworkInput('a sample of a ray', (Samples(_floats(1, 1, 3), _floats(1, 3), **fields),))


def _window(**more: Any) -> NetworkInput:
    return NetworkInput('35 tokens, 10,000 words', (_ints(1, 35),), dict(vocab=10_000), **more)


def _pair(**more: Any) -> NetworkInput:
    inputs = _ints(1, 25), _ints(1), _ints(1, 25)
    return NetworkInput('25 + 25 tokens, 37,000 words', inputs, dict(vocab=37_000), **more)


_RESNET = {'name': 'resnet.resnet50'}
_VGG = {'name': 'vgg.vgg16'}
_TRACKS = dict(boxes=_floats(1, 8, 4), observed=_floats(1, 8, 4), gaps=_ints(1, 8))
_DETECTIONS = dict(boxes=_floats(1, 8, 4), scores=_floats(1, 8))
INPUTS: dict[str, NetworkInput] = {
    'appearance.backbone_embedding': _image(128, 64, 3, arguments=dict(backbone={'name': 'resnet.resnet18'})),
    'attention_reader.attention_reader': NetworkInput(
        'an image of 32x100x1, 25 characters', (_floats(1, 32, 100, 1), _ints(1, 25))
    ),
    'augmentation_agent.augmentation_agent': _image(32, 100, 1),
    'crnn.crnn': _image(32, 100, 1, published='8.3 M: Shi et al. 2017'),
    'crnn.dtrb': _image(32, 100, 1),
    'cuda_convnet.cifar10': _image(32, 32, 3),
    'deepsdf.deepsdf': NetworkInput(
        'a point', (_floats(1, 256), _floats(1, 1, 3)), published="1,843,195: the authors' code"
    ),
    'domain_adversarial.digit_network': _image(16, 16, 1),
    'domain_adversarial.mlp_network': _image(14, 14, 2),
    'domain_adversarial.projected_network': _image(8, 8, 1),
    'domainbed.mnist_network': _image(28, 28, 2),
    'dvr.dvr': NetworkInput('a point', (_floats(1, 3),)),
    'fast_rcnn.fast_rcnn': NetworkInput(
        'an image of 224x224x3, 300 regions', (_floats(1, 224, 224, 3), _floats(1, 300, 4)), dict(backbone=_RESNET)
    ),
    'faster_rcnn.faster_rcnn': _image(224, 224, 3, arguments=dict(backbone=_RESNET)),
    'fcn.skip_fcn': _image(224, 224, 3, arguments=dict(backbone=_VGG)),
    'feature_pyramid.feature_pyramid': _image(224, 224, 3, arguments=dict(backbone=_RESNET)),
    'hccr.hccr_cnn9': _image(96, 96, 1),
    'igr.igr': NetworkInput('a point', (_floats(1, 3),)),
    'instant_ngp.hash_field': _sample(),
    'instant_ngp.voxels': _sample(),
    'laia.laia': _image(64, 512, 1),
    'mjsynth.char_net': _image(32, 100, 1),
    'mjsynth.dict_net': _image(32, 100, 1, published='490 M: Shi et al. 2015, Table 2'),
    'mjsynth.ngram_net': _image(32, 100, 1),
    'nerf.d_nerf': _sample(times=_floats(1, 1)),
    'nerf.mip_nerf': _sample(covariance=_floats(1, 1, 3)),
    'nerf.nerf': _sample(),
    'occupancy.point_cloud': NetworkInput(
        'a point, a cloud of 300', (_floats(1, 1, 3), _floats(1, 300, 3)), published="10,373,889: the authors' code"
    ),
    'pair_affinity.pair_affinity': NetworkInput('8 tracks, 8 detections', (_TRACKS, _DETECTIONS)),
    'rnn_lm.awd_lstm': _window(published='24,221,600: the authors print it; cuDNN has two bias vectors per layer'),
    'rnn_lm.language_model': _window(),
    'seq2seq.bahdanau': _pair(),
    'seq2seq.luong': _pair(),
    'seq2seq.sutskever': _pair(),
    'srn.srn': NetworkInput('a ray', (_floats(1, 3), _floats(1, 3))),
    'ssd.ssd': _image(224, 224, 3, arguments=dict(backbone=_RESNET)),
    'transformer.base': _pair(published='65 M: Vaswani et al. 2017, Table 3'),
    'transformer.big': _pair(published='213 M: Vaswani et al. 2017, Table 3'),
    'transformer.causal_transformer': _window(),
    'transformer.transformer': _pair(),
    'yolo.backbone_yolo': _image(448, 448, 3, arguments=dict(backbone=_RESNET, stage='conv5_x')),
}
