"""Domain adaptation and generalisation as tasks: one loss with an alignment term, on one network, for one loop.

method = make_method('dann', weight=0.3, ramp_steps=1000)
task = adaptation_task(models.make_model('domain_adversarial.digit_network'), make_image_input(), method)
"""

from canon.tasks.adaptation.methods import (
    METHODS,
    Method,
    cdan,
    coral,
    dann,
    group_dro,
    irm,
    jan,
    make_method,
    mcc,
    mcd,
    mean_cov,
    mmd,
    source_only,
    v_rex,
)
from canon.tasks.adaptation.scores import ModelOutputs, collect_outputs, score_model
from canon.tasks.adaptation.task import adaptation_task

__all__ = [
    'METHODS', 'Method', 'ModelOutputs', 'adaptation_task', 'cdan', 'collect_outputs', 'coral', 'dann', 'group_dro',
    'irm', 'jan', 'make_method', 'mcc', 'mcd', 'mean_cov', 'mmd', 'score_model', 'source_only', 'v_rex',
]  # fmt: skip
