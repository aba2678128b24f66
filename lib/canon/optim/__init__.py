"""Gradient transformations and schedules, hand-written: each is an `optax.GradientTransformation`.

>>> tx = adam(learning_rate=cosine(1e-3, steps=1000))
>>> params = {'w': jnp.ones(3)}
>>> state = tx.init(params)
>>> updates, state = tx.update({'w': jnp.array([0.1, 0.0, -2.0])}, state, params)
>>> updates['w'].tolist()
[-0.0010000000474974513, 0.0, 0.0010000000474974513]
"""

from canon.optim.adam import AdamState, adam, adamw, scale_by_adam
from canon.optim.adaptive import (
    AdadeltaState,
    RmsState,
    RssState,
    adadelta,
    adagrad,
    rmsprop,
    scale_by_adadelta,
    scale_by_rms,
    scale_by_rss,
)
from canon.optim.average import EmaState, ema
from canon.optim.clip import clip_by_global_norm, global_norm
from canon.optim.decay import DecayState, add_decayed_weights
from canon.optim.descent import (
    LookaheadState,
    NesterovState,
    TraceState,
    momentum,
    nesterov,
    sgd,
    trace,
)
from canon.optim.factory import make
from canon.optim.learning_rate import LearningRateState, scale_by_learning_rate
from canon.optim.plateau import observe
from canon.optim.points import eval_params, lookahead_params
from canon.optim.schedules import (
    constant,
    cosine,
    exponential,
    inverse_sqrt,
    linear_decay,
    step_decay,
    warmup,
)
from canon.optim.state import find, find_all, hyperparams, set_hyperparams, state_shardings

__all__ = [
    'AdadeltaState',
    'AdamState',
    'DecayState',
    'EmaState',
    'LearningRateState',
    'LookaheadState',
    'NesterovState',
    'RmsState',
    'RssState',
    'TraceState',
    'adadelta',
    'adagrad',
    'adam',
    'adamw',
    'add_decayed_weights',
    'clip_by_global_norm',
    'constant',
    'cosine',
    'ema',
    'eval_params',
    'exponential',
    'find',
    'find_all',
    'global_norm',
    'hyperparams',
    'inverse_sqrt',
    'linear_decay',
    'lookahead_params',
    'make',
    'momentum',
    'nesterov',
    'observe',
    'rmsprop',
    'scale_by_adadelta',
    'scale_by_adam',
    'scale_by_learning_rate',
    'scale_by_rms',
    'scale_by_rss',
    'set_hyperparams',
    'sgd',
    'state_shardings',
    'step_decay',
    'trace',
    'warmup',
]
