"""Methods that adapt the parameters of a finished run: BSS, learning without forgetting, LoRA and AdaBN.

They start from a run on the source (`run.init_from`) and learn from a few labelled targets, AdaBN from unlabelled ones.
Frozen groups and L2-SP are transforms of the optimizer: `optim.partition` with `optim.freeze`, and
`optim.add_starting_point_decay`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from canon import losses, named, nn
from canon.tasks.adaptation.methods import Method, NonNegative, require_labelled
from canon.train import Task

ADAPTERS, FROZEN = 'adapters', 'frozen'


def bss(weight: NonNegative = 1e-3, count: named.Count = 1) -> Method:
    """Adds the smallest squared singular values of the features of each labelled domain: Chen et al. 2019 (BSS).

    Args:
      weight: eta, 0.001 in the paper.
      count: k, 1 in the paper.
    """

    def align(evaluation):
        domains = require_labelled(evaluation, 1, 'bss')
        value = jnp.stack([losses.spectral_shrinkage(d.features, count) for d in domains]).mean()
        return weight * value, {'shrinkage': value}

    return Method(align)


def lwf(weight: NonNegative = 1.0, temperature: named.Positive = 2.0) -> Method:
    """Keeps the predictions of the frozen first network on the labelled rows: Li & Hoiem 2016 (LwF).

    Args:
      weight: lambda_o of the distillation, 1 in the paper.
      temperature: T, 2 in the paper.
    """

    def align(evaluation):
        require_labelled(evaluation, 1, 'lwf')
        values = [
            losses.distillation(evaluation.domains[name].logits, old.logits, temperature).mean()
            for name, old in evaluation.frozen.items()
        ]
        mean = jnp.stack(values).mean()
        return weight * mean, {'distillation': mean}

    return Method(align, frozen=True)


def lora(
    rank: named.Count = 4, where: str = '^(extractor|classifier)/.*kernel$', alpha: named.Positive | None = None
) -> Method:
    """Trains low-rank adapters of kernels on the labelled domains and nothing else: Hu et al. 2022 (LoRA).

    The parameters are `adapters/PATH/a` and `.../b`; the network is in the collection `frozen`.

    Args:
      rank: r.
      where: regex of the paths of the adapted kernels.
      alpha: of the scale alpha / r; None is r.
    """

    def resolve(params, frozen):
        return nn.merge_adapters(frozen['params'], _list_adapters(params[ADAPTERS]), alpha)

    def wrap(task):
        return _train_adapters(task, rank, where)

    return Method(wrap=wrap, resolve=resolve, frozen=True)


def _train_adapters(task: Task, rank: int, where: str) -> Task:
    """Returns a task whose parameters are adapters; the loss resolves them itself."""

    def init(key, batch):
        variables = dict(task.init(key, batch))
        adapters = nn.init_adapters(jax.random.fold_in(key, 1), variables['params'], rank, where)
        nested: dict = {}
        for path, adapter in adapters.items():
            *folders, leaf = path.split('/')
            node = nested
            for folder in folders:
                node = node.setdefault(folder, {})
            node[leaf] = adapter
        return {**variables, 'params': {ADAPTERS: nested}}

    return task._replace(init=init)


def _list_adapters(tree: dict, prefix: str = '') -> dict[str, dict]:
    """Returns {path of a kernel: its adapter} of the nested adapters."""
    listed = {}
    for name, node in tree.items():
        if set(node) == {'a', 'b'} and not isinstance(node['a'], dict):
            listed[prefix + name] = node
        else:
            listed |= _list_adapters(node, f'{prefix}{name}/')
    return listed


def ada_bn() -> Method:
    """Trains on the labelled domains and evaluates with the target's batch statistics: Li et al. 2016 (AdaBN).

    As with every method that sees the target, evaluation reads the running statistics of the unlabelled domains, as the
    weights of each step have seen them; `adapt_statistics` measures them again after training, as the paper does.
    """
    return Method(lambda evaluation: (jnp.zeros(()), {}), least_domains=2, needs_norm=True)
