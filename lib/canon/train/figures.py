"""The figures and files of evaluators, made at the end of a run."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from canon.train import shard
from canon.train.log import MetricsWriter
from canon.train.types import Evaluator, Mutable, Params


def draw_figures(
    evals: Mapping[str, Evaluator],
    sums: Mapping[str, Any],
    variables: Callable[[], tuple[Params, Mutable]],
    workdir: Path,
    writer: MetricsWriter | None,
    step: int,
) -> None:
    """Writes `figures/EVALUATOR-TITLE.png`, or `.gif` for animations, and the same figures as TensorBoard events.

    Evaluators with `write` leave their files in `results/EVALUATOR`.

    All processes must call it, for parameters may be divided over them; one writes.

    Args:
      evals: the evaluators by name.
      sums: {evaluator: sums of its accumulators}; those without an entry are not drawn.
      variables: returns parameters and mutable; called only if there is something to draw.
      workdir: the folder of the run.
      writer: the log of the run; None on processes that write nothing.
      step: the step that TensorBoard shows.
    """
    if writer is not None:  # on the process that writes
        for name, evaluator in evals.items():
            if evaluator.write is not None and name in sums:
                folder = workdir / 'results' / name
                folder.mkdir(parents=True, exist_ok=True)
                evaluator.write(sums[name], folder)
    drawers = {name: e.draw for name, e in evals.items() if e.draw is not None and name in sums}
    if not drawers:
        return
    # All processes take part in gathering; drawing is for the one that writes.
    params, mutable = shard.to_host(variables())
    if writer is None:
        return
    (workdir / 'figures').mkdir(exist_ok=True)
    for name, draw in drawers.items():
        for title, picture in draw(params, mutable, sums[name]).items():
            path = workdir / 'figures' / f'{name}-{title}'
            if hasattr(picture, 'savefig'):
                # Rendered once, for both: figures of many images take seconds. Figures have a constrained layout, so
                # that nothing lies outside, and no second pass has to look for it.
                content = io.BytesIO()
                picture.savefig(content, format='png', dpi=100)
                Path(f'{path}.png').write_bytes(content.getvalue())
                writer.write_picture(f'{name}/{title}', content.getvalue(), step)
            else:  # an animation
                picture.save(f'{path}.gif')


def has_figures(workdir: Path, name: str) -> bool:
    """Returns whether figures of the evaluator `name` were drawn before."""
    return any((workdir / 'figures').glob(f'{name}-*'))
