"""What the evaluators measured, told to the optimizer."""

from __future__ import annotations

from collections.abc import Mapping


def observe(opt_state, metrics: Mapping[str, float]):
    """The state after an evaluation: call it once per evaluation, with {metric name: value}."""
    return opt_state
