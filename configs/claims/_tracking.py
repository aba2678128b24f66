"""Shared parts of the claims about tracking: forms of a tracker on the same sequences of moving digits."""

from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from configs.claims._claims import choose_form
from configs.tracking._trackers import track

SEEDS = (0, 1, 2)  # of the sequences


def compare(smoke: bool, forms: Mapping[str, Any], at_least: float = 0.3, **source: Any) -> ConfigDict:
    """Returns a config of forms on 8 sequences of digits, 2 if `smoke`; `source`: arguments of `digit_sequences`."""
    config = track(None, at_least, source=dict(seed=0, **source))
    config.data.evals.test.update(dict(split='test[:2]' if smoke else 'test[:8]', video_frames=0))
    return choose_form(config, forms)


def sweep_sequences(**settings: Any) -> Iterator[dict[str, Any]]:
    """Yields points of a sweep, each for all `SEEDS`; settings are the values of keys, with __ for a dot."""
    for seed in SEEDS:
        yield {**{key.replace('__', '.'): value for key, value in settings.items()}, 'data.source.seed': seed}
