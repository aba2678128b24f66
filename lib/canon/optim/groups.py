"""Groups of parameters, selected by regular expressions: with their own transforms, their own rates, or frozen."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import tree_flatten_with_path
from optax import (
    EmptyState,
    GradientTransformation,
    GradientTransformationExtraArgs,
    MaskedNode,
    with_extra_args_support,
)

from canon.errors import UsageError
from canon.named import compile_pattern, suggest
from canon.optim.core import Tree, path_name, per_leaf, refuse_buckets, scalar, times, to_number, wide
from canon.optim.decay import select_paths

Rules = Mapping[str, Any] | Sequence[tuple[str, Any]]


class PartitionState(NamedTuple):
    """Holds the state of each group of `partition`, by the name of its rule."""

    groups: dict[str, Any]


def partition(rules: Rules) -> GradientTransformationExtraArgs:
    """Updates each parameter by the transform of the first rule {regex: transform} whose regex matches its path.

    Each transform sees a tree in which the leaves of other groups are masked, so that it holds no state for them and a
    norm is that of its own group. `optax.partition` takes a tree of labels instead. Raises UsageError for a parameter
    that no rule matches, and for a rule that matches no parameter.

    Args:
      rules: pairs (regex, transform) in the order of trial.
    """
    pairs = _pairs(rules)

    def owners(params):
        refuse_buckets(params, 'partition')
        return match_rules(pairs, params)

    names = _labels([pattern for pattern, _ in pairs])
    return partition_by(owners, dict(zip(names, [tx for _, tx in pairs], strict=True)))


def partition_by(
    owners: Callable[[Tree], list[int]], transforms: Mapping[str, GradientTransformation]
) -> GradientTransformationExtraArgs:
    """Partitions by a function: `owners(params)` returns for each leaf the index of its transform."""
    names, inner = list(transforms), [with_extra_args_support(tx) for tx in transforms.values()]

    def mask_others(tree, owner, index):
        leaves, treedef = jax.tree.flatten(tree)
        return treedef.unflatten([x if i == index else MaskedNode() for x, i in zip(leaves, owner, strict=True)])

    def init(params):
        owner = owners(params)
        return PartitionState(
            {
                name: tx.init(mask_others(params, owner, i))
                for i, (name, tx) in enumerate(zip(names, inner, strict=True))
            }
        )

    def update(updates, state, params=None, **extra):
        # Rules match paths while tracing, and the updates have the paths of the parameters.
        owner = owners(updates if params is None else params)
        treedef = jax.tree.structure(updates)
        results, groups = [], {}
        for i, (name, tx) in enumerate(zip(names, inner, strict=True)):
            given = None if params is None else mask_others(params, owner, i)
            new, groups[name] = tx.update(mask_others(updates, owner, i), state.groups[name], given, **extra)
            results.append(treedef.flatten_up_to(new))
        # Every result has all leaves, of which only its transform's own are not masked.
        merged = [results[i][leaf] for leaf, i in enumerate(owner)]
        return treedef.unflatten(merged), PartitionState(groups)

    return GradientTransformationExtraArgs(init, update)


def freeze(where: str | None = None) -> GradientTransformation:
    """u <- 0 for the parameters whose path matches the regex; all if None. It must be last in a chain.

    `partition({'^Backbone': freeze(), '.*': adam(1e-3)})` also saves the state, and works for integer leaves.

    Args:
      where: regex of the paths of parameters that stay as they are; None is all.
    """

    def init(params):
        if where is not None:
            refuse_buckets(params, 'freeze')
        select_paths(where, params)
        return EmptyState()

    def update(updates, state, params=None):
        frozen = select_paths(where, updates)

        def kernel(path, u, *p):
            # In the type of the parameter: the gradient of an integer is a float0, which cannot be added to it.
            return (jnp.zeros(jnp.shape(u), jnp.result_type(*p or (u,))) if path in frozen else u,)

        given = () if params is None else (params,)
        return per_leaf(kernel, updates, given=given, paths=True)[0], state

    return GradientTransformation(init, update)


def scale_rates(rules: Rules) -> GradientTransformation:
    """u <- factor u with the factor of the first rule {regex: factor} whose regex matches the path (Caffe's lr_mult).

    Every parameter must match a rule: end with ('.*', 1.0).

    Args:
      rules: pairs (regex, factor) in the order of trial.
    """
    pairs = _pairs(rules)
    pairs = [(pattern, to_number(f'the factor of {pattern!r}', factor)) for pattern, factor in pairs]

    def init(params):
        refuse_buckets(params, 'scale_rates')
        match_rules(pairs, params)
        return EmptyState()

    def update(updates, state, params=None):
        treedef = jax.tree.structure(updates)
        factors = treedef.unflatten([pairs[i][1] for i in match_rules(pairs, updates)])
        same = lambda factor: isinstance(factor, float) and factor == 1  # noqa: E731
        # A factor of 1 changes neither the value nor the type of the update.
        kernel = lambda u, factor: u if same(factor) else times(scalar(factor), wide(u))  # noqa: E731
        return jax.tree.map(kernel, updates, factors), state

    return GradientTransformation(init, update)


def match_rules(pairs: list[tuple[str, Any]], params: Tree) -> list[int]:
    """Returns for each leaf the index of the first rule that matches its path.

    Raises UsageError for a leaf that no rule matches, and for a rule without a leaf.
    """
    names = [path_name(path) for path, _ in tree_flatten_with_path(params)[0]]
    owner = []
    for name in names:
        matches = [i for i, (pattern, _) in enumerate(pairs) if compile_pattern(pattern).search(name)]
        if not matches:
            raise UsageError(f'no rule matches the parameter {name!r}; the rules are {[r for r, _ in pairs]}')
        owner.append(matches[0])
    # A rule whose leaves all match earlier rules is reported too: it has no effect.
    for i, (pattern, _) in enumerate(pairs):
        if names and i not in owner and pattern != '.*':  # a final rule for the rest may be empty
            raise UsageError(f'the rule {pattern!r} matches no parameter of its own{suggest(pattern, names)}')
    return owner


def _pairs(rules: Rules) -> list[tuple[str, Any]]:
    pairs = list(rules.items() if isinstance(rules, Mapping) else rules)
    if not pairs:
        raise UsageError('rules is empty; give {regex: ...}')
    return pairs


def _labels(patterns: Sequence[str]) -> list[str]:
    """Returns names of the groups for checkpoints and logs: the words of each regex, 'rest' if it has none."""
    # Labels are keys in checkpoints and logs, where a regex would be hard to read and to quote.
    labels = []
    for pattern in patterns:
        label = re.sub(r'\W+', '_', pattern).strip('_') or 'rest'
        labels.append(label if label not in labels else f'{label}_{len(labels)}')
    return labels
