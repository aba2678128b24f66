"""One of each transform, for the tests that hold for all of them."""

import optax
import pytest

ALL = {
    'sgd': lambda o: o.sgd(0.1),
    'momentum': lambda o: o.momentum(o.cosine(0.1, steps=10)),
    'nesterov': lambda o: o.nesterov(0.1),
    'nesterov theta': lambda o: o.nesterov(0.1, stored='theta'),
    'adagrad': lambda o: o.adagrad(0.1),
    'rmsprop': lambda o: o.rmsprop(0.1),
    'adadelta': lambda o: o.adadelta(),
    'adam': lambda o: o.adam(0.1),
    'adamw': lambda o: o.adamw(0.1, where='kernel'),
    'nadam': lambda o: o.nadam(0.1),
    'lamb': lambda o: o.lamb(0.1),
    'lars': lambda o: o.lars(0.1),
    'lion': lambda o: o.lion(0.1),
    'muon': lambda o: o.muon(0.1),
    'soap': lambda o: o.soap(0.1, every=2),
    'schedule_free': lambda o: o.schedule_free(o.adamw(o.warmup(2, o.constant(0.1)), b1=0.0)),
    'clip, ema': lambda o: optax.chain(o.clip_by_global_norm(1.0), o.adam(0.1), o.ema(0.9)),
    'plateau': lambda o: optax.chain(o.divide_on_plateau('loss', 1, mode='min'), o.momentum(0.1)),
    'late average': lambda o: optax.chain(o.sgd(0.1), o.average_on_plateau('loss', 1, mode='min')),
    'valley': lambda o: optax.chain(o.sgd(0.1), o.average_in_valley('loss', 2, 3)),
    'restart': lambda o: o.restart(o.adam(0.1), at=2),
    'partition': lambda o: o.partition({'bias': o.nesterov(0.1), '.*': o.adam(0.1)}),
    'rates, frozen': lambda o: optax.chain(o.adam(0.1), o.scale_rates({'bias': 2.0, '.*': 1.0}), o.freeze('bias')),
    'master': lambda o: o.master_weights(o.adam(0.1)),
    'skip': lambda o: o.skip_nonfinite(o.adam(0.1)),
    'bucket_leaves': lambda o: o.bucket_leaves(o.adam(0.1)),
    'narrow': lambda o: o.adam(0.1, state_dtype='bfloat16'),
}
SOME = ('momentum', 'nesterov theta', 'adam', 'soap', 'schedule_free', 'clip, ema', 'plateau', 'partition')


def some_fast(names, fast=SOME):
    """The names as parameters, of which those that are not in `fast` are slow."""
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in names]
