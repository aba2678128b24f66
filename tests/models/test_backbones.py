"""The stages that every network offers as a backbone: `docs/networks.md` against the traces, and shapes alone."""

import re

import jax
import numpy as np
import pytest

from canon import models
from canon.named import public_functions
from canon.nn import Network
from canon.nn.trace import select_pyramid, trace_stages

# Deeper networks of the same blocks, which take seconds to trace.
DEEP = (
    'resnet.resnet101', 'resnet.resnet152', 'resnet.resnet110_cifar', 'resnet.resnet1202_cifar',
    'resnet.preact_resnet1001',
)  # fmt: skip


# Networks of detection, segmentation and appearance, most of them on a backbone.
HEADS = {'appearance', 'fcn', 'rcnn', 'spp_net', 'fast_rcnn', 'faster_rcnn', 'ssd', 'yolo'}


def read_documented_stages(root):
    """[(names, size of the images, {stride: (stage, channels)})] of the table of stages."""
    text = (root / 'docs/networks.md').read_text().partition('## Stages of the backbones')[2]
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in text.splitlines() if line.startswith('|')]
    (_, _, *strides), _, *rows = rows
    for names, size, *cells in rows:
        stages = {int(s): (c.split()[0], int(c.split()[1])) for s, c in zip(strides, cells, strict=True) if c}
        yield names.split(', '), int(size), stages


def images_of(names, size):
    return (1, size, size, 1 if names[0].startswith('lenet') else 3)


def test_the_documented_stages_are_those_of_the_traces(root):
    for names, size, expected in read_documented_stages(root):
        model = models.make_model(names[0])
        stages = trace_stages(model, size, images_of(names, size)[-1])
        assert {s: (name, stages[name].channels) for s, name in select_pyramid(stages).items()} == expected, names[0]
        for stage in stages.values():
            assert stage.stride[0] == stage.stride[1]
            assert stage.field[0] == stage.field[1] > 0


def test_every_classifier_is_documented(root):
    families = {row['name'].partition('.')[0] for row in models.list_citations()} - HEADS | {'cuda_convnet'}
    constructors = {name for name in public_functions('canon.models') if name.partition('.')[0] in families}
    assert {name for names, *_ in read_documented_stages(root) for name in names} == constructors


@pytest.mark.slow
def test_networks_of_one_row_have_the_same_stages(root):
    """Names, channels and maps, from shapes alone; and initialising by `features` leaves out the classifier."""
    for names, size, _ in read_documented_stages(root):
        rows = {}
        for name in [n for n in names if n not in DEEP] if len(names) > 1 else []:
            model = models.make_model(name)
            assert isinstance(model, Network)
            images = jax.ShapeDtypeStruct(images_of(names, size), np.float32)
            stages, variables = jax.eval_shape(
                lambda key, x, m=model: m.init_with_output(key, x, method='features'), jax.random.key(0), images
            )
            rows[name] = {stage: x.shape for stage, x in stages.items()}
            assert not set(variables['params']) & {'fc', 'fc6', 'fc8', 'output', 'classifier'}, name
            assert set(variables) <= {'params', 'batch_stats'}
        assert len({str(row) for row in rows.values()}) <= 1, rows


@pytest.mark.parametrize('name', ['resnet.resnet18', 'vgg.vgg11', 'inception.inception_v3', 'mobilenet.mobilenet_v2'])
def test_a_stride_is_that_of_the_maps(name):
    """A stage has size / stride places, less what unpadded windows lose at the border."""
    stages, model = trace_stages(models.make_model(name), 320), models.make_model(name)
    images = jax.ShapeDtypeStruct((1, 320, 320, 3), np.float32)
    shapes, _ = jax.eval_shape(
        lambda key, x: model.init_with_output(key, x, method='features'), jax.random.key(0), images
    )
    for stage, shape in shapes.items():
        assert abs(shape.shape[1] - 320 / stages[stage].stride[0]) <= 4, stage
        assert shape.shape[-1] == stages[stage].channels
    assert re.match('conv|C|mlpconv|stem|bottleneck', next(iter(stages)))
