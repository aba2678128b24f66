"""Steps lowered on this machine for TPU and CUDA: no call of the host, the state donated, bfloat16 where it is set.

No accelerator is needed to lower a program, only to run it.
"""

import re
from collections import Counter

import jax
import pytest

from canon import backend
from canon.train.setup import make_setup
from experiments import configs
from tests.experiments.offline import make_offline

TRAINED = (
    'adaptation/adda_digits',
    'classification/alexnet',
    'detection/yolo_digits',
    'language_modelling/awd_lstm',
    'nerf/blender',
    'shapes/deepsdf',
    'text_recognition/crnn',
    'translation/catalogue',
    'volume_rendering/phantom',
)
SLOWER_TO_TRACE = (
    'adaptation/ada_bn_digits',
    'detection/bccd',
    'detection/faster_rcnn_digits',
    'optimizer_lab/adagrad_rate',
    'segmentation/camvid',
    'text_recognition/attention_reader',
    'tracking/embedding_digits',
)


def list_sources(fast, slow):
    return [*fast, *(pytest.param(source, marks=pytest.mark.slow) for source in slow)]


def make(source, root, folder, **model):
    config = configs.load(f'{root}/configs/{source}')
    if model:
        config.model.update(model)
    return make_setup(*make_offline(config, folder))


def lower(setup, platform):
    step = setup.compiled_step()
    traced = step.func.trace(*step.args, setup.target, setup.first)
    return traced.lower(lowering_platforms=(platform,)).as_text()


def count_products(program):
    """The types of both sides of all products and convolutions, with their number."""
    pairs = re.findall(r'stablehlo\.(?:convolution|dot_general).*?: \(tensor<([^>]*)>, tensor<([^>]*)>\)', program)
    return Counter(tuple(side.rpartition('x')[2] for side in pair) for pair in pairs)


def count_donated(program):
    """(donated, other) arguments of the program."""
    start = program.index('@main(')
    arguments = re.split(r'%arg\d+: ', program[start : program.index(' -> ', start)])[1:]
    donated = sum('tf.aliasing_output' in a or 'jax.buffer_donor' in a for a in arguments)
    return donated, len(arguments) - donated


@pytest.mark.parametrize('source', list_sources(TRAINED, SLOWER_TO_TRACE))
def test_a_step_for_accelerators_stays_on_them(source, root, tmp_path):
    with backend.forms('plain'):
        setup = make(f'{source}.py:smoke', root, tmp_path)
        for platform in ('tpu', 'cuda'):
            program = lower(setup, platform)
            assert 'custom_call' not in program  # neither of the host nor of libraries that one of them lacks
            donated, others = count_donated(program)
            assert donated > 0
            # All of the state that the step reads: what it overwrites unread is no argument of the program.
            assert others <= len(jax.tree.leaves((setup.constants, setup.first)))


@pytest.mark.parametrize(
    'source', list_sources(['classification/lenet_digits'], ['classification/resnet', 'classification/mobilenet_v2'])
)
def test_products_are_in_bfloat16(source, root, tmp_path):
    with backend.forms('plain'):
        products = count_products(lower(make(f'{source}.py:smoke', root, tmp_path, dtype='bfloat16'), 'tpu'))
    assert set(products) == {('bf16', 'bf16')}
    assert products.total() >= 10


def test_the_compiled_step_writes_the_state_in_place(root, tmp_path):
    setup = make('classification/lenet_digits.py:smoke', root, tmp_path)
    step = setup.compiled_step()
    memory = step.func.lower(*step.args, setup.target, setup.first).compile().memory_analysis()
    state = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(setup.target))
    assert memory.alias_size_in_bytes == state
    assert memory.output_size_in_bytes < state + 1000  # besides it only the metrics
