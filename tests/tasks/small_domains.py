"""A linear network of adaptation and batches of domains, small enough to write out what a step does."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from canon.models.domain_adversarial import AdaptationNetwork
from canon.nn import BatchNorm
from canon.tasks import adaptation

CLASSES, UNITS, PIXELS = 3, 4, 5


class Linear(nn.Module):
    """Features x W + b, normalised by BatchNorm if `norm`."""

    norm: bool = False

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(UNITS, name='dense')(x)
        return BatchNorm(name='bn')(x, train) if self.norm else x


def make_network(norm=False):
    return AdaptationNetwork(Linear(norm), nn.Dense(CLASSES), nn.Dense(CLASSES), nn.Dense(2))


def make_input(batch):
    return jnp.asarray(batch['image'])


def make_rows(seed, count=6, labelled=True, shift=0.0):
    rng = np.random.default_rng(seed)
    rows = {
        'image': (rng.normal(size=(count, PIXELS)) + shift).astype(np.float32),
        'mask': np.ones(count, bool),
    }
    return {**rows, 'label': rng.integers(0, CLASSES, count)} if labelled else rows


class Domains:
    """Batches of a source and an unlabelled target: a function of the step."""

    batch_size, num_examples = 6, 60

    def __init__(self, labelled=('source',), unlabelled=('target',)):
        self.names = [(name, True) for name in labelled] + [(name, False) for name in unlabelled]

    def __getitem__(self, step):
        return {
            name: make_rows((step, number), labelled=known, shift=0.3 * number)
            for number, (name, known) in enumerate(self.names)
        }

    def iterate(self, start=0):
        while True:
            yield self[start]
            start += 1


def make_task(name, network=None, **arguments):
    method = adaptation.make_method(name, **arguments)
    network = make_network() if network is None else network
    return adaptation.adaptation_task(network, make_input, method)


def to_double(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def features(params, batch):
    return batch['image'] @ params['extractor']['dense']['kernel'] + params['extractor']['dense']['bias']


def head(params, name, x):
    return x @ params[name]['kernel'] + params[name]['bias']


def cross_entropy(logits, labels):
    """Mean of -log softmax, written out."""
    shifted = logits - logits.max(-1, keepdims=True)
    log_p = shifted - jnp.log(jnp.exp(shifted).sum(-1, keepdims=True))
    return -jnp.take_along_axis(log_p, jnp.asarray(labels)[:, None], 1).mean()
