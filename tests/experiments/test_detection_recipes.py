"""The recipes of SSD and YOLO: figures of the papers that a run without data cannot check."""

import re

import jax
import jax.numpy as jnp
import pytest

from canon import models
from configs.detection import yolo_voc
from experiments import configs


def load(name):
    return configs.load(f'{configs.ROOT}/configs/detection/{name}.py')


def test_yolo_keeps_the_20_convolutions_that_have_classified_imagenet():
    model = models.make_model('yolo.yolo', num_classes=20)
    variables = jax.eval_shape(lambda key: model.init(key, jnp.zeros((1, 448, 448, 3))), jax.random.key(0))
    kept = [name for name in variables['params'] if not re.search(yolo_voc.NEW, name)]
    assert len(kept) == 20
    assert kept[0] == 'conv1_1'
    assert kept[-1] == 'conv5_4'


def test_yolo_decays_its_weights_as_darknet_although_its_rates_are_halved():
    tx = load('yolo_voc').tx
    ((_, factor),) = tx.scale_rates.rules
    assert factor == 0.5  # of gradients and decay alike
    assert factor * tx.decay.weight_decay == pytest.approx(5e-4)


def test_yolo_is_evaluated_on_all_of_its_boxes_as_every_class():
    detect = load('yolo_voc').detect
    assert detect.per_class == 7 * 7 * 2
    assert detect.max_detections == 7 * 7 * 2 * 20


@pytest.mark.parametrize('name', ['ssd300_voc', 'ssd512_voc', 'ssd300_coco'])
def test_ssd_sees_pixels_as_the_weights_that_it_starts_from(name):
    # Those of torchvision's VGG-16: pixels in 0..255 would be 57 times too large for them.
    config = load(name)
    assert config.input.mean == (0.485, 0.456, 0.406)
    assert config.input.std == (0.229, 0.224, 0.225)
