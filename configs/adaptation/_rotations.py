"""Domain generalisation on rotated digits: learnt from five angles, measured at one that is never seen."""

from typing import Any

from ml_collections import ConfigDict

from configs.adaptation._digits import make_config

SOURCES = ('15', '30', '45', '60', '75')


def make_rotations(method: dict[str, Any], smoke: bool, at_least: float = 0.6) -> ConfigDict:
    """Returns the config of a method; each digit is in one domain alone, as in DomainBed."""
    config = make_config(method, at_least, smoke)
    with config.unlocked():
        config.data.name = 'rotated_digits'
        config.data.source = dict(angles=(0, 15, 30, 45, 60, 75), style='uci', size=16, disjoint=True)
        config.data.domains = dict(sources=SOURCES, target='0', shown=0, hidden=False)
        config.data.evals.source.domain = 'sources'
        # These rules read images of the target, which generalisation does not have.
        del config.data.evals['rules'], config.run.evals['rules']
        config.model.domains = len(SOURCES)
    return config
