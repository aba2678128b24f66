"""IRM's coloured digits by the protocol of its authors: what ERM, IRM and the grey oracle share."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

ANNEAL = 190  # updates with a small penalty, of the authors' code


COPIES = 4  # colourings of each digit: the paper has twelve times the digits of MNIST-5k


def make_coloured(method: Mapping[str, Any], style: str, at_least: float, smoke: bool) -> ConfigDict:
    """Returns the config of a method on digits whose colour agrees with the label in training, and not in the test.

    For IRM the authors' code (facebookresearch/InvariantRiskMinimization, code/colored_mnist) trains a network of two
    layers of 390 units for 501 updates of the whole training set. Its ERM and its oracle have hyperparameters of their
    own; here they have those of IRM. Digits of all splits are shared out among the three domains, so that no digit is
    in two.
    """
    # The digits of each training domain: a batch holds all of them.
    share = {'uci': 719, 'mnist_5k': 2000, 'rendered': 1000}[style]
    return ConfigDict(
        dict(
            experiment='adaptation',
            seed=0,
            data=dict(
                name='coloured_digits',
                source=dict(
                    flips=(0.2, 0.1, 0.9),  # of the colour: the first two are of training
                    shares=(2.0, 2.0, 1.0),
                    label_noise=0.25,
                    copies=COPIES,
                    style=style,
                    size=14,
                    grey=False,  # True takes the colours away: what is left to learn is the digit
                    seed=0,
                ),
                domains=dict(sources=('0.2', '0.1'), target='0.9', hidden=False),
                reading=dict(threads=2, workers=0),
                batch_size=COPIES * share,  # of each domain
                train=dict(split='all', sampler='in_order'),
                evals=dict(
                    target=dict(split='all'),
                    source=dict(split='all', domain='sources', trained_on=True),
                ),
            ),
            input=dict(mean=(0.0,), std=(1.0,)),
            model=dict(name='domain_adversarial.mlp_network', num_classes=2, units=390, layers=2),
            method=dict(method),
            tx=dict(name='adam', learning_rate=4.9e-4),
            run=dict(
                steps=300 if smoke else 501,
                log_every='10%',
                evals=dict(target=dict(every='20%'), source=dict(every='20%')),
                checkpoint=dict(every='100%'),
            ),
            target=dict(metric='target/accuracy', at_least=at_least),
        )
    )
