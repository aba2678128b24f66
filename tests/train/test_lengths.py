"""Lengths in any unit."""

import pytest
from ml_collections import ConfigDict

from canon.errors import UsageError
from canon.train import lengths
from canon.train.settings import fill_placeholders, make_settings


def test_every_unit_everywhere():
    config = ConfigDict(
        dict(
            tx=dict(rate=dict(steps='95%', at=('1 epoch', '2.5 epochs')), name='adam'),
            run=dict(steps='10 epochs', log_every='30 steps', evals=dict(a=dict(every='1e3 examples'))),
            title='5 epochs of fame',
        )
    )
    resolved = lengths.resolve(config, batch_size=10, num_examples=105)
    assert resolved.run.steps == 105
    assert resolved.run.log_every == 30
    assert resolved.run.evals.a.every == 100
    assert resolved.tx.rate.steps == round(0.95 * 105)
    assert resolved.tx.rate.at == (10, 26)
    assert resolved.title == '5 epochs of fame'


def test_a_tiny_length_is_a_step_and_zero_is_none():
    resolved = lengths.resolve(dict(run=dict(steps='1 example', warm='0%')), 10, 100)
    assert (resolved.run.steps, resolved.run.warm) == (1, 0)


def test_numbers_from_the_command_line_are_steps_where_steps_are_meant():
    resolved = lengths.resolve(dict(run=dict(steps='300'), model=dict(name='300')), None, None)
    assert resolved.run.steps == 300
    assert resolved.model.name == '300'


@pytest.mark.parametrize(
    ('run', 'message'),
    [
        (
            dict(steps='2 epochs'),
            r"run\.steps='2 epochs' cannot be turned into steps: the data do not state their size",
        ),
        (dict(steps='1.5.2 steps'), r"run\.steps='1\.5\.2 steps' is not a length"),
        (dict(log_every='5%'), r'run\.log_every.*run\.steps is not given'),
    ],
)
def test_what_cannot_be_known_is_said(run, message):
    with pytest.raises(UsageError, match=message):
        lengths.resolve(dict(run=run), 10, None)


def test_placeholders_fill_every_key_and_changes_nothing():
    stated = dict(steps=100, checkpoint=dict(best='test/accuracy', mode='max'), evals=dict(test=dict(every=7)))
    filled = ConfigDict(dict(run=fill_placeholders(stated)))
    assert filled.run.steps == '100 steps'
    assert filled.run.checkpoint.keep == 1
    assert filled.run.stop_after is None
    resolved = lengths.resolve(filled, 10, 100)
    assert make_settings(resolved.run) == make_settings(stated)
