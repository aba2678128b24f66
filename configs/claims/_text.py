"""Shared parts of the claims on reading words: a narrow CRNN on words that MJSynth's engine draws."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.text_recognition import crnn_rendered
from configs.text_recognition._lines import muon

REAL = {  # photographs with IMG/ and label/, which are read if the command line gives their paths
    'iiit5k': dict(data='word_folder', source=dict(path=placeholder(str))),
    'svt': dict(data='word_folder', source=dict(path=placeholder(str))),
}


def rendered(**source: Any) -> dict[str, Any]:
    """Returns the arguments of `canon.data.text.rendered_words` for grey images of 32x100, and further ones."""
    return dict(width=100, grey=True, **source)


def claim(
    source: Mapping[str, Any],
    sets: Mapping[str, Mapping[str, Any]],
    steps: int,
    metric: str,
    at_least: float,
) -> ConfigDict:
    """Returns the config of a CRNN with 0.6 million parameters, for batches of 32 words of CPython's documentation.

    Args:
      source: arguments of `canon.data.text.rendered_words` for training and for data.evals.test.
      sets: of data.benchmarks, read at the end; those of `REAL` besides.
      steps: length of the run.
      metric: of the target.
      at_least: its least value.
    """
    config, small = crnn_rendered.get_config(), crnn_rendered.get_config('smoke')
    with config.unlocked(), config.ignore_type():
        folders = {key: placeholder(str) for key in ('words', 'fonts', 'textures')}  # see crnn_rendered.py
        config.data.source = {**folders, **rendered(num_examples=1 << 23), **source}
        config.data.batch_size, config.model = 32, small.model
        config.data.evals.test.split = 'test[:500]'
        config.data.benchmarks.sets = {**sets, **REAL}
        config.tx = muon()
        config.run.update(steps=f'{steps} steps', log_every='5%', log=())
        config.run.evals = dict(test=dict(every='50%'), benchmarks=dict(every='100%'))
        config.run.checkpoint.every = '50%'
        config.target = dict(metric=metric, at_least=at_least, ci=False)
    return config
