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
from canon.tasks.adaptation.roles import DomainEvaluation, DomainRoles, assign_roles
from canon.tasks.adaptation.scores import (
    ModelOutputs,
    collect_outputs,
    join_for_rules,
    rules_evaluator,
    score_model,
    select_from_log,
)
from canon.tasks.adaptation.task import adaptation_task

__all__ = [
    'METHODS', 'DomainEvaluation', 'DomainRoles', 'Method', 'ModelOutputs', 'adaptation_task', 'assign_roles', 'cdan',
    'collect_outputs', 'coral', 'dann', 'group_dro', 'irm', 'jan', 'join_for_rules', 'make_method', 'mcc', 'mcd',
    'mean_cov', 'mmd', 'rules_evaluator', 'score_model', 'select_from_log', 'source_only', 'v_rex',
]  # fmt: skip
