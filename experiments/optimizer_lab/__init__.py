"""Several optimizers side by side in one run, on a small task of this folder or on any other experiment.

`config.of` names the experiment: a module of this folder (`surfaces`, `digits`, `adding`) or of `experiments`.
`config.optimizers` is {name: spec for `canon.optim.make_optimizer`}, of which `config.only` may select a few;
`config.scale` multiplies every learning rate, for a sweep around each optimizer's own. See `canon.tasks.optimizer_lab`.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from matplotlib.figure import Figure
from ml_collections import ConfigDict

from canon import named, plots
from canon.errors import UsageError
from canon.tasks.optimizer_lab import side_by_side
from canon.train import Experiment


def make(config: ConfigDict) -> Experiment:
    """Makes the experiment `config.of` with a copy of its parameters for each of `config.optimizers`."""
    module = _load(config.of)
    base = module.make(_with_any_tx(config))
    experiment = side_by_side(base, select_optimizers(config), tuple(config.get('compare', ())))
    return module.finish(experiment, config) if hasattr(module, 'finish') else experiment


def offline(config: ConfigDict) -> ConfigDict:
    """Returns the config as the experiment `config.of` can be made without a download."""
    module = _load(config.of)
    return module.offline(config) if hasattr(module, 'offline') else config


def draw_batch(config: ConfigDict, experiment: Experiment, batch: Mapping[str, Any]) -> dict[str, Figure]:
    """Draws a batch as the experiment `config.of` does; its arrays where that has no drawing of its own."""
    module = _load(config.of)
    if hasattr(module, 'draw_batch'):
        return module.draw_batch(config, experiment, batch)
    return {'images': plots.draw_image_batch(batch)} if 'image' in batch else {'arrays': plots.draw_array_batch(batch)}


def select_optimizers(config: Mapping[str, Any] | ConfigDict) -> dict[str, dict[str, Any]]:
    """Returns {name: spec} of the optimizers that `only` selects, or of all, with scaled learning rates."""
    optimizers = named.to_plain(config['optimizers'])
    only, scale = tuple(config.get('only', ())), config.get('scale', 1.0)
    for name in only:
        if name not in optimizers:
            raise UsageError(f'only={only}: no optimizer is called {name!r}{named.suggest(name, optimizers)}')
    if not optimizers:
        raise UsageError('optimizers is empty; give {name: spec of an optimizer}')
    # The key names the optimizer unless the spec does, so that one optimizer may occur twice.
    specs = {name: {'name': name, **optimizers[name]} for name in only or sorted(optimizers)}
    return {name: _scale_rate(spec, scale, f'optimizers.{name}') for name, spec in specs.items()}


def _scale_rate(spec: dict[str, Any], scale: float, where: str) -> dict[str, Any]:
    if scale == 1:
        return spec
    rate = spec.get('learning_rate')
    if not isinstance(rate, int | float):
        raise UsageError(f'scale={scale}: {where}.learning_rate must be a number to be scaled, not {rate!r}')
    return {**spec, 'learning_rate': rate * scale}


def _with_any_tx(config: ConfigDict) -> ConfigDict:
    """Adds an optimizer, which every experiment needs and this one does not use."""
    copy = ConfigDict(config.to_dict())
    copy.tx = dict(name='sgd', learning_rate=0.0)
    return copy


def _load(of: str) -> ModuleType:
    # A small task of this folder, else any experiment.
    for name in (f'{__name__}.{of}', f'experiments.{of}'):
        if of.isidentifier() and importlib.util.find_spec(name) is not None:
            module = importlib.import_module(name)
            if hasattr(module, 'make'):
                return module
    here = [path.stem for path in Path(__file__).parent.glob('*.py') if '\ndef make(' in path.read_text()]
    raise UsageError(f'of={of!r} is not an experiment{named.suggest(of, [*here, "classification"])}')
