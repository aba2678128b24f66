"""A network of drawn digits, fine-tuned on a few labelled handwritten ones: what the methods by parameters share."""

from typing import Any

from ml_collections import ConfigDict

from configs.adaptation._digits import make_config

# The frozen copy of a method begins with the parameters of the stage before.
FROZEN_COPY = (('^frozen/params/', ''), ('^frozen/batch_stats/', 'batch_stats/'))


def make_finetuning(tune: dict[str, Any], smoke: bool, at_least: float = 0.6) -> ConfigDict:
    """Returns the config of two stages; the keys of `tune` are laid over those of the second one."""
    config = make_config(dict(name='source_only'), at_least, smoke)
    with config.unlocked():
        config.experiment = 'staged'
        config.data.domains.shown = 5  # labelled examples of each class of the target
        # A mapping of links, so that a stage may add one.
        config.tx = dict(chain=('adam',), adam=dict(learning_rate=1e-3))
        shared = dict(
            data=dict(domains=dict(use_sources=False, hidden=False)),
            run=dict(init_from=dict(stage='source')),
        )
        config.stages = dict(
            experiment='adaptation',
            chain=('source', 'tune'),
            source=dict(data=dict(domains=dict(shown=0)), run=dict(steps=300 if smoke else 1000)),
            tune={**shared, **tune, 'run': {**shared['run'], **tune.get('run', {})}},
        )
        config.run.steps = 100 if smoke else 300  # of fine-tuning
    return config
