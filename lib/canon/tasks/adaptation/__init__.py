"""Domain adaptation and generalisation as tasks: one loss with an alignment term, on one network, for one loop.

method = make_method('dann', weight=0.3, ramp_steps=1000)
task = adaptation_task(models.make_model('domain_adversarial.digit_network'), make_image_input(), method)
"""

from canon.tasks.adaptation.adversarial import adda, cdan, dann, mcd
from canon.tasks.adaptation.discrepancy import coral, jan, match_pairs, mcc, mean_cov, mmd
from canon.tasks.adaptation.forward import adapt_statistics, make_encoder
from canon.tasks.adaptation.generalisation import group_dro, irm, mixup, mldg, v_rex
from canon.tasks.adaptation.instances import RATIOS, attach_weights, make_ratio, read_pixels, weigh_source
from canon.tasks.adaptation.methods import Method, source_only
from canon.tasks.adaptation.roles import DomainEvaluation, DomainRoles, RatioFeatures, assign_roles
from canon.tasks.adaptation.scores import (
    ModelOutputs,
    collect_outputs,
    join_for_rules,
    rules_evaluator,
    score_model,
    select_from_log,
)
from canon.tasks.adaptation.task import METHODS, adaptation_task, make_method, make_predict
from canon.tasks.adaptation.tuning import ada_bn, bss, lora, lwf
from canon.tasks.adaptation.turns import adaptation_step

__all__ = [
    'METHODS', 'RATIOS', 'DomainEvaluation', 'DomainRoles', 'Method', 'ModelOutputs', 'RatioFeatures', 'ada_bn',
    'adapt_statistics', 'adaptation_step', 'adaptation_task', 'adda', 'assign_roles', 'attach_weights', 'bss', 'cdan',
    'collect_outputs', 'coral', 'dann', 'group_dro', 'irm', 'jan', 'join_for_rules', 'lora', 'lwf', 'make_encoder',
    'make_method', 'make_predict', 'make_ratio', 'match_pairs', 'mcc', 'mcd', 'mean_cov', 'mixup', 'mldg', 'mmd',
    'read_pixels', 'rules_evaluator', 'score_model', 'select_from_log', 'source_only', 'v_rex', 'weigh_source',
]  # fmt: skip
