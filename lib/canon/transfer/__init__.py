"""Transfer without a network: weights of source examples, aligned subspaces, and selection without target labels.

Functions of numpy arrays [N, D] in float64, for features of any kind: pixels, HOG, or what a network computes.
`p_source` and `p_target` are the densities of the two domains; weights are always those of *source* examples,
w(x) = p_target(x) / p_source(x), by which a mean over the source becomes one over the target (Shimodaira 2000).

    >>> import numpy as np
    >>> from canon import transfer
    >>> rng = np.random.default_rng(0)
    >>> source, target = rng.normal(0, 1, (200, 1)), rng.normal(0.5, 1, (200, 1))
    >>> ratio = transfer.fit_ulsif(source, target, centres=40)
    >>> weights = ratio(source)  # larger to the right, where the target has more mass
    >>> bool(weights[source[:, 0] > 1].mean() > 2 * weights[source[:, 0] < -1].mean())
    True
"""

from canon.transfer.density_ratios import (
    KernelRatio,
    effective_count,
    fit_discriminator_ratio,
    fit_kliep,
    fit_ulsif,
    kernel_mean_matching,
)
from canon.transfer.label_shift import estimate_class_weights
from canon.transfer.logistic import SoftmaxModel, fit_softmax
from canon.transfer.selection import (
    RULES,
    a_distance,
    deep_embedded_validation,
    information_score,
    mean_entropy,
    select_by_rules,
    soft_neighbourhood_density,
    source_risk,
)
from canon.transfer.subspaces import (
    KernelComponents,
    SubspacePair,
    align_covariances,
    align_subspaces,
    fit_transfer_components,
)
from canon.transfer.tradaboost import BoostedVote, tradaboost

__all__ = [
    'RULES', 'BoostedVote', 'KernelComponents', 'KernelRatio', 'SoftmaxModel', 'SubspacePair', 'a_distance',
    'align_covariances', 'align_subspaces', 'deep_embedded_validation', 'effective_count', 'estimate_class_weights',
    'fit_discriminator_ratio', 'fit_kliep', 'fit_softmax', 'fit_transfer_components', 'fit_ulsif', 'information_score',
    'kernel_mean_matching', 'mean_entropy', 'select_by_rules', 'soft_neighbourhood_density', 'source_risk',
    'tradaboost',
]  # fmt: skip
