"""Shared settings of configs that fit one scene, object or volume: a falling rate, and when to evaluate."""

from collections.abc import Iterable
from typing import Any


def falling(rate: float, final: float = 0.1) -> dict[str, Any]:
    """A learning rate that falls exponentially, to `final` of what it was at the end of the run."""
    return dict(name='exponential', init=rate, decay=final, steps='100%')


def run(steps: int, evals: Iterable[str] = ('test',), every: str = '50%') -> dict[str, Any]:
    """config.run: so many steps, each evaluation at `every`, a checkpoint in the middle and at the end."""
    return dict(
        steps=f'{steps} steps',
        log_every='5%',
        evals={name: dict(every=every) for name in evals},
        checkpoint=dict(every='50%'),
    )
