"""Pairs of two spaces: the loss against its formula, and an update that moves both projections."""

import jax
import numpy as np
import pytest

from canon.models.domain_adversarial import projected_network
from canon.tasks.adaptation import adaptation_task, make_method
from canon.tasks.classification import make_image_input
from canon.train.types import At


def test_matched_pairs_add_the_mean_squared_distance_of_their_features():
    rng = np.random.default_rng(0)
    source, target = (rng.integers(0, 256, shape).astype(np.uint8) for shape in ((5, 4, 4, 1), (5, 1, 6, 1)))
    labels, mask = np.array([0, 1, 2, 0, 1]), np.ones(5, bool)
    batch = {
        'source': {'image': source, 'label': labels, 'mask': mask},
        'target': {'image': target, 'mask': mask},
    }
    network, make_input = projected_network(3, sizes=(16, 6), units=7), make_image_input(0.5, 0.5)
    task = adaptation_task(network, make_input, make_method('match_pairs', weight=2.0))
    variables = dict(task.init(jax.random.key(0), batch))
    params = variables.pop('params')

    def loss(params):
        mean, (_, values) = task.loss(params, variables, batch, At(jax.random.key(1), 0))
        return mean.total / mean.weight, values

    (value, values), grads = jax.value_and_grad(loss, has_aux=True)(params)
    exact = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    parts = exact['extractor']

    def encode(images, name):
        x = (images.reshape(5, -1) / 255.0 - 0.5) / 0.5
        hidden = np.maximum(x @ parts[name]['kernel'] + parts[name]['bias'], 0)
        return np.maximum(hidden @ parts['shared']['kernel'] + parts['shared']['bias'], 0)

    own, other = encode(source, 'project_16'), encode(target, 'project_6')
    logits = own @ exact['classifier']['kernel'] + exact['classifier']['bias']
    risk = np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(5), labels])
    distance = np.mean((own - other) ** 2)
    assert float(values['discrepancy'].value) == pytest.approx(distance, rel=1e-5)
    assert float(value) == pytest.approx(risk + 2 * distance, rel=1e-5)
    assert all(np.abs(grads['extractor'][name]['kernel']).max() > 0 for name in ('project_16', 'project_6'))
