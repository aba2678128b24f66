"""Attention retrieval from a config: its keys, and what it refuses."""

import pytest

from canon.errors import UsageError
from experiments import attention_retrieval, configs, overrides

SCALE = f'{configs.ROOT}/configs/claims/attention_scale.py'


def test_every_key_can_be_set():
    config = overrides.load(SCALE)
    overrides.apply(config, [('model.d_v', '16'), ('model.form', 'additive'), ('data.places', '4')])
    assert config.model.to_dict() == dict(form='additive', d_k=64, d_v=16)
    with pytest.raises(UsageError, match=r"no key 'model\.d_w'; did you mean"):
        overrides.apply(config, [('model.d_w', '1')])


def test_what_is_refused():
    config = configs.load(SCALE)
    config.data.symbols = 3
    with pytest.raises(UsageError, match=r'data\.symbols=3 must be at least data\.places=8'):
        attention_retrieval.make(config)
    config.data.symbols, config.model.form = 32, 'aditive'
    with pytest.raises(UsageError, match=r"model\.form='aditive' .*did you mean 'additive'"):
        attention_retrieval.make(config)
