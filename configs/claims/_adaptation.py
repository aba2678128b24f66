"""Shared parts of the claims about transfer: methods as forms, on digits of several styles, without a run's figures."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from configs.adaptation._digits import make_config
from configs.claims._claims import choose_form

SOURCE_ONLY = dict(name='source_only')
MEAN_COV = dict(name='mean_cov', weight=1.0)
MMD = dict(name='mmd', weight=0.1)
DANN = dict(name='dann', weight=1.0, ramp_steps=300)
MCC = dict(name='mcc', weight=0.5)


def single(**stage: Any) -> dict[str, Any]:
    """Returns a form of one stage, whose keys are laid over the config."""
    return dict(stages=dict(experiment='adaptation', chain=('adapt',), adapt=stage))


def in_stages(**stages: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a form of several stages in order."""
    return dict(stages=dict(experiment='adaptation', chain=tuple(stages), **stages))


def compare(forms: Mapping[str, Mapping[str, Any]], smoke: bool, at_least: float = 0.1) -> ConfigDict:
    """Returns a config of forms of adaptation, each of `single` or `in_stages`, for 300 updates."""
    # All with batch normalisation, so that forms differ in the method alone.
    config = quieten(make_config(SOURCE_ONLY, at_least, smoke=True, norm='batch'))
    with config.unlocked():
        config.experiment = 'staged'
        config.run.steps = 20 if smoke else 300
    return choose_form(config, forms)


def quieten(config: ConfigDict) -> ConfigDict:
    """Returns a config whose runs draw nothing: a sweep has many runs, and a figure of its own."""
    with config.unlocked():
        config.run.log = ()
        config.run.checkpoint = dict(every='100%')
        for evaluation in config.data.evals.values():
            evaluation.figures = False
    return config


def sweep_seeds(seeds: Iterable[int] = range(5), **settings: Any) -> Iterator[dict[str, Any]]:
    """Yields points of a sweep for all seeds; settings are the values of keys, with __ for a dot."""
    for seed in seeds:
        yield {**{key.replace('__', '.'): value for key, value in settings.items()}, 'seed': seed}


def sweep_pair(source: str, target: str) -> dict[str, Any]:
    """Returns the settings that make one style of digits the source and another one the target."""
    return dict(
        data__source__styles=(source, target),
        data__domains__sources=(source,),
        data__domains__target=target,
        data__evals__source__domain=source,
    )
