"""Optimizers and learning rate schedules; every transform is an `optax.GradientTransformation`.

>>> tx = adam(learning_rate=cosine(1e-3, steps=1000))
>>> params = {'w': jnp.ones(3)}
>>> state = tx.init(params)
>>> updates, state = tx.update({'w': jnp.array([0.1, 0.0, -2.0])}, state, params)
>>> print(updates['w'].round(6))
[-0.001 -0.     0.001]
"""

from canon.optim.adam import AdamState, NadamState, adam, adamw, nadam, scale_by_adam, scale_by_nadam
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
from canon.optim.average import EmaState, LateAverageState, average_on_plateau, ema
from canon.optim.buckets import bucket_leaves
from canon.optim.clip import clip_by_global_norm, global_norm
from canon.optim.constants import lift_constants
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
from canon.optim.factory import make_optimizer
from canon.optim.groups import PartitionState, freeze, partition, scale_rates
from canon.optim.layerwise import lamb, lars, scale_by_trust_ratio
from canon.optim.learning_rate import LearningRateState, scale_by_learning_rate
from canon.optim.lion import LionState, lion, scale_by_lion
from canon.optim.muon import MuonState, muon, orthogonalize, scale_by_muon
from canon.optim.nonfinite import SkipState, skip_nonfinite
from canon.optim.plateau import PlateauState, divide_on_plateau, find_watched_metrics, observe
from canon.optim.points import eval_params, lookahead_params
from canon.optim.precision import MasterState, master_weights
from canon.optim.restart import RestartState, restart
from canon.optim.schedule_free import ScheduleFreeState, schedule_free
from canon.optim.schedules import (
    constant,
    cosine,
    exponential,
    inverse_sqrt,
    linear_decay,
    step_decay,
    warmup,
)
from canon.optim.soap import SoapState, scale_by_soap, soap
from canon.optim.starting_point import StartingPointState, add_starting_point_decay
from canon.optim.state import find_state, find_states, hyperparams, opt_state_shardings, overrides, set_hyperparams
from canon.optim.valley import ValleyState, average_in_valley

__all__ = [
    'AdadeltaState',
    'AdamState',
    'DecayState',
    'EmaState',
    'LateAverageState',
    'LearningRateState',
    'LionState',
    'LookaheadState',
    'MasterState',
    'MuonState',
    'NadamState',
    'NesterovState',
    'PartitionState',
    'PlateauState',
    'RestartState',
    'RmsState',
    'RssState',
    'ScheduleFreeState',
    'SkipState',
    'SoapState',
    'StartingPointState',
    'TraceState',
    'ValleyState',
    'adadelta',
    'adagrad',
    'adam',
    'adamw',
    'add_decayed_weights',
    'add_starting_point_decay',
    'average_in_valley',
    'average_on_plateau',
    'bucket_leaves',
    'clip_by_global_norm',
    'constant',
    'cosine',
    'divide_on_plateau',
    'ema',
    'eval_params',
    'exponential',
    'find_state',
    'find_states',
    'find_watched_metrics',
    'freeze',
    'global_norm',
    'hyperparams',
    'inverse_sqrt',
    'lamb',
    'lars',
    'lift_constants',
    'linear_decay',
    'lion',
    'lookahead_params',
    'make_optimizer',
    'master_weights',
    'momentum',
    'muon',
    'nadam',
    'nesterov',
    'observe',
    'opt_state_shardings',
    'orthogonalize',
    'overrides',
    'partition',
    'restart',
    'rmsprop',
    'scale_by_adadelta',
    'scale_by_adam',
    'scale_by_learning_rate',
    'scale_by_lion',
    'scale_by_muon',
    'scale_by_nadam',
    'scale_by_rms',
    'scale_by_rss',
    'scale_by_soap',
    'scale_by_trust_ratio',
    'scale_rates',
    'schedule_free',
    'set_hyperparams',
    'sgd',
    'skip_nonfinite',
    'soap',
    'step_decay',
    'trace',
    'warmup',
]
