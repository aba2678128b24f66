"""The task of adaptation: the risk of the labelled domains, and what a method adds to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from canon import named
from canon.errors import UsageError
from canon.models.domain_adversarial import AdaptationNetwork
from canon.tasks.adaptation.adversarial import adda, cdan, dann, mcd
from canon.tasks.adaptation.discrepancy import coral, jan, match_pairs, mcc, mean_cov, mmd
from canon.tasks.adaptation.forward import (
    GROUPS,
    SOURCE_STATISTICS,
    STATISTICS,
    MakeInput,
    list_labelled_names,
    make_encoder,
    make_loss,
)
from canon.tasks.adaptation.generalisation import group_dro, irm, mixup, mldg, v_rex
from canon.tasks.adaptation.methods import Method, source_only
from canon.tasks.adaptation.tuning import FROZEN, ada_bn, bss, lora, lwf
from canon.train import Task, game

METHODS: dict[str, Callable[..., Method]] = {
    function.__name__: function
    for function in (
        *(source_only, dann, cdan, adda, mcd, mmd, jan, coral, mean_cov, match_pairs, mcc, ada_bn),
        *(irm, v_rex, group_dro, mixup, mldg, bss, lwf, lora),
    )
}


def make_method(name: str = 'source_only', **arguments: Any) -> Method:
    """Makes a method of `METHODS` by name. Raises UsageError for an unknown name or argument."""
    if name not in METHODS:
        raise UsageError(f'method.name={name!r} is unknown{named.suggest(name, METHODS)}')
    return named.call(METHODS[name], arguments, 'method')


def adaptation_task(network: AdaptationNetwork, make_input: MakeInput, method: Method) -> Task:
    """Makes the task of training on some domains for another one.

    A batch is {domain: {'image' uint8 [B, H, W, C], 'label' integers [B] of labelled domains, 'mask', 'weight' float32
    [B] of weighted ones}} (`canon.data.domains.make_domain_batches`). Domains pass through the network one after the
    other, so that they may differ in size and do not mix in batch statistics; where a method sees an unlabelled domain,
    the running statistics of BatchNorm are its own, and those of the labelled domains are in `source_batch_stats`.
    `predict` takes batches of the target, or of a domain like it, and gives logits.

    The step of a method with turns is `adaptation_step`: without it, training raises UsageError.

    Args:
      network: the parts.
      make_input: from a batch of one domain to the network's input (`make_image_input`).
      method: of `make_method`.
    """

    sees_target = method.align is not None or bool(method.players or method.turns)

    def init(key, batch):
        _check_domains(batch, method)
        # The same example whatever the method: source-only and adapted networks start from the same parameters.
        name = list_labelled_names(batch)[0]
        images = make_input({**batch[name], 'image': batch[name]['image'][:1]})
        variables = dict(network.init(key, images, method.domain_input, method='initialise'))
        if method.needs_norm and STATISTICS not in variables:
            raise UsageError("method.name='ada_bn' needs batch normalisation; set model.norm='batch'")
        if STATISTICS in variables and sees_target and len(list_labelled_names(batch)) < len(batch):
            variables[SOURCE_STATISTICS] = _copy(variables[STATISTICS])
        if method.weigh is not None:
            count = len(list_labelled_names(batch))
            variables[GROUPS] = {'weights': jnp.full(count, 1 / count)}
        if method.frozen:
            variables[FROZEN] = _copy({k: v for k, v in variables.items() if k in ('params', STATISTICS)})
        return variables

    def descend(evaluation):
        added, own = (0.0, {}) if method.align is None else method.align(evaluation)
        return evaluation.risk + added, {'risk': evaluation.risk, **own}

    read = 'labelled' if method.align is None else 'all'
    predict = make_predict(network, make_input, method)
    task = Task(init, make_loss(network, make_input, method, descend, read), predict)
    if method.players:
        task = task._replace(loss=None, gradient=_make_game(network, make_input, method))
    if method.turns:
        task = task._replace(gradient=_refuse_plain_step)
    return task if method.wrap is None else method.wrap(task)


def make_predict(
    network: AdaptationNetwork, make_input: MakeInput, method: Method, of_source: bool = False
) -> Callable[[Any, Any, Any], jax.Array]:
    """Makes (params, mutable, batch of one domain) -> logits float32 [B, C]: `Task.predict`.

    Arguments as of `make_encoder`: with `of_source` a labelled domain is normalised by its own statistics.
    """
    encode = make_encoder(network, make_input, method, of_source)
    return lambda params, mutable, batch: jnp.asarray(encode(params, mutable, batch)[1], jnp.float32)


def _copy(tree: Any) -> Any:
    # The step donates its state, and no buffer may be in it twice.
    return jax.tree.map(lambda x: x.copy(), tree)


def _check_domains(batch: Mapping[str, Any], method: Method) -> None:
    if not list_labelled_names(batch):
        raise UsageError(f'no domain of the batch is labelled: {", ".join(sorted(batch))}')
    if len(batch) < method.least_domains:
        raise UsageError(f'this method needs at least two domains, and the batch has one: {", ".join(batch)}')


def _make_game(network: AdaptationNetwork, make_input: MakeInput, method: Method) -> Callable:
    """Makes `Task.gradient` of the players of a method, whose metrics have their own names."""
    players = {}
    for name, player in method.players.items():
        loss = make_loss(network, make_input, method, player.objective, player.domains)
        # The running statistics move once per step: by the first player.
        players[name] = player.pattern, _keep_mutable(loss) if players else loss
    simultaneous = game(players)

    def gradient(params, mutable, batch, at):
        grads, loss, mutable, values = simultaneous(params, mutable, batch, at)
        own = {key: value for key, value in values.items() if key.endswith('_loss')}
        for name in players:
            own |= {key.removeprefix(f'{name}_'): x for key, x in values.items() if key.startswith(f'{name}_')}
        own.pop('loss', None)
        return grads, loss, mutable, own

    return gradient


def _keep_mutable(loss: Callable) -> Callable:
    def keep(params, mutable, batch, at):
        mean, (_, values) = loss(params, mutable, batch, at)
        return mean, (mutable, values)

    return keep


def _refuse_plain_step(params, mutable, batch, at):
    raise UsageError(
        'this method moves in turns: give the experiment make_step=adaptation_step(...), or method.steps=0'
    )
