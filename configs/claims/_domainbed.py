"""DomainBed's protocol (Gulrajani & Lopez-Paz 2021): splits, seeded hyperparameters, runs that leave out two domains.

Of each domain 80 % train and 20 % are held out. Hyperparameters are drawn at random, number 0 being the default; a run
reports the accuracy on the target's training split, which it never sees. `leave one out` needs, for each pair of
domains, a run that sees neither.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from configs.claims._adaptation import quieten

# {method: {key: (default, draw)}}, the ranges of DomainBed's registry for small images.
Draw = Callable[[np.random.Generator], float]
Registry = Mapping[str, Mapping[str, tuple[float, Draw]]]


def log_uniform(low: float, high: float) -> Draw:
    """Returns a draw of 10^u, u uniform between `low` and `high`."""
    return lambda rng: float(10 ** rng.uniform(low, high))


def log_uniform_integer(low: float, high: float) -> Draw:
    """Returns a draw of the integer part of 10^u."""
    return lambda rng: int(10 ** rng.uniform(low, high))


RATE = {'tx.learning_rate': (1e-3, log_uniform(-4.5, -2.5))}
ANNEAL = {'method.anneal_steps': (500, log_uniform_integer(0, 4))}
REGISTRY: Registry = {
    'source_only': RATE,
    'irm': {**RATE, 'method.weight': (100.0, log_uniform(-1, 5)), **ANNEAL},
    'v_rex': {**RATE, 'method.weight': (10.0, log_uniform(-1, 5)), **ANNEAL},
    'group_dro': {**RATE, 'method.step_size': (1e-2, log_uniform(-3, -1))},
    'mixup': {**RATE, 'method.alpha': (0.2, log_uniform(-1, 1))},
    'mean_cov': {**RATE, 'method.weight': (1.0, log_uniform(-1, 1))},
    'mmd': {**RATE, 'method.weight': (1.0, log_uniform(-1, 1))},
}


def draw_hyperparameters(method: str, number: int) -> dict[str, float]:
    """Returns {key: value} of the hyperparameters `number` of a method; 0 is the default."""
    drawn = {}
    for place, (key, (default, draw)) in enumerate(REGISTRY[method].items()):
        drawn[key] = default if number == 0 else draw(np.random.default_rng((number, place)))
    return drawn


def make_domainbed(
    name: str, source: Mapping[str, Any], model: Mapping[str, Any], domains: Sequence[str], steps: int
) -> ConfigDict:
    """Returns the config of one run on a set of domains, of which the last is the target.

    Args:
      name: of the set of `canon.data.domains`.
      source: its arguments.
      model: name and arguments of the network.
      domains: names of all.
      steps: updates; 5,001 in DomainBed.
    """
    evals = dict(
        target=dict(split='train'),  # never seen in training: reported
        target_held_out=dict(split='test'),  # by which the oracle alone selects
        source=dict(split='test', domain='sources'),
        left_out=dict(split='train', domain=domains[-1]),  # a source that is left out, too; else the target
    )
    return quieten(
        ConfigDict(
            dict(
                experiment='adaptation',
                seed=0,  # of the trial
                hyperparameters=dict(number=0),  # which of the draws this run has
                data=dict(
                    name=name,
                    source=dict(source),
                    domains=dict(sources=tuple(domains[:-1]), target=domains[-1], hidden=False),
                    reading=dict(threads=2, workers=0),
                    batch_size=64,  # of each domain
                    train=dict(split='train', sampler='shuffled'),
                    evals=evals,
                ),
                input=dict(mean=(0.0,), std=(1.0,)),
                model=dict(model),
                method=dict(name='source_only'),
                tx=dict(name='adam', learning_rate=1e-3),
                run=dict(steps=steps, log_every='25%', evals={key: dict(every='100%') for key in evals}),
                target=dict(metric='target/accuracy', at_least=0.1),
            )
        )
    )


def sweep_domainbed(
    methods: Sequence[str], domains: Sequence[str], draws: int, trials: int, leave_out: bool = True
) -> Iterator[dict[str, Any]]:
    """Yields the points of a sweep: every method, target, draw of hyperparameters and trial.

    Args:
      methods: of `REGISTRY`.
      domains: names of all; each is the target once.
      draws: hyperparameters per method, the default among them; 20 in DomainBed.
      trials: seeds; 3 in DomainBed.
      leave_out: whether runs that leave out a second domain are among them.
    """
    for method, number, trial in itertools.product(methods, range(draws), range(trials)):
        common = {
            'method.name': method,
            'hyperparameters.number': number,
            'seed': trial,
            **draw_hyperparameters(method, number),
        }
        for target in domains:
            for other in domains if leave_out else (target,):
                sources = tuple(domain for domain in domains if domain not in (target, other))
                if sources:
                    roles = {'data.domains.target': target, 'data.domains.sources': sources}
                    yield {**common, **roles, 'data.evals.left_out.domain': other}
